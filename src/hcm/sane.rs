//! A request's head made sane: authority and path in one form and one place, and what does not pass removed.

use bytes::Bytes;
use http::header::{COOKIE, EXPECT, HOST, LOCATION};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};

use super::HcmConfig;
use super::client::detect;
use super::compile::Http1Options;
use super::stats::HttpStats;
use super::trust::{self, Trust, X_FORWARDED_CLIENT_CERT};
use crate::exchange::headers::{
    SchemeOfUpstream, X_FORWARDED_PROTO, X_REQUEST_ID, is_hop_by_hop, strip_hop_by_hop,
};
use crate::exchange::path::Normal;
use crate::exchange::{LocalReply, RequestHead, StreamInfo};

/// Puts authority and path where every later stage looks for them, and removes what does not pass.
pub(super) fn make_sane(
    head: &mut RequestHead,
    config: &HcmConfig,
    stream: &mut StreamInfo,
) -> Result<(), LocalReply> {
    if head.version < http::Version::HTTP_11 && !config.http1.accept_http_10 {
        let status = StatusCode::UPGRADE_REQUIRED;
        return Err(LocalReply::new(status, "low_version", ""));
    }
    if head.headers.len() > config.max_headers_count as usize {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        return Err(LocalReply::new(status, "request_headers_too_large", ""));
    }
    settle_authority(head, &config.http1)?;
    config.host.apply(&mut head.headers, stream.downstream.local.port());
    settle_path(head, config)?;
    let mut seen = Seen::of(&head.headers);
    if seen.bytes > config.max_request_headers_bytes as usize {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        return Err(LocalReply::new(status, "request_headers_too_large", ""));
    }
    if seen.cookies > 1 && head.version == http::Version::HTTP_2 {
        join_cookies(&mut head.headers);
    }
    if seen.underscore {
        config.underscores.apply(&mut head.headers, &config.stats)?;
    }
    if !config.early_mutations.is_empty() {
        config.early_mutations.iter().for_each(|mutation| mutation.apply_to_request(head, stream));
        seen = Seen::of(&head.headers);
    }
    if seen.hop_by_hop {
        strip_hop_by_hop(&mut head.headers);
    }
    if seen.expect && !config.proxy_100_continue {
        // Whoever reads the body makes the codec tell the client to go on.
        head.headers.remove(EXPECT);
    }
    stream.client = detect(&config.detections, &head.headers)?;
    let trust = trust::say(&mut head.headers, &seen, config, stream);
    if config.match_upstream_scheme {
        head.extensions.insert(SchemeOfUpstream);
    }
    let renews = trust == Trust::Edge && !config.preserve_external_request_id;
    if config.generate_request_id && (!seen.request_id || renews) {
        head.headers.insert(X_REQUEST_ID, request_id(rand::random()));
    }
    Ok(())
}

/// Afterwards the target is a path, and the authority stands in `Host` alone.
fn settle_authority(head: &mut RequestHead, http1: &Http1Options) -> Result<(), LocalReply> {
    if head.uri.authority().is_some() {
        let is_path_alone = head.version <= http::Version::HTTP_11 && !http1.allow_absolute_url;
        if is_path_alone && head.method != Method::CONNECT {
            // To whoever knows nothing but paths it is one that no route has.
            return Err(LocalReply::route_not_found());
        }
        let uri = std::mem::take(&mut head.uri).into_parts();
        if let Some(authority) = &uri.authority {
            let host = HeaderValue::from_str(authority.as_str())
                .map_err(|_invalid| LocalReply::bad_request("invalid_authority"))?;
            head.headers.insert(HOST, host);
        }
        head.uri = match uri.authority {
            // A tunnel has no path.
            Some(authority) if head.method == Method::CONNECT => Uri::from(authority),
            _ => Uri::from(origin_form(uri.path_and_query)?),
        };
        return Ok(());
    }
    let mut hosts = head.headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if is_authority(host.as_bytes()) => Ok(()),
        (Some(host), None) if !host.is_empty() => Err(LocalReply::bad_request("invalid_authority")),
        // HTTP/1.0 requests may come without; routes then match `*` only.
        (None, _) if head.version < http::Version::HTTP_11 => {
            if let Some(host) = &http1.default_host_for_http_10 {
                head.headers.insert(HOST, host.clone());
            }
            Ok(())
        }
        (Some(_), Some(_)) => Err(LocalReply::bad_request("duplicate_host")),
        _ => Err(LocalReply::bad_request("missing_host_header")),
    }
}

/// An absolute target may leave out its path; between us and the origin there is always one (RFC 9112
/// section 3.2.1).
fn origin_form(path: Option<PathAndQuery>) -> Result<PathAndQuery, LocalReply> {
    match path {
        Some(path) if path.as_str().starts_with('?') => {
            PathAndQuery::try_from(format!("/{}", path.as_str()))
                .map_err(|_invalid| LocalReply::bad_request("invalid_path"))
        }
        Some(path) => Ok(path),
        None => Ok(PathAndQuery::from_static("/")),
    }
}

/// `strip_matching_host_port` and its like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HostPolicy {
    /// Whether the port is left out.
    pub strip_port: StripPort,
    /// Whether a dot at the end is left out.
    pub strip_trailing_dot: bool,
}

/// Which ports an authority loses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StripPort {
    /// None.
    #[default]
    Never,
    /// The listener's.
    Matching,
    /// Any.
    Any,
}

impl HostPolicy {
    fn apply(self, headers: &mut HeaderMap, listener_port: u16) {
        if self == Self::default() {
            return;
        }
        let Some(Ok(host)) = headers.get(HOST).map(HeaderValue::to_str) else { return };
        let stripped = self.strip(host, listener_port);
        if stripped.len() < host.len()
            && let Ok(host) = HeaderValue::from_str(&stripped)
        {
            headers.insert(HOST, host);
        }
    }

    fn strip(self, host: &str, listener_port: u16) -> String {
        let (mut name, mut port) = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => {
                (name, Some(port))
            }
            _ => (host, None),
        };
        let strips = match self.strip_port {
            StripPort::Never => false,
            StripPort::Matching => port.is_some_and(|p| p.parse() == Ok(listener_port)),
            StripPort::Any => true,
        };
        if strips {
            port = None;
        }
        if self.strip_trailing_dot {
            name = name.strip_suffix('.').unwrap_or(name);
        }
        match port {
            Some(port) => format!("{name}:{port}"),
            None => name.to_owned(),
        }
    }
}

/// `headers_with_underscores_action`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Underscores {
    /// They pass.
    #[default]
    Allow,
    /// The request is refused.
    Reject,
    /// They are removed.
    Drop,
}

impl Underscores {
    fn apply(self, headers: &mut HeaderMap, stats: &HttpStats) -> Result<(), LocalReply> {
        match self {
            Self::Allow => Ok(()),
            Self::Reject => {
                stats.requests_rejected_with_underscores_in_headers.inc();
                Err(LocalReply::bad_request("unexpected_underscore"))
            }
            Self::Drop => {
                let has = |name: &&HeaderName| name.as_str().contains('_');
                let names: Vec<HeaderName> = headers.keys().filter(has).cloned().collect();
                stats.dropped_headers_with_underscores.add(names.len() as u64);
                names.iter().for_each(|name| drop(headers.remove(name)));
                Ok(())
            }
        }
    }
}

fn settle_path(head: &mut RequestHead, config: &HcmConfig) -> Result<(), LocalReply> {
    let Some(path) = head.uri.path_and_query() else { return Ok(()) };
    match config.path.apply(path) {
        Normal::Same => Ok(()),
        Normal::Path(path) => {
            head.uri = Uri::from(path);
            Ok(())
        }
        Normal::Redirect(path) => {
            config.stats.downstream_rq_redirected_with_normalized_path.inc();
            let status = StatusCode::TEMPORARY_REDIRECT;
            let reply = LocalReply::new(status, "path_normalization_failed", "");
            let Ok(location) = HeaderValue::from_str(path.as_str()) else {
                return Err(LocalReply::bad_request("path_normalization_failed"));
            };
            Err(reply.with_header(LOCATION, location))
        }
        Normal::Rejected => {
            config.stats.downstream_rq_failed_path_normalization.inc();
            Err(LocalReply::bad_request("path_normalization_failed"))
        }
    }
}

/// Whether an authority is made of what RFC 3986 section 3.2 has in one. With a `/` in it, or a `?`, it would
/// say where the path begins for whoever puts the two together.
pub(super) fn is_authority(text: &[u8]) -> bool {
    let is_part =
        |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@[]%".contains(byte);
    !text.is_empty() && text.iter().all(is_part)
}

/// What one glance at the headers found, so that nothing is removed blindly.
#[derive(Default)]
pub(super) struct Seen {
    /// Of names and values together.
    bytes: usize,
    cookies: usize,
    hop_by_hop: bool,
    underscore: bool,
    expect: bool,
    pub(super) envoy: bool,
    request_id: bool,
    pub(super) forwarded_proto: bool,
    pub(super) client_cert: bool,
}

impl Seen {
    fn of(headers: &HeaderMap) -> Self {
        let mut seen = Self::default();
        for (name, value) in headers {
            let text = name.as_str();
            seen.bytes += text.len() + value.len();
            seen.underscore |= text.contains('_');
            if text.starts_with("x-") {
                seen.envoy |= text.starts_with("x-envoy-");
                seen.request_id |= text == X_REQUEST_ID.as_str();
                seen.forwarded_proto |= text == X_FORWARDED_PROTO.as_str();
                seen.client_cert |= text == X_FORWARDED_CLIENT_CERT.as_str();
            } else {
                seen.hop_by_hop |= is_hop_by_hop(name);
                seen.expect |= *name == EXPECT;
                seen.cookies += usize::from(*name == COOKIE);
            }
        }
        seen
    }
}

/// HTTP/2 may split cookies for the sake of compression; elsewhere they are one field (RFC 9113 section
/// 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let all: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_maybe_shared(Bytes::from(all.join(&b"; "[..]))) {
        headers.insert(COOKIE, joined);
    }
}

/// A random UUID (RFC 9562 section 5.4) as text.
fn request_id(random: u128) -> HeaderValue {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut bytes = random.to_be_bytes();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = [b'-'; 36];
    let mut at = 0;
    for (i, byte) in bytes.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            at += 1;
        }
        text[at] = HEX[usize::from(byte >> 4)];
        text[at + 1] = HEX[usize::from(byte & 0x0f)];
        at += 2;
    }
    HeaderValue::from_bytes(&text).expect("hexadecimal digits and dashes are a header value")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::case::NameFormat;

    #[test]
    fn request_ids_are_random_uuids() {
        assert_eq!(request_id(0), "00000000-0000-4000-8000-000000000000");
        assert_eq!(request_id(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }

    #[test]
    fn the_authority_ends_in_host_alone() {
        let head = |uri: &str, host: &[&str]| {
            let mut head = http::Request::get(uri).body(()).unwrap().into_parts().0;
            for host in host {
                head.headers.append(HOST, HeaderValue::from_str(host).unwrap());
            }
            head
        };
        let http1 = Http1Options {
            accept_http_10: false,
            trailers: false,
            chunked_length: false,
            names: NameFormat::default(),
            default_host_for_http_10: None,
            allow_absolute_url: true,
        };
        let mut absolute = head("http://a.test/x?y", &["b.test"]);
        settle_authority(&mut absolute, &http1).unwrap();
        assert_eq!(
            (absolute.uri.to_string(), &absolute.headers[HOST]),
            ("/x?y".into(), &HeaderValue::from_static("a.test"))
        );
        let mut bare = head("http://a.test?y", &[]);
        settle_authority(&mut bare, &http1).unwrap();
        assert_eq!(bare.uri.path_and_query().unwrap().as_str(), "/?y");
        for host in ["a.test:81", "[::1]:80", "u%20x@a_b~"] {
            assert!(settle_authority(&mut head("/", &[host]), &http1).is_ok(), "{host}");
        }
        let not_one = [&["a/b"][..], &["a?b"], &["a#b"], &["a b"], &["a\\b"], &["\u{e1}"]];
        for hosts in not_one.into_iter().chain([&[][..], &["a", "b"], &[""]]) {
            assert!(settle_authority(&mut head("/", hosts), &http1).is_err(), "{hosts:?}");
        }
    }

    #[test]
    fn hosts_lose_what_the_policy_says() {
        let strip = |strip_port, host: &str| {
            HostPolicy { strip_port, strip_trailing_dot: false }.strip(host, 8080)
        };
        assert_eq!(strip(StripPort::Never, "a.test:8080"), "a.test:8080");
        for (host, matching, any) in [
            ("a.test:8080", "a.test", "a.test"),
            ("a.test:99", "a.test:99", "a.test"),
            ("a.test", "a.test", "a.test"),
            ("[::1]:8080", "[::1]", "[::1]"),
            ("[::1]", "[::1]", "[::1]"),
            ("a.test.:8080", "a.test.", "a.test."),
        ] {
            assert_eq!(strip(StripPort::Matching, host), matching, "{host}");
            assert_eq!(strip(StripPort::Any, host), any, "{host}");
        }
        let dot = HostPolicy { strip_port: StripPort::Never, strip_trailing_dot: true };
        assert_eq!(dot.strip("a.test.", 80), "a.test");
        assert_eq!(dot.strip("a.test.:80", 80), "a.test:80");
    }
}
