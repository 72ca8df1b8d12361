//! The status API.

use crate::harness::*;

#[tokio::test]
async fn each_proxy_is_shown_with_what_it_took_and_what_it_refused() {
    let folder = Folder::usual();
    let server = Server::start(folder.path()).await;
    let mut talk = served(&server, "a").await;
    let acked = |s: &serde_json::Value| s["proxies"][0]["types"][3]["state"] == "acked";
    let status = server.status_when(acked).await;
    let proxy = &status["proxies"][0];
    assert_eq!((&proxy["node_id"], &proxy["node_cluster"]), (&"a".into(), &"edge".into()));
    assert_eq!(proxy["user_agent"], "bare");
    assert!(proxy["connected_since"].as_str().unwrap().ends_with('Z'), "{proxy}");
    let stream = &proxy["streams"][0];
    assert_eq!((&stream["stream"], &stream["variant"]), (&"ads".into(), &"delta".into()));
    assert!(stream["peer"].as_str().unwrap().starts_with("127.0.0.1:"));
    let keys: Vec<_> =
        proxy["types"].as_array().unwrap().iter().map(|t| t["type"].as_str().unwrap()).collect();
    assert_eq!(keys, ["clusters", "endpoints", "listeners", "routes"]);
    let snapshot = server.get("/snapshot?group=default").await;
    let routes = &proxy["types"][3];
    assert_eq!(routes["version_acked"], snapshot["types"]["routes"]["version"]);
    assert_eq!((&routes["names"], &routes["wildcard"]), (&1.into(), &false.into()));
    assert!(routes["last_nack"].is_null());

    let edited = routes_text("main", "nobody");
    folder.write("routes.yaml", &edited);
    let response = talk.next().await;
    talk.nack(&response, "routes[0]: I do not like it").await;
    let nacked = |s: &serde_json::Value| s["proxies"][0]["types"][3]["state"] == "nacked";
    let status = server.status_when(nacked).await;
    let now = &status["proxies"][0]["types"][3];
    assert_eq!(now["last_nack"]["message"], "routes[0]: I do not like it");
    assert_eq!(now["last_nack"]["nonce"], response.nonce);
    assert_eq!(now["version_acked"], routes["version_acked"]);
    assert_ne!(now["version_sent"], routes["version_sent"]);
    let (_, metrics) = server.fetch("GET", "/metrics").await;
    assert!(metrics.contains("xds_server_nacks_total{type=\"routes\"} 1\n"), "{metrics}");
    assert!(metrics.contains("xds_server_streams{stream=\"ads\",variant=\"delta\"} 1\n"));
    // The set names a cluster that is not there: served, with a doubt.
    let warning = &status["groups"][0]["warnings"][0];
    assert!(warning["message"].as_str().unwrap().contains("\"nobody\""), "{warning}");

    drop(talk);
    server.status_when(|s| s["proxies"].as_array().unwrap().is_empty()).await;
}

fn routes_text(name: &str, cluster: &str) -> String {
    format!("routes:\n{}", routes(name, cluster))
}

#[tokio::test]
async fn the_other_pages_answer() {
    let folder = Folder::usual();
    let server = Server::start(folder.path()).await;
    assert!(server.fetch("GET", "/").await.1.contains("/snapshot"));
    assert_eq!(server.fetch("GET", "/ready").await, (200, "ready\n".to_owned()));
    assert_eq!(server.fetch("GET", "/none").await.0, 404);
    assert_eq!(server.fetch("GET", "/snapshot?group=none").await.0, 404);
    assert_eq!(server.fetch("POST", "/status").await.0, 405);
    let snapshot = server.get("/snapshot").await;
    assert!(snapshot["types"]["clusters"]["resources"]["users"].is_string(), "{snapshot}");
}
