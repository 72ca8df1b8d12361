//! Connections to hosts: one set of pools per worker and cluster, one pool per host.
//!
//! ```text
//! Pools::send -> HostPool (by address) -> http1: an idle connection, or a new one, or wait
//!                                      -> http2: a stream on a connection, or a new one, or wait
//! ```
//!
//! An HTTP/1.1 exchange runs in the task of its request; an HTTP/2 connection is driven by a task of
//! its own. A response holds what it needs (connection or stream, circuit breaker permit, gauges) in
//! its body and gives it back at its end, or drops it when it is dropped: the HTTP/1.1 connection is
//! then closed, the HTTP/2 stream reset. Locks are held for a few instructions and never across a wait.

mod body;
mod broken;
mod connect;
mod counted;
mod error;
mod http1;
mod http2;
mod idle;
mod patience;
mod request;
mod settings;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use foldhash::fast::RandomState;
use http::header::ACCEPT_ENCODING;
use parking_lot::Mutex;

use self::counted::{ActiveRequest, Kind};
pub use self::error::{RequestBodyError, UpstreamError};
use self::http1::Http1Pool;
use self::http2::Http2Pool;
pub use self::settings::{
    ConnectionSettings, Http1Settings, Http2Settings, Keepalive, TcpKeepalive, UpstreamProtocol,
};
use super::Cluster;
use super::breaker::{Permit, Resource};
use super::connection_queue::{CloseIdle, ConnectionQueue};
use super::health::IMMEDIATE_FAIL;
use super::host::Host;
use super::outlier::Outcome;
use super::stats::ClusterStats;
use crate::exchange::upgrade::EndsHere;
use crate::exchange::{Body, RequestHead, ResponseHead, RoutingPriority};

/// One worker's connections to the hosts of one cluster.
pub(super) struct Pools {
    settings: Arc<ConnectionSettings>,
    stats: Arc<ClusterStats>,
    by_address: Mutex<HashMap<SocketAddr, Arc<HostPool>, RandomState>>,
}

/// One worker's connections to one host.
struct HostPool {
    settings: Arc<ConnectionSettings>,
    stats: Arc<ClusterStats>,
    http1: Http1Pool,
    http2: Http2Pool,
    /// The host is gone: what is open is closed when its request ends.
    retired: AtomicBool,
    /// Those of the cluster's other pools that wait for a connection.
    queue: Arc<ConnectionQueue>,
    _permit: Permit,
}

/// One request's way to a host.
struct Attempt<'a> {
    cluster: &'a Cluster,
    host: &'a Arc<Host>,
    priority: RoutingPriority,
}

impl Attempt<'_> {
    fn acquire_pending(&self) -> Result<Permit, UpstreamError> {
        self.cluster.breakers.acquire(self.priority, Resource::Pending).map_err(|_overflow| {
            self.cluster.stats.upstream_rq_pending_overflow.inc();
            UpstreamError::Overflow
        })
    }

    /// A limit of 0 is met for ever.
    fn allows_no_connection(&self) -> bool {
        let limits = self.cluster.breakers.limits(self.priority);
        limits.max_connections == 0 || limits.max_connections_per_host == 0
    }

    fn begin(&self, permit: Permit, kind: Kind) -> ActiveRequest {
        ActiveRequest::begin(Arc::clone(&self.cluster.stats), Arc::clone(self.host), permit, kind)
    }
}

impl Pools {
    pub(super) fn new(cluster: &Cluster) -> Self {
        Self {
            settings: Arc::clone(&cluster.connection),
            stats: Arc::clone(&cluster.stats),
            by_address: Mutex::default(),
        }
    }

    /// Whether the connections may serve `cluster`, which replaces the one they were made for.
    pub(super) fn fit(&self, cluster: &Cluster) -> bool {
        self.settings == cluster.connection && Arc::ptr_eq(&self.stats, &cluster.stats)
    }

    /// Carries one exchange with `host`.
    #[expect(
        clippy::manual_async_fn,
        reason = "it would keep its arguments twice, and a head is large"
    )]
    pub(super) fn send<'a>(
        &'a self,
        cluster: &'a Cluster,
        host: &'a Arc<Host>,
        permit: Permit,
        (head, body): (&'a mut RequestHead, Body),
    ) -> impl Future<Output = Result<(ResponseHead, Body), UpstreamError>> + Send + 'a {
        async move {
            let attempt = Attempt { cluster, host, priority: permit.priority() };
            let pool = self.of(&attempt)?;
            if self.settings.disable_compression {
                head.headers.remove(ACCEPT_ENCODING);
            }
            let sent = if head.extensions.get::<EndsHere>().is_some() {
                Box::pin(pool.tunnel(&attempt, permit, body)).await
            } else if self.settings.protocol.is_http2(head.version) {
                Box::pin(pool.send_http2(&attempt, permit, head, body)).await
            } else {
                pool.send_http1(&attempt, permit, head, body).await
            };
            if let Some(outcome) = outcome_of(&sent) {
                cluster.judge(host, outcome);
            }
            if let Ok((head, _)) = &sent {
                cluster.note_load(host, &head.headers);
                if cluster.is_checked() && head.headers.contains_key(IMMEDIATE_FAIL) {
                    cluster.fail_at_once(host);
                }
            }
            sent
        }
    }

    /// The pool of a host, a new one if it has none and there may be another.
    fn of(&self, attempt: &Attempt<'_>) -> Result<Arc<HostPool>, UpstreamError> {
        let address = attempt.host.address();
        let mut pools = self.by_address.lock();
        if let Some(pool) = pools.get(&address) {
            return Ok(Arc::clone(pool));
        }
        let breakers = &attempt.cluster.breakers;
        let acquire = || breakers.acquire(attempt.priority, Resource::Pool);
        let permit = acquire().or_else(|overflow| {
            let unused = pools.iter().find(|(_, pool)| pool.is_unused()).map(|(host, _)| *host);
            let closed = unused.and_then(|host| pools.remove(&host));
            closed.map_or(Err(overflow), |pool| {
                pool.retire();
                drop(pool);
                acquire()
            })
        });
        let Ok(permit) = permit else {
            self.stats.upstream_cx_pool_overflow.inc();
            return Err(UpstreamError::Overflow);
        };
        let pool = Arc::new(HostPool {
            settings: Arc::clone(&self.settings),
            stats: Arc::clone(&self.stats),
            http1: Http1Pool::default(),
            http2: Http2Pool::default(),
            retired: AtomicBool::new(false),
            queue: Arc::clone(breakers.queue()),
            _permit: permit,
        });
        pools.insert(address, Arc::clone(&pool));
        Ok(pool)
    }

    /// Connections that wait for a request.
    #[cfg(test)]
    fn idle_connections(&self) -> usize {
        let pools = self.by_address.lock();
        pools.values().map(|p| p.http1.idle_count() + p.http2.connection_count()).sum()
    }
}

/// What the result of an exchange says of its host; nothing if the host had no part in it.
fn outcome_of(sent: &Result<(ResponseHead, Body), UpstreamError>) -> Option<Outcome> {
    Some(match sent {
        Ok((head, _)) => Outcome::Answer(head.status),
        Err(UpstreamError::ConnectFailure(_) | UpstreamError::ConnectTimeout) => {
            Outcome::ConnectFailure
        }
        Err(UpstreamError::ResponseHeaderTimeout) => Outcome::Timeout,
        Err(UpstreamError::Overflow | UpstreamError::RequestBody(_)) => return None,
        Err(_) => Outcome::Reset,
    })
}

impl CloseIdle for Pools {
    fn close_one(&self, to: Option<SocketAddr>) -> bool {
        let pools = self.by_address.lock();
        let mut pools = pools.iter().filter(|(address, _)| to.is_none_or(|to| to == **address));
        pools.any(|(_, pool)| pool.http1.close_one() || pool.http2.close_one())
    }
}

impl Drop for Pools {
    fn drop(&mut self) {
        for pool in self.by_address.get_mut().values() {
            pool.retire();
        }
    }
}

impl HostPool {
    fn connection_begun(&self, http2: bool) {
        let open = if http2 { &self.http2.open } else { &self.http1.open };
        open.fetch_add(1, Ordering::Relaxed);
    }

    fn connection_ended(&self, http2: bool) {
        let (open, freed) = match http2 {
            true => (&self.http2.open, &self.http2.freed),
            false => (&self.http1.open, &self.http1.freed),
        };
        open.fetch_sub(1, Ordering::Relaxed);
        freed.notify_one();
    }

    /// Whether nothing is on its connections, and nobody waits for one.
    fn is_unused(self: &Arc<Self>) -> bool {
        // The map has one reference; who sends or waits has another.
        let open = |open: &AtomicU32| usize::try_from(open.load(Ordering::Relaxed)).unwrap_or(0);
        Arc::strong_count(self) == 1
            && open(&self.http1.open) == self.http1.idle_count()
            && open(&self.http2.open) == self.http2.idle_count()
    }

    /// Whether an idle connection is to be closed since others, elsewhere, wait to make one: more
    /// likely the more of those who wait are elsewhere.
    fn yields(&self, waiting_here: u32) -> bool {
        let all = self.queue.waiting();
        all > waiting_here && rand::random_range(0..all) >= waiting_here
    }

    fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    /// Closes what is idle now, and the rest when it becomes so.
    fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
        self.http1.close_idle(None);
        self.http2.close_idle(None);
    }
}
