//! Whole tables: what is found, what is refused, and that the index is a first-match scan.

mod first_match;
mod rules;

use std::sync::Arc;

use prost::Message;
use prost_types::Any as ProtoAny;

use super::*;
use crate::config::runtime::Runtime;
use crate::config::{Errors, Fault};
use crate::exchange::{Downstream, RoutingPriority};
use crate::proto::envoy::config::core::v3 as core;
use crate::proto::envoy::config::route::v3 as proto;
use crate::telemetry::Telemetry;
use proto::route::Action as ActionProto;
use proto::route_action::ClusterSpecifier;
use proto::route_match::PathSpecifier;

fn compile(table: proto::RouteConfiguration) -> Result<RouteTable, Errors> {
    let compile_filter_override = |_: &str, any: &ProtoAny| match any.type_url.as_str() {
        "x/known" => Ok(Arc::new(String::from_utf8_lossy(&any.value).into_owned())
            as Arc<dyn Any + Send + Sync>),
        other => Err(Errors::from(Fault::UnknownExtension(other.to_owned()))),
    };
    let runtime = Runtime::default();
    let cx = CompileContext {
        compile_filter_override: &compile_filter_override,
        runtime: &runtime,
        telemetry: &Telemetry::default(),
    };
    RouteTable::compile(table, &cx)
}

fn prefix(prefix: &str) -> proto::RouteMatch {
    let path_specifier = Some(PathSpecifier::Prefix(prefix.into()));
    proto::RouteMatch { path_specifier, ..Default::default() }
}

fn to_cluster(name: &str) -> proto::RouteAction {
    let cluster_specifier = Some(ClusterSpecifier::Cluster(name.into()));
    proto::RouteAction { cluster_specifier, ..Default::default() }
}

fn route(path: &str, action: ActionProto) -> proto::Route {
    proto::Route { r#match: Some(prefix(path)), action: Some(action), ..Default::default() }
}

fn forward(path: &str, cluster: &str) -> proto::Route {
    route(path, ActionProto::Route(to_cluster(cluster)))
}

fn host(domains: &[&str], routes: Vec<proto::Route>) -> proto::VirtualHost {
    proto::VirtualHost {
        name: domains[0].into(),
        domains: domains.iter().map(|domain| (*domain).into()).collect(),
        routes,
        ..Default::default()
    }
}

fn table(virtual_hosts: Vec<proto::VirtualHost>) -> proto::RouteConfiguration {
    proto::RouteConfiguration { name: "t".into(), virtual_hosts, ..Default::default() }
}

fn one_route(route: proto::Route) -> proto::RouteConfiguration {
    table(vec![host(&["*"], vec![route])])
}

fn get(authority: &str, path: &str) -> RequestHead {
    let request = http::Request::get(path).header(http::header::HOST, authority);
    request.body(()).unwrap().into_parts().0
}

fn cluster(table: &RouteTable, head: &RequestHead, random: u64) -> Option<Arc<str>> {
    match table.find(head, || random)?.action() {
        Action::Forward(forward) => forward.choose_cluster(head),
        other => panic!("{other:?}"),
    }
}

fn stream() -> StreamInfo {
    let downstream = Downstream {
        id: 1,
        remote: "10.1.1.1:77".parse().unwrap(),
        local: "10.1.1.2:80".parse().unwrap(),
        remote_ip: http::HeaderValue::from_static("10.1.1.1"),
        buffer_limit: 1 << 20,
    };
    StreamInfo::new(tokio::time::Instant::now(), http::Version::HTTP_2, Arc::new(downstream))
}

fn header(key: &str, value: &str) -> core::HeaderValueOption {
    core::HeaderValueOption {
        header: Some(core::HeaderValue {
            key: key.into(),
            value: value.into(),
            raw_value: Vec::new(),
        }),
        ..Default::default()
    }
}

fn overwrite(key: &str, value: &str) -> core::HeaderValueOption {
    core::HeaderValueOption { append_action: 2, ..header(key, value) }
}

#[test]
fn the_virtual_host_is_chosen_before_the_route() {
    let hosts = vec![
        host(&["*"], vec![forward("/", "any")]),
        host(&["a.test", "a.test:81"], vec![forward("/a", "a")]),
    ];
    let mut message = table(hosts);
    let compiled = compile(message.clone()).unwrap();
    let find = |table: &RouteTable, host: &str, path: &str| {
        cluster(table, &get(host, path), 0).map(|name| name.to_string())
    };
    assert_eq!(find(&compiled, "A.test", "/a/b?q"), Some("a".into()));
    assert_eq!(find(&compiled, "a.test", "/b"), None);
    assert_eq!(find(&compiled, "a.test:80", "/b"), Some("any".into()));
    assert_eq!(find(&compiled, "a.test:81", "/b"), None);
    assert_eq!(compiled.cluster_names(), [Arc::from("a"), Arc::from("any")]);
    message.ignore_port_in_host_matching = true;
    assert_eq!(find(&compile(message).unwrap(), "a.test:80", "/a"), Some("a".into()));
}

#[test]
fn connect_requests_without_a_path_match_nothing() {
    let compiled = compile(one_route(forward("/", "a"))).unwrap();
    let request = http::Request::connect("a.test:443").body(()).unwrap();
    assert!(compiled.find(&request.into_parts().0, || 0).is_none());
    assert!(compiled.find(&get("a.test", "/"), || 0).is_some());
}

#[test]
fn weights_are_met_exactly() {
    let weight = |name: &str, weight| proto::weighted_cluster::ClusterWeight {
        name: name.into(),
        weight: Some(weight),
        ..Default::default()
    };
    let action = |clusters| proto::RouteAction {
        cluster_specifier: Some(ClusterSpecifier::WeightedClusters(proto::WeightedCluster {
            clusters,
            ..Default::default()
        })),
        ..Default::default()
    };
    let clusters = vec![weight("zero", 0), weight("a", 1), weight("b", 3), weight("none", 0)];
    let compiled = compile(one_route(route("/", ActionProto::Route(action(clusters))))).unwrap();
    let head = get("a.test", "/");
    let drawn: Vec<_> =
        (0..8).map(|random| cluster(&compiled, &head, random).unwrap().to_string()).collect();
    assert_eq!(drawn, ["a", "b", "b", "b", "a", "b", "b", "b"]);
    for clusters in [vec![], vec![weight("a", 0)], vec![weight("a", u32::MAX), weight("b", 1)]] {
        let message = one_route(route("/", ActionProto::Route(action(clusters))));
        let error = compile(message).unwrap_err().to_string();
        assert!(error.contains("routes[0].route.weighted_clusters.clusters: "), "{error}");
    }
}

#[test]
fn a_header_names_the_cluster() {
    let action = proto::RouteAction {
        cluster_specifier: Some(ClusterSpecifier::ClusterHeader("x-to".into())),
        ..Default::default()
    };
    let compiled = compile(one_route(route("/", ActionProto::Route(action)))).unwrap();
    let mut head = get("a.test", "/");
    assert_eq!(cluster(&compiled, &head, 0), None);
    head.headers.insert("x-to", http::HeaderValue::from_static("b"));
    assert_eq!(cluster(&compiled, &head, 0), Some("b".into()));
    assert!(compiled.cluster_names().is_empty());
}

#[test]
fn forwarding_options_are_honoured() {
    let action = proto::RouteAction {
        timeout: Some(prost_types::Duration { seconds: 0, nanos: 250_000_000 }),
        priority: 1,
        cluster_not_found_response_code: 1,
        prefix_rewrite: "/new".into(),
        host_rewrite_specifier: Some(
            proto::route_action::HostRewriteSpecifier::HostRewriteLiteral("lit.test".into()),
        ),
        ..to_cluster("a")
    };
    let compiled = compile(one_route(route("/old", ActionProto::Route(action)))).unwrap();
    let mut head = get("a.test", "/old/x?q");
    let route = compiled.find(&head, || 0).unwrap();
    let Action::Forward(forward) = route.action() else { panic!() };
    assert_eq!(forward.timeout(), Some(std::time::Duration::from_millis(250)));
    assert_eq!(forward.expected_timeout_header().unwrap(), "250");
    assert_eq!(forward.priority(), RoutingPriority::High);
    assert_eq!(forward.cluster_not_found(), http::StatusCode::NOT_FOUND);
    forward.rewrite(&mut head, true).unwrap();
    assert_eq!(head.uri, "/new/x?q");
    assert_eq!(head.headers[http::header::HOST], "lit.test");
    assert_eq!(head.headers[X_ENVOY_ORIGINAL_PATH], "/old/x?q");

    let forever =
        proto::RouteAction { timeout: Some(prost_types::Duration::default()), ..to_cluster("a") };
    let compiled = compile(one_route(self::route("/", ActionProto::Route(forever)))).unwrap();
    let route = compiled.find(&get("a.test", "/"), || 0).unwrap();
    let Action::Forward(forward) = route.action() else { panic!() };
    assert_eq!((forward.timeout(), forward.expected_timeout_header()), (None, None));
}

#[test]
fn replies_carry_what_the_route_says() {
    let redirect = proto::RedirectAction { host_redirect: "n.test".into(), ..Default::default() };
    let direct = proto::DirectResponseAction {
        status: 418,
        body: Some(core::DataSource {
            specifier: Some(core::data_source::Specifier::InlineString("tea".into())),
        }),
        body_format: None,
    };
    let routes = vec![
        route("/r", ActionProto::Redirect(redirect)),
        route("/d", ActionProto::DirectResponse(direct.clone())),
    ];
    let compiled = compile(table(vec![host(&["*"], routes)])).unwrap();
    let head = get("a.test", "/r?q");
    let route = compiled.find(&head, || 0).unwrap();
    let Action::Redirect(redirect) = route.action() else { panic!() };
    let response = redirect.reply(&head).into_response(Box::new(stream()));
    assert_eq!(response.head.status, 301);
    assert_eq!(response.head.headers[http::header::LOCATION], "http://n.test/r?q");
    let route = compiled.find(&get("a.test", "/d"), || 0).unwrap();
    let Action::Direct(direct_action) = route.action() else { panic!() };
    let mut stream = Box::new(stream());
    let response = direct_action.reply(&head, &mut stream).into_response(stream);
    assert_eq!(response.head.status, 418);
    assert_eq!(response.head.headers[http::header::CONTENT_LENGTH], "3");

    let mut from_file = direct.clone();
    from_file.body = Some(core::DataSource {
        specifier: Some(core::data_source::Specifier::Filename("/dev/zero".into())),
    });
    let endless = one_route(self::route("/", ActionProto::DirectResponse(from_file)));
    assert!(compile(endless).unwrap_err().to_string().contains("more than 4096 bytes"));

    let mut message = one_route(self::route("/", ActionProto::DirectResponse(direct)));
    message.max_direct_response_body_size_bytes = Some(2);
    assert_eq!(
        compile(message).unwrap_err().to_string(),
        "virtual_hosts[0].routes[0].direct_response.body: a body of more than 2 bytes: \
         larger than max_direct_response_body_size_bytes allows"
    );
}

#[test]
fn headers_change_from_the_route_outwards_unless_told_otherwise() {
    let add = |value: &str| vec![header("x-order", value), overwrite("x-over", value)];
    let weight = proto::weighted_cluster::ClusterWeight {
        name: "a".into(),
        weight: Some(1),
        request_headers_to_add: add("cluster"),
        ..Default::default()
    };
    let action = proto::RouteAction {
        cluster_specifier: Some(ClusterSpecifier::WeightedClusters(proto::WeightedCluster {
            clusters: vec![weight],
            ..Default::default()
        })),
        ..Default::default()
    };
    let mut route = route("/", ActionProto::Route(action));
    route.request_headers_to_add = add("route");
    route.request_headers_to_remove = vec!["X-Gone".into()];
    let mut host = host(&["*"], vec![route]);
    host.request_headers_to_add = add("host");
    let mut message = table(vec![host]);
    message.request_headers_to_add = add("table");
    for (wins, order, over) in [
        (false, ["cluster", "route", "host", "table"], "table"),
        (true, ["table", "host", "route", "cluster"], "cluster"),
    ] {
        message.most_specific_header_mutations_wins = wins;
        let compiled = compile(message.clone()).unwrap();
        let mut head = get("a.test", "/");
        head.headers.insert("x-gone", http::HeaderValue::from_static("1"));
        let route = compiled.find(&head, || 0).unwrap();
        route.apply_request_headers(&mut head, &mut stream());
        let seen: Vec<_> = head.headers.get_all("x-order").iter().collect();
        assert_eq!(seen, order);
        assert_eq!(head.headers["x-over"], over);
        assert!(!head.headers.contains_key("x-gone"));
    }
}

#[test]
fn operators_are_filled_in() {
    let mut message = forward("/", "a");
    message.name = "main".into();
    message.request_headers_to_add = vec![
        header("x-path", "%REQ(X-None?:path):3%!"),
        header("x-peer", "%DOWNSTREAM_REMOTE_ADDRESS%,%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"),
        header("x-names", "%ROUTE_NAME%@%PROTOCOL% 100%%"),
        header("x-empty", "%REQ(x-none)%"),
        core::HeaderValueOption { keep_empty_value: true, ..header("x-kept", "%UPSTREAM_HOST%") },
        core::HeaderValueOption { append_action: 1, ..header("x-there", "new") },
        core::HeaderValueOption { append_action: 3, ..header("x-missing", "new") },
        core::HeaderValueOption { append: Some(false), ..header("x-old", "new") },
    ];
    message.response_headers_to_add = vec![header("x-back", "%REQ(x-there)% %RESPONSE_CODE%")];
    let compiled = compile(one_route(message)).unwrap();
    let mut head = get("a.test", "/long?q");
    for name in ["x-there", "x-old"] {
        head.headers.insert(name, http::HeaderValue::from_static("old"));
    }
    let route = compiled.find(&head, || 0).unwrap();
    let mut stream = stream();
    stream.route_name = route.name().cloned();
    route.apply_request_headers(&mut head, &mut stream);
    for (name, value) in [
        ("x-path", "/lo!"),
        ("x-peer", "10.1.1.1:77,10.1.1.1"),
        ("x-names", "main@HTTP/2 100%"),
        ("x-kept", ""),
        ("x-there", "old"),
        ("x-old", "new"),
    ] {
        assert_eq!(head.headers[name], value, "{name}");
    }
    assert!(!head.headers.contains_key("x-empty") && !head.headers.contains_key("x-missing"));
    let (mut response, ()) = http::Response::builder().status(204).body(()).unwrap().into_parts();
    route.apply_response_headers(&mut response, &mut stream);
    assert_eq!(response.headers["x-back"], "old 204");
    assert_eq!(stream.status, None);
}

#[test]
fn the_most_specific_filter_options_win() {
    let any = |url: &str, value: &str| ProtoAny { type_url: url.into(), value: value.into() };
    let config = |config: Option<ProtoAny>, is_optional, disabled| {
        let message = proto::FilterConfig { config, is_optional, disabled };
        ProtoAny {
            type_url: "type.googleapis.com/envoy.config.route.v3.FilterConfig".into(),
            value: message.encode_to_vec(),
        }
    };
    let mut route = forward("/", "a");
    route.typed_per_filter_config = [
        ("off".to_owned(), config(None, false, true)),
        ("optional".to_owned(), config(Some(any("x/unknown", "")), true, false)),
        ("on".to_owned(), config(Some(ProtoAny::default()), false, false)),
        ("both".to_owned(), config(Some(any("x/known", "route")), false, false)),
    ]
    .into();
    let mut host = host(&["*"], vec![route]);
    host.typed_per_filter_config = [
        ("both".to_owned(), any("x/known", "host")),
        ("off".to_owned(), any("x/known", "host")),
        ("host".to_owned(), any("x/known", "host")),
    ]
    .into();
    let mut message = table(vec![host]);
    let compiled = compile(message.clone()).unwrap();
    let route = compiled.find(&get("a.test", "/"), || 0).unwrap();
    let text = |name: &str| match route.filter_override(name) {
        Some(FilterOverride::Config(config)) => config.downcast_ref::<String>().cloned(),
        _ => None,
    };
    assert!(matches!(route.filter_override("off"), Some(FilterOverride::Disabled)));
    assert!(matches!(route.filter_override("on"), Some(FilterOverride::Config(_))));
    assert_eq!((text("both"), text("host")), (Some("route".into()), Some("host".into())));
    assert!(route.filter_override("optional").is_none());

    message.virtual_hosts[0].typed_per_filter_config =
        [("f".to_owned(), any("x/unknown", "")), ("g".to_owned(), config(None, true, false))]
            .into();
    assert_eq!(
        compile(message).unwrap_err().to_string(),
        "virtual_hosts[0].typed_per_filter_config[\"f\"]: unknown extension type x/unknown\n\
         virtual_hosts[0].typed_per_filter_config[\"g\"].config: is required"
    );
}

#[test]
fn every_fault_is_reported_with_its_path() {
    let mut broken = forward("/", "");
    broken.request_headers_to_add = vec![header(":path", "x"), header("x", "%NOPE%")];
    broken.request_headers_to_remove = vec!["Host".into()];
    let mut no_match = forward("/", "a");
    no_match.r#match = None;
    no_match.action = None;
    let rewrite = proto::RouteAction { prefix_rewrite: "x".into(), ..to_cluster("a") };
    let direct = proto::DirectResponseAction { status: 600, ..Default::default() };
    let redirect = proto::RedirectAction { port_redirect: 70_000, ..Default::default() };
    let routes = vec![
        broken,
        no_match,
        route("/", ActionProto::Route(rewrite)),
        route("/", ActionProto::DirectResponse(direct)),
        route("/", ActionProto::Redirect(redirect)),
    ];
    let hosts = vec![host(&["a.test"], routes), host(&["b.test", "A.test"], vec![])];
    let text = compile(table(hosts)).unwrap_err().to_string();
    let lines: Vec<_> = text.lines().collect();
    let expected = [
        "virtual_hosts[0].routes[0].request_headers_to_add[0].header.key: \":path\": ",
        "virtual_hosts[0].routes[0].request_headers_to_add[1].header.value: %NOPE%: ",
        "virtual_hosts[0].routes[0].request_headers_to_remove[0]: \"Host\": ",
        "virtual_hosts[0].routes[0].route.cluster: is required",
        "virtual_hosts[0].routes[1].match: is required",
        "virtual_hosts[0].routes[1].action: is required",
        "virtual_hosts[0].routes[2].route.prefix_rewrite: \"x\": ",
        "virtual_hosts[0].routes[3].direct_response.status: 600 is not in 200..=599",
        "virtual_hosts[0].routes[4].redirect.port_redirect: port 70000 ",
        "virtual_hosts[1].domains[1]: \"A.test\" is used more than once",
    ];
    assert_eq!(lines.len(), expected.len(), "{text}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.starts_with(expected), "{line}\n{expected}");
    }
}

#[test]
fn a_route_is_small() {
    // With two counts for each Arc and a node of the trie, well under 400 bytes beside its text.
    let size = size_of::<Route>() + size_of::<Entry>();
    assert!(size <= 192, "{size} bytes");
}

#[test]
fn tables_replace_one_and_share_the_rest() {
    let named = |name: &str| {
        Arc::new(compile(proto::RouteConfiguration { name: name.into(), ..table(vec![]) }).unwrap())
    };
    let (a, b) = (named("a"), named("b"));
    let tables: Tables = [Arc::clone(&a), Arc::clone(&b)].into_iter().collect();
    let changed = tables.with(named("b"));
    assert!(Arc::ptr_eq(changed.get("a").unwrap(), &a));
    assert!(!Arc::ptr_eq(changed.get("b").unwrap(), &b));
    assert!(changed.without("a").get("a").is_none() && tables.get("a").is_some());
}
