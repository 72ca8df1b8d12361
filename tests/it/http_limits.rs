//! Timers and limits of connections and requests.

use serde_json::{Value, json};

use crate::harness::resources::{
    bootstrap, filter, hcm, listener_of, route, static_cluster, table, to, with,
};
use crate::harness::{Http1, Http2, Origin, Proxy, Script, eventually, get};
use crate::http_h1::in_front_of;

/// A proxy of everything to one origin, with these options of the connection manager.
async fn with_options(origin: &Origin, options: Value) -> Proxy {
    let manager = hcm(json!({ "route_config": table("local", &[to("one")]) }), options);
    let cluster = static_cluster("one", &[origin.address]);
    Proxy::with(bootstrap(&[listener_of("in", manager)], &[cluster])).await
}

#[tokio::test]
async fn a_head_that_does_not_end_is_not_waited_for() {
    let origin = Origin::http1("one").await;
    let proxy = with_options(&origin, json!({ "request_headers_timeout": "0.2s" })).await;
    let address = proxy.listener("in").await;
    let mut slow = Http1::connect(address).await;
    slow.send("GET / HTTP/1.1\r\nhost: t\r\nx: ").await;
    let answer = slow.try_answer("GET").await;
    let answer = answer.unwrap();
    assert_eq!((answer.status, answer.header("connection")), (408, "close"));
    assert_eq!(proxy.stat("http.in.downstream_rq_header_timeout").await, 1);
    proxy.until_stat("http.in.downstream_cx_active", 0).await;
    // Half a preface is half a head.
    let mut slow = Http1::connect(address).await;
    slow.send("GET / HTT").await;
    slow.rest().await;
    assert_eq!(get(address, "/").await.status, 200);
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    let origin = Origin::http1("one").await;
    let idle = json!({
        "common_http_protocol_options": { "idle_timeout": "0.2s" }, "drain_timeout": "0.1s",
    });
    let proxy = with_options(&origin, idle).await;
    let address = proxy.listener("in").await;
    let (mut h1, mut h2) = (Http1::connect(address).await, Http2::connect(address).await);
    assert_eq!((h1.get("/").await.status, h2.get("/").await.status), (200, 200));
    let mut busy = Http1::connect(address).await;
    origin.script(Script::held());
    busy.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
    h1.closed().await;
    proxy.until_stat("http.in.downstream_cx_idle_timeout", 2).await;
    proxy.until_stat("http.in.downstream_cx_active", 1).await;
    origin.release();
    assert_eq!(busy.answer().await.status, 200);
}

#[tokio::test]
async fn a_stream_on_which_nothing_moves_ends() {
    let origin = Origin::http1("one").await;
    let proxy = with_options(&origin, json!({ "stream_idle_timeout": "0.3s" })).await;
    let address = proxy.listener("in").await;
    origin.script(Script::held());
    let answer = get(address, "/").await;
    assert_eq!((answer.status, answer.text().as_str()), (504, "stream timeout"));
    // After the head it can only be cut.
    origin.script(Script { held_after: Some(100), ..Script::size(1000) });
    let mut client = Http1::connect(address).await;
    client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
    assert_eq!(client.head().await.unwrap().0, 200);
    assert!(client.rest().await.len() < 1000);
    proxy.until_stat("http.in.downstream_rq_idle_timeout", 2).await;
    proxy.until_stat("cluster.one.upstream_rq_active", 0).await;
    origin.until_active(0).await;
}

#[tokio::test]
async fn a_connection_lives_and_serves_no_more_than_allowed() {
    let origin = Origin::http1("one").await;
    let most = json!({ "common_http_protocol_options": { "max_requests_per_connection": 3 } });
    let proxy = with_options(&origin, most).await;
    let mut client = Http1::connect(proxy.listener("in").await).await;
    for last in [false, false, true] {
        let answer = client.get("/").await;
        assert_eq!(answer.header("connection") == "close", last);
    }
    client.closed().await;
    proxy.until_stat("http.in.downstream_cx_max_requests_reached", 1).await;

    let short = json!({
        "common_http_protocol_options": { "max_connection_duration": "0.3s" },
        "drain_timeout": "0.1s",
    });
    let proxy = with_options(&origin, short).await;
    let mut client = Http1::connect(proxy.listener("in").await).await;
    while client.try_get("/").await.is_some() {}
    proxy.until_stat("http.in.downstream_cx_max_duration_reached", 1).await;
}

#[tokio::test]
async fn timeouts_of_routes_start_when_the_request_is_whole() {
    let origin = Origin::http1("one").await;
    let routes = [
        route("/short", json!({ "cluster": "one", "timeout": "0.3s" })),
        route("/never", json!({ "cluster": "one", "timeout": "0s" })),
    ];
    let manager = hcm(json!({ "route_config": table("local", &routes) }), json!({}));
    let cluster = static_cluster("one", &[origin.address]);
    let proxy = Proxy::with(bootstrap(&[listener_of("in", manager)], &[cluster])).await;
    let address = proxy.listener("in").await;
    origin.script(Script::held());
    let start = tokio::time::Instant::now();
    assert_eq!(get(address, "/short").await.status, 504);
    assert!(start.elapsed() >= std::time::Duration::from_millis(300));
    origin.until_active(0).await;
    let waiting = tokio::spawn(async move { get(address, "/never").await.status });
    origin.until_active(1).await;
    proxy.until_stat("cluster.one.upstream_rq_timeout", 1).await;
    origin.release();
    assert_eq!(waiting.await.unwrap(), 200);
    // An answer that takes too long after its head is cut.
    origin.script(Script { held_after: Some(10), ..Script::size(1000) });
    let mut client = Http1::connect(address).await;
    client.send("GET /short HTTP/1.1\r\nhost: t\r\n\r\n").await;
    assert_eq!(client.head().await.unwrap().0, 200);
    assert!(client.rest().await.len() < 1000);
    origin.until_active(0).await;
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_at_once() {
    let origin = Origin::http1("one").await;
    let manager = hcm(json!({ "route_config": table("local", &[to("one")]) }), json!({}));
    let mut listener = listener_of("in", manager);
    let limit = filter(
        "limit",
        "envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit",
        json!({ "stat_prefix": "limit", "max_connections": 2 }),
    );
    listener["filter_chains"][0]["filters"].as_array_mut().unwrap().insert(0, limit);
    let cluster = static_cluster("one", &[origin.address]);
    let proxy = Proxy::with(bootstrap(&[listener], &[cluster])).await;
    let address = proxy.listener("in").await;
    let (mut a, mut b) = (Http1::connect(address).await, Http1::connect(address).await);
    assert_eq!((a.get("/").await.status, b.get("/").await.status), (200, 200));
    let mut third = Http1::connect(address).await;
    assert!(third.try_get("/").await.is_none());
    drop(a);
    eventually("there is room again", async || {
        Http1::connect(address).await.try_get("/").await.map(drop)
    })
    .await;
    assert_eq!(b.get("/").await.status, 200);
}

#[tokio::test]
async fn requests_that_could_be_read_in_two_ways_are_not_served() {
    let origin = Origin::http1("one").await;
    let proxy = in_front_of(&origin).await;
    let address = proxy.listener("in").await;
    let cases = [
        "POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: gzip\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: t\r\ncontent-length: -1\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 99999999999999999999\r\n\r\n",
        "CONNECT t:80 HTTP/1.1\r\nhost: t\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a b\r\n\r\n",
        " GET / HTTP/1.1\r\nhost: t\r\n\r\n",
        "GET / HTTP/1.1\r\n host: t\r\n\r\n",
    ];
    for case in cases {
        let mut client = Http1::connect(address).await;
        client.send(case).await;
        client.finish().await;
        let status = client.try_answer("GET").await.map(|answer| answer.status);
        assert!(status.is_none_or(|status| status >= 400), "{case:?}: {status:?}");
    }
    // Both lengths at once: if it is served, what follows must not become a second request.
    let mut client = Http1::connect(address).await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nhost: t\r\n\r\n";
    let both = format!(
        "POST /both HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}",
        5 + smuggled.len(),
    );
    client.send(&both).await;
    client.try_answer("POST").await;
    if origin.requests() > 0 {
        assert!(
            !origin.last().headers.contains_key("content-length") || origin.last().uri != "/both"
        );
    }
    assert_eq!(get(address, "/").await.status, 200);
    proxy.until_stat("http.in.downstream_rq_active", 0).await;
}

#[tokio::test]
async fn many_streams_of_one_client_wait_for_their_turn() {
    let origin = Origin::http1("one").await;
    let few = json!({ "http2_protocol_options": { "max_concurrent_streams": 4 } });
    let proxy = with_options(&origin, few).await;
    let mut client = Http2::connect(proxy.listener("in").await).await;
    assert_eq!(client.get("/").await.status, 200);
    origin.script(Script::held());
    let requests: Vec<_> = (0..12)
        .map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move { client.get("/").await.status })
        })
        .collect();
    origin.until_active(4).await;
    assert_eq!(proxy.stat("http.in.downstream_rq_active").await, 4);
    origin.script(Script::default());
    origin.release();
    for status in requests {
        assert_eq!(status.await.unwrap(), 200);
    }
}

#[tokio::test]
async fn connections_to_a_host_are_limited_and_requests_wait_for_them() {
    let origin = Origin::http1("one").await;
    origin.script(Script::held());
    let thresholds = json!({ "circuit_breakers": { "thresholds": [
        { "max_connections": 1, "max_pending_requests": 1 }] } });
    let cluster = with(static_cluster("one", &[origin.address]), thresholds);
    let manager = hcm(json!({ "route_config": table("local", &[to("one")]) }), json!({}));
    let config = bootstrap(&[listener_of("in", manager)], &[cluster]);
    let proxy =
        crate::harness::ProxyBuilder::new(config).args(["--concurrency", "1"]).ready().await;
    let address = proxy.listener("in").await;
    let ask = || tokio::spawn(async move { get(address, "/").await.status });
    let first = ask();
    origin.until_active(1).await;
    let second = ask();
    proxy.until_stat("cluster.one.upstream_rq_pending_active", 1).await;
    let third = get(address, "/").await;
    assert_eq!((third.status, third.header("x-envoy-overloaded")), (503, "true"));
    assert_eq!(proxy.stat("cluster.one.upstream_rq_pending_overflow").await, 1);
    origin.script(Script::default());
    origin.release();
    assert_eq!((first.await.unwrap(), second.await.unwrap()), (200, 200));
    assert_eq!(origin.connections(), 1);
}
