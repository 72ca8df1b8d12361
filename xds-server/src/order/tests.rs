//! Stories of ordered updates.

mod model;
mod speak;

use std::sync::Arc;

use super::{Conversation, Waits};
use crate::delta::Delta;
use crate::sotw::Sotw;
use crate::types::ResourceType::{self, Cluster, Endpoint, Extension, Listener, Route};

use speak::{Content, Speak, Story, content};

const BEFORE: [(ResourceType, &str, u32); 4] =
    [(Cluster, "old", 1), (Endpoint, "old", 1), (Listener, "l", 1), (Route, "r", 1)];
const AFTER: [(ResourceType, &str, u32); 4] =
    [(Cluster, "new", 1), (Endpoint, "new", 1), (Listener, "l", 2), (Route, "r", 2)];

fn served<M: Speak>() -> Story<M> {
    let mut story = Story::new(&content(&BEFORE));
    story.subscribe(Cluster, &[]);
    assert_eq!(story.settle(), [Cluster]);
    story.subscribe(Endpoint, &["old"]);
    story.subscribe(Listener, &[]);
    assert_eq!(story.settle(), [Endpoint, Listener]);
    story.subscribe(Route, &["r"]);
    assert_eq!(story.settle(), [Route]);
    story
}

fn made_before_broken<M: Speak>() {
    let mut story = served::<M>();
    story.change(&content(&AFTER));
    let cluster = story.next().unwrap();
    assert_eq!(cluster.ty, Cluster);
    assert!(cluster.names().contains(&"new") && cluster.removed.is_empty());
    assert_eq!(story.client.types[&Cluster].view.len(), 2, "the old one stays");
    assert!(story.next().is_none(), "the listener waits for the answer");
    story.answer(&cluster, false);
    assert!(story.next().is_none(), "and for the endpoints to be asked for");
    story.subscribe(Endpoint, &["new"]);
    let endpoint = story.next().unwrap();
    assert_eq!((endpoint.ty, endpoint.names()), (Endpoint, vec!["new"]));
    assert!(story.next().is_none(), "and taken");
    story.answer(&endpoint, false);
    let listener = story.next().unwrap();
    assert_eq!(listener.ty, Listener);
    let route = story.next().unwrap();
    assert_eq!(route.ty, Route);
    assert!(story.next().is_none(), "removal waits for both answers");
    story.answer(&listener, false);
    assert!(story.next().is_none());
    story.answer(&route, true);
    let cluster = story.next().unwrap();
    assert_eq!(cluster.ty, Cluster);
    assert_eq!(story.client.types[&Cluster].view.len(), 1);
    story.answer(&cluster, false);
    story.settle();
    assert_eq!(story.talk.wake_at(), None);
}

#[test]
fn sotw_is_made_before_it_is_broken() {
    made_before_broken::<Sotw>();
}

#[test]
fn delta_is_made_before_it_is_broken() {
    made_before_broken::<Delta>();
}

fn extensions_come_after_their_listener_and_go_after_it<M: Speak>() {
    let mut story = served::<M>();
    let mut after = content(&BEFORE);
    after.insert((Listener, "l".to_owned()), 2);
    after.insert((Extension, "x".to_owned()), 1);
    story.change(&after);
    assert_eq!(story.settle(), [Listener]);
    story.subscribe(Extension, &["x"]);
    assert_eq!(story.settle(), [Extension]);
    after.insert((Listener, "l".to_owned()), 3);
    after.insert((Extension, "x".to_owned()), 2);
    story.change(&after);
    assert_eq!(story.settle(), [Listener, Extension]);
    // Alone, a change waits for nothing.
    after.insert((Extension, "x".to_owned()), 3);
    story.change(&after);
    assert_eq!(story.settle(), [Extension]);

    after.insert((Listener, "l".to_owned()), 4);
    after.remove(&(Extension, "x".to_owned()));
    after.remove(&(Cluster, "old".to_owned()));
    story.change(&after);
    let listener = story.next().unwrap();
    assert_eq!(listener.ty, Listener);
    assert!(story.next().is_none(), "removals wait for the listener");
    story.answer(&listener, false);
    let is_delta = M::VARIANT == "delta";
    let expected: &[_] = if is_delta { &[Extension, Cluster] } else { &[Cluster] };
    let mut gone = story.settle();
    gone.truncate(expected.len());
    assert_eq!(gone, expected, "an extension may name the cluster");
    assert_eq!(story.client.types[&Extension].view.is_empty(), is_delta);
}

#[test]
fn extensions_come_after_their_listener_and_go_after_it_in_both_variants() {
    extensions_come_after_their_listener_and_go_after_it::<Sotw>();
    extensions_come_after_their_listener_and_go_after_it::<Delta>();
}

fn silent_clients_are_not_waited_for<M: Speak>() {
    let mut story = served::<M>();
    story.change(&content(&AFTER));
    let cluster = story.next().unwrap();
    assert!(story.next().is_none());
    story.sleep_until_woken();
    assert_eq!(story.next().unwrap().ty, Listener);
    assert_eq!(story.next().unwrap().ty, Route);
    assert!(story.next().is_none_or(|heard| heard.ty == Endpoint));
    story.answer(&cluster, false);
    assert!(story.next().is_none());
    story.now += Waits::default().answer;
    assert_eq!(story.next().unwrap().ty, Cluster, "the removal");
    assert!(story.next().is_none());
}

#[test]
fn a_silent_client_is_waited_for_only_so_long() {
    silent_clients_are_not_waited_for::<Sotw>();
    silent_clients_are_not_waited_for::<Delta>();
}

fn unwanted_endpoints_are_not_waited_for<M: Speak>() {
    let mut story = served::<M>();
    story.change(&content(&AFTER));
    assert_eq!(story.settle(), [Cluster]);
    let before = story.now;
    story.sleep_until_woken();
    assert_eq!(story.now - before, Waits::default().subscribe);
    assert_eq!(story.next().unwrap().ty, Listener);
}

#[test]
fn endpoints_that_nobody_asks_for_are_waited_for_only_so_long() {
    unwanted_endpoints_are_not_waited_for::<Sotw>();
    unwanted_endpoints_are_not_waited_for::<Delta>();
}

fn endpoints_follow_a_changed_cluster<M: Speak>() {
    let mut story = served::<M>();
    let mut after = content(&BEFORE);
    after.insert((Cluster, "old".to_owned()), 2);
    story.change(&after);
    assert_eq!(story.settle(), [Cluster, Endpoint]);
    assert!(story.next().is_none());
}

#[test]
fn a_changed_cluster_is_given_its_endpoints_again() {
    endpoints_follow_a_changed_cluster::<Sotw>();
    endpoints_follow_a_changed_cluster::<Delta>();
}

fn endpoints_alone<M: Speak>() {
    let mut story = served::<M>();
    let mut after = content(&BEFORE);
    after.insert((Endpoint, "old".to_owned()), 2);
    story.change(&after);
    let heard = story.next().unwrap();
    assert_eq!((heard.ty, heard.names()), (Endpoint, vec!["old"]));
    // While this has no answer, two changes come; the client is sent the last.
    after.insert((Endpoint, "old".to_owned()), 3);
    story.change(&after);
    assert!(story.next().is_none());
    after.insert((Endpoint, "old".to_owned()), 4);
    story.change(&after);
    story.answer(&heard, false);
    assert_eq!(story.next().unwrap().resources, [("old".to_owned(), 4)]);
}

#[test]
fn the_latest_snapshot_wins() {
    endpoints_alone::<Sotw>();
    endpoints_alone::<Delta>();
}

fn refused_is_not_repeated<M: Speak>() {
    let mut story = served::<M>();
    let mut after = content(&BEFORE);
    after.insert((Route, "r".to_owned()), 2);
    story.change(&after);
    let heard = story.next().unwrap();
    story.answer(&heard, true);
    assert!(story.next().is_none());
    let ledger = &story.talk.machine(Route).unwrap().core().ledger;
    assert_eq!(ledger.nack.as_ref().unwrap().message, "refused");
    after.insert((Listener, "l".to_owned()), 2);
    story.change(&after);
    assert_eq!(story.settle(), [Listener]);
    after.insert((Route, "r".to_owned()), 3);
    story.change(&after);
    assert_eq!(story.settle(), [Route]);
}

#[test]
fn a_refused_resource_is_not_sent_again_until_it_changes() {
    refused_is_not_repeated::<Sotw>();
    refused_is_not_repeated::<Delta>();
}

#[test]
fn an_empty_set_is_said_once() {
    let mut story = Story::<Sotw>::new(&Content::new());
    story.subscribe(Cluster, &[]);
    assert_eq!(story.settle(), [Cluster]);
    let mut story = Story::<Delta>::new(&Content::new());
    story.subscribe(Cluster, &[]);
    story.subscribe(Endpoint, &["x"]);
    assert_eq!(story.next().unwrap().ty, Cluster);
    assert_eq!(story.next().unwrap().removed, ["x"], "it does not exist");
    assert!(story.next().is_none());
}

#[test]
fn sotw_clients_that_come_back_with_everything_are_sent_nothing() {
    let mut story = served::<Sotw>();
    let snapshot = Arc::clone(story.talk.snapshot());
    story.talk = Conversation::new(snapshot, Waits::default());
    for known in story.client.types.values_mut() {
        known.nonce.clear();
    }
    for ty in [Cluster, Listener] {
        let request = Sotw::first(ty, &story.client);
        story.talk.request(ty, request, story.now());
    }
    assert!(story.next().is_none());
    let request = Sotw::first(Route, &story.client);
    story.talk.request(Route, request, story.now());
    assert_eq!(story.settle(), [Route], "a version does not say which names it was for");
}
