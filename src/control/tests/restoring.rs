//! Starting from the file of an earlier process.

use std::time::SystemTime;

use super::fixture::*;
use crate::control::last_good::Saved;
use crate::xds::ResourceType::{Cluster, Endpoints, Listener, Routes};

fn restored() -> Fixture {
    let resources = vec![
        (Cluster, vec![named("a", "1", eds("a", 1)), named("old", "1", fixed("old", 1))]),
        (Endpoints, vec![named("a", "1", assignment("a", 80))]),
        (Listener, vec![named("l", "1", rds_listener("l", "t"))]),
        (Routes, vec![named("t", "1", table("t", "*"))]),
    ];
    let mut it = Fixture::new();
    it.state.restore(Saved { when: SystemTime::now(), resources }, it.now);
    it.state.start(it.now);
    it
}

#[test]
fn what_was_saved_serves_at_once() {
    let mut it = restored();
    assert!(it.state.startup.is_live());
    assert!(it.serves("a") && it.serves("old") && it.listens("l"));
    assert!(it.state.startup.status().restored.is_some());
    assert_eq!(it.told(), ["CDS *", "EDS +a", "RDS +t"]);
}

#[test]
fn the_servers_first_answer_replaces_what_was_saved() {
    let mut it = restored();
    let before = it.snapshot();
    // An incremental answer, which by itself would remove nothing.
    it.accept(Cluster, &[eds("a", 1)]);
    assert!(!it.serves("old"));
    let after = it.snapshot();
    let same = |name| {
        std::sync::Arc::ptr_eq(
            before.clusters.get(name).unwrap(),
            after.clusters.get(name).unwrap(),
        )
    };
    assert!(same("a"), "what did not change goes on");
    assert!(it.state.startup.status().restored.is_some(), "listeners are still those saved");
    it.accept(Listener, &[rds_listener("m", "t")]);
    assert!(!it.listens("l") && it.listens("m"));
    assert_eq!(it.state.startup.status().restored, None);
    it.accept(Cluster, &[fixed("new", 1)]);
    assert!(it.serves("a"), "later answers are incremental again");
}

#[test]
fn a_rejected_answer_leaves_what_was_saved() {
    let mut it = restored();
    assert_eq!(it.update(Cluster, &[fixed("bad", -1)]).len(), 1);
    assert!(it.serves("old"));
    assert!(it.state.startup.status().restored.is_some());
}
