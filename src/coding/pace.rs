//! How much of a setting's work fits into one poll.
//!
//! A worker serves thousands of connections in turn, so no poll may work longer than a millisecond. Whoever
//! drives a codec feeds it a slice at a time and stops once [`BUDGET`] is used up; what is said here is how
//! large a slice may be, and which settings do so much at once, whatever they are fed, that they have to work
//! beside the worker.
//!
//! The tables were measured (`cargo bench --bench coding`) on JSON, on noise and on random `a` and `b`, which is
//! the hardest: matches without end, none of them long. An entry is what even that takes less than a millisecond
//! for.

use std::time::Duration;

use super::Encoding;
use super::settings::{Brotli, Zstd};

/// How long a body may work before others get their turn: one slice more still fits into a millisecond.
pub const BUDGET: Duration = Duration::from_micros(500);

/// How many coded bytes a decoder is fed at a time. What comes of them is bounded by the output's room.
pub const DECODED_SLICE: usize = 16 << 10;

/// How many bytes are encoded at a time beside the worker.
pub const BESIDE: usize = 256 << 10;

const KIB: usize = 1 << 10;

/// The slices of zlib by level. It works evenly: the time goes with the slice, 1 us a KiB at level 1, 1 ms a
/// KiB at level 9. Measured by the levels of zlib-rs, which do as much as ours or more.
const ZLIB_SLICES: [usize; 10] =
    [16 * KIB, 16 * KIB, 16 * KIB, 16 * KIB, 16 * KIB, 16 * KIB, 8 * KIB, 4 * KIB, KIB, KIB / 2];

/// How much brotli may have inside by quality. Below 4 it works on so little at a time that a slice tells all;
/// from 4 on, on blocks of 64 KiB and more; from 9 on, it clears megabytes of tables before it begins.
const BROTLI_INLINE: [usize; 12] = [
    usize::MAX,
    usize::MAX,
    usize::MAX,
    usize::MAX,
    32 * KIB,
    16 * KIB,
    8 * KIB,
    4 * KIB,
    2 * KIB,
    0,
    0,
    0,
];

/// The same for Zstandard, by level from 0 to 10; above, nothing. It works on blocks of 128 KiB.
const ZSTD_INLINE: [usize; 11] = [
    usize::MAX,
    usize::MAX,
    usize::MAX,
    usize::MAX,
    128 * KIB,
    64 * KIB,
    48 * KIB,
    40 * KIB,
    32 * KIB,
    24 * KIB,
    16 * KIB,
];

/// The pace of an encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// How many bytes are fed at a time.
    pub slice: usize,
    /// How many bytes may be in the encoder and not have come out; to feed it more is to be done beside
    /// the worker, since they may all be worked on at once.
    pub inline: usize,
}

impl Pace {
    /// For a body of this length, if that is known.
    pub fn of(encoding: &Encoding, length: Option<u64>) -> Self {
        match encoding {
            Encoding::Gzip(zlib) | Encoding::Deflate(zlib) => {
                Self { slice: ZLIB_SLICES[zlib.level.min(9) as usize], inline: usize::MAX }
            }
            Encoding::Brotli(settings) => brotli(*settings),
            Encoding::Zstd(settings) => zstd(*settings, length),
        }
    }
}

fn brotli(settings: Brotli) -> Pace {
    let Brotli { quality, window_bits, .. } = settings;
    // Two pieces of input are never one to the lowest qualities, so they get large ones.
    let slice = if quality < 2 { 32 * KIB } else { 16 * KIB };
    // Small windows go with a search that is several times as slow.
    let slow = quality >= 5 && window_bits <= 16;
    Pace { slice, inline: if slow { 0 } else { BROTLI_INLINE[quality.min(11) as usize] } }
}

fn zstd(settings: Zstd, length: Option<u64>) -> Pace {
    /// `ZSTD_lazy2`: those after it sort all they see into trees.
    const LAST_QUICK_STRATEGY: u32 = 5;
    let Zstd { level, strategy, checksum: _ } = settings;
    let by_level = usize::try_from(level).ok().and_then(|level| ZSTD_INLINE.get(level).copied());
    let by_level = by_level.unwrap_or(0);
    // Tables go with the length, which for all it knows is large; from level 4 on they take a millisecond
    // to be made ready.
    let small = length.is_some_and(|length| length <= 128 * KIB as u64);
    let quick = strategy.is_none_or(|strategy| strategy <= LAST_QUICK_STRATEGY);
    let inline = if quick && (small || by_level == usize::MAX) { by_level } else { 0 };
    Pace { slice: 64 * KIB, inline }
}
