//! Responses that are fetched before anybody asks for them, or again before they are stale.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use super::{cached, caching, fresh, verdict};
use crate::harness::resources::{bootstrap, rds, static_cluster, to};
use crate::harness::scripted::Delta;
use crate::harness::{Kind, Origin, Proxy, Script, delta, eventually, get, nack_of, pace, request};
use crate::xds_world::World;

fn warming(fields: Value) -> Value {
    json!({ "warming": fields })
}

/// The paths that an origin was asked for, sorted.
fn paths(origin: &Origin) -> Vec<String> {
    let heads = origin.heads();
    let mut paths: Vec<_> = heads.iter().map(|head| head.uri.path().to_owned()).collect();
    paths.sort();
    paths
}

async fn until_asked(origin: &Origin, requests: usize) {
    eventually(&format!("the origin was asked {requests} times"), || {
        std::future::ready((origin.requests() >= requests).then_some(()))
    })
    .await;
}

async fn is_hit(address: SocketAddr, path: &str) -> bool {
    verdict(&get(address, path).await).starts_with("hit")
}

#[tokio::test]
async fn what_is_warm_at_the_start_went_the_way_of_a_clients_request() {
    let (plain, special) = (Origin::http1("plain").await, Origin::http1("special").await);
    plain.script(fresh());
    special.script(fresh());
    let hosts = json!([
        { "name": "special", "domains": ["special.test"], "routes": [to("special")] },
        { "name": "all", "domains": ["*"], "routes": [to("plain")] },
    ]);
    let routes = json!({ "route_config": { "name": "local", "virtual_hosts": hosts } });
    let urls = ["/a?x=1", "http://special.test/b", "http://test/c"];
    let listener = caching(warming(json!({ "urls": urls })), routes);
    let clusters =
        [static_cluster("plain", &[plain.address]), static_cluster("special", &[special.address])];
    let proxy = Proxy::with(bootstrap(&[listener], &clusters)).await;
    let address = proxy.listener("in").await;
    proxy.until_stat("http.in.cache.warmed", 3).await;
    assert_eq!(
        (paths(&plain), paths(&special)),
        (vec!["/a".into(), "/c".into()], vec!["/b".into()])
    );
    assert_eq!(special.last().headers["host"], "special.test");
    // It is nobody's request.
    assert_eq!(proxy.stat("http.in.downstream_rq_total").await, 0);

    let b = request(address, "GET", "/b", &[("host", "special.test")], b"").await;
    assert_eq!((b.text().as_str(), verdict(&b).starts_with("hit")), ("special", true));
    assert!(is_hit(address, "/c").await);
    let a = request(address, "GET", "/a?x=1", &[("host", "localhost")], b"").await;
    assert!(verdict(&a).starts_with("hit"), "{}", verdict(&a));
    // It is of one host; another has its own.
    assert!(!is_hit(address, "/a?x=1").await);
    assert_eq!((plain.requests(), special.requests()), (3, 1));
    assert_eq!(proxy.stat("http.in.cache.warm_failed").await, 0);
}

#[tokio::test]
async fn an_interval_fetches_again_what_is_no_longer_fresh() {
    let origin = Origin::http1("one").await;
    origin.script(Script::default().header("cache-control", "max-age=1"));
    let config = warming(json!({ "urls": ["http://test/a"], "interval": "1s" }));
    let (proxy, _) = cached(&origin, config).await;
    until_asked(&origin, 3).await;
    assert_eq!(proxy.stat("http.in.cache.warm_failed").await, 0);
    assert_eq!(proxy.stat("http.in.cache.entries").await, 1);
}

#[tokio::test]
async fn so_many_are_fetched_at_a_time_and_no_more() {
    let origin = Origin::http1("one").await;
    origin.script(Script { held: true, ..fresh() });
    let urls: Vec<_> = (0..7).map(|n| format!("http://test/{n}")).collect();
    let config = warming(json!({ "urls": urls, "concurrency": 3 }));
    let (proxy, address) = cached(&origin, config).await;
    for asked in [3, 6, 7] {
        until_asked(&origin, asked).await;
        origin.until_active(if asked == 7 { 1 } else { 3 }).await;
        origin.release();
    }
    proxy.until_stat("http.in.cache.warmed", 7).await;
    assert_eq!((origin.requests(), origin.most_active()), (7, 3));
    for n in 0..7 {
        assert!(is_hit(address, &format!("/{n}")).await);
    }
}

#[tokio::test]
async fn a_failure_is_counted_and_tried_again() {
    let origin = Origin::http1("one").await;
    origin.script(Script::status(503));
    let config = warming(json!({ "urls": ["http://test/a", "http://test/b"] }));
    let (proxy, address) = cached(&origin, config).await;
    proxy.until_stat_at_least("http.in.cache.warm_failed", 2).await;
    assert_eq!(proxy.stat("http.in.cache.warmed").await, 0);
    origin.script(fresh());
    proxy.until_stat("http.in.cache.warmed", 2).await;
    assert!(is_hit(address, "/a").await && is_hit(address, "/b").await);

    // It is not tried for ever.
    let gone = Origin::http1("gone").await;
    gone.script(Script::status(404));
    let (proxy, _) = cached(&gone, warming(json!({ "urls": ["http://test/a"] }))).await;
    proxy.until_stat("http.in.cache.warm_failed", 4).await;
    pace(Duration::from_secs(1)).await;
    assert_eq!((gone.requests(), proxy.stat("http.in.cache.warm_failed").await), (4, 4));
}

#[tokio::test]
async fn a_changed_list_takes_effect_and_without_one_it_ends() {
    let mut world = World::delta().await;
    let push = async |world: &mut World<Delta>, version: &str, config: Value| {
        world.push(Kind::Listener, version, &[caching(config, rds("table"))], &[]).await;
    };
    let every_second = |urls: &[&str]| warming(json!({ "urls": urls, "interval": "1s" }));
    world.origin.script(Script::default().header("cache-control", "max-age=1"));
    push(&mut world, "2", every_second(&["http://test/a"])).await;
    until_asked(&world.origin, 2).await;
    assert!(paths(&world.origin).iter().all(|path| path == "/a"));

    push(&mut world, "3", every_second(&["http://test/b"])).await;
    eventually("the new list is fetched", || {
        std::future::ready(paths(&world.origin).contains(&"/b".to_owned()).then_some(()))
    })
    .await;
    let count = |path: &str| paths(&world.origin).iter().filter(|p| *p == path).count();
    let (a, b) = (count("/a"), count("/b"));
    eventually("it is fetched again", || std::future::ready((count("/b") > b).then_some(()))).await;
    assert_eq!(count("/a"), a);

    // A change of something else goes on where it was, by the new routes.
    let other = Origin::http1("other").await;
    other.script(Script::default().header("cache-control", "max-age=1"));
    world.push(Kind::Cluster, "2", &[static_cluster("two", &[other.address])], &[]).await;
    let table = crate::harness::resources::table("table", &[to("two")]);
    world.push(Kind::Routes, "2", &[table], &[]).await;
    until_asked(&other, 1).await;
    assert_eq!(other.last().uri.path(), "/b");

    let bad = warming(json!({ "urls": ["b"], "interval": "0.5s", "concurrency": 101 }));
    world.stream.respond(delta(Kind::Listener, "4", &[caching(bad, rds("table"))], &[])).await;
    let (_, faults) = nack_of(&mut world.stream, Kind::Listener, "4").await;
    for part in ["warming.urls[0]", "warming.interval", "warming.concurrency"] {
        assert!(faults.contains(part), "{part}: {faults}");
    }

    push(&mut world, "5", json!({ "excluded_paths": ["/new"] })).await;
    eventually("the listener without warming serves", async || {
        verdict(&get(world.address, "/new").await).starts_with("fwd=bypass").then_some(())
    })
    .await;
    let asked = other.requests();
    pace(Duration::from_millis(2_500)).await;
    assert_eq!(other.requests(), asked);
}

#[tokio::test]
async fn what_is_asked_for_is_fetched_ahead_and_what_is_not_is_not() {
    let origin = Origin::http1("one").await;
    let old = || fresh().header("age", "50");
    origin.script(old());
    let config = json!({ "refresh_ahead": { "percent": 20 } });
    let (proxy, address) = cached(&origin, config).await;
    for path in ["/wanted", "/quiet"] {
        assert!(!is_hit(address, path).await);
    }
    origin.script(Script { held: true, body: Some("new".into()), ..fresh() });
    // The first has not been asked for since it was stored; the second has. Nobody waits.
    for _ in 0..2 {
        assert!(is_hit(address, "/wanted").await);
    }
    origin.until_active(1).await;
    // While that is under way, no other is begun.
    for _ in 0..10 {
        assert_eq!(get(address, "/wanted").await.text(), "one");
    }
    origin.release();
    eventually("the new one is there", async || {
        let answer = get(address, "/wanted").await;
        assert!(verdict(&answer).starts_with("hit"));
        (answer.text() == "new").then_some(())
    })
    .await;
    // It is young, and not fetched again.
    assert!(is_hit(address, "/wanted").await);
    assert_eq!(paths(&origin), ["/quiet", "/wanted", "/wanted"]);
    assert_eq!(proxy.stat("http.in.cache.background").await, 1);
    assert_eq!(proxy.stat("http.in.cache.miss").await, 2);

    // An error leaves what there is.
    origin.script(old());
    assert!(!is_hit(address, "/failing").await);
    origin.script(Script::status(500));
    eventually("it was tried", async || {
        assert!(is_hit(address, "/failing").await);
        (proxy.stat("http.in.cache.background").await >= 2).then_some(())
    })
    .await;
    until_asked(&origin, 5).await;
    assert_eq!(get(address, "/failing").await.text(), "one");
}
