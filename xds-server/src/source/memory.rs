//! Resources given by the program that embeds the server.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use prost_types::Any;
use tokio::sync::watch;

use super::{GroupLoad, Load, Source};
use crate::assemble::Item;
use crate::check::name_of;
use crate::groups::{DEFAULT_GROUP, Rules};
use crate::problem::Problem;

/// A handle on resources in memory; clones share them. Changes are served at once.
#[derive(Debug, Clone)]
pub struct MemorySource {
    state: Arc<Mutex<State>>,
    changes: watch::Sender<u64>,
    seen: watch::Receiver<u64>,
}

#[derive(Debug, Default)]
struct State {
    rules: Rules,
    groups: BTreeMap<Arc<str>, Vec<Any>>,
}

impl Default for MemorySource {
    fn default() -> Self {
        Self::new()
    }
}

impl MemorySource {
    /// A source whose default group is empty.
    pub fn new() -> Self {
        let (changes, seen) = watch::channel(0);
        let groups = BTreeMap::from([(DEFAULT_GROUP.into(), Vec::new())]);
        let state = Arc::new(Mutex::new(State { groups, ..State::default() }));
        Self { state, changes, seen }
    }

    /// Replaces all resources of the default group. Make them with `nuncio::proto::any::pack`.
    pub fn set(&self, resources: impl IntoIterator<Item = Any>) {
        self.set_group(DEFAULT_GROUP, resources);
    }

    /// Replaces all resources of a group.
    pub fn set_group(&self, group: &str, resources: impl IntoIterator<Item = Any>) {
        let resources = resources.into_iter().collect();
        self.state.lock().groups.insert(group.into(), resources);
        self.tell();
    }

    /// Adds resources to the default group; each replaces one of its type and name. Linear in the
    /// number of resources of the group.
    pub fn update(&self, resources: impl IntoIterator<Item = Any>) {
        let mut state = self.state.lock();
        let held = state.groups.entry(DEFAULT_GROUP.into()).or_default();
        let key = |any: &Any| (any.type_url.clone(), name_of(any));
        let mut places: HashMap<_, _> =
            held.iter().enumerate().map(|(place, any)| (key(any), place)).collect();
        for any in resources {
            match places.entry(key(&any)) {
                Entry::Occupied(place) => held[*place.get()] = any,
                Entry::Vacant(place) => {
                    place.insert(held.len());
                    held.push(any);
                }
            }
        }
        drop(state);
        self.tell();
    }

    /// Takes the resource of a type URL and name out of the default group.
    pub fn remove(&self, type_url: &str, name: &str) {
        if let Some(held) = self.state.lock().groups.get_mut(DEFAULT_GROUP) {
            held.retain(|any| any.type_url != type_url || name_of(any).as_deref() != Some(name));
        }
        self.tell();
    }

    /// Replaces the rules that choose a node's group.
    pub fn set_rules(&self, rules: Rules) {
        self.state.lock().rules = rules;
        self.tell();
    }

    fn tell(&self) {
        self.changes.send_modify(|count| *count += 1);
    }
}

impl Source for MemorySource {
    async fn load(&mut self) -> Result<Load, Vec<Problem>> {
        self.seen.mark_unchanged();
        let state = self.state.lock();
        let groups = state.groups.iter().map(|(name, resources)| GroupLoad {
            name: Arc::clone(name),
            items: resources.iter().cloned().map(Item::new).collect(),
            ..GroupLoad::default()
        });
        Ok(Load { rules: state.rules.clone(), groups: groups.collect() })
    }

    async fn changed(&mut self) {
        if self.seen.changed().await.is_err() {
            // Cannot be: this handle holds a sender. Without one nothing ever changes.
            std::future::pending::<()>().await;
        }
    }
}
