//! Redirects of upstreams that the proxy follows itself, and those that it passes on.

use serde_json::{Value, json};

use crate::harness::resources::{
    bootstrap, filter, hcm, listener, listener_of, route, router, static_cluster, table, typed,
    with,
};
use crate::harness::{Http1, Origin, Proxy, Script, get, request};

/// A route of this prefix to a cluster whose redirects are followed.
fn following(prefix: &str, cluster: &str, policy: Value) -> Value {
    let named = json!({ "name": format!("route {prefix}") });
    with(route(prefix, json!({ "cluster": cluster, "internal_redirect_policy": policy })), named)
}

fn to(location: &str) -> Script {
    Script::status(302).header("location", location)
}

/// A redirecting origin `one`, and `two`, at whose end of the routes no redirect is followed.
async fn in_front_of(one: &Origin, two: &Origin, routes: &[Value]) -> Proxy {
    let clusters = [static_cluster("one", &[one.address]), static_cluster("two", &[two.address])];
    Proxy::with(bootstrap(&[listener("in", routes)], &clusters)).await
}

async fn origins() -> (Origin, Origin) {
    (Origin::http1("one").await, Origin::http1("two").await)
}

fn end() -> Value {
    with(route("/end", json!({ "cluster": "two" })), json!({ "name": "end" }))
}

#[tokio::test]
async fn a_redirect_is_followed_with_headers_and_body() {
    let (one, two) = origins().await;
    one.script(Script::status(307).header("location", "http://other.test/end?x=1#part"));
    let codes =
        json!({ "redirect_response_codes": [302, 307], "response_headers_to_copy": ["x-back"] });
    let proxy = in_front_of(&one, &two, &[following("/start", "one", codes), end()]).await;
    let address = proxy.listener("in").await;
    two.script(Script::echo());
    let body = vec![b'x'; 100_000];
    let headers = [("x-own", "1"), ("x-back", "client's")];
    let answer = request(address, "POST", "/start?y", &headers, &body).await;
    assert_eq!(answer.status, 200);
    assert!(answer.body == body, "the body changed on its way");
    let head = two.last();
    assert_eq!((head.method.as_str(), head.uri.to_string()), ("POST", "/end?x=1".to_owned()));
    assert_eq!(head.headers["host"], "other.test");
    assert_eq!(head.headers["x-own"], "1");
    assert_eq!(head.headers["x-envoy-original-url"], "http://test/start?y");
    assert!(!head.headers.contains_key("x-back"), "the answer did not have it");
    one.script(to("http://other.test/end").header("x-back", "a").header("x-back", "b"));
    get(address, "/start").await;
    let copied: Vec<_> = two.last().headers.get_all("x-back").iter().cloned().collect();
    assert_eq!(copied, ["a", "b"]);
    assert_eq!(proxy.stat("cluster.one.upstream_internal_redirect_succeeded_total").await, 2);
    assert_eq!(proxy.stat("http.in.downstream_rq_total").await, 2);
    assert_eq!(proxy.stat("http.in.downstream_rq_3xx").await, 0);
}

#[tokio::test]
async fn see_other_becomes_a_get_without_a_body() {
    let (one, two) = origins().await;
    one.script(Script::status(303).header("location", "http://test/end"));
    let policy = json!({ "redirect_response_codes": [303] });
    let proxy = in_front_of(&one, &two, &[following("/start", "one", policy), end()]).await;
    let answer = request(proxy.listener("in").await, "PUT", "/start", &[], b"body").await;
    assert_eq!((answer.status, &*answer.text()), (200, "two"));
    assert_eq!((two.last().method.as_str(), two.received()), ("GET", 0));
}

#[tokio::test]
async fn a_loop_ends_where_the_policy_says() {
    let (one, two) = origins().await;
    one.script(to("http://test/loop"));
    let most = json!({ "max_internal_redirects": 3 });
    let proxy = in_front_of(&one, &two, &[following("/loop", "one", most)]).await;
    let answer = get(proxy.listener("in").await, "/loop").await;
    assert_eq!((answer.status, answer.header("location")), (302, "http://test/loop"));
    assert_eq!(one.requests(), 4);
    let count = "http.in.passthrough_internal_redirect_too_many_redirects";
    assert_eq!(proxy.stat(count).await, 1);
    assert_eq!(proxy.stat("cluster.one.upstream_internal_redirect_failed_total").await, 1);
    assert_eq!(proxy.stat("cluster.one.upstream_internal_redirect_succeeded_total").await, 3);
}

#[tokio::test]
async fn what_cannot_be_followed_goes_to_the_client() {
    let (one, two) = origins().await;
    let predicate = |kind: &str, config: Value| {
        let kind = format!("envoy.extensions.internal_redirect.{kind}");
        json!({ "name": "p", "typed_config": typed(&kind, config) })
    };
    let only_end = predicate(
        "allow_listed_routes.v3.AllowListedRoutesConfig",
        json!({ "allowed_route_names": ["end"] }),
    );
    let safe = predicate("safe_cross_scheme.v3.SafeCrossSchemeConfig", json!({}));
    let once = predicate("previous_routes.v3.PreviousRoutesConfig", json!({}));
    let routes = [
        following("/plain", "one", json!({})),
        following("/listed", "one", json!({ "predicates": [only_end] })),
        following(
            "/safe",
            "one",
            json!({ "allow_cross_scheme_redirect": true, "predicates": [safe] }),
        ),
        following("/once", "one", json!({ "max_internal_redirects": 9, "predicates": [once] })),
        end(),
    ];
    let proxy = in_front_of(&one, &two, &routes).await;
    let address = proxy.listener("in").await;
    let cases = [
        ("/plain", "/end", "bad_location", 1),
        ("/plain", "ftp://test/end", "bad_location", 2),
        ("/plain", "https://test/end", "unsafe_scheme", 1),
        ("/plain", "http://test/nowhere", "no_route", 1),
        ("/listed", "http://test/plain", "predicate", 1),
        ("/safe", "https://test/end", "predicate", 2),
        ("/once", "http://test/once", "predicate", 3),
    ];
    for (path, location, why, count) in cases {
        one.script(to(location));
        let answer = get(address, path).await;
        assert_eq!((answer.status, answer.header("location")), (302, location), "{path}");
        let stat = format!("http.in.passthrough_internal_redirect_{why}");
        assert_eq!(proxy.stat(&stat).await, count, "{path} {location}");
    }
    assert_eq!(two.requests(), 0);
    one.script(to("http://test/end"));
    for path in ["/plain", "/listed", "/safe", "/once"] {
        assert_eq!(get(address, path).await.text(), "two", "{path}");
    }
    // Another code, or no place at all, is nobody's failure but the origin's.
    let failed = proxy.stat("cluster.one.upstream_internal_redirect_failed_total").await;
    one.script(Script::status(301).header("location", "http://test/end"));
    assert_eq!(get(address, "/plain").await.status, 301);
    assert_eq!(proxy.stat("cluster.one.upstream_internal_redirect_failed_total").await, failed);
}

#[tokio::test]
async fn a_body_that_was_not_kept_is_not_sent_again() {
    let (one, two) = origins().await;
    one.script(to("http://test/end"));
    let limited =
        with(following("/start", "one", json!({})), json!({ "request_body_buffer_limit": 1000 }));
    let proxy = in_front_of(&one, &two, &[limited, end()]).await;
    let address = proxy.listener("in").await;
    assert_eq!(request(address, "POST", "/start", &[], &[b'x'; 1001]).await.status, 302);
    assert_eq!(proxy.stat("cluster.one.retry_or_shadow_abandoned").await, 1);
    assert_eq!(two.requests(), 0);
    assert_eq!(request(address, "POST", "/start", &[], &[b'x'; 1000]).await.status, 200);
    assert_eq!((two.requests(), two.received()), (1, 1000));
    // An answer before the request is whole goes to the client too.
    one.script(Script { early: true, ..to("http://test/end") });
    let mut client = Http1::connect(address).await;
    client.send("POST /start HTTP/1.1\r\nhost: test\r\ncontent-length: 10\r\n\r\nhalf!").await;
    assert_eq!(client.answer().await.status, 302);
    assert_eq!(proxy.stat("cluster.one.upstream_internal_redirect_failed_total").await, 2);
}

#[tokio::test]
async fn the_request_passes_every_filter_again_and_the_redirect_none() {
    let (one, two) = origins().await;
    one.script(to("http://test/end"));
    let add = json!({ "append": {
        "header": { "key": "x-mark", "value": "1" },
        "append_action": "APPEND_IF_EXISTS_OR_ADD",
    } });
    let mark = filter(
        "mark",
        "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
        json!({ "mutations": { "request_mutations": [add], "response_mutations": [add] } }),
    );
    let routes =
        json!({ "route_config": table("t", &[following("/start", "one", json!({})), end()]) });
    let manager = hcm(routes, json!({ "http_filters": [mark, router()] }));
    let clusters = [static_cluster("one", &[one.address]), static_cluster("two", &[two.address])];
    let proxy = Proxy::with(bootstrap(&[listener_of("in", manager)], &clusters)).await;
    let answer = get(proxy.listener("in").await, "/start").await;
    assert_eq!(answer.text(), "two");
    assert_eq!(two.last().headers.get_all("x-mark").iter().count(), 2);
    assert_eq!(answer.headers.get_all("x-mark").iter().count(), 1);
}

#[tokio::test]
async fn retries_come_before_redirects() {
    let (one, two) = origins().await;
    one.script(to("http://test/end"));
    let retrying = route(
        "/start",
        json!({
            "cluster": "one",
            "internal_redirect_policy": {},
            "retry_policy": {
                "retry_on": "retriable-status-codes",
                "retriable_status_codes": [302],
                "retry_back_off": { "base_interval": "0.001s" },
            },
        }),
    );
    let proxy = in_front_of(&one, &two, &[retrying, end()]).await;
    assert_eq!(get(proxy.listener("in").await, "/start").await.text(), "two");
    assert_eq!((one.requests(), two.requests()), (2, 1));
}
