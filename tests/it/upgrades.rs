//! Connections that leave HTTP: `Upgrade` and `CONNECT`, by a far end that is a plain socket.

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::ext::Protocol;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::resources::{
    bootstrap, filter, hcm, listener_of, route, router, static_cluster, table, to, with,
};
use crate::harness::{Http1, Http2, Origin, Proxy};

const ASK: &str = "GET /chat HTTP/1.1\r\nhost: t\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\n\r\n";
const AGREE: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\nx-far: 1\r\n\r\n";

/// The far end, whose connections a story plays itself.
struct Far {
    listener: TcpListener,
    address: SocketAddr,
}

impl Far {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { listener, address }
    }

    async fn accept(&self) -> Wire {
        Wire(in_time(self.listener.accept()).await.unwrap().0)
    }

    /// Whether nobody has connected.
    async fn is_alone(&self) -> bool {
        tokio::time::timeout(Duration::from_millis(50), self.listener.accept()).await.is_err()
    }
}

async fn in_time<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("in time")
}

/// One side of a connection, byte by byte.
struct Wire(TcpStream);

impl Wire {
    async fn connect(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.unwrap())
    }

    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        in_time(self.0.write_all(bytes.as_ref())).await.unwrap();
    }

    async fn read_until(&mut self, end: &str) -> String {
        let mut read = Vec::new();
        while !read.ends_with(end.as_bytes()) {
            let byte = in_time(self.0.read_u8()).await;
            let told = String::from_utf8_lossy(&read).into_owned();
            read.push(byte.unwrap_or_else(|error| panic!("{error} after {told:?}")));
        }
        String::from_utf8(read).unwrap()
    }

    async fn head(&mut self) -> String {
        self.read_until("\r\n\r\n").await
    }

    /// Nothing more comes, however it ends.
    async fn is_over(&mut self) -> bool {
        matches!(in_time(self.0.read_u8()).await, Err(_closed))
    }
}

/// A proxy in front of the far end, by this route, with these fields of its connection manager.
async fn in_front_of(far: SocketAddr, routes: &[Value], fields: Value) -> (Proxy, SocketAddr) {
    let routes = json!({ "route_config": table("local", routes) });
    let cluster = static_cluster("far", &[far]);
    let proxy = Proxy::with(bootstrap(&[listener_of("in", hcm(routes, fields))], &[cluster])).await;
    let address = proxy.listener("in").await;
    (proxy, address)
}

fn websocket() -> Value {
    json!({ "upgrade_configs": [{ "upgrade_type": "WebSocket" }] })
}

#[tokio::test]
async fn bytes_pass_both_ways_once_the_origin_agreed_and_not_before() {
    let far = Far::start().await;
    let (proxy, address) = in_front_of(far.address, &[to("far")], websocket()).await;
    let mut client = Wire::connect(address).await;
    // Who speaks too early is not heard: the origin may not agree.
    client.send(format!("{ASK}early ")).await;
    let mut origin = far.accept().await;
    let head = origin.head().await;
    assert!(head.starts_with("GET /chat HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("upgrade: websocket\r\n"), "{head}");
    assert!(head.contains("connection: upgrade\r\n"), "{head}");
    assert!(!head.contains("transfer-encoding") && !head.contains("content-length"), "{head}");
    let nothing = tokio::time::timeout(Duration::from_millis(50), origin.0.peek(&mut [0])).await;
    assert!(nothing.is_err(), "it has not agreed");

    origin.send([AGREE, b"hello "].concat()).await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
    for line in ["upgrade: websocket\r\n", "connection: upgrade\r\n", "x-far: 1\r\n"] {
        assert!(head.contains(line), "{head}");
    }
    assert!(!head.contains("transfer-encoding") && !head.contains("content-length"), "{head}");
    assert_eq!(client.read_until("hello ").await, "hello ");
    assert_eq!(origin.read_until("early ").await, "early ");
    for round in 0..100 {
        client.send(format!("ask {round};")).await;
        assert_eq!(origin.read_until(";").await, format!("ask {round};"));
        origin.send(format!("tell {round};")).await;
        assert_eq!(client.read_until(";").await, format!("tell {round};"));
    }
    // More than any buffer holds, both ways at once.
    let much = vec![b'x'; 4 << 20];
    let (mut from_client, mut to_client) = client.0.split();
    let (mut from_origin, mut to_origin) = origin.0.split();
    let mut reads = [vec![0; much.len()], vec![0; much.len()]];
    let [up, down] = &mut reads;
    let all = in_time(async {
        tokio::join!(
            to_client.write_all(&much),
            to_origin.write_all(&much),
            from_origin.read_exact(up),
            from_client.read_exact(down),
        )
    });
    let (a, b, c, d) = all.await;
    assert!(a.is_ok() && b.is_ok() && c.is_ok() && d.is_ok());
    assert_eq!(reads, [much.clone(), much]);
    proxy.until_stat("http.in.downstream_rq_active", 1).await;
    // Each side may end before the other one.
    client.0.shutdown().await.unwrap();
    assert!(origin.is_over().await);
    origin.send("the end").await;
    assert_eq!(client.read_until("the end").await, "the end");
    drop(origin);
    assert!(client.is_over().await);
    proxy.until_stat("http.in.downstream_cx_active", 0).await;
    proxy.until_stat("cluster.far.upstream_cx_active", 0).await;
    assert_eq!(proxy.stat("http.in.downstream_rq_1xx").await, 1);
}

#[tokio::test]
async fn nobody_changes_the_protocol_unless_it_is_allowed() {
    let far = Far::start().await;
    let route = |prefix: &str, enabled: bool| {
        let upgrade = json!([{ "upgrade_type": "websocket", "enabled": enabled }]);
        route(prefix, json!({ "cluster": "far", "upgrade_configs": upgrade }))
    };
    let routes = [route("/chat", false), route("/talk", true), to("far")];
    for (fields, path, passes) in [
        (json!({}), "/", false),
        (websocket(), "/", true),
        (json!({ "upgrade_configs": [{ "upgrade_type": "other" }] }), "/", false),
        (
            json!({ "upgrade_configs": [{ "upgrade_type": "websocket", "enabled": false }] }),
            "/",
            false,
        ),
        (websocket(), "/chat", false),
        (json!({}), "/talk", true),
    ] {
        let (proxy, address) = in_front_of(far.address, &routes, fields).await;
        let mut client = Wire::connect(address).await;
        client.send(ASK.replace("/chat", path)).await;
        if passes {
            let mut origin = far.accept().await;
            origin.head().await;
            origin.send(AGREE).await;
            assert!(client.head().await.starts_with("HTTP/1.1 101 "), "{path}");
            continue;
        }
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 403 "), "{path}: {head}");
        assert!(far.is_alone().await, "{path}");
        // The client goes on as it began.
        client.send("GET /next HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n").await;
        let mut origin = far.accept().await;
        let head = origin.head().await;
        assert!(head.starts_with("GET /next "), "{head}");
        origin.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        assert!(client.head().await.starts_with("HTTP/1.1 200 "));
        assert_eq!(client.read_until("ok").await, "ok");
        assert_eq!(proxy.stat("http.in.downstream_rq_4xx").await, 1);
    }
}

#[tokio::test]
async fn an_origin_that_does_not_agree_is_an_origin_like_any() {
    let origin = Origin::http1("plain").await;
    let (_proxy, address) = in_front_of(origin.address, &[to("far")], websocket()).await;
    let mut client = Http1::connect(address).await;
    for _ in 0..3 {
        client.send(ASK).await;
        assert_eq!(client.answer().await.text(), "plain");
        assert_eq!(client.get("/").await.text(), "plain");
    }
    // Nobody asked for this one.
    let far = Far::start().await;
    let (proxy, address) = in_front_of(far.address, &[to("far")], websocket()).await;
    let mut client = Wire::connect(address).await;
    client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
    let mut origin = far.accept().await;
    origin.head().await;
    origin.send(AGREE).await;
    assert!(client.head().await.starts_with("HTTP/1.1 502 "));
    proxy.until_stat("cluster.far.upstream_cx_active", 0).await;
}

#[tokio::test]
async fn a_tunnel_is_opened_to_the_far_end_itself() {
    let far = Far::start().await;
    let connect = json!([{ "upgrade_type": "CONNECT", "connect_config": {} }]);
    let tunnel = json!({
        "match": { "connect_matcher": {} },
        "route": { "cluster": "far", "upgrade_configs": connect },
    });
    let (proxy, address) = in_front_of(far.address, &[tunnel, to("far")], json!({})).await;
    let mut client = Wire::connect(address).await;
    client.send("CONNECT t.test:443 HTTP/1.1\r\nhost: t.test:443\r\n\r\nfirst;").await;
    let mut end = far.accept().await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    for absent in ["transfer-encoding", "content-length", "connection:"] {
        assert!(!head.contains(absent), "{head}");
    }
    assert_eq!(end.read_until("first;").await, "first;");
    end.send("\0\x01 anything;").await;
    assert_eq!(client.read_until("anything;").await, "\0\x01 anything;");
    end.0.shutdown().await.unwrap();
    assert!(client.is_over().await);
    drop(client);
    assert!(end.is_over().await);
    proxy.until_stat("cluster.far.upstream_cx_active", 0).await;
    proxy.until_stat("cluster.far.upstream_rq_active", 0).await;

    // The far end is gone.
    drop(far);
    let mut client = Wire::connect(address).await;
    client.send("CONNECT t.test:443 HTTP/1.1\r\nhost: t.test:443\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 503 "));
    proxy.until_stat("http.in.downstream_rq_active", 0).await;
}

#[tokio::test]
async fn connect_is_passed_on_to_a_proxy_behind_us() {
    let far = Far::start().await;
    let matcher = json!({ "match": { "connect_matcher": {} }, "route": { "cluster": "far" } });
    let fields = json!({ "upgrade_configs": [{ "upgrade_type": "CONNECT" }] });
    let (proxy, address) = in_front_of(far.address, &[matcher], fields).await;
    let ask = "CONNECT t.test:443 HTTP/1.1\r\nhost: t.test:443\r\n\r\nearly;";
    let mut client = Wire::connect(address).await;
    client.send(ask).await;
    let mut next = far.accept().await;
    let head = next.head().await;
    assert!(head.starts_with("CONNECT t.test:443 HTTP/1.1\r\nhost: t.test:443\r\n"), "{head}");
    next.send("HTTP/1.1 200 OK\r\n\r\nwelcome;").await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 200 ") && !head.contains("transfer-encoding"), "{head}");
    assert_eq!(client.read_until(";").await, "welcome;");
    assert_eq!(next.read_until(";").await, "early;");
    drop(client);
    assert!(next.is_over().await);
    drop(next);
    proxy.until_stat("cluster.far.upstream_cx_active", 0).await;

    // One that does not want to is heard, and what was meant for the tunnel is not.
    let mut client = Wire::connect(address).await;
    client.send(ask).await;
    let mut next = far.accept().await;
    next.head().await;
    next.send("HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 2\r\n\r\nno").await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 407 "), "{head}");
    assert_eq!(client.read_until("no").await, "no");
    drop(client);
    proxy.until_stat("http.in.downstream_rq_active", 0).await;
}

#[tokio::test]
async fn a_tunnel_needs_a_route_that_says_so() {
    let far = Far::start().await;
    let matcher = json!({ "match": { "connect_matcher": {} }, "route": { "cluster": "far" } });
    for (routes, status) in [(vec![to("far")], 404), (vec![matcher], 403)] {
        let (_proxy, address) = in_front_of(far.address, &routes, json!({})).await;
        let mut client = Wire::connect(address).await;
        client.send("CONNECT t.test:443 HTTP/1.1\r\nhost: t.test:443\r\n\r\n").await;
        let head = client.head().await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        // What follows may be meant for the other side of the tunnel.
        assert!(head.contains("connection: close\r\n"), "{head}");
        assert!(far.is_alone().await);
    }
}

#[tokio::test]
async fn whoever_leaves_takes_the_tunnel_along() {
    let far = Far::start().await;
    let (proxy, address) = in_front_of(far.address, &[to("far")], websocket()).await;
    for client_leaves in [true, false] {
        let mut client = Wire::connect(address).await;
        client.send(ASK).await;
        let mut origin = far.accept().await;
        origin.head().await;
        origin.send(AGREE).await;
        client.head().await;
        if client_leaves {
            drop(client);
            assert!(origin.is_over().await);
            drop(origin);
        } else {
            // With a reset, as of a process that was killed.
            origin.0.set_zero_linger().unwrap();
            drop(origin);
            assert!(client.is_over().await);
        }
        proxy.until_stat("http.in.downstream_rq_active", 0).await;
        proxy.until_stat("cluster.far.upstream_rq_active", 0).await;
        proxy.until_stat("cluster.far.upstream_cx_active", 0).await;
    }
    // Before the origin said anything.
    let mut client = Wire::connect(address).await;
    client.send(ASK).await;
    let mut origin = far.accept().await;
    origin.head().await;
    drop(client);
    assert!(origin.is_over().await);
    proxy.until_stat("http.in.downstream_rq_active", 0).await;
}

#[tokio::test]
async fn filters_of_messages_let_tunnels_pass() {
    let far = Far::start().await;
    let buffer = "envoy.extensions.filters.http.buffer.v3.Buffer";
    let filters = json!({ "http_filters": [
        filter("cache", "nuncio.extensions.filters.http.cache.v1.Cache", json!({})),
        filter(
            "compression",
            "nuncio.extensions.filters.http.compression.v1.Compression",
            json!({ "min_size": 1, "content_types": ["*/*"] }),
        ),
        filter("buffer", buffer, json!({ "max_request_bytes": 10 })),
        router(),
    ] });
    let (_proxy, address) =
        in_front_of(far.address, &[to("far")], with(websocket(), filters)).await;
    let mut client = Wire::connect(address).await;
    client.send(ASK.replace("\r\n\r\n", "\r\naccept-encoding: gzip\r\n\r\n")).await;
    let mut origin = far.accept().await;
    origin.head().await;
    origin.send(AGREE).await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 101 ") && !head.contains("content-encoding"), "{head}");
    client.send("more than ten bytes;").await;
    assert_eq!(origin.read_until(";").await, "more than ten bytes;");
    origin.send("and back;").await;
    assert_eq!(client.read_until(";").await, "and back;");
}

#[tokio::test]
async fn a_tunnel_that_is_silent_both_ways_is_closed_and_one_that_is_not_is_kept() {
    let far = Far::start().await;
    let fields = with(websocket(), json!({ "stream_idle_timeout": "0.5s" }));
    let (proxy, address) = in_front_of(far.address, &[to("far")], fields).await;
    let mut client = Wire::connect(address).await;
    client.send(ASK).await;
    let mut origin = far.accept().await;
    origin.head().await;
    origin.send(AGREE).await;
    client.head().await;
    // Only one side speaks, for longer than the limit.
    let mut pause = tokio::time::interval(Duration::from_millis(100));
    for _ in 0..10 {
        pause.tick().await;
        client.send("still here;").await;
        assert_eq!(origin.read_until(";").await, "still here;");
    }
    assert!(client.is_over().await);
    assert!(origin.is_over().await);
    proxy.until_stat("http.in.downstream_rq_idle_timeout", 1).await;
}

#[tokio::test]
async fn a_websocket_of_http2_is_one_of_http1_to_the_origin() {
    let far = Far::start().await;
    let options = json!({ "http2_protocol_options": { "allow_connect": true } });
    let (proxy, address) = in_front_of(far.address, &[to("far")], with(websocket(), options)).await;
    let mut client = Http2::connect(address).await;
    let request = http::Request::connect("http://t.test/chat?room=1")
        .extension(Protocol::from_static("websocket"))
        .header("sec-websocket-version", "13")
        .body(Full::default().boxed())
        .unwrap();
    let asked = tokio::spawn(async move { (client.open(request).await, client) });
    let mut origin = far.accept().await;
    let head = origin.head().await;
    assert!(head.starts_with("GET /chat?room=1 HTTP/1.1\r\n"), "{head}");
    for line in ["host: t.test\r\n", "upgrade: websocket\r\n", "connection: upgrade\r\n"] {
        assert!(head.contains(line), "{line} in {head}");
    }
    origin.send(AGREE).await;
    let (answer, mut client) = in_time(asked).await.unwrap();
    let answer = answer.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers().get("upgrade")), (200, None));
    assert_eq!(answer.headers()["x-far"], "1");
    let tunnel = in_time(hyper::upgrade::on(answer)).await.unwrap();
    let mut tunnel = TokioIo::new(tunnel);
    for round in 0..20 {
        in_time(tunnel.write_all(format!("ask {round};").as_bytes())).await.unwrap();
        assert_eq!(origin.read_until(";").await, format!("ask {round};"));
        let told = format!("tell {round};");
        origin.send(&told).await;
        let mut read = vec![0; told.len()];
        in_time(tunnel.read_exact(&mut read)).await.unwrap();
        assert_eq!(read, told.as_bytes());
    }
    drop(tunnel);
    assert!(origin.is_over().await);
    proxy.until_stat("http.in.downstream_rq_active", 0).await;
    proxy.until_stat("cluster.far.upstream_cx_active", 0).await;

    // An origin that does not agree answers as it likes.
    let request = http::Request::connect("http://t.test/chat")
        .extension(Protocol::from_static("websocket"))
        .body(Full::default().boxed())
        .unwrap();
    let asked = tokio::spawn(async move { (client.open(request).await, client) });
    let mut origin = far.accept().await;
    origin.head().await;
    origin.send("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
    let (answer, mut client) = in_time(asked).await.unwrap();
    assert_eq!(answer.unwrap().status().as_u16(), 400);
    // What is not allowed is refused, and the connection goes on.
    let request = http::Request::connect("http://t.test/chat")
        .extension(Protocol::from_static("other"))
        .body(Full::default().boxed())
        .unwrap();
    assert_eq!(client.open(request).await.unwrap().status().as_u16(), 403);
    assert!(far.is_alone().await);
}
