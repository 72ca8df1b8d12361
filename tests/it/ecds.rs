//! Configurations of filters that are resources of their own: they change under open connections,
//! without a new version of the listener.

#[cfg(test)]
mod refused;
#[cfg(test)]
mod start;

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::harness::resources::{
    ads, assignment, hcm, listener_of, rds, route, router, static_cluster, table, to, typed, with,
};
use crate::harness::scripted::Delta;
use crate::harness::{
    Http1, Http2, Kind, Origin, Script, ack_of, delta, eventually, get, request, sotw,
};
use crate::xds_world::World;

const MUTATION: &str = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation";
const BUFFER: &str = "envoy.extensions.filters.http.buffer.v3.Buffer";
const CACHE: &str = "nuncio.extensions.filters.http.cache.v1.Cache";
const SESSION: &str = "nuncio.extensions.filters.http.session.v1.Session";
const ROUTER: &str = "envoy.extensions.filters.http.router.v3.Router";

/// A cell of the extension `policy`.
fn cell(name: &str) -> String {
    format!("extension_config_discovery.http_filter.policy.{name}")
}

/// Has every response say `x-policy: VALUE`.
fn says(value: &str) -> Value {
    let header = json!({ "header": { "key": "x-policy", "value": value } });
    typed(MUTATION, json!({ "mutations": { "response_mutations": [{ "append": header }] } }))
}

/// The resource `policy`.
fn policy(config: Value) -> Value {
    json!({ "name": "policy", "typed_config": config })
}

/// The filter `policy`, discovered over the aggregated stream; it may be of these types.
fn discovered(kinds: &[&str], more: Value) -> Value {
    let urls: Vec<_> = kinds.iter().map(|kind| format!("type.googleapis.com/{kind}")).collect();
    let source = json!({ "config_source": ads(), "type_urls": urls });
    json!({ "name": "policy", "config_discovery": with(source, more) })
}

/// The listener `in` of the world, with these filters before the router.
fn filtered(filters: &[Value]) -> Value {
    listener_named("in", filters)
}

fn listener_named(name: &str, filters: &[Value]) -> Value {
    let filters: Vec<_> = filters.iter().cloned().chain([router()]).collect();
    listener_of(name, hcm(rds("table"), json!({ "http_filters": filters })))
}

async fn says_now(address: SocketAddr) -> String {
    get(address, "/").await.header("x-policy").to_owned()
}

async fn until_says(address: SocketAddr, wanted: &str) {
    eventually(&format!("responses say {wanted:?}"), async || {
        (says_now(address).await == wanted).then_some(())
    })
    .await;
}

/// A world whose listener has this filter, with this configuration.
async fn world_with(filter: Value, config: Value) -> World<Delta> {
    let mut world = World::delta().await;
    world.stream.respond(delta(Kind::Listener, "2", &[filtered(&[filter])], &[])).await;
    let asked = world.stream.request(Kind::Extension).await;
    assert_eq!(asked.resource_names_subscribe, ["policy"]);
    world.push(Kind::Extension, "1", &[policy(config)], &[]).await;
    ack_of(&mut world.stream, Kind::Listener, "2").await;
    world.proxy.until_stat(&cell("config_reload"), 1).await;
    world
}

#[tokio::test]
async fn a_policy_changes_under_open_connections_and_requests_in_flight_keep_theirs() {
    let mut world = world_with(discovered(&[MUTATION], json!({})), says("one")).await;
    until_says(world.address, "one").await;
    let mut kept = Http1::connect(world.address).await;
    assert_eq!(kept.get("/").await.header("x-policy"), "one");
    let mut h2 = Http2::connect(world.address).await;
    assert_eq!(h2.get("/").await.header("x-policy"), "one");
    let asked = world.origin.requests();
    world.origin.script(Script::held());
    let mut in_flight = Http1::connect(world.address).await;
    in_flight.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    eventually("the request is at the origin", async || {
        (world.origin.requests() > asked).then_some(())
    })
    .await;

    world.origin.script(Script::default());
    world.push(Kind::Extension, "2", &[policy(says("two"))], &[]).await;
    // Each of the workers takes it up.
    for _ in 0..8 {
        until_says(world.address, "two").await;
    }
    eventually("the connection that stayed open has it", async || {
        (kept.get("/").await.header("x-policy") == "two").then_some(())
    })
    .await;
    eventually("so has the other", async || {
        (h2.get("/").await.header("x-policy") == "two").then_some(())
    })
    .await;
    world.origin.release();
    assert_eq!(in_flight.answer().await.header("x-policy"), "one");
    eventually("the next request of its connection uses the new one", async || {
        (in_flight.get("/").await.header("x-policy") == "two").then_some(())
    })
    .await;

    let proxy = &world.proxy;
    assert_eq!(proxy.stat("listener_manager.listener_modified").await, 1);
    assert_eq!(proxy.stat("http.in.downstream_cx_drain_close").await, 0);
    assert_eq!(proxy.stat(&cell("config_reload")).await, 2);
    assert_eq!(proxy.stat(&cell("update_success")).await, 2);
    let dump = proxy.admin_json("/config_dump?resource=ecds_filters").await;
    let shown = &dump["configs"][0];
    assert_eq!(
        shown["@type"],
        "type.googleapis.com/envoy.admin.v3.EcdsConfigDump.EcdsFilterConfig"
    );
    assert_eq!((&shown["version_info"], &shown["client_status"]), (&json!("2"), &json!("ACKED")));
    assert_eq!(shown["ecds_filter"]["name"], "policy");
}

#[tokio::test]
async fn the_state_of_the_world_says_the_same() {
    let mut world = World::sotw().await;
    let listener = filtered(&[discovered(&[MUTATION], json!({}))]);
    world.stream.respond(sotw(Kind::Listener, "2", &[listener])).await;
    assert_eq!(world.stream.request(Kind::Extension).await.resource_names, ["policy"]);
    world.push(Kind::Extension, "1", &[policy(says("one"))]).await;
    until_says(world.address, "one").await;
    world.push(Kind::Extension, "2", &[policy(says("two"))]).await;
    until_says(world.address, "two").await;
    // Absence is no removal.
    world.push(Kind::Extension, "3", &[]).await;
    assert_eq!(says_now(world.address).await, "two");
    // What nobody names any more is given up.
    world.push(Kind::Listener, "3", &[filtered(&[])]).await;
    eventually("the name is given up", async || {
        world.stream.request(Kind::Extension).await.resource_names.is_empty().then_some(())
    })
    .await;
    until_says(world.address, "").await;
    assert!(world.proxy.find_stat(&cell("config_reload")).await.is_none());
}

#[tokio::test]
async fn sessions_outlive_a_change_of_their_policy() {
    let session =
        |most: u32| policy(typed(SESSION, json!({ "header_name": "x-id", "max_sessions": most })));
    let mut world =
        world_with(discovered(&[SESSION], json!({})), session(100)["typed_config"].clone()).await;
    let (a, b) = (Origin::http1("a").await, Origin::http1("b").await);
    let both = assignment("one", &[a.address, b.address]);
    world.push(Kind::Endpoints, "2", &[both], &[]).await;
    world.proxy.until_stat("cluster.one.membership_total", 2).await;
    let ask =
        async |id: &str| request(world.address, "GET", "/", &[("x-id", id)], b"").await.text();
    let mut hosts = Vec::new();
    for id in 0..20 {
        hosts.push(ask(&id.to_string()).await);
    }
    assert!(hosts.contains(&"a".to_owned()) && hosts.contains(&"b".to_owned()), "{hosts:?}");
    let created = world.proxy.stat("http.in.session.created").await;
    world.stream.respond(delta(Kind::Extension, "2", &[session(200)], &[])).await;
    ack_of(&mut world.stream, Kind::Extension, "2").await;
    world.proxy.until_stat(&cell("config_reload"), 2).await;
    for (id, host) in hosts.iter().enumerate() {
        assert_eq!(ask(&id.to_string()).await, *host);
    }
    assert_eq!(world.proxy.stat("http.in.session.created").await, created);
}

#[tokio::test]
async fn stored_responses_outlive_a_change_of_the_cache_policy() {
    let cache = |config: Value| typed(CACHE, config);
    let mut world = world_with(discovered(&[CACHE], json!({})), cache(json!({}))).await;
    world.origin.script(Script::default().header("cache-control", "max-age=60"));
    for path in ["/kept", "/excluded"] {
        eventually("it is stored", async || {
            get(world.address, path).await.header("cache-status").contains("hit").then_some(())
        })
        .await;
    }
    let asked = world.origin.requests();
    let stricter = cache(json!({ "excluded_paths": ["/excluded"] }));
    world.push(Kind::Extension, "2", &[policy(stricter)], &[]).await;
    eventually("the path is not answered from the store", async || {
        (!get(world.address, "/excluded").await.header("cache-status").contains("hit"))
            .then_some(())
    })
    .await;
    assert!(world.origin.requests() > asked);
    for _ in 0..8 {
        let kept = get(world.address, "/kept").await;
        assert!(kept.header("cache-status").contains("hit"), "{}", kept.header("cache-status"));
    }
}

#[tokio::test]
async fn what_the_server_takes_back_is_answered_500_until_it_is_there_again() {
    let mut world = world_with(discovered(&[MUTATION], json!({})), says("one")).await;
    until_says(world.address, "one").await;
    let mut kept = Http1::connect(world.address).await;
    world.push(Kind::Extension, "2", &[], &["policy"]).await;
    eventually("the filter fails closed", async || {
        (kept.get("/").await.status == 500).then_some(())
    })
    .await;
    let refused = get(world.address, "/").await;
    assert_eq!((refused.status, refused.text().as_str()), (500, ""));
    world.push(Kind::Extension, "3", &[policy(says("again"))], &[]).await;
    until_says(world.address, "again").await;
    assert_eq!(world.proxy.stat(&cell("config_reload")).await, 3);
}

#[tokio::test]
async fn two_listeners_share_one_name_and_one_subscription() {
    let mut world = world_with(discovered(&[MUTATION], json!({})), says("one")).await;
    let other = listener_named("other", &[discovered(&[MUTATION, BUFFER], json!({}))]);
    // It is known already, so nothing is waited for.
    world.push(Kind::Listener, "3", &[other], &[]).await;
    let second = world.proxy.new_listener("other").await;
    until_says(second, "one").await;
    world.push(Kind::Extension, "2", &[policy(says("two"))], &[]).await;
    until_says(world.address, "two").await;
    until_says(second, "two").await;
    // The name is given up with the last of them.
    world.push(Kind::Listener, "4", &[], &["other"]).await;
    world.push(Kind::Extension, "3", &[policy(says("three"))], &[]).await;
    until_says(world.address, "three").await;
    world.push(Kind::Listener, "5", &[filtered(&[])], &[]).await;
    let asked = world.stream.request(Kind::Extension).await;
    assert_eq!(asked.resource_names_unsubscribe, ["policy"]);
}

#[tokio::test]
async fn a_listener_that_takes_another_type_waits_for_it_while_the_old_one_serves() {
    let mut world = world_with(discovered(&[MUTATION], json!({})), says("one")).await;
    until_says(world.address, "one").await;
    let buffering = filtered(&[discovered(&[BUFFER], json!({}))]);
    world.push(Kind::Listener, "3", &[buffering], &[]).await;
    world.proxy.until_stat("listener_manager.total_listeners_warming", 1).await;
    assert_eq!(world.proxy.stat(&cell("config_conflict")).await, 1);
    assert_eq!(says_now(world.address).await, "one");
    let mut kept = Http1::connect(world.address).await;
    assert_eq!(kept.get("/").await.header("x-policy"), "one");
    let buffer = typed(BUFFER, json!({ "max_request_bytes": 4 }));
    world.push(Kind::Extension, "2", &[policy(buffer)], &[]).await;
    until_says(world.address, "").await;
    let long = request(world.address, "POST", "/", &[], b"12345").await;
    assert_eq!(long.status, 413);
    // What the old version cannot use does not touch it: its connections drain as they were.
    assert_eq!(kept.get("/").await.header("x-policy"), "one");
    assert_eq!(world.proxy.stat(&cell("config_fail")).await, 0);
}

#[tokio::test]
async fn routes_override_and_disable_what_is_discovered() {
    let filter = with(discovered(&[BUFFER], json!({})), json!({ "disabled": true }));
    let buffer = |most: u32| typed(BUFFER, json!({ "max_request_bytes": most }));
    let mut world = world_with(filter, buffer(4)).await;
    let with_override = |prefix: &str, config: Value| {
        let options = json!({ "typed_per_filter_config": { "policy": config } });
        with(route(prefix, json!({ "cluster": "one" })), options)
    };
    let flag = |config: Value| typed("envoy.config.route.v3.FilterConfig", config);
    let limit = typed(
        "envoy.extensions.filters.http.buffer.v3.BufferPerRoute",
        json!({ "buffer": { "max_request_bytes": 8 } }),
    );
    let routes = [
        with_override("/on", flag(json!({ "config": limit }))),
        with_override("/off", flag(json!({ "disabled": true }))),
        to("one"),
    ];
    world.push(Kind::Routes, "2", &[table("table", &routes)], &[]).await;
    let post = async |path: &str, bytes: usize| {
        request(world.address, "POST", path, &[], &vec![b'x'; bytes]).await.status
    };
    eventually("the routes are used", async || (post("/on", 9).await == 413).then_some(())).await;
    assert_eq!(post("/on", 8).await, 200);
    assert_eq!((post("/off", 9).await, post("/", 9).await), (200, 200));
    // Without a configuration, a request that the filter does not see is not refused.
    world.stream.respond(delta(Kind::Extension, "2", &[], &["policy"])).await;
    ack_of(&mut world.stream, Kind::Extension, "2").await;
    let post = async |path: &str| request(world.address, "POST", path, &[], b"").await.status;
    eventually("it fails closed", async || (post("/on").await == 500).then_some(())).await;
    assert_eq!((post("/off").await, post("/").await), (200, 200));
}

#[tokio::test]
async fn the_router_may_be_discovered_too() {
    let mut world = World::delta().await;
    let filters = json!({ "http_filters": [discovered(&[ROUTER, MUTATION], json!({}))] });
    let listener = listener_of("in", hcm(rds("table"), filters));
    world.stream.respond(delta(Kind::Listener, "2", &[listener], &[])).await;
    world.stream.request(Kind::Extension).await;
    let plain = typed(ROUTER, json!({}));
    world.push(Kind::Extension, "1", &[policy(plain)], &[]).await;
    ack_of(&mut world.stream, Kind::Listener, "2").await;
    world.proxy.until_stat(&cell("config_reload"), 1).await;
    let time = "x-envoy-upstream-service-time";
    assert_eq!(get(world.address, "/").await.text(), "one");
    let quiet = typed(ROUTER, json!({ "suppress_envoy_headers": true }));
    world.push(Kind::Extension, "2", &[policy(quiet)], &[]).await;
    eventually("the new router serves", async || {
        let answer = get(world.address, "/").await;
        (answer.status == 200 && answer.header(time).is_empty()).then_some(())
    })
    .await;
    // Other clusters than those at the start are known to it.
    let two = Origin::http1("two").await;
    world.push(Kind::Cluster, "2", &[static_cluster("two", &[two.address])], &[]).await;
    world.push(Kind::Routes, "2", &[table("table", &[to("two")])], &[]).await;
    world.until_answers("/", "two").await;
    world.push(Kind::Extension, "3", &[], &["policy"]).await;
    world.until_status("/", 500).await;
}
