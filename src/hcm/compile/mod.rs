//! `HttpConnectionManager` to [`HcmConfig`].

mod client;
mod early;
mod form;
mod local_reply;
mod named;
mod protocols;
mod upgrade;

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use self::protocols::{compile_common, compile_http1, compile_http2};
use super::client::Detection;
use super::http2::FloodLimits;
use super::http2::stats::Http2Stats;
use super::local_reply::LocalReplies;
use super::proxy_status::ProxyStatus;
use super::sane::{HostPolicy, Underscores};
use super::stats::HttpStats;
use super::trust::UserAgent;
use super::upgrade::Upgrades;
use crate::config::address_range::AddressRange;
use crate::config::runtime::Runtime;
use crate::config::source::{self, ConfigSource};
use crate::config::{Errors, Fault, OrFault, fields};
use crate::exchange::path::PathPolicy;
use crate::filter::chain::FilterChain;
use crate::filter::registry;
use crate::http1::case::NameFormat;
use crate::proto::envoy::extensions::filters::network::http_connection_manager::v3 as proto;
use crate::route::{self, HeaderLevel, RouteTable};
use crate::telemetry::access_log::{AccessLogs, Sinks};
use crate::telemetry::durations::Durations;
use crate::telemetry::{Scope, Telemetry};

/// A compiled connection manager, shared by the workers.
#[derive(Debug)]
pub struct HcmConfig {
    /// Which protocol clients speak.
    pub codec: Codec,
    /// Where routes come from.
    pub routes: RouteSource,
    /// The filters, the router last.
    pub filters: FilterChain,
    /// Types of optional filters that are unknown and were left out.
    pub skipped_filters: Vec<String>,
    /// Limits of HTTP/1.
    pub http1: Http1Options,
    /// Limits of HTTP/2.
    pub http2: Http2Options,
    /// What `Server` says, and when.
    pub server: ServerHeader,
    /// Timers.
    pub timeouts: Timeouts,
    /// Largest request head in bytes.
    pub max_request_headers_bytes: u32,
    /// Most headers a request may have.
    pub max_headers_count: u32,
    /// Requests after which a connection is closed.
    pub max_requests_per_connection: Option<u32>,
    /// In what form paths go on.
    pub path: PathPolicy,
    /// In what form authorities go on.
    pub host: HostPolicy,
    /// What becomes of headers with an underscore in their name.
    pub underscores: Underscores,
    /// The peer of the connection is the client: this is the edge.
    pub use_remote_address: bool,
    /// How many proxies before us are trusted to have appended to `X-Forwarded-For`.
    pub xff_num_trusted_hops: u32,
    /// The peer is appended to `X-Forwarded-For`.
    pub append_forwarded_for: bool,
    /// Where the client's address is looked for.
    pub detections: Box<[Detection]>,
    /// What is changed of every request before its route is looked for.
    pub early_mutations: Box<[HeaderLevel]>,
    /// The scheme of every request, if it is not for its client to say.
    pub scheme: Option<HeaderValue>,
    /// An upstream over HTTP/2 is told the scheme of its own connection, not that of the client's.
    pub match_upstream_scheme: bool,
    /// The listener's port is said in `X-Forwarded-Port`.
    pub append_forwarded_port: bool,
    /// `X-Forwarded-Client-Cert` passes though the client showed no certificate.
    pub forward_client_cert: bool,
    /// Addresses of clients that are within.
    pub internal_addresses: Box<[AddressRange]>,
    /// Whom services are told that requests come from.
    pub user_agent: Option<UserAgent>,
    /// What answers that something went wrong say of it.
    pub proxy_status: Option<ProxyStatus>,
    /// Appended to `Via`.
    pub via: Option<HeaderValue>,
    /// The upstream is asked whether it wants the body of a request that expects to be told. Otherwise
    /// the client is told so by us.
    ///
    /// Differs: with HTTP/1.1 upstreams only, and 100 when the body is read.
    pub proxy_100_continue: bool,
    /// Give every request an id.
    pub generate_request_id: bool,
    /// Keep an id that came from outside.
    pub preserve_external_request_id: bool,
    /// Tell the client its request's id.
    pub always_set_request_id_in_response: bool,
    /// Protocols that requests may change to.
    pub upgrades: Upgrades,
    /// How answers of our own look.
    pub local_replies: Option<Arc<LocalReplies>>,
    /// Where finished exchanges are written.
    pub access_logs: AccessLogs,
    /// `stat_prefix`
    pub stat_prefix: Arc<str>,
    /// Cells of its stat prefix.
    pub stats: Arc<HttpStats>,
    /// How long requests took.
    pub durations: Arc<Durations>,
    /// Cells of the HTTP/2 codec.
    pub http2_stats: Arc<Http2Stats>,
}

/// `HttpConnectionManager.codec_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// By the first bytes of the connection.
    Auto,
    /// HTTP/1 only.
    Http1,
    /// HTTP/2 with prior knowledge only.
    Http2,
}

/// Where the route table comes from.
#[derive(Debug)]
pub enum RouteSource {
    /// Given with the listener.
    Inline(Arc<RouteTable>),
    /// By name.
    Rds(RdsConfig),
}

/// A route table that is discovered.
#[derive(Debug, Clone, PartialEq)]
pub struct RdsConfig {
    /// The table's name.
    pub name: Arc<str>,
    /// Where it comes from.
    pub source: ConfigSource,
}

/// Limits of HTTP/1.
#[derive(Debug, Clone)]
pub struct Http1Options {
    /// Serve HTTP/1.0 as well.
    pub accept_http_10: bool,
    /// Trailers pass, in both directions: `enable_trailers`.
    pub trailers: bool,
    /// A request with a length beside the chunked coding is read as chunked: `allow_chunked_length`.
    /// Otherwise it is refused.
    pub chunked_length: bool,
    /// How names of headers are written: `header_key_format`.
    pub names: NameFormat,
    /// Whom a request of HTTP/1.0 is for that does not say so.
    pub default_host_for_http_10: Option<HeaderValue>,
    /// Understand targets that are whole URLs.
    pub allow_absolute_url: bool,
}

/// Limits of HTTP/2.
#[derive(Debug, Clone, Copy)]
pub struct Http2Options {
    /// Streams a client may have open.
    pub max_concurrent_streams: u32,
    /// Bytes in flight on a stream.
    pub initial_stream_window_size: u32,
    /// Bytes in flight on a connection.
    pub initial_connection_window_size: u32,
    /// Bytes of the tables of header compression.
    pub hpack_table_size: u32,
    /// `CONNECT` may name a protocol (RFC 8441).
    pub allow_connect: bool,
    /// What a client may ask of the codec without asking for anything useful.
    pub flood: FloodLimits,
    /// A malformed request ends its stream, instead of the connection.
    pub stream_error_on_invalid_message: bool,
    /// Interval and timeout of pings.
    pub keepalive: Option<(Duration, Duration)>,
}

/// `server_name` and `server_header_transformation`.
#[derive(Debug, Clone)]
pub struct ServerHeader {
    /// The value.
    pub name: HeaderValue,
    /// What is done with one that is there already.
    pub transformation: ServerHeaderTransformation,
}

pub use proto::http_connection_manager::ServerHeaderTransformation;

/// Timers of a connection manager; `None` is for ever.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// A connection without requests.
    pub idle: Option<Duration>,
    /// A stream on which nothing moves.
    pub stream_idle: Option<Duration>,
    /// All of a request and its response, unless the route says otherwise.
    pub stream_duration: Option<Duration>,
    /// From a request's first byte to its last.
    pub request: Option<Duration>,
    /// From a request's first byte to the end of its head.
    pub request_headers: Option<Duration>,
    /// A connection, from its start.
    pub max_connection_duration: Option<Duration>,
    /// Between announcing the end of a connection and closing it.
    pub drain: Duration,
}

/// What compiling needs to know of its surroundings.
#[derive(Clone)]
pub struct CompileContext {
    /// Where cells are registered.
    pub telemetry: Telemetry,
    /// Where access logs are written.
    pub sinks: Sinks,
    /// What goes before the defaults of fields that name a key.
    pub runtime: Arc<Runtime>,
    /// Who we are.
    pub node: NodeName,
}

/// `config.core.v3.Node`, as far as it is told to others.
#[derive(Debug, Clone, Default)]
pub struct NodeName {
    /// `id`
    pub id: Arc<str>,
    /// `cluster`
    pub cluster: Arc<str>,
}

/// Compiles a connection manager.
pub fn compile(
    message: proto::HttpConnectionManager,
    cx: &CompileContext,
) -> Result<HcmConfig, Errors> {
    let proto::HttpConnectionManager {
        codec_type,
        stat_prefix,
        http_filters,
        add_user_agent,
        common_http_protocol_options,
        http_protocol_options,
        http2_protocol_options,
        server_name,
        server_header_transformation,
        max_request_headers_kb,
        stream_idle_timeout,
        request_timeout,
        request_headers_timeout,
        drain_timeout,
        access_log,
        use_remote_address,
        xff_num_trusted_hops,
        skip_xff_append,
        forward_client_cert_details,
        via,
        internal_address_config,
        proxy_100_continue,
        generate_request_id,
        preserve_external_request_id,
        always_set_request_id_in_response,
        normalize_path,
        merge_slashes,
        path_with_escaped_slashes_action,
        strip_matching_host_port,
        strip_trailing_host_dot,
        strip_port_mode,
        local_reply_config,
        original_ip_detection_extensions,
        stream_error_on_invalid_http_message,
        upgrade_configs,
        scheme_header_transformation,
        proxy_status_config,
        append_x_forwarded_port,
        early_header_mutation_extensions,
        route_specifier,
    } = message;
    let mut errors = Errors::new();
    let stat_prefix = errors.take(fields::non_empty(&stat_prefix).at("stat_prefix"));
    let codec = errors.take(compile_codec(codec_type).at("codec_type"));
    let routes = errors.take(compile_routes(route_specifier, cx));
    let prefix = stat_prefix.clone().unwrap_or_default();
    let filters = registry::compile_chain(&http_filters, &prefix, &cx.runtime).at("http_filters");
    let filters = errors.take(filters);
    let common = common_http_protocol_options.unwrap_or_default();
    let common = errors.take(compile_common(common).at("common_http_protocol_options"));
    let http1 = errors
        .take(compile_http1(http_protocol_options.unwrap_or_default()).at("http_protocol_options"));
    let http2 = errors.take(
        compile_http2(
            &http2_protocol_options.unwrap_or_default(),
            stream_error_on_invalid_http_message.unwrap_or(false),
        )
        .at("http2_protocol_options"),
    );
    let server = errors.take(compile_server(server_name, server_header_transformation));
    let max_kb = errors.take(
        fields::in_range(max_request_headers_kb.unwrap_or(60), 1..=8192)
            .at("max_request_headers_kb"),
    );
    let mut timer = |value: Option<prost_types::Duration>, name, default| {
        errors.take(timeout(value, default).at(name)).flatten()
    };
    let stream_idle = timer(stream_idle_timeout, "stream_idle_timeout", STREAM_IDLE);
    let request = timer(request_timeout, "request_timeout", None);
    let request_headers = timer(request_headers_timeout, "request_headers_timeout", None);
    let drain = timer(drain_timeout, "drain_timeout", Some(Duration::from_secs(5)));
    let escaped_slashes = form::escaped_slashes(path_with_escaped_slashes_action);
    let path = errors.take(escaped_slashes.at("path_with_escaped_slashes_action")).map(
        |escaped_slashes| PathPolicy {
            normalize: normalize_path.unwrap_or(false),
            merge_slashes,
            escaped_slashes,
        },
    );
    let strip_port = errors.take(form::strip_port(strip_matching_host_port, strip_port_mode));
    let host = strip_port
        .map(|strip_port| HostPolicy { strip_port, strip_trailing_dot: strip_trailing_host_dot });
    let use_remote_address = use_remote_address.unwrap_or(false);
    let clients = client::Fields { use_remote_address, xff_num_trusted_hops, skip_xff_append };
    let clients = client::compile(clients, &original_ip_detection_extensions);
    let (detections, append_forwarded_for) = errors.take(clients).unwrap_or_default();
    let forward_client_cert = errors.take(
        client::forward_certificates(forward_client_cert_details).at("forward_client_cert_details"),
    );
    let internal = client::internal(&internal_address_config.unwrap_or_default());
    let internal_addresses = errors.take(internal.at("internal_address_config"));
    let user_agent = match add_user_agent {
        Some(true) => errors.take(named::user_agent(&cx.node).at("add_user_agent")).flatten(),
        Some(false) | None => None,
    };
    let proxy_status = proxy_status_config.and_then(|config| {
        errors.take(named::proxy_status(config, &cx.node).at("proxy_status_config"))
    });
    let early_mutations = errors.take(early::compile(&early_header_mutation_extensions));
    let scheme = scheme_header_transformation.unwrap_or_default();
    let scheme = errors.take(early::scheme(scheme).at("scheme_header_transformation"));
    let (scheme, match_upstream_scheme) = scheme.unwrap_or_default();
    let via = errors.take(optional_header(&via).at("via"));
    let local_replies = local_reply_config.as_ref();
    let upgrades = errors.take(upgrade::compile(&upgrade_configs)).unwrap_or_default();
    let local_replies = local_replies.and_then(|config| {
        errors.take(local_reply::compile(config, &cx.runtime).at("local_reply_config"))
    });
    let access_logs =
        errors.take(AccessLogs::compile(&access_log, &cx.sinks, &cx.runtime).at("access_log"));
    errors.finish()?;
    let missing = || Errors::from(Fault::Required);
    let (filters, skipped_filters) = filters.ok_or_else(missing)?;
    let common = common.ok_or_else(missing)?;
    let stat_prefix = stat_prefix.ok_or_else(missing)?;
    Ok(HcmConfig {
        codec: codec.ok_or_else(missing)?,
        routes: routes.ok_or_else(missing)?,
        filters,
        skipped_filters,
        http1: http1.ok_or_else(missing)?,
        http2: http2.ok_or_else(missing)?,
        server: server.ok_or_else(missing)?,
        timeouts: Timeouts {
            idle: common.idle,
            stream_idle,
            stream_duration: common.max_stream_duration,
            request,
            request_headers,
            max_connection_duration: common.max_connection_duration,
            drain: drain.unwrap_or_default(),
        },
        max_request_headers_bytes: max_kb.ok_or_else(missing)? * 1024,
        max_headers_count: common.max_headers_count,
        max_requests_per_connection: common.max_requests_per_connection,
        path: path.ok_or_else(missing)?,
        host: host.ok_or_else(missing)?,
        underscores: common.underscores,
        use_remote_address,
        xff_num_trusted_hops,
        append_forwarded_for,
        detections,
        early_mutations: early_mutations.unwrap_or_default(),
        scheme,
        match_upstream_scheme,
        append_forwarded_port: append_x_forwarded_port,
        forward_client_cert: forward_client_cert.unwrap_or_default(),
        internal_addresses: internal_addresses.unwrap_or_default(),
        user_agent,
        proxy_status,
        via: via.flatten(),
        proxy_100_continue,
        generate_request_id: generate_request_id.unwrap_or(true),
        preserve_external_request_id,
        always_set_request_id_in_response,
        upgrades,
        local_replies: local_replies.map(Arc::new),
        access_logs: access_logs.ok_or_else(missing)?,
        stats: cx.telemetry.group(Scope::http(&stat_prefix)),
        durations: cx.telemetry.group(Scope::http(&stat_prefix)),
        http2_stats: cx.telemetry.group(Scope::global("http2")),
        stat_prefix,
    })
}

const STREAM_IDLE: Option<Duration> = Some(Duration::from_secs(300));

/// A timer that 0 turns off.
fn timeout(
    value: Option<prost_types::Duration>,
    default: Option<Duration>,
) -> Result<Option<Duration>, Errors> {
    match value {
        None => Ok(default),
        Some(value) => Ok(Some(fields::duration(&value)?).filter(|timeout| !timeout.is_zero())),
    }
}

fn compile_codec(value: i32) -> Result<Codec, Errors> {
    use proto::http_connection_manager::CodecType;
    match fields::enumeration(value)? {
        CodecType::Auto => Ok(Codec::Auto),
        CodecType::Http1 => Ok(Codec::Http1),
        CodecType::Http2 => Ok(Codec::Http2),
        CodecType::Http3 => Err(Fault::unsupported("HTTP3 is not supported; use AUTO").into()),
    }
}

fn compile_routes(
    specifier: Option<proto::http_connection_manager::RouteSpecifier>,
    cx: &CompileContext,
) -> Result<RouteSource, Errors> {
    use proto::http_connection_manager::RouteSpecifier;
    match specifier {
        None => Err(Errors::from(Fault::Required).at("route_specifier")),
        Some(RouteSpecifier::RouteConfig(table)) => {
            let cx = route::CompileContext {
                compile_filter_override: &registry::compile_override,
                runtime: &cx.runtime,
                telemetry: &cx.telemetry,
            };
            let table = RouteTable::compile(table, &cx).at("route_config")?;
            if table.host_source().is_some() {
                let reason = "a table in a listener has all of its virtual hosts; use rds";
                return Err(Errors::from(Fault::unsupported(reason)).at("route_config.vhds"));
            }
            Ok(RouteSource::Inline(Arc::new(table)))
        }
        Some(RouteSpecifier::Rds(rds)) => Ok(RouteSource::Rds(compile_rds(&rds).at("rds")?)),
    }
}

fn compile_rds(rds: &proto::Rds) -> Result<RdsConfig, Errors> {
    let proto::Rds { config_source, route_config_name } = rds;
    let mut errors = Errors::new();
    let name = errors.take(fields::non_empty(route_config_name).at("route_config_name"));
    let source = errors.take(
        fields::required(config_source.as_ref()).and_then(source::compile).at("config_source"),
    );
    match (name, source) {
        (Some(name), Some(source)) => Ok(RdsConfig { name, source }),
        _ => Err(errors),
    }
}

fn compile_server(name: String, transformation: i32) -> Result<ServerHeader, Errors> {
    let transformation = fields::enumeration(transformation).at("server_header_transformation")?;
    let name = optional_header(&name).at("server_name")?;
    Ok(ServerHeader { name: name.unwrap_or(HeaderValue::from_static("nuncio")), transformation })
}

fn optional_header(text: &str) -> Result<Option<HeaderValue>, Errors> {
    if text.is_empty() {
        return Ok(None);
    }
    let value = HeaderValue::from_str(text)
        .map_err(|_invalid| Fault::invalid(format!("{text:?}"), "not a header value"))?;
    Ok(Some(value))
}
