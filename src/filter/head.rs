//! What heads say of a body's bytes, and how that changes when the bytes do: for filters that keep bodies, or
//! make others of them.

use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::cache::vary;
use crate::coding::Coding;

/// What holds for the very bytes of a body and for no other (RFC 9530, RFC 3230).
const OF_THE_BYTES: [HeaderName; 6] = [
    CONTENT_LENGTH,
    ACCEPT_RANGES,
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
];

/// The items of a header that is a list, over all of its lines.
pub(super) fn items<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
) -> impl DoubleEndedIterator<Item = &'h [u8]> {
    // The lines themselves cannot be walked from the end without a list of them.
    let lines: smallvec::SmallVec<[&[u8]; 2]> =
        headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    let items = lines.into_iter().flat_map(|line| line.split(|byte| *byte == b','));
    items.map(<[u8]>::trim_ascii).filter(|item| !item.is_empty())
}

/// Whether nobody on the way may change the body (RFC 9111 section 5.2.2.6).
pub(super) fn forbids_transforms(headers: &HeaderMap) -> bool {
    headers.contains_key(CACHE_CONTROL)
        && items(headers, &CACHE_CONTROL).any(|item| item.eq_ignore_ascii_case(b"no-transform"))
}

/// The type of a body without its parameters; empty if there is none.
pub(super) fn essence(headers: &HeaderMap) -> &[u8] {
    let value = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii()
}

/// Whether a message is gRPC's, which has codings of its own.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    essence(headers).get(..GRPC.len()).is_some_and(|kind| kind.eq_ignore_ascii_case(GRPC))
}

/// Whether a body is events that are waited for one by one.
pub(super) fn is_event_stream(headers: &HeaderMap) -> bool {
    essence(headers).eq_ignore_ascii_case(b"text/event-stream")
}

/// The length that a head says its body has.
pub(super) fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Says that a response depends on `Accept-Encoding`, if that is not said already.
pub(super) fn vary_by_coding(headers: &mut HeaderMap) {
    let says_it = |name: &[u8]| name.eq_ignore_ascii_case(b"accept-encoding") || name == b"*";
    if !vary(headers).any(says_it) {
        headers.append(VARY, HeaderValue::from_static("accept-encoding"));
    }
}

/// Takes away what is said of bytes that are about to be others.
pub(super) fn forget_bytes(headers: &mut HeaderMap) {
    for name in OF_THE_BYTES {
        headers.remove(name);
    }
}

/// Says that a body is in this coding, upon those that it is in already.
pub(super) fn say_encoded(headers: &mut HeaderMap, coding: Coding) {
    headers.append(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
}

/// Whether a tag is said to hold for the very bytes (RFC 9110 section 8.8.1).
pub(super) fn is_strong(tag: &HeaderValue) -> bool {
    !tag.as_bytes().starts_with(b"W/")
}

/// Whether a response has a strong entity tag.
pub(super) fn has_strong_tag(headers: &HeaderMap) -> bool {
    headers.get(ETAG).is_some_and(is_strong)
}

/// Makes a response's strong entity tag weak.
pub(super) fn weaken_tag(headers: &mut HeaderMap) {
    let Some(tag) = headers.get(ETAG).filter(|tag| is_strong(tag)) else { return };
    let weak = HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat());
    match weak {
        Ok(weak) => headers.insert(ETAG, weak),
        // Two letters more make no header value a bad one; a tag that could be wrong is not sent.
        Err(_) => headers.remove(ETAG),
    };
}

/// The tags of a list; a tag may have commas in it.
pub(super) fn tags(list: &[u8]) -> Vec<&[u8]> {
    let mut quoted = false;
    let parts = list.split(move |byte| {
        quoted ^= *byte == b'"';
        *byte == b',' && !quoted
    });
    parts.map(<[u8]>::trim_ascii).filter(|tag| !tag.is_empty()).collect()
}

/// A tag as far as the weak comparison looks at it.
pub(super) fn opaque(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(of: &[(&'static str, &'static str)]) -> HeaderMap {
        of.iter().map(|(n, v)| (n.parse::<HeaderName>().unwrap(), v.parse().unwrap())).collect()
    }

    #[test]
    fn lists_go_over_lines_and_from_the_end_too() {
        let headers = headers(&[("content-encoding", "a, b,"), ("content-encoding", " c")]);
        let all: Vec<_> = items(&headers, &CONTENT_ENCODING).collect();
        assert_eq!(all, [b"a", b"b", b"c"]);
        assert_eq!(items(&headers, &CONTENT_ENCODING).next_back(), Some(&b"c"[..]));
    }

    #[test]
    fn what_is_said_of_other_bytes_is_forgotten() {
        let mut of = headers(&[
            ("content-length", "9"),
            ("accept-ranges", "bytes"),
            ("content-md5", "x"),
            ("digest", "x"),
            ("content-digest", "x"),
            ("repr-digest", "x"),
            ("content-type", "text/plain"),
        ]);
        forget_bytes(&mut of);
        assert_eq!(of.len(), 1);
    }

    #[test]
    fn vary_is_said_once() {
        for (before, after) in [
            (&[][..], &["accept-encoding"][..]),
            (&["origin"], &["origin", "accept-encoding"]),
            (&["origin, Accept-Encoding"], &["origin, Accept-Encoding"]),
            (&["*"], &["*"]),
        ] {
            let mut headers: HeaderMap =
                before.iter().map(|v| (VARY, HeaderValue::from_static(v))).collect();
            vary_by_coding(&mut headers);
            assert_eq!(headers.get_all(VARY).iter().collect::<Vec<_>>(), after);
        }
    }

    #[test]
    fn only_strong_tags_are_weakened() {
        for (before, after) in [("\"1\"", "W/\"1\""), ("W/\"1\"", "W/\"1\"")] {
            let mut headers = headers(&[("etag", before)]);
            weaken_tag(&mut headers);
            assert_eq!(headers["etag"], after);
        }
        assert!(is_grpc(&headers(&[("content-type", "Application/gRPC-web+proto")])));
        assert!(!is_grpc(&headers(&[("content-type", "application/json")])));
        assert!(is_event_stream(&headers(&[("content-type", "text/event-stream; charset=utf-8")])));
        assert!(forbids_transforms(&headers(&[("cache-control", "public, No-Transform")])));
    }

    #[test]
    fn lists_of_tags_have_commas_in_them() {
        let found = tags(b" \"a,b\" , W/\"c\",, *");
        assert_eq!(found, [&b"\"a,b\""[..], b"W/\"c\"", b"*"]);
        assert_eq!(opaque(b"W/\"c\""), opaque(b"\"c\""));
    }
}
