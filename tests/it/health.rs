//! Hosts that are asked whether they are well: before the first request, while they serve, and
//! through changes of the configuration.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use http::{HeaderMap, HeaderValue, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::harness::resources::{
    assignment, bootstrap, eds_cluster, listener, over_http2, static_cluster, table, to, with,
};
use crate::harness::scripted::Delta;
use crate::harness::{Http1, Kind, Origin, Proxy, Script, delta, eventually, get, nack_of};
use crate::xds_world::World;

/// Checks ten times a second whose first other result counts. Never a panic, so that a host that is
/// out is seen to be.
fn checking(checker: Value) -> Value {
    let base = json!({ "timeout": "1s", "interval": "0.1s", "no_traffic_interval": "0.1s",
        "unhealthy_threshold": 1, "healthy_threshold": 1 });
    json!({
        "health_checks": [with(base, checker)],
        "common_lb_config": { "healthy_panic_threshold": { "value": 0.0 } },
    })
}

fn by_path(path: &str) -> Value {
    json!({ "http_health_check": { "path": path } })
}

async fn serve(cluster: Value) -> (Proxy, SocketAddr) {
    let proxy = Proxy::with(bootstrap(&[listener("in", &[to("one")])], &[cluster])).await;
    let address = proxy.listener("in").await;
    (proxy, address)
}

#[tokio::test]
async fn an_ill_origin_never_gets_a_request_until_a_check_passes() {
    let (well, ill) = (Origin::http1("well").await, Origin::http1("ill").await);
    ill.script(Script::status(503));
    let checks = json!({ "http_health_check": { "path": "/healthz?full", "host": "checked.test",
        "request_headers_to_add": [{ "header": { "key": "x-check", "value": "1" } }] } });
    let cluster = with(static_cluster("one", &[well.address, ill.address]), checking(checks));
    let (proxy, address) = serve(cluster).await;
    for _ in 0..10 {
        assert_eq!(get(address, "/").await.text(), "well");
    }
    let asked = ill.last();
    assert_eq!(asked.uri, "/healthz?full");
    assert_eq!(asked.headers["host"], "checked.test");
    assert_eq!(asked.headers["x-check"], "1");
    assert_eq!(asked.headers["user-agent"], "nuncio/HC");
    let shown = proxy.admin_text("/clusters").await;
    assert!(shown.contains(&format!("one::{}::health_flags::/failed_active_hc\n", ill.address)));
    assert!(shown.contains(&format!("one::{}::health_flags::healthy\n", well.address)));
    assert_eq!(proxy.stat("cluster.one.health_check.healthy").await, 1);
    assert_eq!(proxy.stat("cluster.one.membership_healthy").await, 1);

    ill.script(Script::default());
    eventually("the origin is well", async || {
        (get(address, "/").await.text() == "ill").then_some(())
    })
    .await;
    assert_eq!(proxy.stat("cluster.one.health_check.healthy").await, 2);
    let attempts = proxy.stat("cluster.one.health_check.attempt").await;
    assert!(attempts >= proxy.stat("cluster.one.health_check.success").await);
}

#[tokio::test]
async fn an_origin_that_hangs_is_out_after_its_timeout_and_one_that_is_degraded_is_last() {
    let (well, weak) = (Origin::http1("well").await, Origin::http1("weak").await);
    weak.script(Script::default().header("x-envoy-degraded", "1"));
    let checks = with(by_path("/"), json!({ "timeout": "0.2s" }));
    let cluster = with(static_cluster("one", &[well.address, weak.address]), checking(checks));
    let (proxy, address) = serve(cluster).await;
    let flag = |of: &Origin, flags: &str| format!("{}::health_flags::{flags}\n", of.address);
    let shown = proxy.admin_text("/clusters").await;
    assert!(shown.contains(&flag(&weak, "/degraded_active_hc")), "{shown}");
    assert_eq!(proxy.stat("cluster.one.health_check.degraded").await, 1);
    well.script(Script::held());
    eventually("the one that hangs is out", async || {
        let shown = proxy.admin_text("/clusters").await;
        shown.contains(&flag(&well, "/failed_active_hc/active_hc_timeout")).then_some(())
    })
    .await;
    for _ in 0..10 {
        assert_eq!(get(address, "/").await.text(), "weak");
    }
    assert!(proxy.stat("cluster.one.health_check.network_failure").await >= 1);
}

#[tokio::test]
async fn an_origin_that_is_killed_is_out_after_one_check_and_the_last_one_leaves_503() {
    let (stays, dies) = (Origin::http1("stays").await, Origin::http1("dies").await);
    let checks = checking(json!({ "tcp_health_check": {} }));
    let cluster = with(static_cluster("one", &[stays.address, dies.address]), checks);
    let (proxy, address) = serve(cluster).await;
    proxy.until_stat("cluster.one.membership_healthy", 2).await;
    drop(dies);
    proxy.until_stat("cluster.one.membership_healthy", 1).await;
    for _ in 0..10 {
        assert_eq!(get(address, "/").await.text(), "stays");
    }
    drop(stays);
    proxy.until_stat("cluster.one.membership_healthy", 0).await;
    let answer = get(address, "/").await;
    assert_eq!((answer.status, answer.text().as_str()), (503, "no healthy upstream"));
}

#[tokio::test]
async fn an_origin_must_answer_a_payload_with_another() {
    let ill = Arc::new(AtomicBool::new(false));
    let service = ping_pong(Arc::clone(&ill)).await;
    let payload = json!({ "send": { "text": "50494e47" }, "receive": [{ "text": "504f4e47" }] });
    let checks = checking(json!({ "tcp_health_check": payload, "timeout": "0.3s" }));
    let (proxy, _address) = serve(with(static_cluster("one", &[service]), checks)).await;
    proxy.until_stat("cluster.one.membership_healthy", 1).await;
    ill.store(true, Ordering::Relaxed);
    proxy.until_stat("cluster.one.membership_healthy", 0).await;
    ill.store(false, Ordering::Relaxed);
    proxy.until_stat("cluster.one.membership_healthy", 1).await;
}

/// Answers `PING` with `PONG`, and while it is ill with something else.
async fn ping_pong(ill: Arc<AtomicBool>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = [0; 4];
            stream.read_exact(&mut asked).await.unwrap();
            assert_eq!(&asked, b"PING");
            let answer = if ill.load(Ordering::Relaxed) { b"POOR" } else { b"PONG" };
            // Whoever asked may have left.
            let _ = stream.write_all(answer).await;
        }
    });
    address
}

#[tokio::test]
async fn an_origin_of_another_cluster_is_found_out() {
    let (mine, other) = (Origin::http1("mine").await, Origin::http1("other").await);
    mine.script(Script::default().header("x-envoy-upstream-healthchecked-cluster", "shop-1"));
    other.script(Script::default().header("x-envoy-upstream-healthchecked-cluster", "bank-1"));
    let checks = json!({ "http_health_check": { "path": "/",
        "service_name_matcher": { "prefix": "shop" } } });
    let cluster = with(static_cluster("one", &[mine.address, other.address]), checking(checks));
    let (proxy, address) = serve(cluster).await;
    for _ in 0..10 {
        assert_eq!(get(address, "/").await.text(), "mine");
    }
    assert!(proxy.stat("cluster.one.health_check.verify_cluster").await >= 1);
}

#[tokio::test]
async fn an_origin_is_asked_over_http2_and_over_grpc() {
    let serving = Arc::new(AtomicU8::new(1));
    let service = grpc_health(Arc::clone(&serving)).await;
    let other = Origin::http2("other").await;
    let http2 = json!({ "http_health_check": { "path": "/", "codec_client_type": "HTTP2" } });
    let grpc = json!({ "grpc_health_check": { "service_name": "shop" } });
    let clusters = [
        with(over_http2(static_cluster("one", &[service])), checking(grpc)),
        with(over_http2(static_cluster("two", &[other.address])), checking(http2)),
    ];
    let proxy = Proxy::with(bootstrap(&[listener("in", &[to("one")])], &clusters)).await;
    proxy.until_stat("cluster.one.membership_healthy", 1).await;
    proxy.until_stat("cluster.two.membership_healthy", 1).await;
    // NOT_SERVING
    serving.store(2, Ordering::Relaxed);
    proxy.until_stat("cluster.one.membership_healthy", 0).await;
    serving.store(1, Ordering::Relaxed);
    proxy.until_stat("cluster.one.membership_healthy", 1).await;
}

/// `grpc.health.v1.Health` for one service, `shop`, whose status is said by a number.
async fn grpc_health(status: Arc<AtomicU8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let status = Arc::clone(&status);
            let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let status = status.load(Ordering::Relaxed);
                async move {
                    assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                    let asked = request.into_body().collect().await.unwrap().to_bytes();
                    assert_eq!(&asked[..], b"\0\0\0\0\x06\x0a\x04shop");
                    let trailers = HeaderMap::from_iter([(
                        "grpc-status".parse().unwrap(),
                        HeaderValue::from(0),
                    )]);
                    let body = Full::new(Bytes::from(vec![0, 0, 0, 0, 2, 8, status]));
                    let body = body.with_trailers(async move { Some(Ok(trailers)) });
                    Ok::<_, Infallible>(Response::new(body))
                }
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

#[tokio::test]
async fn a_new_cluster_waits_for_its_checks_and_a_changed_one_keeps_what_they_said() {
    let mut world = World::delta().await;
    let (well, ill) = (Origin::http1("well").await, Origin::http1("ill").await);
    well.script(Script::held());
    ill.script(Script::status(500));
    let hosts = assignment("two", &[well.address, ill.address]);
    let push = async |world: &mut World<Delta>, version: &str, fields: Value| {
        world.push(Kind::Cluster, version, &[with(eds_cluster("two"), fields)], &[]).await;
        world.push(Kind::Endpoints, version, std::slice::from_ref(&hosts), &[]).await;
    };
    // The first check of one host has no answer yet: the cluster is not in service.
    let checks = with(by_path("/"), json!({ "timeout": "5s" }));
    push(&mut world, "2", checking(checks)).await;
    world.push(Kind::Routes, "2", &[table("table", &[to("two")])], &[]).await;
    world.until_status("/", 503).await;
    eventually("both were asked", async || {
        (well.requests() == 1 && ill.requests() >= 1).then_some(())
    })
    .await;
    assert_eq!(world.proxy.stat("cluster_manager.warming_clusters").await, 1);
    well.script(Script::default());
    well.release();
    world.until_answers("/", "well").await;
    assert_eq!(world.proxy.stat("cluster_manager.warming_clusters").await, 0);

    // Another check of the same hosts: what is known of them holds until it says otherwise.
    push(&mut world, "3", checking(by_path("/other"))).await;
    for _ in 0..10 {
        assert_eq!(get(world.address, "/").await.text(), "well");
    }
    // A host that comes is not used before it was asked.
    let late = Origin::http1("late").await;
    let three = assignment("two", &[well.address, ill.address, late.address]);
    world.push(Kind::Endpoints, "4", &[three], &[]).await;
    world.until_answers("/", "late").await;
    // Without checks all are taken to be well.
    push(&mut world, "5", json!({})).await;
    world.until_status("/", 500).await;
}

#[tokio::test]
async fn an_endpoint_says_where_it_is_checked_or_that_it_is_not() {
    let (served, sidecar) = (Origin::http1("served").await, Origin::http1("sidecar").await);
    let unchecked = Origin::http1("unchecked").await;
    served.script(Script::status(404));
    unchecked.script(Script::status(404));
    let endpoint = |of: &Origin, check: Value| {
        let address = json!({ "socket_address": { "address": "127.0.0.1",
            "port_value": of.address.port() } });
        json!({ "endpoint": { "address": address, "health_check_config": check } })
    };
    let endpoints = json!([
        endpoint(&served, json!({ "port_value": sidecar.address.port(), "hostname": "own.test" })),
        endpoint(&unchecked, json!({ "disable_active_health_check": true })),
    ]);
    let cluster = with(
        with(static_cluster("one", &[]), checking(by_path("/check"))),
        json!({ "load_assignment": { "cluster_name": "one",
            "endpoints": [{ "lb_endpoints": endpoints }] } }),
    );
    let (proxy, address) = serve(cluster).await;
    proxy.until_stat("cluster.one.membership_healthy", 2).await;
    assert_eq!(sidecar.last().headers["host"], "own.test");
    let mut client = Http1::connect(address).await;
    for _ in 0..4 {
        assert_eq!(client.get("/x").await.status, 404);
    }
    assert_eq!((served.requests(), unchecked.requests()), (2, 2));
}

#[tokio::test]
async fn a_check_that_makes_no_sense_is_refused_with_every_fault_named() {
    let mut world = World::delta().await;
    let checks = json!({ "health_checks": [{ "timeout": "0s", "interval": "1s",
        "healthy_threshold": 1, "http_health_check": { "path": "healthz",
        "expected_statuses": [{ "start": 300, "end": 200 }], "method": "CONNECT",
        "codec_client_type": "HTTP3" } }] });
    let cluster = with(static_cluster("bad", &[]), checks);
    world.stream.respond(delta(Kind::Cluster, "2", &[cluster], &[])).await;
    let (_, faults) = nack_of(&mut world.stream, Kind::Cluster, "2").await;
    for part in [
        "health_checks[0].timeout",
        "health_checks[0].unhealthy_threshold",
        "http_health_check.path",
        "expected_statuses[0]",
        "method",
        "codec_client_type",
    ] {
        assert!(faults.contains(part), "{part}: {faults}");
    }
    world.until_answers("/", "one").await;
}

#[tokio::test]
async fn what_checks_find_is_written_as_events() {
    let (well, ill) = (Origin::http1("well").await, Origin::http1("ill").await);
    ill.script(Script::status(500));
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (dir.path().join("old.log"), dir.path().join("new.log"));
    let sink = json!({
        "@type": "type.googleapis.com/envoy.extensions.health_check.event_sinks.file.v3.\
                  HealthCheckEventFileSink",
        "event_log_path": new,
    });
    let logged = with(
        by_path("/"),
        json!({ "event_log_path": old, "event_logger": [{ "name": "file", "typed_config": sink }] }),
    );
    let cluster = with(static_cluster("one", &[well.address, ill.address]), checking(logged));
    let (proxy, _address) = serve(cluster).await;
    proxy.until_stat("cluster.one.health_check.healthy", 1).await;
    ill.script(Script::default());
    proxy.until_stat("cluster.one.health_check.healthy", 2).await;
    for file in [&old, &new] {
        let lines = eventually("three events are written", async || {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            let lines: Vec<Value> =
                text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
            let edges = |name: &str| lines.iter().filter(|line| !line[name].is_null()).count();
            let told = (edges("add_healthy_event"), edges("eject_unhealthy_event"));
            (told == (2, 1)).then_some(lines)
        })
        .await;
        let ejected = lines.iter().find(|line| !line["eject_unhealthy_event"].is_null()).unwrap();
        assert_eq!(ejected["eject_unhealthy_event"]["failure_type"], "ACTIVE");
        assert_eq!(ejected["cluster_name"], "one");
        assert_eq!(ejected["host"]["socket_address"]["port_value"], ill.address.port());
    }
}

#[tokio::test]
async fn a_host_that_is_to_be_checked_after_all_is() {
    let mut world = World::delta().await;
    let (well, ill) = (Origin::http1("well").await, Origin::http1("ill").await);
    ill.script(Script::status(500));
    let hosts = |disabled: bool| {
        let endpoint = |of: &Origin| {
            let address = json!({ "socket_address": { "address": "127.0.0.1",
                "port_value": of.address.port() } });
            json!({ "endpoint": { "address": address,
                "health_check_config": { "disable_active_health_check": disabled } } })
        };
        json!({ "cluster_name": "two",
            "endpoints": [{ "lb_endpoints": [endpoint(&well), endpoint(&ill)] }] })
    };
    let cluster = with(eds_cluster("two"), checking(by_path("/")));
    world.push(Kind::Cluster, "2", &[cluster], &[]).await;
    world.push(Kind::Endpoints, "2", &[hosts(true)], &[]).await;
    world.push(Kind::Routes, "2", &[table("table", &[to("two")])], &[]).await;
    world.until_status("/", 500).await;
    world.push(Kind::Endpoints, "3", &[hosts(false)], &[]).await;
    world.proxy.until_stat("cluster.two.membership_healthy", 1).await;
    for _ in 0..6 {
        assert_eq!(get(world.address, "/").await.text(), "well");
    }
}
