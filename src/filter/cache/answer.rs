//! Answers from what is stored: whole, without a body, or "not modified".

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{
    AGE, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_LOCATION, DATE, ETAG, EXPIRES, HeaderName,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED, VARY,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body::{Frame, SizeHint};
use tokio::time::Instant;

use crate::cache::Entry;
use crate::cache::policy::time;
use crate::exchange::{Body, BodyError, Response, ResponseHead, StreamInfo};

/// How caches on the way say what they did (RFC 9211).
pub(super) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// What a response that is "not modified" says again (RFC 9110 section 15.4.5).
const SAID_AGAIN: [HeaderName; 7] =
    [CACHE_CONTROL, CONTENT_LOCATION, DATE, ETAG, EXPIRES, LAST_MODIFIED, VARY];

/// The answer to a GET or HEAD with these headers. `status` is what `Cache-Status` says of it.
pub(super) fn from_stored(
    entry: &Entry,
    (method, asked): (&Method, &HeaderMap),
    status: &str,
    mut stream: Box<StreamInfo>,
) -> Response {
    let mut head = http::Response::new(()).into_parts().0;
    let unchanged = entry.status == StatusCode::OK && is_unchanged(entry, asked);
    let body = match (unchanged, method == Method::HEAD) {
        (true, _) => {
            head.status = StatusCode::NOT_MODIFIED;
            for name in SAID_AGAIN {
                for value in entry.headers.get_all(&name) {
                    head.headers.append(name.clone(), value.clone());
                }
            }
            Body::Empty
        }
        (false, without_body) => {
            head.status = entry.status;
            head.headers.clone_from(&entry.headers);
            if entry.status != StatusCode::NO_CONTENT {
                head.headers.insert(CONTENT_LENGTH, HeaderValue::from(entry.length()));
            }
            if without_body { Body::Empty } else { body_of(entry) }
        }
    };
    head.headers.insert(AGE, HeaderValue::from(entry.age(Instant::now()).as_secs()));
    say(&mut head, status);
    stream.details = "response_from_cache";
    Response { head, body, stream }
}

/// Adds what this cache did.
pub(super) fn say(head: &mut ResponseHead, status: &str) {
    if let Ok(value) = HeaderValue::try_from(format!("nuncio; {status}")) {
        head.headers.append(CACHE_STATUS, value);
    }
}

/// Whether the client has this very response (RFC 9110 section 13.2.2).
fn is_unchanged(entry: &Entry, asked: &HeaderMap) -> bool {
    if asked.contains_key(IF_NONE_MATCH) {
        let etag = entry.headers.get(ETAG).map(|etag| opaque(etag.as_bytes()));
        let values = asked.get_all(IF_NONE_MATCH).iter().flat_map(|v| tags(v.as_bytes()));
        return values
            .into_iter()
            .any(|tag| tag == b"*" || etag.is_some_and(|etag| opaque(tag) == etag));
    }
    let since = time(asked.get(IF_MODIFIED_SINCE));
    let changed = time(entry.headers.get(LAST_MODIFIED).or(entry.headers.get(DATE)));
    since.zip(changed).is_some_and(|(since, changed)| changed <= since)
}

/// The tags of a list; a tag may have commas in it.
fn tags(list: &[u8]) -> Vec<&[u8]> {
    let mut quoted = false;
    let parts = list.split(move |byte| {
        quoted ^= *byte == b'"';
        *byte == b',' && !quoted
    });
    parts.map(<[u8]>::trim_ascii).filter(|tag| !tag.is_empty()).collect()
}

/// A tag as far as the weak comparison looks at it.
fn opaque(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

fn body_of(entry: &Entry) -> Body {
    match &entry.body[..] {
        [] => Body::Empty,
        [whole] => whole.clone().into(),
        pieces => Body::boxed(Pieces(pieces.iter().cloned().collect())),
    }
}

/// A stored body, piece by piece, without a copy.
struct Pieces(VecDeque<Bytes>);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let next = self.0.pop_front().map(|piece| Ok::<_, Infallible>(Frame::data(piece)));
        Poll::Ready(next.map(|frame| frame.map_err(|never| match never {})))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|piece| piece.len() as u64).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_tags_have_commas_in_them() {
        let found = tags(b" \"a,b\" , W/\"c\",, *");
        assert_eq!(found, [&b"\"a,b\""[..], b"W/\"c\"", b"*"]);
        assert_eq!(opaque(b"W/\"c\""), opaque(b"\"c\""));
    }
}
