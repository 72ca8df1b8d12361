//! What is accepted, what is rejected, and what is left alone.

use std::sync::Arc;

use super::fixture::*;
use crate::control::ingest::Change;
use crate::control::store::Origin;
use crate::proto::envoy::config::cluster::v3 as cluster;
use crate::xds::ResourceType::{Cluster, Endpoints, Listener, Routes};

fn names(rejected: &[crate::xds::Rejection]) -> Vec<&str> {
    rejected.iter().map(|r| r.name.as_str()).collect()
}

#[test]
fn a_faulty_resource_spares_those_beside_it() {
    let mut it = Fixture::live();
    it.accept(Cluster, &[fixed("kept", 1)]);
    let rejected = it.full(Cluster, &[fixed("good", 1), faulty("wrong"), fixed("kept", 1)]);
    assert_eq!(names(&rejected), ["wrong"]);
    assert!(rejected[0].error.starts_with("Cluster \"wrong\": lb_policy: "), "{rejected:?}");
    assert!(it.serves("good") && it.serves("kept") && !it.serves("wrong"));
    let details = &it.state.clusters.get("wrong").unwrap().rejected.as_ref().unwrap().details;
    assert_eq!(*details, rejected[0].error);
}

#[test]
fn a_broken_rule_of_the_api_rejects_the_whole_response() {
    let mut it = Fixture::live();
    it.accept(Cluster, &[fixed("kept", 1)]);
    let rejected = it.full(Cluster, &[fixed("good", 1), fixed("wrong", -1)]);
    assert_eq!(names(&rejected), ["wrong", "good"], "what is not held must be named");
    assert!(rejected[0].error.contains("connect_timeout"), "{rejected:?}");
    assert!(it.serves("kept") && !it.serves("good"), "nothing is added and nothing removed");
    it.accept(Cluster, &[fixed("good", 1)]);
    assert!(it.serves("good"));
}

#[test]
fn a_name_that_comes_twice_rejects_the_whole_response() {
    let mut it = Fixture::live();
    let rejected = it.update(Cluster, &[fixed("twice", 1), fixed("good", 1), fixed("twice", 2)]);
    assert_eq!(names(&rejected), ["twice", "good"]);
    assert!(!it.serves("twice") && !it.serves("good"));
}

#[test]
fn a_bad_version_leaves_the_good_one_in_service() {
    let mut it = Fixture::live();
    it.accept(Listener, &[rds_listener("l", "t")]);
    it.accept(Routes, &[table("t", "*")]);
    let before = it.snapshot();
    let mut bad = it.change(Routes, &[table("t", "*")], &[]);
    bad.resources[0].body.value.extend([0x12, 0x05, 0xff]);
    assert_eq!(names(&it.ingest(bad)), ["t"]);
    assert!(Arc::ptr_eq(&before, &it.snapshot()));
    it.accept(Routes, &[table("t", "*")]);
    let want = it.state.follow.wanted(Routes).next().unwrap().clone();
    assert!(it.state.routes.get(&want).unwrap().rejected.is_none(), "good again");
}

#[test]
fn bytes_that_are_no_message_are_rejected_and_prove_no_absence() {
    let mut it = Fixture::live();
    it.accept(Cluster, &[fixed("kept", 1)]);
    let rejected = it.full(Cluster, &[garbage::<cluster::Cluster>()]);
    assert_eq!(rejected.len(), 1);
    assert!(it.serves("kept"));
}

#[test]
fn what_is_sent_again_changes_nothing() {
    let mut it = Fixture::live();
    it.accept(Cluster, &[eds("a", 1)]);
    it.accept(Endpoints, &[assignment("a", 80)]);
    it.accept(Listener, &[rds_listener("l", "t")]);
    it.accept(Routes, &[table("t", "*")]);
    let before = it.snapshot();
    it.told();
    assert_eq!(it.full(Cluster, &[eds("a", 1)]), []);
    it.accept(Endpoints, &[assignment("a", 80)]);
    assert_eq!(it.full(Listener, &[rds_listener("l", "t")]), []);
    it.accept(Routes, &[table("t", "*")]);
    assert!(Arc::ptr_eq(&before, &it.snapshot()));
    assert_eq!(it.told(), [""; 0]);
    assert_eq!(it.state.stats.clusters.cluster_modified.value(), 0);
    assert_eq!(it.state.stats.listeners.listener_modified.value(), 0);
}

#[test]
fn a_static_name_is_not_taken_over_or_removed() {
    let mut it = Fixture::new();
    let source = it.change(Cluster, &[], &[]).source;
    let change = Change::of(Origin::Static, source, Cluster, vec![fixed("mine", 1)], "");
    assert_eq!(it.ingest(change), []);
    it.state.start(it.now);
    let before = it.snapshot().clusters.get("mine").unwrap().clone();
    assert_eq!(it.full(Cluster, &[fixed("mine", 2), fixed("theirs", 1)]), []);
    assert_eq!(it.full(Cluster, &[]), []);
    it.remove(Cluster, "mine");
    assert!(Arc::ptr_eq(&before, it.snapshot().clusters.get("mine").unwrap()));
    assert!(!it.serves("theirs"));
}

#[test]
fn protocol_and_message_must_agree_on_the_name() {
    let mut it = Fixture::live();
    let mut change = it.change(Cluster, &[], &[]);
    change.resources = vec![named("b", "1", fixed("a", 1)), named("c", "1", fixed("c", 1))];
    let rejected = it.ingest(change);
    assert_eq!(names(&rejected), ["b"]);
    assert!(it.serves("c") && !it.serves("a"));
}
