//! Choosing a host: first a priority, then one of its hosts by the cluster's policy.
//!
//! A `Balancer` belongs to one worker. It follows the cluster's host set by its pointer, so that an
//! update takes effect at the next choice without anybody being woken.

mod edf;
pub mod hashing;
mod least_request;
pub mod locality;
mod maglev;
mod priority;
mod ring_hash;
mod round_robin;

use std::sync::Arc;

use parking_lot::Mutex;
use thiserror::Error;

use self::hashing::{HashConfig, HashTable};
use self::locality::{Localities, LocalityPolicy};
use self::priority::{Loads, Source};
use self::round_robin::RoundRobin;
use super::health::Health;
use super::host::Host;
use super::hosts::{HostSet, PriorityHosts};
use super::stats::ClusterStats;

/// How a host is chosen among those of its priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LbPolicy {
    /// Each in turn, by weight.
    RoundRobin,
    /// Any, whatever its weight.
    Random,
    /// The least loaded of a few drawn at random.
    LeastRequest {
        /// How many are drawn; at least 2.
        choices: u32,
    },
    /// The one that the request's hash belongs to.
    Hash(HashConfig),
}

/// A cluster's choice of hosts: `lb_policy` and `common_lb_config`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LbConfig {
    /// How a host is chosen.
    pub policy: LbPolicy,
    /// `healthy_panic_threshold` in percent; 0 never panics.
    pub panic_threshold: f64,
    /// How it spreads over localities.
    pub locality: LocalityPolicy,
    /// Hosts that are not checked yet do not count in a panic.
    pub ignore_new_hosts: bool,
}

impl LbConfig {
    /// Whether a host does not count where shares of healthy hosts are computed.
    pub(super) fn excludes(&self, host: &Host) -> bool {
        match host.checked() {
            Health::Excluded => true,
            Health::Pending => self.ignore_new_hosts,
            _ => false,
        }
    }
}

impl Default for LbConfig {
    fn default() -> Self {
        Self {
            policy: LbPolicy::RoundRobin,
            panic_threshold: 50.0,
            locality: LocalityPolicy::default(),
            ignore_new_hosts: false,
        }
    }
}

/// What a choice may depend on.
#[derive(Debug, Clone, Copy, Default)]
pub struct LbContext {
    /// The request's hash, if the route computes one; it also chooses the priority.
    pub hash: Option<u64>,
}

/// No host can take the request: Envoy's `UH`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("no healthy upstream")]
pub struct NoHost;

/// One worker's choice of hosts of one cluster.
#[derive(Debug)]
pub(super) struct Balancer {
    config: LbConfig,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    set: Option<Arc<HostSet>>,
    loads: Loads,
    /// By priority and source, made on first use after the set changed.
    turns: Vec<[Option<Turns>; 3]>,
    random: u64,
}

/// Whose turn it is among the hosts of a priority.
#[derive(Debug)]
enum Turns {
    /// Of all of them at once.
    Hosts(Option<RoundRobin>),
    /// Of the localities, then of a locality's hosts.
    Localities(Localities),
}

impl Balancer {
    pub(super) fn new(config: LbConfig) -> Self {
        let random = rand::random();
        let state = State { set: None, loads: Loads::default(), turns: Vec::new(), random };
        Self { config, state: Mutex::new(state) }
    }

    /// Follows `set`; true if it is another than last time.
    pub(super) fn follow(&self, set: &Arc<HostSet>) -> bool {
        self.state.lock().follow(set, self.config)
    }

    /// A host for a request. O(1), or O(log n) among unequal weights.
    pub(super) fn choose(&self, cx: &LbContext, stats: &ClusterStats) -> Result<Arc<Host>, NoHost> {
        let mut state = self.state.lock();
        let State { set, loads, turns, random } = &mut *state;
        let set = set.as_ref().ok_or(NoHost)?;
        let mut draw = || next_random(random);
        let chosen = loads.choose(|| cx.hash.unwrap_or_else(&mut draw));
        let (priority, source) = chosen.ok_or(NoHost)?;
        let hosts = hosts_of(&set.priorities[priority], source);
        if source == Source::All {
            stats.lb_healthy_panic.inc();
        }
        if let LbPolicy::Hash(config) = self.config.policy {
            let hash = cx.hash.unwrap_or_else(&mut draw);
            let table = set.hash_table(priority, source as usize).ok_or(NoHost)?;
            return Ok(table.choose(hash, config.balance_factor, stats));
        }
        let turns = turns[priority][source as usize].get_or_insert_with(|| {
            let at = (priority, source);
            match Localities::new(set, at, &self.config, draw()) {
                Some(localities) => Turns::Localities(localities),
                None => Turns::Hosts(None),
            }
        });
        let (hosts, turns) = match turns {
            Turns::Hosts(turns) => (hosts, turns),
            Turns::Localities(localities) => {
                let group = localities.next().ok_or(NoHost)?;
                (&*group.hosts, &mut group.turns)
            }
        };
        let index = match self.config.policy {
            LbPolicy::RoundRobin => {
                turns.get_or_insert_with(|| RoundRobin::new(hosts, draw())).next(hosts)
            }
            LbPolicy::Random if hosts.is_empty() => None,
            LbPolicy::Random => usize::try_from(draw() % hosts.len() as u64).ok(),
            LbPolicy::LeastRequest { choices } => least_request::choose(hosts, choices, draw),
            // Above.
            LbPolicy::Hash(_) => None,
        };
        index.and_then(|index| hosts.get(index)).cloned().ok_or(NoHost)
    }
}

/// The tables that requests to `set` will be hashed to, by priority and source. Made where the set is
/// published, as it takes too long for the path of a request.
pub(super) fn hash_tables(set: &HostSet, config: &LbConfig) -> HashTables {
    let LbPolicy::Hash(hashing) = &config.policy else { return HashTables::default() };
    let mut tables = HashTables::default();
    tables.resize_with(set.priorities.len(), Default::default);
    for (priority, source) in Loads::of(set, config.panic_threshold).used() {
        let hosts = locality::shares(set, (priority, source), config);
        tables[priority][source as usize] = HashTable::build(hashing, hosts);
    }
    tables
}

/// By priority and source.
pub(super) type HashTables = Vec<[Option<HashTable>; 3]>;

impl State {
    fn follow(&mut self, set: &Arc<HostSet>, config: LbConfig) -> bool {
        if self.set.as_ref().is_some_and(|current| Arc::ptr_eq(current, set)) {
            return false;
        }
        self.loads = Loads::of(set, config.panic_threshold);
        self.turns.clear();
        self.turns.resize_with(set.priorities.len(), Default::default);
        self.set = Some(Arc::clone(set));
        true
    }
}

fn hosts_of(priority: &PriorityHosts, source: Source) -> &[Arc<Host>] {
    match source {
        Source::Healthy => &priority.healthy,
        Source::Degraded => &priority.degraded,
        Source::All => &priority.hosts,
    }
}

/// SplitMix64: a few cycles, and good enough to spread load.
fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::upstream::host::HealthStatus::{self, Draining, Timeout, Unhealthy, Unknown};
    use crate::upstream::hosts::tests::set;

    fn counts(
        policy: LbPolicy,
        hosts: &[(u32, HealthStatus, u32)],
        requests: u32,
    ) -> BTreeMap<u16, u32> {
        let balancer = Balancer::new(LbConfig { policy, ..LbConfig::default() });
        balancer.follow(&set(hosts));
        let mut counts = BTreeMap::new();
        for _ in 0..requests {
            let host = balancer.choose(&LbContext::default(), &ClusterStats::default()).unwrap();
            *counts.entry(host.address().port()).or_default() += 1;
        }
        counts
    }

    #[test]
    fn round_robin_is_exact_by_weight_and_health() {
        type Case = (&'static [(u32, HealthStatus, u32)], u32, &'static [(u16, u32)]);
        let cases: &[Case] = &[
            (&[(0, Unknown, 1)], 12, &[(1, 12)]),
            (&[(0, Unknown, 1), (0, Unknown, 1)], 12, &[(1, 6), (2, 6)]),
            (&[(0, Draining, 1), (0, Unknown, 1)], 12, &[(2, 12)]),
            (&[(0, Unknown, 1), (0, Unhealthy, 1), (0, Unknown, 1)], 12, &[(1, 6), (3, 6)]),
            (&[(0, Unknown, 3), (0, Unknown, 1)], 40, &[(1, 30), (2, 10)]),
            (&[(0, Draining, 1)], 4, &[(1, 4)]),
            (&[(0, Timeout, 1), (1, Unknown, 7), (1, Unknown, 7)], 8, &[(2, 4), (3, 4)]),
        ];
        for (hosts, requests, expected) in cases {
            let expected: BTreeMap<_, _> = expected.iter().copied().collect();
            assert_eq!(counts(LbPolicy::RoundRobin, hosts, *requests), expected, "{hosts:?}");
        }
    }

    #[test]
    fn random_reaches_every_healthy_host_about_equally() {
        let hosts = [(0, Unknown, 1), (0, Unknown, 9), (0, Unhealthy, 1)];
        let counts = counts(LbPolicy::Random, &hosts, 10_000);
        assert_eq!(counts.len(), 2);
        assert!(counts.values().all(|n| (4_500..5_500).contains(n)), "{counts:?}");
    }

    #[test]
    fn least_request_prefers_the_idle_host() {
        let hosts = set(&[(0, Unknown, 1), (0, Unknown, 1)]);
        hosts.priorities[0].hosts[0].stats.rq_active.add(10);
        let policy = LbPolicy::LeastRequest { choices: 2 };
        let balancer = Balancer::new(LbConfig { policy, ..LbConfig::default() });
        balancer.follow(&hosts);
        let busy = (0..1_000)
            .filter(|_| {
                let host = balancer.choose(&LbContext::default(), &ClusterStats::default());
                host.unwrap().address().port() == 1
            })
            .count();
        assert!((150..350).contains(&busy), "{busy}");
    }

    #[test]
    fn an_empty_set_has_no_host_and_a_new_set_is_followed() {
        let balancer = Balancer::new(LbConfig::default());
        let choose = || balancer.choose(&LbContext::default(), &ClusterStats::default());
        assert_eq!(choose().unwrap_err(), NoHost);
        let one = set(&[(0, Unknown, 1)]);
        assert!(balancer.follow(&one) && !balancer.follow(&one));
        assert!(choose().is_ok());
        assert!(balancer.follow(&set(&[])));
        assert_eq!(choose().unwrap_err(), NoHost);
    }
}
