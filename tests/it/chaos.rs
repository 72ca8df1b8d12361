//! Origins that die, come back, stall and break off under load, and clients that leave: nothing is lost
//! that could have been answered, nothing is counted wrong, nothing is left over.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::harness::resources::{
    bootstrap, listener, over_http2, route, static_cluster, typed, with,
};
use crate::harness::{Ending, Http1, Origin, Proxy, Script, pace};

fn retrying(cluster: &str, retries: u32) -> Value {
    let kind = "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate";
    json!({ "cluster": cluster, "timeout": "2s", "retry_policy": {
        "retry_on": "reset,connect-failure,refused-stream", "num_retries": retries,
        "retry_back_off": { "base_interval": "0.001s" },
        "retry_host_predicate": [{ "name": "previous", "typed_config": typed(kind, json!({})) }],
        "host_selection_retry_max_attempts": 10 } })
}

/// TCP checks, so that origins see the clients' requests alone, and outlier detection.
fn watched() -> Value {
    json!({
        "connect_timeout": "0.5s",
        "health_checks": [{ "timeout": "0.5s", "interval": "0.1s", "no_traffic_interval": "0.1s",
            "unhealthy_threshold": 1, "healthy_threshold": 1, "tcp_health_check": {} }],
        "outlier_detection": { "consecutive_5xx": 3, "interval": "0.2s",
            "base_ejection_time": "0.2s", "max_ejection_percent": 60 },
        "circuit_breakers": { "thresholds": [{ "max_retries": 1000 }] },
    })
}

#[tokio::test]
async fn an_origin_that_dies_under_load_costs_no_request() {
    let (stays, dies) = (Origin::http1("stays").await, Origin::http1("dies").await);
    let cluster = with(static_cluster("one", &[stays.address, dies.address]), watched());
    let listeners = [listener("in", &[route("/", retrying("one", 1))])];
    let proxy = Proxy::with(bootstrap(&listeners, &[cluster])).await;
    let address = proxy.listener("in").await;
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..16)
        .map(|_| {
            let stop = Arc::clone(&stop);
            tokio::spawn(async move {
                let mut client = Http1::connect(address).await;
                let mut answered = 0u64;
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(client.get("/").await.status, 200);
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    let mut dies = Some(dies);
    let back_at = dies.as_ref().map(|origin| origin.address);
    for _ in 0..4 {
        proxy.until_stat("cluster.one.membership_healthy", 2).await;
        pace(Duration::from_millis(200)).await;
        drop(dies.take());
        proxy.until_stat("cluster.one.membership_healthy", 1).await;
        pace(Duration::from_millis(200)).await;
        dies = Some(Origin::at("dies", back_at.unwrap()).await);
    }
    stop.store(true, Ordering::Relaxed);
    let mut answered = 0;
    for client in clients {
        answered += client.await.unwrap();
    }
    assert!(answered > 1_000, "{answered}");
    assert_eq!(proxy.stat("cluster.one.upstream_rq_2xx").await, answered);
    // Tries that failed count at the cluster; no client saw one.
    assert_eq!(proxy.stat("http.in.downstream_rq_5xx").await, 0);
}

/// So many requests of 64 clients, of which some leave while they wait and some are answered in part.
async fn many_requests(requests: u64) {
    let origin = Origin::http1("one").await;
    let broken = Origin::http1("broken").await;
    let listeners = [listener(
        "in",
        &[
            route("/broken", json!({ "cluster": "broken" })),
            route("/", json!({ "cluster": "one" })),
        ],
    )];
    let clusters =
        [static_cluster("one", &[origin.address]), static_cluster("broken", &[broken.address])];
    let proxy = Proxy::with(bootstrap(&listeners, &clusters)).await;
    let address = proxy.listener("in").await;
    let run = async |leave: bool| {
        let clients = (0..64).map(|seed| async move {
            let mut random = StdRng::seed_from_u64(seed);
            let mut client = Http1::connect(address).await;
            for _ in 0..requests / 64 {
                match random.random_range(0..20) {
                    0 if leave => {
                        // Leaves without waiting for the answer.
                        client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
                        client = Http1::connect(address).await;
                    }
                    1 if leave => {
                        client.send("GET /broken HTTP/1.1\r\nhost: t\r\n\r\n").await;
                        if client.try_answer("GET").await.is_none() {
                            client = Http1::connect(address).await;
                        }
                    }
                    _ => assert_eq!(client.get("/").await.text(), "one"),
                }
            }
        });
        futures_util::future::join_all(clients).await;
    };
    run(false).await;
    let total = proxy.stat("cluster.one.upstream_rq_total").await;
    let made = proxy.stat("cluster.one.upstream_cx_total").await;
    assert_eq!(total, requests / 64 * 64);
    assert!(made * 100 < total, "{made} connections for {total} requests");
    broken.script(Script::ending(Ending::After(100)));
    run(true).await;
    for cluster in ["one", "broken"] {
        for gauge in ["upstream_rq_active", "upstream_rq_pending_active"] {
            proxy.until_stat(&format!("cluster.{cluster}.{gauge}"), 0).await;
        }
        let count = async |name: &str| proxy.stat(&format!("cluster.{cluster}.{name}")).await;
        let (begun, ended) = (count("upstream_cx_total").await, count("upstream_cx_destroy").await);
        assert_eq!(count("upstream_cx_active").await, begun - ended);
    }
    proxy.until_stat("cluster.broken.upstream_cx_active", 0).await;
    // What is open is idle and no more than there were clients.
    let idle = proxy.stat("cluster.one.upstream_cx_active").await;
    assert!(idle <= 64, "{idle}");
    crate::harness::eventually("the origin counts the same", async || {
        (origin.open_connections() == proxy.stat("cluster.one.upstream_cx_active").await)
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn connections_are_used_again_and_none_is_left_over() {
    many_requests(25_600).await;
}

#[tokio::test]
#[ignore = "a measurement: the same with 100,000 requests"]
async fn connections_are_used_again_and_none_is_left_over_after_100_000() {
    many_requests(100_000).await;
}

/// An origin that is there or not.
struct Slot {
    address: SocketAddr,
    http2: bool,
    origin: Option<Origin>,
    /// Requests that earlier lives saw.
    seen: usize,
}

impl Slot {
    async fn new(http2: bool) -> Self {
        let origin = match http2 {
            true => Origin::http2("o").await,
            false => Origin::http1("o").await,
        };
        Self { address: origin.address, http2, origin: Some(origin), seen: 0 }
    }

    fn requests(&self) -> usize {
        self.seen + self.origin.as_ref().map_or(0, Origin::requests)
    }

    async fn bring_back(&mut self) {
        if self.origin.is_none() {
            self.origin = Some(match self.http2 {
                true => Origin::http2_at("o", self.address).await,
                false => Origin::at("o", self.address).await,
            });
        }
    }

    /// Something happens to it.
    async fn suffer(&mut self, random: &mut StdRng) {
        let what = random.random_range(0..8);
        let Some(origin) = &self.origin else {
            return if what < 4 {
                self.bring_back().await
            };
        };
        // Whatever waits goes on before another thing happens.
        origin.release();
        match what {
            0 => {
                self.seen += origin.requests();
                self.origin = None;
            }
            1 => origin.script(Script::held()),
            2 => origin.script(Script::ending(Ending::BeforeHead)),
            3 => origin.script(Script::ending(Ending::After(1_000))),
            4 => origin.script(Script::status(503)),
            5 => origin.script(Script { ending: Ending::ThenClose, ..Script::default() }),
            _ => origin.script(Script::default()),
        }
    }
}

/// What the clients saw.
#[derive(Default)]
struct Tally {
    sent: AtomicU64,
    whole: AtomicU64,
    refused: AtomicU64,
    broken: AtomicU64,
    left: AtomicU64,
}

async fn client(address: SocketAddr, seed: u64, stop: &AtomicBool, tally: &Tally) {
    let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
    let mut random = StdRng::seed_from_u64(seed);
    let mut client = Http1::connect(address).await;
    while !stop.load(Ordering::Relaxed) {
        let path = if random.random_bool(0.5) { "/one" } else { "/two" };
        let body = "x".repeat(random.random_range(0..3_000));
        let length = body.len();
        count(&tally.sent);
        let head = format!("POST {path} HTTP/1.1\r\nhost: t\r\ncontent-length: {length}\r\n\r\n");
        if client.try_send(format!("{head}{body}").as_bytes()).await.is_err() {
            count(&tally.broken);
            client = Http1::connect(address).await;
            continue;
        }
        if random.random_bool(0.02) {
            count(&tally.left);
            client = Http1::connect(address).await;
            continue;
        }
        match client.try_answer("POST").await {
            Some(answer) if answer.status == 200 => {
                let length = answer.body.len();
                assert!(answer.text() == "o" || length == 4_096, "a body of {length} bytes");
                count(&tally.whole);
            }
            Some(answer) => {
                assert!(matches!(answer.status, 503 | 504), "{}", answer.status);
                count(&tally.refused);
            }
            None => {
                count(&tally.broken);
                client = Http1::connect(address).await;
            }
        }
        // A pace that lets both cores do other tests meanwhile.
        pace(Duration::from_millis(random.random_range(0..20))).await;
    }
}

#[tokio::test]
async fn two_minutes_of_trouble_are_survived_and_add_up() {
    let mut random = StdRng::seed_from_u64(20_261_126);
    let mut slots = Vec::new();
    for number in 0..6 {
        slots.push(Slot::new(number >= 3).await);
    }
    let of = |slots: &[Slot]| slots.iter().map(|slot| slot.address).collect::<Vec<_>>();
    let clusters = [
        with(static_cluster("one", &of(&slots[..3])), watched()),
        with(over_http2(static_cluster("two", &of(&slots[3..]))), watched()),
    ];
    let routes = [route("/one", retrying("one", 3)), route("/two", retrying("two", 3))];
    let mut proxy = Proxy::with(bootstrap(&[listener("in", &routes)], &clusters)).await;
    let address = proxy.listener("in").await;
    let (stop, tally) = (Arc::new(AtomicBool::new(false)), Arc::new(Tally::default()));
    let clients: Vec<_> = (0..16)
        .map(|seed| {
            let (stop, tally) = (Arc::clone(&stop), Arc::clone(&tally));
            tokio::spawn(async move { client(address, seed, &stop, &tally).await })
        })
        .collect();
    let end = Instant::now() + Duration::from_secs(120);
    while Instant::now() < end {
        let victim = random.random_range(0..slots.len());
        slots[victim].suffer(&mut random).await;
        pace(Duration::from_millis(random.random_range(20..200))).await;
    }
    for slot in &mut slots {
        slot.bring_back().await;
        let origin = slot.origin.as_ref().unwrap();
        origin.script(Script::default());
        origin.release();
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let [sent, whole, refused, broken, left] =
        [&tally.sent, &tally.whole, &tally.refused, &tally.broken, &tally.left].map(of);
    assert_eq!(sent, whole + refused + broken + left);
    assert!(whole > sent / 2, "{whole} of {sent} answered, {refused} refused, {broken} broken");
    for cluster in ["one", "two"] {
        proxy.until_stat(&format!("cluster.{cluster}.upstream_rq_active"), 0).await;
        proxy.until_stat(&format!("cluster.{cluster}.upstream_rq_pending_active"), 0).await;
        proxy.until_stat(&format!("cluster.{cluster}.membership_healthy"), 3).await;
        proxy.until_stat(&format!("cluster.{cluster}.outlier_detection.ejections_active"), 0).await;
    }
    proxy.until_stat("http.in.downstream_rq_active", 0).await;
    // What was asked here is what came through the door, and nothing reached an origin uncounted.
    let asked = proxy.stat("http.in.downstream_rq_total").await;
    assert!(asked <= sent && asked >= whole + refused, "{asked} of {sent}");
    for (cluster, slots) in [("one", &slots[..3]), ("two", &slots[3..])] {
        let seen: usize = slots.iter().map(Slot::requests).sum();
        let given = proxy.stat(&format!("cluster.{cluster}.upstream_rq_total")).await;
        assert!(seen as u64 <= given, "{cluster}: origins saw {seen}, given {given}");
        let retried = proxy.stat(&format!("cluster.{cluster}.upstream_rq_retry")).await;
        assert!(retried > 0 && given > retried);
    }
    for path in ["/one", "/two"] {
        for _ in 0..12 {
            let answer = crate::harness::get(address, path).await;
            assert_eq!((answer.status, answer.text().as_str()), (200, "o"));
        }
    }
    assert!(proxy.terminate().await.success(), "it ends as it should");
}
