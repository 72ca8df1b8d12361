//! Header names we act on, and the ones that never pass a hop.

use std::time::Duration;

use http::header::{CONNECTION, CONTENT_TYPE, COOKIE, EXPECT, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

/// `X-Forwarded-For`: the chain of client addresses.
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// `X-Forwarded-Proto`: the scheme the client used.
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// An extension of a request's head: to its upstream it has the scheme of the connection it is sent on, not that
/// of the client's, which `X-Forwarded-Proto` says.
#[derive(Debug, Clone, Copy)]
pub struct SchemeOfUpstream;

/// `X-Request-Id`: a UUID that follows the request through every hop.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The client's address as the edge saw it.
pub const X_ENVOY_EXTERNAL_ADDRESS: HeaderName =
    HeaderName::from_static("x-envoy-external-address");
/// The time the upstream has to answer, in milliseconds.
pub const X_ENVOY_EXPECTED_RQ_TIMEOUT_MS: HeaderName =
    HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
/// The time the upstream took, in milliseconds.
pub const X_ENVOY_UPSTREAM_SERVICE_TIME: HeaderName =
    HeaderName::from_static("x-envoy-upstream-service-time");
/// Which try of the request this is, from 1.
pub const X_ENVOY_ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Whether a message is of gRPC: `application/grpc`, or that with a codec after a `+`.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let rest = content_type.and_then(|value| value.strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"+"))
}

/// Removes what belongs to one connection only (RFC 9110 section 7.6.1), the headers that
/// `Connection` names included. `te: trailers` stays, as gRPC needs it.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: SmallVec<[HeaderValue; 1]> = headers.get_all(CONNECTION).iter().cloned().collect();
    for name in named.iter().flat_map(|named| named.to_str().unwrap_or("").split(',')) {
        if let Ok(name) = HeaderName::try_from(name.trim())
            && !matches!(name.as_str(), "te" | "host" | "content-length")
        {
            headers.remove(&name);
        }
    }
    headers.remove(CONNECTION);
    for name in [KEEP_ALIVE, PROXY_CONNECTION, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(&name);
    }
    if let Some(te) = headers.get(TE)
        && te.as_bytes() != b"trailers"
    {
        let keeps = te.to_str().is_ok_and(|te| te.split(',').any(|t| t.trim() == "trailers"));
        headers.remove(TE);
        if keeps {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
    }
}

/// Whether the client of a request waits to be told to send its body (RFC 9110 section 10.1.1).
pub fn expects_continue(headers: &HeaderMap) -> bool {
    headers.get(EXPECT).is_some_and(|what| what.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Whether a request wants to speak another protocol from here on (RFC 9110 section 7.8). One for HTTP/2
/// does not: RFC 9113 section 3.1 has taken that back, and those who still offer it go on without.
pub fn asks_to_switch(headers: &HeaderMap) -> bool {
    let Some(to) = headers.get(UPGRADE) else { return false };
    let mut connection = headers.get_all(CONNECTION).iter();
    !to.as_bytes().eq_ignore_ascii_case(b"h2c")
        && connection.any(|value| has_option(value.as_bytes(), b"upgrade"))
}

/// Whether a list, as that of a `Connection` field, has an option (RFC 9110 section 7.6.1).
pub fn has_option(list: &[u8], wanted: &[u8]) -> bool {
    let mut options = list.split(|byte| *byte == b',');
    options.any(|option| option.trim_ascii().eq_ignore_ascii_case(wanted))
}

/// Whether a header name is one [`strip_hop_by_hop`] acts on; a glance at every header is cheaper
/// than six blind removals.
pub fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade" | "te"
    )
}

/// What follows the value in the `Set-Cookie` of a cookie that we make: it is for us alone.
pub fn cookie_attributes<'a>(
    max_age: Option<Duration>,
    path: &str,
    others: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> String {
    let mut text = String::new();
    if let Some(max_age) = max_age {
        text.push_str(&format!("; Max-Age={}", max_age.as_secs()));
    }
    if !path.is_empty() {
        text.push_str(&format!("; Path={path}"));
    }
    for (name, value) in others {
        match value.is_empty() {
            true => text.push_str(&format!("; {name}")),
            false => text.push_str(&format!("; {name}={value}")),
        }
    }
    text.push_str("; HttpOnly");
    text
}

/// The value of a request's cookie, without quotes.
pub fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h [u8]> {
    let pairs =
        headers.get_all(COOKIE).iter().flat_map(|value| value.as_bytes().split(|b| *b == b';'));
    for pair in pairs {
        let mut parts = pair.splitn(2, |b| *b == b'=');
        if parts.next()?.trim_ascii() == name.as_bytes()
            && let Some(value) = parts.next()
        {
            let value = value.trim_ascii();
            let quoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
            return Some(quoted.unwrap_or(value));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_connection_names_goes_with_it() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, x-private"),
            ("x-private", "1"),
            ("te", "gzip, trailers"),
            ("transfer-encoding", "chunked"),
            ("x-public", "1"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        assert_eq!(headers.keys().filter(|name| is_hop_by_hop(name)).count(), 3);
        strip_hop_by_hop(&mut headers);
        let mut left: Vec<_> = headers.iter().map(|(n, v)| (n.as_str(), v.as_bytes())).collect();
        left.sort_unstable();
        assert_eq!(left, [("te", &b"trailers"[..]), ("x-public", b"1")]);
    }

    #[test]
    fn grpc_is_known_by_its_content_type() {
        for (value, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc-web", false),
            ("text/plain", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(value));
            assert_eq!(is_grpc(&headers), expected, "{value}");
        }
    }
}
