//! Base64 in pieces, as `application/grpc-web-text` has it: a stream of quads, padded anywhere.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;

/// Bytes in front of a message: a flag and a length.
pub(super) const PREFIX: usize = 5;

/// Decodes what comes in pieces of any length.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    /// The begin of a quad.
    held: Vec<u8>,
}

/// What is said to be in base64 and is not.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotBase64;

impl Decoder {
    /// What a piece makes whole; nothing while a quad is open.
    pub(super) fn decode(&mut self, piece: &[u8]) -> Result<Bytes, NotBase64> {
        let mut decoded = Vec::with_capacity((self.held.len() + piece.len()) / 4 * 3);
        let mut rest = piece;
        if !self.held.is_empty() {
            let (first, others) = piece.split_at(piece.len().min(4 - self.held.len()));
            self.held.extend_from_slice(first);
            rest = others;
            if self.held.len() < 4 {
                return Ok(Bytes::new());
            }
            decode_quads(&self.held, &mut decoded)?;
            self.held.clear();
        }
        let (quads, begun) = rest.split_at(rest.len() / 4 * 4);
        decode_quads(quads, &mut decoded)?;
        self.held.extend_from_slice(begun);
        Ok(decoded.into())
    }

    /// Whether the stream may end here.
    pub(super) fn finish(&self) -> Result<(), NotBase64> {
        if self.held.is_empty() { Ok(()) } else { Err(NotBase64) }
    }
}

fn decode_quads(mut quads: &[u8], decoded: &mut Vec<u8>) -> Result<(), NotBase64> {
    while !quads.is_empty() {
        // Padding ends a run, not the stream.
        let padding = quads.iter().position(|byte| *byte == b'=');
        let (run, others) = quads.split_at(padding.map_or(quads.len(), |at| at / 4 * 4 + 4));
        BASE64.decode_vec(run, decoded).map_err(|_invalid| NotBase64)?;
        quads = others;
    }
    Ok(())
}

/// Encodes a stream of messages. Padding stands at the end of each, so that nobody waits for the next one to
/// read it.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    /// The begin of a triple.
    held: Vec<u8>,
    /// Of a message's prefix; whole when it is as long as that.
    prefix: Vec<u8>,
    /// Of the message, still to come.
    left: usize,
}

impl Encoder {
    /// What a piece makes sayable.
    pub(super) fn encode(&mut self, mut piece: &[u8]) -> Bytes {
        let mut text = String::with_capacity((self.held.len() + piece.len() + PREFIX) / 3 * 4);
        while !piece.is_empty() {
            let in_prefix = PREFIX - self.prefix.len();
            let until = if in_prefix > 0 { in_prefix } else { self.left };
            let (part, others) = piece.split_at(piece.len().min(until));
            self.push(part, &mut text);
            piece = others;
            if in_prefix == 0 {
                self.left -= part.len();
            } else {
                self.prefix.extend_from_slice(part);
                if let [_, length @ ..] = self.prefix.as_slice()
                    && let Ok(length) = <[u8; 4]>::try_from(length)
                {
                    self.left = u32::from_be_bytes(length) as usize;
                }
            }
            if self.prefix.len() == PREFIX && self.left == 0 {
                self.prefix.clear();
                self.flush(&mut text);
            }
        }
        text.into()
    }

    /// What is left when the stream ends within a message.
    pub(super) fn finish(&mut self) -> Bytes {
        let mut text = String::new();
        self.flush(&mut text);
        text.into()
    }

    fn push(&mut self, mut part: &[u8], text: &mut String) {
        if !self.held.is_empty() {
            let (first, others) = part.split_at(part.len().min(3 - self.held.len()));
            self.held.extend_from_slice(first);
            part = others;
            if self.held.len() < 3 {
                return;
            }
            self.flush(text);
        }
        let (triples, begun) = part.split_at(part.len() / 3 * 3);
        BASE64.encode_string(triples, text);
        self.held.extend_from_slice(begun);
    }

    fn flush(&mut self, text: &mut String) {
        BASE64.encode_string(&self.held, text);
        self.held.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decoded(pieces: &[&str]) -> Result<Vec<u8>, NotBase64> {
        let mut decoder = Decoder::default();
        let mut all = Vec::new();
        for piece in pieces {
            all.extend_from_slice(&decoder.decode(piece.as_bytes())?);
        }
        decoder.finish().map(|()| all)
    }

    #[test]
    fn padding_may_stand_anywhere_and_what_is_open_at_the_end_is_refused() {
        for (pieces, expected) in [
            (&["AAAAAANhYmM="][..], Ok(&b"\0\0\0\0\x03abc"[..])),
            (&["YQ==YmM=", "ZGVm"], Ok(b"abcdef")),
            (&["Y", "Q=", "=Y", "mM=Z", "", "GVm"], Ok(b"abcdef")),
            (&[], Ok(b"")),
            (&["YQ"], Err(NotBase64)),
            (&["YQ==Y"], Err(NotBase64)),
            (&["Y=Q="], Err(NotBase64)),
            (&["===="], Err(NotBase64)),
            (&["YW\nJj"], Err(NotBase64)),
            (&["-_-_"], Err(NotBase64)),
        ] {
            assert_eq!(decoded(pieces), expected.map(<[u8]>::to_vec), "{pieces:?}");
        }
    }

    #[test]
    fn a_message_can_be_read_when_it_is_whole() {
        let mut encoder = Encoder::default();
        assert_eq!(encoder.encode(b"\0\0\0\0\x04ab"), "AAAAAARh");
        assert_eq!(encoder.encode(b"cd"), "YmNk");
        assert_eq!(encoder.encode(b"\0\0\0\0\0"), "AAAAAAA=");
        assert_eq!(encoder.encode(b"\0\0\0\0\x01x\0\0\0\0\x01y"), "AAAAAAF4AAAAAAF5");
        assert_eq!(encoder.encode(b"\0\0"), "");
        assert_eq!(encoder.finish(), "AAA=");
        assert_eq!(encoder.finish(), "");
    }

    fn cut<'a>(mut bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
        let mut pieces = Vec::new();
        for cut in cuts {
            let (piece, rest) = bytes.split_at((*cut).min(bytes.len()));
            pieces.push(piece);
            bytes = rest;
        }
        pieces.push(bytes);
        pieces
    }

    proptest! {
        #[test]
        fn pieces_of_any_length_come_back_whole(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            cuts in prop::collection::vec(0..20_usize, 0..20),
        ) {
            let mut encoder = Encoder::default();
            let mut text = Vec::new();
            for piece in cut(&bytes, &cuts) {
                text.extend_from_slice(&encoder.encode(piece));
            }
            text.extend_from_slice(&encoder.finish());
            let mut decoder = Decoder::default();
            let mut back = Vec::new();
            for piece in cut(&text, &cuts) {
                back.extend_from_slice(&decoder.decode(piece).unwrap());
            }
            prop_assert_eq!(decoder.finish(), Ok(()));
            prop_assert_eq!(back, bytes);
        }
    }
}
