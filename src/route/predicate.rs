//! What a request must have beyond its path: headers, query parameters, gRPC, luck.

use http::header::CONTENT_TYPE;

use crate::config::matcher::{HeaderMatcher, StringMatcher};
use crate::config::runtime::Fraction;
use crate::exchange::RequestHead;

/// The conditions of one route; all must hold.
#[derive(Debug)]
pub(super) struct Predicates {
    pub(super) headers: Box<[HeaderMatcher]>,
    pub(super) query: Box<[QueryMatcher]>,
    /// Only gRPC requests match.
    pub(super) grpc: bool,
    /// Only so many of the requests match.
    pub(super) fraction: Option<Fraction>,
}

impl Predicates {
    /// Whether all conditions hold. `random` is the request's own: the same whenever it is called.
    pub(super) fn match_all(&self, head: &RequestHead, random: impl FnOnce() -> u64) -> bool {
        self.fraction.is_none_or(|fraction| fraction.admits(random()))
            && (!self.grpc || is_grpc(head))
            && self.headers.iter().all(|header| header.matches(head))
            && self.query.iter().all(|query| query.matches(head.uri.query().unwrap_or("")))
    }
}

/// Whether the request's body is gRPC: `application/grpc`, or that with a codec after a `+`.
fn is_grpc(head: &RequestHead) -> bool {
    let content_type = head.headers.get(CONTENT_TYPE).map(|value| value.as_bytes());
    let suffix = content_type.and_then(|value| value.strip_prefix(b"application/grpc"));
    matches!(suffix, Some([] | [b'+', ..]))
}

/// A condition on a query parameter. Only the first value of a repeated one counts, and nothing is
/// decoded.
#[derive(Debug)]
pub(super) struct QueryMatcher {
    pub(super) name: Box<str>,
    pub(super) value: QueryValue,
}

#[derive(Debug)]
pub(super) enum QueryValue {
    /// Whether the parameter must be there, or must not.
    Present(bool),
    /// What its value must be.
    String(StringMatcher),
}

impl QueryMatcher {
    /// Whether the query, without its `?`, fulfils the condition.
    pub(super) fn matches(&self, query: &str) -> bool {
        let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let found = pairs.find(|(name, _)| *name == &*self.name).map(|(_, value)| value);
        match &self.value {
            QueryValue::Present(present) => found.is_some() == *present,
            QueryValue::String(string) => found.is_some_and(|v| string.matches(v.as_bytes())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_is_known_by_its_content_type() {
        for (value, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc-web", false),
            ("text/plain", false),
        ] {
            let request = http::Request::post("/").header(CONTENT_TYPE, value).body(()).unwrap();
            assert_eq!(is_grpc(&request.into_parts().0), expected, "{value}");
        }
    }
}
