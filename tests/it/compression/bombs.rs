//! Small bodies that become large ones, and bodies that are broken: in both directions, of each coding.

use std::net::SocketAddr;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::json;

use super::codings::{ALL, encode};
use super::{compression, lines, page, proxied};
use crate::harness::{Answer, Ending, Http1, Http2, Origin, Script, request};

const LIMIT: u64 = 1_000_000;

/// Twenty times what may come of it.
fn bomb(coding: &str) -> Vec<u8> {
    encode(coding, &vec![0; 20 * usize::try_from(LIMIT).unwrap()])
}

fn cell(coding: &str, direction: &str, name: &str) -> String {
    format!("http.in.decompression.{coding}.{direction}.{name}")
}

/// Whether a client of HTTP/2 sees that its answer is not whole.
async fn breaks_over_http2(address: SocketAddr, accepts: &str) -> bool {
    let request = Request::get("http://test/").header("accept-encoding", accepts);
    let request = request.body(Full::new(Bytes::new()).boxed()).unwrap();
    let mut client = Http2::connect(address).await;
    let answer = client.open(request).await.expect("a head");
    answer.into_body().collect().await.is_err()
}

async fn post(address: SocketAddr, coding: &str, body: &[u8]) -> Answer {
    request(address, "POST", "/", &[("content-encoding", coding)], body).await
}

#[tokio::test]
async fn a_request_that_would_become_too_large_is_refused_and_never_whole_at_the_origin() {
    let by_size = json!({ "max_bytes": LIMIT, "max_ratio": 1_000_000 });
    let by_ratio = json!({ "max_bytes": 1_000 * LIMIT, "max_ratio": 20 });
    for limits in [by_size, by_ratio] {
        for http2 in [false, true] {
            let origin = match http2 {
                true => Origin::http2("one").await,
                false => Origin::http1("one").await,
            };
            let filter = compression(json!({ "request_decompression": limits }));
            let (proxy, address) = match http2 {
                true => super::requests::proxied_over_http2(&origin, filter).await,
                false => proxied(&origin, &[filter]).await,
            };
            for coding in ALL {
                let refused = post(address, coding, &bomb(coding)).await;
                assert_eq!(refused.status, 413, "{coding} {limits} {}", refused.text());
                proxy.until_stat(&cell(coding, "request", "too_large"), 1).await;
                proxy.until_stat(&cell(coding, "request", "active"), 0).await;
            }
            origin.until_active(0).await;
            assert!(origin.received() < 4 * 2 * LIMIT, "{}", origin.received());
            // What keeps to the limits passes.
            let text = lines(2_000);
            origin.script(Script::echo());
            let echoed = post(address, "gzip", &encode("gzip", text.as_bytes())).await;
            assert!(echoed.status == 200 && echoed.text() == text);
        }
    }
}

#[tokio::test]
async fn a_request_that_is_broken_is_refused_and_never_whole_at_the_origin() {
    let origin = Origin::http1("one").await;
    let filter = compression(json!({ "request_decompression": {} }));
    let (proxy, address) = proxied(&origin, &[filter]).await;
    for coding in ALL {
        let good = encode(coding, lines(20_000).as_bytes());
        let cut = &good[..good.len() - 5];
        let refused = post(address, coding, cut).await;
        assert_eq!(refused.status, 400, "{coding} {}", refused.text());
        proxy.until_stat(&cell(coding, "request", "truncated"), 1).await;
        let mut torn = good.clone();
        let middle = good.len() / 2;
        torn[middle..middle + 64].fill(0xff);
        for bad in [&torn[..], b"this was never encoded in anything at all"] {
            let refused = post(address, coding, bad).await;
            assert_eq!(refused.status, 400, "{coding} {}", refused.text());
        }
        proxy.until_stat(&cell(coding, "request", "active"), 0).await;
        let failed = proxy.stat(&cell(coding, "request", "truncated")).await
            + proxy.stat(&cell(coding, "request", "corrupt")).await;
        assert_eq!(failed, 3, "{coding}");
    }
    origin.until_active(0).await;
    assert_eq!(proxy.stat("http.in.downstream_rq_4xx").await, 3 * ALL.len() as u64);
}

#[tokio::test]
async fn a_request_that_goes_bad_while_it_is_answered_breaks_its_answer() {
    let origin = Origin::http1("one").await;
    let limits = json!({ "max_bytes": LIMIT, "max_ratio": 1_000_000 });
    let filter = compression(json!({ "request_decompression": limits }));
    let (proxy, address) = proxied(&origin, &[filter]).await;
    let answering = Script { early: true, held_after: Some(100), ..Script::size(1_000) };
    origin.script(answering);
    let bomb = bomb("gzip");
    let (first, rest) = bomb.split_at(200);
    let mut client = Http1::connect(address).await;
    let length = bomb.len();
    client
        .send(&format!(
            "POST / HTTP/1.1\r\nhost: test\r\ncontent-encoding: gzip\r\ncontent-length: {length}\r\n\r\n"
        ))
        .await;
    client.send_bytes(first).await;
    let (status, headers) = client.head().await.unwrap();
    assert_eq!(status, 200);
    // The proxy may close before all of it is taken.
    let _ = client.try_send(rest).await;
    assert!(client.body(&headers).await.is_none(), "the answer breaks off");
    proxy.until_stat(&cell("gzip", "request", "too_large"), 1).await;
    proxy.until_stat(&cell("gzip", "request", "active"), 0).await;
    origin.release();
    origin.until_active(0).await;
}

#[tokio::test]
async fn a_response_that_would_become_too_large_or_is_broken_breaks_off() {
    let origin = Origin::http1("one").await;
    let limits = json!({ "max_bytes": LIMIT, "max_ratio": 1_000_000 });
    let filter = compression(json!({ "response_decompression": limits }));
    let (proxy, address) = proxied(&origin, &[filter]).await;
    for coding in ALL {
        let good = encode(coding, lines(20_000).as_bytes());
        let cut = good[..good.len() - 5].to_vec();
        for (body, name) in [(bomb(coding), "too_large"), (cut, "truncated")] {
            let script = page("").header("content-encoding", coding);
            origin.script(Script { body: Some(body.into()), ..script });
            let mut client = Http1::connect(address).await;
            client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n").await;
            assert!(client.try_answer("GET").await.is_none(), "{coding} {name} ends well");
            assert!(breaks_over_http2(address, "identity").await, "{coding} {name} ends well");
            proxy.until_stat(&cell(coding, "response", name), 2).await;
        }
        proxy.until_stat(&cell(coding, "response", "active"), 0).await;
    }
    origin.until_active(0).await;
}

#[tokio::test]
async fn an_origin_that_dies_in_the_middle_leaves_a_broken_body_of_any_coding() {
    for coding in ALL {
        let origin = Origin::http1("one").await;
        let filter = compression(json!({ "encodings": [{ "coding": coding }] }));
        let (proxy, address) = proxied(&origin, &[filter]).await;
        for (after, sized) in [(100_000, true), (100_000, false), (2_000, true)] {
            let text = lines(if after > 10_000 { 50_000 } else { 1_000 });
            origin.script(Script { ending: Ending::After(after), sized, ..page(&text) });
            let mut client = Http1::connect(address).await;
            let request = "GET / HTTP/1.1\r\nhost: test\r\naccept-encoding: *\r\n\r\n";
            client.send(request).await;
            assert!(client.try_answer("GET").await.is_none(), "{coding} {after} ends well");
            assert!(breaks_over_http2(address, "*").await, "{coding} {after} ends well");
        }
        let cell = |name: &str| format!("http.in.compression.{coding}.response.{name}");
        proxy.until_stat(&cell("broken"), 6).await;
        proxy.until_stat(&cell("active"), 0).await;
    }
}
