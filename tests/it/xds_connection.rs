//! The connection to the management server: how it is missed, and how it is made again.

use std::net::SocketAddr;
use std::time::Duration;

use nuncio::proto::envoy::service::discovery::v3::ResourceName;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;

use crate::harness::resources::{assignment, dynamic_sotw, eds_cluster, table, to};
use crate::harness::{Kind, Management, Origin, ProxyBuilder, ack_of, delta, sotw};
use crate::xds_world::World;

/// Carries connections to `target` until `frozen`: then nothing moves, and nothing is closed.
async fn relay(target: SocketAddr, frozen: watch::Receiver<bool>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut frozen = frozen.clone();
            tokio::spawn(async move {
                let mut far = tokio::net::TcpStream::connect(target).await.unwrap();
                let over = tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => true,
                    _ = frozen.changed() => false,
                };
                if !over {
                    std::future::pending::<()>().await;
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_server_that_falls_silent_is_missed_by_its_pings() {
    let mut server = Management::start().await;
    let (freeze, frozen) = watch::channel(false);
    let mut bootstrap = dynamic_sotw(relay(server.address, frozen).await);
    let xds = &mut bootstrap["static_resources"]["clusters"][0];
    let protocol = xds["typed_extension_protocol_options"]
        .as_object_mut()
        .and_then(|options| options.values_mut().next())
        .unwrap();
    protocol["explicit_http_config"]["http2_protocol_options"]["connection_keepalive"] =
        json!({ "interval": "0.1s", "timeout": "0.2s" });
    let proxy = ProxyBuilder::new(bootstrap).start().await;
    let mut stream = server.sotw().await;
    stream.respond(sotw(Kind::Cluster, "1", &[])).await;
    ack_of(&mut stream, Kind::Cluster, "1").await;
    proxy.until_stat("control_plane.connected_state", 1).await;
    freeze.send(true).unwrap();
    proxy.until_stat("control_plane.connected_state", 0).await;
}

#[tokio::test]
async fn a_server_that_takes_streams_and_says_nothing_is_asked_less_and_less() {
    let mut server = Management::start().await;
    let mut bootstrap = dynamic_sotw(server.address);
    bootstrap["dynamic_resources"]["ads_config"]["grpc_services"][0]["envoy_grpc"]["retry_policy"] =
        json!({ "retry_back_off": { "base_interval": "0.02s", "max_interval": "0.4s" } });
    let _proxy = ProxyBuilder::new(bootstrap).start().await;
    server.sotw().await.fail(Status::unavailable("not yet")).await;
    let start = Instant::now();
    for _ in 0..14 {
        server.sotw().await.fail(Status::unavailable("not yet")).await;
    }
    // Waits are drawn from 0 up to 20, 40, 80, 160, 320 and then always 400 ms: two seconds in all.
    // Had a stream that opens been taken for a success, it would be a seventh of one.
    assert!(start.elapsed() > Duration::from_millis(500), "{:?}", start.elapsed());

    // A response is a success: the next wait is from 0 to 20 ms again.
    let mut stream = server.sotw().await;
    stream.respond(sotw(Kind::Cluster, "1", &[])).await;
    ack_of(&mut stream, Kind::Cluster, "1").await;
    let start = Instant::now();
    stream.fail(Status::unavailable("again")).await;
    let mut stream = server.sotw().await;
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(stream.request(Kind::Cluster).await.version_info, "1");
}

#[tokio::test]
async fn a_resource_may_come_under_another_name_and_go_by_a_name_with_parameters() {
    let mut world = World::delta().await;
    let forever = |name: &str| {
        let mut cluster = eds_cluster(name);
        cluster["eds_cluster_config"]["eds_config"]["initial_fetch_timeout"] = json!("0s");
        cluster
    };
    world.push(Kind::Cluster, "2", &[forever("two"), forever("gone")], &[]).await;
    world.proxy.until_stat("cluster_manager.warming_clusters", 2).await;
    let other = Origin::http1("other").await;
    let mut response = delta(Kind::Endpoints, "2", &[assignment("two", &[other.address])], &[]);
    response.resources[0].name = "canonical".to_owned();
    response.resources[0].aliases = vec!["two".to_owned()];
    world.stream.respond(response).await;
    ack_of(&mut world.stream, Kind::Endpoints, "2").await;
    world.push(Kind::Routes, "2", &[table("table", &[to("two")])], &[]).await;
    world.until_answers("/", "other").await;

    let mut response = delta(Kind::Endpoints, "3", &[], &[]);
    response.removed_resource_names =
        vec![ResourceName { name: "gone".to_owned(), ..ResourceName::default() }];
    world.stream.respond(response).await;
    ack_of(&mut world.stream, Kind::Endpoints, "3").await;
    world.proxy.until_stat("cluster_manager.warming_clusters", 0).await;
}
