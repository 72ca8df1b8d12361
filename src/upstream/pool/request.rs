//! Putting a request's head into the form its upstream's protocol wants.
//!
//! Hop-by-hop headers are the connection manager's business, and hyper drops the rest that HTTP/2
//! forbids; here only the target and the version change.

use http::header::{HOST, UPGRADE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Method, Uri, Version};

use super::UpstreamError;
use crate::exchange::RequestHead;
use crate::exchange::headers::{SchemeOfUpstream, X_FORWARDED_PROTO};

/// Origin form (RFC 9112 section 3.2.1), and the authority in `Host`.
pub(super) fn for_http1(head: &mut RequestHead) -> Result<(), UpstreamError> {
    head.version = Version::HTTP_11;
    if head.uri.authority().is_none() {
        return Ok(());
    }
    if !head.headers.contains_key(HOST)
        && let Some(authority) = head.uri.authority()
    {
        let host = HeaderValue::from_str(authority.as_str());
        head.headers.insert(HOST, host.map_err(|_invalid| UpstreamError::Protocol)?);
    }
    if head.method != Method::CONNECT {
        let target = head.uri.path_and_query().cloned();
        head.uri = Uri::from(target.unwrap_or_else(|| PathAndQuery::from_static("/")));
    }
    Ok(())
}

/// Scheme, authority and path (RFC 9113 section 8.3.1); `Host` becomes the authority.
pub(super) fn for_http2(head: &mut RequestHead) -> Result<(), UpstreamError> {
    if head.method == Method::CONNECT || head.headers.contains_key(UPGRADE) {
        // There would be another way to ask (RFC 8441).
        return Err(UpstreamError::Protocol);
    }
    head.version = Version::HTTP_2;
    let host = head.headers.remove(HOST);
    if host.is_none() && head.uri.scheme().is_some() && head.uri.authority().is_some() {
        return Ok(());
    }
    let mut parts = std::mem::take(&mut head.uri).into_parts();
    if let Some(host) = host {
        let authority = Authority::try_from(host.as_bytes());
        parts.authority = Some(authority.map_err(|_invalid| UpstreamError::Protocol)?);
    }
    if parts.scheme.is_none() {
        parts.scheme = Some(scheme(head));
    }
    if parts.path_and_query.is_none() {
        parts.path_and_query = Some(PathAndQuery::from_static("/"));
    }
    head.uri = Uri::from_parts(parts).map_err(|_no_authority| UpstreamError::Protocol)?;
    Ok(())
}

/// As in Envoy the client's, which `X-Forwarded-Proto` says; or that of the connection, which is in plain text.
fn scheme(head: &RequestHead) -> Scheme {
    let is_https = head.headers.get(X_FORWARDED_PROTO).is_some_and(|scheme| scheme == "https");
    match is_https && head.extensions.get::<SchemeOfUpstream>().is_none() {
        true => Scheme::HTTPS,
        false => Scheme::HTTP,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(uri: &str, host: Option<&'static str>) -> RequestHead {
        let mut request = http::Request::builder().uri(uri);
        if let Some(host) = host {
            request = request.header(HOST, host);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn targets_take_the_form_of_the_protocol() {
        let cases = [
            ("/a?b", Some("x"), "/a?b", "http://x/a?b"),
            ("http://x:1/a", None, "/a", "http://x:1/a"),
            ("http://x/a", Some("y"), "/a", "http://y/a"),
            ("http://x", None, "/", "http://x/"),
            ("*", Some("x"), "*", "http://x*"),
        ];
        for (uri, host, http1, http2) in cases {
            let mut one = head(uri, host);
            for_http1(&mut one).unwrap();
            assert_eq!(one.uri.to_string(), http1, "{uri}");
            assert!(one.headers.contains_key(HOST), "{uri}");
            let mut two = head(uri, host);
            match for_http2(&mut two) {
                Ok(()) => assert_eq!(two.uri.to_string(), http2, "{uri}"),
                Err(error) => panic!("{uri}: {error}"),
            }
            assert!(!two.headers.contains_key(HOST), "{uri}");
        }
        assert!(for_http2(&mut head("/", Some("not a host"))).is_err());
        assert!(for_http2(&mut head("/", None)).is_err());
    }
}
