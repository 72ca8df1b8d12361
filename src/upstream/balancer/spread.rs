//! How requests are spread over one set of hosts: the whole of a cluster, or a subset.

use std::sync::Arc;

use tokio::time::Instant;

use super::locality::{self, Localities, LocalityPolicy};
use super::priority::{Loads, Source};
use super::round_robin::RoundRobin;
use super::{Balancer, LbConfig, LbContext, LbPolicy, below, next_random, zone_aware};
use crate::upstream::host::Host;
use crate::upstream::hosts::{HostSet, PriorityHosts};
use crate::upstream::zone::ZoneCounts;

/// A host in slow start is passed over so often at the most for one request.
const SLOW_START_DRAWS: usize = 16;

/// One worker's state of one set of hosts.
#[derive(Debug, Default)]
pub(super) struct Spread {
    loads: Loads,
    /// By priority and source, made on first use.
    turns: Vec<[Option<Turns>; 3]>,
    /// Until then some host is in slow start.
    slow_until: Option<Instant>,
}

/// Whose turn it is among the hosts of a priority.
#[derive(Debug, Default)]
struct Turns {
    /// Of the localities, then of a locality's hosts, if localities matter.
    localities: Option<Localities>,
    /// Of all of them at once.
    hosts: Option<RoundRobin>,
}

impl Spread {
    pub(super) fn of(set: &HostSet, config: &LbConfig) -> Self {
        let mut turns = Vec::new();
        turns.resize_with(set.priorities.len(), Default::default);
        let slow_until = config.slow_start.and_then(|slow_start| {
            let last = set.iter().map(|host| host.up_since()).max()?;
            last.checked_add(slow_start.window).filter(|until| *until > Instant::now())
        });
        Self { loads: Loads::of(set, config.panic_threshold), turns, slow_until }
    }

    /// Whether some host may be in slow start.
    #[cfg(test)]
    pub(super) fn is_slow(&self) -> bool {
        self.slow_until.is_some()
    }

    /// A host for a request.
    pub(super) fn choose(
        &mut self,
        (set, counts): (&HostSet, Option<&ZoneCounts>),
        balancer: &Balancer,
        cx: &LbContext<'_>,
        random: &mut u64,
    ) -> Option<Arc<Host>> {
        let Balancer { config, counters, zone, .. } = balancer;
        let mut draw = || next_random(random);
        let others = match cx.without_priorities {
            0 => None,
            without => Some(Loads::without(set, config.panic_threshold, without)),
        };
        let loads = others.as_ref().filter(|others| !others.is_empty()).unwrap_or(&self.loads);
        let (priority, source) = loads.choose(|| cx.hash.unwrap_or_else(&mut draw))?;
        if source == Source::All {
            if let LocalityPolicy::ZoneAware(zones) = config.locality
                && zones.fail_traffic_on_panic
            {
                return None;
            }
            counters.cluster.lb_healthy_panic.inc();
        }
        if let LbPolicy::Hash(hashing) = config.policy {
            let hash = cx.hash.unwrap_or_else(&mut draw);
            let table = set.hash_table(priority, source as usize)?;
            return Some(table.choose(hash, hashing.balance_factor, &counters.cluster));
        }
        let turns = self.turns[priority][source as usize].get_or_insert_with(|| {
            let weighed = match (config.locality, zone) {
                (LocalityPolicy::ZoneAware(zones), Some(zone))
                    if (priority, source) == (0, Source::Healthy) =>
                {
                    zone_aware::weigh(set, &zones, (zone, counts), &counters.zones)
                }
                _ => locality::weigh(set, (priority, source), config),
            };
            let localities = weighed.map(|weighed| Localities::new(weighed, draw()));
            Turns { localities, hosts: None }
        });
        let all = hosts_of(&set.priorities[priority], source);
        let slow_start = config.slow_start.filter(|_| self.slow_until.is_some());
        let now = slow_start.map(|_| Instant::now());
        if self.slow_until.is_some_and(|until| now.is_some_and(|now| now >= until)) {
            self.slow_until = None;
        }
        let mut last = None;
        for _ in 0..SLOW_START_DRAWS {
            let host = turns.next(all, balancer, &mut draw)?;
            let (Some(slow_start), Some(now)) = (slow_start, now) else { return Some(host) };
            let factor = slow_start.factor(now.saturating_duration_since(host.up_since()));
            if factor >= 1.0 || chance(draw()) < factor {
                return Some(host);
            }
            last = Some(host);
        }
        last
    }
}

impl Turns {
    /// The host whose turn it is.
    fn next(
        &mut self,
        all: &[Arc<Host>],
        balancer: &Balancer,
        draw: &mut impl FnMut() -> u64,
    ) -> Option<Arc<Host>> {
        let Self { localities, hosts } = self;
        let enabled = match balancer.config.locality {
            LocalityPolicy::ZoneAware(zones) if zones.routing_enabled < 100.0 => {
                chance(draw()) * 100.0 < zones.routing_enabled
            }
            _ => true,
        };
        let (hosts, turns) = match localities.as_mut().filter(|_| enabled) {
            None => (all, hosts),
            Some(localities) => {
                let group = localities.next(balancer)?;
                (&*group.hosts, &mut group.turns)
            }
        };
        let index = match balancer.config.policy {
            LbPolicy::RoundRobin => {
                turns.get_or_insert_with(|| RoundRobin::new(hosts, draw())).next(hosts)
            }
            LbPolicy::Random if hosts.is_empty() => None,
            LbPolicy::Random => Some(below(draw(), hosts.len())),
            LbPolicy::LeastRequest(policy) => policy.choose(hosts, draw),
            // Chosen by its table.
            LbPolicy::Hash(_) => None,
        };
        index.and_then(|index| hosts.get(index)).cloned()
    }
}

/// A random number as a part of one.
#[expect(clippy::cast_precision_loss, reason = "53 of its bits are enough")]
fn chance(random: u64) -> f64 {
    (random >> 11) as f64 / (1u64 << 53) as f64
}

pub(super) fn hosts_of(priority: &PriorityHosts, source: Source) -> &[Arc<Host>] {
    match source {
        Source::Healthy => &priority.healthy,
        Source::Degraded => &priority.degraded,
        Source::All => &priority.hosts,
    }
}
