//! What a stream owes its server whatever the types on it.

use std::time::Duration;

use super::super::delta::Delta;
use super::super::rate::RateLimit;
use super::super::sotw::Sotw;
use super::*;
use crate::proto::envoy::config::core::v3::ControlPlane;
use crate::proto::envoy::service::discovery::v3::{
    DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, ResourceError,
};

fn policy(first_only: bool) -> NodePolicy {
    NodePolicy { node: Node { id: "n".into(), ..Node::default() }, first_only }
}

fn ads(first_only: bool, limit: Option<RateLimit>) -> Mux<Sotw> {
    Mux::new(Source::Ads, None, policy(first_only), limit.map(Bucket::new))
}

fn requests(mux: &mut Mux<Sotw>) -> Vec<DiscoveryRequest> {
    std::iter::from_fn(|| mux.take_request(Instant::now())).collect()
}

fn types(requests: &[DiscoveryRequest]) -> Vec<&'static str> {
    let short = |r: &DiscoveryRequest| ResourceType::from_type_url(&r.type_url).unwrap().short();
    requests.iter().map(short).collect()
}

fn response(ty: ResourceType, nonce: &str) -> DiscoveryResponse {
    DiscoveryResponse {
        type_url: ty.type_url().into(),
        version_info: "1".into(),
        nonce: nonce.into(),
        ..Default::default()
    }
}

fn update(mux: &mut Mux<Sotw>) -> Update {
    loop {
        match mux.take_event(Instant::now()).expect("an event") {
            Event::Update(update) => return update,
            Event::Connected { .. } | Event::Disconnected { .. } => {}
        }
    }
}

fn subscribe_everything(mux: &mut Mux<Sotw>) {
    for ty in [ResourceType::Routes, ResourceType::Secret, ResourceType::Endpoints] {
        mux.machine(ty).subscribe(&"a".into());
    }
    mux.machine(ResourceType::Listener).subscribe_all();
    mux.machine(ResourceType::Cluster).subscribe_all();
}

#[test]
fn a_fresh_stream_asks_in_the_order_of_application_with_one_node() {
    let mut mux = ads(true, None);
    subscribe_everything(&mut mux);
    assert!(requests(&mut mux).is_empty(), "nothing is written before the stream is up");
    for _ in 0..2 {
        mux.opened();
        let sent = requests(&mut mux);
        assert_eq!(types(&sent), ["CDS", "EDS", "LDS", "RDS", "SDS"]);
        let nodes: Vec<_> = sent.iter().map(|r| r.node.is_some()).collect();
        assert_eq!(nodes, [true, false, false, false, false], "absent, never present and empty");
        mux.closed("gone");
    }
}

#[test]
fn the_node_is_repeated_unless_told_otherwise_and_identical() {
    let mut mux = ads(false, None);
    subscribe_everything(&mut mux);
    mux.opened();
    let sent = requests(&mut mux);
    assert!(sent.iter().all(|r| r.node == sent[0].node && r.node.is_some()));

    let mut delta: Mux<Delta> = Mux::new(Source::Ads, None, policy(false), None);
    delta.machine(ResourceType::Cluster).subscribe_all();
    delta.machine(ResourceType::Listener).subscribe_all();
    delta.opened();
    let nodes = [(); 2].map(|()| delta.take_request(Instant::now()).unwrap().node.is_some());
    assert_eq!(nodes, [true, false], "an incremental stream says it once");
}

#[test]
fn what_follows_from_an_update_is_subscribed_to_before_its_ack() {
    let mut mux = ads(true, None);
    mux.machine(ResourceType::Cluster).subscribe_all();
    mux.opened();
    requests(&mut mux);
    mux.receive(response(ResourceType::Cluster, "n1"));
    let update = update(&mut mux);
    mux.machine(ResourceType::Endpoints).subscribe(&"a".into());
    mux.decide(&update.token, &Verdict::accept(), Instant::now());
    assert_eq!(types(&requests(&mut mux)), ["EDS", "CDS"]);
}

#[test]
fn a_slow_verdict_holds_only_its_type() {
    let mut mux = ads(true, None);
    subscribe_everything(&mut mux);
    mux.opened();
    requests(&mut mux);
    mux.receive(response(ResourceType::Cluster, "c1"));
    let slow = update(&mut mux);
    for n in 0..20 {
        mux.receive(response(ResourceType::Routes, &format!("r{n}")));
        let quick = update(&mut mux);
        mux.decide(&quick.token, &Verdict::accept(), Instant::now());
        assert_eq!(types(&requests(&mut mux)), ["RDS"]);
    }
    mux.decide(&slow.token, &Verdict::accept(), Instant::now());
    assert_eq!(requests(&mut mux)[0].response_nonce, "c1");
}

#[test]
fn reading_stops_only_when_too_much_of_a_type_waits() {
    let mut mux = ads(true, None);
    subscribe_everything(&mut mux);
    mux.opened();
    requests(&mut mux);
    let mut read = 0;
    while mux.ready(Instant::now()).read {
        mux.receive(response(ResourceType::Cluster, &format!("n{read}")));
        read += 1;
        assert!(read < 1000);
    }
    let first = update(&mut mux);
    mux.decide(&first.token, &Verdict::accept(), Instant::now());
    assert!(mux.ready(Instant::now()).read);
}

#[test]
fn a_response_of_a_type_not_asked_for_is_counted_and_not_answered() {
    let mut mux = ads(true, None);
    mux.machine(ResourceType::Cluster).subscribe_all();
    mux.opened();
    requests(&mut mux);
    mux.take_event(Instant::now());
    mux.receive(response(ResourceType::Secret, "n1"));
    mux.receive(DiscoveryResponse {
        type_url: "type.googleapis.com/odd".into(),
        ..Default::default()
    });
    mux.receive(DiscoveryResponse::default());
    let ready = mux.ready(Instant::now());
    assert!(!ready.request && !ready.event);
    assert_eq!(mux.stats.unknown_type.value(), 3);
}

#[test]
fn a_stream_of_one_type_needs_no_type_url_in_responses() {
    let mut mux: Mux<Delta> =
        Mux::new(Source::Grpc("k".into()), Some(ResourceType::Cluster), policy(true), None);
    mux.machine(ResourceType::Cluster).subscribe_all();
    mux.opened();
    mux.take_request(Instant::now());
    mux.receive(DeltaDiscoveryResponse { nonce: "n1".into(), ..Default::default() });
    mux.take_event(Instant::now());
    assert!(matches!(mux.take_event(Instant::now()), Some(Event::Update(_))));
}

#[test]
fn requests_beyond_the_rate_limit_wait_and_merge() {
    let mut mux = ads(true, Some(RateLimit::try_new(Some(2), Some(1.0)).unwrap()));
    let start = Instant::now();
    mux.machine(ResourceType::Endpoints).subscribe(&"a".into());
    mux.opened();
    let mut sent = 0;
    for name in ["b", "c", "d", "e"] {
        mux.machine(ResourceType::Endpoints).subscribe(&name.into());
        sent += usize::from(mux.take_request(start).is_some());
        mux.ready(start);
    }
    assert_eq!((sent, mux.stats.rate_limit_enforced.value()), (2, 1));
    let wake = mux.ready(start).wake.unwrap();
    assert!(wake > start && wake <= start + Duration::from_millis(1001));
    assert!(mux.ready(wake).request);
    let request = mux.take_request(wake).unwrap();
    assert_eq!(request.resource_names, ["a", "b", "c", "d", "e"]);
}

#[test]
fn status_tells_versions_nacks_and_who_the_server_is() {
    let mut mux = ads(true, None);
    subscribe_everything(&mut mux);
    mux.opened();
    requests(&mut mux);
    let mut first = response(ResourceType::Cluster, "n1");
    first.control_plane = Some(ControlPlane { identifier: "istiod-1".into() });
    first.resource_errors = vec![ResourceError::default()];
    mux.receive(first);
    let good = update(&mut mux);
    mux.decide(&good.token, &Verdict::accept(), Instant::now());
    requests(&mut mux);
    mux.receive(response(ResourceType::Cluster, "n2"));
    let bad = update(&mut mux);
    let rejected = vec![super::super::types::Rejection { name: "c".into(), error: "port".into() }];
    mux.decide(&bad.token, &Verdict { rejected }, Instant::now());
    let status = mux.status();
    assert!(status.connected && status.since.is_some());
    assert_eq!(status.control_plane, "istiod-1");
    assert_eq!(status.stats.resource_errors.value(), 1);
    let cds = &status.types[0];
    assert_eq!((cds.version.as_str(), cds.last_nack.as_deref()), ("1", Some("c: port")));
    let stats = &cds.stats;
    let counts = [&stats.update_attempt, &stats.update_success, &stats.update_rejected];
    assert_eq!(counts.map(|c| c.value()), [3, 1, 1]);
    mux.closed("gone");
    let status = mux.status();
    assert_eq!((status.connected, status.last_error.as_deref()), (false, Some("gone")));
    assert_eq!(stats.update_failure.value(), 1);
    assert!(matches!(mux.take_event(Instant::now()), Some(Event::Disconnected { .. })));
}
