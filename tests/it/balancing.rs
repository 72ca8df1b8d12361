//! Balancing: what of a request decides where it goes, and what happens to that while hosts change.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::harness::resources::{
    assignment, bootstrap, eds_cluster, endpoint, listener, route, static_cluster, table, with,
};
use crate::harness::{Http1, Kind, Origin, Proxy, eventually};
use crate::xds_world::World;

async fn origins(names: &[&str]) -> Vec<Origin> {
    let mut origins = Vec::new();
    for name in names {
        origins.push(Origin::http1(name).await);
    }
    origins
}

fn addresses(origins: &[Origin]) -> Vec<std::net::SocketAddr> {
    origins.iter().map(|origin| origin.address).collect()
}

/// A route by these hash policies.
fn hashed(prefix: &str, cluster: &str, policies: Value) -> Value {
    route(prefix, json!({ "cluster": cluster, "hash_policy": policies }))
}

/// Who answers a request for `path` with these header lines.
async fn answer(client: &mut Http1, path: &str, headers: &str) -> String {
    client.send(&format!("GET {path} HTTP/1.1\r\nhost: t\r\n{headers}\r\n")).await;
    client.answer().await.text()
}

#[tokio::test]
async fn what_a_request_has_decides_where_it_goes() {
    let origins = origins(&["a", "b", "c"]).await;
    let ring = with(
        static_cluster("ring", &addresses(&origins)),
        json!({ "lb_policy": "RING_HASH", "ring_hash_lb_config": { "minimum_ring_size": 1024 } }),
    );
    let maglev =
        with(static_cluster("maglev", &addresses(&origins)), json!({ "lb_policy": "MAGLEV" }));
    let by_user = json!([{ "header": { "header_name": "x-user" } }]);
    let by_key = json!([{ "query_parameter": { "name": "k" } }]);
    let routes = [hashed("/user", "ring", by_user), hashed("/key", "maglev", by_key)];
    let proxy = Proxy::with(bootstrap(&[listener("in", &routes)], &[ring, maglev])).await;
    let address = proxy.listener("in").await;
    let mut shares = BTreeMap::<_, u32>::new();
    for user in 0..60 {
        let (path, headers) = (format!("/key?k={user}"), format!("x-user: {user}\r\n"));
        let mut client = Http1::connect(address).await;
        let by_header = answer(&mut client, "/user", &headers).await;
        let by_key = answer(&mut client, &path, "").await;
        for name in [&by_header, &by_key] {
            *shares.entry(name.clone()).or_default() += 1;
        }
        // Another connection may be another worker's.
        let mut client = Http1::connect(address).await;
        assert_eq!(answer(&mut client, "/user", &headers).await, by_header);
        assert_eq!(answer(&mut client, &path, "").await, by_key);
    }
    assert!(shares.len() == 3 && shares.values().all(|n| *n >= 10), "{shares:?}");
    // Without what should decide, chance does.
    let mut client = Http1::connect(address).await;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..100 {
        seen.insert(answer(&mut client, "/user", "").await);
    }
    assert_eq!(seen.len(), 3);
}

#[tokio::test]
async fn a_client_is_given_the_cookie_that_keeps_it_where_it_is() {
    let origins = origins(&["a", "b", "c"]).await;
    let cluster =
        with(static_cluster("ring", &addresses(&origins)), json!({ "lb_policy": "RING_HASH" }));
    let cookie = json!([{ "cookie": { "name": "sid", "ttl": "60s", "path": "/" } }]);
    let routes = [hashed("/", "ring", cookie)];
    let proxy = Proxy::with(bootstrap(&[listener("in", &routes)], &[cluster])).await;
    let mut client = Http1::connect(proxy.listener("in").await).await;
    for _ in 0..10 {
        let first = client.get("/").await;
        let given = first.header("set-cookie").to_owned();
        let (cookie, attributes) = given.split_once(';').unwrap();
        assert_eq!(attributes, " Max-Age=60; Path=/; HttpOnly");
        for _ in 0..5 {
            client.send(&format!("GET / HTTP/1.1\r\nhost: t\r\ncookie: {cookie}\r\n\r\n")).await;
            let again = client.answer().await;
            assert_eq!(again.text(), first.text());
            assert_eq!(again.header("set-cookie"), "", "it has one");
        }
    }
}

#[tokio::test]
async fn localities_share_by_weight_and_a_locality_that_is_lost_loses_its_share() {
    let mut world = World::sotw().await;
    let all = origins(&["a", "b", "c"]).await;
    let cluster = with(
        eds_cluster("near"),
        json!({ "common_lb_config": { "locality_weighted_lb_config": {} } }),
    );
    world.push(Kind::Cluster, "2", &[eds_cluster("one"), cluster]).await;
    let locality = |zone: &str, weight: u32, origins: &[Origin], status: &str| {
        let hosts: Vec<_> = addresses(origins)
            .into_iter()
            .map(|address| with(endpoint(address), json!({ "health_status": status })))
            .collect();
        json!({ "locality": { "zone": zone }, "load_balancing_weight": weight, "lb_endpoints": hosts })
    };
    let endpoints = |status: &str| {
        json!({ "cluster_name": "near", "endpoints": [
            locality("z1", 1, &all[..2], "HEALTHY"), locality("z2", 3, &all[2..], status),
        ] })
    };
    world.push(Kind::Endpoints, "2", &[endpoints("HEALTHY")]).await;
    let routes = [route("/", json!({ "cluster": "near" }))];
    world.push(Kind::Routes, "2", &[table("table", &routes)]).await;
    let mut client = Http1::connect(world.address).await;
    eventually("the route is there", async || {
        (client.get("/").await.text() != "one").then_some(())
    })
    .await;
    let shares = async |client: &mut Http1| {
        let mut shares = [0; 3];
        for _ in 0..80 {
            let text = client.get("/").await.text();
            shares["abc".find(&text).unwrap()] += 1;
        }
        shares
    };
    assert_eq!(shares(&mut client).await, [10, 10, 60], "not by the number of hosts");
    world.push(Kind::Endpoints, "3", &[endpoints("UNHEALTHY")]).await;
    world.proxy.until_stat("cluster.near.membership_healthy", 2).await;
    assert_eq!(shares(&mut client).await, [40, 40, 0]);
}

#[tokio::test]
async fn while_hosts_change_most_stay_where_they_are_and_none_is_lost() {
    let mut world = World::sotw().await;
    let all = origins(&["a", "b", "c", "d"]).await;
    let cluster = with(eds_cluster("ring"), json!({ "lb_policy": "RING_HASH" }));
    world.push(Kind::Cluster, "2", &[eds_cluster("one"), cluster]).await;
    let three = assignment("ring", &addresses(&all[..3]));
    world.push(Kind::Endpoints, "2", &[three]).await;
    let by_user = json!([{ "header": { "header_name": "x-user" } }]);
    let routes = [hashed("/", "ring", by_user)];
    world.push(Kind::Routes, "2", &[table("table", &routes)]).await;
    let mut client = Http1::connect(world.address).await;
    eventually("the route is there", async || {
        (answer(&mut client, "/", "x-user: 0\r\n").await != "one").then_some(())
    })
    .await;
    let mut before = Vec::new();
    for user in 0..100 {
        before.push(answer(&mut client, "/", &format!("x-user: {user}\r\n")).await);
    }
    world.push(Kind::Endpoints, "3", &[assignment("ring", &addresses(&all))]).await;
    world.proxy.until_stat("cluster.ring.membership_total", 4).await;
    let mut moved = 0;
    for (user, before) in before.iter().enumerate() {
        let after = answer(&mut client, "/", &format!("x-user: {user}\r\n")).await;
        assert!("abcd".contains(&after), "{after}");
        moved += u32::from(after != *before);
    }
    assert!((5..60).contains(&moved), "{moved} of 100 moved, when a quarter should");
}

/// An endpoint with metadata for load balancing.
fn labelled(origin: &Origin, labels: Value) -> Value {
    with(
        endpoint(origin.address),
        json!({ "metadata": { "filter_metadata": { "envoy.lb": labels } } }),
    )
}

fn wanting(prefix: &str, cluster: &str, labels: Value) -> Value {
    let wanted = json!({ "filter_metadata": { "envoy.lb": labels } });
    route(prefix, json!({ "cluster": cluster, "metadata_match": wanted }))
}

#[tokio::test]
async fn a_route_has_its_subset_and_loses_it_with_the_last_endpoint() {
    let mut world = World::sotw().await;
    let (v1, v2) = (Origin::http1("v1").await, Origin::http1("v2").await);
    let subsets = json!({ "lb_subset_config": { "fallback_policy": "DEFAULT_SUBSET",
        "default_subset": { "version": "1" }, "subset_selectors": [{ "keys": ["version"] }] } });
    let clusters = [eds_cluster("one"), with(eds_cluster("two"), subsets)];
    let both = [
        labelled(&v1, json!({ "version": "1" })),
        labelled(&v2, json!({ "version": "2", "new": true })),
    ];
    let one = assignment("one", &[world.origin.address]);
    let two = |endpoints: &[Value]| json!({ "cluster_name": "two", "endpoints": [{ "lb_endpoints": endpoints }] });
    world.push(Kind::Cluster, "2", &clusters).await;
    world.push(Kind::Endpoints, "2", &[one.clone(), two(&both)]).await;
    let routes = [
        wanting("/v2", "two", json!({ "version": "2" })),
        wanting("/v3", "two", json!({ "version": "3" })),
        route("/", json!({ "cluster": "two" })),
    ];
    world.push(Kind::Routes, "2", &[table("table", &routes)]).await;
    world.until_answers("/v2", "v2").await;
    for (path, body) in [("/v2", "v2"), ("/v3", "v1"), ("/", "v1")] {
        for _ in 0..6 {
            assert_eq!(crate::harness::get(world.address, path).await.text(), body, "{path}");
        }
    }
    assert_eq!(world.proxy.stat("cluster.two.lb_subsets_active").await, 3);
    assert!(world.proxy.stat("cluster.two.lb_subsets_fallback").await >= 12);
    // The only one of version 2 becomes one of version 3; its connections stay.
    let before = v2.connections();
    let moved = [both[0].clone(), labelled(&v2, json!({ "version": "3" }))];
    world.push(Kind::Endpoints, "3", &[one, two(&moved)]).await;
    world.until_answers("/v3", "v2").await;
    assert_eq!(crate::harness::get(world.address, "/v2").await.text(), "v1");
    assert!(v2.connections() <= before + 1, "another worker at the most");
}

#[tokio::test]
async fn requests_stay_in_the_proxys_zone_until_its_hosts_are_gone() {
    let origins = origins(&["here", "there"]).await;
    let group = |zone: &str, address| json!({ "locality": { "zone": zone }, "lb_endpoints": [endpoint(address)] });
    let unused = |port: u16| std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let in_zones = |name: &str, a, b| json!({ "cluster_name": name, "endpoints": [group("a", a), group("b", b)] });
    let cluster = |name: &str, a, b| {
        let checks = json!({ "common_lb_config": {
            "zone_aware_lb_config": { "min_cluster_size": 1 } } });
        let assigned = json!({ "load_assignment": in_zones(name, a, b) });
        with(with(static_cluster(name, &[]), checks), assigned)
    };
    let clusters = [
        cluster("proxies", unused(1), unused(2)),
        cluster("one", origins[0].address, origins[1].address),
    ];
    let bootstrap = with(
        bootstrap(&[listener("in", &[route("/", json!({ "cluster": "one" }))])], &clusters),
        json!({ "cluster_manager": { "local_cluster_name": "proxies" } }),
    );
    let proxy =
        crate::harness::ProxyBuilder::new(bootstrap).args(["--service-zone", "a"]).ready().await;
    let address = proxy.listener("in").await;
    for _ in 0..10 {
        assert_eq!(crate::harness::get(address, "/").await.text(), "here");
    }
    assert_eq!(proxy.stat("cluster.one.lb_zone_routing_all_directly").await, 10);
}

#[tokio::test]
async fn endpoints_may_shed_load_and_may_become_stale() {
    let mut world = World::sotw().await;
    let assigned = |policy: Value, world: &World<_>| {
        with(assignment("one", &[world.origin.address]), json!({ "policy": policy }))
    };
    let drop = |share: u32| {
        json!({ "drop_overloads": [{ "category": "all",
            "drop_percentage": { "numerator": share, "denominator": "HUNDRED" } }] })
    };
    world.push(Kind::Endpoints, "2", &[assigned(drop(100), &world)]).await;
    let answer = crate::harness::get(world.address, "/").await;
    assert_eq!((answer.status, answer.header("x-envoy-drop-overload")), (503, "true"));
    assert_eq!(world.proxy.stat("cluster.one.upstream_rq_drop_overload").await, 1);
    world.push(Kind::Endpoints, "3", &[assigned(drop(50), &world)]).await;
    let mut dropped = 0;
    for _ in 0..200 {
        dropped += u32::from(crate::harness::get(world.address, "/").await.status == 503);
    }
    assert!((60..140).contains(&dropped), "{dropped}");

    let stale = json!({ "endpoint_stale_after": "0.5s" });
    world.push(Kind::Endpoints, "4", &[assigned(stale, &world)]).await;
    assert_eq!(crate::harness::get(world.address, "/").await.status, 200);
    world.until_status("/", 503).await;
    assert_eq!(world.proxy.stat("cluster.one.assignment_stale").await, 1);
    world.push(Kind::Endpoints, "5", &[assigned(json!({}), &world)]).await;
    world.until_answers("/", "one").await;
}

#[tokio::test]
async fn hosts_get_as_much_as_their_own_reports_say() {
    let (idle, busy) = (Origin::http1("idle").await, Origin::http1("busy").await);
    let reporting = |load: &str| {
        let report = format!("TEXT cpu_utilization={load},rps_fractional=90");
        crate::harness::Script::default().header("endpoint-load-metrics", &report)
    };
    idle.script(reporting("0.3"));
    busy.script(reporting("0.9"));
    let kind = "envoy.extensions.load_balancing_policies.client_side_weighted_round_robin.v3.\
                ClientSideWeightedRoundRobin";
    let config = json!({ "blackout_period": "0s", "weight_update_period": "0.1s",
        "weight_expiration_period": "1s" });
    let policy = json!({ "load_balancing_policy": { "policies": [{ "typed_extension_config": {
        "name": "weighted", "typed_config": crate::harness::resources::typed(kind, config) } }] } });
    let cluster = with(static_cluster("one", &[idle.address, busy.address]), policy);
    let routes = [route("/", json!({ "cluster": "one" }))];
    let proxy = Proxy::with(bootstrap(&[listener("in", &routes)], &[cluster])).await;
    let address = proxy.listener("in").await;
    let mut client = Http1::connect(address).await;
    let mut share = async || {
        let mut answered = 0;
        for _ in 0..40 {
            answered += u32::from(client.get("/").await.text() == "idle");
        }
        answered
    };
    eventually("weights are 300 to 100", async || (share().await == 30).then_some(())).await;
    // Without reports they are alike again.
    idle.script(crate::harness::Script::default());
    busy.script(crate::harness::Script::default());
    eventually("reports are forgotten", async || (share().await == 20).then_some(())).await;
}

#[tokio::test]
async fn turns_are_even_over_workers() {
    let origins = origins(&["a", "b", "c", "d"]).await;
    let cluster = static_cluster("one", &addresses(&origins));
    let routes = [route("/", json!({ "cluster": "one" }))];
    let proxy =
        crate::harness::ProxyBuilder::new(bootstrap(&[listener("in", &routes)], &[cluster]))
            .args(["--concurrency", "2"])
            .ready()
            .await;
    let address = proxy.listener("in").await;
    let clients = (0..20).map(|_| async move {
        let mut client = Http1::connect(address).await;
        for _ in 0..200 {
            assert_eq!(client.get("/").await.status, 200);
        }
    });
    futures_util::future::join_all(clients).await;
    for origin in &origins {
        let share = origin.requests();
        assert!((990..=1_010).contains(&share), "{share} of 4000");
    }
}
