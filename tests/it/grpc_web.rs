//! Browsers call services of gRPC.

use bytes::Bytes;
use serde_json::json;

use crate::harness::resources::{
    bootstrap, filter, hcm, listener_of, over_http2, route, router, static_cluster, table, to, with,
};
use crate::harness::{Answer, Ending, Http1, Origin, Proxy, Script, request};

const KIND: &str = "application/grpc-web+proto";
const TEXT: &str = "application/grpc-web-text";
/// `abc` as a message, and its base64.
const MESSAGE: &[u8] = b"\0\0\0\0\x03abc";
const MESSAGE_TEXT: &[u8] = b"AAAAAANhYmM=";
/// The trailers `grpc-status:0` as a message, and its base64.
const TRAILERS: &[u8] = b"\x80\0\0\0\x0fgrpc-status:0\r\n";
const TRAILERS_TEXT: &[u8] = b"gAAAAA9ncnBjLXN0YXR1czowDQo=";

/// A proxy before a service of gRPC at `/s/`, one without bridge at `/raw/`, and a dead one at `/dead/`.
async fn bridged(service: &Origin) -> Proxy {
    let raw = with(
        route("/raw/", json!({ "cluster": "one" })),
        json!({ "typed_per_filter_config": { "web": {
            "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": true } } }),
    );
    let routes = table("local", &[raw, route("/dead/", json!({ "cluster": "dead" })), to("one")]);
    let web = filter("web", "envoy.extensions.filters.http.grpc_web.v3.GrpcWeb", json!({}));
    let options = json!({ "http_filters": [web, router()] });
    let manager = hcm(json!({ "route_config": routes }), options);
    let clusters =
        [over_http2(static_cluster("one", &[service.address])), static_cluster("dead", &[])];
    Proxy::with(bootstrap(&[listener_of("in", manager)], &clusters)).await
}

/// A call that succeeded.
fn answered(message: &[u8]) -> Script {
    let script = Script::default().chunked().header("content-type", "application/grpc");
    Script { body: Some(Bytes::copy_from_slice(message)), ..script.trailer("grpc-status", "0") }
}

async fn call(proxy: &Proxy, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    request(proxy.listener("in").await, "POST", path, headers, body).await
}

#[tokio::test]
async fn a_call_of_a_browser_is_one_of_grpc_and_comes_back_with_its_trailers_in_the_body() {
    let service = Origin::http2("one").await;
    let proxy = bridged(&service).await;
    service.script(answered(MESSAGE));
    let answer = call(&proxy, "/s/M", &[("content-type", KIND)], MESSAGE).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, KIND));
    assert_eq!(answer.body, [MESSAGE, TRAILERS].concat());
    assert!(!answer.headers.contains_key("content-length") && answer.trailers.is_empty());
    let seen = service.last().headers;
    assert_eq!(
        [&seen["content-type"], &seen["te"], &seen["grpc-accept-encoding"]],
        ["application/grpc", "trailers", "identity"]
    );
    assert_eq!(service.received(), MESSAGE.len() as u64);

    let headers = [("content-type", TEXT), ("accept", TEXT), ("grpc-accept-encoding", "gzip")];
    let answer = call(&proxy, "/s/M", &headers, MESSAGE_TEXT).await;
    assert_eq!(answer.header("content-type"), "application/grpc-web-text+proto");
    assert_eq!(answer.body, [MESSAGE_TEXT, TRAILERS_TEXT].concat());
    let seen = service.last().headers;
    assert_eq!(seen["grpc-accept-encoding"], "gzip");
    assert!(!seen.contains_key("content-length"), "it would be the text's");
    assert_eq!(service.received(), 2 * MESSAGE.len() as u64);
    // What the service says with nothing but a head is read there.
    let bare = Script { body: Some(Bytes::new()), ..answered(b"").header("grpc-status", "5") };
    service.script(Script { trailers: http::HeaderMap::new(), sized: true, ..bare });
    let answer = call(&proxy, "/s/M", &[("content-type", KIND)], MESSAGE).await;
    assert_eq!((answer.header("grpc-status"), answer.body.len()), ("5", 0));
}

#[tokio::test]
async fn base64_comes_in_pieces_that_may_be_padded() {
    let service = Origin::http2("one").await;
    let proxy = bridged(&service).await;
    service.script(Script::echo().header("content-type", "application/grpc+proto"));
    let mut client = Http1::connect(proxy.listener("in").await).await;
    client
        .send(&format!(
            "POST /s/M HTTP/1.1\r\nhost: a\r\ncontent-type: {TEXT}\r\ntransfer-encoding: chunked\r\n\r\n"
        ))
        .await;
    for piece in ["A", "AAAA", "ANh", "YmM=AA", "AAAAFk"] {
        client.send(&format!("{:x}\r\n{piece}\r\n", piece.len())).await;
    }
    client.send("0\r\n\r\n").await;
    let answer = client.answer_to("POST").await;
    assert_eq!((answer.status, &answer.body[..]), (200, &b"\0\0\0\0\x03abc\0\0\0\0\x01d"[..]));
}

#[tokio::test]
async fn a_message_is_told_before_the_next_one_is_there() {
    let service = Origin::http2("one").await;
    let proxy = bridged(&service).await;
    let two = answered(&MESSAGE.repeat(2));
    service.script(Script { held_after: Some(MESSAGE.len() as u64), ..two });
    let mut client = Http1::connect(proxy.listener("in").await).await;
    client
        .send(&format!(
            "POST /s/M HTTP/1.1\r\nhost: a\r\ncontent-type: {KIND}\r\naccept: {TEXT}\r\ncontent-length: 0\r\n\r\n"
        ))
        .await;
    let (status, _) = client.head().await.unwrap();
    assert_eq!(status, 200);
    until_message(&mut client).await;
    service.release();
    until_message(&mut client).await;
}

/// Reads as far as the end of a message, whatever the pieces that it comes in.
async fn until_message(client: &mut Http1) {
    let mut seen = Vec::new();
    while !seen.ends_with(MESSAGE_TEXT) {
        seen.extend_from_slice(&client.exactly(1).await.unwrap());
    }
}

#[tokio::test]
async fn what_is_no_answer_of_grpc_is_told_as_one() {
    let service = Origin::http2("one").await;
    let proxy = bridged(&service).await;
    let dead = call(&proxy, "/dead/M", &[("content-type", KIND)], MESSAGE).await;
    assert_eq!((dead.status, dead.header("content-type"), dead.body.len()), (503, KIND, 0));
    assert_eq!(
        [dead.header("grpc-status"), dead.header("grpc-message")],
        ["14", "no healthy upstream"]
    );
    service.script(Script {
        body: Some(Bytes::from("caf\u{e9}: 100%")),
        ..Script::status(404).chunked().header("content-type", "text/html")
    });
    let foreign = call(&proxy, "/s/M", &[("content-type", KIND)], MESSAGE).await;
    assert_eq!((foreign.status, foreign.body.len()), (404, 0));
    assert_eq!(
        [foreign.header("grpc-status"), foreign.header("grpc-message")],
        ["12", "caf%C3%A9: 100%25"]
    );
    // A page has no end: as much of it as fits is told, and nobody waits for the rest.
    service.script(Script { held_after: Some(40_000), ..Script::size(1 << 30) });
    let endless = call(&proxy, "/s/M", &[("content-type", KIND)], MESSAGE).await;
    assert_eq!(endless.header("grpc-status"), "2");
    assert_eq!(endless.header("grpc-message").len(), 16_384);
    // One that breaks off is not made to look whole.
    service.script(Script { ending: Ending::After(10), ..Script::size(100) });
    let mut client = Http1::connect(proxy.listener("in").await).await;
    let head = format!("POST /s/M HTTP/1.1\r\nhost: a\r\ncontent-type: {KIND}\r\n");
    client.send(&format!("{head}content-length: 0\r\n\r\n")).await;
    assert!(client.try_answer("POST").await.is_none());
}

#[tokio::test]
async fn a_call_that_is_not_in_base64_as_it_says_is_refused() {
    let service = Origin::http2("one").await;
    let proxy = bridged(&service).await;
    service.script(answered(MESSAGE));
    for bad in [&b"AAAA*AAA"[..], b"AAAAAAA", b"A=AA"] {
        let answer = call(&proxy, "/s/M", &[("content-type", TEXT)], bad).await;
        assert_eq!((answer.status, answer.header("grpc-status")), (400, "13"), "{bad:?}");
        assert_eq!(answer.header("content-type"), KIND);
    }
    assert_eq!(proxy.stat("http.in.downstream_rq_4xx").await, 3);
}

#[tokio::test]
async fn what_is_not_grpc_web_passes_unchanged() {
    let service = Origin::http2("one").await;
    let proxy = bridged(&service).await;
    service.script(Script::echo().header("content-type", "text/plain"));
    for (path, kind) in
        [("/s/M", "application/json"), ("/s/M", "application/grpc-webs"), ("/raw/M", TEXT)]
    {
        let answer = call(&proxy, path, &[("content-type", kind), ("accept", TEXT)], b"{*}").await;
        assert_eq!((answer.text().as_str(), answer.header("content-type")), ("{*}", "text/plain"));
        let seen = service.last().headers;
        assert_eq!(
            (&seen["content-type"], &seen["content-length"]),
            (&kind.parse().unwrap(), &"3".parse().unwrap())
        );
        assert!(!seen.contains_key("grpc-accept-encoding"), "{kind}");
    }
}
