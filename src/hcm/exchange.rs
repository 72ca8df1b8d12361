//! From a codec's request to the response it sends: the future of one exchange, and the body that closes
//! its books.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Version};
use http_body::{Body as _, Frame, SizeHint};
use thiserror::Error;
use tokio::time::Instant;

use super::connection::ConnectionHandle;
use super::{request, respond};
use crate::exchange::deadline::{Deadline, Deadlines};
use crate::exchange::{
    Body, BodyError, LocalReply, Response, ResponseFlag, ResponseFuture, StreamInfo,
};
use crate::net::FileCopy;

impl ConnectionHandle {
    /// Sends a request through the filters.
    pub(super) fn exchange(self: &Arc<Self>, request: http::Request<Body>) -> Exchange {
        let (in_flight, facts) = self.begin(request.method(), request.version());
        let state = match request::begin(self, request) {
            Ok(request) => {
                let request_id = respond::request_id(&self.hcm.config, &request.head);
                State::Chain { answer: self.hcm.chain.send(request), request_id }
            }
            Err(response) => State::Answered(Some(response)),
        };
        Exchange { state, in_flight: Some(in_flight), facts }
    }

    /// Answers what a codec could not read as a request.
    pub(super) fn refuse(self: &Arc<Self>, version: Version, reply: LocalReply) -> Exchange {
        let (in_flight, facts) = self.begin(&Method::GET, version);
        let response = request::refused(self, facts.version, reply);
        Exchange {
            state: State::Answered(Some(Box::new(response))),
            in_flight: Some(in_flight),
            facts,
        }
    }

    fn begin(self: &Arc<Self>, method: &Method, version: Version) -> (InFlight, Facts) {
        let number = self.connection.begin_request();
        let in_flight = InFlight { handle: Arc::clone(self), ended: None };
        (in_flight, Facts { number, is_head: *method == Method::HEAD, version })
    }
}

/// The stream cannot be answered; its codec resets it or closes the connection.
#[derive(Debug, Error)]
#[error("the stream was reset: {0}")]
pub(super) struct Reset(&'static str);

/// What the answer must know of its request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    /// Which request of its connection this is, from 1.
    pub(super) number: u32,
    pub(super) is_head: bool,
    pub(super) version: Version,
}

/// A request in flight.
pub(super) struct Exchange {
    state: State,
    in_flight: Option<InFlight>,
    facts: Facts,
}

enum State {
    Chain {
        answer: ResponseFuture,
        request_id: Option<http::HeaderValue>,
    },
    /// Answered without the chain.
    Answered(Option<Box<Response>>),
}

impl Future for Exchange {
    type Output = Result<http::Response<TrackedBody>, Reset>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let (response, request_id) = match &mut this.state {
            State::Chain { answer, request_id } => loop {
                let reset = match std::task::ready!(answer.as_mut().poll(cx)) {
                    Ok(response) => break (response, request_id.take()),
                    Err(reset) => reset,
                };
                match (reset.into_request(), &this.in_flight) {
                    (Ok(request), Some(in_flight)) => {
                        *answer = in_flight.handle.hcm.chain.send(request);
                    }
                    (Ok(request), None) => return Poll::Ready(Err(Reset(request.stream.details))),
                    (Err(reset), in_flight) => {
                        if let Some(in_flight) = in_flight {
                            in_flight.handle.hcm.config.stats.downstream_rq_tx_reset.inc();
                        }
                        return Poll::Ready(Err(Reset(reset.stream.details)));
                    }
                }
            },
            State::Answered(response) => match response.take() {
                Some(response) => (*response, None),
                None => return Poll::Ready(Err(Reset("polled after it was answered"))),
            },
        };
        match this.in_flight.take() {
            Some(in_flight) => {
                Poll::Ready(Ok(respond::finish(in_flight, this.facts, response, request_id)))
            }
            None => Poll::Ready(Err(Reset("polled after it was answered"))),
        }
    }
}

/// Counts a request as in flight on its connection until it is dropped.
pub(super) struct InFlight {
    pub(super) handle: Arc<ConnectionHandle>,
    /// When the request ended, if whoever ended it looked at the clock.
    ended: Option<Instant>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let ended = self.ended.unwrap_or_else(Instant::now);
        let life = ended.saturating_duration_since(self.handle.start);
        self.handle.connection.end_request(life);
    }
}

/// A response's body on its way to the client. Its end or its drop, whichever comes first, is the end
/// of the exchange.
pub(super) struct TrackedBody {
    body: Body,
    stream: Box<StreamInfo>,
    idle: Option<Deadline>,
    /// Bytes that the client had sent when `idle` was set.
    heard: u64,
    /// The end of the stream's life, once it was looked for.
    life: Option<Deadline>,
    in_flight: InFlight,
}

impl TrackedBody {
    pub(super) fn new(body: Body, mut stream: Box<StreamInfo>, in_flight: InFlight) -> Self {
        stream.complete = body.is_end_stream();
        Self { body, stream, idle: None, heard: 0, life: None, in_flight }
    }

    /// How long nothing may move on the stream.
    pub(super) fn idle_timeout(&self) -> Option<Duration> {
        self.stream.idle_timeout
    }

    /// The client took nothing for too long: its stream is about to be reset.
    pub(super) fn stalled(&mut self) {
        self.stream.complete = false;
        self.stream.flags.set(ResponseFlag::StreamIdleTimeout);
        self.stream.details = "stream_idle_timeout";
    }

    /// The same bytes in a file, if they are in one.
    pub(super) fn take_copy(&mut self) -> Option<Arc<FileCopy>> {
        Arc::downcast(self.stream.body_copy.take()?).ok()
    }

    /// Bytes of the request's body so far.
    fn heard_now(&self) -> u64 {
        self.stream.request_body.as_ref().map_or(0, |body| body.bytes())
    }

    fn deadlines(&self) -> &Deadlines {
        &self.in_flight.handle.hcm.cx.deadlines
    }

    /// The body waits for its upstream: has it waited too long?
    fn poll_timers(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(deadline) = &mut self.stream.response_deadline
            && Pin::new(deadline).poll(cx).is_ready()
        {
            self.stream.flags.set(ResponseFlag::UpstreamRequestTimeout);
            self.stream.details = "response_timeout";
            return Poll::Ready(());
        }
        if let (None, Some(after)) = (&self.life, self.stream.max_duration) {
            self.life = Some(self.deadlines().at(self.stream.start + after));
        }
        if let Some(life) = &mut self.life
            && Pin::new(life).poll(cx).is_ready()
        {
            self.stream.flags.set(ResponseFlag::DurationTimeout);
            self.stream.details = "max_duration_timeout";
            return Poll::Ready(());
        }
        if let (None, Some(timeout)) = (&self.idle, self.stream.idle_timeout) {
            self.idle = Some(self.deadlines().at(Instant::now() + timeout));
            self.heard = self.heard_now();
        }
        loop {
            let Some(idle) = &mut self.idle else { return Poll::Pending };
            if Pin::new(idle).poll(cx).is_pending() {
                return Poll::Pending;
            }
            // Perhaps it was the client that spoke.
            let heard = self.heard_now();
            if heard == self.heard {
                break;
            }
            self.heard = heard;
            let timeout = self.stream.idle_timeout;
            self.idle = timeout.map(|timeout| self.deadlines().at(Instant::now() + timeout));
        }
        self.stream.flags.set(ResponseFlag::StreamIdleTimeout);
        self.stream.details = "stream_idle_timeout";
        Poll::Ready(())
    }
}

impl http_body::Body for TrackedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let frame = match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                return this.poll_timers(cx).map(|()| {
                    this.body = Body::Empty;
                    Some(Err(BodyError::Timeout))
                });
            }
        };
        match &frame {
            Some(Ok(frame)) => {
                this.idle = None;
                if let Some(data) = frame.data_ref() {
                    this.stream.bytes_sent += data.len() as u64;
                }
                this.stream.complete = this.body.is_end_stream();
            }
            Some(Err(_)) => {
                // An upstream whose request breaks off cannot but end its response.
                let request = this.stream.request_body.as_ref();
                let (flag, details) = match request.is_some_and(|body| body.is_broken()) {
                    true => (
                        ResponseFlag::DownstreamConnectionTermination,
                        "downstream_remote_disconnect",
                    ),
                    false => (
                        ResponseFlag::UpstreamConnectionTermination,
                        "upstream_reset_after_response_started",
                    ),
                };
                this.stream.flags.set(flag);
                this.stream.details = details;
            }
            None => this.stream.complete = true,
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

impl Drop for TrackedBody {
    fn drop(&mut self) {
        let now = Some(Instant::now());
        self.stream.ended = now;
        self.in_flight.ended = now;
        if !self.stream.complete && self.stream.flags.is_empty() {
            self.stream.flags.set(ResponseFlag::DownstreamConnectionTermination);
            self.stream.details = "downstream_remote_disconnect";
        }
    }
}
