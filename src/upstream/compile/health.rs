//! `config.core.v3.HealthCheck` to [`HealthConfig`].

use std::ops::Range;

use http::header::USER_AGENT;
use http::{HeaderMap, HeaderValue, Method, Uri};

use super::protocol::at_least_1_ms;
use crate::config::matcher::{StringMatcher, header_name};
use crate::config::{Errors, Fault, OrFault, fields};
use crate::proto::any;
use crate::proto::envoy::config::core::v3 as core;
use crate::proto::envoy::extensions::health_check::event_sinks::file::v3::HealthCheckEventFileSink;
use crate::proto::envoy::r#type::v3::{CodecClientType, Int64Range};
use crate::telemetry::access_log::{Sinks, Target};
use crate::upstream::health::{
    Checker, EventLog, GrpcCheck, HealthConfig, HttpCheck, TcpCheck, Timing,
};
use core::health_check as proto;

/// The checks of a cluster, if it has any.
pub(super) fn compile(
    checks: Vec<core::HealthCheck>,
    sinks: Option<&Sinks>,
) -> Result<Option<HealthConfig>, Errors> {
    let mut checks = checks.into_iter();
    let Some(check) = checks.next() else { return Ok(None) };
    if checks.len() > 0 {
        let text = format!("{} checks; a cluster takes one", checks.len() + 1);
        return Err(Errors::from(Fault::unsupported(text)).at("health_checks"));
    }
    health_check(check, sinks).index(0).at("health_checks").map(Some)
}

fn health_check(check: core::HealthCheck, sinks: Option<&Sinks>) -> Result<HealthConfig, Errors> {
    let core::HealthCheck {
        timeout,
        interval,
        interval_jitter,
        unhealthy_threshold,
        healthy_threshold,
        alt_port,
        reuse_connection,
        health_checker,
        no_traffic_interval,
        unhealthy_interval,
        unhealthy_edge_interval,
        healthy_edge_interval,
        interval_jitter_percent,
        always_log_health_check_failures,
        initial_jitter,
        no_traffic_healthy_interval,
        always_log_health_check_success,
        event_log_path,
        event_logger,
    } = check;
    let mut errors = Errors::new();
    let default = Timing::default();
    let mut optional = |value: Option<prost_types::Duration>, field: &'static str| {
        value.and_then(|value| errors.take(at_least_1_ms(&value).at(field)))
    };
    let unhealthy_interval = optional(unhealthy_interval, "unhealthy_interval");
    let unhealthy_edge_interval = optional(unhealthy_edge_interval, "unhealthy_edge_interval");
    let healthy_edge_interval = optional(healthy_edge_interval, "healthy_edge_interval");
    let no_traffic_interval = optional(no_traffic_interval, "no_traffic_interval");
    let no_traffic_healthy = optional(no_traffic_healthy_interval, "no_traffic_healthy_interval");
    let mut needed = |value: Option<prost_types::Duration>, field: &'static str| {
        let value = fields::required(value).and_then(|value| at_least_1_ms(&value));
        errors.take(value.at(field)).unwrap_or_default()
    };
    let timeout = needed(timeout, "timeout");
    let interval = needed(interval, "interval");
    let mut jitter = |value: Option<prost_types::Duration>, field: &'static str| {
        value.and_then(|value| errors.take(fields::duration(&value).at(field))).unwrap_or_default()
    };
    let initial_jitter = jitter(initial_jitter, "initial_jitter");
    let interval_jitter = jitter(interval_jitter, "interval_jitter");
    let mut threshold = |value: Option<u32>, field: &'static str| {
        errors.take(fields::required(value).at(field)).unwrap_or_default()
    };
    let unhealthy_threshold = threshold(unhealthy_threshold, "unhealthy_threshold");
    let healthy_threshold = threshold(healthy_threshold, "healthy_threshold");
    let alt_port = alt_port.and_then(|port| errors.take(fields::port(port).at("alt_port")));
    let checker = errors.take(checker(health_checker));
    let events = errors.take(event_log(event_log_path, event_logger, sinks));
    let no_traffic_interval = no_traffic_interval.unwrap_or(default.no_traffic_interval);
    let unhealthy_interval = unhealthy_interval.unwrap_or(interval);
    let timing = Timing {
        timeout,
        interval,
        unhealthy_interval,
        unhealthy_edge_interval: unhealthy_edge_interval.unwrap_or(unhealthy_interval),
        healthy_edge_interval: healthy_edge_interval.unwrap_or(interval),
        no_traffic_interval,
        no_traffic_healthy_interval: no_traffic_healthy.unwrap_or(no_traffic_interval),
        initial_jitter,
        interval_jitter,
        interval_jitter_percent,
        unhealthy_threshold,
        healthy_threshold,
    };
    match checker {
        Some(checker) if errors.is_empty() => Ok(HealthConfig {
            timing,
            checker,
            alt_port,
            reuse_connection: reuse_connection.unwrap_or(true),
            log_failures: always_log_health_check_failures,
            log_successes: always_log_health_check_success,
            events: events.unwrap_or_default(),
        }),
        _ => Err(errors),
    }
}

/// The files that events go to. Without sinks nothing is opened.
fn event_log(
    path: String,
    loggers: Vec<core::TypedExtensionConfig>,
    sinks: Option<&Sinks>,
) -> Result<EventLog, Errors> {
    let open = |path: &str| match sinks {
        Some(sinks) => sinks.open(&Target::of_path(path)).map(Some).map_err(Errors::from),
        None => Ok(None),
    };
    let mut log = EventLog::default();
    if !path.is_empty() {
        log.0.extend(open(&path).at("event_log_path")?);
    }
    for (index, logger) in loggers.into_iter().enumerate() {
        let opened = fields::required(logger.typed_config)
            .and_then(|config| match any::unpack::<HealthCheckEventFileSink>(&config) {
                Ok(HealthCheckEventFileSink { event_log_path: path }) => {
                    fields::non_empty(&path).and_then(|path| open(&path)).at("event_log_path")
                }
                Err(any::UnpackError::WrongType { found, .. }) => {
                    Err(Fault::UnknownExtension(found).into())
                }
                Err(error) => Err(Fault::Undecodable(error.to_string()).into()),
            })
            .at("typed_config");
        log.0.extend(opened.index(index).at("event_logger")?);
    }
    Ok(log)
}

fn checker(proto: Option<proto::HealthChecker>) -> Result<Checker, Errors> {
    match fields::required(proto).at("health_checker")? {
        proto::HealthChecker::HttpHealthCheck(check) => {
            http(check).at("http_health_check").map(Checker::Http)
        }
        proto::HealthChecker::GrpcHealthCheck(check) => {
            grpc(check).at("grpc_health_check").map(Checker::Grpc)
        }
        proto::HealthChecker::TcpHealthCheck(check) => {
            tcp(check).at("tcp_health_check").map(Checker::Tcp)
        }
    }
}

fn http(proto: proto::HttpHealthCheck) -> Result<HttpCheck, Errors> {
    let proto::HttpHealthCheck {
        host,
        path,
        request_headers_to_add,
        expected_statuses,
        codec_client_type,
        service_name_matcher,
        retriable_statuses,
        method,
    } = proto;
    let mut errors = Errors::new();
    let host = errors.take(authority(&host).at("host")).flatten();
    let path = errors.take(target(&path).at("path"));
    let headers = errors.take(headers(request_headers_to_add).at("request_headers_to_add"));
    let expected = match expected_statuses.is_empty() {
        true => Some(std::iter::once(200..201).collect()),
        false => errors.take(statuses(&expected_statuses).at("expected_statuses")),
    };
    let retriable = errors.take(statuses(&retriable_statuses).at("retriable_statuses"));
    let codec = fields::enumeration::<CodecClientType>(codec_client_type);
    let http2 = match errors.take(codec.at("codec_client_type")) {
        Some(CodecClientType::Http2) => true,
        Some(CodecClientType::Http1) | None => false,
        Some(CodecClientType::Http3) => {
            let fault = Fault::unsupported("HTTP3 is not supported; use HTTP1 or HTTP2");
            errors.push("codec_client_type", fault);
            false
        }
    };
    let service_name = service_name_matcher.and_then(|matcher| {
        errors.take(StringMatcher::compile(&matcher).at("service_name_matcher"))
    });
    let method = errors.take(fields::enumeration(method).and_then(method_of).at("method"));
    match (path, headers, expected, retriable, method) {
        (Some(path), Some(headers), Some(expected), Some(retriable), Some(method))
            if errors.is_empty() =>
        {
            Ok(HttpCheck { method, path, host, headers, expected, retriable, http2, service_name })
        }
        _ => Err(errors),
    }
}

fn method_of(method: core::RequestMethod) -> Result<Method, Errors> {
    Ok(match method {
        core::RequestMethod::MethodUnspecified | core::RequestMethod::Get => Method::GET,
        core::RequestMethod::Head => Method::HEAD,
        core::RequestMethod::Post => Method::POST,
        core::RequestMethod::Put => Method::PUT,
        core::RequestMethod::Delete => Method::DELETE,
        core::RequestMethod::Options => Method::OPTIONS,
        core::RequestMethod::Trace => Method::TRACE,
        core::RequestMethod::Patch => Method::PATCH,
        core::RequestMethod::Connect => {
            return Err(Fault::invalid("CONNECT", "it makes a tunnel and checks nothing").into());
        }
    })
}

fn target(path: &str) -> Result<Uri, Errors> {
    fields::non_empty(path)?;
    let reason = "a path with an optional query";
    match path.parse::<Uri>() {
        Ok(uri) if path.starts_with('/') => Ok(uri),
        _ => Err(Fault::out_of_range(format!("{path:?}"), reason).into()),
    }
}

fn authority(host: &str) -> Result<Option<HeaderValue>, Errors> {
    if host.is_empty() {
        return Ok(None);
    }
    let value = HeaderValue::from_str(host);
    value
        .map(Some)
        .map_err(|_invalid| Fault::out_of_range(format!("{host:?}"), "an authority").into())
}

fn statuses(ranges: &[Int64Range]) -> Result<Vec<Range<u16>>, Errors> {
    let mut errors = Errors::new();
    let mut compiled = Vec::with_capacity(ranges.len());
    for (index, Int64Range { start, end }) in ranges.iter().enumerate() {
        match (u16::try_from(*start), u16::try_from(*end)) {
            (Ok(start), Ok(end)) if start >= 100 && end <= 600 && start < end => {
                compiled.push(start..end);
            }
            _ => {
                let found = format!("{start}..{end}");
                let fault = Fault::out_of_range(found, "a part of 100..600 that is not empty");
                errors.take::<()>(Err(Errors::from(fault).index(index)));
            }
        }
    }
    errors.finish().map(|()| compiled)
}

/// The headers of every check, of which there is one unless they say otherwise: the user agent.
fn headers(options: Vec<core::HeaderValueOption>) -> Result<HeaderMap, Errors> {
    let mut headers = HeaderMap::new();
    headers.insert(USER_AGENT, HeaderValue::from_static("nuncio/HC"));
    for (index, option) in options.into_iter().enumerate() {
        header(&mut headers, option).index(index)?;
    }
    Ok(headers)
}

fn header(headers: &mut HeaderMap, option: core::HeaderValueOption) -> Result<(), Errors> {
    use core::header_value_option::HeaderAppendAction as Action;
    let core::HeaderValueOption { header, append, append_action, keep_empty_value } = option;
    let core::HeaderValue { key, value, raw_value } = fields::required(header).at("header")?;
    let name = header_name(&key).at("key").at("header")?;
    let bytes = if raw_value.is_empty() { value.into_bytes() } else { raw_value };
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let value = HeaderValue::from_bytes(&bytes)
        .map_err(|_invalid| {
            Errors::from(Fault::out_of_range(format!("{text:?}"), "a header value"))
        })
        .and_then(|value| match text.contains('%') {
            true => Err(Fault::unsupported("a check has no request for operators").into()),
            false => Ok(value),
        })
        .at("value")
        .at("header")?;
    if value.is_empty() && !keep_empty_value {
        return Ok(());
    }
    let action = fields::enumeration::<Action>(append_action).at("append_action")?;
    let present = headers.contains_key(&name);
    match action {
        // The older form of the choice.
        Action::AppendIfExistsOrAdd if append == Some(false) => drop(headers.insert(name, value)),
        Action::AppendIfExistsOrAdd => drop(headers.append(name, value)),
        Action::OverwriteIfExistsOrAdd => drop(headers.insert(name, value)),
        Action::AddIfAbsent if !present => drop(headers.insert(name, value)),
        Action::OverwriteIfExists if present => drop(headers.insert(name, value)),
        Action::AddIfAbsent | Action::OverwriteIfExists => {}
    }
    Ok(())
}

fn grpc(proto: proto::GrpcHealthCheck) -> Result<GrpcCheck, Errors> {
    let proto::GrpcHealthCheck { service_name, authority: named, initial_metadata } = proto;
    let mut errors = Errors::new();
    let named = errors.take(authority(&named).at("authority")).flatten();
    let metadata = errors.take(headers(initial_metadata).at("initial_metadata"));
    errors.finish()?;
    Ok(GrpcCheck { service_name, authority: named, initial_metadata: metadata.unwrap_or_default() })
}

fn tcp(proto: proto::TcpHealthCheck) -> Result<TcpCheck, Errors> {
    let proto::TcpHealthCheck { send, receive } = proto;
    let send = send.map(|send| payload(send).at("send")).transpose()?.unwrap_or_default();
    let bytes = |(index, part)| payload(part).index(index).at("receive");
    let receive = receive.into_iter().enumerate().map(bytes).collect::<Result<_, _>>()?;
    Ok(TcpCheck { send, receive })
}

fn payload(proto: proto::Payload) -> Result<Vec<u8>, Errors> {
    let proto::Payload { payload } = proto;
    match fields::required(payload).at("payload")? {
        proto::payload::Payload::Binary(bytes) => Ok(bytes),
        proto::payload::Payload::Text(text) => {
            fields::non_empty(&text).at("text")?;
            let digits: Option<Vec<u8>> = text
                .chars()
                .map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
                .collect();
            match digits {
                Some(digits) if digits.len() % 2 == 0 => {
                    Ok(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
                }
                _ => {
                    let fault = Fault::out_of_range(
                        format!("{text:?}"),
                        "pairs of hexadecimal digits; binary takes any bytes",
                    );
                    Err(Errors::from(fault).at("text"))
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_payloads_are_hexadecimal() {
        let text = |text: &str| {
            let payload = proto::payload::Payload::Text(text.to_owned());
            super::payload(proto::Payload { payload: Some(payload) })
        };
        assert_eq!(text("00fF10").unwrap(), [0, 255, 16]);
        for bad in ["", "0", "zz", "é"] {
            assert!(text(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ranges_of_statuses_lie_where_statuses_are() {
        let range = |start, end| statuses(&[Int64Range { start, end }]);
        assert_eq!(range(200, 300).unwrap().first(), Some(&(200..300)));
        assert_eq!(range(100, 600).unwrap().first(), Some(&(100..600)));
        for (start, end) in [(200, 200), (99, 200), (200, 601), (-1, 200), (300, 200)] {
            assert!(range(start, end).is_err(), "{start}..{end}");
        }
    }
}
