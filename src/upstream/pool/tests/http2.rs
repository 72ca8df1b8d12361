//! HTTP/2: sharing, stream limits, GOAWAY, cancellation, trailers.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::HeaderMap;
use http_body_util::BodyExt;
use serde_json::json;
use tokio::net::TcpListener;

use super::*;

fn http2() -> Value {
    json!({"http2_protocol_options": {}})
}

#[tokio::test]
async fn requests_share_a_connection() {
    let origin = Origin::start(true).await;
    let (_manager, local) = local(origin.address, http2());
    let all: Vec<_> = (0..20).map(|_| spawn_get(&local, "/wait")).collect();
    until(|| origin.seen.load(Ordering::SeqCst) == 20).await;
    assert_eq!(local.cluster().stats.upstream_rq_active.value(), 20);
    origin.answer.add_permits(20);
    for one in all {
        assert_eq!(one.await.unwrap().unwrap(), "ok");
    }
    assert_eq!(origin.accepted(), 1);
    assert_eq!(local.cluster().stats.upstream_cx_http2_total.value(), 1);
    assert_nothing_in_use(&local);
}

#[tokio::test]
async fn more_streams_than_a_connection_may_have_take_another() {
    let origin = Origin::start(true).await;
    let limit = json!({"http2_protocol_options": {"max_concurrent_streams": 2}});
    let (_manager, local) = local(origin.address, limit);
    let all: Vec<_> = (0..5).map(|_| spawn_get(&local, "/wait")).collect();
    until(|| origin.seen.load(Ordering::SeqCst) == 5).await;
    assert_eq!(origin.accepted(), 3);
    origin.answer.add_permits(5);
    for one in all {
        one.await.unwrap().unwrap();
    }
    assert_nothing_in_use(&local);
}

#[tokio::test]
async fn an_upstream_that_says_goaway_loses_no_request() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // Each connection is shut down in good order after three requests.
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                let mut served = 0;
                while let Some(request) = connection.accept().await {
                    let Ok((_, mut respond)) = request else { return };
                    respond.send_response(http::Response::new(()), true).unwrap();
                    served += 1;
                    if served == 3 {
                        connection.graceful_shutdown();
                    }
                }
            });
        }
    });
    let (_manager, local) = local(address, http2());
    for _ in 0..30 {
        assert_eq!(get(&local, "/").await.unwrap(), "");
    }
    assert!(local.cluster().stats.upstream_cx_total.value() >= 2);
    assert_nothing_in_use(&local);
}

#[tokio::test]
async fn a_client_that_leaves_resets_its_stream_only() {
    let origin = Origin::start(true).await;
    let (_manager, local) = local(origin.address, http2());
    let leaving = spawn_get(&local, "/wait");
    let staying = spawn_get(&local, "/wait");
    until(|| origin.seen.load(Ordering::SeqCst) == 2).await;
    leaving.abort();
    assert!(leaving.await.unwrap_err().is_cancelled());
    assert_eq!(local.cluster().stats.upstream_rq_active.value(), 1);
    origin.answer.add_permits(2);
    assert_eq!(staying.await.unwrap().unwrap(), "ok");
    assert_eq!(get(&local, "/").await.unwrap(), "ok");
    assert_eq!((origin.accepted(), local.cluster().stats.upstream_rq_tx_reset.value()), (1, 1));
    assert_nothing_in_use(&local);
}

#[tokio::test]
async fn everybody_who_waits_shares_a_failure_to_connect() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let (_manager, local) = local(address, http2());
    let all: Vec<_> = (0..5).map(|_| spawn_get(&local, "/")).collect();
    for one in all {
        let error = one.await.unwrap().unwrap_err();
        assert!(matches!(error, UpstreamError::ConnectFailure(_)), "{error}");
    }
    assert_eq!(local.cluster().stats.upstream_cx_total.value(), 1);
    assert_nothing_in_use(&local);
}

#[tokio::test]
async fn trailers_pass_and_a_reset_is_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            assert_eq!(request.uri().authority().unwrap(), "origin.example");
            assert!(!request.headers().contains_key("host"));
            if request.uri().path() == "/reset" {
                respond.send_reset(h2::Reason::INTERNAL_ERROR);
                continue;
            }
            let mut body = respond.send_response(http::Response::new(()), false).unwrap();
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            body.send_trailers(trailers).unwrap();
        }
    });
    let (_manager, local) = local(address, http2());
    let (_, body) = send(&local, "/", Body::Empty).await.unwrap();
    let trailers = body.collect().await.unwrap().trailers().cloned().unwrap();
    assert_eq!(trailers["grpc-status"], "0");
    let error = send(&local, "/reset", Body::Empty).await.unwrap_err();
    assert!(matches!(error, UpstreamError::RemoteReset), "{error}");
    assert_nothing_in_use(&local);
}

#[tokio::test]
async fn the_clients_protocol_is_used_if_so_configured() {
    let origin = Origin::start(true).await;
    let name = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let options = json!({"typed_extension_protocol_options": {name: {
        "@type": format!("type.googleapis.com/{name}"), "use_downstream_protocol_config": {},
    }}});
    let (_manager, local) = local(origin.address, options);
    let mut head = head("/");
    head.version = http::Version::HTTP_2;
    let permit = local.admit(RoutingPriority::Default).unwrap();
    let host = local.choose(&LbContext::default()).unwrap();
    let (head, body) = local.send(&host, permit, head, Body::Empty).await.unwrap();
    assert_eq!(head.version, http::Version::HTTP_2);
    drop(body.collect().await.unwrap());
    assert!(get(&local, "/").await.is_err(), "HTTP/1.1 to an origin that speaks HTTP/2 only");
    let local: Arc<LocalCluster> = local;
    assert_nothing_in_use(&local);
}
