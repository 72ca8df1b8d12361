//! What a request asks for is understood in one way by routes and origins, however it is written.

use serde_json::{Value, json};

use crate::harness::resources::{bootstrap, hcm, listener_of, route, static_cluster, table, to};
use crate::harness::{Http2, Origin, Proxy, get, request};

/// A proxy with a closed door at `/admin`.
async fn guarded(origin: &Origin, options: Value) -> Proxy {
    let closed = json!({ "match": { "prefix": "/admin" }, "direct_response": { "status": 403 } });
    let manager = hcm(json!({ "route_config": table("local", &[closed, to("one")]) }), options);
    let cluster = static_cluster("one", &[origin.address]);
    Proxy::with(bootstrap(&[listener_of("in", manager)], &[cluster])).await
}

#[tokio::test]
async fn no_spelling_of_a_path_goes_around_its_route() {
    let origin = Origin::http1("one").await;
    let options = json!({
        "normalize_path": true, "merge_slashes": true,
        "path_with_escaped_slashes_action": "UNESCAPE_AND_FORWARD",
    });
    let proxy = guarded(&origin, options).await;
    let address = proxy.listener("in").await;
    let mut http2 = Http2::connect(address).await;
    for path in [
        "/admin/x",
        "/x/../admin",
        "/%61dmin",
        "//admin",
        "/./admin",
        "/x/%2e%2E/admin",
        "/x%2f..%2Fadmin",
        "/x\\..\\admin",
        "/x%5c..%5Cadmin",
        "/..//./%2e/admin/../admin",
    ] {
        assert_eq!(get(address, path).await.status, 403, "{path}");
        assert_eq!(http2.get(path).await.status, 403, "{path}");
    }
    assert_eq!(origin.requests(), 0);
    for (path, sent) in [("/a/../b?c=/../%2f", "/b?c=/../%2f"), ("/%7Eb//", "/~b/"), ("/..", "/")] {
        assert_eq!(get(address, path).await.status, 200, "{path}");
        assert_eq!(origin.last().uri, sent);
    }
    assert_eq!(get(address, "/a%00").await.status, 400);
    assert_eq!(proxy.stat("http.in.downstream_rq_failed_path_normalization").await, 1);
}

#[tokio::test]
async fn escaped_slashes_are_refused_or_sent_back_as_configured() {
    let origin = Origin::http1("one").await;
    let proxy =
        guarded(&origin, json!({ "path_with_escaped_slashes_action": "REJECT_REQUEST" })).await;
    let address = proxy.listener("in").await;
    assert_eq!(get(address, "/a%2Fb").await.status, 400);
    assert_eq!(get(address, "/a?%2F").await.status, 200);
    let proxy =
        guarded(&origin, json!({ "path_with_escaped_slashes_action": "UNESCAPE_AND_REDIRECT" }))
            .await;
    let address = proxy.listener("in").await;
    let away = get(address, "/a%2Fb?c=%2F").await;
    assert_eq!((away.status, away.header("location")), (307, "/a/b?c=%2F"));
    assert_eq!(get(address, "/a/b").await.status, 200);
    assert_eq!(proxy.stat("http.in.downstream_rq_redirected_with_normalized_path").await, 1);
    // Without options a path is the client's business.
    let proxy = guarded(&origin, json!({})).await;
    assert_eq!(get(proxy.listener("in").await, "/x/..%2Fadmin").await.status, 200);
    assert_eq!(origin.last().uri, "/x/..%2Fadmin");
}

#[tokio::test]
async fn headers_with_underscores_pass_or_do_not() {
    let origin = Origin::http1("one").await;
    let asked = [("x_user", "root"), ("x-user", "me")];
    for (action, status, has) in
        [("ALLOW", 200, true), ("DROP_HEADER", 200, false), ("REJECT_REQUEST", 400, true)]
    {
        let common = json!({ "headers_with_underscores_action": action });
        let proxy = guarded(&origin, json!({ "common_http_protocol_options": common })).await;
        let address = proxy.listener("in").await;
        assert_eq!(request(address, "GET", "/", &asked, b"").await.status, status, "{action}");
        if status == 200 {
            let seen = origin.last().headers;
            assert_eq!((seen.contains_key("x_user"), &seen["x-user"] == "me"), (has, true));
        }
        let dropped = proxy.stat("http.in.dropped_headers_with_underscores").await;
        let refused = proxy.stat("http.in.requests_rejected_with_underscores_in_headers").await;
        let counted = [action == "DROP_HEADER", action == "REJECT_REQUEST"].map(u64::from);
        assert_eq!([dropped, refused], counted, "{action}");
    }
}

#[tokio::test]
async fn a_host_is_one_host_with_and_without_its_port() {
    let origin = Origin::http1("one").await;
    let cluster = static_cluster("one", &[origin.address]);
    let hosts = json!([{ "name": "a", "domains": ["a.test"], "routes": [route("/", json!({ "cluster": "one" }))] }]);
    let routes = json!({ "route_config": { "name": "local", "virtual_hosts": hosts } });
    let options = json!({ "strip_any_host_port": true, "strip_trailing_host_dot": true });
    let listener = listener_of("in", hcm(routes, options));
    let proxy = Proxy::with(bootstrap(&[listener], &[cluster])).await;
    let address = proxy.listener("in").await;
    for host in ["a.test", "a.test:80", "a.test.", "A.test.:9"] {
        assert_eq!(
            request(address, "GET", "/", &[("host", host)], b"").await.status,
            200,
            "{host}"
        );
        assert!(origin.last().headers["host"].to_str().unwrap().eq_ignore_ascii_case("a.test"));
    }
    assert_eq!(request(address, "GET", "/", &[("host", "b.test:80")], b"").await.status, 404);
}
