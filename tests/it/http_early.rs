//! What the connection manager changes of a request before its route is looked for.

use serde_json::{Value, json};

use crate::harness::resources::{
    bootstrap, hcm, listener_of, over_http2, route, static_cluster, table, to, typed, with,
};
use crate::harness::{Http1, Origin, Proxy, get, request, run};

/// A proxy with these options of its connection manager; `/two` goes over HTTP/2.
async fn proxy_of(one: &Origin, two: &Origin, options: Value) -> Proxy {
    let here = json!({ "match": { "prefix": "/here" }, "redirect": { "path_redirect": "/there" } });
    let by_header = json!({
        "match": { "prefix": "/", "headers": [{ "name": "x-to", "string_match": { "exact": "two" } }] },
        "route": { "cluster": "two" },
    });
    let routes = [here, by_header, route("/two", json!({ "cluster": "two" })), to("one")];
    let manager = hcm(json!({ "route_config": table("local", &routes) }), options);
    let clusters =
        [static_cluster("one", &[one.address]), over_http2(static_cluster("two", &[two.address]))];
    Proxy::with(bootstrap(&[listener_of("in", manager)], &clusters)).await
}

fn early(mutations: &Value) -> Value {
    let kind = "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation";
    let config = typed(kind, json!({ "mutations": mutations }));
    json!({ "early_header_mutation_extensions": [{ "name": "early", "typed_config": config }] })
}

fn append(key: &str, value: &str) -> Value {
    json!({ "append": { "header": { "key": key, "value": value }, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD" } })
}

#[tokio::test]
async fn routes_see_what_early_mutations_made() {
    let (one, two) = (Origin::http1("one").await, Origin::http2("two").await);
    let mutations = json!([
        { "remove": "x-gone" },
        append("x-to", "%REQ(x-from)%"),
        append("x-path", "%REQ(:path)% of %REQ(:authority)%"),
        append("x-chain", "%REQ(x-forwarded-for)%"),
        append("x-id", "%REQ(x-request-id)%"),
        append("x-envoy-max-retries", "3"),
    ]);
    let options =
        json!({ "normalize_path": true, "strip_any_host_port": true, "use_remote_address": true });
    let proxy = proxy_of(&one, &two, with(early(&mutations), options)).await;
    let address = proxy.listener("in").await;
    let asked = [
        ("host", "a.test:80"),
        ("x-from", "two"),
        ("x-gone", "1"),
        ("x-gone", "2"),
        ("x-forwarded-for", "9.9.9.9"),
        ("x-request-id", "mine"),
    ];
    assert_eq!(request(address, "GET", "/a/../b", &asked, b"").await.text(), "two");
    let seen = two.last().headers;
    // The path and the authority have their last form; what is said of the client does not stand yet.
    assert_eq!(seen["x-path"], "/b of a.test");
    assert_eq!([&seen["x-chain"], &seen["x-forwarded-for"]], ["9.9.9.9", "9.9.9.9,127.0.0.1"]);
    assert_eq!(seen["x-id"], "mine");
    assert_ne!(seen["x-request-id"], "mine");
    assert!(!seen.contains_key("x-gone") && !seen.contains_key("x-envoy-max-retries"));
    // A value that turns out empty is no header.
    assert_eq!(get(address, "/").await.text(), "one");
    assert!(!one.last().headers.contains_key("x-to"));
}

#[tokio::test]
async fn the_scheme_is_the_clients_or_the_one_given() {
    let (one, two) = (Origin::http1("one").await, Origin::http2("two").await);
    let https = json!({ "scheme_header_transformation": { "scheme_to_overwrite": "https" } });
    let own = json!({ "scheme_header_transformation": { "match_upstream": true } });
    for (options, said, expected) in [
        (json!({}), "http", ["http", "http", "http"]),
        (json!({}), "https", ["https", "https", "https"]),
        (https.clone(), "http", ["https", "https", "https"]),
        (with(https, json!({ "use_remote_address": true })), "http", ["https", "https", "https"]),
        (own, "https", ["https", "http", "https"]),
        (json!({ "use_remote_address": true }), "https", ["http", "http", "http"]),
    ] {
        let proxy = proxy_of(&one, &two, options).await;
        let address = proxy.listener("in").await;
        let asked = [("x-forwarded-proto", said)];
        request(address, "GET", "/two", &asked, b"").await;
        let seen = two.last();
        let redirect = request(address, "GET", "/here", &asked, b"").await;
        let (redirected, _) = redirect.header("location").split_once(':').unwrap();
        let proto = seen.headers["x-forwarded-proto"].to_str().unwrap();
        assert_eq!([proto, seen.uri.scheme_str().unwrap(), redirected], expected);
    }
}

#[tokio::test]
async fn a_port_and_certificates_are_for_the_edge_to_say() {
    let (one, two) = (Origin::http1("one").await, Origin::http2("two").await);
    let asked = [("x-forwarded-port", "1"), ("x-forwarded-client-cert", "Hash=1")];
    for (options, port, cert) in [
        (json!({}), Some("1"), None),
        (json!({ "append_x_forwarded_port": true }), Some("1"), None),
        (json!({ "append_x_forwarded_port": true, "use_remote_address": true }), None, None),
        (
            json!({ "append_x_forwarded_port": true, "use_remote_address": true, "xff_num_trusted_hops": 1 }),
            Some("1"),
            None,
        ),
        (json!({ "forward_client_cert_details": "SANITIZE_SET" }), Some("1"), None),
        (
            json!({ "forward_client_cert_details": "ALWAYS_FORWARD_ONLY" }),
            Some("1"),
            Some("Hash=1"),
        ),
    ] {
        let proxy = proxy_of(&one, &two, options.clone()).await;
        let address = proxy.listener("in").await;
        request(address, "GET", "/", &asked, b"").await;
        let seen = one.last().headers;
        let own = address.port().to_string();
        assert_eq!(seen["x-forwarded-port"], port.unwrap_or(&own), "{options}");
        let said = seen.get("x-forwarded-client-cert").map(|value| value.to_str().unwrap());
        assert_eq!(said, cert, "{options}");
        get(address, "/").await;
        let adds = options["append_x_forwarded_port"] == true;
        assert_eq!(one.last().headers.contains_key("x-forwarded-port"), adds, "{options}");
    }
}

#[tokio::test]
async fn an_old_request_is_for_the_default_host_and_whole_urls_may_be_unknown() {
    let (one, two) = (Origin::http1("one").await, Origin::http2("two").await);
    let http1 = json!({ "accept_http_10": true, "default_host_for_http_10": "old.test", "allow_absolute_url": false });
    let proxy = proxy_of(&one, &two, json!({ "http_protocol_options": http1 })).await;
    let address = proxy.listener("in").await;
    for (asked, status, host) in [
        ("GET / HTTP/1.0\r\n\r\n", 200, "old.test"),
        ("GET / HTTP/1.0\r\nhost: own.test\r\n\r\n", 200, "own.test"),
        ("GET / HTTP/1.1\r\n\r\n", 400, ""),
        ("GET http://own.test/ HTTP/1.1\r\nhost: own.test\r\n\r\n", 404, ""),
    ] {
        let before = one.requests();
        let mut client = Http1::connect(address).await;
        client.send(asked).await;
        assert_eq!(client.answer().await.status, status, "{asked}");
        match status {
            200 => assert_eq!(one.last().headers["host"], host),
            _ => assert_eq!(one.requests(), before, "{asked}"),
        }
    }
    let proxy = proxy_of(&one, &two, json!({})).await;
    let mut client = Http1::connect(proxy.listener("in").await).await;
    client.send("GET http://own.test/x HTTP/1.1\r\nhost: other.test\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(
        (one.last().uri.path(), &one.last().headers["host"]),
        ("/x", &"own.test".parse().unwrap())
    );
}

#[tokio::test]
async fn what_cannot_be_done_early_is_refused_by_name() {
    let at = "early_header_mutation_extensions[0].typed_config";
    for (options, expected) in [
        (early(&json!([])), format!("{at}.mutations: is required")),
        (early(&json!([append(":path", "/x")])), format!("{at}.mutations[0].append.header.key: ")),
        (early(&json!([{ "remove": "host" }])), format!("{at}.mutations[0].remove: ")),
        (
            json!({ "early_header_mutation_extensions": [{ "name": "x", "typed_config":
                typed("envoy.extensions.filters.http.buffer.v3.Buffer", json!({})) }] }),
            format!("{at}: "),
        ),
        (
            json!({ "scheme_header_transformation": { "scheme_to_overwrite": "ftp" } }),
            "scheme_header_transformation.scheme_to_overwrite: \"ftp\" is not http or https".into(),
        ),
        (
            json!({ "http_protocol_options": { "default_host_for_http_10": "a\n" } }),
            "http_protocol_options.default_host_for_http_10: ".into(),
        ),
    ] {
        let manager = hcm(json!({ "route_config": table("local", &[to("one")]) }), options);
        let clusters = [static_cluster("one", &[])];
        let config = bootstrap(&[listener_of("in", manager)], &clusters).to_string();
        let said = run(["--mode", "validate", "--config-yaml", &config]).await;
        assert_eq!(said.code, Some(1), "{expected}");
        assert!(
            said.all().contains(&expected),
            "{expected}
{}",
            said.all()
        );
    }
}
