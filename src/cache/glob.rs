//! Patterns of paths and URLs: `*` stands for any number of any bytes.

use std::fmt;

use crate::config::{Errors, Fault};

/// A pattern of text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Glob {
    /// What stands between the stars; one part if there is none.
    parts: Box<[Box<str>]>,
}

impl Glob {
    /// The pattern that a text is.
    pub fn new(text: &str) -> Self {
        Self { parts: text.split('*').map(Into::into).collect() }
    }

    /// The pattern of paths that a text is.
    ///
    /// # Errors
    /// If no path can be of it.
    pub fn of_paths(text: &str) -> Result<Self, Errors> {
        if !text.starts_with(['/', '*']) {
            let wanted = "a path that begins with /, or a pattern of paths with * in it";
            return Err(Fault::out_of_range(format!("{text:?}"), wanted).into());
        }
        Ok(Self::new(text))
    }

    /// Whether the whole of `text` is of this pattern. Takes time in proportion to the length of `text` times
    /// that of the pattern at the most.
    pub fn matches(&self, text: &str) -> bool {
        let [first, middle @ .., last] = &*self.parts else {
            return self.parts.first().is_some_and(|only| **only == *text);
        };
        let Some(mut rest) = text.strip_prefix(&**first) else { return false };
        for part in middle {
            // The earliest place leaves most to those that follow.
            let Some(at) = rest.find(&**part) else { return false };
            rest = &rest[at + part.len()..];
        }
        rest.ends_with(&**last)
    }

    /// The text, if there is no star in it.
    pub fn exact(&self) -> Option<&str> {
        match &*self.parts {
            [only] => Some(only),
            _ => None,
        }
    }

    /// The beginning that is all it asks for, if its only star is its end.
    pub fn prefix(&self) -> Option<&str> {
        match &*self.parts {
            [prefix, end] if end.is_empty() => Some(prefix),
            _ => None,
        }
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.parts.join("*"))
    }
}

/// Which URLs are meant: of one host or of all, with paths (and queries) of a pattern.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UrlPattern {
    /// In lower case; `None` is any.
    pub host: Option<Box<str>>,
    /// Of path and query.
    pub path: Glob,
}

impl UrlPattern {
    /// Reads `/path*`, `//host/path*` or `scheme://host/path*`; the scheme does not count.
    ///
    /// # Errors
    /// What would be right.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const WANTED: &str = "a path that begins with / or *, or http://host/path";
        let (host, path) = match text.split_once("//") {
            Some((scheme, rest))
                if scheme.is_empty() || scheme.ends_with(':') && !scheme.contains('/') =>
            {
                let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                if host.is_empty() || host.contains('*') {
                    return Err("a host without *, or none");
                }
                (Some(without_own_port(scheme, host)), if path.is_empty() { "/" } else { path })
            }
            _ => (None, text),
        };
        if !path.starts_with(['/', '*']) {
            return Err(WANTED);
        }
        Ok(Self { host, path: Glob::new(path) })
    }

    /// Whether a URL is meant.
    pub fn matches(&self, host: &str, path: &str) -> bool {
        self.host.as_ref().is_none_or(|wanted| **wanted == *host) && self.path.matches(path)
    }
}

/// A host as keys have it.
fn without_own_port(scheme: &str, host: &str) -> Box<str> {
    let own_port = if scheme.eq_ignore_ascii_case("https:") { ":443" } else { ":80" };
    host.strip_suffix(own_port).unwrap_or(host).to_ascii_lowercase().into()
}

impl fmt::Display for UrlPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(host) = &self.host {
            write!(f, "//{host}")?;
        }
        self.path.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, yes, no) in [
            ("/a", &["/a"][..], &["/a/", "/", ""][..]),
            ("/a/*", &["/a/", "/a/b/c"], &["/a", "/ab/"]),
            ("*.png", &["/x.png", ".png"], &["/x.png?1", "png"]),
            ("/a*b*c", &["/abc", "/axbxbxc", "/abcc"], &["/acb", "/ab", "/bc"]),
            ("*", &["", "/x"], &[]),
            ("/a*a", &["/aa"], &["/a"]),
        ] {
            let glob = Glob::new(pattern);
            assert_eq!(glob.to_string(), pattern);
            for text in yes {
                assert!(glob.matches(text), "{pattern} {text}");
            }
            for text in no {
                assert!(!glob.matches(text), "{pattern} {text}");
            }
        }
        assert_eq!(Glob::new("/a/*").prefix(), Some("/a/"));
        assert_eq!(Glob::new("/a*b").prefix(), None);
        assert_eq!(Glob::new("/a").exact(), Some("/a"));
    }

    #[test]
    fn urls_are_of_one_host_or_of_all() {
        let url = |text| UrlPattern::parse(text);
        let all = url("/a/*").unwrap();
        assert!(all.matches("x", "/a/b") && !all.matches("x", "/b"));
        let one = url("https://X.test:8080/a//b").unwrap();
        assert!(one.matches("x.test:8080", "/a//b") && !one.matches("y", "/a//b"));
        assert!(url("http://X:80/").unwrap().matches("x", "/"));
        assert!(url("https://x:443/").unwrap().matches("x", "/"));
        assert_eq!(url("//x").unwrap().path.exact(), Some("/"));
        assert!(url("*.png").unwrap().matches("x", "/a.png"));
        for bad in ["", "a/b", "http://*.test/", "http:///x"] {
            assert!(url(bad).is_err(), "{bad}");
        }
    }
}
