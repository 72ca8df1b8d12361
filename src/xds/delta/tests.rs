//! The incremental rules, one claim a test.

use std::time::Duration;

use prost_types::Any;

use super::*;

const EDS: ResourceType = ResourceType::Endpoints;

fn resource(name: &str, version: &str) -> discovery::Resource {
    discovery::Resource {
        name: name.into(),
        version: version.into(),
        resource: Some(Any { type_url: EDS.type_url().into(), value: name.into() }),
        ..Default::default()
    }
}

fn mortal(name: &str, version: &str, body: bool) -> discovery::Resource {
    let mut resource = resource(name, version);
    resource.ttl = Some(prost_types::Duration { seconds: 10, nanos: 0 });
    resource.resource = resource.resource.filter(|_| body);
    resource
}

fn response(nonce: &str, resources: Vec<discovery::Resource>) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse { nonce: nonce.into(), resources, ..Default::default() }
}

fn removal(nonce: &str, names: &[&str]) -> DeltaDiscoveryResponse {
    let removed_resources = names.iter().map(|n| (*n).to_owned()).collect();
    DeltaDiscoveryResponse { nonce: nonce.into(), removed_resources, ..Default::default() }
}

fn open(names: &[&str]) -> Delta {
    let mut delta = Delta::new(EDS);
    names.iter().for_each(|name| delta.subscribe(&Arc::from(*name)));
    delta.opened();
    delta
}

/// A wildcard machine. EDS bodies do for it, as nothing here decodes them.
fn open_all(names: &[&str]) -> Delta {
    let mut delta = Delta::new(ResourceType::Cluster);
    delta.subscribe_all();
    names.iter().for_each(|name| delta.subscribe(&Arc::from(*name)));
    delta.opened();
    delta
}

/// A request as `+subscribe -unsubscribe =initial nonce`, with `!` when it is a NACK.
fn sent(delta: &mut Delta) -> Option<String> {
    delta.take_request().map(|r| {
        let mut initial: Vec<_> =
            r.initial_resource_versions.iter().map(|(n, v)| format!("{n}@{v}")).collect();
        initial.sort();
        format!(
            "+{} -{} ={} {}{}",
            r.resource_names_subscribe.join(","),
            r.resource_names_unsubscribe.join(","),
            initial.join(","),
            r.response_nonce,
            if r.error_detail.is_some() { "!" } else { "" }
        )
    })
}

fn decide(delta: &mut Delta, rejected: &[&str]) -> Offer {
    let offer = delta.take_offer(Instant::now()).expect("an offer");
    let reject = |name: &&str| Rejection { name: (*name).into(), error: "bad".into() };
    let verdict = Verdict { rejected: rejected.iter().map(reject).collect() };
    delta.decide(offer.seq, &verdict, Instant::now());
    offer
}

fn reopen(delta: &mut Delta) -> Option<String> {
    delta.closed();
    delta.opened();
    sent(delta)
}

#[test]
fn a_stream_starts_with_all_names_and_no_versions() {
    let mut delta = open(&["a", "b"]);
    assert_eq!(sent(&mut delta).unwrap(), "+a,b - = ");
    assert_eq!(sent(&mut delta), None);
}

#[test]
fn types_without_wildcard_are_silent_until_a_name_is_known() {
    let mut delta = open(&[]);
    assert_eq!(sent(&mut delta), None);
    delta.subscribe(&"a".into());
    assert_eq!(sent(&mut delta).unwrap(), "+a - = ");
    delta.unsubscribe("a");
    assert_eq!(sent(&mut delta).unwrap(), "+ -a = ");
    assert_eq!(reopen(&mut delta), None);
}

#[test]
fn only_answers_carry_a_nonce_and_only_an_error_makes_a_nack() {
    let mut delta = open(&["a"]);
    sent(&mut delta);
    delta.receive(response("n1", vec![resource("a", "1")]));
    decide(&mut delta, &[]);
    assert_eq!(sent(&mut delta).unwrap(), "+ - = n1");
    delta.subscribe(&"b".into());
    assert_eq!(sent(&mut delta).unwrap(), "+b - = ");
    delta.receive(response("n2", vec![resource("a", "2")]));
    let offer = delta.take_offer(Instant::now()).unwrap();
    delta.subscribe(&"c".into());
    assert_eq!(sent(&mut delta).unwrap(), "+c - = ", "subscribing does not wait for a verdict");
    let bad = Rejection { name: "a".into(), error: "port: too big".into() };
    delta.decide(offer.seq, &Verdict { rejected: vec![bad] }, Instant::now());
    let nack = delta.take_request().unwrap();
    assert_eq!(nack.response_nonce, "n2");
    assert_eq!(nack.error_detail.unwrap().message, "a: port: too big");
}

#[test]
fn an_answer_may_carry_subscription_changes() {
    let mut delta = open(&["a"]);
    sent(&mut delta);
    delta.receive(response("n1", vec![resource("a", "1")]));
    let offer = delta.take_offer(Instant::now()).unwrap();
    delta.subscribe(&"b".into());
    delta.unsubscribe("a");
    delta.decide(offer.seq, &Verdict::accept(), Instant::now());
    assert_eq!(sent(&mut delta).unwrap(), "+b -a = n1");
    assert_eq!(reopen(&mut delta).unwrap(), "+b - = ", "a was given up while it was looked at");
}

#[test]
fn a_reconnect_names_everything_wanted_and_the_versions_in_service() {
    let mut delta = open(&["a", "b", "new"]);
    sent(&mut delta);
    delta.receive(response("n1", vec![resource("a", "1"), resource("b", "1")]));
    decide(&mut delta, &[]);
    sent(&mut delta);
    delta.unsubscribe("b");
    assert_eq!(reopen(&mut delta).unwrap(), "+a,new - =a@1 ");
    delta.subscribe(&"c".into());
    assert_eq!(sent(&mut delta).unwrap(), "+c - = ", "versions only in the first request");
}

#[test]
fn no_version_is_recorded_for_a_rejected_resource() {
    let mut delta = open(&["good", "bad"]);
    sent(&mut delta);
    delta.receive(response("n1", vec![resource("good", "1"), resource("bad", "1")]));
    decide(&mut delta, &["bad"]);
    assert_eq!(sent(&mut delta).unwrap(), "+ - = n1!");
    assert_eq!(reopen(&mut delta).unwrap(), "+bad,good - =good@1 ");
    delta.receive(response("n2", vec![resource("good", "2")]));
    decide(&mut delta, &["good"]);
    assert_eq!(reopen(&mut delta).unwrap(), "+bad,good - =good@1 ", "version 1 still serves");
}

#[test]
fn removals_of_wanted_names_are_told_and_others_ignored() {
    let mut delta = open(&["a", "absent", "dynamic"]);
    sent(&mut delta);
    delta.receive(response("n1", vec![resource("a", "1")]));
    decide(&mut delta, &[]);
    sent(&mut delta);
    let mut removal = removal("n2", &["a", "absent", "stranger"]);
    removal.removed_resource_names =
        vec![discovery::ResourceName { name: "dynamic".into(), ..Default::default() }];
    delta.receive(removal);
    assert_eq!(decide(&mut delta, &[]).removed, ["a", "absent", "dynamic"]);
    assert_eq!(sent(&mut delta).unwrap(), "+ - = n2");
    assert_eq!(reopen(&mut delta).unwrap(), "+a,absent,dynamic - = ");
}

#[test]
fn a_resource_nobody_wants_is_ignored_but_answered() {
    let mut delta = open(&["a", "alias"]);
    sent(&mut delta);
    let mut canonical = resource("canonical", "1");
    canonical.aliases = vec!["alias".into()];
    delta.receive(response("n1", vec![resource("ghost", "1"), canonical]));
    let offer = decide(&mut delta, &[]);
    assert_eq!(offer.resources.len(), 1);
    assert_eq!(offer.resources[0].name.as_deref(), Some("alias"));
    assert_eq!(sent(&mut delta).unwrap(), "+ - = n1");
    assert_eq!(reopen(&mut delta).unwrap(), "+a,alias - = ", "it is asked for anew");
}

#[test]
fn what_came_for_an_alias_goes_by_its_own_name() {
    let mut delta = open(&["alias"]);
    sent(&mut delta);
    let mut canonical = resource("canonical", "1");
    canonical.aliases = vec!["alias".into()];
    delta.receive(response("n1", vec![canonical]));
    decide(&mut delta, &[]);
    sent(&mut delta);
    delta.receive(removal("n2", &["canonical"]));
    assert_eq!(decide(&mut delta, &[]).removed, ["alias"]);
}

#[test]
fn a_name_twice_in_a_response_is_nacked_and_neither_is_applied() {
    let mut delta = open(&["a", "b", "c"]);
    sent(&mut delta);
    let twice = vec![resource("a", "1"), resource("b", "1"), resource("a", "2")];
    let mut message = response("n1", twice);
    message.removed_resources = vec!["c".into(), "b".into()];
    delta.receive(message);
    let offer = decide(&mut delta, &[]);
    assert!(offer.resources.is_empty(), "{offer:?}");
    assert_eq!(offer.removed, ["c"]);
    let named: Vec<_> = offer.malformed.iter().map(|m| m.name.as_str()).collect();
    assert_eq!(named, ["a", "b"]);
    assert_eq!(sent(&mut delta).unwrap(), "+ - = n1!");
    assert_eq!(reopen(&mut delta).unwrap(), "+a,b,c - = ");
}

#[test]
fn a_name_dropped_and_wanted_again_is_subscribed_to_again() {
    let mut delta = open(&["a"]);
    sent(&mut delta);
    delta.receive(response("n1", vec![resource("a", "1")]));
    decide(&mut delta, &[]);
    sent(&mut delta);
    delta.unsubscribe("a");
    delta.subscribe(&"a".into());
    assert_eq!(sent(&mut delta).unwrap(), "+a - = ", "the server must send it once more");
    delta.subscribe(&"b".into());
    delta.unsubscribe("b");
    assert_eq!(sent(&mut delta), None, "what the server never heard of need not be taken back");
}

#[test]
fn wildcard_is_an_empty_first_request_or_a_star_among_names() {
    let mut delta = open_all(&[]);
    assert_eq!(sent(&mut delta).unwrap(), "+ - = ");
    delta.subscribe(&"a".into());
    assert_eq!(sent(&mut delta).unwrap(), "+a - = ", "wildcard stays until * is unsubscribed");
    assert_eq!(reopen(&mut delta).unwrap(), "+*,a - = ", "a first request with a name needs it");
}

#[test]
fn under_a_wildcard_a_given_up_name_stays_until_the_server_speaks() {
    let mut delta = open_all(&["a"]);
    sent(&mut delta);
    let mut a = resource("a", "1");
    a.resource = Some(Any { type_url: ResourceType::Cluster.type_url().into(), value: Vec::new() });
    delta.receive(response("n1", vec![a]));
    assert_eq!(decide(&mut delta, &[]).resources.len(), 1);
    sent(&mut delta);
    delta.unsubscribe("a");
    assert_eq!(sent(&mut delta).unwrap(), "+ -a = ");
    assert_eq!(delta.versions.len(), 1);
    delta.receive(removal("n2", &["a"]));
    assert_eq!(decide(&mut delta, &[]).removed, ["a"]);
    assert!(delta.versions.is_empty());
}

#[test]
fn a_nameless_or_wrongly_typed_resource_is_malformed() {
    let mut delta = open(&["a", "b"]);
    sent(&mut delta);
    let mut wrong = resource("b", "1");
    wrong.resource = Some(Any { type_url: "type.googleapis.com/x".into(), value: vec![] });
    delta.receive(response("n1", vec![resource("", "1"), wrong, resource("a", "1")]));
    let offer = decide(&mut delta, &[]);
    assert_eq!((offer.resources.len(), offer.malformed.len()), (1, 2));
    assert_eq!(sent(&mut delta).unwrap(), "+ - = n1!");
    assert_eq!(reopen(&mut delta).unwrap(), "+a,b - =a@1 ");
}

#[test]
fn a_heartbeat_renews_without_an_update_and_silence_removes() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut delta = open(&["a", "b"]);
    sent(&mut delta);
    delta.receive(response("n1", vec![mortal("a", "1", true), mortal("b", "1", true)]));
    let offer = delta.take_offer(at(0)).unwrap();
    delta.decide(offer.seq, &Verdict::accept(), at(0));
    assert_eq!(sent(&mut delta).unwrap(), "+ - = n1");
    delta.receive(response("n2", vec![mortal("a", "1", false)]));
    assert!(delta.take_offer(at(9)).is_none(), "a heartbeat is not an update");
    assert_eq!(sent(&mut delta).unwrap(), "+ - = n2", "but it is answered");
    delta.closed();
    assert_eq!(delta.take_offer(at(12)).unwrap().removed, ["b"], "even without a stream");
    delta.opened();
    assert_eq!(sent(&mut delta).unwrap(), "+a,b - =a@1 ");
    delta.receive(response("n3", vec![mortal("a", "2", false)]));
    let offer = delta.take_offer(at(13)).unwrap();
    assert_eq!(offer.malformed[0].name, "a", "no body, and another version than is held");
}

#[test]
fn a_verdict_after_the_stream_ended_counts_but_is_not_sent() {
    let mut delta = open(&["a"]);
    sent(&mut delta);
    delta.receive(response("n1", vec![resource("a", "1")]));
    let offer = delta.take_offer(Instant::now()).unwrap();
    assert_eq!(reopen(&mut delta), None, "which version is in service is being decided");
    delta.decide(offer.seq, &Verdict::accept(), Instant::now());
    assert_eq!(sent(&mut delta).unwrap(), "+a - =a@1 ");
    assert_eq!(sent(&mut delta), None);
}
