//! What clients and operators see when a request cannot be served, or ends half way.

use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::harness::resources::{
    assignment, bootstrap, hcm, listener_of, route, static_cluster, table, to, typed, with,
};
use crate::harness::{Ending, Http1, Origin, Proxy, Script, eventually, get, pace};
use crate::http_h1::in_front_of;

/// Routes behind an access log of status, flags and details.
fn logged(routes: &[Value]) -> Value {
    let format = "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n";
    let log = typed(
        "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
        json!({ "log_format": { "text_format_source": { "inline_string": format } } }),
    );
    let routes = json!({ "route_config": table("local", routes) });
    listener_of(
        "in",
        hcm(routes, json!({ "access_log": [{ "name": "out", "typed_config": log }] })),
    )
}

pub(crate) async fn logged_lines(proxy: &Proxy, n: usize) -> Vec<String> {
    eventually("the access log has its lines", async || {
        let lines: Vec<_> = proxy.process.stdout().lines().map(str::to_owned).collect();
        (lines.len() >= n).then_some(lines)
    })
    .await
}

/// A port on which nobody listens.
async fn nobody() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

#[tokio::test]
async fn every_refusal_has_its_status_flag_and_counter() {
    let silent = Origin::http1("silent").await;
    silent.script(Script::held());
    let cut = Origin::http1("cut").await;
    cut.script(Script::ending(Ending::BeforeHead));
    let clusters = [
        static_cluster("refused", &[nobody().await]),
        static_cluster("empty", &[]),
        static_cluster("silent", &[silent.address]),
        static_cluster("cut", &[cut.address]),
    ];
    let routes = [
        route("/refused", json!({ "cluster": "refused" })),
        route("/empty", json!({ "cluster": "empty" })),
        route("/silent", json!({ "cluster": "silent", "timeout": "0.1s" })),
        route("/cut", json!({ "cluster": "cut" })),
        route("/unknown", json!({ "cluster": "unknown" })),
        route(
            "/hidden",
            json!({
                "cluster": "unknown", "cluster_not_found_response_code": "NOT_FOUND",
            }),
        ),
    ];
    let proxy = Proxy::with(bootstrap(&[logged(&routes)], &clusters)).await;
    let address = proxy.listener("in").await;
    let cases = [
        ("/nothing", 404, "NR route_not_found", ("http.in.no_route", 1)),
        ("/unknown", 503, "NC cluster_not_found", ("http.in.downstream_rq_5xx", 1)),
        ("/hidden", 404, "NC cluster_not_found", ("http.in.downstream_rq_4xx", 2)),
        ("/empty", 503, "UH no_healthy_upstream", ("cluster.empty.upstream_cx_none_healthy", 1)),
        (
            "/refused",
            503,
            "UF upstream_reset_before_response_started{remote_connection_failure",
            ("cluster.refused.upstream_cx_connect_fail", 1),
        ),
        (
            "/cut",
            503,
            "UC upstream_reset_before_response_started{connection_termination",
            ("cluster.cut.upstream_rq_5xx", 1),
        ),
        ("/silent", 504, "UT response_timeout", ("cluster.silent.upstream_rq_timeout", 1)),
    ];
    let mut client = Http1::connect(address).await;
    for (path, status, _, (stat, value)) in cases {
        let answer = client.get(path).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        proxy.until_stat(stat, value).await;
    }
    // One connection is one worker's, so its lines are in order.
    let lines = logged_lines(&proxy, cases.len()).await;
    for ((path, status, log, _), line) in cases.iter().zip(lines) {
        assert!(line.starts_with(&format!("{status} {log}")), "{path}: {line}");
    }
    // Given up on, not left running.
    silent.until_active(0).await;
    proxy.until_stat("cluster.silent.upstream_rq_active", 0).await;
}

#[tokio::test]
async fn a_connection_that_is_not_made_in_time_is_503_uf() {
    // A full accept queue: the kernel answers no further SYN.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    socket.listen(0).unwrap();
    let full = socket.local_addr().unwrap().as_socket().unwrap();
    let mut fillers = Vec::new();
    for _ in 0..4 {
        let filler =
            std::net::TcpStream::connect_timeout(&full, std::time::Duration::from_millis(200));
        fillers.push(filler);
    }
    let cluster = with(static_cluster("full", &[full]), json!({ "connect_timeout": "0.1s" }));
    let proxy = Proxy::with(bootstrap(&[logged(&[to("full")])], &[cluster])).await;
    let answer = get(proxy.listener("in").await, "/").await;
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("connection timeout"), "{}", answer.text());
    let line = logged_lines(&proxy, 1).await.remove(0);
    assert!(line.starts_with("503 UF "), "{line}");
    proxy.until_stat("cluster.full.upstream_cx_connect_timeout", 1).await;
}

#[tokio::test]
async fn a_full_cluster_is_503_uo_and_frees_itself() {
    let origin = Origin::http1("one").await;
    origin.script(Script::held());
    let breakers = json!({ "circuit_breakers": { "thresholds": [{ "max_requests": 2 }] } });
    let cluster = with(static_cluster("one", &[origin.address]), breakers);
    let proxy = Proxy::with(bootstrap(&[logged(&[to("one")])], &[cluster])).await;
    let address = proxy.listener("in").await;
    let waiting: Vec<_> =
        (0..2).map(|_| tokio::spawn(async move { get(address, "/").await.status })).collect();
    origin.until_active(2).await;
    let refused = get(address, "/").await;
    assert_eq!((refused.status, refused.header("x-envoy-overloaded")), (503, "true"));
    assert!(logged_lines(&proxy, 1).await[0].starts_with("503 UO "));
    origin.release();
    for status in waiting {
        assert_eq!(status.await.unwrap(), 200);
    }
    origin.script(Script::default());
    proxy.until_stat("cluster.one.upstream_rq_active", 0).await;
    assert_eq!(get(address, "/").await.status, 200);
    assert_eq!(proxy.stat("cluster.one.upstream_rq_5xx").await, 1);
    assert_eq!(proxy.stat("cluster.one.upstream_rq_total").await, 3, "it never left");
}

#[tokio::test]
async fn an_answer_that_breaks_off_does_not_look_whole() {
    let origin = Origin::http1("one").await;
    let proxy = Proxy::with(bootstrap(
        &[logged(&[to("one")])],
        &[static_cluster("one", &[origin.address])],
    ))
    .await;
    let address = proxy.listener("in").await;
    for script in
        [Script::ending(Ending::After(1000)), Script::ending(Ending::After(1000)).chunked()]
    {
        origin.script(script);
        let mut client = Http1::connect(address).await;
        client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
        let (status, _) = client.head().await.unwrap();
        assert_eq!(status, 200);
        let rest = client.rest().await;
        assert!(rest.len() < 1200 && !rest.ends_with(b"0\r\n\r\n"), "{} bytes", rest.len());
    }
    let lines = logged_lines(&proxy, 2).await;
    assert!(lines.iter().all(|line| line.starts_with("200 UC ")), "{lines:?}");
    origin.script(Script::default());
    assert_eq!(get(address, "/").await.status, 200);
    proxy.until_stat("http.in.downstream_rq_active", 0).await;
}

#[tokio::test]
async fn a_client_that_leaves_cancels_the_work_for_it() {
    let origin = Origin::http1("one").await;
    let proxy = Proxy::with(bootstrap(
        &[logged(&[to("one")])],
        &[static_cluster("one", &[origin.address])],
    ))
    .await;
    let address = proxy.listener("in").await;
    let halves = [
        (Script::held(), "GET / HTTP/1.1\r\nhost: t\r\n\r\n"),
        (
            Script { held_after: Some(1000), ..Script::size(100_000) },
            "GET / HTTP/1.1\r\nhost: t\r\n\r\n",
        ),
        (Script::echo(), "POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 100\r\n\r\nhalf"),
    ];
    for (script, request) in halves {
        origin.script(script);
        let mut client = Http1::connect(address).await;
        client.send(request).await;
        origin.until_active(1).await;
        drop(client);
        origin.until_active(0).await;
        proxy.until_stat("cluster.one.upstream_rq_active", 0).await;
        proxy.until_stat("http.in.downstream_rq_active", 0).await;
        proxy.until_stat("http.in.downstream_cx_active", 0).await;
    }
    let lines = logged_lines(&proxy, 3).await;
    assert!(lines.iter().all(|line| line.contains(" DC ")), "{lines:?}");
    origin.script(Script::default());
    assert_eq!(get(address, "/").await.status, 200);
}

#[tokio::test]
async fn a_slow_body_is_not_cut_before_its_time_and_is_408_after() {
    let origin = Origin::http1("one").await;
    origin.script(Script::echo());
    let routes = json!({ "route_config": table("local", &[to("one")]) });
    let slow = listener_of("in", hcm(routes, json!({ "request_timeout": "0.3s" })));
    let proxy = Proxy::with(bootstrap(&[slow], &[static_cluster("one", &[origin.address])])).await;
    let address = proxy.listener("in").await;
    let mut client = Http1::connect(address).await;
    client.send("POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 4\r\n\r\nha").await;
    origin.until_active(1).await;
    client.send("lf").await;
    assert_eq!(client.answer().await.text(), "half");

    origin.script(Script::default());
    client.send("POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 4\r\n\r\nha").await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.text().as_str()), (408, "request timeout"));
    assert_eq!(proxy.stat("http.in.downstream_rq_timeout").await, 1);
    proxy.until_stat("http.in.downstream_rq_active", 0).await;
    proxy.until_stat("cluster.one.upstream_rq_active", 0).await;
    assert_eq!(get(address, "/").await.status, 200);
}

#[tokio::test]
async fn a_hundred_megabytes_pass_in_little_memory() {
    const SIZE: u64 = 100 << 20;
    let origin = Origin::http1("one").await;
    let proxy = in_front_of(&origin).await;
    let address = proxy.listener("in").await;
    assert_eq!(get(address, "/").await.status, 200);
    let before = proxy.process.rss();
    origin.script(Script::size(SIZE));
    let mut client = Http1::connect(address).await;
    client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
    let (status, _) = client.head().await.unwrap();
    assert_eq!(status, 200);
    // Nobody reads: the origin is held back instead of the proxy filling up.
    let mut last = 0;
    let held = eventually("the origin is held back", async || {
        pace(std::time::Duration::from_millis(50)).await;
        let now = origin.sent();
        let settled = now == last;
        last = now;
        settled.then_some(now)
    })
    .await;
    assert!(held < SIZE / 2, "{held} bytes left the origin");
    assert_eq!(client.skip(SIZE).await, SIZE);

    origin.script(Script::default());
    let head = format!("POST / HTTP/1.1\r\nhost: t\r\ncontent-length: {SIZE}\r\n\r\n");
    client.send(&head).await;
    let piece = vec![b'u'; 1 << 20];
    for _ in 0..SIZE >> 20 {
        client.send_bytes(&piece).await;
    }
    assert_eq!(client.answer().await.text(), "one");
    assert_eq!(origin.received(), SIZE);
    let grown = proxy.process.rss().saturating_sub(before);
    assert!(grown < 20 << 20, "grew by {grown} bytes");
}

#[tokio::test]
async fn an_origin_that_answers_early_is_heard() {
    let origin = Origin::http1("one").await;
    let proxy = in_front_of(&origin).await;
    origin.script(Script { early: true, ..Script::status(413) });
    let mut client = Http1::connect(proxy.listener("in").await).await;
    client.send("POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 10\r\n\r\n01234").await;
    assert_eq!(client.answer().await.status, 413, "although half of the body is missing");
    proxy.until_stat("http.in.downstream_rq_active", 0).await;
    proxy.until_stat("cluster.one.upstream_rq_active", 0).await;
}

#[tokio::test]
async fn origins_that_do_not_speak_http_are_502_or_503() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let cluster = json!({
        "name": "odd", "type": "STATIC",
        "load_assignment": assignment("odd", &[listener.local_addr().unwrap()]),
    });
    let proxy = Proxy::with(bootstrap(&[logged(&[to("odd")])], &[cluster])).await;
    let address = proxy.listener("in").await;
    let answers = [
        "SSH-2.0-OpenSSH_9\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n",
        "HTTP/1.1 200 OK\r\nbad name: x\r\n\r\n",
        "\0\0\0\0\0\0\0\0",
    ];
    for text in answers {
        let client = tokio::spawn(async move { get(address, "/").await.status });
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = stream.into_std().unwrap();
        stream.set_nonblocking(false).unwrap();
        let answered = tokio::task::spawn_blocking(move || {
            use std::io::{Read as _, Write as _};
            let mut request = [0; 4096];
            assert!(stream.read(&mut request).unwrap() > 0);
            stream.write_all(text.as_bytes()).unwrap();
        });
        answered.await.unwrap();
        let status = client.await.unwrap();
        assert!(status == 502 || status == 503, "{text:?}: {status}");
    }
    proxy.until_stat("cluster.odd.upstream_cx_active", 0).await;
}
