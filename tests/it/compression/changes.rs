//! Compression while its configuration changes: by routes, listeners and resources of its own, in mid-body.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{COMPRESSION, ask, compression, filtered, lines, page, plain};
use crate::harness::resources::{ads, rds, route, table, to, typed, with};
use crate::harness::scripted::Delta;
use crate::harness::{Http1, Kind, Script, ack_of, delta, eventually, nack_of};
use crate::xds_world::World;

fn of(coding: &str) -> Value {
    json!({ "encodings": [{ "coding": coding }] })
}

/// Waits until responses come in this coding. The workers take a version up each for itself, and which one
/// answers is chance, so it must be so often.
async fn until(address: SocketAddr, coding: &str) {
    let mut in_a_row = 0;
    eventually(&format!("responses are in {coding:?}"), async || {
        let answer = ask(address, "/", "gzip, br, zstd").await;
        let is_so = answer.header("content-encoding") == coding;
        in_a_row = if is_so { in_a_row + 1 } else { 0 };
        (in_a_row == 20).then_some(())
    })
    .await;
}

/// A response under way: some of its body is here.
struct Begun {
    client: Http1,
    headers: http::HeaderMap,
    text: String,
}

async fn begin(world: &World<Delta>, coding: &str) -> Begun {
    let text = lines(50_000);
    world.origin.script(Script { held_after: Some(200_000), ..page(&text) });
    let mut client = Http1::connect(world.address).await;
    client.send("GET / HTTP/1.1\r\nhost: test\r\naccept-encoding: gzip, br, zstd\r\n\r\n").await;
    let (_, headers) = client.head().await.unwrap();
    assert_eq!(headers["content-encoding"], coding);
    world.origin.script(page(&lines(1_000)));
    Begun { client, headers, text }
}

impl Begun {
    /// The rest of it comes as it began.
    async fn end(mut self, world: &World<Delta>, coding: &str) {
        world.origin.release();
        let (body, _) = self.client.body(&self.headers).await.expect("a whole body");
        assert!(super::codings::decode(coding, &body).unwrap() == self.text.as_bytes());
    }
}

#[tokio::test]
async fn a_listener_changes_under_bodies_that_end_as_they_began() {
    let mut world = World::delta().await;
    world.origin.script(page(&lines(1_000)));
    let listener = |config| filtered(&[compression(config)], rds("table"));
    world.push(Kind::Listener, "2", &[listener(of("gzip"))], &[]).await;
    until(world.address, "gzip").await;
    let begun = begin(&world, "gzip").await;
    world.push(Kind::Listener, "3", &[listener(of("br"))], &[]).await;
    until(world.address, "br").await;
    begun.end(&world, "gzip").await;

    // What is no configuration is refused by its path, and what was there goes on.
    let bad = json!({ "encodings": [{ "coding": "gzip", "level": 10 }], "bodies": { "content_types": ["x"] },
        "request_decompression": { "max_ratio": 0 } });
    world.stream.respond(delta(Kind::Listener, "4", &[listener(bad)], &[])).await;
    let (_, text) = nack_of(&mut world.stream, Kind::Listener, "4").await;
    for field in [
        "http_filters[0].typed_config.encodings[0].level: 10 is not in 0..=9",
        "bodies.content_types[0]",
        "request_decompression.max_ratio: 0 is not",
    ] {
        assert!(text.contains(field), "{field}: {text}");
    }
    until(world.address, "br").await;
    // What it counts goes on over the versions.
    let cell = "http.in.compression.br.response.bodies";
    let before = world.proxy.stat(cell).await;
    world
        .push(
            Kind::Listener,
            "5",
            &[listener(json!({ "encodings": [{ "coding": "br" }],
        "excluded_paths": ["/v5"] }))],
            &[],
        )
        .await;
    eventually("the new version is in service", async || {
        let excluded = ask(world.address, "/v5", "br").await;
        excluded.header("content-encoding").is_empty().then_some(())
    })
    .await;
    until(world.address, "br").await;
    assert!(before >= 20 && world.proxy.stat(cell).await >= before + 20);
}

#[tokio::test]
async fn routes_change_under_bodies_that_end_as_they_began() {
    let mut world = World::delta().await;
    world.origin.script(page(&lines(1_000)));
    let listener = filtered(&[compression(of("gzip"))], rds("table"));
    world.push(Kind::Listener, "2", &[listener], &[]).await;
    until(world.address, "gzip").await;
    let routed = |config: Value| {
        let own = json!({ "typed_per_filter_config": { "compression": config } });
        table("table", &[with(route("/", json!({ "cluster": "one" })), own)])
    };
    let begun = begin(&world, "gzip").await;
    let off = typed("envoy.config.route.v3.FilterConfig", json!({ "disabled": true }));
    world.push(Kind::Routes, "2", &[routed(off)], &[]).await;
    until(world.address, "").await;
    world.push(Kind::Routes, "3", &[routed(typed(COMPRESSION, of("zstd")))], &[]).await;
    until(world.address, "zstd").await;
    let bad = routed(typed(COMPRESSION, json!({ "excluded_paths": ["a"] })));
    world.stream.respond(delta(Kind::Routes, "4", &[bad], &[])).await;
    let (_, text) = nack_of(&mut world.stream, Kind::Routes, "4").await;
    assert!(text.contains("[\"compression\"].excluded_paths[0]: \"a\" is not a path"), "{text}");
    world.push(Kind::Routes, "5", &[table("table", &[to("one")])], &[]).await;
    until(world.address, "gzip").await;
    begun.end(&world, "gzip").await;
}

#[tokio::test]
async fn a_policy_that_is_discovered_changes_under_bodies_that_end_as_they_began() {
    let mut world = World::delta().await;
    world.origin.script(page(&lines(1_000)));
    let url = format!("type.googleapis.com/{COMPRESSION}");
    let source = json!({ "config_source": ads(), "type_urls": [url] });
    let filter = json!({ "name": "policy", "config_discovery": source });
    let listener = filtered(&[filter], rds("table"));
    world.stream.respond(delta(Kind::Listener, "2", &[listener], &[])).await;
    let asked = world.stream.request(Kind::Extension).await;
    assert_eq!(asked.resource_names_subscribe, ["policy"]);
    let policy = |config| json!({ "name": "policy", "typed_config": typed(COMPRESSION, config) });
    world.push(Kind::Extension, "1", &[policy(of("br"))], &[]).await;
    ack_of(&mut world.stream, Kind::Listener, "2").await;
    until(world.address, "br").await;
    let begun = begin(&world, "br").await;
    world.push(Kind::Extension, "2", &[policy(of("gzip"))], &[]).await;
    until(world.address, "gzip").await;
    let bad = policy(json!({ "excluded_statuses": [100] }));
    world.stream.respond(delta(Kind::Extension, "3", &[bad], &[])).await;
    let (_, text) = nack_of(&mut world.stream, Kind::Extension, "3").await;
    assert!(text.contains("typed_config.excluded_statuses[0]: 100 is not in 200..=599"), "{text}");
    begun.end(&world, "br").await;
    let answer = ask(world.address, "/", "gzip").await;
    assert!(plain(&answer) == lines(1_000));
}
