//! Bombs of any size, decoded as they come: memory stays where it is, and the limit is where it ends.

use std::net::SocketAddr;

use bytes::Bytes;
use serde_json::json;

use super::codings::{ALL, decode, encode};
use super::{compression, page, proxied};
use crate::harness::{Http1, Origin, Proxy, Script};

const MIB: u64 = 1 << 20;

/// How much the memory may grow while a bomb goes off.
const MOST: u64 = 32 * MIB;

/// So many mebibytes of zeros in a coding, however many: most of it is one piece again and again.
fn zeros(coding: &str, mebibytes: usize) -> Bytes {
    let piece = vec![0; 1 << 20];
    match coding {
        // Whole members and frames may follow each other.
        "gzip" | "zstd" => encode(coding, &piece).repeat(mebibytes).into(),
        "deflate" => deflated(&piece, mebibytes),
        "br" => brotli(&piece, mebibytes),
        other => panic!("{other:?} is no coding"),
    }
}

/// After a full flush the next piece is written as if it were the first.
fn deflated(piece: &[u8], count: usize) -> Bytes {
    use flate2::{Compress, Compression, FlushCompress};
    let mut compress = Compress::new(Compression::default(), false);
    let mut coded = Vec::with_capacity(1 << 16);
    compress.compress_vec(piece, &mut coded, FlushCompress::Full).unwrap();
    assert_eq!(compress.total_in(), piece.len() as u64);
    let mut all = vec![0x78, 0x9c];
    all.extend(coded.repeat(count));
    // An empty last block of fixed codes, and what Adler-32 is of zeros.
    all.extend([3, 0]);
    let sum = u32::try_from((piece.len() * count) % 65_521).unwrap() << 16 | 1;
    all.extend(sum.to_be_bytes());
    all.into()
}

/// Once all that it looks back on is zeros, the encoder writes the same for the next piece of them.
fn brotli(piece: &[u8], count: usize) -> Bytes {
    use std::io::Write;
    let mut encoder = brotli::CompressorWriter::new(Vec::new(), 4096, 2, 18);
    let mut ends = vec![0];
    for _ in 0..count.min(4) {
        encoder.write_all(piece).unwrap();
        encoder.flush().unwrap();
        ends.push(encoder.get_ref().len());
    }
    let begun = encoder.get_ref().clone();
    let again = &begun[ends[ends.len() - 2]..];
    let mut all = begun.clone();
    all.extend(again.repeat(count - count.min(4)));
    // An empty last metablock.
    all.push(3);
    all.into()
}

#[test]
fn zeros_are_zeros_however_they_were_made() {
    for coding in ALL {
        let plain = match coding {
            // The decoder of the stories reads one member, or frame.
            "gzip" | "zstd" => decode(coding, &zeros(coding, 1)).unwrap(),
            _ => decode(coding, &zeros(coding, 7)).unwrap(),
        };
        let mebibytes = if matches!(coding, "gzip" | "zstd") { 1 } else { 7 };
        assert!(plain.len() == mebibytes << 20 && plain.iter().all(|byte| *byte == 0), "{coding}");
    }
}

/// A bomb from a client.
async fn post(address: SocketAddr, coding: &str, bomb: &[u8]) -> Option<u16> {
    let mut client = Http1::connect(address).await;
    let head = format!(
        "POST / HTTP/1.1\r\nhost: test\r\ncontent-encoding: {coding}\r\ncontent-length: {}\r\n\r\n",
        bomb.len()
    );
    client.send(&head).await;
    // The proxy may close before all of it is taken.
    let _ = client.try_send(bomb).await;
    Some(client.head().await?.0)
}

/// How many bytes of a response come before it breaks off.
async fn fetched(address: SocketAddr) -> u64 {
    let mut client = Http1::connect(address).await;
    client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n").await;
    let (status, headers) = client.head().await.unwrap();
    assert_eq!((status, headers.get("content-encoding")), (200, None));
    client.skip(u64::MAX).await
}

/// A bomb of each coding, in both directions, of which so much may come.
async fn go_off(mebibytes: usize, limit: u64) {
    let origin = Origin::http1("one").await;
    let limits = json!({ "max_bytes": limit, "max_ratio": u32::MAX });
    let config = json!({ "request_decompression": limits, "response_decompression": limits });
    let (proxy, address) = proxied(&origin, &[compression(config)]).await;
    for coding in ALL {
        let bomb = zeros(coding, mebibytes);
        let received = origin.received();
        let start = proxy.process.rss();
        let status = post(address, coding, &bomb).await;
        assert_eq!(status, Some(413), "{coding}");
        origin.until_active(0).await;
        let received = origin.received() - received;
        assert!(received <= limit, "{coding}: {received}");

        let script = page("").header("content-encoding", coding);
        origin.script(Script { body: Some(bomb.clone()), ..script });
        let came = fetched(address).await;
        // Each piece has a line before it and one after it.
        assert!(came <= limit + limit / 1_000 + MIB && came >= limit / 2, "{coding}: {came}");
        for direction in ["request", "response"] {
            let cell = |name: &str| format!("http.in.decompression.{coding}.{direction}.{name}");
            proxy.until_stat(&cell("too_large"), 1).await;
            proxy.until_stat(&cell("active"), 0).await;
        }
        let grown = grown(&proxy, start);
        let (wire, plain) = (bomb.len(), mebibytes as u64 * MIB);
        eprintln!("{coding}: {plain} bytes in {wire}: {} KiB", grown >> 10);
        assert!(grown < MOST, "{coding}: {} MiB", grown / MIB);
        origin.script(Script::default());
    }
}

fn grown(proxy: &Proxy, start: u64) -> u64 {
    proxy.process.peak_rss().saturating_sub(start)
}

#[tokio::test]
async fn a_bomb_takes_no_memory_and_ends_at_the_limit() {
    go_off(10, 5_000_000).await;
}

/// `cargo test --release --test it gigabytes_of_zeros -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement: 10 GB in each coding, decoded up to 4 GB, both ways"]
async fn gigabytes_of_zeros_take_no_memory_and_end_at_the_limit() {
    go_off(10_240, 4_000_000_000).await;
}
