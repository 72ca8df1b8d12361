//! The request headers that a response depends on (RFC 9111 section 4.1).

use http::header::{ACCEPT_ENCODING, HeaderName, VARY};
use http::{HeaderMap, HeaderValue};

/// The request headers that a response depends on, and what they were.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Variant(Vec<(HeaderName, Value)>);

/// A header's values as one list; `None` if the header is absent, which is not the same as empty.
type Value = Option<Vec<u8>>;

impl Variant {
    /// What of `request` the response depends on.
    pub fn of(response: &HeaderMap, request: &HeaderMap) -> Self {
        let names = vary(response).filter_map(|name| HeaderName::from_bytes(name).ok());
        Self::of_names(names, request)
    }

    /// What of `request` a response depends on that depends on these.
    pub fn of_names(names: impl Iterator<Item = HeaderName>, request: &HeaderMap) -> Self {
        let mut all: Vec<_> = names.map(|name| (name.clone(), normal(request, &name))).collect();
        all.sort_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
        all.dedup();
        Self(all)
    }

    /// Whether a request is like the one that it was made of.
    pub fn matches(&self, request: &HeaderMap) -> bool {
        self.0.iter().all(|(name, value)| normal(request, name) == *value)
    }

    /// The headers and what they were.
    pub fn parts(&self) -> &[(HeaderName, Option<Vec<u8>>)] {
        &self.0
    }

    /// What [`Variant::parts`] were.
    pub fn from_parts(parts: Vec<(HeaderName, Option<Vec<u8>>)>) -> Self {
        Self(parts)
    }

    /// How many bytes it takes.
    pub fn len(&self) -> usize {
        let size = |(name, value): &(HeaderName, Value)| {
            name.as_str().len() + value.as_ref().map_or(0, Vec::len)
        };
        self.0.iter().map(size).sum()
    }

    /// Whether it depends on nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The names in a response's `Vary`, as they stand; `*` is one.
pub fn vary(response: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let lists = response.get_all(VARY).iter().map(HeaderValue::as_bytes);
    let names = lists.flat_map(|list| list.split(|b| *b == b','));
    names.map(<[u8]>::trim_ascii).filter(|name| !name.is_empty())
}

/// A header's values as one list without needless white space; of `Accept-Encoding`, whose order means
/// nothing, sorted as well.
fn normal(headers: &HeaderMap, name: &HeaderName) -> Value {
    if !headers.contains_key(name) {
        return None;
    }
    let values = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let parts = values.flat_map(|value| value.split(|b| *b == b','));
    let parts = parts.map(<[u8]>::trim_ascii).filter(|part| !part.is_empty());
    if *name != ACCEPT_ENCODING {
        return Some(parts.collect::<Vec<_>>().join(&b","[..]));
    }
    let plain = |part: &[u8]| {
        let letters = part.iter().filter(|byte| !byte.is_ascii_whitespace());
        letters.map(u8::to_ascii_lowercase).collect()
    };
    let mut parts: Vec<Vec<u8>> = parts.map(plain).collect();
    parts.sort_unstable();
    parts.dedup();
    Some(parts.join(&b","[..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(of: &[(&'static str, &str)]) -> HeaderMap {
        of.iter().map(|(n, v)| (n.parse::<HeaderName>().unwrap(), v.parse().unwrap())).collect()
    }

    #[test]
    fn lists_that_mean_the_same_are_the_same() {
        let response = headers(&[("vary", "Accept-Language, X-A,"), ("vary", "x-a")]);
        let request = headers(&[("accept-language", "de, en")]);
        let variant = Variant::of(&response, &request);
        assert_eq!(variant.0.len(), 2);
        let alike = headers(&[("accept-language", "de"), ("accept-language", " en,")]);
        assert!(variant.matches(&request) && variant.matches(&alike));
        for other in [
            &[("accept-language", "en, de")][..],
            &[],
            &[("accept-language", "de, en"), ("x-a", "1")],
        ] {
            assert!(!variant.matches(&headers(other)), "{other:?}");
        }
        assert!(Variant::of(&HeaderMap::new(), &request).matches(&HeaderMap::new()));
    }

    #[test]
    fn codings_have_no_order() {
        let response = headers(&[("vary", "accept-encoding")]);
        let variant = Variant::of(&response, &headers(&[("accept-encoding", "gzip, br;q=0.5")]));
        assert!(variant.matches(&headers(&[("accept-encoding", "br; q=0.5,GZIP")])));
        assert!(!variant.matches(&headers(&[("accept-encoding", "br;q=0.5")])));
    }
}
