//! The sets in service: the one place where what a source gives becomes what nodes are served.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::assemble::{Rigour, assemble};
use crate::groups::Rules;
use crate::problem::Problem;
use crate::snapshot::Snapshot;
use crate::source::{GroupLoad, Load, Source};
use crate::stats::Stats;
use crate::types::ResourceType;

/// One group of nodes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Group {
    /// The last good set; `None` if there was none yet.
    pub(crate) snapshot: Option<Arc<Snapshot>>,
    /// When it was taken into service.
    pub(crate) accepted: Option<SystemTime>,
    /// Doubts about the set in service.
    pub(crate) warnings: Vec<Problem>,
    /// What is wrong with the newest set, if it was refused.
    pub(crate) errors: Vec<Problem>,
    /// When it was first refused for these.
    pub(crate) refused: Option<SystemTime>,
}

/// Everything in service, replaced whole.
#[derive(Debug, Clone, Default)]
pub(crate) struct World {
    pub(crate) rules: Rules,
    pub(crate) groups: BTreeMap<Arc<str>, Arc<Group>>,
    /// What is wrong with the source as a whole.
    pub(crate) errors: Vec<Problem>,
}

impl World {
    /// The group of a node.
    pub(crate) fn group(&self, id: &str, cluster: &str) -> (Arc<str>, Option<&Arc<Group>>) {
        let name = self.rules.group(id, cluster);
        let group = self.groups.get(&name);
        (name, group)
    }

    /// Everything that is wrong now.
    pub(crate) fn all_errors(&self) -> impl Iterator<Item = &Problem> {
        self.errors.iter().chain(self.groups.values().flat_map(|group| &group.errors))
    }

    /// The world after a source was read.
    fn after(&self, loaded: Result<Load, Vec<Problem>>, rigour: Rigour, now: SystemTime) -> Self {
        match loaded {
            Err(errors) => Self { errors, ..self.clone() },
            Ok(Load { rules, groups }) => {
                let groups = groups.into_iter().map(|group| {
                    let name = Arc::clone(&group.name);
                    let old = self.groups.get(&name).map(|old| (**old).clone());
                    (name, Arc::new(old.unwrap_or_default().after(group, rigour, now)))
                });
                Self { rules, groups: groups.collect(), errors: Vec::new() }
            }
        }
    }
}

impl Group {
    fn after(self, group: GroupLoad, rigour: Rigour, now: SystemTime) -> Self {
        let GroupLoad { name: _, items, errors, warnings: mut doubts } = group;
        match assemble(self.snapshot.as_deref(), items, errors, rigour) {
            Err(errors) => {
                let same = errors == self.errors;
                let refused = self.refused.filter(|_| same).or(Some(now));
                Self { errors, refused, ..self }
            }
            Ok((snapshot, warnings)) => {
                doubts.extend(warnings);
                let old = self.snapshot.filter(|old| snapshot.changed(old).next().is_none());
                let accepted = self.accepted.filter(|_| old.is_some()).or(Some(now));
                let snapshot = old.unwrap_or_else(|| Arc::new(snapshot));
                Self {
                    snapshot: Some(snapshot),
                    accepted,
                    warnings: doubts,
                    errors: Vec::new(),
                    refused: None,
                }
            }
        }
    }
}

/// The task that reads a source and publishes what it finds; the only writer.
pub(crate) struct Keeper<S> {
    source: S,
    rigour: Rigour,
    world: watch::Sender<Arc<World>>,
    stats: Arc<Stats>,
}

impl<S: Source> Keeper<S> {
    pub(crate) fn new(source: S, rigour: Rigour, stats: Arc<Stats>) -> Self {
        let (world, _) = watch::channel(Arc::default());
        Self { source, rigour, world, stats }
    }

    /// What is in service, now and later.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<World>> {
        self.world.subscribe()
    }

    /// Reads the source once and publishes the result.
    pub(crate) async fn refresh(&mut self) {
        let loaded = self.source.load().await;
        let (old, rigour) = (Arc::clone(&self.world.borrow()), self.rigour);
        // Thousands of resources take a while to check, and nobody should wait for that.
        let before = Arc::clone(&old);
        let made =
            tokio::task::spawn_blocking(move || before.after(loaded, rigour, SystemTime::now()));
        match made.await {
            Ok(new) => {
                self.stats.load(new.all_errors().next().is_none());
                report(&old, &new);
                self.world.send_replace(Arc::new(new));
            }
            // The runtime is going down: nobody is left to serve.
            Err(error) => debug!(%error, "a load was given up"),
        }
    }

    /// Publishes every change for ever.
    pub(crate) async fn run(mut self) {
        loop {
            self.source.changed().await;
            self.refresh().await;
        }
    }
}

/// Says what changed, once.
fn report(old: &World, new: &World) {
    // At the start there is no last good set: the errors end the start and are told by it.
    let first = old.groups.is_empty();
    if new.errors != old.errors && !first {
        refused("", &new.errors);
    }
    for (name, group) in &new.groups {
        let before = old.groups.get(name);
        if before.is_none_or(|before| before.errors != group.errors) && !first {
            refused(name, &group.errors);
        }
        if before.is_none_or(|before| before.warnings != group.warnings) {
            for warning in &group.warnings {
                warn!(group = %name, problem = %warning, "doubtful configuration");
            }
        }
        let served = before.and_then(|before| before.snapshot.as_ref());
        let Some(snapshot) = &group.snapshot else { continue };
        if served.is_some_and(|served| Arc::ptr_eq(served, snapshot)) {
            continue;
        }
        let count = |ty| snapshot.set(ty).resources.len();
        info!(
            group = %name,
            clusters = count(ResourceType::Cluster),
            endpoints = count(ResourceType::Endpoint),
            listeners = count(ResourceType::Listener),
            extensions = count(ResourceType::Extension),
            routes = count(ResourceType::Route),
            virtual_hosts = count(ResourceType::VirtualHost),
            secrets = count(ResourceType::Secret),
            "serving a new set"
        );
    }
}

fn refused(group: &str, errors: &[Problem]) {
    for error in errors {
        warn!(group, problem = %error, "configuration refused; the last good set stays in service");
    }
}
