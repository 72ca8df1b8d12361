//! What holds for every coding: what went in comes out, what is broken is an error, what swells is stopped.

mod broken;
mod round_trip;
mod swelling;

use std::sync::Arc;

use super::*;

const WIDE: Limits = Limits { max_bytes: u64::MAX, max_ratio: u32::MAX };

/// One of each coding, with a checksum where the format has one.
fn encodings() -> [Encoding; 4] {
    [
        Encoding::Gzip(Zlib::default()),
        Encoding::Deflate(Zlib::default()),
        Encoding::Brotli(Brotli::default()),
        Encoding::Zstd(Zstd { checksum: true, ..Zstd::default() }),
    ]
}

fn pool() -> Pool {
    Pool::new(&Slots::default())
}

fn encode(encoding: &Encoding, bytes: &[u8]) -> Vec<u8> {
    whole(bytes, &Arc::new(encoding.clone()), &pool()).unwrap().into()
}

fn decode(decoding: Decoding, coded: &[u8]) -> Result<Vec<u8>, Error> {
    decode_pieces(decoding, WIDE, coded.chunks(coded.len().max(1)), 1 << 10)
}

fn decode_pieces<'a>(
    decoding: Decoding,
    limits: Limits,
    pieces: impl Iterator<Item = &'a [u8]>,
    room: usize,
) -> Result<Vec<u8>, Error> {
    let mut decoder = Decoder::new(decoding, limits)?;
    let (mut room, mut all) = (vec![0; room], Vec::new());
    for mut piece in pieces {
        loop {
            let step = decoder.decode(piece, &mut room)?;
            piece = &piece[step.consumed..];
            all.extend_from_slice(&room[..step.produced]);
            if step.done {
                assert!(piece.is_empty(), "done with all of it");
                break;
            }
        }
    }
    decoder.finish()?;
    Ok(all)
}

#[test]
fn a_coding_is_known_by_its_name_in_any_case() {
    for coding in Coding::ALL {
        assert_eq!(Coding::parse(coding.name()), Some(coding));
        assert_eq!(Coding::parse(&coding.name().to_uppercase()), Some(coding));
    }
    assert_eq!(Coding::parse("X-GZip"), Some(Coding::Gzip));
    for other in ["", "identity", "*", "gzip ", "brotli", "compress", "x-deflate", "gz\u{131}p"] {
        assert_eq!(Coding::parse(other), None, "{other:?}");
    }
}
