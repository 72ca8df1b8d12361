//! The protocol options of a connection manager.

use std::time::Duration;

use super::{Http1Options, Http2Options, optional_header, timeout};
use crate::config::{Errors, Fault, OrFault, fields};
use crate::hcm::sane::Underscores;
use crate::http1;
use crate::proto::envoy::config::core::v3 as core;
use crate::proto::envoy::config::core::v3::http_protocol_options::HeadersWithUnderscoresAction;

const CONNECTION_IDLE: Option<Duration> = Some(Duration::from_secs(3600));

/// `common_http_protocol_options`.
pub(super) struct Common {
    pub(super) idle: Option<Duration>,
    pub(super) max_connection_duration: Option<Duration>,
    pub(super) max_stream_duration: Option<Duration>,
    pub(super) max_headers_count: u32,
    pub(super) max_requests_per_connection: Option<u32>,
    pub(super) underscores: Underscores,
}

pub(super) fn compile_common(options: core::HttpProtocolOptions) -> Result<Common, Errors> {
    let core::HttpProtocolOptions {
        idle_timeout,
        max_connection_duration,
        max_stream_duration,
        max_headers_count,
        max_requests_per_connection,
        headers_with_underscores_action,
    } = options;
    let mut errors = Errors::new();
    let idle = errors.take(timeout(idle_timeout, CONNECTION_IDLE).at("idle_timeout"));
    let life = errors.take(timeout(max_connection_duration, None).at("max_connection_duration"));
    let stream = errors.take(timeout(max_stream_duration, None).at("max_stream_duration"));
    let headers = max_headers_count.unwrap_or(100);
    errors.take(fields::in_range(headers, 1..=u32::MAX).at("max_headers_count"));
    let underscores = fields::enumeration(headers_with_underscores_action);
    let underscores = errors.take(underscores.at("headers_with_underscores_action"));
    errors.finish()?;
    Ok(Common {
        idle: idle.flatten(),
        max_connection_duration: life.flatten(),
        max_stream_duration: stream.flatten(),
        max_headers_count: headers,
        max_requests_per_connection: max_requests_per_connection.filter(|requests| *requests > 0),
        underscores: match underscores.unwrap_or_default() {
            HeadersWithUnderscoresAction::Allow => Underscores::Allow,
            HeadersWithUnderscoresAction::RejectRequest => Underscores::Reject,
            HeadersWithUnderscoresAction::DropHeader => Underscores::Drop,
        },
    })
}

pub(super) fn compile_http1(options: core::Http1ProtocolOptions) -> Result<Http1Options, Errors> {
    let core::Http1ProtocolOptions {
        allow_absolute_url,
        accept_http_10,
        default_host_for_http_10,
        header_key_format,
        enable_trailers,
        allow_chunked_length,
    } = options;
    let default_host = optional_header(&default_host_for_http_10).at("default_host_for_http_10")?;
    let names = http1::compile::names(header_key_format.as_ref()).at("header_key_format")?;
    Ok(Http1Options {
        accept_http_10,
        default_host_for_http_10: default_host,
        allow_absolute_url: allow_absolute_url.unwrap_or(true),
        trailers: enable_trailers,
        chunked_length: allow_chunked_length,
        names,
    })
}

pub(super) fn compile_http2(options: &core::Http2ProtocolOptions) -> Result<Http2Options, Errors> {
    let core::Http2ProtocolOptions {
        hpack_table_size,
        max_concurrent_streams,
        initial_stream_window_size,
        initial_connection_window_size,
        connection_keepalive,
    } = options;
    let mut errors = Errors::new();
    if hpack_table_size.is_some_and(|size| size != 4096) {
        errors
            .push("hpack_table_size", Fault::unsupported("the table has 4096 bytes; leave it out"));
    }
    let streams = errors.take(
        fields::in_range(max_concurrent_streams.unwrap_or(1024), 1..=2_147_483_647)
            .at("max_concurrent_streams"),
    );
    const WINDOW: std::ops::RangeInclusive<u32> = 65_535..=2_147_483_647;
    for (value, name) in [
        (initial_stream_window_size, "initial_stream_window_size"),
        (initial_connection_window_size, "initial_connection_window_size"),
    ] {
        if let Some(value) = value {
            errors.take(fields::in_range(*value, WINDOW).at(name));
        }
    }
    let keepalive = match connection_keepalive {
        None => None,
        Some(settings) => {
            errors.take(compile_keepalive(settings).at("connection_keepalive")).flatten()
        }
    };
    errors.finish()?;
    Ok(Http2Options {
        max_concurrent_streams: streams.unwrap_or(1024),
        initial_stream_window_size: *initial_stream_window_size,
        initial_connection_window_size: *initial_connection_window_size,
        keepalive,
    })
}

fn compile_keepalive(
    settings: &core::KeepaliveSettings,
) -> Result<Option<(Duration, Duration)>, Errors> {
    let core::KeepaliveSettings { interval, timeout, connection_idle_interval } = settings;
    if connection_idle_interval.is_some() {
        return Err(Errors::from(Fault::unsupported("use interval")).at("connection_idle_interval"));
    }
    let timeout = fields::required(timeout.as_ref()).and_then(fields::positive_duration);
    let timeout = timeout.at("timeout")?;
    match interval {
        None => Ok(None),
        Some(value) => Ok(Some((fields::positive_duration(value).at("interval")?, timeout))),
    }
}
