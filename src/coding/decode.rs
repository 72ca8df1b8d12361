//! Decoders: coded bytes in, bytes out, held to limits.
//!
//! What is decoded was written by somebody who may mean harm. So the room for output is the caller's and
//! small, [`Limits`] are looked at after every step, and memory that the coded bytes ask for (a window) is
//! lent up to a bound. What is wrong is an [`Error`], an early end included: only a body without any byte
//! passes as the empty one, since there are senders that leave the coding in such a body's head.

use brotli::enc::StandardAlloc;
use brotli::{BrotliDecompressStream, BrotliResult, BrotliState};
use zlib_rs::{Inflate, InflateError, InflateFlush, Status};
use zstd_safe::zstd_sys::ZSTD_ErrorCode as Code;
use zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, ResetDirective};

use super::encode::Step;
use super::{Coding, Decoding, Error, Limits};

type Brotli = BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>;

/// Bits of a brotli window up to which one step works no longer than any other: what a stream may make of
/// a few of its bytes grows with its window.
const SMALL_BROTLI_WINDOW_BITS: u8 = 18;

/// One stream of coded bytes being read.
pub struct Decoder {
    decoding: Decoding,
    codec: Codec,
    limits: Limits,
    input: u64,
    output: u64,
    /// The last step filled its output: there may be more without more input.
    more: bool,
}

enum Codec {
    Gzip(Gzip),
    Deflate(Deflate),
    Brotli { state: Box<Brotli>, ended: bool },
    Zstd { context: DCtx<'static>, within: bool },
}

/// Members one after the other (RFC 1952 section 2.2).
struct Gzip {
    window_bits: u8,
    /// None between two members.
    inflate: Option<Inflate>,
    /// A member has ended.
    any: bool,
}

struct Deflate {
    window_bits: u8,
    /// The first byte, until the second tells what they are.
    first: Option<u8>,
    inflate: Option<Inflate>,
    ended: bool,
}

impl Decoder {
    /// A decoder at the beginning of a stream.
    ///
    /// # Errors
    ///
    /// [`Error::Codec`] if there is no memory.
    pub fn new(decoding: Decoding, limits: Limits) -> Result<Self, Error> {
        let codec = match decoding {
            Decoding::Gzip { window_bits } => Codec::Gzip(Gzip {
                window_bits: window_bits.clamp(9, 15),
                inflate: None,
                any: false,
            }),
            Decoding::Deflate { window_bits } => Codec::Deflate(Deflate {
                window_bits: window_bits.clamp(9, 15),
                first: None,
                inflate: None,
                ended: false,
            }),
            Decoding::Brotli => Codec::Brotli { state: Box::new(brotli()), ended: false },
            Decoding::Zstd { window_bits } => {
                let failed = Error::Codec(Coding::Zstd);
                let mut context = DCtx::try_create().ok_or(failed)?;
                let window = DParameter::WindowLogMax(window_bits.clamp(10, 27));
                context.set_parameter(window).map_err(|_code| failed)?;
                Codec::Zstd { context, within: false }
            }
        };
        Ok(Self { decoding, codec, limits, input: 0, output: 0, more: false })
    }

    /// What it decodes.
    pub fn decoding(&self) -> Decoding {
        self.decoding
    }

    /// Back to the beginning of another stream, whatever became of the last.
    ///
    /// # Errors
    ///
    /// [`Error::Codec`] if the codec cannot; the decoder is to be dropped.
    pub fn reset(&mut self, limits: Limits) -> Result<(), Error> {
        match &mut self.codec {
            Codec::Zstd { context, within } => {
                let reset = context.reset(ResetDirective::SessionOnly);
                reset.map_err(|_code| Error::Codec(Coding::Zstd))?;
                *within = false;
                (self.limits, self.input, self.output, self.more) = (limits, 0, 0, false);
            }
            _ => *self = Self::new(self.decoding, limits)?,
        }
        Ok(())
    }

    /// About how many bytes it holds on to.
    pub(super) fn bytes(&self) -> usize {
        match &self.codec {
            Codec::Zstd { context, .. } => context.sizeof(),
            Codec::Brotli { state, .. } => state.ringbuffer_size.unsigned_abs() as usize,
            Codec::Gzip(_) | Codec::Deflate(_) => 48 << 10,
        }
    }

    /// Whether a reset saves anything over a new one.
    pub(super) fn is_worth_keeping(&self) -> bool {
        matches!(self.codec, Codec::Zstd { .. })
    }

    /// Whether one step with this input may take long, however little goes in and comes out. A brotli
    /// stream is decoded into its whole window before any of it is seen.
    pub fn leaps(&self, input: &[u8]) -> bool {
        let Codec::Brotli { state, .. } = &self.codec else { return false };
        let bits = match (self.input, input.first()) {
            (0, Some(first)) => brotli_window_bits(*first),
            (0, None) => return false,
            _ => u8::try_from(state.window_bits).unwrap_or(u8::MAX),
        };
        bits > SMALL_BROTLI_WINDOW_BITS
    }

    /// Does one step: takes some of the input and fills some of the output. It is done if all of the input
    /// was taken and nothing more can come of it.
    ///
    /// # Errors
    ///
    /// What is wrong with the bytes, or that they are too many. The decoder is of no more use then.
    pub fn decode(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, Error> {
        if input.is_empty() && !self.more {
            return Ok(Step { consumed: 0, produced: 0, done: true });
        }
        // One byte more than may come tells that there are too many.
        let left = self.limits.max_bytes.saturating_sub(self.output).saturating_add(1);
        let room = output.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let output = &mut output[..room];
        let step = match &mut self.codec {
            Codec::Gzip(gzip) => gzip.step(input, output),
            Codec::Deflate(deflate) => deflate.step(input, output),
            Codec::Brotli { state, ended } => brotli_step(state, ended, input, output),
            Codec::Zstd { context, within } => {
                zstd_step(context, within, input, output).map_err(|code| self.zstd_error(code))
            }
        }?;
        self.input += step.consumed as u64;
        self.output += step.produced as u64;
        self.more = !step.done;
        if self.more && step.consumed == 0 && step.produced == 0 && room > 0 {
            // It would be asked for ever.
            return Err(Error::Corrupt(self.decoding.coding()));
        }
        self.within_limits()?;
        Ok(step)
    }

    fn within_limits(&self) -> Result<(), Error> {
        let Limits { max_bytes, max_ratio } = self.limits;
        if self.output > max_bytes {
            return Err(Error::TooLarge { limit: max_bytes });
        }
        let most = self.input.saturating_mul(max_ratio.into());
        if self.output > Limits::RATIO_FROM && self.output > most {
            return Err(Error::Ratio { limit: max_ratio });
        }
        Ok(())
    }

    /// There is no more input; all that was there has been decoded.
    ///
    /// # Errors
    ///
    /// [`Error::Truncated`] if there should be more.
    pub fn finish(&self) -> Result<(), Error> {
        let ended = self.input == 0
            || match &self.codec {
                Codec::Gzip(gzip) => gzip.inflate.is_none(),
                Codec::Deflate(deflate) => deflate.ended,
                Codec::Brotli { ended, .. } => *ended,
                Codec::Zstd { within, .. } => !within,
            };
        if ended { Ok(()) } else { Err(Error::Truncated(self.decoding.coding())) }
    }

    fn zstd_error(&self, code: zstd_safe::ErrorCode) -> Error {
        let coding = Coding::Zstd;
        let is = |kind| zstd_safe::is_error_kind(code, kind);
        if is(Code::ZSTD_error_frameParameter_windowTooLarge)
            && let Decoding::Zstd { window_bits } = self.decoding
        {
            Error::Window { coding, window_bits }
        } else if is(Code::ZSTD_error_dictionary_wrong) {
            Error::Dictionary(coding)
        } else if is(Code::ZSTD_error_memory_allocation) {
            Error::Codec(coding)
        } else if is(Code::ZSTD_error_prefix_unknown) && self.output > 0 {
            Error::Trailing(coding)
        } else {
            Error::Corrupt(coding)
        }
    }
}

impl Gzip {
    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, Error> {
        // Nothing is between members, and every member begins so.
        const FIRST: u8 = 0x1f;
        let inflate = match &mut self.inflate {
            Some(inflate) => inflate,
            between => {
                let Some(first) = input.first() else {
                    return Ok(Step { consumed: 0, produced: 0, done: true });
                };
                if *first != FIRST && self.any {
                    return Err(Error::Trailing(Coding::Gzip));
                }
                between.insert(Inflate::new(true, 16 + self.window_bits))
            }
        };
        let (step, ended) = inflate_step(inflate, input, output, Coding::Gzip)?;
        if ended {
            (self.inflate, self.any) = (None, true);
        }
        Ok(step)
    }
}

impl Deflate {
    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, Error> {
        const CODING: Coding = Coding::Deflate;
        if self.ended {
            return match input.is_empty() {
                true => Ok(Step { consumed: 0, produced: 0, done: true }),
                false => Err(Error::Trailing(CODING)),
            };
        }
        if let Some(inflate) = &mut self.inflate {
            let (step, ended) = inflate_step(inflate, input, output, CODING)?;
            self.ended = ended;
            return Ok(step);
        }
        let Some((&byte, rest)) = input.split_first() else {
            return Ok(Step { consumed: 0, produced: 0, done: true });
        };
        let one = Step { consumed: 1, produced: 0, done: rest.is_empty() };
        let Some(first) = self.first else {
            self.first = Some(byte);
            return Ok(one);
        };
        // RFC 1950 section 2.2: deflate, a window, and both bytes a multiple of 31.
        let zlib = first & 0x0f == 8
            && first >> 4 <= 7
            && (u16::from(first) << 8 | u16::from(byte)) % 31 == 0;
        if zlib && (first >> 4) + 8 > self.window_bits {
            return Err(Error::Window { coding: CODING, window_bits: self.window_bits.into() });
        }
        let inflate = self.inflate.insert(Inflate::new(zlib, self.window_bits));
        let (step, ended) = inflate_step(inflate, &[first, byte], output, CODING)?;
        self.ended = ended;
        // The first byte was taken before, and the second may be left for the next step.
        let consumed = step.consumed.saturating_sub(1);
        Ok(Step { done: step.done && rest.is_empty(), produced: step.produced, consumed })
    }
}

/// A step, and whether it was the last.
fn inflate_step(
    inflate: &mut Inflate,
    input: &[u8],
    output: &mut [u8],
    coding: Coding,
) -> Result<(Step, bool), Error> {
    let (taken, given) = (inflate.total_in(), inflate.total_out());
    let status = inflate.decompress(input, output, InflateFlush::NoFlush);
    let ended = match status {
        Ok(status) => status == Status::StreamEnd,
        Err(InflateError::NeedDict { .. }) => return Err(Error::Dictionary(coding)),
        Err(InflateError::MemError) => return Err(Error::Codec(coding)),
        Err(InflateError::DataError | InflateError::StreamError) => {
            return Err(Error::Corrupt(coding));
        }
    };
    let consumed = usize::try_from(inflate.total_in() - taken).unwrap_or(usize::MAX);
    let produced = usize::try_from(inflate.total_out() - given).unwrap_or(usize::MAX);
    let done = consumed == input.len() && (ended || produced < output.len());
    Ok((Step { consumed, produced, done }, ended))
}

fn brotli() -> Brotli {
    let allocator = StandardAlloc::default;
    BrotliState::new(allocator(), allocator(), allocator())
}

/// RFC 7932 section 9.1.
fn brotli_window_bits(first: u8) -> u8 {
    match (first & 1, first >> 1 & 7, first >> 4 & 7) {
        (0, ..) => 16,
        (_, 0, 0) => 17,
        (_, 0, low) => 8 + low,
        (_, high, _) => 17 + high,
    }
}

fn brotli_step(
    state: &mut Brotli,
    ended: &mut bool,
    input: &[u8],
    output: &mut [u8],
) -> Result<Step, Error> {
    if *ended {
        return match input.is_empty() {
            true => Ok(Step { consumed: 0, produced: 0, done: true }),
            false => Err(Error::Trailing(Coding::Brotli)),
        };
    }
    let (mut left, mut consumed) = (input.len(), 0);
    let (mut room, mut produced) = (output.len(), 0);
    let result = BrotliDecompressStream(
        &mut left,
        &mut consumed,
        input,
        &mut room,
        &mut produced,
        output,
        &mut 0,
        state,
    );
    let done = match result {
        BrotliResult::NeedsMoreInput => true,
        BrotliResult::NeedsMoreOutput => false,
        BrotliResult::ResultFailure => return Err(Error::Corrupt(Coding::Brotli)),
        BrotliResult::ResultSuccess => {
            *ended = true;
            left == 0
        }
    };
    Ok(Step { consumed, produced, done })
}

fn zstd_step(
    context: &mut DCtx<'static>,
    within: &mut bool,
    input: &[u8],
    output: &mut [u8],
) -> Result<Step, zstd_safe::ErrorCode> {
    let room = output.len();
    let (mut input_buffer, mut output_buffer) =
        (InBuffer::around(input), OutBuffer::around(output));
    let wanted = context.decompress_stream(&mut output_buffer, &mut input_buffer)?;
    let (consumed, produced) = (input_buffer.pos(), output_buffer.pos());
    // Between frames it wants the next one's first bytes, which need not come.
    if consumed > 0 || produced > 0 {
        *within = wanted > 0;
    }
    let done = consumed == input.len() && (wanted == 0 || produced < room);
    Ok(Step { consumed, produced, done })
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").field("decoding", &self.decoding).finish_non_exhaustive()
    }
}
