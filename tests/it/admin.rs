//! The admin endpoint: what is there, in which form, and what it refuses.

use serde_json::json;
use tokio::net::TcpStream;

use crate::harness::resources::{
    bootstrap, dynamic_sotw, hcm, listener, listener_at, static_cluster, table, to,
};
use crate::harness::{Http1, Management, Origin, Proxy, ProxyBuilder, Script, eventually, get};

async fn proxy_and_origin() -> (Origin, Proxy) {
    let origin = Origin::http1("one").await;
    let clusters = [static_cluster("one", &[origin.address])];
    let mut config = bootstrap(&[listener("in", &[to("one")])], &clusters);
    config["node"] = json!({ "id": "node-7", "cluster": "cluster-7" });
    let proxy = ProxyBuilder::new(config).args(["--drain-time-s", "1"]).ready().await;
    (origin, proxy)
}

#[tokio::test]
async fn ready_goes_from_initializing_to_live() {
    let server = Management::start().await;
    let waiting = ProxyBuilder::new(dynamic_sotw(server.address)).start().await;
    let ready = waiting.admin("GET", "/ready").await;
    assert_eq!(ready.status, 503);
    assert!(ready.text().contains("INITIALIZING"), "{}", ready.text());
    let (_origin, live) = proxy_and_origin().await;
    let ready = live.admin("GET", "/ready").await;
    assert_eq!((ready.status, ready.text().trim()), (200, "LIVE"));
    assert_eq!(live.admin_json("/server_info").await["state"], "LIVE");
}

#[tokio::test]
async fn server_info_tells_who_this_is() {
    let (_origin, proxy) = proxy_and_origin().await;
    let info = proxy.admin_json("/server_info").await;
    assert!(info["version"].as_str().unwrap().contains(env!("CARGO_PKG_VERSION")), "{info}");
    assert_eq!(info["node"]["id"], "node-7");
    assert_eq!(info["command_line_options"]["concurrency"], 2);
    assert!(info["uptime_current_epoch"].as_str().unwrap().ends_with('s'), "{info}");
}

#[tokio::test]
async fn config_dump_shows_every_resource() {
    let (_origin, proxy) = proxy_and_origin().await;
    let answer = proxy.admin("GET", "/config_dump").await;
    assert!(answer.header("content-type").starts_with("application/json"));
    let dump = proxy.admin_json("/config_dump").await;
    let of = |kind: &str| {
        let configs = dump["configs"].as_array().unwrap();
        let found = configs.iter().find(|c| c["@type"].as_str().unwrap().ends_with(kind));
        found.unwrap_or_else(|| panic!("{kind} in {dump}")).clone()
    };
    assert_eq!(of("BootstrapConfigDump")["bootstrap"]["node"]["id"], "node-7");
    let clusters = of("ClustersConfigDump");
    assert_eq!(clusters["static_clusters"][0]["cluster"]["name"], "one");
    let listeners = of("ListenersConfigDump");
    let shown = &listeners["static_listeners"][0]["listener"];
    assert_eq!(shown["name"], "in");
    // Extensions are shown in their JSON form, not as bytes.
    let manager = &shown["filter_chains"][0]["filters"][0]["typed_config"];
    assert_eq!(manager["stat_prefix"], "in");
}

#[tokio::test]
async fn clusters_are_shown_as_text_and_json() {
    let (origin, proxy) = proxy_and_origin().await;
    get(proxy.listener("in").await, "/").await;
    let text = proxy.admin_text("/clusters").await;
    for line in ["health_flags::healthy", "rq_total::1", "cx_active::1", "weight::1"] {
        let line = format!("one::{}::{line}", origin.address);
        assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
    }
    let object = proxy.admin_json("/clusters?format=json").await;
    let status = &object["cluster_statuses"][0];
    assert_eq!(status["name"], "one");
    let host = &status["host_statuses"][0];
    assert_eq!(host["address"]["socket_address"]["port_value"], origin.address.port());
    assert_eq!(host["health_status"]["eds_health_status"], "HEALTHY");
}

#[tokio::test]
async fn listeners_are_shown_as_text_and_json() {
    let (_origin, proxy) = proxy_and_origin().await;
    let address = proxy.listener("in").await;
    assert!(proxy.admin_text("/listeners").await.contains(&format!("in::{address}")));
}

#[tokio::test]
async fn stats_are_filtered_and_told_to_prometheus() {
    let (_origin, proxy) = proxy_and_origin().await;
    get(proxy.listener("in").await, "/").await;
    let text = proxy.admin_text("/stats").await;
    assert!(text.contains("http.in.downstream_rq_total: 1\n"), "{text}");
    let mut sorted: Vec<_> = text.lines().collect();
    sorted.sort_unstable();
    let some = proxy.admin_text("/stats?filter=%5Ehttp%5C.in%5C.").await;
    assert!(!some.is_empty() && some.lines().all(|line| line.starts_with("http.in.")), "{some}");
    assert_eq!(proxy.admin("GET", "/stats?filter=%5B").await.status, 400, "not a regex");
    let prometheus = proxy.admin_text("/stats/prometheus").await;
    let expected = "envoy_http_downstream_rq_total{envoy_http_conn_manager_prefix=\"in\"} 1";
    assert!(prometheus.lines().any(|l| l == expected), "{prometheus}");
    assert!(prometheus.contains("# TYPE envoy_http_downstream_rq_total counter"));
}

#[tokio::test]
async fn wrong_paths_and_methods_are_refused() {
    let (_origin, proxy) = proxy_and_origin().await;
    assert_eq!(proxy.admin("GET", "/nothing").await.status, 404);
    for path in ["/drain_listeners", "/quitquitquit"] {
        assert_eq!(proxy.admin("GET", path).await.status, 405, "{path} changes something");
    }
    assert_eq!(proxy.admin("DELETE", "/config_dump").await.status, 405);
    assert_eq!(proxy.admin("HEAD", "/ready").await.status, 200);
    let help = proxy.admin_text("/").await + &proxy.admin_text("/help").await;
    for path in ["/config_dump", "/clusters", "/listeners", "/stats", "/ready", "/server_info"] {
        assert!(help.contains(path), "{path} in {help}");
    }
    assert_eq!(get(proxy.listener("in").await, "/").await.status, 200, "nothing was done");
}

#[tokio::test]
async fn drained_listeners_take_no_new_connections() {
    let (origin, proxy) = proxy_and_origin().await;
    let address = proxy.listener("in").await;
    origin.script(Script::held());
    let mut busy = Http1::connect(address).await;
    busy.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
    origin.until_active(1).await;
    assert_eq!(proxy.admin("POST", "/drain_listeners").await.status, 200);
    eventually("the port is closed", async || {
        TcpStream::connect(address).await.is_err().then_some(())
    })
    .await;
    assert_eq!(proxy.admin("GET", "/ready").await.text().trim(), "LIVE");
    origin.release();
    assert_eq!(busy.answer().await.text(), "one");
}

#[tokio::test]
async fn quitquitquit_ends_the_process() {
    let (_origin, mut proxy) = proxy_and_origin().await;
    assert_eq!(proxy.admin("POST", "/quitquitquit").await.status, 200);
    assert!(proxy.process.exit().await.success());
}

#[tokio::test]
async fn listeners_of_any_interface_are_found_by_port() {
    let route = json!({ "match": { "prefix": "/" }, "direct_response": { "status": 204 } });
    let mut any =
        listener_at("any", 0, hcm(json!({ "route_config": table("t", &[route]) }), json!({})));
    any["address"]["socket_address"]["address"] = json!("0.0.0.0");
    let proxy = Proxy::with(bootstrap(&[any], &[])).await;
    let address = proxy.listener("any").await;
    assert!(address.ip().is_unspecified());
    assert_eq!(get(([127, 0, 0, 1], address.port()).into(), "/").await.status, 204);
}
