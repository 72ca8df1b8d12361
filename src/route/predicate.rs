//! What a request must have beyond its path: headers, query parameters, gRPC, luck.

use crate::config::matcher::{HeaderMatcher, StringMatcher};
use crate::config::runtime::Fraction;
use crate::exchange::RequestHead;
use crate::exchange::headers::is_grpc;

/// The conditions of one route; all must hold.
#[derive(Debug)]
pub(super) struct Predicates {
    pub(super) headers: Box<[HeaderMatcher]>,
    pub(super) query: Box<[QueryMatcher]>,
    /// Only gRPC requests match.
    pub(super) grpc: bool,
    /// Only requests whose client showed a certificate match: none does, since TLS is terminated elsewhere.
    pub(super) certificate: bool,
    /// Only so many of the requests match.
    pub(super) fraction: Option<Fraction>,
}

impl Predicates {
    /// Whether all conditions hold. `random` is the request's own: the same whenever it is called.
    pub(super) fn match_all(&self, head: &RequestHead, random: impl FnOnce() -> u64) -> bool {
        self.fraction.is_none_or(|fraction| fraction.admits(random()))
            && !self.certificate
            && (!self.grpc || is_grpc(&head.headers))
            && self.headers.iter().all(|header| header.matches(head))
            && self.query.iter().all(|query| query.matches(head.uri.query().unwrap_or("")))
    }
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
