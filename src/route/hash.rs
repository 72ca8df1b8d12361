//! The hash of a request, by which consistent balancers choose: `RouteAction.hash_policy`.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue};
use xxhash_rust::xxh64::xxh64;

use crate::config::matcher::RegexSubstitution;
use crate::exchange::RequestHead;
use crate::exchange::headers::cookie;

/// What of a request its host is chosen by; the parts that are there make the hash together.
#[derive(Debug)]
pub struct HashPolicies(pub(super) Box<[HashPolicy]>);

/// One part.
#[derive(Debug)]
pub(super) struct HashPolicy {
    pub(super) source: HashSource,
    /// If there is a hash with this part, the rest does not count.
    pub(super) terminal: bool,
}

#[derive(Debug)]
pub(super) enum HashSource {
    /// Each value is changed first, if that is wanted.
    Header(HeaderName, Option<Box<RegexSubstitution>>),
    Cookie(Box<HashCookie>),
    /// The address of the client's connection.
    SourceIp,
    /// The first value of a query parameter, as it stands.
    QueryParameter(Box<str>),
}

#[derive(Debug)]
pub(super) struct HashCookie {
    pub(super) name: Box<str>,
    /// Makes one for clients without: what follows its value in `Set-Cookie`.
    pub(super) attributes: Option<Box<str>>,
}

/// The hash of a request.
#[derive(Debug, Default)]
pub struct Hashed {
    /// `None` if nothing of what it is made of is there.
    pub hash: Option<u64>,
    /// `Set-Cookie` values for the response, so that the client's next request has the same hash.
    pub set_cookies: Vec<HeaderValue>,
}

impl HashPolicies {
    /// The hash of a request from the IP address `source`. `random` makes the value of a cookie.
    pub fn hash(
        &self,
        head: &RequestHead,
        source: &HeaderValue,
        mut random: impl FnMut() -> u64,
    ) -> Hashed {
        let mut hashed = Hashed::default();
        for HashPolicy { source: part, terminal } in &self.0 {
            let part = match part {
                HashSource::Header(name, rewrite) => {
                    header(&head.headers, name, rewrite.as_deref())
                }
                HashSource::SourceIp => Some(xxh64(source.as_bytes(), 0)),
                HashSource::QueryParameter(name) => parameter(head.uri.query(), name),
                HashSource::Cookie(wanted) => match cookie(&head.headers, &wanted.name) {
                    Some(value) => Some(xxh64(value, 0)),
                    None => wanted.attributes.as_ref().map(|attributes| {
                        let value = format!("{:016x}", random());
                        let text = format!("{}=\"{value}\"{attributes}", wanted.name);
                        hashed.set_cookies.extend(HeaderValue::try_from(text));
                        xxh64(value.as_bytes(), 0)
                    }),
                },
            };
            if let Some(part) = part {
                hashed.hash = Some(match hashed.hash {
                    Some(before) => before.rotate_left(1) ^ part,
                    None => part,
                });
            }
            if *terminal && hashed.hash.is_some() {
                break;
            }
        }
        hashed
    }
}

/// The values of a header, whatever their order.
fn header<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
    rewrite: Option<&RegexSubstitution>,
) -> Option<u64> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    if values.next().is_none() && rewrite.is_none() {
        return Some(xxh64(first.as_bytes(), 0));
    }
    let changed = |value: &'h HeaderValue| match rewrite {
        None => Cow::Borrowed(value.as_bytes()),
        Some(rewrite) => rewrite.apply(value.as_bytes()),
    };
    let mut all: Vec<_> = headers.get_all(name).iter().map(changed).collect();
    all.sort_unstable();
    Some(all.into_iter().fold(0, |seed, value| xxh64(&value, seed)))
}

fn parameter(query: Option<&str>, name: &str) -> Option<u64> {
    let mut pairs = query?.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.find(|(found, _)| *found == name).map(|(_, value)| xxh64(value.as_bytes(), 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(policies: Vec<HashPolicy>, head: http::request::Builder) -> Hashed {
        let head = head.body(()).unwrap().into_parts().0;
        let source = HeaderValue::from_static("10.0.0.1");
        HashPolicies(policies.into()).hash(&head, &source, || 7)
    }

    fn part(source: HashSource) -> HashPolicy {
        HashPolicy { source, terminal: false }
    }

    fn named(name: &'static str) -> HashPolicy {
        part(HashSource::Header(HeaderName::from_static(name), None))
    }

    fn cookie_part(attributes: Option<&str>) -> HashPolicy {
        let attributes = attributes.map(Into::into);
        part(HashSource::Cookie(Box::new(HashCookie { name: "sid".into(), attributes })))
    }

    #[test]
    fn a_headers_values_may_be_changed_first() {
        use crate::proto::envoy::r#type::matcher::v3::{RegexMatchAndSubstitute, RegexMatcher};
        let pattern = RegexMatcher { regex: "^([^-]*)-.*$".into(), engine_type: None };
        let message =
            RegexMatchAndSubstitute { pattern: Some(pattern), substitution: r"\1".into() };
        let rewrite = Some(Box::new(RegexSubstitution::compile(&message).unwrap()));
        let policy = || part(HashSource::Header(HeaderName::from_static("x"), rewrite.clone()));
        let of = |value: &str| {
            let request = http::Request::get("/").header("x", value);
            hash(vec![policy()], request).hash
        };
        assert_eq!(of("user-1"), of("user-2"));
        assert_eq!(of("user-1"), Some(xxh64(b"user", 0)));
        assert_ne!(of("other-1"), of("user-1"));
    }

    #[test]
    fn each_part_is_what_it_says() {
        let request = || http::Request::get("/p?k=v&k=w").header("x", "v");
        let v = Some(xxh64(b"v", 0));
        assert_eq!(hash(vec![named("x")], request()).hash, v);
        assert_eq!(hash(vec![named("y")], request()).hash, None);
        let parameter = |name: &str| part(HashSource::QueryParameter(name.into()));
        assert_eq!(hash(vec![parameter("k")], request()).hash, v);
        assert_eq!(hash(vec![parameter("l")], request()).hash, None);
        let ip = part(HashSource::SourceIp);
        assert_eq!(hash(vec![ip], request()).hash, Some(xxh64(b"10.0.0.1", 0)));
        let with = |value| request().header("cookie", value);
        for value in ["sid=v", "a=b; sid=\"v\"", "sid2=x;sid = v ;sid=w"] {
            let hashed = hash(vec![cookie_part(Some(""))], with(value));
            assert_eq!((hashed.hash, hashed.set_cookies.len()), (v, 0), "{value}");
        }
        assert_eq!(hash(vec![cookie_part(None)], with("sid2=v")).hash, None);
    }

    #[test]
    fn parts_are_combined_in_order_up_to_a_terminal_one() {
        let request = || http::Request::get("/").header("a", "1").header("b", "2");
        let (one, two) = (xxh64(b"1", 0), xxh64(b"2", 0));
        let both = hash(vec![named("a"), named("missing"), named("b")], request()).hash;
        assert_eq!(both, Some(one.rotate_left(1) ^ two));
        let end = |name| HashPolicy { terminal: true, ..named(name) };
        assert_eq!(hash(vec![end("a"), named("b")], request()).hash, Some(one));
        assert_eq!(hash(vec![end("missing"), named("b")], request()).hash, Some(two));
    }

    #[test]
    fn repeated_headers_count_in_any_order() {
        let request =
            |first, second| http::Request::get("/").header("a", first).header("a", second);
        let hash = |first, second| hash(vec![named("a")], request(first, second)).hash.unwrap();
        assert_eq!(hash("1", "2"), hash("2", "1"));
        assert_ne!(hash("1", "2"), hash("1", "3"));
    }

    #[test]
    fn a_client_without_the_cookie_is_given_one_that_hashes_the_same() {
        let policy = || vec![cookie_part(Some("; Max-Age=60; Path=/p; HttpOnly"))];
        let first = hash(policy(), http::Request::get("/"));
        assert_eq!(first.set_cookies, ["sid=\"0000000000000007\"; Max-Age=60; Path=/p; HttpOnly"]);
        let again = http::Request::get("/").header("cookie", "sid=\"0000000000000007\"");
        let again = hash(policy(), again);
        assert_eq!((again.hash, again.set_cookies.len()), (first.hash, 0));
    }
}
