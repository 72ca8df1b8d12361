//! One worker encodes large bodies, and whoever else it serves does not notice.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{COMPRESSION, compression, filtered, lines, page};
use crate::harness::resources::{bootstrap, route, static_cluster, table, typed, with};
use crate::harness::{Http1, Origin, Proxy, ProxyBuilder};

/// How long others waited for their answers, shortest first.
struct Delays(Vec<Duration>);

impl Delays {
    fn at(&self, share: f64) -> Duration {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a place in it"
        )]
        let place = (self.0.len() as f64 * share) as usize;
        self.0[place.min(self.0.len() - 1)]
    }
}

/// Asks one after the other for what is answered at once.
async fn delays(proxy: &Proxy, count: usize) -> Delays {
    let mut client = Http1::connect(proxy.listener("in").await).await;
    let mut delays = Vec::with_capacity(count);
    for _ in 0..count {
        let begun = Instant::now();
        assert_eq!(client.get("/quick").await.status, 200);
        delays.push(begun.elapsed());
    }
    delays.sort();
    Delays(delays)
}

/// A proxy of one worker, which encodes what is below the name of a coding at this level.
async fn of_one_worker(origin: &Origin, encodings: &[(&str, u32)]) -> Proxy {
    let quick = json!({
        "match": { "prefix": "/quick" },
        "direct_response": { "status": 200, "body": { "inline_string": "quick" } },
    });
    let mut routes = vec![quick];
    for (coding, level) in encodings {
        let config = json!({ "encodings": [{ "coding": coding, "level": level }] });
        let action = json!({ "cluster": "one", "timeout": "0s" });
        let own =
            json!({ "typed_per_filter_config": { "compression": typed(COMPRESSION, config) } });
        routes.push(with(route(&format!("/{coding}"), action), own));
    }
    let routes: Value = json!({ "route_config": table("local", &routes) });
    let listener = filtered(&[compression(json!({}))], routes);
    let bootstrap = bootstrap(&[listener], &[static_cluster("one", &[origin.address])]);
    ProxyBuilder::new(bootstrap).args(["--concurrency", "1"]).ready().await
}

/// The delays of others before and while large bodies are encoded, so many in each way at a time.
async fn delays_beside(encodings: &[(&str, u32)], bodies: usize, count: usize) -> [Delays; 2] {
    let origin = Origin::http1("one").await;
    origin.script(page(&lines(1_600_000)));
    let proxy = of_one_worker(&origin, encodings).await;
    let alone = delays(&proxy, count).await;
    let address = proxy.listener("in").await;
    let mut readers = JoinSet::new();
    for (coding, _) in encodings {
        for _ in 0..bodies {
            let request = format!(
                "GET /{coding} HTTP/1.1\r\nhost: test\r\naccept-encoding: {coding}\r\n\r\n"
            );
            readers.spawn(async move {
                loop {
                    let mut client = Http1::connect(address).await;
                    client.send(&request).await;
                    let (_, headers) = client.head().await.unwrap();
                    client.body(&headers).await.expect("a whole body");
                }
            });
        }
    }
    for (coding, _) in encodings {
        let cell = format!("http.in.compression.{coding}.response.active");
        proxy.until_stat_at_least(&cell, 1).await;
    }
    let beside = delays(&proxy, count).await;
    assert!(readers.try_join_next().is_none(), "they read all the time");
    [alone, beside]
}

#[tokio::test]
async fn others_are_served_while_large_bodies_are_encoded() {
    // Unoptimised, each step takes many times as long; but others have their turn after each of them.
    let [_, beside] = delays_beside(&[("gzip", 6), ("br", 4), ("zstd", 3)], 1, 50).await;
    assert!(beside.at(0.5) < Duration::from_millis(100), "{:?}", beside.at(0.5));
}

/// `cargo test --release --test it others_hardly_wait -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement of a release build"]
async fn others_hardly_wait_while_large_bodies_are_encoded() {
    let all = [("gzip", 9), ("br", 11), ("zstd", 19)];
    for encodings in [&all[..1], &all[1..2], &all[2..], &[("gzip", 6)], &[("zstd", 3)], &all] {
        let [alone, beside] = delays_beside(encodings, 2, 3_000).await;
        let [before, median] = [&alone, &beside].map(|delays| delays.at(0.5));
        let p99 = beside.at(0.99);
        let most = beside.at(1.0);
        eprintln!(
            "{encodings:?}: {before:?} alone; beside: median {median:?}, p99 {p99:?}, most {most:?}"
        );
        // A turn of each body. What else the machine does may make it more now and then.
        assert!(median < Duration::from_millis(5), "{encodings:?}: {median:?}");
    }
}
