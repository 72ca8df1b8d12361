//! Configurations of filters: wanted by listeners, judged by them, put into them.

use std::sync::Arc;
use std::time::SystemTime;

use super::fixture::*;
use crate::control::ingest::Change;
use crate::control::last_good::Saved;
use crate::control::stats::{ExtensionStats, SubscriptionStats};
use crate::listener::Listener as Served;
use crate::proto::envoy::extensions::filters::http::header_mutation::v3::HeaderMutation;
use crate::proto::envoy::extensions::filters::http::router::v3::Router;
use crate::telemetry::Scope;
use crate::xds::ResourceType::{Extension, Listener, Routes};

const BUFFER: &str = "envoy.extensions.filters.http.buffer.v3.Buffer";
const MUTATION: &str = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation";

/// With the listener `l`, its table, and its extension `x`, of these types.
fn served(types: &[&str]) -> Fixture {
    let mut it = Fixture::live();
    it.accept(Listener, &[ecds_listener("l", "t", &[("x", types)])]);
    it.accept(Routes, &[table("t", "*")]);
    it.accept(Extension, &[extension("x", 1)]);
    assert!(it.listens("l"));
    it.told();
    it
}

fn current(it: &mut Fixture) -> Arc<Served> {
    it.snapshot().listeners["l"].clone()
}

/// `config_reload`, `config_fail` and `config_conflict` of `x`.
fn counts(it: &Fixture) -> (u64, u64, u64) {
    let stats: Arc<ExtensionStats> = it.state.telemetry.group(Scope::http_extension("x"));
    (stats.config_reload.value(), stats.config_fail.value(), stats.config_conflict.value())
}

fn shown(listener: &Served) -> String {
    format!("{:?}", listener.extensions)
}

#[test]
fn a_listener_waits_for_its_extensions_and_its_table() {
    let mut it = Fixture::live();
    it.accept(Listener, &[ecds_listener("l", "t", &[("x", &[BUFFER]), ("y", &[BUFFER])])]);
    assert_eq!(it.told(), ["ECDS +x,y", "RDS +t"]);
    it.accept(Extension, &[extension("x", 1)]);
    it.accept(Routes, &[table("t", "*")]);
    assert!(!it.listens("l"));
    // A name that does not exist is an answer.
    it.remove(Extension, "y");
    assert!(it.listens("l"));
}

#[test]
fn waiting_for_extensions_ends_after_initial_fetch_timeout() {
    let mut it = Fixture::live();
    it.accept(Listener, &[ecds_listener("l", "t", &[("x", &[BUFFER])])]);
    it.accept(Routes, &[table("t", "*")]);
    it.pass(4 * SECOND);
    assert!(!it.listens("l"));
    it.pass(SECOND);
    assert!(it.listens("l"));
    assert_eq!(counts(&it), (0, 1, 0));
    let updates: Arc<SubscriptionStats> = it.state.telemetry.group(Scope::http_extension("x"));
    assert_eq!(updates.init_fetch_timeout.value(), 1);
}

#[test]
fn an_update_changes_the_listener_and_not_its_configuration() {
    let mut it = served(&[BUFFER]);
    let before = current(&mut it);
    it.accept(Extension, &[extension("x", 2)]);
    let after = current(&mut it);
    assert!(
        Arc::ptr_eq(&before.config, &after.config) && Arc::ptr_eq(&before.sockets, &after.sockets)
    );
    assert!(!Arc::ptr_eq(&before.extensions, &after.extensions));
    assert_eq!(it.state.stats.listeners.listener_modified.value(), 0);
    assert_eq!(counts(&it), (2, 0, 0));
    // The same bytes are no update.
    let snapshot = it.snapshot();
    it.accept(Extension, &[extension("x", 2)]);
    assert!(Arc::ptr_eq(&snapshot, &it.snapshot()));
    assert_eq!(counts(&it), (2, 0, 0));
}

#[test]
fn what_is_refused_leaves_what_there_is() {
    let mut it = served(&[BUFFER]);
    let before = it.snapshot();
    let bad = [
        (extension("x", 0), "typed_config.max_request_bytes: 0 is not"),
        (extension_of("x", &HeaderMutation::default()), "listener \"l\", http_filters[0]: "),
        (extension_of("x", &Router::default()), "the filter's type_urls are"),
        (
            extension_of("x", &crate::proto::envoy::config::core::v3::Node::default()),
            "unknown extension type envoy.config.core.v3.Node",
        ),
    ];
    for (n, (resource, reason)) in (1..).zip(bad) {
        let rejected = it.update(Extension, &[resource]);
        assert_eq!((rejected.len(), &*rejected[0].name), (1, "x"));
        assert!(
            rejected[0].error.starts_with("TypedExtensionConfig \"x\": typed_config"),
            "{rejected:?}"
        );
        assert!(rejected[0].error.contains(reason), "{rejected:?}");
        assert_eq!(counts(&it), (1, n, 0));
    }
    assert!(Arc::ptr_eq(&before, &it.snapshot()));
}

#[test]
fn what_is_taken_back_or_expires_is_gone() {
    for expired in [false, true] {
        let mut it = served(&[BUFFER]);
        assert!(shown(&current(&mut it)).contains(BUFFER));
        let change = Change { expired, ..it.change(Extension, &[], &["x"]) };
        assert_eq!(it.ingest(change), []);
        assert!(!shown(&current(&mut it)).contains(BUFFER));
        it.accept(Extension, &[extension("x", 1)]);
        assert!(shown(&current(&mut it)).contains(BUFFER), "the same bytes are new again");
        assert_eq!(counts(&it), (3, 0, 0));
    }
}

#[test]
fn a_name_is_followed_until_no_listener_names_it() {
    let mut it = served(&[BUFFER]);
    it.accept(Listener, &[ecds_listener("m", "t", &[("x", &[BUFFER])])]);
    assert!(it.listens("m"), "nothing is left to wait for");
    it.remove(Listener, "l");
    assert_eq!(it.told(), [""; 0]);
    it.remove(Listener, "m");
    assert_eq!(it.told(), ["ECDS -x", "RDS -t"]);
    assert!(it.state.extensions.records.is_empty() && it.state.extension_stats.is_empty());
    it.accept(Extension, &[extension("x", 2)]);
    assert!(it.state.extensions.records.is_empty(), "nobody wants it");
}

#[test]
fn a_version_of_another_type_waits_for_its_extension_and_only_it_judges() {
    let mut it = served(&[BUFFER]);
    let before = current(&mut it);
    it.accept(Listener, &[ecds_listener("l", "t", &[("x", &[MUTATION])])]);
    assert_eq!(counts(&it), (1, 0, 1));
    assert!(Arc::ptr_eq(&before.config, &current(&mut it).config));
    assert_eq!(it.update(Extension, &[extension("x", 2)]).len(), 1, "for the one that goes");
    it.accept(Listener, &[ecds_listener("l", "t", &[("x", &[MUTATION, BUFFER])])]);
    assert!(!Arc::ptr_eq(&before.config, &current(&mut it).config), "both suit it");

    let before = current(&mut it);
    it.accept(Listener, &[ecds_listener("l", "t", &[("x", &[MUTATION])])]);
    it.accept(Extension, &[extension_of("x", &HeaderMutation::default())]);
    let after = current(&mut it);
    assert!(!Arc::ptr_eq(&before.config, &after.config));
    assert!(shown(&after).contains(MUTATION));
}

#[test]
fn what_was_saved_serves_at_once() {
    let mut it = Fixture::new();
    let listener = ecds_listener("l", "t", &[("x", &[BUFFER])]);
    let resources = vec![
        (Listener, vec![named("l", "1", listener)]),
        (Extension, vec![named("x", "1", extension("x", 1))]),
        (Routes, vec![named("t", "1", table("t", "*"))]),
    ];
    it.state.restore(Saved { when: SystemTime::now(), resources }, it.now);
    it.state.start(it.now);
    assert!(it.listens("l") && shown(&current(&mut it)).contains(BUFFER));
    assert_eq!(it.told(), ["CDS *", "ECDS +x", "RDS +t"]);
}
