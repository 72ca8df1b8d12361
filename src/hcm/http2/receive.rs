//! Frames from the client, and what each is to the connection.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::Instant;

use super::frame::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Fault, GOAWAY, HEAD_LENGTH, HEADERS, Head,
    MAX_31_BITS, MAX_FRAME_SIZE, PING, PRIORITY, PUSH_PROMISE, RST_STREAM, Reason, SETTINGS,
    WINDOW_UPDATE, number, put_head,
};
use super::inbound::{Piece, SHORT};
use super::settings::Changes;
use super::{Failure, Http2Connection};
use crate::exchange::deadline::Deadline;
use crate::hcm::connection::PREFACE;

/// Bytes asked for when there is no telling how much comes.
const FIRST_READ: usize = 8 * 1024;

/// Bytes asked for when much comes.
const BULK_READ: usize = 64 * 1024;

/// How a connection begins.
#[derive(Debug, Default)]
pub(super) struct Greeting {
    has_preface: bool,
    has_settings: bool,
}

/// A header block that goes on in another frame.
#[derive(Debug)]
pub(super) struct Block {
    stream: u32,
    ends: bool,
    bytes: Vec<u8>,
    /// When it must be whole.
    pub(super) deadline: Option<Deadline>,
}

impl<S: AsyncRead + Unpin> Http2Connection<S> {
    /// Reads once, and does what the frames ask for. Ready if something was done.
    pub(super) fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.has_unread {
            let room = if self.is_bulk { BULK_READ } else { FIRST_READ };
            self.input.reserve(room);
            let read = pin!(self.io.read_buf(&mut self.input)).poll(cx);
            match std::task::ready!(read) {
                Ok(0) => self.gone(None),
                Ok(length) => self.is_bulk = length >= FIRST_READ,
                Err(error) => self.gone(Some(Failure::Io(error))),
            }
        }
        let mut input = std::mem::take(&mut self.input);
        self.has_unread = self.read_frames(&mut input);
        self.input = input;
        Poll::Ready(())
    }
}

impl<S> Http2Connection<S> {
    /// Reads all whole frames; true if there are more, but what they led to should be sent first.
    fn read_frames(&mut self, input: &mut BytesMut) -> bool {
        if !self.greeting.has_preface {
            let known = input.len().min(PREFACE.len());
            if input[..known] != PREFACE[..known] {
                self.fail(Reason::PROTOCOL_ERROR, "not the preface of HTTP/2");
            } else if known == PREFACE.len() {
                input.advance(known);
                self.greeting.has_preface = true;
            } else {
                return false;
            }
        }
        while let Some(head) = Head::parse(input)
            && !self.phase.is_closing()
        {
            if self.watch.wants_flush(self.output.frames) && self.stuck.is_none() {
                return true;
            }
            if head.length > MAX_FRAME_SIZE {
                self.fail(Reason::FRAME_SIZE_ERROR, "a frame is too large");
                break;
            }
            let length = HEAD_LENGTH + head.length;
            if input.len() < length {
                return false;
            }
            let outcome = if head.kind == DATA && head.length >= SHORT {
                let frame = input.split_to(length).freeze();
                self.on_frame(head, Piece::Shared(frame.slice(HEAD_LENGTH..)))
            } else {
                let outcome = self.on_frame(head, Piece::Short(&input[HEAD_LENGTH..length]));
                input.advance(length);
                outcome
            };
            if let Err(fault) = outcome {
                self.on_fault(head.stream, fault);
            }
            let config = &self.handle.hcm.config;
            if let Err(Fault::Connection(reason, what)) =
                self.watch.waiting(self.output.frames, &config.http2_stats)
            {
                self.fail(reason, what);
            }
        }
        if self.phase.is_closing() {
            input.clear();
        }
        false
    }

    fn on_frame(&mut self, head: Head, piece: Piece<'_>) -> Result<(), Fault> {
        let Head { kind, stream, .. } = head;
        if !self.greeting.has_settings && (kind != SETTINGS || head.has(ACK)) {
            return Err(Fault::protocol("the first frame is not SETTINGS"));
        }
        let goes_on = self.block.as_ref().map(|block| block.stream);
        if goes_on.is_some_and(|open| kind != CONTINUATION || stream != open) {
            return Err(Fault::protocol("a frame within a header block"));
        }
        let payload = piece.as_ref();
        let content = match kind {
            DATA | HEADERS => head.content(payload)?,
            _ => 0..payload.len(),
        };
        let config = &self.handle.hcm.config;
        self.watch.frame(head, content.len(), &config.http2_stats)?;
        match kind {
            DATA => self.on_data(head, piece, content),
            HEADERS if stream.is_multiple_of(2) => Err(Fault::protocol("no stream of a client")),
            HEADERS if head.has(END_HEADERS) => {
                self.on_block(stream, head.has(END_STREAM), &payload[content])
            }
            HEADERS => {
                let deadline = self.header_deadline();
                let bytes = payload[content].to_vec();
                self.block = Some(Block { stream, ends: head.has(END_STREAM), bytes, deadline });
                Ok(())
            }
            CONTINUATION => self.on_continuation(head, payload),
            PRIORITY if stream == 0 => Err(Fault::protocol("a priority of no stream")),
            PRIORITY if head.length != 5 && self.is_idle(stream) => {
                Err(Fault::size("a priority of another size"))
            }
            PRIORITY if head.length != 5 => {
                Err(Fault::Stream(Reason::FRAME_SIZE_ERROR, "a priority of another size"))
            }
            RST_STREAM => self.on_reset(stream, number(payload)),
            SETTINGS => self.on_settings(head, payload),
            PUSH_PROMISE => Err(Fault::protocol("a push from a client")),
            PING => self.on_ping(head, payload),
            GOAWAY if stream != 0 => Err(Fault::protocol("GOAWAY on a stream")),
            GOAWAY if head.length < 8 => Err(Fault::size("GOAWAY is cut off")),
            GOAWAY => {
                self.client_leaves = true;
                Ok(())
            }
            WINDOW_UPDATE => self.on_window_update(stream, number(payload)),
            // Priorities mean nothing here, and what is unknown is ignored (RFC 9113 section 5.5).
            _ => Ok(()),
        }
    }

    fn header_deadline(&self) -> Option<Deadline> {
        let handle = self.handle();
        let timeout = handle.hcm.config.timeouts.request_headers?;
        Some(handle.hcm.cx.deadlines.at(Instant::now() + timeout))
    }

    fn on_continuation(&mut self, head: Head, payload: &[u8]) -> Result<(), Fault> {
        let most = self.largest_block();
        let block = self.block.as_mut().ok_or(Fault::protocol("CONTINUATION of nothing"))?;
        if block.bytes.len() + payload.len() > most {
            let reason = Reason::ENHANCE_YOUR_CALM;
            return Err(Fault::Connection(reason, "a header block without an end"));
        }
        block.bytes.extend_from_slice(payload);
        if head.has(END_HEADERS)
            && let Some(Block { stream, ends, bytes, .. }) = self.block.take()
        {
            return self.on_block(stream, ends, &bytes);
        }
        Ok(())
    }

    /// Bytes of a header block: what is over the limit is still read, so that it can be answered.
    fn largest_block(&self) -> usize {
        2 * self.handle().hcm.config.max_request_headers_bytes as usize + MAX_FRAME_SIZE
    }

    fn on_reset(&mut self, stream: u32, reason: Option<u32>) -> Result<(), Fault> {
        if reason.is_none() {
            return Err(Fault::size("RST_STREAM of another size"));
        }
        if self.is_idle(stream) {
            return Err(Fault::protocol("RST_STREAM of no stream"));
        }
        if let Some(slot) = self.streams.slot(stream) {
            self.stats().rx_reset.inc();
            self.finish(slot, true);
            self.check_resets();
        }
        Ok(())
    }

    /// Whether a stream has not begun.
    pub(super) fn is_idle(&self, stream: u32) -> bool {
        stream.is_multiple_of(2) || stream > self.last_id
    }

    fn on_settings(&mut self, head: Head, payload: &[u8]) -> Result<(), Fault> {
        if head.stream != 0 {
            return Err(Fault::protocol("SETTINGS on a stream"));
        }
        if head.has(ACK) {
            if !payload.is_empty() {
                return Err(Fault::size("an acknowledgement with settings"));
            }
            self.decoder.set_limit(self.handle().hcm.config.http2.hpack_table_size);
            return Ok(());
        }
        let Changes { table_size, initial_window, max_frame_size } = Changes::parse(payload)?;
        self.greeting.has_settings = true;
        if let Some(size) = table_size {
            let most = self.handle().hcm.config.http2.hpack_table_size;
            self.heads.set_table_limit(size.min(most));
        }
        if let Some(size) = max_frame_size {
            // Larger ones would let one stream keep the others waiting.
            self.max_data = (size as usize).min(MAX_FRAME_SIZE);
        }
        if let Some(window) = initial_window {
            self.move_windows(window)?;
        }
        put_head(self.output.frame(SETTINGS), 0, (SETTINGS, ACK), 0);
        Ok(())
    }

    fn on_ping(&mut self, head: Head, payload: &[u8]) -> Result<(), Fault> {
        if head.stream != 0 {
            return Err(Fault::protocol("PING on a stream"));
        }
        if payload.len() != 8 {
            return Err(Fault::size("PING of another size"));
        }
        if head.has(ACK) {
            self.on_pong(payload);
        } else {
            let out = self.output.frame(PING);
            put_head(out, payload.len(), (PING, ACK), 0);
            out.extend_from_slice(payload);
        }
        Ok(())
    }

    fn on_window_update(&mut self, stream: u32, more: Option<u32>) -> Result<(), Fault> {
        let more = more.ok_or(Fault::size("WINDOW_UPDATE of another size"))? & MAX_31_BITS;
        if stream == 0 {
            self.send_window += i64::from(more);
            if more == 0 {
                return Err(Fault::protocol("WINDOW_UPDATE of nothing"));
            }
            if self.send_window > i64::from(MAX_31_BITS) {
                let reason = Reason::FLOW_CONTROL_ERROR;
                return Err(Fault::Connection(reason, "a window is too large"));
            }
            self.sendable.append(&mut self.starved);
            return Ok(());
        }
        if self.is_idle(stream) {
            return Err(Fault::protocol("WINDOW_UPDATE of no stream"));
        }
        let Some(slot) = self.streams.slot(stream) else { return Ok(()) };
        let Some(found) = self.streams.get(slot) else { return Ok(()) };
        if more == 0 {
            return Err(Fault::Stream(Reason::PROTOCOL_ERROR, "WINDOW_UPDATE of nothing"));
        }
        let was_blocked = found.send_window <= 0;
        found.send_window += i64::from(more);
        if found.send_window > i64::from(MAX_31_BITS) {
            return Err(Fault::Stream(Reason::FLOW_CONTROL_ERROR, "a window is too large"));
        }
        if was_blocked && found.send_window > 0 {
            self.queue(slot);
        }
        Ok(())
    }
}
