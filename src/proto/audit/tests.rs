//! The audit against hand-made bytes, hand-made JSON and damage.

use proptest::prelude::*;
use prost::Message;
use prost_reflect::{DynamicMessage, FieldDescriptor};
use serde_json::{Value, json};

use super::*;
use crate::proto::json::encode_json;

const CLUSTER: &str = "envoy.config.cluster.v3.Cluster";

fn audit_json(type_name: &str, value: Value) -> Audit {
    let (bytes, ignored) = encode_json(type_name, value).unwrap();
    let mut found = audit(type_name, &bytes);
    found.ignored.extend(ignored);
    found
}

fn refused(value: Value) -> Vec<String> {
    let found = audit_json(CLUSTER, value);
    assert_eq!((found.malformed, found.ignored), (None, vec![]));
    found.refused.into_iter().map(|r| r.path).collect()
}

/// A length-delimited field.
fn field(number: u32, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    prost::encoding::bytes::encode(number, &bytes.to_vec(), &mut out);
    out
}

fn packed(type_url: &str, value: &[u8]) -> Vec<u8> {
    prost_types::Any { type_url: type_url.into(), value: value.to_vec() }.encode_to_vec()
}

/// A cluster with one of our fields inside, and its bytes' use: most audits look like this one.
fn plain() -> Value {
    json!({"name": "users", "type": "EDS", "connect_timeout": "1s",
        "eds_cluster_config": {"eds_config": {"ads": {}, "resource_api_version": "V3"}},
        "load_assignment": {"cluster_name": "users", "endpoints": [{"lb_endpoints": [{"endpoint":
            {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 80}}}}]}]}})
}

#[test]
fn an_honoured_message_passes() {
    assert_eq!(audit_json(CLUSTER, plain()), Audit::default());
}

#[test]
fn a_refused_field_is_named_with_its_reason() {
    let set = json!({"preconnect_policy": {"predictive_preconnect_ratio": 2}});
    let found = audit_json(CLUSTER, set);
    assert_eq!(
        found.refused,
        [Refused {
            path: "preconnect_policy.predictive_preconnect_ratio".into(),
            reason: "not supported; use per_upstream_preconnect_ratio"
        }]
    );
}

#[test]
fn a_refused_field_at_its_default_is_not_set() {
    let set: [(Value, &[&str]); 7] = [
        (json!({"use_tcp_for_dns_lookups": false}), &[]),
        (json!({"use_tcp_for_dns_lookups": true}), &["use_tcp_for_dns_lookups"]),
        (json!({"protocol_selection": "USE_CONFIGURED_PROTOCOL"}), &[]),
        (json!({"filters": []}), &[]),
        (json!({"filters": [{}]}), &["filters"]),
        (json!({"upstream_bind_config": {}}), &["upstream_bind_config"]),
        (json!({"cluster_type": {}}), &["cluster_type"]),
    ];
    for (value, paths) in set {
        assert_eq!(refused(value.clone()), paths, "{value}");
    }
    // Written out although it is the default, as some encoders do.
    assert_eq!(audit(CLUSTER, &[0xe8, 0x02, 0x00]), Audit::default());
    assert_eq!(audit(CLUSTER, &[0xe8, 0x02, 0x01]).refused.len(), 1);
}

#[test]
fn a_wrapper_around_a_default_is_not_set() {
    assert_eq!(wraps_value(&[]), Ok(false));
    assert_eq!(wraps_value(&[0x08, 0x00]), Ok(false));
    assert_eq!(wraps_value(&[0x08, 0x01]), Ok(true));
    assert!(wraps_value(&[0x08]).is_err());
}

#[test]
fn undeclared_fields_are_ignored_by_number() {
    let endpoint = field(1, &[0xd0, 0x0f, 1]);
    let assignment = [field(2, &[]), field(2, &[field(2, &[]), field(2, &endpoint)].concat())];
    let bytes = [field(33, &assignment.concat()), field(1_000, b"x")].concat();
    let found = audit(CLUSTER, &bytes);
    assert_eq!(
        found.ignored,
        ["load_assignment.endpoints[1].lb_endpoints[1].endpoint.<field 250>", "<field 1000>"]
    );
    assert_eq!((found.refused, found.malformed), (vec![], None));
}

#[test]
fn fields_that_are_listed_without_end_are_counted() {
    let found = audit(CLUSTER, &field(1_000, b"x").repeat(MAX_LISTED + 5));
    assert_eq!((found.ignored.len(), found.unlisted), (MAX_LISTED, 5));
}

#[test]
fn an_any_of_a_declared_type_is_entered_under_its_own_path() {
    let inner = encode_json(CLUSTER, json!({"upstream_bind_config": {}})).unwrap().0;
    let entry = |any: &[u8]| {
        let entry = [field(1, b"envoy.filters.x"), field(2, any)].concat();
        field(36, &entry)
    };
    let found = audit(CLUSTER, &entry(&packed("a/envoy.config.cluster.v3.Cluster", &inner)));
    let path = r#"typed_extension_protocol_options["envoy.filters.x"].upstream_bind_config"#;
    assert_eq!(found.refused[0].path, path);
    let found = audit(CLUSTER, &entry(&packed("a/acme.Unknown", &[0xff])));
    assert_eq!(found, Audit::default());
}

#[test]
fn a_typed_struct_is_audited_as_what_it_describes() {
    for spelling in ["xds.type.v3.TypedStruct", "udpa.type.v1.TypedStruct"] {
        let value = json!({"load_balancing_policy": {"policies": [{"typed_extension_config": {
            "name": "x",
            "typed_config": {"@type": format!("a/{spelling}"), "type_url": format!("b/{CLUSTER}"),
                "value": {"name": "y", "frobnicate": 1, "filters": [{}]}},
        }}]}});
        let found = audit_json(CLUSTER, value);
        let at = "load_balancing_policy.policies[0].typed_extension_config.typed_config";
        assert_eq!(found.ignored, [format!("{at}.frobnicate")]);
        assert_eq!(found.refused[0].path, format!("{at}.filters"));
        assert_eq!(found.malformed, None);
    }
    let unknown = json!({"type_url": "a/acme.Unknown", "value": {"a": {"b": 1}}});
    assert_eq!(audit_json("xds.type.v3.TypedStruct", unknown), Audit::default());
}

#[test]
fn damage_is_reported_with_its_path() {
    let damaged = audit(CLUSTER, &field(33, &field(2, &[0x12, 9]))).malformed.unwrap();
    assert_eq!(damaged.path, "load_assignment.endpoints[0]");
    assert_eq!(damaged.reason, "the bytes end within a field");
    let mistyped = audit(CLUSTER, &[0x08, 1]).malformed.unwrap();
    assert_eq!(
        (mistyped.path.as_str(), mistyped.reason),
        ("name", "its bytes are of another type")
    );
    assert!(audit("acme.Unknown", &[]).malformed.is_some());
}

#[test]
fn nesting_without_end_is_reported() {
    let url = "a/google.protobuf.Any";
    let mut bytes = Vec::new();
    for _ in 0..2_000 {
        bytes = packed(url, &bytes);
    }
    assert_eq!(
        audit("google.protobuf.Any", &bytes).malformed.unwrap().reason,
        "nested deeper than 100 levels"
    );
}

#[test]
fn every_declared_message_accepts_nothing() {
    for message in descriptors().all_messages() {
        assert_eq!(audit(message.full_name(), &[]), Audit::default(), "{}", message.full_name());
    }
}

/// A value of a field that is not its default.
fn sample(field: &FieldDescriptor) -> prost_reflect::Value {
    use prost_reflect::{Kind, MapKey, Value};
    let one = |field: &FieldDescriptor| match field.kind() {
        Kind::Bool => Value::Bool(true),
        Kind::String => Value::String("x".into()),
        Kind::Bytes => Value::Bytes("x".into()),
        Kind::Double => Value::F64(1.0),
        Kind::Float => Value::F32(1.0),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(1),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(1),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(1),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(1),
        Kind::Enum(_) => Value::EnumNumber(1),
        Kind::Message(message) => {
            let mut value = DynamicMessage::new(message.clone());
            if message.full_name().ends_with("Value") {
                message.fields().for_each(|field| value.set_field(&field, sample(&field)));
            }
            Value::Message(value)
        }
    };
    if let Kind::Message(entry) = field.kind()
        && field.is_map()
    {
        let key = match entry.map_entry_key_field().kind() {
            Kind::String => MapKey::String("x".into()),
            _ => MapKey::U32(1),
        };
        return Value::Map([(key, one(&entry.map_entry_value_field()))].into());
    }
    if field.is_list() { Value::List(vec![one(field)]) } else { one(field) }
}

#[test]
fn each_declared_field_is_refused_by_name_or_passes() {
    let option = descriptors().get_extension_by_name("nuncio.refused").unwrap();
    let (mut passed, mut refused) = (0, 0);
    for message in descriptors().all_messages() {
        let is_ours = !message.package_name().starts_with("google.");
        if !is_ours || super::super::any::is_typed_struct(message.full_name()) {
            continue;
        }
        for field in message.fields() {
            let mut value = DynamicMessage::new(message.clone());
            value.set_field(&field, sample(&field));
            let found = audit(message.full_name(), &value.encode_to_vec());
            let options = field.options();
            let name = field.full_name();
            if options.has_extension(&option) {
                let [Refused { path, reason }] = &found.refused[..] else {
                    panic!("{name}: {found:?}");
                };
                let wanted = options.get_extension(&option);
                assert_eq!((path.as_str(), Some(*reason)), (field.name(), wanted.as_str()));
                assert!(!reason.is_empty(), "{name} is refused without a reason");
                refused += 1;
            } else {
                assert_eq!(found, Audit::default(), "{name}");
                passed += 1;
            }
        }
    }
    assert!(passed > 500 && refused > 100, "{passed} fields pass, {refused} are refused");
}

#[test]
#[ignore = "a measurement, for `cargo test --release -- --ignored --nocapture`"]
#[expect(clippy::print_stdout, reason = "its result is a number to read")]
fn cost_of_an_audit() {
    let (bytes, _) = encode_json(CLUSTER, plain()).unwrap();
    audit(CLUSTER, &bytes);
    let start = tokio::time::Instant::now();
    for _ in 0..100_000 {
        std::hint::black_box(audit(CLUSTER, std::hint::black_box(&bytes)));
    }
    println!("{} bytes, {} ns an audit", bytes.len(), start.elapsed().as_nanos() / 100_000);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for name in [CLUSTER, "google.protobuf.Any", "xds.type.v3.TypedStruct"] {
            audit(name, &bytes);
        }
    }

    #[test]
    fn no_damage_makes_it_panic_or_see_less_than_the_decoder(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let (mut bytes, _) = encode_json(CLUSTER, plain()).unwrap();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let descriptor = descriptors().get_message_by_name(CLUSTER).unwrap();
        let found = audit(CLUSTER, &bytes);
        if found.malformed.is_some() {
            return Ok(());
        }
        // What is well formed but does not decode is text that is not in UTF-8, or data of a
        // well-known type, which the audit does not enter.
        if let Ok(message) = DynamicMessage::decode(descriptor, bytes.as_slice()) {
            let lost = message.unknown_fields().count();
            prop_assert!(found.ignored.len() >= lost, "{found:?} but {lost} lost");
        }
    }
}
