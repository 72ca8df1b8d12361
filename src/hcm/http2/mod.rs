//! HTTP/2 as clients speak it (RFC 9113): one future a connection, which is all its streams are.
//!
//! ```text
//! receive.rs   bytes -> frames -> streams; the header block under way   frame.rs, hpack, head.rs
//! streams.rs   each stream's exchange, polled when its own waker was called   wake.rs
//! send.rs      heads and bodies in turns, one frame a stream a turn   answer.rs, output.rs
//! ```
//!
//! No stream has a task, and no frame a write of its own: what was woken is polled, what is ready then
//! leaves together. Memory is bounded by windows, by the number of streams and by how much may wait to be
//! sent; what a client may cost beside is watched by `flood.rs`.

mod answer;
mod close;
mod flood;
mod flow;
mod frame;
mod head;
mod hpack;
mod inbound;
mod output;
mod receive;
mod requests;
mod send;
mod settings;
pub mod stats;
mod streams;
mod wake;

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};

use self::answer::Heads;
use self::close::{Keepalive, Phase, Stuck};
use self::flood::Watch;
use self::flow::Window;
use self::frame::{MAX_31_BITS, MAX_FRAME_SIZE, Reason, SETTINGS, WINDOW_UPDATE, put_numbers};
use self::hpack::Decoder;
use self::output::Output;
use self::receive::Block;
use self::settings::{DEFAULT_WINDOW, put_own};
use self::streams::Streams;
use self::wake::{Calls, News};
use super::codec::{Codable, Ended};
use super::connection::ConnectionHandle;
use crate::exchange::deadline::Deadline;

pub use flood::FloodLimits;

/// Times in a row that a connection reads and writes before others have their turn.
const TURNS: usize = 4;

/// How a connection ended that did not end well.
#[derive(Debug, Error)]
pub(super) enum Failure {
    /// The client broke the protocol.
    #[error("{0}: {1}")]
    Protocol(Reason, &'static str),
    /// The client did not answer a ping.
    #[error("a ping was not answered")]
    Silent,
    /// The socket failed.
    #[error("the socket failed: {0}")]
    Io(#[from] io::Error),
}

/// A connection with a client.
pub(super) struct Http2Connection<S> {
    io: S,
    handle: Arc<ConnectionHandle>,
    phase: Phase,
    /// Bytes received and not yet read.
    input: BytesMut,
    /// Whole frames may be among them.
    has_unread: bool,
    /// The last read filled its buffer.
    is_bulk: bool,
    /// The client has said that it leaves.
    client_leaves: bool,
    greeting: receive::Greeting,
    block: Option<Block>,
    decoder: Decoder,
    heads: Heads,
    output: Output,
    /// The client takes nothing at the moment.
    stuck: Option<Stuck>,
    streams: Streams,
    calls: Arc<Calls>,
    /// Where what they said is looked at; empty between two looks.
    news: News,
    /// When a connection without streams gives back what they took.
    rest: Option<Deadline>,
    /// Slots that may have something to send, in turns.
    sendable: VecDeque<usize>,
    /// Slots that wait for the connection's window.
    starved: VecDeque<usize>,
    /// The newest stream of the client.
    last_id: u32,
    /// Bytes that the client takes on all streams together.
    send_window: i64,
    /// What it takes on a new stream.
    initial_send_window: u32,
    /// Bytes of one DATA frame.
    max_data: usize,
    receive: Window,
    watch: Watch,
    keepalive: Option<Box<Keepalive>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Http2Connection<S> {
    /// A connection whose first bytes were read already.
    pub(super) fn new(io: S, peeked: BytesMut, handle: Arc<ConnectionHandle>) -> Self {
        let config = &handle.hcm.config;
        let options = &config.http2;
        let mut output = Output::default();
        put_own(output.frame(SETTINGS), config);
        let window = options.initial_connection_window_size;
        if let Some(more @ 1..) = window.checked_sub(DEFAULT_WINDOW) {
            put_numbers(output.frame(WINDOW_UPDATE), WINDOW_UPDATE, 0, &[more]);
        }
        Self {
            io,
            phase: Phase::Open,
            has_unread: !peeked.is_empty(),
            is_bulk: false,
            client_leaves: false,
            input: peeked,
            greeting: receive::Greeting::default(),
            block: None,
            decoder: Decoder::new(),
            heads: Heads::new(),
            output,
            stuck: None,
            streams: Streams::new(),
            calls: Arc::default(),
            news: News::default(),
            rest: None,
            sendable: VecDeque::new(),
            starved: VecDeque::new(),
            last_id: 0,
            send_window: i64::from(DEFAULT_WINDOW),
            initial_send_window: DEFAULT_WINDOW,
            max_data: MAX_FRAME_SIZE,
            receive: Window::new(window),
            watch: Watch::new(options.flood),
            keepalive: options.keepalive.map(|times| Box::new(Keepalive::new(times, &handle))),
            handle,
        }
    }

    /// Reads, polls what was woken, writes; as long as there is something to do and others may wait.
    fn turns(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        for _ in 0..TURNS {
            if let Some(ended) = self.poll_closing(cx) {
                return ended;
            }
            let received = self.poll_receive(cx);
            self.poll_times(cx);
            self.attend();
            self.fill();
            self.close_if_done();
            if let Err(error) = self.poll_send(cx) {
                return Poll::Ready(Err(self.lost(error)));
            }
            if self.phase.is_closing() {
                continue;
            }
            let can_send = self.stuck.is_none() && !self.sendable.is_empty();
            if received.is_pending() && !can_send && self.calls.rest() {
                return Poll::Pending;
            }
            self.calls.begin(cx);
        }
        // The runtime looks at its sockets before it goes on here. A bare wake would make it do so once in
        // dozens of turns.
        if pin!(tokio::task::yield_now()).poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Sends what waits, as far as the client takes it.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.output.poll_send(&mut self.io, cx) {
            Poll::Ready(sent) => {
                self.stuck = None;
                sent
            }
            Poll::Pending => {
                let passed = self.output.passed();
                if self.stuck.as_ref().is_none_or(|stuck| stuck.passed != passed) {
                    let mut stuck = Stuck::new(passed, self.handle());
                    if let Some(until) = &mut stuck.until
                        && Pin::new(until).poll(cx).is_ready()
                    {
                        cx.waker().wake_by_ref();
                    }
                    self.stuck = Some(stuck);
                }
                Ok(())
            }
        }
    }
}

impl<S> Http2Connection<S> {
    /// Takes no more streams, and ends when those that began have.
    fn graceful_shutdown(&mut self) {
        if matches!(self.phase, Phase::Open) {
            self.announce_end(MAX_31_BITS);
        }
    }

    fn handle(&self) -> &ConnectionHandle {
        &self.handle
    }

    fn stats(&self) -> &stats::Http2Stats {
        &self.handle.hcm.config.http2_stats
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for Http2Connection<S> {
    type Output = Ended;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        this.calls.begin(cx);
        let ended = this.turns(cx);
        // A connection that waits keeps no buffer.
        if this.input.is_empty() {
            this.input = BytesMut::new();
        }
        if this.streams.is_empty() && (this.streams.is_large() || this.output.is_large()) {
            this.rest_later(cx);
        }
        ended.map(|ended| match ended {
            Ok(()) => Ended::Well,
            Err(Failure::Io(error)) => Ended::Io(error),
            Err(failure) => Ended::Http2(failure),
        })
    }
}

impl<S> Codable for Box<Http2Connection<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    fn graceful_shutdown(mut self: Pin<&mut Self>) {
        Http2Connection::graceful_shutdown(&mut self);
    }
}

impl<S> Drop for Http2Connection<S> {
    fn drop(&mut self) {
        self.cut_all();
    }
}
