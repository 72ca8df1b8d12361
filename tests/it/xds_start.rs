//! A start driven by a management server: what is asked for, in which order, until traffic flows.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::resources::{
    ads, assignment, dynamic, dynamic_delta, dynamic_sotw, eds_cluster, grpc_services, hcm,
    listener, listener_of, rds_listener, static_cluster, table, to, with, xds_cluster,
};
use crate::harness::{
    Kind, Management, Origin, ProxyBuilder, ack_of, delta, eventually, get, sotw,
};

#[tokio::test]
async fn state_of_the_world_goes_from_clusters_to_traffic() {
    let origin = Origin::http1("one").await;
    let mut server = Management::start().await;
    let proxy = ProxyBuilder::new(dynamic_sotw(server.address)).start().await;
    let mut stream = server.sotw().await;
    assert_eq!(stream.service, "ADS");

    let first = stream.request(Kind::Cluster).await;
    let node = first.node.expect("the first request names the node");
    assert_eq!((node.id.as_str(), node.cluster.as_str()), ("node-1", "cluster-1"));
    assert_eq!(node.locality.unwrap().zone, "zone-1");
    assert_eq!(node.user_agent_name, "nuncio");
    assert!(node.client_features.iter().any(|f| f == "xds.config.resource-in-sotw"));
    assert_eq!((&*first.version_info, &*first.response_nonce), ("", ""));
    assert!(first.resource_names.is_empty(), "clusters are wildcard");
    assert_eq!(proxy.admin("GET", "/ready").await.status, 503);

    stream.respond(sotw(Kind::Cluster, "1", &[eds_cluster("one")])).await;
    let wanted = stream.request(Kind::Endpoints).await;
    assert_eq!(wanted.resource_names, ["one"]);
    assert_eq!((&*wanted.version_info, &*wanted.response_nonce), ("", ""));
    let ack = ack_of(&mut stream, Kind::Cluster, "1").await;
    assert_eq!(ack.version_info, "1");
    // Listeners wait until the clusters are warm.
    stream.nothing_of(Kind::Listener);
    stream.respond(sotw(Kind::Endpoints, "1", &[assignment("one", &[origin.address])])).await;
    assert_eq!(ack_of(&mut stream, Kind::Endpoints, "1").await.resource_names, ["one"]);

    let first = stream.request(Kind::Listener).await;
    assert!(first.resource_names.is_empty() && first.version_info.is_empty());
    stream.respond(sotw(Kind::Listener, "1", &[rds_listener("in", "table")])).await;
    let wanted = stream.request(Kind::Routes).await;
    assert_eq!(wanted.resource_names, ["table"]);
    ack_of(&mut stream, Kind::Listener, "1").await;
    assert_eq!(proxy.admin("GET", "/ready").await.status, 503);
    assert_eq!(proxy.stat("listener_manager.total_listeners_warming").await, 1);

    stream.respond(sotw(Kind::Routes, "1", &[table("table", &[to("one")])])).await;
    ack_of(&mut stream, Kind::Routes, "1").await;
    proxy.until_ready().await;
    assert_eq!(get(proxy.listener("in").await, "/").await.text(), "one");
    for kind in [Kind::Secret, Kind::Cluster] {
        stream.nothing_of(kind);
    }
    assert_eq!(proxy.stat("control_plane.connected_state").await, 1);
    assert_eq!(proxy.stat("cluster_manager.cds.update_success").await, 1);
    assert_eq!(proxy.stat("listener_manager.lds.update_success").await, 1);
    assert_eq!(proxy.stat("listener_manager.total_listeners_active").await, 1);
    let dump = proxy.admin_text("/config_dump?include_eds").await;
    for name in ["\"one\"", "\"in\"", "\"table\""] {
        assert!(dump.contains(name), "{name} in {dump}");
    }
}

#[tokio::test]
async fn delta_goes_from_clusters_to_traffic() {
    let origin = Origin::http1("one").await;
    let mut server = Management::start().await;
    let proxy = ProxyBuilder::new(dynamic_delta(server.address)).start().await;
    let mut stream = server.delta().await;

    let first = stream.request(Kind::Cluster).await;
    assert_eq!(first.node.expect("the first request names the node").id, "node-1");
    assert!(first.initial_resource_versions.is_empty() && first.response_nonce.is_empty());
    let wildcard = first.resource_names_subscribe.iter().all(|name| name == "*");
    assert!(wildcard, "{:?}", first.resource_names_subscribe);

    stream.respond(delta(Kind::Cluster, "1", &[eds_cluster("one")], &[])).await;
    let wanted = stream.request(Kind::Endpoints).await;
    assert_eq!(wanted.resource_names_subscribe, ["one"]);
    assert!(wanted.response_nonce.is_empty() && wanted.node.is_none());
    ack_of(&mut stream, Kind::Cluster, "1").await;
    stream.respond(delta(Kind::Endpoints, "1", &[assignment("one", &[origin.address])], &[])).await;
    ack_of(&mut stream, Kind::Endpoints, "1").await;

    stream.request(Kind::Listener).await;
    stream.respond(delta(Kind::Listener, "1", &[rds_listener("in", "table")], &[])).await;
    assert_eq!(stream.request(Kind::Routes).await.resource_names_subscribe, ["table"]);
    stream.respond(delta(Kind::Routes, "1", &[table("table", &[to("one")])], &[])).await;
    ack_of(&mut stream, Kind::Routes, "1").await;
    proxy.until_ready().await;
    assert_eq!(get(proxy.listener("in").await, "/").await.text(), "one");
}

/// A bootstrap whose listeners and clusters have streams of their own.
fn separate(server: &Management, lds: &str, cds: &str) -> Value {
    let source = |kind: &str| {
        json!({ "resource_api_version": "V3", "api_config_source": {
            "api_type": kind, "transport_api_version": "V3", "grpc_services": grpc_services(),
        } })
    };
    json!({
        "node": { "id": "n", "cluster": "c" },
        "static_resources": { "clusters": [xds_cluster(server.address)] },
        "dynamic_resources": { "lds_config": source(lds), "cds_config": source(cds) },
    })
}

#[tokio::test]
async fn each_type_may_have_a_stream_and_a_variant_of_its_own() {
    let origin = Origin::http1("one").await;
    let mut server = Management::start().await;
    let builder = ProxyBuilder::new(separate(&server, "GRPC", "DELTA_GRPC"));
    let proxy = builder.start().await;
    let mut cds = server.delta().await;
    assert_eq!(cds.service, "CDS");
    assert_eq!(cds.request(Kind::Cluster).await.node.unwrap().id, "n");
    let own = |kind: &str| {
        json!({ "api_config_source": {
            "api_type": kind, "transport_api_version": "V3", "grpc_services": grpc_services(),
        }, "resource_api_version": "V3" })
    };
    let mut cluster = eds_cluster("one");
    cluster["eds_cluster_config"] = json!({ "eds_config": own("GRPC"), "service_name": "service" });
    cds.respond(delta(Kind::Cluster, "1", &[cluster], &[])).await;
    let mut eds = server.sotw().await;
    assert_eq!(eds.service, "EDS");
    let wanted = eds.request(Kind::Endpoints).await;
    assert_eq!(wanted.resource_names, ["service"], "service_name stands for the cluster's name");
    assert_eq!(wanted.node.unwrap().id, "n", "every stream names the node");
    ack_of(&mut cds, Kind::Cluster, "1").await;
    eds.respond(sotw(Kind::Endpoints, "1", &[assignment("service", &[origin.address])])).await;
    ack_of(&mut eds, Kind::Endpoints, "1").await;

    let mut lds = server.sotw().await;
    assert_eq!(lds.service, "LDS");
    lds.request(Kind::Listener).await;
    let rds =
        json!({ "rds": { "route_config_name": "table", "config_source": own("DELTA_GRPC") } });
    let listener = listener_of("in", hcm(rds, json!({})));
    lds.respond(sotw(Kind::Listener, "1", &[listener])).await;
    let mut rds = server.delta().await;
    assert_eq!(rds.service, "RDS");
    assert_eq!(rds.request(Kind::Routes).await.resource_names_subscribe, ["table"]);
    rds.respond(delta(Kind::Routes, "1", &[table("table", &[to("one")])], &[])).await;
    ack_of(&mut rds, Kind::Routes, "1").await;
    ack_of(&mut lds, Kind::Listener, "1").await;
    proxy.until_ready().await;
    assert_eq!(get(proxy.listener("in").await, "/").await.text(), "one");

    // One stream's end is nobody else's.
    drop(lds);
    let mut lds = server.sotw().await;
    assert_eq!((lds.service, &*lds.request(Kind::Listener).await.version_info), ("LDS", "1"));
    assert_eq!(get(proxy.listener("in").await, "/").await.text(), "one");
}

#[tokio::test]
async fn a_silent_server_holds_a_start_for_the_initial_fetch_timeout_only() {
    let server = Management::start().await;
    let mut bootstrap = dynamic_sotw(server.address);
    for field in ["lds_config", "cds_config"] {
        bootstrap["dynamic_resources"][field]["initial_fetch_timeout"] = json!("0.2s");
    }
    let local = json!([listener(
        "static",
        &[json!({
        "match": { "prefix": "/" }, "direct_response": { "status": 200 } })]
    )]);
    bootstrap["static_resources"]["listeners"] = local;
    let proxy = ProxyBuilder::new(bootstrap).ready().await;
    assert_eq!(proxy.stat("cluster_manager.cds.init_fetch_timeout").await, 1);
    assert_eq!(proxy.stat("listener_manager.lds.init_fetch_timeout").await, 1);
    assert_eq!(get(proxy.listener("static").await, "/").await.status, 200);
    proxy.until_log("initial_fetch_timeout").await;
}

#[tokio::test]
async fn endpoints_that_never_come_hold_their_cluster_for_a_while_only() {
    let origin = Origin::http1("one").await;
    let mut server = Management::start().await;
    let proxy = ProxyBuilder::new(dynamic_sotw(server.address)).start().await;
    let mut stream = server.sotw().await;
    let mut late = eds_cluster("late");
    late["eds_cluster_config"]["eds_config"]["initial_fetch_timeout"] = json!("0.3s");
    let clusters = [late, static_cluster("one", &[origin.address])];
    stream.respond(sotw(Kind::Cluster, "1", &clusters)).await;
    ack_of(&mut stream, Kind::Cluster, "1").await;
    assert_eq!(stream.request(Kind::Endpoints).await.resource_names, ["late"]);
    let routes =
        [crate::harness::resources::route("/late", json!({ "cluster": "late" })), to("one")];
    stream.request(Kind::Listener).await;
    stream.respond(sotw(Kind::Listener, "1", &[listener("in", &routes)])).await;
    proxy.until_ready().await;
    let address = proxy.listener("in").await;
    assert_eq!(get(address, "/").await.status, 200);
    let refused = get(address, "/late").await;
    assert_eq!((refused.status, refused.text().as_str()), (503, "no healthy upstream"));
    // Late is not never.
    stream.respond(sotw(Kind::Endpoints, "1", &[assignment("late", &[origin.address])])).await;
    ack_of(&mut stream, Kind::Endpoints, "1").await;
    eventually("the endpoints are used", async || {
        (get(address, "/late").await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_second_server_is_tried_when_the_first_is_dead() {
    let mut server = Management::start().await;
    let dead = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut bootstrap = dynamic(server.address, "GRPC");
    let mut services = vec![with(xds_cluster(dead), json!({ "name": "dead" }))];
    services.push(xds_cluster(server.address));
    bootstrap["static_resources"]["clusters"] = json!(services);
    let service = |name: &str| {
        let mut service = grpc_services()[0].clone();
        service["envoy_grpc"]["cluster_name"] = json!(name);
        service
    };
    bootstrap["dynamic_resources"]["ads_config"]["grpc_services"] =
        json!([service("dead"), service("xds")]);
    let proxy = ProxyBuilder::new(bootstrap).start().await;
    let mut stream = server.sotw().await;
    assert!(stream.request(Kind::Cluster).await.node.is_some());
    stream.respond(sotw(Kind::Cluster, "1", &[])).await;
    ack_of(&mut stream, Kind::Cluster, "1").await;
    proxy.until_stat("control_plane.connected_state", 1).await;
}

#[tokio::test]
async fn requests_are_limited_in_rate_if_configured() {
    let mut server = Management::start().await;
    let mut bootstrap = dynamic_sotw(server.address);
    bootstrap["dynamic_resources"]["ads_config"]["rate_limit_settings"] =
        json!({ "max_tokens": 1, "fill_rate": 5.0 });
    let proxy = ProxyBuilder::new(bootstrap).start().await;
    let mut stream = server.sotw().await;
    stream.request(Kind::Cluster).await;
    let start = tokio::time::Instant::now();
    for version in ["1", "2", "3"] {
        stream.respond(sotw(Kind::Cluster, version, &[])).await;
        ack_of(&mut stream, Kind::Cluster, version).await;
    }
    assert!(start.elapsed() >= Duration::from_millis(390), "{:?}", start.elapsed());
    drop(proxy);
}

#[tokio::test]
async fn the_node_is_left_out_later_only_if_asked_for() {
    for once in [true, false] {
        let mut server = Management::start().await;
        let mut bootstrap = dynamic_sotw(server.address);
        bootstrap["dynamic_resources"]["ads_config"]["set_node_on_first_message_only"] =
            json!(once);
        let _proxy = ProxyBuilder::new(bootstrap).start().await;
        let mut stream = server.sotw().await;
        let first = stream.request(Kind::Cluster).await.node.unwrap();
        stream.respond(sotw(Kind::Cluster, "1", &[])).await;
        let later = ack_of(&mut stream, Kind::Cluster, "1").await.node;
        // Absent or the same, never present and empty.
        assert!(later.is_none_or(|node| !once && node == first));
    }
}

#[tokio::test]
async fn ads_may_be_named_by_self_too() {
    let mut server = Management::start().await;
    let mut bootstrap = dynamic_sotw(server.address);
    bootstrap["dynamic_resources"]["cds_config"] = json!({ "self": {} });
    bootstrap["dynamic_resources"]["lds_config"] = ads();
    let _proxy = ProxyBuilder::new(bootstrap).start().await;
    let mut stream = server.sotw().await;
    stream.request(Kind::Cluster).await;
    stream.respond(sotw(Kind::Cluster, "1", &[])).await;
    stream.request(Kind::Listener).await;
}
