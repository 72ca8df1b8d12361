//! Routes by template, by share, by header and by TLS, what they make of path and host, and what they
//! count.

use serde_json::{Value, json};

use crate::harness::resources::{
    bootstrap, filter, hcm, listener, listener_of, route, router, static_cluster, table, typed,
    with,
};
use crate::harness::{Http1, Origin, Proxy, Script, get, request};

fn template(text: &str) -> Value {
    let kind = "envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig";
    let config = typed(kind, json!({ "path_template": text }));
    json!({ "path_match_policy": { "name": "template", "typed_config": config } })
}

fn by_template(text: &str) -> Value {
    let kind = "envoy.extensions.path.rewrite.uri_template.v3.UriTemplateRewriteConfig";
    let config = typed(kind, json!({ "path_template_rewrite": text }));
    json!({ "name": "template", "typed_config": config })
}

async fn in_front_of(origin: &Origin, routes: &[Value]) -> Proxy {
    let cluster = static_cluster("one", &[origin.address]);
    Proxy::with(bootstrap(&[listener("in", routes)], &[cluster])).await
}

#[tokio::test]
async fn a_template_names_parts_of_the_path() {
    let origin = Origin::http1("one").await;
    let routes = [
        json!({
            "match": template("/{country}/{lang=*}/**"),
            "route": { "cluster": "one", "path_rewrite_policy": by_template("/{lang}/{country}") },
        }),
        json!({ "match": template("/**.png"), "direct_response": { "status": 418 } }),
    ];
    let proxy = in_front_of(&origin, &routes).await;
    let mut client = Http1::connect(proxy.listener("in").await).await;
    for (path, status, seen) in [
        ("/ch/de/page?x=1", 200, "/de/ch?x=1"),
        ("/ch/de/", 200, "/de/ch"),
        ("/a.png", 418, ""),
        ("/ch/de", 404, ""),
        ("/ch//x", 404, ""),
    ] {
        assert_eq!(client.get(path).await.status, status, "{path}");
        if !seen.is_empty() {
            assert_eq!(origin.last().uri.to_string(), seen, "{path}");
        }
    }
    proxy.until_stat("http.in.no_route", 2).await;
}

#[tokio::test]
async fn runtime_keys_go_before_the_defaults_of_filters() {
    let origin = Origin::http1("one").await;
    origin.script(
        Script { body: Some("x".repeat(1000).into()), ..Script::default() }
            .header("content-type", "text/plain"),
    );
    let library = typed("envoy.extensions.compression.gzip.compressor.v3.Gzip", json!({}));
    let enabled = json!({ "default_value": true, "runtime_key": "compress" });
    let compressor = filter(
        "c",
        "envoy.extensions.filters.http.compressor.v3.Compressor",
        json!({
            "compressor_library": { "name": "l", "typed_config": library },
            "response_direction_config": { "common_config": { "enabled": enabled } },
        }),
    );
    let least = json!({ "op": "GE", "value": { "default_value": 400, "runtime_key": "least" } });
    let mapper = json!({
        "filter": { "status_code_filter": { "comparison": least } },
        "headers_to_add": [{ "header": { "key": "x-mapped", "value": "yes" } }],
    });
    let direct = |status: u16| json!({ "match": { "path": format!("/{status}") }, "direct_response": { "status": status } });
    let routes = table("t", &[direct(404), direct(503), route("/", json!({ "cluster": "one" }))]);
    let manager = hcm(
        json!({ "route_config": routes }),
        json!({
            "http_filters": [compressor, router()], "local_reply_config": { "mappers": [mapper] },
        }),
    );
    let plain =
        bootstrap(&[listener_of("in", manager)], &[static_cluster("one", &[origin.address])]);
    let keys = json!({ "compress": false, "least": 500 });
    let keyed = with(
        plain.clone(),
        json!({ "layered_runtime": { "layers": [{ "name": "a", "static_layer": keys }] } }),
    );
    for (config, coding, mapped) in [(plain, "gzip", "yes"), (keyed, "", "")] {
        let proxy = Proxy::with(config).await;
        let address = proxy.listener("in").await;
        let page = request(address, "GET", "/", &[("accept-encoding", "gzip")], b"").await;
        assert_eq!(page.header("content-encoding"), coding);
        assert_eq!(get(address, "/404").await.header("x-mapped"), mapped);
        assert_eq!(get(address, "/503").await.header("x-mapped"), "yes");
    }
}

#[tokio::test]
async fn no_client_here_has_shown_a_certificate() {
    let origin = Origin::http1("one").await;
    let tls = |path: &str, options: Value| json!({ "match": { "prefix": path, "tls_context": options }, "route": { "cluster": "one" } });
    let routes = [
        tls("/presented", json!({ "presented": true })),
        tls("/validated", json!({ "presented": false, "validated": true })),
        tls("/bare", json!({ "presented": false, "validated": false })),
        tls("/any", json!({})),
    ];
    let proxy = in_front_of(&origin, &routes).await;
    let mut client = Http1::connect(proxy.listener("in").await).await;
    for (path, status) in [("/presented", 404), ("/validated", 404), ("/bare", 200), ("/any", 200)]
    {
        assert_eq!(client.get(path).await.status, status, "{path}");
    }
}

#[tokio::test]
async fn runtime_keys_of_the_bootstrap_go_before_shares() {
    let origin = Origin::http1("one").await;
    let share = |key: &str, percent: u32| {
        json!({
            "match": { "prefix": format!("/{key}"), "runtime_fraction": {
                "runtime_key": key, "default_value": { "numerator": percent },
            } },
            "route": { "cluster": "one" },
        })
    };
    let routes = [share("on", 0), share("off", 100), share("default", 100), share("never", 0)];
    let with_layers = with(
        bootstrap(&[listener("in", &routes)], &[static_cluster("one", &[origin.address])]),
        json!({ "layered_runtime": { "layers": [
            { "name": "static", "static_layer": { "on": 100, "off": 0 } },
            { "name": "admin", "admin_layer": {} },
        ] } }),
    );
    let proxy = Proxy::with(with_layers).await;
    let mut client = Http1::connect(proxy.listener("in").await).await;
    for (path, status) in [("/on", 200), ("/off", 404), ("/default", 200), ("/never", 404)] {
        assert_eq!(client.get(path).await.status, status, "{path}");
    }
}

#[tokio::test]
async fn layers_that_could_change_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bootstrap.json");
    let with_layers = with(
        bootstrap(&[], &[]),
        json!({ "layered_runtime": { "layers": [
        { "name": "disk", "disk_layer": {} },
        { "name": "server", "rtds_layer": {} },
    ] } }),
    );
    std::fs::write(&file, with_layers.to_string()).unwrap();
    let said = crate::harness::run(["-c", file.to_str().unwrap(), "--mode", "validate"]).await;
    assert_eq!(said.code, Some(1));
    for field in ["layers[0].disk_layer", "layers[1].rtds_layer"] {
        assert!(said.all().contains(&format!("layered_runtime.{field}: ")), "{}", said.all());
    }
}

#[tokio::test]
async fn a_share_of_the_requests_goes_another_way() {
    let (one, two) = (Origin::http1("one").await, Origin::http1("two").await);
    let share = json!({ "default_value": { "numerator": 300_000, "denominator": "MILLION" } });
    let routes = [
        json!({
            "match": { "prefix": "/", "runtime_fraction": share },
            "route": { "cluster": "one" },
        }),
        route("/", json!({ "cluster": "two" })),
    ];
    let clusters = [static_cluster("one", &[one.address]), static_cluster("two", &[two.address])];
    let proxy = Proxy::with(bootstrap(&[listener("in", &routes)], &clusters)).await;
    let mut client = Http1::connect(proxy.listener("in").await).await;
    for _ in 0..500 {
        assert_eq!(client.get("/").await.status, 200);
    }
    // Seven standard deviations to either side.
    let first = one.requests();
    assert!((79..=221).contains(&first), "{first} of 500 went to the share of 30 %");
    assert_eq!(first + two.requests(), 500);
}

#[tokio::test]
async fn what_ought_to_have_come_over_tls_is_sent_there() {
    let origin = Origin::http1("one").await;
    let hosts = json!({ "name": "t", "virtual_hosts": [{
        "name": "all",
        "domains": ["*"],
        "require_tls": "ALL",
        "routes": [route("/", json!({ "cluster": "one" }))],
    }] });
    let manager = hcm(json!({ "route_config": hosts }), json!({}));
    let cluster = static_cluster("one", &[origin.address]);
    let proxy = Proxy::with(bootstrap(&[listener_of("in", manager)], &[cluster])).await;
    let address = proxy.listener("in").await;
    let answer = request(address, "GET", "/x?y=1", &[("host", "a.test:80")], b"").await;
    assert_eq!((answer.status, answer.header("location")), (301, "https://a.test:80/x?y=1"));
    // A proxy before this one has terminated it.
    let came = [("x-forwarded-proto", "https")];
    assert_eq!(request(address, "GET", "/x", &came, b"").await.text(), "one");
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn hosts_and_paths_are_rewritten_by_what_the_request_says() {
    let origin = Origin::http1("one").await;
    let named = with(
        static_cluster("named", &[]),
        json!({ "load_assignment": {
            "cluster_name": "named",
            "endpoints": [{ "lb_endpoints": [{ "endpoint": {
                "hostname": "endpoint.test",
                "address": { "socket_address": {
                    "address": origin.address.ip().to_string(),
                    "port_value": origin.address.port(),
                } },
            } }] }],
        } }),
    );
    let pattern = json!({ "regex": "^/tenants/([^/]+)/(.*)$" });
    let rewritten = json!({
        "cluster": "one",
        "append_x_forwarded_host": true,
        "host_rewrite_path_regex": { "pattern": pattern, "substitution": r"\1.test" },
        "regex_rewrite": { "pattern": pattern, "substitution": r"/\2" },
    });
    let routes = [
        route("/tenants/", rewritten),
        route("/header", json!({ "cluster": "one", "host_rewrite_header": "x-host" })),
        route("/auto", json!({ "cluster": "named", "auto_host_rewrite": true })),
        route(
            "/broken",
            json!({ "cluster": "one", "regex_rewrite": {
            "pattern": { "regex": "^/" }, "substitution": "",
        } }),
        ),
        json!({ "match": { "prefix": "/control" }, "non_forwarding_action": {} }),
    ];
    let clusters = [static_cluster("one", &[origin.address]), named];
    let proxy = Proxy::with(bootstrap(&[listener("in", &routes)], &clusters)).await;
    let address = proxy.listener("in").await;
    get(address, "/tenants/a/b/c?d").await;
    let seen = origin.last();
    assert_eq!(
        (seen.uri.to_string(), seen.headers["host"].to_str().unwrap()),
        ("/b/c?d".into(), "a.test")
    );
    assert_eq!(seen.headers["x-forwarded-host"], "test");
    assert_eq!(seen.headers["x-envoy-original-host"], "test");
    assert_eq!(seen.headers["x-envoy-original-path"], "/tenants/a/b/c?d");
    request(address, "GET", "/header", &[("x-host", "said.test")], b"").await;
    assert_eq!(origin.last().headers["host"], "said.test");
    get(address, "/auto").await;
    assert_eq!(origin.last().headers["host"], "endpoint.test");
    assert_eq!(origin.requests(), 3);
    // A rewrite that leaves no path, and a route that is not for proxies, lead nowhere.
    assert_eq!(get(address, "/broken").await.status, 400);
    assert_eq!(get(address, "/control").await.status, 503);
    assert_eq!(origin.requests(), 3);
}

#[tokio::test]
async fn virtual_clusters_and_routes_count_their_requests() {
    let origin = Origin::http1("one").await;
    let exact =
        |name: &str, value: &str| json!({ "name": name, "string_match": { "exact": value } });
    let hosts = json!({ "name": "t", "virtual_hosts": [{
        "name": "api",
        "domains": ["*"],
        "virtual_clusters": [
            { "name": "writes", "headers": [exact(":method", "POST")] },
            { "name": "users", "headers": [
                { "name": ":path", "string_match": { "prefix": "/users" } },
                exact(":method", "GET"),
            ] },
        ],
        "routes": [
            with(route("/users", json!({ "cluster": "one" })), json!({ "stat_prefix": "people" })),
            route("/retried", json!({ "cluster": "one", "retry_policy": {
                "retry_on": "5xx", "retry_back_off": { "base_interval": "0.001s" },
            } })),
            route("/slow", json!({ "cluster": "one", "timeout": "0.1s" })),
            route("/nowhere", json!({ "cluster": "unknown" })),
            route("/", json!({ "cluster": "one" })),
        ],
    }] });
    let manager = hcm(json!({ "route_config": hosts }), json!({}));
    let cluster = static_cluster("one", &[origin.address]);
    let proxy = Proxy::with(bootstrap(&[listener_of("in", manager)], &[cluster])).await;
    let address = proxy.listener("in").await;
    for (method, path) in
        [("GET", "/users/1"), ("POST", "/users"), ("GET", "/"), ("GET", "/nowhere")]
    {
        request(address, method, path, &[], b"").await;
    }
    origin.script(Script::status(503));
    get(address, "/retried").await;
    origin.script(Script::held());
    get(address, "/slow").await;
    let stat = async |name: &str| proxy.stat(&format!("vhost.api.{name}")).await;
    assert_eq!(stat("vcluster.users.upstream_rq_total").await, 1);
    assert_eq!(stat("vcluster.users.upstream_rq_2xx").await, 1);
    assert_eq!(stat("vcluster.writes.upstream_rq_2xx").await, 1);
    assert_eq!(stat("vcluster.other.upstream_rq_total").await, 3, "an unknown cluster is none");
    assert_eq!(stat("vcluster.other.upstream_rq_5xx").await, 2);
    assert_eq!(stat("vcluster.other.upstream_rq_retry").await, 1);
    assert_eq!(stat("vcluster.other.upstream_rq_retry_limit_exceeded").await, 1);
    assert_eq!(stat("vcluster.other.upstream_rq_timeout").await, 1);
    assert_eq!(stat("route.people.upstream_rq_completed").await, 2);
    let text = proxy.admin_text("/stats/prometheus").await;
    let sample = "envoy_vhost_vcluster_upstream_rq_total\
                  {envoy_virtual_host=\"api\",envoy_virtual_cluster=\"users\"} 1\n";
    assert!(text.contains(sample), "{text}");
    let timed = "envoy_vhost_vcluster_upstream_rq_time_count\
                 {envoy_virtual_host=\"api\",envoy_virtual_cluster=\"other\"} 3\n";
    assert!(text.contains(timed), "{text}");
}

#[tokio::test]
async fn a_header_brings_the_number_that_a_cluster_is_drawn_by() {
    let (one, two) = (Origin::http1("one").await, Origin::http1("two").await);
    let weighted = json!({ "weighted_clusters": {
        "header_name": "x-number",
        "clusters": [{ "name": "one", "weight": 20 }, { "name": "two", "weight": 80 }],
    } });
    let clusters = [static_cluster("one", &[one.address]), static_cluster("two", &[two.address])];
    let routes = json!({ "route_config": table("t", &[route("/", weighted)]) });
    let listeners = [listener_of("in", hcm(routes, json!({})))];
    let proxy = Proxy::with(bootstrap(&listeners, &clusters)).await;
    let address = proxy.listener("in").await;
    for (number, expected) in [("0", "one"), ("19", "one"), ("20", "two"), ("119", "one")] {
        let answer = request(address, "GET", "/", &[("x-number", number)], b"").await;
        assert_eq!(answer.text(), expected, "{number}");
    }
}
