//! HTTP/1.1 with a client: one request after the other, each answered before the next is looked at.
//!
//! ```text
//! decode   bytes as a request's head, and where its body ends
//! input    the reading half, which a request's body has until it ends
//! encode   a response's head and body as bytes to be written
//! interim  what is said between a request and its response
//! ```
//!
//! Everything of an exchange happens in the connection's task, but what another connection does with the
//! request's body.

mod decode;
mod encode;
mod input;
mod interim;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::time::Instant;

use self::decode::{Head, Limits, Refusal};
use self::encode::{Answer, Asked};
use self::input::{Broken, Input, Lent, RequestBody, Returned};
use self::interim::Interims;
use super::codec::{Codable, Ended};
use super::connection::ConnectionHandle;
use super::exchange::{Exchange, TrackedBody};
use crate::exchange::deadline::Deadline;
use crate::exchange::upgrade::WantsTunnel;
use crate::exchange::{Body, LocalReply};
use crate::http1::{BodyReader, Framing, Message};
use crate::net::{FromFiles, ShortWrites};

/// Bytes of a request's body that are read for nobody, to have the connection for the next request.
const DRAINED: usize = 64 * 1024;

/// How long a client may take to close a connection that we closed, before it is closed hard: Envoy's
/// `delayed_close_timeout`. What it still sends must not destroy what it has not read.
const LINGER: Duration = Duration::from_secs(1);

/// Requests answered in a row before others have their turn.
const MOST_AT_ONCE: u32 = 32;

/// A connection of a client.
pub(super) struct Http1 {
    handle: Arc<ConnectionHandle>,
    reader: Reader,
    write: ShortWrites<FromFiles>,
    state: State,
    /// When the head that has begun must be here, later when the client must have gone.
    deadline: Option<Deadline>,
    /// How much of a head that is not complete was looked at.
    looked_at: usize,
    /// No other request is taken.
    ending: bool,
}

/// Who has the reading half.
enum Reader {
    /// The connection, with what nobody wanted of the last request's body.
    Here(Input, Option<Box<BodyReader>>),
    /// The body of the request.
    Lent(Arc<Lent>),
    /// Nobody: a body broke off, and what comes next means nothing.
    Lost,
}

enum State {
    /// Between requests, or amid a head.
    Head,
    /// A request waits for its response.
    Waiting { exchange: Exchange, asked: Asked, interims: Interims },
    /// A response is written.
    Answering { message: Message<TrackedBody>, keep_alive: bool, is_tunnel: bool },
    /// The rest of a request's body is read for nobody; so much more may be.
    Draining { left: usize },
    /// All is said; the client closes next.
    Closing { is_shut: bool },
}

/// What comes after a step.
type Step = Poll<Option<Ended>>;

/// Go on with the next state.
const ON: Step = Poll::Ready(None);

impl Http1 {
    /// Speaks on a socket from which `peeked` was read.
    pub(super) fn new(socket: TcpStream, peeked: Bytes, handle: &Arc<ConnectionHandle>) -> Self {
        let (read, write) = socket.into_split();
        Self {
            handle: Arc::clone(handle),
            reader: Reader::Here(Input::new(read, peeked), None),
            write: ShortWrites(FromFiles::new(write)),
            state: State::Head,
            deadline: None,
            looked_at: 0,
            ending: false,
        }
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Step {
        let limits = Limits::of(&self.handle.hcm.config);
        let Reader::Here(input, _) = &mut self.reader else { return end(Ended::Well) };
        loop {
            if may_be_complete(&input.pending, self.looked_at)
                || limits.are_exceeded_by(input.pending.len())
            {
                match decode::head(&mut input.pending, limits) {
                    Ok(Some(head)) => {
                        (self.looked_at, self.deadline) = (0, None);
                        self.begin(head);
                        return ON;
                    }
                    Ok(None) => {}
                    Err(refusal) => return self.refuse(refusal),
                }
                self.looked_at = input.pending.len();
            }
            if self.ending && input.pending.is_empty() {
                return end(Ended::Well);
            }
            match input.poll_more(cx) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => return end(Ended::Well),
                Poll::Ready(Err(error)) => return end(Ended::Io(error)),
                Poll::Pending => break,
            }
        }
        let limit = self.handle.hcm.config.timeouts.request_headers;
        let Some(limit) = limit.filter(|_| !input.pending.is_empty()) else { return Poll::Pending };
        let deadlines = &self.handle.hcm.cx.deadlines;
        let deadline = self.deadline.get_or_insert_with(|| deadlines.at(Instant::now() + limit));
        ready!(Pin::new(deadline).poll(cx));
        self.handle.hcm.config.stats.downstream_rq_header_timeout.inc();
        self.answer_with(LocalReply::request_header_timeout())
    }

    /// Hands a request to the filters.
    fn begin(&mut self, head: Head) {
        let Head { mut parts, framing, keep_alive, expects_continue, wants_tunnel } = head;
        let proxies_continue = self.handle.hcm.config.proxy_100_continue;
        let asked = Asked {
            method: parts.method.clone(),
            is_http10: parts.version == http::Version::HTTP_10,
            keep_alive,
            wants_tunnel,
        };
        if wants_tunnel {
            parts.extensions.insert(WantsTunnel);
        }
        let mut interims = Interims::default();
        if proxies_continue && !asked.is_http10 {
            parts.extensions.insert(interims.sink(&self.handle.connection));
        }
        let (body, is_coming) = self.body(framing, expects_continue && proxies_continue);
        if expects_continue && !proxies_continue && is_coming {
            // Now, whatever becomes of the request, as with Envoy.
            interims.go_on();
        }
        let request = http::Request::from_parts(parts, body);
        let exchange = self.handle.exchange(request);
        self.state = State::Waiting { exchange, asked, interims };
    }

    /// The body of a request, and whether some of it is still to come.
    fn body(&mut self, framing: Framing, asks: bool) -> (Body, bool) {
        let mut input = match std::mem::replace(&mut self.reader, Reader::Lost) {
            Reader::Here(input, _) => input,
            other => {
                self.reader = other;
                return (Body::Empty, false);
            }
        };
        if let Framing::Length(length) = framing
            && let Ok(length) = usize::try_from(length)
            && length <= input.pending.len()
        {
            let body = Body::from(input.pending.split_to(length));
            self.reader = Reader::Here(input, None);
            return (body, false);
        }
        let trailers = self.handle.hcm.config.http1.trailers;
        let reader = BodyReader::new(framing, std::mem::take(&mut input.pending), trailers);
        let (body, lent) = RequestBody::new(input, reader, asks, &self.handle.connection);
        self.reader = Reader::Lent(lent);
        (Body::boxed(body), true)
    }

    fn refuse(&mut self, refusal: Refusal) -> Step {
        if let Refusal::Malformed(reason) = refusal {
            self.handle.hcm.config.stats.downstream_cx_protocol_error.inc();
            let peer = self.handle.downstream.remote;
            tracing::debug!(reason, %peer, "a request is malformed");
        }
        self.answer_with(refusal.reply())
    }

    /// Answers what is no request, and ends.
    fn answer_with(&mut self, reply: LocalReply) -> Step {
        self.deadline = None;
        self.looked_at = 0;
        let exchange = self.handle.refuse(http::Version::HTTP_11, reply);
        let method = http::Method::GET;
        let asked = Asked { method, is_http10: false, keep_alive: false, wants_tunnel: false };
        self.state = State::Waiting { exchange, asked, interims: Interims::default() };
        ON
    }

    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Step {
        let State::Waiting { exchange, .. } = &mut self.state else { return ON };
        let answer = Pin::new(exchange).poll(cx);
        self.take_back();
        let State::Waiting { asked, interims, .. } = &mut self.state else { return ON };
        match answer {
            Poll::Ready(Ok(mut response)) => {
                self.write.0.set_copy(response.body_mut().take_copy());
                asked.keep_alive &= !self.ending && !matches!(self.reader, Reader::Lost);
                let options = &self.handle.hcm.config.http1;
                let answer = encode::answer(response, asked, options, interims.rest());
                let Answer { message, keep_alive, is_tunnel } = answer;
                self.state = State::Answering { message, keep_alive, is_tunnel };
                ON
            }
            Poll::Ready(Err(reset)) => end(Ended::Reset(reset)),
            Poll::Pending => {
                if let Reader::Lent(lent) = &self.reader
                    && lent.take_asked_for()
                {
                    interims.go_on();
                }
                if let Err(error) = interims.write(cx, &mut self.write) {
                    return end(Ended::Io(error));
                }
                self.poll_gone(cx)
            }
        }
    }

    fn poll_answering(&mut self, cx: &mut Context<'_>) -> Step {
        let State::Answering { message, keep_alive, is_tunnel } = &mut self.state else {
            return ON;
        };
        match message.poll_send(cx, &mut self.write) {
            Poll::Ready(Ok(())) => {
                let goes_on = *keep_alive && !*is_tunnel;
                self.write.0.set_copy(None);
                // The books of the exchange are closed with its body.
                self.state = match goes_on {
                    true => State::Draining { left: DRAINED },
                    false => State::Closing { is_shut: false },
                };
                ON
            }
            // The client sees that it is not whole: there is no proper end, and no proper close.
            Poll::Ready(Err(error)) => end(Ended::Unsent(error)),
            // Who ends his direction of a tunnel may still listen.
            Poll::Pending if *is_tunnel => Poll::Pending,
            Poll::Pending => {
                self.take_back();
                self.poll_gone(cx)
            }
        }
    }

    /// Whether the client left amid an exchange. It may send its next request ahead, which is not read
    /// further than it takes to see that it is there.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Step {
        let Reader::Here(input, None) = &mut self.reader else { return Poll::Pending };
        if !input.pending.is_empty() {
            return Poll::Pending;
        }
        match ready!(input.poll_more(cx)) {
            Ok(true) => Poll::Pending,
            Ok(false) => end(Ended::Well),
            Err(error) => end(Ended::Io(error)),
        }
    }

    /// Takes the reading half from a body that is over or was dropped.
    fn take_back(&mut self) {
        let Reader::Lent(lent) = &self.reader else { return };
        let Some(Returned { mut input, rest, broken }) = lent.take() else { return };
        if broken == Some(Broken::Malformed) {
            self.handle.hcm.config.stats.downstream_cx_protocol_error.inc();
        }
        // A tunnel that was not opened had no body: what came is the next request.
        let is_over = rest.is_over() || *rest.framing() == Framing::Close;
        self.reader = match (broken.is_some(), is_over) {
            (true, _) => Reader::Lost,
            (false, true) => {
                input.pending = rest.into_input();
                Reader::Here(input, None)
            }
            (false, false) => Reader::Here(input, Some(Box::new(rest))),
        };
    }

    /// Reads what is left of a body that nobody wanted, so that the next request can be found behind it.
    fn poll_draining(&mut self, cx: &mut Context<'_>) -> Step {
        self.take_back();
        let State::Draining { left } = &mut self.state else { return ON };
        let unread = match &mut self.reader {
            Reader::Here(_, None) => {
                // It was for a body that was away; the next head has its own.
                self.deadline = None;
                self.state = State::Head;
                return ON;
            }
            Reader::Here(input, Some(rest)) => rest.poll_frame(cx, input),
            // Whoever has it gives it back, or is closed with the connection.
            Reader::Lent(_) => Poll::Pending,
            Reader::Lost => Poll::Ready(None),
        };
        match unread {
            Poll::Ready(Some(Ok(frame))) if *left > 0 => {
                *left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
                self.mend_reader();
                return ON;
            }
            Poll::Ready(None) if matches!(self.reader, Reader::Here(..)) => {
                self.mend_reader();
                return ON;
            }
            Poll::Ready(_) => {}
            Poll::Pending => ready!(self.poll_deadline(cx, LINGER)),
        }
        self.state = State::Closing { is_shut: false };
        ON
    }

    /// Makes the input ready for a head if the unread body is over.
    fn mend_reader(&mut self) {
        if let Reader::Here(input, unread) = &mut self.reader
            && let Some(rest) = unread.take_if(|rest| rest.is_over())
        {
            input.pending = rest.into_input();
            self.deadline = None;
        }
    }

    /// Waits for the client to see the end and to close: a close with unread bytes in it would make its
    /// system throw away what it has not read.
    fn poll_closing(&mut self, cx: &mut Context<'_>) -> Step {
        let State::Closing { is_shut } = &mut self.state else { return ON };
        if !*is_shut {
            if let Err(error) = ready!(Pin::new(&mut self.write).poll_shutdown(cx)) {
                return end(Ended::Io(error));
            }
            *is_shut = true;
            self.deadline = None;
        }
        self.take_back();
        if let Reader::Here(input, _) = &mut self.reader {
            loop {
                input.pending = Bytes::new();
                match input.poll_more(cx) {
                    Poll::Ready(Ok(true)) => {}
                    Poll::Ready(_) => return end(Ended::Well),
                    Poll::Pending => break,
                }
            }
        }
        ready!(self.poll_deadline(cx, LINGER));
        end(Ended::Well)
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>, limit: Duration) -> Poll<()> {
        let deadlines = &self.handle.hcm.cx.deadlines;
        let deadline = self.deadline.get_or_insert_with(|| deadlines.at(Instant::now() + limit));
        Pin::new(deadline).poll(cx)
    }

    /// Says to a body that is away whether the connection is being polled.
    fn watch(&self, is_watched: bool) {
        if let Reader::Lent(lent) = &self.reader {
            lent.watch(is_watched);
        }
    }
}

impl Future for Http1 {
    type Output = Ended;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ended> {
        let this = &mut *self;
        this.watch(true);
        let mut requests = 0;
        loop {
            let step = match &this.state {
                State::Head if requests == MOST_AT_ONCE => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                State::Head => {
                    requests += 1;
                    this.poll_head(cx)
                }
                State::Waiting { .. } => this.poll_waiting(cx),
                State::Answering { .. } => this.poll_answering(cx),
                State::Draining { .. } => this.poll_draining(cx),
                State::Closing { .. } => this.poll_closing(cx),
            };
            match step {
                Poll::Ready(None) => {}
                Poll::Ready(Some(ended)) => return Poll::Ready(ended),
                Poll::Pending => {
                    this.watch(false);
                    return Poll::Pending;
                }
            }
        }
    }
}

impl Codable for Http1 {
    fn graceful_shutdown(mut self: Pin<&mut Self>) {
        self.ending = true;
    }
}

fn end(ended: Ended) -> Step {
    Poll::Ready(Some(ended))
}

/// Whether a head may be complete of which so much was looked at before: not without an empty line. One that
/// comes byte by byte is not parsed each time.
fn may_be_complete(pending: &Bytes, looked_at: usize) -> bool {
    if looked_at == 0 {
        return !pending.is_empty();
    }
    // An empty line may have begun before.
    let new = &pending[looked_at.saturating_sub(3)..];
    pending.len() > looked_at
        && (new.windows(2).any(|two| two == b"\n\n")
            || new.windows(3).any(|three| three == b"\n\r\n"))
}
