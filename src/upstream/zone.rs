//! Where this proxy runs, and how many of its kind run in each zone: what zone-aware balancing
//! weighs an upstream against (`ClusterManager.local_cluster_name`).

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::host::Locality;
use super::hosts::HostSet;

/// The proxy's own place. Its own cluster writes the counts, every other one reads them.
#[derive(Debug)]
pub struct LocalZone {
    cluster: Arc<str>,
    /// `Node.locality`
    pub(super) locality: Locality,
    counts: ArcSwapOption<ZoneCounts>,
}

/// The healthy hosts of the proxy's own cluster.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ZoneCounts {
    /// By where they run; of its first priority.
    pub(super) hosts: HashMap<Arc<Locality>, usize>,
}

impl LocalZone {
    /// A proxy in `locality` that is a host of `cluster`.
    pub fn new(cluster: Arc<str>, locality: Locality) -> Self {
        Self { cluster, locality, counts: ArcSwapOption::empty() }
    }

    /// What is known of the proxy's own cluster; nothing before it had hosts.
    pub(super) fn counts(&self) -> Option<Arc<ZoneCounts>> {
        self.counts.load_full()
    }

    /// A cluster has new hosts, which may be the proxy's own.
    pub(super) fn published(&self, cluster: &str, set: &HostSet) {
        if cluster != &*self.cluster {
            return;
        }
        let mut counts = ZoneCounts::default();
        if let Some(first) = set.priorities.first() {
            for group in &first.localities {
                let healthy = first.healthy_of(group).count();
                *counts.hosts.entry(Arc::clone(&group.locality)).or_default() += healthy;
            }
        }
        self.counts.store(Some(Arc::new(counts)));
    }
}
