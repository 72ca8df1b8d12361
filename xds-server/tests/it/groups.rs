//! Which node is served which folder.

use crate::harness::*;

fn clusters(names: &[&str]) -> String {
    let clusters: String = names.iter().map(|name| cluster(name)).collect();
    format!("clusters:\n{clusters}")
}

const RULES: &str = "groups:\n- name: canary\n  match: {id: 'canary-*'}\n  path: canary\n";

#[tokio::test]
async fn nodes_are_served_their_group() {
    let folder = Folder::new(&[
        ("all.yaml", &clusters(&["common"])),
        ("canary/all.yaml", &clusters(&["new"])),
        ("groups.yaml", RULES),
    ]);
    let server = Server::start(folder.path()).await;
    let mut usual = Delta::open(&server.xds, "edge-1", delta(CLUSTER, &[])).await;
    let mut canary = Delta::open(&server.xds, "canary-1", delta(CLUSTER, &[])).await;
    assert_eq!(names(&usual.take(CLUSTER).await), ["common"]);
    assert_eq!(names(&canary.take(CLUSTER).await), ["new"]);

    // Each group follows its own folder.
    folder.write("canary/all.yaml", &clusters(&["new", "newer"]));
    assert_eq!(names(&canary.take(CLUSTER).await), ["newer"]);
    let status = server.get("/status").await;
    let group_of = |id: &str| {
        let proxies = status["proxies"].as_array().unwrap();
        proxies.iter().find(|p| p["node_id"] == id).unwrap()["group"].clone()
    };
    assert_eq!((group_of("edge-1"), group_of("canary-1")), ("default".into(), "canary".into()));

    // A bad edit in one group is that group's affair.
    folder.write("canary/all.yaml", "clusters: 5\n");
    folder.write("all.yaml", &clusters(&["common", "second"]));
    assert_eq!(names(&usual.take(CLUSTER).await), ["second"]);
    let bad = server.status_when(|s| s["groups"][0]["errors"][0].is_object()).await;
    assert_eq!(bad["groups"][0]["name"], "canary");
    assert!(bad["groups"][1]["errors"].as_array().unwrap().is_empty());
    folder.write("canary/all.yaml", &clusters(&["new", "newer"]));
    server.status_when(|s| s["groups"][0]["errors"][0].is_null()).await;

    // Without the rule the canary is a node like the others.
    folder.write("groups.yaml", "groups: []\n");
    let moved = canary.take(CLUSTER).await;
    assert_eq!(names(&moved), ["common", "second"]);
    assert_eq!(moved.removed_resources, ["new", "newer"]);
}

#[tokio::test]
async fn the_rule_file_may_be_elsewhere() {
    let folder = Folder::new(&[
        ("base/all.yaml", &clusters(&["common"])),
        ("rules/rules.yaml", &RULES.replace("path: canary", "path: ../canary.yaml")),
        ("canary.yaml", &clusters(&["new"])),
    ]);
    let rules = folder.path().join("rules/rules.yaml");
    let more = ["--groups", rules.to_str().unwrap()];
    let server = Server::start_with(&folder.path().join("base"), &more).await;
    let mut canary = Delta::open(&server.xds, "canary-1", delta(CLUSTER, &[])).await;
    assert_eq!(names(&canary.take(CLUSTER).await), ["new"]);
}
