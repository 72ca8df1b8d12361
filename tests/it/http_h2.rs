//! HTTP/2 with prior knowledge, on either side.

use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::json;

use crate::harness::resources::{
    bootstrap, hcm, listener, listener_of, over_http2, static_cluster, table, to,
};
use crate::harness::{Ending, Http1, Http2, Origin, Proxy, Script, get, request};

/// An h1 and an h2 origin, and a listener of each codec in front of each.
async fn world() -> (Origin, Origin, Proxy) {
    let (h1, h2) = (Origin::http1("h1").await, Origin::http2("h2").await);
    let listener = |codec: &str, cluster: &str| {
        let routes = json!({ "route_config": table("local", &[to(cluster)]) });
        let name = format!("{codec}-{cluster}");
        let options = json!({
            "codec_type": codec,
            "stat_prefix": name,
            "http_protocol_options": { "enable_trailers": true },
        });
        listener_of(&name, hcm(routes, options))
    };
    let listeners: Vec<_> = ["AUTO", "HTTP1", "HTTP2"]
        .iter()
        .flat_map(|codec| [listener(codec, "h1"), listener(codec, "h2")])
        .collect();
    let clusters =
        [static_cluster("h1", &[h1.address]), over_http2(static_cluster("h2", &[h2.address]))];
    let proxy = Proxy::with(bootstrap(&listeners, &clusters)).await;
    (h1, h2, proxy)
}

#[tokio::test]
async fn every_pair_of_protocols_is_joined() {
    let (h1, h2, proxy) = world().await;
    for (cluster, origin) in [("h1", &h1), ("h2", &h2)] {
        for codec in ["AUTO", "HTTP1"] {
            let mut client =
                Http1::connect(proxy.listener(&format!("{codec}-{cluster}")).await).await;
            assert_eq!(client.get("/a").await.text(), cluster);
            assert_eq!(client.get("/b").await.text(), cluster);
        }
        for codec in ["AUTO", "HTTP2"] {
            let name = format!("{codec}-{cluster}");
            let mut client = Http2::connect(proxy.listener(&name).await).await;
            assert_eq!(client.get("/a").await.text(), cluster);
            let answer = client.get("/b?q").await;
            assert_eq!((answer.status, answer.text()), (200, cluster.to_owned()));
            assert_eq!(origin.last().uri.path(), "/b");
            assert_eq!(proxy.stat(&format!("http.{name}.downstream_cx_http2_total")).await, 1);
            assert_eq!(proxy.stat(&format!("http.{name}.downstream_rq_http2_total")).await, 2);
        }
    }
    assert!(h2.last().uri.authority().is_some_and(|a| a == "test"));
    assert_eq!(h1.last().headers["host"], "test");
    assert!(proxy.stat("cluster.h2.upstream_cx_http2_total").await >= 1);
    assert_eq!(proxy.stat("cluster.h2.upstream_rq_total").await, 8);
}

#[tokio::test]
async fn a_codec_refuses_the_other_protocol() {
    let (_h1, _h2, proxy) = world().await;
    let mut client = Http1::connect(proxy.listener("HTTP2-h1").await).await;
    client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
    let rest = client.rest().await;
    assert!(!rest.starts_with(b"HTTP/1.1 200"), "{rest:?}");
    let mut client = Http1::connect(proxy.listener("HTTP1-h1").await).await;
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    let rest = client.rest().await;
    assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 400"), "{rest:?}");
    assert_eq!(get(proxy.listener("AUTO-h1").await, "/").await.status, 200);
}

#[tokio::test]
async fn streams_share_a_connection_on_both_sides() {
    let (_h1, h2, proxy) = world().await;
    let client = Http2::connect(proxy.listener("AUTO-h2").await).await;
    h2.script(Script::held());
    let requests = (0..50).map(|n| {
        let mut client = client.clone();
        tokio::spawn(async move { client.get(&format!("/{n}")).await.status })
    });
    let requests: Vec<_> = requests.collect();
    h2.until_active(50).await;
    assert_eq!(proxy.stat("http.AUTO-h2.downstream_rq_active").await, 50);
    assert_eq!(proxy.stat("cluster.h2.upstream_rq_active").await, 50);
    assert_eq!(proxy.stat("cluster.h2.upstream_cx_active").await, 1);
    h2.release();
    assert!(join_all(requests).await.into_iter().all(|status| status.unwrap() == 200));
    proxy.until_stat("cluster.h2.upstream_rq_active", 0).await;
    assert_eq!(h2.connections(), 1);
}

#[tokio::test]
async fn bodies_and_trailers_pass_both_ways() {
    let (h1, h2, proxy) = world().await;
    h1.script(Script::echo());
    h2.script(Script::echo());
    for name in ["AUTO-h2", "AUTO-h1"] {
        let mut client = Http2::connect(proxy.listener(name).await).await;
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "1".parse().unwrap());
        let body = Full::new(Bytes::from(vec![b'z'; 200_000]))
            .with_trailers(async move { Some(Ok(trailers)) });
        let request = Request::post("http://test/").header("te", "trailers");
        let request = request.header("trailer", "x-sum").body(body.boxed()).unwrap();
        let answer = client.open(request).await.unwrap().into_body().collect().await.unwrap();
        let sum = answer.trailers().and_then(|t| t.get("x-sum")).cloned();
        assert_eq!(answer.to_bytes().len(), 200_000, "{name}");
        if name == "AUTO-h2" {
            assert_eq!(sum.unwrap(), "1");
        }
    }
    h2.script(Script::default().trailer("grpc-status", "0"));
    let mut client = Http2::connect(proxy.listener("AUTO-h2").await).await;
    assert_eq!(client.get("/").await.trailers["grpc-status"], "0");
    // HTTP/1.1 clients get them too.
    h2.script(Script::default().trailer("x-end", "yes"));
    let address = proxy.listener("AUTO-h2").await;
    let answer = request(address, "GET", "/", &[("te", "trailers")], b"").await;
    assert_eq!(answer.trailers["x-end"], "yes");
}

#[tokio::test]
async fn a_stream_that_the_origin_resets_is_answered_503() {
    let (_h1, h2, proxy) = world().await;
    let mut client = Http2::connect(proxy.listener("AUTO-h2").await).await;
    h2.script(Script::ending(Ending::BeforeHead));
    assert_eq!(client.get("/").await.status, 503);
    assert_eq!(proxy.stat("cluster.h2.upstream_rq_rx_reset").await, 1);
    // Only the stream died.
    h2.script(Script::default());
    assert_eq!(client.get("/").await.status, 200);
    assert_eq!(h2.connections(), 1);

    h2.script(Script::ending(Ending::After(1000)));
    let request = Request::get("http://test/").body(Full::default().boxed()).unwrap();
    // The reset may overtake the head at the client.
    if let Ok(response) = client.open(request).await {
        assert_eq!(response.status(), StatusCode::OK);
        assert!(response.into_body().collect().await.is_err(), "the end must not look whole");
    }
    h2.script(Script::default());
    assert_eq!(client.get("/").await.status, 200);
    proxy.until_stat("http.AUTO-h2.downstream_rq_active", 0).await;
}

#[tokio::test]
async fn a_stream_that_the_client_resets_is_cancelled_upstream() {
    let (h1, h2, proxy) = world().await;
    for (name, origin) in [("h1", &h1), ("h2", &h2)] {
        origin.script(Script::held());
        let listener = format!("AUTO-{name}");
        let client = Http2::connect(proxy.listener(&listener).await).await;
        let mut one = client.clone();
        let waiting = tokio::spawn(async move { one.get("/").await });
        origin.until_active(1).await;
        waiting.abort();
        origin.until_active(0).await;
        proxy.until_stat(&format!("cluster.{name}.upstream_rq_active"), 0).await;
        proxy.until_stat(&format!("http.{listener}.downstream_rq_active"), 0).await;
        proxy.until_stat(&format!("http.{listener}.downstream_rq_rx_reset"), 1).await;
        origin.script(Script::default());
        assert_eq!(client.clone().get("/").await.status, 200);
    }
}

#[tokio::test]
async fn frames_that_make_no_sense_end_their_connection_only() {
    let origin = Origin::http1("one").await;
    let cluster = static_cluster("one", &[origin.address]);
    let proxy = Proxy::with(bootstrap(&[listener("in", &[to("one")])], &[cluster])).await;
    let address = proxy.listener("in").await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let frames: [&[u8]; 4] = [
        &[0xff; 64],
        b"\0\0\x05\x04\0\0\0\0\0abcde",
        b"\0\0\x04\x01\x04\0\0\0\0\xff\xff\xff\xff",
        b"\0\x40\0\0\0\0\0\0\x01",
    ];
    for frame in frames {
        let mut client = Http1::connect(address).await;
        client.send_bytes(preface).await;
        let _ = client.try_send(frame).await;
        if frame.len() < 20 {
            client.finish().await;
        }
        client.rest().await;
    }
    let mut client = Http2::connect(address).await;
    assert_eq!(client.get("/").await.status, 200);
}
