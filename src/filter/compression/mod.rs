//! Bodies that encode or decode another, for the filters that compress and decompress messages.

mod beside;
mod coded_body;
mod decode_body;
mod encode_body;
mod meter;
mod source;
#[cfg(test)]
mod tests;

pub use self::decode_body::decoded;
pub use self::encode_body::{Flush, encoded};
pub use self::meter::{End, Outcome};
