//! Values of configured headers: text with `%OPERATORS%` in it.
//!
//! An operator whose value is not known gives nothing; `%%` is a percent sign.

use std::io::Write;

use http::{HeaderValue, StatusCode, Version};

use super::Route;
use crate::config::Fault;
use crate::config::matcher::HeaderField;
use crate::exchange::stream_info::RequestRecord;
use crate::exchange::{RequestHead, StreamInfo};

/// What the value of a header is made of.
#[derive(Debug, Clone)]
pub(super) enum Format {
    /// Text alone.
    Literal(HeaderValue),
    /// Text and operators.
    Parts(Box<[Part]>),
}

#[derive(Debug, Clone)]
pub(super) enum Part {
    Text(Box<[u8]>),
    Operator(Operator),
}

#[derive(Debug, Clone)]
pub(super) enum Operator {
    /// `%REQ(X?Y):Z%`: the header X, or else Y, cut off after Z bytes.
    RequestHeader {
        name: HeaderField,
        other: Option<HeaderField>,
        length: Option<usize>,
    },
    DownstreamRemoteAddress,
    DownstreamRemoteAddressWithoutPort,
    Protocol,
    UpstreamHost,
    ResponseCode,
    RouteName,
    VirtualHostName,
}

/// The request as far as it is known where a header is made.
#[derive(Debug, Clone, Copy)]
pub(super) enum RequestView<'a> {
    Head(&'a RequestHead),
    Record(Option<&'a RequestRecord>),
}

/// Where the operators' values come from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Values<'a> {
    pub(super) request: RequestView<'a>,
    pub(super) status: Option<StatusCode>,
    pub(super) stream: &'a StreamInfo,
    pub(super) route: &'a Route,
}

impl Format {
    /// Parses a value.
    ///
    /// # Errors
    /// When it is no header's value, a `%` has no partner, or an operator is unknown.
    pub(super) fn parse(text: &[u8]) -> Result<Self, Fault> {
        let shown = || format!("{:?}", String::from_utf8_lossy(text));
        if HeaderValue::from_bytes(text).is_err() {
            return Err(Fault::out_of_range(shown(), "a header value"));
        }
        let mut parts = Vec::new();
        let mut literal = Vec::new();
        let mut rest = text;
        while let Some(percent) = rest.iter().position(|byte| *byte == b'%') {
            literal.extend_from_slice(&rest[..percent]);
            let after = &rest[percent + 1..];
            let Some(close) = after.iter().position(|byte| *byte == b'%') else {
                let reason = "a \"%\" begins an operator that does not end; write \"%%\" for one";
                return Err(Fault::invalid(shown(), reason));
            };
            if close == 0 {
                literal.push(b'%');
            } else {
                if !literal.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut literal).into()));
                }
                parts.push(Part::Operator(operator(&String::from_utf8_lossy(&after[..close]))?));
            }
            rest = &after[close + 1..];
        }
        literal.extend_from_slice(rest);
        if parts.is_empty() {
            return HeaderValue::from_bytes(&literal)
                .map(Self::Literal)
                .map_err(|_invalid| Fault::out_of_range(shown(), "a header value"));
        }
        if !literal.is_empty() {
            parts.push(Part::Text(literal.into()));
        }
        Ok(Self::Parts(parts.into()))
    }

    /// Whether an operator reads the request.
    pub(super) fn reads_request(&self) -> bool {
        let reads = |part: &Part| matches!(part, Part::Operator(Operator::RequestHeader { .. }));
        matches!(self, Self::Parts(parts) if parts.iter().any(reads))
    }

    /// The value; empty when no operator has one and there is no text. `None` if a value that came
    /// in makes it unfit for a header.
    pub(super) fn render(&self, values: Values<'_>) -> Option<HeaderValue> {
        let parts = match self {
            Self::Literal(value) => return Some(value.clone()),
            Self::Parts(parts) => parts,
        };
        let mut text = Vec::with_capacity(64);
        for part in parts {
            match part {
                Part::Text(literal) => text.extend_from_slice(literal),
                Part::Operator(operator) => operator.render(values, &mut text),
            }
        }
        HeaderValue::from_maybe_shared(bytes::Bytes::from(text)).ok()
    }
}

fn operator(text: &str) -> Result<Operator, Fault> {
    let (name, arguments) = match text.split_once('(') {
        Some((name, arguments)) => (name, Some(arguments)),
        None => (text, None),
    };
    let operator = match (name, arguments) {
        ("REQ", Some(arguments)) => return request_header(text, arguments),
        ("DOWNSTREAM_REMOTE_ADDRESS", None) => Operator::DownstreamRemoteAddress,
        ("DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", None) => {
            Operator::DownstreamRemoteAddressWithoutPort
        }
        ("PROTOCOL", None) => Operator::Protocol,
        ("UPSTREAM_HOST", None) => Operator::UpstreamHost,
        ("RESPONSE_CODE", None) => Operator::ResponseCode,
        ("ROUTE_NAME", None) => Operator::RouteName,
        ("VIRTUAL_HOST_NAME", None) => Operator::VirtualHostName,
        _ => {
            return Err(Fault::unsupported(format!(
                "operator %{text}% is not supported here; known are REQ(NAME?OTHER):LENGTH, \
                 DOWNSTREAM_REMOTE_ADDRESS, DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT, PROTOCOL, \
                 UPSTREAM_HOST, RESPONSE_CODE, ROUTE_NAME and VIRTUAL_HOST_NAME"
            )));
        }
    };
    Ok(operator)
}

fn request_header(text: &str, arguments: &str) -> Result<Operator, Fault> {
    let fault = || Fault::invalid(format!("%{text}%"), "expected REQ(NAME?OTHER):LENGTH");
    let (names, length) = arguments.split_once(')').ok_or_else(fault)?;
    let length = match length.strip_prefix(':') {
        Some(length) => Some(length.parse().map_err(|_not_a_number| fault())?),
        None if length.is_empty() => None,
        None => return Err(fault()),
    };
    let field = |name: &str| HeaderField::compile(name).map_err(|_invalid| fault());
    let (name, other) = match names.split_once('?') {
        Some((name, other)) => (field(name)?, Some(field(other)?)),
        None => (field(names)?, None),
    };
    Ok(Operator::RequestHeader { name, other, length })
}

impl Operator {
    fn render(&self, values: Values<'_>, text: &mut Vec<u8>) {
        let Values { request, status, stream, route } = values;
        // Writing to memory cannot fail.
        let mut print = |shown: std::fmt::Arguments<'_>| drop(text.write_fmt(shown));
        match self {
            Self::RequestHeader { name, other, length } => {
                let value = request.header(name).or_else(|| request.header(other.as_ref()?));
                let value = value.unwrap_or_default();
                let length = length.map_or(value.len(), |length| length.min(value.len()));
                text.extend_from_slice(&value[..length]);
            }
            Self::DownstreamRemoteAddress => print(format_args!("{}", stream.downstream.remote)),
            Self::DownstreamRemoteAddressWithoutPort => {
                text.extend_from_slice(stream.downstream.remote_ip.as_bytes());
            }
            Self::Protocol => text.extend_from_slice(protocol(stream.protocol).as_bytes()),
            Self::UpstreamHost => {
                if let Some(host) = stream.upstream_host {
                    print(format_args!("{host}"));
                }
            }
            Self::ResponseCode => {
                if let Some(status) = status {
                    text.extend_from_slice(status.as_str().as_bytes());
                }
            }
            Self::RouteName => {
                text.extend_from_slice(route.name().map_or(b"", |name| name.as_bytes()));
            }
            Self::VirtualHostName => text.extend_from_slice(route.virtual_host().as_bytes()),
        }
    }
}

impl<'a> RequestView<'a> {
    fn header(self, field: &HeaderField) -> Option<&'a [u8]> {
        let record = match self {
            Self::Head(head) => return field.first(head),
            Self::Record(record) => record?,
        };
        match field {
            HeaderField::Method => Some(record.method.as_str().as_bytes()),
            HeaderField::Path => record.path.as_ref().map(|path| path.as_str().as_bytes()),
            HeaderField::Authority => record.authority.as_ref().map(HeaderValue::as_bytes),
            HeaderField::Scheme => {
                record.headers.get("x-forwarded-proto").map(HeaderValue::as_bytes)
            }
            HeaderField::Named(name) => record.headers.get(name).map(HeaderValue::as_bytes),
        }
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        _ => "HTTP/1.1",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_signs_are_doubled() {
        for (text, expected) in [("100%%", "100%"), ("%%REQ%%", "%REQ%"), ("", "")] {
            match Format::parse(text.as_bytes()).unwrap() {
                Format::Literal(value) => assert_eq!(value, expected),
                Format::Parts(parts) => panic!("{parts:?}"),
            }
        }
    }

    #[test]
    fn unknown_operators_and_lone_percent_signs_are_refused() {
        for text in [
            "50%",
            "%NOPE%",
            "%REQ%",
            "%REQ(x%",
            "%REQ(x):y%",
            "%REQ(x)y%",
            "%REQ()%",
            "a\nb",
            "%PROTOCOL(x)%",
            "%REQ(x?)%",
            "%%%",
        ] {
            assert!(Format::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
