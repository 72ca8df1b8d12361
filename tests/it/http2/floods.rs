//! Clients that ask for much and want nothing: each is sent away, and counted as what it did.

use serde_json::json;

use super::wire::*;
use super::world;
use crate::harness::{Script, eventually};

#[tokio::test]
async fn answers_that_a_client_does_not_read_are_not_gathered_for_ever() {
    for ask in [frame(PING, 0, 0, b"anything"), settings(&[(3, 7)])] {
        let (_origin, proxy, address) = world(json!({})).await;
        let mut wire = Wire::connect(address).await;
        let many = ask.repeat(1000);
        eventually("the client is sent away", async || {
            for _ in 0..100 {
                wire.try_send(&many).await;
            }
            (proxy.stat("http2.outbound_control_flood").await == 1).then_some(())
        })
        .await;
        proxy.until_stat("http.in.downstream_cx_http2_active", 0).await;
        Wire::connect(address).await.serves(1).await;
    }
}

#[tokio::test]
async fn frames_without_use_are_counted() {
    let (_origin, proxy, address) = world(json!({})).await;
    let priority = frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 16]);
    for (begin, flood, taken, stat) in [
        (post(1, &[]), data(1, b""), 1, "inbound_empty_frames_flood"),
        (post(1, &[]), frame(DATA, 8, 1, &[3, 0, 0, 0]), 1, "inbound_empty_frames_flood"),
        (
            frame(HEADERS, 0, 1, b""),
            frame(CONTINUATION, 0, 1, b""),
            0,
            "inbound_empty_frames_flood",
        ),
        (vec![], priority, 100, "inbound_priority_frames_flood"),
        (vec![], window_update(0, 1), 5, "inbound_window_update_frames_flood"),
    ] {
        let before = proxy.stat(&format!("http2.{stat}")).await;
        let mut wire = Wire::connect(address).await;
        wire.send(&begin).await;
        wire.send(&flood.repeat(taken)).await;
        if !begin.starts_with(&frame(HEADERS, 0, 1, b"")) {
            wire.settle().await;
        }
        wire.send(&flood).await;
        assert_eq!(wire.goes_away().await, ENHANCE_YOUR_CALM, "{stat}");
        assert_eq!(proxy.stat(&format!("http2.{stat}")).await, before + 1);
    }
}

#[tokio::test]
async fn limits_are_those_of_the_configuration() {
    let (_origin, _proxy, address) = world(json!({ "http2_protocol_options": {
        "max_consecutive_inbound_frames_with_empty_payload": 10,
        "max_inbound_priority_frames_per_stream": 0,
        "max_inbound_window_update_frames_per_data_frame_sent": 100 } }))
    .await;
    let mut wire = Wire::connect(address).await;
    wire.serves(1).await;
    wire.send(&window_update(0, 1).repeat(200)).await;
    wire.send(&post(3, &[])).await;
    wire.send(&data(3, b"").repeat(10)).await;
    wire.settle().await;
    wire.send(&data(3, b"")).await;
    assert_eq!(wire.goes_away().await, ENHANCE_YOUR_CALM);
    let mut wire = Wire::connect(address).await;
    wire.send(&frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 16])).await;
    assert_eq!(wire.goes_away().await, ENHANCE_YOUR_CALM);
}

#[tokio::test]
async fn streams_that_are_reset_as_soon_as_they_begin_end_the_connection() {
    let (origin, proxy, address) = world(json!({})).await;
    origin.script(Script::held());
    let mut wire = Wire::connect(address).await;
    for stream in (1..1400).step_by(2) {
        wire.try_send(&[get(stream), reset(stream)].concat()).await;
    }
    assert_eq!(wire.goes_away().await, ENHANCE_YOUR_CALM);
    proxy.until_stat("http.in.downstream_rq_too_many_premature_resets", 1).await;
    proxy.until_stat("http.in.downstream_rq_active", 0).await;
    assert!(proxy.stat("http2.rx_reset").await <= 500);
    // Resets that the client only provokes are no better.
    let mut wire = Wire::connect(address).await;
    for stream in (1..1400).step_by(2) {
        wire.try_send(&[get(stream), window_update(stream, 0)].concat()).await;
    }
    assert_eq!(wire.goes_away().await, ENHANCE_YOUR_CALM);
    proxy.until_stat("http.in.downstream_rq_too_many_premature_resets", 2).await;
    proxy.until_stat("http.in.downstream_rq_active", 0).await;
    // Who does so now and then stays.
    origin.script(Script::default());
    let mut wire = Wire::connect(address).await;
    for stream in (1..2000).step_by(4) {
        wire.serves(stream).await;
        wire.send(&[get(stream + 2), reset(stream + 2)].concat()).await;
    }
    wire.serves(2001).await;
}

#[tokio::test]
async fn a_head_that_is_too_large_is_answered_431() {
    let (origin, proxy, address) = world(json!({})).await;
    let mut wire = Wire::connect(address).await;
    let long = "x".repeat(70_000);
    let many: Vec<(&str, &str)> = (0..101).map(|_| ("x-a", "b")).collect();
    let path = format!("/{long}");
    let with = |more: &[(&str, &str)]| block(&[&GET[..], more].concat());
    // A field in the table is large once, and costs a byte each time.
    let mut bomb = block(&GET);
    bomb.extend([0x40, 3, b'x', b'-', b'b', 0x7f, 0xa1, 0x1e]);
    bomb.extend([b'x'; 4000]);
    bomb.extend([0xbe; 8000]);
    let long_path = block(&[GET[0], GET[1], (":path", &path), GET[3]]);
    let heads = [with(&[("x-long", &long)]), with(&many), bomb, long_path];
    for (stream, head) in (1..).step_by(2).zip(&heads) {
        let mut kind = HEADERS;
        let mut pieces = head.chunks(16_384).peekable();
        while let Some(piece) = pieces.next() {
            let ends = if pieces.peek().is_none() { END_HEADERS } else { 0 };
            let flags = ends | if kind == HEADERS { END_STREAM } else { 0 };
            wire.send(&frame(kind, flags, stream, piece)).await;
            kind = CONTINUATION;
        }
        assert_eq!(wire.answer().await.1.unwrap().0, 431, "stream {stream}");
    }
    assert_eq!(origin.requests(), 0);
    wire.serves(9).await;
    assert_eq!(proxy.stat("http2.header_overflow").await, 3);
    assert_eq!(proxy.stat("http.in.downstream_rq_4xx").await, 4);
}

#[tokio::test]
async fn a_head_without_an_end_is_not_gathered() {
    let (_origin, proxy, address) =
        world(json!({ "request_headers_timeout": "0.3s", "max_request_headers_kb": 10 })).await;
    let mut wire = Wire::connect(address).await;
    wire.send(&frame(HEADERS, END_STREAM, 1, &block(&GET))).await;
    for _ in 0..5 {
        wire.try_send(&frame(CONTINUATION, 0, 1, &[0; 16_384])).await;
    }
    assert_eq!(wire.goes_away().await, ENHANCE_YOUR_CALM);
    let mut slow = Wire::connect(address).await;
    slow.send(&frame(HEADERS, END_STREAM, 1, &block(&GET))).await;
    assert_eq!(slow.goes_away().await, ENHANCE_YOUR_CALM);
    assert_eq!(proxy.stat("http.in.downstream_rq_header_timeout").await, 1);
}

#[tokio::test]
async fn pieces_of_a_byte_take_no_more_room_than_they_must() {
    let (origin, proxy, address) = world(json!({})).await;
    origin.script(Script::echo());
    let mut wire = Wire::connect(address).await;
    wire.send(&post(1, &[])).await;
    for _ in 0..200 {
        wire.send(&data(1, b"x").repeat(1000)).await;
    }
    wire.send(&last_data(1, b"")).await;
    let mut got = 0;
    loop {
        let frame = wire.next().await.unwrap();
        if frame.kind == DATA {
            got += frame.payload.len();
            wire.send(&[window_update(0, 16_384), window_update(1, 16_384)].concat()).await;
            if frame.flags & END_STREAM != 0 {
                break;
            }
        }
    }
    assert_eq!(got, 200_000);
    proxy.until_stat("http.in.downstream_rq_active", 0).await;
}
