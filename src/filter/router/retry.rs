//! Whether a request is tried again, and where.

use std::net::SocketAddr;
use std::time::SystemTime;

use http::{HeaderMap, HeaderName, StatusCode};
use prost_types::value::Kind;
use smallvec::SmallVec;

use super::asked::Asked;
use super::attempt::Failure;
use super::backoff::{self, Waits};
use crate::config::metadata::LB;
use crate::exchange::{RequestHead, ResponseHead};
use crate::route::{Avoid, RetryOn, RetryPolicy};
use crate::upstream::{Host, UpstreamError};

const RATE_LIMITED: HeaderName = HeaderName::from_static("x-envoy-ratelimited");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// When one request is tried again: its route's policy and what it asks for itself.
pub(super) struct Plan<'a> {
    on: RetryOn,
    /// Tries that are left.
    pub(super) remaining: u32,
    pub(super) waits: Waits,
    policy: Option<&'a RetryPolicy>,
    asked: Option<&'a Asked>,
}

impl<'a> Plan<'a> {
    /// `None` if nothing makes it be tried again.
    pub(super) fn new(
        policy: Option<&'a RetryPolicy>,
        asked: Option<&'a Asked>,
        head: &RequestHead,
    ) -> Option<Self> {
        let on = policy.map_or(RetryOn::default(), |policy| policy.on)
            | asked.map_or(RetryOn::default(), |asked| asked.on);
        let wanted = policy.map_or(&[][..], |policy| &policy.request_headers);
        if on.is_empty() || !wanted.is_empty() && !wanted.iter().any(|m| m.matches(head)) {
            return None;
        }
        let remaining = asked.and_then(|asked| asked.max_retries);
        Some(Self {
            on,
            remaining: remaining.unwrap_or_else(|| policy.map_or(1, |policy| policy.num_retries)),
            waits: Waits::new(policy.map(|policy| policy.back_off).unwrap_or_default()),
            policy,
            asked,
        })
    }

    /// Whether this answer is not good enough.
    pub(super) fn rejects(&self, head: &ResponseHead) -> bool {
        if head.headers.contains_key(RATE_LIMITED) {
            // Who is over a limit is not to come back, unless that is wanted.
            return self.on.has(RetryOn::RATE_LIMITED);
        }
        let code = head.status.as_u16();
        self.on.has(RetryOn::SERVER_ERROR) && head.status.is_server_error()
            || self.on.has(RetryOn::GATEWAY_ERROR) && matches!(code, 502..=504)
            || self.on.has(RetryOn::RETRIABLE_4XX) && head.status == StatusCode::CONFLICT
            || self.on.has(RetryOn::STATUS_CODES) && self.names_code(code)
            || self.on.has(RetryOn::HEADERS) && self.names_header(&head.headers)
            || grpc_condition(&head.headers).is_some_and(|condition| self.on.has(condition))
    }

    fn names_code(&self, code: u16) -> bool {
        self.policy.is_some_and(|policy| policy.status_codes.contains(&code))
            || self.asked.is_some_and(|asked| asked.status_codes.contains(&code))
    }

    fn names_header(&self, headers: &HeaderMap) -> bool {
        self.policy.is_some_and(|policy| policy.headers.iter().any(|m| m.matches_response(headers)))
            || self.asked.is_some_and(|asked| asked.headers.iter().any(|n| headers.contains_key(n)))
    }

    /// Whether a try that got no answer may be followed by another.
    pub(super) fn survives(&self, failure: &Failure) -> bool {
        let any = RetryOn::SERVER_ERROR | RetryOn::GATEWAY_ERROR | RetryOn::RESET;
        let more = match failure {
            Failure::Upstream(error) => match error {
                // Trying again would make what is overloaded worse.
                UpstreamError::Overflow | UpstreamError::RequestBody(_) => return false,
                UpstreamError::ConnectFailure(_) | UpstreamError::ConnectTimeout => {
                    RetryOn::CONNECT_FAILURE | RetryOn::RESET_BEFORE_REQUEST
                }
                UpstreamError::Refused => RetryOn::REFUSED_STREAM,
                _ => RetryOn::default(),
            },
            Failure::PerTry | Failure::PerTryIdle => RetryOn::default(),
            Failure::Timeout | Failure::Idle | Failure::Duration => return false,
        };
        self.on.has(any | more)
    }

    /// How long the upstream asks to be left alone.
    pub(super) fn asked_wait(&self, headers: &HeaderMap) -> Option<std::time::Duration> {
        let limited = self.policy?.rate_limited.as_ref()?;
        backoff::asked_for(limited, headers, SystemTime::now(), rand::random())
    }

    /// How often another host is drawn in place of one to keep away from.
    pub(super) fn redraws(&self) -> u32 {
        match self.policy {
            Some(policy) if !policy.avoid.is_empty() => policy.host_selection_attempts,
            _ => 0,
        }
    }

    /// After how many tries their priorities are left out anew, if they are.
    pub(super) fn previous_priorities(&self) -> Option<u32> {
        self.policy.and_then(|policy| policy.previous_priorities)
    }

    /// Whether a retry keeps away from this host.
    pub(super) fn avoids(&self, host: &Host, tried: &SmallVec<[SocketAddr; 4]>) -> bool {
        self.policy.is_some_and(|policy| avoids(&policy.avoid, host, tried))
    }
}

fn avoids(avoid: &Avoid, host: &Host, tried: &[SocketAddr]) -> bool {
    if avoid.previous && tried.contains(&host.address()) {
        return true;
    }
    if !avoid.canaries && avoid.metadata.is_empty() {
        return false;
    }
    let Some(metadata) = host.metadata() else { return false };
    let Some(lb) = metadata.get(LB) else { return false };
    let is_canary = matches!(
        lb.fields.get("canary").and_then(|value| value.kind.as_ref()),
        Some(Kind::BoolValue(true))
    );
    avoid.canaries && is_canary
        || avoid
            .metadata
            .iter()
            .any(|wanted| wanted.iter().all(|(k, v)| lb.fields.get(k) == Some(v)))
}

/// What the answer's `grpc-status` says, if it stands among its headers.
fn grpc_condition(headers: &HeaderMap) -> Option<RetryOn> {
    match headers.get(GRPC_STATUS)?.as_bytes() {
        b"1" => Some(RetryOn::CANCELLED),
        b"4" => Some(RetryOn::DEADLINE_EXCEEDED),
        b"8" => Some(RetryOn::RESOURCE_EXHAUSTED),
        b"13" => Some(RetryOn::INTERNAL),
        b"14" => Some(RetryOn::UNAVAILABLE),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::upstream::RequestBodyError;

    fn request() -> RequestHead {
        http::Request::get("/").body(()).unwrap().into_parts().0
    }

    fn asking(on: RetryOn) -> Asked {
        Asked { on, ..Asked::default() }
    }

    #[test]
    fn answers_are_judged_by_each_condition() {
        let answer = |status: u16, header: Option<(&str, &str)>| {
            let mut response = http::Response::builder().status(status);
            if let Some((name, value)) = header {
                response = response.header(name, value);
            }
            response.body(()).unwrap().into_parts().0
        };
        let cases = [
            (RetryOn::SERVER_ERROR, 500, None, true),
            (RetryOn::SERVER_ERROR, 499, None, false),
            (RetryOn::SERVER_ERROR, 503, Some(("x-envoy-ratelimited", "true")), false),
            (RetryOn::RATE_LIMITED, 429, Some(("x-envoy-ratelimited", "true")), true),
            (RetryOn::RATE_LIMITED, 429, None, false),
            (RetryOn::GATEWAY_ERROR, 500, None, false),
            (RetryOn::GATEWAY_ERROR, 502, None, true),
            (RetryOn::GATEWAY_ERROR, 504, None, true),
            (RetryOn::GATEWAY_ERROR, 505, None, false),
            (RetryOn::RETRIABLE_4XX, 409, None, true),
            (RetryOn::RETRIABLE_4XX, 404, None, false),
            (RetryOn::STATUS_CODES, 418, None, true),
            (RetryOn::STATUS_CODES, 503, None, false),
            (RetryOn::HEADERS, 200, Some(("x-again", "")), true),
            (RetryOn::HEADERS, 200, Some(("x-never", "")), false),
            (RetryOn::CANCELLED, 200, Some(("grpc-status", "1")), true),
            (RetryOn::DEADLINE_EXCEEDED, 200, Some(("grpc-status", "4")), true),
            (RetryOn::RESOURCE_EXHAUSTED, 200, Some(("grpc-status", "8")), true),
            (RetryOn::INTERNAL, 200, Some(("grpc-status", "13")), true),
            (RetryOn::UNAVAILABLE, 200, Some(("grpc-status", "14")), true),
            (RetryOn::UNAVAILABLE, 200, Some(("grpc-status", "1")), false),
            (RetryOn::RESET, 503, None, false),
            (RetryOn::CONNECT_FAILURE, 503, None, false),
            (RetryOn::REFUSED_STREAM, 503, None, false),
            (RetryOn::HTTP3, 503, None, false),
        ];
        for (on, status, header, expected) in cases {
            let mut asked = asking(on);
            asked.status_codes.push(418);
            asked.headers.push(HeaderName::from_static("x-again"));
            let plan = Plan::new(None, Some(&asked), &request()).unwrap();
            assert_eq!(
                plan.rejects(&answer(status, header)),
                expected,
                "{on:?} {status} {header:?}"
            );
        }
    }

    #[test]
    fn resets_are_judged_by_each_condition() {
        let refused = || UpstreamError::ConnectFailure(io::ErrorKind::ConnectionRefused.into());
        let failures = [
            Failure::Upstream(refused()),
            Failure::Upstream(UpstreamError::ConnectTimeout),
            Failure::Upstream(UpstreamError::Terminated),
            Failure::Upstream(UpstreamError::Refused),
            Failure::Upstream(UpstreamError::RemoteReset),
            Failure::PerTry,
            Failure::Upstream(UpstreamError::Overflow),
            Failure::Upstream(UpstreamError::RequestBody(RequestBodyError::Connection)),
            Failure::Timeout,
            Failure::Idle,
        ];
        let cases = [
            (RetryOn::SERVER_ERROR, "yyyyyynnnn"),
            (RetryOn::GATEWAY_ERROR, "yyyyyynnnn"),
            (RetryOn::RESET, "yyyyyynnnn"),
            (RetryOn::CONNECT_FAILURE, "yynnnnnnnn"),
            (RetryOn::RESET_BEFORE_REQUEST, "yynnnnnnnn"),
            (RetryOn::REFUSED_STREAM, "nnnynnnnnn"),
            (RetryOn::STATUS_CODES, "nnnnnnnnnn"),
            (RetryOn::UNAVAILABLE, "nnnnnnnnnn"),
        ];
        for (on, expected) in cases {
            let asked = asking(on);
            let plan = Plan::new(None, Some(&asked), &request()).unwrap();
            let found = failures.iter().map(|f| if plan.survives(f) { 'y' } else { 'n' });
            assert_eq!(found.collect::<String>(), expected, "{on:?}");
        }
    }

    #[test]
    fn a_request_that_asks_for_nothing_has_no_plan() {
        assert!(Plan::new(None, None, &request()).is_none());
        assert!(Plan::new(None, Some(&Asked::default()), &request()).is_none());
        let asked = Asked { max_retries: Some(7), ..asking(RetryOn::RESET) };
        assert_eq!(Plan::new(None, Some(&asked), &request()).unwrap().remaining, 7);
        let asked = asking(RetryOn::RESET);
        assert_eq!(Plan::new(None, Some(&asked), &request()).unwrap().remaining, 1);
    }
}
