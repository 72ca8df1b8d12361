//! What an operator such as `%RESPONSE_CODE%` stands for, and its value in one exchange.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use tokio::time::Instant;

use super::time::TimeFormat;
use crate::exchange::stream_info::RequestRecord;
use crate::exchange::{RequestHead, ResponseFlags, StreamInfo};

/// What operators are evaluated against.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// What is known about the exchange.
    pub stream: &'a StreamInfo,
    /// The request's head, if there is one to look at.
    pub request: Option<RequestSource<'a>>,
    /// The response's headers, if there are some.
    pub response_headers: Option<&'a HeaderMap>,
    /// When the evaluation happens: the end of `DURATION`.
    pub now: Instant,
}

impl<'a> Context<'a> {
    /// The context of an access log: the exchange as it ended.
    pub fn of_ended(stream: &'a StreamInfo) -> Self {
        Self {
            stream,
            request: stream.request.as_deref().map(RequestSource::Record),
            response_headers: stream.response_headers.as_deref(),
            now: Instant::now(),
        }
    }
}

/// Where a request's headers are read.
#[derive(Debug, Clone, Copy)]
pub enum RequestSource<'a> {
    /// What was kept of the request.
    Record(&'a RequestRecord),
    /// The request itself, as far as it was changed until now.
    Head(&'a RequestHead),
}

/// The header an operator names; pseudo headers of HTTP/2 name the start of the message in every
/// version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Header {
    Method,
    Path,
    Authority,
    Scheme,
    Status,
    Named(HeaderName),
}

const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

impl Header {
    /// The header of this name; `None` if it cannot be a header's name.
    pub(super) fn parse(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            ":method" => Self::Method,
            ":path" => Self::Path,
            ":authority" | "host" => Self::Authority,
            ":scheme" => Self::Scheme,
            ":status" => Self::Status,
            name => Self::Named(HeaderName::from_bytes(name.as_bytes()).ok()?),
        })
    }

    fn of_request<'a>(&self, request: RequestSource<'a>) -> Option<&'a [u8]> {
        let headers = match request {
            RequestSource::Record(record) => &record.headers,
            RequestSource::Head(head) => &head.headers,
        };
        match (self, request) {
            (Self::Method, RequestSource::Record(record)) => {
                Some(record.method.as_str().as_bytes())
            }
            (Self::Method, RequestSource::Head(head)) => Some(head.method.as_str().as_bytes()),
            (Self::Path, RequestSource::Record(record)) => {
                Some(record.path.as_ref()?.as_str().as_bytes())
            }
            (Self::Path, RequestSource::Head(head)) => {
                Some(head.uri.path_and_query()?.as_str().as_bytes())
            }
            (Self::Authority, RequestSource::Record(record)) => {
                Some(record.authority.as_ref()?.as_bytes())
            }
            (Self::Authority, RequestSource::Head(head)) => match head.uri.authority() {
                Some(authority) => Some(authority.as_str().as_bytes()),
                None => headers.get(HOST).map(HeaderValue::as_bytes),
            },
            (Self::Scheme, _) => headers.get(X_FORWARDED_PROTO).map(HeaderValue::as_bytes),
            (Self::Status, _) => None,
            (Self::Named(name), _) => headers.get(name).map(HeaderValue::as_bytes),
        }
    }

    fn of_response<'a>(&self, cx: &Context<'a>) -> Option<&'a [u8]> {
        match self {
            Self::Named(name) => cx.response_headers?.get(name).map(HeaderValue::as_bytes),
            _ => None,
        }
    }
}

/// An operator with its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Operator {
    StartTime(TimeFormat),
    Request { header: Header, or_else: Option<Header>, longest: Option<usize> },
    Response { header: Header, or_else: Option<Header>, longest: Option<usize> },
    Protocol,
    ResponseCode,
    ResponseCodeDetails,
    ResponseFlags,
    BytesReceived,
    BytesSent,
    Duration,
    ResponseDuration,
    RouteName,
    UpstreamCluster,
    UpstreamHost,
    RemoteAddress,
    RemoteIp,
    RemotePort,
    LocalAddress,
    LocalIp,
    LocalPort,
    ConnectionId,
    LocalReplyBody,
}

/// What an operator stands for in one exchange.
#[derive(Debug)]
pub(super) enum Value<'a> {
    Missing,
    Number(u64),
    Bytes(&'a [u8]),
    Address(SocketAddr),
    Ip(IpAddr),
    Flags(ResponseFlags),
    Time(&'a TimeFormat, SystemTime),
}

impl Value<'_> {
    /// Appends the value as text; nothing if it is missing.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        // Writing to memory cannot fail.
        let _ = match self {
            Self::Missing => Ok(()),
            Self::Number(number) => {
                out.extend_from_slice(itoa::Buffer::new().format(*number).as_bytes());
                Ok(())
            }
            Self::Bytes(bytes) => {
                out.extend_from_slice(bytes);
                Ok(())
            }
            Self::Address(address) => write!(out, "{address}"),
            Self::Ip(ip) => write!(out, "{ip}"),
            Self::Flags(flags) => write!(out, "{flags}"),
            Self::Time(format, time) => {
                format.write(*time, out);
                Ok(())
            }
        };
    }
}

impl Operator {
    /// Whether it reads the request's head.
    pub(super) fn needs_request(&self) -> bool {
        matches!(self, Self::Request { .. })
    }

    /// Whether it reads the response's headers.
    pub(super) fn needs_response_headers(&self) -> bool {
        matches!(self, Self::Response { .. })
    }

    /// The operator's value.
    pub(super) fn value<'a>(&'a self, cx: &Context<'a>) -> Value<'a> {
        let stream = cx.stream;
        let downstream = &stream.downstream;
        match self {
            Self::StartTime(format) => Value::Time(format, stream.start_time),
            Self::Request { header, or_else, longest } => {
                let Some(request) = cx.request else { return Value::Missing };
                let value = header
                    .of_request(request)
                    .or_else(|| or_else.as_ref().and_then(|h| h.of_request(request)));
                header_value(value, *longest)
            }
            Self::Response { header: Header::Status, .. } => {
                stream.status.map_or(Value::Missing, |s| Value::Number(s.as_u16().into()))
            }
            Self::Response { header, or_else, longest } => {
                let value = header
                    .of_response(cx)
                    .or_else(|| or_else.as_ref().and_then(|h| h.of_response(cx)));
                header_value(value, *longest)
            }
            Self::Protocol => match stream.protocol {
                Version::HTTP_10 => Value::Bytes(b"HTTP/1.0"),
                Version::HTTP_11 => Value::Bytes(b"HTTP/1.1"),
                Version::HTTP_2 => Value::Bytes(b"HTTP/2"),
                Version::HTTP_3 => Value::Bytes(b"HTTP/3"),
                _ => Value::Missing,
            },
            // A stream that died unanswered has the code 0, as in Envoy.
            Self::ResponseCode => Value::Number(stream.status.map_or(0, |s| s.as_u16().into())),
            Self::ResponseCodeDetails => match stream.details {
                "" => Value::Missing,
                details => Value::Bytes(details.as_bytes()),
            },
            Self::ResponseFlags => Value::Flags(stream.flags),
            Self::BytesReceived => Value::Number(stream.bytes_received()),
            Self::BytesSent => Value::Number(stream.bytes_sent),
            Self::Duration => Value::Number(elapsed_ms(stream, cx.now)),
            Self::ResponseDuration => match stream.upstream_first_byte {
                Some(at) => Value::Number(elapsed_ms(stream, at)),
                None => Value::Missing,
            },
            Self::RouteName => optional_text(stream.route_name.as_deref()),
            Self::UpstreamCluster => optional_text(stream.upstream_cluster.as_deref()),
            Self::UpstreamHost => stream.upstream_host.map_or(Value::Missing, Value::Address),
            Self::RemoteAddress => Value::Address(stream.remote()),
            Self::RemoteIp => Value::Ip(stream.remote().ip()),
            Self::RemotePort => Value::Number(stream.remote().port().into()),
            Self::LocalAddress => Value::Address(downstream.local),
            Self::LocalIp => Value::Ip(downstream.local.ip()),
            Self::LocalPort => Value::Number(downstream.local.port().into()),
            Self::ConnectionId => Value::Number(downstream.id),
            Self::LocalReplyBody => match &stream.local_reply_body {
                None => Value::Missing,
                Some(body) => Value::Bytes(body),
            },
        }
    }
}

/// Milliseconds from the start of the exchange to `at`.
pub(super) fn elapsed_ms(stream: &StreamInfo, at: Instant) -> u64 {
    u64::try_from(at.saturating_duration_since(stream.start).as_millis()).unwrap_or(u64::MAX)
}

fn header_value(value: Option<&[u8]>, longest: Option<usize>) -> Value<'_> {
    match (value, longest) {
        (None, _) => Value::Missing,
        (Some(value), None) => Value::Bytes(value),
        (Some(value), Some(longest)) => Value::Bytes(&value[..value.len().min(longest)]),
    }
}

fn optional_text(text: Option<&str>) -> Value<'_> {
    match text {
        None | Some("") => Value::Missing,
        Some(text) => Value::Bytes(text.as_bytes()),
    }
}
