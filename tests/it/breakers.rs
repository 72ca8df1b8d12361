//! Circuit breakers: what is refused when too much is under way, and what is said about it.

use serde_json::{Value, json};

use crate::harness::resources::{bootstrap, listener, route, static_cluster, with};
use crate::harness::{Origin, Proxy, Script, get};

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
