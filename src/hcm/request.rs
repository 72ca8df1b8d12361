//! A request's first steps: its books are opened, its headers made sane, its route found and pinned.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::Method;
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::Instant;

use super::HcmConfig;
use super::connection::ConnectionHandle;
use super::sane::make_sane;
use super::stats::HttpStats;
use crate::exchange::deadline::{Deadline, Deadlines};
use crate::exchange::headers::is_grpc;
use crate::exchange::upgrade::WantsTunnel;
use crate::exchange::{
    Body, BodyError, BodyProgress, KnownMethod, LocalReply, Request, RequestHead, Response,
    StreamInfo,
};
use crate::route::{RouteTable, record_request};

/// Brings a request into the form that filters see; `Err` is an answer that needs no chain.
pub(super) fn begin(
    handle: &ConnectionHandle,
    request: http::Request<Body>,
) -> Result<Request, Box<Response>> {
    let hcm = &handle.hcm;
    let config = &*hcm.config;
    let (mut head, body) = request.into_parts();
    let mut stream = open_books(handle, head.version);
    stream.method = KnownMethod::from(&head.method);
    let wants_tunnel = head.extensions.get::<WantsTunnel>().is_some();
    stream.upgrade = config.upgrades.asked(&mut head).map(Box::new);
    let body = match (wants_tunnel, &stream.upgrade) {
        // What follows is the next request.
        (true, None) => Body::Empty,
        (is_tunnel, _) => track(body, &mut stream, (config, is_tunnel), &hcm.cx.deadlines),
    };
    stream.is_grpc = head.method == Method::POST && is_grpc(&head.headers);
    let local_replies = config.local_replies.as_ref();

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
        find_route(&table, &head, &mut stream);
        stream.route_table = Some(table as _);
    }
    Ok(Request { head, body, stream })
}

/// The answer to what is no request.
pub(super) fn refused(
    handle: &ConnectionHandle,
    version: http::Version,
    reply: LocalReply,
) -> Response {
    reply.into_response(open_books(handle, version))
}

/// What is known of a stream at its start.
fn open_books(handle: &ConnectionHandle, version: http::Version) -> Box<StreamInfo> {
    let config = &*handle.hcm.config;
    let downstream = Arc::clone(&handle.downstream);
    let mut stream = Box::new(StreamInfo::new(Instant::now(), version, downstream));
    config.stats.count_request(version);
    stream.on_end = Some(Arc::clone(&handle.hcm) as _);
    if !config.access_logs.is_empty() {
        stream.start_time = SystemTime::now();
    }
    stream.idle_timeout = config.timeouts.stream_idle;
    stream.max_duration = config.timeouts.stream_duration;
    let local_replies = config.local_replies.as_ref();
    stream.local_replies = local_replies.map(|form| Arc::clone(form) as _);
    stream
}

/// Pins the route of a request, if there is one.
pub(super) fn find_route(table: &RouteTable, head: &RequestHead, stream: &mut StreamInfo) {
    if let Some(route) = table.find(head, rand::random) {
        stream.route_name = route.name().cloned();
        stream.route = Some(route as _);
    }
}

/// Counts and times the bytes of a request's body, if it has one. A tunnel may be silent in one direction.
fn track(
    body: Body,
    stream: &mut StreamInfo,
    (config, is_tunnel): (&HcmConfig, bool),
    deadlines: &Deadlines,
) -> Body {
    if body.is_end_stream() {
        return Body::Empty;
    }
    let progress = Arc::new(BodyProgress::default());
    stream.request_body = Some(Arc::clone(&progress));
    let limits = config.timeouts;
    let whole = limits.request.filter(|_| !is_tunnel);
    let whole = whole.map(|timeout| deadlines.at(stream.start + timeout));
    Body::boxed(RequestBody {
        body,
        progress,
        whole,
        idle_timeout: limits.stream_idle.filter(|_| !is_tunnel),
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
