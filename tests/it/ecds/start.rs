//! What a listener does until its configurations come, and where else they come from.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::{BUFFER, MUTATION, cell, discovered, filtered, policy, says, until_says};
use crate::harness::resources::{
    ads, bootstrap, dynamic_sotw, grpc_services, hcm, listener_of, router, static_cluster, table,
    to, typed, with, xds_cluster,
};
use crate::harness::scripted::Sotw;
use crate::harness::{
    Kind, Management, Origin, Plane, Proxy, ProxyBuilder, ack_of, delta, eventually, get, request,
    sotw,
};

/// A listener that answers by itself, with this filter before the router.
fn answering(filter: Value, log: &Path) -> Value {
    let direct = json!({ "match": { "prefix": "/" }, "direct_response": { "status": 200 } });
    let routes = json!({ "route_config": table("local", &[direct]) });
    let format = "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n";
    let format = json!({ "text_format_source": { "inline_string": format } });
    let config = json!({ "path": log.to_str().unwrap(), "log_format": format });
    let file = typed("envoy.extensions.access_loggers.file.v3.FileAccessLog", config);
    let more = json!({
        "http_filters": [filter, router()],
        "access_log": [{ "name": "file", "typed_config": file }],
    });
    listener_of("in", hcm(routes, more))
}

/// [`ads`] with this `initial_fetch_timeout`.
fn within(timeout: &str) -> Value {
    json!({ "config_source": with(ads(), json!({ "initial_fetch_timeout": timeout })) })
}

/// A proxy that has been sent this listener, and was asked for its policy.
async fn start(listener: Value) -> (Proxy, Management, Sotw) {
    let mut server = Management::start().await;
    let proxy = ProxyBuilder::new(dynamic_sotw(server.address)).start().await;
    let mut stream = server.sotw().await;
    stream.request(Kind::Cluster).await;
    stream.respond(sotw(Kind::Cluster, "1", &[])).await;
    stream.request(Kind::Listener).await;
    stream.respond(sotw(Kind::Listener, "1", &[listener])).await;
    assert_eq!(stream.request(Kind::Extension).await.resource_names, ["policy"]);
    ack_of(&mut stream, Kind::Listener, "1").await;
    (proxy, server, stream)
}

async fn push(stream: &mut Sotw, version: &str, config: Value) {
    stream.respond(sotw(Kind::Extension, version, &[policy(config)])).await;
    ack_of(stream, Kind::Extension, version).await;
}

fn log_file() -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    (dir, path)
}

#[tokio::test]
async fn a_listener_takes_no_traffic_before_its_policy_is_there() {
    let (_dir, log) = log_file();
    let (proxy, _server, mut stream) =
        start(answering(discovered(&[MUTATION], within("0s")), &log)).await;
    proxy.until_stat("listener_manager.total_listeners_warming", 1).await;
    assert_eq!(proxy.admin("GET", "/ready").await.status, 503);
    let address = proxy.find_listener("in").await;
    if let Some(address) = address {
        assert!(TcpStream::connect(address).await.is_err(), "nobody listens");
    }
    push(&mut stream, "1", says("one")).await;
    proxy.until_ready().await;
    assert_eq!(get(proxy.listener("in").await, "/").await.header("x-policy"), "one");
    assert_eq!(proxy.stat(&cell("init_fetch_timeout")).await, 0);
}

#[tokio::test]
async fn without_a_policy_in_time_requests_are_refused_until_it_comes() {
    let (_dir, log) = log_file();
    let (proxy, _server, mut stream) =
        start(answering(discovered(&[MUTATION], within("0.3s")), &log)).await;
    proxy.until_ready().await;
    let address = proxy.listener("in").await;
    let refused = get(address, "/").await;
    assert_eq!((refused.status, refused.text().as_str()), (500, ""));
    assert_eq!(refused.header("x-policy"), "");
    let line = eventually("the log has a line", async || {
        std::fs::read_to_string(&log).ok().filter(|text| text.ends_with('\n'))
    })
    .await;
    assert_eq!(line, "500 NFCF -\n");
    assert_eq!(proxy.stat(&cell("init_fetch_timeout")).await, 1);
    assert_eq!(proxy.stat(&cell("config_fail")).await, 1);
    push(&mut stream, "1", says("late")).await;
    until_says(address, "late").await;
}

#[tokio::test]
async fn without_a_policy_in_time_the_default_serves() {
    let (_dir, log) = log_file();
    let more = with(within("0.3s"), json!({ "default_config": says("default") }));
    let (proxy, _server, mut stream) = start(answering(discovered(&[MUTATION], more), &log)).await;
    let begin = Instant::now();
    proxy.until_ready().await;
    assert!(begin.elapsed() >= Duration::from_millis(100), "it waits all the same");
    let address = proxy.listener("in").await;
    assert_eq!(get(address, "/").await.header("x-policy"), "default");
    push(&mut stream, "1", says("late")).await;
    until_says(address, "late").await;
}

#[tokio::test]
async fn a_default_that_needs_no_warming_serves_at_once_and_again_after_a_removal() {
    let (_dir, log) = log_file();
    let more = json!({
        "config_source": with(ads(), json!({ "initial_fetch_timeout": "0s" })),
        "default_config": says("default"),
        "apply_default_config_without_warming": true,
    });
    let mut server = Management::start().await;
    let dynamic = crate::harness::resources::dynamic_delta(server.address);
    let proxy = ProxyBuilder::new(dynamic).start().await;
    let mut stream = server.delta().await;
    stream.respond(delta(Kind::Cluster, "1", &[], &[])).await;
    stream.request(Kind::Listener).await;
    let listener = answering(discovered(&[MUTATION], more), &log);
    stream.respond(delta(Kind::Listener, "1", &[listener], &[])).await;
    proxy.until_ready().await;
    let address = proxy.listener("in").await;
    assert_eq!(get(address, "/").await.header("x-policy"), "default");
    stream.respond(delta(Kind::Extension, "1", &[policy(says("one"))], &[])).await;
    ack_of(&mut stream, Kind::Extension, "1").await;
    until_says(address, "one").await;
    stream.respond(delta(Kind::Extension, "2", &[], &["policy"])).await;
    ack_of(&mut stream, Kind::Extension, "2").await;
    until_says(address, "default").await;
}

#[tokio::test]
async fn a_listener_of_the_bootstrap_waits_for_its_policy_as_well() {
    let (_dir, log) = log_file();
    let mut server = Management::start().await;
    let mut bootstrap = dynamic_sotw(server.address);
    let resources = bootstrap["dynamic_resources"].as_object_mut().unwrap();
    resources.remove("lds_config");
    resources.remove("cds_config");
    // An unknown filter could be left out; one that is discovered is known by its types.
    let filter = with(discovered(&[MUTATION], json!({})), json!({ "is_optional": true }));
    bootstrap["static_resources"]["listeners"] = json!([answering(filter, &log)]);
    let proxy = ProxyBuilder::new(bootstrap).start().await;
    let mut stream = server.sotw().await;
    assert_eq!(stream.request(Kind::Extension).await.resource_names, ["policy"]);
    assert_eq!(proxy.admin("GET", "/ready").await.status, 503);
    push(&mut stream, "1", says("one")).await;
    proxy.until_ready().await;
    let address = proxy.listener("in").await;
    until_says(address, "one").await;
    push(&mut stream, "2", says("two")).await;
    until_says(address, "two").await;
}

#[tokio::test]
async fn a_server_of_its_own_is_asked_in_either_variant() {
    for variant in ["GRPC", "DELTA_GRPC"] {
        let (_dir, log) = log_file();
        let mut server = Management::start().await;
        let source = json!({ "config_source": {
            "api_config_source": {
                "api_type": variant, "transport_api_version": "V3", "grpc_services": grpc_services(),
            },
            "resource_api_version": "V3",
        } });
        let listener = answering(discovered(&[MUTATION], source), &log);
        let mut start = bootstrap(&[listener], &[xds_cluster(server.address)]);
        start["node"] = json!({ "id": "n", "cluster": "c" });
        let proxy = ProxyBuilder::new(start).start().await;
        let resource = [policy(says("one"))];
        if variant == "GRPC" {
            let mut stream = server.sotw().await;
            assert_eq!(stream.service, "ECDS");
            assert_eq!(stream.request(Kind::Extension).await.resource_names, ["policy"]);
            stream.respond(sotw(Kind::Extension, "1", &resource)).await;
            ack_of(&mut stream, Kind::Extension, "1").await;
        } else {
            let mut stream = server.delta().await;
            assert_eq!(stream.service, "ECDS");
            let asked = stream.request(Kind::Extension).await;
            assert_eq!(asked.resource_names_subscribe, ["policy"]);
            stream.respond(delta(Kind::Extension, "1", &resource, &[])).await;
            ack_of(&mut stream, Kind::Extension, "1").await;
        }
        proxy.until_ready().await;
        until_says(proxy.listener("in").await, "one").await;
        // A server that dies takes nothing with it.
        drop(server);
        proxy.until_stat_at_least(&cell("update_failure"), 1).await;
        assert_eq!(get(proxy.listener("in").await, "/").await.header("x-policy"), "one");
    }
}

#[tokio::test]
async fn a_file_is_followed() {
    let (dir, log) = log_file();
    let path = dir.path().join("ecds.json");
    let put = |config: Value| {
        let resource = with(json!({ "@type": Kind::Extension.url() }), policy(config));
        let new = path.with_extension("new");
        std::fs::write(&new, json!({ "resources": [resource] }).to_string()).unwrap();
        std::fs::rename(&new, &path).unwrap();
    };
    put(says("one"));
    let file = json!({ "path_config_source": { "path": path.to_str().unwrap() } });
    let filter = discovered(&[MUTATION], json!({ "config_source": file }));
    let proxy = Proxy::with(bootstrap(&[answering(filter, &log)], &[])).await;
    let address = proxy.listener("in").await;
    assert_eq!(get(address, "/").await.header("x-policy"), "one");
    put(says("two"));
    until_says(address, "two").await;
    put(typed(BUFFER, json!({ "max_request_bytes": 1 })));
    proxy.until_stat(&cell("update_rejected"), 1).await;
    assert_eq!(get(address, "/").await.header("x-policy"), "two");
}

#[tokio::test]
async fn a_start_without_the_server_has_the_policy_of_the_last_run() {
    let origin = Origin::http1("one").await;
    let buffer = policy(typed(BUFFER, json!({ "max_request_bytes": 4 })));
    let mut plane = Plane::start(&[
        (Kind::Cluster, static_cluster("one", &[origin.address])),
        (Kind::Listener, filtered(&[discovered(&[BUFFER], json!({}))])),
        (Kind::Routes, table("table", &[to("one")])),
        (Kind::Extension, buffer),
    ])
    .await;
    let builder = ProxyBuilder::new(dynamic_sotw(plane.address));
    let dir = builder.dir().join("snapshots");
    std::fs::create_dir(&dir).unwrap();
    let args = ["--snapshot-dir".to_owned(), dir.to_str().unwrap().to_owned()];
    let mut proxy = builder.args(args).ready().await;
    let post = async |proxy: &Proxy| {
        let address = proxy.listener("in").await;
        request(address, "POST", "/", &[], b"12345").await.status
    };
    assert_eq!(post(&proxy).await, 413);
    assert!(proxy.terminate().await.success());
    plane.kill();
    proxy.restart().await;
    proxy.until_ready().await;
    assert_eq!(post(&proxy).await, 413);
    // The server has another one by now.
    plane.update(Kind::Extension, &policy(typed(BUFFER, json!({ "max_request_bytes": 5 }))));
    plane.restart().await;
    eventually("the server's policy is used", async || (post(&proxy).await == 200).then_some(()))
        .await;
    proxy.until_stat("nuncio.snapshot_age_seconds", 0).await;
}
