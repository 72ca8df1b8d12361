//! What a route does with a request: forward it, send the client elsewhere, or answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::LOCATION;
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderValue, StatusCode};

use super::hash::HashPolicies;
use super::host;
use super::policy::{BodyLimit, RetryPolicy};
use super::rewrite::{HostValue, PrefixRewrite, TooLong};
use crate::config::matcher::HeaderField;
use crate::config::metadata::MetadataMatch;
use crate::exchange::{LocalReply, RequestHead, RoutingPriority};

/// What a route does with a request.
#[derive(Debug)]
pub enum Action {
    /// Sends it to a cluster.
    Forward(Forward),
    /// Tells the client where else to go.
    Redirect(Box<Redirect>),
    /// Answers it.
    Direct(DirectResponse),
}

/// `config.route.v3.RouteAction`, of a weighted cluster with that one cluster.
#[derive(Debug)]
pub struct Forward {
    pub(super) cluster: ClusterSource,
    pub(super) timeout: Arc<Timeout>,
    pub(super) idle_timeout: Option<Duration>,
    pub(super) prefix_rewrite: Option<Box<PrefixRewrite>>,
    pub(super) host: HostRewrite,
    pub(super) cluster_not_found: StatusCode,
    pub(super) priority: RoutingPriority,
    pub(super) hash: Option<Arc<HashPolicies>>,
    pub(super) metadata: Option<Arc<MetadataMatch>>,
    pub(super) retry: Option<Arc<RetryPolicy>>,
    pub(super) hedge: bool,
    pub(super) body_limit: Option<BodyLimit>,
}

#[derive(Debug, Clone)]
pub(super) enum ClusterSource {
    Name(Arc<str>),
    /// The request's header that has the name.
    Header(Box<HeaderField>),
}

#[derive(Debug, Clone)]
pub(super) enum HostRewrite {
    Keep,
    Literal(Box<HostValue>),
    /// The chosen host's own name.
    Auto,
}

/// A timeout with what the upstream is told of it.
#[derive(Debug)]
pub(super) struct Timeout {
    pub(super) limit: Option<Duration>,
    /// Milliseconds.
    pub(super) header: Option<HeaderValue>,
}

impl Forward {
    /// The name of the cluster. `None` when the header that should name it is missing or is not
    /// text. Of a weighted route, [`RouteTable::find`](super::RouteTable::find) has drawn the cluster
    /// already, so that its headers and filter options agree with it.
    pub fn choose_cluster(&self, head: &RequestHead) -> Option<Arc<str>> {
        match &self.cluster {
            ClusterSource::Name(name) => Some(Arc::clone(name)),
            ClusterSource::Header(field) => {
                std::str::from_utf8(field.first(head)?).ok().map(Arc::from)
            }
        }
    }

    /// The longest an upstream may take, from the end of the request to the end of the response;
    /// `None` is for ever. 15 s unless configured.
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout.limit
    }

    /// [`Self::timeout`] in milliseconds, for `x-envoy-expected-rq-timeout-ms`.
    pub fn expected_timeout_header(&self) -> Option<&HeaderValue> {
        self.timeout.header.as_ref()
    }

    /// How long the stream may be idle; `None` leaves it to the connection manager, zero is for
    /// ever.
    pub fn idle_timeout(&self) -> Option<Duration> {
        self.idle_timeout
    }

    /// When the request is tried again: the route's own policy, or its virtual host's.
    pub fn retry_policy(&self) -> Option<&RetryPolicy> {
        self.retry.as_deref()
    }

    /// Whether a try that is over its time goes on beside the next one: the route's own policy, or its
    /// virtual host's.
    pub fn hedges(&self) -> bool {
        self.hedge
    }

    /// How much of a body may be held for that, in bytes, where the connection allows so many.
    pub fn body_limit(&self, connection: u32) -> u64 {
        BodyLimit::bytes(self.body_limit, connection)
    }

    /// Which circuit breakers count.
    pub fn priority(&self) -> RoutingPriority {
        self.priority
    }

    /// What of a request its host is chosen by, if anything.
    pub fn hash_policies(&self) -> Option<&HashPolicies> {
        self.hash.as_deref()
    }

    /// What is wanted of its host's metadata.
    pub fn metadata_match(&self) -> Option<&MetadataMatch> {
        self.metadata.as_deref()
    }

    /// The status when the cluster does not exist.
    pub fn cluster_not_found(&self) -> StatusCode {
        self.cluster_not_found
    }

    /// Whether the request's host becomes the chosen upstream host's name.
    pub fn auto_host_rewrite(&self) -> bool {
        matches!(self.host, HostRewrite::Auto)
    }

    /// Changes the request's host and path as the route says. Header mutations that name them come
    /// before, since they see what the client sent.
    ///
    /// # Errors
    /// The answer to the client when the new path would be longer than a URI can be.
    pub fn rewrite(&self, head: &mut RequestHead) -> Result<(), LocalReply> {
        if let HostRewrite::Literal(host) = &self.host {
            host.apply(head);
        }
        match &self.prefix_rewrite {
            None => Ok(()),
            Some(rewrite) => rewrite
                .apply(head)
                .map_err(|TooLong| LocalReply::bad_request("rewritten_path_too_long")),
        }
    }
}

/// `config.route.v3.RedirectAction`
#[derive(Debug)]
pub struct Redirect {
    pub(super) status: StatusCode,
    pub(super) scheme: Option<Scheme>,
    pub(super) host: Option<Box<str>>,
    pub(super) port: Option<u16>,
    pub(super) path: RedirectPath,
    pub(super) strip_query: bool,
}

#[derive(Debug)]
pub(super) enum RedirectPath {
    Keep,
    /// Another path; with a query of its own that one is used, unstripped.
    Replace(Box<str>),
    Prefix(PrefixRewrite),
}

impl Redirect {
    /// The answer that sends the client elsewhere. `scheme` is the one the client used.
    pub fn reply(&self, head: &RequestHead, scheme: &Scheme) -> LocalReply {
        match HeaderValue::from_maybe_shared(Bytes::from(self.location(head, scheme))) {
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
        let was_default = scheme != current && &host[colon..] == default;
        if self.port.is_some() || was_default { &host[..colon] } else { host }
    }

    fn push_path(&self, head: &RequestHead, location: &mut Vec<u8>) {
        let path = match &self.path {
            RedirectPath::Keep => {
                let path = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
                return location.extend_from_slice(self.stripped(path).as_bytes());
            }
            RedirectPath::Prefix(rewrite) => {
                let path = rewrite.path_and_query(&head.uri);
                return location.extend_from_slice(self.stripped(&path).as_bytes());
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

    fn stripped<'p>(&self, path: &'p str) -> &'p str {
        match path.split_once('?') {
            Some((path, _)) if self.strip_query => path,
            _ => path,
        }
    }
}

/// `config.route.v3.DirectResponseAction`
#[derive(Debug)]
pub struct DirectResponse {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

impl DirectResponse {
    /// The answer.
    pub fn reply(&self) -> LocalReply {
        LocalReply::new(self.status, "direct_response", self.body.clone())
    }
}

#[cfg(test)]
mod tests {
    use http::header::HOST;

    use super::*;
    use crate::route::rewrite::Matched;

    fn keep() -> Redirect {
        Redirect {
            status: StatusCode::FOUND,
            scheme: None,
            host: None,
            port: None,
            path: RedirectPath::Keep,
            strip_query: false,
        }
    }

    #[test]
    fn redirects_keep_what_they_do_not_change() {
        let https = || Some(Scheme::HTTPS);
        let replace = |path: &str| RedirectPath::Replace(path.into());
        let prefix = |matched, to: &str| {
            RedirectPath::Prefix(PrefixRewrite { matched: Matched::Prefix(matched), to: to.into() })
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
