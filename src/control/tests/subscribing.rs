//! Which names are subscribed when, and what is kept.

use std::sync::Arc;

use super::fixture::*;
use crate::control::ingest::Change;
use crate::xds::ResourceType::{Cluster, Endpoints, Listener, Routes};

#[test]
fn names_are_subscribed_while_somebody_wants_them() {
    let mut it = Fixture::live();
    it.accept(Cluster, &[eds("a", 1), eds_as("b", "a", 1), eds_as("c", "other", 1)]);
    assert_eq!(it.told(), ["EDS +a,other"]);
    it.remove(Cluster, "a");
    assert_eq!(it.told(), [""; 0], "another cluster follows the same name");
    it.remove(Cluster, "b");
    it.remove(Cluster, "c");
    assert_eq!(it.told(), ["EDS -a", "EDS -other"]);
}

#[test]
fn a_service_name_that_changes_moves_the_subscription_once_the_new_one_is_warm() {
    let mut it = Fixture::live();
    it.accept(Cluster, &[eds_as("a", "one", 1)]);
    it.accept(Endpoints, &[assignment("one", 80)]);
    it.told();
    it.accept(Cluster, &[eds_as("a", "two", 1)]);
    assert_eq!(it.told(), ["EDS +two"]);
    it.accept(Endpoints, &[assignment("one", 81)]);
    assert_eq!(it.snapshot().clusters.get("a").unwrap().hosts().len(), 1);
    it.accept(Endpoints, &[assignment("two", 82)]);
    assert_eq!(it.told(), ["EDS -one"]);
}

#[test]
fn a_change_of_a_change_is_the_one_that_counts() {
    let mut it = Fixture::live();
    it.accept(Cluster, &[eds_as("a", "one", 1)]);
    it.accept(Endpoints, &[assignment("one", 80)]);
    it.accept(Cluster, &[eds_as("a", "two", 1)]);
    it.accept(Cluster, &[eds_as("a", "three", 1)]);
    assert_eq!(it.told()[2..], ["EDS -two", "EDS +three"]);
    it.accept(Endpoints, &[assignment("three", 80)]);
    assert_eq!(it.told(), ["EDS -one"]);
    it.remove(Cluster, "a");
    assert_eq!(it.told(), ["EDS -three"]);
    assert_eq!(it.state.next_end(), None);
}

#[test]
fn a_table_goes_with_the_last_listener_that_uses_it() {
    let mut it = Fixture::live();
    it.accept(Listener, &[rds_listener("l", "t"), rds_listener("m", "t")]);
    it.accept(Routes, &[table("t", "*")]);
    it.remove(Routes, "t");
    assert!(it.snapshot().routes.get("t").is_some(), "a removed table stays while it is used");
    it.remove(Listener, "l");
    assert_eq!(it.told(), ["RDS +t"]);
    it.remove(Listener, "m");
    assert_eq!(it.told(), ["RDS -t"]);
    assert!(it.snapshot().routes.get("t").is_none());
}

#[test]
fn what_nobody_wants_is_accepted_and_dropped() {
    let mut it = Fixture::live();
    it.accept(Endpoints, &[assignment("ghost", 80)]);
    it.accept(Routes, &[table("ghost", "*")]);
    assert!(it.state.endpoints.records.is_empty() && it.state.routes.records.is_empty());
}

#[test]
fn endpoints_that_are_removed_stay_and_those_that_expire_go() {
    let mut it = Fixture::live();
    it.accept(Cluster, &[eds("a", 1)]);
    it.accept(Endpoints, &[assignment("a", 80)]);
    it.remove(Endpoints, "a");
    let cluster = it.snapshot().clusters.get("a").unwrap().clone();
    assert_eq!(cluster.hosts().len(), 1);
    let expired = Change { expired: true, ..it.change(Endpoints, &[], &["a"]) };
    it.ingest(expired);
    assert_eq!(cluster.hosts().len(), 0);
}

#[test]
fn endpoints_take_the_short_road() {
    let mut it = Fixture::live();
    let clusters: Vec<_> = (0..1000).map(|n| eds(&format!("c{n}"), 1)).collect();
    let assignments: Vec<_> = (0..1000).map(|n| assignment(&format!("c{n}"), 80)).collect();
    it.accept(Cluster, &clusters);
    it.accept(Endpoints, &assignments);
    let before = it.snapshot();
    assert_eq!(before.clusters.len(), 1000);
    assert_eq!(before.version, 1, "one snapshot for a thousand clusters");
    it.accept(Endpoints, &[assignment("c7", 81)]);
    assert!(Arc::ptr_eq(&before, &it.snapshot()), "no snapshot for endpoints");
}

#[test]
fn a_cluster_goes_although_routes_name_it() {
    let mut it = Fixture::live();
    it.accept(Cluster, &[fixed("a", 1), fixed("b", 1)]);
    assert_eq!(it.full(Cluster, &[fixed("b", 1)]), []);
    assert!(!it.serves("a") && it.serves("b"));
    assert_eq!(it.full(Cluster, &[]), []);
    assert!(!it.serves("b"));
    assert_eq!(it.state.stats.clusters.active_clusters.value(), 0);
}

#[test]
fn an_address_is_one_listeners_until_it_goes() {
    let mut it = Fixture::live();
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = socket.local_addr().unwrap().port();
    let rejected =
        it.update(Listener, &[rds_listener("good", "t"), listener_at("l", "t", taken, "s")]);
    assert_eq!(rejected.len(), 1, "the system has given the port to somebody else");
    assert!(rejected[0].error.contains("address: binding 127.0.0.1:"), "{rejected:?}");
    drop(socket);
    it.accept(Listener, &[listener_at("l", "t", taken, "s")]);
    let rejected = it.update(Listener, &[listener_at("rival", "t", taken, "s")]);
    assert!(rejected[0].error.contains("listener \"l\" has this address"), "{rejected:?}");
    let moved = it.change(Listener, &[listener_at("rival", "t", taken, "s")], &["l"]);
    assert_eq!(it.ingest(moved), []);
    assert_eq!(it.state.addresses.len(), 1);
    it.remove(Listener, "rival");
    assert!(it.state.addresses.is_empty());
}
