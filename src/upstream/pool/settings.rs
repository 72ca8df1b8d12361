//! How connections to a cluster are made and how long they live.

use std::num::NonZeroU32;
use std::time::Duration;

use http::Version;

use crate::http1::case::NameFormat;

/// All that decides whether a connection made for one cluster may serve its successor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionSettings {
    /// The protocol spoken.
    pub protocol: UpstreamProtocol,
    /// `connect_timeout`; more than zero.
    pub connect_timeout: Duration,
    /// An idle connection is closed after this time, to about a second; `None` never.
    pub idle_timeout: Option<Duration>,
    /// A connection takes no more requests after this time.
    pub max_connection_duration: Option<Duration>,
    /// A connection takes no more requests than this.
    pub max_requests_per_connection: Option<NonZeroU32>,
    /// A response with more headers than this is refused: `max_headers_count`, 100 unless set.
    pub max_headers: u32,
    /// HTTP/1.1 connections that one worker keeps to one host while nothing is on them:
    /// `ConnectionPool.max_idle`.
    pub max_idle: Option<u32>,
    /// From a request's end to its response's head: `ConnectionPool.response_header_timeout`.
    pub response_header_timeout: Option<Duration>,
    /// From a request's head to the upstream's wish for its body, if the request expects one:
    /// `ConnectionPool.expect_continue_timeout`. Zero does not wait.
    pub expect_continue_timeout: Duration,
    /// Upstreams are not asked to compress: `ConnectionPool.disable_compression`.
    pub disable_compression: bool,
    /// HTTP/1.1 connections wanted for each hundred requests under way, 100 to 300:
    /// `per_upstream_preconnect_ratio`.
    ///
    /// Differs: of HTTP/2 there is one connection until its streams are used up.
    pub preconnect_percent: u32,
    /// Probes by the operating system: `UpstreamConnectionOptions.tcp_keepalive`.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// HTTP/1.1 only.
    pub http1: Http1Settings,
    /// HTTP/2 only.
    pub http2: Http2Settings,
}

/// `config.core.v3.Http1ProtocolOptions` towards an upstream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Http1Settings {
    /// Trailers pass, in both directions: `enable_trailers`.
    pub trailers: bool,
    /// A response with a length beside the chunked coding is read as chunked: `allow_chunked_length`.
    /// Otherwise it is refused.
    pub chunked_length: bool,
    /// How names of headers are written: `header_key_format`.
    pub names: NameFormat,
}

/// `config.core.v3.TcpKeepalive`; what is not set is the system's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpKeepalive {
    /// Probes without an answer before the connection is given up.
    pub probes: Option<u32>,
    /// Silence before the first probe.
    pub time: Option<Duration>,
    /// Between probes.
    pub interval: Option<Duration>,
}

impl Default for ConnectionSettings {
    fn default() -> Self {
        Self {
            protocol: UpstreamProtocol::Http1,
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Some(Duration::from_secs(3600)),
            max_connection_duration: None,
            max_requests_per_connection: None,
            max_headers: DEFAULT_MAX_HEADERS,
            max_idle: None,
            response_header_timeout: None,
            expect_continue_timeout: Duration::from_secs(1),
            disable_compression: false,
            preconnect_percent: 100,
            tcp_keepalive: None,
            http1: Http1Settings::default(),
            http2: Http2Settings::default(),
        }
    }
}

/// Headers in a response unless `max_headers_count` says otherwise.
const DEFAULT_MAX_HEADERS: u32 = 100;

/// The HTTP version spoken to a cluster.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// The one the client speaks.
    Downstream,
}

impl UpstreamProtocol {
    /// Whether a request that came as `downstream` leaves as HTTP/2.
    pub(super) fn is_http2(self, downstream: Version) -> bool {
        match self {
            Self::Http1 => false,
            Self::Http2 => true,
            Self::Downstream => downstream == Version::HTTP_2,
        }
    }

    /// Whether any request leaves as HTTP/2.
    pub(super) fn may_be_http2(self) -> bool {
        !matches!(self, Self::Http1)
    }
}

/// `config.core.v3.Http2ProtocolOptions` towards an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http2Settings {
    /// Streams on one connection at once, however many the upstream allows.
    pub max_concurrent_streams: u32,
    /// Bytes the upstream may send on a stream before we take them.
    ///
    /// Differs: 1 MiB unless set, where Envoy has 16 MiB, so that a slow client cannot make us hold
    /// more than that.
    pub initial_stream_window_size: u32,
    /// The same for a whole connection.
    pub initial_connection_window_size: u32,
    /// Size of the header compression table in bytes.
    pub hpack_table_size: Option<u32>,
    /// Pings.
    pub keepalive: Option<Keepalive>,
}

impl Default for Http2Settings {
    fn default() -> Self {
        Self {
            max_concurrent_streams: 1024,
            initial_stream_window_size: 1 << 20,
            initial_connection_window_size: 16 << 20,
            hpack_table_size: None,
            keepalive: None,
        }
    }
}

/// Pings on HTTP/2 connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// Time between pings.
    pub interval: Duration,
    /// The connection is closed if a ping is not answered in this time.
    pub timeout: Duration,
}
