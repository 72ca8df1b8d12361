//! Large bodies that are asked for often are sent from files. Nobody can tell, whatever they ask for, and
//! however they leave.

use std::net::SocketAddr;

use bytes::Bytes;
use serde_json::json;

use super::{cached, fresh, verdict};
use crate::harness::{Answer, Http1, Http2, Origin, Proxy, Script, get, request};

/// Much more than a socket takes at once, no two pages of it alike.
fn film() -> Bytes {
    (0..700_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()).collect()
}

/// An origin, and a proxy that has a copy of its film.
async fn often_asked_for() -> (Origin, Proxy, SocketAddr) {
    let origin = Origin::http1("one").await;
    origin.script(Script { body: Some(film()), ..fresh() }.header("etag", "\"1\""));
    let (proxy, address) = cached(&origin, json!({ "max_body_bytes": 8 << 20 })).await;
    get(address, "/film").await;
    proxy.until_stat("http.in.cache.stored", 1).await;
    let mut client = Http1::connect(address).await;
    for _ in 0..17 {
        assert!(client.get("/film").await.body == film());
    }
    proxy.until_stat("http.in.cache.bytes_copies", film().len() as u64).await;
    (origin, proxy, address)
}

async fn part(address: SocketAddr, range: &str) -> Answer {
    request(address, "GET", "/film", &[("range", range)], b"").await
}

#[tokio::test]
async fn what_is_sent_from_a_file_is_what_was_stored() {
    let (origin, proxy, address) = often_asked_for().await;
    let whole = proxy.stat("http.in.cache.bytes").await;
    assert!(whole > 2 * film().len() as u64, "it counts: {whole}");
    let film = film();
    assert!(get(address, "/film").await.body == film);
    assert!(part(address, "bytes=100000-1999999").await.body == film[100_000..2_000_000]);
    assert!(part(address, "bytes=-5").await.body == film[film.len() - 5..]);
    let parts = part(address, "bytes=0-99999,500000-699999").await;
    assert_eq!(parts.status, 206);
    for wanted in [&film[..100_000], &film[500_000..700_000]] {
        assert!(parts.body.windows(wanted.len()).any(|window| window == wanted));
    }
    let head = request(address, "HEAD", "/film", &[], b"").await;
    assert_eq!(head.header("content-length"), film.len().to_string());
    let known = request(address, "GET", "/film", &[("if-none-match", "\"1\"")], b"").await;
    assert_eq!(known.status, 304);
    let mut http2 = Http2::connect(address).await;
    assert!(http2.get("/film").await.body == film);

    // On one connection, one after the other, and before the first is read.
    let mut client = Http1::connect(address).await;
    let ask = |range: &str| format!("GET /film HTTP/1.1\r\nhost: test\r\n{range}\r\n");
    let (all, some) = (ask(""), ask("range: bytes=7-70000\r\n"));
    client.send(&format!("{all}{some}{all}")).await;
    assert!(client.answer().await.body == film);
    assert!(client.answer().await.body == film[7..=70_000]);
    let last = client.answer().await;
    assert!(last.body == film && verdict(&last).starts_with("hit"));
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn a_purge_while_it_is_sent_cuts_nothing_off_and_gives_its_memory_back() {
    let (origin, proxy, address) = often_asked_for().await;
    let mut slow = Http1::connect(address).await;
    slow.send("GET /film HTTP/1.1\r\nhost: test\r\n\r\n").await;
    let (_, headers) = slow.head().await.unwrap();
    let mut gone = Http1::connect(address).await;
    gone.send("GET /film HTTP/1.1\r\nhost: test\r\n\r\n").await;
    gone.head().await.unwrap();
    drop(gone);
    assert_eq!(proxy.admin("POST", "/cache/purge?url=/film").await.status, 200);
    proxy.until_stat("http.in.cache.bytes_copies", 0).await;
    origin.script(Script { body: Some("another".into()), ..fresh() });
    assert_eq!(get(address, "/film").await.text(), "another");
    assert!(slow.body(&headers).await.unwrap().0 == film());
    assert_eq!(slow.get("/film").await.text(), "another");
    assert_eq!(origin.requests(), 2);
}
