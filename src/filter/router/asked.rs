//! What a request says itself about timeouts and retries, in `x-envoy-` headers.
//!
//! They are honoured and go no further. The connection manager has removed those of clients that
//! may not say so.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use smallvec::SmallVec;

use crate::exchange::RequestHead;
use crate::exchange::headers::X_ENVOY_EXPECTED_RQ_TIMEOUT_MS;
use crate::route::RetryOn;

const RETRY_ON: HeaderName = HeaderName::from_static("x-envoy-retry-on");
const RETRY_GRPC_ON: HeaderName = HeaderName::from_static("x-envoy-retry-grpc-on");
const MAX_RETRIES: HeaderName = HeaderName::from_static("x-envoy-max-retries");
const RQ_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-upstream-rq-timeout-ms");
const ALT_RESPONSE: HeaderName =
    HeaderName::from_static("x-envoy-upstream-rq-timeout-alt-response");
const PER_TRY_TIMEOUT: HeaderName =
    HeaderName::from_static("x-envoy-upstream-rq-per-try-timeout-ms");
const HEDGE: HeaderName = HeaderName::from_static("x-envoy-hedge-on-per-try-timeout");
const STATUS_CODES: HeaderName = HeaderName::from_static("x-envoy-retriable-status-codes");
const HEADER_NAMES: HeaderName = HeaderName::from_static("x-envoy-retriable-header-names");

/// What a request asks for. Values that cannot be read are not there.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    /// `x-envoy-retry-on` and `x-envoy-retry-grpc-on`, in addition to the route's.
    pub(super) on: RetryOn,
    /// `x-envoy-max-retries`, instead of the route's.
    pub(super) max_retries: Option<u32>,
    /// `x-envoy-upstream-rq-timeout-ms`, or `x-envoy-expected-rq-timeout-ms` where that is respected;
    /// zero is for ever.
    pub(super) timeout: Option<Duration>,
    /// `x-envoy-upstream-rq-per-try-timeout-ms`; zero is the whole timeout.
    pub(super) per_try_timeout: Option<Duration>,
    /// `x-envoy-hedge-on-per-try-timeout`, instead of the route's.
    pub(super) hedge: Option<bool>,
    /// `x-envoy-retriable-status-codes`, in addition to the route's.
    pub(super) status_codes: SmallVec<[u16; 4]>,
    /// `x-envoy-upstream-rq-timeout-alt-response`: a timeout is told by 204.
    pub(super) alt_response: bool,
    /// `x-envoy-retriable-header-names`: answers with one of them, in addition to the route's.
    pub(super) headers: SmallVec<[HeaderName; 2]>,
}

impl Asked {
    /// Takes the headers out of a request; `None`, at the cost of a glance, if it has none. With
    /// `expected`, what a proxy before this one says of the time goes before all.
    pub(super) fn take(head: &mut RequestHead, expected: bool) -> Option<Box<Self>> {
        let asks = |name: &HeaderName| {
            is_asking(name.as_str()) || expected && *name == X_ENVOY_EXPECTED_RQ_TIMEOUT_MS
        };
        if !head.headers.keys().any(asks) {
            return None;
        }
        let known = head.headers.get(X_ENVOY_EXPECTED_RQ_TIMEOUT_MS).filter(|_| expected).cloned();
        let mut take = |name: HeaderName| head.headers.remove(name);
        let mut on = RetryOn::default();
        each(take(RETRY_ON).as_ref(), |name| on |= RetryOn::http(name).unwrap_or_default());
        each(take(RETRY_GRPC_ON).as_ref(), |name| on |= RetryOn::grpc(name).unwrap_or_default());
        let mut asked = Self {
            on,
            max_retries: number(take(MAX_RETRIES)),
            timeout: number(match (known, take(RQ_TIMEOUT)) {
                (Some(known), _) => Some(known),
                (None, asked) => asked,
            })
            .map(milliseconds),
            alt_response: take(ALT_RESPONSE).is_some(),
            per_try_timeout: number(take(PER_TRY_TIMEOUT)).map(milliseconds),
            hedge: number(take(HEDGE)),
            ..Self::default()
        };
        each(take(STATUS_CODES).as_ref(), |code| asked.status_codes.extend(code.parse().ok()));
        each(take(HEADER_NAMES).as_ref(), |name| asked.headers.extend(name.parse().ok()));
        Some(Box::new(asked))
    }
}

fn is_asking(name: &str) -> bool {
    name.starts_with("x-envoy-")
        && [
            RETRY_ON,
            RETRY_GRPC_ON,
            MAX_RETRIES,
            RQ_TIMEOUT,
            ALT_RESPONSE,
            PER_TRY_TIMEOUT,
            HEDGE,
            STATUS_CODES,
            HEADER_NAMES,
        ]
        .iter()
        .any(|known| known.as_str() == name)
}

fn each(list: Option<&HeaderValue>, act: impl FnMut(&str)) {
    let list = list.and_then(|list| list.to_str().ok()).unwrap_or_default();
    list.split(',').map(str::trim).for_each(act);
}

fn number<T: std::str::FromStr>(value: Option<HeaderValue>) -> Option<T> {
    value?.to_str().ok()?.trim().parse().ok()
}

/// Times of the wire fit in 32 bits, and so do not overflow a clock.
fn milliseconds(ms: u32) -> Duration {
    Duration::from_millis(u64::from(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(headers: &[(&str, &str)]) -> RequestHead {
        let mut request = http::Request::get("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn what_is_asked_is_taken_out_and_the_rest_stays() {
        let mut head = head(&[
            ("x-envoy-retry-on", "5xx, nonsense,reset"),
            ("x-envoy-retry-grpc-on", "cancelled,5xx"),
            ("x-envoy-max-retries", "4"),
            ("x-envoy-upstream-rq-timeout-ms", "1500"),
            ("x-envoy-upstream-rq-per-try-timeout-ms", "soon"),
            ("x-envoy-retriable-status-codes", "418,x, 429"),
            ("x-envoy-retriable-header-names", "X-Again"),
            ("x-envoy-external-address", "10.0.0.1"),
        ]);
        let asked = Asked::take(&mut head, false).unwrap();
        assert_eq!(asked.on, RetryOn::SERVER_ERROR | RetryOn::RESET | RetryOn::CANCELLED);
        assert_eq!((asked.max_retries, asked.per_try_timeout), (Some(4), None));
        assert_eq!(asked.timeout, Some(Duration::from_millis(1500)));
        assert_eq!(asked.status_codes[..], [418, 429]);
        assert_eq!(asked.headers[0], "x-again");
        assert_eq!(head.headers.len(), 1);
    }

    #[test]
    fn a_request_that_asks_for_nothing_is_only_looked_at() {
        let mut head = head(&[("x-envoy-external-address", "10.0.0.1"), ("x-id", "1")]);
        assert_eq!(Asked::take(&mut head, false), None);
        assert_eq!(head.headers.len(), 2);
    }

    #[test]
    fn a_proxy_before_this_one_says_how_long_if_it_is_respected() {
        let names = ["x-envoy-expected-rq-timeout-ms", "x-envoy-upstream-rq-timeout-ms"];
        let both = [(names[0], "100"), (names[1], "200")];
        let timeout = |headers: &[(&str, &str)], expected| {
            let mut head = head(headers);
            let asked = Asked::take(&mut head, expected);
            assert_eq!(head.headers.contains_key(names[0]), headers[0].0 == names[0]);
            asked.and_then(|asked| asked.timeout).map(|timeout| timeout.as_millis())
        };
        assert_eq!(timeout(&both, true), Some(100));
        assert_eq!(timeout(&both, false), Some(200));
        assert_eq!(timeout(&both[1..], true), Some(200));
        assert_eq!(timeout(&both[..1], true), Some(100));
        assert_eq!(timeout(&both[..1], false), None);
        assert_eq!(timeout(&[(names[0], "soon"), (names[1], "200")], true), None);
    }
}
