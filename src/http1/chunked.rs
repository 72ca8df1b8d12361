//! The chunked transfer coding, read (RFC 9112 section 7.1). Pure: bytes in, pieces out.

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::Malformed;
use super::fields::may_trail;

/// Bytes of chunk extensions in one body: they mean nothing to us, and must not feed us for ever.
const MAX_EXTENSIONS: usize = 16 * 1024;

/// Bytes of trailers.
const MAX_TRAILERS: usize = 16 * 1024;

/// How many trailers.
const MAX_TRAILER_FIELDS: usize = 100;

/// Where in a chunked body the reader is.
#[derive(Debug, Default, PartialEq)]
pub struct Chunked {
    state: State,
    /// What is left of the chunk.
    left: u64,
    extensions: usize,
    /// The trailer section so far.
    trailers: Vec<u8>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first digit of a size.
    #[default]
    Size,
    Digits,
    /// After `;` or blank space, up to the line's end.
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    Trailers,
}

/// What a call of [`Chunked::decode`] found.
#[derive(Debug, PartialEq)]
pub enum Piece {
    /// Bytes of a chunk.
    Data(Bytes),
    /// The end, with the trailers if there are any.
    End(Option<HeaderMap>),
    /// The input is used up.
    More,
}

impl Chunked {
    /// Takes what it can use from the front of `input`.
    pub fn decode(&mut self, input: &mut Bytes) -> Result<Piece, Malformed> {
        loop {
            match self.state {
                State::Data => {
                    if input.is_empty() {
                        return Ok(Piece::More);
                    }
                    let all = usize::try_from(self.left).unwrap_or(usize::MAX);
                    let data = input.split_to(all.min(input.len()));
                    self.left -= data.len() as u64;
                    if self.left == 0 {
                        self.state = State::DataCr;
                    }
                    return Ok(Piece::Data(data));
                }
                State::Trailers => return self.trailers(input),
                _ => {
                    let Some(&byte) = input.first() else { return Ok(Piece::More) };
                    self.line_byte(byte)?;
                    input.advance(1);
                }
            }
        }
    }

    /// Takes a byte that is neither data nor trailers.
    fn line_byte(&mut self, byte: u8) -> Result<(), Malformed> {
        self.state = match (self.state, byte) {
            (State::Size | State::Digits, digit) if digit.is_ascii_hexdigit() => {
                let digit = char::from(digit).to_digit(16).unwrap_or_default();
                // The top four bits must be free for another digit.
                if self.left >> 60 != 0 {
                    return Err(Malformed("a chunk that is too large"));
                }
                self.left = self.left << 4 | u64::from(digit);
                State::Digits
            }
            (State::Digits | State::Extension, b'\r') => State::SizeLf,
            (State::Digits, b';' | b' ' | b'\t') => State::Extension,
            (State::Extension, other) if other != b'\n' => {
                self.extensions += 1;
                if self.extensions > MAX_EXTENSIONS {
                    return Err(Malformed("too many chunk extensions"));
                }
                State::Extension
            }
            (State::SizeLf, b'\n') if self.left == 0 => State::Trailers,
            (State::SizeLf, b'\n') => State::Data,
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size,
            _ => return Err(Malformed("a broken chunk")),
        };
        Ok(())
    }

    /// Collects lines up to the empty one.
    fn trailers(&mut self, input: &mut Bytes) -> Result<Piece, Malformed> {
        // Nearly always there are none.
        if self.trailers.is_empty() && input.starts_with(b"\r\n") {
            input.advance(2);
            return Ok(Piece::End(None));
        }
        while let Some(&byte) = input.first() {
            input.advance(1);
            self.trailers.push(byte);
            if self.trailers == b"\r\n" {
                return Ok(Piece::End(None));
            }
            if self.trailers.ends_with(b"\r\n\r\n") {
                return fields(&self.trailers).map(|trailers| Piece::End(Some(trailers)));
            }
            if self.trailers.len() > MAX_TRAILERS {
                return Err(Malformed("trailers that are too large"));
            }
        }
        Ok(Piece::More)
    }
}

fn fields(section: &[u8]) -> Result<HeaderMap, Malformed> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_TRAILER_FIELDS];
    let Ok(httparse::Status::Complete((_, fields))) = httparse::parse_headers(section, &mut fields)
    else {
        return Err(Malformed("broken trailers"));
    };
    let mut trailers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let value = HeaderValue::from_bytes(field.value);
        let (Ok(name), Ok(value)) = (name, value) else { return Err(Malformed("broken trailers")) };
        if may_trail(&name) {
            trailers.append(name, value);
        }
    }
    Ok(trailers)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The data and trailers of a body that comes in these pieces, and what is left behind it.
    fn decode(pieces: &[&[u8]]) -> Result<(Vec<u8>, Option<HeaderMap>, usize), Malformed> {
        let (mut chunked, mut data) = (Chunked::default(), Vec::new());
        for (index, piece) in pieces.iter().enumerate() {
            let mut input = Bytes::copy_from_slice(piece);
            loop {
                match chunked.decode(&mut input)? {
                    Piece::Data(piece) => data.extend_from_slice(&piece),
                    Piece::End(trailers) => {
                        let rest: usize = pieces[index + 1..].iter().map(|p| p.len()).sum();
                        return Ok((data, trailers, input.len() + rest));
                    }
                    Piece::More => break,
                }
            }
        }
        Err(Malformed("unfinished"))
    }

    #[test]
    fn bodies_end_with_their_empty_chunk() {
        let cases: [(&[u8], &[u8], usize); 5] = [
            (b"0\r\n\r\n", b"", 0),
            (b"3\r\nabc\r\n0\r\n\r\nHTTP", b"abc", 4),
            (b"0003 ; a=\"b\"\r\nabc\r\n00;x\r\n\r\n", b"abc", 0),
            (b"a\r\n0123456789\r\nB\r\n0123456789a\r\n0\r\n\r\n", b"01234567890123456789a", 0),
            (b"1\r\nx\r\n0\r\nx-t: 1\r\n\r\n", b"x", 0),
        ];
        for (body, data, left) in cases {
            let (found, _, rest) = decode(&[body]).unwrap();
            assert_eq!((&found[..], rest), (data, left), "{:?}", Bytes::from_static(body));
        }
    }

    #[test]
    fn trailers_that_tell_how_to_read_the_message_are_dropped() {
        let body = b"0\r\nx-t: 1\r\ncontent-length: 5\r\nX-T: 2\r\nhost: h\r\n\r\n";
        let trailers = decode(&[body]).unwrap().1.unwrap();
        assert_eq!(trailers.get_all("x-t").iter().collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(trailers.len(), 2);
    }

    #[test]
    fn what_is_not_quite_chunked_is_refused() {
        let long = [b"1;".as_slice(), &[b'x'; MAX_EXTENSIONS + 1]].concat();
        let trailers = [b"0\r\nx: ".as_slice(), &[b'x'; MAX_TRAILERS + 1]].concat();
        let cases: [&[u8]; 12] = [
            b"\r\n",
            b";x\r\n",
            b"-1\r\n",
            b"0x1\r\na",
            b"1\na\n0\n\n",
            b"1\r\nab\r\n",
            b"1\r\na\n",
            b"1\r\rb",
            b"11111111111111111\r\n",
            b"0\r\nno colon\r\n\r\n",
            &long,
            &trailers,
        ];
        for body in cases {
            let error = decode(&[body]).unwrap_err();
            assert_ne!(error, Malformed("unfinished"), "{:?}", Bytes::copy_from_slice(body));
        }
    }

    proptest! {
        #[test]
        fn however_it_is_cut_the_body_is_the_same(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8),
            trailer in any::<bool>(),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let mut body = Vec::new();
            for chunk in &chunks {
                body.extend_from_slice(format!("{:X};e\r\n", chunk.len()).as_bytes());
                body.extend_from_slice(chunk);
                body.extend_from_slice(b"\r\n");
            }
            body.extend_from_slice(if trailer { b"0\r\na: b\r\n\r\n" } else { b"0\r\n\r\n" });
            let mut at: Vec<_> = cuts.iter().map(|cut| cut.index(body.len())).collect();
            at.extend([0, body.len()]);
            at.sort_unstable();
            let pieces: Vec<_> = at.windows(2).map(|w| &body[w[0]..w[1]]).collect();
            let (data, trailers, rest) = decode(&pieces).unwrap();
            prop_assert_eq!((data, trailers.is_some(), rest), (chunks.concat(), trailer, 0));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&[&bytes]);
        }
    }
}
