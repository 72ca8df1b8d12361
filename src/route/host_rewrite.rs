//! Changing the host that a request asks for, on its way to the upstream.

use http::header::HOST;
use http::uri::Authority;
use http::{HeaderName, HeaderValue};

use super::rewrite::replace;
use crate::config::Fault;
use crate::config::matcher::{HeaderField, RegexSubstitution};
use crate::exchange::RequestHead;

const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_ENVOY_ORIGINAL_HOST: HeaderName = HeaderName::from_static("x-envoy-original-host");

/// A host, perhaps with a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostValue {
    header: HeaderValue,
}

impl HostValue {
    /// Checks a host.
    ///
    /// # Errors
    /// When it is no host with an optional port.
    pub fn try_new(host: &str) -> Result<Self, Fault> {
        let fault = || Fault::invalid(format!("{host:?}"), "not a host with an optional port");
        Authority::try_from(host).map_err(|_invalid| fault())?;
        let header = HeaderValue::try_from(host).map_err(|_invalid| fault())?;
        Ok(Self { header })
    }

    /// The host as the value of `Host`.
    pub fn header(&self) -> &HeaderValue {
        &self.header
    }
}

/// Which host the upstream is asked for.
#[derive(Debug, Clone)]
pub(super) enum HostRewrite {
    /// That of the request.
    Keep,
    Literal(Box<HostValue>),
    /// The chosen host's own name.
    Auto,
    /// What the request says in a header, if it has it.
    Header(Box<HeaderField>),
    /// What becomes of the request's path.
    Path(Box<RegexSubstitution>),
}

/// What is kept of the host that is replaced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeptHost {
    /// It is appended to `x-forwarded-host`.
    pub forwarded: bool,
    /// It is told in `x-envoy-original-host`.
    pub original: bool,
}

impl HostRewrite {
    /// The new host, if it is known before an upstream's host is chosen.
    pub(super) fn host(&self, head: &RequestHead) -> Option<HeaderValue> {
        let host = match self {
            Self::Keep | Self::Auto => None,
            Self::Literal(host) => Some(host.header.clone()),
            // The client may have sent several; the first counts.
            Self::Header(field) => HeaderValue::from_bytes(field.first(head)?).ok(),
            Self::Path(substitution) => {
                HeaderValue::from_bytes(&substitution.apply(head.uri.path().as_bytes())).ok()
            }
        };
        host.filter(|host| !host.is_empty())
    }
}

/// Makes `host` the host that the request asks for.
pub fn replace_host(head: &mut RequestHead, host: HeaderValue, kept: KeptHost) {
    if head.uri.authority().is_some()
        && let Ok(authority) = Authority::try_from(host.as_bytes())
    {
        replace(&mut head.uri, |parts| parts.authority = Some(authority));
    }
    let Some(old) = head.headers.insert(HOST, host).filter(|old| !old.is_empty()) else { return };
    if kept.forwarded {
        append_forwarded_host(head, &old);
    }
    if kept.original {
        head.headers.insert(X_ENVOY_ORIGINAL_HOST, old);
    }
}

/// A host that is the last one already is not appended again.
fn append_forwarded_host(head: &mut RequestHead, host: &HeaderValue) {
    let Some(before) = head.headers.get(X_FORWARDED_HOST) else {
        head.headers.insert(X_FORWARDED_HOST, host.clone());
        return;
    };
    let last = before.as_bytes().rsplit(|byte| *byte == b',').next().unwrap_or_default();
    if last.trim_ascii() == host.as_bytes() {
        return;
    }
    let list = [before.as_bytes(), b",", host.as_bytes()].concat();
    if let Ok(list) = HeaderValue::from_maybe_shared(bytes::Bytes::from(list)) {
        head.headers.insert(X_FORWARDED_HOST, list);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(uri: &str) -> RequestHead {
        http::Request::get(uri).header(HOST, "old.test").body(()).unwrap().into_parts().0
    }

    #[test]
    fn the_host_is_replaced_wherever_it_is() {
        for uri in ["/p?q", "http://old.test:80/p?q"] {
            let mut head = head(uri);
            let host = HostValue::try_new("new.test:81").unwrap();
            let host = HostRewrite::Literal(Box::new(host)).host(&head).unwrap();
            replace_host(&mut head, host, KeptHost::default());
            assert_eq!(head.headers[HOST], "new.test:81");
            assert!(head.uri.authority().is_none_or(|host| host == "new.test:81"));
            assert_eq!(head.uri.path_and_query().unwrap(), "/p?q");
            assert_eq!(head.headers.len(), 1);
        }
        for host in ["", "a b", "a/b", "\u{e9}"] {
            assert!(HostValue::try_new(host).is_err(), "{host}");
        }
    }

    #[test]
    fn the_old_host_is_kept_where_it_is_wanted() {
        let mut head = head("/");
        let kept = KeptHost { forwarded: true, original: true };
        for host in ["a.test", "b.test", "b.test", "c.test"] {
            replace_host(&mut head, HeaderValue::from_static(host), kept);
        }
        assert_eq!(head.headers[X_FORWARDED_HOST], "old.test,a.test,b.test");
        assert_eq!(head.headers[X_ENVOY_ORIGINAL_HOST], "b.test");
    }
}
