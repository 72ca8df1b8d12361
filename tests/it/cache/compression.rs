//! Encoded forms of stored responses: made once, given to those who take them.

use std::io::Read;
use std::net::SocketAddr;

use flate2::read::GzDecoder;
use serde_json::{Value, json};

use super::crowds::{answers, crowd_with};
use super::{cached, fresh, verdict};
use crate::harness::{Answer, Origin, Proxy, Script, get, request};

const GZIP: (&str, &str) = ("accept-encoding", "gzip");

/// Text that can be compressed, of about 100,000 bytes.
fn text() -> String {
    (0..10_000).map(|n| format!("line {n}\n")).collect()
}

fn page() -> Script {
    let script = Script { body: Some(text().into()), ..fresh() };
    script.header("content-type", "text/html; charset=utf-8").header("etag", "\"1\"")
}

fn compressing() -> Value {
    json!({ "compression": {} })
}

async fn with(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Answer {
    request(address, "GET", path, headers, b"").await
}

fn inflated(answer: &Answer) -> String {
    let mut text = String::new();
    GzDecoder::new(&answer.body[..]).read_to_string(&mut text).unwrap();
    text
}

/// An origin with a page that is stored under `/page`.
async fn stored_page(config: Value) -> (Origin, Proxy, SocketAddr) {
    let origin = Origin::http1("one").await;
    origin.script(page());
    let (proxy, address) = cached(&origin, config).await;
    get(address, "/page").await;
    proxy.until_stat("http.in.cache.stored", 1).await;
    (origin, proxy, address)
}

#[tokio::test]
async fn the_first_that_takes_gzip_has_it_made_and_all_others_get_the_same() {
    let (origin, proxy, address) = stored_page(compressing()).await;
    assert_eq!(proxy.stat("http.in.cache.encoded").await, 0);
    let first = with(address, "/page", &[GZIP]).await;
    assert_eq!((first.header("content-encoding"), first.header("etag")), ("gzip", "W/\"1\""));
    assert_eq!(first.header("vary"), "accept-encoding");
    assert_eq!(first.header("content-length"), first.body.len().to_string());
    assert!(first.body.len() < 50_000 && inflated(&first) == text());
    for _ in 0..20 {
        let again = with(address, "/page", &[("accept-encoding", "br, gzip;q=0.8")]).await;
        assert!(verdict(&again).starts_with("hit") && again.body == first.body);
    }
    assert_eq!(proxy.stat("http.in.cache.encoded").await, 1);
    let bytes = proxy.stat("http.in.cache.bytes_gzip").await;
    assert_eq!(bytes, first.body.len() as u64);
    let whole = proxy.stat("http.in.cache.bytes").await;
    assert!(whole >= bytes + text().len() as u64, "{whole}");

    // Who does not take it gets what came.
    for headers in [&[][..], &[("accept-encoding", "br")], &[("accept-encoding", "gzip;q=0")]] {
        let plain = with(address, "/page", headers).await;
        assert_eq!((plain.header("content-encoding"), plain.header("etag")), ("", "\"1\""));
        assert_eq!(plain.header("vary"), "accept-encoding");
        assert!(verdict(&plain).starts_with("hit") && plain.text() == text());
    }
    let head = request(address, "HEAD", "/page", &[GZIP], b"").await;
    assert_eq!(head.header("content-encoding"), "gzip");
    assert_eq!(head.header("content-length"), first.header("content-length"));
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn parts_are_parts_of_the_plain_form_and_either_tag_is_this_page() {
    let (origin, proxy, address) = stored_page(compressing()).await;
    with(address, "/page", &[GZIP]).await;
    let part = with(address, "/page", &[GZIP, ("range", "bytes=5-9")]).await;
    assert_eq!((part.status, part.header("content-encoding")), (206, ""));
    assert_eq!((part.text().as_str(), part.header("etag")), (&text()[5..10], "\"1\""));
    // The weak tag of the encoded form does not say which bytes there are.
    let weak = [GZIP, ("range", "bytes=5-9"), ("if-range", "W/\"1\"")];
    assert_eq!(with(address, "/page", &weak).await.status, 200);
    for tag in ["\"1\"", "W/\"1\""] {
        for headers in [&[("if-none-match", tag)][..], &[GZIP, ("if-none-match", tag)]] {
            let same = with(address, "/page", headers).await;
            assert_eq!((same.status, same.body.len()), (304, 0), "{tag}");
            assert_eq!(same.header("content-encoding"), "");
            assert_eq!(same.header("etag"), if headers.len() > 1 { "W/\"1\"" } else { "\"1\"" });
            assert_eq!(same.header("vary"), "accept-encoding");
        }
    }
    let other = with(address, "/page", &[GZIP, ("if-none-match", "W/\"2\"")]).await;
    assert_eq!((other.status, inflated(&other)), (200, text()));
    assert_eq!(origin.requests(), 1);
    assert_eq!(proxy.stat("http.in.cache.encoded").await, 1);
}

#[tokio::test]
async fn a_crowd_has_it_made_once() {
    let (origin, proxy, address) = stored_page(compressing()).await;
    let mut crowd = crowd_with(address, 100, "/page", "accept-encoding: gzip\r\n").await;
    for answer in answers(&mut crowd).await {
        // While it is made, the others get what is there.
        let body = match answer.header("content-encoding") {
            "gzip" => inflated(&answer),
            _ => answer.text(),
        };
        assert!(body == text());
    }
    assert_eq!(proxy.stat("http.in.cache.encoded").await, 1);
    assert_eq!(with(address, "/page", &[GZIP]).await.header("content-encoding"), "gzip");
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn what_is_not_worth_it_or_forbidden_stays_as_it_is() {
    let origin = Origin::http1("one").await;
    let (proxy, address) = cached(&origin, compressing()).await;
    let typed = |body: &str, kind: &str| {
        Script { body: Some(body.to_owned().into()), ..fresh() }.header("content-type", kind)
    };
    let noise: String = {
        let mut random = 1_u64;
        let mut next = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            char::from_u32(0x4e00 + u32::try_from(random >> 50).unwrap()).unwrap()
        };
        (0..1_000).map(|_| next()).collect()
    };
    let cases = [
        ("/small", typed("small", "text/html")),
        ("/image", typed(&text(), "image/png")),
        ("/encoded", page().header("content-encoding", "br")),
        ("/fixed", page().header("cache-control", "no-transform")),
    ];
    for (path, script) in cases {
        origin.script(script);
        for _ in 0..2 {
            let answer = with(address, path, &[GZIP]).await;
            assert_ne!(answer.header("content-encoding"), "gzip", "{path}");
            assert_eq!(answer.header("vary"), "", "{path}");
        }
    }
    origin.script(typed(&noise, "text/plain"));
    for _ in 0..3 {
        assert!(inflated_or_plain(&with(address, "/noise", &[GZIP]).await) == noise);
    }
    assert_eq!(origin.requests(), 5);
    assert!(proxy.stat("http.in.cache.encoded").await <= 1);
}

fn inflated_or_plain(answer: &Answer) -> String {
    match answer.header("content-encoding") {
        "gzip" => inflated(answer),
        _ => answer.text(),
    }
}

#[tokio::test]
async fn a_form_leaves_with_its_response() {
    let config = json!({ "compression": { "level": 1 }, "max_memory_bytes": 1_000_000,
        "max_body_bytes": 400_000 });
    let (origin, proxy, address) = stored_page(config).await;
    with(address, "/page", &[GZIP]).await;
    assert!(proxy.stat("http.in.cache.bytes_gzip").await > 10_000);
    origin.script(Script::size(300_000).header("cache-control", "max-age=60"));
    // What nobody asks for again would not push it out.
    for n in 0..20 {
        get(address, &format!("/{n}")).await;
        get(address, &format!("/{n}")).await;
    }
    proxy.until_stat("http.in.cache.bytes_gzip", 0).await;
    assert!(proxy.stat("http.in.cache.evicted_memory").await > 0);
    assert!(proxy.stat("http.in.cache.bytes").await <= 1_000_000);

    // A newer response has no form yet, whatever the one before it had.
    origin.script(page());
    get(address, "/page").await;
    with(address, "/page", &[GZIP]).await;
    origin.script(Script { body: Some(text().to_uppercase().into()), ..page() });
    let reload = [("cache-control", "no-cache"), GZIP];
    let reloaded = with(address, "/page", &reload).await;
    assert!(inflated_or_plain(&reloaded) == text().to_uppercase());
    let newer = with(address, "/page", &[GZIP]).await;
    assert!(inflated(&newer) == text().to_uppercase());
}
