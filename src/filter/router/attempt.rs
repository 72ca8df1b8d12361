//! One try at one host: send, wait, and make an answer of what came back.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use http::header::UPGRADE;
use http::{HeaderValue, StatusCode};
use http_body::Body as _;
use tokio::time::Instant;

use super::idle_body::IdleBody;
use super::timers::{Limit, Timers};
use crate::exchange::headers::{X_ENVOY_UPSTREAM_SERVICE_TIME, is_hop_by_hop, strip_hop_by_hop};
use crate::exchange::{
    Body, LocalReply, RequestHead, Response, ResponseFlag, ResponseHead, StreamInfo, StreamReset,
};
use crate::upstream::outlier::Outcome;
use crate::upstream::{Cluster, Host, LocalCluster, Permit, RequestBodyError, UpstreamError};

/// Where one try goes.
pub(super) struct Attempt<'a> {
    pub(super) cluster: &'a LocalCluster,
    pub(super) host: &'a Arc<Host>,
    pub(super) stream: &'a StreamInfo,
}

/// What an upstream answered, and when.
pub(super) struct Answer {
    pub(super) head: ResponseHead,
    body: Body,
    sent: Instant,
    came: Instant,
}

/// What a connection makes of a request.
pub(super) type Sent = Result<(ResponseHead, Body), UpstreamError>;

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The upstream gave none.
    Upstream(UpstreamError),
    /// The route's timeout passed.
    Timeout,
    /// The stream was idle for too long.
    Idle,
    /// The try's own timeout passed.
    PerTry,
    /// Nothing came of the try for too long.
    PerTryIdle,
    /// The stream has lived too long.
    Duration,
}

impl From<Limit> for Failure {
    fn from(limit: Limit) -> Self {
        match limit {
            Limit::Timeout => Self::Timeout,
            Limit::Idle => Self::Idle,
            Limit::PerTry => Self::PerTry,
            Limit::PerTryIdle => Self::PerTryIdle,
            Limit::Duration => Self::Duration,
        }
    }
}

impl Attempt<'_> {
    /// Sends the request and waits for the head of its answer.
    pub(super) async fn run(
        &self,
        head: RequestHead,
        body: Body,
        permit: Permit,
        timers: &mut Timers<'_>,
    ) -> Result<Answer, Failure> {
        let sent = Instant::now();
        let outcome = {
            let mut send = pin!(self.cluster.send(self.host, permit, head, body));
            std::future::poll_fn(|cx| {
                if let Poll::Ready(outcome) = send.as_mut().poll(cx) {
                    return Poll::Ready(outcome.map_err(Failure::Upstream));
                }
                timers.poll(cx, self.stream, true).map(|limit| Err(limit.into()))
            })
            .await
        };
        timers.restart();
        if let Err(Failure::Timeout | Failure::PerTry | Failure::PerTryIdle) = &outcome {
            self.cluster.cluster().judge(self.host, Outcome::Timeout);
        }
        let (head, body) = outcome?;
        Ok(Answer::new(head, body, sent))
    }
}

impl Answer {
    /// An answer that came now.
    pub(super) fn new(head: ResponseHead, body: Body, sent: Instant) -> Self {
        Self { head, body, sent, came: Instant::now() }
    }

    /// The same with a body that must keep moving, if the route says so.
    pub(super) fn watched(mut self, timers: &Timers<'_>, cluster: &Arc<LocalCluster>) -> Self {
        if let Some((limit, deadlines)) = timers.body_idle()
            && !self.body.is_end_stream()
        {
            let cluster = Arc::clone(cluster);
            let body = IdleBody { body: self.body, limit, deadlines, waiting: None, cluster };
            self.body = Body::boxed(body);
        }
        self
    }

    /// The answer on its way to the client. `service_time` tells how long the upstream took.
    pub(super) fn into_response(
        self,
        mut stream: Box<StreamInfo>,
        timers: Timers<'_>,
        service_time: bool,
    ) -> Response {
        let Self { mut head, body, sent, came } = self;
        stream.upstream_first_byte = Some(came);
        stream.details = "via_upstream";
        stream.response_deadline = timers.response_deadline(&stream, came);
        if head.headers.keys().any(is_hop_by_hop) {
            let switched = head.status == StatusCode::SWITCHING_PROTOCOLS;
            let protocol = head.headers.get(UPGRADE).filter(|_| switched).cloned();
            strip_hop_by_hop(&mut head.headers);
            if let Some(protocol) = protocol {
                head.headers.insert(UPGRADE, protocol);
            }
        }
        if service_time {
            let ms = u64::try_from((came - sent).as_millis()).unwrap_or(u64::MAX);
            head.headers.insert(X_ENVOY_UPSTREAM_SERVICE_TIME, milliseconds(ms));
        }
        Response { head, body, stream }
    }
}

impl Failure {
    /// The answer to give instead, or a reset if the client is to blame. Timeouts are counted here.
    /// With `alt_response` a timeout is told by 204 (`x-envoy-upstream-rq-timeout-alt-response`).
    pub(super) fn into_response(
        self,
        mut stream: Box<StreamInfo>,
        cluster: &Cluster,
        alt_response: bool,
    ) -> Result<Response, StreamReset> {
        let is_timeout = matches!(self, Self::Timeout | Self::PerTry | Self::PerTryIdle);
        let reply = match self {
            Self::Upstream(UpstreamError::RequestBody(RequestBodyError::Connection)) => {
                // The client left while it was sending: nobody is there to be answered.
                stream.flags.set(ResponseFlag::DownstreamConnectionTermination);
                stream.details = "downstream_remote_disconnect";
                return Err(StreamReset::new(stream));
            }
            Self::Upstream(error) => return Ok(error.reply().into_response(stream)),
            Self::Timeout => {
                cluster.stats.upstream_rq_timeout.inc();
                LocalReply::upstream_timeout()
            }
            Self::Idle => LocalReply::stream_idle_timeout(true),
            Self::PerTry => LocalReply::per_try_timeout(),
            Self::PerTryIdle => LocalReply::per_try_idle_timeout(),
            Self::Duration => LocalReply::max_duration(stream.request_complete()),
        };
        let reply = match (alt_response, is_timeout) {
            (true, true) => reply.with_bare_status(StatusCode::NO_CONTENT),
            _ => reply,
        };
        cluster.stats.count_response(reply.status());
        Ok(reply.into_response(stream))
    }
}

/// Most answers come within milliseconds, whose header values are not worth an allocation.
fn milliseconds(ms: u64) -> HeaderValue {
    const SMALL: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
    match usize::try_from(ms).ok().and_then(|ms| SMALL.get(ms)) {
        Some(text) => HeaderValue::from_static(text),
        None => HeaderValue::from(ms),
    }
}
