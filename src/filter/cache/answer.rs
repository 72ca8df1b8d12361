//! Answers from what is stored: whole, in parts, without a body, or "not modified".

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, AGE, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_LOCATION,
    CONTENT_RANGE, CONTENT_TYPE, DATE, ETAG, EXPIRES, HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH,
    IF_RANGE, LAST_MODIFIED, RANGE, VARY,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use http_body::{Frame, SizeHint};
use smallvec::SmallVec;
use tokio::time::Instant;

use super::encode::{self, Form};
use super::fill::stated_length;
use crate::cache::policy::time;
use crate::cache::{Entry, Follower, Part, Ranges, Stored, flight};
use crate::exchange::{Body, BodyError, Response, ResponseHead, StreamInfo};
use crate::filter::head::{opaque, tags};

/// How caches on the way say what they did (RFC 9211).
pub(super) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// What a response that is "not modified" says again (RFC 9110 section 15.4.5).
const SAID_AGAIN: [HeaderName; 7] =
    [CACHE_CONTROL, CONTENT_LOCATION, DATE, ETAG, EXPIRES, LAST_MODIFIED, VARY];

/// What of a request its answer depends on.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) method: Method,
    /// As the client sent them.
    pub(super) headers: HeaderMap,
}

/// The answer to a GET or HEAD. `status` is what `Cache-Status` says of it.
pub(super) fn from_stored(
    entry: &Entry,
    form: Form,
    asked: (&Method, &HeaderMap),
    status: Option<HeaderValue>,
    mut stream: Box<StreamInfo>,
) -> Response {
    entry.hits.fetch_add(1, Ordering::Relaxed);
    let mut head = head_of(entry, form);
    let body = match form {
        Form::Gzip => entry.gzip.as_ref().unwrap_or(&entry.body),
        Form::Identity | Form::Only => &entry.body,
    };
    let body = condition(&mut head, entry, body, asked);
    if let Some(copy) = &entry.copy
        && stream.protocol <= Version::HTTP_11
        && form != Form::Gzip
    {
        stream.body_copy = Some(Arc::clone(copy.file()) as _);
    }
    if let Some(status) = status {
        head.headers.append(CACHE_STATUS, status);
    }
    stream.details = "response_from_cache";
    Response { head, body, stream }
}

/// The answer to a GET for all of it, with a body that is still on its way.
pub(super) fn from_flight(
    entry: &Entry,
    follower: Follower,
    status: impl fmt::Display,
    mut stream: Box<StreamInfo>,
) -> Response {
    let mut head = head_of(entry, Form::Only);
    let body = followed(follower, stated_length(&entry.headers));
    say(&mut head, status);
    stream.details = "response_from_cache";
    Response { head, body, stream }
}

/// Headers that are added to a response on its way from here.
const ADDED: usize = 6;

fn head_of(entry: &Entry, form: Form) -> ResponseHead {
    let mut head = http::Response::new(()).into_parts().0;
    head.status = entry.status;
    // Not a clone, which would have no room for what is added on the way.
    head.headers = HeaderMap::with_capacity(entry.headers.len() + ADDED);
    head.headers.extend(entry.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
    encode::dress(&mut head.headers, form);
    let age: Duration = entry.age(Instant::now());
    head.headers.insert(AGE, HeaderValue::from(age.as_secs()));
    head
}

/// Makes of a whole response what the request's conditions and ranges want of it.
fn condition(
    head: &mut ResponseHead,
    entry: &Entry,
    body: &Stored,
    (method, asked): (&Method, &HeaderMap),
) -> Body {
    if entry.status == StatusCode::OK && is_unchanged(&head.headers, asked) {
        return not_modified(head);
    }
    if entry.status == StatusCode::OK
        && method == Method::GET
        && let Some(range) = asked.get(RANGE)
        && range_applies(&head.headers, asked)
    {
        match Ranges::parse(range.as_bytes(), body.length()) {
            Ranges::Ignored => {}
            Ranges::Unsatisfiable => return unsatisfiable(head, body.length()),
            Ranges::Parts(parts) => return partial(head, body, &parts),
        }
    }
    if entry.status != StatusCode::NO_CONTENT && stated_length(&head.headers) != Some(body.length())
    {
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.length()));
    }
    if method == Method::HEAD { Body::Empty } else { pieces(body.pieces().iter().cloned()) }
}

fn not_modified(head: &mut ResponseHead) -> Body {
    head.status = StatusCode::NOT_MODIFIED;
    let mut said = HeaderMap::new();
    for name in SAID_AGAIN.into_iter().chain([AGE]) {
        for value in head.headers.get_all(&name) {
            said.append(name.clone(), value.clone());
        }
    }
    head.headers = said;
    Body::Empty
}

/// RFC 9110 section 15.5.17.
fn unsatisfiable(head: &mut ResponseHead, size: u64) -> Body {
    head.status = StatusCode::RANGE_NOT_SATISFIABLE;
    for name in [CONTENT_TYPE, CONTENT_ENCODING, ETAG, LAST_MODIFIED] {
        head.headers.remove(name);
    }
    insert(&mut head.headers, CONTENT_RANGE, format!("bytes */{size}"));
    head.headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
    Body::Empty
}

/// RFC 9110 section 15.3.7.
fn partial(head: &mut ResponseHead, body: &Stored, parts: &[Part]) -> Body {
    head.status = StatusCode::PARTIAL_CONTENT;
    // They are of the whole.
    for name in encode::OF_THE_BYTES {
        head.headers.remove(name);
    }
    let size = body.length();
    let content_range = |part: &Part| {
        let (first, last) = part.bounds();
        format!("bytes {first}-{last}/{size}")
    };
    let (length, bytes): (u64, Vec<Bytes>) = match parts {
        [part] => {
            insert(&mut head.headers, CONTENT_RANGE, content_range(part));
            (part.length, body.slice(part.start, part.length).collect())
        }
        parts => {
            let boundary = format!("{:032x}", rand::random::<u128>());
            let kind = head.headers.get(CONTENT_TYPE).cloned();
            let mut bytes = Vec::new();
            for part in parts {
                let mut text = format!("\r\n--{boundary}\r\n").into_bytes();
                if let Some(kind) = &kind {
                    text.extend_from_slice(b"Content-Type: ");
                    text.extend_from_slice(kind.as_bytes());
                    text.extend_from_slice(b"\r\n");
                }
                let range = content_range(part);
                text.extend_from_slice(format!("Content-Range: {range}\r\n\r\n").as_bytes());
                bytes.push(Bytes::from(text));
                bytes.extend(body.slice(part.start, part.length));
            }
            bytes.push(Bytes::from(format!("\r\n--{boundary}--\r\n")));
            let kind = format!("multipart/byteranges; boundary={boundary}");
            insert(&mut head.headers, CONTENT_TYPE, kind);
            (bytes.iter().map(|piece| piece.len() as u64).sum(), bytes)
        }
    };
    head.headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    head.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    pieces(bytes.into_iter())
}

/// Nothing of ours is no header value.
fn insert(headers: &mut HeaderMap, name: HeaderName, text: String) {
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(name, value);
    }
}

/// Adds what this cache did.
pub(super) fn say(head: &mut ResponseHead, status: impl fmt::Display) {
    if let Some(value) = said(status) {
        head.headers.append(CACHE_STATUS, value);
    }
}

/// What `Cache-Status` says of it.
pub(super) fn said(status: impl fmt::Display) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("nuncio; {status}")).ok()
}

/// The same of a hit that is good for so many seconds, written without a formatter.
pub(super) fn said_of_hit(seconds_left: i64, detail: &str) -> Option<HeaderValue> {
    let mut text = Vec::with_capacity(48);
    text.extend_from_slice(b"nuncio; hit; ttl=");
    text.extend_from_slice(itoa::Buffer::new().format(seconds_left).as_bytes());
    text.extend_from_slice(detail.as_bytes());
    HeaderValue::from_maybe_shared(Bytes::from(text)).ok()
}

/// Whether the client has this very response (RFC 9110 section 13.2.2).
fn is_unchanged(stored: &HeaderMap, asked: &HeaderMap) -> bool {
    if asked.contains_key(IF_NONE_MATCH) {
        let etag = stored.get(ETAG).map(|etag| opaque(etag.as_bytes()));
        let values = asked.get_all(IF_NONE_MATCH).iter().flat_map(|v| tags(v.as_bytes()));
        return values
            .into_iter()
            .any(|tag| tag == b"*" || etag.is_some_and(|etag| opaque(tag) == etag));
    }
    let Some(since) = time(asked.get(IF_MODIFIED_SINCE)) else { return false };
    let changed = time(stored.get(LAST_MODIFIED).or(stored.get(DATE)));
    changed.is_some_and(|changed| changed <= since)
}

/// Whether a range is wanted of this very response (RFC 9110 section 13.1.5): a strong tag, or the date.
fn range_applies(stored: &HeaderMap, asked: &HeaderMap) -> bool {
    let Some(wanted) = asked.get(IF_RANGE).map(HeaderValue::as_bytes) else { return true };
    let has = if wanted.starts_with(b"\"") { ETAG } else { LAST_MODIFIED };
    let is_strong = !wanted.starts_with(b"W/") && (has == ETAG || is_strong_date(stored));
    is_strong && stored.get(has).is_some_and(|has| has.as_bytes() == wanted)
}

/// A date says which response it is if the response was made at least a second later
/// (RFC 9110 section 8.8.2.2).
fn is_strong_date(stored: &HeaderMap) -> bool {
    let (changed, made) = (time(stored.get(LAST_MODIFIED)), time(stored.get(DATE)));
    changed.zip(made).is_some_and(|(changed, made)| changed + Duration::from_secs(1) <= made)
}

/// A body of these pieces, without a copy.
fn pieces(mut bytes: impl Iterator<Item = Bytes>) -> Body {
    match (bytes.next(), bytes.next()) {
        (None, _) => Body::Empty,
        (Some(only), None) => only.into(),
        (Some(first), Some(second)) => {
            let all: SmallVec<_> = [first, second].into_iter().chain(bytes).collect();
            Body::boxed(Pieces(all.into_iter()))
        }
    }
}

/// A body that another request fetches, of so many bytes if that is known.
pub(super) fn followed(follower: Follower, length: Option<u64>) -> Body {
    if follower.is_at_end() {
        return Body::Empty;
    }
    Body::boxed(Followed { follower, left: length })
}

/// A stored body, piece by piece.
struct Pieces(smallvec::IntoIter<[Bytes; 4]>);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Poll::Ready(self.0.next().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_slice().is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_slice().iter().map(|piece| piece.len() as u64).sum())
    }
}

/// A body on its way, which is read as it arrives.
struct Followed {
    follower: Follower,
    left: Option<u64>,
}

impl http_body::Body for Followed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let part = std::task::ready!(this.follower.poll_part(cx));
        Poll::Ready(part.map(|part| match part {
            Ok(flight::Part::Data(data)) => {
                this.left = this.left.map(|left| left.saturating_sub(data.len() as u64));
                Ok(Frame::data(data))
            }
            Ok(flight::Part::Trailers(trailers)) => Ok(Frame::trailers(trailers)),
            Err(flight::Broken) => Err(BodyError::Shared),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.follower.is_at_end()
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_strong_a_second_later() {
        let headers = |date: &str| {
            [("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"), ("date", date)]
                .map(|(n, v)| (n.parse::<HeaderName>().unwrap(), v.parse().unwrap()))
                .into_iter()
                .collect::<HeaderMap>()
        };
        assert!(is_strong_date(&headers("Sun, 06 Nov 1994 08:49:38 GMT")));
        assert!(!is_strong_date(&headers("Sun, 06 Nov 1994 08:49:37 GMT")));
    }
}
