//! There and back, and every way that does not end well.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::coding::{Brotli, Error, Zstd};

/// Settings that work on the worker and settings that work beside it.
fn encoding() -> impl Strategy<Value = Encoding> {
    let zlib = |level| Zlib { level, ..Zlib::default() };
    let brotli = |quality, window_bits| Brotli { quality, window_bits, ..Brotli::default() };
    let zstd = |level| Zstd { level, checksum: true, ..Zstd::default() };
    select(vec![
        Encoding::Gzip(zlib(1)),
        Encoding::Gzip(zlib(9)),
        Encoding::Deflate(zlib(6)),
        Encoding::Brotli(brotli(1, 18)),
        Encoding::Brotli(brotli(3, 22)),
        Encoding::Brotli(brotli(5, 16)),
        Encoding::Zstd(zstd(3)),
        Encoding::Zstd(zstd(6)),
    ])
}

/// Pieces with pauses between; an empty piece is one.
fn turns() -> impl Strategy<Value = Vec<Option<Vec<u8>>>> {
    let text = (0_usize..9_000).prop_map(|length| {
        (0..).flat_map(|n: u32| n.to_string().into_bytes()).take(length).collect::<Vec<u8>>()
    });
    let noise = vec(any::<u8>(), 0..3_000);
    vec(proptest::option::weighted(0.7, prop_oneof![text, noise]), 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_body_comes_back_with_its_trailers(
        encoding in encoding(),
        turns in turns(),
        at_once in any::<bool>(),
        with_trailers in any::<bool>(),
        cut in 1_usize..5_000,
    ) {
        let plain: Vec<u8> = turns.iter().flatten().flatten().copied().collect();
        let turns = turns.into_iter().map(|turn| turn.map_or(Turn::Pause, |piece| data(&piece)));
        let turns = turns.chain(with_trailers.then(|| Turn::Trailers(trailers())));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (there, back) = (Told::default(), Told::default());
            let encoding = Arc::new(encoding);
            let flush = match at_once {
                true => Flush::AtOnce,
                false => Flush::Soon(Deadlines::default()),
            };
            let coded = encoded(script(turns), &encoding, &pool(), flush, there.hear());
            let (coded, kept) = collect(coded).await.unwrap();
            prop_assert_eq!(kept.clone(), with_trailers.then(trailers));
            let outcome = there.outcome();
            prop_assert_eq!((outcome.input, outcome.output), (plain.len() as u64, coded.len() as u64));
            prop_assert_eq!(outcome.end, End::Complete);

            let pieces = coded.chunks(cut).flat_map(|piece| [Turn::Pause, data(piece), data(b"")]);
            let pieces = pieces.chain(kept.map(Turn::Trailers));
            let body = decode(script(pieces), encoding.coding(), WIDE, &back);
            let (decoded, kept) = collect(body).await.unwrap();
            prop_assert_eq!(decoded, plain);
            prop_assert_eq!(kept, with_trailers.then(trailers));
            prop_assert_eq!(back.end(), Some(End::Complete));
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn a_small_body_is_one_frame_and_its_end() {
    let told = Told::default();
    let mut body = encode(Body::from("hello, hello, hello"), &gzip(), &told);
    assert_eq!(http_body::Body::size_hint(&body).exact(), None, "the old length is gone");
    assert!(!http_body::Body::is_end_stream(&body));
    let frame = body.frame().await.unwrap().unwrap();
    assert!(http_body::Body::is_end_stream(&body));
    assert_eq!(told.end(), Some(End::Complete), "nobody has to ask for the end");
    let coded = frame.into_data().unwrap();

    let told = Told::default();
    let mut body = decode(coded.into(), Coding::Gzip, WIDE, &told);
    let plain = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(plain, "hello, hello, hello");
    assert!(body.frame().await.is_none());
    assert_eq!(told.end(), Some(End::Complete));
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn an_empty_body_is_the_empty_body_both_ways() {
    let told = Told::default();
    let (coded, _) = collect(encode(Body::Empty, &gzip(), &told)).await.unwrap();
    assert_eq!(coded.len(), 20, "gzip's header and end");
    let (plain, _) = collect(decode(coded.into(), Coding::Gzip, WIDE, &told_none())).await.unwrap();
    assert!(plain.is_empty());
    let (plain, _) = collect(decode(Body::Empty, Coding::Gzip, WIDE, &told_none())).await.unwrap();
    assert!(plain.is_empty());
}

fn told_none() -> Told {
    Told::default()
}

#[tokio::test]
async fn what_came_before_a_break_is_handed_out_first() {
    let told = Told::default();
    let turns = [data(&[7; 100_000]), Turn::Pause, data(b"more"), Turn::Break];
    let mut body = encode(script(turns), &gzip(), &told);
    let error = loop {
        match body.frame().await.unwrap() {
            Ok(frame) => assert!(frame.is_data()),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, BodyError::Timeout), "{error}");
    assert_eq!(told.end(), Some(End::Inner));
    assert!(body.frame().await.is_none(), "an error is the end");

    let told = Told::default();
    let coded = crate::coding::whole(b"a story", &gzip(), &pool()).unwrap();
    let turns = [data(&coded[..coded.len() - 8]), Turn::Break];
    let mut body = decode(script(turns), Coding::Gzip, WIDE, &told);
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "a story");
    assert!(matches!(body.frame().await, Some(Err(BodyError::Timeout))));
    assert_eq!(told.end(), Some(End::Inner));
}

#[tokio::test]
async fn a_body_cut_short_is_an_error_and_not_a_short_body() {
    for coding in Coding::ALL {
        let coded = crate::coding::whole(b"a story", &encoding_of(coding), &pool()).unwrap();
        let cut = coded.slice(..coded.len() - 1);
        for end in [None, Some(Turn::Trailers(trailers()))] {
            let told = Told::default();
            let turns = [Turn::Data(cut.clone())].into_iter().chain(end);
            let error = collect(decode(script(turns), coding, WIDE, &told)).await.unwrap_err();
            let expected = Error::Truncated(coding);
            assert!(matches!(error, BodyError::Coding(e) if e == expected), "{error}");
            assert_eq!(told.end(), Some(End::Coding(expected)));
            assert!(!expected.is_too_large());
        }
    }
}

fn encoding_of(coding: Coding) -> Arc<Encoding> {
    Arc::new(match coding {
        Coding::Gzip => Encoding::Gzip(Zlib::default()),
        Coding::Deflate => Encoding::Deflate(Zlib::default()),
        Coding::Brotli => Encoding::Brotli(Brotli { window_bits: 22, ..Brotli::default() }),
        Coding::Zstd => Encoding::Zstd(Zstd::default()),
    })
}

#[tokio::test]
async fn a_bomb_is_stopped_a_chunk_after_its_limit_at_the_latest() {
    let limits = Limits { max_bytes: 1 << 20, max_ratio: u32::MAX };
    for coding in Coding::ALL {
        let zeros = vec![0; 8 << 20];
        let coded = crate::coding::whole(&zeros, &encoding_of(coding), &pool()).unwrap();
        let told = Told::default();
        let mut body = decode(coded.into(), coding, limits, &told);
        let mut came = 0;
        let error = loop {
            match body.frame().await.unwrap() {
                Ok(frame) => came += frame.into_data().unwrap().len() as u64,
                Err(error) => break error,
            }
        };
        let expected = Error::TooLarge { limit: 1 << 20 };
        assert!(matches!(error, BodyError::Coding(e) if e == expected), "{error}");
        assert!(expected.is_too_large());
        assert!(came <= 1 << 20, "{came}");
        assert_eq!(told.end(), Some(End::Coding(expected)));
        assert_eq!(told.outcome().output, came);
    }
}

#[tokio::test]
async fn a_body_that_nobody_wants_is_told_of_and_gives_its_encoder_back() {
    let pool = pool();
    let told = Told::default();
    let turns = [data(&[7; 10]), Turn::Stop];
    let mut body = encoded(script(turns), &gzip(), &pool, Flush::AtOnce, told.hear());
    body.frame().await.unwrap().unwrap();
    assert_eq!(told.end(), None);
    drop(body);
    assert_eq!(told.end(), Some(End::Dropped));
    assert_eq!(format!("{pool:?}"), "Pool { encoders: 1, decoders: 0, .. }");

    let told = Told::default();
    drop(encode(script([]), &gzip(), &told));
    assert_eq!(told.outcome().input, 0);
}

#[tokio::test]
async fn a_longer_body_than_was_promised_ends_in_an_error() {
    struct Liar(Option<Turn>, Option<Turn>);
    impl http_body::Body for Liar {
        type Data = Bytes;
        type Error = BodyError;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            let Some(Turn::Data(data)) = self.0.take().or(self.1.take()) else {
                return Poll::Ready(None);
            };
            Poll::Ready(Some(Ok(Frame::data(data))))
        }
        fn size_hint(&self) -> http_body::SizeHint {
            http_body::SizeHint::with_exact(3)
        }
    }
    let told = Told::default();
    let body = Body::boxed(Liar(Some(data(b"long")), Some(data(b"er"))));
    let error = collect(encode(body, &encoding_of(Coding::Zstd), &told)).await.unwrap_err();
    assert_eq!(error.to_string(), "the body's content coding failed: the zstd codec failed");
    assert_eq!(told.end(), Some(End::Coding(Error::Codec(Coding::Zstd))));
}
