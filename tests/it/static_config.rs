//! The command line and the bootstrap: what starts, what does not, and how it is said.

use serde_json::json;

use crate::harness::resources::{
    address, bootstrap, filter, hcm, listener, listener_at, static_cluster, table, to, with,
};
use crate::harness::{Origin, Proxy, ProxyBuilder, eventually, get, run};

const YAML: &str = "
node: { id: from-yaml, cluster: c }
admin:
  address: { socket_address: { address: 127.0.0.1, port_value: 0 } }
static_resources:
  listeners:
  - name: in
    address:
      socket_address: { address: 127.0.0.1, port_value: 0 }
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              '@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
          route_config:
            virtual_hosts:
            - name: all
              domains: ['*']
              routes:
              - match: { prefix: / }
                direct_response: { status: 200, body: { inline_string: hello } }
";

#[tokio::test]
async fn a_bootstrap_may_be_yaml_json_or_text_on_the_command_line() {
    let yaml = ProxyBuilder::text("bootstrap.yaml", YAML.to_owned()).ready().await;
    assert_eq!(get(yaml.listener("in").await, "/").await.text(), "hello");
    assert_eq!(yaml.admin_json("/server_info").await["node"]["id"], "from-yaml");

    let direct = json!({ "match": { "prefix": "/" }, "direct_response": { "status": 204 } });
    let json = Proxy::with(bootstrap(&[listener("in", &[direct])], &[])).await;
    assert_eq!(get(json.listener("in").await, "/").await.status, 204);

    // The text is merged over the file, and options over both.
    let args = ["--config-yaml", "node: { id: from-text }", "--service-cluster", "from-option"];
    let both = ProxyBuilder::text("bootstrap.yaml", YAML.to_owned()).args(args).ready().await;
    let node = both.admin_json("/server_info").await["node"].clone();
    assert_eq!((&node["id"], &node["cluster"]), (&json!("from-text"), &json!("from-option")));
    assert_eq!(get(both.listener("in").await, "/").await.text(), "hello");
}

#[tokio::test]
async fn ports_that_the_system_chose_can_be_found() {
    let direct = json!({ "match": { "prefix": "/" }, "direct_response": { "status": 204 } });
    let listeners = [listener("a", std::slice::from_ref(&direct)), listener("b", &[direct])];
    let proxy = Proxy::with(bootstrap(&listeners, &[])).await;
    let (a, b) = (proxy.listener("a").await, proxy.listener("b").await);
    assert!(a != b && a.port() != 0 && b.port() != 0 && proxy.admin.port() != 0);
    for address in [a, b] {
        assert_eq!(get(address, "/").await.status, 204);
    }
}

#[tokio::test]
async fn version_and_help_say_what_this_is() {
    let said = run(["--version"]).await;
    assert_eq!(said.code, Some(0));
    assert!(said.stdout.contains("nuncio") && said.stdout.contains(env!("CARGO_PKG_VERSION")));
    let said = run(["--help"]).await;
    for option in [
        "--config-path",
        "--config-yaml",
        "--concurrency",
        "--mode",
        "--service-node",
        "--service-cluster",
        "--log-level",
        "--log-format",
        "--admin-address-path",
        "--drain-time-s",
        "--snapshot-dir",
    ] {
        assert!(said.stdout.contains(option), "{option} in {}", said.stdout);
    }
}

#[tokio::test]
async fn options_that_make_no_sense_are_refused() {
    let cases: [&[&str]; 7] = [
        &[],
        &["-c", "/nonexistent/bootstrap.yaml"],
        &["--config-yaml", "{}", "--concurrency", "many"],
        &["--config-yaml", "{}", "--mode", "dance"],
        &["--config-yaml", "{}", "--log-level", "shout"],
        &["--config-yaml", "node: ["],
        &["--config-yaml", "node: 7"],
    ];
    for args in cases {
        let said = run(args).await;
        assert!(said.code.is_some_and(|code| code != 0), "{args:?}: {}", said.all());
        assert!(!said.stderr.contains("panicked"), "{args:?}: {}", said.stderr);
        assert!(!said.stderr.trim().is_empty(), "{args:?}");
    }
}

async fn validate(config: &str) -> crate::harness::process::Said {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bootstrap.yaml");
    std::fs::write(&file, config).unwrap();
    run(["-c", file.to_str().unwrap(), "--mode", "validate"]).await
}

#[tokio::test]
async fn validate_accepts_what_would_start() {
    let origin = Origin::http1("one").await;
    let good =
        bootstrap(&[listener("in", &[to("one")])], &[static_cluster("one", &[origin.address])]);
    for config in [good.to_string(), YAML.to_owned()] {
        let said = validate(&config).await;
        assert_eq!(said.code, Some(0), "{}", said.all());
        assert!(said.all().to_lowercase().contains("ok"), "{}", said.all());
    }
    assert_eq!(origin.connections(), 0, "nothing was started");
}

#[tokio::test]
async fn validate_prints_every_error_of_every_resource() {
    let mut config = bootstrap(
        &[
            listener_at(
                "no-router",
                0,
                hcm(json!({ "route_config": table("t", &[]) }), json!({ "http_filters": [] })),
            ),
            listener_at(
                "unknown",
                0,
                hcm(
                    json!({ "route_config": table("t", &[json!({ "match": { "safe_regex": { "regex": "(" } }, "route": { "cluster": "x" } })]) }),
                    json!({ "http_filters": [filter("f", "test.Unknown", json!({}))] }),
                ),
            ),
        ],
        &[
            with(
                static_cluster("negative", &[]),
                json!({ "connect_timeout": "-2s", "lb_policy": "CLUSTER_PROVIDED" }),
            ),
            json!({ "name": "nameless", "type": "EDS" }),
            static_cluster("fine", &[]),
        ],
    );
    let far = json!({ "socket_address": { "address": "127.0.0.1", "port_value": 70000 } });
    config["static_resources"]["listeners"][0]["address"] = far;
    let said = validate(&config.to_string()).await;
    assert_eq!(said.code, Some(1));
    let all = said.all();
    let expected = [
        ("Listener \"no-router\"", "port"),
        ("Listener \"no-router\"", "http_filters"),
        ("Listener \"unknown\"", "http_filters[0]"),
        ("Listener \"unknown\"", "safe_regex"),
        ("Cluster \"negative\"", "connect_timeout"),
        ("Cluster \"negative\"", "lb_policy"),
        ("Cluster \"nameless\"", "eds_cluster_config"),
    ];
    for (resource, field) in expected {
        let found = all.lines().any(|line| line.contains(resource) && line.contains(field));
        assert!(found, "{resource} {field} in:\n{all}");
    }
    assert!(!all.contains("\"fine\""), "{all}");

    // The same file does not start, and says the same.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bootstrap.json");
    std::fs::write(&file, config.to_string()).unwrap();
    let said = run(["-c", file.to_str().unwrap()]).await;
    assert!(said.code.is_some_and(|code| code != 0));
    assert!(said.all().contains("Cluster \"negative\""), "{}", said.all());
}

#[tokio::test]
async fn validate_refuses_what_is_not_a_bootstrap() {
    let cases = [
        ("a: [", "line"),
        ("node: { id: a, id: b }", "id"),
        ("static_resources: 7", "static_resources"),
        ("static_resources: { clusters: [{ name: x, type: SIDEWAYS }] }", "SIDEWAYS"),
        ("admin: { address: { socket_address: { address: x, port_value: 1 } } }", "admin.address"),
        (
            "dynamic_resources: { ads_config: { api_type: GRPC, grpc_services: [{ envoy_grpc: { cluster_name: nobody } }] }, cds_config: { ads: {} } }",
            "nobody",
        ),
        ("dynamic_resources: { cds_config: { ads: {} } }", "ads_config"),
        ("\0\u{1}\u{2}", ""),
    ];
    for (config, part) in cases {
        let said = validate(config).await;
        assert_eq!(said.code, Some(1), "{config:?}: {}", said.all());
        assert!(said.all().contains(part), "{config:?}: {}", said.all());
        assert!(!said.stderr.contains("panicked"), "{}", said.stderr);
    }
}

#[tokio::test]
async fn fields_that_have_no_effect_are_reported_with_their_path() {
    let direct = json!({ "match": { "prefix": "/" }, "direct_response": { "status": 204 } });
    let mut config = bootstrap(&[listener("in", &[direct])], &[]);
    config["stats_flush_interval"] = json!("5s");
    config["static_resources"]["listeners"][0]["traffic_direction"] = json!("INBOUND");
    let proxy = Proxy::with(config.clone()).await;
    assert_eq!(get(proxy.listener("in").await, "/").await.status, 204);
    assert!(proxy.stat("nuncio.config_fields_ignored").await >= 2);
    let dump = proxy.admin_text("/config_dump").await;
    for path in ["stats_flush_interval", "traffic_direction"] {
        proxy.until_log(path).await;
        assert!(dump.contains(path), "{path} in {dump}");
    }
    let said = validate(&config.to_string()).await;
    assert_eq!(said.code, Some(0), "{}", said.all());
    assert!(said.all().contains("stats_flush_interval"), "{}", said.all());
}

#[tokio::test]
async fn two_listeners_on_one_address_are_refused() {
    let direct = json!({ "match": { "prefix": "/" }, "direct_response": { "status": 204 } });
    let routes = json!({ "route_config": table("t", &[direct]) });
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let listeners = [
        listener_at("a", port, hcm(routes.clone(), json!({}))),
        listener_at("b", port, hcm(routes, json!({}))),
    ];
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bootstrap.json");
    std::fs::write(&file, bootstrap(&listeners, &[]).to_string()).unwrap();
    let said = run(["-c", file.to_str().unwrap()]).await;
    assert!(said.code.is_some_and(|code| code != 0), "{}", said.all());
    let all = said.all();
    assert!(all.contains("\"b\"") && all.contains(&port.to_string()), "{all}");
}

#[tokio::test]
async fn names_that_must_be_unique_are() {
    let direct = json!({ "match": { "prefix": "/" }, "direct_response": { "status": 204 } });
    let twice = bootstrap(
        &[listener("in", std::slice::from_ref(&direct)), listener("in", &[direct])],
        &[static_cluster("one", &[]), static_cluster("one", &[])],
    );
    let said = validate(&twice.to_string()).await;
    assert_eq!(said.code, Some(1), "{}", said.all());
    assert!(said.all().contains("\"in\"") && said.all().contains("\"one\""), "{}", said.all());
}

#[tokio::test]
async fn a_taken_admin_port_stops_the_start() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let config = json!({ "admin": { "address": address(port) } });
    let said = run(["--config-yaml", &config.to_string()]).await;
    assert!(said.code.is_some_and(|code| code != 0), "{}", said.all());
    assert!(said.stderr.contains(&port.to_string()), "{}", said.stderr);
}

#[tokio::test]
async fn logs_may_be_json_and_quiet() {
    let direct = json!({ "match": { "prefix": "/" }, "direct_response": { "status": 204 } });
    let config = bootstrap(&[listener("in", &[direct])], &[]);
    let json = ProxyBuilder::new(config.clone()).args(["--log-format", "json"]).ready().await;
    let log = eventually("something is logged", async || {
        Some(json.process.stderr()).filter(|log| log.contains('\n'))
    });
    for line in log.await.lines().filter(|line| !line.is_empty()) {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(line["level"].is_string(), "{line}");
    }
    let quiet = ProxyBuilder::new(config).args(["--log-level", "error"]).ready().await;
    assert_eq!(quiet.process.stderr(), "");
}
