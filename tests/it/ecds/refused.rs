//! Configurations that cannot be used: refused with the reason, and what was there stays.

use prost_types::Any;
use serde_json::{Value, json};

use super::{
    BUFFER, MUTATION, ROUTER, cell, discovered, filtered, listener_named, policy, says, until_says,
    world_with,
};
use crate::harness::resources::{bootstrap, hcm, listener_of, router, table, to, typed};
use crate::harness::{Kind, delta, get, nack_of, run};
use crate::xds_world::World;

#[tokio::test]
async fn a_bad_configuration_is_refused_by_path_and_the_old_one_stays() {
    let mut world = world_with(discovered(&[MUTATION, BUFFER], json!({})), says("one")).await;
    until_says(world.address, "one").await;
    let header = json!({ "key": "bad name", "value": "x" });
    let bad_header =
        json!({ "mutations": { "request_mutations": [{ "append": { "header": header } }] } });
    let cases = [
        (
            typed(BUFFER, json!({ "max_request_bytes": 0 })),
            "typed_config.max_request_bytes: 0 is not",
        ),
        (typed(MUTATION, bad_header), "typed_config.mutations.request_mutations[0].append"),
        (typed(ROUTER, json!({})), "the filter's type_urls are"),
        (
            typed("envoy.config.core.v3.Node", json!({})),
            "unknown extension type envoy.config.core.v3.Node",
        ),
    ];
    let mut refused = 0;
    for (config, reason) in cases {
        refused += 1;
        let version = format!("bad-{refused}");
        let response = delta(Kind::Extension, &version, &[policy(config)], &[]);
        world.stream.respond(response).await;
        let (_, text) = nack_of(&mut world.stream, Kind::Extension, &version).await;
        assert!(text.starts_with("TypedExtensionConfig \"policy\": typed_config"), "{text}");
        assert!(text.contains(reason), "{text}");
        world.proxy.until_stat(&cell("config_fail"), refused).await;
        until_says(world.address, "one").await;
    }
    // Bytes that are no message of their type.
    let mut response = delta(Kind::Extension, "torn", &[policy(says("torn"))], &[]);
    let body: &mut Any = response.resources[0].resource.as_mut().unwrap();
    let end = body.value.len() - 2;
    body.value.truncate(end);
    world.stream.respond(response).await;
    let (_, text) = nack_of(&mut world.stream, Kind::Extension, "torn").await;
    assert!(text.contains("policy") && text.contains("decoded"), "{text}");
    assert_eq!(get(world.address, "/").await.header("x-policy"), "one");
    assert_eq!(world.proxy.stat(&cell("update_rejected")).await, refused + 1);
    let dump = world.proxy.admin_json("/config_dump?resource=ecds_filters").await;
    let shown = &dump["configs"][0];
    assert_eq!((&shown["version_info"], &shown["client_status"]), (&json!("1"), &json!("NACKED")));
    assert_eq!(shown["error_state"]["version_info"], "torn");
    // The next good one is taken.
    world.push(Kind::Extension, "2", &[policy(says("two"))], &[]).await;
    until_says(world.address, "two").await;
}

#[tokio::test]
async fn a_configuration_must_suit_every_listener_that_names_it() {
    let mut world = world_with(discovered(&[MUTATION, BUFFER], json!({})), says("one")).await;
    let other = listener_named("other", &[discovered(&[MUTATION], json!({}))]);
    world.push(Kind::Listener, "3", &[other], &[]).await;
    let buffer = policy(typed(BUFFER, json!({ "max_request_bytes": 4 })));
    world.stream.respond(delta(Kind::Extension, "2", std::slice::from_ref(&buffer), &[])).await;
    let (_, text) = nack_of(&mut world.stream, Kind::Extension, "2").await;
    let expected = format!(
        "TypedExtensionConfig \"policy\": typed_config: listener \"other\", http_filters[0]: \
         {BUFFER}: the filter's type_urls are {MUTATION}"
    );
    assert_eq!(text, expected);
    until_says(world.address, "one").await;
    world.push(Kind::Listener, "4", &[], &["other"]).await;
    world.push(Kind::Extension, "3", &[buffer], &[]).await;
    until_says(world.address, "").await;
}

#[tokio::test]
async fn a_router_cannot_come_where_another_filter_stands() {
    let mut world = World::delta().await;
    let listener = filtered(&[discovered(&[ROUTER, MUTATION], json!({}))]);
    world.stream.respond(delta(Kind::Listener, "2", &[listener], &[])).await;
    world.stream.request(Kind::Extension).await;
    let router = policy(typed(ROUTER, json!({})));
    world.stream.respond(delta(Kind::Extension, "1", &[router], &[])).await;
    let (_, text) = nack_of(&mut world.stream, Kind::Extension, "1").await;
    assert!(text.contains("the router must be the last filter"), "{text}");
    // A refusal is an answer: the listener waits no longer, and fails closed.
    world.until_status("/", 500).await;
    world.push(Kind::Extension, "2", &[policy(says("one"))], &[]).await;
    until_says(world.address, "one").await;
}

#[tokio::test]
async fn references_that_cannot_work_are_refused_with_their_listener() {
    let broken = |more: Value| filtered(&[discovered(&[MUTATION], more)]);
    let mut sourceless = broken(json!({}));
    let filter =
        &mut sourceless["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"][0];
    filter["config_discovery"].as_object_mut().unwrap().remove("config_source");
    let mut last = broken(json!({}));
    let filters = &mut last["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"];
    filters[0]["disabled"] = json!(true);
    filters.as_array_mut().unwrap().pop();
    let at = "http_filters[0].config_discovery";
    let cases = [
        (broken(json!({ "type_urls": [] })), format!("{at}.type_urls: is required")),
        (
            broken(json!({ "type_urls": ["type.googleapis.com/envoy.config.core.v3.Node"] })),
            format!("{at}.type_urls[0]: unknown extension type envoy.config.core.v3.Node"),
        ),
        (
            broken(json!({ "apply_default_config_without_warming": true })),
            format!("{at}.apply_default_config_without_warming: there is no default_config"),
        ),
        (
            broken(json!({ "default_config": typed(BUFFER, json!({ "max_request_bytes": 1 })) })),
            format!("{at}.default_config: {BUFFER}: the filter's type_urls are {MUTATION}"),
        ),
        (
            broken(
                json!({ "default_config": typed(ROUTER, json!({})), "type_urls": [format!("x/{ROUTER}")] }),
            ),
            format!("{at}.default_config: \"policy\": the router must be the last filter"),
        ),
        (sourceless, format!("{at}.config_source: is required")),
        (last, "http_filters[0].disabled: true: the router, which is last".to_owned()),
    ];
    let mut world = World::delta().await;
    for (n, (listener, reason)) in cases.into_iter().enumerate() {
        let version = format!("bad-{n}");
        world.stream.respond(delta(Kind::Listener, &version, &[listener], &[])).await;
        let (_, text) = nack_of(&mut world.stream, Kind::Listener, &version).await;
        assert!(text.contains(&reason), "{text}\nlacks {reason}");
    }
    assert_eq!(get(world.address, "/").await.text(), "one");
}

#[tokio::test]
async fn a_source_that_the_bootstrap_does_not_have_is_an_error_of_the_listener() {
    let filters = json!({ "http_filters": [discovered(&[MUTATION], json!({})), router()] });
    let routes = json!({ "route_config": table("local", &[to("one")]) });
    let listener = listener_of("in", hcm(routes, filters));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bootstrap.json");
    std::fs::write(&file, bootstrap(&[listener], &[]).to_string()).unwrap();
    let said = run(["-c", file.to_str().unwrap()]).await;
    assert!(said.code.is_some_and(|code| code != 0));
    let text = said.all();
    assert!(text.contains("http_filters[0].config_discovery.config_source"), "{text}");
    assert!(text.contains("ads_config"), "{text}");
}
