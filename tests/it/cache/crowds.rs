//! Many that ask for the same thing at a time: what the origin sees of them, and what each of them gets.

use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::future::join_all;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use serde_json::json;

use super::{cached, caching, verdict};
use crate::harness::resources::{bootstrap, over_http2, static_cluster, table, to};
use crate::harness::{Answer, Http1, Http2, Origin, Proxy, Script, eventually, get, request};

/// A body of this size that may be stored.
pub(super) fn fresh_of(size: u64) -> Script {
    Script::size(size).header("cache-control", "max-age=60")
}

/// A script that waits in mid-body.
pub(super) fn paused(at: u64, script: Script) -> Script {
    Script { held_after: Some(at), ..script }
}

/// So many clients that have asked, each on a connection of its own.
pub(super) async fn crowd(address: SocketAddr, size: usize, path: &str) -> Vec<Http1> {
    crowd_with(address, size, path, "").await
}

/// The same with more lines in their heads.
pub(super) async fn crowd_with(
    address: SocketAddr,
    size: usize,
    path: &str,
    lines: &str,
) -> Vec<Http1> {
    let mut crowd = Vec::new();
    for _ in 0..size {
        crowd.push(Http1::connect(address).await);
    }
    for client in &mut crowd {
        client.send(&format!("GET {path} HTTP/1.1\r\nhost: test\r\n{lines}\r\n")).await;
    }
    crowd
}

/// What each of them is answered, read at the same time.
pub(super) async fn answers(crowd: &mut [Http1]) -> Vec<Answer> {
    join_all(crowd.iter_mut().map(Http1::answer)).await
}

/// No fetch is under way, and what it took is given back.
pub(super) async fn until_idle(proxy: &Proxy) {
    proxy.until_stat("http.in.cache.fetching", 0).await;
    proxy.until_stat("http.in.cache.bytes_filling", 0).await;
}

async fn all_are_at_work(proxy: &Proxy, requests: u64) {
    proxy.until_stat("http.in.downstream_rq_active", requests).await;
}

#[tokio::test]
async fn a_thousand_are_one_request_and_read_it_as_it_arrives() {
    let origin = Origin::http1("one").await;
    origin.script(paused(10_000, fresh_of(40_000)));
    let (proxy, address) = cached(&origin, json!({})).await;
    let mut crowd = crowd(address, 1_000, "/a").await;
    for client in &mut crowd {
        assert_eq!(client.head().await.unwrap().0, 200);
        client.exactly(10_000).await.unwrap();
    }
    // The origin holds the rest of what all of them have the beginning of.
    assert_eq!((origin.requests(), origin.sent()), (1, 10_000));
    assert_eq!(proxy.stat("http.in.cache.fetching").await, 1);
    assert!(proxy.stat("http.in.cache.bytes_filling").await >= 10_000);
    origin.release();
    for client in &mut crowd {
        client.exactly(30_000).await.unwrap();
    }
    assert_eq!(origin.requests(), 1);
    until_idle(&proxy).await;
    for (stat, value) in [("miss", 1_000), ("coalesced", 999), ("stored", 1), ("hit", 0)] {
        assert_eq!(proxy.stat(&format!("http.in.cache.{stat}")).await, value, "{stat}");
    }
}

#[tokio::test]
async fn who_reads_nothing_keeps_neither_the_others_nor_the_store_waiting() {
    const SIZE: u64 = 12 << 20;
    let origin = Origin::http1("one").await;
    origin.script(paused(1_000, fresh_of(SIZE)));
    let limits = json!({ "max_body_bytes": SIZE, "max_memory_bytes": 64 << 20 });
    let (proxy, address) = cached(&origin, limits).await;
    // Among them the one that asks the origin.
    let mut slow = crowd(address, 3, "/a").await;
    for client in &mut slow {
        client.head().await.unwrap();
    }
    let mut quick = crowd(address, 3, "/a").await;
    for client in &mut quick {
        client.head().await.unwrap();
    }
    origin.release();
    let read = join_all(quick.iter_mut().map(|client| client.skip(SIZE))).await;
    assert_eq!(read, [SIZE; 3]);
    proxy.until_stat("http.in.cache.stored", 1).await;
    until_idle(&proxy).await;
    assert!(verdict(&get(address, "/a").await).starts_with("hit"));
    // They have lost nothing by it.
    let read = join_all(slow.iter_mut().map(|client| client.skip(SIZE))).await;
    assert_eq!(read, [SIZE; 3]);
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn what_turns_out_to_be_too_large_reaches_all_whole_and_is_not_stored() {
    const SIZE: usize = 1_000_000;
    let origin = Origin::http1("one").await;
    origin.script(paused(50_000, fresh_of(SIZE as u64).chunked()));
    let (proxy, address) = cached(&origin, json!({ "max_body_bytes": 100_000 })).await;
    let mut all = crowd(address, 50, "/a").await;
    let heads = join_all(all.iter_mut().map(Http1::head)).await;
    origin.release();
    let bodies = all.iter_mut().zip(&heads).map(|(client, head)| {
        let (_, headers) = head.as_ref().unwrap();
        client.body(headers)
    });
    for body in join_all(bodies).await {
        assert_eq!(body.unwrap().0.len(), SIZE);
    }
    assert_eq!(origin.requests(), 1);
    until_idle(&proxy).await;
    assert_eq!(proxy.stat("http.in.cache.uncacheable_too_large").await, 1);
    assert_eq!(proxy.stat("http.in.cache.stored").await, 0);

    // Whoever comes when it is known to be too large asks for itself.
    origin.script(paused(200_000, fresh_of(SIZE as u64).chunked()));
    let mut first = Http1::connect(address).await;
    first.send("GET /a HTTP/1.1\r\nhost: test\r\n\r\n").await;
    proxy.until_stat("http.in.cache.uncacheable_too_large", 2).await;
    let mut second = crowd(address, 1, "/a").await;
    origin.until_active(2).await;
    origin.release();
    let (first, second) = tokio::join!(first.answer(), answers(&mut second));
    assert_eq!((first.body.len(), second[0].body.len()), (SIZE, SIZE));
    assert_eq!(origin.requests(), 3);
    until_idle(&proxy).await;
}

/// The same, where the others cannot be given anything without it: it is waited for, but not for ever.
#[tokio::test]
async fn who_reads_nothing_of_what_is_too_large_is_left_behind() {
    const SIZE: u64 = 24 << 20;
    let origin = Origin::http1("one").await;
    origin.script(paused(1_000, fresh_of(SIZE).chunked()));
    let (proxy, address) = cached(&origin, json!({})).await;
    let mut clients = crowd(address, 4, "/a").await;
    let heads = join_all(clients.iter_mut().map(Http1::head)).await;
    origin.release();
    let (slow, quick) = clients.split_at_mut(1);
    let bodies = quick.iter_mut().zip(&heads).map(|(client, head)| {
        let (_, headers) = head.as_ref().unwrap();
        client.body(headers)
    });
    for body in join_all(bodies).await {
        assert_eq!(body.unwrap().0.len() as u64, SIZE);
    }
    assert_eq!(slow[0].body(&heads[0].as_ref().unwrap().1).await, None);
    assert_eq!(origin.requests(), 1);
    until_idle(&proxy).await;
}

#[tokio::test]
async fn trailers_reach_all() {
    let origin = Origin::http1("one").await;
    let script = fresh_of(20_000).header("trailer", "x").trailer("x", "y");
    origin.script(paused(10_000, script));
    let (proxy, address) = cached(&origin, json!({})).await;
    let lines = "te: trailers\r\nconnection: te\r\n";
    let mut crowd = crowd_with(address, 20, "/a", lines).await;
    let heads = join_all(crowd.iter_mut().map(Http1::head)).await;
    origin.release();
    for (client, head) in crowd.iter_mut().zip(heads) {
        let (body, trailers) = client.body(&head.unwrap().1).await.unwrap();
        assert_eq!((body.len(), &trailers["x"]), (20_000, &"y".parse().unwrap()));
    }
    assert_eq!(origin.requests(), 1);
    until_idle(&proxy).await;
    assert_eq!(proxy.stat("http.in.cache.stored").await, 0);
}

#[tokio::test]
async fn what_is_stale_is_validated_once_for_all() {
    let origin = Origin::http1("one").await;
    let old = || fresh_of(5_000).header("etag", "\"a\"").header("age", "100");
    origin.script(old());
    let (proxy, address) = cached(&origin, json!({})).await;
    get(address, "/a").await;
    let unchanged = Script::status(304).header("etag", "\"a\"");
    let unchanged = unchanged.header("cache-control", "max-age=60");
    origin.script(Script { held: true, ..unchanged });
    let mut all = crowd(address, 100, "/a").await;
    origin.until_active(1).await;
    all_are_at_work(&proxy, 100).await;
    origin.release();
    for answer in answers(&mut all).await {
        assert_eq!((answer.status, answer.body.len()), (200, 5_000));
    }
    assert_eq!(origin.requests(), 2);
    assert_eq!(origin.last().headers["if-none-match"], "\"a\"");
    assert_eq!(proxy.stat("http.in.cache.revalidated").await, 1);
    assert_eq!(proxy.stat("http.in.cache.stale").await, 100);
    assert!(verdict(&get(address, "/a").await).starts_with("hit"));

    // It does not hold any more: all get what there is instead, as it arrives.
    origin.script(old());
    get(address, "/b").await;
    origin.script(paused(1_000, fresh_of(6_000).header("etag", "\"b\"")));
    let mut all = crowd(address, 100, "/b").await;
    for client in &mut all {
        assert_eq!(client.head().await.unwrap().1["etag"], "\"b\"");
    }
    origin.release();
    for client in &mut all {
        client.exactly(6_000).await.unwrap();
    }
    assert_eq!(origin.requests(), 4);
    until_idle(&proxy).await;
}

#[tokio::test]
async fn nobody_waits_for_a_validation_behind_and_there_is_one() {
    let origin = Origin::http1("one").await;
    let old = Script::size(5_000).header("cache-control", "max-age=60, stale-while-revalidate=600");
    origin.script(old.header("age", "100"));
    let (proxy, address) = cached(&origin, json!({})).await;
    get(address, "/a").await;
    origin.script(Script { held: true, ..fresh_of(6_000) });
    let mut all = crowd(address, 100, "/a").await;
    for answer in answers(&mut all).await {
        assert_eq!(answer.body.len(), 5_000);
        assert!(verdict(&answer).ends_with("; detail=stale-while-revalidate"));
    }
    origin.until_active(1).await;
    assert_eq!(proxy.stat("http.in.cache.background").await, 1);
    origin.release();
    eventually("the new one is there", async || {
        (get(address, "/a").await.body.len() == 6_000).then_some(())
    })
    .await;
    assert_eq!(origin.requests(), 2);
    until_idle(&proxy).await;
}

#[tokio::test]
async fn an_error_that_something_stale_is_better_than_is_asked_for_once() {
    let origin = Origin::http1("one").await;
    let old = Script::size(5_000).header("cache-control", "max-age=1, stale-if-error=1000");
    origin.script(old.header("etag", "\"a\"").header("age", "100"));
    let (proxy, address) = cached(&origin, json!({})).await;
    get(address, "/a").await;
    origin.script(Script { held: true, ..Script::status(503) });
    let mut all = crowd(address, 50, "/a").await;
    origin.until_active(1).await;
    all_are_at_work(&proxy, 50).await;
    origin.release();
    for answer in answers(&mut all).await {
        assert_eq!((answer.status, answer.body.len()), (200, 5_000), "{}", verdict(&answer));
    }
    assert_eq!(origin.requests(), 2);
    assert_eq!(proxy.stat("http.in.cache.stale_if_error").await, 50);
    // One that does not take anything stale is told of the error.
    origin.script(Script::status(503));
    let strict = [("cache-control", "no-cache")];
    let answer = request(address, "GET", "/a", &strict, b"").await;
    assert_eq!(answer.status, 503);
}

#[tokio::test]
async fn two_variants_are_two_requests() {
    let origin = Origin::http1("one").await;
    let varies = fresh_of(5_000).header("vary", "accept-language");
    origin.script(paused(1_000, varies));
    let (proxy, address) = cached(&origin, json!({})).await;
    let mut german = crowd_with(address, 50, "/a", "accept-language: de\r\n").await;
    let mut english = crowd_with(address, 50, "/a", "accept-language: en\r\n").await;
    for client in german.iter_mut().chain(&mut english) {
        client.head().await.unwrap();
    }
    origin.release();
    for client in german.iter_mut().chain(&mut english) {
        client.exactly(5_000).await.unwrap();
    }
    let asked = origin.heads();
    let mut languages: Vec<_> = asked.iter().map(|head| &head.headers["accept-language"]).collect();
    languages.sort();
    assert_eq!(languages, ["de", "en"]);
    until_idle(&proxy).await;
    assert_eq!(proxy.stat("http.in.cache.coalesced").await, 98);
    assert_eq!(proxy.stat("http.in.cache.stored").await, 2);
}

/// Opens a stream and reads so much of what comes.
async fn open(client: &mut Http2, path: &str, size: usize) -> Incoming {
    let request = Request::get(format!("http://test{path}")).body(Empty::new().boxed()).unwrap();
    let response = client.open(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    read(&mut body, size).await;
    body
}

async fn read(body: &mut Incoming, size: usize) {
    let mut had = 0;
    while had < size {
        let frame = body.frame().await.expect("there is more").unwrap();
        had += frame.data_ref().map_or(0, Bytes::len);
    }
    assert_eq!(had, size);
}

#[tokio::test]
async fn streams_of_http2_are_a_crowd_like_any() {
    let origin = Origin::http2("one").await;
    let routes = json!({ "route_config": table("local", &[to("one")]) });
    let cluster = over_http2(static_cluster("one", &[origin.address]));
    let proxy = Proxy::with(bootstrap(&[caching(json!({}), routes)], &[cluster])).await;
    let address = proxy.listener("in").await;
    let mut connections = Vec::new();
    for _ in 0..5 {
        connections.push(Http2::connect(address).await);
    }
    let clients = || connections.iter().flat_map(|connection| vec![connection.clone(); 80]);
    origin.script(paused(1_000, fresh_of(3_000)));
    let opened = clients().map(async |mut client| open(&mut client, "/a", 1_000).await);
    let mut bodies = join_all(opened).await;
    assert_eq!((bodies.len(), origin.requests(), origin.sent()), (400, 1, 1_000));
    // Half of them, with whoever asked the origin, leave.
    bodies.drain(..200);
    all_are_at_work(&proxy, 200).await;
    origin.release();
    join_all(bodies.iter_mut().map(|body| read(body, 2_000))).await;
    assert_eq!(origin.requests(), 1);
    proxy.until_stat("http.in.cache.stored", 1).await;

    // All of them leave.
    let opened = clients().map(async |mut client| open(&mut client, "/b", 1_000).await);
    let bodies = join_all(opened).await;
    assert_eq!(origin.requests(), 2);
    drop(bodies);
    origin.until_active(0).await;
    until_idle(&proxy).await;
    assert_eq!(proxy.stat("http.in.cache.stored").await, 1);
    origin.script(fresh_of(3_000));
    assert!(verdict(&connections[0].get("/b").await).starts_with("fwd=uri-miss"));
}
