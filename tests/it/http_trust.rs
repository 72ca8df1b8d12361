//! What clients may say of themselves, and what we say of ourselves.

use serde_json::{Value, json};

use crate::harness::resources::{
    bootstrap, from_within, hcm, listener_of, route, static_cluster, table, to, with,
};
use crate::harness::{Origin, Proxy, ProxyBuilder, Script, get, request, run};

fn trusting(origin: &Origin, options: Value) -> Value {
    let slow = route("/slow", json!({ "cluster": "one", "timeout": "0.2s" }));
    let dead = route("/dead", json!({ "cluster": "dead" }));
    let lost = route("/lost", json!({ "cluster": "lost" }));
    let own = json!({ "match": { "prefix": "/own" }, "direct_response": { "status": 503 } });
    let mut routes = table("local", &[slow, dead, lost, own, to("one")]);
    routes["internal_only_headers"] = json!(["x-only"]);
    routes["virtual_hosts"][0]["domains"] = json!(["test"]);
    let manager = hcm(json!({ "route_config": routes }), options);
    let clusters = [static_cluster("one", &[origin.address]), static_cluster("dead", &[])];
    bootstrap(&[listener_of("in", manager)], &clusters)
}

/// What an origin sees of what anybody could say.
async fn passed(origin: &Origin, proxy: &Proxy, chain: &str) -> Vec<&'static str> {
    let mut asked = vec![
        ("x-envoy-ip-tags", "a"),
        ("x-envoy-decorator-operation", "b"),
        ("x-only", "c"),
        ("x-envoy-retry-on", "5xx"),
        ("x-envoy-max-retries", "1"),
        ("x-request-id", "mine"),
        ("x-envoy-internal", "mine"),
        ("x-envoy-external-address", "mine"),
    ];
    if !chain.is_empty() {
        asked.push(("x-forwarded-for", chain));
    }
    let before = origin.requests();
    origin.script(Script::status(503));
    request(proxy.listener("in").await, "GET", "/", &asked, b"").await;
    let seen = origin.last().headers;
    let mut passed = Vec::new();
    for (name, value) in [
        ("x-envoy-ip-tags", "a"),
        ("x-envoy-decorator-operation", "b"),
        ("x-only", "c"),
        ("x-request-id", "mine"),
        ("x-envoy-internal", "true"),
        ("x-envoy-external-address", "127.0.0.1"),
    ] {
        if seen.get(name).is_some_and(|seen| seen == value) {
            passed.push(name);
        }
    }
    if origin.requests() == before + 2 {
        passed.push("retried");
    }
    passed
}

#[tokio::test]
async fn only_who_is_within_may_say_what_is_for_those_within() {
    let origin = Origin::http1("one").await;
    let within = [
        "x-envoy-ip-tags",
        "x-envoy-decorator-operation",
        "x-only",
        "x-request-id",
        "x-envoy-internal",
        "retried",
    ];
    let between = ["x-envoy-decorator-operation", "x-request-id"];
    let edge = ["x-envoy-external-address"];
    let mut behind = from_within();
    behind["use_remote_address"] = json!(false);
    for (options, chain, expected) in [
        (json!({}), "", &between[..]),
        (json!({}), "10.0.0.1", &between),
        (json!({ "use_remote_address": true }), "", &edge),
        (from_within(), "", &within),
        (from_within(), "127.0.0.1", &edge),
        (behind.clone(), "", &between),
        (behind.clone(), "127.0.0.1", &within),
        (behind.clone(), "127.0.0.1, 127.0.0.2", &between),
        (behind.clone(), "10.0.0.1", &between),
        (behind, "nobody", &between),
    ] {
        let proxy = Proxy::with(trusting(&origin, options.clone())).await;
        assert_eq!(passed(&origin, &proxy, chain).await, expected, "{options} {chain}");
    }
}

#[tokio::test]
async fn services_are_told_whom_a_request_comes_from() {
    let origin = Origin::http1("one").await;
    let config = trusting(&origin, json!({ "add_user_agent": true, "use_remote_address": true }));
    let args = ["--service-cluster", "shop", "--service-node", "shop-1"];
    let proxy = ProxyBuilder::new(config.clone()).args(args).ready().await;
    let asked = [("x-envoy-downstream-service-node", "other"), ("user-agent", "me")];
    for (asked, agent) in [(&asked[..], "me"), (&[("user-agent", "")], "shop"), (&[], "shop")] {
        request(proxy.listener("in").await, "GET", "/", asked, b"").await;
        let seen = origin.last().headers;
        assert_eq!(seen["user-agent"], agent);
        assert_eq!(seen["x-envoy-downstream-service-cluster"], "shop");
        assert_eq!(seen["x-envoy-downstream-service-node"], "shop-1");
    }
}

#[tokio::test]
async fn an_answer_says_what_went_wrong() {
    let origin = Origin::http1("one").await;
    let cases = [
        ("/dead", 503, 503, "destination_unavailable", "no_healthy_upstream; UH"),
        ("/lost", 503, 503, "destination_unavailable", "cluster_not_found; NC"),
        ("/slow", 504, 504, "http_response_timeout", "response_timeout; UT"),
    ];
    origin.script(Script::held());
    let config = trusting(&origin, json!({ "proxy_status_config": {} }));
    let proxy = Proxy::with(config).await;
    let address = proxy.listener("in").await;
    for (path, status, _, error, details) in cases {
        let answer = get(address, path).await;
        let expected = format!("nuncio; error={error}; details=\"{details}\"");
        assert_eq!((answer.status, answer.header("proxy-status")), (status, &*expected), "{path}");
    }
    // What is no fault of ours is not told as one.
    origin.script(Script::status(503));
    for path in ["/", "/own"] {
        let answer = get(address, path).await;
        assert_eq!((answer.status, answer.headers.get("proxy-status")), (503, None), "{path}");
    }

    origin.script(Script::held());
    let terse = json!({ "literal_proxy_name": "edge", "remove_details": true, "set_recommended_response_code": true });
    let config = trusting(&origin, json!({ "proxy_status_config": terse }));
    let proxy = Proxy::with(config).await;
    let address = proxy.listener("in").await;
    for (path, _, status, error, _) in cases {
        let answer = get(address, path).await;
        let expected = format!("edge; error={error}");
        assert_eq!((answer.status, answer.header("proxy-status")), (status, &*expected), "{path}");
    }
    let lost = request(address, "GET", "/", &[("host", "other")], b"").await;
    let expected = "edge; error=destination_not_found";
    assert_eq!((lost.status, lost.header("proxy-status")), (500, expected));
    proxy.until_stat("http.in.downstream_rq_5xx", 4).await;

    let flagless = json!({ "use_node_id": true, "remove_response_flags": true });
    let config = trusting(&origin, json!({ "proxy_status_config": flagless }));
    let proxy = ProxyBuilder::new(config).args(["--service-node", "node-1"]).ready().await;
    let answer = get(proxy.listener("in").await, "/dead").await;
    let expected = "node-1; error=destination_unavailable; details=\"no_healthy_upstream\"";
    assert_eq!(answer.header("proxy-status"), expected);
}

#[tokio::test]
async fn what_nobody_could_trust_is_refused_by_name() {
    let origin = Origin::http1("one").await;
    let range = json!({ "cidr_ranges": [{ "address_prefix": "10.0.0.0", "prefix_len": 33 }] });
    for (options, expected) in [
        (
            json!({ "internal_address_config": range }),
            "internal_address_config.cidr_ranges[0].prefix_len: ",
        ),
        (
            json!({ "internal_address_config": { "unix_sockets": true } }),
            "internal_address_config.unix_sockets: ",
        ),
        (
            json!({ "proxy_status_config": { "literal_proxy_name": "a\nb" } }),
            "proxy_status_config.literal_proxy_name: ",
        ),
    ] {
        let config = trusting(&origin, options).to_string();
        let said = run(["--mode", "validate", "--config-yaml", &config]).await;
        assert!(said.code == Some(1) && said.all().contains(expected), "{}", said.all());
    }
    let fine = trusting(&origin, with(from_within(), json!({ "add_user_agent": true })));
    let said = run(["--mode", "validate", "--config-yaml", &fine.to_string()]).await;
    assert_eq!(said.code, Some(0), "{}", said.all());
}
