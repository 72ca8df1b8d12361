//! Making a connection, and counting it from the first packet to its end.

use std::io;
use std::sync::{Arc, Weak};

use tokio::net::TcpStream;
use tokio::time::Instant;

use super::{Attempt, HostPool, TcpKeepalive, UpstreamError};
use crate::upstream::breaker::{Permit, Resource};
use crate::upstream::host::{Host, HostConnection};
use crate::upstream::stats::ClusterStats;

/// Counts one connection. The task that drives the connection owns it, so that it is counted
/// for as long as its socket lives.
pub(super) struct ConnectionGuard {
    stats: Arc<ClusterStats>,
    host: Arc<Host>,
    pool: Weak<HostPool>,
    http2: bool,
    // Given back in this order: who is told of the second looks for the first.
    _leave: Leave,
}

/// Leave to make one connection.
pub(super) struct Leave {
    _at_host: HostConnection,
    _permit: Permit,
}

impl HostPool {
    /// Leave to make a connection: below the limits of the cluster and of the host, which hold for all
    /// workers. If they are met by idle connections, one of those is closed, whoever has it.
    pub(super) fn may_connect(&self, attempt: &Attempt<'_>) -> Option<Leave> {
        let queue = attempt.cluster.breakers.queue();
        loop {
            let full = match leave(attempt) {
                Ok(leave) => return Some(leave),
                Err(full) => full,
            };
            if !queue.make_room(full.map(|_at_host| attempt.host.address())) {
                return None;
            }
            // A connection of HTTP/2 ends on its own worker, which tells of it later.
            if attempt.cluster.connection.protocol.may_be_http2() {
                return leave(attempt).ok();
            }
        }
    }
}

/// The error says which limit is met: the host's, or the cluster's.
pub(super) fn leave(attempt: &Attempt<'_>) -> Result<Leave, Option<HostIsFull>> {
    let breakers = &attempt.cluster.breakers;
    let limit = breakers.limits(attempt.priority).max_connections_per_host;
    // Looked at first: a permit that is given back at once tells all who wait, and if each of them
    // did that they would never sleep again.
    if attempt.host.connections() >= limit {
        return Err(Some(HostIsFull));
    }
    let permit = breakers.acquire(attempt.priority, Resource::Connection);
    let permit = permit.map_err(|_overflow| None)?;
    let at_host = attempt.host.take_connection(limit).ok_or(Some(HostIsFull))?;
    Ok(Leave { _at_host: at_host, _permit: permit })
}

/// The host's own limit is met.
pub(super) struct HostIsFull;

impl ConnectionGuard {
    pub(super) fn begin(
        pool: &Arc<HostPool>,
        host: &Arc<Host>,
        stats: &Arc<ClusterStats>,
        http2: bool,
        leave: Leave,
    ) -> Self {
        stats.upstream_cx_total.inc();
        stats.upstream_cx_active.inc();
        if http2 { &stats.upstream_cx_http2_total } else { &stats.upstream_cx_http1_total }.inc();
        host.stats.cx_total.inc();
        host.stats.cx_active.inc();
        pool.connection_begun(http2);
        Self {
            stats: Arc::clone(stats),
            host: Arc::clone(host),
            pool: Arc::downgrade(pool),
            http2,
            _leave: leave,
        }
    }

    pub(super) fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// Connects to the host.
    pub(super) async fn dial(&self, pool: &HostPool) -> Result<TcpStream, UpstreamError> {
        let started = Instant::now();
        let _connecting = Connecting::begin(&self.host);
        let connecting = TcpStream::connect(self.host.address());
        let connected = tokio::time::timeout(pool.settings.connect_timeout, connecting).await;
        let failure = match connected {
            Ok(Ok(stream)) => match prepare(&stream, pool.settings.tcp_keepalive) {
                Ok(()) => {
                    self.stats.upstream_cx_connect_ms.record(started.elapsed());
                    return Ok(stream);
                }
                Err(error) => UpstreamError::ConnectFailure(error),
            },
            Ok(Err(error)) => UpstreamError::ConnectFailure(error),
            Err(_elapsed) => {
                self.stats.upstream_cx_connect_timeout.inc();
                self.host.traffic().connections.cx_connect_timeout.inc();
                UpstreamError::ConnectTimeout
            }
        };
        self.failed();
        tracing::debug!(address = %self.host.address(), %failure, "could not connect to upstream");
        Err(failure)
    }

    /// The connection came to nothing before it could carry a request.
    pub(super) fn failed(&self) {
        self.stats.upstream_cx_connect_fail.inc();
        self.host.stats.cx_connect_fail.inc();
    }

    /// What hyper says of a handshake that failed, as the system would.
    pub(super) fn handshake_failed(&self, error: hyper::Error) -> UpstreamError {
        self.failed();
        UpstreamError::ConnectFailure(io::Error::other(error))
    }
}

/// Counts a connection that is being made, until it is dropped.
struct Connecting<'a>(&'a Host);

impl<'a> Connecting<'a> {
    fn begin(host: &'a Host) -> Self {
        host.traffic().connections.cx_connecting.inc();
        Self(host)
    }
}

impl Drop for Connecting<'_> {
    fn drop(&mut self) {
        self.0.traffic().connections.cx_connecting.dec();
    }
}

pub(super) fn prepare(stream: &TcpStream, keepalive: Option<TcpKeepalive>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let Some(TcpKeepalive { probes, time, interval }) = keepalive else { return Ok(()) };
    let mut options = socket2::TcpKeepalive::new();
    if let Some(time) = time {
        options = options.with_time(time);
    }
    if let Some(interval) = interval {
        options = options.with_interval(interval);
    }
    if let Some(probes) = probes {
        options = options.with_retries(probes);
    }
    socket2::SockRef::from(stream).set_tcp_keepalive(&options)
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.stats.upstream_cx_active.dec();
        self.stats.upstream_cx_destroy.inc();
        self.host.stats.cx_active.dec();
        if let Some(pool) = self.pool.upgrade() {
            pool.connection_ended(self.http2);
        }
    }
}
