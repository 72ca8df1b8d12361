//! What streams have to say, and in which order it leaves: each stream that may send puts one frame of its
//! body to the output, then it is the next one's turn.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::StatusCode;
use http_body::Body as _;
use tokio::time::Instant;

use super::Http2Connection;
use super::answer::Heads;
use super::frame::{END_STREAM, Fault, MAX_31_BITS, Reason, WINDOW_UPDATE, put_numbers};
use super::output::Output;
use super::streams::{Answer, Stream};
use super::wake::Interim;
use crate::hcm::connection::ConnectionHandle;

/// Bytes that wait to be sent, at which streams wait.
const ENOUGH: usize = 64 * 1024;

/// What comes after a stream's turn.
enum Next {
    /// There may be more to send.
    Again,
    /// Its body, or its client, has the word.
    Waits,
    /// The connection's window is used up.
    Starves,
    /// All was sent.
    Over,
    /// Its body broke off.
    Broken,
}

impl<S> Http2Connection<S> {
    /// Looks at what streams and whoever answers them have told.
    pub(super) fn attend(&mut self) {
        let mut news = std::mem::take(&mut self.news);
        self.calls.take(&mut news);
        for slot in news.read.drain(..) {
            let inbound = self.streams.get(slot).and_then(|stream| stream.inbound.as_ref());
            let read = inbound.map_or(0, |inbound| inbound.take_read());
            self.give_back(Some(slot), read);
        }
        for interim in news.interim.drain(..) {
            let slot = self.streams.slot(interim.stream);
            let stream = slot.and_then(|slot| self.streams.get(slot));
            if stream.is_some_and(|stream| matches!(stream.answer, Answer::Awaited(_))) {
                let (id, status) = (interim.stream, interim.status);
                self.heads.put_interim(&mut self.output, id, status, &interim.headers);
            }
        }
        for slot in news.woken.drain(..) {
            self.poll_stream(slot);
        }
        self.news = news;
    }

    fn poll_stream(&mut self, slot: usize) {
        self.streams.begin(slot);
        let Some((stream, waker)) = self.streams.get_with_waker(slot) else { return };
        let mut cx = Context::from_waker(waker);
        if let Answer::Awaited(exchange) = &mut stream.answer {
            match Pin::new(exchange).poll(&mut cx) {
                Poll::Pending => return,
                Poll::Ready(Ok(response)) => {
                    let id = stream.id;
                    stream.answer = Answer::Head(response);
                    if self.handle.hcm.config.proxy_100_continue {
                        for interim in self.calls.interims_of(id) {
                            let Interim { status, headers, .. } = &interim;
                            self.heads.put_interim(&mut self.output, id, *status, headers);
                        }
                    }
                }
                Poll::Ready(Err(reset)) => {
                    tracing::debug!(%reset, id = stream.id, "no answer");
                    return self.reset(slot, Reason::INTERNAL_ERROR, false);
                }
            }
        }
        if let Some(stalled) = &mut stream.stalled
            && Pin::new(stalled).poll(&mut cx).is_ready()
        {
            if let Answer::Body(body) = &mut stream.answer {
                body.stalled();
            }
            self.stats().tx_flush_timeout.inc();
            return self.reset(slot, Reason::NO_ERROR, false);
        }
        self.queue(slot);
    }

    /// Gives a stream a turn, if it has something to send or may have.
    pub(super) fn queue(&mut self, slot: usize) {
        if let Some(stream) = self.streams.get(slot)
            && !stream.is_queued
            && !matches!(stream.answer, Answer::Awaited(_))
        {
            stream.is_queued = true;
            self.sendable.push_back(slot);
        }
    }

    /// Lets a stream wait for the connection's window.
    fn starve(&mut self, slot: usize) {
        if let Some(stream) = self.streams.get(slot) {
            stream.is_queued = true;
            self.starved.push_back(slot);
        }
    }

    /// Lets streams send in turns, until enough waits or none has anything.
    pub(super) fn fill(&mut self) {
        while self.output.len() < ENOUGH
            && let Some(slot) = self.sendable.pop_front()
        {
            let Some(stream) = self.streams.get(slot) else { continue };
            stream.is_queued = false;
            match self.send(slot) {
                Next::Again => self.queue(slot),
                Next::Starves => self.starve(slot),
                Next::Waits => {}
                Next::Over => self.end(slot),
                Next::Broken => self.reset(slot, Reason::INTERNAL_ERROR, false),
            }
        }
    }

    /// The response was sent. If the client still sends, it may as well stop (RFC 9113 section 8.1).
    fn end(&mut self, slot: usize) {
        if let Some(stream) = self.finish(slot, false)
            && !stream.is_received
        {
            self.put_reset(stream.id, Reason::NO_ERROR);
        }
    }

    fn send(&mut self, slot: usize) -> Next {
        let Some((stream, waker)) = self.streams.get_with_waker(slot) else { return Next::Waits };
        let mut cx = Context::from_waker(waker);
        if put_head(stream, &mut self.heads, &mut self.output) {
            return Next::Over;
        }
        let window = stream.send_window.min(self.send_window);
        if stream.trailers.is_none() && window <= 0 {
            // Nothing is asked for that could not be passed on.
            wait_for_window(stream, &self.handle, &mut cx);
            return if stream.send_window > 0 { Next::Starves } else { Next::Waits };
        }
        if stream.pending.is_empty() && stream.trailers.is_none() {
            match poll_body(stream, &mut cx) {
                Poll::Pending => return Next::Waits,
                Poll::Ready(Polled::Some) => {}
                Poll::Ready(Polled::Broken) => return Next::Broken,
                Poll::Ready(Polled::End) => {
                    self.output.data(stream.id, END_STREAM, bytes::Bytes::new());
                    return Next::Over;
                }
            }
        }
        if !stream.pending.is_empty() {
            let window = usize::try_from(window).unwrap_or(0);
            let length = stream.pending.len().min(window).min(self.max_data);
            let piece = stream.pending.split_to(length);
            let ends = stream.pending.is_empty() && is_polled(stream);
            self.output.data(stream.id, if ends { END_STREAM } else { 0 }, piece);
            stream.send_window -= length as i64;
            self.send_window -= length as i64;
            stream.stalled = None;
            self.watch.sent_data();
            return if ends { Next::Over } else { Next::Again };
        }
        match stream.trailers.take() {
            Some(trailers) => {
                self.heads.put_trailers(&mut self.output, stream.id, &trailers);
                self.stats().trailers.inc();
                Next::Over
            }
            None => Next::Again,
        }
    }

    /// The client changed what it takes on each stream.
    pub(super) fn move_windows(&mut self, initial: u32) -> Result<(), Fault> {
        let change = i64::from(initial) - i64::from(self.initial_send_window);
        self.initial_send_window = initial;
        let mut open = Vec::new();
        for (slot, stream) in self.streams.iter_mut() {
            let was_blocked = stream.send_window <= 0;
            stream.send_window += change;
            if stream.send_window > i64::from(MAX_31_BITS) {
                let reason = Reason::FLOW_CONTROL_ERROR;
                return Err(Fault::Connection(reason, "a window is too large"));
            }
            if was_blocked && stream.send_window > 0 {
                open.push(slot);
            }
        }
        open.into_iter().for_each(|slot| self.queue(slot));
        Ok(())
    }

    pub(super) fn put_window_update(&mut self, stream: u32, more: u32) {
        put_numbers(self.output.frame(WINDOW_UPDATE), WINDOW_UPDATE, stream, &[more]);
    }
}

/// Sends the head, unless it was; true if that is all of the response.
fn put_head(stream: &mut Stream, heads: &mut Heads, output: &mut Output) -> bool {
    if !matches!(stream.answer, Answer::Head(_)) {
        return false;
    }
    let taken = std::mem::replace(&mut stream.answer, Answer::Taken);
    let Answer::Head(response) = taken else { return false };
    let (mut head, body) = response.into_parts();
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        // There is no such status here: a tunnel is open (RFC 8441 section 5).
        head.status = StatusCode::OK;
    }
    let ends = body.is_end_stream();
    let flags = if ends { END_STREAM } else { 0 };
    heads.put(output, (stream.id, flags), &head, body.size_hint().exact());
    stream.answer = Answer::Body(body);
    ends
}

/// Gives the client time to take something more.
fn wait_for_window(stream: &mut Stream, handle: &ConnectionHandle, cx: &mut Context<'_>) {
    let Answer::Body(body) = &stream.answer else { return };
    if let (None, Some(after)) = (&stream.stalled, body.idle_timeout()) {
        let mut stalled = handle.hcm.cx.deadlines.at(Instant::now() + after);
        if Pin::new(&mut stalled).poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        stream.stalled = Some(stalled);
    }
}

/// What came of a body.
enum Polled {
    /// Data, or trailers.
    Some,
    End,
    Broken,
}

/// Polls the response's body for what is to be sent next.
fn poll_body(stream: &mut Stream, cx: &mut Context<'_>) -> Poll<Polled> {
    let Answer::Body(body) = &mut stream.answer else { return Poll::Ready(Polled::Broken) };
    loop {
        let frame = match std::task::ready!(Pin::new(&mut *body).poll_frame(cx)) {
            None => return Poll::Ready(Polled::End),
            Some(Err(error)) => {
                tracing::debug!(%error, id = stream.id, "the body of a response broke off");
                return Poll::Ready(Polled::Broken);
            }
            Some(Ok(frame)) => frame,
        };
        match frame.into_data() {
            Ok(data) if !data.is_empty() => stream.pending = data,
            Ok(_) if body.is_end_stream() => return Poll::Ready(Polled::End),
            Ok(_) => continue,
            Err(frame) => match frame.into_trailers() {
                Ok(trailers) if trailers.is_empty() => return Poll::Ready(Polled::End),
                Ok(trailers) => stream.trailers = Some(trailers),
                Err(_) => continue,
            },
        }
        return Poll::Ready(Polled::Some);
    }
}

/// Whether nothing follows what was polled of the body.
fn is_polled(stream: &Stream) -> bool {
    matches!(&stream.answer, Answer::Body(body) if body.is_end_stream())
}
