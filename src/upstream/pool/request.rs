//! Putting a request's head into the form its upstream's protocol wants, and counting it.
//!
//! Hop-by-hop headers are the connection manager's business, and hyper drops the rest that HTTP/2
//! forbids; here only the target and the version change.

use std::sync::Arc;

use http::header::{HOST, UPGRADE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Method, StatusCode, Uri, Version};
use tokio::time::Instant;

use super::UpstreamError;
use crate::exchange::headers::{SchemeOfUpstream, X_FORWARDED_PROTO};
use crate::exchange::{KnownMethod, RequestHead, ResponseFlag};
use crate::telemetry::durations::Outcome;
use crate::upstream::breaker::Permit;
use crate::upstream::host::Host;
use crate::upstream::stats::ClusterStats;

/// Origin form (RFC 9112 section 3.2.1), and the authority in `Host`.
pub(super) fn for_http1(head: &mut RequestHead) -> Result<(), UpstreamError> {
    head.version = Version::HTTP_11;
    if head.uri.authority().is_none() {
        return Ok(());
    }
    if !head.headers.contains_key(HOST)
        && let Some(authority) = head.uri.authority()
    {
        let host = HeaderValue::from_str(authority.as_str());
        head.headers.insert(HOST, host.map_err(|_invalid| UpstreamError::Protocol)?);
    }
    if head.method != Method::CONNECT {
        let target = head.uri.path_and_query().cloned();
        head.uri = Uri::from(target.unwrap_or_else(|| PathAndQuery::from_static("/")));
    }
    Ok(())
}

/// Scheme, authority and path (RFC 9113 section 8.3.1); `Host` becomes the authority.
pub(super) fn for_http2(head: &mut RequestHead) -> Result<(), UpstreamError> {
    if head.method == Method::CONNECT || head.headers.contains_key(UPGRADE) {
        // There would be another way to ask (RFC 8441).
        return Err(UpstreamError::Protocol);
    }
    head.version = Version::HTTP_2;
    let host = head.headers.remove(HOST);
    if host.is_none() && head.uri.scheme().is_some() && head.uri.authority().is_some() {
        return Ok(());
    }
    let mut parts = std::mem::take(&mut head.uri).into_parts();
    if let Some(host) = host {
        let authority = Authority::try_from(host.as_bytes());
        parts.authority = Some(authority.map_err(|_invalid| UpstreamError::Protocol)?);
    }
    if parts.scheme.is_none() {
        parts.scheme = Some(scheme(head));
    }
    if parts.path_and_query.is_none() {
        parts.path_and_query = Some(PathAndQuery::from_static("/"));
    }
    head.uri = Uri::from_parts(parts).map_err(|_no_authority| UpstreamError::Protocol)?;
    Ok(())
}

/// As in Envoy the client's, which `X-Forwarded-Proto` says; or that of the connection, which is in plain text.
fn scheme(head: &RequestHead) -> Scheme {
    let is_https = head.headers.get(X_FORWARDED_PROTO).is_some_and(|scheme| scheme == "https");
    match is_https && head.extensions.get::<SchemeOfUpstream>().is_none() {
        true => Scheme::HTTPS,
        false => Scheme::HTTP,
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    fn head(uri: &str, host: Option<&'static str>) -> RequestHead {
        let mut request = http::Request::builder().uri(uri);
        if let Some(host) = host {
            request = request.header(HOST, host);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn targets_take_the_form_of_the_protocol() {
        let cases = [
            ("/a?b", Some("x"), "/a?b", "http://x/a?b"),
            ("http://x:1/a", None, "/a", "http://x:1/a"),
            ("http://x/a", Some("y"), "/a", "http://y/a"),
            ("http://x", None, "/", "http://x/"),
            ("*", Some("x"), "*", "http://x*"),
        ];
        for (uri, host, http1, http2) in cases {
            let mut one = head(uri, host);
            for_http1(&mut one).unwrap();
            assert_eq!(one.uri.to_string(), http1, "{uri}");
            assert!(one.headers.contains_key(HOST), "{uri}");
            let mut two = head(uri, host);
            match for_http2(&mut two) {
                Ok(()) => assert_eq!(two.uri.to_string(), http2, "{uri}"),
                Err(error) => panic!("{uri}: {error}"),
            }
            assert!(!two.headers.contains_key(HOST), "{uri}");
        }
        assert!(for_http2(&mut head("/", Some("not a host"))).is_err());
        assert!(for_http2(&mut head("/", None)).is_err());
    }
}
