//! HTTP/1.1 from client to origin and back.

use crate::harness::resources::{bootstrap, hcm, listener, listener_of, static_cluster, table, to};
use crate::harness::{Ending, Http1, Origin, Proxy, ProxyBuilder, Script, get, request};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A proxy of everything to one origin.
pub(crate) async fn in_front_of(origin: &Origin) -> Proxy {
    let cluster = static_cluster("one", &[origin.address]);
    Proxy::with(bootstrap(&[listener("in", &[to("one")])], &[cluster])).await
}

#[tokio::test]
async fn a_connection_carries_many_requests_and_so_does_one_to_the_origin() {
    let origin = Origin::http1("one").await;
    let proxy = in_front_of(&origin).await;
    let mut client = Http1::connect(proxy.listener("in").await).await;
    for _ in 0..10 {
        let answer = client.get("/path?query").await;
        assert_eq!((answer.status, answer.text()), (200, "one".to_owned()));
        assert_eq!(answer.header("server"), "nuncio");
        assert!(!answer.header("x-envoy-upstream-service-time").is_empty());
    }
    let seen = origin.last();
    assert_eq!(seen.uri, "/path?query");
    assert_eq!(seen.headers["host"], "test");
    assert_eq!(seen.headers["x-forwarded-proto"], "http");
    assert!(seen.headers.contains_key("x-request-id"));
    assert_eq!(origin.connections(), 1);
    proxy.until_stat("http.in.downstream_rq_2xx", 10).await;
    proxy.until_stat("http.in.downstream_rq_active", 0).await;
    assert_eq!(proxy.stat("http.in.downstream_cx_total").await, 1);
    assert_eq!(proxy.stat("http.in.downstream_cx_http1_total").await, 1);
    assert_eq!(proxy.stat("cluster.one.upstream_cx_total").await, 1);
    assert_eq!(proxy.stat("cluster.one.upstream_rq_2xx").await, 10);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::http1("one").await;
    origin.script(Script::echo());
    let proxy = in_front_of(&origin).await;
    let mut client = Http1::connect(proxy.listener("in").await).await;
    let mut all = String::new();
    for n in 0..5 {
        all.push_str(&format!("POST /{n} HTTP/1.1\r\nhost: t\r\ncontent-length: 1\r\n\r\n{n}"));
    }
    client.send(&all).await;
    for n in 0..5 {
        assert_eq!(client.answer().await.text(), n.to_string());
    }
    proxy.until_stat("http.in.downstream_rq_total", 5).await;
    assert_eq!(proxy.stat("http.in.downstream_cx_total").await, 1);
}

#[tokio::test]
async fn bodies_pass_both_ways_with_a_length_and_in_chunks() {
    let origin = Origin::http1("one").await;
    origin.script(Script::echo());
    let proxy = in_front_of(&origin).await;
    let address = proxy.listener("in").await;
    let body = vec![b'b'; 300_000];
    let answer = request(address, "POST", "/", &[], &body).await;
    assert_eq!((answer.status, answer.body.len()), (200, body.len()));
    assert_eq!(origin.last().headers["content-length"], "300000");

    let mut client = Http1::connect(address).await;
    client.send("POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n").await;
    client.send("5\r\nhello\r\n6;extension=1\r\n world\r\n0\r\n\r\n").await;
    assert_eq!(client.answer().await.text(), "hello world");
    assert_eq!(origin.last().headers["transfer-encoding"], "chunked");

    origin.script(Script::size(200_000).chunked());
    assert_eq!(client.get("/").await.body.len(), 200_000);
    proxy.until_stat("http.in.downstream_rq_2xx", 3).await;
}

/// A listener and its cluster with `http_protocol_options` of each.
async fn with_options(origin: &Origin, client: Value, upstream: Value) -> Proxy {
    let options = json!({ "http_protocol_options": client });
    let routes = json!({ "route_config": table("local", &[to("one")]) });
    let mut cluster = static_cluster("one", &[origin.address]);
    cluster["http_protocol_options"] = upstream;
    Proxy::with(bootstrap(&[listener_of("in", hcm(routes, options))], &[cluster])).await
}

#[tokio::test]
async fn trailers_pass_if_they_are_enabled_on_both_sides() {
    let origin = Origin::http1("one").await;
    for (client, upstream, passes) in
        [(true, true, true), (true, false, false), (false, true, false), (false, false, false)]
    {
        let options = |enabled: bool| json!({ "enable_trailers": enabled });
        let proxy = with_options(&origin, options(client), options(upstream)).await;
        let address = proxy.listener("in").await;
        origin.script(Script::echo());
        let mut client = Http1::connect(address).await;
        client
            .send("POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 6\r\n\r\n")
            .await;
        assert_eq!(client.answer().await.text(), "abc");

        // Hyper writes a trailer of HTTP/1.1 only if the head announced it.
        origin.script(Script::default().header("trailer", "x-end").trailer("x-end", "yes"));
        let answer = request(address, "GET", "/", &[("te", "trailers")], b"").await;
        assert_eq!(
            (answer.text(), answer.trailers.get("x-end").is_some()),
            ("one".to_owned(), passes)
        );
    }
}

#[tokio::test]
async fn answers_without_a_body_have_none() {
    let origin = Origin::http1("one").await;
    let proxy = in_front_of(&origin).await;
    let mut client = Http1::connect(proxy.listener("in").await).await;
    client.send("HEAD / HTTP/1.1\r\nhost: t\r\n\r\n").await;
    let head = client.answer_to("HEAD").await;
    assert_eq!((head.status, head.header("content-length")), (200, "3"));
    for status in [204, 304] {
        origin.script(Script::status(status));
        let answer = client.get("/").await;
        assert_eq!((answer.status, answer.body.len()), (status, 0));
        assert_eq!(answer.header("transfer-encoding"), "");
    }
    // The connection is still in step.
    origin.script(Script::default());
    assert_eq!(client.get("/").await.text(), "one");
    proxy.until_stat("http.in.downstream_rq_3xx", 1).await;
}

#[tokio::test]
async fn a_client_that_expects_100_is_told_to_continue() {
    let origin = Origin::http1("one").await;
    origin.script(Script::echo());
    let proxy = in_front_of(&origin).await;
    let mut client = Http1::connect(proxy.listener("in").await).await;
    client
        .send("POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n")
        .await;
    let (status, _) = client.head().await.unwrap();
    assert_eq!(status, 100);
    client.send("body").await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.text()), (200, "body".to_owned()));
    assert!(!origin.last().headers.contains_key("expect"), "that was between the two of us");
}

#[tokio::test]
async fn the_origin_may_be_asked_whether_it_wants_the_body() {
    let origin = Origin::http1("one").await;
    let cluster = static_cluster("one", &[origin.address]);
    let fields = json!({ "proxy_100_continue": true });
    let routes = json!({ "route_config": table("local", &[to("one")]) });
    let listener = listener_of("in", hcm(routes, fields));
    let proxy = Proxy::with(bootstrap(&[listener], &[cluster])).await;
    let head = "POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n";
    let mut client = Http1::connect(proxy.listener("in").await).await;
    client.send(head).await;
    assert_eq!(client.head().await.unwrap().0, 100);
    client.send("body").await;
    assert_eq!(client.answer().await.text(), "one");
    assert_eq!(origin.last().headers["expect"], "100-continue");

    // Without having read the body: the client is not told to send it.
    origin.script(Script { early: true, ..Script::status(413) });
    client.send(head).await;
    assert_eq!(client.head().await.unwrap().0, 413);
}

#[tokio::test]
async fn garbage_is_answered_400_and_the_next_client_is_served() {
    let origin = Origin::http1("one").await;
    let proxy = in_front_of(&origin).await;
    let address = proxy.listener("in").await;
    let cases = [
        "garbage\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\nhost: t\r\n\r\n",
        "GET / HTTP/1.1\r\nhost t\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: t\r\nbad name: x\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: t\r\nx: a\0b\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: t\r\ncontent-length: ten\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
    ];
    for case in cases {
        let mut client = Http1::connect(address).await;
        client.send(case).await;
        let answer = client.try_answer("GET").await;
        assert_eq!(answer.map(|a| a.status), Some(400), "{case:?}");
    }
    assert_eq!(origin.requests(), 0);
    assert_eq!(get(address, "/").await.status, 200);
    proxy.until_stat_at_least("http.in.downstream_cx_protocol_error", 6).await;
    proxy.until_stat("http.in.downstream_cx_active", 0).await;
}

#[tokio::test]
async fn an_oversized_head_is_answered_431() {
    let origin = Origin::http1("one").await;
    let manager = hcm(
        json!({ "route_config": table("local", &[to("one")]) }),
        json!({ "max_request_headers_kb": 8 }),
    );
    let cluster = static_cluster("one", &[origin.address]);
    let proxy = Proxy::with(bootstrap(&[listener_of("in", manager)], &[cluster])).await;
    let address = proxy.listener("in").await;
    let big = "x".repeat(100_000);
    let mut client = Http1::connect(address).await;
    // The proxy may stop reading before everything is written.
    let _ =
        client.try_send(format!("GET / HTTP/1.1\r\nhost: t\r\nx: {big}\r\n\r\n").as_bytes()).await;
    assert_eq!(client.try_answer("GET").await.map(|a| a.status), Some(431));

    let many: String = (0..150).map(|n| format!("x-{n}: 1\r\n")).collect();
    let mut client = Http1::connect(address).await;
    client.send(&format!("GET / HTTP/1.1\r\nhost: t\r\n{many}\r\n")).await;
    assert_eq!(client.try_answer("GET").await.map(|a| a.status), Some(431));
    assert_eq!(get(address, "/").await.status, 200);
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn http_1_0_is_refused_unless_accepted() {
    let origin = Origin::http1("one").await;
    let old = hcm(
        json!({ "route_config": table("local", &[to("one")]) }),
        json!({ "http_protocol_options": { "accept_http_10": true } }),
    );
    let listeners = [listener("in", &[to("one")]), listener_of("old", old)];
    let proxy =
        Proxy::with(bootstrap(&listeners, &[static_cluster("one", &[origin.address])])).await;
    for (name, status) in [("in", 426), ("old", 200)] {
        let mut client = Http1::connect(proxy.listener(name).await).await;
        client.send("GET / HTTP/1.0\r\nhost: t\r\n\r\n").await;
        let answer = client.answer().await;
        assert_eq!(answer.status, status, "{name}");
        client.closed().await;
    }
}

#[tokio::test]
async fn a_connection_ends_when_either_side_asks() {
    let origin = Origin::http1("one").await;
    // What the origin says about its own connection stays between it and us.
    origin.script(Script::default().header("connection", "close"));
    let proxy = in_front_of(&origin).await;
    let address = proxy.listener("in").await;
    let mut client = Http1::connect(address).await;
    client.send("GET / HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n").await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.header("connection")), (200, "close"));
    client.closed().await;
    let mut client = Http1::connect(address).await;
    for _ in 0..2 {
        let answer = client.get("/").await;
        assert_eq!((answer.status, answer.header("connection")), (200, ""));
    }
    proxy.until_stat("cluster.one.upstream_cx_active", 0).await;
}

#[tokio::test]
async fn hop_by_hop_headers_stay_on_their_hop() {
    let origin = Origin::http1("one").await;
    origin.script(Script::default().header("keep-alive", "timeout=5").header("x-kept", "yes"));
    let proxy = in_front_of(&origin).await;
    let address = proxy.listener("in").await;
    let headers =
        [("connection", "x-mine"), ("x-mine", "1"), ("proxy-connection", "close"), ("x-his", "2")];
    let answer = request(address, "GET", "/", &headers, b"").await;
    assert_eq!((answer.header("keep-alive"), answer.header("x-kept")), ("", "yes"));
    let seen = origin.last().headers;
    assert!(!seen.contains_key("x-mine") && !seen.contains_key("proxy-connection"), "{seen:?}");
    assert_eq!(seen["x-his"], "2");
}

#[tokio::test]
async fn an_idle_connection_that_the_origin_closed_is_not_an_error() {
    let origin = Origin::http1("one").await;
    origin.script(Script::ending(Ending::ThenClose));
    let proxy = in_front_of(&origin).await;
    let mut client = Http1::connect(proxy.listener("in").await).await;
    for n in 1..=10 {
        assert_eq!(client.get("/").await.status, 200);
        proxy.until_stat("cluster.one.upstream_cx_active", 0).await;
        assert_eq!(origin.connections(), n);
    }
    assert_eq!(proxy.stat("cluster.one.upstream_rq_5xx").await, 0);
}

#[tokio::test]
async fn an_early_hint_reaches_the_client_before_the_response_is_made() {
    let listening = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = listening.local_addr().unwrap();
    let (release, mut released) = tokio::sync::mpsc::channel::<()>(1);
    tokio::spawn(async move {
        let (mut stream, _) = listening.accept().await.unwrap();
        for _ in 0..3 {
            let mut read = [0; 4096];
            assert!(stream.read(&mut read).await.unwrap() > 0);
            let hint = b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\nconnection: x\r\n\r\n";
            stream.write_all(hint).await.unwrap();
            released.recv().await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        }
    });
    let routes = json!({ "route_config": table("local", &[to("one")]) });
    let listeners = [
        listener_of("hints", hcm(routes.clone(), json!({ "proxy_100_continue": true }))),
        listener_of("none", hcm(routes, json!({}))),
    ];
    let proxy = ProxyBuilder::new(bootstrap(&listeners, &[static_cluster("one", &[origin])]))
        .args(["--concurrency", "1"])
        .ready()
        .await;
    let mut client = Http1::connect(proxy.listener("hints").await).await;
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
        let (status, headers) = client.head().await.unwrap();
        assert_eq!((status, headers["link"].as_bytes()), (103, &b"</a.css>"[..]));
        assert!(!headers.contains_key("connection"));
        release.send(()).await.unwrap();
        assert_eq!(client.answer().await.text(), "ok");
    }
    let mut client = Http1::connect(proxy.listener("none").await).await;
    client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
    release.send(()).await.unwrap();
    assert_eq!(client.answer().await.status, 200, "who did not ask for hints gets none");
}

#[tokio::test]
async fn an_early_hint_that_comes_with_the_response_is_told_as_well() {
    let listening = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let cluster = static_cluster("one", &[listening.local_addr().unwrap()]);
    tokio::spawn(async move {
        let (mut stream, _) = listening.accept().await.unwrap();
        let mut read = [0; 4096];
        while stream.read(&mut read).await.unwrap() > 0 {
            let both = b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n\
                HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            stream.write_all(both).await.unwrap();
        }
    });
    let routes = json!({ "route_config": table("local", &[to("one")]) });
    let listener = listener_of("in", hcm(routes, json!({ "proxy_100_continue": true })));
    let proxy = Proxy::with(bootstrap(&[listener], &[cluster])).await;
    let mut client = Http1::connect(proxy.listener("in").await).await;
    for _ in 0..20 {
        client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
        assert_eq!(client.head().await.unwrap().0, 103);
        assert_eq!(client.answer().await.text(), "ok");
    }
}
