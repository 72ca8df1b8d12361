//! Heads of responses as header blocks.

use http::header::{CONTENT_LENGTH, DATE};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::frame::{END_STREAM, HEAD_LENGTH, HEADERS, MAX_FRAME_SIZE, close_block};
use super::hpack::Encoder;
use super::output::Output;
use crate::exchange::headers::is_hop_by_hop;
use crate::hcm::date;

/// Writes the heads of one connection.
#[derive(Debug)]
pub(super) struct Heads {
    encoder: Encoder,
    /// When the last response was sent, if it did not say so itself.
    date: HeaderValue,
}

impl Heads {
    pub(super) fn new() -> Self {
        Self { encoder: Encoder::new(), date: HeaderValue::from_static("") }
    }

    /// The largest table of headers that the client takes.
    pub(super) fn set_table_limit(&mut self, limit: u32) {
        self.encoder.set_limit(limit);
    }

    /// Appends a final head. `length` is that of the body that follows, if it is known; there is none if the
    /// stream ends here.
    pub(super) fn put(
        &mut self,
        out: &mut Output,
        (stream, flags): (u32, u8),
        head: &http::response::Parts,
        length: Option<u64>,
    ) {
        let (mut has_date, mut has_length) = (false, length.is_none() || flags & END_STREAM != 0);
        let own = out.frame(HEADERS);
        let start = begin(own);
        self.encoder.begin(Some(head.status), own);
        for (name, value) in &head.headers {
            if is_hop_by_hop(name) {
                continue;
            }
            has_date |= *name == DATE;
            has_length |= *name == CONTENT_LENGTH;
            self.encoder.field(name, value, own);
        }
        if !has_date {
            date::with(|now| {
                // It is the same for a second.
                if self.date != now
                    && let Ok(now) = HeaderValue::from_bytes(now)
                {
                    self.date = now;
                }
            });
            self.encoder.field(&DATE, &self.date, own);
        }
        if let (false, Some(length)) = (has_length, length) {
            self.encoder.field(&CONTENT_LENGTH, &HeaderValue::from(length), own);
        }
        close_block(own, start, (stream, flags), MAX_FRAME_SIZE);
    }

    /// Appends an interim head.
    pub(super) fn put_interim(
        &mut self,
        out: &mut Output,
        stream: u32,
        status: StatusCode,
        headers: &HeaderMap,
    ) {
        self.put_fields(out, (stream, 0), Some(status), headers);
    }

    /// Appends trailers, which end their stream.
    pub(super) fn put_trailers(&mut self, out: &mut Output, stream: u32, trailers: &HeaderMap) {
        self.put_fields(out, (stream, END_STREAM), None, trailers);
    }

    fn put_fields(
        &mut self,
        out: &mut Output,
        (stream, flags): (u32, u8),
        status: Option<StatusCode>,
        fields: &HeaderMap,
    ) {
        let own = out.frame(HEADERS);
        let start = begin(own);
        self.encoder.begin(status, own);
        for (name, value) in fields.iter().filter(|(name, _)| !is_hop_by_hop(name)) {
            self.encoder.field(name, value, own);
        }
        close_block(own, start, (stream, flags), MAX_FRAME_SIZE);
    }
}

/// Leaves room for the head of a frame, and returns where it is.
fn begin(own: &mut Vec<u8>) -> usize {
    let start = own.len();
    own.resize(start + HEAD_LENGTH, 0);
    start
}
