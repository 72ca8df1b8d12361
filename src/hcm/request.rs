//! A request's first steps: its books are opened, its headers made sane, its route found and pinned.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{EXPECT, HOST};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::HcmConfig;
use super::connection::ConnectionHandle;
use super::stats::HttpStats;
use crate::exchange::deadline::{Deadline, Deadlines};
use crate::exchange::headers::{
    X_ENVOY_EXTERNAL_ADDRESS, X_FORWARDED_FOR, X_FORWARDED_PROTO, X_REQUEST_ID, is_hop_by_hop,
    strip_hop_by_hop,
};
use crate::exchange::interim::{Interim, InterimSink};
use crate::exchange::stream_info::RequestRecord;
use crate::exchange::{
    Body, BodyError, BodyProgress, Downstream, LocalReply, Request, RequestHead, Response,
    StreamInfo,
};
use crate::net::InterimQueue;
use crate::route::RouteTable;

/// Brings a request into the form that filters see; `Err` is an answer that needs no chain.
pub(super) fn begin(
    handle: &ConnectionHandle,
    request: http::Request<Incoming>,
) -> Result<Request, Box<Response>> {
    let hcm = &handle.hcm;
    let config = &*hcm.config;
    let (mut head, body) = request.into_parts();
    if let Some(queue) = &handle.interim
        && head.version == http::Version::HTTP_11
    {
        head.extensions.insert(Interim(Arc::new(InterimText(Arc::clone(queue)))));
    }
    let mut stream =
        Box::new(StreamInfo::new(Instant::now(), head.version, Arc::clone(&handle.downstream)));
    config.stats.count_request(head.version);
    stream.on_end = Some(Arc::clone(hcm) as _);
    if !config.access_logs.is_empty() {
        stream.start_time = SystemTime::now();
    }
    stream.idle_timeout = config.timeouts.stream_idle;
    let body = track(Body::from(body), &mut stream, config, &hcm.cx.deadlines);

    let sane = make_sane(&mut head, config, &handle.downstream);
    if config.access_logs.needs_request() {
        stream.request = Some(Box::new(record(&head)));
    }
    if let Err(reply) = sane {
        return Err(Box::new(reply.into_response(stream)));
    }
    if let Some(table) = hcm.table.load_full() {
        if config.use_remote_address {
            // The client is outside: these headers are for our own side to set.
            for name in table.internal_only_headers() {
                head.headers.remove(name);
            }
        }
        if !find_route(&table, &head, &mut stream) {
            config.stats.no_route.inc();
        }
        stream.route_table = Some(table as _);
    }
    Ok(Request { head, body, stream })
}

/// Pins the route of a request; false if there is none.
pub(super) fn find_route(table: &RouteTable, head: &RequestHead, stream: &mut StreamInfo) -> bool {
    let Some(route) = table.find(head, rand::random) else { return false };
    stream.route_name = route.name().cloned();
    stream.route = Some(route as _);
    true
}

/// Writes interim responses as HTTP/1.1.
struct InterimText(Arc<InterimQueue>);

impl InterimSink for InterimText {
    fn send(&self, status: StatusCode, headers: &HeaderMap) {
        let reason = status.canonical_reason().unwrap_or_default();
        let mut text = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
        for (name, value) in headers.iter().filter(|(name, _)| !is_hop_by_hop(name)) {
            text.extend_from_slice(name.as_str().as_bytes());
            text.extend_from_slice(b": ");
            text.extend_from_slice(value.as_bytes());
            text.extend_from_slice(b"\r\n");
        }
        text.extend_from_slice(b"\r\n");
        self.0.push(&text);
    }
}

/// Puts authority and path where every later stage looks for them, and removes what does not pass.
fn make_sane(
    head: &mut RequestHead,
    config: &HcmConfig,
    downstream: &Downstream,
) -> Result<(), LocalReply> {
    if head.version < http::Version::HTTP_11 && !config.http1.accept_http_10 {
        let status = StatusCode::UPGRADE_REQUIRED;
        return Err(LocalReply::new(status, "low_version", ""));
    }
    if head.headers.len() > config.max_headers_count as usize {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        return Err(LocalReply::new(status, "request_headers_too_large", ""));
    }
    if head.method == Method::CONNECT {
        return Err(LocalReply::route_not_found());
    }
    settle_authority(head)?;
    let seen = Seen::of(&head.headers);
    if seen.hop_by_hop {
        strip_hop_by_hop(&mut head.headers);
    }
    if seen.expect && !config.proxy_100_continue {
        // Whoever reads the body makes the codec tell the client to go on.
        head.headers.remove(EXPECT);
    }
    forwarded(&mut head.headers, &seen, config, downstream);
    if config.generate_request_id
        && (!seen.request_id || config.use_remote_address && !config.preserve_external_request_id)
    {
        head.headers.insert(X_REQUEST_ID, request_id(rand::random()));
    }
    Ok(())
}

/// Afterwards the target is a path, and the authority stands in `Host` alone.
fn settle_authority(head: &mut RequestHead) -> Result<(), LocalReply> {
    if head.uri.authority().is_some() {
        let uri = std::mem::take(&mut head.uri).into_parts();
        if let Some(authority) = uri.authority {
            let host = HeaderValue::from_str(authority.as_str())
                .map_err(|_invalid| LocalReply::bad_request("invalid_authority"))?;
            head.headers.insert(HOST, host);
        }
        let path = uri.path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
        head.uri = Uri::from(path);
        return Ok(());
    }
    let mut hosts = head.headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if is_authority(host.as_bytes()) => Ok(()),
        (Some(host), None) if !host.is_empty() => Err(LocalReply::bad_request("invalid_authority")),
        // HTTP/1.0 requests may come without; routes then match `*` only.
        (None, _) if head.version < http::Version::HTTP_11 => Ok(()),
        (Some(_), Some(_)) => Err(LocalReply::bad_request("duplicate_host")),
        _ => Err(LocalReply::bad_request("missing_host_header")),
    }
}

/// Whether an authority is made of what RFC 3986 section 3.2 has in one. With a `/` in it, or a `?`, it would
/// say where the path begins for whoever puts the two together.
fn is_authority(text: &[u8]) -> bool {
    let is_part =
        |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@[]%".contains(byte);
    !text.is_empty() && text.iter().all(is_part)
}

/// What one glance at the headers found, so that nothing is removed blindly.
#[derive(Default)]
struct Seen {
    hop_by_hop: bool,
    expect: bool,
    envoy: bool,
    request_id: bool,
    forwarded_proto: bool,
}

impl Seen {
    fn of(headers: &HeaderMap) -> Self {
        let mut seen = Self::default();
        for name in headers.keys() {
            let text = name.as_str();
            if text.starts_with("x-") {
                seen.envoy |= text.starts_with("x-envoy-");
                seen.request_id |= text == X_REQUEST_ID.as_str();
                seen.forwarded_proto |= text == X_FORWARDED_PROTO.as_str();
            } else {
                seen.hop_by_hop |= is_hop_by_hop(name);
                seen.expect |= *name == EXPECT;
            }
        }
        seen
    }
}

/// Names that only trusted callers may set; requests from outside lose them.
const INTERNAL_ONLY: [&str; 19] = [
    "x-envoy-decorator-operation",
    "x-envoy-downstream-service-cluster",
    "x-envoy-downstream-service-node",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-external-address",
    "x-envoy-force-trace",
    "x-envoy-hedge-on-per-try-timeout",
    "x-envoy-internal",
    "x-envoy-ip-tags",
    "x-envoy-is-timeout-retry",
    "x-envoy-max-retries",
    "x-envoy-original-path",
    "x-envoy-original-url",
    "x-envoy-retriable-header-names",
    "x-envoy-retriable-status-codes",
    "x-envoy-retry-grpc-on",
    "x-envoy-retry-on",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-ms",
];

/// `X-Forwarded-*` and the client's address.
fn forwarded(headers: &mut HeaderMap, seen: &Seen, config: &HcmConfig, downstream: &Downstream) {
    let scheme = HeaderValue::from_static("http");
    if !config.use_remote_address {
        if !seen.forwarded_proto {
            headers.insert(X_FORWARDED_PROTO, scheme);
        }
        return;
    }
    if seen.envoy {
        INTERNAL_ONLY.iter().for_each(|name| {
            headers.remove(*name);
        });
    }
    let client = trusted_client(headers, config.xff_num_trusted_hops);
    let client = client.unwrap_or_else(|| downstream.remote_ip.clone());
    if !config.skip_xff_append {
        append_forwarded_for(headers, &downstream.remote_ip);
    }
    // Behind trusted proxies the first of them knows the scheme; at the edge nobody does but us.
    if config.xff_num_trusted_hops == 0 || !seen.forwarded_proto {
        headers.insert(X_FORWARDED_PROTO, scheme);
    }
    headers.insert(X_ENVOY_EXTERNAL_ADDRESS, client);
}

/// The address that the outermost trusted proxy saw.
fn trusted_client(headers: &HeaderMap, hops: u32) -> Option<HeaderValue> {
    if hops == 0 {
        return None;
    }
    let list = headers.get(X_FORWARDED_FOR)?.to_str().ok()?;
    let address = list.rsplit(',').nth(hops as usize - 1)?.trim();
    let ip: std::net::IpAddr = address.parse().ok()?;
    HeaderValue::try_from(ip.to_string()).ok()
}

fn append_forwarded_for(headers: &mut HeaderMap, remote: &HeaderValue) {
    let appended = headers.get(X_FORWARDED_FOR).map(|list| {
        let mut text = Vec::with_capacity(list.len() + 1 + remote.len());
        text.extend_from_slice(list.as_bytes());
        text.push(b',');
        text.extend_from_slice(remote.as_bytes());
        HeaderValue::from_maybe_shared(Bytes::from(text))
    });
    match appended {
        None => headers.insert(X_FORWARDED_FOR, remote.clone()),
        Some(Ok(value)) => headers.insert(X_FORWARDED_FOR, value),
        Some(Err(_)) => None,
    };
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

fn record(head: &RequestHead) -> RequestRecord {
    RequestRecord {
        method: head.method.clone(),
        path: head.uri.path_and_query().cloned(),
        authority: head.headers.get(HOST).cloned(),
        headers: head.headers.clone(),
    }
}

/// Counts and times the bytes of a request's body, if it has one.
fn track(body: Body, stream: &mut StreamInfo, config: &HcmConfig, deadlines: &Deadlines) -> Body {
    if body.is_end_stream() {
        return Body::Empty;
    }
    let progress = Arc::new(BodyProgress::default());
    stream.request_body = Some(Arc::clone(&progress));
    let whole = config.timeouts.request.map(|timeout| deadlines.at(stream.start + timeout));
    Body::boxed(RequestBody {
        body,
        progress,
        whole,
        idle_timeout: config.timeouts.stream_idle,
        idle: None,
        deadlines: deadlines.clone(),
        stats: Arc::clone(&config.stats),
    })
}

struct RequestBody {
    body: Body,
    progress: Arc<BodyProgress>,
    /// When all of it must be here.
    whole: Option<Deadline>,
    idle_timeout: Option<Duration>,
    /// When the next piece must be here; set while it is waited for.
    idle: Option<Deadline>,
    deadlines: Deadlines,
    stats: Arc<HttpStats>,
}

impl RequestBody {
    fn poll_timers(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        if let (None, Some(timeout)) = (&self.idle, self.idle_timeout) {
            self.idle = Some(self.deadlines.at(Instant::now() + timeout));
        }
        let mut has_passed = |deadline: &mut Option<Deadline>| {
            deadline.as_mut().is_some_and(|deadline| Pin::new(deadline).poll(cx).is_ready())
        };
        if has_passed(&mut self.whole) {
            self.stats.downstream_rq_timeout.inc();
            return Poll::Ready(BodyError::Late);
        }
        match has_passed(&mut self.idle) {
            true => Poll::Ready(BodyError::Timeout),
            false => Poll::Pending,
        }
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let frame = match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => return this.poll_timers(cx).map(|error| Some(Err(error))),
        };
        this.idle = None;
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            this.progress.advance(data.len() as u64);
        }
        if matches!(frame, Some(Err(_))) {
            this.progress.break_off();
        } else if frame.is_none() || this.body.is_end_stream() {
            this.progress.finish();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_random_uuids() {
        assert_eq!(request_id(0), "00000000-0000-4000-8000-000000000000");
        assert_eq!(request_id(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }

    #[test]
    fn the_peer_is_appended_to_the_chain_of_clients() {
        let mut headers = HeaderMap::new();
        let remote = HeaderValue::from_static("10.0.0.1");
        append_forwarded_for(&mut headers, &remote);
        append_forwarded_for(&mut headers, &remote);
        assert_eq!(headers[X_FORWARDED_FOR], "10.0.0.1,10.0.0.1");
        assert_eq!(trusted_client(&headers, 2).unwrap(), "10.0.0.1");
        assert_eq!(trusted_client(&headers, 3), None);
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
        let mut absolute = head("http://a.test/x?y", &["b.test"]);
        settle_authority(&mut absolute).unwrap();
        assert_eq!(
            (absolute.uri.to_string(), &absolute.headers[HOST]),
            ("/x?y".into(), &HeaderValue::from_static("a.test"))
        );
        for host in ["a.test:81", "[::1]:80", "u%20x@a_b~"] {
            assert!(settle_authority(&mut head("/", &[host])).is_ok(), "{host}");
        }
        let not_one = [&["a/b"][..], &["a?b"], &["a#b"], &["a b"], &["a\\b"], &["\u{e1}"]];
        for hosts in not_one.into_iter().chain([&[][..], &["a", "b"], &[""]]) {
            assert!(settle_authority(&mut head("/", hosts)).is_err(), "{hosts:?}");
        }
    }
}
