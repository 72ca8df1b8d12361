//! Bodies that take their time: event streams, slow ones, and clients that leave.

use std::net::SocketAddr;
use std::time::Duration;

use http::HeaderMap;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::codings::{ALL, so_far};
use super::{compression, filtered, lines, page, proxied};
use crate::harness::resources::{bootstrap, static_cluster, table, to};
use crate::harness::{Http1, Origin, Proxy, Script};

/// An origin that answers one request with what it is given, piece by piece.
async fn told(content_type: &'static str) -> (SocketAddr, mpsc::Sender<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, mut pieces) = mpsc::channel::<String>(1);
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        until_blank_line(&mut stream).await;
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        while let Some(piece) = pieces.recv().await {
            let chunk = format!("{:x}\r\n{piece}\r\n", piece.len());
            stream.write_all(chunk.as_bytes()).await.unwrap();
        }
        stream.write_all(b"0\r\n\r\n").await.unwrap();
    });
    (address, sender)
}

async fn until_blank_line(stream: &mut TcpStream) {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        read.push(stream.read_u8().await.unwrap());
    }
}

/// The next chunk of a body.
async fn chunk(client: &mut Http1) -> Vec<u8> {
    let mut size = Vec::new();
    while !size.ends_with(b"\r\n") {
        size.extend_from_slice(&client.exactly(1).await.unwrap());
    }
    let size = std::str::from_utf8(&size).unwrap().trim();
    let size = usize::from_str_radix(size, 16).unwrap();
    let piece = client.exactly(size).await.unwrap().to_vec();
    client.exactly(2).await.unwrap();
    piece
}

/// An answer whose head has come, and what its origin is told to send.
struct Begun {
    _proxy: Proxy,
    pieces: mpsc::Sender<String>,
    client: Http1,
    headers: HeaderMap,
}

/// An answer of this type, which is encoded in this coding.
async fn begun(content_type: &'static str, coding: &str) -> Begun {
    let (origin, pieces) = told(content_type).await;
    let filter = compression(json!({ "encodings": [{ "coding": coding }] }));
    let routes = json!({ "route_config": table("local", &[to("one")]) });
    let cluster = static_cluster("one", &[origin]);
    let proxy = Proxy::with(bootstrap(&[filtered(&[filter], routes)], &[cluster])).await;
    let mut client = Http1::connect(proxy.listener("in").await).await;
    client
        .send(&format!("GET / HTTP/1.1\r\nhost: test\r\naccept-encoding: {coding}\r\n\r\n"))
        .await;
    let (_, headers) = client.head().await.unwrap();
    assert_eq!(headers["content-encoding"], coding);
    Begun { _proxy: proxy, pieces, client, headers }
}

/// How long each of so many events of a stream takes from its origin to its client, where they can all be
/// read.
async fn delays_of_events(coding: &str, count: usize) -> Vec<Duration> {
    let kind = "text/event-stream; charset=utf-8";
    let Begun { _proxy, pieces, mut client, headers } = begun(kind, coding).await;
    let (mut coded, mut sent, mut delays) = (Vec::new(), String::new(), Vec::new());
    for n in 0..count {
        let event = format!("data: event {n}\n\n");
        sent.push_str(&event);
        let begun = Instant::now();
        pieces.send(event).await.unwrap();
        let mut delay = Duration::ZERO;
        while so_far(coding, &coded) != sent {
            coded.extend_from_slice(&chunk(&mut client).await);
            delay = begun.elapsed();
        }
        delays.push(delay);
    }
    drop(pieces);
    let last = client.body(&headers).await.unwrap().0;
    coded.extend_from_slice(&last);
    assert!(super::codings::decode(coding, &coded).unwrap() == sent.as_bytes(), "{coding}");
    delays.sort();
    delays
}

#[tokio::test]
async fn each_event_of_a_stream_is_there_as_soon_as_it_is_sent() {
    for coding in ALL {
        // On a busy machine many take longer than the ten milliseconds that each may.
        let delays = delays_of_events(coding, 20).await;
        assert!(delays[delays.len() / 4] < Duration::from_millis(10), "{coding}: {delays:?}");
    }
}

/// `cargo test --release --test it events_of_a_stream -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement of a release build"]
async fn events_of_a_stream_are_there_within_ten_milliseconds() {
    for coding in ALL {
        let delays = delays_of_events(coding, 500).await;
        let [median, p99, most] = [250, 495, 499].map(|place: usize| delays[place]);
        eprintln!("{coding}: median {median:?}, p99 {p99:?}, most {most:?}");
        assert!(p99 < Duration::from_millis(10), "{coding}");
    }
}

#[tokio::test]
async fn a_body_that_pauses_is_given_as_far_as_it_is() {
    for coding in ALL {
        let Begun { _proxy, pieces, mut client, headers } = begun("text/plain", coding).await;
        let (mut coded, mut sent) = (Vec::new(), String::new());
        for n in 0..3 {
            let piece = lines(100 * (n + 1));
            sent.push_str(&piece);
            pieces.send(piece).await.unwrap();
            while so_far(coding, &coded) != sent {
                coded.extend_from_slice(&chunk(&mut client).await);
            }
        }
        drop(pieces);
        coded.extend_from_slice(&client.body(&headers).await.unwrap().0);
        assert!(super::codings::decode(coding, &coded).unwrap() == sent.as_bytes(), "{coding}");
    }
}

#[tokio::test]
async fn a_short_body_that_is_slow_is_streamed() {
    let origin = Origin::http1("one").await;
    let filter = compression(json!({ "encodings": [{ "coding": "gzip" }] }));
    let (_proxy, address) = proxied(&origin, &[filter]).await;
    let text = lines(1_000);
    origin.script(Script { held_after: Some(2_000), ..page(&text) });
    let mut client = Http1::connect(address).await;
    client.send("GET / HTTP/1.1\r\nhost: test\r\naccept-encoding: gzip\r\n\r\n").await;
    // The head does not wait for the rest.
    let (_, headers) = client.head().await.unwrap();
    assert_eq!(
        (headers.get("content-length"), &headers["content-encoding"]),
        (None, &"gzip".parse().unwrap())
    );
    origin.release();
    let (body, _) = client.body(&headers).await.unwrap();
    assert!(super::codings::decode("gzip", &body).unwrap() == text.as_bytes());
}

#[tokio::test]
async fn a_client_that_leaves_leaves_nothing_behind() {
    let origin = Origin::http1("one").await;
    let codings: Vec<_> = ALL.iter().map(|coding| json!({ "coding": coding })).collect();
    let config = json!({ "encodings": codings, "request_decompression": {} });
    let (proxy, address) = proxied(&origin, &[compression(config)]).await;
    for coding in ALL {
        origin.script(Script { held_after: Some(100_000), ..page(&lines(50_000)) });
        let mut client = Http1::connect(address).await;
        client
            .send(&format!("GET / HTTP/1.1\r\nhost: test\r\naccept-encoding: {coding}\r\n\r\n"))
            .await;
        client.head().await.unwrap();
        let cell = |name: &str| format!("http.in.compression.{coding}.response.{name}");
        proxy.until_stat(&cell("active"), 1).await;
        drop(client);
        proxy.until_stat(&cell("active"), 0).await;
        proxy.until_stat(&cell("left"), 1).await;
        origin.until_active(0).await;

        // And one that leaves while it sends.
        let mut client = Http1::connect(address).await;
        client
            .send(&format!(
                "POST / HTTP/1.1\r\nhost: test\r\ncontent-encoding: {coding}\r\ncontent-length: 100\r\n\r\n"
            ))
            .await;
        client.send_bytes(&super::codings::encode(coding, b"text")[..5]).await;
        let cell = |name: &str| format!("http.in.decompression.{coding}.request.{name}");
        proxy.until_stat(&cell("active"), 1).await;
        drop(client);
        proxy.until_stat(&cell("active"), 0).await;
        origin.until_active(0).await;
    }
    proxy.until_stat("http.in.downstream_rq_active", 0).await;
    proxy.until_stat("cluster.one.upstream_rq_active", 0).await;
}
