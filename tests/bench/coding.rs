//! The cost of content codings for a usual response, and the longest that one holds its worker up.
//!
//! `cargo bench --bench coding`. The tables of `coding::pace` come from here: no step that is done on a worker
//! should take longer than a millisecond, whatever it is fed.

mod payload;

use std::hint::black_box;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use criterion::Criterion;
use http_body::Body as _;
use nuncio::coding::pace::{DECODED_SLICE, Pace};
use nuncio::coding::{
    Brotli, Coding, Decoder, Encoder, Encoding, Limits, Op, Pool, Scratch, Slots, Zlib, Zstd, whole,
};
use nuncio::exchange::Body;
use nuncio::filter::compression::{Flush, decoded, encoded};
use tokio::time::Instant;

use payload::{json, numbers};

const USUAL: usize = 30 << 10;
const WIDE: Limits = Limits { max_bytes: u64::MAX, max_ratio: u32::MAX };

fn gzip(level: u32, window_bits: u8, memory_level: u8) -> (String, Encoding) {
    let zlib = Zlib { level, window_bits, memory_level, ..Zlib::default() };
    (format!("gzip {level} window {window_bits} memory {memory_level}"), Encoding::Gzip(zlib))
}

fn brotli(quality: u32) -> (String, Encoding) {
    (format!("br {quality}"), Encoding::Brotli(Brotli { quality, ..Brotli::default() }))
}

fn zstd(level: i32) -> (String, Encoding) {
    (format!("zstd {level}"), Encoding::Zstd(Zstd { level, ..Zstd::default() }))
}

fn encodings() -> Vec<(String, Encoding)> {
    let zlib = [1, 4, 5, 6, 7, 8, 9].map(|level| gzip(level, 15, 8)).into_iter();
    let small = [1, 6, 9].map(|level| gzip(level, 12, 5));
    zlib.chain(small).chain((0..=8).map(brotli)).chain((1..=10).map(zstd)).collect()
}

/// What is easy, what cannot be made smaller, and what is hardest: matches without end, none of them long.
fn kinds(length: usize) -> [(&'static str, Bytes); 3] {
    let mut number = numbers();
    let noise: Vec<u8> = (0..length).map(|_| number(256).to_le_bytes()[0]).collect();
    let two: Vec<u8> = noise.iter().map(|byte| b"ab"[usize::from(byte >> 7)]).collect();
    [("json", json(length)), ("noise", noise.into()), ("ab", two.into())]
}

/// All of a body, which is all there.
fn drain(mut body: Body) -> usize {
    let mut cx = Context::from_waker(Waker::noop());
    let mut length = 0;
    loop {
        match Pin::new(&mut body).poll_frame(&mut cx) {
            Poll::Pending => {}
            Poll::Ready(None) => return length,
            Poll::Ready(Some(frame)) => {
                let data = frame.expect("it is in order").into_data();
                length += data.map_or(0, |data| data.len());
            }
        }
    }
}

/// The longest step of encoding, by the pace of the encoding. The shortest of a few such longest ones: what
/// else the machine does is not the codec's.
fn longest_step(encoding: &Arc<Encoding>, body: &Bytes, length: Option<u64>) -> Duration {
    let pace = Pace::of(encoding, length);
    let pool = Pool::new(&Slots::default());
    let once = || {
        let mut encoder = Encoder::new(encoding, length).expect("there is memory");
        let mut scratch = pool.scratch();
        let (mut longest, mut inside) = (Duration::ZERO, 0);
        for mut piece in body.chunks(pace.slice) {
            let last = piece.as_ptr_range().end == body.as_ptr_range().end;
            let op = if last { Op::Finish } else { Op::Write };
            let here = inside + piece.len() <= pace.inline;
            loop {
                let start = Instant::now();
                let step = encoder.encode(piece, &mut scratch, op).expect("it encodes");
                if here {
                    longest = longest.max(start.elapsed());
                }
                piece = &piece[step.consumed..];
                inside = if step.produced > 0 { step.consumed } else { inside + step.consumed };
                if step.done {
                    break;
                }
            }
        }
        longest
    };
    (0..5).map(|_| once()).min().unwrap_or_default()
}

fn longest_decoding_step(coding: Coding, coded: &[u8]) -> Duration {
    let once = || {
        let mut decoder = Decoder::new(coding.into(), WIDE).expect("there is memory");
        let (mut room, mut longest) = (vec![0; Scratch::LENGTH], Duration::ZERO);
        for mut piece in coded.chunks(DECODED_SLICE) {
            let here = !decoder.leaps(piece);
            loop {
                let start = Instant::now();
                let step = decoder.decode(piece, &mut room).expect("it is in order");
                if here {
                    longest = longest.max(start.elapsed());
                }
                piece = &piece[step.consumed..];
                if step.done {
                    break;
                }
            }
        }
        longest
    };
    (0..5).map(|_| once()).min().unwrap_or_default()
}

#[expect(clippy::print_stdout, reason = "criterion has no table of maxima")]
fn longest_steps() {
    const LENGTH: usize = 1 << 20;
    println!("the longest step on a worker, in microseconds");
    for (name, encoding) in encodings() {
        let encoding = Arc::new(encoding);
        for (kind, body) in kinds(LENGTH) {
            let whole = longest_step(&encoding, &body, None).as_micros();
            let small = longest_step(&encoding, &body.slice(..USUAL), Some(USUAL as u64));
            println!("{name:30} {kind:6} {whole:6} {:6} of {USUAL}", small.as_micros());
        }
    }
    let pool = Pool::new(&Slots::default());
    for (name, encoding) in [gzip(6, 15, 8), brotli(5), zstd(3)] {
        let bomb = ("zeros", Bytes::from(vec![0; 64 << 20]));
        for (kind, body) in kinds(LENGTH).into_iter().chain([bomb]) {
            let coded = whole(&body, &Arc::new(encoding.clone()), &pool).expect("it encodes");
            let longest = longest_decoding_step(encoding.coding(), &coded);
            println!("{name:30} {kind:6} {:6} decoding", longest.as_micros());
        }
    }
}

#[expect(clippy::print_stdout, reason = "criterion knows of time alone")]
fn saved() {
    println!("saved of {USUAL} bytes of JSON, in percent");
    let (pool, body) = (Pool::new(&Slots::default()), json(USUAL));
    for (name, encoding) in encodings() {
        let coded = whole(&body, &Arc::new(encoding), &pool).expect("it encodes");
        println!("{name:30} {:3}", 100 * (body.len() - coded.len()) / body.len());
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let pool = Pool::new(&Slots::default());
    let body = json(USUAL);
    for (name, encoding) in encodings() {
        let encoding = Arc::new(encoding);
        criterion.bench_function(&format!("{name}: 30 KB of JSON"), |bench| {
            bench.iter(|| whole(black_box(&body), &encoding, &pool).expect("it encodes"));
        });
    }
    for (name, encoding) in [gzip(1, 15, 8), gzip(6, 12, 5), brotli(3), zstd(3)] {
        let encoding = Arc::new(encoding);
        criterion.bench_function(&format!("{name}: a body"), |bench| {
            bench.iter(|| {
                let flush = Flush::AtOnce;
                drain(encoded(body.clone().into(), &encoding, &pool, flush, |_| ()))
            });
        });
        let coded = whole(&body, &encoding, &pool).expect("it encodes");
        let decoding = encoding.coding().into();
        criterion.bench_function(&format!("{name}: a body, decoded"), |bench| {
            bench.iter(|| drain(decoded(coded.clone().into(), decoding, WIDE, &pool, |_| ())));
        });
    }
    criterion.final_summary();
    saved();
    longest_steps();
}
