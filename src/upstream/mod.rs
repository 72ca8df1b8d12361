//! Clusters and everything behind them: hosts, balancing, circuit breakers, connections.
//!
//! ```text
//! ClusterManager::get(name) -> LocalCluster::admit   a circuit breaker's permit
//!                                          ::choose  a host of the current host set
//!                                          ::send    a connection to it, and the exchange on it
//! ```
//!
//! A [`Cluster`] is shared by all workers: what was configured, and a channel of host sets. Endpoints
//! are the cluster's weather: [`Cluster::set_endpoints`] replaces the host set alone, and a worker
//! notices at its next choice by comparing a pointer. Balancer and connections are each worker's
//! own, made on first use ([`LocalCluster`]), so that an unused cluster costs a worker nothing.

pub mod balancer;
pub mod breaker;
pub mod compile;
mod connection_queue;
pub mod dns;
pub mod health;
pub mod host;
pub mod hosts;
pub mod load_balancer;
pub mod load_report;
pub mod manager;
pub mod outlier;
pub mod pool;
mod reading;
pub mod stats;
pub mod zone;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

pub use self::balancer::{LbContext, NoHost};
pub use self::breaker::{Breakers, Overflow, Permit};
pub use self::compile::CompileContext;
pub use self::dns::{DnsResolver, DnsSettings};
pub use self::host::Host;
pub use self::hosts::{Endpoints, HostSet};
pub use self::load_balancer::LoadBalancer;
pub use self::manager::{ClusterManager, Clusters, LocalCluster};
pub use self::pool::{RequestBodyError, UpstreamError};
pub use self::stats::ClusterStats;

use self::balancer::LbConfig;
use self::balancer::subset::SubsetStats;
use self::balancer::zone_aware::ZoneStats;
use self::health::{Health, HealthChecks};
use self::outlier::Outlier;
use self::pool::ConnectionSettings;
use self::zone::LocalZone;
use crate::config::source::ConfigSource;

/// How a cluster learns its endpoints: `config.cluster.v3.Cluster.type`.
#[derive(Debug)]
pub enum Discovery {
    /// They are in the cluster.
    Static,
    /// From a management server.
    Eds(EdsConfig),
    /// By resolving the names in the cluster.
    Dns(Box<DnsSettings>),
}

/// Where the endpoints of an EDS cluster come from.
#[derive(Debug, Clone, PartialEq)]
pub struct EdsConfig {
    /// The name to ask for: `service_name`, or the cluster's.
    pub service_name: Arc<str>,
    /// Whom to ask.
    pub source: ConfigSource,
}

/// A group of hosts that serve the same thing, and how to reach them.
#[derive(Debug)]
pub struct Cluster {
    name: Arc<str>,
    discovery: Discovery,
    lb: LbConfig,
    strategy: Arc<str>,
    connection: Arc<ConnectionSettings>,
    breakers: Breakers,
    outlier: Option<Outlier>,
    health: Option<Box<HealthChecks>>,
    /// What is counted on it.
    pub stats: Arc<ClusterStats>,
    subset_stats: Option<Arc<SubsetStats>>,
    zone_stats: Option<Arc<ZoneStats>>,
    zone: Option<Arc<LocalZone>>,
    hosts: ArcSwap<HostSet>,
    /// Held while the host set is replaced, so that updates do not overtake each other.
    updating: Mutex<()>,
    /// Changed under that lock.
    retired: AtomicBool,
}

impl Cluster {
    /// The cluster's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// How it learns its endpoints.
    pub fn discovery(&self) -> &Discovery {
        &self.discovery
    }

    /// Where its endpoints come from, if a management server says them.
    pub fn eds(&self) -> Option<&EdsConfig> {
        match &self.discovery {
            Discovery::Eds(eds) => Some(eds),
            Discovery::Static | Discovery::Dns(_) => None,
        }
    }

    /// Whether it has work of its own to do: names to resolve, hosts to check, outliers to
    /// let back, weights to compute.
    pub fn has_tasks(&self) -> bool {
        matches!(self.discovery, Discovery::Dns(_)) || self.judges_hosts()
    }

    /// Does that work until it is dropped. Run it on the control runtime and abort it when the cluster
    /// goes.
    pub async fn run(self: Arc<Self>) {
        futures_util::join!(
            Arc::clone(&self).resolve_task(),
            Arc::clone(&self).outlier_task(),
            Arc::clone(&self).weights_task(),
            self.health_task()
        );
    }

    /// Its limits and what is in use.
    pub fn breakers(&self) -> &Breakers {
        &self.breakers
    }

    /// How its connections are made.
    pub fn connection_settings(&self) -> &ConnectionSettings {
        &self.connection
    }

    /// How a host is chosen.
    pub fn lb_config(&self) -> &LbConfig {
        &self.lb
    }

    /// What its way to choose is called in metrics: what its management server calls it, or its policy.
    pub fn strategy(&self) -> &str {
        &self.strategy
    }

    /// The hosts now.
    pub fn hosts(&self) -> Arc<HostSet> {
        self.hosts.load_full()
    }

    /// Replaces the endpoints. Hosts whose address stays keep their object. Takes effect in every
    /// worker at its next choice; costs time in proportion to the endpoints of this cluster only.
    pub fn set_endpoints(&self, endpoints: &Endpoints) {
        let _updating = self.updating.lock();
        let previous = self.hosts.load();
        let first = if self.health.is_some() { Health::Pending } else { Health::Healthy };
        let (set, changed) = HostSet::build(endpoints, &previous, first);
        if changed {
            self.publish(set);
            self.stats.membership_change.inc();
        }
    }

    /// Sorts the hosts anew by what they take.
    pub(in crate::upstream) fn sort_hosts(&self) {
        let _updating = self.updating.lock();
        self.publish(self.hosts().resorted());
    }

    /// Comes into service in place of another version, which may have the same hosts. What that one
    /// found out about them since this one was given them counts; what it finds out from now on does
    /// not, and what this one does not look after is forgotten.
    pub fn take_over(&self, replaced: &Cluster) {
        {
            let _updating = replaced.updating.lock();
            replaced.retired.store(true, Ordering::Relaxed);
        }
        if !replaced.judges_hosts() {
            return;
        }
        for host in self.hosts().iter() {
            if self.outlier.is_none() && host.is_ejected() {
                host.forgive();
            }
            if self.health.is_none() {
                host.set_checked(Health::Healthy);
            }
            if self.lb.load_reports.is_none() {
                host.set_reported_weight(None);
            }
        }
        self.sort_hosts();
    }

    /// Whether it finds out itself what its hosts are worth.
    fn judges_hosts(&self) -> bool {
        self.outlier.is_some() || self.health.is_some() || self.lb.load_reports.is_some()
    }

    /// Takes over the hosts of the cluster this one replaces, if both learn them from the same
    /// place, so that requests can be served until this one's own first answer. Only before it is
    /// used; does nothing for a static cluster, which has its hosts.
    pub fn inherit_hosts(&self, replaced: &Cluster) {
        let same = match (&self.discovery, &replaced.discovery) {
            (Discovery::Eds(new), Discovery::Eds(old)) => new.service_name == old.service_name,
            (Discovery::Dns(new), Discovery::Dns(old)) => new.same_targets(old),
            _ => false,
        };
        if same {
            let _updating = self.updating.lock();
            // What was made for one policy is of no use to another.
            let hosts = replaced.hosts();
            self.hosts.store(match self.lb == replaced.lb {
                true => hosts,
                false => Arc::new(hosts.with_policy(&self.lb)),
            });
        }
    }

    fn publish(&self, mut set: HostSet) {
        set.prepare(&self.lb);
        let count = |of: fn(&hosts::PriorityHosts) -> usize| {
            i64::try_from(set.priorities.iter().map(of).sum::<usize>()).unwrap_or(i64::MAX)
        };
        self.stats.membership_total.set(count(|p| p.hosts.len()));
        self.stats.membership_healthy.set(count(|p| p.healthy.len()));
        self.stats.membership_degraded.set(count(|p| p.degraded.len()));
        if let Some(outlier) = &self.outlier {
            let out = set.iter().filter(|host| host.is_ejected()).count();
            outlier.stats.ejections_active.set(i64::try_from(out).unwrap_or(i64::MAX));
        }
        if let (Some(stats), Some(subsets)) = (&self.subset_stats, set.subsets()) {
            stats.lb_subsets_active.set(i64::try_from(subsets.len()).unwrap_or(i64::MAX));
        }
        if let Some(zone) = &self.zone {
            zone.published(&self.name, &set);
        }
        if let Some(health) = &self.health {
            let count = |of: fn(Health) -> bool| {
                let count = set.iter().filter(|host| of(host.checked())).count();
                i64::try_from(count).unwrap_or(i64::MAX)
            };
            health.stats.healthy.set(count(Health::is_up));
            health.stats.degraded.set(count(|health| health == Health::Degraded));
        }
        self.hosts.store(Arc::new(set));
        if let Some(health) = &self.health {
            health.changed.notify_one();
        }
    }
}
