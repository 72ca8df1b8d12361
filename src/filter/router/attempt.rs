//! One try at one host: send, wait, judge.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::HeaderValue;
use tokio::time::Instant;

use crate::exchange::deadline::{Deadline, Deadlines};
use crate::exchange::headers::{X_ENVOY_UPSTREAM_SERVICE_TIME, is_hop_by_hop, strip_hop_by_hop};
use crate::exchange::{LocalReply, Request, Response, ResponseFlag, StreamInfo, StreamReset};
use crate::upstream::{Host, LocalCluster, Permit, RequestBodyError, UpstreamError};

/// What one try needs.
pub(super) struct Attempt<'a> {
    pub(super) cluster: &'a LocalCluster,
    pub(super) host: &'a Arc<Host>,
    /// From the request's last byte to the response's last; `None` is for ever.
    pub(super) timeout: Option<Duration>,
    pub(super) deadlines: &'a Deadlines,
    /// Tell the client how long the upstream took.
    pub(super) service_time: bool,
}

impl Attempt<'_> {
    /// Sends the request; a failure becomes a local reply, or a reset if the client is to blame.
    pub(super) async fn run(
        &self,
        request: Request,
        permit: Permit,
    ) -> Result<Response, StreamReset> {
        let Request { head, body, mut stream } = request;
        let sent = Instant::now();
        let cluster = self.cluster.cluster();
        let mut timer = None;
        let outcome = {
            let mut send = pin!(self.cluster.send(self.host, permit, head, body));
            std::future::poll_fn(|cx| {
                if let Poll::Ready(outcome) = send.as_mut().poll(cx) {
                    return Poll::Ready(Ok(outcome));
                }
                self.poll_timer(cx, &stream, &mut timer).map(Err)
            })
            .await
        };
        let now = Instant::now();
        let (mut head, body) = match outcome {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return refuse(error, stream),
            Err(limit) => {
                let reply = match limit {
                    Limit::Timeout => {
                        cluster.stats.upstream_rq_timeout.inc();
                        LocalReply::upstream_timeout()
                    }
                    Limit::Idle => LocalReply::stream_idle_timeout(true),
                };
                cluster.stats.count_response(reply.status());
                return Ok(reply.into_response(stream));
            }
        };
        stream.upstream_first_byte = Some(now);
        stream.details = "via_upstream";
        stream.response_deadline = match timer {
            Some((deadline, Limit::Timeout)) => Some(deadline),
            _ => self.timeout.map(|timeout| self.deadlines.at(now + timeout)),
        }
        .filter(|_| stream.request_complete());
        if head.headers.keys().any(is_hop_by_hop) {
            strip_hop_by_hop(&mut head.headers);
        }
        if self.service_time {
            let ms = u64::try_from((now - sent).as_millis()).unwrap_or(u64::MAX);
            head.headers.insert(X_ENVOY_UPSTREAM_SERVICE_TIME, milliseconds(ms));
        }
        Ok(Response { head, body, stream })
    }

    /// Ready once a limit has passed. They start when the request has arrived whole; until then the
    /// body times itself.
    fn poll_timer(
        &self,
        cx: &mut Context<'_>,
        stream: &StreamInfo,
        timer: &mut Option<(Deadline, Limit)>,
    ) -> Poll<Limit> {
        if timer.is_none() {
            let start = match &stream.request_body {
                None => stream.start,
                Some(body) => {
                    // Registered first: the body may finish between the two lines.
                    body.wake_when_complete(cx.waker());
                    if !body.is_complete() {
                        return Poll::Pending;
                    }
                    Instant::now()
                }
            };
            let limits = [(self.timeout, Limit::Timeout), (stream.idle_timeout, Limit::Idle)];
            let first = limits.into_iter().filter_map(|(after, limit)| Some((after?, limit)));
            if let Some((after, limit)) = first.min_by_key(|(after, _)| *after) {
                *timer = Some((self.deadlines.at(start + after), limit));
            }
        }
        match timer {
            Some((deadline, limit)) => Pin::new(deadline).poll(cx).map(|()| *limit),
            None => Poll::Pending,
        }
    }
}

/// What an exchange ran into.
#[derive(Debug, Clone, Copy)]
enum Limit {
    /// The route's timeout.
    Timeout,
    /// The stream's idle timeout.
    Idle,
}

/// Most answers come within milliseconds, whose header values are not worth an allocation.
fn milliseconds(ms: u64) -> HeaderValue {
    const SMALL: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
    match usize::try_from(ms).ok().and_then(|ms| SMALL.get(ms)) {
        Some(text) => HeaderValue::from_static(text),
        None => HeaderValue::from(ms),
    }
}

fn refuse(error: UpstreamError, mut stream: Box<StreamInfo>) -> Result<Response, StreamReset> {
    if let UpstreamError::RequestBody(RequestBodyError::Connection) = error {
        // The client left while it was sending: nobody is there to be answered.
        stream.flags.set(ResponseFlag::DownstreamConnectionTermination);
        stream.details = "downstream_remote_disconnect";
        return Err(StreamReset { stream });
    }
    Ok(error.reply().into_response(stream))
}
