//! Delta: single resources come and go, and a new stream starts from what is here.

use serde_json::json;

use crate::harness::resources::{
    assignment, eds_cluster, rds_listener, route, static_cluster, table, to, with,
};
use crate::harness::{Kind, Management, Origin, ack_of, delta, get, nack_of, pace};
use crate::xds_world::World;

#[tokio::test]
async fn single_resources_come_and_go() {
    let mut world = World::delta().await;
    let other = Origin::http1("other").await;
    world.push(Kind::Cluster, "2", &[static_cluster("two", &[other.address])], &[]).await;
    let routes = [route("/two", json!({ "cluster": "two" })), to("one")];
    world.push(Kind::Routes, "2", &[table("table", &routes)], &[]).await;
    world.until_answers("/two", "other").await;
    assert_eq!(get(world.address, "/").await.text(), "one", "what was not named stays");

    world.push(Kind::Cluster, "3", &[], &["two", "never-was"]).await;
    world.until_status("/two", 503).await;
    assert_eq!(get(world.address, "/").await.text(), "one");
    assert_eq!(world.proxy.stat("cluster_manager.cluster_removed").await, 1);

    world.push(Kind::Endpoints, "2", &[assignment("one", &[other.address])], &[]).await;
    world.until_answers("/", "other").await;
}

#[tokio::test]
async fn good_siblings_live_and_bad_ones_are_named() {
    let mut world = World::delta().await;
    let resources = [
        static_cluster("good", &[world.origin.address]),
        with(static_cluster("bad", &[]), json!({ "lb_policy": "CLUSTER_PROVIDED" })),
    ];
    world.stream.respond(delta(Kind::Cluster, "2", &resources, &[])).await;
    let (nack, text) = nack_of(&mut world.stream, Kind::Cluster, "2").await;
    assert!(text.contains("Cluster \"bad\": lb_policy") && !text.contains("good"), "{text}");
    assert!(nack.resource_names_subscribe.is_empty());
    let routes = [route("/good", json!({ "cluster": "good" })), to("one")];
    world.push(Kind::Routes, "2", &[table("table", &routes)], &[]).await;
    world.until_answers("/good", "one").await;
    crate::harness::eventually("the good cluster is asked", async || {
        get(world.address, "/good").await;
        world.proxy.find_stat("cluster.good.upstream_rq_total").await.filter(|n| *n >= 1)
    })
    .await;
    assert!(world.proxy.stat("cluster.good.upstream_rq_total").await >= 1);

    // A new stream says what is here; what was refused is not, or it would never come again.
    world.stream.fail(tonic::Status::unavailable("restart")).await;
    world.stream = world.server.delta().await;
    let first = world.stream.request(Kind::Cluster).await;
    let mut held: Vec<_> = first.initial_resource_versions.into_iter().collect();
    held.sort();
    let expected = [("good", "2"), ("one", "1")].map(|(n, v)| (n.to_owned(), v.to_owned()));
    assert_eq!(held, expected);
    world.push(Kind::Cluster, "3", &[static_cluster("bad", &[world.origin.address])], &[]).await;
    world.push(Kind::Routes, "3", &[table("table", &[to("bad")])], &[]).await;
    world.until_answers("/", "one").await;
}

#[tokio::test]
async fn a_broken_constraint_refuses_the_whole_response() {
    let mut world = World::delta().await;
    let resources = [
        static_cluster("good", &[world.origin.address]),
        with(static_cluster("bad", &[]), json!({ "connect_timeout": "-1s" })),
    ];
    world.stream.respond(delta(Kind::Cluster, "2", &resources, &[])).await;
    let (_, text) = nack_of(&mut world.stream, Kind::Cluster, "2").await;
    assert!(text.contains("Cluster \"bad\": connect_timeout"), "{text}");
    world
        .push(
            Kind::Routes,
            "2",
            &[table("table", &[route("/good", json!({ "cluster": "good" })), to("one")])],
            &[],
        )
        .await;
    world.until_status("/good", 503).await;
    assert_eq!(get(world.address, "/").await.text(), "one");
}

#[tokio::test]
async fn names_are_subscribed_and_let_go_one_by_one() {
    let mut world = World::delta().await;
    world.push(Kind::Cluster, "2", &[eds_cluster("two")], &[]).await;
    let wanted = world.stream.request(Kind::Endpoints).await;
    assert_eq!(wanted.resource_names_subscribe, ["two"]);
    assert!(wanted.resource_names_unsubscribe.is_empty() && wanted.response_nonce.is_empty());
    assert!(wanted.initial_resource_versions.is_empty(), "not the first of its type");
    world.push(Kind::Endpoints, "2", &[assignment("two", &[world.origin.address])], &[]).await;
    world.push(Kind::Cluster, "3", &[], &["two"]).await;
    let gone = world.stream.request(Kind::Endpoints).await;
    assert_eq!(gone.resource_names_unsubscribe, ["two"]);
    assert!(gone.resource_names_subscribe.is_empty() && gone.response_nonce.is_empty());

    // The same name again is subscribed anew, and must be sent anew.
    world.push(Kind::Cluster, "4", &[eds_cluster("two")], &[]).await;
    assert_eq!(world.stream.request(Kind::Endpoints).await.resource_names_subscribe, ["two"]);
    world.push(Kind::Endpoints, "2", &[assignment("two", &[world.origin.address])], &[]).await;
    world.push(Kind::Routes, "2", &[table("table", &[to("two")])], &[]).await;
    world.until_answers("/", "one").await;

    world.push(Kind::Listener, "2", &[], &["in"]).await;
    assert_eq!(world.stream.request(Kind::Routes).await.resource_names_unsubscribe, ["table"]);
}

#[tokio::test]
async fn a_name_that_does_not_exist_ends_the_wait_for_it() {
    let mut world = World::delta().await;
    let mut listener = rds_listener("in", "missing");
    listener["filter_chains"][0]["filters"][0]["typed_config"]["rds"]["config_source"]["initial_fetch_timeout"] =
        json!("0s");
    world.push(Kind::Listener, "2", &[listener], &[]).await;
    assert_eq!(world.stream.request(Kind::Routes).await.resource_names_subscribe, ["missing"]);
    assert_eq!(get(world.address, "/").await.text(), "one");
    world.push(Kind::Routes, "2", &[], &["missing"]).await;
    world.until_status("/", 404).await;
    world.proxy.until_stat("listener_manager.total_listeners_warming", 0).await;

    let mut cluster = eds_cluster("gone");
    cluster["eds_cluster_config"]["eds_config"]["initial_fetch_timeout"] = json!("0s");
    world.push(Kind::Cluster, "2", &[cluster], &[]).await;
    world.proxy.until_stat("cluster_manager.warming_clusters", 1).await;
    world.push(Kind::Endpoints, "2", &[], &["gone"]).await;
    world.proxy.until_stat("cluster_manager.warming_clusters", 0).await;
}

#[tokio::test]
async fn a_new_stream_starts_from_what_is_here() {
    let mut world = World::delta().await;
    world.push(Kind::Endpoints, "5", &[assignment("one", &[world.origin.address])], &[]).await;
    let address = world.server.address;
    world.server = Management::at(([127, 0, 0, 1], 0).into()).await;
    world.proxy.until_stat("control_plane.connected_state", 0).await;
    assert_eq!(get(world.address, "/").await.text(), "one");
    world.server = Management::at(address).await;
    world.stream = world.server.delta().await;
    let expected = [
        (Kind::Cluster, "one", "1"),
        (Kind::Endpoints, "one", "5"),
        (Kind::Listener, "in", "1"),
        (Kind::Routes, "table", "1"),
    ];
    for (kind, name, version) in expected {
        let first = world.stream.request(kind).await;
        assert!(first.response_nonce.is_empty(), "{kind:?}");
        let held: Vec<_> = first.initial_resource_versions.into_iter().collect();
        assert_eq!(held, [(name.to_owned(), version.to_owned())], "{kind:?}");
        if matches!(kind, Kind::Endpoints | Kind::Routes) {
            assert_eq!(first.resource_names_subscribe, [name], "{kind:?}");
        }
    }
    // Only what changed comes; the first answer of the new stream may remove.
    world.push(Kind::Listener, "2", &[], &["in"]).await;
    world.proxy.until_stat("listener_manager.listener_removed", 1).await;
}

#[tokio::test]
async fn resources_live_as_long_as_they_are_told() {
    let mut world = World::delta().await;
    let ttl =
        |response: &mut nuncio::proto::envoy::service::discovery::v3::DeltaDiscoveryResponse| {
            response.resources[0].ttl =
                Some(prost_types::Duration { seconds: 0, nanos: 800_000_000 });
        };
    let mut response =
        delta(Kind::Endpoints, "2", &[assignment("one", &[world.origin.address])], &[]);
    ttl(&mut response);
    world.stream.respond(response.clone()).await;
    ack_of(&mut world.stream, Kind::Endpoints, "2").await;
    let before = world.proxy.stat("cluster.one.update_success").await;
    assert!(before >= 1, "endpoints came");
    for beat in 0..4 {
        pace(std::time::Duration::from_millis(300)).await;
        let mut heartbeat = response.clone();
        heartbeat.resources[0].resource = None;
        heartbeat.nonce = format!("Endpoints-beat-{beat}");
        world.stream.respond(heartbeat).await;
        ack_of(&mut world.stream, Kind::Endpoints, &format!("beat-{beat}")).await;
        assert_eq!(get(world.address, "/").await.text(), "one");
    }
    assert_eq!(world.proxy.stat("cluster.one.update_success").await, before, "no updates");
    world.until_status("/", 503).await;
}

#[tokio::test]
async fn one_endpoint_changes_one_cluster_only() {
    let mut world = World::delta().await;
    let clusters: Vec<_> = (0..50).map(|n| eds_cluster(&format!("c{n}"))).collect();
    let names: Vec<_> = (0..50).map(|n| format!("c{n}")).collect();
    world.push(Kind::Cluster, "2", &clusters, &[]).await;
    let mut wanted = world.stream.request(Kind::Endpoints).await.resource_names_subscribe;
    wanted.sort();
    let mut sorted = names.clone();
    sorted.sort();
    assert_eq!(wanted, sorted, "in one request");
    let all: Vec<_> = names.iter().map(|name| assignment(name, &[world.origin.address])).collect();
    world.push(Kind::Endpoints, "2", &all, &[]).await;
    world.proxy.until_stat("cluster_manager.warming_clusters", 0).await;
    let other = Origin::http1("other").await;
    world.push(Kind::Endpoints, "3", &[assignment("c7", &[other.address])], &[]).await;
    let routes = [route("/7", json!({ "cluster": "c7" })), route("/8", json!({ "cluster": "c8" }))];
    world.push(Kind::Routes, "2", &[table("table", &routes)], &[]).await;
    world.until_answers("/7", "other").await;
    assert_eq!(get(world.address, "/8").await.text(), "one");
}
