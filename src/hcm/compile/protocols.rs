//! The protocol options of a connection manager.

use std::time::Duration;

use super::{Http1Options, Http2Options, optional_header, timeout};
use crate::config::{Errors, Fault, OrFault, fields};
use crate::hcm::http2::FloodLimits;
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

/// What may be in flight where nothing is said.
const DEFAULT_WINDOW: u32 = 1024 * 1024;

/// `stream_errors` is the connection manager's word on malformed requests.
pub(super) fn compile_http2(
    options: &core::Http2ProtocolOptions,
    stream_errors: bool,
) -> Result<Http2Options, Errors> {
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
    } = options;
    let mut errors = Errors::new();
    let usual = FloodLimits::default();
    let mut number = |value: &Option<u32>, (low, high), default, name| {
        let value = fields::in_range(value.unwrap_or(default), low..=high).at(name);
        errors.take(value).unwrap_or(default)
    };
    let streams = (1, 2_147_483_647);
    let window = (65_535, 2_147_483_647);
    let some = (1, u32::MAX);
    let any = (0, u32::MAX);
    let mut compiled = Http2Options {
        max_concurrent_streams: number(
            max_concurrent_streams,
            streams,
            1024,
            "max_concurrent_streams",
        ),
        initial_stream_window_size: number(
            initial_stream_window_size,
            window,
            DEFAULT_WINDOW,
            "initial_stream_window_size",
        ),
        initial_connection_window_size: number(
            initial_connection_window_size,
            window,
            DEFAULT_WINDOW,
            "initial_connection_window_size",
        ),
        hpack_table_size: number(hpack_table_size, any, 4096, "hpack_table_size"),
        allow_connect: *allow_connect,
        flood: FloodLimits {
            outbound: number(max_outbound_frames, some, usual.outbound, "max_outbound_frames"),
            outbound_control: number(
                max_outbound_control_frames,
                some,
                usual.outbound_control,
                "max_outbound_control_frames",
            ),
            empty: max_consecutive_inbound_frames_with_empty_payload.unwrap_or(usual.empty),
            priority: max_inbound_priority_frames_per_stream.unwrap_or(usual.priority),
            window_update: number(
                max_inbound_window_update_frames_per_data_frame_sent,
                some,
                usual.window_update,
                "max_inbound_window_update_frames_per_data_frame_sent",
            ),
        },
        stream_error_on_invalid_message: override_stream_error_on_invalid_http_message
            .unwrap_or(stream_errors || *stream_error_on_invalid_http_messaging),
        keepalive: None,
    };
    if let Some(settings) = connection_keepalive {
        compiled.keepalive =
            errors.take(compile_keepalive(settings).at("connection_keepalive")).flatten();
    }
    errors.finish()?;
    Ok(compiled)
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
