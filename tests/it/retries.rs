//! Requests that are tried again: when, where, with which body, and when not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::harness::resources::{assignment, dynamic_sotw};
use crate::harness::resources::{
    bootstrap, eds_cluster, from_within, hcm, listener, listener_of, route, static_cluster, table,
    with,
};
use crate::harness::{Ending, Http1, Kind, Origin, Plane, Proxy, Script, get, request};

/// A route of everything to `one`, under this policy.
fn retrying(policy: Value) -> Value {
    route("/", json!({ "cluster": "one", "retry_policy": with(quick(), policy) }))
}

fn quick() -> Value {
    json!({ "retry_back_off": { "base_interval": "0.001s" } })
}

/// Retries stay away from where they were.
fn elsewhere() -> Value {
    let kind = "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.\
                PreviousHostsPredicate";
    json!({
        "retry_host_predicate": [{ "name": "previous", "typed_config": { "@type": kind } }],
        "host_selection_retry_max_attempts": 10,
    })
}

/// Waits exactly as long as the origin asks for, and at most half of that more.
fn when_told() -> Value {
    json!({
        "retry_on": "5xx",
        "rate_limited_retry_back_off": { "reset_headers": [{ "name": "retry-after" }] },
    })
}

async fn in_front_of(origins: &[&Origin], route: Value) -> Proxy {
    let addresses: Vec<_> = origins.iter().map(|origin| origin.address).collect();
    let cluster = static_cluster("one", &addresses);
    let manager = hcm(json!({ "route_config": table("local", &[route]) }), from_within());
    Proxy::with(bootstrap(&[listener_of("in", manager)], &[cluster])).await
}

#[tokio::test]
async fn a_body_is_sent_again_byte_for_byte() {
    let (bad, good) = (Origin::http1("bad").await, Origin::http1("good").await);
    good.script(Script::echo());
    let route = retrying(with(elsewhere(), json!({ "retry_on": "5xx,reset" })));
    let proxy = in_front_of(&[&bad, &good], route).await;
    let address = proxy.listener("in").await;
    let body: Vec<u8> =
        (0..300_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let scripts = [
        Script::status(503),
        Script { early: true, ..Script::status(503) },
        Script::ending(Ending::BeforeHead),
    ];
    for script in scripts {
        bad.script(script);
        for _ in 0..6 {
            let answer = request(address, "POST", "/", &[], &body).await;
            assert_eq!(answer.status, 200);
            assert!(answer.body == body, "the body changed on its way");
        }
    }
    assert!(bad.requests() > 0);
    assert_eq!(proxy.stat("cluster.one.upstream_rq_retry").await, bad.requests() as u64);
    assert_eq!(proxy.stat("cluster.one.upstream_rq_retry_success").await, bad.requests() as u64);
}

#[tokio::test]
async fn a_body_over_the_limit_is_sent_once() {
    let origin = Origin::http1("one").await;
    origin.script(Script::status(503));
    let limited = with(
        retrying(json!({ "retry_on": "5xx", "num_retries": 1 })),
        json!({ "request_body_buffer_limit": 1000 }),
    );
    let proxy = in_front_of(&[&origin], limited).await;
    let address = proxy.listener("in").await;
    assert_eq!(request(address, "POST", "/", &[], &[b'x'; 1001]).await.status, 503);
    assert_eq!((origin.requests(), origin.received()), (1, 1001));
    assert_eq!(request(address, "POST", "/", &[], &[b'x'; 1000]).await.status, 503);
    assert_eq!((origin.requests(), origin.received()), (3, 3001));
    assert_eq!(proxy.stat("cluster.one.upstream_rq_retry").await, 1);
}

#[tokio::test]
async fn every_try_is_numbered_and_the_last_failure_is_told() {
    let origin = Origin::http1("one").await;
    origin.script(Script::ending(Ending::BeforeHead));
    let table = json!({ "name": "t", "virtual_hosts": [{
        "name": "all", "domains": ["*"], "routes": [retrying(json!({ "num_retries": 2, "retry_on": "reset" }))],
        "include_request_attempt_count": true, "include_attempt_count_in_response": true,
    }] });
    let manager = hcm(json!({ "route_config": table }), json!({}));
    let cluster = static_cluster("one", &[origin.address]);
    let proxy = Proxy::with(bootstrap(&[listener_of("in", manager)], &[cluster])).await;
    let address = proxy.listener("in").await;
    // Not idempotent, so that nothing but the policy sends it again.
    let answer = request(address, "POST", "/", &[], b"x").await;
    assert_eq!((answer.status, answer.header("x-envoy-attempt-count")), (503, "3"));
    assert_eq!(origin.last().headers["x-envoy-attempt-count"], "3");
    assert_eq!(proxy.stat("cluster.one.upstream_rq_retry").await, 2);
    assert_eq!(proxy.stat("cluster.one.upstream_rq_retry_limit_exceeded").await, 1);
    assert_eq!(proxy.stat("cluster.one.upstream_rq_retry_backoff_exponential").await, 2);
    origin.script(Script::default());
    assert_eq!(get(address, "/").await.header("x-envoy-attempt-count"), "1");
}

#[tokio::test]
async fn a_request_may_ask_for_retries_itself() {
    let origin = Origin::http1("one").await;
    origin.script(Script::status(503));
    let proxy = in_front_of(&[&origin], route("/", json!({ "cluster": "one" }))).await;
    let address = proxy.listener("in").await;
    let asking = [("x-envoy-retry-on", "5xx"), ("x-envoy-max-retries", "2")];
    assert_eq!(request(address, "GET", "/", &asking, b"").await.status, 503);
    assert_eq!(origin.requests(), 3);
    assert!(!origin.last().headers.keys().any(|name| name.as_str().contains("retr")));
    get(address, "/").await;
    assert_eq!(origin.requests(), 4);
    origin.script(Script::held());
    let limit = [("x-envoy-upstream-rq-timeout-ms", "200")];
    assert_eq!(request(address, "GET", "/", &limit, b"").await.status, 504);
    assert_eq!(origin.last().headers["x-envoy-expected-rq-timeout-ms"], "200");
    assert_eq!(proxy.stat("cluster.one.upstream_rq_timeout").await, 1);
}

#[tokio::test]
async fn a_try_that_takes_too_long_is_followed_by_another() {
    let (slow, quick) = (Origin::http1("slow").await, Origin::http1("quick").await);
    slow.script(Script::held());
    let policy = json!({ "retry_on": "5xx", "per_try_timeout": "0.2s" });
    let proxy = in_front_of(&[&slow, &quick], retrying(with(elsewhere(), policy))).await;
    let address = proxy.listener("in").await;
    for _ in 0..4 {
        assert_eq!(get(address, "/").await.text(), "quick");
    }
    let late = proxy.stat("cluster.one.upstream_rq_per_try_timeout").await;
    assert_eq!(late, slow.requests() as u64);
    quick.script(Script::held());
    assert_eq!(get(address, "/").await.status, 504);
    proxy.until_stat("cluster.one.upstream_rq_per_try_timeout", late + 2).await;
    proxy.until_stat("cluster.one.upstream_rq_active", 0).await;
}

#[tokio::test]
async fn an_origin_that_dies_under_load_fails_no_request() {
    let mut origins = vec![Origin::http1("a").await, Origin::http1("b").await];
    let policy = json!({ "retry_on": "connect-failure,reset", "num_retries": 1 });
    let route = retrying(with(elsewhere(), policy));
    // All clients may meet the dead origin at once; by default only three may try again.
    let cluster = with(
        static_cluster("one", &[origins[0].address, origins[1].address]),
        json!({ "circuit_breakers": { "thresholds": [{ "max_retries": 100 }] } }),
    );
    let proxy = Proxy::with(bootstrap(&[listener("in", &[route])], &[cluster])).await;
    let address = proxy.listener("in").await;
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            tokio::spawn(async move {
                let mut client = Http1::connect(address).await;
                let mut failed = 0;
                while !stop.load(Ordering::SeqCst) {
                    failed += usize::from(client.get("/").await.status != 200);
                    done.fetch_add(1, Ordering::SeqCst);
                }
                failed
            })
        })
        .collect();
    proxy.until_stat_at_least("cluster.one.upstream_rq_2xx", 200).await;
    origins.remove(0);
    let before = done.load(Ordering::SeqCst) as u64;
    proxy.until_stat_at_least("cluster.one.upstream_rq_2xx", before + 500).await;
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        assert_eq!(client.await.unwrap(), 0, "requests failed");
    }
    assert!(proxy.stat("cluster.one.upstream_rq_retry").await > 0);
}

#[tokio::test]
async fn a_client_that_leaves_during_a_wait_takes_its_retry_along() {
    let origin = Origin::http1("one").await;
    origin.script(Script::status(503).header("retry-after", "100"));
    let proxy = in_front_of(&[&origin], retrying(when_told())).await;
    let mut client = Http1::connect(proxy.listener("in").await).await;
    client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
    proxy.until_stat("cluster.one.upstream_rq_retry_backoff_ratelimited", 1).await;
    drop(client);
    proxy.until_stat("http.in.downstream_rq_active", 0).await;
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn a_retry_follows_endpoints_that_changed_during_the_wait() {
    let (old, new) = (Origin::http1("old").await, Origin::http1("new").await);
    old.script(Script::status(503).header("retry-after", "2"));
    let resources = [
        (Kind::Listener, listener("in", &[retrying(when_told())])),
        (Kind::Cluster, eds_cluster("one")),
        (Kind::Endpoints, assignment("one", &[old.address])),
    ];
    let plane = Plane::start(&resources).await;
    let proxy = Proxy::with(dynamic_sotw(plane.address)).await;
    let address = proxy.listener("in").await;
    let waiting = tokio::spawn(async move { get(address, "/").await });
    proxy.until_stat("cluster.one.upstream_rq_retry", 1).await;
    plane.update(Kind::Endpoints, &assignment("one", &[new.address]));
    assert_eq!(waiting.await.unwrap().text(), "new");
    assert_eq!((old.requests(), new.requests()), (1, 1));
}

#[tokio::test]
async fn an_upstream_is_told_why_and_how_long_it_is_tried_again() {
    let origin = Origin::http1("one").await;
    origin.script(Script::held());
    let policy = json!({ "retry_on": "5xx", "per_try_timeout": "0.3s" });
    let action = json!({
        "cluster": "one", "timeout": "0.5s", "retry_policy": with(quick(), policy),
    });
    let table = json!({ "name": "t", "virtual_hosts": [{
        "name": "all",
        "domains": ["*"],
        "include_is_timeout_retry_header": true,
        "routes": [route("/", action)],
    }] });
    let manager = hcm(json!({ "route_config": table }), json!({}));
    let cluster = static_cluster("one", &[origin.address]);
    let proxy = Proxy::with(bootstrap(&[listener_of("in", manager)], &[cluster])).await;
    let address = proxy.listener("in").await;
    assert_eq!(get(address, "/").await.status, 504);
    let heads = origin.heads();
    let expected = |n: usize| -> u64 {
        heads[n].headers["x-envoy-expected-rq-timeout-ms"].to_str().unwrap().parse().unwrap()
    };
    assert_eq!(expected(0), 300);
    assert!(expected(1) <= 200, "{} ms are left of 500", expected(1));
    assert!(!heads[0].headers.contains_key("x-envoy-is-timeout-retry"));
    assert_eq!(heads[1].headers["x-envoy-is-timeout-retry"], "true");
    origin.script(Script::status(503));
    get(address, "/").await;
    assert_eq!(origin.last().headers["x-envoy-is-timeout-retry"], "false");
}
