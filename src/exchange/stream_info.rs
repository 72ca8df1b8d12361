//! What is known about one exchange, from its first byte to its end.

use std::any::Any;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Waker;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use smallvec::SmallVec;
use tokio::time::Instant;

use super::deadline::Deadline;
use super::known_method::KnownMethod;
use super::local_reply::LocalReplyForm;
use super::upgrade::AskedUpgrade;

/// The client's connection, built once for all exchanges on it.
#[derive(Debug, Clone)]
pub struct Downstream {
    /// Unique within the process.
    pub id: u64,
    /// The peer of the connection.
    pub remote: SocketAddr,
    /// Our end of it.
    pub local: SocketAddr,
    /// The peer's IP address as a header value.
    pub remote_ip: HeaderValue,
    /// Bytes of a request that may be held for it: `per_connection_buffer_limit_bytes`.
    pub buffer_limit: u32,
}

/// How an exchange ended or was answered, in Envoy's letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum ResponseFlag {
    /// `UH`: no healthy upstream host.
    NoHealthyUpstream = 1,
    /// `UF`: the connection to the upstream failed.
    UpstreamConnectionFailure = 1 << 1,
    /// `UO`: a circuit breaker was open.
    UpstreamOverflow = 1 << 2,
    /// `NR`: no route.
    NoRouteFound = 1 << 3,
    /// `NC`: the route's cluster does not exist.
    NoClusterFound = 1 << 4,
    /// `UT`: the upstream took too long.
    UpstreamRequestTimeout = 1 << 5,
    /// `UC`: the upstream closed the connection.
    UpstreamConnectionTermination = 1 << 6,
    /// `UR`: the upstream reset the stream.
    UpstreamRemoteReset = 1 << 7,
    /// `UPE`: the upstream broke the protocol.
    UpstreamProtocolError = 1 << 8,
    /// `DC`: the client left.
    DownstreamConnectionTermination = 1 << 9,
    /// `DPE`: the client broke the protocol.
    DownstreamProtocolError = 1 << 10,
    /// `SI`: the stream was idle too long.
    StreamIdleTimeout = 1 << 11,
    /// `LR`: we reset the stream.
    LocalReset = 1 << 12,
    /// `DI`: a fault filter delayed the request.
    DelayInjected = 1 << 13,
    /// `FI`: a fault filter answered.
    FaultInjected = 1 << 14,
    /// `RL`: a rate limit answered.
    RateLimited = 1 << 15,
    /// `URX`: retries, or attempts to connect, were used up.
    UpstreamRetryLimitExceeded = 1 << 16,
    /// `DO`: the cluster sheds load.
    DropOverload = 1 << 17,
    /// `NFCF`: a filter's configuration is discovered, and there is none.
    NoFilterConfigFound = 1 << 18,
    /// `DT`: the stream lived too long.
    DurationTimeout = 1 << 19,
}

/// A set of [`ResponseFlag`]s; prints as `UF,URX`, or `-` when empty.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ResponseFlags(u32);

impl ResponseFlags {
    /// Every flag with its letters, in the order they are printed.
    pub const ALL: [(ResponseFlag, &'static str); 20] = [
        (ResponseFlag::NoHealthyUpstream, "UH"),
        (ResponseFlag::UpstreamConnectionFailure, "UF"),
        (ResponseFlag::UpstreamOverflow, "UO"),
        (ResponseFlag::NoRouteFound, "NR"),
        (ResponseFlag::UpstreamRetryLimitExceeded, "URX"),
        (ResponseFlag::NoClusterFound, "NC"),
        (ResponseFlag::UpstreamRequestTimeout, "UT"),
        (ResponseFlag::UpstreamConnectionTermination, "UC"),
        (ResponseFlag::UpstreamRemoteReset, "UR"),
        (ResponseFlag::UpstreamProtocolError, "UPE"),
        (ResponseFlag::DownstreamConnectionTermination, "DC"),
        (ResponseFlag::DownstreamProtocolError, "DPE"),
        (ResponseFlag::StreamIdleTimeout, "SI"),
        (ResponseFlag::NoFilterConfigFound, "NFCF"),
        (ResponseFlag::DurationTimeout, "DT"),
        (ResponseFlag::LocalReset, "LR"),
        (ResponseFlag::DelayInjected, "DI"),
        (ResponseFlag::FaultInjected, "FI"),
        (ResponseFlag::RateLimited, "RL"),
        (ResponseFlag::DropOverload, "DO"),
    ];

    /// Adds a flag.
    pub fn set(&mut self, flag: ResponseFlag) {
        self.0 |= flag as u32;
    }

    /// Whether a flag is in the set.
    pub fn has(self, flag: ResponseFlag) -> bool {
        self.0 & flag as u32 != 0
    }

    /// The first of the set, in the order in which they are printed.
    pub fn first(self) -> Option<ResponseFlag> {
        Self::ALL.iter().map(|(flag, _)| *flag).find(|flag| self.has(*flag))
    }

    /// Whether no flag is in the set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for ResponseFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("-");
        }
        let mut first = true;
        for (flag, letters) in Self::ALL {
            if self.has(flag) {
                if !first {
                    f.write_str(",")?;
                }
                f.write_str(letters)?;
                first = false;
            }
        }
        Ok(())
    }
}

/// The request as the client sent it, kept for access logs only.
#[derive(Debug, Clone)]
pub struct RequestRecord {
    /// The method.
    pub method: Method,
    /// Path and query; none for `CONNECT`.
    pub path: Option<PathAndQuery>,
    /// `Host` or `:authority`.
    pub authority: Option<HeaderValue>,
    /// All headers after they were made sane.
    pub headers: HeaderMap,
}

/// Told once when an exchange is over: counts and writes the access log.
pub trait OnStreamEnd: Send + Sync + 'static {
    /// The exchange is over, however it ended. Called on the worker; must not block.
    fn stream_ended(&self, stream: &mut StreamInfo);
}

/// A host that goes before the balancer's choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverrideHost {
    /// Its address; the first that is a host of the request's cluster counts.
    pub addresses: SmallVec<[SocketAddr; 1]>,
    /// If it cannot take the request, none shall.
    pub strict: bool,
}

/// Redirects of upstreams that were followed in place of the client.
#[derive(Debug, Default)]
pub struct Redirects {
    /// How many.
    pub count: u32,
    /// Each from route to route, by their names.
    pub taken: Vec<(Arc<str>, Arc<str>)>,
    /// Whether the last of them led to `https`.
    pub https: bool,
    /// When it was taken.
    pub since: Option<Instant>,
}

/// A client that speaks through others, as they say.
#[derive(Debug, Clone)]
pub struct Client {
    /// Its address. The port is 0: nobody says it.
    pub address: SocketAddr,
    /// Its IP address as a header value.
    pub ip: HeaderValue,
}

/// What is known about one exchange. Dropping it ends the exchange: [`OnStreamEnd`] is told.
pub struct StreamInfo {
    /// When the request's head was complete.
    pub start: Instant,
    /// The same on the wall clock, for access logs; the epoch where there is none to want it.
    pub start_time: SystemTime,
    /// The protocol the client spoke.
    pub protocol: Version,
    /// The method that it asked with, for metrics.
    pub method: KnownMethod,
    /// The client's connection.
    pub downstream: Arc<Downstream>,
    /// Who the client is, if not the peer of its connection.
    pub client: Option<Box<Client>>,
    /// The request, if an access log wants it.
    pub request: Option<Box<RequestRecord>>,
    /// The response's headers, if an access log wants them.
    pub response_headers: Option<Box<HeaderMap>>,
    /// The status sent to the client.
    pub status: Option<StatusCode>,
    /// How the exchange was answered or ended.
    pub flags: ResponseFlags,
    /// Envoy's response code details, such as `via_upstream` or `route_not_found`.
    pub details: &'static str,
    /// How much of the request's body has arrived; absent for a request without one.
    pub request_body: Option<Arc<BodyProgress>>,
    /// The request is one of gRPC, and its answer has to be one.
    pub is_grpc: bool,
    /// The client is within, and may say what those outside may not.
    pub is_internal: bool,
    /// How answers of our own look, if not as they are.
    pub local_replies: Option<Arc<dyn LocalReplyForm>>,
    /// The text of the answer of our own that this exchange had, if its form reads it.
    pub local_reply_body: Option<Bytes>,
    /// Body bytes handed to the client's connection.
    pub bytes_sent: u64,
    /// The response was handed over whole.
    pub complete: bool,
    /// The response's body in a file, which a socket may be given instead: a `net::FileCopy`, which lies
    /// beside this.
    pub body_copy: Option<Arc<dyn Any + Send + Sync>>,
    /// When the upstream's response head arrived.
    pub upstream_first_byte: Option<Instant>,
    /// The address of the host that answered, or was tried last.
    pub upstream_host: Option<SocketAddr>,
    /// The host that the request's session is pinned to, which goes before the balancer's choice.
    pub override_host: Option<Box<OverrideHost>>,
    /// The cluster the route chose.
    pub upstream_cluster: Option<Arc<str>>,
    /// The matched route, pinned for the whole exchange: a `route::Route`, which lies on a higher
    /// floor. A filter that changes what routing depends on sets it to `None`.
    pub route: Option<Arc<dyn Any + Send + Sync>>,
    /// The route table the request was matched in, pinned likewise: a `route::RouteTable`.
    pub route_table: Option<Arc<dyn Any + Send + Sync>>,
    /// The matched route's name, if it has one.
    pub route_name: Option<Arc<str>>,
    /// Redirects that were followed, if any were.
    pub redirects: Option<Box<Redirects>>,
    /// It is to become a tunnel, whose bytes are none of a message.
    pub upgrade: Option<Box<AskedUpgrade>>,
    /// How long all of it may take, from `start`; `None` is for ever.
    pub max_duration: Option<Duration>,
    /// How long nothing may move; `None` is for ever.
    pub idle_timeout: Option<Duration>,
    /// When the response's body must have been handed over.
    pub response_deadline: Option<Deadline>,
    /// When it ended, if whoever ended it looked at the clock.
    pub ended: Option<Instant>,
    /// Told when this is dropped.
    pub on_end: Option<Arc<dyn OnStreamEnd>>,
}

impl StreamInfo {
    /// An exchange that begins now.
    pub fn new(start: Instant, protocol: Version, downstream: Arc<Downstream>) -> Self {
        Self {
            start,
            start_time: SystemTime::UNIX_EPOCH,
            protocol,
            method: KnownMethod::Other,
            downstream,
            client: None,
            request: None,
            response_headers: None,
            status: None,
            flags: ResponseFlags::default(),
            details: "",
            request_body: None,
            is_grpc: false,
            is_internal: false,
            local_replies: None,
            local_reply_body: None,
            bytes_sent: 0,
            complete: false,
            body_copy: None,
            upstream_first_byte: None,
            upstream_host: None,
            override_host: None,
            upstream_cluster: None,
            route: None,
            route_table: None,
            route_name: None,
            redirects: None,
            upgrade: None,
            max_duration: None,
            idle_timeout: None,
            response_deadline: None,
            ended: None,
            on_end: None,
        }
    }

    /// The client's address.
    pub fn remote(&self) -> SocketAddr {
        self.client.as_ref().map_or(self.downstream.remote, |client| client.address)
    }

    /// The client's IP address as a header value.
    pub fn remote_ip(&self) -> &HeaderValue {
        self.client.as_ref().map_or(&self.downstream.remote_ip, |client| &client.ip)
    }

    /// Body bytes received from the client so far.
    pub fn bytes_received(&self) -> u64 {
        self.request_body.as_ref().map_or(0, |body| body.bytes())
    }

    /// Whether the request has arrived whole.
    pub fn request_complete(&self) -> bool {
        self.request_body.as_ref().is_none_or(|body| body.is_complete())
    }
}

/// How much of a request's body has arrived; shared by the body, which reports, and the stages that
/// time it.
#[derive(Debug, Default)]
pub struct BodyProgress {
    bytes: AtomicU64,
    complete: AtomicBool,
    broken: AtomicBool,
    waker: AtomicWaker,
}

impl BodyProgress {
    /// `n` more bytes arrived.
    pub fn advance(&self, n: u64) {
        self.bytes.fetch_add(n, Ordering::Relaxed);
    }

    /// The last byte arrived.
    pub fn finish(&self) {
        self.complete.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// The client left or broke the protocol before the last byte.
    pub fn break_off(&self) {
        self.broken.store(true, Ordering::Release);
    }

    /// Whether the rest will never come.
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether all bytes are here.
    pub fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Acquire)
    }

    /// Has `waker` woken when the last byte arrives. One waker is kept.
    pub fn wake_when_complete(&self, waker: &Waker) {
        self.waker.register(waker);
    }
}

impl Drop for StreamInfo {
    fn drop(&mut self) {
        if let Some(on_end) = self.on_end.take() {
            on_end.stream_ended(self);
        }
    }
}

impl fmt::Debug for StreamInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamInfo")
            .field("status", &self.status)
            .field("flags", &self.flags)
            .field("details", &self.details)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_print_in_envoys_letters() {
        let mut flags = ResponseFlags::default();
        assert_eq!(flags.to_string(), "-");
        flags.set(ResponseFlag::UpstreamRetryLimitExceeded);
        flags.set(ResponseFlag::UpstreamConnectionFailure);
        assert_eq!(flags.to_string(), "UF,URX");
    }

    #[test]
    fn every_flag_has_letters_of_its_own() {
        for (i, (flag, letters)) in ResponseFlags::ALL.iter().enumerate() {
            let clash = |(f, l): &(ResponseFlag, &str)| f == flag || l == letters;
            assert!(!ResponseFlags::ALL[i + 1..].iter().any(clash), "{letters}");
        }
    }
}
