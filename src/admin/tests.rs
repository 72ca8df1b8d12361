//! The endpoint over a real socket, in front of a control task without a server.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::control::{Compilers, First, Options, Subscription, files};
use crate::proto::any::pack;
use crate::proto::envoy::config::cluster::v3 as cluster;
use crate::proto::envoy::extensions::transport_sockets::tls::v3 as tls;
use crate::proto::yaml;
use crate::telemetry::access_log::Sinks;
use crate::xds::{ResourceType, Source, Xds};

#[derive(Default)]
struct Calls {
    drained: AtomicUsize,
    quit: AtomicUsize,
}

impl Hooks for Calls {
    fn drain_listeners(&self) {
        self.drained.fetch_add(1, Ordering::Relaxed);
    }

    fn quit(&self) {
        self.quit.fetch_add(1, Ordering::Relaxed);
    }
}

const CLUSTER: &str = r#"{"name": "a", "type": "STATIC", "load_assignment": {"cluster_name": "a",
    "endpoints": [{"locality": {"zone": "z9"}, "lb_endpoints": [{"load_balancing_weight": 3,
    "endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 81}}}}]}]}}"#;

fn static_resources() -> Vec<(ResourceType, Vec<prost_types::Any>)> {
    let value = yaml::parse(CLUSTER).unwrap().value;
    let a: cluster::Cluster = crate::proto::json::from_json(value).unwrap().message;
    let secret = tls::Secret {
        name: "s".into(),
        r#type: Some(tls::secret::Type::GenericSecret(tls::GenericSecret {
            secret: Some(crate::proto::envoy::config::core::v3::DataSource {
                specifier: Some(
                    crate::proto::envoy::config::core::v3::data_source::Specifier::InlineString(
                        "HIDDEN".into(),
                    ),
                ),
            }),
        })),
    };
    vec![(ResourceType::Secret, vec![pack(&secret)]), (ResourceType::Cluster, vec![pack(&a)])]
}

/// `waiting` keeps the start waiting for clusters from a file that is not there.
async fn running(waiting: bool) -> (Running, Arc<Calls>) {
    let telemetry = Telemetry::default();
    let missing = Source::File("/no/such/file".into());
    let options = Options {
        compilers: Compilers::new(telemetry.clone(), Sinks::check_only()),
        grpc: Arc::new(|_| unreachable!("no gRPC sources")),
        ads: None,
        cds: waiting.then_some(Subscription { source: missing, initial_fetch_timeout: None }),
        lds: None,
        workers: 1,
        telemetry: telemetry.clone(),
    };
    let (xds, events) = Xds::start(Node::default(), 16, files::decode);
    let first = First { static_resources: static_resources(), ..First::default() };
    let control = Control::start(options, first, xds, events).unwrap();
    let mut snapshots = control.snapshots();
    snapshots.wait_for(|s| s.clusters.len() == 1).await.unwrap();
    let calls = Arc::new(Calls::default());
    let admin = Admin {
        control,
        otel: Arc::new(Otel::new(&telemetry, ())),
        telemetry,
        caches: Default::default(),
        hooks: calls.clone(),
        bootstrap: Vec::new(),
        node: Node { id: "n".into(), ..Node::default() },
        concurrency: 1,
        started: Instant::now(),
    };
    (start(admin, "127.0.0.1:0".parse().unwrap(), None).await.unwrap(), calls)
}

async fn ask(running: &Running, method: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(running.address()).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

async fn json(running: &Running, path: &str) -> Value {
    let (status, body) = ask(running, "GET", path).await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

#[tokio::test]
async fn ready_says_how_far_the_start_has_come() {
    let (live, _) = running(false).await;
    assert_eq!(ask(&live, "GET", "/ready").await, (200, "LIVE\n".to_owned()));
    assert_eq!(json(&live, "/server_info").await["state"], "LIVE");
    let (waiting, _) = running(true).await;
    assert_eq!(ask(&waiting, "GET", "/ready").await, (503, "PRE_INITIALIZING\n".to_owned()));
}

#[tokio::test]
async fn what_changes_something_wants_post() {
    let (running, calls) = running(false).await;
    for path in ["/drain_listeners", "/quitquitquit"] {
        assert_eq!(ask(&running, "GET", path).await.0, 405);
        assert_eq!(ask(&running, "POST", path).await, (200, "OK\n".to_owned()));
    }
    assert_eq!(ask(&running, "POST", "/ready").await.0, 405);
    assert_eq!(ask(&running, "GET", "/nothing").await.0, 404);
    assert!(ask(&running, "GET", "/").await.1.contains("/quitquitquit (POST)"));
    assert_eq!(calls.drained.load(Ordering::Relaxed), 1);
    assert_eq!(calls.quit.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn clusters_are_shown_in_envoys_lines() {
    let (running, _) = running(false).await;
    let (_, text) = ask(&running, "GET", "/clusters").await;
    for line in [
        "a::default_priority::max_connections::1024",
        "a::added_via_api::false",
        "a::127.0.0.1:81::weight::3",
        "a::127.0.0.1:81::health_flags::healthy",
        "a::127.0.0.1:81::rq_total::0",
        "a::127.0.0.1:81::zone::z9",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
    let status = &json(&running, "/clusters?format=json").await["cluster_statuses"][0];
    let host = &status["host_statuses"][0];
    assert_eq!(host["address"]["socket_address"]["port_value"], 81);
    assert_eq!(host["health_status"]["eds_health_status"], "HEALTHY");
    assert_eq!(status["circuit_breakers"]["thresholds"][0]["max_requests"], 1024);
}

#[tokio::test]
async fn the_dump_has_envoys_shape_and_no_secret() {
    let (running, _) = running(false).await;
    let dump = json(&running, "/config_dump?include_eds").await;
    let types: Vec<_> = dump["configs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["@type"].as_str().unwrap().rsplit_once('.').unwrap().1)
        .collect();
    assert_eq!(
        types,
        [
            "BootstrapConfigDump",
            "ClustersConfigDump",
            "ListenersConfigDump",
            "RoutesConfigDump",
            "ScopedRoutesConfigDump",
            "SecretsConfigDump",
            "EndpointsConfigDump",
        ]
    );
    let fixed = &dump["configs"][1]["static_clusters"][0];
    assert_eq!(fixed["cluster"]["name"], "a");
    assert!(fixed["last_updated"].as_str().unwrap().ends_with('Z'));
    let text = dump.to_string();
    assert!(text.contains("static_secrets") && !text.contains("HIDDEN"), "{text}");
    let one = json(&running, "/config_dump?resource=static_clusters").await;
    assert_eq!(one["configs"][0]["cluster"]["name"], "a");
    let none = json(&running, "/config_dump?name_regex=zz").await;
    assert!(none["configs"][1].get("static_clusters").is_none());
    for (query, status) in [("resource=none", 404), ("name_regex=(", 400), ("mask=a", 400)] {
        assert_eq!(ask(&running, "GET", &format!("/config_dump?{query}")).await.0, status);
    }
}

#[tokio::test]
async fn counts_are_shown_in_every_form() {
    let (running, _) = running(false).await;
    let (_, text) = ask(&running, "GET", "/stats?filter=active_clusters").await;
    assert_eq!(text, "cluster_manager.active_clusters: 1\n");
    let (_, text) = ask(&running, "GET", "/stats/prometheus").await;
    assert!(text.contains("envoy_cluster_manager_active_clusters{} 1\n"), "{text}");
    assert!(ask(&running, "GET", "/metrics").await.1.contains("gateway_config_version"));
    assert_eq!(ask(&running, "GET", "/stats?format=xml").await.0, 400);
    assert_eq!(ask(&running, "GET", "/stats?filter=(").await.0, 400);
}

#[test]
fn the_address_file_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("address");
    write_address(&path, "127.0.0.1:9901".parse().unwrap()).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "127.0.0.1:9901");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}
