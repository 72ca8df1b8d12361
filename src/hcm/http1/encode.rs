//! Responses in the form of HTTP/1.1 (RFC 9112 sections 4 and 6).

use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use http::{Method, StatusCode};
use http_body::Body as _;

use crate::exchange::ResponseHead;
use crate::hcm::compile::Http1Options;
use crate::hcm::date;
use crate::hcm::exchange::TrackedBody;
use crate::http1::fields::{content_length, push_field, says_close};
use crate::http1::{HeaderCase, Message, MessageFraming};

/// A usual head.
const USUAL_HEAD: usize = 512;

/// What of a request its response must know.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) method: Method,
    /// HTTP/1.0.
    pub(super) is_http10: bool,
    /// It may be followed by another one.
    pub(super) keep_alive: bool,
    /// It wants to leave HTTP.
    pub(super) wants_tunnel: bool,
}

/// A response on its way, and what comes after it.
pub(super) struct Answer {
    pub(super) message: Message<TrackedBody>,
    pub(super) keep_alive: bool,
    pub(super) is_tunnel: bool,
}

/// Puts a response into its form, behind bytes that go before it.
pub(super) fn answer(
    response: http::Response<TrackedBody>,
    asked: &Asked,
    options: &Http1Options,
    before: &[u8],
) -> Answer {
    let (head, body) = response.into_parts();
    let is_tunnel = asked.wants_tunnel
        && match asked.method {
            Method::CONNECT => head.status.is_success(),
            _ => head.status == StatusCode::SWITCHING_PROTOCOLS,
        };
    let framing = framing(&head, &body, asked, (is_tunnel, options.trailers));
    // Who sent CONNECT may have sent more for the other side of a tunnel.
    let keep_alive = asked.keep_alive
        && asked.method != Method::CONNECT
        && framing.is_none_or(|framing| framing != MessageFraming::Close);
    let case = HeaderCase::new(&head.extensions, options.names);
    let mut lead = Vec::with_capacity(before.len() + USUAL_HEAD);
    lead.extend_from_slice(before);
    let keep_alive = encode(&mut lead, &head, framing, (asked, keep_alive, is_tunnel), &case);
    let message = Message::new(lead, body, framing.unwrap_or(MessageFraming::Length(0)), case);
    Answer { message, keep_alive, is_tunnel }
}

/// How the body's end is told; `None` if there cannot be a body (RFC 9112 section 6.3).
fn framing(
    head: &ResponseHead,
    body: &TrackedBody,
    asked: &Asked,
    (is_tunnel, trailers): (bool, bool),
) -> Option<MessageFraming> {
    if is_tunnel {
        return Some(MessageFraming::Close);
    }
    let is_bodyless = asked.method == Method::HEAD
        || head.status.is_informational()
        || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if is_bodyless {
        return None;
    }
    let length = body.size_hint().exact();
    let length = length.or_else(|| content_length(&head.headers).ok().flatten());
    Some(match length {
        Some(length) => MessageFraming::Length(length),
        None if asked.is_http10 => MessageFraming::Close,
        None => MessageFraming::Chunked { trailers },
    })
}

/// Writes a head. Whether the connection is kept after it is a matter of what it says as well.
fn encode(
    out: &mut Vec<u8>,
    head: &ResponseHead,
    framing: Option<MessageFraming>,
    (asked, mut keep_alive, is_tunnel): (&Asked, bool, bool),
    case: &HeaderCase,
) -> bool {
    out.extend_from_slice(if asked.is_http10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    out.extend_from_slice(head.status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    let mut has_date = false;
    for (name, value) in &head.headers {
        match *name {
            // The answer to HEAD tells the length of what it leaves out, as does 304.
            CONTENT_LENGTH if framing.is_none() && head.status != StatusCode::NO_CONTENT => {}
            CONNECTION => {
                keep_alive &= !says_close(value.as_bytes());
                continue;
            }
            CONTENT_LENGTH | TRANSFER_ENCODING => continue,
            DATE => has_date = true,
            _ => {}
        }
        push_field(out, &case.written(name), value.as_bytes());
    }
    if !has_date {
        date::with(|date| push_field(out, &case.written(&DATE), date));
    }
    match framing {
        Some(MessageFraming::Length(length)) => {
            let mut digits = itoa::Buffer::new();
            push_field(out, &case.written(&CONTENT_LENGTH), digits.format(length).as_bytes());
        }
        Some(MessageFraming::Chunked { .. }) => {
            push_field(out, &case.written(&TRANSFER_ENCODING), b"chunked");
        }
        Some(MessageFraming::Close) | None => {}
    }
    let connection: Option<&[u8]> = match () {
        () if is_tunnel && asked.method == Method::CONNECT => None,
        () if is_tunnel => Some(b"upgrade"),
        () if !keep_alive => Some(b"close"),
        () if asked.is_http10 => Some(b"keep-alive"),
        () => None,
    };
    if let Some(connection) = connection {
        push_field(out, &case.written(&CONNECTION), connection);
    }
    out.extend_from_slice(b"\r\n");
    keep_alive
}
