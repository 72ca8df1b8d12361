//! Copies of requests for other clusters: they get what the upstream gets, and the client never knows.

use serde_json::{Value, json};

use crate::harness::resources::{
    bootstrap, hcm, listener, listener_of, over_http2, route, static_cluster, with,
};
use crate::harness::{Http1, Origin, Proxy, Script, eventually, get, request};

/// A route of everything to `main`, with these mirrors.
fn mirrored(mirrors: Value) -> Value {
    route("/", json!({ "cluster": "main", "request_mirror_policies": mirrors }))
}

async fn in_front_of(main: &Origin, copy: &Origin, route: Value) -> Proxy {
    let clusters =
        [static_cluster("main", &[main.address]), static_cluster("copy", &[copy.address])];
    Proxy::with(bootstrap(&[listener("in", &[route])], &clusters)).await
}

async fn until_requests(origin: &Origin, wanted: usize) {
    eventually(&format!("{wanted} requests came"), || {
        std::future::ready((origin.requests() == wanted).then_some(()))
    })
    .await;
}

async fn until_received(origin: &Origin, wanted: u64) {
    eventually(&format!("{wanted} bytes came"), || {
        std::future::ready((origin.received() == wanted).then_some(()))
    })
    .await;
}

#[tokio::test]
async fn a_copy_has_head_and_body_and_a_host_of_its_own() {
    let (main, copy) = (Origin::http1("main").await, Origin::http1("copy").await);
    let rewritten = with(
        mirrored(json!([{ "cluster": "copy" }])),
        json!({ "request_headers_to_add": [{ "header": { "key": "x-added", "value": "1" } }] }),
    );
    let proxy = in_front_of(&main, &copy, rewritten).await;
    let address = proxy.listener("in").await;
    let body = vec![b'x'; 300_000];
    let headers = [("host", "a.test:8080"), ("x-own", "2")];
    let answer = request(address, "POST", "/p?q", &headers, &body).await;
    assert_eq!((answer.status, &*answer.text()), (200, "main"));
    until_requests(&copy, 1).await;
    until_received(&copy, 300_000).await;
    let (theirs, head) = (main.last(), copy.last());
    assert_eq!((&head.method, &head.uri), (&theirs.method, &theirs.uri));
    for (name, value) in [("x-own", "2"), ("x-added", "1"), ("host", "a.test-shadow:8080")] {
        assert_eq!(head.headers[name], value, "{name}");
    }
    assert_eq!(theirs.headers["host"], "a.test:8080");
    assert_eq!(head.headers["x-envoy-internal"], "true");
    assert!(!theirs.headers.contains_key("x-envoy-internal"));
    proxy.until_stat("cluster.copy.upstream_rq_2xx", 1).await;
    assert_eq!(proxy.stat("http.in.downstream_rq_total").await, 1);
}

#[tokio::test]
async fn a_mirror_may_change_its_host_and_headers_and_take_a_share() {
    let (main, copy) = (Origin::http1("main").await, Origin::http1("copy").await);
    let share = |percent: u32| json!({ "default_value": { "numerator": percent } });
    let proxy = in_front_of(
        &main,
        &copy,
        mirrored(json!([
            { "cluster": "copy", "runtime_fraction": share(0) },
            { "cluster_header": "x-copy-to", "disable_shadow_host_suffix_append": true },
            {
                "cluster": "copy",
                "runtime_fraction": share(100),
                "host_rewrite_literal": "literal.test",
                "request_headers_mutations": [
                    { "remove": "x-own" },
                    { "append": { "header": { "key": "x-copy", "value": "%REQ(:path)%" } } },
                ],
            },
        ])),
    )
    .await;
    let address = proxy.listener("in").await;
    request(address, "GET", "/p", &[("x-own", "1"), ("x-copy-to", "copy")], b"").await;
    until_requests(&copy, 2).await;
    let mut heads = copy.heads();
    heads.sort_by_key(|head| head.headers.contains_key("x-copy"));
    assert_eq!(heads[0].headers["host"], "test");
    assert_eq!(heads[0].headers["x-own"], "1");
    assert_eq!(heads[1].headers["host"], "literal.test");
    assert_eq!(heads[1].headers["x-copy"], "/p");
    assert!(!heads[1].headers.contains_key("x-own"));
    assert_eq!(main.last().headers["x-own"], "1");
}

#[tokio::test]
async fn the_nearest_level_with_mirrors_counts() {
    let (main, copy) = (Origin::http1("main").await, Origin::http1("copy").await);
    let to = |cluster: &str| json!([{ "cluster": cluster }]);
    let table = json!({
        "name": "t",
        "request_mirror_policies": to("copy"),
        "virtual_hosts": [
            { "name": "a", "domains": ["a.test"], "routes": [route("/", json!({ "cluster": "main" }))] },
            {
                "name": "b",
                "domains": ["b.test"],
                "request_mirror_policies": to("nowhere"),
                "routes": [
                    route("/own", json!({
                        "cluster": "main", "request_mirror_policies": to("copy"),
                    })),
                    route("/", json!({ "cluster": "main" })),
                ],
            },
        ],
    });
    let manager = hcm(json!({ "route_config": table }), json!({}));
    let clusters =
        [static_cluster("main", &[main.address]), static_cluster("copy", &[copy.address])];
    let proxy = Proxy::with(bootstrap(&[listener_of("in", manager)], &clusters)).await;
    let address = proxy.listener("in").await;
    for (host, path, copies) in [("a.test", "/", 1), ("b.test", "/", 1), ("b.test", "/own", 2)] {
        assert_eq!(request(address, "GET", path, &[("host", host)], b"").await.status, 200);
        until_requests(&copy, copies).await;
    }
}

#[tokio::test]
async fn a_mirror_that_is_dead_slow_or_unknown_is_not_noticed() {
    let (main, slow) = (Origin::http1("main").await, Origin::http2("slow").await);
    let dead = {
        let origin = Origin::http1("dead").await;
        origin.address
    };
    slow.script(Script::held());
    let clusters = [
        static_cluster("main", &[main.address]),
        static_cluster("dead", &[dead]),
        over_http2(static_cluster("slow", &[slow.address])),
        static_cluster("empty", &[]),
    ];
    let mirrors = json!([
        { "cluster": "dead" },
        { "cluster": "slow" },
        { "cluster": "empty" },
        { "cluster": "unknown" },
        { "cluster_header": "x-missing" },
    ]);
    let route = route(
        "/",
        json!({
            "cluster": "main", "timeout": "0.3s", "request_mirror_policies": mirrors,
        }),
    );
    let proxy = Proxy::with(bootstrap(&[listener("in", &[route])], &clusters)).await;
    let address = proxy.listener("in").await;
    let answer = request(address, "POST", "/", &[], b"body").await;
    assert_eq!((answer.status, &*answer.text()), (200, "main"));
    slow.until_active(1).await;
    proxy.until_stat("cluster.dead.upstream_rq_5xx", 1).await;
    proxy.until_stat("cluster.empty.upstream_rq_5xx", 1).await;
    proxy.until_stat("cluster.slow.upstream_rq_timeout", 1).await;
    proxy.until_stat("cluster.slow.upstream_rq_active", 0).await;
    assert_eq!(proxy.stat("http.in.downstream_rq_5xx").await, 0);
}

#[tokio::test]
async fn a_mirror_that_does_not_read_holds_nothing_up() {
    let (main, copy) = (Origin::http1("main").await, Origin::http1("copy").await);
    copy.script(Script::held());
    let manager = hcm(
        json!({ "route_config": { "name": "t", "virtual_hosts": [{
            "name": "all",
            "domains": ["*"],
            "request_body_buffer_limit": 1000,
            "routes": [mirrored(json!([{ "cluster": "copy" }]))],
        }] } }),
        json!({}),
    );
    let clusters =
        [static_cluster("main", &[main.address]), static_cluster("copy", &[copy.address])];
    let proxy = Proxy::with(bootstrap(&[listener_of("in", manager)], &clusters)).await;
    let address = proxy.listener("in").await;
    let body = vec![b'x'; 30_000_000];
    assert_eq!(request(address, "POST", "/", &[], &body).await.status, 200);
    assert_eq!(main.received(), 30_000_000);
    // What it was not given in time it does not get.
    proxy.until_stat("cluster.copy.upstream_rq_active", 0).await;
    copy.release();
    assert!(copy.received() < 30_000_000);
}

#[tokio::test]
async fn a_client_that_leaves_takes_the_copy_along() {
    let (main, copy) = (Origin::http1("main").await, Origin::http1("copy").await);
    let proxy = in_front_of(&main, &copy, mirrored(json!([{ "cluster": "copy" }]))).await;
    let mut client = Http1::connect(proxy.listener("in").await).await;
    client.send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 10\r\n\r\nhalf!").await;
    main.until_active(1).await;
    copy.until_active(1).await;
    drop(client);
    main.until_active(0).await;
    copy.until_active(0).await;
    proxy.until_stat("cluster.copy.upstream_rq_active", 0).await;
    get(proxy.listener("in").await, "/").await;
    until_requests(&copy, 2).await;
}
