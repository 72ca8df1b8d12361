//! Coded bodies that senders make up: whatever comes, a decoder gives bytes within its limits or an error, and
//! what we encode comes back.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use nuncio::coding::accept::Weights;
use nuncio::coding::{
    Brotli, Coding, Decoder, Decoding, Encoding, Limits, Pool, Slots, Zlib, Zstd, whole,
};

const LIMITS: Limits = Limits { max_bytes: 1 << 20, max_ratio: 1_000 };

fuzz_target!(|input: (u8, u8, &[u8])| {
    let (choice, size, bytes) = input;
    let coding = Coding::ALL[usize::from(choice) % Coding::ALL.len()];
    let (piece, room) = (usize::from(size) + 1, usize::from(choice) * 64 + 1);
    let _ = decode(coding.into(), bytes, piece, room);
    let narrow = match coding {
        Coding::Gzip => Decoding::Gzip { window_bits: 9 },
        Coding::Deflate => Decoding::Deflate { window_bits: 9 },
        Coding::Brotli => Decoding::Brotli,
        Coding::Zstd => Decoding::Zstd { window_bits: 10 },
    };
    let _ = decode(narrow, bytes, piece, room);

    let level = u32::from(size) % 10;
    let encoding = Arc::new(match coding {
        Coding::Gzip => Encoding::Gzip(Zlib { level, ..Zlib::default() }),
        Coding::Deflate => Encoding::Deflate(Zlib { level, ..Zlib::default() }),
        Coding::Brotli => Encoding::Brotli(Brotli { quality: level, ..Brotli::default() }),
        Coding::Zstd => Encoding::Zstd(Zstd { checksum: level % 2 == 0, ..Zstd::default() }),
    });
    let coded = whole(bytes, &encoding, &Pool::new(&Slots::default())).expect("there is memory");
    assert_eq!(decode(coding.into(), &coded, piece, room).as_deref(), Some(bytes));

    if let Ok(value) = http::HeaderValue::from_bytes(bytes) {
        let headers = [(http::header::ACCEPT_ENCODING, value)].into_iter().collect();
        let _ = Weights::of(&headers).choose(&Coding::ALL);
    }
});

fn decode(decoding: Decoding, bytes: &[u8], piece: usize, room: usize) -> Option<Vec<u8>> {
    let mut decoder = Decoder::new(decoding, LIMITS).expect("there is memory");
    let (mut room, mut all) = (vec![0; room], Vec::new());
    for mut piece in bytes.chunks(piece) {
        loop {
            let step = decoder.decode(piece, &mut room).ok()?;
            piece = &piece[step.consumed..];
            all.extend_from_slice(&room[..step.produced]);
            assert!(all.len() as u64 <= LIMITS.max_bytes);
            if step.done {
                assert!(piece.is_empty());
                break;
            }
        }
    }
    decoder.finish().ok().map(|()| all)
}
