//! The hosts of a cluster as the balancer sees them: priority > locality > hosts.
//!
//! A [`HostSet`] is immutable and replaced whole; a host whose address and name stay keeps its
//! object, and with it its counts. Workers notice a new set by its pointer at their next pick.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use foldhash::fast::RandomState;

use super::balancer::hashing::HashTable;
use super::balancer::{HashTables, LbConfig, Subsets, hash_tables};
use super::health::Health;
use super::host::{Availability, HealthStatus, Host, Locality, Told};

/// Where an endpoint listens, as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndpointAddress {
    /// An IP address.
    Ip(SocketAddr),
    /// A name to be resolved.
    Name {
        /// The name.
        host: Arc<str>,
        /// The port.
        port: u16,
    },
}

/// A compiled `LbEndpoint`.
#[derive(Debug, Clone, PartialEq)]
pub struct Endpoint {
    /// Where it listens.
    pub address: EndpointAddress,
    /// `Endpoint.hostname`; empty if not set.
    pub hostname: Arc<str>,
    /// What the management server says of its health.
    pub health: HealthStatus,
    /// Its share, at least 1.
    pub weight: u32,
    /// Metadata and how to check it.
    pub told: Told,
}

/// A compiled `LocalityLbEndpoints`.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalityEndpoints {
    /// Where they run.
    pub locality: Arc<Locality>,
    /// The locality's share where locality weights are used; 0 if not set.
    pub weight: u32,
    /// 0 is used first.
    pub priority: u32,
    /// The endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// `ClusterLoadAssignment.Policy`, but for the time that it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndpointPolicy {
    /// How much load healthy hosts can take over from others, in percent; 140 unless set.
    pub overprovisioning_factor: u32,
    /// The health of a priority is that of its hosts by weight, not by number.
    pub weighted_priority_health: bool,
    /// How many of a million requests are refused to shed load.
    pub drop_per_million: u32,
}

impl Default for EndpointPolicy {
    fn default() -> Self {
        Self { overprovisioning_factor: 140, weighted_priority_health: false, drop_per_million: 0 }
    }
}

/// A compiled `ClusterLoadAssignment`.
#[derive(Debug, Clone, PartialEq)]
pub struct Endpoints {
    /// `cluster_name`.
    pub name: Arc<str>,
    /// How load is spread over them.
    pub policy: EndpointPolicy,
    /// How long they hold if nothing newer comes; `None` is for ever: `endpoint_stale_after`.
    pub stale_after: Option<Duration>,
    /// The endpoints by locality and priority, in the order they came.
    pub localities: Vec<LocalityEndpoints>,
}

impl Default for Endpoints {
    fn default() -> Self {
        Self {
            name: "".into(),
            policy: EndpointPolicy::default(),
            stale_after: None,
            localities: Vec::new(),
        }
    }
}

/// Hosts of one locality: a range of [`PriorityHosts::hosts`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalityHosts {
    /// Where they run.
    pub locality: Arc<Locality>,
    /// The locality's share, 0 if not set.
    pub weight: u32,
    /// Which of the priority's hosts they are.
    pub range: Range<usize>,
}

/// The hosts of one priority.
#[derive(Debug, Default, Clone)]
pub struct PriorityHosts {
    /// All of them.
    pub hosts: Box<[Arc<Host>]>,
    /// Those that take requests.
    pub healthy: Box<[Arc<Host>]>,
    /// Those that take what the healthy ones cannot.
    pub degraded: Box<[Arc<Host>]>,
    /// Which of `hosts` run where.
    pub localities: Box<[LocalityHosts]>,
    /// Those that do not count where shares of healthy hosts are computed: their health is not known
    /// yet, or they took themselves out.
    pub excluded: Box<[Arc<Host>]>,
}

impl PriorityHosts {
    /// Hosts sorted by what they take.
    pub(super) fn sorted(hosts: Vec<Arc<Host>>, localities: Vec<LocalityHosts>) -> Self {
        let of = |wanted: Availability| -> Box<[Arc<Host>]> {
            hosts.iter().filter(|host| host.availability() == wanted).cloned().collect()
        };
        Self {
            healthy: of(Availability::Healthy),
            degraded: of(Availability::Degraded),
            localities: localities.into(),
            hosts: hosts.into(),
            excluded: Box::default(),
        }
    }

    /// The healthy hosts of a locality.
    pub(super) fn healthy_of(&self, group: &LocalityHosts) -> impl Iterator<Item = &Arc<Host>> {
        let hosts = self.hosts.get(group.range.clone()).unwrap_or_default();
        hosts.iter().filter(|host| host.availability() == Availability::Healthy)
    }
}

/// All hosts of a cluster at one moment.
#[derive(Debug, Default)]
pub struct HostSet {
    /// By priority; one that no endpoint has is empty.
    pub priorities: Box<[PriorityHosts]>,
    /// How load is spread over them.
    pub policy: EndpointPolicy,
    /// The sum of the hosts' revisions that it was made of. A host that another version of the cluster was told
    /// of first is the same host, but not the one that this set was sorted by.
    revisions: u64,
    /// Where requests are hashed to, if the cluster's policy does that.
    hash_tables: HashTables,
    /// Parts of it that routes may want.
    subsets: Option<Box<Subsets>>,
    /// Made when the first request asks for a certain host.
    by_address: OnceLock<HashMap<SocketAddr, Arc<Host>, RandomState>>,
}

impl HostSet {
    /// Every host, priority by priority.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Host>> {
        self.priorities.iter().flat_map(|p| p.hosts.iter())
    }

    /// How many hosts there are.
    pub fn len(&self) -> usize {
        self.priorities.iter().map(|p| p.hosts.len()).sum()
    }

    /// Whether there is no host.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same hosts for a cluster of another policy.
    pub(super) fn with_policy(&self, config: &LbConfig) -> Self {
        let mut set = Self::of(self.priorities.clone(), self.policy);
        set.revisions = self.revisions;
        set.prepare(config);
        set
    }

    /// The same hosts, sorted anew by what they take.
    pub(super) fn resorted(&self) -> Self {
        let resort =
            |p: &PriorityHosts| PriorityHosts::sorted(p.hosts.to_vec(), p.localities.to_vec());
        Self::of(self.priorities.iter().map(resort).collect(), self.policy)
    }

    /// Hosts that nothing was made for yet.
    pub(super) fn of(priorities: Box<[PriorityHosts]>, policy: EndpointPolicy) -> Self {
        let hosts = priorities.iter().flat_map(|p| p.hosts.iter());
        let revisions = hosts.map(|host| u64::from(host.revision())).sum();
        Self { priorities, policy, revisions, ..Self::default() }
    }

    /// The host with this address.
    pub(super) fn by_address(&self, address: SocketAddr) -> Option<&Arc<Host>> {
        let index = || self.iter().map(|host| (host.address(), Arc::clone(host))).collect();
        self.by_address.get_or_init(index).get(&address)
    }

    /// Parts of it that routes may want.
    pub(super) fn subsets(&self) -> Option<&Subsets> {
        self.subsets.as_deref()
    }

    /// Makes what choosing by `config` needs.
    pub(super) fn prepare(&mut self, config: &LbConfig) {
        self.prepare_part(config);
        let subsets = config.subsets.as_ref();
        self.subsets = subsets.map(|subsets| Box::new(Subsets::build(self, config, subsets)));
    }

    /// The same, of a part that has no parts of its own.
    pub(super) fn prepare_part(&mut self, config: &LbConfig) {
        for priority in &mut self.priorities {
            let is_excluded = |host: &&Arc<Host>| config.excludes(host);
            priority.excluded = priority.hosts.iter().filter(is_excluded).cloned().collect();
        }
        self.hash_tables = hash_tables(self, config);
    }

    /// Where requests to the hosts of a priority and source are hashed to.
    pub(super) fn hash_table(&self, priority: usize, source: usize) -> Option<&HashTable> {
        self.hash_tables.get(priority)?[source].as_ref()
    }

    /// The set that `endpoints` describes, keeping the hosts of `previous` that are still in it.
    /// An address that comes twice counts once, the first time; names that are not resolved are
    /// left out. New hosts are `first` by their health checks. The flag says whether anything
    /// differs from `previous`.
    pub(super) fn build(endpoints: &Endpoints, previous: &HostSet, first: Health) -> (Self, bool) {
        let mut known: HashMap<(SocketAddr, &str), &Arc<Host>, RandomState> = HashMap::default();
        for host in previous.iter() {
            known.insert((host.address(), host.hostname()), host);
        }
        let mut changed = previous.policy != endpoints.policy;
        let mut seen: HashMap<SocketAddr, (), RandomState> = HashMap::default();
        let mut building: Vec<(Vec<Arc<Host>>, Vec<LocalityHosts>)> = Vec::new();
        for group in &endpoints.localities {
            let priority = group.priority as usize;
            if building.len() <= priority {
                building.resize_with(priority + 1, Default::default);
            }
            let (hosts, localities) = &mut building[priority];
            let start = hosts.len();
            for endpoint in &group.endpoints {
                let EndpointAddress::Ip(address) = endpoint.address else { continue };
                if seen.insert(address, ()).is_some() {
                    continue;
                }
                hosts.push(match known.remove(&(address, &*endpoint.hostname)) {
                    Some(host) => {
                        host.update(endpoint.weight, endpoint.health, &endpoint.told);
                        Arc::clone(host)
                    }
                    None => {
                        changed = true;
                        let Endpoint { address: _, hostname, health, weight, told } = endpoint;
                        let host = Host::new(address, Arc::clone(hostname), *weight, *health);
                        host.update(*weight, *health, told);
                        host.set_checked(match &told.check {
                            Some(check) if check.disabled => Health::Healthy,
                            _ => first,
                        });
                        Arc::new(host)
                    }
                });
            }
            localities.push(LocalityHosts {
                locality: Arc::clone(&group.locality),
                weight: group.weight,
                range: start..hosts.len(),
            });
        }
        changed |= !known.is_empty() || building.len() != previous.priorities.len();
        drop(known);
        let priorities: Box<[_]> = building
            .into_iter()
            .map(|(hosts, groups)| PriorityHosts::sorted(hosts, groups))
            .collect();
        changed |= priorities.iter().zip(&previous.priorities).any(|(new, old)| {
            new.localities != old.localities
                || new.hosts.iter().zip(&old.hosts).any(|(new, old)| !Arc::ptr_eq(new, old))
        });
        let set = Self::of(priorities, endpoints.policy);
        changed |= set.revisions != previous.revisions;
        (set, changed)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Endpoints on consecutive ports from 1: (priority, health, weight).
    pub(in crate::upstream) fn endpoints(of: &[(u32, HealthStatus, u32)]) -> Endpoints {
        let localities = of
            .iter()
            .zip(1..)
            .map(|(&(priority, health, weight), port)| LocalityEndpoints {
                locality: Arc::default(),
                weight: 0,
                priority,
                endpoints: vec![Endpoint {
                    address: EndpointAddress::Ip(SocketAddr::from(([127, 0, 0, 1], port))),
                    hostname: "".into(),
                    health,
                    weight,
                    told: Told::default(),
                }],
            })
            .collect();
        Endpoints { localities, ..Endpoints::default() }
    }

    pub(in crate::upstream) fn set(of: &[(u32, HealthStatus, u32)]) -> Arc<HostSet> {
        Arc::new(HostSet::build(&endpoints(of), &HostSet::default(), Health::Healthy).0)
    }

    #[test]
    fn an_update_keeps_hosts_whose_address_stays() {
        use HealthStatus::{Draining, Unknown};
        let first = set(&[(0, Unknown, 1), (0, Unknown, 1)]);
        let (second, changed) = HostSet::build(
            &endpoints(&[(0, Draining, 5), (1, Unknown, 1), (1, Unknown, 1)]),
            &first,
            Health::Healthy,
        );
        assert!(changed);
        assert!(Arc::ptr_eq(&first.priorities[0].hosts[0], &second.priorities[0].hosts[0]));
        assert!(Arc::ptr_eq(&first.priorities[0].hosts[1], &second.priorities[1].hosts[0]));
        let moved = &second.priorities[0].hosts[0];
        assert_eq!((moved.weight(), moved.health()), (5, Draining));
        assert_eq!(
            (second.priorities[0].healthy.len(), second.priorities[1].healthy.len()),
            (0, 2)
        );
    }

    #[test]
    fn the_same_endpoints_again_change_nothing() {
        let same = endpoints(&[(0, HealthStatus::Healthy, 2), (3, HealthStatus::Degraded, 1)]);
        let (first, _) = HostSet::build(&same, &HostSet::default(), Health::Healthy);
        assert!(!HostSet::build(&same, &first, Health::Healthy).1);
        assert_eq!((first.len(), first.priorities.len()), (2, 4));
        assert!(HostSet::build(&Endpoints::default(), &first, Health::Healthy).1);
    }

    /// A cluster that takes the place of another has its hosts. Both are told of a change, one after the other.
    #[test]
    fn what_one_version_of_a_cluster_was_told_is_new_to_the_other() {
        let before = endpoints(&[(0, HealthStatus::Unknown, 1), (0, HealthStatus::Unknown, 1)]);
        let (old, _) = HostSet::build(&before, &HostSet::default(), Health::Healthy);
        let new = old.with_policy(&LbConfig::default());
        for changed in [
            [(0, HealthStatus::Draining, 1), (0, HealthStatus::Unknown, 1)],
            [(0, HealthStatus::Draining, 1), (0, HealthStatus::Unknown, 5)],
        ] {
            let told = endpoints(&changed);
            for previous in [&old, &new] {
                let (set, is_new) = HostSet::build(&told, previous, Health::Healthy);
                assert!(is_new);
                assert_eq!(set.priorities[0].healthy.len(), 1);
                assert!(!HostSet::build(&told, &set, Health::Healthy).1);
            }
        }
    }

    #[test]
    fn an_address_that_comes_twice_counts_once() {
        let mut twice = endpoints(&[(0, HealthStatus::Unknown, 1)]);
        twice.localities.extend(twice.localities.clone());
        assert_eq!(HostSet::build(&twice, &HostSet::default(), Health::Healthy).0.len(), 1);
    }

    #[test]
    fn a_cluster_of_one_host_is_small() {
        use crate::upstream::{Cluster, ClusterStats, breaker::Usage, pool::ConnectionSettings};
        let sizes = [
            size_of::<Cluster>(),
            size_of::<ClusterStats>(),
            size_of::<Usage>(),
            size_of::<ConnectionSettings>(),
            size_of::<HostSet>() + size_of::<PriorityHosts>() + size_of::<LocalityHosts>(),
            size_of::<Host>(),
        ];
        assert!(sizes.iter().sum::<usize>() < 2_240, "{sizes:?}");
    }
}
