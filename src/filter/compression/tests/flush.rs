//! What has come reaches its reader while the rest is not there.

use std::time::Duration;

use tokio::time::Instant;

use super::*;
use crate::coding::{Brotli, Decoder, Zstd};

fn encodings() -> [Arc<Encoding>; 5] {
    [
        Encoding::Gzip(Zlib::default()),
        Encoding::Deflate(Zlib { level: 9, ..Zlib::default() }),
        Encoding::Brotli(Brotli::default()),
        // Works beside the worker.
        Encoding::Brotli(Brotli { quality: 9, ..Brotli::default() }),
        Encoding::Zstd(Zstd::default()),
    ]
    .map(Arc::new)
}

/// A body that is fed by hand, in a runtime whose worker has its timers.
fn fed() -> (tokio::sync::mpsc::Sender<Bytes>, Body) {
    let (feed, mut fed) = tokio::sync::mpsc::channel(1);
    struct Fed<F>(F);
    impl<F> http_body::Body for Fed<F>
    where
        F: FnMut(&mut Context<'_>) -> Poll<Option<Bytes>> + Unpin,
    {
        type Data = Bytes;
        type Error = BodyError;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            (self.0)(cx).map(|data| data.map(|data| Ok(Frame::data(data))))
        }
    }
    (feed, Body::boxed(Fed(move |cx: &mut Context<'_>| fed.poll_recv(cx))))
}

fn timers() -> Deadlines {
    let deadlines = Deadlines::default();
    tokio::spawn(deadlines.clone().run());
    deadlines
}

/// Feeds events one by one, each only after the one before was read.
async fn each_is_read(encoding: &Arc<Encoding>, flush: Flush, within: Duration) {
    let (feed, body) = fed();
    let mut body = encoded(body, encoding, &pool(), flush, |_| ());
    let mut decoder = Decoder::new(encoding.coding().into(), WIDE).unwrap();
    for n in 0..5 {
        let event = format!("data: event {n}\n\n");
        feed.send(event.clone().into()).await.unwrap();
        let fed = Instant::now();
        let (mut plain, mut read) = ([0; 100], 0);
        while read < event.len() {
            let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
            let mut coded = &frame[..];
            while !coded.is_empty() {
                let step = decoder.decode(coded, &mut plain[read..]).unwrap();
                coded = &coded[step.consumed..];
                read += step.produced;
            }
        }
        assert_eq!(&plain[..read], event.as_bytes());
        assert!(fed.elapsed() <= within, "{encoding:?} took {:?}", fed.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn events_are_read_as_they_come() {
    for encoding in encodings() {
        each_is_read(&encoding, Flush::AtOnce, Duration::ZERO).await;
    }
}

#[tokio::test(start_paused = true)]
async fn slow_pieces_are_read_within_ten_milliseconds() {
    let deadlines = timers();
    for encoding in encodings() {
        let flush = Flush::Soon(deadlines.clone());
        each_is_read(&encoding, flush, Duration::from_millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn pieces_that_come_together_are_flushed_as_one() {
    let size = async |gap: Duration| {
        let (feed, body) = fed();
        let body = encoded(body, &gzip(), &pool(), Flush::Soon(timers()), |_| ());
        tokio::spawn(async move {
            for _ in 0..100 {
                feed.send(Bytes::from_static(b"a piece of the story, ")).await.unwrap();
                tokio::time::sleep(gap).await;
            }
        });
        collect(body).await.unwrap().0.len()
    };
    let (fast, slow) = (size(Duration::ZERO).await, size(Duration::from_millis(20)).await);
    assert!(fast < 100, "{fast} bytes without a flush");
    assert!(slow > 500, "{slow} bytes with a hundred");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_flushed_where_nothing_is() {
    let (feed, body) = fed();
    let mut body = encoded(body, &gzip(), &pool(), Flush::AtOnce, |_| ());
    tokio::time::timeout(Duration::from_secs(1), body.frame()).await.expect_err("nothing came");
    feed.send(Bytes::from_static(b"x")).await.unwrap();
    body.frame().await.unwrap().unwrap();
    tokio::time::timeout(Duration::from_secs(1), body.frame()).await.expect_err("nothing more");
}

#[tokio::test(start_paused = true)]
async fn what_can_be_decoded_is_not_held_back() {
    for encoding in encodings() {
        let (feed, body) = fed();
        let coded = encoded(body, &encoding, &pool(), Flush::AtOnce, |_| ());
        let mut body = decode(coded, encoding.coding(), WIDE, &Told::default());
        for _ in 0..3 {
            feed.send(Bytes::from_static(b"a piece")).await.unwrap();
            let mut plain = Vec::new();
            while plain.len() < 7 {
                plain.extend(body.frame().await.unwrap().unwrap().into_data().unwrap());
            }
            assert_eq!(plain, b"a piece");
        }
    }
}
