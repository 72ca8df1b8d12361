//! Files as an operator writes them, right and wrong.

use std::fs;

use super::*;

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dir
}

/// What is wrong with the default group, without the folder's own path.
fn faults(files: &[(&str, &str)]) -> Vec<String> {
    let dir = folder(files);
    let prefix = format!("{}/", dir.path().display());
    let mut load = match read(dir.path(), None).load {
        Ok(load) => load,
        Err(problems) => {
            return problems.iter().map(|p| p.to_string().replace(&prefix, "")).collect();
        }
    };
    load.groups.remove(0).errors.iter().map(|p| p.to_string().replace(&prefix, "")).collect()
}

const CLUSTER: &str = "clusters:\n- name: a\n  connect_timeout: 1s\n";

#[test]
fn every_resource_of_every_file_is_read() {
    let dir = folder(&[
        ("b.json", r#"{"endpoints": [{"clusterName": "a"}], "routes": null}"#),
        ("a.yaml", CLUSTER),
        (".hidden.yaml", "nonsense: 1"),
        ("readme.md", "nonsense"),
        ("empty.yml", ""),
        ("sub/c.yaml", "nonsense: 1"),
    ]);
    let load = read(dir.path(), None).load.unwrap();
    assert_eq!(load.groups[0].items.len(), 2);
    let load = read(&dir.path().join("a.yaml"), None).load.unwrap();
    assert_eq!(load.groups[0].items.len(), 1);
}

#[test]
fn faults_name_file_line_and_field() {
    let text = "clusters:\n- name: a\n  load_assignment:\n    cluster_name: a\n    endpoints:\n    - \
                priority: high\n";
    let found = faults(&[("a.yaml", text)]);
    assert_eq!(found.len(), 1);
    let expected = r#"a.yaml:6:7: Cluster "a": load_assignment.endpoints[0].priority: "#;
    assert!(found[0].starts_with(expected), "{}", found[0]);

    let keys = "secrets, clusters, endpoints, listeners, extensions, routes, virtual_hosts";
    assert_eq!(
        faults(&[("a.yaml", "clusters: []\nbackends: []\nroutes: 5\n"), ("b.yaml", "[1]")]),
        [
            format!(r#"a.yaml:2:1: unknown key "backends"; expected one of {keys}"#),
            "a.yaml:3:1: routes: expected a list".to_owned(),
            format!("b.yaml:1:1: expected a mapping with {keys}"),
        ]
    );
    assert!(faults(&[("a.yaml", "clusters: [\n")])[0].starts_with("a.yaml:"));
    assert!(faults(&[("a.txt", "")])[0].contains("holds no *.yaml"));
    let other = "clusters:\n- '@type': type.googleapis.com/envoy.config.listener.v3.Listener\n";
    assert!(faults(&[("a.yaml", other)])[0].starts_with("a.yaml:2:3: "));
    let same = "clusters:\n- '@type': type.googleapis.com/envoy.config.cluster.v3.Cluster\n";
    assert!(faults(&[("a.yaml", same)]).is_empty());
}

#[test]
fn groups_are_read_by_the_rule_file() {
    let rules = "groups:\n- name: canary\n  match: {id: 'edge-?'}\n  path: canary\n";
    let dir = folder(&[("a.yaml", CLUSTER), ("groups.yaml", rules), ("canary/b.yaml", CLUSTER)]);
    let found = read(dir.path(), None);
    let load = found.load.unwrap();
    let names: Vec<_> = load.groups.iter().map(|g| &*g.name).collect();
    assert_eq!(names, ["default", "canary"]);
    assert_eq!(load.groups[1].items.len(), 1);
    assert_eq!(&*load.rules.group("edge-1", ""), "canary");
    assert!(found.folders.contains(&dir.path().join("canary").canonicalize().unwrap()));
}

#[test]
fn faults_of_rules_name_their_line() {
    let rules = "groups:\n- name: default\n  match: {}\n  path: x\n- match: {id: 5}\n  paht: y\n";
    assert_eq!(
        faults(&[("a.yaml", CLUSTER), ("groups.yaml", rules)]),
        [
            "groups.yaml:2:3: groups[0].name: is the group of nodes that no rule fits",
            "groups.yaml:3:3: groups[0].match: id or cluster is required",
            "groups.yaml:6:3: groups[1].paht: unknown key; expected name, match, path",
            "groups.yaml:5:3: groups[1]: name is required",
            "groups.yaml:5:3: groups[1]: path is required",
            "groups.yaml:5:11: groups[1].match.id: expected a text that is not empty",
        ]
    );
}
