//! Corners of the protocol: long texts, forms of configuration, names that collide.

use nuncio::proto::envoy::service::discovery::v3::Resource;
use serde_json::{Value, json};

use crate::harness::resources::{
    any, assignment, dynamic_sotw, eds_cluster, filter, hcm, listener, listener_at, rds,
    rds_listener, router, static_cluster, to, with,
};
use crate::harness::{Kind, Management, Origin, ProxyBuilder, ack_of, get, nack_of, sotw};
use crate::xds_world::World;

#[tokio::test]
async fn the_text_of_a_nack_has_an_end() {
    let mut world = World::sotw().await;
    let mut clusters = vec![eds_cluster("one")];
    let bad = |n: usize| {
        with(
            static_cluster(&format!("bad-{n:05}"), &[]),
            json!({ "lb_policy": "CLUSTER_PROVIDED" }),
        )
    };
    clusters.extend((0..5000).map(bad));
    world.stream.respond(sotw(Kind::Cluster, "2", &clusters)).await;
    let (_, text) = nack_of(&mut world.stream, Kind::Cluster, "2").await;
    assert!(text.contains("bad-00000") && text.len() < 64 * 1024, "{} bytes", text.len());
    assert_eq!(get(world.address, "/").await.text(), "one");
}

#[tokio::test]
async fn an_optional_filter_that_is_unknown_is_skipped_and_recorded() {
    let mut world = World::sotw().await;
    let unknown = filter("mystery", "test.Mystery", json!({ "some": "thing" }));
    let with_filter = |unknown: Value| {
        listener_at("in", 0, hcm(rds("table"), json!({ "http_filters": [unknown, router()] })))
    };
    world.stream.respond(sotw(Kind::Listener, "2", &[with_filter(unknown.clone())])).await;
    let (_, text) = nack_of(&mut world.stream, Kind::Listener, "2").await;
    assert!(text.contains("http_filters[0]") && text.contains("test.Mystery"), "{text}");
    let optional = with(unknown, json!({ "is_optional": true }));
    world.push(Kind::Listener, "3", &[with_filter(optional)]).await;
    world.proxy.until_stat("listener_manager.listener_modified", 1).await;
    world.until_answers("/", "one").await;
    let dump = world.proxy.admin_text("/config_dump").await;
    assert!(dump.contains("test.Mystery"), "{dump}");
}

#[tokio::test]
async fn a_typed_struct_stands_for_any_type() {
    let mut world = World::sotw().await;
    let typed = |package: &str, url: &str, value: Value| {
        json!({ "@type": format!("type.googleapis.com/{package}.TypedStruct"),
            "type_url": format!("type.googleapis.com/{url}"), "value": value })
    };
    let mutation = typed(
        "xds.type.v3",
        "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
        json!({ "mutations": { "response_mutations": [{ "append": { "header": { "key": "x-struct", "value": "yes" } } }] } }),
    );
    let last = typed("udpa.type.v1", "envoy.extensions.filters.http.router.v3.Router", json!({}));
    let filters =
        json!([{ "name": "m", "typed_config": mutation }, { "name": "r", "typed_config": last }]);
    let listener = listener_at("in", 0, hcm(rds("table"), json!({ "http_filters": filters })));
    world.push(Kind::Listener, "2", &[listener]).await;
    crate::harness::eventually("the filter works", async || {
        (get(world.address, "/").await.header("x-struct") == "yes").then_some(())
    })
    .await;
}

#[tokio::test]
async fn two_listeners_on_one_address_are_refused() {
    let mut world = World::sotw().await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let at_port = |name: &str| listener_at(name, port, hcm(rds("table"), json!({})));
    let listeners = [rds_listener("in", "table"), at_port("owner"), at_port("thief")];
    world.stream.respond(sotw(Kind::Listener, "2", &listeners)).await;
    let (_, text) = nack_of(&mut world.stream, Kind::Listener, "2").await;
    assert!(text.contains("Listener \"thief\"") && text.contains(&port.to_string()), "{text}");
    assert!(!text.contains("Listener \"owner\"") && !text.contains("Listener \"in\""), "{text}");
    assert_eq!(get(world.proxy.new_listener("owner").await, "/").await.text(), "one");
    assert_eq!(get(world.address, "/").await.text(), "one");
    assert_eq!(world.proxy.find_listener("thief").await, None);
}

#[tokio::test]
async fn static_resources_are_not_replaced() {
    let (fixed, other) = (Origin::http1("fixed").await, Origin::http1("other").await);
    let mut server = Management::start().await;
    let mut config = dynamic_sotw(server.address);
    config["static_resources"]["clusters"]
        .as_array_mut()
        .unwrap()
        .push(static_cluster("fixed", &[fixed.address]));
    config["static_resources"]["listeners"] = json!([listener("static", &[to("fixed")])]);
    let proxy = ProxyBuilder::new(config).start().await;
    let mut stream = server.sotw().await;
    let clusters = [static_cluster("fixed", &[other.address])];
    stream.respond(sotw(Kind::Cluster, "1", &clusters)).await;
    ack_of(&mut stream, Kind::Cluster, "1").await;
    stream.respond(sotw(Kind::Listener, "1", &[])).await;
    ack_of(&mut stream, Kind::Listener, "1").await;
    proxy.until_ready().await;
    assert_eq!(get(proxy.listener("static").await, "/").await.text(), "fixed");
}

#[tokio::test]
async fn the_management_server_is_named_in_the_dump() {
    let mut world = World::sotw().await;
    let mut response = sotw(Kind::Cluster, "2", &[eds_cluster("one")]);
    response.control_plane = Some(nuncio::proto::envoy::config::core::v3::ControlPlane {
        identifier: "control-plane-7".to_owned(),
    });
    world.stream.respond(response).await;
    ack_of(&mut world.stream, Kind::Cluster, "2").await;
    let dump = world.proxy.admin_text("/config_dump").await;
    assert!(dump.contains("control-plane-7"), "{dump}");
}

#[tokio::test]
async fn a_large_response_passes() {
    let mut world = World::sotw().await;
    // Over 4 MiB, where gRPC libraries stop by default.
    let padding = "x".repeat(2000);
    let clusters: Vec<_> = (0..3000)
        .map(|n| {
            with(
                static_cluster(&format!("c{n}"), &[]),
                json!({ "alt_stat_name": format!("{padding}{n}") }),
            )
        })
        .chain([eds_cluster("one")])
        .collect();
    let response = sotw(Kind::Cluster, "2", &clusters);
    assert!(prost::Message::encoded_len(&response) > 4 << 20);
    world.stream.respond(response).await;
    ack_of(&mut world.stream, Kind::Cluster, "2").await;
    world.proxy.until_stat("cluster_manager.active_clusters", 3002).await;
    assert_eq!(get(world.address, "/").await.text(), "one");
    world.push(Kind::Cluster, "3", &[eds_cluster("one")]).await;
    world.proxy.until_stat("cluster_manager.active_clusters", 2).await;
}

#[tokio::test]
async fn listeners_live_as_long_as_they_are_told() {
    let mut world = World::sotw().await;
    let wrapped = nuncio::proto::any::pack(&Resource {
        name: "in".to_owned(),
        resource: Some(any(Kind::Listener, &rds_listener("in", "table"))),
        ttl: Some(prost_types::Duration { seconds: 0, nanos: 300_000_000 }),
        ..Default::default()
    });
    let mut response = sotw(Kind::Listener, "2", &[]);
    response.resources = vec![wrapped];
    world.stream.respond(response).await;
    ack_of(&mut world.stream, Kind::Listener, "2").await;
    world.proxy.until_stat("listener_manager.listener_removed", 1).await;
    assert_eq!(world.proxy.find_listener("in").await, None);
}

#[tokio::test]
async fn every_response_is_answered_once_however_fast_they_come() {
    let mut world = World::sotw().await;
    for n in 2..52 {
        let endpoints = assignment("one", &[world.origin.address]);
        world.stream.respond(sotw(Kind::Endpoints, &n.to_string(), &[endpoints])).await;
    }
    for n in 2..52 {
        let request = world.stream.request(Kind::Endpoints).await;
        assert_eq!(request.response_nonce, format!("Endpoints-{n}"));
        assert_eq!((request.version_info, request.error_detail), (n.to_string(), None));
    }
    assert_eq!(get(world.address, "/").await.text(), "one");
}
