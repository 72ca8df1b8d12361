//! What routes match and what becomes of a request there, from their messages in JSON.

use serde_json::{Value, json};

use super::*;
use crate::proto::json::from_json;

const MATCH: &str =
    "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig";
const REWRITE: &str =
    "type.googleapis.com/envoy.extensions.path.rewrite.uri_template.v3.UriTemplateRewriteConfig";

fn try_table(host: Value) -> Result<RouteTable, Errors> {
    let mut with_names = json!({ "name": "h", "domains": ["*"] });
    with_names.as_object_mut().unwrap().extend(host.as_object().unwrap().clone());
    compile(from_json(json!({ "name": "t", "virtual_hosts": [with_names] })).unwrap().message)
}

fn routes(routes: Value) -> RouteTable {
    try_table(json!({ "routes": routes })).unwrap()
}

/// The head that the upstream would get.
fn forwarded(table: &RouteTable, mut head: RequestHead) -> RequestHead {
    let route = table.find(&head, || 0).unwrap();
    let Action::Forward(forward) = route.action() else { panic!("{route:?}") };
    forward.rewrite(&mut head, true).unwrap();
    head
}

fn location(table: &RouteTable, head: &RequestHead) -> Option<String> {
    let route = table.find(head, || 0)?;
    let Action::Redirect(redirect) = route.action() else { return None };
    let response = redirect.reply(head).into_response(Box::new(stream()));
    Some(response.head.headers[http::header::LOCATION].to_str().unwrap().to_owned())
}

fn template(text: &str) -> Value {
    json!({ "name": "t", "typed_config": { "@type": MATCH, "path_template": text } })
}

fn by_template(text: &str) -> Value {
    json!({ "name": "t", "typed_config": { "@type": REWRITE, "path_template_rewrite": text } })
}

#[test]
fn a_request_has_one_random_number_for_all_decisions() {
    let table = routes(json!([
        {
            "match": { "prefix": "/", "runtime_fraction": { "default_value": { "numerator": 30 } } },
            "route": { "weighted_clusters": { "clusters": [
                { "name": "a", "weight": 10 },
                { "name": "b", "weight": 90 },
            ] } },
        },
        { "match": { "prefix": "/" }, "route": { "cluster": "c" } },
    ]));
    let head = get("a.test", "/");
    let mut called = 0;
    let found = table.find(&head, || {
        called += 1;
        129
    });
    assert!(found.is_some());
    assert_eq!(called, 1);
    for (random, expected) in [(0, "a"), (9, "a"), (10, "b"), (29, "b"), (30, "c"), (109, "a")] {
        assert_eq!(&*cluster(&table, &head, random).unwrap(), expected, "{random}");
    }
}

#[test]
fn a_header_may_bring_the_number() {
    let table = routes(json!([{
        "match": { "prefix": "/" },
        "route": { "weighted_clusters": {
            "header_name": "x-number",
            "clusters": [{ "name": "a", "weight": 1 }, { "name": "b", "weight": 3 }],
        } },
    }]));
    let drawn = |values: &[&str]| {
        let mut head = get("a.test", "/");
        for value in values {
            head.headers.append("x-number", http::HeaderValue::from_str(value).unwrap());
        }
        cluster(&table, &head, 0).unwrap().to_string()
    };
    for (values, expected) in [
        (&["4"][..], "a"),
        (&["7"], "b"),
        (&["18446744073709551615"], "b"),
        (&[], "a"),
        (&["seven"], "a"),
        (&["7", "7"], "a"),
        (&["-1"], "a"),
    ] {
        assert_eq!(drawn(values), expected, "{values:?}");
    }
}

#[test]
fn runtime_keys_go_before_shares_and_weights() {
    let layers = json!({ "layers": [{ "name": "l", "static_layer": {
        "on": 100,
        "off": 0,
        "split.a": 0,
    } }] });
    let runtime = Runtime::compile(&from_json(layers).unwrap().message).unwrap();
    let nothing =
        |_: &str, any: &ProtoAny| Err(Errors::from(Fault::UnknownExtension(any.type_url.clone())));
    let telemetry = Telemetry::default();
    let cx = CompileContext {
        compile_filter_override: &nothing,
        runtime: &runtime,
        telemetry: &telemetry,
    };
    let share = |key: &str, percent: u32| {
        json!({ "prefix": format!("/{key}"), "runtime_fraction": {
            "runtime_key": key, "default_value": { "numerator": percent },
        } })
    };
    let message = json!({ "name": "t", "virtual_hosts": [{ "name": "h", "domains": ["*"], "routes": [
        { "match": share("on", 0), "route": { "cluster": "on" } },
        { "match": share("off", 100), "route": { "cluster": "off" } },
        { "match": { "prefix": "/" }, "route": { "weighted_clusters": {
            "runtime_key_prefix": "split",
            "clusters": [{ "name": "a", "weight": 99 }, { "name": "b", "weight": 1 }],
        } } },
    ] }] });
    let table = RouteTable::compile(from_json(message).unwrap().message, &cx).unwrap();
    for (path, expected) in [("/on", "on"), ("/off", "b")] {
        assert_eq!(&*cluster(&table, &get("a.test", path), 0).unwrap(), expected);
    }
}

#[test]
fn parameters_of_a_path_may_be_ignored() {
    let message = |ignore: bool| {
        json!({
            "name": "t",
            "ignore_path_parameters_in_path_matching": ignore,
            "virtual_hosts": [{ "name": "h", "domains": ["*"], "routes": [
                { "match": { "path": "/a" }, "route": { "cluster": "exact", "prefix_rewrite": "/b" } },
                { "match": { "prefix": "/" }, "route": { "cluster": "rest" } },
            ] }],
        })
    };
    for (ignore, expected) in [(true, "exact"), (false, "rest")] {
        let table = compile(from_json(message(ignore)).unwrap().message).unwrap();
        let head = get("a.test", "/a;v=1/x?q=;");
        assert_eq!(&*cluster(&table, &head, 0).unwrap(), expected);
        assert_eq!(&*cluster(&table, &get("a.test", "/a?q=;"), 0).unwrap(), "exact");
    }
}

#[test]
fn connect_has_routes_of_its_own() {
    let table = routes(json!([
        { "match": { "prefix": "/" }, "route": { "cluster": "a" } },
        {
            "match": { "connect_matcher": {}, "headers": [{ "name": "x", "present_match": true }] },
            "route": { "cluster": "b" },
        },
        { "match": { "connect_matcher": {} }, "route": { "cluster": "c" } },
    ]));
    let mut head = http::Request::connect("a.test:443").body(()).unwrap().into_parts().0;
    assert_eq!(&*cluster(&table, &head, 0).unwrap(), "c");
    head.headers.insert("x", http::HeaderValue::from_static("1"));
    assert_eq!(&*cluster(&table, &head, 0).unwrap(), "b");
    assert_eq!(&*cluster(&table, &get("a.test", "/"), 0).unwrap(), "a");
}

#[test]
fn plain_requests_are_sent_to_tls() {
    let route = json!([{ "match": { "prefix": "/" }, "route": { "cluster": "a" } }]);
    for (required, internal_passes) in [("ALL", false), ("EXTERNAL_ONLY", true)] {
        let host = json!({ "require_tls": required, "routes": route });
        let table = try_table(host).unwrap();
        let mut head = get("a.test:80", "/x?y=1");
        assert_eq!(location(&table, &head).unwrap(), "https://a.test:80/x?y=1");
        head.headers.insert("x-envoy-internal", http::HeaderValue::from_static("true"));
        assert_eq!(location(&table, &head).is_none(), internal_passes, "{required}");
        head.headers.remove("x-envoy-internal");
        head.headers.insert("x-forwarded-proto", http::HeaderValue::from_static("https"));
        assert_eq!(location(&table, &head), None);
    }
    assert!(try_table(json!({ "require_tls": "NONE", "routes": route })).is_ok());
}

#[test]
fn paths_are_rewritten_in_every_way() {
    let table = routes(json!([
        {
            "match": { "path_match_policy": template("/t/{a}/{b=**}") },
            "route": { "cluster": "a", "path_rewrite_policy": by_template("/{b}/{a}") },
        },
        {
            "match": { "prefix": "/r" },
            "route": { "cluster": "a", "regex_rewrite": {
                "pattern": { "regex": "^/r/([0-9]+)" }, "substitution": r"/n/\1",
            } },
        },
        {
            "match": { "prefix": "/s" },
            "redirect": { "strip_query": true, "regex_rewrite": {
                "pattern": { "regex": "/s/([a-z])" }, "substitution": r"/\1",
            } },
        },
    ]));
    let path = |path: &str| forwarded(&table, get("a.test", path)).uri.to_string();
    assert_eq!(path("/t/1/2/3?q"), "/2/3/1?q");
    assert_eq!(path("/r/12/x?q"), "/n/12/x?q");
    assert_eq!(path("/r/x"), "/r/x");
    assert_eq!(location(&table, &get("h", "/s/x/y?q")).unwrap(), "http://h/x/y");
}

#[test]
fn hosts_are_rewritten_in_every_way() {
    let to = |path: &str, with: Value| {
        let mut action = json!({ "cluster": "a", "append_x_forwarded_host": true });
        action.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
        json!({ "match": { "prefix": path }, "route": action })
    };
    let pattern = json!({ "pattern": { "regex": "^/regex/([^/]+)/.*$" }, "substitution": r"\1.x" });
    let table = routes(json!([
        to("/header", json!({ "host_rewrite_header": "x-host" })),
        to("/regex", json!({ "host_rewrite_path_regex": pattern })),
        to("/keep", json!({})),
    ]));
    let cases = [
        ("/header", Some("h.test"), "h.test"),
        ("/header", None, "old.test"),
        ("/header", Some(""), "old.test"),
        ("/regex/abc/d?e", None, "abc.x"),
        ("/regex", None, "/regex"),
        ("/keep", Some("h.test"), "old.test"),
    ];
    for (path, header, expected) in cases {
        let mut head = get("old.test", path);
        if let Some(header) = header {
            head.headers.insert("x-host", http::HeaderValue::from_static(header));
        }
        let head = forwarded(&table, head);
        assert_eq!(head.headers[http::header::HOST], expected, "{path}");
        let told = head.headers.get("x-forwarded-host");
        assert_eq!(told.is_some(), expected != "old.test", "{path}");
        assert_eq!(told, head.headers.get("x-envoy-original-host"));
    }
}

#[test]
fn unfit_matches_and_rewrites_name_their_fields() {
    let route = |with_match: Value, with: Value| {
        let mut action = json!({ "cluster": "a" });
        action.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
        json!({ "routes": [{ "match": with_match, "route": action }] })
    };
    let any = || json!({ "prefix": "/" });
    let unknown = json!({ "name": "t", "typed_config": {
        "@type": "type.googleapis.com/envoy.config.core.v3.Node",
    } });
    let unclosed = json!({ "pattern": { "regex": "(" }, "substitution": "" });
    let cases = [
        (
            route(json!({ "path_match_policy": template("/{a") }), json!({})),
            "routes[0].match.path_match_policy.typed_config.path_template: \"/{a\": ",
        ),
        (
            route(json!({ "path_match_policy": unknown }), json!({})),
            "match.path_match_policy.typed_config: unknown extension type ",
        ),
        (
            route(json!({ "path_match_policy": { "name": "t" } }), json!({})),
            "match.path_match_policy.typed_config: is required",
        ),
        (
            route(any(), json!({ "path_rewrite_policy": by_template("/{a}") })),
            "route.path_rewrite_policy: needs a path_match_policy",
        ),
        (
            route(
                json!({ "path_match_policy": template("/{b}") }),
                json!({ "path_rewrite_policy": by_template("/{a}") }),
            ),
            "route.path_rewrite_policy.typed_config.path_template_rewrite: ",
        ),
        (
            route(
                any(),
                json!({ "prefix_rewrite": "/x", "regex_rewrite": {
                "pattern": { "regex": "x" }, "substitution": "y",
            } }),
            ),
            "route: prefix_rewrite, regex_rewrite and path_rewrite_policy exclude each other",
        ),
        (route(any(), json!({ "regex_rewrite": unclosed })), "route.regex_rewrite.pattern.regex: "),
        (
            route(any(), json!({ "host_rewrite_path_regex": unclosed })),
            "route.host_rewrite_path_regex.pattern.regex: ",
        ),
        (route(any(), json!({ "host_rewrite_header": "a b" })), "route.host_rewrite_header: "),
        (
            json!({ "routes": [{ "match": any(), "redirect": { "regex_rewrite": unclosed } }] }),
            "redirect.regex_rewrite.pattern.regex: ",
        ),
        (
            route(
                json!({ "prefix": "/", "runtime_fraction": {
                "default_value": { "denominator": 9 },
            } }),
                json!({}),
            ),
            "match.runtime_fraction.default_value.denominator: ",
        ),
    ];
    for (host, expected) in cases {
        let error = try_table(host).map(|_table| ()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}\nis not\n{expected}");
    }
}
