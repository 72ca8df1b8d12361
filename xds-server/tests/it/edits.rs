//! Edits of the files: good ones are served, bad ones refused where they were made.

use std::fs;
use std::os::unix::fs::symlink;

use prost::Message;

use crate::harness::*;

fn port(any: &prost_types::Any) -> u32 {
    use nuncio::proto::envoy::config::core::v3::{address, socket_address};
    use nuncio::proto::envoy::config::endpoint::v3::{ClusterLoadAssignment, lb_endpoint};
    let cla = ClusterLoadAssignment::decode(&*any.value).unwrap();
    let host = cla.endpoints[0].lb_endpoints[0].host_identifier.clone().unwrap();
    let lb_endpoint::HostIdentifier::Endpoint(endpoint) = host;
    let address = endpoint.address.unwrap().address.unwrap();
    let address::Address::SocketAddress(socket) = address;
    let socket_address::PortSpecifier::PortValue(port) = socket.port_specifier.unwrap();
    port
}

#[tokio::test]
async fn an_edited_endpoint_is_all_that_delta_sends() {
    let folder = Folder::usual();
    let server = Server::start(folder.path()).await;
    let mut talk = served(&server, "a").await;
    for round in 2..5 {
        folder.write("endpoints.yaml", &format!("endpoints:\n{}", endpoints("users", round)));
        let response = talk.take(ENDPOINT).await;
        assert_eq!(names(&response), ["users"]);
        assert_eq!(port(response.resources[0].resource.as_ref().unwrap()), u32::from(round));
        assert!(response.removed_resources.is_empty());
    }
}

#[tokio::test]
async fn an_edited_endpoint_reaches_a_sotw_client() {
    let folder = Folder::usual();
    let server = Server::start(folder.path()).await;
    let mut talk = Sotw::open(&server.xds, "a", sotw(CLUSTER, &[])).await;
    let clusters = talk.next().await;
    assert_eq!((clusters.type_url.as_str(), clusters.resources.len()), (CLUSTER, 1));
    talk.ack(&clusters, &[]).await;
    talk.send(sotw(ENDPOINT, &["users"])).await;
    let first = talk.next().await;
    assert_eq!(port(&first.resources[0]), 1);
    talk.ack(&first, &["users"]).await;
    folder.write("endpoints.yaml", &format!("endpoints:\n{}", endpoints("users", 2)));
    let second = talk.next().await;
    assert_eq!((second.type_url.as_str(), port(&second.resources[0])), (ENDPOINT, 2));
    assert_ne!(first.version_info, second.version_info);
}

#[tokio::test]
async fn a_bad_edit_is_refused_with_its_line_and_the_last_good_set_stays() {
    let folder = Folder::usual();
    let server = Server::start(folder.path()).await;
    let mut talk = served(&server, "a").await;
    let before = server.get("/snapshot").await;
    let bad = format!("routes:\n{}  validate_clusters: maybe\n", routes("main", "users"));
    folder.write("routes.yaml", &bad);
    let refused = |s: &serde_json::Value| !s["groups"][0]["errors"].as_array().unwrap().is_empty();
    let status = server.status_when(refused).await;
    let error = &status["groups"][0]["errors"][0];
    assert!(error["file"].as_str().unwrap().ends_with("/routes.yaml"), "{error}");
    assert_eq!(error["line"], 8);
    assert_eq!(error["resource"], r#"RouteConfiguration "main""#);
    assert_eq!(error["field"], "validate_clusters");
    assert_eq!(server.get("/snapshot").await, before);
    let (_, metrics) = server.fetch("GET", "/metrics").await;
    assert!(metrics.contains("xds_server_errors{group=\"default\"} 1"), "{metrics}");

    // The endpoints are good, but a set is taken whole.
    folder.write("endpoints.yaml", &format!("endpoints:\n{}", endpoints("users", 7)));
    folder.write("routes.yaml", &format!("routes:\n{}", routes("main", "users")));
    let response = talk.take(ENDPOINT).await;
    assert_eq!(port(response.resources[0].resource.as_ref().unwrap()), 7);
    server.status_when(|s| !refused(s)).await;
}

#[tokio::test]
async fn what_the_proxy_would_reject_is_refused_at_its_line() {
    let folder = Folder::usual();
    let server = Server::start(folder.path()).await;
    let text = endpoints("users", 1).replace("port_value: 1}", "port_value: 70000}");
    folder.write("endpoints.yaml", &format!("endpoints:\n{text}"));
    let status =
        server.status_when(|s| !s["groups"][0]["errors"].as_array().unwrap().is_empty()).await;
    let error = &status["groups"][0]["errors"][0];
    assert!(error["file"].as_str().unwrap().ends_with("/endpoints.yaml"), "{error}");
    assert_eq!(error["line"], 7);
    assert_eq!(error["resource"], r#"ClusterLoadAssignment "users""#);
    assert!(error["message"].as_str().unwrap().contains("70000"), "{error}");
}

#[tokio::test]
async fn a_listener_without_its_routes_is_refused() {
    let folder = Folder::usual();
    let server = Server::start(folder.path()).await;
    folder.write("routes.yaml", &format!("routes:\n{}", routes("other", "users")));
    let status =
        server.status_when(|s| !s["groups"][0]["errors"].as_array().unwrap().is_empty()).await;
    let error = &status["groups"][0]["errors"][0];
    assert!(error["message"].as_str().unwrap().contains("\"main\""), "{error}");
    assert!(error["file"].as_str().unwrap().ends_with("/front.yaml"), "{error}");
}

#[test]
fn a_bad_set_at_the_start_ends_it_with_every_error() {
    let folder = Folder::new(&[
        ("a.yaml", "clusters:\n- name: a\n- name: a\n"),
        ("b.yaml", "cluters: []\n"),
        ("c.json", "{"),
    ]);
    let output = run_to_end(folder.path().to_owned());
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("/b.yaml:1:1: unknown key \"cluters\""), "{text}");
    assert!(text.contains(r#"/a.yaml:3:3: Cluster "a": is defined already at "#), "{text}");
    assert!(text.contains("/c.json:"), "{text}");

    let missing = run_to_end(folder.path().join("none"));
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8(missing.stderr).unwrap().contains("none: cannot be read"));
}

#[tokio::test]
async fn a_swapped_link_is_followed() {
    let folder = Folder::new(&[]);
    let at = |name: &str| folder.path().join(name);
    for (version, port) in [("..1", 1), ("..2", 2), ("..3", 3)] {
        let text =
            format!("clusters:\n{}endpoints:\n{}", cluster("users"), endpoints("users", port));
        folder.write(&format!("{version}/all.yaml"), &text);
    }
    symlink("..1", at("..data")).unwrap();
    symlink("..data/all.yaml", at("all.yaml")).unwrap();
    let server = Server::start(folder.path()).await;
    let mut talk = Delta::open(&server.xds, "a", delta(ENDPOINT, &["users"])).await;
    let response = talk.take(ENDPOINT).await;
    assert_eq!(port(response.resources[0].resource.as_ref().unwrap()), 1);
    for (version, expected) in [("..2", 2), ("..3", 3)] {
        symlink(version, at("..next")).unwrap();
        fs::rename(at("..next"), at("..data")).unwrap();
        let response = talk.take(ENDPOINT).await;
        assert_eq!(port(response.resources[0].resource.as_ref().unwrap()), expected);
    }
}

#[tokio::test]
async fn a_folder_behind_a_link_and_one_made_again_are_followed() {
    let folder = Folder::new(&[]);
    let write = |release: &str, port| {
        let text =
            format!("clusters:\n{}endpoints:\n{}", cluster("users"), endpoints("users", port));
        folder.write(&format!("{release}/all.yaml"), &text);
    };
    write("one", 1);
    write("two", 2);
    symlink("one", folder.path().join("current")).unwrap();
    let server = Server::start(&folder.path().join("current")).await;
    let mut talk = Delta::open(&server.xds, "a", delta(ENDPOINT, &["users"])).await;
    talk.take(ENDPOINT).await;
    symlink("two", folder.path().join("next")).unwrap();
    fs::rename(folder.path().join("next"), folder.path().join("current")).unwrap();
    let response = talk.take(ENDPOINT).await;
    assert_eq!(port(response.resources[0].resource.as_ref().unwrap()), 2);
    fs::remove_dir_all(folder.path().join("two")).unwrap();
    server.status_when(|s| !s["groups"][0]["errors"].as_array().unwrap().is_empty()).await;
    write("two", 3);
    let response = talk.take(ENDPOINT).await;
    assert_eq!(port(response.resources[0].resource.as_ref().unwrap()), 3);
    write("two", 4);
    let response = talk.take(ENDPOINT).await;
    assert_eq!(port(response.resources[0].resource.as_ref().unwrap()), 4);
}
