//! What waits for what, and how long.

use super::fixture::*;
use crate::xds::ResourceType::{Cluster, Endpoints, Listener, Routes};

#[test]
fn a_cluster_serves_once_its_endpoints_have_come() {
    let mut it = Fixture::live();
    it.accept(Cluster, &[eds("a", 1), fixed("b", 1)]);
    assert!(!it.serves("a") && it.serves("b"));
    it.accept(Endpoints, &[assignment("a", 80)]);
    assert!(it.serves("a"));
    let stats = &it.state.stats.clusters;
    assert_eq!((stats.cluster_added.value(), stats.active_clusters.value()), (2, 2));
    assert_eq!(stats.warming_clusters.value(), 0);
}

#[test]
fn waiting_for_endpoints_ends_after_initial_fetch_timeout() {
    let mut it = Fixture::live();
    it.accept(Cluster, &[eds("a", 1)]);
    it.pass(4 * SECOND);
    assert!(!it.serves("a"));
    it.pass(SECOND);
    assert!(it.serves("a"));
}

#[test]
fn a_name_that_does_not_exist_or_is_bad_ends_the_wait() {
    let mut it = Fixture::live();
    it.accept(Cluster, &[eds("a", 1), eds("b", 1)]);
    it.remove(Endpoints, "a");
    assert!(it.serves("a") && !it.serves("b"));
    let mut bad = it.change(Endpoints, &[assignment("b", 80)], &[]);
    bad.resources[0].body.value.extend([0x12, 2, 0x28, 0x85]);
    assert_eq!(it.ingest(bad).len(), 1);
    assert!(it.serves("b"));
}

#[test]
fn a_changed_cluster_serves_as_before_until_its_endpoints_come_again() {
    let mut it = Fixture::live();
    it.accept(Cluster, &[eds("a", 1)]);
    it.accept(Endpoints, &[assignment("a", 80)]);
    let before = it.snapshot().clusters.get("a").unwrap().clone();
    it.told();
    it.accept(Cluster, &[eds("a", 2)]);
    assert_eq!(it.told(), ["EDS -a", "EDS +a"], "the server must send them again");
    let same = |it: &mut Fixture| {
        std::sync::Arc::ptr_eq(&before, it.snapshot().clusters.get("a").unwrap())
    };
    assert!(same(&mut it));
    it.accept(Endpoints, &[assignment("a", 80)]);
    assert!(!same(&mut it), "unchanged endpoints are an answer too");
    assert_eq!(it.told(), [""; 0], "the name stays subscribed");
    assert_eq!(it.state.stats.clusters.cluster_modified.value(), 1);
}

#[test]
fn endpoints_known_are_used_if_they_do_not_come_again() {
    let mut it = Fixture::live();
    it.accept(Cluster, &[eds("a", 1)]);
    it.accept(Endpoints, &[assignment("a", 80)]);
    it.accept(Cluster, &[eds("a", 2)]);
    let before = it.snapshot().clusters.get("a").unwrap().clone();
    it.pass(5 * SECOND);
    let after = it.snapshot().clusters.get("a").unwrap().clone();
    assert!(!std::sync::Arc::ptr_eq(&before, &after));
    assert_eq!(after.hosts().len(), 1);
}

#[test]
fn a_new_cluster_shares_endpoints_that_are_known() {
    let mut it = Fixture::live();
    it.accept(Cluster, &[eds_as("a", "shared", 1)]);
    it.accept(Endpoints, &[assignment("shared", 80)]);
    it.accept(Cluster, &[eds_as("b", "shared", 1)]);
    assert!(it.serves("b"));
    assert_eq!(it.snapshot().clusters.get("b").unwrap().hosts().len(), 1);
}

#[test]
fn a_listener_opens_once_its_routes_have_come() {
    let mut it = Fixture::live();
    it.accept(Listener, &[rds_listener("l", "t")]);
    assert!(!it.listens("l"));
    it.accept(Routes, &[table("t", "*")]);
    assert!(it.listens("l"));
    assert!(it.snapshot().routes.get("t").is_some());
}

#[test]
fn a_listener_opens_without_routes_after_initial_fetch_timeout() {
    let mut it = Fixture::live();
    it.accept(Listener, &[rds_listener("l", "t")]);
    it.pass(5 * SECOND);
    assert!(it.listens("l"));
    it.accept(Routes, &[table("t", "*")]);
    assert!(it.snapshot().routes.get("t").is_some());
}

#[test]
fn a_changed_listener_keeps_the_old_one_open_until_its_routes_come() {
    let mut it = Fixture::live();
    it.accept(Listener, &[listener_at("l", "t", 0, "one")]);
    it.accept(Routes, &[table("t", "*")]);
    let before = it.snapshot().listeners["l"].clone();
    it.accept(Listener, &[listener_at("l", "u", 0, "two")]);
    assert!(std::sync::Arc::ptr_eq(&before, &it.snapshot().listeners["l"]));
    assert!(it.snapshot().routes.get("t").is_some());
    it.accept(Routes, &[table("u", "*")]);
    let after = it.snapshot().listeners["l"].clone();
    assert!(!std::sync::Arc::ptr_eq(&before.config, &after.config));
    assert!(std::sync::Arc::ptr_eq(&before.sockets, &after.sockets), "the port stays open");
    assert!(it.snapshot().routes.get("t").is_none());
}

#[test]
fn a_start_takes_clusters_then_listeners_then_traffic() {
    let mut it = Fixture::new();
    it.state.start(it.now);
    assert_eq!(it.told(), ["CDS *"]);
    it.accept(Cluster, &[eds("a", 1)]);
    assert_eq!(it.told(), ["EDS +a"], "listeners wait for the clusters to be warm");
    it.accept(Endpoints, &[assignment("a", 80)]);
    assert_eq!(it.told(), ["LDS *"]);
    it.accept(Listener, &[rds_listener("l", "t"), rds_listener("m", "u")]);
    it.accept(Routes, &[table("t", "*")]);
    assert!(!it.listens("l"), "none accepts before all are warm");
    it.accept(Routes, &[table("u", "*")]);
    assert!(it.listens("l") && it.listens("m"));
}

#[test]
fn a_start_goes_on_without_a_server_that_does_not_answer() {
    let mut it = Fixture::new();
    it.state.start(it.now);
    it.pass(15 * SECOND);
    assert_eq!(it.told(), ["CDS *", "LDS *"]);
    assert!(!it.state.startup.is_live());
    it.pass(15 * SECOND);
    assert!(it.state.startup.is_live());
    assert_eq!(it.state.stats.cds.init_fetch_timeout.value(), 1);
}
