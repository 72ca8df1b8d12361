//! Choosing a host: first a priority, then one of its hosts by the cluster's policy.
//!
//! ```text
//! Balancer   one worker's; follows the cluster's host set by its pointer
//!   override_host   the host that a session is pinned to
//!   subset          the part of the hosts that a route wants
//!   priority        which priority, and whether it panics
//!   locality, zone_aware    which locality
//!   round_robin, least_request, hashing (ring_hash, maglev)    which host
//! ```
//!
//! An update takes effect at the next choice without anybody being woken.

mod edf;
pub mod hashing;
pub mod least_request;
pub mod locality;
mod maglev;
mod priority;
mod ring_hash;
mod round_robin;
pub mod slow_start;
mod spread;
pub mod subset;
#[cfg(test)]
mod tests;
pub mod zone_aware;

use std::sync::Arc;

use parking_lot::Mutex;
use thiserror::Error;

use self::hashing::{HashConfig, HashTable};
use self::least_request::LeastRequest;
use self::locality::LocalityPolicy;
use self::priority::Loads;
use self::slow_start::SlowStart;
use self::spread::Spread;
pub(super) use self::subset::Subsets;
use self::subset::{Part, SubsetConfig, SubsetStats};
use self::zone_aware::ZoneStats;
use super::Cluster;
use super::health::Health;
use super::host::{Availability, HealthStatus, Host};
use super::hosts::HostSet;
use super::load_report::LoadReportConfig;
use super::stats::ClusterStats;
use super::zone::{LocalZone, ZoneCounts};
use crate::config::metadata::MetadataMatch;
use crate::exchange::OverrideHost;

/// How a host is chosen among those of its priority.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LbPolicy {
    /// Each in turn, by weight.
    RoundRobin,
    /// Any, whatever its weight.
    Random,
    /// The least loaded.
    LeastRequest(LeastRequest),
    /// The one that the request's hash belongs to.
    Hash(HashConfig),
}

/// A cluster's choice of hosts: `lb_policy` and `common_lb_config`.
#[derive(Debug, Clone, PartialEq)]
pub struct LbConfig {
    /// How a host is chosen.
    pub policy: LbPolicy,
    /// `healthy_panic_threshold` in percent; 0 never panics.
    pub panic_threshold: f64,
    /// How it spreads over localities.
    pub locality: LocalityPolicy,
    /// Hosts that are not checked yet do not count in a panic.
    pub ignore_new_hosts: bool,
    /// New hosts get their share little by little.
    pub slow_start: Option<SlowStart>,
    /// Hosts are weighed by the load that they report.
    pub load_reports: Option<Box<LoadReportConfig>>,
    /// Parts of the hosts that routes may want.
    pub subsets: Option<Arc<SubsetConfig>>,
    /// What a host may be that a session is pinned to: a bit for each [`HealthStatus`].
    pub override_statuses: u8,
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
        use HealthStatus::{Degraded, Healthy, Unknown};
        Self {
            policy: LbPolicy::RoundRobin,
            panic_threshold: 50.0,
            locality: LocalityPolicy::default(),
            ignore_new_hosts: false,
            slow_start: None,
            load_reports: None,
            subsets: None,
            override_statuses: [Unknown, Healthy, Degraded].map(|s| 1 << s as u8).iter().sum(),
        }
    }
}

/// What a choice may depend on.
#[derive(Debug, Clone, Copy, Default)]
pub struct LbContext<'a> {
    /// The request's hash, if the route computes one; it also chooses the priority.
    pub hash: Option<u64>,
    /// What the route wants of the host's metadata.
    pub metadata: Option<&'a MetadataMatch>,
    /// The host that the request's session is pinned to.
    pub override_host: Option<&'a OverrideHost>,
    /// Priorities to keep away from if there are others, by bit.
    pub without_priorities: u128,
}

/// No host can take the request: Envoy's `UH`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("no healthy upstream")]
pub struct NoHost;

/// One worker's choice of hosts of one cluster.
#[derive(Debug)]
pub(super) struct Balancer {
    config: LbConfig,
    counters: Counters,
    zone: Option<Arc<LocalZone>>,
    state: Mutex<State>,
}

/// Where choices are counted.
#[derive(Debug)]
struct Counters {
    cluster: Arc<ClusterStats>,
    subsets: Arc<SubsetStats>,
    zones: Arc<ZoneStats>,
}

#[derive(Debug)]
struct State {
    set: Option<Arc<HostSet>>,
    counts: Option<Arc<ZoneCounts>>,
    whole: Spread,
    /// By subset, made on first use after the set changed.
    parts: Vec<Option<Spread>>,
    random: u64,
}

impl Balancer {
    pub(super) fn new(cluster: &Cluster) -> Self {
        let counters = Counters {
            cluster: Arc::clone(&cluster.stats),
            subsets: cluster.subset_stats.clone().unwrap_or_default(),
            zones: cluster.zone_stats.clone().unwrap_or_default(),
        };
        let is_zone_aware = matches!(cluster.lb.locality, LocalityPolicy::ZoneAware(_));
        let zone = cluster.zone.clone().filter(|_| is_zone_aware);
        Self::with(cluster.lb.clone(), counters, zone)
    }

    fn with(config: LbConfig, counters: Counters, zone: Option<Arc<LocalZone>>) -> Self {
        let state = State {
            set: None,
            counts: None,
            whole: Spread::default(),
            parts: Vec::new(),
            random: rand::random(),
        };
        Self { config, counters, zone, state: Mutex::new(state) }
    }

    /// Follows `set`; true if it is another than last time.
    pub(super) fn follow(&self, set: &Arc<HostSet>) -> bool {
        self.state.lock().follow(set, self)
    }

    /// A host of `set`, which it follows, for a request; and whether the set is another than last time.
    /// O(1), or O(log n) at first among unequal weights.
    pub(super) fn choose(
        &self,
        set: &Arc<HostSet>,
        cx: &LbContext<'_>,
    ) -> (bool, Result<Arc<Host>, NoHost>) {
        let mut state = self.state.lock();
        let changed = state.follow(set, self);
        (changed, state.choose(set, self, cx))
    }

    fn may_override(&self, host: &Host) -> bool {
        let status = match (host.health(), host.availability()) {
            (status @ (HealthStatus::Draining | HealthStatus::Timeout), _) => status,
            (_, Availability::Unhealthy) => HealthStatus::Unhealthy,
            (_, Availability::Degraded) => HealthStatus::Degraded,
            (status, Availability::Healthy) => status,
        };
        self.config.override_statuses & (1 << status as u8) != 0
    }
}

impl State {
    fn follow(&mut self, set: &Arc<HostSet>, balancer: &Balancer) -> bool {
        let counts = balancer.zone.as_ref().and_then(|zone| zone.counts());
        let same_set = self.set.as_ref().is_some_and(|current| Arc::ptr_eq(current, set));
        if same_set && self.counts == counts {
            return false;
        }
        self.whole = Spread::of(set, &balancer.config);
        self.parts.clear();
        self.parts.resize_with(set.subsets().map_or(0, Subsets::len), Default::default);
        self.set = Some(Arc::clone(set));
        self.counts = counts;
        !same_set
    }

    fn choose(
        &mut self,
        set: &HostSet,
        balancer: &Balancer,
        cx: &LbContext<'_>,
    ) -> Result<Arc<Host>, NoHost> {
        let Self { set: _, counts, whole, parts, random } = self;
        if let Some(wanted) = cx.override_host {
            match wanted.addresses.iter().find_map(|address| set.by_address(*address)) {
                Some(host) if balancer.may_override(host) => return Ok(Arc::clone(host)),
                _ if wanted.strict => return Err(NoHost),
                _ => {}
            }
        }
        let mut choose = |set: &HostSet, spread: &mut Spread| {
            spread.choose((set, counts.as_deref()), balancer, cx, random)
        };
        let (Some(subsets), Some(config)) = (set.subsets(), &balancer.config.subsets) else {
            return choose(set, whole).ok_or(NoHost);
        };
        let stats = &balancer.counters.subsets;
        for part in subsets.parts(config, cx.metadata, stats) {
            let chosen = match part {
                Part::Whole => choose(set, whole),
                Part::Subset(index) | Part::Default(index) => {
                    let (Some(set), Some(spread)) = (subsets.get(index), parts.get_mut(index))
                    else {
                        continue;
                    };
                    choose(set, spread.get_or_insert_with(|| Spread::of(set, &balancer.config)))
                }
            };
            match (chosen, part) {
                (Some(host), _) => return Ok(host),
                (None, Part::Default(_)) if config.panic_mode_any => {
                    stats.lb_subsets_fallback_panic.inc();
                    return choose(set, whole).ok_or(NoHost);
                }
                (None, _) => {}
            }
        }
        Err(NoHost)
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

/// SplitMix64: a few cycles, and good enough to spread load.
fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A random number below `count`, without a division; 0 if `count` is.
fn below(random: u64, count: usize) -> usize {
    let product = u128::from(random) * count as u128;
    usize::try_from(product >> 64).unwrap_or(0)
}
