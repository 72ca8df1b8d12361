//! Changing the host and path of a request on its way to the upstream.

use bytes::Bytes;
use http::header::HOST;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderName, HeaderValue, Uri, uri};

use crate::config::Fault;
use crate::exchange::RequestHead;

/// The path as the client sent it, when we send another.
pub const X_ENVOY_ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");

/// A host, perhaps with a port, in the two forms a request needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostValue {
    header: HeaderValue,
    authority: Authority,
}

impl HostValue {
    /// Checks a host.
    ///
    /// # Errors
    /// When it is no host with an optional port.
    pub fn try_new(host: &str) -> Result<Self, Fault> {
        let fault = || Fault::invalid(format!("{host:?}"), "not a host with an optional port");
        let authority = Authority::try_from(host).map_err(|_invalid| fault())?;
        let header = HeaderValue::try_from(host).map_err(|_invalid| fault())?;
        Ok(Self { header, authority })
    }

    /// Makes it the host that the request asks for.
    pub fn apply(&self, head: &mut RequestHead) {
        if head.uri.authority().is_some() {
            let authority = self.authority.clone();
            replace(&mut head.uri, |parts| parts.authority = Some(authority));
        }
        head.headers.insert(HOST, self.header.clone());
    }
}

/// How much of the path a route matched, in bytes from the front.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Matched {
    Prefix(usize),
    Whole,
}

/// Text that takes the place of what a route matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PrefixRewrite {
    pub(super) matched: Matched,
    pub(super) to: Box<str>,
}

impl PrefixRewrite {
    /// The new path and query.
    pub(super) fn path_and_query(&self, uri: &Uri) -> String {
        let kept = match self.matched {
            Matched::Prefix(length) => uri.path().get(length..).unwrap_or(""),
            Matched::Whole => "",
        };
        let query = uri.query();
        let room = self.to.len() + kept.len() + query.map_or(0, |query| query.len() + 1);
        let mut path = String::with_capacity(room);
        path.push_str(&self.to);
        path.push_str(kept);
        if let Some(query) = query {
            path.push('?');
            path.push_str(query);
        }
        path
    }

    /// Rewrites the request's path and keeps the old one in `x-envoy-original-path`.
    ///
    /// # Errors
    /// When the new path is longer than any path can be; the request is as it was.
    pub(super) fn apply(&self, head: &mut RequestHead) -> Result<(), TooLong> {
        let path = Bytes::from(self.path_and_query(&head.uri));
        let path = PathAndQuery::from_maybe_shared(path).map_err(|_long| TooLong)?;
        let original = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
        if let Ok(original) = HeaderValue::from_str(original) {
            head.headers.insert(X_ENVOY_ORIGINAL_PATH, original);
        }
        replace(&mut head.uri, |parts| parts.path_and_query = Some(path));
        Ok(())
    }
}

/// A path that no longer fits a URI after it was rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLong;

/// Changes parts of a URI for others of their kind, which keeps it valid.
fn replace(uri: &mut Uri, change: impl FnOnce(&mut uri::Parts)) {
    let mut parts = uri.clone().into_parts();
    change(&mut parts);
    if let Ok(changed) = Uri::from_parts(parts) {
        *uri = changed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(uri: &str) -> RequestHead {
        http::Request::get(uri).header(HOST, "old.test").body(()).unwrap().into_parts().0
    }

    #[test]
    fn what_was_matched_gives_way_and_the_query_stays() {
        let cases = [
            ("/old/a/b?c=d", Matched::Prefix(5), "/", "/a/b?c=d"),
            ("/old/", Matched::Prefix(5), "/", "/"),
            ("/noslashed", Matched::Prefix(8), "/new", "/newed"),
            ("/exact?q=1", Matched::Whole, "/other", "/other?q=1"),
            ("/sep", Matched::Prefix(4), "/s2", "/s2"),
            ("http://a.test/sep/x?", Matched::Prefix(4), "/s2", "/s2/x?"),
        ];
        for (uri, matched, to, expected) in cases {
            let mut head = head(uri);
            let original = head.uri.path_and_query().unwrap().to_string();
            PrefixRewrite { matched, to: to.into() }.apply(&mut head).unwrap();
            assert_eq!(head.uri.path_and_query().unwrap(), expected, "{uri}");
            assert_eq!(head.headers[X_ENVOY_ORIGINAL_PATH], original);
        }
    }

    #[test]
    fn a_path_that_grows_too_long_is_refused() {
        let mut head = head(&format!("/a{}", "x".repeat(65_000)));
        let rewrite = PrefixRewrite { matched: Matched::Prefix(2), to: "/y".repeat(1000).into() };
        assert_eq!(rewrite.apply(&mut head), Err(TooLong));
        assert!(!head.headers.contains_key(X_ENVOY_ORIGINAL_PATH));
    }

    #[test]
    fn the_host_is_replaced_wherever_it_is() {
        for uri in ["/p?q", "http://old.test:80/p?q"] {
            let mut head = head(uri);
            HostValue::try_new("new.test:81").unwrap().apply(&mut head);
            assert_eq!(head.headers[HOST], "new.test:81");
            assert!(head.uri.authority().is_none_or(|host| host == "new.test:81"));
            assert_eq!(head.uri.path_and_query().unwrap(), "/p?q");
        }
        for host in ["", "a b", "a/b", "\u{e9}"] {
            assert!(HostValue::try_new(host).is_err(), "{host}");
        }
    }
}
