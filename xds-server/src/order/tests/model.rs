//! A seeded model: clients of every behaviour end up with what they asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::speak::{Content, Heard, Speak, Story};
use crate::delta::Delta;
use crate::order::{Conversation, Waits};
use crate::sotw::Sotw;
use crate::types::ResourceType::{self, Cluster, Endpoint, Extension, Listener, Route};

/// Names and values of the model: few, so that everything collides.
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
const TYPES: [ResourceType; 5] = [Cluster, Endpoint, Listener, Extension, Route];

/// A random client against random snapshots. At every quiet point the client has exactly what the
/// snapshot holds of what it asked for; delta never repeats what the client has for no reason.
fn model<M: Speak>(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut content = Content::new();
    let mut story = Story::<M>::new(&content);
    let mut unanswered: Vec<Heard> = Vec::new();
    for step in 0..200 {
        match rng.random_range(0..10) {
            0..3 => {
                for _ in 0..rng.random_range(1..4) {
                    let key = (*TYPES.choose(&mut rng).unwrap(), pick(&mut rng));
                    match rng.random_bool(0.3) {
                        true => drop(content.remove(&key)),
                        false => drop(content.insert(key, rng.random_range(0..3))),
                    }
                }
                story.change(&content);
            }
            3 => {
                let ty = *TYPES.choose(&mut rng).unwrap();
                if !ty.is_complete() || story.client.types.contains_key(&ty) {
                    change_names(&mut story, ty, &mut rng);
                } else {
                    story.subscribe(ty, &[]);
                }
            }
            4 => reconnect(&mut story, &mut unanswered),
            5 => story.now += Duration::from_millis(rng.random_range(0..4000)),
            6..8 => {
                if let Some(heard) = story.next() {
                    unanswered.push(heard);
                }
            }
            _ if !unanswered.is_empty() => {
                let heard = unanswered.remove(rng.random_range(0..unanswered.len()));
                story.answer(&heard, rng.random_bool(0.2));
            }
            _ => {}
        }
        if step % 20 == 19 {
            quiet(&mut story, &mut unanswered);
            verify(&story, &content, seed);
        }
    }
}

fn pick(rng: &mut StdRng) -> String {
    (*NAMES.choose(rng).unwrap()).to_owned()
}

fn change_names<M: Speak>(story: &mut Story<M>, ty: ResourceType, rng: &mut StdRng) {
    if story.client.types.get(&ty).is_some_and(|known| known.wildcard) {
        return;
    }
    let name = pick(rng);
    let new = !story.client.types.contains_key(&ty);
    if !new && rng.random_bool(0.4) {
        let known = story.client.types.get_mut(&ty).unwrap();
        if known.names.remove(&name) {
            known.view.remove(&name);
            let request = M::names(ty, &story.client, &[], &[name]);
            story.talk.request(ty, request, story.now());
        }
    } else {
        story.subscribe(ty, &[&name]);
    }
}

fn reconnect<M: Speak>(story: &mut Story<M>, unanswered: &mut Vec<Heard>) {
    unanswered.clear();
    story.talk = Conversation::new(Arc::clone(story.talk.snapshot()), Waits::default());
    for known in story.client.types.values_mut() {
        known.nonce.clear();
    }
    let types: Vec<_> = story.client.types.keys().copied().collect();
    for ty in types {
        let request = M::first(ty, &story.client);
        story.talk.request(ty, request, story.now());
    }
}

fn quiet<M: Speak>(story: &mut Story<M>, unanswered: &mut Vec<Heard>) {
    for heard in unanswered.drain(..) {
        story.answer(&heard, false);
    }
    for _ in 0..100 {
        story.settle();
        match story.talk.wake_at() {
            Some(at) => story.now = at,
            None => return,
        }
    }
    panic!("never quiet");
}

fn verify<M: Speak>(story: &Story<M>, content: &Content, seed: u64) {
    for (ty, known) in &story.client.types {
        let wanted = |name: &String| known.wildcard || known.names.contains(name);
        let expected: BTreeMap<_, _> = content
            .iter()
            .filter(|((t, name), _)| t == ty && wanted(name))
            .map(|((_, name), value)| (name.clone(), *value))
            .collect();
        let mut view = known.view.clone();
        if M::VARIANT == "sotw" && !ty.is_complete() {
            // Absence says nothing: the client keeps what was removed until nothing refers to it.
            view.retain(|name, _| expected.contains_key(name));
        }
        assert_eq!(view, expected, "{ty:?}, seed {seed}");
    }
}

#[test]
fn every_client_ends_with_what_it_asked_for() {
    for seed in 0..150 {
        model::<Sotw>(seed);
        model::<Delta>(seed);
    }
}

#[test]
fn delta_sends_only_changes() {
    for seed in 0..200 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut now: Content = NAMES.iter().map(|n| ((Cluster, (*n).to_owned()), 0)).collect();
        let mut story = Story::<Delta>::new(&now);
        story.subscribe(Cluster, &[]);
        story.settle();
        for _ in 0..20 {
            let before = now.clone();
            for _ in 0..rng.random_range(1..3) {
                let key = (Cluster, pick(&mut rng));
                match rng.random_bool(0.3) {
                    true => drop(now.remove(&key)),
                    false => drop(now.insert(key, rng.random_range(0..3))),
                }
            }
            story.change(&now);
            let heard = story.next();
            let names = |heard: &Option<Heard>, of: fn(&Heard) -> Vec<String>| {
                heard.as_ref().map(of).unwrap_or_default().into_iter().collect::<BTreeSet<_>>()
            };
            let sent = names(&heard, |h| h.resources.iter().map(|(n, _)| n.clone()).collect());
            let removed = names(&heard, |h| h.removed.clone());
            let changed = now.iter().filter(|(k, v)| before.get(k) != Some(v));
            let gone = before.keys().filter(|k| !now.contains_key(k));
            assert_eq!(sent, changed.map(|(k, _)| k.1.clone()).collect(), "seed {seed}");
            assert_eq!(removed, gone.map(|k| k.1.clone()).collect(), "seed {seed}");
            if let Some(heard) = heard {
                story.answer(&heard, false);
            }
            assert!(story.next().is_none());
        }
    }
}
