//! The cache over sockets: cases by section of the RFCs as data, and stories of what happens around it.

#[cfg(test)]
mod cases;
#[cfg(test)]
mod changes;
#[cfg(test)]
mod compression;
#[cfg(test)]
mod crowds;
#[cfg(all(test, feature = "redis"))]
mod fleet;
#[cfg(test)]
mod large;
#[cfg(test)]
mod leaving;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod origins;
#[cfg(test)]
mod poisoning;
#[cfg(test)]
mod purge;
#[cfg(test)]
mod warming;

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::harness::resources::{
    assignment, bootstrap, filter, hcm, listener_of, rds, route, router, static_cluster, table, to,
    typed, with,
};
use crate::harness::scripted::Delta;
use crate::harness::{
    Answer, Ending, Http1, Kind, Origin, Proxy, Script, delta, eventually, get, nack_of, request,
};
use crate::xds_world::World;

const CACHE: &str = "nuncio.extensions.filters.http.cache.v1.Cache";

fn caching(config: Value, routes: Value) -> Value {
    let options = json!({
        "http_filters": [filter("cache", CACHE, config), router()],
        "http_protocol_options": { "enable_trailers": true },
    });
    listener_of("in", hcm(routes, options))
}

async fn cached(origin: &Origin, config: Value) -> (Proxy, SocketAddr) {
    cached_at(origin.address, config).await
}

async fn cached_at(origin: SocketAddr, config: Value) -> (Proxy, SocketAddr) {
    cached_by(to("one"), origin, config).await
}

/// The same by another route to `one`.
async fn cached_by(route: Value, origin: SocketAddr, config: Value) -> (Proxy, SocketAddr) {
    let routes = json!({ "route_config": table("local", &[route]) });
    let mut cluster = static_cluster("one", &[origin]);
    cluster["http_protocol_options"] = json!({ "enable_trailers": true });
    let proxy = Proxy::with(bootstrap(&[caching(config, routes)], &[cluster])).await;
    let address = proxy.listener("in").await;
    (proxy, address)
}

/// What a response says the cache did: its word after the cache's name, which is the last of the caches.
fn verdict(answer: &Answer) -> String {
    let caches = answer.headers.get_all("cache-status").iter().next_back();
    let last = caches.map_or("", |value| value.to_str().unwrap());
    last.rsplit_once("nuncio; ").map_or("", |(_, said)| said).to_owned()
}

fn fresh() -> Script {
    Script::default().header("cache-control", "max-age=60")
}

#[tokio::test]
async fn a_stored_response_is_every_workers_and_costs_the_origin_nothing() {
    let origin = Origin::http1("one").await;
    origin.script(Script::size(300_000).header("cache-control", "max-age=60"));
    let (proxy, address) = cached(&origin, json!({})).await;
    let first = get(address, "/a").await;
    assert_eq!(verdict(&first), "fwd=uri-miss; fwd-status=200; stored");
    for _ in 0..20 {
        let again = get(address, "/a").await;
        assert!(verdict(&again).starts_with("hit; ttl="), "{}", verdict(&again));
        assert!(again.body == first.body);
        assert!(!again.header("age").is_empty());
    }
    assert_eq!(origin.requests(), 1);
    assert_eq!(proxy.stat("http.in.cache.hit").await, 20);
    assert_eq!(proxy.stat("http.in.cache.entries").await, 1);
    let bytes = proxy.stat("http.in.cache.bytes_identity").await;
    assert!((300_000..330_000).contains(&bytes), "{bytes}");
    let head = request(address, "HEAD", "/a", &[], b"").await;
    assert_eq!((head.status, head.header("content-length")), (200, "300000"));
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn what_is_not_whole_is_not_stored() {
    let origin = Origin::http1("one").await;
    let (proxy, address) = cached(&origin, json!({ "max_body_bytes": 10_000 })).await;
    let broken = Script::ending(Ending::After(1_000)).header("cache-control", "max-age=60");
    origin.script(broken.clone());
    let mut client = Http1::connect(address).await;
    client.send("GET /broken HTTP/1.1\r\nhost: test\r\n\r\n").await;
    assert!(client.try_answer("GET").await.is_none());
    origin.script(Script { sized: false, ..broken });
    let mut client = Http1::connect(address).await;
    client.send("GET /broken HTTP/1.1\r\nhost: test\r\n\r\n").await;
    assert!(client.try_answer("GET").await.is_none());
    // A client that leaves in the middle leaves nothing behind.
    origin.script(
        Script { held_after: Some(1_000), ..Script::size(4_000) }
            .header("cache-control", "max-age=60"),
    );
    let mut client = Http1::connect(address).await;
    client.send("GET /broken HTTP/1.1\r\nhost: test\r\n\r\n").await;
    client.head().await.unwrap();
    drop(client);
    origin.until_active(0).await;
    for script in [Script::size(20_000), Script::size(20_000).chunked()] {
        origin.script(script.header("cache-control", "max-age=60"));
        for _ in 0..2 {
            assert_eq!(get(address, "/large").await.body.len(), 20_000);
        }
    }
    origin.script(fresh().header("trailer", "x").trailer("x", "y"));
    for _ in 0..2 {
        let answer = request(address, "GET", "/trailers", &[("te", "trailers")], b"").await;
        assert_eq!((answer.text().as_str(), &answer.trailers["x"]), ("one", &"y".parse().unwrap()));
    }
    assert_eq!(proxy.stat("http.in.cache.stored").await, 0);
    assert_eq!(proxy.stat("http.in.cache.hit").await, 0);
}

#[tokio::test]
async fn a_request_that_changes_its_target_makes_it_forgotten_even_while_it_is_filled() {
    let origin = Origin::http1("one").await;
    origin.script(fresh());
    let (proxy, address) = cached(&origin, json!({})).await;
    for path in ["/a", "/b", "/c"] {
        get(address, path).await;
    }
    origin.script(
        Script::status(201).header("location", "/b").header("content-location", "http://other/c"),
    );
    let posted = request(address, "POST", "/a", &[], b"x").await;
    assert_eq!(verdict(&posted), "fwd=method; fwd-status=201");
    assert_eq!(proxy.stat("http.in.cache.invalidated").await, 2);
    origin.script(Script::status(500));
    request(address, "DELETE", "/c", &[], b"").await;
    assert!(verdict(&get(address, "/c").await).starts_with("hit"), "it failed");
    // A fill that began before the change is not for who comes after it, and does not bring back the past.
    origin.script(
        Script { held_after: Some(1_000), ..Script::size(2_000) }
            .header("cache-control", "max-age=60"),
    );
    let mut slow = Http1::connect(address).await;
    slow.send("GET /d HTTP/1.1\r\nhost: test\r\n\r\n").await;
    slow.head().await.unwrap();
    origin.script(Script::status(204));
    request(address, "PUT", "/d", &[], b"new").await;
    origin.script(fresh());
    let after = get(address, "/d").await;
    assert_eq!((after.text().as_str(), verdict(&after).starts_with("fwd=uri-miss")), ("one", true));
    origin.release();
    slow.exactly(2_000).await.unwrap();
    assert_eq!(get(address, "/d").await.text(), "one");
}

#[tokio::test]
async fn what_a_validation_gives_to_one_client_is_not_for_those_who_wait_for_it() {
    let origin = Origin::http1("one").await;
    let (proxy, address) = cached(&origin, json!({})).await;
    for (path, name, value, waiting) in [
        ("/cookie", "set-cookie", "user=1", 2),
        ("/private", "cache-control", "private, max-age=60", 4),
    ] {
        let short = Script::default().header("cache-control", "max-age=1").header("etag", "\"1\"");
        origin.script(short);
        get(address, path).await;
        eventually("it is stale", async || {
            let asked = [("cache-control", "only-if-cached")];
            (request(address, "GET", path, &asked, b"").await.status == 504).then_some(())
        })
        .await;
        let before = origin.requests();
        origin.script(Script { held: true, ..Script::status(304) }.header(name, value));
        let first = tokio::spawn(get(address, path));
        origin.until_active(1).await;
        let second = tokio::spawn(get(address, path));
        proxy.until_stat("http.in.cache.stale", waiting).await;
        origin.release();
        assert_eq!(first.await.unwrap().header(name), value);
        eventually("the second asks for itself", async || {
            (origin.requests() == before + 2).then_some(())
        })
        .await;
        origin.release();
        assert_eq!(second.await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn a_change_of_policy_keeps_what_is_stored_and_a_bad_one_is_refused() {
    let mut world = World::delta().await;
    let push = async |world: &mut World<Delta>, version: &str, config: Value| {
        world.push(Kind::Listener, version, &[caching(config, rds("table"))], &[]).await;
    };
    world.origin.script(fresh());
    push(&mut world, "2", json!({})).await;
    eventually("the new listener serves", async || {
        verdict(&get(world.address, "/a").await).starts_with("hit").then_some(())
    })
    .await;
    push(&mut world, "3", json!({ "excluded_paths": ["/live/*", "/now"], "max_entries": 5 })).await;
    eventually("the new policy holds", async || {
        verdict(&get(world.address, "/live/x").await).starts_with("fwd=bypass").then_some(())
    })
    .await;
    let asked = world.origin.requests();
    assert!(verdict(&get(world.address, "/a").await).starts_with("hit"));
    assert_eq!(world.origin.requests(), asked);
    assert_eq!(verdict(&get(world.address, "/now").await), "fwd=bypass; fwd-status=200");
    assert!(verdict(&get(world.address, "/nowhere").await).starts_with("fwd=uri-miss"));
    for n in 0..20 {
        get(world.address, &format!("/{n}")).await;
    }
    assert!(world.proxy.stat("http.in.cache.entries").await <= 5);
    let bad = json!({ "excluded_paths": ["x", "y*"], "max_entries": 0, "max_memory_bytes": 1 });
    world.stream.respond(delta(Kind::Listener, "4", &[caching(bad, rds("table"))], &[])).await;
    let (_, faults) = nack_of(&mut world.stream, Kind::Listener, "4").await;
    for part in ["excluded_paths[0]", "excluded_paths[1]", "max_entries", "max_memory_bytes"] {
        assert!(faults.contains(part), "{part}: {faults}");
    }
    // The origin goes; what is stored is still there.
    world.push(Kind::Endpoints, "5", &[assignment("one", &[])], &[]).await;
    world.until_status("/live/x", 503).await;
    let answer = get(world.address, "/19").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "one"));
}

#[tokio::test]
async fn a_route_may_do_without() {
    let origin = Origin::http1("one").await;
    origin.script(fresh());
    let off = json!({ "cache": { "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig",
        "disabled": true } });
    let routes = [
        with(route("/off", json!({ "cluster": "one" })), json!({ "typed_per_filter_config": off })),
        to("one"),
    ];
    let routes = json!({ "route_config": table("local", &routes) });
    let cluster = static_cluster("one", &[origin.address]);
    let proxy = Proxy::with(bootstrap(&[caching(json!({}), routes)], &[cluster])).await;
    let address = proxy.listener("in").await;
    for _ in 0..2 {
        assert_eq!(get(address, "/off").await.header("cache-status"), "");
    }
    assert_eq!(origin.requests(), 2);
}

#[tokio::test]
async fn a_policy_may_come_as_a_struct() {
    let origin = Origin::http1("one").await;
    let policy = json!({ "type_url": format!("type.googleapis.com/{CACHE}"),
        "value": { "default_ttl": "60s", "key": { "query_parameters_excluded": ["utm_*"] } } });
    let kind = "xds.type.v3.TypedStruct";
    let filters = json!({ "http_filters": [filter("cache", kind, policy), router()] });
    let routes = json!({ "route_config": table("local", &[to("one")]) });
    let listener = listener_of("in", hcm(routes, filters));
    let cluster = static_cluster("one", &[origin.address]);
    let proxy = Proxy::with(bootstrap(&[listener], &[cluster])).await;
    let address = proxy.listener("in").await;
    assert!(verdict(&get(address, "/a?utm_x=1").await).ends_with("stored"));
    assert!(verdict(&get(address, "/a?utm_y=2").await).starts_with("hit"));
}

#[tokio::test]
async fn envoys_own_form_is_the_same_cache() {
    let origin = Origin::http1("one").await;
    let store = "envoy.extensions.http.cache.simple_http_cache.v3.SimpleHttpCacheConfig";
    let kind = "envoy.extensions.filters.http.cache.v3.CacheConfig";
    let config = |fields: Value| {
        let config = with(json!({ "typed_config": typed(store, json!({})) }), fields);
        json!({ "http_filters": [filter("cache", kind, config), router()] })
    };
    let routes = json!({ "route_config": table("local", &[to("one")]) });
    let vary = json!({ "allowed_vary_headers": [{ "exact": "accept-language" }],
        "max_body_bytes": 5_000, "ignore_request_cache_control_header": true });
    let second = filter(
        "cache",
        "envoy.extensions.filters.http.cache_v2.v3.CacheV2Config",
        json!({ "typed_config": typed(
            "envoy.extensions.http.cache_v2.simple_http_cache.v3.SimpleHttpCacheV2Config", json!({})) }),
    );
    let second = json!({ "http_filters": [second, router()], "stat_prefix": "second" });
    let listeners = [
        listener_of("in", hcm(routes.clone(), config(vary))),
        listener_of("off", hcm(routes.clone(), config(json!({ "disabled": true })))),
        listener_of("second", hcm(routes, second)),
    ];
    let cluster = static_cluster("one", &[origin.address]);
    let proxy = Proxy::with(bootstrap(&listeners, &[cluster])).await;
    let address = proxy.listener("in").await;
    let hit = async |path: &str, script: Script| {
        origin.script(script);
        get(address, path).await;
        let no_cache = [("cache-control", "no-cache")];
        let again = request(address, "GET", path, &no_cache, b"").await;
        verdict(&again).starts_with("hit; ttl")
    };
    assert!(hit("/a", fresh()).await);
    assert!(hit("/b", fresh().header("vary", "Accept-Language")).await);
    assert!(!hit("/c", fresh().header("vary", "accept-language, cookie")).await);
    assert!(!hit("/d", Script::size(6_000).header("cache-control", "max-age=60")).await);
    origin.script(fresh());
    let second = proxy.listener("second").await;
    get(second, "/e").await;
    assert!(verdict(&get(second, "/e").await).starts_with("hit; ttl"));
    let off = proxy.listener("off").await;
    for _ in 0..2 {
        assert_eq!(verdict(&get(off, "/a").await), "fwd=bypass; fwd-status=200");
    }
}

#[tokio::test]
async fn a_crowd_makes_one_request_and_who_leads_it_may_leave() {
    let origin = Origin::http1("one").await;
    let (proxy, address) = cached(&origin, json!({})).await;
    let crowd = async |path: &'static str, size: usize| {
        let asking = (0..size).map(|_| tokio::spawn(async move { get(address, path).await }));
        asking.collect::<Vec<_>>()
    };
    let answers = async |asking: Vec<tokio::task::JoinHandle<Answer>>| {
        let mut verdicts = Vec::new();
        for answer in asking {
            let answer = answer.await.unwrap();
            assert_eq!((answer.status, answer.body.len()), (200, 5_000));
            verdicts.push(verdict(&answer));
        }
        verdicts
    };
    let large = || Script::size(5_000).header("cache-control", "max-age=60");
    origin.script(Script { held_after: Some(1_000), ..large() });
    let asking = crowd("/a", 200).await;
    proxy.until_stat("http.in.downstream_rq_active", 200).await;
    origin.release();
    let verdicts = answers(asking).await;
    assert_eq!(origin.requests(), 1);
    let collapsed = verdicts.iter().filter(|v| *v == "fwd=uri-miss; collapsed").count();
    assert_eq!(collapsed, 199);
    assert_eq!(proxy.stat("http.in.cache.coalesced").await, 199);

    // The one that asks goes away, in the middle of the body or before there is a head: the others get what
    // it asked for.
    for (path, script) in [
        ("/b", Script { held_after: Some(1_000), ..large() }),
        ("/b2", Script { held: true, ..large() }),
    ] {
        let before = origin.requests();
        origin.script(script);
        let mut leader = Http1::connect(address).await;
        leader.send(&format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n")).await;
        origin.until_active(1).await;
        let asking = crowd(path, 50).await;
        proxy.until_stat("http.in.downstream_rq_active", 51).await;
        drop(leader);
        proxy.until_stat("http.in.downstream_cx_active", 50).await;
        origin.release();
        answers(asking).await;
        assert_eq!(origin.requests(), before + 1);
    }

    // What must not be stored is asked for by each, and none waits for another's end.
    origin.script(Script { held: true, ..Script::size(5_000) });
    let asking = crowd("/c", 20).await;
    proxy.until_stat("http.in.downstream_rq_active", 20).await;
    origin.until_active(1).await;
    origin.release();
    origin.until_active(19).await;
    origin.release();
    answers(asking).await;
    assert_eq!(origin.requests(), 23, "three that were stored, and each of these");
}
