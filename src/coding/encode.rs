//! Encoders: bytes in, coded bytes out, at the caller's pace.
//!
//! An encoder keeps no more than its codec does. The caller brings the output's room with every call and
//! calls until a step is done, so nothing is ever copied into a queue, or made ready before there is
//! somebody to take it.

use std::sync::Arc;

use brotli::enc::StandardAlloc;
use brotli::enc::encode::{
    BrotliEncoderOperation, BrotliEncoderParameter as Parameter, BrotliEncoderStateStruct,
};
use zlib_rs::{Deflate, DeflateConfig, DeflateFlush};
use zstd_safe::zstd_sys::ZSTD_EndDirective;
use zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer, ResetDirective, Strategy};

use super::settings::{Brotli, BrotliMode, Encoding, Zlib, ZlibStrategy, Zstd};
use super::{Coding, Decoding, Error};

/// What is asked of an encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Take this in, and give out what happens to be ready.
    Write,
    /// The same, and give out all that went in. Costs size: not for every piece.
    Flush,
    /// The same, and end.
    Finish,
}

/// What one call did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Bytes taken from the input.
    pub consumed: usize,
    /// Bytes written to the output.
    pub produced: usize,
    /// Whether all of the operation was done. Otherwise it is to be called again, with the rest of the
    /// input and the same operation.
    pub done: bool,
}

/// One stream of coded bytes in the making.
pub struct Encoder {
    encoding: Arc<Encoding>,
    codec: Codec,
}

enum Codec {
    Zlib { deflate: Deflate, used: bool },
    Brotli(Box<BrotliEncoderStateStruct<StandardAlloc>>),
    Zstd(CCtx<'static>),
}

impl Encoder {
    /// An encoder at the beginning of a stream. If its length is told, it must be right.
    ///
    /// # Errors
    ///
    /// [`Error::Codec`] if there is no memory.
    pub fn new(encoding: &Arc<Encoding>, length: Option<u64>) -> Result<Self, Error> {
        let codec = match &**encoding {
            Encoding::Gzip(zlib) => Codec::zlib(*zlib, 16),
            Encoding::Deflate(zlib) => Codec::zlib(*zlib, 0),
            Encoding::Brotli(settings) => Codec::Brotli(Box::new(brotli(*settings, length))),
            Encoding::Zstd(settings) => {
                let mut context = CCtx::try_create().ok_or(Error::Codec(Coding::Zstd))?;
                zstd(&mut context, *settings).map_err(codec_failed)?;
                context.set_pledged_src_size(length).map_err(codec_failed)?;
                Codec::Zstd(context)
            }
        };
        Ok(Self { encoding: Arc::clone(encoding), codec })
    }

    /// How it encodes.
    pub fn encoding(&self) -> &Arc<Encoding> {
        &self.encoding
    }

    /// Back to the beginning of another stream, whatever became of the last.
    ///
    /// # Errors
    ///
    /// [`Error::Codec`] if the codec cannot; the encoder is to be dropped.
    pub fn reset(&mut self, length: Option<u64>) -> Result<(), Error> {
        match &mut self.codec {
            // A table of 128 KiB is cleared, which need not be done twice.
            Codec::Zlib { deflate, used } => {
                if std::mem::take(used) {
                    deflate.reset();
                }
            }
            Codec::Brotli(state) => {
                if let Encoding::Brotli(settings) = &*self.encoding {
                    **state = brotli(*settings, length);
                }
            }
            Codec::Zstd(context) => {
                context.reset(ResetDirective::SessionOnly).map_err(codec_failed)?;
                context.set_pledged_src_size(length).map_err(codec_failed)?;
            }
        }
        Ok(())
    }

    /// About how many bytes it holds on to.
    pub(super) fn bytes(&self) -> usize {
        match (&self.codec, &*self.encoding) {
            (Codec::Zstd(context), _) => context.sizeof(),
            (_, Encoding::Gzip(zlib) | Encoding::Deflate(zlib)) => zlib_bytes(*zlib),
            // As measured: the highest qualities have tables for all that may come.
            (_, Encoding::Brotli(settings)) if settings.quality < 9 => 2 << 20,
            _ => 32 << 20,
        }
    }

    /// Whether a reset saves anything over a new one.
    pub(super) fn is_worth_keeping(&self) -> bool {
        !matches!(self.codec, Codec::Brotli(_))
    }

    /// Does one step. The output should have room for at least a few dozen bytes. After
    /// [`Op::Finish`] is done there is nothing left to call but [`Encoder::reset`].
    ///
    /// # Errors
    ///
    /// [`Error::Codec`] if the codec ran out of memory, or more or less came than was told.
    pub fn encode(&mut self, input: &[u8], output: &mut [u8], op: Op) -> Result<Step, Error> {
        match &mut self.codec {
            Codec::Zlib { deflate, used } => {
                *used = true;
                deflate_step(deflate, input, output, op)
                    .map_err(|_codec| Error::Codec(self.encoding.coding()))
            }
            Codec::Brotli(state) => brotli_step(state, input, output, op),
            Codec::Zstd(context) => zstd_step(context, input, output, op),
        }
    }
}

impl Codec {
    /// `format` is what zlib adds to the bits of a window: 16 for gzip.
    fn zlib(settings: Zlib, format: i32) -> Self {
        let Zlib { level, window_bits, memory_level, strategy } = settings;
        let config = DeflateConfig {
            level: engine_level(level),
            window_bits: format + i32::from(window_bits.clamp(9, 15)),
            mem_level: i32::from(memory_level.clamp(1, 9)),
            strategy: match strategy {
                ZlibStrategy::Default => zlib_rs::Strategy::Default,
                ZlibStrategy::Filtered => zlib_rs::Strategy::Filtered,
                ZlibStrategy::HuffmanOnly => zlib_rs::Strategy::HuffmanOnly,
                ZlibStrategy::Rle => zlib_rs::Strategy::Rle,
                ZlibStrategy::Fixed => zlib_rs::Strategy::Fixed,
            },
            ..DeflateConfig::default()
        };
        Self::Zlib { deflate: Deflate::new_with_config(config), used: false }
    }
}

/// Levels are those of zlib, whose sizes people know. zlib-rs counts otherwise: its 5 makes what zlib's 6
/// makes, within 2 per cent for text, code and pages, in half of the time that its 6 takes; and so on above. 5 is
/// its 5 as well, and up to 4 they are near enough to each other.
const ENGINE_LEVELS: [i32; 10] = [0, 1, 2, 3, 4, 5, 5, 6, 7, 9];

fn engine_level(level: u32) -> i32 {
    ENGINE_LEVELS[level.min(9) as usize]
}

/// What zlib-rs allocates: the window twice, what came before each of its places, where each hash was seen
/// last, and per symbol of a block four bytes of output and three of input.
fn zlib_bytes(settings: Zlib) -> usize {
    let window = 1_usize << settings.window_bits.clamp(9, 15);
    let symbols = 1_usize << (settings.memory_level.clamp(1, 9) + 6);
    2 * window + 2 * window + (128 << 10) + 7 * symbols + (8 << 10)
}

fn deflate_step(
    deflate: &mut Deflate,
    input: &[u8],
    output: &mut [u8],
    op: Op,
) -> Result<Step, zlib_rs::DeflateError> {
    let (taken, given) = (deflate.total_in(), deflate.total_out());
    let flush = match op {
        Op::Write => DeflateFlush::NoFlush,
        Op::Flush => DeflateFlush::SyncFlush,
        Op::Finish => DeflateFlush::Finish,
    };
    let status = deflate.compress(input, output, flush)?;
    let consumed = length(deflate.total_in() - taken);
    let produced = length(deflate.total_out() - given);
    let done = match op {
        // Output that just fits may have more behind it.
        Op::Write | Op::Flush => consumed == input.len() && produced < output.len(),
        Op::Finish => status == zlib_rs::Status::StreamEnd,
    };
    Ok(Step { consumed, produced, done })
}

/// A difference that a slice's length bounds.
fn length(difference: u64) -> usize {
    usize::try_from(difference).unwrap_or(usize::MAX)
}

fn brotli(settings: Brotli, length: Option<u64>) -> BrotliEncoderStateStruct<StandardAlloc> {
    let Brotli { quality, window_bits, block_bits, mode, literal_context } = settings;
    let mut state = BrotliEncoderStateStruct::new(StandardAlloc::default());
    let mode = match mode {
        BrotliMode::Generic => 0,
        BrotliMode::Text => 1,
        BrotliMode::Font => 2,
    };
    let mut window_bits = window_bits.clamp(10, 24);
    if let Some(length) = length {
        // A window larger than the body only costs memory, which is cleared first. With one of 16 bits or
        // less the codec looks for matches in a way that takes several times as long.
        let enough = (length.saturating_add(16)).next_power_of_two().trailing_zeros();
        window_bits = window_bits.min(enough.max(17));
        let hint = u32::try_from(length).unwrap_or(u32::MAX);
        state.set_parameter(Parameter::BROTLI_PARAM_SIZE_HINT, hint);
    }
    state.set_parameter(Parameter::BROTLI_PARAM_QUALITY, quality.min(11));
    state.set_parameter(Parameter::BROTLI_PARAM_LGWIN, window_bits);
    state.set_parameter(Parameter::BROTLI_PARAM_LGBLOCK, block_bits.min(24));
    state.set_parameter(Parameter::BROTLI_PARAM_MODE, mode);
    state.set_parameter(
        Parameter::BROTLI_PARAM_DISABLE_LITERAL_CONTEXT_MODELING,
        u32::from(!literal_context),
    );
    state
}

fn brotli_step(
    state: &mut BrotliEncoderStateStruct<StandardAlloc>,
    input: &[u8],
    output: &mut [u8],
    op: Op,
) -> Result<Step, Error> {
    let operation = match op {
        Op::Write => BrotliEncoderOperation::BROTLI_OPERATION_PROCESS,
        Op::Flush => BrotliEncoderOperation::BROTLI_OPERATION_FLUSH,
        Op::Finish => BrotliEncoderOperation::BROTLI_OPERATION_FINISH,
    };
    let (mut left, mut consumed) = (input.len(), 0);
    let (mut room, mut produced) = (output.len(), 0);
    let went_well = state.compress_stream(
        operation,
        &mut left,
        input,
        &mut consumed,
        &mut room,
        output,
        &mut produced,
        &mut None,
        &mut |_, _, _, _| (),
    );
    if !went_well {
        return Err(Error::Codec(Coding::Brotli));
    }
    let done = match op {
        Op::Write | Op::Flush => left == 0 && !state.has_more_output(),
        Op::Finish => state.is_finished(),
    };
    Ok(Step { consumed, produced, done })
}

fn zstd(context: &mut CCtx<'static>, settings: Zstd) -> zstd_safe::SafeResult {
    let Zstd { level, checksum, strategy } = settings;
    context.set_parameter(CParameter::CompressionLevel(level.clamp(1, 22)))?;
    context.set_parameter(CParameter::ChecksumFlag(checksum))?;
    if level > 19 {
        // The levels above would look back further than receivers must lend memory for (RFC 9659).
        context.set_parameter(CParameter::WindowLog(Decoding::ZSTD_WINDOW_BITS))?;
    }
    let Some(strategy) = strategy else { return Ok(0) };
    context.set_parameter(CParameter::Strategy(match strategy {
        0 | 1 => Strategy::ZSTD_fast,
        2 => Strategy::ZSTD_dfast,
        3 => Strategy::ZSTD_greedy,
        4 => Strategy::ZSTD_lazy,
        5 => Strategy::ZSTD_lazy2,
        6 => Strategy::ZSTD_btlazy2,
        7 => Strategy::ZSTD_btopt,
        8 => Strategy::ZSTD_btultra,
        _ => Strategy::ZSTD_btultra2,
    }))
}

fn zstd_step(
    context: &mut CCtx<'static>,
    input: &[u8],
    output: &mut [u8],
    op: Op,
) -> Result<Step, Error> {
    let directive = match op {
        Op::Write => ZSTD_EndDirective::ZSTD_e_continue,
        Op::Flush => ZSTD_EndDirective::ZSTD_e_flush,
        Op::Finish => ZSTD_EndDirective::ZSTD_e_end,
    };
    let (mut input_buffer, mut output_buffer) =
        (InBuffer::around(input), OutBuffer::around(output));
    let left = context
        .compress_stream2(&mut output_buffer, &mut input_buffer, directive)
        .map_err(codec_failed)?;
    let (consumed, produced) = (input_buffer.pos(), output_buffer.pos());
    Ok(Step { consumed, produced, done: left == 0 && consumed == input.len() })
}

/// Zstandard says why in a code whose texts are for programmers.
fn codec_failed(_code: zstd_safe::ErrorCode) -> Error {
    Error::Codec(Coding::Zstd)
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").field("encoding", &self.encoding).finish_non_exhaustive()
    }
}
