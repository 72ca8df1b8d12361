//! The body within: its bytes a piece at a time, its trailers kept for the end.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body as _;

use crate::exchange::{Body, BodyError};

pub(super) struct Source {
    body: Body,
    /// What has come and not been taken.
    pub(super) chunk: Bytes,
    /// Nothing comes after the chunk.
    pub(super) ended: bool,
    pub(super) trailers: Option<HeaderMap>,
}

impl Source {
    pub(super) fn new(body: Body) -> Self {
        let ended = body.is_end_stream();
        Self { body, chunk: Bytes::new(), ended, trailers: None }
    }

    /// How many bytes come, with those that have come and were not taken, if that is known.
    pub(super) fn length(&self) -> Option<u64> {
        let rest = if self.ended { 0 } else { self.body.size_hint().exact()? };
        Some(rest + self.chunk.len() as u64)
    }

    /// Waits until there is a chunk, or the end is known.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        while self.chunk.is_empty() && !self.ended {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)).transpose()? {
                None => self.ended = true,
                Some(frame) => match frame.into_data() {
                    Ok(data) => {
                        self.chunk = data;
                        // So the last piece and the end are one step of the codec.
                        self.ended = self.body.is_end_stream();
                    }
                    Err(frame) => {
                        self.trailers = frame.into_trailers().ok();
                        self.ended = true;
                    }
                },
            }
        }
        Poll::Ready(Ok(()))
    }
}
