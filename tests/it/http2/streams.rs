//! The life of streams and connections: how many, how they end, what they are told on the way.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::wire::*;
use super::{before, world};
use crate::harness::resources::{bootstrap, hcm, listener_of, static_cluster, table, to};
use crate::harness::{Origin, ProxyBuilder, Script, get as get_http1};

#[tokio::test]
async fn streams_beyond_the_limit_are_refused() {
    let (origin, proxy, address) =
        world(json!({ "http2_protocol_options": { "max_concurrent_streams": 2 } })).await;
    origin.script(Script::held());
    let mut wire = Wire::connect(address).await;
    let own = wire.until(SETTINGS).await;
    assert!(own.payload.chunks(6).any(|setting| setting == [0, 3, 0, 0, 0, 2]));
    wire.send(&[get(1), get(3), get(5), get(7)].concat()).await;
    assert_eq!(wire.answer().await, (5, Err(REFUSED_STREAM)));
    assert_eq!(wire.answer().await, (7, Err(REFUSED_STREAM)));
    origin.until_active(2).await;
    assert_eq!(proxy.stat("http2.streams_active").await, 2);
    origin.script(Script::default());
    origin.release();
    assert_eq!(wire.answer().await.1.unwrap().0, 200);
    assert_eq!(wire.answer().await.1.unwrap().0, 200);
    wire.serves(9).await;
    assert_eq!(origin.requests(), 3);
    assert_eq!(proxy.stat("http2.stream_refused_errors").await, 2);
}

#[tokio::test]
async fn a_connection_that_is_to_end_serves_what_was_under_way() {
    let (origin, proxy, address) =
        world(json!({ "common_http_protocol_options": { "max_requests_per_connection": 2 } }))
            .await;
    origin.script(Script::held());
    let mut wire = Wire::connect(address).await;
    wire.send(&[get(1), get(3), get(5)].concat()).await;
    origin.until_active(3).await;
    origin.script(Script::default());
    origin.release();
    let goaway = wire.until(GOAWAY).await;
    assert_eq!((goaway.number(0), goaway.number(4)), (0x7fff_ffff, 0));
    let ping = wire.until(PING).await;
    // The client did not know yet.
    wire.send(&get(7)).await;
    loop {
        let (stream, answer) = wire.answer().await;
        assert_eq!(answer.unwrap().0, 200);
        if stream == 7 {
            break;
        }
    }
    wire.send(&frame(PING, ACK, 0, &ping.payload)).await;
    let goaway = wire.until(GOAWAY).await;
    assert_eq!((goaway.number(0), goaway.number(4)), (7, 0));
    wire.try_send(&get(9)).await;
    assert_eq!(wire.next().await, None);
    assert_eq!(origin.requests(), 4);
    assert!(proxy.stat("http.in.downstream_cx_max_requests_reached").await >= 1);
    proxy.until_stat("http.in.downstream_cx_active", 0).await;
    assert_eq!(proxy.stat("http.in.downstream_cx_protocol_error").await, 0);
}

#[tokio::test]
async fn a_client_that_leaves_gets_its_answers() {
    let (origin, proxy, address) = world(json!({})).await;
    origin.script(Script::held());
    let mut wire = Wire::connect(address).await;
    wire.send(&[get(1), frame(GOAWAY, 0, 0, &[0; 8])].concat()).await;
    origin.until_active(1).await;
    origin.release();
    assert_eq!(wire.answer().await.1.unwrap().0, 200);
    assert_eq!(wire.next().await, None);
    proxy.until_stat("http.in.downstream_cx_active", 0).await;
}

#[tokio::test]
async fn a_client_that_is_gone_is_not_worked_for() {
    let (origin, proxy, address) = world(json!({})).await;
    origin.script(Script::held());
    let mut wire = Wire::connect(address).await;
    wire.send(&[get(1), post(3, &[]), data(3, b"half")].concat()).await;
    origin.until_active(2).await;
    drop(wire);
    proxy.until_stat("cluster.one.upstream_rq_active", 0).await;
    proxy.until_stat("http.in.downstream_rq_rx_reset", 2).await;
    proxy.until_stat("http2.streams_active", 0).await;
}

#[tokio::test]
async fn who_does_not_answer_pings_is_not_there() {
    let keepalive = json!({ "interval": "0.1s", "timeout": "0.4s" });
    let options = json!({ "http2_protocol_options": { "connection_keepalive": keepalive } });
    let (_origin, proxy, address) = world(options).await;
    let mut there = Wire::connect(address).await;
    for _ in 0..10 {
        let ping = there.until(PING).await;
        assert_eq!(ping.flags & ACK, 0);
        there.send(&frame(PING, ACK, 0, &ping.payload)).await;
    }
    there.serves(1).await;
    assert_eq!(proxy.stat("http2.keepalive_timeout").await, 0);
    drop(there);
    let mut silent = Wire::connect(address).await;
    while silent.next().await.is_some() {}
    assert_eq!(proxy.stat("http2.keepalive_timeout").await, 1);
    assert_eq!(proxy.stat("http.in.downstream_cx_protocol_error").await, 0);
}

#[tokio::test]
async fn an_answer_that_comes_before_the_body_is_all_there_is() {
    let (origin, _proxy, address) = world(json!({})).await;
    origin.script(Script { early: true, ..Script::status(403) });
    let mut wire = Wire::connect(address).await;
    wire.send(&[post(1, &[]), data(1, b"some")].concat()).await;
    assert_eq!(wire.answer().await.1.unwrap().0, 403);
    let stop = wire.until(RST_STREAM).await;
    assert_eq!((stop.stream, stop.number(0)), (1, 0));
    // What was under way is no fault.
    wire.send(&[data(1, b"more"), last_data(1, b"")].concat()).await;
    origin.script(Script::default());
    wire.serves(3).await;
}

#[tokio::test]
async fn who_expects_to_be_told_is_told_to_go_on() {
    let (origin, _proxy, address) = world(json!({})).await;
    let mut wire = Wire::connect(address).await;
    wire.send(&post(1, &[("expect", "100-continue"), ("content-length", "2")])).await;
    let interim = wire.until(HEADERS).await;
    assert_eq!((interim.status(), interim.flags), (100, END_HEADERS));
    wire.send(&last_data(1, b"ok")).await;
    assert_eq!(wire.answer().await.1.unwrap().0, 200);
    assert!(!origin.last().headers.contains_key("expect"));
}

#[tokio::test]
async fn the_origin_may_be_asked_whether_it_wants_the_body() {
    let (origin, _proxy, address) = world(json!({ "proxy_100_continue": true })).await;
    let mut wire = Wire::connect(address).await;
    wire.send(&post(1, &[("expect", "100-continue"), ("content-length", "2")])).await;
    let interim = wire.until(HEADERS).await;
    assert_eq!((interim.status(), interim.flags), (100, END_HEADERS));
    assert_eq!(origin.last().headers["expect"], "100-continue");
    wire.send(&last_data(1, b"ok")).await;
    assert_eq!(wire.answer().await.1.unwrap().0, 200);
    // One that does not want it is heard at once.
    origin.script(Script { early: true, ..Script::status(417) });
    wire.send(&post(3, &[("expect", "100-continue"), ("content-length", "2")])).await;
    assert_eq!(wire.until(HEADERS).await.status(), 417);
}

#[tokio::test]
async fn an_early_hint_reaches_its_stream() {
    let listening = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = listening.local_addr().unwrap();
    let (release, mut released) = tokio::sync::mpsc::channel::<()>(1);
    tokio::spawn(async move {
        let (mut stream, _) = listening.accept().await.unwrap();
        let mut read = [0; 4096];
        while stream.read(&mut read).await.unwrap() > 0 {
            let hint = b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\nconnection: x\r\n\r\n";
            stream.write_all(hint).await.unwrap();
            released.recv().await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        }
    });
    let routes = json!({ "route_config": table("local", &[to("one")]) });
    let listeners = [
        listener_of("hints", hcm(routes.clone(), json!({ "proxy_100_continue": true }))),
        listener_of("none", hcm(routes, json!({}))),
    ];
    let proxy = ProxyBuilder::new(bootstrap(&listeners, &[static_cluster("one", &[origin])]))
        .args(["--concurrency", "1"])
        .ready()
        .await;
    let mut wire = Wire::connect(proxy.listener("hints").await).await;
    for stream in [1, 3] {
        wire.send(&get(stream)).await;
        let hint = wire.until(HEADERS).await;
        assert_eq!((hint.status(), hint.stream, hint.flags), (103, stream, END_HEADERS));
        release.send(()).await.unwrap();
        assert_eq!(wire.answer().await, (stream, Ok((200, b"ok".to_vec()))));
    }
    let mut wire = Wire::connect(proxy.listener("none").await).await;
    wire.send(&get(1)).await;
    release.send(()).await.unwrap();
    assert_eq!(wire.until(HEADERS).await.status(), 200, "who did not ask for hints gets none");
}

#[tokio::test]
async fn a_tunnel_runs_on_a_stream_if_a_route_says_so() {
    let far = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connect = json!([{ "upgrade_type": "CONNECT", "connect_config": {} }]);
    let matcher = json!({ "connect_matcher": {} });
    let tunnel = json!({ "cluster": "far", "upgrade_configs": connect });
    let routes = [
        ("tunnel", json!({ "match": matcher, "route": tunnel })),
        ("refused", json!({ "match": matcher, "route": { "cluster": "far" } })),
        ("nothing", to("far")),
    ];
    let listeners = routes.map(|(name, route)| {
        listener_of(name, hcm(json!({ "route_config": table("local", &[route]) }), json!({})))
    });
    let cluster = static_cluster("far", &[far.local_addr().unwrap()]);
    let proxy = ProxyBuilder::new(bootstrap(&listeners, &[cluster])).ready().await;
    let head = block(&[(":method", "CONNECT"), (":authority", "t.test:443")]);
    for (name, status) in [("refused", 403), ("nothing", 404)] {
        let mut wire = Wire::connect(proxy.listener(name).await).await;
        wire.send(&frame(HEADERS, END_HEADERS, 1, &head)).await;
        assert_eq!(wire.answer().await.1.unwrap().0, status);
    }
    let mut wire = Wire::connect(proxy.listener("tunnel").await).await;
    wire.send(&[frame(HEADERS, END_HEADERS, 1, &head), data(1, b"there")].concat()).await;
    let (mut end, _) = far.accept().await.unwrap();
    let answer = wire.until(HEADERS).await;
    assert_eq!((answer.status(), answer.flags), (200, END_HEADERS));
    let mut read = [0; 5];
    end.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"there");
    end.write_all(b"back").await.unwrap();
    assert_eq!(wire.until(DATA).await.payload, &b"back"[..]);
    end.shutdown().await.unwrap();
    assert_eq!(wire.until(DATA).await.flags, END_STREAM);
    wire.settle().await;
    proxy.until_stat("cluster.far.upstream_rq_active", 0).await;
}

#[tokio::test]
async fn answers_without_a_body_end_with_their_head() {
    let (origin, _proxy, address) = world(json!({})).await;
    let mut wire = Wire::connect(address).await;
    let head = block(&[&[(":method", "HEAD")], &GET[1..]].concat());
    for (stream, (status, request)) in
        (1..).step_by(2).zip([(200, &head), (204, &block(&GET)), (304, &block(&GET))])
    {
        origin.script(Script::status(status));
        wire.send(&frame(HEADERS, WHOLE, stream, request)).await;
        let answer = wire.until(HEADERS).await;
        assert_eq!((answer.status(), answer.flags), (status, WHOLE));
    }
    wire.settle().await;
}

#[tokio::test]
async fn heads_go_out_as_the_client_takes_them() {
    let (origin, _proxy, address) = world(json!({})).await;
    // Longer than a frame.
    origin.script(Script::default().header("x-long", &"y".repeat(20_000)));
    let mut wire = Wire::connect(address).await;
    wire.send(&get(1)).await;
    let head = wire.until(HEADERS).await;
    assert_eq!((head.status(), head.flags), (200, 0));
    let rest = wire.next().await.unwrap();
    assert_eq!((rest.kind, rest.flags), (CONTINUATION, END_HEADERS));
    assert!(head.payload.len() + rest.payload.len() > 20_000);
    // Without a table.
    origin.script(Script::default());
    let mut wire = Wire::with_settings(address, &[(1, 0)]).await;
    wire.send(&get(1)).await;
    let first = wire.until(HEADERS).await;
    assert_eq!(first.payload[0], 0x20);
    wire.send(&get(3)).await;
    let second = wire.until(HEADERS).await;
    // Times may differ by a digit.
    assert!(second.payload.len() + 3 > first.payload.len(), "nothing is remembered");
    let mut wire = Wire::connect(address).await;
    wire.serves(1).await;
    wire.send(&get(3)).await;
    assert!(wire.until(HEADERS).await.payload.len() < first.payload.len() / 2);
}

#[tokio::test]
async fn a_small_table_is_kept_to_once_the_client_knows() {
    let origin = Origin::http1("one").await;
    let options = json!({ "http2_protocol_options": { "hpack_table_size": 0 } });
    let (_proxy, address) = before(&origin, options).await;
    let mut wire = Wire::connect(address).await;
    assert!(wire.until(SETTINGS).await.payload.chunks(6).any(|s| s == [0, 1, 0, 0, 0, 0]));
    let kept = [&block(&GET)[..], b"\x40\x03x-a\x01b\xbe"].concat();
    wire.send(&frame(HEADERS, WHOLE, 1, &kept)).await;
    assert_eq!(wire.answer().await.1.unwrap().0, 200);
    wire.send(&frame(SETTINGS, ACK, 0, b"")).await;
    wire.send(&frame(HEADERS, WHOLE, 3, &[b"\x20", &block(&GET)[..]].concat())).await;
    assert_eq!(wire.answer().await.1.unwrap().0, 200);
    wire.send(&frame(HEADERS, WHOLE, 5, &[b"\x21", &block(&GET)[..]].concat())).await;
    assert_eq!(wire.goes_away().await, COMPRESSION_ERROR);
    assert_eq!(get_http1(address, "/").await.status, 200);
}
