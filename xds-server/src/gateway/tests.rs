//! What files become, and what is said of those that are wrong.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::translate::{Flavour, Made};
use super::*;
use crate::types::ResourceType;

/// A file with this beside the least that there must be.
fn file(more: &str) -> String {
    format!("listeners: [{{name: in, port: 0}}]\n{more}")
}

fn made(text: &str) -> Vec<Made> {
    translated(text, Flavour::Nuncio).made
}

fn translated(text: &str, flavour: Flavour) -> Translation {
    let file = read_text(text).unwrap_or_else(|problems| panic!("{:?}", texts(&problems)));
    file.translate(flavour, &Overlay::none())
        .unwrap_or_else(|problems| panic!("{:?}", texts(&problems)))
}

fn texts(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

fn faults(text: &str) -> Vec<String> {
    let translated = read_text(text).and_then(|file| {
        let translation = file.translate(Flavour::Nuncio, &Overlay::none())?;
        let items = file.items(translation.made)?;
        crate::assemble::assemble(None, items, Vec::new(), crate::assemble::Rigour::default())
            .map(|_| ())
    });
    texts(&translated.expect_err(text))
}

fn value(made: &[Made], ty: ResourceType, name: &str) -> Value {
    made.iter().find(|made| made.ty == ty && made.name == name).unwrap().value.clone()
}

#[test]
fn the_least_file_has_a_listener_and_no_routes() {
    let made = made(&file(""));
    let types: Vec<_> = made.iter().map(|made| (made.ty, made.name.as_str())).collect();
    assert_eq!(types, [(ResourceType::Listener, "in"), (ResourceType::Route, "gateway")]);
    let listener = value(&made, ResourceType::Listener, "in");
    assert_eq!(listener["address"]["socket_address"]["address"], "0.0.0.0");
}

#[test]
fn the_whole_of_the_defaults_is_good() {
    let text = file(
        "services: [{name: s, instances: [{url: 'http://127.0.0.1:1'}]}]
routes: [{path: /on, service: s, cache: {}, compression: {}}, {prefix: /, service: s}]
load_balancer: {}
cache:
connection_pool: {}
compression: {}
",
    );
    let all = made(&text);
    for flavour in [Flavour::Nuncio, Flavour::Envoy] {
        let file = read_text(&text).unwrap();
        let translation = file.translate(flavour, &Overlay::none()).unwrap();
        let items = file.items(translation.made).unwrap();
        let rigour = crate::assemble::Rigour { check: true, strict: true };
        let set = crate::assemble::assemble(None, items, Vec::new(), rigour);
        let (_, doubts) = set.unwrap_or_else(|problems| panic!("{:?}", texts(&problems)));
        assert_eq!(texts(&doubts), [""; 0]);
    }
    let listener = value(&all, ResourceType::Listener, "in");
    let filters = &listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"];
    let names: Vec<_> = filters.as_array().unwrap().iter().map(|f| f["name"].clone()).collect();
    assert_eq!(names, ["cache", "compression", "router"]);
    assert_eq!(made(&text), all, "one file, one translation");
}

#[test]
fn every_fault_is_told_at_once_where_it_is() {
    let text = "listeners: [{name: in, prot: 1}]
services:
- name: s
  strategy: weigted
  instances: [{url: 'https://a:1'}, {url: 'http://a/b'}]
routes:
- {prefix: /, services: s}
load_balancer: {health_check: {interval: 30, timeout: soon, enabled: yes}}
cache: {max_memory: 100 MB, default_tll: 1m}
compresion: {}
";
    assert_eq!(
        faults(text),
        [
            r#"gateway.yaml:10:1: compresion: unknown key; did you mean "compression"?"#,
            r#"gateway.yaml:1:24: listeners[0].prot: unknown key; did you mean "port"?"#,
            "gateway.yaml:1:13: listeners[0]: port is required",
            "gateway.yaml:5:16: services[0].instances[0].url: connections to instances can only be plain; use http://HOST:PORT",
            r#"gateway.yaml:5:38: services[0].instances[1].url: expected http://HOST:PORT without a path, not "http://a/b""#,
            r#"gateway.yaml:7:15: routes[0].services: expected a list, not "s""#,
            r#"gateway.yaml:8:61: load_balancer.health_check.enabled: expected true or false, not "yes""#,
            "gateway.yaml:8:32: load_balancer.health_check.interval: 30 has no unit; write 30s for seconds",
            r#"gateway.yaml:8:46: load_balancer.health_check.timeout: expected a duration such as 30s, 5m or 1h, not "soon""#,
            r#"gateway.yaml:9:29: cache.default_tll: unknown key; did you mean "default_ttl"?"#,
            r#"gateway.yaml:9:9: cache.max_memory: expected a size such as 1024, 64KB or 100MB, not "100 MB""#,
        ]
    );
}

#[test]
fn what_contradicts_itself_or_names_nothing_is_refused() {
    let service = "services: [{name: users, instances: [{url: 'http://127.0.0.1:1'}]}]\n";
    for (more, said) in [
        (
            "connection_pool: {idle_timeout: 1s, transport_config: {idle_conn_timeout: 2s}}",
            "2:56: connection_pool.transport_config.idle_conn_timeout: says another time than",
        ),
        (
            "connection_pool: {keep_alive: 1500ms}",
            "2:19: connection_pool.keep_alive: must be whole",
        ),
        ("routes: [{service: usres}]", "there is no service \"usres\"; did you mean \"users\"?"),
        (
            "routes: [{prefix: /a, path: /b, service: users}]",
            "routes[0].prefix: stands beside path",
        ),
        ("routes: [{prefix: /a}]", "routes[0]: one of service, services and redirect is required"),
        ("routes: [{service: users, redirect: {path: /}}]", "redirect: stands beside service"),
        ("routes: [{redirect: {path: /}, timeout: 1s}]", "routes[0].timeout: has no effect beside"),
        ("routes: [{redirect: {}}]", "routes[0].redirect: one of scheme, host"),
        (
            "routes: [{service: users, timeout: 1s, retries: {per_try_timeout: 2s}}]",
            "routes[0].retries.per_try_timeout: is longer than routes[0].timeout",
        ),
        (
            "routes: [{service: users, rewrite: {path: /x}}]",
            "routes[0].rewrite.path: takes the place",
        ),
        (
            "routes: [{service: users, methods: [get]}]",
            "routes[0].methods[0]: \"get\" is not a method",
        ),
        ("routes: [{service: users, host: 'a:80'}]", "routes[0].host: must be a name"),
        ("routes: [{service: users, headers: {x: {exat: a}}}]", "did you mean \"exact\"?"),
        (
            "routes: [{service: users, headers: {x: {regex: '('}}}]",
            "2:10: RouteConfiguration \"gateway\": virtual_hosts[0].routes[0].match.headers[0]",
        ),
        ("load_balancer: {default_strategy: random2}", "did you mean \"random\"?"),
        (
            "load_balancer: {default_strategy: health_based, health_check: {enabled: false}}",
            "2:17: load_balancer.default_strategy: needs load_balancer.health_check, which is off",
        ),
        ("load_balancer: {strategies: {random: {type: maglev}}}", "is not what the name says"),
        ("load_balancer: {sticky_sessions: {cookie_name: 'a b'}}", "cookie_name: \"a b\" has char"),
        (
            "compression: {supported_encodings: [gzip, br], compression_level: 11}",
            "too much for gzip",
        ),
        ("compression: {supported_encodings: [gzip, gzip]}", "encodings[1]: is the same as"),
        ("cache: {max_memory: 1KB}", "cache.max_memory: must be at least 64KB"),
        ("cache: {cache_warming: {enabled: true}}", "cache_warming.urls: is empty"),
        (
            "cache: {cache_warming: {concurrency: 0}}",
            "expected a whole number from 1 to 100, not 0",
        ),
        ("cache: {cleanup_interval: 10ms}", "10ms is not from 1s to 8784h"),
        ("cache: {invalidation: {methods: ['a b']}}", "2:1: Listener \"in\": filter_chains[0]"),
    ] {
        let found = faults(&file(&format!("{more}\n{service}")));
        assert!(found.iter().any(|fault| fault.contains(said)), "{more}: {found:#?}");
    }
}

#[test]
fn a_mistake_that_the_proxy_finds_is_told_where_it_was_made() {
    let text = file(
        "services:\n- name: s\n  dns: 'a:1'\nload_balancer:\n  health_check:\n    path: '/a b'\n",
    );
    let found = faults(&text);
    assert!(found[0].starts_with("gateway.yaml:6:3: Cluster \"s\": health_checks[0]"), "{found:?}");
}

#[test]
fn hosts_are_nearest_first_and_routes_in_the_order_of_the_file() {
    let text = file(
        "services: [{name: s}]
routes:
- {path: /first, service: s}
- {host: a.example.com, prefix: /, service: s}
- {host: '*.example.com', path: /wild, service: s}
- {path: /last, service: s}
",
    );
    let table = value(&made(&text), ResourceType::Route, "gateway");
    let hosts = table["virtual_hosts"].as_array().unwrap().iter().map(|host| {
        let routes = host["routes"].as_array().unwrap().iter();
        let paths: Vec<_> = routes.map(|route| route["match"].clone()).collect();
        (host["domains"][0].clone(), paths.len())
    });
    let hosts: Vec<_> = hosts.collect();
    assert_eq!(hosts, [(json!("*"), 2), (json!("*.example.com"), 3), (json!("a.example.com"), 4)]);
}

#[test]
fn envoy_gets_what_it_understands_and_the_rest_is_told() {
    let text = file(
        "services: [{name: s, strategy: sticky_session}]
routes: [{prefix: /, service: s}]
cache: {}
compression: {supported_encodings: [gzip, deflate]}
connection_pool: {disable_compression: true}
",
    );
    let Translation { made, warnings } = translated(&text, Flavour::Envoy);
    let all = format!("{made:?}");
    assert!(!all.contains("nuncio"), "{all}");
    // Envoy finds this one by its name alone.
    assert!(all.contains("envoy.http.stateful_session.cookie"), "{all}");
    let keys: Vec<_> = warnings.iter().map(|warning| warning.field.as_str()).collect();
    for key in ["cache", "compression.exclude_paths", "compression.supported_encodings[1]"] {
        assert!(keys.contains(&key), "{key}: {keys:?}");
    }
    let table = value(&made, ResourceType::Route, "gateway");
    assert_eq!(table["request_headers_to_remove"], json!(["accept-encoding"]));
}

#[test]
fn a_difference_is_told_field_by_field() {
    let text = |weight: u32, more: &str| {
        file(&format!(
            "services:\n- {{name: s, strategy: weighted, instances: [{{url: 'http://127.0.0.1:1', weight: {weight}}}]}}\n{more}"
        ))
    };
    let (old, new) = (made(&text(1, "- {name: t}\n")), made(&text(2, "- {name: u}\n")));
    assert_eq!(
        diff::diff(&old, &new),
        "+ Cluster u
~ ClusterLoadAssignment s
    endpoints[0].lb_endpoints[0].load_balancing_weight: 1 -> 2
+ ClusterLoadAssignment u
- ClusterLoadAssignment t
- Cluster t
"
    );
    assert_eq!(diff::diff(&old, &old), "");
}

#[test]
fn the_example_is_good_and_writes_the_defaults_out() {
    let example = include_str!("../../../examples/gateway.yaml");
    let Translation { made, warnings } = translated(example, Flavour::Nuncio);
    assert_eq!(texts(&warnings), [""; 0]);
    let (first, _) = example.split_once("load_balancer:").unwrap();
    let short =
        format!("{first}load_balancer: {{}}\ncache: {{}}\nconnection_pool:\ncompression:\n");
    assert_eq!(made, self::made(&short));
}

proptest! {
    #[test]
    fn no_edit_of_a_good_file_makes_it_panic(
        at in 0..10_000_usize,
        gone in 0..20_usize,
        put in prop::sample::select(vec![
            "", "-1", "99999999999999999999", "null", "[]", "{}", "[{}]", "''", "\"é\"", ": ", "- ",
            "\n", "1e400", "0x10", "~", "9999999999h", "100GB", "*", "http://[::1]:1", "&a ", "true",
        ]),
    ) {
        let example = include_str!("../../../examples/gateway.yaml");
        let (at, length) = (at % example.len(), example.len());
        let text = format!("{}{put}{}", &example[..at], &example[(at + gone).min(length)..]);
        if let Ok(document) = nuncio::proto::yaml::parse(&text) {
            let file = GatewayFile::read(Path::new("gateway.yaml"), document);
            for flavour in [Flavour::Nuncio, Flavour::Envoy] {
                let _ = file.as_ref().map(|file| {
                    let made = file.translate(flavour, &Overlay::none()).map(|t| t.made);
                    made.map(|made| file.items(made))
                });
            }
        }
    }
}
