//! Requests that break a rule of RFC 9113 section 8: none reaches the origin, and only their stream, or their
//! connection, suffers.

use serde_json::{Value, json};

use super::wire::*;
use super::world;

/// Request heads that are malformed.
fn heads() -> Vec<Vec<(&'static str, &'static str)>> {
    let with = |more: &[(&'static str, &'static str)]| [&GET[..], more].concat();
    let without = |name| GET.into_iter().filter(|(n, _)| *n != name).collect::<Vec<_>>();
    let but = |name, value| {
        GET.into_iter().map(|(n, v)| (n, if n == name { value } else { v })).collect::<Vec<_>>()
    };
    vec![
        with(&[("X-Upper", "1")]),
        with(&[("x-bad name", "1")]),
        with(&[("", "1")]),
        with(&[("connection", "keep-alive")]),
        with(&[("keep-alive", "1")]),
        with(&[("proxy-connection", "close")]),
        with(&[("transfer-encoding", "chunked")]),
        with(&[("upgrade", "websocket")]),
        with(&[("te", "gzip")]),
        with(&[("x-a", "b\r\nx-c: d")]),
        with(&[("x-a", "b\0")]),
        with(&[("x-a", " b")]),
        with(&[(":path", "/again")]),
        with(&[(":unknown", "1")]),
        with(&[(":protocol", "websocket")]),
        with(&[(":status", "200")]),
        with(&[("x-a", "b"), (":authority", "late")]),
        with(&[("content-length", "5")]),
        with(&[("content-length", "0"), ("content-length", "0")]),
        with(&[("content-length", "-1")]),
        with(&[("host", "a"), ("host", "b")]),
        without(":method"),
        without(":scheme"),
        without(":path"),
        without(":authority"),
        but(":path", ""),
        but(":path", "/a b"),
        but(":path", "/a#b"),
        but(":path", "a"),
        but(":path", "http://other/"),
        but(":method", "GE T"),
        but(":method", "GET / HTTP/1.1\r\nx: "),
        but(":scheme", ""),
        but(":authority", ""),
        but(":authority", "a/b"),
        but(":authority", "a b"),
        vec![(":method", "CONNECT"), (":scheme", "http"), (":authority", "a:1"), (":path", "/")],
    ]
}

fn stream_errors(on: bool) -> Value {
    json!({ "http2_protocol_options": { "override_stream_error_on_invalid_http_message": on } })
}

#[tokio::test]
async fn a_malformed_request_ends_its_stream_and_no_other() {
    let (origin, proxy, address) = world(stream_errors(true)).await;
    let mut wire = Wire::connect(address).await;
    let mut stream = 1;
    wire.serves(stream).await;
    for head in heads() {
        stream += 2;
        wire.send(&frame(HEADERS, WHOLE, stream, &block(&head))).await;
        assert_eq!(wire.answer().await, (stream, Err(PROTOCOL_ERROR)), "{head:?}");
    }
    assert_eq!(origin.requests(), 1);
    wire.serves(stream + 2).await;
    let malformed = heads().len() as u64;
    assert_eq!(proxy.stat("http2.rx_messaging_error").await, malformed);
    assert_eq!(proxy.stat("http2.tx_reset").await, malformed);
    assert_eq!(proxy.stat("http.in.downstream_rq_total").await, 2);
    assert_eq!(proxy.stat("http.in.downstream_cx_protocol_error").await, 0);
    proxy.until_stat("http2.streams_active", 0).await;
}

#[tokio::test]
async fn bodies_are_as_long_as_they_say() {
    let (origin, proxy, address) = world(stream_errors(true)).await;
    let mut wire = Wire::connect(address).await;
    let length = |stream, n| post(stream, &[("content-length", n)]);
    let trailers = |stream, fields: &[(&str, &str)]| frame(HEADERS, WHOLE, stream, &block(fields));
    let bodies: [&dyn Fn(u32) -> Vec<u8>; 7] = [
        &|s| [length(s, "3"), last_data(s, b"hello")].concat(),
        &|s| [length(s, "3"), data(s, b"hello")].concat(),
        &|s| [length(s, "9"), data(s, b"hello"), last_data(s, b"")].concat(),
        &|s| [length(s, "9"), data(s, b"hello"), trailers(s, &[("x-a", "b")])].concat(),
        &|s| [post(s, &[]), data(s, b"hello"), trailers(s, &[(":path", "/")])].concat(),
        &|s| [post(s, &[]), data(s, b"hello"), trailers(s, &[("X-A", "b")])].concat(),
        &|s| [post(s, &[]), frame(HEADERS, END_HEADERS, s, &block(&[("x-a", "b")]))].concat(),
    ];
    let mut stream = 1;
    for body in bodies {
        wire.send(&body(stream)).await;
        assert_eq!(wire.answer().await, (stream, Err(PROTOCOL_ERROR)), "stream {stream}");
        stream += 2;
    }
    proxy.until_stat("cluster.one.upstream_rq_active", 0).await;
    assert_eq!(proxy.stat("http.in.downstream_rq_completed").await, 0);
    wire.send(&[length(stream, "5"), data(stream, b"hel"), last_data(stream, b"lo")].concat())
        .await;
    assert_eq!(wire.answer().await.1.unwrap().0, 200);
    assert_eq!(origin.last().headers["content-length"], "5");
}

#[tokio::test]
async fn by_default_a_malformed_request_ends_its_connection() {
    let hcm_true_override_false = json!({ "stream_error_on_invalid_http_message": true,
        "http2_protocol_options": { "override_stream_error_on_invalid_http_message": false } });
    for options in [json!({}), hcm_true_override_false] {
        let (origin, proxy, address) = world(options).await;
        for head in heads() {
            let mut wire = Wire::connect(address).await;
            wire.send(&frame(HEADERS, WHOLE, 1, &block(&head))).await;
            assert_eq!(wire.goes_away().await, PROTOCOL_ERROR, "{head:?}");
        }
        assert_eq!(origin.requests(), 0);
        let malformed = heads().len() as u64;
        proxy.until_stat("http.in.downstream_cx_protocol_error", malformed).await;
        assert_eq!(proxy.stat("http2.goaway_sent").await, malformed);
        Wire::connect(address).await.serves(1).await;
    }
}

#[tokio::test]
async fn the_connection_manager_may_say_it_for_both_protocols() {
    let (_origin, _proxy, address) =
        world(json!({ "stream_error_on_invalid_http_message": true })).await;
    let mut wire = Wire::connect(address).await;
    let upper = block(&[&GET[..], &[("X-Upper", "1")]].concat());
    wire.send(&frame(HEADERS, WHOLE, 1, &upper)).await;
    assert_eq!(wire.answer().await, (1, Err(PROTOCOL_ERROR)));
    wire.serves(3).await;
}

#[tokio::test]
async fn what_only_looks_odd_is_served() {
    let (origin, _proxy, address) = world(json!({})).await;
    let mut wire = Wire::connect(address).await;
    let odd: [&[(&str, &str)]; 4] = [
        &[("te", "trailers"), ("x-empty", "")],
        &[("host", "other")],
        &[("cookie", "a=1"), ("cookie", "b=2")],
        &[("x-obs", "\u{e4}")],
    ];
    for (stream, more) in (1..).step_by(2).zip(odd) {
        let fields = [&GET[..], more].concat();
        wire.send(&frame(HEADERS, WHOLE, stream, &block(&fields))).await;
        assert_eq!(wire.answer().await.1.unwrap().0, 200, "{more:?}");
        assert_eq!(origin.last().headers["host"], "test");
    }
    assert_eq!(origin.heads()[2].headers["cookie"], "a=1; b=2");
    // `Host` stands in for an authority that is not said.
    let host = [&GET[..3], &[("host", "other")]].concat();
    wire.send(&frame(HEADERS, WHOLE, 9, &block(&host))).await;
    assert_eq!(wire.answer().await.1.unwrap().0, 200);
    assert_eq!(origin.last().headers["host"], "other");
}
