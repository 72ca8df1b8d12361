//! Localities by weight: first one of a priority's localities takes its turn, then one of its hosts.
//!
//! A locality's weight counts as far as its hosts are there: in full while the share of them that is
//! healthy, raised by the overprovisioning factor, is all; else in that proportion.

use std::sync::Arc;

use super::edf::Edf;
use super::priority::Source;
use super::round_robin::RoundRobin;
use super::spread::hosts_of;
use super::zone_aware::ZoneAware;
use super::{Balancer, LbConfig};
use crate::upstream::host::{Availability, Host};
use crate::upstream::hosts::{HostSet, PriorityHosts};

/// How a cluster spreads over localities.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum LocalityPolicy {
    /// Where a host runs does not matter.
    #[default]
    Ignored,
    /// By the weights of localities: `LocalityWeightedLbConfig`.
    Weighted,
    /// The proxy's own zone first: `ZoneAwareLbConfig`.
    ZoneAware(ZoneAware),
}

/// Hosts that take part, and how much their group counts.
#[derive(Debug)]
pub(super) struct Weighed {
    pub(super) hosts: Vec<Arc<Host>>,
    /// More than 0.
    pub(super) weight: f64,
}

/// The weights of a schedule's heaviest entry, to which the others are scaled.
const HEAVIEST: f64 = 1_000_000.0;

/// Hosts that are chosen among, and whose turn it is.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) hosts: Box<[Arc<Host>]>,
    pub(super) turns: Option<RoundRobin>,
}

/// One worker's localities of one priority.
#[derive(Debug)]
pub(super) struct Localities {
    schedule: Edf,
    groups: Vec<Group>,
}

impl Localities {
    /// `random` says where the first turn is.
    pub(super) fn new(weighed: Vec<Weighed>, random: u64) -> Self {
        let heaviest = weighed.iter().map(|group| group.weight).fold(0.0, f64::max);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most 10^6")]
        let scaled = |weight: f64| (weight / heaviest * HEAVIEST).round().max(1.0) as u32;
        let mut schedule = Edf::new(weighed.iter().map(|group| scaled(group.weight)));
        // Workers shall not all begin with the first locality.
        (0..random % 64).for_each(|_| {
            schedule.next();
        });
        let group = |hosts: Vec<Arc<Host>>| Group { hosts: hosts.into(), turns: None };
        let groups = weighed.into_iter().map(|weighed| group(weighed.hosts)).collect();
        Self { schedule, groups }
    }

    /// The locality whose turn it is. O(log n) by the number of localities.
    pub(super) fn next(&mut self, balancer: &Balancer) -> Option<&mut Group> {
        let index = self.schedule.next()?;
        if let LocalityPolicy::ZoneAware(_) = balancer.config.locality {
            let stats = &balancer.counters.zones;
            match index {
                _ if self.groups.len() == 1 => stats.lb_zone_routing_all_directly.inc(),
                0 => stats.lb_zone_routing_sampled.inc(),
                _ => stats.lb_zone_routing_cross_zone.inc(),
            }
        }
        self.groups.get_mut(index)
    }
}

/// Each locality's weight as far as it counts; `None` if localities do not matter: by the policy, in a
/// panic, or because none has a weight.
pub(super) fn weigh(
    set: &HostSet,
    (priority, source): (usize, Source),
    config: &LbConfig,
) -> Option<Vec<Weighed>> {
    let takes_part = match (config.locality, source) {
        (LocalityPolicy::Ignored | LocalityPolicy::ZoneAware(_), _) | (_, Source::All) => {
            return None;
        }
        (LocalityPolicy::Weighted, Source::Healthy) => Availability::Healthy,
        (LocalityPolicy::Weighted, Source::Degraded) => Availability::Degraded,
    };
    let PriorityHosts { hosts, localities, .. } = set.priorities.get(priority)?;
    let mut weighed = Vec::with_capacity(localities.len());
    for locality in localities {
        let all = hosts.get(locality.range.clone()).unwrap_or_default();
        let some: Vec<_> =
            all.iter().filter(|host| host.availability() == takes_part).cloned().collect();
        if some.is_empty() || locality.weight == 0 {
            continue;
        }
        // One that takes requests is never excluded, so this is less than all.
        let excluded = all.iter().filter(|host| config.excludes(host)).count();
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 hosts")]
        let share = some.len() as f64 / (all.len() - excluded) as f64;
        let available = (share * f64::from(set.policy.overprovisioning_factor) / 100.0).min(1.0);
        weighed.push(Weighed { hosts: some, weight: f64::from(locality.weight) * available });
    }
    (!weighed.is_empty()).then_some(weighed)
}

/// Hosts and each one's share of all requests, by the weights of hosts and, if the policy says so, of
/// localities. For policies that hash: they choose among all hosts at once.
pub(super) fn shares(
    set: &HostSet,
    (priority, source): (usize, Source),
    config: &LbConfig,
) -> Vec<(Arc<Host>, f64)> {
    let weighed = weigh(set, (priority, source), config).unwrap_or_else(|| {
        let hosts = hosts_of(&set.priorities[priority], source);
        vec![Weighed { hosts: hosts.to_vec(), weight: 1.0 }]
    });
    let total: f64 = weighed.iter().map(|group| group.weight).sum();
    let of_group = |Weighed { hosts, weight }: Weighed| {
        let sum: f64 = hosts.iter().map(|host| f64::from(host.weight())).sum();
        hosts.into_iter().map(move |host| {
            let share = f64::from(host.weight()) / sum * weight / total;
            (host, share)
        })
    };
    weighed.into_iter().flat_map(of_group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::health::Health;
    use crate::upstream::host::HealthStatus::{self, Healthy, Unhealthy};
    use crate::upstream::hosts::Endpoints;
    use crate::upstream::hosts::tests::endpoints;

    /// One locality for each weight, all of priority 0.
    fn set(localities: &[(u32, &[HealthStatus])]) -> HostSet {
        let mut all = Endpoints { localities: Vec::new(), ..endpoints(&[]) };
        let hosts: Vec<_> = localities
            .iter()
            .flat_map(|(_, healths)| healths.iter().map(|health| (0, *health, 1)))
            .collect();
        let mut made = endpoints(&hosts).localities.into_iter();
        for (weight, healths) in localities {
            let mut one = made.next().unwrap();
            one.weight = *weight;
            for _ in 1..healths.len() {
                one.endpoints.extend(made.next().unwrap().endpoints);
            }
            all.localities.push(one);
        }
        HostSet::build(&all, &HostSet::default(), Health::Healthy).0
    }

    fn weighted() -> LbConfig {
        LbConfig { locality: LocalityPolicy::Weighted, ..LbConfig::default() }
    }

    fn counts(set: &HostSet, turns: usize) -> Vec<usize> {
        let at = (0, Source::Healthy);
        let mut localities = Localities::new(weigh(set, at, &weighted()).unwrap(), 0);
        let mut counts = vec![0; localities.groups.len()];
        for _ in 0..turns {
            counts[localities.schedule.next().unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn weight_decides_between_localities_and_not_the_number_of_hosts() {
        let set = set(&[(1, &[Healthy; 4]), (3, &[Healthy]), (0, &[Healthy; 9])]);
        assert_eq!(counts(&set, 400), [100, 300], "one without a weight gets nothing");
    }

    #[test]
    fn a_locality_loses_weight_when_it_loses_more_hosts_than_is_provided_for() {
        let some = set(&[(1, &[Healthy, Healthy, Healthy, Unhealthy]), (1, &[Healthy])]);
        assert_eq!(counts(&some, 400), [200, 200], "three quarters of hosts are enough");
        let few = set(&[(1, &[Healthy, Unhealthy, Unhealthy, Unhealthy]), (1, &[Healthy])]);
        let counts = counts(&few, 1_350);
        assert_eq!(counts, [350, 1_000], "1.4 times a quarter");
    }

    #[test]
    fn without_weights_or_in_a_panic_localities_do_not_matter() {
        let none = set(&[(0, &[Healthy]), (0, &[Healthy])]);
        assert!(weigh(&none, (0, Source::Healthy), &weighted()).is_none());
        let some = set(&[(1, &[Healthy])]);
        assert!(weigh(&some, (0, Source::All), &weighted()).is_none());
        let ignored = LbConfig::default();
        assert!(weigh(&some, (0, Source::Healthy), &ignored).is_none());
    }

    #[test]
    fn shares_multiply_the_weights_of_hosts_and_localities() {
        let set = set(&[(1, &[Healthy, Healthy]), (3, &[Healthy])]);
        let of = |config: &LbConfig| -> Vec<f64> {
            shares(&set, (0, Source::Healthy), config).into_iter().map(|(_, s)| s).collect()
        };
        assert_eq!(of(&weighted()), [0.125, 0.125, 0.75]);
        let third = 1.0 / 3.0;
        assert_eq!(of(&LbConfig::default()), [third, third, third]);
    }
}
