//! Configuration from files that are replaced by rename.

use std::path::Path;

use serde_json::{Value, json};

use crate::harness::resources::{assignment, hcm, listener_of, static_cluster, table, to, with};
use crate::harness::{Kind, Origin, Proxy, ProxyBuilder, eventually, get, run};

/// Puts a response of resources where `path` is, as a whole.
fn put(path: &Path, kind: Kind, resources: &[Value]) {
    let typed = |value: &Value| with(json!({ "@type": kind.url() }), value.clone());
    let resources: Vec<_> = resources.iter().map(typed).collect();
    put_text(path, &json!({ "version_info": "from disk", "resources": resources }).to_string());
}

fn put_text(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(&new, path).unwrap();
}

fn source(dir: &Path, file: &str) -> Value {
    json!({ "path_config_source": { "path": dir.join(file).to_str().unwrap() }, "resource_api_version": "V3" })
}

fn eds(dir: &Path) -> Value {
    json!({ "name": "one", "type": "EDS", "connect_timeout": "5s",
        "eds_cluster_config": { "eds_config": source(dir, "eds.json") } })
}

fn in_with_rds(dir: &Path) -> Value {
    let rds = json!({ "rds": { "route_config_name": "table", "config_source": source(dir, "rds.json") } });
    listener_of("in", hcm(rds, json!({})))
}

async fn start(dir: &Path) -> Proxy {
    let bootstrap = json!({
        "node": { "id": "n", "cluster": "c" },
        "dynamic_resources": { "lds_config": source(dir, "lds.json"), "cds_config": source(dir, "cds.json") },
    });
    ProxyBuilder::new(bootstrap).ready().await
}

#[tokio::test]
async fn every_type_comes_from_its_file_and_follows_it() {
    let (one, two) = (Origin::http1("one").await, Origin::http1("two").await);
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    put(&dir.join("cds.json"), Kind::Cluster, &[eds(dir)]);
    put(&dir.join("eds.json"), Kind::Endpoints, &[assignment("one", &[one.address])]);
    put(&dir.join("lds.json"), Kind::Listener, &[in_with_rds(dir)]);
    put(&dir.join("rds.json"), Kind::Routes, &[table("table", &[to("one")])]);
    let proxy = start(dir).await;
    let address = proxy.listener("in").await;
    assert_eq!(get(address, "/").await.text(), "one");

    put(&dir.join("eds.json"), Kind::Endpoints, &[assignment("one", &[two.address])]);
    until(address, 200, "two").await;
    let direct = json!({ "match": { "prefix": "/" }, "direct_response": { "status": 418 } });
    put(&dir.join("rds.json"), Kind::Routes, &[table("table", &[direct])]);
    until(address, 418, "").await;
    put(&dir.join("rds.json"), Kind::Routes, &[table("table", &[to("other")])]);
    until(address, 503, "").await;
    put(&dir.join("cds.json"), Kind::Cluster, &[eds(dir), static_cluster("other", &[one.address])]);
    until(address, 200, "one").await;
    assert!(proxy.stat("cluster_manager.cds.update_success").await >= 2);
    put(&dir.join("lds.json"), Kind::Listener, &[]);
    proxy.until_stat("listener_manager.listener_removed", 1).await;
}

async fn until(address: std::net::SocketAddr, status: u16, body: &str) {
    eventually(&format!("{status} {body:?}"), async || {
        let answer = get(address, "/").await;
        (answer.status == status && answer.text() == body).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_file_that_is_wrong_changes_nothing_and_says_so() {
    let one = Origin::http1("one").await;
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let cds = dir.join("cds.json");
    put(&cds, Kind::Cluster, &[static_cluster("one", &[one.address])]);
    put(
        &dir.join("lds.json"),
        Kind::Listener,
        &[crate::harness::resources::listener("in", &[to("one")])],
    );
    let proxy = start(dir).await;
    let address = proxy.listener("in").await;
    for (n, wrong) in ["{ not json", "[1, 2]", "\0\u{1}", "resources: [{}]", ""].iter().enumerate()
    {
        put_text(&cds, wrong);
        proxy.until_log("cds.json").await;
        assert_eq!(get(address, "/").await.text(), "one", "{n}: {wrong:?}");
    }
    // One bad resource among good ones is refused alone.
    let bad = with(static_cluster("bad", &[]), json!({ "lb_policy": "CLUSTER_PROVIDED" }));
    put(&cds, Kind::Cluster, &[static_cluster("one", &[one.address]), bad]);
    proxy.until_stat_at_least("cluster_manager.cds.update_rejected", 1).await;
    proxy.until_log("lb_policy").await;
    assert_eq!(get(address, "/").await.text(), "one");
    std::fs::remove_file(&cds).unwrap();
    let two = Origin::http1("two").await;
    put(&cds, Kind::Cluster, &[static_cluster("one", &[two.address])]);
    until(address, 200, "two").await;
}

#[tokio::test]
async fn a_file_may_be_yaml_and_may_come_late() {
    let one = Origin::http1("one").await;
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    put(&dir.join("cds.json"), Kind::Cluster, &[eds(dir)]);
    put(&dir.join("lds.json"), Kind::Listener, &[in_with_rds(dir)]);
    put(&dir.join("rds.json"), Kind::Routes, &[table("table", &[to("one")])]);
    let bootstrap = json!({
        "node": { "id": "n", "cluster": "c" },
        "dynamic_resources": { "lds_config": source(dir, "lds.json"), "cds_config": source(dir, "cds.json") },
    });
    let proxy = ProxyBuilder::new(bootstrap).start().await;
    proxy.until_stat("cluster_manager.warming_clusters", 1).await;
    assert_eq!(proxy.admin("GET", "/ready").await.status, 503);
    let yaml = format!(
        "resources:\n- \"@type\": {}\n  cluster_name: one\n  endpoints:\n  - lb_endpoints:\n    - endpoint:\n        address:\n          socket_address: {{ address: 127.0.0.1, port_value: {} }}\n",
        Kind::Endpoints.url(),
        one.address.port(),
    );
    put_text(&dir.join("eds.json"), &yaml);
    proxy.until_ready().await;
    until(proxy.listener("in").await, 200, "one").await;
}

#[tokio::test]
async fn a_directory_is_watched_instead_of_the_files_own() {
    // As a volume of Kubernetes does it: the files lie behind a link, and a rename replaces the link.
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let publish = |version: &str, status: u16| {
        std::fs::create_dir(dir.join(version)).unwrap();
        let direct = json!({ "match": { "prefix": "/" }, "direct_response": { "status": status } });
        let routes = dir.join(version).join("rds.json");
        put(&routes, Kind::Routes, &[table("table", &[direct])]);
        let listeners = dir.join(version).join("lds.json");
        let rds = json!({ "rds": { "route_config_name": "table", "config_source": behind(dir, "rds.json") } });
        put(&listeners, Kind::Listener, &[listener_of("in", hcm(rds, json!({})))]);
        std::os::unix::fs::symlink(version, dir.join("next")).unwrap();
        std::fs::rename(dir.join("next"), dir.join("live")).unwrap();
    };
    publish("first", 201);
    let bootstrap = json!({
        "node": { "id": "n", "cluster": "c" },
        "dynamic_resources": { "lds_config": behind(dir, "lds.json") },
    });
    let proxy = ProxyBuilder::new(bootstrap.clone()).ready().await;
    let address = proxy.listener("in").await;
    assert_eq!(get(address, "/").await.status, 201);
    publish("second", 202);
    until(address, 202, "").await;

    let mut nowhere = bootstrap;
    let source = &mut nowhere["dynamic_resources"]["lds_config"]["path_config_source"];
    source["watched_directory"] = json!({});
    let said = run(["--mode", "validate", "--config-yaml", &nowhere.to_string()]).await;
    let expected = "lds_config.path_config_source.watched_directory.path: is required";
    assert!(said.code == Some(1) && said.all().contains(expected), "{}", said.all());
}

fn behind(dir: &Path, file: &str) -> Value {
    let (path, watched) = (dir.join("live").join(file), json!({ "path": dir.to_str().unwrap() }));
    json!({ "path_config_source": { "path": path.to_str().unwrap(), "watched_directory": watched } })
}
