//! Proxies that share what they store through a Redis server.

#[path = "../../tier/redis_server.rs"]
#[expect(dead_code, reason = "the stories of the tier itself use the rest")]
mod redis_server;

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use self::redis_server::Server;
use super::{cached, caching, fresh, verdict};
use crate::harness::resources::{bootstrap, table};
use crate::harness::{Answer, Origin, Proxy, Script, eventually, get, request, run};

const CONNECTED: &str = "http.in.cache.tier.connected";
const WRITTEN: &str = "http.in.cache.tier.written";

fn sharing(server: &Server) -> Value {
    json!({ "shared_tier": { "redis": [server.address()], "timeout": "1s" } })
}

/// Two proxies of one origin.
async fn fleet(server: &Server, origin: &Origin) -> [(Proxy, SocketAddr); 2] {
    let one = cached(origin, sharing(server)).await;
    let other = cached(origin, sharing(server)).await;
    for (proxy, _) in [&one, &other] {
        proxy.until_stat(CONNECTED, 1).await;
    }
    [one, other]
}

/// Has a proxy store something, and waits until the fleet has it: that is given behind.
async fn store(
    (proxy, address): (&Proxy, SocketAddr),
    path: &str,
    headers: &[(&str, &str)],
) -> Answer {
    let before = proxy.stat(WRITTEN).await;
    let answer = request(address, "GET", path, headers, b"").await;
    assert!(verdict(&answer).ends_with("stored"), "{path}: {}", verdict(&answer));
    proxy.until_stat_at_least(WRITTEN, before + 1).await;
    answer
}

/// Asks until the answer is the fleet's.
async fn until_shared(address: SocketAddr, path: &str, headers: &[(&str, &str)]) {
    eventually("the other proxy has it from the first", async || {
        let answer = request(address, "GET", path, headers, b"").await;
        verdict(&answer).contains("detail=shared").then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_one_stores_another_finds_and_what_one_purges_nobody_has() {
    let Some(server) = Server::start(&[]).await else { return };
    let origin = Origin::http1("one").await;
    let [(one, first), (other, second)] = fleet(&server, &origin).await;
    let english = [("accept-language", "en")];
    let varying = || {
        Script::size(300_000)
            .header("cache-control", "max-age=60")
            .header("vary", "accept-language")
            .header("cache-tag", "t")
    };
    for (query, path) in [
        ("url=/d/x", "/d/x"),
        ("prefix=/d/", "/d/x"),
        ("pattern=*x", "/d/x"),
        ("tag=t", "/d/x"),
        ("everything", "/d/x"),
    ] {
        origin.script(varying());
        let stored = store((&one, first), path, &english).await;
        origin.script(Script::status(500));
        until_shared(second, path, &english).await;
        let german = request(second, "GET", path, &[("accept-language", "de")], b"").await;
        assert_eq!(german.status, 500, "it is for others");
        let hit = request(second, "GET", path, &english, b"").await;
        assert!(verdict(&hit).starts_with("hit; ttl=") && hit.body == stored.body);
        // Either may be asked to purge.
        let answer = other.admin("POST", &format!("/cache/purge?{query}")).await;
        assert!(answer.text().contains("\"untold\": false"), "{}", answer.text());
        eventually("the first proxy has heard of it", async || {
            let answer = request(first, "GET", path, &english, b"").await;
            (answer.status == 500).then_some(())
        })
        .await;
        assert_eq!(request(second, "GET", path, &english, b"").await.status, 500, "{query}");
    }
    // A request that changes something is told of too.
    origin.script(fresh());
    store((&one, first), "/e", &[]).await;
    until_shared(second, "/e", &[]).await;
    request(first, "POST", "/e", &[], b"x").await;
    origin.script(Script::status(500));
    eventually("the second proxy has heard of it", async || {
        (get(second, "/e").await.status == 500).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_server_that_is_away_costs_no_client_anything_but_what_is_shared() {
    let Some(mut server) = Server::start(&[]).await else { return };
    let origin = Origin::http1("one").await;
    origin.script(fresh());
    let [(one, first), (other, second)] = fleet(&server, &origin).await;
    store((&one, first), "/a", &[]).await;
    until_shared(second, "/a", &[]).await;
    server.signal("STOP");
    let begun = Instant::now();
    for n in 0..20 {
        assert_eq!(get(first, &format!("/slow/{n}")).await.status, 200);
    }
    // Each of the first few waits for a second; then nobody asks it any more.
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    server.signal("CONT");
    server.kill();
    one.until_stat(CONNECTED, 0).await;
    for n in 0..20 {
        assert_eq!(get(first, &format!("/dead/{n}")).await.status, 200);
    }
    let untold = one.admin("POST", "/cache/purge?url=/dead/1").await;
    assert!(untold.text().contains("\"untold\": true"), "{}", untold.text());
    assert!(!verdict(&get(first, "/dead/1").await).starts_with("hit"));
    server.restart().await;
    for proxy in [&one, &other] {
        proxy.until_stat(CONNECTED, 1).await;
    }
    // Whatever was missed meanwhile: what is stored is asked for before it is used.
    assert!(!verdict(&get(first, "/dead/2").await).starts_with("hit"));
    store((&one, first), "/b", &[]).await;
    until_shared(second, "/b", &[]).await;
}

#[tokio::test]
async fn a_tier_that_cannot_be_is_refused_by_name() {
    for (tier, wanted) in [
        (json!({}), "shared_tier: addresses"),
        (json!({ "redis": ["::"] }), "shared_tier: addresses[0]"),
        (json!({ "redis": ["localhost:1"], "timeout": "60s" }), "shared_tier.timeout"),
    ] {
        let routes = json!({ "route_config": table("local", &[]) });
        let listener = caching(json!({ "shared_tier": tier }), routes);
        let text = bootstrap(&[listener], &[]).to_string();
        let refused = run(["--mode", "validate", "--config-yaml", &text]).await.all();
        assert!(refused.contains(wanted), "{wanted}: {refused}");
    }
}
