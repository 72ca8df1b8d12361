//! A body works a little at a time, and beside its worker if it cannot.

use std::task::Waker;
use std::time::Duration;

use super::*;
use crate::coding::pace::{BUDGET, Pace};
use crate::coding::{Brotli, Zstd};

/// Polls with a waker that does nothing; how many polls, and how many of them were pending.
fn polls(mut body: Body) -> (usize, usize) {
    let mut cx = Context::from_waker(Waker::noop());
    let (mut all, mut pending) = (0, 0);
    loop {
        all += 1;
        match http_body::Body::poll_frame(Pin::new(&mut body), &mut cx) {
            Poll::Pending => pending += 1,
            Poll::Ready(None) => return (all, pending),
            Poll::Ready(Some(frame)) => {
                frame.unwrap();
            }
        }
    }
}

fn noise(length: usize) -> Bytes {
    let mut state = 7_u64;
    let byte = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 40).to_le_bytes()[0]
    };
    (0..length).map(byte).collect::<Vec<u8>>().into()
}

#[test]
fn a_large_body_that_is_all_there_gives_others_their_turn() {
    let body = noise(4 << 20);
    let told = Told::default();
    let (all, pending) = polls(encode(body.clone().into(), &gzip(), &told));
    let least = usize::try_from(told.outcome().time.as_micros() / BUDGET.as_micros()).unwrap();
    assert!(pending > 10, "{pending} of {all}");
    assert!(pending <= least, "{pending} pauses in {:?}", told.outcome().time);

    let coded = crate::coding::whole(&body, &gzip(), &pool()).unwrap();
    let told = Told::default();
    let (all, pending) = polls(decode(coded.into(), Coding::Gzip, WIDE, &told));
    assert!(all > 64 + pending, "a frame is a chunk at the most");
    let least = usize::try_from(told.outcome().time.as_micros() / BUDGET.as_micros()).unwrap();
    assert!(pending <= least, "{pending} pauses in {:?}", told.outcome().time);
}

/// A worker with one other task on it, which is to be asked about once a millisecond however much there is
/// to encode. Coarse: this is a debug build on a machine that does other things.
#[test]
fn settings_that_work_on_much_at_once_work_beside_the_worker() {
    let heavy = Encoding::Brotli(Brotli { quality: 10, ..Brotli::default() });
    assert_eq!(Pace::of(&heavy, None).inline, 0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let text: Vec<u8> = (0..30_000_u32).flat_map(|n| n.to_string().into_bytes()).collect();
    let told = Told::default();
    let body = encode(Bytes::from(text).into(), &Arc::new(heavy), &told);
    let longest = runtime.block_on(async {
        let work = tokio::spawn(collect(body));
        let (mut longest, mut last) = (Duration::ZERO, tokio::time::Instant::now());
        while !work.is_finished() {
            tokio::task::yield_now().await;
            longest = longest.max(last.elapsed());
            last = tokio::time::Instant::now();
        }
        work.await.unwrap().unwrap();
        longest
    });
    let time = told.outcome().time;
    assert!(longest < time / 2, "{longest:?} without a turn, in {time:?} of work");
}

#[test]
fn small_bodies_stay_on_their_worker() {
    let stays = |encoding: &Encoding, length: u64| {
        let pace = Pace::of(encoding, Some(length));
        pace.inline as u64 >= length
    };
    let brotli = |quality| Encoding::Brotli(Brotli { quality, ..Brotli::default() });
    let zstd = |level| Encoding::Zstd(Zstd { level, ..Zstd::default() });
    for encoding in [brotli(3), brotli(4), zstd(3), zstd(8), Encoding::Gzip(Zlib::default())] {
        assert!(stays(&encoding, 30 << 10), "{encoding:?}");
    }
    for encoding in [brotli(5), brotli(11), zstd(10), zstd(19)] {
        assert!(!stays(&encoding, 30 << 10), "{encoding:?}");
    }
    let sorting = Encoding::Zstd(Zstd { strategy: Some(6), ..Zstd::default() });
    assert!(!stays(&sorting, 1), "a strategy may be slower than its level");
    let narrow = Encoding::Brotli(Brotli { quality: 5, window_bits: 16, ..Brotli::default() });
    assert!(!stays(&narrow, 1), "a narrow window is slower than a wide one");
}
