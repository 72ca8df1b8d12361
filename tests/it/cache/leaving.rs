//! Crowds that fall apart: clients that leave, origins that break off, heads that do not come.

use futures_util::future::join_all;
use serde_json::json;

use super::crowds::{answers, crowd, fresh_of, paused, until_idle};
use super::{cached, cached_by, verdict};
use crate::harness::resources::route;
use crate::harness::{Ending, Http1, Origin, Script, eventually, get};

#[tokio::test]
async fn a_fetch_goes_on_until_the_last_reader_leaves() {
    let origin = Origin::http1("one").await;
    let (proxy, address) = cached(&origin, json!({})).await;
    for script in [paused(1_000, fresh_of(5_000)), paused(1_000, fresh_of(5_000).chunked())] {
        origin.script(script);
        let before = origin.requests();
        let mut clients = crowd(address, 20, "/a").await;
        for client in &mut clients {
            client.head().await.unwrap();
        }
        let last = clients.pop();
        drop(clients);
        proxy.until_stat("http.in.downstream_cx_active", 1).await;
        assert_eq!(proxy.stat("http.in.cache.fetching").await, 1);
        origin.until_active(1).await;
        drop(last);
        origin.until_active(0).await;
        until_idle(&proxy).await;
        assert_eq!(origin.requests(), before + 1);
        assert_eq!(proxy.stat("http.in.cache.entries").await, 0);
    }
    origin.script(fresh_of(5_000));
    assert_eq!(verdict(&get(address, "/a").await), "fwd=uri-miss; fwd-status=200; stored");
}

#[tokio::test]
async fn so_does_one_whose_head_has_not_come() {
    let origin = Origin::http1("one").await;
    // Nothing else ends it.
    let patient = route("/", json!({ "cluster": "one", "timeout": "0s" }));
    let (proxy, address) = cached_by(patient, origin.address, json!({})).await;
    origin.script(Script { held: true, ..fresh_of(5_000) });
    let mut leader = crowd(address, 1, "/a").await;
    origin.until_active(1).await;
    let mut others = crowd(address, 20, "/a").await;
    proxy.until_stat("http.in.downstream_rq_active", 21).await;
    leader.clear();
    proxy.until_stat("http.in.downstream_cx_active", 20).await;
    let last = others.pop();
    others.clear();
    proxy.until_stat("http.in.downstream_cx_active", 1).await;
    origin.until_active(1).await;
    drop(last);
    origin.until_active(0).await;
    until_idle(&proxy).await;
    assert_eq!(origin.requests(), 1);
    origin.script(fresh_of(5_000));
    assert_eq!(get(address, "/a").await.body.len(), 5_000);
}

#[tokio::test]
async fn all_see_a_body_break_off_and_the_next_asks_anew() {
    let origin = Origin::http1("one").await;
    let (proxy, address) = cached(&origin, json!({})).await;
    let broken = || paused(1_000, Script { ending: Ending::After(2_000), ..fresh_of(5_000) });
    for (script, path) in [(broken(), "/a"), (broken().chunked(), "/b")] {
        origin.script(script);
        let before = origin.requests();
        let mut clients = crowd(address, 20, path).await;
        let heads = join_all(clients.iter_mut().map(Http1::head)).await;
        origin.release();
        for (client, head) in clients.iter_mut().zip(heads) {
            assert_eq!(client.body(&head.unwrap().1).await, None, "{path}");
        }
        until_idle(&proxy).await;
        assert_eq!(origin.requests(), before + 1);
        origin.script(fresh_of(5_000));
        let next = get(address, path).await;
        assert_eq!((verdict(&next).starts_with("fwd=uri-miss"), next.body.len()), (true, 5_000));
    }
    assert_eq!(proxy.stat("http.in.cache.stored").await, 2);
}

#[tokio::test]
async fn a_crowd_whose_request_fails_is_answered_without_waiting_in_turn() {
    let origin = Origin::http1("one").await;
    let (proxy, address) = cached(&origin, json!({})).await;
    origin.script(Script { held: true, ..Script::ending(Ending::BeforeHead) });
    let mut clients = crowd(address, 20, "/a").await;
    origin.until_active(1).await;
    proxy.until_stat("http.in.downstream_rq_active", 20).await;
    origin.script(Script::ending(Ending::BeforeHead));
    origin.release();
    for answer in answers(&mut clients).await {
        assert_eq!(answer.status, 503);
    }
    until_idle(&proxy).await;
    assert_eq!(proxy.stat("http.in.cache.entries").await, 0);
}

#[tokio::test]
async fn who_has_waited_long_for_a_head_asks_for_itself() {
    let origin = Origin::http1("one").await;
    let (proxy, address) = cached(&origin, json!({})).await;
    origin.script(Script { held: true, ..fresh_of(5_000) });
    let mut clients = crowd(address, 5, "/a").await;
    proxy.until_stat("http.in.downstream_rq_active", 5).await;
    origin.until_active(1).await;
    origin.until_active(5).await;
    origin.release();
    for answer in answers(&mut clients).await {
        assert_eq!((answer.status, answer.body.len()), (200, 5_000));
    }
    until_idle(&proxy).await;
    eventually("it is stored", async || {
        verdict(&get(address, "/a").await).starts_with("hit").then_some(())
    })
    .await;
    assert_eq!(origin.requests(), 5);
}
