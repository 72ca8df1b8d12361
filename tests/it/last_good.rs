//! The last good configuration on disk: what a start does without its management server.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::harness::resources::{
    assignment, dynamic_sotw, eds_cluster, hcm, listener_at, rds, static_cluster, table, to,
};
use crate::harness::{Kind, Origin, Plane, Proxy, ProxyBuilder, eventually, get};

fn resources(origin: &Origin) -> Vec<(Kind, Value)> {
    vec![
        (Kind::Cluster, eds_cluster("one")),
        (Kind::Endpoints, assignment("one", &[origin.address])),
        (Kind::Listener, listener_at("in", 0, hcm(rds("table"), json!({})))),
        (Kind::Routes, table("table", &[to("one")])),
    ]
}

fn file_in(dir: &Path) -> Option<PathBuf> {
    let mut files = std::fs::read_dir(dir).ok()?.filter_map(Result::ok).map(|entry| entry.path());
    files.find(|path| path.extension().is_some_and(|e| e == "nuncio"))
}

/// A proxy that has written what it was served.
async fn saved(plane: &Plane) -> (Proxy, PathBuf) {
    let builder = ProxyBuilder::new(dynamic_sotw(plane.address));
    let dir = builder.dir().join("snapshots");
    std::fs::create_dir(&dir).unwrap();
    let args = ["--snapshot-dir".to_owned(), dir.to_str().unwrap().to_owned()];
    let proxy = builder.args(args).ready().await;
    proxy.until_stat_at_least("nuncio.snapshot_written", 1).await;
    let file = eventually("the file is there", async || file_in(&dir)).await;
    eventually("routes are in it", async || {
        let bytes = std::fs::read(&file).ok()?;
        bytes.windows(5).any(|w| w == b"table").then_some(())
    })
    .await;
    (proxy, file)
}

#[tokio::test]
async fn a_start_without_the_server_serves_at_once_and_says_so() {
    let origin = Origin::http1("one").await;
    let mut plane = Plane::start(&resources(&origin)).await;
    let (mut proxy, _file) = saved(&plane).await;
    assert!(proxy.terminate().await.success());
    plane.kill();

    let start = Instant::now();
    proxy.restart().await;
    proxy.until_ready().await;
    let address = proxy.listener("in").await;
    assert_eq!(get(address, "/").await.text(), "one");
    assert!(start.elapsed() < Duration::from_secs(1), "served after {:?}", start.elapsed());
    let ready = proxy.admin("GET", "/ready").await;
    assert!(ready.text().to_lowercase().contains("saved"), "{}", ready.text());
    proxy.until_stat_at_least("nuncio.snapshot_age_seconds", 1).await;
    proxy.until_log("read from disk").await;

    // The server's first answer takes its place.
    let other = Origin::http1("other").await;
    plane.update(Kind::Endpoints, &assignment("one", &[other.address]));
    plane.restart().await;
    eventually("the server's endpoints are used", async || {
        (get(address, "/").await.text() == "other").then_some(())
    })
    .await;
    proxy.until_log("replaced the configuration read from disk").await;
    proxy.until_stat("nuncio.snapshot_age_seconds", 0).await;
    let ready = proxy.admin("GET", "/ready").await;
    assert_eq!((ready.status, ready.text().trim()), (200, "LIVE"));
    assert_eq!(proxy.listener("in").await, address, "the same port");
}

#[tokio::test]
async fn what_is_gone_at_the_server_is_gone_here() {
    let origin = Origin::http1("one").await;
    let mut plane = Plane::start(&resources(&origin)).await;
    let (mut proxy, _file) = saved(&plane).await;
    assert!(proxy.terminate().await.success());
    plane.kill();
    for (kind, name) in [
        (Kind::Listener, "in"),
        (Kind::Routes, "table"),
        (Kind::Cluster, "one"),
        (Kind::Endpoints, "one"),
    ] {
        plane.remove(kind, name);
    }
    plane.update(Kind::Cluster, &static_cluster("new", &[origin.address]));
    proxy.restart().await;
    proxy.until_ready().await;
    let address = proxy.listener("in").await;
    plane.restart().await;
    eventually("the listener goes", async || {
        tokio::net::TcpStream::connect(address).await.is_err().then_some(())
    })
    .await;
    proxy.until_stat("cluster.new.membership_total", 1).await;
    assert!(proxy.find_stat("cluster.one.membership_total").await.is_none());
}

#[tokio::test]
async fn files_that_cannot_be_trusted_are_refused_and_the_start_goes_on() {
    let origin = Origin::http1("one").await;
    let mut plane = Plane::start(&resources(&origin)).await;
    let (mut proxy, file) = saved(&plane).await;
    assert!(proxy.terminate().await.success());
    let good = std::fs::read(&file).unwrap();
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let longer = [&good[..], b"x"].concat();
    let cases: [(&str, &[u8]); 6] = [
        ("half", &good[..good.len() / 2]),
        ("flipped", &flipped),
        ("longer", &longer),
        ("empty", b""),
        ("foreign", b"#!/bin/sh\necho this is not for you to run as configuration\n"),
        ("zeros", &[0; 4096]),
    ];
    for (what, bytes) in cases {
        std::fs::write(&file, bytes).unwrap();
        proxy.restart().await;
        let warning = proxy.until_log("last_good").await;
        assert!(warning.contains("WARN"), "{what}: {warning}");
        proxy.until_ready().await;
        assert_eq!(get(proxy.listener("in").await, "/").await.text(), "one", "{what}");
        assert_eq!(proxy.stat("nuncio.snapshot_age_seconds").await, 0, "{what}");
        proxy.kill();
    }
    // Without a server either, it waits for one instead of serving what it cannot trust.
    plane.kill();
    std::fs::write(&file, &flipped).unwrap();
    proxy.restart().await;
    assert_eq!(proxy.admin("GET", "/ready").await.status, 503);
    plane.restart().await;
    proxy.until_ready().await;
}

#[tokio::test]
async fn secrets_are_never_in_the_file() {
    let origin = Origin::http1("one").await;
    let mut plane_resources = resources(&origin);
    plane_resources.push((
        Kind::Secret,
        json!({
            "name": "token", "generic_secret": { "secret": { "inline_string": "SWORDFISH" } },
        }),
    ));
    let plane = Plane::start(&plane_resources).await;
    let (mut proxy, file) = saved(&plane).await;
    assert!(proxy.terminate().await.success());
    let bytes = std::fs::read(&file).unwrap();
    assert!(!bytes.windows(9).any(|w| w == b"SWORDFISH"));
    let dump = proxy.process.stderr();
    assert!(!dump.contains("SWORDFISH"));
}

#[tokio::test]
async fn another_nodes_file_is_not_read() {
    let origin = Origin::http1("one").await;
    let mut plane = Plane::start(&resources(&origin)).await;
    let (mut proxy, file) = saved(&plane).await;
    assert!(proxy.terminate().await.success());
    plane.kill();
    let args = [
        "--snapshot-dir",
        file.parent().unwrap().to_str().unwrap(),
        "--service-node",
        "somebody-else",
    ];
    let other = ProxyBuilder::new(dynamic_sotw(plane.address)).args(args).start().await;
    other.until_log("somebody-else").await;
    assert_eq!(other.admin("GET", "/ready").await.status, 503);
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_counted_and_traffic_flows() {
    let origin = Origin::http1("one").await;
    let plane = Plane::start(&resources(&origin)).await;
    let builder = ProxyBuilder::new(dynamic_sotw(plane.address));
    let dir = builder.dir().join("snapshots");
    std::fs::create_dir(&dir).unwrap();
    // A folder in the way of every file: not even root can rename over it.
    std::fs::create_dir(dir.join("last_good.nuncio")).unwrap();
    let args = ["--snapshot-dir".to_owned(), dir.to_str().unwrap().to_owned()];
    let proxy = builder.args(args).ready().await;
    proxy.until_stat_at_least("nuncio.snapshot_write_failure", 1).await;
    proxy.until_log("last_good.nuncio").await;
    assert_eq!(get(proxy.listener("in").await, "/").await.text(), "one");
}
