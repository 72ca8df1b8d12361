//! Which route a request takes, what is done with it there, and by which filters it passes.

use serde_json::{Value, json};

use crate::harness::resources::{
    bootstrap, filter, hcm, listener, listener_of, route, router, static_cluster, table, to, typed,
    with,
};
use crate::harness::{Http1, Origin, Proxy, Script, get, request};

/// Origins named `a`, `b` and `c`, each behind a cluster of its name.
async fn abc() -> (Vec<Origin>, Vec<Value>) {
    let mut origins = Vec::new();
    for name in ["a", "b", "c"] {
        origins.push(Origin::http1(name).await);
    }
    let clusters = ["a", "b", "c"].iter().zip(&origins);
    let clusters = clusters.map(|(name, origin)| static_cluster(name, &[origin.address])).collect();
    (origins, clusters)
}

#[tokio::test]
async fn domains_choose_the_virtual_host() {
    let (_origins, clusters) = abc().await;
    let host = |name: &str, domains: &[&str], routes: &[Value]| json!({ "name": name, "domains": domains, "routes": routes });
    let direct = json!({ "match": { "prefix": "/" }, "direct_response": { "status": 418 } });
    let hosts = json!({ "route_config": { "name": "local", "virtual_hosts": [
        host("exact", &["a.test", "a.test:8080"], &[to("a")]),
        host("suffix", &["*.b.test"], &[to("b")]),
        host("prefix", &["c.*"], &[to("c")]),
        host("any", &["*"], &[direct]),
    ] } });
    let proxy =
        Proxy::with(bootstrap(&[listener_of("in", hcm(hosts, json!({})))], &clusters)).await;
    let address = proxy.listener("in").await;
    let cases = [
        ("a.test", 200, "a"),
        ("A.TEST", 200, "a"),
        ("a.test:8080", 200, "a"),
        ("x.b.test", 200, "b"),
        ("b.test", 418, ""),
        ("c.org", 200, "c"),
        ("other", 418, ""),
    ];
    for (host, status, body) in cases {
        let answer = request(address, "GET", "/", &[("host", host)], b"").await;
        assert_eq!((answer.status, &*answer.text()), (status, body), "{host}");
    }
    assert_eq!(proxy.stat("http.in.downstream_rq_total").await, 7);
}

#[tokio::test]
async fn the_first_route_that_matches_is_taken() {
    let (origins, clusters) = abc().await;
    let matched = |m: Value, cluster: &str| json!({ "match": m, "route": { "cluster": cluster } });
    let routes = [
        matched(json!({ "path": "/exact" }), "a"),
        matched(json!({ "safe_regex": { "regex": "/r[0-9]+" } }), "b"),
        matched(json!({ "path_separated_prefix": "/dir" }), "c"),
        matched(
            json!({ "prefix": "/h", "headers": [{ "name": "x", "string_match": { "exact": "1" } }] }),
            "a",
        ),
        matched(
            json!({ "prefix": "/h", "headers": [{ "name": "x", "present_match": true, "invert_match": true }] }),
            "b",
        ),
        matched(
            json!({ "prefix": "/q", "query_parameters": [{ "name": "k", "string_match": { "exact": "v" } }] }),
            "c",
        ),
        matched(json!({ "prefix": "/CASE", "case_sensitive": false }), "a"),
        matched(json!({ "prefix": "/p" }), "b"),
        matched(json!({ "prefix": "/p/q" }), "a"),
    ];
    let proxy = Proxy::with(bootstrap(&[listener("in", &routes)], &clusters)).await;
    let address = proxy.listener("in").await;
    type Headers = &'static [(&'static str, &'static str)];
    let cases: [(&str, Headers, &str); 17] = [
        ("/exact", &[], "a"),
        ("/exact?q", &[], "a"),
        ("/exact/", &[], "404"),
        ("/r12", &[], "b"),
        ("/r12x", &[], "404"),
        ("/dir", &[], "c"),
        ("/dir/x", &[], "c"),
        ("/directory", &[], "404"),
        ("/h", &[("x", "1")], "a"),
        ("/h", &[("x", "2")], "404"),
        ("/h", &[], "b"),
        ("/q?k=v", &[], "c"),
        ("/q?k=w", &[], "404"),
        ("/case/x", &[], "a"),
        ("/p/q", &[], "b"),
        ("/P", &[], "404"),
        ("/", &[], "404"),
    ];
    for (path, headers, expected) in cases {
        let answer = request(address, "GET", path, headers, b"").await;
        match expected {
            "404" => assert_eq!(answer.status, 404, "{path} {headers:?}"),
            name => assert_eq!(answer.text(), name, "{path} {headers:?}"),
        }
    }
    assert_eq!(proxy.stat("http.in.no_route").await, 7);
    assert_eq!(origins.iter().map(Origin::requests).sum::<usize>(), 10);
}

#[tokio::test]
async fn redirects_and_direct_responses_need_no_cluster() {
    let redirect =
        |path: &str, redirect: Value| json!({ "match": { "prefix": path }, "redirect": redirect });
    let routes = [
        redirect("/https", json!({ "https_redirect": true })),
        redirect("/host", json!({ "host_redirect": "new.test", "response_code": "FOUND" })),
        redirect("/path", json!({ "path_redirect": "/to?x=1", "response_code": "SEE_OTHER" })),
        redirect(
            "/old",
            json!({ "prefix_rewrite": "/new", "strip_query": true, "response_code": "PERMANENT_REDIRECT" }),
        ),
        json!({ "match": { "prefix": "/text" }, "direct_response": {
            "status": 200, "body": { "inline_string": "hello" } },
            "response_headers_to_add": [{ "header": { "key": "x-route", "value": "text" } }] }),
        json!({ "match": { "prefix": "/form" }, "direct_response": {
            "status": 404,
            "body": { "inline_string": "gone" },
            "body_format": { "json_format": {
                "path": "%REQ(:path)%", "code": "%RESPONSE_CODE%", "text": "%LOCAL_REPLY_BODY%",
            } },
        } }),
        json!({ "match": { "prefix": "/" }, "direct_response": { "status": 403 } }),
    ];
    let proxy = Proxy::with(bootstrap(&[listener("in", &routes)], &[])).await;
    let mut client = Http1::connect(proxy.listener("in").await).await;
    let cases = [
        ("/https/a?b", 301, "https://test/https/a?b"),
        ("/host/a?b", 302, "http://new.test/host/a?b"),
        ("/path", 303, "http://test/to?x=1"),
        ("/old/a?b", 308, "http://test/new/a"),
    ];
    for (path, status, location) in cases {
        let answer = client.get(path).await;
        assert_eq!((answer.status, answer.header("location")), (status, location), "{path}");
    }
    let text = client.get("/text").await;
    assert_eq!((text.status, text.text(), text.header("x-route")), (200, "hello".into(), "text"));
    assert_eq!(text.header("content-type"), "text/plain");
    let formed = client.get("/form?q").await;
    assert_eq!((formed.status, formed.header("content-type")), (404, "application/json"));
    let said: Value = serde_json::from_str(&formed.text()).unwrap();
    assert_eq!(said, json!({ "path": "/form?q", "code": 404, "text": "gone" }));
    let refused = client.get("/").await;
    assert_eq!((refused.status, refused.header("content-length")), (403, "0"));
    proxy.until_stat("http.in.downstream_rq_3xx", 4).await;
}

#[tokio::test]
async fn weighted_clusters_get_their_shares() {
    let (origins, clusters) = abc().await;
    let weighted = json!({ "weighted_clusters": { "clusters": [
        { "name": "a", "weight": 70, "response_headers_to_add": [{ "header": { "key": "x-share", "value": "a" } }] },
        { "name": "b", "weight": 30 },
        { "name": "c", "weight": 0 },
    ] } });
    let proxy = Proxy::with(bootstrap(&[listener("in", &[route("/", weighted)])], &clusters)).await;
    let mut client = Http1::connect(proxy.listener("in").await).await;
    for _ in 0..500 {
        let answer = client.get("/").await;
        assert_eq!(answer.header("x-share"), if answer.text() == "a" { "a" } else { "" });
    }
    // Seven standard deviations to either side.
    let a = origins[0].requests();
    assert!((278..=422).contains(&a), "{a} of 500 went to the share of 70 %");
    assert_eq!((origins[1].requests() + a, origins[2].requests()), (500, 0));
    let counted = proxy.stat("cluster.a.upstream_rq_total").await;
    assert_eq!(counted, a as u64);
}

#[tokio::test]
async fn routes_rewrite_what_the_origin_sees() {
    let (origins, clusters) = abc().await;
    let routes = [
        route(
            "/api/",
            json!({ "cluster": "a", "prefix_rewrite": "/", "host_rewrite_literal": "inner" }),
        ),
        with(
            route("/", json!({ "cluster": "b" })),
            json!({
                "request_headers_to_add": [{ "header": { "key": "x-add", "value": "from %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%" } }],
                "request_headers_to_remove": ["x-gone"],
                "response_headers_to_add": [{ "header": { "key": "server", "value": "mine" }, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD" }],
                "response_headers_to_remove": ["x-secret"],
            }),
        ),
    ];
    let proxy = Proxy::with(bootstrap(&[listener("in", &routes)], &clusters)).await;
    let address = proxy.listener("in").await;
    assert_eq!(get(address, "/api/users?x=1").await.text(), "a");
    let seen = origins[0].last();
    assert_eq!(
        (seen.uri.to_string(), &seen.headers["host"]),
        ("/users?x=1".into(), &"inner".parse().unwrap())
    );
    assert_eq!(seen.headers["x-envoy-original-path"], "/api/users?x=1");

    origins[1].script(Script::default().header("x-secret", "1").header("x-open", "1"));
    let answer = request(address, "GET", "/", &[("x-gone", "1"), ("x-stay", "1")], b"").await;
    assert_eq!((answer.header("x-secret"), answer.header("x-open")), ("", "1"));
    let seen = origins[1].last().headers;
    assert!(!seen.contains_key("x-gone") && seen.contains_key("x-stay"));
    assert_eq!(seen["x-add"], "from 127.0.0.1");
}

const MUTATION: &str = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation";
const BUFFER: &str = "envoy.extensions.filters.http.buffer.v3.Buffer";

/// A filter that adds a header to requests and one to responses.
fn mutation(name: &str, key: &str, value: &str) -> Value {
    let add = json!({ "append": { "header": { "key": key, "value": value }, "append_action": "APPEND_IF_EXISTS_OR_ADD" } });
    filter(
        name,
        MUTATION,
        json!({ "mutations": { "request_mutations": [add], "response_mutations": [add] } }),
    )
}

fn buffer(limit: u32) -> Value {
    filter("envoy.filters.http.buffer", BUFFER, json!({ "max_request_bytes": limit }))
}

fn filtered(name: &str, filters: &[Value], routes: &[Value]) -> Value {
    let routes = json!({ "route_config": table("local", routes) });
    listener_of(name, hcm(routes, json!({ "http_filters": filters })))
}

#[tokio::test]
async fn filters_run_in_the_order_given_and_back() {
    let (origins, clusters) = abc().await;
    let one = mutation("envoy.filters.http.header_mutation", "x-order", "1");
    let two = mutation("second", "x-order", "2");
    let listeners = [
        filtered("forward", &[one.clone(), two.clone(), router()], &[to("a")]),
        filtered("backward", &[two.clone(), one.clone(), router()], &[to("a")]),
        filtered("buffer-first", &[buffer(100), one.clone(), router()], &[to("a")]),
        filtered("buffer-last", &[one, buffer(100), router()], &[to("a")]),
    ];
    let proxy = Proxy::with(bootstrap(&listeners, &clusters)).await;
    let order = |headers: &http::HeaderMap| -> Vec<String> {
        headers.get_all("x-order").iter().map(|v| v.to_str().unwrap().to_owned()).collect()
    };
    for (name, inward, outward) in
        [("forward", ["1", "2"], ["2", "1"]), ("backward", ["2", "1"], ["1", "2"])]
    {
        let answer = get(proxy.listener(name).await, "/").await;
        assert_eq!(order(&origins[0].last().headers), inward, "{name}");
        assert_eq!(order(&answer.headers), outward, "{name}");
    }
    for name in ["buffer-first", "buffer-last"] {
        let address = proxy.listener(name).await;
        let body = [b'x'; 100];
        let answer = request(address, "POST", "/", &[], &body).await;
        assert_eq!((answer.status, order(&answer.headers)), (200, vec!["1".to_owned()]), "{name}");
        let before = origins[0].requests();
        let answer = request(address, "POST", "/", &[], &[b'x'; 101]).await;
        assert_eq!(answer.status, 413, "{name}");
        // The local reply passes outward through the filters outside of the one that gave it.
        assert_eq!(order(&answer.headers).len(), usize::from(name == "buffer-last"), "{name}");
        assert_eq!(origins[0].requests(), before);
    }
}

#[tokio::test]
async fn a_buffered_request_leaves_whole_and_with_its_length() {
    let (origins, clusters) = abc().await;
    let listeners = [filtered("in", &[buffer(100), router()], &[to("a")])];
    let proxy = Proxy::with(bootstrap(&listeners, &clusters)).await;
    let mut client = Http1::connect(proxy.listener("in").await).await;
    client
        .send("POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")
        .await;
    proxy.until_stat("http.in.downstream_rq_active", 1).await;
    assert_eq!(origins[0].requests(), 0);
    client.send("2\r\nde\r\n0\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(origins[0].last().headers["content-length"], "5");
    assert_eq!(origins[0].received(), 5);
}

#[tokio::test]
async fn a_buffered_request_that_is_late_or_breaks_off_never_leaves() {
    let (origins, clusters) = abc().await;
    let routes = json!({ "route_config": table("local", &[to("a")]) });
    let limits = |timeout: &str| {
        let mut options = json!({ "http_filters": [buffer(100), router()] });
        options[timeout] = json!("0.2s");
        listener_of(timeout, with(hcm(routes.clone(), options), json!({ "stat_prefix": timeout })))
    };
    let listeners = [limits("request_timeout"), limits("stream_idle_timeout")];
    let proxy = Proxy::with(bootstrap(&listeners, &clusters)).await;
    let half = "POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 10\r\n\r\nhalf";
    for (name, stat, text) in [
        ("request_timeout", "downstream_rq_timeout", "request timeout"),
        ("stream_idle_timeout", "downstream_rq_idle_timeout", "stream timeout"),
    ] {
        let mut client = Http1::connect(proxy.listener(name).await).await;
        client.send(half).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.text().as_str()), (408, text), "{name}");
        proxy.until_stat(&format!("http.{name}.{stat}"), 1).await;
    }
    let mut client = Http1::connect(proxy.listener("stream_idle_timeout").await).await;
    client.send(half).await;
    drop(client);
    proxy.until_stat("http.stream_idle_timeout.downstream_rq_rx_reset", 1).await;
    assert_eq!(origins[0].requests(), 0);
}

#[tokio::test]
async fn routes_configure_and_disable_filters() {
    let (_origins, clusters) = abc().await;
    let per_route = |path: &str, key: &str, config: Value| {
        let mut overrides = json!({});
        overrides[key] = config;
        with(
            route(path, json!({ "cluster": "a" })),
            json!({ "typed_per_filter_config": overrides }),
        )
    };
    let off = typed("envoy.config.route.v3.FilterConfig", json!({ "disabled": true }));
    let on = typed(
        "envoy.config.route.v3.FilterConfig",
        json!({ "config": typed("envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute", json!({ "mutations": {} })) }),
    );
    let small = typed(
        "envoy.extensions.filters.http.buffer.v3.BufferPerRoute",
        json!({ "buffer": { "max_request_bytes": 5 } }),
    );
    let unbuffered = typed(
        "envoy.extensions.filters.http.buffer.v3.BufferPerRoute",
        json!({ "disabled": true }),
    );
    let routes = [
        per_route("/off", "mark", off),
        per_route("/small", "envoy.filters.http.buffer", small),
        per_route("/unbuffered", "envoy.filters.http.buffer", unbuffered),
        per_route("/on", "asleep", on),
        to("a"),
    ];
    let asleep = with(mutation("asleep", "x-asleep", "1"), json!({ "disabled": true }));
    let filters = [mutation("mark", "x-mark", "1"), asleep, buffer(10), router()];
    let proxy = Proxy::with(bootstrap(&[filtered("in", &filters, &routes)], &clusters)).await;
    let address = proxy.listener("in").await;
    let cases = [
        ("/", 10, 200, "1", ""),
        ("/", 11, 413, "1", ""),
        ("/off", 10, 200, "", ""),
        ("/small", 6, 413, "1", ""),
        ("/unbuffered", 1000, 200, "1", ""),
        ("/on", 1, 200, "1", "1"),
    ];
    for (path, size, status, mark, asleep) in cases {
        let answer = request(address, "POST", path, &[], &vec![b'x'; size]).await;
        assert_eq!(answer.status, status, "{path} {size}");
        assert_eq!((answer.header("x-mark"), answer.header("x-asleep")), (mark, asleep), "{path}");
    }
}

#[tokio::test]
async fn an_unknown_filter_is_refused_unless_it_is_optional() {
    let (_origins, clusters) = abc().await;
    let unknown = || filter("mystery", "test.Mystery", json!({ "field": 1 }));
    let optional = with(unknown(), json!({ "is_optional": true }));
    let skipped = filtered("in", &[optional, router()], &[to("a")]);
    let proxy = Proxy::with(bootstrap(&[skipped], &clusters)).await;
    assert_eq!(get(proxy.listener("in").await, "/").await.text(), "a");
    assert!(proxy.admin_text("/config_dump").await.contains("test.Mystery"), "it is recorded");

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bootstrap.json");
    let refused = filtered("in", &[unknown(), router()], &[to("a")]);
    std::fs::write(&file, bootstrap(&[refused], &clusters).to_string()).unwrap();
    let said = crate::harness::run(["-c", file.to_str().unwrap(), "--mode", "validate"]).await;
    assert_eq!(said.code, Some(1));
    let all = said.all();
    assert!(all.contains("http_filters[0]") && all.contains("test.Mystery"), "{all}");
}
