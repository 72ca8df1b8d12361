//! Following an upstream's redirect in place of the client: the request goes through the whole chain
//! again, as one for where the redirect leads.
//!
//! Only a request that is here whole, and whose body was kept, can be sent again. Whatever stands in
//! the way is counted, and the client gets the redirect.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, LOCATION};
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, StatusCode, Uri};
use tokio::time::Instant;

use super::replay::Replay;
use crate::exchange::headers::X_FORWARDED_PROTO;
use crate::exchange::stream_info::Redirects;
use crate::exchange::{Body, RequestHead, ResponseHead, StreamInfo, StreamReset};
use crate::route::{InternalRedirectPolicy, RedirectStep, Route, RouteTable};

const X_ENVOY_ORIGINAL_URL: HeaderName = HeaderName::from_static("x-envoy-original-url");

crate::stats! {
    /// Redirects that were passed on, in `http.STAT_PREFIX.`
    pub(super) struct RedirectStats {
        /// The `Location` was not an absolute URL.
        counter passthrough_internal_redirect_bad_location,
        /// The scheme would have changed.
        counter passthrough_internal_redirect_unsafe_scheme,
        /// The request had taken as many as it may.
        counter passthrough_internal_redirect_too_many_redirects,
        /// There is no route to where it leads.
        counter passthrough_internal_redirect_no_route,
        /// A predicate did not take it.
        counter passthrough_internal_redirect_predicate,
    }
}

/// A request as its upstream got it.
pub(super) struct Asked<'a> {
    pub(super) route: &'a Route,
    pub(super) head: RequestHead,
    pub(super) replay: &'a Replay,
}

/// Where a redirect leads.
struct Target {
    head: RequestHead,
    route: Arc<Route>,
    https: bool,
    keeps_body: bool,
}

/// Sends the request on its way again, if it may be; `Err` gives back what an answer needs.
pub(super) fn follow(
    policy: &InternalRedirectPolicy,
    asked: Asked<'_>,
    answer: &ResponseHead,
    mut stream: Box<StreamInfo>,
    stats: &RedirectStats,
) -> Result<StreamReset, Box<StreamInfo>> {
    let Asked { route, head, replay } = asked;
    // A redirect without a place is none.
    if !answer.headers.contains_key(LOCATION)
        || !stream.request_complete()
        || !replay.can_be_sent_again()
    {
        return Err(stream);
    }
    let Some(target) = target(policy, (route, head), answer, &stream, stats) else {
        return Err(stream);
    };
    let Target { head, route: next, https, keeps_body } = target;
    let body = match keeps_body {
        false => Body::Empty,
        true => match replay.next() {
            Some(body) => body,
            None => return Err(stream),
        },
    };
    let redirects = stream.redirects.get_or_insert_default();
    redirects.count += 1;
    redirects.taken.push((name(route), name(&next)));
    redirects.https = https;
    redirects.since = Some(Instant::now());
    stream.route_name = next.name().cloned();
    stream.route = Some(next as _);
    Ok(StreamReset::again(head, body, stream))
}

fn name(route: &Route) -> Arc<str> {
    route.name().cloned().unwrap_or_default()
}

fn target(
    policy: &InternalRedirectPolicy,
    (route, mut head): (&Route, RequestHead),
    answer: &ResponseHead,
    stream: &StreamInfo,
    stats: &RedirectStats,
) -> Option<Target> {
    let Some((goes_on, host, path)) = answer.headers.get(LOCATION).and_then(place) else {
        stats.passthrough_internal_redirect_bad_location.inc();
        return None;
    };
    let none = Redirects::default();
    let before = stream.redirects.as_deref().unwrap_or(&none);
    let came = match before.count {
        0 => head.headers.get(X_FORWARDED_PROTO).is_some_and(|scheme| scheme == "https"),
        _ => before.https,
    };
    if came != goes_on && !policy.allows_cross_scheme() {
        stats.passthrough_internal_redirect_unsafe_scheme.inc();
        return None;
    }
    if before.count >= policy.most() {
        stats.passthrough_internal_redirect_too_many_redirects.inc();
        return None;
    }
    let url = url(came, &head);
    for name in policy.copied_headers() {
        head.headers.remove(name);
        for value in answer.headers.get_all(name) {
            head.headers.append(name, value.clone());
        }
    }
    head.headers.insert(HOST, host);
    head.uri = Uri::from(path);
    let table = stream.route_table.as_ref().and_then(|t| t.downcast_ref::<RouteTable>());
    let Some(next) = table.and_then(|table| table.find(&head, rand::random)) else {
        stats.passthrough_internal_redirect_no_route.inc();
        return None;
    };
    let (from, to) = (name(route), name(&next));
    let step = RedirectStep { from: &from, to: &to, https: (came, goes_on) };
    if !policy.accepts(step, &before.taken) {
        stats.passthrough_internal_redirect_predicate.inc();
        return None;
    }
    // RFC 9110 section 15.4.4.
    let keeps_body =
        answer.status != StatusCode::SEE_OTHER || matches!(head.method, Method::GET | Method::HEAD);
    if !keeps_body {
        head.method = Method::GET;
        head.headers.remove(CONTENT_LENGTH);
    }
    if let Some(url) = url {
        head.headers.insert(X_ENVOY_ORIGINAL_URL, url);
    }
    Some(Target { head, route: next, https: goes_on, keeps_body })
}

/// What an absolute `http` or `https` URL says: whether it is the latter, host, path and query. The
/// fragment is for browsers.
fn place(location: &HeaderValue) -> Option<(bool, HeaderValue, PathAndQuery)> {
    let parts = Uri::try_from(location.as_bytes()).ok()?.into_parts();
    let https = match parts.scheme?.as_str() {
        "http" => false,
        "https" => true,
        _ => return None,
    };
    let authority = parts.authority.filter(|authority| !authority.as_str().contains('@'))?;
    let host = HeaderValue::from_str(authority.as_str()).ok()?;
    let path = match parts.path_and_query {
        Some(path) if path.as_str().starts_with('/') => path,
        // As text it has the slash that it lacks.
        Some(query) => PathAndQuery::try_from(query.to_string()).ok()?,
        None => PathAndQuery::from_static("/"),
    };
    Some((https, host, path))
}

/// What was asked for.
fn url(https: bool, head: &RequestHead) -> Option<HeaderValue> {
    let scheme = if https { "https://" } else { "http://" };
    let host = head.headers.get(HOST).map_or(&b""[..], HeaderValue::as_bytes);
    let path = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let url = [scheme.as_bytes(), host, path.as_bytes()].concat();
    HeaderValue::from_maybe_shared(Bytes::from(url)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_absolute_urls_are_places() {
        let cases = [
            ("http://a.test/p?q", Some((false, "a.test", "/p?q"))),
            ("https://a.test:81/p#part", Some((true, "a.test:81", "/p"))),
            ("http://a.test", Some((false, "a.test", "/"))),
            ("http://a.test?q", Some((false, "a.test", "/?q"))),
            ("/p", None),
            ("a.test", None),
            ("//a.test/p", None),
            ("ftp://a.test/p", None),
            ("http://user@a.test/p", None),
            ("http:///p", None),
            ("", None),
        ];
        for (location, expected) in cases {
            let found = place(&HeaderValue::from_static(location));
            let found = found
                .as_ref()
                .map(|(https, host, path)| (*https, host.to_str().unwrap(), path.as_str()));
            assert_eq!(found, expected, "{location}");
        }
    }
}
