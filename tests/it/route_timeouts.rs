//! How long a request may take by its route, by the connection manager, and by what it says itself.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::harness::resources::{
    bootstrap, filter, from_within, hcm, listener, listener_of, over_http2, route, static_cluster,
    table, to, with,
};
use crate::harness::{Http1, Http2, Origin, Proxy, Script, get, request};

async fn in_front_of(origin: &Origin, routes: &[Value]) -> Proxy {
    let cluster = static_cluster("one", &[origin.address]);
    let manager = hcm(json!({ "route_config": table("local", routes) }), from_within());
    Proxy::with(bootstrap(&[listener_of("in", manager)], &[cluster])).await
}

fn long(most: &str) -> Value {
    json!({ "cluster": "one", "max_stream_duration": { "max_stream_duration": most } })
}

#[tokio::test]
async fn a_stream_that_lives_too_long_is_ended() {
    let origin = Origin::http1("one").await;
    let routes = table(
        "t",
        &[
            route("/own", long("0.2s")),
            route("/endless", with(long("0s"), json!({ "timeout": "0.1s" }))),
            to("one"),
        ],
    );
    let limit = json!({ "common_http_protocol_options": { "max_stream_duration": "0.3s" } });
    let manager = hcm(json!({ "route_config": routes }), limit);
    let cluster = static_cluster("one", &[origin.address]);
    let proxy = Proxy::with(bootstrap(&[listener_of("in", manager)], &[cluster])).await;
    let address = proxy.listener("in").await;
    origin.script(Script::held());
    for (path, count) in [("/own", 1), ("/", 2)] {
        let answer = get(address, path).await;
        assert_eq!(
            (answer.status, &*answer.text()),
            (504, "downstream duration timeout"),
            "{path}"
        );
        proxy.until_stat("http.in.downstream_rq_max_duration_reached", count).await;
    }
    // Neither the route's timeout nor the manager's limit counts where the route has one of its own.
    let endless = tokio::spawn(async move { get(address, "/endless").await });
    origin.until_active(1).await;
    get(address, "/own").await;
    get(address, "/own").await;
    origin.release();
    assert_eq!(endless.await.unwrap().status, 200);
    // A request that does not come to its end.
    origin.script(Script::default());
    let mut client = Http1::connect(address).await;
    client.send("POST /own HTTP/1.1\r\nhost: test\r\ncontent-length: 10\r\n\r\nhalf!").await;
    assert_eq!(client.answer().await.status, 408);
    // A response that does not either.
    origin.script(Script { size: Some(1000), held_after: Some(10), ..Script::default() });
    let mut client = Http1::connect(address).await;
    client.send("GET /own HTTP/1.1\r\nhost: test\r\n\r\n").await;
    assert_eq!(client.head().await.unwrap().0, 200);
    assert!(client.rest().await.len() < 1000);
    proxy.until_stat("http.in.downstream_rq_max_duration_reached", 6).await;
}

#[tokio::test]
async fn a_client_of_grpc_says_how_long_it_waits() {
    let origin = Origin::http2("one").await;
    origin.script(Script::held());
    let routes = [
        route(
            "/new/",
            json!({ "cluster": "one", "max_stream_duration": { "grpc_timeout_header_max": "0.4s" } }),
        ),
        route("/old/", json!({ "cluster": "one", "max_grpc_timeout": "0.4s" })),
    ];
    let cluster = over_http2(static_cluster("one", &[origin.address]));
    let proxy = Proxy::with(bootstrap(&[listener("in", &routes)], &[cluster])).await;
    let mut client = Http2::connect(proxy.listener("in").await).await;
    let cases = [
        ("/new/m", Some("200m"), "4", "200m"),
        ("/new/m", Some("60S"), "4", "400m"),
        ("/old/m", Some("200m"), "14", "200m"),
        ("/old/m", None, "14", "400m"),
    ];
    for (path, timeout, status, told) in cases {
        let mut call = http::Request::post(format!("http://test{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        if let Some(timeout) = timeout {
            call = call.header("grpc-timeout", timeout);
        }
        let answer = client.send(call.body(Bytes::new()).unwrap()).await;
        assert_eq!((answer.status, answer.header("grpc-status")), (200, status), "{path}");
        assert_eq!(origin.last().headers["grpc-timeout"], told, "{path}");
    }
    proxy.until_stat("http.in.downstream_rq_max_duration_reached", 2).await;
    proxy.until_stat("cluster.one.upstream_rq_timeout", 2).await;
}

#[tokio::test]
async fn the_proxy_before_may_say_how_long() {
    let origin = Origin::http1("one").await;
    origin.script(Script::held());
    let respectful = filter(
        "router",
        "envoy.extensions.filters.http.router.v3.Router",
        json!({ "respect_expected_rq_timeout": true }),
    );
    let routes = || json!({ "route_config": table("t", &[to("one")]) });
    let listeners = [
        listener_of(
            "respects",
            hcm(routes(), with(from_within(), json!({ "http_filters": [respectful] }))),
        ),
        listener_of("sets", hcm(routes(), from_within())),
    ];
    let cluster = static_cluster("one", &[origin.address]);
    let proxy = Proxy::with(bootstrap(&listeners, &[cluster])).await;
    let expected = [("x-envoy-expected-rq-timeout-ms", "150")];
    let respects = proxy.listener("respects").await;
    assert_eq!(request(respects, "GET", "/", &expected, b"").await.status, 504);
    assert_eq!(origin.last().headers["x-envoy-expected-rq-timeout-ms"], "150");
    let sets = proxy.listener("sets").await;
    let answer = tokio::spawn(async move { request(sets, "GET", "/", &expected, b"").await });
    origin.until_active(1).await;
    assert_eq!(origin.last().headers["x-envoy-expected-rq-timeout-ms"], "15000");
    origin.release();
    assert_eq!(answer.await.unwrap().status, 200);
}

#[tokio::test]
async fn a_timeout_may_be_told_by_no_content() {
    let origin = Origin::http1("one").await;
    origin.script(Script::held());
    let proxy = in_front_of(&origin, &[to("one")]).await;
    let asking = [
        ("x-envoy-upstream-rq-timeout-ms", "100"),
        ("x-envoy-upstream-rq-timeout-alt-response", "1"),
    ];
    let answer = request(proxy.listener("in").await, "GET", "/", &asking, b"").await;
    assert_eq!((answer.status, answer.text()), (204, String::new()));
    assert!(!origin.last().headers.keys().any(|name| name.as_str().contains("alt-response")));
    assert_eq!(proxy.stat("cluster.one.upstream_rq_timeout").await, 1);
}
