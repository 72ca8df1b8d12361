//! Listeners that come, change and go under traffic, and a server that is told to end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::harness::resources::{
    assignment, bootstrap, dynamic_delta, dynamic_sotw, eds_cluster, hcm, listener_at, rds, route,
    static_cluster, table, to, with,
};
use crate::harness::{
    Http1, Http2, Kind, Origin, Plane, Proxy, ProxyBuilder, Script, eventually, get, pace,
};

/// A port that was free a moment ago.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn direct(name: &str, port: u16, text: &str) -> Value {
    let route = json!({ "match": { "prefix": "/" }, "direct_response": { "status": 200, "body": { "inline_string": text } } });
    listener_at(
        name,
        port,
        hcm(
            json!({ "route_config": table("local", &[route]) }),
            json!({ "drain_timeout": "0.2s" }),
        ),
    )
}

async fn closed(address: SocketAddr) {
    eventually("the port is closed", async || {
        TcpStream::connect(address).await.is_err().then_some(())
    })
    .await;
}

async fn with_plane(resources: &[(Kind, Value)], args: &[&str]) -> (Plane, Proxy) {
    let plane = Plane::start(resources).await;
    let builder = ProxyBuilder::new(dynamic_sotw(plane.address));
    let proxy = builder.args(args.iter().copied()).ready().await;
    (plane, proxy)
}

#[tokio::test]
async fn listeners_come_change_and_go() {
    let (plane, proxy) =
        with_plane(&[(Kind::Listener, direct("first", 0, "one"))], &["--drain-time-s", "1"]).await;
    let address = proxy.listener("first").await;
    let mut old = Http1::connect(address).await;
    assert_eq!(old.get("/").await.text(), "one");

    plane.update(Kind::Listener, &direct("second", 0, "two"));
    let second = proxy.new_listener("second").await;
    assert_eq!(get(second, "/").await.text(), "two");
    assert_eq!(old.get("/").await.text(), "one", "untouched");

    // A change in place: the port stays, the old connection finishes with what it had.
    plane.update(Kind::Listener, &direct("first", 0, "changed"));
    eventually("new connections see the change", async || {
        (get(address, "/").await.text() == "changed").then_some(())
    })
    .await;
    assert_eq!(proxy.listener("first").await, address);
    let last = old.try_get("/").await;
    assert!(last.is_none_or(|answer| answer.text() == "one"));
    old.rest().await;

    plane.remove(Kind::Listener, "first");
    closed(address).await;
    assert_eq!(get(second, "/").await.text(), "two");
    proxy.until_stat("listener_manager.total_listeners_active", 1).await;
    assert_eq!(proxy.stat("listener_manager.listener_added").await, 2);
    assert_eq!(proxy.stat("listener_manager.listener_modified").await, 1);
}

#[tokio::test]
async fn a_removed_listener_drains_its_connections_and_finishes_its_requests() {
    let origin = Origin::http1("one").await;
    let manager = hcm(
        json!({ "route_config": table("local", &[to("one")]) }),
        json!({ "drain_timeout": "0.2s" }),
    );
    let resources = [
        (Kind::Cluster, static_cluster("one", &[origin.address])),
        (Kind::Listener, listener_at("in", 0, manager)),
    ];
    let (plane, proxy) = with_plane(&resources, &["--drain-time-s", "1"]).await;
    let address = proxy.listener("in").await;
    let mut idle = Http1::connect(address).await;
    assert_eq!(idle.get("/").await.status, 200);
    let mut busy = Http1::connect(address).await;
    let mut streams = Http2::connect(address).await;
    assert_eq!(streams.get("/").await.status, 200);
    origin.script(Script::held());
    busy.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
    origin.until_active(1).await;
    plane.remove(Kind::Listener, "in");
    closed(address).await;
    assert_eq!(proxy.stat("http.in.downstream_cx_active").await, 3, "they drain");
    origin.release();
    let answer = busy.answer().await;
    assert_eq!(answer.text(), "one", "a request in flight is answered");
    idle.rest().await;
    proxy.until_stat("http.in.downstream_cx_active", 0).await;
    assert!(proxy.stat("http.in.downstream_cx_drain_close").await >= 1);
}

#[tokio::test]
async fn a_port_that_is_taken_is_an_error_of_the_listener_alone() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let (plane, proxy) = with_plane(&[(Kind::Listener, direct("good", 0, "good"))], &[]).await;
    plane.update(Kind::Listener, &direct("bad", port, "bad"));
    proxy.until_stat("listener_manager.listener_create_failure", 1).await;
    eventually("the server hears of it", async || {
        let status = plane.status();
        let nack = status.proxies.first()?.types.iter().find_map(|t| t.last_nack.clone())?;
        nack.message.contains(&port.to_string()).then_some(())
    })
    .await;
    assert_eq!(get(proxy.listener("good").await, "/").await.text(), "good");
    drop(taken);
    // Sent again, it is bound.
    plane.update(Kind::Listener, &direct("bad", port, "better"));
    let address = proxy.new_listener("bad").await;
    assert_eq!((address.port(), get(address, "/").await.text()), (port, "better".to_owned()));
}

#[tokio::test]
async fn a_port_may_pass_from_one_listener_to_another() {
    let port = free_port();
    let (plane, proxy) =
        with_plane(&[(Kind::Listener, direct("old", port, "old"))], &["--drain-time-s", "1"]).await;
    let address = proxy.listener("old").await;
    assert_eq!(get(address, "/").await.text(), "old");
    plane.remove(Kind::Listener, "old");
    closed(address).await;
    plane.update(Kind::Listener, &direct("new", port, "new"));
    proxy.new_listener("new").await;
    assert_eq!(get(address, "/").await.text(), "new");
    // And a listener from one port to another.
    plane.update(Kind::Listener, &direct("new", 0, "moved"));
    closed(address).await;
    assert_eq!(get(proxy.new_listener("new").await, "/").await.text(), "moved");
}

#[tokio::test]
async fn a_term_signal_ends_in_order() {
    let origin = Origin::http1("one").await;
    let manager = hcm(json!({ "route_config": table("local", &[to("one")]) }), json!({}));
    let config =
        bootstrap(&[listener_at("in", 0, manager)], &[static_cluster("one", &[origin.address])]);
    let mut proxy = ProxyBuilder::new(config).args(["--drain-time-s", "1"]).ready().await;
    let address = proxy.listener("in").await;
    origin.script(Script::held());
    let mut busy = Http1::connect(address).await;
    busy.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
    origin.until_active(1).await;
    proxy.process.signal("TERM");
    closed(address).await;
    origin.release();
    assert_eq!(busy.answer().await.text(), "one");
    assert!(proxy.process.exit().await.success());
}

#[tokio::test]
async fn after_a_kill_the_next_process_takes_over() {
    let (_plane, mut proxy) =
        with_plane(&[(Kind::Listener, direct("in", free_port(), "x"))], &[]).await;
    let address = proxy.listener("in").await;
    assert_eq!(get(address, "/").await.text(), "x");
    proxy.kill();
    assert!(TcpStream::connect(address).await.is_err());
    proxy.restart().await;
    proxy.until_ready().await;
    assert_eq!(get(address, "/").await.text(), "x");
}

/// Requests that must all be answered.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    clients: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn start(address: SocketAddr, clients: usize) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let clients = (0..clients)
            .map(|_| tokio::spawn(keep_asking(address, Arc::clone(&stop), Arc::clone(&answered))))
            .collect();
        Self { stop, answered, clients }
    }

    async fn end(self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        for client in self.clients {
            client.await.expect("no request failed");
        }
        self.answered.load(Ordering::SeqCst)
    }
}

/// A keep-alive client: it opens a new connection when the old one was announced to end, or ended
/// while nothing was on it, as RFC 9112 section 9.3.1 has clients retry.
async fn keep_asking(address: SocketAddr, stop: Arc<AtomicBool>, answered: Arc<AtomicU64>) {
    let mut client = Http1::connect(address).await;
    let mut fresh = true;
    while !stop.load(Ordering::SeqCst) {
        match client.try_get("/").await {
            Some(answer) => {
                assert_eq!(answer.status, 200, "{}", answer.text());
                answered.fetch_add(1, Ordering::SeqCst);
                fresh = answer.header("connection") == "close";
                if fresh {
                    client = Http1::connect(address).await;
                }
            }
            None => {
                assert!(!fresh, "a new connection failed");
                client = Http1::connect(address).await;
                fresh = true;
            }
        }
        pace(Duration::from_millis(20)).await;
    }
}

async fn nothing_is_lost_while_everything_changes(variant: fn(SocketAddr) -> Value) {
    let mut origins = Vec::new();
    for name in ["a", "b", "c"] {
        origins.push(Origin::http1(name).await);
    }
    let all: Vec<_> = origins.iter().map(|origin| origin.address).collect();
    let endpoints = |n: usize| assignment("one", &[all[n % 3], all[(n + 1) % 3]]);
    let cluster = |n: usize| {
        with(eds_cluster("one"), json!({ "connect_timeout": format!("{}s", 5 + n % 7) }))
    };
    let routes = |n: usize| {
        table("table", &[route(&format!("/{n}"), json!({ "cluster": "one" })), to("one")])
    };
    let port = free_port();
    let listener = |n: usize| {
        listener_at("in", port, hcm(rds("table"), json!({ "server_name": format!("v{n}") })))
    };
    let mut plane = Plane::start(&[
        (Kind::Cluster, cluster(0)),
        (Kind::Endpoints, endpoints(0)),
        (Kind::Listener, listener(0)),
        (Kind::Routes, routes(0)),
    ])
    .await;
    let builder = ProxyBuilder::new(variant(plane.address)).args(["--drain-time-s", "1"]);
    let proxy = builder.ready().await;
    let address = proxy.listener("in").await;
    let load = Load::start(address, 64);
    for n in 1..=200 {
        match n % 4 {
            0 => plane.update(Kind::Cluster, &cluster(n)),
            1 => plane.update(Kind::Endpoints, &endpoints(n)),
            2 => plane.update(Kind::Routes, &routes(n)),
            _ => plane.update(Kind::Listener, &listener(n)),
        }
        if n % 40 == 0 {
            plane.until_settled().await;
            plane.kill();
            proxy.until_stat("control_plane.connected_state", 0).await;
            plane.restart().await;
            proxy.until_stat("control_plane.connected_state", 1).await;
        }
        pace(Duration::from_millis(30)).await;
    }
    plane.until_settled().await;
    eventually("the last listener is in service", async || {
        (get(address, "/").await.header("server") == "v199").then_some(())
    })
    .await;
    let answered = load.end().await;
    assert!(answered > 320, "{answered} requests");
    proxy.until_stat("http.in.downstream_rq_active", 0).await;
    assert_eq!(proxy.stat("http.in.downstream_rq_5xx").await, 0);
    assert_eq!(proxy.stat("http.in.downstream_rq_4xx").await, 0);
    assert_eq!(proxy.stat("cluster_manager.cds.update_rejected").await, 0);
    assert_eq!(proxy.stat("listener_manager.lds.update_rejected").await, 0);
}

#[tokio::test]
async fn nothing_is_lost_while_everything_changes_state_of_the_world() {
    nothing_is_lost_while_everything_changes(dynamic_sotw).await;
}

#[tokio::test]
async fn nothing_is_lost_while_everything_changes_delta() {
    nothing_is_lost_while_everything_changes(dynamic_delta).await;
}
