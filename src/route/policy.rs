//! `config.route.v3.RetryPolicy`: when, how often and where a request is tried again.

use std::collections::BTreeMap;
use std::time::Duration;

use http::HeaderName;

use crate::config::matcher::HeaderMatcher;

/// A route's own policy, or its virtual host's.
#[derive(Debug)]
pub struct RetryPolicy {
    /// `retry_on`.
    pub on: RetryOn,
    /// `num_retries`: tries after the first; 1 unless set.
    pub num_retries: u32,
    /// `per_try_timeout`; `None` leaves it to the route's timeout.
    pub per_try_timeout: Option<Duration>,
    /// `per_try_idle_timeout`: how long nothing may come of a try, its body included.
    pub per_try_idle_timeout: Option<Duration>,
    /// `retry_priority`: after so many tries the priorities that they went to are kept away from.
    pub previous_priorities: Option<u32>,
    /// `retry_host_predicate`.
    pub avoid: Avoid,
    /// `host_selection_retry_max_attempts`: hosts that are drawn in vain before any will do.
    pub host_selection_attempts: u32,
    /// `retriable_status_codes`.
    pub status_codes: Box<[u16]>,
    /// `retriable_headers`, of the response; one match is enough.
    pub headers: Box<[HeaderMatcher]>,
    /// `retriable_request_headers`; if there are any, one must match.
    pub request_headers: Box<[HeaderMatcher]>,
    /// `retry_back_off`.
    pub back_off: BackOff,
    /// `rate_limited_retry_back_off`.
    pub rate_limited: Option<RateLimited>,
}

/// Hosts that a retry keeps away from.
#[derive(Debug, Default)]
pub struct Avoid {
    /// Those that were tried.
    pub previous: bool,
    /// Canaries.
    pub canaries: bool,
    /// Those with all of this `envoy.lb` metadata.
    pub metadata: Vec<BTreeMap<String, prost_types::Value>>,
}

impl Avoid {
    /// Whether nothing is avoided.
    pub fn is_empty(&self) -> bool {
        !self.previous && !self.canaries && self.metadata.is_empty()
    }
}

/// Random waits between tries, up to a bound that doubles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackOff {
    /// The first bound; 25 ms unless set, at least 1 ms.
    pub base: Duration,
    /// The last bound; ten times the base unless set.
    pub max: Duration,
}

impl Default for BackOff {
    fn default() -> Self {
        Self { base: Duration::from_millis(25), max: Duration::from_millis(250) }
    }
}

/// Waits that the upstream asks for.
#[derive(Debug)]
pub struct RateLimited {
    /// Where it says how long; the first that fits counts.
    pub headers: Box<[ResetHeader]>,
    /// Longer ones do not fit; 300 s unless set.
    pub max: Duration,
}

/// A header that says when to come back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResetHeader {
    /// Its name.
    pub name: HeaderName,
    /// It holds a time on the wall clock in seconds since 1970, not a number of seconds from now.
    pub timestamp: bool,
}

/// A set of conditions to try again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RetryOn(u32);

impl RetryOn {
    /// `5xx`: any such answer, and any reset.
    pub const SERVER_ERROR: Self = Self(1);
    /// `gateway-error`: 502, 503 or 504, and any reset.
    pub const GATEWAY_ERROR: Self = Self(1 << 1);
    /// `reset`: no answer came.
    pub const RESET: Self = Self(1 << 2);
    /// `reset-before-request`: no answer came, and nothing was sent.
    pub const RESET_BEFORE_REQUEST: Self = Self(1 << 3);
    /// `connect-failure`
    pub const CONNECT_FAILURE: Self = Self(1 << 4);
    /// `envoy-ratelimited`: the answer has `x-envoy-ratelimited`.
    pub const RATE_LIMITED: Self = Self(1 << 5);
    /// `retriable-4xx`: 409.
    pub const RETRIABLE_4XX: Self = Self(1 << 6);
    /// `refused-stream`
    pub const REFUSED_STREAM: Self = Self(1 << 7);
    /// `retriable-status-codes`
    pub const STATUS_CODES: Self = Self(1 << 8);
    /// `retriable-headers`
    pub const HEADERS: Self = Self(1 << 9);
    /// `http3-post-connect-failure`, which never happens without HTTP/3.
    pub const HTTP3: Self = Self(1 << 10);
    /// `cancelled`: gRPC status 1.
    pub const CANCELLED: Self = Self(1 << 11);
    /// `deadline-exceeded`: gRPC status 4.
    pub const DEADLINE_EXCEEDED: Self = Self(1 << 12);
    /// `internal`: gRPC status 13.
    pub const INTERNAL: Self = Self(1 << 13);
    /// `resource-exhausted`: gRPC status 8.
    pub const RESOURCE_EXHAUSTED: Self = Self(1 << 14);
    /// `unavailable`: gRPC status 14.
    pub const UNAVAILABLE: Self = Self(1 << 15);

    /// Conditions of `x-envoy-retry-on`.
    const HTTP: [(&'static str, Self); 11] = [
        ("5xx", Self::SERVER_ERROR),
        ("gateway-error", Self::GATEWAY_ERROR),
        ("reset", Self::RESET),
        ("reset-before-request", Self::RESET_BEFORE_REQUEST),
        ("connect-failure", Self::CONNECT_FAILURE),
        ("envoy-ratelimited", Self::RATE_LIMITED),
        ("retriable-4xx", Self::RETRIABLE_4XX),
        ("refused-stream", Self::REFUSED_STREAM),
        ("retriable-status-codes", Self::STATUS_CODES),
        ("retriable-headers", Self::HEADERS),
        ("http3-post-connect-failure", Self::HTTP3),
    ];

    /// Conditions of `x-envoy-retry-grpc-on`.
    const GRPC: [(&'static str, Self); 5] = [
        ("cancelled", Self::CANCELLED),
        ("deadline-exceeded", Self::DEADLINE_EXCEEDED),
        ("internal", Self::INTERNAL),
        ("resource-exhausted", Self::RESOURCE_EXHAUSTED),
        ("unavailable", Self::UNAVAILABLE),
    ];

    /// The HTTP condition of this name.
    pub fn http(name: &str) -> Option<Self> {
        Self::HTTP.iter().find(|(known, _)| *known == name).map(|(_, on)| *on)
    }

    /// The gRPC condition of this name.
    pub fn grpc(name: &str) -> Option<Self> {
        Self::GRPC.iter().find(|(known, _)| *known == name).map(|(_, on)| *on)
    }

    /// Whether no condition is in the set.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// Whether the two sets have a condition in common.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl std::ops::BitOr for RetryOn {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl std::ops::BitOrAssign for RetryOn {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// How much of a request's body may be held to be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLimit {
    /// `request_body_buffer_limit`, in bytes.
    Own(u64),
    /// `per_request_buffer_limit_bytes`: not above the listener's limit.
    AtMost(u32),
}

impl BodyLimit {
    /// Bytes, where the connection allows so many.
    pub fn bytes(this: Option<Self>, connection: u32) -> u64 {
        match this {
            None => u64::from(connection),
            Some(Self::Own(limit)) => limit,
            Some(Self::AtMost(limit)) => u64::from(limit.min(connection)),
        }
    }
}
