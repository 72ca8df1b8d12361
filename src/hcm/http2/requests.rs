//! What frames make of streams: requests that begin, their bodies and trailers, and what is wrong with them.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, Version};

use super::Http2Connection;
use super::close::Phase;
use super::flow::Window;
use super::frame::{END_STREAM, Fault, Head, RST_STREAM, Reason, put_numbers};
use super::head::{Fields, Limits, Malformed, RequestFields};
use super::inbound::{Inbound, Piece, RequestBody, SHORT};
use super::streams::{Answer, Stream};
use super::wake::StreamInterim;
use crate::exchange::headers::expects_continue;
use crate::exchange::interim::Interim;
use crate::exchange::upgrade::WantsTunnel;
use crate::exchange::{Body, LocalReply};

impl<S> Http2Connection<S> {
    pub(super) fn on_data(
        &mut self,
        head: Head,
        piece: Piece<'_>,
        content: Range<usize>,
    ) -> Result<(), Fault> {
        if head.stream == 0 {
            return Err(Fault::protocol("DATA of no stream"));
        }
        let too_much = Fault::Connection(Reason::FLOW_CONTROL_ERROR, "more than the window");
        // No frame is larger than fits.
        let length = u32::try_from(piece.as_ref().len()).map_err(|_larger| too_much)?;
        self.receive.take(length).ok_or(too_much)?;
        let found = self.streams.slot(head.stream);
        let Some((slot, stream)) = found.and_then(|slot| Some((slot, self.streams.get(slot)?)))
        else {
            self.give_back(None, length as usize);
            return self.on_gone(head.stream);
        };
        let result = receive(stream, (head, length), piece, content);
        let unread = match &result {
            Ok(unread) => *unread,
            Err(_) => length as usize,
        };
        let is_open = !stream.is_received && result.is_ok();
        self.give_back(is_open.then_some(slot), unread);
        match result {
            Ok(_) => Ok(()),
            Err(Refusal::Fault(fault)) => Err(fault),
            Err(Refusal::Malformed(malformed)) => Err(self.malformed(malformed)),
        }
    }

    /// So many bytes were read, or will never be: the client may send as many.
    pub(super) fn give_back(&mut self, slot: Option<usize>, length: usize) {
        if length == 0 {
            return;
        }
        if let Some(more) = self.receive.read(length) {
            self.put_window_update(0, more);
        }
        let Some(stream) = slot.and_then(|slot| self.streams.get(slot)) else { return };
        if !stream.is_received
            && let Some(more) = stream.receive.read(length)
        {
            let id = stream.id;
            self.put_window_update(id, more);
        }
    }

    /// A frame came for a stream that there is not any more.
    fn on_gone(&mut self, stream: u32) -> Result<(), Fault> {
        if matches!(self.phase, Phase::Ending { last } if stream > last) {
            return Ok(());
        }
        if self.is_idle(stream) {
            return Err(Fault::protocol("a frame of no stream"));
        }
        match self.streams.was_reset(stream) {
            true => Ok(()),
            false => Err(Fault::Stream(Reason::STREAM_CLOSED, "a frame of a closed stream")),
        }
    }

    fn malformed(&mut self, Malformed(what): Malformed) -> Fault {
        let config = &self.handle().hcm.config;
        config.http2_stats.rx_messaging_error.inc();
        match config.http2.stream_error_on_invalid_message {
            true => Fault::Stream(Reason::PROTOCOL_ERROR, what),
            false => Fault::Connection(Reason::PROTOCOL_ERROR, what),
        }
    }

    /// A header block is whole.
    pub(super) fn on_block(&mut self, id: u32, ends: bool, block: &[u8]) -> Result<(), Fault> {
        let config = &self.handle.hcm.config;
        let limits = Limits {
            bytes: config.max_request_headers_bytes as usize,
            count: config.max_headers_count as usize,
            allow_connect: config.http2.allow_connect,
        };
        let slot = self.streams.slot(id);
        let mut fields = match slot {
            Some(_) => Fields::of_trailers(limits),
            None => Fields::of_request(limits),
        };
        if let Err(error) = self.decoder.decode(block, |field| fields.push(field)) {
            tracing::debug!(%error, "a header block cannot be read");
            return Err(Fault::Connection(Reason::COMPRESSION_ERROR, "a header block"));
        }
        if let Some(slot) = slot {
            return self.on_trailers(slot, ends, fields);
        }
        if id <= self.last_id {
            self.stats().headers_cb_no_stream.inc();
            return match self.streams.was_reset(id) {
                true => Ok(()),
                false => {
                    Err(Fault::Connection(Reason::STREAM_CLOSED, "HEADERS of a closed stream"))
                }
            };
        }
        if matches!(self.phase, Phase::Ending { .. }) {
            self.stats().headers_cb_no_stream.inc();
            return Ok(());
        }
        self.last_id = id;
        self.watch.opened();
        if self.streams.len() >= self.handle().hcm.config.http2.max_concurrent_streams as usize {
            self.stats().stream_refused_errors.inc();
            return Err(Fault::Stream(Reason::REFUSED_STREAM, "too many streams"));
        }
        match fields.into_request(ends) {
            Ok(request) => self.open(id, ends, request),
            Err(malformed) => return Err(self.malformed(malformed)),
        }
        Ok(())
    }

    fn on_trailers(&mut self, slot: usize, ends: bool, fields: Fields) -> Result<(), Fault> {
        let Some(stream) = self.streams.get(slot) else { return Ok(()) };
        if stream.is_received {
            return Err(Fault::Stream(Reason::STREAM_CLOSED, "HEADERS after the end"));
        }
        let is_short = stream.length_left.is_some_and(|left| left > 0);
        let trailers = match fields.into_trailers() {
            Ok(_) if !ends => Err(Malformed("trailers that do not end the stream")),
            Ok(_) if is_short => Err(Malformed("a body shorter than its length")),
            trailers => trailers,
        };
        match trailers {
            Ok(trailers) => {
                stream.is_received = true;
                if let Some(inbound) = &stream.inbound {
                    inbound.finish(Some(trailers));
                }
                self.stats().trailers.inc();
                Ok(())
            }
            Err(malformed) => Err(self.malformed(malformed)),
        }
    }

    fn open(&mut self, id: u32, ends: bool, fields: RequestFields) {
        let handle = Arc::clone(&self.handle);
        let config = &handle.hcm.config;
        let slot = self.streams.next_slot();
        let length = fields.length;
        let expects = !ends && expects_continue(&fields.headers);
        let proxies = config.proxy_100_continue;
        let (inbound, body) = match ends {
            true => (None, Body::Empty),
            false => {
                let inbound = Arc::new(Inbound::new(length));
                let calls = Arc::clone(&self.calls);
                let asks = (expects && proxies).then_some(id);
                let body = RequestBody::new(Arc::clone(&inbound), calls, slot, asks);
                (Some(inbound), Body::boxed(body))
            }
        };
        let (is_too_large, wants_tunnel) = (fields.is_too_large, fields.wants_tunnel);
        let mut request = fields.with(body);
        if wants_tunnel {
            request.extensions_mut().insert(WantsTunnel);
        }
        if proxies {
            let sink = StreamInterim { calls: Arc::clone(&self.calls), stream: id };
            request.extensions_mut().insert(Interim(Arc::new(sink)));
        } else if expects {
            // Now, whatever becomes of the request, as with Envoy.
            let none = HeaderMap::new();
            self.heads.put_interim(&mut self.output, id, StatusCode::CONTINUE, &none);
        }
        let exchange = match is_too_large {
            true => {
                config.http2_stats.header_overflow.inc();
                let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
                let reply = LocalReply::new(status, "request_headers_too_large", "");
                self.handle.refuse(Version::HTTP_2, reply)
            }
            false => self.handle.exchange(request),
        };
        config.http2_stats.streams_active.inc();
        let stream = Stream {
            id,
            answer: Answer::Awaited(exchange),
            pending: Bytes::new(),
            trailers: None,
            send_window: i64::from(self.initial_send_window),
            inbound,
            receive: Window::new(config.http2.initial_stream_window_size),
            length_left: length,
            is_received: ends,
            is_queued: false,
            stalled: None,
        };
        let slot = self.streams.insert(stream, &self.calls);
        // It is polled when what came with it is there too.
        if let Some((_, waker)) = self.streams.get_with_waker(slot) {
            waker.wake_by_ref();
        }
    }

    pub(super) fn on_fault(&mut self, id: u32, fault: Fault) {
        match fault {
            Fault::Connection(reason, what) => self.fail(reason, what),
            Fault::Stream(reason, what) => {
                tracing::debug!(id, %reason, what, "resetting a stream");
                match self.streams.slot(id) {
                    Some(slot) => self.reset(slot, reason, true),
                    None => self.put_reset(id, reason),
                }
                if reason != Reason::REFUSED_STREAM {
                    self.check_resets();
                }
            }
        }
    }

    /// Resets a stream; `early` if its client is to blame.
    pub(super) fn reset(&mut self, slot: usize, reason: Reason, early: bool) {
        if let Some(stream) = self.finish(slot, early) {
            self.put_reset(stream.id, reason);
        }
    }

    pub(super) fn put_reset(&mut self, id: u32, reason: Reason) {
        put_numbers(self.output.frame(RST_STREAM), RST_STREAM, id, &[reason.0]);
        self.streams.remember_reset(id);
        self.stats().tx_reset.inc();
    }

    /// A stream is over: what nobody will read is given back. `early` if its client made it so; that counts
    /// where there was no answer yet.
    pub(super) fn finish(&mut self, slot: usize, early: bool) -> Option<Stream> {
        let stream = self.streams.remove(slot)?;
        self.stats().streams_active.dec();
        if stream.is_queued {
            self.sendable.retain(|queued| *queued != slot);
            self.starved.retain(|queued| *queued != slot);
        }
        let is_early = early && matches!(stream.answer, Answer::Awaited(_) | Answer::Head(_));
        self.watch.over(is_early);
        if let Some(inbound) = &stream.inbound {
            inbound.cut();
            let unread = inbound.detach();
            self.give_back(None, unread);
        }
        Some(stream)
    }

    /// Sends a client away that opens streams only to end them.
    pub(super) fn check_resets(&mut self) {
        if self.watch.resets_too_much() && !self.phase.is_closing() {
            self.handle().hcm.config.stats.downstream_rq_too_many_premature_resets.inc();
            self.fail(Reason::ENHANCE_YOUR_CALM, "too many streams reset");
        }
    }
}

/// Why DATA is not taken.
enum Refusal {
    Fault(Fault),
    Malformed(Malformed),
}

/// Takes what a DATA frame holds. Returns how much of it nobody will read: padding, and the rest of a body
/// that is of no interest.
fn receive(
    stream: &mut Stream,
    (head, length): (Head, u32),
    piece: Piece<'_>,
    content: Range<usize>,
) -> Result<usize, Refusal> {
    let fault = |reason, what| Refusal::Fault(Fault::Stream(reason, what));
    if stream.is_received {
        return Err(fault(Reason::STREAM_CLOSED, "DATA after the end"));
    }
    let too_much = fault(Reason::FLOW_CONTROL_ERROR, "more than the window of the stream");
    stream.receive.take(length).ok_or(too_much)?;
    let ends = head.has(END_STREAM);
    if let Some(left) = &mut stream.length_left {
        let too_long = Refusal::Malformed(Malformed("a body longer than its length"));
        *left = left.checked_sub(content.len() as u64).ok_or(too_long)?;
        if ends && *left > 0 {
            return Err(Refusal::Malformed(Malformed("a body shorter than its length")));
        }
    }
    let padding = length as usize - content.len();
    let Some(inbound) = &stream.inbound else { return Ok(length as usize) };
    let unread = match piece {
        _ if content.is_empty() => 0,
        // What is left without its padding may be short.
        Piece::Shared(payload) if content.len() >= SHORT => {
            inbound.push(Piece::Shared(payload.slice(content)))
        }
        piece => inbound.push(Piece::Short(&piece.as_ref()[content])),
    };
    if ends {
        stream.is_received = true;
        inbound.finish(None);
    }
    Ok(padding + unread)
}
