//! The whole client against a scripted management server, over real sockets.

mod server;

use prost_types::Any;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use self::server::{Management, soon};
use super::super::{Events, Source, Update, Verdict, Xds};
use super::*;
use crate::proto::envoy::config::core::v3::Node;
use crate::proto::envoy::service::discovery::v3::{
    DeltaDiscoveryResponse, DiscoveryResponse, Resource,
};

const CDS: ResourceType = ResourceType::Cluster;
const EDS: ResourceType = ResourceType::Endpoints;

fn quick() -> BackoffOptions {
    BackoffOptions::try_new(Duration::from_millis(5), None).unwrap()
}

fn start(source: &Source, options: GrpcOptions) -> (Xds, Events) {
    let node = Node { id: "test".into(), ..Node::default() };
    let (xds, events) = Xds::start(node, 16, |_| Err("no files here".into()));
    xds.add_grpc(source.clone(), GrpcOptions { backoff: quick(), ..options });
    (xds, events)
}

async fn update(events: &mut Events) -> Update {
    loop {
        if let Event::Update(update) = soon(events.recv()).await.unwrap() {
            return update;
        }
    }
}

async fn disconnected(events: &mut Events) -> String {
    loop {
        if let Event::Disconnected { error, .. } = soon(events.recv()).await.unwrap() {
            return error;
        }
    }
}

fn sotw(ty: ResourceType, version: &str, size: usize) -> DiscoveryResponse {
    DiscoveryResponse {
        version_info: version.into(),
        type_url: ty.type_url().into(),
        nonce: format!("nonce-{version}"),
        resources: vec![Any { type_url: ty.type_url().into(), value: vec![0; size] }],
        ..Default::default()
    }
}

fn delta(ty: ResourceType, name: &str, ttl: Option<i32>) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse {
        type_url: ty.type_url().into(),
        nonce: format!("nonce-{name}"),
        resources: vec![Resource {
            name: name.into(),
            version: "1".into(),
            resource: Some(Any { type_url: ty.type_url().into(), value: vec![] }),
            ttl: ttl.map(|ms| prost_types::Duration { seconds: 0, nanos: ms * 1_000_000 }),
            ..Default::default()
        }],
        ..Default::default()
    }
}

#[tokio::test]
async fn an_aggregated_stream_carries_several_types_and_comes_back_with_their_versions() {
    let mut management = Management::start().await;
    let mut options = GrpcOptions::new(vec![management.endpoint()], Variant::Sotw);
    options.initial_metadata.insert("x-token", "secret".parse().unwrap());
    let (xds, mut events) = start(&Source::Ads, options);
    xds.subscribe_all(&Source::Ads, CDS);

    let mut stream = management.sotw().await;
    assert_eq!(stream.service, "ADS");
    assert_eq!(stream.metadata.get("x-token").unwrap(), "secret");
    let first = stream.request().await;
    assert_eq!(
        (first.type_url.as_str(), first.node.unwrap().id.as_str()),
        (CDS.type_url(), "test")
    );
    stream.respond(sotw(CDS, "1", 8)).await;
    let clusters = update(&mut events).await;
    assert_eq!((clusters.ty, clusters.full, clusters.resources.len()), (CDS, true, 1));
    xds.subscribe(&Source::Ads, EDS, &["a".into()]);
    xds.verdict(clusters.token, Verdict::accept());
    let (endpoints, ack) = (stream.request().await, stream.request().await);
    assert_eq!(endpoints.type_url, EDS.type_url());
    assert_eq!((ack.version_info.as_str(), ack.response_nonce.as_str()), ("1", "nonce-1"));
    assert_eq!((endpoints.node, ack.node), (None, None));
    stream.respond(sotw(EDS, "7", 8)).await;
    let assignment = update(&mut events).await;
    xds.verdict(assignment.token, Verdict::accept());
    assert_eq!(stream.request().await.response_nonce, "nonce-7");
    assert!(xds.status()[0].connected);

    stream.fail(Status::unavailable("restarting")).await;
    assert!(disconnected(&mut events).await.contains("restarting"));
    let mut stream = management.sotw().await;
    let (clusters, endpoints) = (stream.request().await, stream.request().await);
    assert!(clusters.node.is_some() && endpoints.node.is_none());
    assert_eq!((clusters.version_info.as_str(), clusters.response_nonce.as_str()), ("1", ""));
    assert_eq!((endpoints.version_info.as_str(), endpoints.response_nonce.as_str()), ("7", ""));
    assert_eq!(endpoints.resource_names, ["a"]);
}

#[tokio::test]
async fn a_source_of_its_own_has_a_stream_for_each_type_at_its_own_service() {
    for variant in [Variant::Sotw, Variant::Delta] {
        let mut management = Management::start().await;
        let source = Source::Grpc("own".into());
        let options = GrpcOptions::new(vec![management.endpoint()], variant);
        let (xds, _events) = start(&source, options);
        xds.subscribe_all(&source, CDS);
        xds.subscribe(&source, EDS, &["a".into()]);
        let mut services = Vec::new();
        for _ in 0..2 {
            if variant == Variant::Sotw {
                let mut stream = management.sotw().await;
                assert!(stream.request().await.node.is_some(), "each stream says who we are");
                services.push(stream.service);
            } else {
                let mut stream = management.delta().await;
                assert!(stream.request().await.node.is_some());
                services.push(stream.service);
            }
        }
        services.sort_unstable();
        assert_eq!(services, ["CDS", "EDS"]);
    }
}

#[tokio::test]
async fn servers_are_tried_in_turn() {
    let gone = Management::start().await.endpoint();
    let mut management = Management::start().await;
    let options = GrpcOptions::new(vec![gone, management.endpoint()], Variant::Delta);
    let (xds, mut events) = start(&Source::Ads, options);
    xds.subscribe_all(&Source::Ads, CDS);
    assert!(disconnected(&mut events).await.contains("cannot connect"));
    let mut stream = management.delta().await;
    assert_eq!(stream.request().await.type_url, CDS.type_url());
    assert!(matches!(soon(events.recv()).await, Some(Event::Connected { ty: None, .. })));
}

#[tokio::test]
async fn a_stream_that_the_server_closes_is_opened_again() {
    let mut management = Management::start().await;
    let options = GrpcOptions::new(vec![management.endpoint()], Variant::Delta);
    let (xds, mut events) = start(&Source::Ads, options);
    xds.subscribe(&Source::Ads, EDS, &["a".into()]);
    let mut stream = management.delta().await;
    stream.request().await;
    stream.respond(delta(EDS, "a", None)).await;
    xds.verdict(update(&mut events).await.token, Verdict::accept());
    assert_eq!(stream.request().await.response_nonce, "nonce-a");
    drop(stream);
    let again = management.delta().await.request().await;
    assert_eq!(again.initial_resource_versions["a"], "1");
}

#[tokio::test]
async fn responses_may_be_far_larger_than_the_default_of_grpc_but_not_endless() {
    let mut management = Management::start().await;
    let mut options = GrpcOptions::new(vec![management.endpoint()], Variant::Sotw);
    let (xds, mut events) = start(&Source::Ads, options.clone());
    xds.subscribe_all(&Source::Ads, CDS);
    let mut stream = management.sotw().await;
    stream.request().await;
    stream.respond(sotw(CDS, "1", 9 << 20)).await;
    assert_eq!(update(&mut events).await.resources[0].body.value.len(), 9 << 20);

    options.max_receive_bytes = 1000;
    let (xds, mut events) = start(&Source::Ads, options);
    xds.subscribe_all(&Source::Ads, CDS);
    let mut stream = management.sotw().await;
    stream.request().await;
    stream.respond(sotw(CDS, "1", 2000)).await;
    assert!(disconnected(&mut events).await.contains("1000"));
}

#[tokio::test]
async fn a_lifetime_ends_although_the_server_is_gone() {
    let mut management = Management::start().await;
    let options = GrpcOptions::new(vec![management.endpoint()], Variant::Delta);
    let (xds, mut events) = start(&Source::Ads, options);
    xds.subscribe(&Source::Ads, EDS, &["a".into()]);
    let mut stream = management.delta().await;
    stream.request().await;
    stream.respond(delta(EDS, "a", Some(300))).await;
    xds.verdict(update(&mut events).await.token, Verdict::accept());
    stream.request().await;
    drop((stream, management));
    let end = update(&mut events).await;
    assert!(end.expired && end.removed == ["a"], "{end:?}");
}

#[tokio::test]
async fn a_server_is_read_while_control_is_slow() {
    let mut management = Management::start().await;
    let options = GrpcOptions::new(vec![management.endpoint()], Variant::Delta);
    let (xds, mut events) = start(&Source::Ads, options);
    xds.subscribe_all(&Source::Ads, CDS);
    xds.subscribe(&Source::Ads, EDS, &["a".into()]);
    let mut stream = management.delta().await;
    stream.request().await;
    stream.request().await;
    stream.respond(delta(CDS, "c", None)).await;
    let slow = update(&mut events).await;
    stream.respond(delta(CDS, "d", None)).await;
    stream.respond(delta(EDS, "a", None)).await;
    let quick = update(&mut events).await;
    assert_eq!(quick.ty, EDS);
    xds.verdict(quick.token, Verdict::accept());
    assert_eq!(stream.request().await.response_nonce, "nonce-a");
    xds.verdict(slow.token, Verdict::accept());
    assert_eq!(stream.request().await.response_nonce, "nonce-c");
    assert_eq!(update(&mut events).await.resources[0].name.as_deref(), Some("d"));
}

#[tokio::test]
async fn dropping_the_handle_ends_the_stream() {
    let mut management = Management::start().await;
    let options = GrpcOptions::new(vec![management.endpoint()], Variant::Sotw);
    let (xds, events) = start(&Source::Ads, options);
    xds.subscribe_all(&Source::Ads, CDS);
    let mut stream = management.sotw().await;
    stream.request().await;
    drop((xds, events));
    assert!(stream.ended().await);
}

#[test]
fn waits_grow_until_a_response_and_a_planned_end_is_not_a_failure() {
    let mut rng = SmallRng::seed_from_u64(7);
    let (base, long) = (Duration::from_millis(500), Duration::from_secs(60));
    let mut backoff = Backoff::new(BackoffOptions::default());
    let end = |planned, responded| End { error: String::new(), planned, responded };
    let mut longest = |end: End, lived, backoff: &mut Backoff| {
        (0..50).map(|_| end.wait(lived, backoff, &mut rng)).max().unwrap()
    };
    assert!(longest(end(true, false), long, &mut backoff) > base, "no response, no reset");
    assert!(longest(end(false, true), long, &mut backoff) <= base, "a response resets");
    assert_eq!(longest(end(true, true), long, &mut backoff), Duration::ZERO);
    assert!(longest(end(true, true), Duration::ZERO, &mut backoff) > Duration::ZERO, "no spinning");
}

#[test]
fn an_authority_replaces_that_of_the_address() {
    let endpoint = Endpoint::from_static("http://127.0.0.1:1");
    let mut options = GrpcOptions::new(vec![endpoint], Variant::Sotw);
    options.authority = Some(Authority::from_static("xds_cluster"));
    assert!(options.endpoint(3).is_ok());
    options.endpoints.clear();
    assert!(options.endpoint(0).unwrap_err().contains("no server"));
}
