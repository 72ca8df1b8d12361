//! The task itself, following files; and the file it leaves for the next process.

use std::path::Path;
use std::time::Duration;

use crate::control::{Compilers, Control, First, LastGood, Options, Phase, Subscription, files};
use crate::proto::envoy::config::core::v3::Node;
use crate::telemetry::Telemetry;
use crate::telemetry::access_log::Sinks;
use crate::xds::{Source, Xds};

const CLUSTERS: &str = r#"
resources:
- "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
  name: a
  type: EDS
  eds_cluster_config: {eds_config: {path_config_source: {path: "EDS_PATH"}}}
- {"@type": type.googleapis.com/envoy.config.cluster.v3.Cluster, name: b, type: STATIC}
"#;

const ENDPOINTS: &str = r#"
resources:
- "@type": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment
  cluster_name: a
  endpoints:
  - lb_endpoints:
    - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 81}}}
"#;

/// Control that follows `cds.yaml` in `dir` and keeps the last good configuration there too.
fn start(dir: &Path, node: &str) -> Control {
    let telemetry = Telemetry::default();
    let subscription = Subscription {
        source: Source::File(dir.join("cds.yaml")),
        initial_fetch_timeout: Some(Duration::from_secs(3600)),
    };
    let options = Options {
        compilers: Compilers::new(telemetry.clone(), Sinks::check_only()),
        grpc: std::sync::Arc::new(|_| unreachable!("no gRPC sources")),
        ads: None,
        cds: Some(subscription),
        lds: None,
        workers: 1,
        telemetry,
    };
    let last_good = LastGood { dir: dir.to_owned(), node: node.to_owned() };
    let first = First { last_good: Some(last_good), ..First::default() };
    let (xds, events) = Xds::start(Node::default(), 16, files::decode);
    Control::start(options, first, xds, events).unwrap()
}

async fn serves_both(control: &Control) {
    let mut snapshots = control.snapshots();
    let warm = snapshots.wait_for(|s| s.clusters.len() == 2).await.unwrap().clone();
    assert_eq!(warm.clusters.get("a").unwrap().hosts().len(), 1);
}

#[tokio::test]
async fn what_was_accepted_outlives_the_process_and_its_source() {
    let dir = tempfile::tempdir().unwrap();
    let endpoints = dir.path().join("eds.yaml");
    std::fs::write(&endpoints, ENDPOINTS).unwrap();
    let clusters = CLUSTERS.replace("EDS_PATH", endpoints.to_str().unwrap());
    std::fs::write(dir.path().join("cds.yaml"), clusters).unwrap();

    let first = start(dir.path(), "me");
    serves_both(&first).await;
    first.status().wait_for(|s| s.phase == Phase::Live).await.unwrap();
    assert_eq!(first.status().borrow().restored, None);
    first.stop().await;
    assert!(first.dump().await.is_none(), "the task has ended");

    std::fs::remove_file(dir.path().join("cds.yaml")).unwrap();
    std::fs::remove_file(&endpoints).unwrap();
    let second = start(dir.path(), "me");
    serves_both(&second).await;
    assert!(second.status().borrow().restored.is_some());

    let stranger = start(dir.path(), "you");
    assert_eq!(stranger.status().borrow().restored, None);
    assert!(stranger.snapshots().borrow().clusters.is_empty());
}
