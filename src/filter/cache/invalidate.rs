//! Traffic that makes stored responses forgotten: unsafe methods (RFC 9111 section 4.4), and what the
//! configuration adds to them.

use http::header::{CONTENT_LOCATION, LOCATION};
use http::{HeaderName, Method, StatusCode, Uri};

use super::answer::say;
use super::{Caching, host, scheme};
use crate::cache::{Glob, Key, Scope, UrlPattern};
use crate::config::address_range::AddressRange;
use crate::config::matcher::header_name;
use crate::config::{Errors, Fault};
use crate::exchange::{HttpService, LocalReply, Request, Response, StreamReset};
use crate::proto::nuncio::extensions::filters::http::cache::v1::cache as proto;

/// What is forgotten beside what RFC 9111 says.
#[derive(Debug, Clone)]
pub(super) struct Invalidation {
    patterns: Vec<Glob>,
    methods: Vec<Method>,
    headers: Vec<HeaderName>,
    trusted: Vec<AddressRange>,
    all: bool,
    purge: bool,
}

impl Invalidation {
    pub(super) fn compile(message: proto::Invalidation) -> Result<Self, Errors> {
        let proto::Invalidation {
            patterns,
            methods,
            headers,
            trusted_addresses,
            invalidate_all,
            allow_purge,
        } = message;
        let mut errors = Errors::new();
        let (no_patterns, no_methods) = (patterns.is_empty(), methods.is_empty());
        let compiled = Self {
            patterns: errors.each("patterns", &patterns, |p| Glob::of_paths(p)),
            methods: errors.each("methods", &methods, |m| method(m)),
            headers: errors.each("headers", &headers, |name| header_name(name)),
            trusted: errors.each("trusted_addresses", &trusted_addresses, AddressRange::compile),
            all: invalidate_all,
            purge: allow_purge,
        };
        if no_methods && !no_patterns {
            errors.push("methods", Fault::Conflict("without them patterns do nothing".into()));
        }
        if no_patterns && !no_methods && !invalidate_all {
            errors.push("patterns", Fault::Conflict("without them methods do nothing".into()));
        }
        if trusted_addresses.is_empty() && (allow_purge || !headers.is_empty()) {
            let reason = "without it nobody is heard who sends headers or PURGE";
            errors.push("trusted_addresses", Fault::Conflict(reason.into()));
        }
        errors.finish()?;
        Ok(compiled)
    }

    /// Does what a request from a trusted client says, before it goes on; or it is answered here.
    pub(super) fn heed(&self, caching: &Caching, request: &mut Request) -> Option<LocalReply> {
        let peer = request.stream.downstream.remote.ip();
        let is_trusted = self.trusted.iter().any(|range| range.holds(peer));
        if self.purge && request.head.method == "PURGE" {
            return Some(self.purge(caching, request, is_trusted));
        }
        for name in &self.headers {
            if !request.head.headers.contains_key(name) {
                continue;
            }
            let values: Vec<_> = request.head.headers.get_all(name).iter().cloned().collect();
            request.head.headers.remove(name);
            for value in values.iter().filter(|_| is_trusted) {
                let Some(scope) = value.to_str().ok().and_then(scope) else {
                    let wanted = "a path, a pattern of paths, or tag:NAME";
                    let text = format!("{name} names nothing to forget; it takes {wanted}\n");
                    let status = StatusCode::BAD_REQUEST;
                    return Some(LocalReply::new(status, "cache_invalidation_malformed", text));
                };
                caching.purge(self.all_or(&scope));
            }
        }
        None
    }

    fn purge(&self, caching: &Caching, request: &Request, is_trusted: bool) -> LocalReply {
        if !is_trusted {
            let text = "PURGE is not for you\n";
            return LocalReply::new(StatusCode::FORBIDDEN, "cache_purge_forbidden", text);
        }
        let scope = caching.scope_of_target(request);
        // A URL, and everything, are counted.
        let hit = caching.purge(self.all_or(&scope)).unwrap_or_default();
        LocalReply::new(StatusCode::OK, "cache_purged", format!("{{\"purged\": {hit}}}\n"))
    }

    fn all_or<'a>(&self, scope: &'a Scope) -> &'a Scope {
        if self.all { &Scope::Everything } else { scope }
    }

    /// A request with this method succeeded.
    fn follow(&self, caching: &Caching, method: &Method, path: &str) {
        if !self.methods.contains(method) {
            return;
        }
        if self.all && self.patterns.is_empty() {
            caching.purge(&Scope::Everything);
        }
        for pattern in self.patterns.iter().filter(|pattern| pattern.matches(path)) {
            let scope = Scope::Pattern(UrlPattern { host: None, path: pattern.clone() });
            caching.purge(self.all_or(&scope));
        }
    }
}

/// `tag:NAME`, or what [`UrlPattern::parse`] reads.
fn scope(text: &str) -> Option<Scope> {
    match text.strip_prefix("tag:") {
        Some("") => None,
        Some(tag) => Some(Scope::Tag(tag.as_bytes().into())),
        None => UrlPattern::parse(text).ok().map(Scope::Pattern),
    }
}

fn method(method: &str) -> Result<Method, Errors> {
    match Method::from_bytes(method.as_bytes()) {
        Ok(method) if !method.is_safe() => Ok(method),
        _ => {
            let wanted = "a method that changes something, such as POST";
            Err(Fault::out_of_range(format!("{method:?}"), wanted).into())
        }
    }
}

impl Caching {
    /// A request that may change its target: if it succeeds, what is stored of it, and of what its
    /// response names on the same host, is forgotten (RFC 9111 section 4.4).
    pub(super) async fn pass_unsafe(
        &self,
        request: Request,
        next: &HttpService,
    ) -> Result<Response, StreamReset> {
        self.store.stats.bypass.inc();
        let target = request.head.uri.clone();
        let method = request.head.method.clone();
        let (scheme, host) = (scheme(&request.head), host(&request.head).to_owned());
        let mut response = next.send(request).await?;
        let status = response.head.status;
        if status.is_success() || status.is_redirection() {
            let path = target.path_and_query().map_or("/", |path| path.as_str());
            self.forget_url(scheme, &host, path);
            for name in [LOCATION, CONTENT_LOCATION] {
                let named = response.head.headers.get(&name).and_then(|value| value.to_str().ok());
                if let Some(path) = named.and_then(|named| on_same_host(named, &host, &target)) {
                    self.forget_url(scheme, &host, &path);
                }
            }
            if let Some(invalidation) = &self.rules.invalidation {
                invalidation.follow(self, &method, path);
            }
        }
        say(&mut response.head, format_args!("fwd=method; fwd-status={}", status.as_u16()));
        Ok(response)
    }

    fn forget_url(&self, scheme: &str, host: &str, path: &str) {
        let key = self.rules.key.key_of_url((scheme, host), path);
        if self.rules.key.is_of_url() && !self.rules.has_method(&Method::OPTIONS) {
            self.forget(&key);
            return;
        }
        // There may be many keys of this URL.
        self.purge(&Scope::url_of(&key));
    }

    /// Forgets a key, here and in the fleet.
    pub(super) fn forget(&self, key: &Key) {
        self.store.remove(key);
        if let Some(tier) = &self.tier {
            tier.forget(key);
        }
    }

    /// Forgets what is of a scope, here and in the fleet; how many responses that were here, if it is known.
    fn purge(&self, scope: &Scope) -> Option<u64> {
        let hit = self.store.purge_uncounted(scope, false);
        if let Some(tier) = &self.tier {
            tier.purge_behind(scope, false);
        }
        hit
    }

    fn scope_of_target(&self, request: &Request) -> Scope {
        let head = &request.head;
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        Scope::url_of(&self.rules.key.key_of_url((scheme(head), host(head)), path))
    }
}

/// The path and query of a reference, if it is one of this host (RFC 3986 section 5.2).
fn on_same_host(reference: &str, host: &str, target: &Uri) -> Option<String> {
    let reference = reference.split('#').next().unwrap_or_default();
    let absolute = match reference.strip_prefix("//") {
        Some(_) => format!("http:{reference}"),
        None => reference.to_owned(),
    };
    if absolute.contains("://") {
        let uri: Uri = absolute.parse().ok()?;
        let is_ours = uri.authority()?.as_str().eq_ignore_ascii_case(host);
        return is_ours.then(|| uri.path_and_query().map_or("/", |path| path.as_str()).to_owned());
    }
    let (path, query) = reference.split_at(reference.find('?').unwrap_or(reference.len()));
    let path = match path {
        "" => target.path().to_owned(),
        path if path.starts_with('/') => path.to_owned(),
        // Relative to the target's directory.
        path => {
            let directory = target.path().rsplit_once('/').map_or("", |(directory, _)| directory);
            format!("{directory}/{path}")
        }
    };
    Some(format!("{}{query}", without_dots(&path)))
}

/// RFC 3986 section 5.2.4.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if is_last {
                    kept.push("");
                }
            }
            other => kept.push(other),
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_of_this_host_or_of_none() {
        let target: Uri = "/d/x".parse().unwrap();
        let on = |reference: &str| on_same_host(reference, "a.test", &target);
        for (reference, path) in [
            ("/y#part", "/y"),
            ("http://A.test/y?q", "/y?q"),
            ("y", "/d/y"),
            ("../y?q=..", "/y?q=.."),
            ("./", "/d/"),
            ("?q", "/d/x?q"),
            ("//a.test/y", "/y"),
            ("https://a.test", "/"),
        ] {
            assert_eq!(on(reference).as_deref(), Some(path), "{reference}");
        }
        for other in ["http://b.test/y", "http://a.test:81/y", "http://["] {
            assert_eq!(on(other), None, "{other}");
        }
    }

    #[test]
    fn a_header_names_what_to_forget() {
        assert!(matches!(scope("tag:a"), Some(Scope::Tag(tag)) if *tag == *b"a"));
        assert!(matches!(scope("/a/*"), Some(Scope::Pattern(_))));
        assert!(scope("tag:").is_none() && scope("true").is_none() && scope("").is_none());
    }
}
