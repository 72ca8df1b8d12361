//! HPACK: header compression of HTTP/2 (RFC 7541).
//!
//! Both directions are without I/O. Names and values are checked once, when they are first read: what a
//! table holds is known to be sound or malformed.

mod decoder;
mod encoder;
mod fields;
mod huffman;

use thiserror::Error;

pub(super) use decoder::Decoder;
pub(super) use encoder::Encoder;
pub(super) use fields::{Field, Name, Pseudo, Value};

/// What a dynamic table counts for an entry beside its bytes (RFC 7541 section 4.1).
const ENTRY_OVERHEAD: usize = 32;

/// Largest dynamic table of a peer that was told nothing.
pub(super) const DEFAULT_TABLE_SIZE: u32 = 4096;

/// Why a header block cannot be read. The tables no longer agree, so the connection is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum Error {
    #[error("a header block ends in the middle of a field")]
    Truncated,
    #[error("an integer of a header block is too large")]
    Integer,
    #[error("a header block has an index without an entry")]
    Index,
    #[error("a string of a header block is not in the Huffman code")]
    Huffman,
    #[error("a header block changes the size of its table where it may not")]
    TableSize,
}
