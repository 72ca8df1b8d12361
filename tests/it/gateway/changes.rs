//! Edits of a gateway file and changes to its instances while requests are under way: none is lost.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::task::JoinHandle;

use super::world::World;
use crate::harness::{Script, eventually, get};

const TWO: &str = "\
services:
- name: s
  instances:
  - {id: a, url: $a}
  - {id: b, url: $b}
routes: [{prefix: /, service: s}]
";

/// Asks without a pause until it is stopped.
struct Traffic {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicU64>,
    task: JoinHandle<Vec<u16>>,
}

impl Traffic {
    fn start(address: SocketAddr) -> Self {
        let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&asked));
        let task = tokio::spawn(async move {
            let mut failed = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let answer = get(address, "/").await;
                count.fetch_add(1, Ordering::Relaxed);
                if answer.status != 200 {
                    failed.push(answer.status);
                }
            }
            failed
        });
        Self { stop, asked, task }
    }

    /// Waits for so many more requests.
    async fn more(&self, n: u64) {
        let wanted = self.asked.load(Ordering::Relaxed) + n;
        eventually("requests go on", async || {
            (self.asked.load(Ordering::Relaxed) >= wanted).then_some(())
        })
        .await;
    }

    /// None of them may have failed.
    async fn end(self) {
        self.more(20).await;
        self.stop.store(true, Ordering::Relaxed);
        assert_eq!(self.task.await.unwrap(), [0; 0]);
    }
}

async fn started() -> (World, SocketAddr, Traffic) {
    let mut world = World::new().await;
    world.write(TWO);
    world.start().await.unwrap();
    let address = world.proxy().new_listener("in").await;
    let traffic = Traffic::start(address);
    traffic.more(10).await;
    (world, address, traffic)
}

/// Waits until these alone answer.
async fn until_answered_by(address: SocketAddr, names: &[&str]) {
    eventually(&format!("{names:?} answer"), async || {
        let mut seen = Vec::new();
        for _ in 0..6 {
            seen.push(get(address, "/").await.text());
        }
        seen.sort();
        seen.dedup();
        (seen == names).then_some(())
    })
    .await;
}

#[tokio::test]
async fn instances_come_drain_and_go_without_a_request_lost() {
    let (world, address, traffic) = started().await;
    world
        .api("POST", "/v1/services/s/instances", "{\"id\": \"c\", \"url\": \"http://$c.address\"}")
        .await;
    until_answered_by(address, &["a", "b", "c"]).await;

    // One that drains finishes what it has.
    world.origin("a").script(Script::held());
    let held = tokio::spawn(async move {
        let mut last = get(address, "/").await.text();
        while last != "a" {
            last = get(address, "/").await.text();
        }
        last
    });
    // The traffic waits at it, too.
    eventually("it has requests", async || (world.origin("a").most_active() >= 2).then_some(()))
        .await;
    world.api("POST", "/v1/services/s/instances/a/drain", "").await;
    let drained = || world.proxy().admin_text("/clusters");
    eventually("it drains", async || drained().await.contains("eds_status_draining").then_some(()))
        .await;
    world.origin("a").script(Script::default());
    world.origin("a").release();
    assert_eq!(held.await.unwrap(), "a");
    until_answered_by(address, &["b", "c"]).await;

    world.api("DELETE", "/v1/services/s/instances/a/drain", "").await;
    until_answered_by(address, &["a", "b", "c"]).await;
    world.api("DELETE", "/v1/services/s/instances/b", "").await;
    until_answered_by(address, &["a", "c"]).await;
    traffic.end().await;
    assert_eq!(world.proxy().stat("cluster.s.membership_total").await, 2);
}

/// Most of a service drains before it is replaced. That is no reason for a panic.
#[tokio::test]
async fn however_many_drain_they_get_nothing_new() {
    for strategy in ["round_robin", "least_request", "ring_hash"] {
        let mut world = World::new().await;
        world.write(&format!(
            "services: [{{name: s, strategy: {strategy}, instances: [{{id: a, url: $a}}, {{id: b, url: $b}}, {{id: c, url: $c}}]}}]
routes: [{{service: s}}]\n"
        ));
        world.start().await.unwrap();
        let address = world.proxy().listener("in").await;
        for drained in ["a", "b"] {
            world.api("POST", &format!("/v1/services/s/instances/{drained}/drain"), "").await;
        }
        eventually("the last takes all", async || {
            for _ in 0..20 {
                if get(address, "/").await.text() != "c" {
                    return None;
                }
            }
            Some(())
        })
        .await;
        assert_eq!(world.proxy().stat("cluster.s.lb_healthy_panic").await, 0, "{strategy}");
        world.api("POST", "/v1/services/s/instances/c/drain", "").await;
        let status = async || get(address, "/").await.status;
        eventually("there is nobody", async || (status().await == 503).then_some(())).await;
        world.api("DELETE", "/v1/services/s/instances/a/drain", "").await;
        until_answered_by(address, &["a"]).await;
    }
}

#[tokio::test]
async fn a_bad_edit_changes_nothing_and_a_good_one_what_it_says() {
    let (world, address, traffic) = started().await;
    world.write(&TWO.replace("services", "srevices"));
    let refused = || std::future::ready(world.management().status().groups.remove(0).errors);
    let error = eventually("it is refused", async || refused().await.into_iter().next()).await;
    assert!(error.message.contains("did you mean \"services\"?"), "{error}");
    traffic.more(20).await;
    until_answered_by(address, &["a", "b"]).await;

    let updates = async |kind: &str| world.proxy().stat(&format!("{kind}.update_success")).await;
    let before = (updates("listener_manager.lds").await, updates("cluster_manager.cds").await);
    world.write(&TWO.replace("  - {id: b, url: $b}\n", "  - {id: c, url: $c}\n"));
    until_answered_by(address, &["a", "c"]).await;
    // The endpoints came, and nothing else.
    let after = (updates("listener_manager.lds").await, updates("cluster_manager.cds").await);
    assert_eq!(after, before);

    world.write(
        &TWO.replace("{prefix: /, service: s}", "{prefix: /, service: s, rewrite: {path: /x/}}"),
    );
    eventually("paths are rewritten", async || {
        get(address, "/y").await;
        let last = world.origin("a").last();
        last.uri.path().starts_with("/x/").then_some(())
    })
    .await;
    traffic.end().await;
}

#[tokio::test]
async fn a_lower_limit_holds_for_connections_that_are_there_already() {
    let limited = |most: u32| {
        format!("$one\nconnection_pool: {{max_connections: {most}, max_idle_connections: 100}}\n")
    };
    let mut world = World::new().await;
    world.write(&limited(100));
    world.start().await.unwrap();
    let address = world.proxy().new_listener("in").await;
    let origin = world.origin("a");
    origin.script(Script::held());
    let ask = || (0..6).map(|_| tokio::spawn(async move { get(address, "/").await.status }));
    let first: Vec<_> = ask().collect();
    origin.until_active(6).await;
    origin.release();
    for status in first {
        assert_eq!(status.await.unwrap(), 200);
    }
    assert_eq!(origin.open_connections(), 6, "they are kept");

    world.write(&limited(2));
    eventually("they are closed", async || (origin.open_connections() == 0).then_some(())).await;
    let second: Vec<_> = ask().collect();
    world.proxy().until_stat("cluster.s.upstream_rq_pending_active", 4).await;
    origin.until_active(2).await;
    assert_eq!(origin.open_connections(), 2);
    origin.script(Script::default());
    origin.release();
    for status in second {
        assert_eq!(status.await.unwrap(), 200);
    }
    assert_eq!(origin.connections(), 6 + 2);
}
