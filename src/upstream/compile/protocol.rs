//! The protocol spoken to a cluster and its connections' lives: `HttpProtocolOptions`, old and new.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::time::Duration;

use prost_types::Any;

use super::connection;
use crate::config::{Errors, Fault, OrFault, fields};
use crate::http1;
use crate::proto::any;
use crate::proto::envoy::config::cluster::v3 as cluster;
use crate::proto::envoy::config::core::v3 as core;
use crate::proto::envoy::extensions::upstreams::http::v3 as upstreams;
use crate::upstream::pool::{
    ConnectionSettings, Http1Settings, Http2Settings, Keepalive, UpstreamProtocol,
};

/// The extension's name, by which `typed_extension_protocol_options` is keyed.
const EXTENSION: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
const MAX_WINDOW: u32 = (1 << 31) - 1;

/// The fields of a cluster that say how its connections are.
pub(super) struct Fields {
    pub(super) connect_timeout: Option<prost_types::Duration>,
    pub(super) max_requests_per_connection: Option<u32>,
    pub(super) upstream_connection_options: Option<cluster::UpstreamConnectionOptions>,
    pub(super) preconnect_policy: Option<cluster::cluster::PreconnectPolicy>,
    pub(super) common: Option<core::HttpProtocolOptions>,
    pub(super) http1: Option<core::Http1ProtocolOptions>,
    pub(super) http2: Option<core::Http2ProtocolOptions>,
    pub(super) typed: HashMap<String, Any>,
}

pub(super) fn compile(proto: Fields) -> Result<ConnectionSettings, Errors> {
    let Fields {
        connect_timeout,
        max_requests_per_connection,
        upstream_connection_options,
        preconnect_policy,
        common,
        http1,
        http2,
        typed,
    } = proto;
    let mut errors = Errors::new();
    let mut settings = ConnectionSettings::default();
    if let Some(timeout) = connect_timeout {
        let timeout = errors.take(fields::positive_duration(&timeout).at("connect_timeout"));
        settings.connect_timeout = timeout.unwrap_or(settings.connect_timeout);
    }
    settings.max_requests_per_connection = max_requests_per_connection.and_then(NonZeroU32::new);
    if let Some(options) = upstream_connection_options {
        let keepalive = connection::tcp_keepalive(&options).at("upstream_connection_options");
        settings.tcp_keepalive = errors.take(keepalive).flatten();
    }
    if let Some(policy) = preconnect_policy {
        let percent = errors.take(connection::preconnect(&policy).at("preconnect_policy"));
        settings.preconnect_percent = percent.unwrap_or(settings.preconnect_percent);
    }
    if let Some(common) = common {
        errors.take(common_options(common, &mut settings).at("common_http_protocol_options"));
    }
    if let Some(http1) = http1 {
        let http1 = http1_options(&http1).at("http_protocol_options");
        settings.http1 = errors.take(http1).unwrap_or_default();
    }
    if let Some(http2) = http2 {
        settings.protocol = UpstreamProtocol::Http2;
        settings.http2 = errors
            .take(http2_options(http2).at("http2_protocol_options"))
            .unwrap_or(settings.http2);
    }
    for (name, options) in &typed {
        let compiled = match name.as_str() {
            EXTENSION => typed_options(options, &mut settings),
            connection::EXTENSION => connection::pool(options, &mut settings),
            other => Err(Fault::UnknownExtension(other.to_owned()).into()),
        };
        errors.take(compiled.key(name).at("typed_extension_protocol_options"));
    }
    errors.finish()?;
    Ok(settings)
}

fn typed_options(options: &Any, settings: &mut ConnectionSettings) -> Result<(), Errors> {
    use upstreams::http_protocol_options as oneof;
    let upstreams::HttpProtocolOptions { common_http_protocol_options, upstream_protocol_options } =
        any::unpack(options).map_err(|e| Fault::Undecodable(e.to_string()))?;
    let mut errors = Errors::new();
    if let Some(common) = common_http_protocol_options {
        errors.take(common_options(common, settings).at("common_http_protocol_options"));
    }
    let mut http2 = None;
    match upstream_protocol_options {
        None => errors.push("upstream_protocol_options", Fault::Required),
        Some(oneof::UpstreamProtocolOptions::ExplicitHttpConfig(oneof::ExplicitHttpConfig {
            protocol_config,
        })) => match protocol_config {
            None => errors.push("explicit_http_config.protocol_config", Fault::Required),
            Some(oneof::explicit_http_config::ProtocolConfig::HttpProtocolOptions(http1)) => {
                let http1 = http1_options(&http1).at("explicit_http_config.http_protocol_options");
                settings.http1 = errors.take(http1).unwrap_or_default();
                settings.protocol = UpstreamProtocol::Http1;
            }
            Some(oneof::explicit_http_config::ProtocolConfig::Http2ProtocolOptions(options)) => {
                settings.protocol = UpstreamProtocol::Http2;
                http2 =
                    Some(http2_options(options).at("explicit_http_config.http2_protocol_options"));
            }
        },
        Some(oneof::UpstreamProtocolOptions::UseDownstreamProtocolConfig(
            oneof::UseDownstreamHttpConfig { http_protocol_options, http2_protocol_options },
        )) => {
            settings.protocol = UpstreamProtocol::Downstream;
            if let Some(http1) = http_protocol_options {
                let http1 = http1_options(&http1)
                    .at("use_downstream_protocol_config.http_protocol_options");
                settings.http1 = errors.take(http1).unwrap_or_default();
            }
            http2 = http2_protocol_options.map(|options| {
                http2_options(options).at("use_downstream_protocol_config.http2_protocol_options")
            });
        }
    }
    if let Some(http2) = http2.and_then(|http2| errors.take(http2)) {
        settings.http2 = http2;
    }
    errors.finish()
}

fn common_options(
    proto: core::HttpProtocolOptions,
    settings: &mut ConnectionSettings,
) -> Result<(), Errors> {
    let core::HttpProtocolOptions {
        idle_timeout,
        max_headers_count,
        max_connection_duration,
        max_requests_per_connection,
        max_stream_duration,
        // For what clients send alone, as the API says of it.
        headers_with_underscores_action: _,
    } = proto;
    let mut errors = Errors::new();
    let mut duration = |value: Option<prost_types::Duration>, field: &'static str| {
        value.and_then(|value| errors.take(fields::duration(&value).at(field)))
    };
    if duration(max_stream_duration, "max_stream_duration").is_some_and(|most| !most.is_zero()) {
        let reason = "not supported here; use max_stream_duration of a route";
        return Err(Errors::from(Fault::unsupported(reason)).at("max_stream_duration"));
    }
    // 0 switches both off, as in Envoy.
    if let Some(timeout) = duration(idle_timeout, "idle_timeout") {
        settings.idle_timeout = (!timeout.is_zero()).then_some(timeout);
    }
    if let Some(longest) = duration(max_connection_duration, "max_connection_duration") {
        settings.max_connection_duration = (!longest.is_zero()).then_some(longest);
    }
    if let Some(max) = max_headers_count {
        let max = fields::in_range(max, 1..=u32::MAX).at("max_headers_count");
        // A head is 64 KB or so at most; a larger limit could only waste memory.
        settings.max_headers = errors.take(max).unwrap_or_default().min(16_384);
    }
    if let Some(max) = max_requests_per_connection {
        settings.max_requests_per_connection = NonZeroU32::new(max);
    }
    errors.finish()
}

fn http1_options(proto: &core::Http1ProtocolOptions) -> Result<Http1Settings, Errors> {
    let core::Http1ProtocolOptions {
        // Matters of clients.
        allow_absolute_url: _,
        accept_http_10: _,
        default_host_for_http_10: _,
        header_key_format,
        enable_trailers,
        allow_chunked_length,
    } = proto;
    let names = http1::compile::names(header_key_format.as_ref()).at("header_key_format")?;
    Ok(Http1Settings { trailers: *enable_trailers, chunked_length: *allow_chunked_length, names })
}

fn http2_options(proto: core::Http2ProtocolOptions) -> Result<Http2Settings, Errors> {
    let core::Http2ProtocolOptions {
        hpack_table_size,
        max_concurrent_streams,
        initial_stream_window_size,
        initial_connection_window_size,
        allow_connect,
        max_outbound_frames,
        max_outbound_control_frames,
        max_consecutive_inbound_frames_with_empty_payload,
        max_inbound_priority_frames_per_stream,
        max_inbound_window_update_frames_per_data_frame_sent,
        stream_error_on_invalid_http_messaging,
        override_stream_error_on_invalid_http_message,
        connection_keepalive,
    } = proto;
    // The codec has limits of its own on what a host may do, and resets the stream of a malformed response.
    let _ = (
        max_outbound_frames,
        max_outbound_control_frames,
        max_consecutive_inbound_frames_with_empty_payload,
        max_inbound_priority_frames_per_stream,
        max_inbound_window_update_frames_per_data_frame_sent,
        stream_error_on_invalid_http_messaging,
        override_stream_error_on_invalid_http_message,
    );
    let mut errors = Errors::new();
    if allow_connect {
        let reason = "upgrades go to upstreams by HTTP/1.1 alone";
        errors.push("allow_connect", Fault::unsupported(reason));
    }
    let default = Http2Settings::default();
    let mut number = |value: Option<u32>, low: u32, default: u32, field: &'static str| match value {
        None => default,
        Some(value) => {
            errors.take(fields::in_range(value, low..=MAX_WINDOW).at(field)).unwrap_or(default)
        }
    };
    let settings = Http2Settings {
        max_concurrent_streams: number(
            max_concurrent_streams,
            1,
            default.max_concurrent_streams,
            "max_concurrent_streams",
        ),
        initial_stream_window_size: number(
            initial_stream_window_size,
            65_535,
            default.initial_stream_window_size,
            "initial_stream_window_size",
        ),
        initial_connection_window_size: number(
            initial_connection_window_size,
            65_535,
            default.initial_connection_window_size,
            "initial_connection_window_size",
        ),
        hpack_table_size,
        keepalive: connection_keepalive
            .and_then(|k| errors.take(keepalive(k).at("connection_keepalive")))
            .flatten(),
    };
    errors.finish()?;
    Ok(settings)
}

fn keepalive(proto: core::KeepaliveSettings) -> Result<Option<Keepalive>, Errors> {
    let core::KeepaliveSettings { interval, timeout, connection_idle_interval } = proto;
    let mut errors = Errors::new();
    if connection_idle_interval.is_some() {
        errors.push(
            "connection_idle_interval",
            Fault::unsupported("pings before use are not supported; use interval"),
        );
    }
    let timeout = fields::required(timeout).and_then(|timeout| at_least_1_ms(&timeout));
    let timeout = errors.take(timeout.at("timeout"));
    let interval = interval.and_then(|i| errors.take(at_least_1_ms(&i).at("interval")));
    errors.finish()?;
    Ok(interval.zip(timeout).map(|(interval, timeout)| Keepalive { interval, timeout }))
}

/// A duration of at least a millisecond.
pub(super) fn at_least_1_ms(value: &prost_types::Duration) -> Result<Duration, Errors> {
    let duration = fields::duration(value)?;
    match duration < Duration::from_millis(1) {
        true => Err(Fault::out_of_range(format!("{duration:?}"), "at least 1 ms").into()),
        false => Ok(duration),
    }
}
