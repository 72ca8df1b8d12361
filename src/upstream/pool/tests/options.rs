//! What `ConnectionPool`, preconnecting and keep-alive change.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::http1_wire::{Wire, read_until, spawn_head, spawn_send, text};
use super::*;

/// A cluster's fields with these of `ConnectionPool`.
fn pool(options: Value) -> Value {
    let name = "nuncio.extensions.upstreams.http.v1.ConnectionPool";
    let mut options = options;
    options["@type"] = json!(format!("type.googleapis.com/{name}"));
    json!({"typed_extension_protocol_options": {name: options}})
}

#[tokio::test]
async fn no_more_idle_connections_are_kept_than_allowed() {
    for (most, kept) in [(json!(null), 3), (json!(2), 2), (json!(0), 0)] {
        let origin = Origin::start(false).await;
        let (_manager, local) = local(origin.address, pool(json!({"max_idle": most})));
        let waiting: Vec<_> = (0..3).map(|_| spawn_get(&local, "/wait")).collect();
        until(|| origin.seen.load(Ordering::SeqCst) == 3).await;
        origin.answer.add_permits(3);
        for request in waiting {
            assert_eq!(request.await.unwrap().unwrap(), "ok");
        }
        assert_eq!(local.pools.idle_connections(), kept, "{most}");
        until(|| local.cluster().stats.upstream_cx_active.value() == i64::try_from(kept).unwrap())
            .await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_does_not_answer_in_time_is_given_up() {
    for http2 in [false, true] {
        let origin = Origin::start(http2).await;
        let mut with = pool(json!({"response_header_timeout": "2s"}));
        if http2 {
            with["http2_protocol_options"] = json!({});
        }
        let (_manager, local) = local(origin.address, with);
        let start = tokio::time::Instant::now();
        let error = get(&local, "/wait").await.unwrap_err();
        assert!(matches!(error, UpstreamError::ResponseHeaderTimeout), "{error}");
        assert_eq!(error.status(), 504);
        assert!((1900..3000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
        let stats = &local.cluster().stats;
        assert_eq!((stats.upstream_rq_timeout.value(), stats.upstream_rq_5xx.value()), (1, 1));
        assert_nothing_in_use(&local);
        assert_eq!(get(&local, "/").await.unwrap(), "ok", "in time");
    }
}

fn expecting() -> RequestHead {
    let mut head = head("/");
    head.headers.insert("expect", "100-continue".parse().unwrap());
    head
}

#[tokio::test]
async fn a_body_waits_until_it_is_asked_for() {
    let wire = Wire::start().await;
    let (_manager, local) = local(wire.address, pool(json!({"expect_continue_timeout": "60s"})));
    let sending = spawn_head(&local, expecting(), Body::from("body"));
    let mut stream = wire.accept().await;
    assert!(read_until(&mut stream, "\r\n\r\n").await.contains("expect: 100-continue\r\n"));
    stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
    assert_eq!(read_until(&mut stream, "body").await, "body");
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
    let (_, body) = sending.await.unwrap().unwrap();
    assert_eq!(text(body).await.unwrap(), "ok");
    assert_eq!(local.pools.idle_connections(), 1);
}

#[tokio::test]
async fn a_body_that_is_not_asked_for_goes_in_the_end_and_one_that_is_refused_does_not() {
    let wire = Wire::start().await;
    let (_manager, patient) = local(wire.address, pool(json!({"expect_continue_timeout": "60s"})));
    let sending = spawn_head(&patient, expecting(), Body::from("body"));
    let mut stream = wire.accept().await;
    read_until(&mut stream, "\r\n\r\n").await;
    stream.write_all(b"HTTP/1.1 417 No\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    assert_eq!(sending.await.unwrap().unwrap().0.status, 417);
    assert_eq!(patient.pools.idle_connections(), 0, "it still expects a body or an end");

    for timeout in ["0.02s", "0s"] {
        let options = pool(json!({"expect_continue_timeout": timeout}));
        let (_manager, local) = local(wire.address, options);
        let sending = spawn_head(&local, expecting(), Body::from("body"));
        let mut stream = wire.accept().await;
        read_until(&mut stream, "\r\n\r\nbody").await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        assert_eq!(sending.await.unwrap().unwrap().0.status, 200);
    }
}

#[tokio::test]
async fn upstreams_are_asked_to_compress_unless_that_is_off() {
    for (off, asked) in [(false, true), (true, false)] {
        let wire = Wire::start().await;
        let (_manager, local) = local(wire.address, pool(json!({"disable_compression": off})));
        let mut head = head("/");
        head.headers.insert("accept-encoding", "gzip".parse().unwrap());
        let _sending = spawn_head(&local, head, Body::Empty);
        let request = read_until(&mut wire.accept().await, "\r\n\r\n").await;
        assert_eq!(request.contains("accept-encoding"), asked, "{request}");
        // It is never asked for by us.
        let _sending = spawn_send(&local, Body::Empty);
        let request = read_until(&mut wire.accept().await, "\r\n\r\n").await;
        assert!(!request.contains("accept-encoding"), "{request}");
    }
}

#[tokio::test]
async fn connections_are_made_ahead_of_requests_within_the_limit() {
    let origin = Origin::start(false).await;
    let mut with = json!({"preconnect_policy": {"per_upstream_preconnect_ratio": 2.0}});
    with["circuit_breakers"] = json!({"thresholds": [{"max_connections": 5}]});
    let (_manager, local) = local(origin.address, with);
    let stats = &local.cluster().stats;
    let mut waiting = vec![spawn_get(&local, "/wait")];
    until(|| local.pools.idle_connections() == 1).await;
    assert_eq!(stats.upstream_cx_total.value(), 2);
    waiting.push(spawn_get(&local, "/wait"));
    until(|| stats.upstream_cx_total.value() == 4).await;
    waiting.push(spawn_get(&local, "/wait"));
    until(|| stats.upstream_cx_total.value() == 5).await;
    origin.answer.add_permits(3);
    for request in waiting {
        assert_eq!(request.await.unwrap().unwrap(), "ok");
    }
    until(|| local.pools.idle_connections() == 5).await;
    assert_eq!(stats.upstream_cx_total.value(), 5, "no more than may be");
}

#[tokio::test]
async fn silent_connections_are_probed_if_so_configured() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let keepalive = crate::upstream::pool::TcpKeepalive {
        probes: Some(3),
        time: Some(Duration::from_secs(7)),
        interval: None,
    };
    crate::upstream::pool::connect::prepare(&stream, Some(keepalive)).unwrap();
    let socket = socket2::SockRef::from(&stream);
    assert!(socket.keepalive().unwrap() && socket.tcp_nodelay().unwrap());
    assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(7));
    assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3);
}
