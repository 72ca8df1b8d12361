//! Gateway files: looked at by commands, served, edited, and refused where they are wrong.

use std::path::{Path, PathBuf};
use std::process::Output;

use crate::harness::*;

pub(crate) const GOOD: &str = "\
listeners: [{name: in, port: 0}]
services:
- name: users
  instances:
  - {id: one, url: 'http://127.0.0.1:1'}
  - {id: two, url: 'http://127.0.0.1:2'}
routes:
- {prefix: /, service: users}
";

fn run(args: &[&str]) -> Output {
    binary().args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn path(folder: &Folder, name: &str) -> (PathBuf, String) {
    let path = folder.path().join(name);
    let shown = path.to_str().unwrap().to_owned();
    (path, shown)
}

async fn server(file: &Path, more: &[&str]) -> Server {
    Server::start_from("--gateway", file, more).await
}

/// A delta client that has taken all of [`GOOD`].
pub(crate) async fn taken(server: &Server) -> Delta {
    let mut talk = Delta::open(&server.xds, "a", delta(CLUSTER, &[])).await;
    assert_eq!(names(&talk.take(CLUSTER).await), ["users"]);
    talk.send(delta(ENDPOINT, &["users"])).await;
    assert_eq!(names(&talk.take(ENDPOINT).await), ["users"]);
    talk.send(delta(LISTENER, &[])).await;
    assert_eq!(names(&talk.take(LISTENER).await), ["in"]);
    talk.send(delta(ROUTE, &["gateway"])).await;
    assert_eq!(names(&talk.take(ROUTE).await), ["gateway"]);
    talk
}

#[tokio::test]
async fn an_edit_pushes_what_it_changes_and_nothing_else() {
    let folder = Folder::new(&[("gateway.yaml", GOOD)]);
    let server = server(&path(&folder, "gateway.yaml").0, &[]).await;
    let mut talk = taken(&server).await;
    // An instance is one of its service's endpoints.
    let moved = GOOD.replace("127.0.0.1:2", "127.0.0.1:3");
    folder.write("gateway.yaml", &moved);
    assert_eq!(names(&talk.take(ENDPOINT).await), ["users"]);
    // A route is of the route table, and a comment is of nothing.
    let routed = format!("# routes by prefix\n{}", moved.replace("prefix: /,", "prefix: /users,"));
    folder.write("gateway.yaml", &routed);
    assert_eq!(names(&talk.take(ROUTE).await), ["gateway"]);
    // A filter is of the listener.
    let zipped = format!("{routed}compression: {{}}\n");
    folder.write("gateway.yaml", &zipped);
    assert_eq!(names(&talk.take(LISTENER).await), ["in"]);
    // A health check is of the cluster, behind which its endpoints are sent again.
    folder.write("gateway.yaml", &format!("{zipped}load_balancer: {{}}\n"));
    assert_eq!(names(&talk.take(CLUSTER).await), ["users"]);
    assert_eq!(names(&talk.take(ENDPOINT).await), ["users"]);
}

#[tokio::test]
async fn a_bad_edit_leaves_the_last_good_one_served_and_says_why() {
    let folder = Folder::new(&[("gateway.yaml", GOOD)]);
    let server = server(&path(&folder, "gateway.yaml").0, &[]).await;
    let mut talk = taken(&server).await;
    let before = server.get("/snapshot").await;
    let refused = |s: &serde_json::Value| !s["groups"][0]["errors"].as_array().unwrap().is_empty();
    for (bad, place, field, message) in [
        (
            GOOD.replace("service: users", "service: user"),
            (8, 15),
            "routes[0].service",
            "\"users\"?",
        ),
        (GOOD.replace("routes", "ruotes"), (7, 1), "ruotes", "did you mean \"routes\"?"),
        (GOOD.replace("[{name", "[{name: in, name"), (1, 24), "", "duplicate key"),
        (GOOD.replace("prefix: /", "headers: {x: {regex: '('}}"), (8, 3), "", "unclosed"),
    ] {
        folder.write("gateway.yaml", &bad);
        let status = server.status_when(refused).await;
        let error = &status["groups"][0]["errors"][0];
        assert!(error["file"].as_str().unwrap().ends_with("/gateway.yaml"), "{error}");
        assert_eq!(
            (&error["line"], &error["column"]),
            (&place.0.into(), &place.1.into()),
            "{error}"
        );
        assert!(error["field"].as_str().unwrap().contains(field), "{error}");
        assert!(error["message"].as_str().unwrap().contains(message), "{error}");
        assert_eq!(server.get("/snapshot").await, before);
        let (_, metrics) = server.fetch("GET", "/metrics").await;
        assert!(metrics.contains("xds_server_errors{group=\"default\"} 1"), "{metrics}");
        folder.write("gateway.yaml", GOOD);
        server.status_when(|s| !refused(s)).await;
    }
    // It was on the stream all the time, and nothing came.
    folder.write("gateway.yaml", &GOOD.replace("127.0.0.1:2", "127.0.0.1:3"));
    assert_eq!(names(&talk.take(ENDPOINT).await), ["users"]);
}

#[tokio::test]
async fn what_is_explained_can_be_served_as_resources() {
    let whole =
        format!("{GOOD}load_balancer: {{}}\ncache: {{}}\ncompression: {{}}\nconnection_pool:\n");
    let folder = Folder::new(&[("gateway.yaml", &whole)]);
    let (file, shown) = path(&folder, "gateway.yaml");
    let explained = run(&["explain", &shown]);
    assert!(explained.status.success(), "{}", text(&explained.stderr));
    assert_eq!(text(&explained.stderr), "");
    let resources = Folder::new(&[("all.yaml", &text(&explained.stdout))]);
    let translated = server(&file, &[]).await.get("/snapshot").await;
    let served = Server::start(resources.path()).await.get("/snapshot").await;
    assert_eq!(translated["types"], served["types"]);
}

#[test]
fn a_check_tells_every_error_and_its_exit_code_says_so() {
    let folder = Folder::new(&[("good.yaml", GOOD), ("bad.yaml", "listners: []\nroutes: [{}]\n")]);
    let (_, good) = path(&folder, "good.yaml");
    let checked = run(&["check", &good]);
    assert!(checked.status.success());
    let expected = format!("{good}: good: clusters 1, endpoints 1, listeners 1, routes 1\n");
    assert_eq!(text(&checked.stdout), expected);

    let (_, bad) = path(&folder, "bad.yaml");
    let checked = run(&["check", &bad]);
    assert_eq!(checked.status.code(), Some(1));
    let expected = format!(
        "{bad}:1:1: listners: unknown key; did you mean \"listeners\"?\n{bad}:1:1: listeners is required\n"
    );
    assert_eq!(text(&checked.stderr), expected);
    assert_eq!(text(&checked.stdout), "");
    let (_, none) = path(&folder, "none.yaml");
    assert!(text(&run(&["check", &none]).stderr).contains("none.yaml: cannot be read"));
}

#[test]
fn a_difference_is_what_proxies_receive() {
    let new = GOOD.replace("127.0.0.1:2", "127.0.0.1:3");
    let folder = Folder::new(&[("old.yaml", GOOD), ("new.yaml", &new)]);
    let ((_, old), (_, new)) = (path(&folder, "old.yaml"), path(&folder, "new.yaml"));
    let told = text(&run(&["diff", &old, &new]).stdout);
    let address = "endpoints[0].lb_endpoints[1].endpoint.address.socket_address.port_value";
    assert_eq!(told, format!("~ ClusterLoadAssignment users\n    {address}: 2 -> 3\n"));
    assert_eq!(text(&run(&["diff", &old, &old]).stdout), "");
}

#[tokio::test]
async fn an_envoy_is_served_what_it_understands_and_the_rest_is_a_warning() {
    let whole = format!("{GOOD}cache: {{}}\ncompression: {{}}\nconnection_pool: {{}}\n");
    let folder = Folder::new(&[("gateway.yaml", &whole)]);
    let (file, shown) = path(&folder, "gateway.yaml");
    let explained = run(&["explain", "--flavour", "envoy", &shown]);
    assert!(!text(&explained.stdout).contains("nuncio"), "{}", text(&explained.stdout));
    let warned = text(&explained.stderr);
    assert!(warned.contains("gateway.yaml:9:1: cache: has no form in Envoy"), "{warned}");
    let server = server(&file, &["--flavour", "envoy"]).await;
    let status = server.get("/status").await;
    let warnings = status["groups"][0]["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), warned.lines().count(), "{warnings:?}");
}

#[test]
fn the_schema_is_told() {
    let schema: serde_json::Value = serde_json::from_slice(&run(&["schema"]).stdout).unwrap();
    let interval = &schema["properties"]["load_balancer"]["properties"]["health_check"];
    assert_eq!(interval["properties"]["interval"]["default"], "30s");
}
