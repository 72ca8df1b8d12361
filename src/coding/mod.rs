//! Content codings (RFC 9110 section 8.4): gzip, deflate, br and zstd, both ways.
//!
//! An [`Encoder`] and a [`Decoder`] are fed bytes in any pieces and give bytes out; they wait for nobody
//! and know no message. The bodies that drive them live with the filters that wrap a message in them
//! (`filter::compression`). What is dear to make is made once and kept in a [`Pool`].
//!
//! Whatever comes out of the network, a decoder answers with bytes or an [`enum@Error`]; whatever it claims to
//! hold, what comes out is held to [`Limits`].

pub mod accept;
mod decode;
mod encode;
pub mod pace;
mod pool;
pub mod settings;
#[cfg(test)]
mod tests;

use thiserror::Error;

pub use self::decode::Decoder;
pub use self::encode::{Encoder, Op, Step};
pub use self::pool::{Pool, Scratch, Slots, whole};
pub use self::settings::{
    Brotli, BrotliMode, Decoding, Encoding, Limits, Zlib, ZlibStrategy, Zstd,
};

/// A coding that we speak. The order is that of [`Coding::ALL`] and prefers nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Coding {
    /// RFC 1952.
    Gzip,
    /// The zlib format (RFC 1950), whatever the name says.
    Deflate,
    /// RFC 7932.
    Brotli,
    /// RFC 8878.
    Zstd,
}

impl Coding {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Gzip, Self::Deflate, Self::Brotli, Self::Zstd];

    /// Its name in the registry of codings, as `Content-Encoding` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }

    /// The coding of this name, in any case. `x-gzip` is gzip (RFC 9110 section 8.4.1.3).
    pub fn parse(token: &str) -> Option<Self> {
        if token.eq_ignore_ascii_case("x-gzip") {
            return Some(Self::Gzip);
        }
        Self::ALL.into_iter().find(|coding| token.eq_ignore_ascii_case(coding.name()))
    }
}

/// Why bytes could not be decoded or, where that is said, encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    /// They ended before the coding did.
    #[error("{} data ends too early", .0.name())]
    Truncated(Coding),
    /// They are not what the coding allows, or fail its checksum.
    #[error("{} data is corrupt", .0.name())]
    Corrupt(Coding),
    /// More bytes came after the coding's end.
    #[error("{} data has bytes after its end", .0.name())]
    Trailing(Coding),
    /// They refer to a dictionary, and we have none.
    #[error("{} data needs a dictionary", .0.name())]
    Dictionary(Coding),
    /// They refer further back than we lend memory for.
    #[error("{} data needs a window of more than {window_bits} bits", coding.name())]
    Window {
        /// Of what.
        coding: Coding,
        /// How many bits a window may have.
        window_bits: u32,
    },
    /// They become more bytes than may be.
    #[error("the decoded data is larger than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// They become more bytes than may be for so few.
    #[error("the decoded data is more than {limit} times as large")]
    Ratio {
        /// The limit, in bytes out for each byte in.
        limit: u32,
    },
    /// The codec itself failed: it found no memory, or was promised another length.
    #[error("the {} codec failed", .0.name())]
    Codec(Coding),
}

impl Error {
    /// Whether the bytes are too many, not wrong.
    pub fn is_too_large(self) -> bool {
        matches!(self, Self::TooLarge { .. } | Self::Ratio { .. })
    }
}
