//! What an operator purges, as text.

use std::sync::Arc;

use thiserror::Error;
use tokio::task::JoinError;

use super::SharedCache;
use crate::cache::{Glob, Scope, UrlPattern};
use crate::filter::kept::Kept;

/// What to purge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// One URL: scheme, host, and path with query. Without a host it is that of all.
    Url {
        /// `http` or `https`.
        scheme: &'static str,
        /// `None` is any.
        host: Option<Box<str>>,
        /// With its query.
        path: Box<str>,
    },
    /// URLs of a pattern.
    Pattern(UrlPattern),
    /// Responses with a tag.
    Tag(Box<str>),
    /// Everything.
    Everything,
}

/// A text that is no target.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field}: {text:?} is not {wanted}")]
pub struct NoTarget {
    field: &'static str,
    text: String,
    wanted: &'static str,
}

/// What came of a purge.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Purged {
    /// Responses that it hit.
    pub hit: u64,
    /// Caches that it was for.
    pub caches: usize,
    /// A shared tier does not know of it yet.
    pub untold: bool,
}

impl Target {
    /// Reads the value of a field `url`, `prefix`, `pattern` or `tag`; `everything` has none.
    ///
    /// # Errors
    /// What would be right.
    pub fn parse(field: &'static str, text: &str) -> Result<Self, NoTarget> {
        let no = |wanted| NoTarget { field, text: text.to_owned(), wanted };
        let pattern = |text: &str| UrlPattern::parse(text).map_err(no);
        match field {
            "url" => {
                // A star in a URL is a star.
                let scheme = if text.starts_with("https:") { "https" } else { "http" };
                let (start, path) = split_path(text)
                    .ok_or_else(|| no("a URL: a path that begins with /, or http://host/path"))?;
                let host = pattern(&format!("{start}/")).map(|pattern| pattern.host)?;
                Ok(Self::Url { scheme, host, path: path.into() })
            }
            "prefix" => match split_path(text) {
                Some((_, path)) if !path.contains('*') => {
                    Ok(Self::Pattern(pattern(&format!("{text}*"))?))
                }
                _ => Err(no("the beginning of a URL without *: /path, or http://host/path")),
            },
            "pattern" => pattern(text).map(Self::Pattern),
            "tag" if !text.is_empty() => Ok(Self::Tag(text.into())),
            "tag" => Err(no("a tag")),
            _ => Ok(Self::Everything),
        }
    }
}

/// What stands before a URL's path, and the path with all behind it.
fn split_path(url: &str) -> Option<(&str, &str)> {
    let start = url.find("//").map_or(0, |at| at + 2);
    if start == 0 && !url.starts_with('/') {
        return None;
    }
    match url[start..].find('/') {
        Some(at) => Some(url.split_at(start + at)),
        None => Some((url, "/")),
    }
}

impl SharedCache {
    /// The scope of a target: a URL is what its key says it is.
    fn scope(&self, target: &Target) -> Scope {
        let key = self.key_policy();
        match target {
            Target::Everything => Scope::Everything,
            Target::Tag(tag) => Scope::Tag(tag.as_bytes().into()),
            Target::Pattern(UrlPattern { host, path }) => {
                let host = host.clone().filter(|_| !key.exclude_host);
                Scope::Pattern(UrlPattern { host, path: Glob::clone(path) })
            }
            Target::Url { scheme, host, path } => {
                let by = (*scheme, host.as_deref().unwrap_or_default());
                let key = key.key_of_url(by, path);
                let (known, path) = key.place();
                Scope::Url(host.is_some().then(|| known.into()), path.into())
            }
        }
    }
}

/// Purges a target from all caches, or those of one stat prefix. What it hits is not given out any more.
///
/// # Errors
/// The process is ending, or a purge broke off; it may have been done in some of the caches.
pub async fn purge(
    caches: &Kept<SharedCache>,
    stat_prefix: Option<&str>,
    target: &Target,
    soft: bool,
) -> Result<Purged, JoinError> {
    let mut purged = Purged::default();
    let all: Vec<Arc<SharedCache>> = caches
        .all()
        .into_iter()
        .filter(|(place, _)| stat_prefix.is_none_or(|wanted| *place.stat_prefix == *wanted))
        .map(|(_, cache)| cache)
        .collect();
    for cache in all {
        let (hit, told) = cache.purge(&cache.scope(target), soft).await?;
        purged.hit += hit;
        purged.caches += 1;
        purged.untold |= !told;
    }
    Ok(purged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_by_their_fields() {
        let of = |field, text| Target::parse(field, text);
        let url = |scheme, host: Option<&str>, path: &str| Target::Url {
            scheme,
            host: host.map(Into::into),
            path: path.into(),
        };
        assert_eq!(of("url", "/a*?b").unwrap(), url("http", None, "/a*?b"));
        assert_eq!(of("url", "https://X:1/a//b").unwrap(), url("https", Some("x:1"), "/a//b"));
        assert_eq!(of("url", "http://x").unwrap(), url("http", Some("x"), "/"));
        let pattern = |text| Target::Pattern(UrlPattern::parse(text).unwrap());
        assert_eq!(of("prefix", "//x/a").unwrap(), pattern("//x/a*"));
        assert_eq!(of("pattern", "*.png").unwrap(), pattern("*.png"));
        assert_eq!(of("tag", "a b").unwrap(), Target::Tag("a b".into()));
        for (field, text) in [
            ("url", "a"),
            ("url", ""),
            ("url", "http:///a"),
            ("prefix", "/a*"),
            ("prefix", "a"),
            ("pattern", "a"),
            ("tag", ""),
        ] {
            let error = of(field, text).unwrap_err().to_string();
            assert!(error.starts_with(field), "{error}");
        }
    }
}
