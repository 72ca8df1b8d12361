//! What bodies that encode and bodies that decode have in common: how output becomes frames, and an end.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;

use super::meter::{End, Meter, Outcome};
use crate::coding::{self, Pool, Scratch};
use crate::exchange::{Body, BodyError};

/// A codec between a body and its reader.
pub(super) trait Drive: Send + Unpin + 'static {
    /// Reads and works until there is output to be taken, or an end, or nothing to do, or the turn is
    /// over. It may have made output whatever it returns; that is taken first.
    fn drive(
        &mut self,
        cx: &mut Context<'_>,
        meter: &mut Meter,
        output: &mut Output<'_>,
    ) -> Poll<Progress>;
}

/// What a codec came to.
pub(super) enum Progress {
    /// The output, if any, should be taken now.
    Output,
    /// There is no more.
    End(Option<HeaderMap>),
    /// It ends here.
    Failed(BodyError),
}

impl From<coding::Error> for Progress {
    fn from(error: coding::Error) -> Self {
        Self::Failed(error.into())
    }
}

/// Output of one poll.
pub(super) struct Output<'a> {
    pub(super) pool: &'a Pool,
    scratch: Option<Scratch>,
    filled: usize,
    made: Bytes,
}

impl Output<'_> {
    /// Where the next output goes.
    pub(super) fn room(&mut self) -> &mut [u8] {
        &mut self.scratch.get_or_insert_with(|| self.pool.scratch())[self.filled..]
    }

    /// So much of the room was filled.
    pub(super) fn fill(&mut self, length: usize) {
        self.filled += length;
    }

    /// Output that was made elsewhere, while there is no other.
    pub(super) fn give(&mut self, made: Bytes) {
        debug_assert!(self.is_empty(), "output stays in order");
        self.made = made;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.filled == 0 && self.made.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.filled == Scratch::LENGTH
    }

    fn take(self) -> Bytes {
        match self.scratch {
            Some(scratch) if self.filled > 0 => Bytes::copy_from_slice(&scratch[..self.filled]),
            _ => self.made,
        }
    }
}

/// What is handed out after the output.
enum Rest {
    Working,
    Trailers(HeaderMap),
    Failed(BodyError),
    Nothing,
}

struct CodedBody<D, F: FnOnce(Outcome)> {
    codec: D,
    pool: Pool,
    rest: Rest,
    meter: Meter,
    on_end: Option<F>,
}

/// The body that reads this codec.
pub(super) fn coded(
    codec: impl Drive,
    pool: &Pool,
    on_end: impl FnOnce(Outcome) + Send + Unpin + 'static,
) -> Body {
    Body::boxed(CodedBody {
        codec,
        pool: pool.clone(),
        rest: Rest::Working,
        meter: Meter::default(),
        on_end: Some(on_end),
    })
}

impl<D, F: FnOnce(Outcome)> CodedBody<D, F> {
    fn end(&mut self, end: End) {
        if let Some(on_end) = self.on_end.take() {
            on_end(self.meter.outcome(end));
        }
    }
}

impl<D: Drive, F: FnOnce(Outcome)> CodedBody<D, F> {
    /// Output, or the end of it.
    fn poll_output(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        while matches!(self.rest, Rest::Working) {
            if self.meter.turn_is_over() {
                self.meter.give_way(cx);
                return Poll::Pending;
            }
            let mut output =
                Output { pool: &self.pool, scratch: None, filled: 0, made: Bytes::new() };
            let progress = self.codec.drive(cx, &mut self.meter, &mut output);
            let output = output.take();
            let waits = progress.is_pending();
            match progress {
                Poll::Ready(Progress::End(None)) => self.rest = Rest::Nothing,
                Poll::Ready(Progress::End(Some(trailers))) => self.rest = Rest::Trailers(trailers),
                Poll::Ready(Progress::Failed(error)) => self.rest = Rest::Failed(error),
                Poll::Ready(Progress::Output) | Poll::Pending => {}
            }
            if !output.is_empty() {
                self.meter.output += output.len() as u64;
                return Poll::Ready(Some(output));
            }
            if waits {
                self.meter.wait();
                return Poll::Pending;
            }
        }
        Poll::Ready(None)
    }
}

impl<D: Drive, F: FnOnce(Outcome) + Unpin> http_body::Body for CodedBody<D, F> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let output = std::task::ready!(this.poll_output(cx));
        if let Some(output) = output {
            // Who sees the end of the stream does not ask again.
            if matches!(this.rest, Rest::Nothing) {
                this.end(End::Complete);
            }
            return Poll::Ready(Some(Ok(Frame::data(output))));
        }
        let rest = std::mem::replace(&mut this.rest, Rest::Nothing);
        this.end(match &rest {
            Rest::Failed(BodyError::Coding(error)) => End::Coding(*error),
            Rest::Failed(_) => End::Inner,
            Rest::Trailers(_) | Rest::Nothing | Rest::Working => End::Complete,
        });
        Poll::Ready(match rest {
            Rest::Failed(error) => Some(Err(error)),
            Rest::Trailers(trailers) => Some(Ok(Frame::trailers(trailers))),
            Rest::Nothing | Rest::Working => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.rest, Rest::Nothing)
    }
}

impl<D, F: FnOnce(Outcome)> Drop for CodedBody<D, F> {
    fn drop(&mut self) {
        self.end(End::Dropped);
    }
}
