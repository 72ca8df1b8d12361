//! Sessions: a client stays on its host, by its own id or by the address that it was given, and what
//! happens to that when hosts go, configuration changes and tables are full.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::harness::resources::{
    assignment, bootstrap, eds_cluster, filter, hcm, listener_of, rds, rds_listener, route, router,
    static_cluster, table, to, typed, with,
};
use crate::harness::{Answer, Kind, Origin, Proxy, delta, eventually, nack_of, request};
use crate::xds_world::World;

const SESSION: &str = "nuncio.extensions.filters.http.session.v1.Session";
const STATEFUL: &str = "envoy.extensions.filters.http.stateful_session.v3.StatefulSession";

fn session(fields: Value) -> Value {
    filter("session", SESSION, fields)
}

fn by_header(strict: bool) -> Value {
    let kind = "envoy.extensions.http.stateful_session.header.v3.HeaderBasedSessionState";
    let state =
        json!({ "name": "header", "typed_config": typed(kind, json!({ "name": "x-host" })) });
    filter("sticky", STATEFUL, json!({ "session_state": state, "strict": strict }))
}

fn filtered(routes: Value, first: Value) -> Value {
    listener_of("in", hcm(routes, json!({ "http_filters": [first, router()] })))
}

async fn ask(address: SocketAddr, headers: &[(&str, &str)]) -> Answer {
    request(address, "GET", "/", headers, b"").await
}

/// A proxy before three origins, all of the cluster `one`.
async fn three(first: Value) -> (Proxy, SocketAddr, [Origin; 3]) {
    let origins = [Origin::http1("a").await, Origin::http1("b").await, Origin::http1("c").await];
    let addresses: Vec<_> = origins.iter().map(|origin| origin.address).collect();
    let routes = json!({ "route_config": table("table", &[to("one")]) });
    let cluster = static_cluster("one", &addresses);
    let proxy = Proxy::with(bootstrap(&[filtered(routes, first)], &[cluster])).await;
    let address = proxy.listener("in").await;
    (proxy, address, origins)
}

#[tokio::test]
async fn a_session_id_of_the_clients_choice_stays_on_its_host() {
    let names = json!({ "header_name": "X-Session-ID", "cookie_name": "sid" });
    let (proxy, address, _origins) = three(session(names)).await;
    let mut hosts = Vec::new();
    for id in 0..12 {
        let id = format!("user-{id}");
        let first = ask(address, &[("x-session-id", &id)]).await;
        assert_eq!(first.header("set-cookie"), "", "the client has an id already");
        for _ in 0..5 {
            assert_eq!(ask(address, &[("x-session-id", &id)]).await.text(), first.text());
        }
        hosts.push(first.text());
    }
    hosts.sort();
    hosts.dedup();
    assert_eq!(hosts.len(), 3, "sessions are spread");
    assert_eq!(proxy.stat("http.in.session.created").await, 12);
    assert_eq!(proxy.stat("http.in.session.pinned").await, 60);
    assert_eq!(proxy.stat("http.in.session.active").await, 12);
}

#[tokio::test]
async fn a_client_without_an_id_gets_a_cookie_and_is_known_by_it() {
    let (_proxy, address, _origins) = three(session(json!({ "cookie_name": "sid" }))).await;
    let first = ask(address, &[]).await;
    let cookie = first.header("set-cookie").to_owned();
    let (pair, attributes) = cookie.split_once(';').unwrap();
    assert!(pair.starts_with("sid=") && attributes == " Path=/; HttpOnly", "{cookie}");
    for _ in 0..8 {
        let again = ask(address, &[("cookie", &format!("x=y; {pair}"))]).await;
        assert_eq!((again.text(), again.header("set-cookie")), (first.text(), ""));
    }
    let other = ask(address, &[]).await;
    assert_ne!(other.header("set-cookie"), cookie);
    // What is no id is treated as none.
    let long = format!("sid={}", "x".repeat(300));
    assert!(ask(address, &[("cookie", &long)]).await.header("set-cookie").starts_with("sid="));
}

#[tokio::test]
async fn a_session_goes_on_elsewhere_when_its_host_is_gone_and_outlives_changes() {
    let mut world = World::delta().await;
    let (a, b) = (Origin::http1("a").await, Origin::http1("b").await);
    let listener = |most: u32| {
        let bounds = json!({ "header_name": "x-id", "max_sessions": most });
        filtered(rds("table"), session(bounds))
    };
    let endpoints = |of: &[&Origin]| {
        let addresses: Vec<_> = of.iter().map(|origin| origin.address).collect();
        assignment("one", &addresses)
    };
    world.push(Kind::Endpoints, "2", &[endpoints(&[&a, &b])], &[]).await;
    world.push(Kind::Listener, "2", &[listener(100)], &[]).await;
    let created = "http.in.session.created";
    let pinned = async |world: &World<_>| ask(world.address, &[("x-id", "me")]).await.text();
    eventually("the new listener serves", async || {
        pinned(&world).await;
        (world.proxy.find_stat(created).await == Some(1)).then_some(())
    })
    .await;
    let mine = pinned(&world).await;
    // Another version of the listener has the same table.
    world.push(Kind::Listener, "3", &[listener(200)], &[]).await;
    for _ in 0..10 {
        assert_eq!(pinned(&world).await, mine);
    }
    let (left, right) = if mine == "a" { (&b, "b") } else { (&a, "a") };
    world.push(Kind::Endpoints, "3", &[endpoints(&[left])], &[]).await;
    eventually("the session moved", async || (pinned(&world).await == right).then_some(())).await;
    assert_eq!(world.proxy.stat("http.in.session.repinned").await, 1);
    // It stays where it went when the first one comes back.
    world.push(Kind::Endpoints, "4", &[endpoints(&[&a, &b])], &[]).await;
    world.proxy.until_stat("cluster.one.membership_total", 2).await;
    for _ in 0..10 {
        assert_eq!(pinned(&world).await, right);
    }
    assert_eq!(world.proxy.stat(created).await, 1);
}

#[tokio::test]
async fn sessions_end_by_idleness_and_a_full_table_forgets() {
    let short = json!({ "header_name": "x-id", "duration": "0.3s", "max_sessions": 5 });
    let (proxy, address, _origins) = three(session(short)).await;
    for id in 0..40 {
        ask(address, &[("x-id", &id.to_string())]).await;
        assert!(proxy.stat("http.in.session.active").await <= 5);
    }
    let expired = "http.in.session.expired";
    ask(address, &[("x-id", "39")]).await;
    eventually("the session is over", async || {
        crate::harness::pace(std::time::Duration::from_millis(400)).await;
        ask(address, &[("x-id", "39")]).await;
        (proxy.stat(expired).await >= 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_client_that_holds_its_hosts_address_goes_there_or_if_strict_nowhere() {
    let (proxy, address, origins) = three(by_header(false)).await;
    let first = ask(address, &[]).await;
    let held = first.header("x-host").to_owned();
    for _ in 0..6 {
        let again = ask(address, &[("x-host", &held)]).await;
        assert_eq!((again.text(), again.header("x-host")), (first.text(), ""));
    }
    assert_eq!(proxy.stat("http.in.stateful_session.routed").await, 6);
    for rubbish in ["%%%", "bm90IGFuIGFkZHJlc3M=", "MTAuMC4wLjE6MQ=="] {
        let answer = ask(address, &[("x-host", rubbish)]).await;
        assert_eq!(answer.status, 200, "{rubbish}");
        assert_ne!(answer.header("x-host"), "", "it is told a host that there is");
    }
    drop(origins);
    let (strict, address, _origins) = three(by_header(true)).await;
    let answer = ask(address, &[("x-host", "MTAuMC4wLjE6MQ==")]).await;
    assert_eq!((answer.status, answer.text().as_str()), (503, "no healthy upstream"));
    assert_eq!(strict.stat("http.in.stateful_session.failed_closed").await, 1);
}

#[tokio::test]
async fn a_session_without_a_name_is_refused_and_a_route_may_do_without() {
    let mut world = World::delta().await;
    for (config, part) in [
        (json!({}), "cookie_name"),
        (json!({ "header_name": "a b" }), "header_name"),
        (json!({ "header_name": "x", "max_sessions": 0 }), "max_sessions"),
        (json!({ "header_name": "x", "duration": "0s" }), "duration"),
    ] {
        let listener = filtered(rds("table"), session(config));
        world.stream.respond(delta(Kind::Listener, "2", &[listener], &[])).await;
        let (_, faults) = nack_of(&mut world.stream, Kind::Listener, "2").await;
        assert!(faults.contains(part), "{part}: {faults}");
    }
    world.push(Kind::Listener, "3", &[rds_listener("in", "table")], &[]).await;
    let off = json!({ "session": { "@type":
        "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": true } });
    let routes = [
        with(route("/off", json!({ "cluster": "one" })), json!({ "typed_per_filter_config": off })),
        to("one"),
    ];
    world.push(Kind::Routes, "3", &[table("table", &routes)], &[]).await;
    world.push(Kind::Cluster, "3", &[eds_cluster("one")], &[]).await;
    let listener = filtered(rds("table"), session(json!({ "cookie_name": "sid" })));
    world.push(Kind::Listener, "4", &[listener], &[]).await;
    eventually("sessions are made", async || {
        let answer = crate::harness::get(world.address, "/").await;
        answer.header("set-cookie").starts_with("sid=").then_some(())
    })
    .await;
    assert_eq!(crate::harness::get(world.address, "/off").await.header("set-cookie"), "");
}
