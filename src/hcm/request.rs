//! A request's first steps: its books are opened, its headers made sane, its route found and pinned.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::EXPECT;
use http::{HeaderMap, Method, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::HcmConfig;
use super::connection::ConnectionHandle;
use super::sane::make_sane;
use super::stats::HttpStats;
use crate::exchange::deadline::{Deadline, Deadlines};
use crate::exchange::headers::{is_grpc, is_hop_by_hop};
use crate::exchange::interim::{Interim, InterimSink};
use crate::exchange::{Body, BodyError, BodyProgress, Request, RequestHead, Response, StreamInfo};
use crate::net::InterimQueue;
use crate::route::{RouteTable, record_request};

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
    stream.max_duration = config.timeouts.stream_duration;
    let mut body = Body::from(body);
    let waits = !body.is_end_stream() && !config.proxy_100_continue && expects_continue(&head);
    let first = if waits { tell_to_go_on(&mut body) } else { None };
    let body = track((body, first), &mut stream, config, &hcm.cx.deadlines);

    stream.is_grpc = head.method == Method::POST && is_grpc(&head.headers);
    let local_replies = config.local_replies.as_ref();
    stream.local_replies = local_replies.map(|form| Arc::clone(form) as _);

    let sane = make_sane(&mut head, config, &mut stream);
    if config.access_logs.needs_request() || local_replies.is_some_and(|form| form.needs_request())
    {
        record_request(&head, &mut stream);
    }
    if let Err(reply) = sane {
        return Err(Box::new(reply.into_response(stream)));
    }
    if let Some(table) = hcm.table.load_full() {
        if !stream.is_internal {
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

fn expects_continue(head: &RequestHead) -> bool {
    head.headers
        .get(EXPECT)
        .is_some_and(|what| what.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// A frame of a body that came before anybody asked for it.
type First = Option<Result<Frame<Bytes>, BodyError>>;

/// The codec tells the client to go on when its body is first asked for. That is now, whatever becomes of
/// the request, as with Envoy.
fn tell_to_go_on(body: &mut Body) -> First {
    // Whoever asks next is woken.
    let mut nobody = Context::from_waker(std::task::Waker::noop());
    match Pin::new(body).poll_frame(&mut nobody) {
        Poll::Ready(frame) => frame,
        Poll::Pending => None,
    }
}

/// Counts and times the bytes of a request's body, if it has one.
fn track(
    (body, first): (Body, First),
    stream: &mut StreamInfo,
    config: &HcmConfig,
    deadlines: &Deadlines,
) -> Body {
    if first.is_none() && body.is_end_stream() {
        return Body::Empty;
    }
    let progress = Arc::new(BodyProgress::default());
    stream.request_body = Some(Arc::clone(&progress));
    let whole = config.timeouts.request.map(|timeout| deadlines.at(stream.start + timeout));
    Body::boxed(RequestBody {
        first,
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
    first: First,
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
        let frame = match this.first.take() {
            Some(first) => Some(first),
            None => match Pin::new(&mut this.body).poll_frame(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending => return this.poll_timers(cx).map(|error| Some(Err(error))),
            },
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
        self.first.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.body.size_hint();
        let Some(first) = &self.first else { return rest };
        let first = first.as_ref().ok().and_then(Frame::data_ref).map_or(0, Bytes::len) as u64;
        rest.exact().map_or_else(SizeHint::default, |rest| SizeHint::with_exact(first + rest))
    }
}
