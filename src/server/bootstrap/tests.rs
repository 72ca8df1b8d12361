//! Bootstraps, good and bad.

use clap::Parser;

use super::*;

const GOOD: &str = r#"
node: {id: n, cluster: c}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}
overload_manager: {refresh_interval: 1s}
static_resources:
  clusters:
  - name: xds
    type: STATIC
    connect_timeout: 1s
    made_up: 7
    load_assignment:
      cluster_name: xds
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 18000}}}}]}]
dynamic_resources:
  ads_config: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: xds}}]}
  cds_config: {ads: {}, resource_api_version: V3, initial_fetch_timeout: 0s}
  lds_config: {path_config_source: {path: /lds.yaml}}
"#;

fn load_text(texts: &[&str]) -> Result<Bootstrap, Vec<String>> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bootstrap.yaml");
    std::fs::write(&file, texts[0]).unwrap();
    let mut args = vec!["nuncio", "-c", file.to_str().unwrap()];
    if let Some(text) = texts.get(1) {
        args.extend(["--config-yaml", text, "--service-node", "other"]);
    }
    load(&Options::parse_from(args)).map_err(|e| e.iter().map(ToString::to_string).collect())
}

#[test]
fn a_bootstrap_says_who_where_and_what() {
    let bootstrap = load_text(&[GOOD]).unwrap();
    assert_eq!((bootstrap.node.id.as_str(), bootstrap.node.cluster.as_str()), ("n", "c"));
    assert_eq!(bootstrap.admin, Some("127.0.0.1:0".parse().unwrap()));
    let (source, options) = &bootstrap.servers[0];
    assert_eq!((source, options.endpoints.len()), (&Source::Ads, 1));
    let cds = bootstrap.cds.unwrap();
    assert_eq!((cds.source, cds.initial_fetch_timeout), (Source::Ads, None));
    assert_eq!(bootstrap.lds.unwrap().source, Source::File("/lds.yaml".into()));
    let clusters = bootstrap.static_resources.iter().find(|(ty, _)| *ty == ResourceType::Cluster);
    assert_eq!(clusters.unwrap().1.len(), 1);
    let ignored: Vec<_> =
        bootstrap.ignored.iter().map(|(id, paths)| format!("{id}: {}", paths.join(","))).collect();
    assert_eq!(ignored, ["Cluster \"xds\": made_up", "Bootstrap: overload_manager"]);
}

#[test]
fn text_of_the_command_line_is_merged_over_the_file() {
    let later = "{node: {cluster: d}, static_resources: {clusters: [{name: b, type: STATIC}]}}";
    let bootstrap = load_text(&[GOOD, later]).unwrap();
    assert_eq!((bootstrap.node.id.as_str(), bootstrap.node.cluster.as_str()), ("other", "d"));
    let clusters = bootstrap.static_resources.iter().find(|(ty, _)| *ty == ResourceType::Cluster);
    assert_eq!(clusters.unwrap().1.len(), 2);
}

#[test]
fn every_fault_of_every_resource_is_said_with_its_path() {
    let errors = load_text(&[r#"
admin: {address: {socket_address: {address: here, port_value: 1}}}
static_resources:
  clusters:
  - {name: a, type: STATIC, connect_timeout: -1s}
  - {name: b, type: STATIC, lb_policy: NONE_SUCH}
  - {name: c, type: STATIC, upstream_bind_config: {}}
  - {name: c, type: STATIC}
  - {type: STATIC}
dynamic_resources:
  cds_config: {ads: {}}
  ads_config: {api_type: GRPC, grpc_services: [{envoy_grpc: {cluster_name: none}}]}
"#])
    .unwrap_err();
    let wanted = [
        "Cluster \"a\": connect_timeout: ",
        "Cluster \"b\": lb_policy: expected one of",
        "Cluster \"c\": upstream_bind_config: ",
        "Cluster \"c\": name: \"c\" is used more than once",
        "Cluster: name: is required",
        "Bootstrap: admin.address.socket_address.address: \"here\"",
        "Bootstrap: dynamic_resources.ads_config.grpc_services[0].envoy_grpc.cluster_name: \"none\"",
    ];
    for want in wanted {
        assert!(errors.iter().any(|e| e.starts_with(want)), "{want} is not in {errors:#?}");
    }
    assert_eq!(errors.len(), wanted.len(), "{errors:#?}");
}

#[test]
fn ads_without_a_server_is_a_fault() {
    let errors = load_text(&["dynamic_resources: {cds_config: {ads: {}}}"]).unwrap_err();
    assert_eq!(
        errors,
        ["Bootstrap: dynamic_resources.cds_config: ads: it needs dynamic_resources.ads_config"]
    );
}

#[test]
fn what_is_no_bootstrap_is_refused_where_it_is_wrong() {
    for (text, expected) in [
        ("a: [", "line "),
        ("[]", "a bootstrap is a mapping"),
        ("node: 7", "node: expected an object"),
        ("static_resources: {clusters: 7}", "static_resources.clusters: expected a list"),
    ] {
        let errors = load_text(&[text]).unwrap_err();
        assert!(errors[0].contains(expected), "{errors:?}");
    }
    let missing = Options::parse_from(["nuncio", "-c", "/no/such/file"]);
    assert!(load(&missing).unwrap_err()[0].to_string().contains("reading /no/such/file"));
}

#[test]
fn validation_says_ok_or_every_fault() {
    let run = |text: &str| {
        let options = Options::parse_from(["nuncio", "--mode", "validate", "--config-yaml", text]);
        let mut out = Vec::new();
        let good = validate(&options, &mut out).unwrap();
        (good, String::from_utf8(out).unwrap())
    };
    assert_eq!(run("node: {id: a}"), (true, "configuration '--config-yaml' OK\n".to_owned()));
    let (good, text) = run("{static_resources: {clusters: [{}, {name: b, lb_policy: X}]}}");
    assert!(!good && text.lines().count() == 2, "{text}");
}
