//! Circuit breakers: what is refused when too much is under way, and what is said about it.

use serde_json::{Value, json};

use crate::harness::resources::{bootstrap, listener, over_http2, route, static_cluster, with};
use crate::harness::{Origin, Proxy, ProxyBuilder, Script, get};

async fn limited(origin: &Origin, thresholds: Value, route: Value) -> Proxy {
    let limits = json!({ "circuit_breakers": { "thresholds": [thresholds] } });
    let cluster = with(static_cluster("one", &[origin.address]), limits);
    Proxy::with(bootstrap(&[listener("in", &[route])], &[cluster])).await
}

#[tokio::test]
async fn one_request_too_many_is_refused_and_what_is_left_is_shown() {
    let origin = Origin::http1("one").await;
    origin.script(Script::held());
    let limits = json!({ "max_requests": 1, "track_remaining": true });
    let proxy = limited(&origin, limits, route("/", json!({ "cluster": "one" }))).await;
    let address = proxy.listener("in").await;
    let remaining = "cluster.one.circuit_breakers.default.remaining_rq";
    proxy.until_stat(remaining, 1).await;
    let first = tokio::spawn(async move { get(address, "/").await });
    origin.until_active(1).await;
    assert_eq!(proxy.stat(remaining).await, 0);
    assert_eq!(proxy.stat("cluster.one.circuit_breakers.default.rq_open").await, 1);
    let refused = get(address, "/").await;
    assert_eq!((refused.status, refused.header("x-envoy-overloaded")), (503, "true"));
    origin.release();
    assert_eq!(first.await.unwrap().status, 200);
    proxy.until_stat(remaining, 1).await;
    origin.script(Script::default());
    assert_eq!((get(address, "/").await.status, origin.requests()), (200, 2));
}

#[tokio::test]
async fn a_storm_of_retries_is_bounded_by_the_budget() {
    let origin = Origin::http1("one").await;
    origin.script(Script::status(503).header("retry-after", "2"));
    let budget = json!({ "budget_percent": { "value": 0.0 }, "min_retry_concurrency": 1 });
    let policy = json!({
        "retry_on": "5xx", "num_retries": 5,
        "rate_limited_retry_back_off": { "reset_headers": [{ "name": "retry-after" }] },
    });
    let route = route("/", json!({ "cluster": "one", "retry_policy": policy }));
    let proxy = limited(&origin, json!({ "retry_budget": budget }), route).await;
    let address = proxy.listener("in").await;
    let first = tokio::spawn(async move { get(address, "/").await });
    proxy.until_stat("cluster.one.upstream_rq_retry", 1).await;
    for _ in 0..8 {
        let answer = get(address, "/").await;
        // The origin's own answer: the proxy only did not ask again.
        assert_eq!((answer.status, answer.header("x-envoy-overloaded")), (503, ""));
    }
    assert_eq!(proxy.stat("cluster.one.upstream_rq_retry_overflow").await, 8);
    assert_eq!(proxy.stat("cluster.one.circuit_breakers.default.rq_retry_open").await, 1);
    assert_eq!(origin.requests(), 9);
    origin.script(Script::default());
    assert_eq!(first.await.unwrap().status, 200);
    proxy.until_stat("cluster.one.circuit_breakers.default.rq_retry_open", 0).await;
}

/// Four workers before these origins.
async fn four_workers(origins: &[&Origin], fields: Value) -> (Proxy, std::net::SocketAddr) {
    let addresses: Vec<_> = origins.iter().map(|origin| origin.address).collect();
    let cluster = with(static_cluster("one", &addresses), fields);
    let route = route("/", json!({ "cluster": "one" }));
    let proxy = ProxyBuilder::new(bootstrap(&[listener("in", &[route])], &[cluster]))
        .args(["--concurrency", "4"])
        .ready()
        .await;
    let address = proxy.listener("in").await;
    (proxy, address)
}

/// So many clients ask so often, each on a connection of its own every time, so that every worker is
/// asked. Meanwhile there are never more connections than `most`. (An origin learns of the end of one
/// too late to count them.)
async fn crowd(proxy: &Proxy, address: std::net::SocketAddr, most: u64) {
    let asking = futures_util::future::join_all((0..16).map(|_| async move {
        for _ in 0..25 {
            assert_eq!(get(address, "/").await.status, 200);
        }
    }));
    let mut asking = std::pin::pin!(asking);
    loop {
        tokio::select! {
            _ = &mut asking => return,
            open = proxy.stat("cluster.one.upstream_cx_active") => {
                assert!(open <= most, "{open} connections");
            }
        }
    }
}

#[tokio::test]
async fn one_connection_serves_four_workers_over_http1_and_http2() {
    for http2 in [false, true] {
        let origin = match http2 {
            false => Origin::http1("one").await,
            true => Origin::http2("one").await,
        };
        let mut limits =
            json!({ "circuit_breakers": { "thresholds": [{ "max_connections": 1 }] } });
        if http2 {
            limits = with(over_http2(json!({})), limits);
        }
        let (proxy, address) = four_workers(&[&origin], limits).await;
        crowd(&proxy, address, 1).await;
        proxy.until_stat("cluster.one.upstream_rq_pending_active", 0).await;
    }
}

#[tokio::test]
async fn a_host_has_a_limit_of_its_own_and_idle_connections_make_room_for_others() {
    let (a, b) = (Origin::http1("a").await, Origin::http1("b").await);
    let per_host =
        json!({ "circuit_breakers": { "per_host_thresholds": [{ "max_connections": 1 }] } });
    let (proxy, address) = four_workers(&[&a, &b], per_host).await;
    crowd(&proxy, address, 2).await;
    assert!(a.requests() > 50 && b.requests() > 50);
    // One for both: each request to the other host closes what is idle.
    let shared = json!({ "circuit_breakers": { "thresholds": [{ "max_connections": 1 }] } });
    let (_proxy, address) = four_workers(&[&a, &b], shared).await;
    let before = (a.requests(), b.requests());
    for _ in 0..20 {
        assert_eq!(get(address, "/").await.status, 200);
    }
    assert!(a.requests() > before.0 && b.requests() > before.1);
}

#[tokio::test]
async fn no_connection_and_no_pool_mean_503_at_once() {
    let (a, b) = (Origin::http1("a").await, Origin::http1("b").await);
    let none = json!({ "max_connections": 0 });
    let proxy = limited(&a, none, route("/", json!({ "cluster": "one" }))).await;
    let answer = get(proxy.listener("in").await, "/").await;
    assert_eq!((answer.status, answer.header("x-envoy-overloaded")), (503, "true"));
    // One pool of one worker: an unused one is given up, one in use is not.
    let limits = json!({ "circuit_breakers": { "thresholds": [{ "max_connection_pools": 1 }] } });
    let cluster = with(static_cluster("one", &[a.address, b.address]), limits);
    let route = route("/", json!({ "cluster": "one" }));
    let proxy = ProxyBuilder::new(bootstrap(&[listener("in", &[route])], &[cluster]))
        .args(["--concurrency", "1"])
        .ready()
        .await;
    let address = proxy.listener("in").await;
    let first = get(address, "/").await.text();
    assert_ne!(get(address, "/").await.text(), first);
    a.script(Script::held());
    b.script(Script::held());
    let held = tokio::spawn(async move { get(address, "/").await.status });
    let active = if first == "a" { &a } else { &b };
    active.until_active(1).await;
    assert_eq!(get(address, "/").await.status, 503);
    assert_eq!(proxy.stat("cluster.one.upstream_cx_pool_overflow").await, 1);
    assert_eq!(proxy.stat("cluster.one.circuit_breakers.default.cx_pool_open").await, 1);
    active.release();
    assert_eq!(held.await.unwrap(), 200);
}

#[tokio::test]
async fn a_retry_that_is_over_makes_room_for_the_next_one() {
    let origin = Origin::http1("one").await;
    origin.script(Script::status(503));
    let policy = json!({ "retry_on": "5xx", "num_retries": 3,
        "retry_back_off": { "base_interval": "0.001s" } });
    let route = route("/", json!({ "cluster": "one", "retry_policy": policy }));
    let proxy = limited(&origin, json!({ "max_retries": 1 }), route).await;
    assert_eq!(get(proxy.listener("in").await, "/").await.status, 503);
    assert_eq!(origin.requests(), 4);
    assert_eq!(proxy.stat("cluster.one.upstream_rq_retry_overflow").await, 0);
}
