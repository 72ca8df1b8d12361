//! A body that encodes another.
//!
//! It has an encoder from the first byte to the last, and room for output only while it is polled. What
//! an encoder holds back for the sake of size is flushed once the body within makes its reader wait.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::time::Instant;

use super::beside::{Beside, beside};
use super::coded_body::{Drive, Output, Progress, coded};
use super::meter::{Meter, Outcome};
use super::source::Source;
use crate::coding::pace::{self, Pace};
use crate::coding::{Encoder, Encoding, Error, Op, Pool};
use crate::exchange::Body;
use crate::exchange::deadline::{Deadline, Deadlines};

/// How long a piece may wait for more, so that they are flushed as one.
const SOON: Duration = Duration::from_millis(5);

/// When a reader gets what has come so far, if the body within makes it wait for more.
#[derive(Debug, Clone)]
pub enum Flush {
    /// Without waiting: every piece is worth it by itself, as in an event stream.
    AtOnce,
    /// Shortly after, by these timers. Costs nothing while the body is fast.
    Soon(Deadlines),
}

/// The body that encodes `inner`. `on_end` is told once what it came to, however it ends.
pub fn encoded(
    inner: Body,
    encoding: &Arc<Encoding>,
    pool: &Pool,
    flush: Flush,
    on_end: impl FnOnce(Outcome) + Send + Unpin + 'static,
) -> Body {
    let encode = Encode {
        source: Source::new(inner),
        encoding: Arc::clone(encoding),
        pool: pool.clone(),
        pace: None,
        encoder: None,
        beside: None,
        inside: 0,
        unflushed: false,
        flushing: false,
        flush,
        soon: None,
    };
    coded(encode, pool, on_end)
}

struct Encode {
    source: Source,
    encoding: Arc<Encoding>,
    pool: Pool,
    /// From the first byte on, when most is known of what comes.
    pace: Option<Pace>,
    /// From the first byte to the last; none while it is away.
    encoder: Option<Encoder>,
    beside: Option<Beside<Away>>,
    /// Bytes taken since anything came out.
    inside: usize,
    /// Something was taken since the last flush.
    unflushed: bool,
    flushing: bool,
    flush: Flush,
    soon: Option<Deadline>,
}

/// An encoder that was away, and what it made.
struct Away {
    /// None once its stream has ended.
    encoder: Option<Encoder>,
    op: Op,
    made: Result<Bytes, Error>,
    took: Duration,
}

impl Drive for Encode {
    fn drive(
        &mut self,
        cx: &mut Context<'_>,
        meter: &mut Meter,
        output: &mut Output<'_>,
    ) -> Poll<Progress> {
        loop {
            if let Some(away) = &mut self.beside {
                let away = ready!(away.as_mut().poll(cx));
                return Poll::Ready(self.back(away, meter, output));
            }
            if output.is_full() || meter.turn_is_over() {
                return Poll::Ready(Progress::Output);
            }
            if self.source.chunk.is_empty() && !self.source.ended && !self.flushing {
                match self.source.poll(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Progress::Failed(error)),
                    Poll::Pending => {
                        ready!(self.poll_flush(cx));
                        self.flushing = true;
                    }
                }
                continue;
            }
            let pace = self.pace();
            let slice = self.source.chunk.len().min(pace.slice);
            if self.inside + slice > pace.inline {
                if !output.is_empty() {
                    return Poll::Ready(Progress::Output);
                }
                if let Err(error) = self.send_beside(meter) {
                    return Poll::Ready(error.into());
                }
                continue;
            }
            match self.step(slice, meter, output) {
                Ok(Some(progress)) => return Poll::Ready(progress),
                Ok(None) => {}
                Err(error) => return Poll::Ready(error.into()),
            }
        }
    }
}

impl Encode {
    /// Waits for the time to flush, while there is anything to.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.unflushed {
            return Poll::Pending;
        }
        let Flush::Soon(deadlines) = &self.flush else { return Poll::Ready(()) };
        let soon = self.soon.get_or_insert_with(|| deadlines.at(Instant::now() + SOON));
        ready!(Pin::new(soon).poll(cx));
        Poll::Ready(())
    }

    fn pace(&mut self) -> Pace {
        *self.pace.get_or_insert_with(|| Pace::of(&self.encoding, self.source.length()))
    }

    fn encoder(&mut self) -> Result<Encoder, Error> {
        match self.encoder.take() {
            Some(encoder) => Ok(encoder),
            None => self.pool.encoder(&self.encoding, self.source.length()),
        }
    }

    /// What is asked of the encoder with the next `length` bytes of the chunk.
    fn op(&self, length: usize) -> Op {
        if self.flushing {
            Op::Flush
        } else if self.source.ended && length == self.source.chunk.len() {
            Op::Finish
        } else {
            Op::Write
        }
    }

    /// Encodes a slice of the chunk, here and now.
    fn step(
        &mut self,
        slice: usize,
        meter: &mut Meter,
        output: &mut Output<'_>,
    ) -> Result<Option<Progress>, Error> {
        let op = self.op(slice);
        let (step, encoder) = meter.work(|| {
            let mut encoder = self.encoder()?;
            let step = encoder.encode(&self.source.chunk[..slice], output.room(), op)?;
            Ok((step, encoder))
        })?;
        self.source.chunk.advance(step.consumed);
        output.fill(step.produced);
        meter.input += step.consumed as u64;
        self.took_in(step.consumed, step.produced);
        if !step.done {
            // An encoder that does nothing with room to spare would be asked for ever.
            let stuck = step.consumed == 0 && step.produced == 0 && !output.is_full();
            self.encoder = Some(encoder);
            return if stuck { Err(Error::Codec(self.encoding.coding())) } else { Ok(None) };
        }
        if op == Op::Finish {
            self.pool.keep_encoder(encoder);
            return Ok(Some(Progress::End(self.source.trailers.take())));
        }
        self.encoder = Some(encoder);
        Ok(self.did(op).then_some(Progress::Output))
    }

    fn took_in(&mut self, consumed: usize, produced: usize) {
        self.inside = if produced > 0 { consumed } else { self.inside + consumed };
        self.unflushed |= consumed > 0;
    }

    /// An operation is done; says whether the reader should have its output now.
    fn did(&mut self, op: Op) -> bool {
        if op != Op::Flush {
            return false;
        }
        (self.inside, self.unflushed, self.flushing, self.soon) = (0, false, false, None);
        true
    }

    /// Sends the encoder away with as much as it should take at a time.
    fn send_beside(&mut self, meter: &mut Meter) -> Result<(), Error> {
        let encoder = self.encoder()?;
        let length = self.source.chunk.len().min(pace::BESIDE);
        let op = self.op(length);
        let input = self.source.chunk.split_to(length);
        meter.input += length as u64;
        self.took_in(length, 0);
        let pool = self.pool.clone();
        let work = move || away(encoder, &input, op, &pool);
        self.beside = Some(beside(self.pool.slots(), work));
        Ok(())
    }

    fn back(&mut self, away: Option<Away>, meter: &mut Meter, output: &mut Output<'_>) -> Progress {
        self.beside = None;
        let Some(Away { encoder, op, made, took }) = away else {
            return Error::Codec(self.encoding.coding()).into();
        };
        meter.add(took);
        self.encoder = encoder;
        match made {
            Ok(made) => {
                if !made.is_empty() {
                    self.inside = 0;
                }
                output.give(made);
            }
            Err(error) => return error.into(),
        }
        self.did(op);
        match op {
            Op::Finish => Progress::End(self.source.trailers.take()),
            Op::Write | Op::Flush => Progress::Output,
        }
    }
}

/// What is done beside the worker.
fn away(mut encoder: Encoder, mut input: &[u8], op: Op, pool: &Pool) -> Away {
    let start = Instant::now();
    let mut scratch = pool.scratch();
    let mut all = Vec::new();
    let made = loop {
        match encoder.encode(input, &mut scratch, op) {
            Err(error) => break Err(error),
            Ok(step) => {
                input = &input[step.consumed..];
                all.extend_from_slice(&scratch[..step.produced]);
                if step.done {
                    break Ok(all.into());
                }
                if step.consumed == 0 && step.produced == 0 {
                    break Err(Error::Codec(encoder.encoding().coding()));
                }
            }
        }
    };
    let encoder = if op == Op::Finish {
        pool.keep_encoder(encoder);
        None
    } else {
        Some(encoder)
    };
    Away { encoder, op, made, took: start.elapsed() }
}

impl Drop for Encode {
    fn drop(&mut self) {
        if let Some(encoder) = self.encoder.take() {
            self.pool.keep_encoder(encoder);
        }
    }
}
