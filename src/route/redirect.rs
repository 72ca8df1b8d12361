//! Sending a client elsewhere.

use bytes::Bytes;
use http::header::LOCATION;
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderValue, StatusCode};

use super::host;
use super::rewrite::PathRewrite;
use crate::exchange::headers::X_FORWARDED_PROTO;
use crate::exchange::{LocalReply, RequestHead};

/// `config.route.v3.RedirectAction`
#[derive(Debug)]
pub struct Redirect {
    pub(super) status: StatusCode,
    pub(super) scheme: Option<Scheme>,
    pub(super) host: Option<Box<str>>,
    pub(super) port: Option<u16>,
    pub(super) path: RedirectPath,
    pub(super) strip_query: bool,
    /// A port stays though it was the default of a scheme that does not.
    pub(super) keep_default_port: bool,
}

#[derive(Debug)]
pub(super) enum RedirectPath {
    Keep,
    /// Another path; with a query of its own that one is used, unstripped.
    Replace(Box<str>),
    Rewrite(PathRewrite),
}

impl Redirect {
    /// To the same place over `https`.
    pub(super) fn to_https() -> Self {
        Self {
            status: StatusCode::MOVED_PERMANENTLY,
            scheme: Some(Scheme::HTTPS),
            host: None,
            port: None,
            path: RedirectPath::Keep,
            strip_query: false,
            keep_default_port: true,
        }
    }

    /// The answer that sends the client elsewhere.
    pub fn reply(&self, head: &RequestHead) -> LocalReply {
        let scheme = if is_https(head) { Scheme::HTTPS } else { Scheme::HTTP };
        match HeaderValue::from_maybe_shared(Bytes::from(self.location(head, &scheme))) {
            Ok(location) => LocalReply::new(self.status, "direct_response", Bytes::new())
                .with_header(LOCATION, location),
            Err(_unprintable) => LocalReply::bad_request("unfit_for_redirect"),
        }
    }

    fn location(&self, head: &RequestHead, current: &Scheme) -> Vec<u8> {
        let scheme = self.scheme.as_ref().unwrap_or(current);
        let mut location = Vec::with_capacity(128);
        location.extend_from_slice(scheme.as_str().as_bytes());
        location.extend_from_slice(b"://");
        match &self.host {
            Some(host) => location.extend_from_slice(host.as_bytes()),
            None => location.extend_from_slice(self.request_host(head, current, scheme)),
        }
        if let Some(port) = self.port {
            location.extend_from_slice(format!(":{port}").as_bytes());
        }
        self.push_path(head, &mut location);
        location
    }

    /// The host the request asked for, without a port that another takes the place of, or that was
    /// the default of a scheme which is not kept.
    fn request_host<'h>(
        &self,
        head: &'h RequestHead,
        current: &Scheme,
        scheme: &Scheme,
    ) -> &'h [u8] {
        let host = host::authority(head);
        let Some(colon) = host::port_start(host) else { return host };
        let default: &[u8] = if *current == Scheme::HTTPS { b":443" } else { b":80" };
        let was_default = !self.keep_default_port && scheme != current && &host[colon..] == default;
        if self.port.is_some() || was_default { &host[..colon] } else { host }
    }

    fn push_path(&self, head: &RequestHead, location: &mut Vec<u8>) {
        let path = match &self.path {
            RedirectPath::Keep => {
                let path = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
                return location.extend_from_slice(self.stripped(path.as_bytes()));
            }
            RedirectPath::Rewrite(rewrite) => {
                let path = rewrite.path_and_query(&head.uri);
                return location.extend_from_slice(self.stripped(&path));
            }
            RedirectPath::Replace(path) => path,
        };
        location.extend_from_slice(path.as_bytes());
        if let Some(query) = head.uri.query()
            && !self.strip_query
            && !path.contains('?')
        {
            location.push(b'?');
            location.extend_from_slice(query.as_bytes());
        }
    }

    fn stripped<'p>(&self, path: &'p [u8]) -> &'p [u8] {
        match path.iter().position(|byte| *byte == b'?') {
            Some(query) if self.strip_query => &path[..query],
            _ => path,
        }
    }
}

/// Whether the client speaks `https`, to us or to the proxy before us.
pub(super) fn is_https(head: &RequestHead) -> bool {
    head.headers.get(X_FORWARDED_PROTO).is_some_and(|scheme| scheme == "https")
}

#[cfg(test)]
mod tests {
    use http::header::HOST;

    use super::*;
    use crate::route::rewrite::{Matched, PrefixRewrite};

    fn keep() -> Redirect {
        Redirect {
            status: StatusCode::FOUND,
            scheme: None,
            host: None,
            port: None,
            path: RedirectPath::Keep,
            strip_query: false,
            keep_default_port: false,
        }
    }

    #[test]
    fn the_scheme_is_the_client_s() {
        for (scheme, expected) in [("http", "http://h:80/p"), ("https", "https://h:80/p")] {
            let request = http::Request::get("/p").header(HOST, "h:80");
            let head = request.header(X_FORWARDED_PROTO, scheme).body(()).unwrap().into_parts().0;
            assert_eq!(is_https(&head), scheme == "https");
            let own = if is_https(&head) { Scheme::HTTPS } else { Scheme::HTTP };
            assert_eq!(keep().location(&head, &own), expected.as_bytes());
            let location = Redirect::to_https().location(&head, &Scheme::HTTP);
            assert_eq!(location, b"https://h:80/p");
        }
    }

    #[test]
    fn redirects_keep_what_they_do_not_change() {
        let https = || Some(Scheme::HTTPS);
        let replace = |path: &str| RedirectPath::Replace(path.into());
        let prefix = |matched, to: &str| {
            let rewrite = PrefixRewrite { matched: Matched::Prefix(matched), to: to.into() };
            RedirectPath::Rewrite(PathRewrite::Prefix(rewrite))
        };
        let cases = [
            (keep(), "h.test", "/p?q=1", "http://h.test/p?q=1"),
            (Redirect { scheme: https(), ..keep() }, "h.test:80", "/p", "https://h.test/p"),
            (Redirect { scheme: https(), ..keep() }, "h.test:81", "/p", "https://h.test:81/p"),
            (keep(), "h.test:80", "/p", "http://h.test:80/p"),
            (Redirect { port: Some(99), ..keep() }, "h.test:80", "/p", "http://h.test:99/p"),
            (Redirect { port: Some(99), ..keep() }, "[::1]", "/p", "http://[::1]:99/p"),
            (Redirect { port: Some(99), ..keep() }, "[::1]:7", "/p", "http://[::1]:99/p"),
            (Redirect { host: Some("n.test".into()), ..keep() }, "h:1", "/p", "http://n.test/p"),
            (Redirect { path: replace("/new"), ..keep() }, "h", "/p?q", "http://h/new?q"),
            (Redirect { path: replace("/new?own"), ..keep() }, "h", "/p?q", "http://h/new?own"),
            (
                Redirect { path: replace("/new?own"), strip_query: true, ..keep() },
                "h",
                "/p?q",
                "http://h/new?own",
            ),
            (
                Redirect { path: replace("/new"), strip_query: true, ..keep() },
                "h",
                "/p?q",
                "http://h/new",
            ),
            (Redirect { path: prefix(2, "/n"), ..keep() }, "h", "/p/x?q", "http://h/n/x?q"),
            (
                Redirect { path: prefix(2, "/n"), strip_query: true, ..keep() },
                "h",
                "/p/x?q",
                "http://h/n/x",
            ),
            (Redirect { strip_query: true, ..keep() }, "h", "/p?q", "http://h/p"),
        ];
        for (redirect, host, path, expected) in cases {
            let request = http::Request::get(path).header(HOST, host).body(()).unwrap();
            let location = redirect.location(&request.into_parts().0, &Scheme::HTTP);
            assert_eq!(String::from_utf8(location).unwrap(), expected, "{redirect:?}");
        }
    }
}
