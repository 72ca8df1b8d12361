//! By what responses are stored and found again.

use std::sync::Arc;

use http::header::{COOKIE, HeaderName};
use http::{HeaderMap, Method};
use smallvec::SmallVec;

use super::glob::Glob;

/// A resource, as far as the cache tells resources apart: method, scheme, authority, path and query, and
/// what else a [`KeyPolicy`] wants. Responses to GET answer HEAD too; they have one key.
///
/// It is text: `METHOD scheme://host/path?query`, without the method for GET, and behind a NUL whatever else
/// counts. None of the parts before it can have a NUL in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key(Arc<str>);

/// What of a request its key is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyPolicy {
    /// Query parameters that count; all if there are none.
    pub included: Vec<Glob>,
    /// Query parameters that do not count.
    pub excluded: Vec<Glob>,
    /// The order of query parameters does not count.
    pub sorted: bool,
    /// Request headers whose values count.
    pub headers: Vec<HeaderName>,
    /// Cookies whose values count.
    pub cookies: Vec<String>,
    /// The host does not count.
    pub exclude_host: bool,
}

type Text = SmallVec<[u8; 256]>;

impl KeyPolicy {
    /// The key of a request. The authority is compared without regard to case and without the scheme's own
    /// port, the rest byte by byte.
    pub fn key(
        &self,
        method: &Method,
        (scheme, authority): (&str, &str),
        path_and_query: &str,
        headers: &HeaderMap,
    ) -> Key {
        let mut text = Text::new();
        if !matches!(*method, Method::GET | Method::HEAD) {
            text.extend_from_slice(method.as_str().as_bytes());
            text.push(b' ');
        }
        text.extend_from_slice(scheme.as_bytes());
        text.extend_from_slice(b"://");
        if !self.exclude_host {
            let own_port = if scheme == "https" { ":443" } else { ":80" };
            let authority = authority.strip_suffix(own_port).unwrap_or(authority);
            text.extend(authority.bytes().map(|byte| byte.to_ascii_lowercase()));
        }
        if !path_and_query.starts_with('/') {
            // `*`, the target of OPTIONS for the whole server.
            text.push(b'/');
        }
        self.write_path(&mut text, path_and_query);
        self.write_extras(&mut text, headers);
        // All of it was text, and was cut at ASCII only.
        Key(String::from_utf8_lossy(&text).into())
    }

    /// The key of a GET for a URL, as if nothing else counted.
    pub fn key_of_url(&self, by: (&str, &str), path_and_query: &str) -> Key {
        self.key(&Method::GET, by, path_and_query, &HeaderMap::new())
    }

    /// Whether URLs alone make keys.
    pub fn is_of_url(&self) -> bool {
        self.headers.is_empty() && self.cookies.is_empty()
    }

    fn write_path(&self, text: &mut Text, path_and_query: &str) {
        let is_plain = self.included.is_empty() && self.excluded.is_empty() && !self.sorted;
        let (path, query) = match path_and_query.split_once('?') {
            Some((path, query)) if !is_plain => (path, query),
            _ => return text.extend_from_slice(path_and_query.as_bytes()),
        };
        text.extend_from_slice(path.as_bytes());
        let counts = |parameter: &&str| {
            let name = parameter.split('=').next().unwrap_or_default();
            let is_of = |patterns: &[Glob]| patterns.iter().any(|pattern| pattern.matches(name));
            !parameter.is_empty()
                && (self.included.is_empty() || is_of(&self.included))
                && !is_of(&self.excluded)
        };
        let mut parameters: SmallVec<[&str; 16]> = query.split('&').filter(counts).collect();
        if self.sorted {
            parameters.sort_unstable();
        }
        for (at, parameter) in parameters.iter().enumerate() {
            text.push(if at == 0 { b'?' } else { b'&' });
            text.extend_from_slice(parameter.as_bytes());
        }
    }

    /// Each part begins with a NUL, which no header's value has in it, so that none can look like two.
    fn write_extras(&self, text: &mut Text, headers: &HeaderMap) {
        for name in &self.headers {
            text.push(0);
            for value in headers.get_all(name) {
                write_escaped(text, value.as_bytes());
                text.push(b'\n');
            }
        }
        for wanted in &self.cookies {
            text.push(0);
            for value in headers.get_all(COOKIE) {
                for pair in value.as_bytes().split(|byte| *byte == b';') {
                    let pair = pair.trim_ascii();
                    let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
                    if name == wanted.as_bytes() {
                        write_escaped(text, pair);
                        text.push(b'\n');
                    }
                }
            }
        }
    }
}

/// Header values may have bytes that are not text.
fn write_escaped(text: &mut Text, value: &[u8]) {
    for byte in value {
        match byte {
            b'\\' => text.extend_from_slice(b"\\\\"),
            0x20..=0x7e => text.push(*byte),
            other => text.extend_from_slice(format!("\\{other:02x}").as_bytes()),
        }
    }
}

impl Key {
    /// The key of a GET for a URL, where nothing else counts.
    pub fn new(scheme: &str, authority: &str, path_and_query: &str) -> Self {
        KeyPolicy::default().key_of_url((scheme, authority), path_and_query)
    }

    /// The host, and the path with the query.
    pub fn place(&self) -> (&str, &str) {
        let url = self.0.split('\0').next().unwrap_or_default();
        let after_scheme = url.find("://").map_or(url, |at| &url[at + 3..]);
        after_scheme.split_at(after_scheme.find('/').unwrap_or(after_scheme.len()))
    }

    /// It as text.
    pub fn as_str(&self) -> &str {
        &self.0
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

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(of: &[(&'static str, &str)]) -> HeaderMap {
        of.iter().map(|(n, v)| (n.parse::<HeaderName>().unwrap(), v.parse().unwrap())).collect()
    }

    #[test]
    fn hosts_have_no_case_and_paths_have() {
        assert_eq!(Key::new("http", "A.test", "/x"), Key::new("http", "a.TEST:80", "/x"));
        assert_ne!(Key::new("http", "a", "/X"), Key::new("http", "a", "/x"));
        assert_ne!(Key::new("http", "a", "/x?1"), Key::new("http", "a", "/x"));
        assert_ne!(Key::new("https", "a:80", "/x"), Key::new("https", "a", "/x"));
        assert_eq!(Key::new("http", "A", "/x//y?z=/").place(), ("a", "/x//y?z=/"));
    }

    #[test]
    fn parameters_count_as_the_policy_says() {
        let key = |policy: &KeyPolicy, path: &str| {
            policy.key(&Method::GET, ("http", "t"), path, &HeaderMap::new())
        };
        let policy = KeyPolicy {
            excluded: vec![Glob::new("utm_*"), Glob::new("sid")],
            sorted: true,
            ..KeyPolicy::default()
        };
        let same = key(&policy, "/?a=1&b=2");
        for path in ["/?b=2&a=1", "/?utm_x=1&a=1&sid&b=2", "/?a=1&&b=2&sid=3"] {
            assert_eq!(key(&policy, path), same, "{path}");
        }
        assert_ne!(key(&policy, "/?a=1&b=2&side=1"), same);
        assert_eq!(key(&policy, "/?sid=1"), key(&policy, "/"));
        let only = KeyPolicy { included: vec![Glob::new("id")], ..KeyPolicy::default() };
        assert_eq!(key(&only, "/?x=1&id=2"), key(&only, "/?id=2&y=3"));
        assert_ne!(key(&only, "/?id=2"), key(&only, "/?id=3"));
        let hostless = KeyPolicy { exclude_host: true, ..KeyPolicy::default() };
        assert_eq!(key(&hostless, "/x").place(), ("", "/x"));
    }

    #[test]
    fn what_counts_beside_the_url_cannot_be_forged() {
        let policy = KeyPolicy {
            headers: vec![HeaderName::from_static("x-a"), HeaderName::from_static("x-b")],
            cookies: vec!["plan".into()],
            ..KeyPolicy::default()
        };
        let key = |of: &[(&'static str, &str)]| {
            policy.key(&Method::GET, ("http", "t"), "/", &headers(of))
        };
        assert_ne!(key(&[("x-a", "1")]), key(&[("x-b", "1")]));
        assert_ne!(key(&[("x-a", "1\\0a2")]), key(&[("x-a", "1"), ("x-a", "2")]));
        assert_ne!(key(&[("cookie", "plan=a; x=1")]), key(&[("cookie", "plan=b")]));
        assert_eq!(key(&[("cookie", "plan=a; x=1")]), key(&[("cookie", "y=2;plan=a")]));
        assert_eq!(key(&[("x-a", "1")]).place(), ("t", "/"));
        assert_ne!(
            policy.key(&Method::OPTIONS, ("http", "t"), "*", &HeaderMap::new()),
            policy.key(&Method::GET, ("http", "t"), "/*", &HeaderMap::new())
        );
    }
}
