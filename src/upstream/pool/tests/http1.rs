//! HTTP/1.1: reuse, the end of connections, limits, cancellation.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http_body_util::{BodyExt, StreamBody};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::exchange::BodyError;
use crate::upstream::pool::RequestBodyError;

#[tokio::test]
async fn a_connection_is_reused_after_its_response() {
    let origin = Origin::start(false).await;
    let (_manager, local) = local(origin.address, json!({}));
    for _ in 0..3 {
        assert_eq!(get(&local, "/").await.unwrap(), "ok");
    }
    let (_, body) = send(&local, "/", Body::from("echo")).await.unwrap();
    assert_eq!(body.collect().await.unwrap().to_bytes(), "echo");
    assert_eq!((origin.accepted(), local.pools.idle_connections()), (1, 1));
    let stats = &local.cluster().stats;
    assert_eq!((stats.upstream_rq_total.value(), stats.upstream_rq_2xx.value()), (4, 4));
    assert_eq!((stats.upstream_cx_total.value(), stats.upstream_cx_active.value()), (1, 1));
    assert_eq!(stats.upstream_rq_time.value().count(), 4);
    assert_nothing_in_use(&local);
}

#[tokio::test]
async fn an_idle_connection_that_was_closed_fails_no_request() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let closed = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&closed);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            assert!(stream.read(&mut request).await.unwrap() > 0);
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            drop(stream);
            counter.fetch_add(1, Ordering::SeqCst);
        }
    });
    let (_manager, local) = local(address, json!({}));
    for n in 1..=20 {
        assert_eq!(get(&local, "/").await.unwrap(), "ok");
        until(|| closed.load(Ordering::SeqCst) == n).await;
    }
    assert_eq!(local.cluster().stats.upstream_rq_total.value(), 20);
    assert_nothing_in_use(&local);
}

#[tokio::test]
async fn a_refused_connection_is_a_connect_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let (_manager, local) = local(address, json!({}));
    let error = get(&local, "/").await.unwrap_err();
    assert!(matches!(error, UpstreamError::ConnectFailure(_)), "{error}");
    let stats = &local.cluster().stats;
    assert_eq!(stats.upstream_cx_connect_fail.value(), 1);
    assert_eq!((stats.upstream_cx_active.value(), stats.upstream_rq_5xx.value()), (0, 1));
    assert_nothing_in_use(&local);
}

#[tokio::test]
async fn an_answer_that_is_not_http_breaks_the_protocol_and_silence_is_termination() {
    for (answer, expected) in [(&b"220 smtp\r\n\r\n"[..], "Protocol"), (b"", "Terminated")] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            assert!(stream.read(&mut request).await.unwrap() > 0);
            stream.write_all(answer).await.unwrap();
        });
        let (_manager, local) = local(address, json!({}));
        assert_eq!(format!("{:?}", get(&local, "/").await.unwrap_err()), expected);
        assert_nothing_in_use(&local);
    }
}

#[tokio::test]
async fn a_client_that_leaves_closes_the_connection_and_frees_everything() {
    let origin = Origin::start(false).await;
    let (_manager, local) = local(origin.address, json!({}));
    let waiting = spawn_get(&local, "/wait");
    until(|| origin.seen.load(Ordering::SeqCst) == 1).await;
    let stats = &local.cluster().stats;
    assert_eq!(stats.upstream_rq_active.value(), 1);
    waiting.abort();
    until(|| stats.upstream_cx_active.value() == 0).await;
    assert_eq!((stats.upstream_rq_tx_reset.value(), stats.upstream_cx_destroy.value()), (1, 1));
    assert_nothing_in_use(&local);
}

#[tokio::test]
async fn a_response_dropped_before_its_end_closes_the_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let origin = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 1024];
        assert!(stream.read(&mut request).await.unwrap() > 0);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok").await.unwrap();
        stream.read(&mut request).await.map_or(0, |n| n)
    });
    let (_manager, local) = local(address, json!({}));
    let (_, body) = send(&local, "/", Body::Empty).await.unwrap();
    assert_eq!(local.cluster().stats.upstream_rq_active.value(), 1);
    drop(body);
    assert_eq!(origin.await.unwrap(), 0);
    assert_eq!(local.pools.idle_connections(), 0);
    assert_nothing_in_use(&local);
}

#[tokio::test]
async fn a_request_over_the_connection_limit_waits_and_one_more_is_refused() {
    let origin = Origin::start(false).await;
    let limits = json!({"circuit_breakers": {"thresholds":
        [{"max_connections": 1, "max_pending_requests": 1}]}});
    let (_manager, local) = local(origin.address, limits);
    let first = spawn_get(&local, "/wait");
    until(|| origin.seen.load(Ordering::SeqCst) == 1).await;
    let stats = &local.cluster().stats;
    let second = spawn_get(&local, "/");
    until(|| stats.upstream_rq_pending_active.value() == 1).await;
    let refused = get(&local, "/").await.unwrap_err();
    assert!(matches!(refused, UpstreamError::Overflow), "{refused}");
    assert_eq!(stats.upstream_rq_pending_overflow.value(), 1);
    origin.answer.add_permits(1);
    assert_eq!(first.await.unwrap().unwrap(), "ok");
    assert_eq!(second.await.unwrap().unwrap(), "ok");
    assert_eq!((origin.accepted(), stats.upstream_cx_overflow.value()), (1, 1));
    assert_nothing_in_use(&local);
}

#[tokio::test]
async fn who_waits_for_a_connection_may_make_one_when_another_ends() {
    let origin = Origin::start(false).await;
    let limits = json!({"circuit_breakers": {"thresholds": [{"max_connections": 1}]}});
    let (_manager, local) = local(origin.address, limits);
    let first = spawn_get(&local, "/wait");
    until(|| origin.seen.load(Ordering::SeqCst) == 1).await;
    let second = spawn_get(&local, "/");
    until(|| local.cluster().stats.upstream_rq_pending_active.value() == 1).await;
    first.abort();
    assert_eq!(second.await.unwrap().unwrap(), "ok");
    assert_eq!(origin.accepted(), 2);
}

#[tokio::test]
async fn a_worn_connection_is_not_used_again() {
    let origin = Origin::start(false).await;
    let (_manager, local) = local(origin.address, json!({"max_requests_per_connection": 2}));
    for _ in 0..4 {
        get(&local, "/").await.unwrap();
    }
    assert_eq!(origin.accepted(), 2);
    assert_eq!(local.cluster().stats.upstream_cx_max_requests.value(), 2);
}

/// A body of unknown length.
fn stream(frames: impl IntoIterator<Item = Result<&'static str, BodyError>>) -> Body {
    let frames: Vec<_> = frames
        .into_iter()
        .map(|frame| frame.map(|text| http_body::Frame::data(Bytes::from_static(text.as_bytes()))))
        .collect();
    Body::boxed(StreamBody::new(futures_util::stream::iter(frames)))
}

#[tokio::test]
async fn a_request_body_that_breaks_off_is_not_the_upstreams_fault() {
    for http2 in [false, true] {
        let origin = Origin::start(http2).await;
        let options = if http2 { json!({"http2_protocol_options": {}}) } else { json!({}) };
        let (_manager, local) = local(origin.address, options);
        let body = stream([Ok("x"), Err(BodyError::Timeout)]);
        let error = send(&local, "/", body).await.unwrap_err();
        assert!(
            matches!(error, UpstreamError::RequestBody(RequestBodyError::Timeout)),
            "{http2} {error:?}"
        );
        assert_nothing_in_use(&local);
    }
}

#[tokio::test]
async fn a_body_of_unknown_length_passes_whatever_the_method() {
    for http2 in [false, true] {
        let origin = Origin::start(http2).await;
        let options = if http2 { json!({"http2_protocol_options": {}}) } else { json!({}) };
        let (_manager, local) = local(origin.address, options);
        let (_, body) = send(&local, "/", stream([Ok("a"), Ok("b")])).await.unwrap();
        assert_eq!(body.collect().await.unwrap().to_bytes(), "ab");
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_in_time() {
    let origin = Origin::start(false).await;
    let timeout = json!({"common_http_protocol_options": {"idle_timeout": "10s"}});
    let (_manager, local) = local(origin.address, timeout);
    get(&local, "/").await.unwrap();
    assert_eq!(local.pools.idle_connections(), 1);
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(local.pools.idle_connections(), 1);
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(local.pools.idle_connections(), 0);
    assert_eq!(local.cluster().stats.upstream_cx_idle_timeout.value(), 1);
}

#[tokio::test]
async fn hosts_that_are_gone_lose_their_connections_and_answer_no_more() {
    let origin = Origin::start(false).await;
    let (_manager, local) = local(origin.address, json!({}));
    get(&local, "/").await.unwrap();
    let waiting = spawn_get(&local, "/wait");
    until(|| origin.seen.load(Ordering::SeqCst) == 2).await;
    local.cluster().set_endpoints(&crate::upstream::Endpoints::default());
    assert!(local.choose(&LbContext::default()).is_err());
    assert_eq!(local.pools.idle_connections(), 0);
    origin.answer.add_permits(1);
    assert_eq!(waiting.await.unwrap().unwrap(), "ok");
    until(|| local.cluster().stats.upstream_cx_active.value() == 0).await;
}

#[tokio::test]
async fn a_replaced_cluster_keeps_connections_that_fit() {
    let origin = Origin::start(false).await;
    let cx = CompileContext::default();
    let first = cluster(origin.address, json!({}), &cx);
    let manager = ClusterManager::new(clusters(&first));
    get(&manager.get("c").unwrap(), "/").await.unwrap();
    let other_policy = cluster(origin.address, json!({"lb_policy": "RANDOM"}), &cx);
    manager.apply(clusters(&other_policy));
    let local = manager.get("c").unwrap();
    assert!(Arc::ptr_eq(local.cluster(), &other_policy));
    get(&local, "/").await.unwrap();
    assert_eq!(origin.accepted(), 1);
    manager.apply(clusters(&cluster(origin.address, json!({"connect_timeout": "1s"}), &cx)));
    get(&manager.get("c").unwrap(), "/").await.unwrap();
    assert_eq!(origin.accepted(), 2);
    assert_eq!(first.stats.upstream_rq_total.value(), 3);
    manager.apply(Arc::new(Clusters::default()));
    assert!(manager.get("c").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_not_made_in_time_is_given_up() {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    // Nobody accepts: once the queue is full, the system drops what else wants to connect.
    let mut held = Vec::new();
    let full = loop {
        let connecting = tokio::net::TcpStream::connect(address);
        match tokio::time::timeout(Duration::from_secs(1), connecting).await {
            Ok(Ok(stream)) if held.len() < 64 => held.push(stream),
            Ok(_) => break false,
            Err(_elapsed) => break true,
        }
    };
    if !full {
        // This system has no bound to the queue; there is nothing to see here.
        return;
    }
    let (_manager, local) = local(address, json!({}));
    let error = get(&local, "/").await.unwrap_err();
    assert!(matches!(error, UpstreamError::ConnectTimeout), "{error}");
    assert_eq!(local.cluster().stats.upstream_cx_connect_timeout.value(), 1);
    assert_nothing_in_use(&local);
}
