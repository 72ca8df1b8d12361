//! A body that decodes another.
//!
//! Its reader gets whatever can be decoded of what has come. It ends in an error where the coding does not
//! hold, or where more comes out than may: no more than one chunk of output after that.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::time::Instant;

use super::beside::{Beside, beside};
use super::coded_body::{Drive, Output, Progress, coded};
use super::meter::{Meter, Outcome};
use super::source::Source;
use crate::coding::pace::DECODED_SLICE;
use crate::coding::{Decoder, Decoding, Error, Limits, Pool};
use crate::exchange::Body;

/// The body that decodes `inner`, as long as it keeps to the limits. `on_end` is told once what it came to,
/// however it ends.
pub fn decoded(
    inner: Body,
    decoding: Decoding,
    limits: Limits,
    pool: &Pool,
    on_end: impl FnOnce(Outcome) + Send + Unpin + 'static,
) -> Body {
    let decode = Decode {
        source: Source::new(inner),
        decoding,
        limits,
        pool: pool.clone(),
        decoder: None,
        beside: None,
        more: false,
    };
    coded(decode, pool, on_end)
}

struct Decode {
    source: Source,
    decoding: Decoding,
    limits: Limits,
    pool: Pool,
    /// From the first byte on; none while it is away.
    decoder: Option<Decoder>,
    beside: Option<Beside<Away>>,
    /// The decoder may have more without more input.
    more: bool,
}

/// A decoder that was away, what it made of how much, and whether it has more.
struct Away {
    decoder: Decoder,
    made: Result<(Bytes, usize, bool), Error>,
    took: Duration,
}

impl Drive for Decode {
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
            if self.source.chunk.is_empty() && !self.more {
                if self.source.ended {
                    return Poll::Ready(self.end());
                }
                if let Err(error) = ready!(self.source.poll(cx)) {
                    return Poll::Ready(Progress::Failed(error));
                }
                continue;
            }
            if let Err(error) = self.step(meter, output) {
                return Poll::Ready(error.into());
            }
            if self.beside.is_some() && !output.is_empty() {
                return Poll::Ready(Progress::Output);
            }
        }
    }
}

impl Decode {
    fn end(&mut self) -> Progress {
        if let Some(decoder) = self.decoder.take() {
            let whole = decoder.finish();
            self.pool.keep_decoder(decoder);
            if let Err(error) = whole {
                return error.into();
            }
        }
        Progress::End(self.source.trailers.take())
    }

    /// Decodes some, or begins to do so beside the worker.
    fn step(&mut self, meter: &mut Meter, output: &mut Output<'_>) -> Result<(), Error> {
        let mut decoder = match self.decoder.take() {
            Some(decoder) => decoder,
            None => self.pool.decoder(self.decoding, self.limits)?,
        };
        let slice = self.source.chunk.len().min(DECODED_SLICE);
        if decoder.leaps(&self.source.chunk) {
            let input = self.source.chunk.slice(..slice);
            let pool = self.pool.clone();
            self.beside = Some(beside(self.pool.slots(), move || away(decoder, &input, &pool)));
            return Ok(());
        }
        let input = &self.source.chunk[..slice];
        let step = meter.work(|| decoder.decode(input, output.room()))?;
        output.fill(step.produced);
        self.decoder = Some(decoder);
        self.took_in(step.consumed, !step.done, meter);
        Ok(())
    }

    fn took_in(&mut self, consumed: usize, more: bool, meter: &mut Meter) {
        self.source.chunk.advance(consumed);
        meter.input += consumed as u64;
        self.more = more;
    }

    fn back(&mut self, away: Option<Away>, meter: &mut Meter, output: &mut Output<'_>) -> Progress {
        self.beside = None;
        let Some(Away { decoder, made, took }) = away else {
            return Error::Codec(self.decoding.coding()).into();
        };
        meter.add(took);
        self.decoder = Some(decoder);
        match made {
            Err(error) => error.into(),
            Ok((made, consumed, more)) => {
                self.took_in(consumed, more, meter);
                output.give(made);
                Progress::Output
            }
        }
    }
}

/// What is done beside the worker: until the input is used up or a chunk of output is full.
fn away(mut decoder: Decoder, input: &[u8], pool: &Pool) -> Away {
    let start = Instant::now();
    let mut scratch = pool.scratch();
    let (mut taken, mut filled) = (0, 0);
    let made = loop {
        match decoder.decode(&input[taken..], &mut scratch[filled..]) {
            Err(error) => break Err(error),
            Ok(step) => {
                taken += step.consumed;
                filled += step.produced;
                if step.done || filled == scratch.len() {
                    let made = Bytes::copy_from_slice(&scratch[..filled]);
                    break Ok((made, taken, !step.done));
                }
            }
        }
    };
    Away { decoder, made, took: start.elapsed() }
}

impl Drop for Decode {
    fn drop(&mut self) {
        if let Some(decoder) = self.decoder.take() {
            self.pool.keep_decoder(decoder);
        }
    }
}
