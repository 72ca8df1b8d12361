//! What went in comes out, in whatever pieces, by whatever settings.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

fn zlib() -> impl Strategy<Value = Zlib> {
    use ZlibStrategy::{Default, Filtered, Fixed, HuffmanOnly, Rle};
    let strategies = select(vec![Default, Filtered, HuffmanOnly, Rle, Fixed]);
    (0_u32..=9, 9_u8..=15, 1_u8..=9, strategies).prop_map(
        |(level, window_bits, memory_level, strategy)| Zlib {
            level,
            window_bits,
            memory_level,
            strategy,
        },
    )
}

fn brotli() -> impl Strategy<Value = Brotli> {
    use BrotliMode::{Font, Generic, Text};
    let blocks = prop_oneof![Just(0_u32), 16_u32..=24];
    let modes = select(vec![Generic, Text, Font]);
    // The two highest take a second for what the others do in a millisecond.
    (0_u32..=9, 10_u32..=24, blocks, modes, any::<bool>()).prop_map(
        |(quality, window_bits, block_bits, mode, literal_context)| Brotli {
            quality,
            window_bits,
            block_bits,
            mode,
            literal_context,
        },
    )
}

fn zstd() -> impl Strategy<Value = Zstd> {
    // Higher ones clear hundreds of megabytes for each stream.
    (1_i32..=9, any::<bool>(), proptest::option::of(1_u32..=9))
        .prop_map(|(level, checksum, strategy)| Zstd { level, checksum, strategy })
}

fn encoding() -> impl Strategy<Value = Encoding> {
    prop_oneof![
        zlib().prop_map(Encoding::Gzip),
        zlib().prop_map(Encoding::Deflate),
        brotli().prop_map(Encoding::Brotli),
        zstd().prop_map(Encoding::Zstd),
    ]
}

/// Bytes that repeat themselves and bytes that do not.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let run = (any::<u8>(), 0_usize..5_000).prop_map(|(byte, length)| vec![byte; length]);
    let words = vec(select(vec!["alpha", "bravo", "\n", "{\"id\":"]), 0..400)
        .prop_map(|words| words.concat().into_bytes());
    let noise = vec(any::<u8>(), 0..3_000);
    vec(prop_oneof![run, words, noise], 0..6).prop_map(|parts| parts.concat())
}

/// Encodes pieces, flushing after some, and asks for output in small rooms.
fn encode_pieces(encoder: &mut Encoder, pieces: &[(Vec<u8>, bool)], room: usize) -> Vec<u8> {
    let (mut room, mut all) = (vec![0; room], Vec::new());
    let ops = pieces
        .iter()
        .map(|(piece, flush)| (piece.as_slice(), if *flush { Op::Flush } else { Op::Write }));
    for (mut piece, op) in ops.chain([(&[][..], Op::Finish)]) {
        loop {
            let step = encoder.encode(piece, &mut room, op).unwrap();
            piece = &piece[step.consumed..];
            all.extend_from_slice(&room[..step.produced]);
            if step.done {
                assert!(piece.is_empty(), "done with all of it");
                break;
            }
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn what_went_in_comes_out(
        encoding in encoding(),
        pieces in vec((body(), any::<bool>()), 0..5),
        tell_length in any::<bool>(),
        rooms in (32_usize..5_000, 1_usize..5_000),
        piece in 1_usize..5_000,
    ) {
        let encoding = Arc::new(encoding);
        let plain: Vec<u8> = pieces.iter().flat_map(|(piece, _)| piece.iter().copied()).collect();
        let length = tell_length.then_some(plain.len() as u64);
        let mut encoder = Encoder::new(&encoding, length).unwrap();
        let coded = encode_pieces(&mut encoder, &pieces, rooms.0);
        let decoding = encoding.coding().into();
        let decoded = decode_pieces(decoding, WIDE, coded.chunks(piece), rooms.1);
        prop_assert_eq!(decoded, Ok(plain));

        // An encoder that was used does the same as a new one, whatever became of the last stream.
        encoder.reset(None).unwrap();
        let _ = encoder.encode(b"broken off", &mut [0; 64], Op::Write).unwrap();
        encoder.reset(length).unwrap();
        prop_assert_eq!(encode_pieces(&mut encoder, &pieces, rooms.0), coded);
    }

    #[test]
    fn what_was_flushed_can_be_read(encoding in encoding(), piece in body(), rest in body()) {
        let mut encoder = Encoder::new(&Arc::new(encoding.clone()), None).unwrap();
        let mut decoder = Decoder::new(encoding.coding().into(), WIDE).unwrap();
        for piece in [piece, rest] {
            let mut coded = vec![0; 2 * piece.len() + 1_024];
            let step = encoder.encode(&piece, &mut coded, Op::Flush).unwrap();
            prop_assert!(step.done);
            let mut coded = &coded[..step.produced];
            let (mut plain, mut read) = (vec![0; piece.len() + 1], 0);
            loop {
                let step = decoder.decode(coded, &mut plain[read..]).unwrap();
                coded = &coded[step.consumed..];
                read += step.produced;
                if step.done {
                    break;
                }
            }
            prop_assert_eq!(&plain[..read], piece);
        }
    }
}

#[test]
fn the_highest_qualities_of_brotli_are_read_too() {
    let text = b"alpha bravo alpha bravo charlie".repeat(40);
    for quality in [10, 11] {
        let brotli = Encoding::Brotli(Brotli { quality, ..Brotli::default() });
        assert_eq!(decode(Decoding::Brotli, &encode(&brotli, &text)), Ok(text.clone()));
    }
}

#[test]
fn numbers_out_of_range_are_the_nearest_inside() {
    let text = b"alpha bravo".repeat(100);
    let zlib = |level, window_bits, memory_level| {
        Encoding::Gzip(Zlib { level, window_bits, memory_level, strategy: ZlibStrategy::Default })
    };
    assert_eq!(encode(&zlib(99, 99, 99), &text), encode(&zlib(9, 15, 9), &text));
    assert_eq!(encode(&zlib(1, 0, 0), &text), encode(&zlib(1, 9, 1), &text));
    let brotli = Brotli { quality: 4, window_bits: 99, block_bits: 99, ..Brotli::default() };
    let zstd = Zstd { level: -7, strategy: Some(99), checksum: false };
    for encoding in [Encoding::Brotli(brotli), Encoding::Zstd(zstd)] {
        let coded = encode(&encoding, &text);
        assert_eq!(decode(encoding.coding().into(), &coded), Ok(text.clone()));
    }
}

#[test]
fn a_pool_gives_an_encoder_back_to_its_settings_only() {
    let pool = pool();
    let [gzip, deflate, ..] = encodings().map(Arc::new);
    let text = b"alpha bravo".repeat(1_000);
    for _ in 0..3 {
        for encoding in [&gzip, &deflate] {
            let coded = whole(&text, encoding, &pool).unwrap();
            assert_eq!(decode(encoding.coding().into(), &coded), Ok(text.clone()));
        }
    }
    assert_eq!(format!("{pool:?}"), "Pool { encoders: 2, decoders: 0, .. }");
}

#[test]
fn idle_encoders_are_bounded_in_bytes() {
    let pool = pool();
    let gzip = Arc::new(Encoding::Gzip(Zlib { window_bits: 15, ..Zlib::default() }));
    let busy: Vec<_> = (0..100).map(|_| pool.encoder(&gzip, None).unwrap()).collect();
    busy.into_iter().for_each(|encoder| pool.keep_encoder(encoder));
    assert_eq!(format!("{pool:?}"), "Pool { encoders: 29, decoders: 0, .. }");
}
