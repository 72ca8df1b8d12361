//! The cache while its configuration changes: on a route, over the management server, in mid-body.

use std::net::SocketAddr;

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::crowds::{crowd, fresh_of, paused, until_idle};
use super::{CACHE, caching, fresh, verdict};
use crate::harness::resources::{bootstrap, rds, route, static_cluster, table, to, typed, with};
use crate::harness::scripted::Delta;
use crate::harness::{
    Http1, Kind, Origin, Proxy, Script, delta, eventually, get, nack_of, request,
};
use crate::xds_world::World;

/// A route with a cache configuration of its own.
fn own(prefix: &str, config: Value) -> Value {
    let own = json!({ "cache": typed(CACHE, config) });
    let route = route(prefix, json!({ "cluster": "one" }));
    with(route, json!({ "typed_per_filter_config": own }))
}

async fn push(world: &mut World<Delta>, version: &str, config: Value) {
    world.push(Kind::Listener, version, &[caching(config, rds("table"))], &[]).await;
}

/// Waits until this path is one that the listener excludes: its newest version is in service. The workers
/// take it up each for itself, and which one answers is chance, so it must be so often.
async fn until_excluded(world: &World<Delta>, path: &str) {
    let mut in_a_row = 0;
    eventually("the new version is in service", async || {
        let answer = get(world.address, path).await;
        let is_excluded = verdict(&answer).starts_with("fwd=bypass");
        in_a_row = if is_excluded { in_a_row + 1 } else { 0 };
        (in_a_row == 20).then_some(())
    })
    .await;
}

async fn is_hit(address: SocketAddr, path: &str) -> bool {
    verdict(&get(address, path).await).starts_with("hit")
}

#[tokio::test]
async fn a_route_may_have_rules_of_its_own() {
    let origin = Origin::http1("one").await;
    let of_route = json!({ "default_ttl": "60s", "excluded_paths": ["/own/live"],
        "max_body_bytes": 10_000 });
    let routes = table("local", &[own("/own", of_route), to("one")]);
    let of_listener = json!({ "excluded_paths": ["/own/always", "/live"] });
    let listener = caching(of_listener, json!({ "route_config": routes }));
    let cluster = static_cluster("one", &[origin.address]);
    let proxy = Proxy::with(bootstrap(&[listener], &[cluster])).await;
    let address = proxy.listener("in").await;
    // The origin says nothing of how long it holds.
    for (path, is_stored) in
        [("/own/a", true), ("/own/always", true), ("/a", false), ("/own/live", false)]
    {
        get(address, path).await;
        assert_eq!(is_hit(address, path).await, is_stored, "{path}");
    }
    for path in ["/own/live", "/live"] {
        assert!(verdict(&get(address, path).await).starts_with("fwd=bypass"), "{path}");
    }
    origin.script(fresh_of(20_000));
    for (path, is_stored) in [("/own/large", false), ("/large", true)] {
        get(address, path).await;
        assert_eq!(is_hit(address, path).await, is_stored, "{path}");
    }
    // It is one store.
    assert_eq!(proxy.stat("http.in.cache.entries").await, 3);
}

#[tokio::test]
async fn what_is_the_listeners_is_refused_on_a_route() {
    let mut world = World::delta().await;
    push(&mut world, "2", json!({ "excluded_paths": ["/v2"] })).await;
    until_excluded(&world, "/v2").await;
    world.origin.script(fresh());
    get(world.address, "/own/a").await;
    let bad = json!({ "max_entries": 5, "max_memory_bytes": 1_000_000, "cleanup_interval": "5s",
        "warming": { "urls": ["/"] }, "shared_tier": { "redis": ["127.0.0.1:1"] },
        "excluded_paths": ["x"], "stale": { "limit": "-1s" } });
    let fields = ["max_entries", "max_memory_bytes", "cleanup_interval", "warming", "shared_tier"];
    let routes = [table("table", &[to("one"), own("/own", bad)])];
    world.stream.respond(delta(Kind::Routes, "2", &routes, &[])).await;
    let (_, faults) = nack_of(&mut world.stream, Kind::Routes, "2").await;
    for part in fields.iter().chain(&["excluded_paths[0]", "stale.limit", "routes[1]", "cache"]) {
        assert!(faults.contains(part), "{part}: {faults}");
    }
    // What was there before goes on.
    assert!(is_hit(world.address, "/own/a").await);
    let good = json!({ "excluded_paths": ["/own/*"] });
    world.push(Kind::Routes, "3", &[table("table", &[own("/own", good), to("one")])], &[]).await;
    until_excluded(&world, "/own/a").await;
    world.push(Kind::Routes, "4", &[table("table", &[to("one")])], &[]).await;
    eventually("what is stored is still there", async || {
        is_hit(world.address, "/own/a").await.then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_fill_outlives_a_change_of_the_listener() {
    let mut world = World::delta().await;
    push(&mut world, "2", json!({ "excluded_paths": ["/v2"] })).await;
    until_excluded(&world, "/v2").await;
    world.origin.script(fresh());
    get(world.address, "/kept").await;
    get(world.address, "/later").await;
    let asked = world.origin.requests();
    world.origin.script(paused(1_000, fresh_of(5_000)));
    let mut before = crowd(world.address, 10, "/a").await;
    join_all(before.iter_mut().map(Http1::head)).await;

    push(&mut world, "3", json!({ "excluded_paths": ["/v3", "/later"] })).await;
    world.origin.script(fresh());
    until_excluded(&world, "/v3").await;
    world.origin.script(paused(1_000, fresh_of(5_000)));
    let others = world.origin.requests() - asked - 1;
    // Who comes by the new version follows what began under the old.
    let mut after = crowd(world.address, 10, "/a").await;
    join_all(after.iter_mut().map(Http1::head)).await;
    world.origin.release();
    for client in before.iter_mut().chain(&mut after) {
        assert_eq!(client.exactly(5_000).await.unwrap().len(), 5_000);
    }
    until_idle(&world.proxy).await;
    assert!(is_hit(world.address, "/a").await && is_hit(world.address, "/kept").await);
    assert_eq!(world.origin.requests(), asked + 1 + others);
    // What the new policy excludes is not given out, though it is there.
    world.origin.script(fresh());
    assert!(verdict(&get(world.address, "/later").await).starts_with("fwd=bypass"));
    push(&mut world, "4", json!({ "excluded_paths": ["/v4"] })).await;
    until_excluded(&world, "/v4").await;
    assert!(is_hit(world.address, "/later").await);
}

#[tokio::test]
async fn less_memory_makes_room_at_once_and_more_is_used() {
    let mut world = World::delta().await;
    let limit = |bytes: u64, path: &str| json!({ "max_memory_bytes": bytes, "max_body_bytes": 100_000, "excluded_paths": [path] });
    push(&mut world, "2", limit(10_000_000, "/v2")).await;
    until_excluded(&world, "/v2").await;
    world.origin.script(fresh_of(50_000));
    for n in 0..40 {
        get(world.address, &format!("/{n}")).await;
    }
    let proxy = &world.proxy;
    proxy.until_stat("http.in.cache.entries", 40).await;
    assert!(proxy.stat("http.in.cache.bytes").await > 2_000_000);

    push(&mut world, "3", limit(500_000, "/v3")).await;
    let proxy = &world.proxy;
    eventually("there is room", async || {
        (proxy.stat("http.in.cache.bytes").await <= 500_000).then_some(())
    })
    .await;
    let entries = proxy.stat("http.in.cache.entries").await;
    assert!((1..=9).contains(&entries), "{entries}");
    assert_eq!(proxy.stat("http.in.cache.evicted_memory").await, 40 - entries);
    let identity = proxy.stat("http.in.cache.bytes_identity").await;
    assert!(identity <= 500_000, "{identity}");
    until_excluded(&world, "/v3").await;
    let asked = world.origin.requests();
    let mut hits = 0;
    for n in 0..40 {
        let answer = request(world.address, "GET", &format!("/{n}"), &[ONLY_STORED], b"").await;
        hits += u64::from(answer.status == 200);
    }
    assert_eq!((hits, world.origin.requests()), (entries, asked));

    push(&mut world, "4", limit(20_000_000, "/v4")).await;
    until_excluded(&world, "/v4").await;
    for n in 0..100 {
        get(world.address, &format!("/{n}")).await;
    }
    world.proxy.until_stat("http.in.cache.entries", 100).await;
}

/// What is not stored is answered 504.
const ONLY_STORED: (&str, &str) = ("cache-control", "only-if-cached");

#[tokio::test]
async fn a_listener_that_comes_again_begins_anew() {
    let mut world = World::delta().await;
    push(&mut world, "2", json!({ "excluded_paths": ["/v2"], "compression": {} })).await;
    until_excluded(&world, "/v2").await;
    world.origin.script(fresh_of(5_000).header("content-type", "text/plain"));
    for n in 0..10 {
        get(world.address, &format!("/{n}")).await;
        request(world.address, "GET", &format!("/{n}"), &[("accept-encoding", "gzip")], b"").await;
    }
    let before = world.proxy.stat("http.in.cache.bytes_identity").await;
    assert!(before > 50_000);
    assert!(world.proxy.stat("http.in.cache.bytes_gzip").await > 0);
    // A fill is under way when it goes.
    world.origin.script(paused(1_000, fresh_of(5_000)));
    let mut clients = crowd(world.address, 5, "/held").await;
    join_all(clients.iter_mut().map(Http1::head)).await;
    world.push(Kind::Listener, "3", &[], &["in"]).await;
    eventually("it is gone", async || {
        world.proxy.find_listener("in").await.is_none().then_some(())
    })
    .await;
    world.origin.release();
    for client in &mut clients {
        assert_eq!(client.exactly(5_000).await.unwrap().len(), 5_000);
    }
    drop(clients);
    // With the last of its connections the cache is gone.
    eventually("nothing is stored", async || {
        world.proxy.find_stat("http.in.cache.bytes").await.is_none().then_some(())
    })
    .await;

    let routes = json!({ "route_config": table("local", &[to("one")]) });
    world.push(Kind::Listener, "4", &[caching(json!({}), routes)], &[]).await;
    world.address = world.proxy.new_listener("in").await;
    world.origin.script(fresh_of(5_000));
    assert!(!is_hit(world.address, "/0").await);
    assert!(is_hit(world.address, "/0").await);
    assert_eq!(world.proxy.stat("http.in.cache.entries").await, 1);
    let bytes = world.proxy.stat("http.in.cache.bytes_identity").await;
    assert!((5_000..10_000).contains(&bytes), "{bytes}");
}

#[tokio::test]
async fn without_a_management_server_the_cache_goes_on() {
    let mut world = World::delta().await;
    push(&mut world, "2", json!({ "excluded_paths": ["/v2"] })).await;
    until_excluded(&world, "/v2").await;
    world.origin.script(paused(1_000, fresh_of(5_000)));
    let mut clients = crowd(world.address, 5, "/a").await;
    join_all(clients.iter_mut().map(Http1::head)).await;
    let World { origin, server, stream, proxy, address } = world;
    drop((server, stream));
    proxy.until_stat("control_plane.connected_state", 0).await;
    origin.release();
    for client in &mut clients {
        assert_eq!(client.exactly(5_000).await.unwrap().len(), 5_000);
    }
    until_idle(&proxy).await;
    origin.script(fresh());
    assert!(is_hit(address, "/a").await);
    assert!(!is_hit(address, "/b").await);
    assert!(is_hit(address, "/b").await);
    origin.script(Script::status(204));
    request(address, "DELETE", "/b", &[], b"").await;
    origin.script(fresh());
    assert!(!is_hit(address, "/b").await);
}
