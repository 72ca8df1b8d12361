//! The clusters of one worker.

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior};

use super::Cluster;
use super::balancer::{Balancer, LbContext, NoHost};
use super::breaker::{Overflow, Permit, Resource};
use super::host::Host;
use super::hosts::PriorityHosts;
use super::pool::{Pools, UpstreamError};
use crate::exchange::{Body, RequestHead, ResponseHead, RoutingPriority};

/// How often idle connections are looked at.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// All clusters of a snapshot, by name.
#[derive(Debug, Default)]
pub struct Clusters(HashMap<Arc<str>, Arc<Cluster>, RandomState>);

impl Clusters {
    /// The cluster of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<Cluster>> {
        self.0.get(name)
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Cluster>> {
        self.0.values()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Arc<Cluster>> for Clusters {
    fn from_iter<I: IntoIterator<Item = Arc<Cluster>>>(clusters: I) -> Self {
        Self(clusters.into_iter().map(|c| (Arc::clone(c.name()), c)).collect())
    }
}

/// One worker's balancers and connections, made on first use. Cheap to clone.
#[derive(Clone)]
pub struct ClusterManager(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    sweeper: AbortHandle,
}

struct State {
    clusters: Arc<Clusters>,
    local: HashMap<Arc<str>, Arc<LocalCluster>, RandomState>,
}

impl ClusterManager {
    /// A manager for the worker whose runtime this is called on; its timer for idle connections
    /// runs there until the last clone is dropped.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn new(clusters: Arc<Clusters>) -> Self {
        Self(Arc::new_cyclic(|inner| Inner {
            state: Mutex::new(State { clusters, local: HashMap::default() }),
            sweeper: tokio::spawn(sweep(Weak::clone(inner))).abort_handle(),
        }))
    }

    /// Follows a new snapshot. State of clusters that are gone is dropped, that of replaced ones
    /// too, but for connections that fit the new one. Requests under way keep what they use.
    pub fn apply(&self, clusters: Arc<Clusters>) {
        let mut state = self.0.state.lock();
        let mut dropped = Vec::new();
        state.local.retain(|name, local| match clusters.get(name) {
            Some(cluster) if Arc::ptr_eq(cluster, &local.cluster) => true,
            Some(cluster) => {
                let next = Arc::new(LocalCluster::succeed(local, cluster));
                dropped.push(std::mem::replace(local, next));
                true
            }
            None => {
                dropped.push(Arc::clone(local));
                false
            }
        });
        state.clusters = clusters;
        drop(state);
        // Closing connections runs foreign code; not under the lock.
        drop(dropped);
    }

    /// The worker's part of a cluster; `None` if there is no such cluster.
    pub fn get(&self, name: &str) -> Option<Arc<LocalCluster>> {
        let state = self.0.state.lock();
        if let Some(local) = state.local.get(name) {
            return Some(Arc::clone(local));
        }
        let cluster = Arc::clone(state.clusters.get(name)?);
        drop(state);
        Some(self.adopt(&cluster))
    }

    /// Makes the worker's part of a cluster.
    pub(super) fn adopt(&self, cluster: &Arc<Cluster>) -> Arc<LocalCluster> {
        let local = Arc::new(LocalCluster::new(cluster));
        self.0.state.lock().local.insert(Arc::clone(cluster.name()), Arc::clone(&local));
        local
    }
}

impl std::fmt::Debug for ClusterManager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClusterManager")
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.sweeper.abort();
    }
}

async fn sweep(manager: Weak<Inner>) {
    let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let now = ticks.tick().await;
        let Some(manager) = manager.upgrade() else { return };
        let clusters: Vec<_> = manager.state.lock().local.values().cloned().collect();
        drop(manager);
        for cluster in clusters {
            cluster.sweep(now);
        }
    }
}

/// One worker's part of a cluster: its balancer and connections.
pub struct LocalCluster {
    cluster: Arc<Cluster>,
    balancer: Balancer,
    pub(super) pools: Arc<Pools>,
}

impl LocalCluster {
    fn new(cluster: &Arc<Cluster>) -> Self {
        let pools = Arc::new(Pools::new(cluster));
        cluster.breakers.queue().register(Arc::downgrade(&pools) as _);
        Self::with_pools(cluster, pools)
    }

    /// The successor for `cluster`, with the connections of `replaced` if they fit and cannot be too
    /// many.
    fn succeed(replaced: &Self, cluster: &Arc<Cluster>) -> Self {
        let fewer = cluster.breakers.allow_fewer_connections(&replaced.cluster.breakers);
        match replaced.pools.fit(cluster) && !fewer {
            true => Self::with_pools(cluster, Arc::clone(&replaced.pools)),
            false => Self::new(cluster),
        }
    }

    fn with_pools(cluster: &Arc<Cluster>, pools: Arc<Pools>) -> Self {
        let balancer = Balancer::new(cluster);
        Self { cluster: Arc::clone(cluster), balancer, pools }
    }

    /// The cluster, as all workers share it.
    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// Whether a request is to be refused to shed load: `ClusterLoadAssignment.Policy.drop_overloads`.
    pub fn drops(&self) -> bool {
        let share = self.cluster.hosts.load().policy.drop_per_million;
        let drops = share > 0 && rand::random_range(0..1_000_000) < share;
        if drops {
            self.cluster.stats.upstream_rq_drop_overload.inc();
        }
        drops
    }

    /// Admits a request, or refuses it because too many are under way.
    pub fn admit(&self, priority: RoutingPriority) -> Result<Permit, Overflow> {
        self.cluster.breakers.acquire(priority, Resource::Request)
    }

    /// Admits another try of a request; the permit is held until the try is over.
    pub fn admit_retry(&self, priority: RoutingPriority) -> Result<Permit, Overflow> {
        let permit = self.cluster.breakers.acquire(priority, Resource::Retry);
        match permit {
            Ok(_) => self.cluster.stats.upstream_rq_retry.inc(),
            Err(_) => self.cluster.stats.upstream_rq_retry_overflow.inc(),
        }
        permit
    }

    /// A host for a request, by the cluster's newest host set.
    pub fn choose(&self, cx: &LbContext<'_>) -> Result<Arc<Host>, NoHost> {
        let set = self.cluster.hosts.load();
        let (changed, host) = self.balancer.choose(&set, cx);
        if changed {
            self.pools.retain(&set);
        }
        if host.is_err() {
            self.cluster.stats.upstream_cx_none_healthy.inc();
        }
        host
    }

    /// The priorities that these hosts are of, by bit.
    pub fn priorities_of(&self, hosts: &[SocketAddr]) -> u128 {
        let set = self.cluster.hosts.load();
        let has_one =
            |p: &PriorityHosts| p.hosts.iter().any(|host| hosts.contains(&host.address()));
        let of_one = set.priorities.iter().zip(0..128).filter(|(priority, _)| has_one(priority));
        of_one.fold(0, |bits, (_, priority)| bits | 1 << priority)
    }

    /// Carries one exchange with `host` and counts its answer, or the reply that stands for it.
    ///
    /// The permit is held until the response's body ends or is dropped. Dropping the future, or the
    /// body before its end, cancels the exchange: the HTTP/1.1 connection is closed, the HTTP/2
    /// stream is reset. There is no time limit but `connect_timeout`; the caller has the rest.
    #[expect(
        clippy::manual_async_fn,
        reason = "it would keep its arguments twice, and a head is large"
    )]
    pub fn send<'a>(
        &'a self,
        host: &'a Arc<Host>,
        permit: Permit,
        mut head: RequestHead,
        body: Body,
    ) -> impl Future<Output = Result<(ResponseHead, Body), UpstreamError>> + Send + 'a {
        async move {
            let sent = self.pools.send(&self.cluster, host, permit, (&mut head, body)).await;
            if let Err(error) = &sent
                && !error.is_clients()
            {
                self.cluster.stats.count_response(error.status());
            }
            sent
        }
    }

    fn follow(&self) {
        let set = self.cluster.hosts.load();
        if self.balancer.follow(&set) {
            self.pools.retain(&set);
        }
    }

    fn sweep(&self, now: Instant) {
        self.follow();
        self.pools.sweep(now);
    }
}

impl std::fmt::Debug for LocalCluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalCluster").field("cluster", self.cluster.name()).finish_non_exhaustive()
    }
}
