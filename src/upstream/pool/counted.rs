//! What is counted of a request: while it waits for a connection, and on it.

use std::sync::Arc;

use http::{StatusCode, Version};
use tokio::time::Instant;

use super::UpstreamError;
use crate::exchange::{KnownMethod, ResponseFlag};
use crate::telemetry::durations::Outcome;
use crate::upstream::breaker::Permit;
use crate::upstream::host::Host;
use crate::upstream::stats::ClusterStats;

/// Counts one request on a connection, from its head to the end of its response.
pub(super) struct ActiveRequest {
    stats: Arc<ClusterStats>,
    host: Arc<Host>,
    kind: Kind,
    started: Instant,
    /// When the response ended as it should.
    ended: Option<Instant>,
    status: Option<StatusCode>,
    /// Why it did not; us, unless it is known.
    broke: Option<ResponseFlag>,
    _permit: Permit,
}

/// What a request asks with, and in which protocol.
pub(super) type Kind = (KnownMethod, Version);

impl ActiveRequest {
    pub(super) fn begin(
        stats: Arc<ClusterStats>,
        host: Arc<Host>,
        permit: Permit,
        kind: Kind,
    ) -> Self {
        stats.upstream_rq_total.inc();
        stats.upstream_rq_active.inc();
        host.stats.rq_total.inc();
        host.stats.rq_active.inc();
        // A connection of HTTP/2 tells itself when it is busy.
        if kind.1 != Version::HTTP_2 {
            host.traffic().connections.cx_busy.inc();
        }
        let started = Instant::now();
        Self { stats, host, kind, started, ended: None, status: None, broke: None, _permit: permit }
    }

    /// The response's head arrived.
    pub(super) fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
        self.stats.count_response(status);
        match status.is_server_error() {
            true => self.host.stats.rq_error.inc(),
            false => self.host.stats.rq_success.inc(),
        }
    }

    /// The request failed before the response's head.
    pub(super) fn failed(mut self, error: &UpstreamError) {
        self.host.stats.rq_error.inc();
        let connections = &self.host.traffic().connections;
        self.broke = Some(match error {
            UpstreamError::RequestBody(_) => ResponseFlag::DownstreamConnectionTermination,
            UpstreamError::ResponseHeaderTimeout => {
                self.stats.upstream_rq_timeout.inc();
                self.host.stats.rq_timeout.inc();
                connections.rq_header_timeout.inc();
                ResponseFlag::UpstreamRequestTimeout
            }
            UpstreamError::RemoteReset | UpstreamError::Refused => {
                ResponseFlag::UpstreamRemoteReset
            }
            UpstreamError::Protocol => ResponseFlag::UpstreamProtocolError,
            _ => ResponseFlag::UpstreamConnectionTermination,
        });
        if error.is_clients() || matches!(error, UpstreamError::ResponseHeaderTimeout) {
            self.stats.upstream_rq_tx_reset.inc();
        } else {
            self.stats.upstream_rq_rx_reset.inc();
            connections.cx_broken.inc();
        }
    }

    /// The response broke off after its head.
    pub(super) fn broke_off(mut self) {
        self.stats.upstream_rq_rx_reset.inc();
        self.host.traffic().connections.cx_broken.inc();
        self.broke = Some(ResponseFlag::UpstreamConnectionTermination);
    }

    /// The response ended as it should.
    pub(super) fn finished(mut self, now: Instant) {
        self.ended = Some(now);
        self.stats.upstream_rq_time.record(now.saturating_duration_since(self.started));
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.stats.upstream_rq_active.dec();
        self.host.stats.rq_active.dec();
        if self.kind.1 != Version::HTTP_2 {
            self.host.traffic().connections.cx_busy.dec();
        }
        let broke = match (self.ended, self.broke) {
            (Some(_), _) => None,
            (None, Some(broke)) => Some(broke),
            (None, None) => {
                self.stats.upstream_rq_tx_reset.inc();
                Some(ResponseFlag::LocalReset)
            }
        };
        let ended = self.ended.unwrap_or_else(Instant::now);
        let took = ended.saturating_duration_since(self.started);
        self.host.traffic().durations.record(self.kind, Outcome::new(self.status, broke), took);
    }
}

/// Counts one request that waits for a connection.
pub(super) struct PendingRequest<'a> {
    stats: &'a ClusterStats,
    done: bool,
    _permit: Permit,
}

impl<'a> PendingRequest<'a> {
    pub(super) fn begin(stats: &'a ClusterStats, permit: Permit) -> Self {
        stats.upstream_rq_pending_total.inc();
        stats.upstream_rq_pending_active.inc();
        Self { stats, done: false, _permit: permit }
    }

    /// The wait is over, one way or the other.
    pub(super) fn over<T>(mut self, result: Result<T, UpstreamError>) -> Result<T, UpstreamError> {
        self.done = true;
        if result.is_err() {
            self.stats.upstream_rq_pending_failure_eject.inc();
        }
        result
    }
}

impl Drop for PendingRequest<'_> {
    fn drop(&mut self) {
        self.stats.upstream_rq_pending_active.dec();
        if !self.done {
            self.stats.upstream_rq_cancelled.inc();
        }
    }
}
