//! The JSON form against the types of the API, and against junk.

use proptest::prelude::*;
use prost::Message as _;
use serde_json::json;

use super::*;
use crate::proto::any::{effective_type, unpack};
use crate::proto::audit::audit;
use crate::proto::envoy::config::bootstrap::v3::Bootstrap;
use crate::proto::envoy::config::cluster::v3::Cluster;
use crate::proto::envoy::config::core::v3::{DataSource, Node};
use crate::proto::envoy::config::route::v3::FilterConfig;
use crate::proto::envoy::extensions::filters::http::router::v3::Router;

const CLUSTER: &str = "envoy.config.cluster.v3.Cluster";

fn fault(value: Value) -> String {
    encode_json(CLUSTER, value).unwrap_err().to_string()
}

fn policy(config: Value) -> Value {
    json!({"load_balancing_policy": {"policies": [{"typed_extension_config":
        {"name": "x", "typed_config": config}}]}})
}

fn first_policy(cluster: &Cluster) -> prost_types::Any {
    let policies = &cluster.load_balancing_policy.as_ref().unwrap().policies;
    policies[0].typed_extension_config.clone().unwrap().typed_config.unwrap()
}

#[test]
fn both_spellings_of_names_are_read() {
    let value = json!({"name": "a", "connectTimeout": "1.5s", "dns_lookup_family": "V4_ONLY",
        "lbPolicy": 3, "maxRequestsPerConnection": "7", "dnsRefreshRate": null});
    let Decoded { message, ignored } = from_json::<Cluster>(value).unwrap();
    let timeout = message.connect_timeout.unwrap();
    assert_eq!((timeout.seconds, timeout.nanos), (1, 500_000_000));
    assert_eq!((message.dns_lookup_family, message.lb_policy), (1, 3));
    assert_eq!(message.max_requests_per_connection, Some(7));
    assert_eq!((message.dns_refresh_rate, ignored), (None, vec![]));
}

#[test]
fn lists_maps_bytes_and_structs_are_read() {
    let node = json!({"id": "n", "client_features": ["a", "b"],
        "metadata": {"x": [1, null, {"y": true}]}});
    let node = from_json::<Node>(node).unwrap().message;
    assert_eq!(node.client_features, ["a", "b"]);
    let metadata = struct_to_json(node.metadata.unwrap());
    assert_eq!(metadata, json!({"x": [1, null, {"y": true}]}));
    let source = from_json::<DataSource>(json!({"inline_bytes": "aGk="})).unwrap().message;
    assert!(source.encode_to_vec().ends_with(b"hi"));
}

#[test]
fn what_we_do_not_declare_is_left_out_by_path() {
    let value = json!({
        "node": {"id": "a", "unheard": 1},
        "hds_config": {},
        "static_resources": {"clusters": [{"name": "a"}, {"name": "b", "upstreamFrobs": [1]}]},
    });
    let Decoded { message, ignored } = from_json::<Bootstrap>(value).unwrap();
    assert_eq!(
        ignored,
        ["node.unheard", "hds_config", "static_resources.clusters[1].upstreamFrobs"]
    );
    assert_eq!(message.static_resources.unwrap().clusters.len(), 2);
}

#[test]
fn a_refused_field_stays_in_the_bytes() {
    let value = json!({"name": "a", "upstream_bind_config": {"freebind": true}});
    let (bytes, ignored) = encode_json(CLUSTER, value).unwrap();
    assert_eq!(audit(CLUSTER, &bytes).refused[0].path, "upstream_bind_config");
    assert_eq!(ignored, ["upstream_bind_config.freebind"]);
}

#[test]
fn an_any_is_read_by_its_type() {
    let url = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
    let value = policy(json!({"@type": url, "frob": 1}));
    let Decoded { message, ignored } = from_json::<Cluster>(value).unwrap();
    assert!(unpack::<Router>(&first_policy(&message)).is_ok());
    let at = "load_balancing_policy.policies[0].typed_extension_config.typed_config";
    assert_eq!(ignored, [format!("{at}.frob")]);

    let duration = json!({"@type": "a/google.protobuf.Duration", "value": "2s"});
    let any = first_policy(&from_json::<Cluster>(policy(duration)).unwrap().message);
    assert_eq!(any.value, [0x08, 2]);
}

#[test]
fn options_that_only_switch_a_filter_on_are_an_empty_object() {
    let message = from_json::<FilterConfig>(json!({"config": {}})).unwrap().message;
    assert_eq!(message.config, Some(prost_types::Any::default()));
    let shown = to_json("envoy.config.route.v3.FilterConfig", &message.encode_to_vec()).unwrap();
    assert_eq!(shown, json!({"config": {}}));
}

#[test]
fn an_any_of_an_undeclared_type_becomes_a_typed_struct() {
    let value = policy(json!({"@type": "type.googleapis.com/acme.Policy", "a": {"b": [1]}}));
    let Decoded { message, ignored } = from_json::<Cluster>(value).unwrap();
    let any = first_policy(&message);
    assert_eq!((effective_type(&any).unwrap().as_ref(), ignored), ("acme.Policy", vec![]));
    let shown = to_json(CLUSTER, &message.encode_to_vec()).unwrap();
    let shown = &shown["load_balancing_policy"]["policies"][0]["typed_extension_config"];
    assert_eq!(
        shown["typed_config"],
        json!({"@type": "type.googleapis.com/xds.type.v3.TypedStruct",
            "type_url": "type.googleapis.com/acme.Policy", "value": {"a": {"b": [1]}}})
    );
}

#[test]
fn a_fault_names_the_place_what_was_expected_and_what_was_found() {
    let cases = [
        (json!([]), "expected an object, found a list"),
        (json!({"name": 5}), "name: expected a string, found 5"),
        (
            json!({"connect_timeout": "1h"}),
            "connect_timeout: expected a duration such as \"1.5s\", found \"1h\"",
        ),
        (json!({"respectDnsTtl": "yes"}), "respect_dns_ttl: expected true or false, found \"yes\""),
        (
            json!({"max_requests_per_connection": -1}),
            "max_requests_per_connection: expected an integer in 0..=4294967295, found -1",
        ),
        (
            json!({"type": "EDZ"}),
            "type: expected one of STATIC, STRICT_DNS, LOGICAL_DNS, EDS, ORIGINAL_DST, \
             found \"EDZ\"",
        ),
        (
            json!({"load_assignment": {"endpoints": [{}, {"lb_endpoints": {}}]}}),
            "load_assignment.endpoints[1].lb_endpoints: expected a list, found an object",
        ),
        (
            json!({"typed_extension_protocol_options": {"x.y": 1}}),
            "typed_extension_protocol_options[\"x.y\"]: \
             expected an object with its type URL in \"@type\", found 1",
        ),
        (
            policy(json!({"a": 1})),
            "load_balancing_policy.policies[0].typed_extension_config.typed_config: \
             expected an object with its type URL in \"@type\"",
        ),
        (
            policy(json!({})),
            "load_balancing_policy.policies[0].typed_extension_config.typed_config: \
             expected an object with its type URL in \"@type\"",
        ),
        (
            json!({"type": "EDS", "clusterType": {}}),
            "cluster_type: excludes type; expected only one of the two",
        ),
        (
            json!({"lb_policy": 0, "lbPolicy": 0}),
            "lb_policy: given twice, in snake_case and in lowerCamelCase",
        ),
        (json!({"health_checks": [null]}), "health_checks[0]: expected an object, found null"),
        (
            json!({"name": 1, "connect_timeout": 2}),
            "name: expected a string, found 1\n\
             connect_timeout: expected a duration such as \"1.5s\", found 2",
        ),
    ];
    for (value, expected) in cases {
        assert_eq!(fault(value.clone()), expected, "{value}");
    }
    let error = encode_json("envoy.config.core.v3.Node", json!({"client_features": ["a", 1]}));
    assert_eq!(error.unwrap_err().to_string(), "client_features[1]: expected a string, found 1");
    assert!(encode_json("acme.Nothing", json!({})).is_err());
}

#[test]
fn a_fault_does_not_repeat_bytes_that_may_be_secret() {
    let error = from_json::<DataSource>(json!({"inline_bytes": "c2VjcmV0!"})).unwrap_err();
    assert_eq!(error.to_string(), "inline_bytes: expected base64");
}

#[test]
fn nesting_is_bounded() {
    let mut value = json!({"@type": "a/google.protobuf.Empty", "value": {}});
    for _ in 0..200 {
        value = json!({"@type": "a/google.protobuf.Any", "value": value});
    }
    let error = encode_json("google.protobuf.Any", value).unwrap_err().to_string();
    assert!(error.contains("nested deeper than 100 levels"), "{error}");
}

#[test]
fn equal_json_makes_equal_bytes() {
    let one = json!({"name": "a", "typed_extension_protocol_options":
        {"x": {"@type": "a/acme.X"}, "y": {"@type": "a/acme.Y"}}});
    let other = json!({"typedExtensionProtocolOptions":
        {"y": {"@type": "a/acme.Y"}, "x": {"@type": "a/acme.X"}}, "name": "a"});
    assert_eq!(encode_json(CLUSTER, one).unwrap(), encode_json(CLUSTER, other).unwrap());
}

#[test]
fn json_survives_the_round_trip() {
    let value = json!({
        "name": "a", "type": "EDS", "connect_timeout": "0.250s", "respect_dns_ttl": true,
        "max_requests_per_connection": 7,
        "typed_extension_protocol_options": {
            "b": {"@type": "a/google.protobuf.Duration", "value": "1s"},
            "c": {"@type": "a/envoy.config.core.v3.Node", "id": "n",
                "metadata": {"k": [1, 0.5, "s", null]}},
        },
    });
    let (bytes, ignored) = encode_json(CLUSTER, value.clone()).unwrap();
    assert_eq!((to_json(CLUSTER, &bytes).unwrap(), ignored), (value, vec![]));
}

#[test]
fn a_dump_shows_what_it_cannot_read_as_bytes() {
    for url in ["a/acme.Unknown", "a/envoy.config.cluster.v3.Cluster"] {
        let any = prost_types::Any { type_url: url.into(), value: vec![0xff, 0xfe] };
        let shown = to_json("google.protobuf.Any", &any.encode_to_vec()).unwrap();
        assert_eq!(shown, json!({"@type": url, "value": "//4="}));
    }
    assert!(matches!(to_json("acme.Unknown", &[]), Err(RenderError::UnknownType(_))));
    assert!(matches!(to_json(CLUSTER, &[0xff]), Err(RenderError::Undecodable { .. })));
    let forever = prost_types::Duration { seconds: i64::MAX, nanos: 0 }.encode_to_vec();
    let shown = to_json("google.protobuf.Duration", &forever).unwrap();
    assert_eq!(shown, json!({"seconds": i64::MAX.to_string()}));
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "[ -~\n]{0,80}") {
        if let Ok(document) = crate::proto::yaml::parse(&text) {
            let _ = from_json::<Bootstrap>(document.value.clone());
            let _ = encode_json("google.protobuf.Any", document.value);
        }
    }

    #[test]
    fn no_value_in_any_field_makes_it_panic(
        field in any::<prop::sample::Index>(),
        text in prop_oneof!["[-+0-9.eEsTZ:]{0,24}", "[ -~]{0,12}", any::<String>()],
        shape in 0..5,
    ) {
        let messages: Vec<_> = descriptors().all_messages().collect();
        let message = field.get(&messages);
        for field in message.fields() {
            let leaf = serde_json::from_str(&text).unwrap_or_else(|_| Value::from(text.clone()));
            let value = match shape {
                0 => Value::from(text.clone()),
                1 => leaf,
                2 => json!([leaf]),
                3 => json!({ text.clone(): leaf }),
                _ => json!({ "@type": text.clone(), "value": leaf }),
            };
            let object = json!({ field.name(): value.clone() });
            let (whole, inner) =
                (encode_json(message.full_name(), object), encode_json(message.full_name(), value));
            for (bytes, _) in whole.into_iter().chain(inner) {
                audit(message.full_name(), &bytes);
                let _ = to_json(message.full_name(), &bytes);
            }
        }
    }

    #[test]
    fn no_bytes_make_a_dump_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for message in descriptors().all_messages() {
            let _ = to_json(message.full_name(), &bytes);
        }
    }
}
