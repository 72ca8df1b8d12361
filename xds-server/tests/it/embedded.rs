//! The library in another program.

use nuncio::proto::any::pack;
use nuncio::proto::envoy::config::cluster::v3::Cluster;
use nuncio_xds_server::{ManagementServer, MemorySource, StartError};

use crate::harness::*;

fn cluster(name: &str) -> prost_types::Any {
    pack(&Cluster { name: name.to_owned(), ..Cluster::default() })
}

#[tokio::test]
async fn many_servers_live_in_one_process() {
    let sources = [MemorySource::new(), MemorySource::new()];
    let mut servers = Vec::new();
    for (source, name) in sources.iter().zip(["one", "two"]) {
        source.set([cluster(name)]);
        servers.push(ManagementServer::builder().start(source.clone()).await.unwrap());
    }
    for (server, name) in servers.iter().zip(["one", "two"]) {
        let address = server.xds_address().to_string();
        let mut talk = Delta::open(&address, "a", delta(CLUSTER, &[])).await;
        assert_eq!(names(&talk.take(CLUSTER).await), [name]);
    }
    for server in servers {
        server.stop().await;
    }
}

#[tokio::test]
async fn changes_in_memory_are_served_and_a_stop_frees_the_port() {
    let source = MemorySource::new();
    let server = ManagementServer::builder().start(source.clone()).await.unwrap();
    let address = server.xds_address();
    let mut talk = Delta::open(&address.to_string(), "a", delta(CLUSTER, &[])).await;
    assert!(names(&talk.take(CLUSTER).await).is_empty(), "an empty set is said");
    source.update([cluster("a"), cluster("b")]);
    assert_eq!(names(&talk.take(CLUSTER).await), ["a", "b"]);
    source.remove(CLUSTER, "a");
    assert_eq!(talk.take(CLUSTER).await.removed_resources, ["a"]);
    assert_eq!(server.snapshot("default").unwrap().types["clusters"].resources.len(), 1);
    server.stop().await;
    assert!(matches!(talk.result().await, Ok(None) | Err(_)), "the stream ends");
    let again = std::net::TcpListener::bind(address).unwrap();
    let server = ManagementServer::builder().listen_on(again).start(source).await.unwrap();
    assert_eq!(server.xds_address(), address);
}

#[tokio::test]
async fn a_server_without_checks_serves_what_it_is_given() {
    let source = MemorySource::new();
    // A name, and health_checks, which the proxy refuses for now.
    let bytes = [&[0x0a, 1, b'x'][..], &[0x42, 0]].concat();
    source.set([prost_types::Any { type_url: CLUSTER.to_owned(), value: bytes }]);
    let result = ManagementServer::builder().start(source.clone()).await;
    assert!(matches!(result, Err(StartError::Source(_))), "{result:?}");
    let server = ManagementServer::builder().check(false).start(source).await.unwrap();
    let mut talk = Delta::open(&server.xds_address().to_string(), "a", delta(CLUSTER, &[])).await;
    assert_eq!(names(&talk.take(CLUSTER).await), ["x"]);
}
