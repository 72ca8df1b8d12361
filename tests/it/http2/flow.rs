//! Flow control: nobody is sent more than it takes, and whoever takes nothing holds up itself alone.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::wire::*;
use super::{before, world};
use crate::harness::resources::{bootstrap, hcm, listener_of, static_cluster, table, to, with};
use crate::harness::{Origin, ProxyBuilder, Script, eventually};

const MAX_WINDOW: u32 = 0x7fff_ffff;

fn windows(stream: u32, connection: u32) -> Value {
    json!({ "http2_protocol_options": {
        "initial_stream_window_size": stream, "initial_connection_window_size": connection } })
}

#[tokio::test]
async fn a_client_sends_no_more_than_the_origin_takes() {
    let listening = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let cluster = static_cluster("one", &[listening.local_addr().unwrap()]);
    let manager =
        hcm(json!({ "route_config": table("local", &[to("one")]) }), windows(65_535, 65_535));
    let proxy =
        ProxyBuilder::new(bootstrap(&[listener_of("in", manager)], &[cluster])).ready().await;
    let mut wire = Wire::connect(proxy.listener("in").await).await;
    wire.send(&post(1, &[])).await;
    let (mut origin, _) = listening.accept().await.unwrap();

    // The origin reads nothing: what the sockets hold is all that can leave.
    let (mut sent, mut connection, mut stream) = (0u64, 65_535u32, 65_535u32);
    let piece = vec![b'x'; 8000];
    loop {
        while connection.min(stream) >= 8000 {
            wire.send(&data(1, &piece)).await;
            (sent, connection, stream) = (sent + 8000, connection - 8000, stream - 8000);
        }
        wire.send(&frame(PING, 0, 0, b"anything")).await;
        let before = (connection, stream);
        loop {
            let frame = wire.next().await.unwrap();
            match (frame.kind, frame.stream) {
                (WINDOW_UPDATE, 0) => connection += frame.number(0),
                (WINDOW_UPDATE, 1) => stream += frame.number(0),
                (PING, _) => break,
                _ => {}
            }
        }
        assert!(sent < 64 << 20, "nothing holds the client back");
        if before == (connection, stream) {
            break;
        }
    }
    // Then it reads, and the client goes on.
    let reading = tokio::spawn(async move {
        let (mut read, mut tail) = (0, Vec::new());
        while !tail.ends_with(b"0\r\n\r\n") {
            let mut piece = vec![0; 1 << 16];
            let n = origin.read(&mut piece).await.unwrap();
            assert!(n > 0);
            read += n as u64;
            tail.extend_from_slice(&piece[..n]);
            tail.drain(..tail.len().saturating_sub(5));
        }
        origin.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        read
    });
    for _ in 0..100 {
        while connection.min(stream) < 8000 {
            let frame = wire.until(WINDOW_UPDATE).await;
            *(if frame.stream == 0 { &mut connection } else { &mut stream }) += frame.number(0);
        }
        wire.send(&data(1, &piece)).await;
        (sent, connection, stream) = (sent + 8000, connection - 8000, stream - 8000);
    }
    wire.send(&last_data(1, b"")).await;
    assert_eq!(wire.answer().await, (1, Ok((200, b"ok".to_vec()))));
    assert!(reading.await.unwrap() > sent);
}

#[tokio::test]
async fn more_than_a_window_is_not_taken() {
    for (options, ends_stream) in
        [(windows(65_535, 1 << 20), true), (windows(1 << 20, 65_535), false)]
    {
        let origin = Origin::http1("one").await;
        origin.script(Script::held());
        // The second request waits for the connection of the first, and its body with it.
        let thresholds =
            json!({ "circuit_breakers": { "thresholds": [{ "max_connections": 1 }] } });
        let cluster = with(static_cluster("one", &[origin.address]), thresholds);
        let manager = hcm(json!({ "route_config": table("local", &[to("one")]) }), options);
        let config = bootstrap(&[listener_of("in", manager)], &[cluster]);
        let proxy = ProxyBuilder::new(config).args(["--concurrency", "1"]).ready().await;
        let mut wire = Wire::connect(proxy.listener("in").await).await;
        wire.send(&get(1)).await;
        origin.until_active(1).await;
        wire.send(&post(3, &[])).await;
        proxy.until_stat("cluster.one.upstream_rq_pending_active", 1).await;
        for _ in 0..4 {
            wire.send(&data(3, &[b'x'; 16_384])).await;
        }
        match ends_stream {
            true => {
                assert_eq!(wire.answer().await, (3, Err(FLOW_CONTROL_ERROR)));
                origin.script(Script::default());
                origin.release();
                assert_eq!(wire.answer().await.1.unwrap().0, 200);
            }
            false => assert_eq!(wire.goes_away().await, FLOW_CONTROL_ERROR),
        }
    }
}

#[tokio::test]
async fn a_response_waits_for_windows() {
    let (origin, _proxy, address) = world(json!({})).await;
    origin.script(Script::size(100_000));
    let mut wire = Wire::with_settings(address, &[(4, 0)]).await;
    wire.send(&get(1)).await;
    assert_eq!(wire.until(HEADERS).await.status(), 200);
    wire.settle().await;
    // The bodies of others, which have none, do not wait for it.
    wire.send(&frame(HEADERS, WHOLE, 3, &block(&[&[(":method", "HEAD")], &GET[1..]].concat())))
        .await;
    assert_eq!(wire.until(HEADERS).await.flags, WHOLE);
    let mut got = 0;
    for (more, wanted) in [
        (window_update(1, 10), 10),
        (settings(&[(4, 50)]), 60),
        (settings(&[(4, 0)]), 60),
        (window_update(1, 49), 60),
        (window_update(1, 2), 61),
        (window_update(1, MAX_WINDOW >> 1), 65_535),
        (window_update(0, 1), 65_536),
        (window_update(0, 100_000), 100_000),
    ] {
        wire.send(&more).await;
        wire.send(&frame(PING, 0, 0, b"anything")).await;
        loop {
            let frame = wire.next().await.unwrap();
            match frame.kind {
                PING if got >= wanted => break,
                // What does not fit into the output at once comes later.
                PING => wire.send(&super::wire::frame(PING, 0, 0, b"anything")).await,
                DATA => {
                    got += frame.payload.len();
                    assert_eq!(frame.flags & END_STREAM != 0, got == 100_000);
                }
                _ => {}
            }
        }
        assert_eq!(got, wanted);
    }
    wire.send(&window_update(0, 1000)).await;
    origin.script(Script::default());
    wire.send(&settings(&[(4, 1000)])).await;
    wire.serves(5).await;
}

#[tokio::test]
async fn streams_take_turns() {
    let (origin, _proxy, address) = world(json!({})).await;
    origin.script(Script::size(1 << 20));
    let mut wire = Wire::with_settings(address, &[(4, 0)]).await;
    wire.send(&window_update(0, MAX_WINDOW - 65_535)).await;
    let streams = [1, 3, 5, 7];
    wire.send(&streams.map(get).concat()).await;
    for _ in streams {
        wire.until(HEADERS).await;
    }
    // All have something to say by now, and say it once they may.
    eventually("the origin has begun all bodies", async || {
        (origin.sent() > 4 * 150_000).then_some(())
    })
    .await;
    wire.send(&settings(&[(4, MAX_WINDOW)])).await;
    let mut got = [0usize; 8];
    while got.iter().all(|length| *length < 60_000) {
        let frame = wire.until(DATA).await;
        got[frame.stream as usize] += frame.payload.len();
    }
    assert!(streams.iter().all(|stream| got[*stream as usize] > 16_384), "{got:?}");
}

#[tokio::test]
async fn a_stream_that_takes_nothing_ends_in_time() {
    let (origin, proxy, address) = world(json!({ "stream_idle_timeout": "0.3s" })).await;
    origin.script(Script::size(100_000));
    let mut wire = Wire::with_settings(address, &[(4, 0)]).await;
    wire.send(&get(1)).await;
    assert_eq!(wire.answer().await, (1, Err(0)));
    assert_eq!(proxy.stat("http2.tx_flush_timeout").await, 1);
    proxy.until_stat("http.in.downstream_rq_idle_timeout", 1).await;
    proxy.until_stat("cluster.one.upstream_rq_active", 0).await;
    // The connection's own window, used up by another stream, is no better excuse.
    wire.send(&settings(&[(4, MAX_WINDOW)])).await;
    wire.send(&get(3)).await;
    assert_eq!(wire.answer().await, (3, Err(0)));
    origin.script(Script::default());
    wire.send(&window_update(0, 1000)).await;
    wire.serves(5).await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_left_in_time() {
    let (origin, proxy, address) = world(json!({ "stream_idle_timeout": "0.3s" })).await;
    origin.script(Script::size(256 << 20));
    let mut wire = Wire::with_settings(address, &[(4, MAX_WINDOW)]).await;
    wire.send(&window_update(0, MAX_WINDOW - 65_535)).await;
    wire.send(&get(1)).await;
    proxy.until_stat("http.in.downstream_cx_http2_active", 1).await;
    proxy.until_stat("http.in.downstream_cx_http2_active", 0).await;
    assert_eq!(proxy.stat("http2.tx_flush_timeout").await, 1);
    assert!(origin.sent() < 64 << 20, "{}", origin.sent());
    proxy.until_stat("http.in.downstream_rq_active", 0).await;
}

#[tokio::test]
async fn a_body_that_nobody_reads_does_not_use_up_the_connection() {
    let origin = Origin::http1("one").await;
    let (_proxy, address) = before(&origin, windows(65_535, 65_535)).await;
    let mut wire = Wire::connect(address).await;
    let padded = [&[100][..], &[b'x'; 4000], &[0; 100]].concat();
    for stream in (1..120).step_by(4) {
        // A client that changes its mind, and one that pads.
        wire.send(&[post(stream, &[]), data(stream, &[b'x'; 4000]), reset(stream)].concat()).await;
        let next = stream + 2;
        wire.send(&[post(next, &[]), frame(DATA, 8 | END_STREAM, next, &padded)].concat()).await;
        assert_eq!(wire.answer().await.1.unwrap().0, 200);
        wire.settle().await;
    }
    wire.serves(121).await;
}
