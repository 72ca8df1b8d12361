//! How load is spread over priorities, and when a priority panics.
//!
//! A priority's availability is the share of its hosts that is healthy (or degraded), raised by the
//! overprovisioning factor, at most 100 percent. Priorities are filled in order, healthy hosts
//! of all first, then degraded ones. If what is available does not add up to 100, it is scaled up,
//! and a priority whose usable share is below the panic threshold sends to all its hosts.

use std::sync::Arc;

use crate::upstream::host::Host;
use crate::upstream::hosts::{HostSet, PriorityHosts};

/// Which hosts of a priority take part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Healthy,
    Degraded,
    /// Panic: health is ignored.
    All,
}

/// Where requests go, in percent, for one [`HostSet`].
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Loads {
    /// Upper bounds of the ranges of 0..100, with the priority and hosts each goes to.
    ranges: Vec<(u32, usize, Source)>,
}

impl Loads {
    /// `panic_threshold` in percent; 0 never panics.
    pub(super) fn of(set: &HostSet, panic_threshold: f64) -> Self {
        Self::without(set, panic_threshold, 0)
    }

    /// Whether nothing goes anywhere.
    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The same, as if some priorities, by bit, had no host that takes requests.
    pub(super) fn without(set: &HostSet, panic_threshold: f64, without: u128) -> Self {
        let is_out = |priority: usize| {
            u32::try_from(priority).is_ok_and(|p| without.checked_shr(p).unwrap_or(0) & 1 == 1)
        };
        let factor = u64::from(set.policy.overprovisioning_factor);
        let by_weight = set.policy.weighted_priority_health;
        let percent = |part: &[Arc<Host>], of: &PriorityHosts| -> u32 {
            let weight =
                |hosts: &[Arc<Host>]| hosts.iter().map(|h| u64::from(h.weight())).sum::<u64>();
            let (part, all) = match by_weight {
                // Reported weights change at any time: the difference may be anything for a moment.
                true => (weight(part), weight(&of.hosts).saturating_sub(weight(&of.excluded))),
                false => (part.len() as u64, counted(of) as u64),
            };
            if all == 0 {
                return 0;
            }
            let share = (factor.saturating_mul(part) / all).min(100);
            u32::try_from(share).unwrap_or(100)
        };
        let priorities = &set.priorities;
        let percents = |of: fn(&PriorityHosts) -> &[Arc<Host>]| -> Vec<u32> {
            let part =
                |(i, p): (usize, &PriorityHosts)| if is_out(i) { 0 } else { percent(of(p), p) };
            priorities.iter().enumerate().map(part).collect()
        };
        let healthy = percents(|p| &p.healthy);
        let degraded = percents(|p| &p.degraded);
        let available = healthy.iter().chain(&degraded).sum::<u32>().min(100);

        let panics: Vec<bool> =
            priorities.iter().map(|p| available < 100 && in_panic(p, panic_threshold)).collect();
        let mut loads = Self::default();
        if available == 0 || panics.iter().all(|p| *p) {
            if panic_threshold > 0.0 && without == 0 {
                loads.spread_over_all(set);
            }
            return loads;
        }
        let mut left = 100;
        let mut shares: Vec<(u32, usize, Source)> = Vec::new();
        for (shares_of, source) in [(&healthy, Source::Healthy), (&degraded, Source::Degraded)] {
            for (priority, share) in shares_of.iter().enumerate() {
                let load = (share * 100 / available).min(left);
                left -= load;
                shares.push((load, priority, source));
            }
        }
        // Rounding may leave a few percent over: they go where traffic goes first.
        if let Some(first) = shares.iter_mut().find(|(load, ..)| *load > 0) {
            first.0 += left;
        }
        for (load, priority, source) in shares {
            let source = if panics[priority] { Source::All } else { source };
            loads.add(load, priority, source);
        }
        loads
    }

    /// All priorities panic: each takes as much as it has hosts.
    fn spread_over_all(&mut self, set: &HostSet) {
        let total = set.len();
        let Some(first) = set.priorities.iter().position(|p| !p.hosts.is_empty()) else { return };
        let load = |p: &PriorityHosts| u32::try_from(p.hosts.len() * 100 / total).unwrap_or(100);
        let sum: u32 = set.priorities.iter().map(load).sum();
        for (priority, hosts) in set.priorities.iter().enumerate() {
            let rest = if priority == first { 100 - sum } else { 0 };
            self.add(load(hosts) + rest, priority, Source::All);
        }
    }

    /// The priorities and hosts that get any.
    pub(super) fn used(&self) -> impl Iterator<Item = (usize, Source)> {
        self.ranges.iter().map(|(_, priority, source)| (*priority, *source))
    }

    fn add(&mut self, load: u32, priority: usize, source: Source) {
        if load > 0 {
            let before = self.ranges.last().map_or(0, |(bound, ..)| *bound);
            self.ranges.push((before + load, priority, source));
        }
    }

    /// The priority and hosts for a request; `random` is drawn only if there is a choice.
    pub(super) fn choose(&self, random: impl FnOnce() -> u64) -> Option<(usize, Source)> {
        if let [(_, priority, source)] = self.ranges[..] {
            return Some((priority, source));
        }
        let at = random() % 100;
        let range = self.ranges.iter().find(|(bound, ..)| at < u64::from(*bound));
        range.map(|&(_, priority, source)| (priority, source))
    }
}

/// The hosts of which shares are computed.
fn counted(priority: &PriorityHosts) -> usize {
    priority.hosts.len() - priority.excluded.len()
}

fn in_panic(priority: &PriorityHosts, threshold: f64) -> bool {
    let usable = priority.healthy.len() + priority.degraded.len();
    let all = counted(priority).max(1);
    let share = |n: usize| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
    100.0 * share(usable) / share(all) < threshold
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::balancer::LbConfig;
    use crate::upstream::health::Health;
    use crate::upstream::host::HealthStatus::{self, Degraded, Draining, Healthy, Unhealthy};
    use crate::upstream::hosts::tests::set;

    fn loads(hosts: &[(u32, HealthStatus)], panic_threshold: f64) -> Vec<(u32, usize, Source)> {
        let hosts: Vec<_> = hosts.iter().map(|(p, h)| (*p, *h, 1)).collect();
        Loads::of(&set(&hosts), panic_threshold).ranges
    }

    #[test]
    fn load_follows_health() {
        use Source::{All, Degraded as D, Healthy as H};
        type Case = (&'static [(u32, HealthStatus)], f64, &'static [(u32, usize, Source)]);
        let cases: &[Case] = &[
            (&[], 50.0, &[]),
            (&[(0, Healthy), (1, Healthy)], 50.0, &[(100, 0, H)]),
            (&[(0, Healthy), (0, Unhealthy), (1, Healthy)], 50.0, &[(70, 0, H), (100, 1, H)]),
            (&[(0, Unhealthy), (0, Draining), (1, Healthy)], 50.0, &[(100, 1, H)]),
            (&[(0, Draining), (0, Healthy)], 50.0, &[(100, 0, H)]),
            (&[(0, Draining)], 50.0, &[(100, 0, All)]),
            (&[(0, Draining)], 0.0, &[]),
            (&[(0, Unhealthy), (0, Unhealthy), (0, Healthy)], 50.0, &[(100, 0, All)]),
            (&[(0, Unhealthy), (0, Unhealthy), (0, Healthy)], 0.0, &[(100, 0, H)]),
            (&[(0, Unhealthy), (0, Degraded), (0, Healthy)], 50.0, &[(50, 0, H), (100, 0, D)]),
            (
                &[(0, Unhealthy), (1, Unhealthy), (1, Unhealthy)],
                50.0,
                &[(34, 0, All), (100, 1, All)],
            ),
            (&[(2, Healthy)], 50.0, &[(100, 2, H)]),
        ];
        for (hosts, threshold, expected) in cases {
            assert_eq!(loads(hosts, *threshold), *expected, "{hosts:?} {threshold}");
        }
    }

    #[test]
    fn a_larger_overprovisioning_factor_keeps_load_longer() {
        let mut half = set(&[(0, Healthy, 1), (0, Unhealthy, 1), (1, Healthy, 1)]);
        Arc::get_mut(&mut half).unwrap().policy.overprovisioning_factor = 200;
        assert_eq!(Loads::of(&half, 50.0).ranges, [(100, 0, Source::Healthy)]);
    }

    #[test]
    fn health_may_be_that_of_the_weights() {
        let mut uneven = set(&[(0, Healthy, 9), (0, Unhealthy, 1), (1, Healthy, 1)]);
        assert_eq!(Loads::of(&uneven, 0.0).ranges[0].0, 70);
        let policy = &mut Arc::get_mut(&mut uneven).unwrap().policy;
        policy.weighted_priority_health = true;
        assert_eq!(Loads::of(&uneven, 0.0).ranges[0].0, 100);
    }

    #[test]
    fn hosts_whose_health_is_not_known_count_unless_they_are_ignored() {
        let load_of_first = |by_weight, ignore_new_hosts| {
            let mut some =
                set(&[(0, Healthy, 1), (0, Healthy, 5), (0, Healthy, 4), (1, Healthy, 1)]);
            for host in &some.priorities[0].hosts[1..] {
                host.set_checked(Health::Pending);
            }
            let some = Arc::get_mut(&mut some).unwrap();
            *some = some.resorted();
            some.policy.weighted_priority_health = by_weight;
            some.prepare(&LbConfig { ignore_new_hosts, ..LbConfig::default() });
            Loads::of(some, 50.0).ranges[0]
        };
        assert_eq!(load_of_first(false, false), (46, 0, Source::Healthy));
        assert_eq!(load_of_first(true, false), (14, 0, Source::Healthy));
        assert_eq!(load_of_first(false, true), (100, 0, Source::Healthy));
        assert_eq!(load_of_first(true, true), (100, 0, Source::Healthy));
    }
}
