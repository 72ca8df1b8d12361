//! What encoded responses cost while they are under way and nobody moves: the origin does not send, or the
//! client does not read.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::envoy::compressor;
use super::{ask, compression, filtered, page};
use crate::harness::resources::{bootstrap, route, static_cluster, table};
use crate::harness::{Http1, Origin, Proxy, Script, eventually};

/// Bytes of each body.
const SIZE: usize = 1_000_000;

/// The most that one response may cost, all included.
const MOST: u64 = 300_000;

/// What browsers send.
const ACCEPTED: &str = "gzip, deflate, br, zstd";

/// Streams of one connection.
const STREAMS: usize = 10;

/// What a stream of HTTP/2 sends before its client reads.
const WINDOW: u32 = 16_384;

fn gzip() -> Value {
    compression(json!({ "encodings": [{ "coding": "gzip" }] }))
}

fn envoys_gzip(config: Value) -> Value {
    let kind = "gzip.compressor.v3.Gzip";
    let library = super::envoy::library("l", kind, config);
    compressor("c", kind, json!({ "compressor_library": library }))
}

/// What can be made smaller, but not so that it fits into the buffers on the way.
fn text() -> String {
    let mut random = StdRng::seed_from_u64(1);
    let mut text = String::with_capacity(SIZE + 100);
    while text.len() < SIZE {
        let (id, key) = (random.random::<u32>(), random.random::<u64>());
        text += &format!("{{\"id\":{id},\"key\":\"{key:x}\"}},\n");
    }
    text.truncate(SIZE);
    text
}

/// A proxy that has worked already.
async fn ready(origin: &Origin, filter: Value) -> (Proxy, SocketAddr) {
    // No response has to be whole before it is looked at.
    let route = route("/", json!({ "cluster": "one", "timeout": "0s" }));
    let listener = filtered(&[filter], json!({ "route_config": table("local", &[route]) }));
    let cluster = static_cluster("one", &[origin.address]);
    let proxy = Proxy::with(bootstrap(&[listener], &[cluster])).await;
    let address = proxy.listener("in").await;
    origin.script(page(&text()[..100_000]));
    for _ in 0..8 {
        ask(address, "/", ACCEPTED).await;
    }
    (proxy, address)
}

/// Resident bytes for each of so many responses, encoded in this or not at all, whose origin has sent so
/// much and keeps the rest for now.
async fn waiting_for_the_origin(filter: Value, coding: &str, count: usize, sends: u64) -> u64 {
    let origin = Origin::http1("one").await;
    let (proxy, address) = ready(&origin, filter).await;
    origin.script(Script { held_after: Some(sends), ..page(&text()).chunked() });
    let (start, sent) = (proxy.process.rss(), origin.sent());
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = Http1::connect(address).await;
        client
            .send(&format!("GET / HTTP/1.1\r\nhost: test\r\naccept-encoding: {ACCEPTED}\r\n\r\n"))
            .await;
        let (_, headers) = client.head().await.unwrap();
        assert_eq!(said(&headers), coding);
        client.exactly(10_000).await.unwrap();
        clients.push(client);
    }
    assert_eq!(origin.sent() - sent, count as u64 * sends);
    let grown = settled(&proxy, count).await.saturating_sub(start);
    origin.release();
    // They were under way, all of them.
    for client in &mut clients {
        assert!(client.skip(200_000).await == 200_000);
    }
    grown / count as u64
}

/// The same of responses over HTTP/2 whose clients read no more than they have to.
async fn waiting_for_the_client(filter: Value, coding: &str, count: usize) -> u64 {
    let origin = Origin::http1("one").await;
    let (proxy, address) = ready(&origin, filter).await;
    origin.script(page(&text()).chunked());
    let start = proxy.process.rss();
    let mut answers = Vec::new();
    for _ in 0..count / STREAMS {
        let mut client = connect(address).await;
        for _ in 0..STREAMS {
            let request = Request::get("http://test/").header("accept-encoding", ACCEPTED);
            let request = request.body(Full::new(Bytes::new())).unwrap();
            client.ready().await.unwrap();
            let mut answer = client.send_request(request).await.unwrap();
            assert_eq!(said(answer.headers()), coding);
            answer.body_mut().frame().await.unwrap().unwrap();
            answers.push(answer);
        }
    }
    let grown = settled(&proxy, count).await.saturating_sub(start);
    let whole = answers.pop().unwrap().into_body().collect().await.unwrap().to_bytes();
    assert!(whole.len() > 200_000);
    grown / count as u64
}

/// The coding that a head names.
fn said(headers: &HeaderMap) -> &str {
    headers.get("content-encoding").map_or("", |coding| coding.to_str().unwrap())
}

/// A connection whose streams have small windows.
async fn connect(address: SocketAddr) -> http2::SendRequest<Full<Bytes>> {
    let io = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let mut builder = http2::Builder::new(TokioExecutor::new());
    let window = u32::try_from(STREAMS).unwrap() * WINDOW;
    builder.initial_stream_window_size(WINDOW).initial_connection_window_size(window);
    let (sender, connection) = builder.handshake::<_, Full<Bytes>>(io).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// Resident memory once nothing moves any more.
async fn settled(proxy: &Proxy, count: usize) -> u64 {
    proxy.until_stat("http.in.downstream_rq_active", count as u64).await;
    let (mut last, mut same) = (0, 0);
    eventually("memory is what it is", || {
        let now = proxy.process.rss();
        same = if now == last { same + 1 } else { 0 };
        last = now;
        std::future::ready((same == 20).then_some(now))
    })
    .await
}

#[tokio::test]
async fn a_response_under_way_costs_little() {
    for filter in [gzip(), envoys_gzip(json!({}))] {
        let held = waiting_for_the_origin(filter.clone(), "gzip", 50, 60_000).await;
        let unread = waiting_for_the_client(filter.clone(), "gzip", 50).await;
        assert!(held < MOST && unread < MOST, "{held} and {unread} bytes, {filter}");
    }
}

/// `cargo test --release --test it a_thousand_responses -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement of a release build"]
async fn a_thousand_responses_under_way_cost_little() {
    let largest = json!({ "window_bits": 15, "memory_level": 8 });
    let ours = |coding: &str| compression(json!({ "encodings": [{ "coding": coding }] }));
    let measure = async |name: &str, coding: &str, filter: Value| {
        let held = waiting_for_the_origin(filter.clone(), coding, 1_000, 500_000).await;
        let unread = waiting_for_the_client(filter, coding, 1_000).await;
        eprintln!("{name}: {held} bytes while the origin waits, {unread} while the client does");
        [held, unread]
    };
    let none = compression(json!({ "disable_response_compression": true }));
    let plain = measure("plain", "", none).await;
    for (name, coding, filter, most) in [
        ("ours, gzip", "gzip", gzip(), 200_000),
        ("Envoy's gzip", "gzip", envoys_gzip(json!({})), 200_000),
        // The codec alone has 376 KiB then: these settings ask for it.
        ("Envoy's gzip, window 15, memory 8", "gzip", envoys_gzip(largest), 420_000),
        ("ours, deflate", "deflate", ours("deflate"), 200_000),
        ("ours, br", "br", ours("br"), u64::MAX),
        ("ours, zstd", "zstd", ours("zstd"), u64::MAX),
    ] {
        let costs = measure(name, coding, filter).await;
        for (cost, plain) in costs.into_iter().zip(plain) {
            assert!(cost.saturating_sub(plain) < most, "{name}: {cost}, {plain} of it without");
        }
    }
}
