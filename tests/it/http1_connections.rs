//! What an HTTP/1.1 connection is left in: by bodies that nobody wanted, by heads that come in crumbs, by
//! requests that break off; and the case of header names.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::resources::{
    bootstrap, hcm, listener, listener_of, static_cluster, table, to, typed,
};
use crate::harness::{Http1, Origin, Proxy};
use crate::http_faults::logged_lines;

/// A proxy that answers everything under `/no` itself.
async fn that_refuses(origin: &Origin) -> Proxy {
    let refuse = json!({ "match": { "prefix": "/no" }, "direct_response": { "status": 403 } });
    let cluster = static_cluster("one", &[origin.address]);
    Proxy::with(bootstrap(&[listener("in", &[refuse, to("one")])], &[cluster])).await
}

#[tokio::test]
async fn a_short_body_that_nobody_wants_does_not_cost_the_connection() {
    let origin = Origin::http1("one").await;
    let proxy = that_refuses(&origin).await;
    let mut client = Http1::connect(proxy.listener("in").await).await;
    // Its rest comes after the answer, in any framing.
    for (head, body) in [
        ("content-length: 20000", "x".repeat(20_000)),
        (
            "transfer-encoding: chunked",
            format!("{}0\r\n\r\n", format!("1000\r\n{}\r\n", "y".repeat(4096)).repeat(4)),
        ),
    ] {
        client.send(&format!("POST /no HTTP/1.1\r\nhost: t\r\n{head}\r\n\r\n")).await;
        assert_eq!(client.answer().await.status, 403);
        client.send(&body).await;
        assert_eq!(client.get("/next").await.text(), "one");
    }
    assert_eq!(proxy.stat("http.in.downstream_cx_total").await, 1);
    assert_eq!(origin.requests(), 2);
}

#[tokio::test]
async fn a_long_body_that_nobody_wants_ends_the_connection_after_the_answer() {
    let origin = Origin::http1("one").await;
    let proxy = that_refuses(&origin).await;
    let address = proxy.listener("in").await;
    let mut client = TcpStream::connect(address).await.unwrap();
    client
        .write_all(b"POST /no HTTP/1.1\r\nhost: t\r\ncontent-length: 100000000\r\n\r\n")
        .await
        .unwrap();
    let (mut read, mut write) = client.split();
    let piece = vec![b'x'; 64 * 1024];
    let send = async { while write.write_all(&piece).await.is_ok() {} };
    let mut answer = Vec::new();
    let receive = async {
        // The answer is whole, whatever becomes of the connection then.
        let _reset = read.read_to_end(&mut answer).await;
    };
    let both = async { tokio::join!(send, receive) };
    tokio::time::timeout(Duration::from_secs(20), both).await.expect("in time");
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert!(answer.contains("content-length: 0\r\n"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    proxy.until_stat("http.in.downstream_cx_active", 0).await;
    // Nothing of it was taken for a request.
    assert_eq!(proxy.stat("http.in.downstream_rq_total").await, 1);
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn a_head_may_come_in_crumbs_and_behind_another_request() {
    let origin = Origin::http1("one").await;
    let proxy = that_refuses(&origin).await;
    let mut client = Http1::connect(proxy.listener("in").await).await;
    let request = "GET /crumbs HTTP/1.1\r\nhost: t\r\nx-a: b\r\n\r\n";
    for crumb in [1, 2, 3, 7] {
        for piece in request.as_bytes().chunks(crumb) {
            client.send_bytes(piece).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(client.answer().await.text(), "one", "{crumb} bytes at once");
    }
    // The first half of the second comes with the first.
    for cut in [1, 5, 20, request.len() - 1] {
        client.send(&format!("{request}{}", &request[..cut])).await;
        assert_eq!(client.answer().await.text(), "one");
        client.send(&request[cut..]).await;
        assert_eq!(client.answer().await.text(), "one", "cut at {cut}");
    }
    assert_eq!(origin.requests(), 12);
}

#[tokio::test]
async fn a_body_that_breaks_the_protocol_is_answered_400_and_logged() {
    let origin = Origin::http1("one").await;
    let cluster = static_cluster("one", &[origin.address]);
    let log = json!({ "access_log": [{
        "name": "out",
        "typed_config": typed("envoy.extensions.access_loggers.stream.v3.StdoutAccessLog", json!({
            "log_format": { "text_format_source": {
                "inline_string": "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n",
            } },
        })),
    }] });
    let routes = json!({ "route_config": table("local", &[to("one")]) });
    let bootstrap = bootstrap(&[listener_of("in", hcm(routes, log))], &[cluster]);
    let proxy = Proxy::with(bootstrap).await;
    let address = proxy.listener("in").await;
    let chunked = "POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n";
    for broken in [format!("{chunked}zz\r\n"), "GET / HTTP/1.1\r\nbroken\r\n\r\n".to_owned()] {
        let mut client = Http1::connect(address).await;
        client.send(&broken).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.header("connection")), (400, "close"), "{broken}");
        assert!(client.try_get("/next").await.is_none(), "it ends");
    }
    proxy.until_stat("http.in.downstream_cx_protocol_error", 2).await;
    proxy.until_stat("http.in.downstream_rq_active", 0).await;
    assert_eq!(proxy.stat("http.in.downstream_rq_4xx").await, 2);
    let lines = logged_lines(&proxy, 2).await;
    assert_eq!(lines, ["400 DPE http1.codec_error", "400 DPE http1.codec_error"]);
}

/// One exchange with an upstream that takes down what it hears: what it heard, and what the client did.
async fn names_of(client: Value, upstream: Value) -> [String; 2] {
    let far = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut cluster = static_cluster("far", &[far.local_addr().unwrap()]);
    cluster["http_protocol_options"] = upstream;
    let routes = json!({ "route_config": table("local", &[to("far")]) });
    let options = json!({ "http_protocol_options": client });
    let proxy =
        Proxy::with(bootstrap(&[listener_of("in", hcm(routes, options))], &[cluster])).await;
    let mut client = TcpStream::connect(proxy.listener("in").await).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHoSt: t\r\nX-aSked: 1\r\n\r\n").await.unwrap();
    let (mut origin, _) = far.accept().await.unwrap();
    let heard = head(&mut origin).await;
    origin.write_all(b"HTTP/1.1 200 OK\r\nX-TOLD: 1\r\nContent-LENGTH: 0\r\n\r\n").await.unwrap();
    [heard, head(&mut client).await]
}

async fn head(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        let byte = tokio::time::timeout(Duration::from_secs(20), stream.read_u8()).await;
        text.push(byte.expect("in time").unwrap());
    }
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn names_of_headers_are_written_as_each_side_wants_them() {
    let format = |format: Value| json!({ "header_key_format": format });
    let preserve = |kind: &str| {
        let config = json!({ "formatter_type_on_envoy_headers": kind });
        let kind =
            "envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig";
        format(json!({
            "stateful_formatter": { "name": "preserve_case", "typed_config": typed(kind, config) },
        }))
    };
    let proper = || format(json!({ "proper_case_words": {} }));
    for (client, upstream, heard, told) in [
        (
            json!({}),
            json!({}),
            ["host", "x-asked", "x-request-id"],
            ["x-told", "content-length", "server"],
        ),
        (
            proper(),
            proper(),
            ["Host", "X-Asked", "X-Request-Id"],
            ["X-Told", "Content-Length", "Server"],
        ),
        // Each side keeps what it receives; the other one writes it so.
        (
            preserve("DEFAULT"),
            preserve("PROPER_CASE"),
            ["HoSt", "X-aSked", "X-Request-Id"],
            ["X-TOLD", "Content-LENGTH", "server"],
        ),
    ] {
        let [by_origin, by_client] = names_of(client.clone(), upstream).await;
        for name in heard {
            assert!(by_origin.contains(&format!("\n{name}: ")), "{client}: {name} in {by_origin}");
        }
        for name in told {
            assert!(by_client.contains(&format!("\n{name}: ")), "{client}: {name} in {by_client}");
        }
    }
}
