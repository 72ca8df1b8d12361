//! How a connection ends: announced, because it broke, or because nobody is there.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::Instant;

use super::frame::{GOAWAY, PING, Reason, put_head, put_numbers};
use super::wake::News;
use super::{Failure, Http2Connection};
use crate::exchange::deadline::Deadline;
use crate::hcm::connection::ConnectionHandle;

/// How long a connection that is over waits for its client to take the last frames, and to close.
const LINGER: Duration = Duration::from_secs(1);

/// How long a connection without streams keeps what the next ones may need.
const REST_AFTER: Duration = Duration::from_secs(1);

/// What the ping says that follows the announcement of an end.
const LAST_CALL: [u8; 8] = *b"lastcall";

/// What pings say that ask whether somebody is there.
const STILL_THERE: [u8; 8] = *b"are you?";

/// What a connection is about.
pub(super) enum Phase {
    /// Streams come and go.
    Open,
    /// The end was announced; streams that the client began before it knew are still taken.
    Announced,
    /// Streams up to this one end, and none begins.
    Ending { last: u32 },
    /// It is over, but for what is to be sent.
    Closing(Box<Closing>),
    /// It is over.
    Gone(Option<Failure>),
}

/// The last moments of a connection.
pub(super) struct Closing {
    failure: Option<Failure>,
    until: Deadline,
    /// Our side is closed.
    is_shut: bool,
}

impl Phase {
    pub(super) fn is_closing(&self) -> bool {
        matches!(self, Self::Closing(_) | Self::Gone(_))
    }
}

/// What waits cannot be sent.
pub(super) struct Stuck {
    /// When some of it must have been.
    pub(super) until: Option<Deadline>,
    /// Bytes sent before.
    pub(super) passed: u64,
}

impl Stuck {
    pub(super) fn new(passed: u64, handle: &ConnectionHandle) -> Self {
        let after = handle.hcm.config.timeouts.stream_idle;
        let until = after.map(|after| handle.hcm.cx.deadlines.at(Instant::now() + after));
        Self { until, passed }
    }
}

/// `connection_keepalive`
pub(super) struct Keepalive {
    interval: Duration,
    timeout: Duration,
    /// When to ask, or when the answer must be here.
    at: Deadline,
    is_asked: bool,
}

impl Keepalive {
    pub(super) fn new(
        (interval, timeout): (Duration, Duration),
        handle: &ConnectionHandle,
    ) -> Self {
        let at = handle.hcm.cx.deadlines.at(Instant::now() + interval);
        Self { interval, timeout, at, is_asked: false }
    }
}

impl<S> Http2Connection<S> {
    /// Ends all streams.
    pub(super) fn cut_all(&mut self) {
        for slot in self.streams.all() {
            self.finish(slot, false);
        }
    }

    fn put_goaway(&mut self, last: u32, reason: Reason) {
        put_numbers(self.output.frame(GOAWAY), GOAWAY, 0, &[last, reason.0]);
        self.stats().goaway_sent.inc();
    }

    fn put_ping(&mut self, payload: [u8; 8]) {
        let out = self.output.frame(PING);
        put_head(out, payload.len(), (PING, 0), 0);
        out.extend_from_slice(&payload);
    }

    /// Tells the client to begin no more streams. A ping follows: once it is answered, the client knew.
    pub(super) fn announce_end(&mut self, last: u32) {
        self.put_goaway(last, Reason::NO_ERROR);
        self.put_ping(LAST_CALL);
        self.phase = Phase::Announced;
    }

    /// A ping was answered.
    pub(super) fn on_pong(&mut self, payload: &[u8]) {
        if payload == LAST_CALL && matches!(self.phase, Phase::Announced) {
            self.put_goaway(self.last_id, Reason::NO_ERROR);
            self.phase = Phase::Ending { last: self.last_id };
        }
        if payload == STILL_THERE
            && let Some(keepalive) = &mut self.keepalive
        {
            keepalive.is_asked = false;
            keepalive.at.reset(Instant::now() + keepalive.interval);
        }
    }

    /// The client broke the protocol: it is told so, and nothing more.
    pub(super) fn fail(&mut self, reason: Reason, what: &'static str) {
        if !self.phase.is_closing() {
            self.cut_all();
            self.put_goaway(self.last_id, reason);
            self.close(Some(Failure::Protocol(reason, what)));
        }
    }

    /// Ends when what waits was sent.
    fn close(&mut self, failure: Option<Failure>) {
        let until = self.handle().hcm.cx.deadlines.at(Instant::now() + LINGER);
        self.phase = Phase::Closing(Box::new(Closing { failure, until, is_shut: false }));
    }

    /// The client is gone; streams it did not end are cut.
    pub(super) fn gone(&mut self, failure: Option<Failure>) {
        self.cut_all();
        self.phase = Phase::Gone(failure);
    }

    /// The socket failed.
    pub(super) fn lost(&mut self, error: io::Error) -> Failure {
        self.gone(None);
        Failure::Io(error)
    }

    pub(super) fn close_if_done(&mut self) {
        let is_last = matches!(self.phase, Phase::Ending { .. })
            || matches!(self.phase, Phase::Open) && self.client_leaves;
        if is_last && self.streams.is_empty() {
            self.close(None);
        }
    }

    /// Gives back what streams took, unless others come soon.
    pub(super) fn rest_later(&mut self, cx: &mut Context<'_>) {
        if self.rest.is_none() && !self.phase.is_closing() {
            let at = Instant::now() + REST_AFTER;
            let rest = self.rest.insert(self.handle.hcm.cx.deadlines.at(at));
            if Pin::new(rest).poll(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
        }
    }

    fn shrink(&mut self) {
        if self.streams.is_empty() {
            self.output.shrink();
            self.streams.shrink();
            self.calls.shrink();
            self.news = News::default();
            self.sendable = VecDeque::new();
            self.starved = VecDeque::new();
        }
    }

    /// Looks at what must happen in time.
    pub(super) fn poll_times(&mut self, cx: &mut Context<'_>) {
        if let Some(keepalive) = &mut self.keepalive
            && Pin::new(&mut keepalive.at).poll(cx).is_ready()
        {
            if keepalive.is_asked {
                self.stats().keepalive_timeout.inc();
                return self.gone(Some(Failure::Silent));
            }
            keepalive.is_asked = true;
            keepalive.at.reset(Instant::now() + keepalive.timeout);
            let _registered = Pin::new(&mut keepalive.at).poll(cx);
            self.put_ping(STILL_THERE);
        }
        if let Some(block) = &mut self.block
            && let Some(deadline) = &mut block.deadline
            && Pin::new(deadline).poll(cx).is_ready()
        {
            self.handle().hcm.config.stats.downstream_rq_header_timeout.inc();
            return self.fail(Reason::ENHANCE_YOUR_CALM, "a header block took too long");
        }
        if let Some(rest) = &mut self.rest
            && Pin::new(rest).poll(cx).is_ready()
        {
            self.rest = None;
            self.shrink();
        }
        if let Some(Stuck { until: Some(until), .. }) = &mut self.stuck
            && Pin::new(until).poll(cx).is_ready()
        {
            self.stats().tx_flush_timeout.inc();
            self.gone(Some(Failure::Io(io::ErrorKind::TimedOut.into())));
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Http2Connection<S> {
    /// What a connection does that is over; `None` if it is not.
    ///
    /// The client closes last: what it sent and we did not read would make the system take back what we
    /// sent and it did not read.
    pub(super) fn poll_closing(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Option<Poll<Result<(), Failure>>> {
        let closing = match &mut self.phase {
            Phase::Open | Phase::Announced | Phase::Ending { .. } => return None,
            Phase::Gone(failure) => return Some(Poll::Ready(failure.take().map_or(Ok(()), Err))),
            Phase::Closing(closing) => closing,
        };
        let is_late = Pin::new(&mut closing.until).poll(cx).is_ready();
        if is_late || poll_last(&mut self.output, &mut self.io, closing, cx).is_ready() {
            return Some(Poll::Ready(closing.failure.take().map_or(Ok(()), Err)));
        }
        Some(Poll::Pending)
    }
}

/// Sends the rest, and waits for the client to close.
fn poll_last<S: AsyncRead + AsyncWrite + Unpin>(
    output: &mut super::Output,
    io: &mut S,
    closing: &mut Closing,
    cx: &mut Context<'_>,
) -> Poll<()> {
    if !closing.is_shut {
        if std::task::ready!(output.poll_send(io, cx)).is_err() {
            return Poll::Ready(());
        }
        if std::task::ready!(Pin::new(&mut *io).poll_shutdown(cx)).is_err() {
            return Poll::Ready(());
        }
        closing.is_shut = true;
    }
    let mut unread = [0; 4096];
    while let 1.. = std::task::ready!(pin!(io.read(&mut unread)).poll(cx)).unwrap_or(0) {}
    Poll::Ready(())
}
