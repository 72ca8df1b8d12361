//! What headers say about a message, and header fields as text.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRAILER, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::Malformed;
use crate::exchange::headers::has_option;

/// The length that a head gives its body (RFC 9110 section 8.6). Several that say the same are one.
pub fn content_length(headers: &HeaderMap) -> Result<Option<u64>, Malformed> {
    let mut length = None;
    for value in headers.get_all(CONTENT_LENGTH) {
        let digits = value.as_bytes();
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return Err(Malformed("a content-length that is no number"));
        }
        let parsed = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
        let parsed: u64 = parsed.ok_or(Malformed("a content-length that is too large"))?;
        if length.is_some_and(|before| before != parsed) {
            return Err(Malformed("two content-lengths"));
        }
        length = Some(parsed);
    }
    Ok(length)
}

/// What `Transfer-Encoding` says (RFC 9112 section 6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransferCoding {
    /// Nothing.
    None,
    /// Chunked and nothing else.
    Chunked,
    /// Something that is not understood here.
    Other,
}

/// Reads `Transfer-Encoding`.
pub fn transfer_coding(headers: &HeaderMap) -> TransferCoding {
    let mut values = headers.get_all(TRANSFER_ENCODING).iter();
    match (values.next(), values.next()) {
        (None, _) => TransferCoding::None,
        (Some(one), None) if one.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") => {
            TransferCoding::Chunked
        }
        _ => TransferCoding::Other,
    }
}

/// Whether the connection may be used again after a message of HTTP/1.`minor`
/// (RFC 9112 section 9.3).
pub fn keeps_alive(headers: &HeaderMap, minor: u8) -> bool {
    let mut keep = minor > 0;
    for value in headers.get_all(CONNECTION) {
        if says_close(value.as_bytes()) {
            return false;
        }
        keep |= has_option(value.as_bytes(), b"keep-alive");
    }
    keep
}

/// Whether a `Connection` field says that this was the last message.
pub fn says_close(connection: &[u8]) -> bool {
    has_option(connection, b"close")
}

/// A field as it was read. Its value shares the bytes of `input`, of which it is.
pub fn owned(
    input: &Bytes,
    field: &httparse::Header<'_>,
) -> Result<(HeaderName, HeaderValue), Malformed> {
    let name = HeaderName::from_bytes(field.name.as_bytes())
        .map_err(|_invalid| Malformed("a header has no valid name"))?;
    let value = HeaderValue::from_maybe_shared(input.slice_ref(field.value))
        .map_err(|_invalid| Malformed("a header has no valid value"))?;
    Ok((name, value))
}

/// Fields that tell how to read a message cannot follow it (RFC 9110 section 6.5.1).
pub fn may_trail(name: &HeaderName) -> bool {
    !matches!(*name, CONTENT_LENGTH | TRANSFER_ENCODING | HOST | CONNECTION | TE | TRAILER)
}

/// Writes a line of a head.
pub fn push_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}
