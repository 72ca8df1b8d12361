//! What is broken is an error, at the latest at its end.

use super::*;

const TEXT: &[u8] =
    b"a story that is long enough to be a story, a story, and another story after it";

#[test]
fn an_end_that_comes_too_early_is_an_error_wherever_it_comes() {
    for encoding in encodings() {
        let (coding, coded) = (encoding.coding(), encode(&encoding, TEXT));
        for end in 1..coded.len() {
            let cut = decode(coding.into(), &coded[..end]);
            assert_eq!(cut, Err(Error::Truncated(coding)), "{} after {end}", coding.name());
        }
    }
}

#[test]
fn a_body_without_a_byte_is_the_empty_body() {
    for coding in Coding::ALL {
        assert_eq!(decode(coding.into(), b""), Ok(vec![]));
    }
    for encoding in encodings() {
        let coded = encode(&encoding, b"");
        assert!(!coded.is_empty());
        assert_eq!(decode(encoding.coding().into(), &coded), Ok(vec![]));
    }
}

#[test]
fn a_flipped_bit_is_never_taken_for_the_story() {
    for encoding in encodings() {
        let (coding, coded) = (encoding.coding(), encode(&encoding, TEXT));
        for bit in 0..8 * coded.len() {
            let mut flipped = coded.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let Ok(read) = decode(coding.into(), &flipped) else { continue };
            // Brotli has no checksum, a gzip header has bits that mean nothing to us, and data without
            // zlib's header is taken for what it then says.
            let unchecked = coding == Coding::Brotli || coding == Coding::Deflate && bit < 16;
            assert!(unchecked || read == TEXT, "{} bit {bit}", coding.name());
        }
    }
}

#[test]
fn bytes_after_the_end_are_an_error() {
    for encoding in encodings() {
        let coding = encoding.coding();
        let coded = encode(&encoding, TEXT);
        for garbage in [&b"\0"[..], b"garbage", b"\n\n\n\n\n\n"] {
            let long = [&coded, garbage].concat();
            let read = decode(coding.into(), &long);
            let expected = Err(Error::Trailing(coding));
            assert_eq!(read, expected, "{}", coding.name());
            let pieces = long.chunks(1);
            let read = decode_pieces(coding.into(), WIDE, pieces, 1 << 10);
            assert_eq!(read, expected, "{} in pieces", coding.name());
        }
    }
}

#[test]
fn members_and_frames_one_after_the_other_are_one_body() {
    let [gzip, _, _, zstd] = encodings();
    let skippable = b"\x52\x2a\x4d\x18\x03\0\0\0abc";
    for (encoding, between) in [(&gzip, &b""[..]), (&zstd, b""), (&zstd, skippable)] {
        let one = encode(encoding, TEXT);
        let two = [between, &one, between, &encode(encoding, b""), &one, between].concat();
        let expected = Ok([TEXT, TEXT].concat());
        let decoding = encoding.coding().into();
        assert_eq!(decode(decoding, &two), expected);
        for (piece, room) in [(1, 1), (1, 1 << 10), (7, 3), (1 << 10, 1), (1 << 10, TEXT.len())] {
            assert_eq!(decode_pieces(decoding, WIDE, two.chunks(piece), room), expected);
        }
    }
    let [_, deflate, brotli, _] = encodings();
    for encoding in [deflate, brotli] {
        let one = encode(&encoding, TEXT);
        let coding = encoding.coding();
        let two = decode(coding.into(), &[&one[..], &one].concat());
        assert_eq!(two, Err(Error::Trailing(coding)));
    }
}

#[test]
fn deflate_is_read_with_zlibs_header_and_without() {
    let [_, deflate, ..] = encodings();
    let zlib = encode(&deflate, TEXT);
    let raw = &zlib[2..zlib.len() - 4];
    let read = |coded: &[u8], piece| {
        decode_pieces(Coding::Deflate.into(), WIDE, coded.chunks(piece), 1 << 10)
    };
    for piece in [1, 2, 3, 1 << 10] {
        assert_eq!(read(&zlib, piece), Ok(TEXT.to_vec()));
        assert_eq!(read(raw, piece), Ok(TEXT.to_vec()));
        // An empty block: two bytes, and the shortest there is.
        assert_eq!(read(b"\x03\0", piece), Ok(vec![]));
        assert_eq!(read(b"\x03\0\0", piece), Err(Error::Trailing(Coding::Deflate)));
    }
    assert_eq!(read(&raw[..raw.len() - 1], 9), Err(Error::Truncated(Coding::Deflate)));
    assert_eq!(read(&zlib[..1], 1), Err(Error::Truncated(Coding::Deflate)));
    // A header with a preset dictionary.
    let preset = b"\x78\xbb\x12\x34\x56\x78rest";
    assert_eq!(read(preset, 100), Err(Error::Dictionary(Coding::Deflate)));
}

#[test]
fn a_window_larger_than_what_is_lent_is_an_error() {
    let text = TEXT.repeat(2_000);
    let zlib = Zlib { window_bits: 15, ..Zlib::default() };
    let coded = encode(&Encoding::Deflate(zlib), &text);
    let coding = Coding::Deflate;
    let small = Decoding::Deflate { window_bits: 14 };
    assert_eq!(decode(small, &coded), Err(Error::Window { coding, window_bits: 14 }));
    assert_eq!(decode(Decoding::Deflate { window_bits: 15 }, &coded), Ok(text.clone()));

    let zstd = Encoding::Zstd(Zstd::default());
    let mut encoder = Encoder::new(&Arc::new(zstd), None).unwrap();
    let mut coded = vec![0; 100_000];
    let written = encoder.encode(&text, &mut coded, Op::Flush).unwrap().produced;
    let ended = encoder.encode(b"", &mut coded[written..], Op::Finish).unwrap().produced;
    let coded = &coded[..written + ended];
    let (coding, window_bits) = (Coding::Zstd, 17);
    let small = decode(Decoding::Zstd { window_bits }, coded);
    assert_eq!(small, Err(Error::Window { coding, window_bits }));
    assert_eq!(decode(Coding::Zstd.into(), coded), Ok(text));
}

#[test]
fn the_highest_level_of_zstandard_stays_within_the_window_of_the_web() {
    let encoding = Arc::new(Encoding::Zstd(Zstd { level: 22, ..Zstd::default() }));
    let mut encoder = Encoder::new(&encoding, None).unwrap();
    let mut coded = vec![0; 1_000];
    let step = encoder.encode(TEXT, &mut coded, Op::Flush).unwrap();
    let mut decoder = Decoder::new(Coding::Zstd.into(), WIDE).unwrap();
    let step = decoder.decode(&coded[..step.produced], &mut [0; 1_000]).unwrap();
    assert_eq!(step.produced, TEXT.len());
}

#[test]
fn more_or_less_than_was_told_is_an_error_and_not_a_wrong_length() {
    let encoding = Arc::new(Encoding::Zstd(Zstd::default()));
    let mut encoder = Encoder::new(&encoding, Some(10)).unwrap();
    let mut room = [0; 1_000];
    let failed = Err(Error::Codec(Coding::Zstd));
    encoder.encode(b"more ", &mut room, Op::Write).unwrap();
    assert_eq!(encoder.encode(b"than ten", &mut room, Op::Finish), failed);
    encoder.reset(Some(10)).unwrap();
    encoder.encode(b"less", &mut room, Op::Write).unwrap();
    assert_eq!(encoder.encode(b"", &mut room, Op::Finish), failed);
    encoder.reset(Some(4)).unwrap();
    assert!(encoder.encode(b"four", &mut room, Op::Finish).unwrap().done);
}

#[test]
fn nonsense_is_an_error() {
    for coding in Coding::ALL {
        for nonsense in [&b"<html>hello</html>"[..], b"\x1f\x8b\x09\0\0\0\0\0\0\0", &[0xff; 64]] {
            let read = decode(coding.into(), nonsense);
            assert!(read.is_err(), "{}: {read:?}", coding.name());
        }
    }
}
