//! The cache and origins that fail, and time that passes.

use futures_util::future::join_all;
use serde_json::json;

use super::crowds::{answers, crowd, fresh_of, paused, until_idle};
use super::{cached, cached_by, fresh, verdict};
use crate::harness::resources::route;
use crate::harness::{Http1, Origin, Script, eventually, get, request};

#[tokio::test]
async fn an_origin_that_dies_in_mid_body_leaves_nothing_behind() {
    let origin = Origin::http1("one").await;
    let (proxy, address) = cached(&origin, json!({})).await;
    let old = Script::size(3_000).header("cache-control", "max-age=1, stale-if-error=1000");
    origin.script(old.header("etag", "\"a\"").header("age", "100"));
    get(address, "/old").await;
    proxy.until_stat("http.in.cache.stored", 1).await;
    origin.script(paused(1_000, fresh_of(5_000)));
    let mut clients = crowd(address, 20, "/a").await;
    let heads = join_all(clients.iter_mut().map(Http1::head)).await;
    let at = origin.address;
    drop(origin);
    for (client, head) in clients.iter_mut().zip(heads) {
        assert_eq!(client.body(&head.unwrap().1).await, None);
    }
    until_idle(&proxy).await;
    assert_eq!(proxy.stat("http.in.cache.entries").await, 1);
    // Nobody is there to ask.
    assert_eq!(get(address, "/a").await.status, 503);
    let mut clients = crowd(address, 20, "/old").await;
    for answer in answers(&mut clients).await {
        assert_eq!((answer.status, answer.body.len()), (200, 3_000));
        assert!(verdict(&answer).ends_with("detail=stale-if-error"), "{}", verdict(&answer));
    }

    let origin = Origin::at("two", at).await;
    origin.script(fresh());
    let back = eventually("it is back", async || {
        let answer = get(address, "/a").await;
        (answer.status == 200).then_some(answer)
    })
    .await;
    assert_eq!((back.text().as_str(), origin.requests()), ("two", 1));
    assert_eq!(get(address, "/old").await.text(), "two");
}

#[tokio::test]
async fn a_crowd_waits_for_a_request_that_is_tried_again() {
    let origin = Origin::http1("one").await;
    let policy = json!({ "retry_on": "5xx", "num_retries": 2,
        "retry_back_off": { "base_interval": "0.001s" } });
    let retrying = route("/", json!({ "cluster": "one", "retry_policy": policy }));
    let (proxy, address) = cached_by(retrying, origin.address, json!({})).await;
    origin.script(Script { held: true, ..Script::status(503) });
    let mut clients = crowd(address, 20, "/a").await;
    origin.until_active(1).await;
    proxy.until_stat("http.in.downstream_rq_active", 20).await;
    origin.script(fresh_of(5_000));
    origin.release();
    for answer in answers(&mut clients).await {
        assert_eq!((answer.status, answer.body.len()), (200, 5_000));
    }
    assert_eq!(origin.requests(), 2);
    assert_eq!(proxy.stat("cluster.one.upstream_rq_retry").await, 1);
    assert_eq!(proxy.stat("http.in.cache.coalesced").await, 19);
    proxy.until_stat("http.in.cache.stored", 1).await;

    // Each of the tries fails, and what is stale is better: once for all.
    let old = Script::size(3_000).header("cache-control", "max-age=1, stale-if-error=1000");
    origin.script(old.header("etag", "\"a\"").header("age", "100"));
    get(address, "/old").await;
    origin.script(Script { held: true, ..Script::status(503) });
    let mut clients = crowd(address, 20, "/old").await;
    origin.until_active(1).await;
    proxy.until_stat("http.in.downstream_rq_active", 20).await;
    origin.script(Script::status(503));
    origin.release();
    for answer in answers(&mut clients).await {
        assert_eq!((answer.status, answer.body.len()), (200, 3_000));
    }
    assert_eq!(origin.requests(), 6);
}

#[tokio::test]
async fn what_is_spent_is_cleaned_away() {
    let origin = Origin::http1("one").await;
    let (proxy, address) = cached(&origin, json!({ "cleanup_interval": "1s" })).await;
    let nearly =
        |said: &str| Script::size(10_000).header("cache-control", said).header("age", "59");
    let store = async |path: &str, script: Script| {
        origin.script(script);
        assert!(verdict(&get(address, path).await).ends_with("; stored"), "{path}");
    };
    for n in 0..5 {
        store(&format!("/spent/{n}"), nearly("max-age=60")).await;
    }
    store("/validated", nearly("max-age=60").header("etag", "\"a\"")).await;
    store("/better", nearly("max-age=60, stale-if-error=600")).await;
    store("/stale", nearly("max-age=60, stale-while-revalidate=600")).await;
    store("/fresh", fresh_of(10_000)).await;
    proxy.until_stat("http.in.cache.stored", 9).await;
    proxy.until_stat("http.in.cache.expired", 5).await;
    proxy.until_stat("http.in.cache.entries", 4).await;
    let bytes = proxy.stat("http.in.cache.bytes").await;
    assert!((40_000..60_000).contains(&bytes), "{bytes}");
    assert_eq!(proxy.stat("http.in.cache.evicted_memory").await, 0);
    // Each of those that stay is good for something yet.
    let asked = origin.requests();
    assert!(verdict(&get(address, "/fresh").await).starts_with("hit"));
    let stale = get(address, "/stale").await;
    assert!(verdict(&stale).contains("stale-while-revalidate"), "{}", verdict(&stale));
    eventually("it is validated", || {
        std::future::ready((origin.requests() == asked + 1).then_some(()))
    })
    .await;
    origin.script(Script::status(500));
    assert!(verdict(&get(address, "/better").await).ends_with("stale-if-error"));
    let unchanged = Script::status(304).header("etag", "\"a\"");
    origin.script(unchanged.header("cache-control", "max-age=60"));
    assert_eq!(get(address, "/validated").await.body.len(), 10_000);
    origin.script(fresh());
    assert_eq!(verdict(&get(address, "/spent/0").await), "fwd=uri-miss; fwd-status=200; stored");
    let only_stored = [("cache-control", "only-if-cached")];
    assert_eq!(request(address, "GET", "/spent/1", &only_stored, b"").await.status, 504);
}
