//! What swells is stopped at its limit, and takes no more memory than what does not.

use super::*;

const CHUNK: usize = Scratch::LENGTH;

/// Zeros, much smaller encoded.
fn bomb(encoding: &Encoding, megabytes: usize) -> Vec<u8> {
    encode(encoding, &vec![0; megabytes << 20])
}

/// Reads in chunks until it ends; how much came out, and how it ended.
fn read(coding: Coding, limits: Limits, coded: &[u8]) -> (u64, Result<(), Error>) {
    let mut decoder = Decoder::new(coding.into(), limits).unwrap();
    let (mut room, mut taken, mut all) = (vec![0; CHUNK], 0, 0);
    loop {
        let decoded = decoder.decode(&coded[taken..], &mut room);
        // A window of 8 MiB, and what goes with it.
        assert!(decoder.bytes() < 9 << 20, "{} bytes of memory", decoder.bytes());
        match decoded {
            Err(error) => return (all, Err(error)),
            Ok(step) => {
                taken += step.consumed;
                all += step.produced as u64;
                if step.done {
                    return (all, decoder.finish());
                }
            }
        }
    }
}

#[test]
fn a_bomb_goes_off_at_the_limit_of_bytes() {
    for encoding in encodings() {
        let coding = encoding.coding();
        let coded = bomb(&encoding, 16);
        for limit in [0, 1, 100_000, 1 << 20] {
            let limits = Limits { max_bytes: limit, ..WIDE };
            let (came, end) = read(coding, limits, &coded);
            assert_eq!(end, Err(Error::TooLarge { limit }), "{}", coding.name());
            assert!(came <= limit && came + CHUNK as u64 >= limit, "{came} of {limit}");
        }
        let limits = Limits { max_bytes: 16 << 20, ..WIDE };
        assert_eq!(read(coding, limits, &coded), (16 << 20, Ok(())), "just enough");
    }
}

#[test]
fn a_bomb_goes_off_at_the_limit_of_the_ratio() {
    for encoding in encodings() {
        let coding = encoding.coding();
        let coded = bomb(&encoding, 16);
        let limits = Limits { max_ratio: 100, ..WIDE };
        let (came, end) = read(coding, limits, &coded);
        assert_eq!(end, Err(Error::Ratio { limit: 100 }), "{}", coding.name());
        let most = (100 * coded.len()).max(CHUNK) as u64;
        assert!(came <= most, "{came} out of {}", coded.len());
        // Little is let pass whatever it came from.
        let small = encode(&encoding, &[0; CHUNK]);
        assert_eq!(read(coding, limits, &small), (CHUNK as u64, Ok(())));
    }
}

#[test]
fn what_is_honest_keeps_within_the_ratio() {
    let text: Vec<u8> = (0..200_000_u32).flat_map(|n| n.to_string().into_bytes()).collect();
    for encoding in encodings() {
        let coded = encode(&encoding, &text);
        let limits = Limits { max_bytes: text.len() as u64, max_ratio: 100 };
        let read = read(encoding.coding(), limits, &coded);
        assert_eq!(read, (text.len() as u64, Ok(())));
    }
}

#[test]
fn a_bomb_in_many_members_is_one_bomb() {
    let [gzip, _, _, zstd] = encodings();
    for encoding in [gzip, zstd] {
        let coded = bomb(&encoding, 1).repeat(16);
        let limits = Limits { max_bytes: 3 << 20, ..WIDE };
        let (came, end) = read(encoding.coding(), limits, &coded);
        assert_eq!(end, Err(Error::TooLarge { limit: 3 << 20 }));
        assert!(came <= 3 << 20);
    }
}

#[test]
fn only_a_brotli_stream_with_a_large_window_leaps() {
    for (window_bits, leaps) in [(10, false), (16, false), (17, false), (18, false), (19, true)] {
        let settings = Brotli { quality: 2, window_bits, ..Brotli::default() };
        let encoding = Arc::new(Encoding::Brotli(settings));
        let mut encoder = Encoder::new(&encoding, None).unwrap();
        let mut coded = [0; 1_000];
        let coded_length = encoder.encode(b"text", &mut coded, Op::Flush).unwrap().produced;
        let coded = &coded[..coded_length];
        let mut decoder = Decoder::new(Decoding::Brotli, WIDE).unwrap();
        assert!(!decoder.leaps(b""));
        assert_eq!(decoder.leaps(coded), leaps, "{window_bits} bits");
        decoder.decode(coded, &mut [0; 1_000]).unwrap();
        assert_eq!(decoder.leaps(b"more"), leaps, "{window_bits} bits, on the way");
    }
}
