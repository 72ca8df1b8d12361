//! How bytes are encoded, and how much decoding may cost.
//!
//! Settings are compared and hashed, since an encoder is kept for the next body of the same settings. A
//! number outside of its range counts as the nearest inside.

use super::Coding;

/// A coding and how it is done.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// RFC 1952.
    Gzip(Zlib),
    /// The zlib format, RFC 1950.
    Deflate(Zlib),
    /// RFC 7932.
    Brotli(Brotli),
    /// RFC 8878.
    Zstd(Zstd),
}

impl Encoding {
    /// What it makes.
    pub fn coding(&self) -> Coding {
        match self {
            Self::Gzip(_) => Coding::Gzip,
            Self::Deflate(_) => Coding::Deflate,
            Self::Brotli(_) => Coding::Brotli,
            Self::Zstd(_) => Coding::Zstd,
        }
    }
}

/// The settings of zlib.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Zlib {
    /// 0 (stored) to 9 (smallest).
    pub level: u32,
    /// The logarithm of how far back it looks, 9 to 15.
    pub window_bits: u8,
    /// How much it takes in before it writes a block, 1 to 9.
    pub memory_level: u8,
    /// What it looks for.
    pub strategy: ZlibStrategy,
}

impl Default for Zlib {
    /// As Envoy's gzip has it: half the memory of zlib's own defaults, and a few per cent more output.
    fn default() -> Self {
        Self { level: 6, window_bits: 12, memory_level: 5, strategy: ZlibStrategy::Default }
    }
}

/// What zlib looks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum ZlibStrategy {
    /// Strings that were there before.
    #[default]
    Default,
    /// Only longer ones: for small values that jump about.
    Filtered,
    /// None, only how frequent each byte is.
    HuffmanOnly,
    /// Only runs of one byte.
    Rle,
    /// As `Default`, with the codes that the format has ready.
    Fixed,
}

/// The settings of brotli.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Brotli {
    /// 0 (fastest) to 11 (smallest).
    pub quality: u32,
    /// The logarithm of how far back it looks, 10 to 24.
    pub window_bits: u32,
    /// The logarithm of how much it takes in before it writes, 16 to 24; 0 is what goes with the quality.
    pub block_bits: u32,
    /// What the bytes are.
    pub mode: BrotliMode,
    /// Whether the bytes before a literal tell its code.
    pub literal_context: bool,
}

impl Default for Brotli {
    fn default() -> Self {
        Self {
            quality: 3,
            window_bits: 18,
            block_bits: 0,
            mode: BrotliMode::Generic,
            literal_context: true,
        }
    }
}

/// What brotli is told of the bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum BrotliMode {
    /// Nothing.
    #[default]
    Generic,
    /// Text in UTF-8.
    Text,
    /// A font in WOFF 2.0.
    Font,
}

/// The settings of Zstandard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Zstd {
    /// 1 (fastest) to 22 (smallest).
    pub level: i32,
    /// Whether each frame ends with a checksum.
    pub checksum: bool,
    /// How matches are found, 1 (`fast`) to 9 (`btultra2`); none is what goes with the level.
    pub strategy: Option<u32>,
}

impl Default for Zstd {
    fn default() -> Self {
        Self { level: 3, checksum: false, strategy: None }
    }
}

/// A coding and what its decoder lends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Decoding {
    /// RFC 1952.
    Gzip {
        /// The logarithm of how far back a stream may refer, 9 to 15.
        window_bits: u8,
    },
    /// The zlib format, RFC 1950, or what is meant by it: bytes without its header are taken for raw
    /// deflate data, RFC 1951, as browsers do.
    Deflate {
        /// The logarithm of how far back a stream may refer, 9 to 15.
        window_bits: u8,
    },
    /// RFC 7932.
    Brotli,
    /// RFC 8878.
    Zstd {
        /// The logarithm of how large a frame's window may be, 10 to 27.
        window_bits: u32,
    },
}

impl Decoding {
    /// The largest window a Zstandard decoder should support, and a web sender may use: 8 MiB (RFC 8878
    /// section 3.1.1.1.2, RFC 9659).
    pub const ZSTD_WINDOW_BITS: u32 = 23;

    /// What it reads.
    pub fn coding(&self) -> Coding {
        match self {
            Self::Gzip { .. } => Coding::Gzip,
            Self::Deflate { .. } => Coding::Deflate,
            Self::Brotli => Coding::Brotli,
            Self::Zstd { .. } => Coding::Zstd,
        }
    }
}

impl From<Coding> for Decoding {
    /// With all that the coding asks of a decoder.
    fn from(coding: Coding) -> Self {
        match coding {
            Coding::Gzip => Self::Gzip { window_bits: 15 },
            Coding::Deflate => Self::Deflate { window_bits: 15 },
            Coding::Brotli => Self::Brotli,
            Coding::Zstd => Self::Zstd { window_bits: Self::ZSTD_WINDOW_BITS },
        }
    }
}

/// How much may come out of a decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes out.
    pub max_bytes: u64,
    /// Bytes out for each byte in, once more than [`Limits::RATIO_FROM`] are out: little is a little of
    /// memory whatever it came from, and headers weigh on small bodies.
    pub max_ratio: u32,
}

impl Limits {
    /// How many bytes may come out before their ratio to those that went in counts.
    pub const RATIO_FROM: u64 = 64 << 10;
}
