//! By what responses are stored and found again.

use std::sync::Arc;

use http::header::{HeaderName, VARY};
use http::{HeaderMap, HeaderValue};

/// A resource: scheme, authority, path and query. The method is GET, whose responses answer HEAD too.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key(Arc<str>);

impl Key {
    /// The key of a request's target. The authority is compared without regard to case, the rest byte by
    /// byte.
    pub fn new(scheme: &str, authority: &str, path_and_query: &str) -> Self {
        let mut text =
            String::with_capacity(scheme.len() + 3 + authority.len() + path_and_query.len());
        text.push_str(scheme);
        text.push_str("://");
        let start = text.len();
        text.push_str(authority);
        text[start..].make_ascii_lowercase();
        text.push_str(path_and_query);
        Self(text.into())
    }

    /// How many bytes it takes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Never: there is a scheme at least.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The request headers that a response depends on, and what they were (RFC 9111 section 4.1).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Variant(Vec<(HeaderName, Vec<u8>)>);

impl Variant {
    /// What of `request` the response depends on.
    pub fn of(response: &HeaderMap, request: &HeaderMap) -> Self {
        let names = vary(response).filter_map(|name| HeaderName::from_bytes(name).ok());
        let mut all: Vec<_> = names.map(|name| (name.clone(), normal(request, &name))).collect();
        all.sort_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
        all.dedup();
        Self(all)
    }

    /// Whether a request is like the one that it was made of.
    pub fn matches(&self, request: &HeaderMap) -> bool {
        self.0.iter().all(|(name, value)| normal(request, name) == *value)
    }

    /// How many bytes it takes.
    pub fn len(&self) -> usize {
        self.0.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
    }

    /// Whether it depends on nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The names in a response's `Vary`, as they stand; `*` is one.
pub fn vary(response: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let lists = response.get_all(VARY).iter().map(HeaderValue::as_bytes);
    lists.flat_map(|list| list.split(|b| *b == b',')).map(<[u8]>::trim_ascii)
}

/// A header's values as one list without needless white space.
fn normal(headers: &HeaderMap, name: &HeaderName) -> Vec<u8> {
    let values = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let parts = values.flat_map(|value| value.split(|b| *b == b','));
    let parts: Vec<&[u8]> = parts.map(<[u8]>::trim_ascii).filter(|p| !p.is_empty()).collect();
    parts.join(&b","[..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(of: &[(&'static str, &str)]) -> HeaderMap {
        of.iter().map(|(n, v)| (n.parse::<HeaderName>().unwrap(), v.parse().unwrap())).collect()
    }

    #[test]
    fn lists_that_mean_the_same_are_the_same() {
        let response = headers(&[("vary", "Accept-Encoding, X-A"), ("vary", "x-a")]);
        let request = headers(&[("accept-encoding", "gzip, br")]);
        let variant = Variant::of(&response, &request);
        assert_eq!(variant.0.len(), 2);
        let alike = headers(&[("accept-encoding", "gzip"), ("accept-encoding", " br,")]);
        assert!(variant.matches(&request) && variant.matches(&alike));
        for other in [
            &[("accept-encoding", "br, gzip")][..],
            &[],
            &[("accept-encoding", "gzip, br"), ("x-a", "1")],
        ] {
            assert!(!variant.matches(&headers(other)), "{other:?}");
        }
        assert!(Variant::of(&HeaderMap::new(), &request).matches(&HeaderMap::new()));
    }

    #[test]
    fn hosts_have_no_case_and_paths_have() {
        assert_eq!(Key::new("http", "A.test", "/x"), Key::new("http", "a.TEST", "/x"));
        assert_ne!(Key::new("http", "a", "/X"), Key::new("http", "a", "/x"));
        assert_ne!(Key::new("http", "a", "/x?1"), Key::new("http", "a", "/x"));
    }
}
