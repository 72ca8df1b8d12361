//! State of the world: what is accepted, what is refused and how it is said, what goes and stays.

use nuncio::proto::envoy::service::discovery::v3::Resource;
use prost_types::Any;
use serde_json::json;

use crate::harness::resources::{
    any, assignment, eds_cluster, hcm, listener_at, rds, rds_listener, route, static_cluster,
    table, to, with,
};
use crate::harness::{Kind, Management, Origin, ack_of, get, nack_of, pace, sotw};
use crate::xds_world::World;

#[tokio::test]
async fn good_siblings_live_and_the_nack_names_each_bad_one() {
    let mut world = World::sotw().await;
    let other = Origin::http1("other").await;
    let clusters = [
        eds_cluster("one"),
        with(static_cluster("bad", &[]), json!({ "lb_policy": "CLUSTER_PROVIDED" })),
        static_cluster("good", &[other.address]),
        with(static_cluster("worse", &[]), json!({ "type": "ORIGINAL_DST" })),
    ];
    world.stream.respond(sotw(Kind::Cluster, "2", &clusters)).await;
    let (nack, text) = nack_of(&mut world.stream, Kind::Cluster, "2").await;
    assert_eq!(nack.version_info, "1", "the version in service is the earlier one");
    assert_eq!(nack.error_detail.unwrap().code, 3, "InvalidArgument");
    for part in ["Cluster \"bad\"", "lb_policy", "Cluster \"worse\"", "ORIGINAL_DST"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(!text.contains("\"good\"") && !text.contains("\"one\""), "{text}");
    let routes = [
        route("/good", json!({ "cluster": "good" })),
        route("/bad", json!({ "cluster": "bad" })),
        to("one"),
    ];
    world.push(Kind::Routes, "2", &[table("table", &routes)]).await;
    world.until_answers("/good", "other").await;
    assert_eq!(get(world.address, "/bad").await.status, 503);
    assert_eq!(get(world.address, "/").await.text(), "one");
    assert_eq!(world.proxy.stat("cluster_manager.cds.update_rejected").await, 1);
    let dump = world.proxy.admin_text("/config_dump").await;
    assert!(dump.contains("error_state") && dump.contains("lb_policy"), "{dump}");
    let log = world.proxy.until_log("Cluster \\\"bad\\\"").await;
    assert!(log.contains("WARN"), "{log}");
    // The next good set is accepted and forgets the errors.
    world.push(Kind::Cluster, "3", &[eds_cluster("one")]).await;
    assert!(!world.proxy.admin_text("/config_dump").await.contains("error_state"));
    assert_eq!(get(world.address, "/").await.text(), "one");
}

#[tokio::test]
async fn a_broken_constraint_refuses_the_whole_response() {
    let mut world = World::sotw().await;
    let clusters = [
        eds_cluster("one"),
        static_cluster("good", &[world.origin.address]),
        with(static_cluster("bad", &[]), json!({ "connect_timeout": "-1s" })),
    ];
    world.stream.respond(sotw(Kind::Cluster, "2", &clusters)).await;
    let (nack, text) = nack_of(&mut world.stream, Kind::Cluster, "2").await;
    assert_eq!(nack.version_info, "1");
    assert!(text.contains("Cluster \"bad\": connect_timeout"), "{text}");
    world
        .push(
            Kind::Routes,
            "2",
            &[table("table", &[route("/good", json!({ "cluster": "good" })), to("one")])],
        )
        .await;
    world.until_status("/good", 503).await;
    assert_eq!(get(world.address, "/").await.text(), "one");
    assert_eq!(
        world.proxy.stat("cluster_manager.active_clusters").await,
        2,
        "one and the server's"
    );
}

#[tokio::test]
async fn responses_that_contradict_themselves_are_refused() {
    let mut world = World::sotw().await;
    let twice = [eds_cluster("one"), eds_cluster("one")];
    world.stream.respond(sotw(Kind::Cluster, "twice", &twice)).await;
    let (nack, text) = nack_of(&mut world.stream, Kind::Cluster, "twice").await;
    assert!(text.contains("\"one\"") && nack.version_info == "1", "{text}");

    let mut mixed = sotw(Kind::Cluster, "mixed", &[eds_cluster("one")]);
    mixed.resources.push(any(Kind::Routes, &table("table", &[])));
    world.stream.respond(mixed).await;
    let (_, text) = nack_of(&mut world.stream, Kind::Cluster, "mixed").await;
    assert!(text.contains("RouteConfiguration"), "{text}");

    let mut torn = sotw(Kind::Cluster, "torn", &[eds_cluster("one")]);
    torn.resources.push(Any { type_url: Kind::Cluster.url(), value: vec![0xff; 9] });
    world.stream.respond(torn).await;
    nack_of(&mut world.stream, Kind::Cluster, "torn").await;
    assert_eq!(get(world.address, "/").await.text(), "one");
    world.push(Kind::Cluster, "2", &[eds_cluster("one")]).await;
    assert_eq!(world.proxy.stat("cluster_manager.cds.update_rejected").await, 3);
}

#[tokio::test]
async fn clusters_and_listeners_that_are_absent_go_endpoints_and_routes_stay() {
    let mut world = World::sotw().await;
    let (other, address) = (Origin::http1("other").await, world.address);
    // Endpoints of another cluster, and routes of another table: neither was asked for.
    world.push(Kind::Endpoints, "2", &[assignment("unknown", &[other.address])]).await;
    world.push(Kind::Routes, "2", &[table("unknown", &[])]).await;
    world.push(Kind::Endpoints, "3", &[]).await;
    world.push(Kind::Routes, "3", &[]).await;
    assert_eq!(get(address, "/").await.text(), "one");

    world.push(Kind::Listener, "2", &[]).await;
    world.proxy.until_stat("listener_manager.listener_removed", 1).await;
    crate::harness::eventually("the port is closed", async || {
        tokio::net::TcpStream::connect(address).await.is_err().then_some(())
    })
    .await;
    assert_eq!(world.proxy.find_listener("in").await, None);
    world.push(Kind::Cluster, "2", &[]).await;
    world.proxy.until_stat("cluster_manager.cluster_removed", 1).await;
    // Its counts live until the last worker has let go of it.
    crate::harness::eventually("the cluster's counts are gone", async || {
        world.proxy.find_stat("cluster.one.upstream_rq_total").await.is_none().then_some(())
    })
    .await;
}

#[tokio::test]
async fn names_wanted_follow_what_refers_to_them() {
    let mut world = World::sotw().await;
    let by_service = |name: &str, service: &str| {
        let mut cluster = eds_cluster(name);
        cluster["eds_cluster_config"]["service_name"] = json!(service);
        cluster
    };
    let clusters = [eds_cluster("one"), by_service("two", "shared"), by_service("three", "shared")];
    world.push(Kind::Cluster, "2", &clusters).await;
    let wanted = world.stream.request(Kind::Endpoints).await;
    let mut names = wanted.resource_names;
    names.sort();
    assert_eq!(names, ["one", "shared"], "the full list, each name once");
    assert_eq!((&*wanted.version_info, &*wanted.response_nonce), ("1", "Endpoints-1"));
    world.push(Kind::Endpoints, "2", &[assignment("shared", &[world.origin.address])]).await;

    // One user of the shared name goes: nothing changes. The second goes: the name goes.
    world.push(Kind::Cluster, "3", &[eds_cluster("one"), by_service("three", "shared")]).await;
    world.stream.nothing_of(Kind::Endpoints);
    world.push(Kind::Cluster, "4", &[eds_cluster("one")]).await;
    let wanted = world.stream.request(Kind::Endpoints).await;
    assert_eq!(wanted.resource_names, ["one"]);
    assert_eq!((&*wanted.version_info, &*wanted.response_nonce), ("2", "Endpoints-2"));

    let port = world.address.port();
    let listeners = [
        rds_listener("in", "table"),
        listener_at("second", 0, hcm(rds("other"), json!({ "stat_prefix": "second" }))),
    ];
    let _ = port;
    world.push(Kind::Listener, "2", &listeners).await;
    let mut names = world.stream.request(Kind::Routes).await.resource_names;
    names.sort();
    assert_eq!(names, ["other", "table"]);
    world.push(Kind::Listener, "3", &listeners[..1]).await;
    assert_eq!(world.stream.request(Kind::Routes).await.resource_names, ["table"]);
}

#[tokio::test]
async fn a_changed_cluster_serves_as_before_until_its_endpoints_come() {
    let mut world = World::sotw().await;
    let other = Origin::http1("other").await;
    let mut moved = eds_cluster("one");
    moved["eds_cluster_config"]["service_name"] = json!("elsewhere");
    moved["eds_cluster_config"]["eds_config"]["initial_fetch_timeout"] = json!("0s");
    world.push(Kind::Cluster, "2", &[moved.clone()]).await;
    assert_eq!(world.stream.request(Kind::Endpoints).await.resource_names.len(), 2);
    assert_eq!(world.proxy.stat("cluster_manager.warming_clusters").await, 1);
    for _ in 0..10 {
        assert_eq!(get(world.address, "/").await.text(), "one");
    }
    let response = sotw(Kind::Endpoints, "2", &[assignment("elsewhere", &[other.address])]);
    world.stream.respond(response).await;
    let mut names = ack_of(&mut world.stream, Kind::Endpoints, "2").await.resource_names;
    world.until_answers("/", "other").await;
    world.proxy.until_stat("cluster_manager.warming_clusters", 0).await;
    // The ACK may say already that the old name is wanted no more.
    if names.len() != 1 {
        names = world.stream.request(Kind::Endpoints).await.resource_names;
    }
    assert_eq!(names, ["elsewhere"]);

    // Servers often send no endpoints for a change that needs no others: those known are used.
    let timeout = json!("0.3s");
    moved["eds_cluster_config"]["eds_config"]["initial_fetch_timeout"] = timeout;
    world.push(Kind::Cluster, "3", &[with(moved, json!({ "connect_timeout": "3s" }))]).await;
    assert_eq!(world.proxy.stat("cluster_manager.cluster_modified").await, 2);
    assert_eq!(get(world.address, "/").await.text(), "other");
    world.proxy.until_stat("cluster_manager.warming_clusters", 0).await;
    for _ in 0..10 {
        assert_eq!(get(world.address, "/").await.text(), "other");
    }
}

#[tokio::test]
async fn a_changed_listener_serves_as_before_until_its_routes_come() {
    let mut world = World::sotw().await;
    world.push(Kind::Listener, "2", &[rds_listener("in", "new")]).await;
    let mut names = world.stream.request(Kind::Routes).await.resource_names;
    names.sort();
    assert_eq!(names, ["new", "table"]);
    assert_eq!(world.proxy.stat("listener_manager.total_listeners_warming").await, 1);
    for _ in 0..10 {
        assert_eq!(get(world.address, "/").await.text(), "one");
    }
    let direct = json!({ "match": { "prefix": "/" }, "direct_response": { "status": 200, "body": { "inline_string": "new" } } });
    world.push(Kind::Routes, "2", &[table("new", &[direct])]).await;
    world.until_answers("/", "new").await;
    assert_eq!(world.proxy.listener("in").await, world.address, "the port is kept");
    world.proxy.until_stat("listener_manager.listener_modified", 1).await;
}

#[tokio::test]
async fn what_belongs_to_another_resource_is_no_reason_to_refuse() {
    let mut world = World::sotw().await;
    let routes = [route("/later", json!({ "cluster": "later" })), to("one")];
    world.push(Kind::Routes, "2", &[table("table", &routes)]).await;
    world.until_status("/later", 503).await;
    let clusters = [eds_cluster("one"), static_cluster("later", &[world.origin.address])];
    world.push(Kind::Cluster, "2", &clusters).await;
    world.until_answers("/later", "one").await;
}

#[tokio::test]
async fn a_lost_server_changes_nothing_and_is_told_what_we_have() {
    let mut world = World::sotw().await;
    world.push(Kind::Routes, "7", &[table("table", &[to("one")])]).await;
    let address = world.server.address;
    world.server = Management::at(([127, 0, 0, 1], 0).into()).await;
    world.proxy.until_stat("control_plane.connected_state", 0).await;
    for _ in 0..20 {
        assert_eq!(get(world.address, "/").await.text(), "one");
    }
    assert_eq!(world.proxy.admin("GET", "/ready").await.status, 200);
    world.server = Management::at(address).await;
    world.stream = world.server.sotw().await;
    let expected = [
        (Kind::Cluster, "1", vec![]),
        (Kind::Endpoints, "1", vec!["one"]),
        (Kind::Listener, "1", vec![]),
        (Kind::Routes, "7", vec!["table"]),
    ];
    let mut nodes = 0;
    for (kind, version, names) in expected {
        let request = world.stream.request(kind).await;
        assert_eq!((&*request.version_info, &*request.response_nonce), (version, ""), "{kind:?}");
        assert_eq!(request.resource_names, names, "{kind:?}");
        nodes += usize::from(request.node.is_some());
    }
    assert!(nodes >= 1, "a new stream names the node");
    world
        .push(Kind::Routes, "8", &[table("table", &[route("/x", json!({ "cluster": "one" }))])])
        .await;
    world.until_status("/", 404).await;
    world.proxy.until_stat("control_plane.connected_state", 1).await;
}

#[tokio::test]
async fn a_version_that_was_refused_is_not_claimed_on_a_new_stream() {
    let mut world = World::sotw().await;
    let bad = with(static_cluster("bad", &[]), json!({ "lb_policy": "CLUSTER_PROVIDED" }));
    world.stream.respond(sotw(Kind::Cluster, "2", &[eds_cluster("one"), bad])).await;
    nack_of(&mut world.stream, Kind::Cluster, "2").await;
    world.stream.fail(tonic::Status::unavailable("restart")).await;
    world.stream = world.server.sotw().await;
    assert_eq!(world.stream.request(Kind::Cluster).await.version_info, "1");
    assert_eq!(get(world.address, "/").await.text(), "one");
}

fn wrapped(kind: Kind, name: &str, value: Option<&serde_json::Value>, ttl: Option<i32>) -> Any {
    nuncio::proto::any::pack(&Resource {
        name: name.to_owned(),
        version: "w".to_owned(),
        resource: value.map(|value| any(kind, value)),
        ttl: ttl.map(|millis| prost_types::Duration { seconds: 0, nanos: millis * 1_000_000 }),
        ..Default::default()
    })
}

#[tokio::test]
async fn wrapped_resources_live_as_long_as_they_are_told() {
    let mut world = World::sotw().await;
    let endpoints = assignment("one", &[world.origin.address]);
    let response = |version: &str, resource: Any| {
        let mut response = sotw(Kind::Endpoints, version, &[]);
        response.resources = vec![resource];
        response
    };
    let full = |ttl| wrapped(Kind::Endpoints, "one", Some(&endpoints), ttl);
    world.stream.respond(response("2", full(Some(900)))).await;
    ack_of(&mut world.stream, Kind::Endpoints, "2").await;
    // Heartbeats keep it: in all longer than it would have lived.
    for beat in 0..4 {
        pace(std::time::Duration::from_millis(300)).await;
        let version = format!("beat-{beat}");
        world
            .stream
            .respond(response(&version, wrapped(Kind::Endpoints, "one", None, Some(900))))
            .await;
        ack_of(&mut world.stream, Kind::Endpoints, &version).await;
        assert_eq!(get(world.address, "/").await.text(), "one");
    }
    // Then they cease.
    world.until_status("/", 503).await;
    world.stream.respond(response("3", full(None))).await;
    ack_of(&mut world.stream, Kind::Endpoints, "3").await;
    world.until_answers("/", "one").await;
}

#[tokio::test]
async fn a_type_that_was_not_asked_for_is_not_answered() {
    let mut world = World::sotw().await;
    let mut unknown = sotw(Kind::Cluster, "u", &[]);
    unknown.type_url = "type.googleapis.com/test.Unknown".to_owned();
    unknown.nonce = "unknown".to_owned();
    world.stream.respond(unknown).await;
    // The answer to the next response is the next thing that is said.
    world.push(Kind::Cluster, "2", &[eds_cluster("one")]).await;
    for kind in Kind::ALL {
        world.stream.nothing_of(kind);
    }
    assert_eq!(get(world.address, "/").await.text(), "one");
}

#[tokio::test]
async fn fields_that_are_not_known_are_reported_with_their_path() {
    let mut world = World::sotw().await;
    let mut response = sotw(Kind::Cluster, "2", &[eds_cluster("one")]);
    // Field 3000, a string: nothing declares it.
    response.resources[0].value.extend_from_slice(&[0xc2, 0xbb, 0x01, 0x01, b'x']);
    world.stream.respond(response).await;
    ack_of(&mut world.stream, Kind::Cluster, "2").await;
    assert!(world.proxy.stat("nuncio.config_fields_ignored").await >= 1);
    let dump = world.proxy.admin_text("/config_dump").await;
    assert!(dump.contains("3000"), "{dump}");
    assert_eq!(get(world.address, "/").await.text(), "one");
}

#[tokio::test]
async fn a_slow_or_broken_type_does_not_hold_up_the_others() {
    let mut world = World::sotw().await;
    // Clusters keep warming for ever; endpoints, routes and listeners go on.
    let mut waiting = eds_cluster("waiting");
    waiting["eds_cluster_config"]["eds_config"]["initial_fetch_timeout"] = json!("0s");
    world.push(Kind::Cluster, "2", &[eds_cluster("one"), waiting]).await;
    for version in ["2", "3", "4"] {
        world.push(Kind::Endpoints, version, &[assignment("one", &[world.origin.address])]).await;
        world.push(Kind::Routes, version, &[table("table", &[to("one")])]).await;
        world.push(Kind::Listener, version, &[rds_listener("in", "table")]).await;
    }
    assert_eq!(get(world.address, "/").await.text(), "one");
    assert_eq!(world.proxy.stat("cluster_manager.warming_clusters").await, 1);
}
