//! Frames of HTTP/2 as bytes (RFC 9113 sections 4 and 6).

use std::fmt;

/// Bytes of a frame before its payload.
pub(super) const HEAD_LENGTH: usize = 9;

/// The largest payload that we take, and that a peer takes which said nothing else.
pub(super) const MAX_FRAME_SIZE: usize = 16_384;

/// The largest window, and the largest id of a stream.
pub(super) const MAX_31_BITS: u32 = 0x7fff_ffff;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const ACK: u8 = 0x1;
pub(super) const END_STREAM: u8 = 0x1;
pub(super) const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const HAS_PRIORITY: u8 = 0x20;

/// Why a stream or a connection ends (RFC 9113 section 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::hcm) struct Reason(pub(super) u32);

impl Reason {
    pub(super) const NO_ERROR: Self = Self(0x0);
    pub(super) const PROTOCOL_ERROR: Self = Self(0x1);
    pub(super) const INTERNAL_ERROR: Self = Self(0x2);
    pub(super) const FLOW_CONTROL_ERROR: Self = Self(0x3);
    pub(super) const STREAM_CLOSED: Self = Self(0x5);
    pub(super) const FRAME_SIZE_ERROR: Self = Self(0x6);
    pub(super) const REFUSED_STREAM: Self = Self(0x7);
    pub(super) const COMPRESSION_ERROR: Self = Self(0x9);
    pub(super) const ENHANCE_YOUR_CALM: Self = Self(0xb);
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match *self {
            Self::NO_ERROR => "NO_ERROR",
            Self::PROTOCOL_ERROR => "PROTOCOL_ERROR",
            Self::INTERNAL_ERROR => "INTERNAL_ERROR",
            Self::FLOW_CONTROL_ERROR => "FLOW_CONTROL_ERROR",
            Self::STREAM_CLOSED => "STREAM_CLOSED",
            Self::FRAME_SIZE_ERROR => "FRAME_SIZE_ERROR",
            Self::REFUSED_STREAM => "REFUSED_STREAM",
            Self::COMPRESSION_ERROR => "COMPRESSION_ERROR",
            Self::ENHANCE_YOUR_CALM => "ENHANCE_YOUR_CALM",
            Self(other) => return write!(f, "error {other}"),
        };
        f.write_str(name)
    }
}

/// What a peer did wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The connection cannot go on.
    Connection(Reason, &'static str),
    /// The stream of the frame cannot.
    Stream(Reason, &'static str),
}

impl Fault {
    pub(super) const fn protocol(what: &'static str) -> Self {
        Self::Connection(Reason::PROTOCOL_ERROR, what)
    }

    pub(super) const fn size(what: &'static str) -> Self {
        Self::Connection(Reason::FRAME_SIZE_ERROR, what)
    }
}

/// What stands before a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) length: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl Head {
    /// The head at the front of `bytes`, if it is all there.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let [l2, l1, l0, kind, flags, s3, s2, s1, s0, ..] = *bytes else { return None };
        Some(Self {
            length: u32::from_be_bytes([0, l2, l1, l0]) as usize,
            kind,
            flags,
            stream: u32::from_be_bytes([s3, s2, s1, s0]) & MAX_31_BITS,
        })
    }

    pub(super) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The payload of DATA or HEADERS without padding and priority.
    pub(super) fn content(self, payload: &[u8]) -> Result<std::ops::Range<usize>, Fault> {
        let (mut start, mut end) = (0, payload.len());
        if self.has(PADDED) {
            let padding = *payload.first().ok_or(Fault::size("padding without a length"))?;
            start = 1;
            end = end
                .checked_sub(usize::from(padding))
                .ok_or(Fault::protocol("more padding than payload"))?;
        }
        if self.kind == HEADERS && self.has(HAS_PRIORITY) {
            start += 5;
            if payload.len() < start {
                return Err(Fault::size("a priority is cut off"));
            }
        }
        match start <= end {
            true => Ok(start..end),
            false => Err(Fault::protocol("more padding than payload")),
        }
    }
}

/// A payload of one 32-bit number.
pub(super) fn number(payload: &[u8]) -> Option<u32> {
    payload.try_into().ok().map(u32::from_be_bytes)
}

/// The head of a frame.
fn head(length: usize, (kind, flags): (u8, u8), stream: u32) -> [u8; HEAD_LENGTH] {
    debug_assert!(length < 1 << 24);
    let [l0, l1, l2, ..] = length.to_le_bytes();
    let [s3, s2, s1, s0] = stream.to_be_bytes();
    [l2, l1, l0, kind, flags, s3, s2, s1, s0]
}

/// Appends the head of a frame.
pub(super) fn put_head(out: &mut Vec<u8>, length: usize, what: (u8, u8), stream: u32) {
    out.extend_from_slice(&head(length, what, stream));
}

/// Appends a frame whose payload is numbers.
pub(super) fn put_numbers(out: &mut Vec<u8>, kind: u8, stream: u32, numbers: &[u32]) {
    put_head(out, numbers.len() * 4, (kind, 0), stream);
    numbers.iter().for_each(|number| out.extend_from_slice(&number.to_be_bytes()));
}

/// Appends a header block that was written to `out` from `start` on, behind room for the head of one frame,
/// as frames of at most `most` bytes.
pub(super) fn close_block(
    out: &mut Vec<u8>,
    start: usize,
    (stream, flags): (u32, u8),
    most: usize,
) {
    let length = out.len() - start - HEAD_LENGTH;
    if length <= most {
        let head = head(length, (HEADERS, flags | END_HEADERS), stream);
        return out[start..start + HEAD_LENGTH].copy_from_slice(&head);
    }
    let block = out.split_off(start + HEAD_LENGTH);
    out.truncate(start);
    let last = block.len().div_ceil(most) - 1;
    for (at, piece) in block.chunks(most).enumerate() {
        let ends = if at == last { END_HEADERS } else { 0 };
        let kind = if at == 0 { (HEADERS, flags | ends) } else { (CONTINUATION, ends) };
        put_head(out, piece.len(), kind, stream);
        out.extend_from_slice(piece);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(kind: u8, flags: u8) -> Head {
        Head { length: 0, kind, flags, stream: 1 }
    }

    #[test]
    fn heads_are_read_as_they_are_written() {
        let mut out = Vec::new();
        put_head(&mut out, 0x01_02_03, (HEADERS, END_HEADERS), 0x7fff_fffe);
        let read = Head::parse(&out).unwrap();
        let expected =
            Head { length: 0x01_02_03, kind: 1, flags: END_HEADERS, stream: 0x7fff_fffe };
        assert_eq!(read, expected);
        assert_eq!(Head::parse(&out[..8]), None);
        // The reserved bit means nothing.
        out[5] |= 0x80;
        assert_eq!(Head::parse(&out).unwrap(), expected);
    }

    #[test]
    fn padding_and_priority_are_not_content() {
        for (kind, flags, payload, content) in [
            (DATA, 0, &b"abc"[..], &b"abc"[..]),
            (DATA, PADDED, b"\x01ab\0", b"ab"),
            (DATA, PADDED, b"\0", b""),
            (DATA, HAS_PRIORITY, b"abcdef", b"abcdef"),
            (HEADERS, HAS_PRIORITY, b"\0\0\0\0\x10x", b"x"),
            (HEADERS, HAS_PRIORITY | PADDED, b"\x02\0\0\0\0\x10x\0\0", b"x"),
        ] {
            assert_eq!(&payload[head(kind, flags).content(payload).unwrap()], content);
        }
        for (kind, flags, payload) in [
            (DATA, PADDED, &b""[..]),
            (DATA, PADDED, b"\x01"),
            (DATA, PADDED, b"\x03ab"),
            (HEADERS, HAS_PRIORITY, b"\0\0\0\0"),
            (HEADERS, HAS_PRIORITY | PADDED, b"\x01\0\0\0\0\x10"),
        ] {
            assert!(head(kind, flags).content(payload).is_err(), "{payload:x?}");
        }
    }

    #[test]
    fn long_blocks_go_on_in_further_frames() {
        for length in [0usize, 1, 10, 11, 25, 30] {
            let mut out = b"before".to_vec();
            let start = out.len();
            out.resize(start + HEAD_LENGTH, 0);
            out.extend((0..length).map(|i| i.to_le_bytes()[0]));
            close_block(&mut out, start, (5, END_STREAM), 10);
            let mut rest = &out[6..];
            let mut block = Vec::new();
            let mut heads = Vec::new();
            while let Some(head) = Head::parse(rest) {
                block.extend_from_slice(&rest[HEAD_LENGTH..HEAD_LENGTH + head.length]);
                rest = &rest[HEAD_LENGTH + head.length..];
                heads.push(head);
            }
            assert_eq!(block.len(), length);
            assert!(block.iter().enumerate().all(|(i, byte)| usize::from(*byte) == i));
            assert!(heads[0].kind == HEADERS && heads[0].has(END_STREAM));
            assert!(heads[1..].iter().all(|head| head.kind == CONTINUATION && head.stream == 5));
            let ends = heads.iter().filter(|head| head.has(END_HEADERS)).count();
            assert!(ends == 1 && heads.last().unwrap().has(END_HEADERS));
        }
    }
}
