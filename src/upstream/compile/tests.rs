//! Good and refused clusters and endpoints, as tables.

use serde_json::{Value, json};

use super::*;
use crate::proto::json::from_json;
use crate::upstream::balancer::LbPolicy;
use crate::upstream::breaker::Limits;
use crate::upstream::pool::UpstreamProtocol;

fn compile(cluster: Value) -> Result<Cluster, Errors> {
    let proto = from_json::<proto::Cluster>(cluster).unwrap().message;
    Cluster::compile(proto, &CompileContext::default())
}

fn endpoint(address: &str) -> Value {
    json!({"endpoint": {"address": {"socket_address": {"address": address, "port_value": 80}}}})
}

fn assignment(endpoints: Value) -> Value {
    json!({"cluster_name": "c", "endpoints": [{"lb_endpoints": endpoints}]})
}

/// A static cluster with one host and the fields of `with` on top.
fn cluster(with: Value) -> Value {
    let mut cluster =
        json!({"name": "c", "load_assignment": assignment(json!([endpoint("127.0.0.1")]))});
    for (key, value) in with.as_object().unwrap() {
        match value {
            Value::Null => cluster.as_object_mut().unwrap().remove(key),
            value => cluster.as_object_mut().unwrap().insert(key.clone(), value.clone()),
        };
    }
    cluster
}

fn http_options(options: Value) -> Value {
    let mut options = options;
    let name = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    options["@type"] = json!(format!("type.googleapis.com/{name}"));
    cluster(json!({"typed_extension_protocol_options": {name: options}}))
}

fn pool_options(options: Value) -> Value {
    let mut options = options;
    let name = "nuncio.extensions.upstreams.http.v1.ConnectionPool";
    options["@type"] = json!(format!("type.googleapis.com/{name}"));
    cluster(json!({"typed_extension_protocol_options": {name: options}}))
}

/// A policy of localities around another.
fn wrr(within: Value) -> Value {
    let kind = "envoy.extensions.load_balancing_policies.wrr_locality.v3.WrrLocality";
    let policies = |config: Value| json!({"policies": [{"typed_extension_config": {"name": "p", "typed_config": config}}]});
    policies(json!({"@type": format!("type.googleapis.com/{kind}"),
        "endpoint_picking_policy": policies(within)}))
}

#[test]
fn a_bare_cluster_has_envoys_defaults() {
    let cluster = compile(cluster(json!({}))).unwrap();
    assert_eq!(cluster.hosts().len(), 1);
    assert_eq!(cluster.stats.membership_total.value(), 1);
    assert_eq!(cluster.connection_settings().connect_timeout, Duration::from_secs(5));
    assert_eq!(cluster.connection_settings().idle_timeout, Some(Duration::from_secs(3600)));
    assert_eq!(cluster.lb_config().policy, LbPolicy::RoundRobin);
    assert_eq!(cluster.lb_config().panic_threshold, 50.0);
    for priority in
        [crate::exchange::RoutingPriority::Default, crate::exchange::RoutingPriority::High]
    {
        assert_eq!(cluster.breakers().limits(priority), Limits::default());
    }
}

#[test]
fn good_clusters_compile() {
    let eds = json!({"eds_config": {"ads": {}}, "service_name": "s"});
    let raw = "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer";
    let policy = "type.googleapis.com/envoy.extensions.load_balancing_policies.random.v3.Random";
    let ring = "type.googleapis.com/envoy.extensions.load_balancing_policies.ring_hash.v3.RingHash";
    let dns = assignment(json!([endpoint("localhost")]));
    let by_locality = json!({"locality_weighted_lb_config": {}});
    let cases = [
        cluster(json!({"load_assignment": null})),
        cluster(json!({"common_lb_config": by_locality})),
        cluster(json!({"load_balancing_policy": wrr(json!({"@type": policy}))})),
        cluster(json!({"load_balancing_policy": {"policies": [{"typed_extension_config": {
            "name": "r", "typed_config": {"@type": policy, "locality_lb_config": by_locality}}}]}})),
        cluster(json!({"type": "EDS", "load_assignment": null, "eds_cluster_config": eds})),
        cluster(json!({"type": "STRICT_DNS", "load_assignment": dns, "respect_dns_ttl": true})),
        cluster(json!({"type": "LOGICAL_DNS", "load_assignment": dns, "dns_refresh_rate": "1s"})),
        cluster(json!({"lb_policy": "RANDOM"})),
        cluster(
            json!({"lb_policy": "LEAST_REQUEST", "least_request_lb_config": {"choice_count": 3}}),
        ),
        cluster(json!({"transport_socket": {"name": "raw", "typed_config": {"@type": raw}}})),
        cluster(json!({"load_balancing_policy": {"policies": [
            {"typed_extension_config": {"name": "r", "typed_config": {"@type": policy}}}
        ]}})),
        cluster(json!({"dns_failure_refresh_rate": {"base_interval": "1s"}})),
        cluster(json!({"lb_policy": "MAGLEV", "maglev_lb_config": {"table_size": 251}})),
        cluster(json!({"lb_policy": "RING_HASH", "ring_hash_lb_config":
            {"maximum_ring_size": 8, "hash_function": "MURMUR_HASH_2"}})),
        cluster(json!({"load_balancing_policy": {"policies": [{"typed_extension_config": {
            "name": "r", "typed_config": {"@type": ring, "minimum_ring_size": 5,
                "consistent_hashing_lb_config": {"hash_balance_factor": 150}}}}]}})),
        cluster(json!({"common_lb_config": {"healthy_panic_threshold": {"value": 0.0}}})),
    ];
    for case in cases {
        if let Err(errors) = compile(case.clone()) {
            panic!("{case}: {errors}");
        }
    }
}

#[test]
fn what_cannot_be_used_is_refused_by_field() {
    let two = assignment(json!([endpoint("a"), endpoint("b")]));
    let tls = "type.googleapis.com/envoy.config.core.v3.Locality";
    let random = "type.googleapis.com/envoy.extensions.load_balancing_policies.random.v3.Random";
    // The flag: a rule of the API for the field itself, which fails a whole response.
    let cases = [
        (cluster(json!({"name": ""})), true, "name: is required"),
        (cluster(json!({"connect_timeout": "0s"})), true, "connect_timeout: 0s is not"),
        (
            cluster(json!({"preconnect_policy": {"per_upstream_preconnect_ratio": 3.5}})),
            true,
            "preconnect_policy.per_upstream_preconnect_ratio: 3.5 is not in 1.0..=3.0",
        ),
        (
            cluster(
                json!({"upstream_connection_options": {"tcp_keepalive": {"keepalive_time": 0}}}),
            ),
            true,
            "upstream_connection_options.tcp_keepalive.keepalive_time: 0 is not",
        ),
        (
            pool_options(json!({"response_header_timeout": "0s"})),
            true,
            "typed_extension_protocol_options[\"nuncio.extensions.upstreams.http.v1.\
             ConnectionPool\"].response_header_timeout: 0s is not",
        ),
        (cluster(json!({"connect_timeout": "-1s"})), true, "connect_timeout: -1s is not"),
        (
            cluster(json!({"type": "ORIGINAL_DST", "load_assignment": null})),
            false,
            "type: ORIGINAL",
        ),
        (
            cluster(json!({"type": "EDS", "load_assignment": null})),
            false,
            "eds_cluster_config: a cl",
        ),
        (
            cluster(json!({"eds_cluster_config": {"eds_config": {"ads": {}}}})),
            false,
            "eds_cluster_config: is for",
        ),
        (
            cluster(json!({"load_assignment": two})),
            false,
            "load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.address: \"a\"",
        ),
        (
            cluster(json!({"type": "LOGICAL_DNS", "load_assignment": two})),
            false,
            "load_assignment: LOGICAL_DNS takes",
        ),
        (
            cluster(json!({"load_balancing_policy":
                wrr(wrr(json!({"@type": random}))["policies"][0]["typed_extension_config"]["typed_config"].clone())})),
            false,
            "load_balancing_policy.policies[0].typed_extension_config.typed_config.endpoint_picking_policy.\
             policies: unknown extension type",
        ),
        (
            cluster(json!({"lb_policy": "CLUSTER_PROVIDED"})),
            false,
            "lb_policy: CLUSTER_PROVIDED is not supported",
        ),
        (
            cluster(json!({"lb_policy": "MAGLEV", "maglev_lb_config": {"table_size": 250}})),
            false,
            "maglev_lb_config.table_size: 250 is not a prime number",
        ),
        (
            cluster(json!({"lb_policy": "MAGLEV", "maglev_lb_config": {"table_size": 5_000_077}})),
            true,
            "maglev_lb_config.table_size: 5000077 is not in 2..=5000011",
        ),
        (
            cluster(json!({"lb_policy": "RING_HASH", "ring_hash_lb_config":
                {"minimum_ring_size": 9, "maximum_ring_size": 8}})),
            false,
            "ring_hash_lb_config.minimum_ring_size: 9 is more than maximum_ring_size, 8",
        ),
        (
            cluster(json!({"common_lb_config": {"consistent_hashing_lb_config":
                {"hash_balance_factor": 99}}})),
            true,
            "common_lb_config.consistent_hashing_lb_config.hash_balance_factor: 99 is not in 100..=",
        ),
        (cluster(json!({"lb_policy": 99})), true, "lb_policy: 99 is not a value"),
        (
            cluster(json!({"lb_policy": "LOAD_BALANCING_POLICY_CONFIG"})),
            false,
            "load_balancing_policy: lb_policy",
        ),
        (cluster(json!({"load_balancing_policy": {}})), true, "load_balancing_policy.policies: is"),
        (
            cluster(json!({"common_lb_config": {"healthy_panic_threshold": {"value": 101.0}}})),
            true,
            "common_lb_config.healthy_panic_threshold.value: 101 is not",
        ),
        (
            cluster(json!({"transport_socket": {"name": "t", "typed_config": {"@type": tls}}})),
            false,
            "transport_socket.typed_config: envoy.config.core.v3.Locality:",
        ),
        (
            http_options(json!({})),
            true,
            "typed_extension_protocol_options[\"envoy.extensions.upstreams.http.v3.\
             HttpProtocolOptions\"].upstream_protocol_options: is required",
        ),
        (
            cluster(json!({"http2_protocol_options": {"initial_stream_window_size": 1}})),
            true,
            "http2_protocol_options.initial_stream_window_size: 1 is not in 65535..=",
        ),
        (cluster(json!({"dns_refresh_rate": "0.0001s"})), true, "dns_refresh_rate: 100µs is not"),
    ];
    for (case, constraint, expected) in cases {
        let errors = compile(case.clone()).unwrap_err();
        assert!(errors.to_string().starts_with(expected), "{case}:\n{errors}\n{expected}");
        let id = crate::config::ResourceId { kind: "Cluster", name: "c".into() };
        let faults = errors.of(&id);
        assert_eq!(faults.iter().any(|e| e.fault.is_constraint()), constraint, "{case}");
    }
}

#[test]
fn endpoints_are_checked_one_by_one() {
    let compile = |endpoints: Value| {
        let proto = json!({"cluster_name": "c", "endpoints": endpoints});
        Endpoints::compile(from_json(proto).unwrap().message)
    };
    let good = compile(json!([
        {"priority": 128, "locality": {"region": "r"}, "load_balancing_weight": 3, "lb_endpoints": [
            {"health_status": "DRAINING", "load_balancing_weight": 7,
             "metadata": {"filter_metadata": {"envoy.lb": {"a": "b"}}},
             "endpoint": {"hostname": "h", "address": {
                "socket_address": {"address": "::1", "port_value": 8080}}}},
        ]},
    ]))
    .unwrap();
    let locality = &good.localities[0];
    assert_eq!((locality.priority, locality.weight, &*locality.locality.region), (128, 3, "r"));
    let endpoint_ = &locality.endpoints[0];
    assert_eq!((endpoint_.weight, &*endpoint_.hostname), (7, "h"));
    assert!(endpoint_.told.metadata.as_ref().unwrap().contains_key("envoy.lb"));
    let mut weightless = endpoint("127.0.0.1");
    weightless["load_balancing_weight"] = json!(0);
    let mut heavy = endpoint("127.0.0.1");
    heavy["load_balancing_weight"] = json!(u32::MAX);
    let cases = [
        (json!([{"priority": 129}]), "endpoints[0].priority: 129 is not in 0..=128"),
        (
            json!([{}, {"lb_endpoints": [weightless]}]),
            "endpoints[1].lb_endpoints[0].load_balancing_weight: 0 is not in 1..=4294967295",
        ),
        (json!([{"lb_endpoints": [{}]}]), "endpoints[0].lb_endpoints[0].endpoint: is required"),
        (
            json!([{"lb_endpoints": [heavy.clone(), heavy]}]),
            "endpoints[0].lb_endpoints: load_balancing_weight: the weights of a locality must \
             add up to at most 4294967295",
        ),
    ];
    for (endpoints, expected) in cases {
        assert_eq!(compile(endpoints).unwrap_err().to_string(), expected);
    }
    let nameless = Endpoints::compile(ClusterLoadAssignment::default()).unwrap_err();
    assert_eq!(nameless.to_string(), "cluster_name: is required");
}

#[test]
fn thresholds_are_by_priority_and_may_be_0() {
    let cluster = compile(cluster(json!({"circuit_breakers": {"thresholds": [
        {"max_requests": 0}, {"max_requests": 9}, {"priority": "HIGH", "max_connections": 5},
    ]}})))
    .unwrap();
    let [default, high] =
        [crate::exchange::RoutingPriority::Default, crate::exchange::RoutingPriority::High]
            .map(|priority| cluster.breakers().limits(priority));
    assert_eq!((default.max_requests, default.max_connections), (0, 1024));
    assert_eq!((high.max_requests, high.max_connections), (1024, 5));
}

#[test]
fn protocols_are_read_from_both_forms() {
    let explicit = |options: Value| http_options(json!({"explicit_http_config": options}));
    let cases = [
        (cluster(json!({})), UpstreamProtocol::Http1),
        (cluster(json!({"http2_protocol_options": {}})), UpstreamProtocol::Http2),
        (explicit(json!({"http_protocol_options": {}})), UpstreamProtocol::Http1),
        (explicit(json!({"http2_protocol_options": {}})), UpstreamProtocol::Http2),
        (http_options(json!({"use_downstream_protocol_config": {}})), UpstreamProtocol::Downstream),
    ];
    for (case, expected) in cases {
        let compiled = compile(case.clone()).unwrap();
        assert_eq!(compiled.connection_settings().protocol, expected, "{case}");
    }
    let settings = compile(http_options(json!({
        "explicit_http_config": {"http2_protocol_options": {"max_concurrent_streams": 3}},
        "common_http_protocol_options": {
            "idle_timeout": "0s", "max_requests_per_connection": 2, "max_connection_duration": "9s",
        },
    })))
    .unwrap();
    let settings = settings.connection_settings();
    assert_eq!((settings.idle_timeout, settings.http2.max_concurrent_streams), (None, 3));
    assert_eq!(settings.max_requests_per_connection.unwrap().get(), 2);
    assert_eq!(settings.max_connection_duration, Some(Duration::from_secs(9)));
}

#[tokio::test]
async fn localhost_is_resolved_without_a_name_server() {
    for kind in ["STRICT_DNS", "LOGICAL_DNS"] {
        let cluster = compile(cluster(json!({
            "type": kind,
            "dns_lookup_family": "V4_ONLY",
            "load_assignment": assignment(json!([endpoint("localhost")])),
        })))
        .unwrap();
        let cluster = Arc::new(cluster);
        assert!(cluster.hosts().is_empty());
        let task = tokio::spawn(Arc::clone(&cluster).resolve_task());
        cluster.first_resolution().await;
        task.abort();
        let hosts = cluster.hosts();
        let found: Vec<_> =
            hosts.iter().map(|h| (h.address().to_string(), h.hostname().to_string())).collect();
        assert_eq!(found, [("127.0.0.1:80".to_owned(), "localhost".to_owned())], "{kind}");
    }
}
