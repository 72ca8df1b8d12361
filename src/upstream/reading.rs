//! Clusters as the metrics of services show them.

use super::balancer::LbPolicy;
use super::balancer::hashing::HashPolicy;
use super::host::{Availability, ConnectionStats, Host};
use super::{Cluster, Clusters};
use crate::telemetry::services::{Counts, Instance, Services};

impl Services for Clusters {
    fn visit(&self, see: &mut dyn FnMut(Instance<'_>)) {
        let mut clusters: Vec<_> = self.iter().collect();
        clusters.sort_unstable_by(|a, b| a.name().cmp(b.name()));
        for cluster in clusters {
            for host in cluster.hosts().iter() {
                see(instance(cluster, host));
            }
        }
    }
}

fn instance<'a>(cluster: &'a Cluster, host: &'a Host) -> Instance<'a> {
    let (stats, traffic) = (&host.stats, host.known_traffic());
    let of = |cell: fn(&ConnectionStats) -> u64| traffic.map_or(0, |t| cell(&t.connections));
    let now = |cell: fn(&ConnectionStats) -> i64| traffic.map_or(0, |t| cell(&t.connections));
    // They are read one after the other while requests come and go.
    let open = stats.cx_active.value().max(0);
    let busy = now(|c| c.cx_busy.value()).clamp(0, open);
    let idle = (open - busy - now(|c| c.cx_connecting.value())).max(0);
    let connect_timeouts = of(|c| c.cx_connect_timeout.value());
    Instance {
        service: cluster.name(),
        strategy: cluster.strategy(),
        address: host.address(),
        hostname: host.hostname(),
        counts: Counts {
            unhealthy: u64::from(host.availability() == Availability::Unhealthy),
            requests: stats.rq_total.value(),
            active: stats.rq_active.value(),
            open,
            busy,
            idle,
            connect_errors: stats.cx_connect_fail.value().saturating_sub(connect_timeouts),
            broken: of(|c| c.cx_broken.value()),
            connect_timeouts,
            response_timeouts: of(|c| c.rq_header_timeout.value()),
        },
        durations: traffic.map(|t| &t.durations),
    }
}

impl LbPolicy {
    /// What a balancing policy is called in metrics.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::Random => "random",
            Self::LeastRequest(_) => "least_request",
            Self::Hash(config) => match config.policy {
                HashPolicy::RingHash { .. } => "ring_hash",
                HashPolicy::Maglev { .. } => "maglev",
            },
        }
    }
}
