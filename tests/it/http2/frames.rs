//! Frames that make no sense: each ends what RFC 9113 says it ends, and says why.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use super::wire::*;
use super::world;
use crate::harness::{Http1, Script};

#[tokio::test]
async fn frames_that_make_no_sense_end_their_connection_with_a_reason() {
    let (origin, proxy, address) = world(json!({})).await;
    let list: Vec<(Vec<u8>, u32)> = vec![
        (frame(DATA, 0, 0, b"a"), PROTOCOL_ERROR),
        (frame(DATA, 0, 1, b"a"), PROTOCOL_ERROR),
        (frame(DATA, 8, 1, b"\x05a"), PROTOCOL_ERROR),
        (frame(DATA, 8, 1, b""), FRAME_SIZE_ERROR),
        (vec![0, 0x40, 1, DATA, 0, 0, 0, 0, 1], FRAME_SIZE_ERROR),
        (frame(HEADERS, WHOLE, 0, &block(&GET)), PROTOCOL_ERROR),
        (frame(HEADERS, WHOLE, 2, &block(&GET)), PROTOCOL_ERROR),
        (frame(HEADERS, WHOLE, 1, b"\xff\xff\xff\xff\xff\xff"), COMPRESSION_ERROR),
        (frame(HEADERS, WHOLE, 1, b"\xc6"), COMPRESSION_ERROR),
        (frame(HEADERS, WHOLE, 1, b"\x82\x3f\xe1\x1f"), COMPRESSION_ERROR),
        (frame(HEADERS, WHOLE, 1, b"\x3f\xe2\x1f"), COMPRESSION_ERROR),
        (frame(HEADERS, WHOLE | 0x20, 1, b"\0\0"), FRAME_SIZE_ERROR),
        (frame(CONTINUATION, END_HEADERS, 1, b""), PROTOCOL_ERROR),
        ([frame(HEADERS, END_STREAM, 1, b"\x82"), get(3)].concat(), PROTOCOL_ERROR),
        (
            [frame(HEADERS, END_STREAM, 1, b"\x82"), frame(PING, 0, 0, b"12345678")].concat(),
            PROTOCOL_ERROR,
        ),
        ([frame(HEADERS, END_STREAM, 1, b"\x82"), frame(0x77, 0, 1, b"")].concat(), PROTOCOL_ERROR),
        (frame(PRIORITY, 0, 0, &[0; 5]), PROTOCOL_ERROR),
        (frame(RST_STREAM, 0, 1, &[0; 4]), PROTOCOL_ERROR),
        (frame(RST_STREAM, 0, 0, &[0; 4]), PROTOCOL_ERROR),
        (frame(RST_STREAM, 0, 1, &[0; 3]), FRAME_SIZE_ERROR),
        (frame(SETTINGS, 0, 1, b""), PROTOCOL_ERROR),
        (frame(SETTINGS, 0, 0, &[0; 5]), FRAME_SIZE_ERROR),
        (frame(SETTINGS, ACK, 0, &[0; 6]), FRAME_SIZE_ERROR),
        (settings(&[(2, 2)]), PROTOCOL_ERROR),
        (settings(&[(4, 1 << 31)]), FLOW_CONTROL_ERROR),
        (settings(&[(5, 1)]), PROTOCOL_ERROR),
        (settings(&[(5, 1 << 24)]), PROTOCOL_ERROR),
        (frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]), PROTOCOL_ERROR),
        (frame(PING, 0, 1, &[0; 8]), PROTOCOL_ERROR),
        (frame(PING, 0, 0, &[0; 7]), FRAME_SIZE_ERROR),
        (frame(GOAWAY, 0, 1, &[0; 8]), PROTOCOL_ERROR),
        (frame(GOAWAY, 0, 0, &[0; 7]), FRAME_SIZE_ERROR),
        (window_update(0, 0), PROTOCOL_ERROR),
        (window_update(1, 1), PROTOCOL_ERROR),
        (window_update(0, 0x7fff_ffff), FLOW_CONTROL_ERROR),
        (frame(WINDOW_UPDATE, 0, 0, &[0; 3]), FRAME_SIZE_ERROR),
    ];
    let count = list.len() as u64;
    for (bytes, reason) in list {
        let mut wire = Wire::connect(address).await;
        wire.send(&bytes).await;
        assert_eq!(wire.goes_away().await, reason, "{bytes:x?}");
    }
    assert_eq!(origin.requests(), 0);
    proxy.until_stat("http.in.downstream_cx_protocol_error", count).await;
    proxy.until_stat("http.in.downstream_cx_http2_active", 0).await;
    Wire::connect(address).await.serves(1).await;
}

#[tokio::test]
async fn a_connection_begins_as_it_must() {
    let (_origin, _proxy, address) = world(json!({ "codec_type": "HTTP2" })).await;
    for begin in [&b"GET / HTTP/1.1\r\nhost: t\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nXX"] {
        let mut wire = Wire(Http1::connect(address).await);
        wire.send(begin).await;
        assert_eq!(wire.goes_away().await, PROTOCOL_ERROR);
    }
    for first in [get(1), frame(PING, 0, 0, &[0; 8]), frame(SETTINGS, ACK, 0, b"")] {
        let mut wire = Wire(Http1::connect(address).await);
        wire.send(&[&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &first].concat()).await;
        assert_eq!(wire.goes_away().await, PROTOCOL_ERROR);
    }
    // However the bytes come.
    let mut wire = Wire(Http1::connect(address).await);
    let greeting = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for byte in [&greeting[..], &settings(&[]), &get(1)].concat() {
        wire.send(&[byte]).await;
    }
    assert_eq!(wire.answer().await.1.unwrap().0, 200);
}

#[tokio::test]
async fn what_is_unknown_or_means_nothing_here_is_ignored() {
    let (origin, _proxy, address) = world(json!({})).await;
    let mut wire = Wire::connect(address).await;
    let priority_update = [&[0, 0, 0, 1][..], b"u=1"].concat();
    for ignored in [
        frame(0x77, 0xff, 7, b"whatever"),
        frame(PRIORITY, 0, 9, &[0, 0, 0, 1, 16]),
        frame(0x10, 0, 0, &priority_update),
        frame(PING, ACK, 0, &[7; 8]),
        settings(&[(0xabcd, 1), (2, 0), (6, 100)]),
    ] {
        wire.send(&ignored).await;
    }
    // Padding and a priority are no part of a head.
    let padded = [&[3][..], &[0, 0, 0, 0, 16], &block(&GET), &[0; 3]].concat();
    wire.send(&frame(HEADERS, WHOLE | 0x08 | 0x20, 1, &padded)).await;
    assert_eq!(wire.answer().await.1.unwrap().0, 200);
    // A head in pieces.
    let fields = block(&GET);
    let (first, rest) = fields.split_at(5);
    wire.send(&frame(HEADERS, END_STREAM, 3, first)).await;
    for byte in &rest[..10] {
        wire.send(&frame(CONTINUATION, 0, 3, &[*byte])).await;
    }
    wire.send(&frame(CONTINUATION, END_HEADERS, 3, &rest[10..])).await;
    assert_eq!(wire.answer().await.1.unwrap().0, 200);
    assert_eq!(origin.requests(), 2);
}

#[tokio::test]
async fn what_is_wrong_with_a_stream_ends_the_stream() {
    let (origin, proxy, address) = world(json!({})).await;
    origin.script(Script::held());
    let mut wire = Wire::connect(address).await;
    let list = [
        (window_update(1, 0), PROTOCOL_ERROR),
        (window_update(3, 0x7fff_ffff), FLOW_CONTROL_ERROR),
        (frame(PRIORITY, 0, 5, &[0; 4]), FRAME_SIZE_ERROR),
        (last_data(7, b"after the end"), STREAM_CLOSED),
        (frame(HEADERS, WHOLE, 9, &block(&[("x-a", "b")])), STREAM_CLOSED),
    ];
    for (stream, (wrong, reason)) in (1..).step_by(2).zip(list) {
        wire.send(&get(stream)).await;
        origin.until_active(1).await;
        wire.send(&wrong).await;
        assert_eq!(wire.answer().await, (stream, Err(reason)));
        origin.until_active(0).await;
        // What was under way when the client heard of it is no fault.
        wire.send(&[window_update(stream, 9), data(stream, b"late"), reset(stream)].concat()).await;
    }
    origin.script(Script::default());
    wire.serves(21).await;
    proxy.until_stat("cluster.one.upstream_rq_active", 0).await;
    // On a stream that ended well nothing can be under way.
    wire.send(&last_data(21, b"more")).await;
    assert_eq!(wire.answer().await, (21, Err(STREAM_CLOSED)));
    wire.send(&get(19)).await;
    assert_eq!(wire.goes_away().await, STREAM_CLOSED);
}

#[tokio::test]
async fn whatever_is_sent_the_next_client_is_served() {
    let (origin, proxy, address) = world(json!({ "http2_protocol_options": {
        "override_stream_error_on_invalid_http_message": true,
        "max_consecutive_inbound_frames_with_empty_payload": 1000 } }))
    .await;
    origin.script(Script::echo());
    let seed: u64 = rand::random();
    eprintln!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..150 {
        let mut wire = Wire::connect(address).await;
        let mut bytes = Vec::new();
        for _ in 0..random.random_range(1..60) {
            let stream = random.random_range(0..12);
            let mut next = match random.random_range(0..8) {
                0 => get(stream | 1),
                1 => post(stream | 1, &[("content-length", "9")]),
                2 => post(stream | 1, &[]),
                3 => data(stream | 1, b"some data"),
                4 => last_data(stream | 1, b""),
                5 => window_update(stream, random.random_range(0..70_000)),
                6 => reset(stream | 1),
                _ => {
                    let payload: Vec<u8> =
                        (0..random.random_range(0..40)).map(|_| random.random()).collect();
                    frame(random.random_range(0..12), random.random(), stream, &payload)
                }
            };
            // Now and then not even that.
            if random.random_ratio(1, 12) {
                let at = random.random_range(0..next.len());
                next[at] = random.random();
            }
            bytes.extend(next);
        }
        let mut pieces = &bytes[..];
        while !pieces.is_empty() {
            let (piece, rest) = pieces.split_at(random.random_range(1..=pieces.len()));
            wire.try_send(piece).await;
            pieces = rest;
        }
    }
    origin.script(Script::default());
    Wire::connect(address).await.serves(1).await;
    proxy.until_stat("http2.streams_active", 0).await;
    proxy.until_stat("http.in.downstream_rq_active", 0).await;
    proxy.until_stat("cluster.one.upstream_rq_active", 0).await;
    proxy.until_stat("http.in.downstream_cx_http2_active", 0).await;
}
