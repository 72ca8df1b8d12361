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
use crate::exchange::{
    BodyError, LocalReply, Request, Response, ResponseFlag, StreamInfo, StreamReset,
};
use crate::upstream::{Cluster, Host, LocalCluster, Permit, UpstreamError};

/// What one try needs.
pub(super) struct Attempt<'a> {
    pub(super) cluster: &'a Arc<LocalCluster>,
    pub(super) host: &'a Arc<Host>,
    pub(super) permit: Permit,
    /// From the request's last byte to the response's last; `None` is for ever.
    pub(super) timeout: Option<Duration>,
    pub(super) deadlines: &'a Deadlines,
    /// Tell the client how long the upstream took.
    pub(super) service_time: bool,
}

impl Attempt<'_> {
    /// Sends the request; a failure becomes a local reply, or a reset if the client is to blame.
    pub(super) async fn run(self, request: Request) -> Result<Response, StreamReset> {
        let Request { head, body, mut stream } = request;
        let sent = Instant::now();
        let cluster = Arc::clone(self.cluster.cluster());
        let mut deadline = None;
        let outcome = {
            let mut send = pin!(self.cluster.send(self.host, head, body));
            std::future::poll_fn(|cx| {
                if let Poll::Ready(outcome) = send.as_mut().poll(cx) {
                    return Poll::Ready(Some(outcome));
                }
                match self.poll_timeout(cx, &stream, &mut deadline) {
                    Poll::Ready(()) => Poll::Ready(None),
                    Poll::Pending => Poll::Pending,
                }
            })
            .await
        };
        let now = Instant::now();
        let (mut head, body) = match outcome {
            Some(Ok(answer)) => answer,
            Some(Err(error)) => return refuse(error, stream),
            None => {
                cluster.stats().upstream_rq_timeout.inc();
                return Ok(LocalReply::upstream_timeout().into_response(stream));
            }
        };
        stream.upstream_first_byte = Some(now);
        stream.details = "via_upstream";
        stream.response_deadline = deadline;
        cluster.stats().count_response(head.status);
        stream.held = Some(Box::new(InUse { _permit: self.permit, cluster, sent }));
        if head.headers.keys().any(is_hop_by_hop) {
            strip_hop_by_hop(&mut head.headers);
        }
        if self.service_time {
            let ms = u64::try_from((now - sent).as_millis()).unwrap_or(u64::MAX);
            head.headers.insert(X_ENVOY_UPSTREAM_SERVICE_TIME, milliseconds(ms));
        }
        Ok(Response { head, body, stream })
    }

    /// Ready once the timeout has passed; it starts when the request has arrived whole.
    fn poll_timeout(
        &self,
        cx: &mut Context<'_>,
        stream: &StreamInfo,
        deadline: &mut Option<Deadline>,
    ) -> Poll<()> {
        let Some(timeout) = self.timeout else { return Poll::Pending };
        if deadline.is_none() {
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
            *deadline = Some(self.deadlines.at(start + timeout));
        }
        match deadline {
            Some(deadline) => Pin::new(deadline).poll(cx),
            None => Poll::Pending,
        }
    }
}

/// Most answers come within milliseconds, whose header values are not worth an allocation.
fn milliseconds(ms: u64) -> HeaderValue {
    const SMALL: [HeaderValue; 8] = [
        HeaderValue::from_static("0"),
        HeaderValue::from_static("1"),
        HeaderValue::from_static("2"),
        HeaderValue::from_static("3"),
        HeaderValue::from_static("4"),
        HeaderValue::from_static("5"),
        HeaderValue::from_static("6"),
        HeaderValue::from_static("7"),
    ];
    match usize::try_from(ms).ok().and_then(|ms| SMALL.get(ms)) {
        Some(value) => value.clone(),
        None => HeaderValue::from(ms),
    }
}

fn refuse(error: UpstreamError, mut stream: Box<StreamInfo>) -> Result<Response, StreamReset> {
    match error {
        UpstreamError::RequestBody(BodyError::TooLarge { .. }) => {
            Ok(LocalReply::payload_too_large().into_response(stream))
        }
        UpstreamError::RequestBody(BodyError::Timeout) => {
            Ok(LocalReply::request_timeout().into_response(stream))
        }
        UpstreamError::RequestBody(_) => {
            // The client left while it was sending: nobody is there to be answered.
            stream.flags.set(ResponseFlag::DownstreamConnectionTermination);
            stream.details = "downstream_remote_disconnect";
            Err(StreamReset { stream })
        }
        error => Ok(error.reply().into_response(stream)),
    }
}

/// What an exchange holds of its upstream until the response's end.
struct InUse {
    _permit: Permit,
    cluster: Arc<Cluster>,
    sent: Instant,
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.cluster.stats().upstream_rq_time.record(self.sent.elapsed());
    }
}
