//! The Huffman code of RFC 7541 appendix B. It is canonical: among codes of one length a greater symbol
//! has a greater code, so that their lengths are all there is to know.

use super::Error;

/// Bits of each symbol's code. The end-of-string symbol has 30, all of them ones.
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5,
    5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6,
    6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22,
    23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22,
    21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20,
    22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19,
    21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22,
    22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

/// The longest code of a symbol.
const LONGEST: usize = 30;

/// Codes by their lengths. Codes are compared as they stand at the top of 32 bits.
struct Codes {
    /// Symbols in the order of their codes.
    symbols: [u8; 256],
    /// The first code of each length.
    first: [u32; LONGEST + 1],
    /// What is above every code of this length and of those below it.
    limit: [u32; LONGEST + 1],
    /// Where among `symbols` those of a length begin.
    offset: [usize; LONGEST + 1],
    /// The symbol and length of a code of at most eight bits, by the eight bits that begin with it.
    /// A length of 0 is of a longer one.
    short: [(u8, u8); 256],
}

const fn codes() -> Codes {
    let mut codes = Codes {
        symbols: [0; 256],
        first: [0; LONGEST + 1],
        limit: [0; LONGEST + 1],
        offset: [0; LONGEST + 1],
        short: [(0, 0); 256],
    };
    let (mut next, mut placed, mut length) = (0u32, 0, 1);
    while length <= LONGEST {
        codes.first[length] = next;
        codes.offset[length] = placed;
        let mut symbol = 0u8;
        loop {
            if LENGTHS[symbol as usize] as usize == length {
                codes.symbols[placed] = symbol;
                placed += 1;
                if length <= 8 {
                    let mut at = (next >> 24) as usize;
                    let end = at + (1 << (8 - length));
                    while at < end {
                        codes.short[at] = (symbol, LENGTHS[symbol as usize]);
                        at += 1;
                    }
                }
                next += 1 << (32 - length);
            }
            if symbol == 255 {
                break;
            }
            symbol += 1;
        }
        codes.limit[length] = next;
        length += 1;
    }
    codes
}

static CODES: Codes = codes();

/// Appends what `input` stands for to `output`: at most eight bytes for five.
pub(super) fn decode(input: &[u8], output: &mut Vec<u8>) -> Result<(), Error> {
    // Bits not yet decoded, at the top, and how many they are.
    let (mut bits, mut count) = (0u64, 0u8);
    let mut input = input.iter();
    loop {
        while count <= 56 {
            let Some(byte) = input.next() else { break };
            bits |= u64::from(*byte) << (56 - count);
            count += 8;
        }
        let (mut symbol, mut length) = CODES.short[(bits >> 56) as usize];
        if length == 0 || length > count {
            // The end is filled up with the first bits of the end-of-string symbol: ones.
            if count < 8 {
                let padding = u64::MAX.checked_shl(u32::from(64 - count)).unwrap_or(0);
                return if bits == padding { Ok(()) } else { Err(Error::Huffman) };
            }
            (symbol, length) = long((bits >> 32) as u32).ok_or(Error::Huffman)?;
            if length > count {
                return Err(Error::Huffman);
            }
        }
        output.push(symbol);
        bits <<= length;
        count -= length;
    }
}

/// The symbol whose code of more than eight bits begins these, and its length.
fn long(bits: u32) -> Option<(u8, u8)> {
    let length = (9..=LONGEST).find(|length| bits < CODES.limit[*length])?;
    let index = (bits - CODES.first[length]) >> (32 - length);
    let symbol = CODES.symbols[CODES.offset[length] + index as usize];
    Some((symbol, LENGTHS[usize::from(symbol)]))
}

/// The code of `input`; the proxy itself sends strings as they are.
#[cfg(test)]
pub(super) fn encode(input: &[u8]) -> Vec<u8> {
    let mut bits: Vec<bool> = Vec::new();
    for symbol in input {
        let length = usize::from(LENGTHS[usize::from(*symbol)]);
        let rank = (0..*symbol).filter(|s| usize::from(LENGTHS[usize::from(*s)]) == length).count();
        let code = (CODES.first[length] >> (32 - length)) + u32::try_from(rank).unwrap();
        bits.extend((0..length).rev().map(|bit| code >> bit & 1 == 1));
    }
    bits.resize(bits.len().next_multiple_of(8), true);
    bits.chunks(8).map(|byte| byte.iter().fold(0, |sum, bit| sum << 1 | u8::from(*bit))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decoded(input: &[u8]) -> Result<Vec<u8>, Error> {
        let mut output = Vec::new();
        decode(input, &mut output).map(|()| output)
    }

    #[test]
    fn the_strings_of_the_rfc_are_read_and_written() {
        for (text, code) in [
            ("www.example.com", &b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff"[..]),
            ("no-cache", b"\xa8\xeb\x10\x64\x9c\xbf"),
            ("custom-value", b"\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf"),
            ("private", b"\xae\xc3\x77\x1a\x4b"),
            ("", b""),
        ] {
            assert_eq!(decoded(code).unwrap(), text.as_bytes());
            assert_eq!(encode(text.as_bytes()), code);
        }
    }

    #[test]
    fn padding_is_short_and_of_ones() {
        // `0` is five zeros.
        assert_eq!(decoded(&[0b0000_0111]).unwrap(), b"0");
        for wrong in [&[0b0000_0110][..], &[0b0000_0111, 0xff], &[0xff], &[0xff; 4], &[0xff; 9]] {
            assert!(decoded(wrong).is_err(), "{wrong:x?}");
        }
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(text in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(decoded(&encode(&text)).unwrap(), text);
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(code in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(text) = decoded(&code) {
                prop_assert_eq!(encode(&text), code);
            }
        }
    }
}
