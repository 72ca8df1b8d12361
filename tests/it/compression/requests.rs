//! Requests that are decoded for the origin, or encoded for it.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::codings::{ALL, decode, encode};
use super::{compression, filtered, lines, proxied};
use crate::harness::resources::{bootstrap, over_http2, static_cluster, table, to};
use crate::harness::{Origin, Proxy, Script, request};

/// The same as [`proxied`] with an origin that speaks HTTP/2.
pub(super) async fn proxied_over_http2(origin: &Origin, filter: Value) -> (Proxy, SocketAddr) {
    let routes = json!({ "route_config": table("local", &[to("one")]) });
    let cluster = over_http2(static_cluster("one", &[origin.address]));
    let proxy = Proxy::with(bootstrap(&[filtered(&[filter], routes)], &[cluster])).await;
    let address = proxy.listener("in").await;
    (proxy, address)
}

#[tokio::test]
async fn the_origin_gets_what_was_meant() {
    let origin = Origin::http1("one").await;
    let filter = compression(json!({ "request_decompression": {} }));
    let (proxy, address) = proxied(&origin, &[filter]).await;
    origin.script(Script::echo());
    for text in ["short".to_owned(), lines(30_000)] {
        for coding in ALL {
            let body = encode(coding, text.as_bytes());
            let headers = [
                ("content-encoding", coding),
                ("content-md5", "x"),
                ("content-type", "text/plain"),
            ];
            let echoed = request(address, "POST", "/", &headers, &body).await;
            assert!(echoed.status == 200 && echoed.text() == text, "{coding} {}", text.len());
            let received = origin.last().headers;
            for gone in ["content-encoding", "content-md5", "content-length"] {
                assert!(!received.contains_key(gone), "{coding} {gone}");
            }
            assert_eq!(received["content-type"], "text/plain");
        }
    }
    // One upon another, named in the order in which they were done.
    let text = lines(1_000);
    let twice = encode("zstd", &encode("gzip", text.as_bytes()));
    let headers = [("content-encoding", "x-gzip, identity"), ("content-encoding", "ZSTD")];
    assert!(request(address, "PUT", "/", &headers, &twice).await.text() == text);
    assert_eq!(proxy.stat("http.in.decompression.zstd.request.bodies").await, 3);
    assert_eq!(proxy.stat("http.in.decompression.gzip.request.active").await, 0);
}

#[tokio::test]
async fn what_is_not_to_be_decoded_passes_as_it_is() {
    let origin = Origin::http1("one").await;
    let filter = compression(json!({ "request_decompression": {} }));
    let (_proxy, address) = proxied(&origin, &[filter]).await;
    origin.script(Script::echo());
    let gzip = encode("gzip", b"text");
    for headers in [
        &[("content-encoding", "foo")][..],
        &[("content-encoding", "gzip, foo")],
        &[("content-encoding", "gzip, gzip, gzip, gzip")],
        &[("content-encoding", "gzip"), ("cache-control", "no-transform")],
        &[("content-encoding", "gzip"), ("content-type", "application/grpc")],
        &[("content-encoding", "identity")],
        &[],
    ] {
        let echoed = request(address, "POST", "/", headers, &gzip).await;
        assert!(echoed.status == 200 && echoed.body == gzip, "{headers:?}");
        let received = origin.last().headers;
        assert_eq!(received["content-length"], gzip.len().to_string());
        for (name, value) in headers {
            assert_eq!(received[*name], *value);
        }
    }
    // A head that says it without a body.
    let bare = request(address, "GET", "/", &[("content-encoding", "gzip")], b"").await;
    assert_eq!(bare.status, 200);
}

#[tokio::test]
async fn requests_are_encoded_for_an_origin_that_takes_it() {
    let origin = Origin::http1("one").await;
    for coding in ALL {
        let config = json!({
            "disable_response_compression": true,
            "request_compression": {
                "encoding": { "coding": coding }, "bodies": { "min_size": 100 },
            },
        });
        let (proxy, address) = proxied(&origin, &[compression(config)]).await;
        origin.script(Script::echo());
        let text = lines(20_000);
        let headers = [("content-type", "application/json"), ("accept-encoding", "gzip")];
        let echoed = request(address, "POST", "/", &headers, text.as_bytes()).await;
        assert_eq!(origin.last().headers["content-encoding"], coding);
        assert!(!origin.last().headers.contains_key("content-length"));
        assert!(decode(coding, &echoed.body).unwrap() == text.as_bytes());
        assert_eq!((echoed.header("content-encoding"), echoed.header("vary")), ("", ""));
        for (headers, body) in [
            (&[("content-type", "image/png")][..], text.as_bytes()),
            (&[("content-type", "text/css")], b"short"),
            (&[("content-type", "text/css"), ("content-encoding", "foo")], text.as_bytes()),
            (&[], text.as_bytes()),
        ] {
            let echoed = request(address, "POST", "/", headers, body).await;
            assert!(echoed.body == body, "{headers:?}");
        }
        let cell = |name: &str| format!("http.in.compression.request.skipped_{name}");
        for name in ["too_small", "encoded"] {
            assert_eq!(proxy.stat(&cell(name)).await, 1, "{name}");
        }
        assert_eq!(proxy.stat(&cell("content_type")).await, 2);
    }
}
