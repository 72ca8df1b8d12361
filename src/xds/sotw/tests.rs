//! The state-of-the-world rules, one claim a test.

use std::time::Duration;

use prost::Message;
use prost_types::Any;

use super::*;
use crate::proto::envoy::service::discovery::v3 as discovery;

const EDS: ResourceType = ResourceType::Endpoints;

fn body(ty: ResourceType, text: &str) -> Any {
    Any { type_url: ty.type_url().into(), value: text.as_bytes().to_vec() }
}

fn wrapped(name: &str, version: &str, body: Option<Any>, ttl: Option<i64>) -> Any {
    let resource = discovery::Resource {
        name: name.into(),
        version: version.into(),
        resource: body,
        ttl: ttl.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
        ..Default::default()
    };
    Any {
        type_url: "type.googleapis.com/envoy.service.discovery.v3.Resource".into(),
        value: resource.encode_to_vec(),
    }
}

fn response(version: &str, nonce: &str, resources: Vec<Any>) -> DiscoveryResponse {
    DiscoveryResponse {
        version_info: version.into(),
        nonce: nonce.into(),
        resources,
        ..Default::default()
    }
}

fn open(ty: ResourceType, names: &[&str]) -> Sotw {
    let mut sotw = Sotw::new(ty);
    if ty.wildcard() {
        sotw.subscribe_all();
    }
    names.iter().for_each(|name| sotw.subscribe(&Arc::from(*name)));
    sotw.opened();
    sotw
}

fn reject(name: &str) -> Verdict {
    Verdict { rejected: vec![Rejection { name: name.into(), error: "bad".into() }] }
}

/// A request as `names version nonce`, with `!` when it is a NACK.
fn sent(sotw: &mut Sotw) -> Option<String> {
    sotw.take_request().map(|r| {
        let nack = if r.error_detail.is_some() { "!" } else { "" };
        format!("{} {} {}{nack}", r.resource_names.join(","), r.version_info, r.response_nonce)
    })
}

/// Lets control look at the next response and accept it.
fn accept(sotw: &mut Sotw) -> Offer {
    let offer = sotw.take_offer(Instant::now()).expect("an offer");
    sotw.decide(offer.seq, &Verdict::accept(), Instant::now());
    offer
}

fn exchange(sotw: &mut Sotw, version: &str, nonce: &str) -> Option<String> {
    sotw.receive(response(version, nonce, vec![]));
    accept(sotw);
    sent(sotw)
}

#[test]
fn a_wildcard_type_starts_with_an_empty_list_and_acks_with_version_and_nonce() {
    let mut cds = open(ResourceType::Cluster, &[]);
    assert_eq!(sent(&mut cds).unwrap(), "  ");
    assert_eq!(sent(&mut cds), None, "nothing more until something happens");
    assert_eq!(exchange(&mut cds, "1", "n1").unwrap(), " 1 n1");
    assert_eq!(sent(&mut cds), None, "one answer for each response");
}

#[test]
fn a_nack_repeats_the_accepted_version_with_the_nonce_of_the_rejected() {
    let mut rds = open(ResourceType::Routes, &["main"]);
    assert_eq!(sent(&mut rds).unwrap(), "main  ");
    rds.receive(response("0", "n0", vec![]));
    let offer = rds.take_offer(Instant::now()).unwrap();
    rds.decide(offer.seq, &reject("main"), Instant::now());
    let nack = rds.take_request().unwrap();
    assert_eq!((nack.version_info.as_str(), nack.response_nonce.as_str()), ("", "n0"));
    let detail = nack.error_detail.unwrap();
    assert_eq!((detail.code, detail.message.as_str()), (3, "main: bad"));

    assert_eq!(exchange(&mut rds, "1", "n1").unwrap(), "main 1 n1");
    rds.receive(response("2", "n2", vec![]));
    let offer = rds.take_offer(Instant::now()).unwrap();
    rds.decide(offer.seq, &reject("main"), Instant::now());
    assert_eq!(sent(&mut rds).unwrap(), "main 1 n2!");
}

#[test]
fn types_without_wildcard_are_silent_until_a_name_is_known() {
    for ty in [EDS, ResourceType::Routes, ResourceType::Secret] {
        let mut machine = open(ty, &[]);
        assert_eq!(sent(&mut machine), None);
        machine.subscribe(&"a".into());
        assert_eq!(sent(&mut machine).unwrap(), "a  ");
        machine.unsubscribe("a");
        assert_eq!(sent(&mut machine).unwrap(), "  ", "no longer the first, so it may be empty");
        machine.closed();
        machine.opened();
        assert_eq!(sent(&mut machine), None, "a new stream is silent again");
    }
}

#[test]
fn every_request_lists_all_names_with_the_latest_nonce() {
    let mut rds = open(ResourceType::Routes, &["main"]);
    sent(&mut rds);
    exchange(&mut rds, "1", "n1");
    rds.subscribe(&"other".into());
    assert_eq!(sent(&mut rds).unwrap(), "main,other 1 n1");
    exchange(&mut rds, "2", "n2");
    rds.unsubscribe("other");
    assert_eq!(sent(&mut rds).unwrap(), "main 2 n2");
    rds.subscribe(&"main".into());
    rds.unsubscribe("other");
    assert_eq!(sent(&mut rds), None, "what changes nothing is not sent");
}

#[test]
fn a_change_of_names_waits_for_the_verdict_and_rides_with_the_answer() {
    let mut eds = open(EDS, &["a"]);
    sent(&mut eds);
    eds.receive(response("1", "n1", vec![]));
    eds.subscribe(&"b".into());
    assert_eq!(sent(&mut eds), None, "it would look like an answer to n1");
    accept(&mut eds);
    assert_eq!(sent(&mut eds).unwrap(), "a,b 1 n1");
    assert_eq!(sent(&mut eds), None);
}

#[test]
fn responses_are_taken_in_order_and_each_is_answered() {
    let mut eds = open(EDS, &["a"]);
    sent(&mut eds);
    for n in ["1", "2", "3"] {
        eds.receive(response(n, &format!("n{n}"), vec![]));
    }
    for n in ["1", "2", "3"] {
        assert!(eds.has_offer(Instant::now()));
        let offer = accept(&mut eds);
        assert_eq!(offer.version, n);
        assert!(eds.take_offer(Instant::now()).is_none(), "not before the answer has left");
        assert_eq!(sent(&mut eds).unwrap(), format!("a {n} n{n}"));
    }
}

#[test]
fn a_new_stream_starts_with_all_names_the_last_version_and_no_nonce() {
    let mut eds = open(EDS, &["a", "b"]);
    sent(&mut eds);
    exchange(&mut eds, "7", "n1");
    eds.closed();
    eds.opened();
    assert_eq!(sent(&mut eds).unwrap(), "a,b 7 ");
}

#[test]
fn a_name_no_response_has_covered_is_asked_for_without_a_version() {
    let mut eds = open(EDS, &["a"]);
    sent(&mut eds);
    exchange(&mut eds, "7", "n1");
    eds.closed();
    eds.subscribe(&"b".into());
    eds.opened();
    assert_eq!(sent(&mut eds).unwrap(), "a,b  ", "version 7 did not bring b");
}

#[test]
fn only_listener_and_cluster_responses_are_complete() {
    for ty in ResourceType::ALL {
        let mut machine = open(ty, &["a"]);
        sent(&mut machine);
        machine.receive(response("1", "n1", vec![]));
        let expected = matches!(ty, ResourceType::Cluster | ResourceType::Listener);
        assert_eq!(accept(&mut machine).full, expected, "{ty}");
    }
}

#[test]
fn the_empty_list_stops_meaning_everything_once_a_name_was_listed() {
    let mut cds = open(ResourceType::Cluster, &[]);
    assert_eq!(sent(&mut cds).unwrap(), "  ");
    cds.subscribe(&"a".into());
    assert_eq!(sent(&mut cds).unwrap(), "*,a  ");
    cds.unsubscribe("a");
    assert_eq!(sent(&mut cds).unwrap(), "*  ");
    cds.closed();
    cds.opened();
    assert_eq!(sent(&mut cds).unwrap(), "  ", "on a new stream no name was listed");
}

#[test]
fn a_name_dropped_and_wanted_again_is_seen_to_go_first() {
    let mut eds = open(EDS, &["a", "b"]);
    sent(&mut eds);
    exchange(&mut eds, "1", "n1");
    eds.unsubscribe("b");
    eds.subscribe(&"b".into());
    assert_eq!(sent(&mut eds).unwrap(), "a 1 n1");
    assert_eq!(sent(&mut eds).unwrap(), "a,b 1 n1");
    assert_eq!(sent(&mut eds), None);
}

#[test]
fn wrapped_resources_have_a_name_and_unwanted_ones_are_dropped_but_acked() {
    let mut eds = open(EDS, &["a", "alias"]);
    sent(&mut eds);
    let canonical = discovery::Resource {
        name: "canonical".into(),
        aliases: vec!["alias".into()],
        resource: Some(body(EDS, "c")),
        ..Default::default()
    };
    let canonical = Any {
        type_url: "type.googleapis.com/envoy.service.discovery.v3.Resource".into(),
        value: canonical.encode_to_vec(),
    };
    eds.receive(response(
        "1",
        "n1",
        vec![
            wrapped("a", "7", Some(body(EDS, "x")), None),
            wrapped("ghost", "7", Some(body(EDS, "y")), None),
            canonical,
            body(EDS, "bare"),
        ],
    ));
    let offer = accept(&mut eds);
    let names: Vec<_> = offer.resources.iter().map(|r| r.name.as_deref()).collect();
    assert_eq!(names, [Some("a"), Some("alias"), None]);
    assert_eq!(offer.resources[0].version, "7");
    assert_eq!(offer.resources[2].version, "1");
    assert_eq!(sent(&mut eds).unwrap(), "a,alias 1 n1");
}

#[test]
fn one_resource_of_a_wrong_type_is_nacked_and_spares_its_siblings() {
    let mut cds = open(ResourceType::Cluster, &[]);
    sent(&mut cds);
    let good = body(ResourceType::Cluster, "x");
    cds.receive(response("1", "n1", vec![good, body(EDS, "odd")]));
    let offer = accept(&mut cds);
    assert_eq!((offer.resources.len(), offer.malformed.len()), (1, 1));
    assert!(!offer.full, "the odd one may have been any cluster, so none is deleted");
    assert_eq!(sent(&mut cds).unwrap(), "  n1!");

    let named = wrapped("odd", "1", Some(body(EDS, "odd")), None);
    cds.receive(response("2", "n2", vec![named]));
    let offer = accept(&mut cds);
    assert!(offer.full && offer.kept == ["odd"], "{offer:?}");
}

#[test]
fn a_heartbeat_renews_without_an_update_and_silence_removes() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut eds = open(EDS, &["a", "b"]);
    sent(&mut eds);
    let both = ["a", "b"].map(|name| wrapped(name, "", Some(body(EDS, name)), Some(10))).to_vec();
    eds.receive(response("1", "n1", both));
    let offer = eds.take_offer(at(0)).unwrap();
    assert_eq!(offer.resources[0].ttl, Some(Duration::from_secs(10)));
    eds.decide(offer.seq, &Verdict::accept(), at(0));
    assert_eq!(sent(&mut eds).unwrap(), "a,b 1 n1");

    eds.receive(response("1", "n2", vec![wrapped("a", "", None, Some(10))]));
    assert!(eds.take_offer(at(8)).is_none(), "a heartbeat is not an update");
    assert_eq!(sent(&mut eds).unwrap(), "a,b 1 n2", "but it is answered");

    assert!(eds.take_offer(at(9)).is_none());
    eds.closed();
    assert_eq!(eds.take_offer(at(10)).unwrap().removed, ["b"], "even without a stream");
    assert_eq!(eds.take_offer(at(18)).unwrap().removed, ["a"]);
    eds.opened();
    assert_eq!(sent(&mut eds).unwrap(), "a,b  ", "version 1 is no longer what is held");
}

#[test]
fn a_heartbeat_in_a_full_response_keeps_the_resource() {
    let mut cds = open(ResourceType::Cluster, &[]);
    sent(&mut cds);
    let cluster = || Some(body(ResourceType::Cluster, "x"));
    cds.receive(response("1", "n1", vec![wrapped("a", "1", cluster(), Some(10))]));
    accept(&mut cds);
    sent(&mut cds);
    let mixed = vec![wrapped("a", "1", None, Some(10)), wrapped("b", "1", cluster(), None)];
    cds.receive(response("2", "n2", mixed));
    let offer = accept(&mut cds);
    assert!(offer.full && offer.kept == ["a"] && offer.resources.len() == 1, "{offer:?}");
    assert!(cds.next_end().is_some(), "a is still mortal");
    sent(&mut cds);
    cds.receive(response("3", "n3", vec![wrapped("b", "1", cluster(), None)]));
    accept(&mut cds);
    assert!(cds.next_end().is_none(), "a was deleted");
}

#[test]
fn a_resource_without_body_that_is_not_held_is_malformed() {
    let mut eds = open(EDS, &["a"]);
    sent(&mut eds);
    eds.receive(response("1", "n1", vec![wrapped("a", "", None, Some(10))]));
    let offer = accept(&mut eds);
    assert_eq!(offer.malformed[0].name, "a");
    assert_eq!(sent(&mut eds).unwrap(), "a  n1!");
}

#[test]
fn nothing_expires_while_a_renewal_may_be_at_hand() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let copy = || vec![wrapped("a", "", Some(body(EDS, "a")), Some(10))];
    let mut eds = open(EDS, &["a"]);
    sent(&mut eds);
    eds.receive(response("1", "n1", copy()));
    let offer = eds.take_offer(at(0)).unwrap();
    eds.decide(offer.seq, &Verdict::accept(), at(0));
    sent(&mut eds);
    eds.receive(response("2", "n2", copy()));
    let offer = eds.take_offer(at(9)).unwrap();
    assert!(eds.take_offer(at(11)).is_none(), "control is looking at a renewal");
    eds.decide(offer.seq, &Verdict::accept(), at(12));
    assert!(eds.take_offer(at(12)).is_none());
    assert_eq!(eds.next_end(), Some(at(22)));
}

#[test]
fn a_verdict_after_the_stream_ended_counts_but_is_not_sent() {
    let mut eds = open(EDS, &["a"]);
    sent(&mut eds);
    eds.receive(response("1", "n1", vec![]));
    eds.receive(response("2", "n2", vec![]));
    let offer = eds.take_offer(Instant::now()).unwrap();
    eds.closed();
    eds.opened();
    assert_eq!(sent(&mut eds), None, "which version is in use is being decided");
    assert!(eds.take_offer(Instant::now()).is_none(), "what waited is gone with its stream");
    eds.decide(offer.seq, &Verdict::accept(), Instant::now());
    assert_eq!(sent(&mut eds).unwrap(), "a 1 ");
    assert_eq!(sent(&mut eds), None);
}

#[test]
fn a_verdict_counts_once() {
    let mut eds = open(EDS, &["a"]);
    sent(&mut eds);
    eds.receive(response("1", "n1", vec![]));
    let offer = eds.take_offer(Instant::now()).unwrap();
    assert!(eds.decide(offer.seq + 1, &Verdict::accept(), Instant::now()).is_none());
    assert!(eds.decide(offer.seq, &Verdict::accept(), Instant::now()).is_some());
    assert!(eds.decide(offer.seq, &reject("a"), Instant::now()).is_none());
    assert_eq!(sent(&mut eds).unwrap(), "a 1 n1");
}
