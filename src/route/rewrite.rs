//! Changing the path of a request on its way to the upstream, or to where its client is sent.

use std::sync::Arc;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Uri, uri};

use super::template::{Template, TemplateRewrite};
use crate::config::matcher::RegexSubstitution;
use crate::exchange::RequestHead;

/// The path as the client sent it, when we send another.
pub const X_ENVOY_ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");

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

/// How a path becomes another. The query stays.
#[derive(Debug, Clone)]
pub(super) enum PathRewrite {
    Prefix(PrefixRewrite),
    /// Every match of an expression is replaced.
    Regex(Box<RegexSubstitution>),
    /// Of the template that the route matches.
    Template(Arc<Template>, Arc<TemplateRewrite>),
}

impl PrefixRewrite {
    fn path(&self, path: &str) -> String {
        let kept = match self.matched {
            Matched::Prefix(length) => path.get(length..).unwrap_or(""),
            Matched::Whole => "",
        };
        [&self.to, kept].concat()
    }
}

impl PathRewrite {
    /// The new path and query, which an expression can make into something that is no path.
    pub(super) fn path_and_query(&self, uri: &Uri) -> Vec<u8> {
        let mut path = match self {
            Self::Prefix(rewrite) => rewrite.path(uri.path()).into_bytes(),
            Self::Regex(substitution) => substitution.apply(uri.path().as_bytes()).into_owned(),
            // A filter may have changed the path since the route was found.
            Self::Template(template, rewrite) => rewrite
                .apply(template, uri.path())
                .unwrap_or_else(|| uri.path().to_owned())
                .into_bytes(),
        };
        if let Some(query) = uri.query() {
            path.push(b'?');
            path.extend_from_slice(query.as_bytes());
        }
        path
    }

    /// Rewrites the request's path, and keeps the old one in `x-envoy-original-path` if that is
    /// wanted.
    ///
    /// # Errors
    /// When the new path is longer than any path can be, or is none; the request is as it was.
    pub(super) fn apply(&self, head: &mut RequestHead, keep_original: bool) -> Result<(), Unfit> {
        let path = self.path_and_query(&head.uri);
        if path.first() != Some(&b'/') {
            return Err(Unfit);
        }
        let path = PathAndQuery::from_maybe_shared(Bytes::from(path)).map_err(|_invalid| Unfit)?;
        let original = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
        if keep_original && let Ok(original) = HeaderValue::from_str(original) {
            head.headers.insert(X_ENVOY_ORIGINAL_PATH, original);
        }
        replace(&mut head.uri, |parts| parts.path_and_query = Some(path));
        Ok(())
    }
}

/// What is no path of a URI any more after it was rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unfit;

/// Changes parts of a URI for others of their kind, which keeps it valid.
pub(super) fn replace(uri: &mut Uri, change: impl FnOnce(&mut uri::Parts)) {
    let mut parts = uri.clone().into_parts();
    change(&mut parts);
    if let Ok(changed) = Uri::from_parts(parts) {
        *uri = changed;
    }
}

#[cfg(test)]
mod tests {
    use http::header::HOST;

    use super::*;
    use crate::proto::envoy::r#type::matcher::v3 as matcher;

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
            let rewrite = PathRewrite::Prefix(PrefixRewrite { matched, to: to.into() });
            rewrite.apply(&mut head, true).unwrap();
            assert_eq!(head.uri.path_and_query().unwrap(), expected, "{uri}");
            assert_eq!(head.headers[X_ENVOY_ORIGINAL_PATH], original);
        }
    }

    #[test]
    fn a_path_that_grows_too_long_is_refused() {
        let mut head = head(&format!("/a{}", "x".repeat(65_000)));
        let rewrite = PrefixRewrite { matched: Matched::Prefix(2), to: "/y".repeat(1000).into() };
        assert_eq!(PathRewrite::Prefix(rewrite).apply(&mut head, true), Err(Unfit));
        assert!(!head.headers.contains_key(X_ENVOY_ORIGINAL_PATH));
    }

    #[test]
    fn expressions_rewrite_the_path_and_not_the_query() {
        let substitution = |regex: &str, substitution: &str| {
            let pattern = matcher::RegexMatcher { regex: regex.into(), engine_type: None };
            let message = matcher::RegexMatchAndSubstitute {
                pattern: Some(pattern),
                substitution: substitution.into(),
            };
            PathRewrite::Regex(Box::new(RegexSubstitution::compile(&message).unwrap()))
        };
        let rewrite = substitution("^/service/([^/]+)(/.*)$", r"\2/instance/\1");
        let mut request = head("/service/foo/v1/api?service=x");
        rewrite.apply(&mut request, false).unwrap();
        assert_eq!(request.uri, "/v1/api/instance/foo?service=x");
        assert!(!request.headers.contains_key(X_ENVOY_ORIGINAL_PATH));
        for (regex, to) in [("^/", ""), ("^.*$", "/a b"), ("^.*$", "")] {
            let mut request = head("/p?q");
            assert_eq!(substitution(regex, to).apply(&mut request, true), Err(Unfit), "{to}");
            assert_eq!(request.uri, "/p?q");
        }
    }
}
