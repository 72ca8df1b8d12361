//! The grammar of `%OPERATOR(arguments):length%`, read once and evaluated for every line.
//!
//! A [`Format`] is a list of pieces, text or operator. Access logs write lines with it; whatever
//! else takes the same grammar, such as a header to add, evaluates it in a [`Context`] of its own.
//! Source: `config.core.v3.SubstitutionFormatString`.

use super::operator::{Header, Operator, Value};
use super::time::TimeFormat;
use crate::config::{Errors, Fault};

pub use super::operator::{Context, RequestSource};

/// What is written for a value that is not there.
pub(super) const MISSING: &[u8] = b"-";

/// The line Envoy writes when no format is given.
pub const DEFAULT: &str = concat!(
    r#"[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" "#,
    "%RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% ",
    r#"%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "#,
    r#""%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%""#,
    "\n"
);

/// A compiled text format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format {
    pub(super) pieces: Box<[Piece]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    Text(String),
    Operator(Operator),
}

impl Format {
    /// Reads a format.
    ///
    /// # Errors
    /// Every operator that is not known or has wrong arguments, by name.
    pub fn compile(format: &str) -> Result<Self, Errors> {
        let mut errors = Errors::new();
        let mut pieces = Vec::new();
        let mut rest = format;
        while let Some(start) = rest.find('%') {
            push_text(&mut pieces, &rest[..start]);
            rest = &rest[start + 1..];
            if let Some(after) = rest.strip_prefix('%') {
                push_text(&mut pieces, "%");
                rest = after;
                continue;
            }
            let Some((command, after)) = split_command(rest) else {
                errors.push("", Fault::invalid(format!("\"%{}\"", excerpt(rest)), UNFINISHED));
                break;
            };
            rest = after;
            match command.compile() {
                Ok(operator) => pieces.push(Piece::Operator(operator)),
                Err(fault) => errors.push("", fault),
            }
        }
        errors.finish()?;
        push_text(&mut pieces, rest);
        Ok(Self { pieces: pieces.into() })
    }

    /// Appends the format's text with `-`, or nothing if `omit_empty`, for values that are missing.
    pub fn write(&self, cx: &Context<'_>, omit_empty: bool, out: &mut Vec<u8>) {
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Operator(operator) => match operator.value(cx) {
                    Value::Missing if omit_empty => {}
                    Value::Missing => out.extend_from_slice(MISSING),
                    value => value.write(out),
                },
            }
        }
    }

    /// Whether evaluating it reads the request's head.
    pub fn needs_request(&self) -> bool {
        self.operators().any(Operator::needs_request)
    }

    /// Whether evaluating it reads the response's headers.
    pub fn needs_response_headers(&self) -> bool {
        self.operators().any(Operator::needs_response_headers)
    }

    fn operators(&self) -> impl Iterator<Item = &Operator> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Operator(operator) => Some(operator),
            Piece::Text(_) => None,
        })
    }
}

const UNFINISHED: &str = "not an operator: it is %NAME%, %NAME(arguments)% or \
                          %NAME(arguments):length%, with capitals; write %% for a percent sign";

/// The operators known, for the reader of a fault.
const KNOWN: &str = "START_TIME REQ RESP PROTOCOL RESPONSE_CODE RESPONSE_CODE_DETAILS \
    RESPONSE_FLAGS BYTES_RECEIVED BYTES_SENT DURATION RESPONSE_DURATION ROUTE_NAME \
    UPSTREAM_CLUSTER UPSTREAM_CLUSTER_RAW UPSTREAM_HOST DOWNSTREAM_REMOTE_ADDRESS \
    DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT DOWNSTREAM_REMOTE_PORT \
    DOWNSTREAM_DIRECT_REMOTE_ADDRESS DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT \
    DOWNSTREAM_DIRECT_REMOTE_PORT DOWNSTREAM_LOCAL_ADDRESS \
    DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT DOWNSTREAM_LOCAL_PORT CONNECTION_ID LOCAL_REPLY_BODY";

fn push_text(pieces: &mut Vec<Piece>, text: &str) {
    match pieces.last_mut() {
        _ if text.is_empty() => {}
        Some(Piece::Text(last)) => last.push_str(text),
        _ => pieces.push(Piece::Text(text.to_owned())),
    }
}

/// The beginning of what could not be read.
fn excerpt(text: &str) -> String {
    text.chars().take(40).collect()
}

/// `NAME(arguments):length` between two percent signs.
#[derive(Debug, Clone, Copy)]
struct Command<'a> {
    name: &'a str,
    arguments: Option<&'a str>,
    length: Option<&'a str>,
}

/// Splits the command off `text`, which begins after its first percent sign. Arguments may hold
/// percent signs and end at the first closing parenthesis.
fn split_command(text: &str) -> Option<(Command<'_>, &str)> {
    let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let (name, mut rest) = text.split_at(text.find(|c| !is_name(c))?);
    let mut arguments = None;
    if let Some(inside) = rest.strip_prefix('(') {
        let (inside, after) = inside.split_once(')')?;
        (arguments, rest) = (Some(inside), after);
    }
    let mut length = None;
    if let Some(digits) = rest.strip_prefix(':') {
        let (digits, after) = digits.split_at(digits.find(|c: char| !c.is_ascii_digit())?);
        (length, rest) = (Some(digits), after);
    }
    let rest = rest.strip_prefix('%')?;
    (!name.is_empty()).then_some((Command { name, arguments, length }, rest))
}

impl Command<'_> {
    fn compile(self) -> Result<Operator, Fault> {
        match self.name {
            "START_TIME" => {
                self.without_length()?;
                let format = match self.arguments {
                    None | Some("") => TimeFormat::default(),
                    Some(format) => TimeFormat::compile(format)?,
                };
                return Ok(Operator::StartTime(format));
            }
            "REQ" => {
                let (header, or_else, longest) = self.headers()?;
                return Ok(Operator::Request { header, or_else, longest });
            }
            "RESP" => {
                let (header, or_else, longest) = self.headers()?;
                return Ok(Operator::Response { header, or_else, longest });
            }
            _ => {}
        }
        let operator = match self.name {
            "PROTOCOL" => Operator::Protocol,
            "RESPONSE_CODE" => Operator::ResponseCode,
            "RESPONSE_CODE_DETAILS" => Operator::ResponseCodeDetails,
            "RESPONSE_FLAGS" => Operator::ResponseFlags,
            "BYTES_RECEIVED" => Operator::BytesReceived,
            "BYTES_SENT" => Operator::BytesSent,
            "DURATION" => Operator::Duration,
            "RESPONSE_DURATION" => Operator::ResponseDuration,
            "ROUTE_NAME" => Operator::RouteName,
            "UPSTREAM_CLUSTER" | "UPSTREAM_CLUSTER_RAW" => Operator::UpstreamCluster,
            "UPSTREAM_HOST" => Operator::UpstreamHost,
            "DOWNSTREAM_REMOTE_ADDRESS" | "DOWNSTREAM_DIRECT_REMOTE_ADDRESS" => {
                Operator::RemoteAddress
            }
            "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT"
            | "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT" => Operator::RemoteIp,
            "DOWNSTREAM_REMOTE_PORT" | "DOWNSTREAM_DIRECT_REMOTE_PORT" => Operator::RemotePort,
            "DOWNSTREAM_LOCAL_ADDRESS" => Operator::LocalAddress,
            "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => Operator::LocalIp,
            "DOWNSTREAM_LOCAL_PORT" => Operator::LocalPort,
            "CONNECTION_ID" => Operator::ConnectionId,
            "LOCAL_REPLY_BODY" => Operator::LocalReplyBody,
            "TRAILER" => {
                return Err(Fault::unsupported(
                    "%TRAILER% is not supported: trailers are not kept",
                ));
            }
            name => {
                let reason = format!("the operator is not supported; use one of {KNOWN}");
                return Err(Fault::invalid(format!("%{name}%"), reason));
            }
        };
        self.without_length()?;
        match self.arguments {
            None => Ok(operator),
            Some(_) => Err(self.invalid("takes no arguments")),
        }
    }

    /// `X?Y` and how long the value may be.
    fn headers(&self) -> Result<(Header, Option<Header>, Option<usize>), Fault> {
        let arguments = self.arguments.unwrap_or_default();
        let (header, or_else) = match arguments.split_once('?') {
            Some((header, or_else)) => (header, Some(or_else)),
            None => (arguments, None),
        };
        let parse = |name: &str| {
            Header::parse(name).ok_or_else(|| {
                self.invalid("needs header names: (NAME) or (NAME?OTHER_NAME), at most two")
            })
        };
        let longest = match self.length {
            None => None,
            Some(digits) => Some(
                digits.parse().map_err(|_overflow| self.invalid("has a length out of range"))?,
            ),
        };
        Ok((parse(header)?, or_else.map(parse).transpose()?, longest))
    }

    fn without_length(&self) -> Result<(), Fault> {
        match self.length {
            None => Ok(()),
            Some(_) => Err(self.invalid("takes no length")),
        }
    }

    fn invalid(&self, reason: &'static str) -> Fault {
        Fault::invalid(format!("%{}%", self.name), reason)
    }
}

#[cfg(test)]
mod tests;
