//! Clusters: taken in, warmed by their endpoints, put in service, removed.
//!
//! One that resolves names waits until each was tried once, one that checks health until each of
//! its first hosts was.
//! A changed cluster waits for its endpoints to come again while the one before it serves; if they
//! do not come within `initial_fetch_timeout`, those known are used. The server is asked to send
//! them again, since one that thinks we have them would not.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::Instant;
use tracing::{debug, info};

use super::follow::{SourceId, User, Want};
use super::ingest::{Admission, Batch, Good, Item, Kind};
use super::state::State;
use super::store::{Held, Map, Origin, Rejected};
use super::{Effect, Readiness};
use crate::config::{Errors, OrFault};
use crate::upstream::{Cluster, Discovery};
use crate::xds::{ResourceType, Source};

/// See [`Kind`].
pub(super) struct Clusters;

/// A compiled cluster and the endpoints it follows.
pub(super) struct Compiled {
    cluster: Cluster,
    follows: Option<(Want, Option<Duration>)>,
}

/// A version on its way into the store.
struct Incoming {
    origin: Origin,
    held: Held<Cluster>,
    follows: Option<(Want, Option<Duration>)>,
}

impl Kind for Clusters {
    const TYPE: ResourceType = ResourceType::Cluster;
    type Out = Compiled;

    fn admit(state: &State, item: &Item) -> Admission {
        match state.clusters.get(&item.name) {
            Some(record) if record.origin == Origin::Static && item.origin != Origin::Static => {
                Admission::Taken
            }
            _ if state.clusters.is_unchanged(&item.name, &item.body.value) => Admission::Unchanged,
            _ => Admission::Judge,
        }
    }

    fn compile(state: &mut State, item: &Item, batch: &mut Batch) -> Result<Compiled, Errors> {
        let cluster = state.compilers.cluster(&item.body, &mut batch.ignored)?;
        let follows = match cluster.eds() {
            None => None,
            Some(eds) => {
                let resolved = state
                    .sources
                    .resolve(&mut state.follow, &eds.source)
                    .at("eds_config")
                    .at("eds_cluster_config")?;
                let name = match eds.service_name.is_empty() {
                    true => item.name.clone(),
                    false => eds.service_name.clone(),
                };
                let want = Want { source: resolved.source, ty: ResourceType::Endpoints, name };
                Some((want, resolved.timeout))
            }
        };
        Ok(Compiled { cluster, follows })
    }

    fn apply(state: &mut State, good: Good<Compiled>, now: Instant) {
        let Good { source: _, origin, name, raw, version, value } = good;
        let Compiled { cluster, follows } = value;
        let wants = follows.iter().map(|(want, _)| want.clone()).collect();
        let runs = cluster.has_tasks();
        let held = Held {
            raw,
            version,
            updated: State::wall(),
            value: Arc::new(cluster),
            wants,
            running: runs.then(Arc::default),
        };
        let is_new = state.clusters.get(&name).is_none_or(|record| record.newest().is_none());
        match is_new {
            true => state.stats.clusters.cluster_added.inc(),
            false => state.stats.clusters.cluster_modified.inc(),
        }
        state.put_cluster(&name, Incoming { origin, held, follows }, now);
    }

    fn confirm(state: &mut State, item: &Item, _now: Instant) {
        state.clusters.confirm(&item.name, &item.version);
    }

    fn reject(state: &mut State, _source: SourceId, name: &Arc<str>, rejected: Rejected) {
        state.clusters.reject(name, rejected);
    }

    fn remove(state: &mut State, _source: SourceId, name: &str, _expired: bool) {
        state.remove_cluster(name);
    }

    fn absent(state: &State, present: &Map<Arc<str>, ()>, only: Option<Origin>) -> Vec<Arc<str>> {
        let absent = state.clusters.records.iter().filter(|(name, record)| {
            record.origin != Origin::Static
                && only.is_none_or(|only| record.origin == only)
                && !present.contains_key(*name)
        });
        absent.map(|(name, _)| name.clone()).collect()
    }
}

impl State {
    fn put_cluster(
        &mut self,
        name: &Arc<str>,
        Incoming { origin, held, follows }: Incoming,
        now: Instant,
    ) {
        let user = User::Cluster(name.clone());
        if let Some(before) = self.clusters.get(name).and_then(|r| r.active.as_ref()) {
            // Hosts that stay keep their counts.
            held.value.inherit_hosts(&before.value);
        }
        let mut waits = follows.filter(|(want, _)| {
            self.follow.add(want, user.clone());
            self.must_wait(name, want, origin)
        });
        // The version that was still warming is never used.
        self.warming.cancel(&user);
        if let Some(before) = self.clusters.unwarm(name) {
            self.release_all(&before.wants, &user);
        }
        if let Some(running) = &held.running {
            self.effects.push(Effect::Run(held.value.clone(), Arc::downgrade(running)));
            // A name that does not resolve is tried all the same, so this ends by itself.
            if matches!(held.value.discovery(), Discovery::Dns(_)) {
                let want = self.own_work(name);
                let guard = Arc::downgrade(running);
                let cluster = held.value.clone();
                self.effects.push(Effect::Await(Readiness::Resolved, cluster, guard, want.clone()));
                waits = Some((want, None));
            }
        }
        self.clusters.warm(name, origin, held);
        match waits {
            None => self.activate_cluster(name),
            Some((want, timeout)) => {
                debug!(cluster = %name, waits_for = %want.name, "cluster is warming");
                self.warming.start(user, [(want, timeout)], now);
            }
        }
    }

    /// What a cluster waits for that does it itself.
    fn own_work(&mut self, name: &Arc<str>) -> Want {
        let source = self.follow.source(&Source::Ads);
        Want { source, ty: ResourceType::Cluster, name: name.clone() }
    }

    /// Whether a version must wait for endpoints although some may be known: what is known was sent
    /// for the version before it. From the disk there is nothing newer to wait for.
    fn must_wait(&mut self, name: &Arc<str>, want: &Want, origin: Origin) -> bool {
        let known = self.endpoints.get(want).is_some_and(|record| record.active.is_some());
        let replaces = self
            .clusters
            .get(name)
            .and_then(|record| record.active.as_ref())
            .is_some_and(|active| active.wants.contains(want));
        if replaces {
            self.follow.again(want);
        }
        !known || (replaces && origin != Origin::Disk)
    }

    /// Puts the warming version in service with the endpoints that are known.
    pub(super) fn activate_cluster(&mut self, name: &Arc<str>) {
        let Some(held) = self.clusters.unwarm(name) else { return };
        for want in &held.wants {
            if let Some(endpoints) = self.endpoints.get(want).and_then(|r| r.active.as_ref()) {
                held.value.set_endpoints(&endpoints.value);
            }
        }
        let Some(record) = self.clusters.get(name) else { return };
        let origin = record.origin;
        // From the disk, what may be well is better than nothing.
        if held.value.has_unchecked() && origin != Origin::Disk {
            debug!(cluster = %name, "cluster waits for its first health checks");
            let want = self.own_work(name);
            let guard = held.running.as_ref().map(Arc::downgrade).unwrap_or_default();
            let cluster = held.value.clone();
            self.effects.push(Effect::Await(Readiness::Checked, cluster, guard, want.clone()));
            self.clusters.warm(name, origin, held);
            return self.warming.start_endless(User::Cluster(name.clone()), want);
        }
        let value = held.value.clone();
        let before = self.clusters.activate(name, origin, held);
        match before {
            Some(before) => {
                value.take_over(&before.value);
                self.release_all(&before.wants, &User::Cluster(name.clone()));
            }
            None => self.stats.clusters.active_clusters.inc(),
        }
        self.publish.dirty.clusters = true;
    }

    fn remove_cluster(&mut self, name: &str) {
        match self.clusters.get(name) {
            None => return,
            Some(record) if record.origin == Origin::Static => return,
            Some(_) => {}
        }
        let Some(record) = self.clusters.remove(name) else { return };
        let user = User::Cluster(name.into());
        self.warming.cancel(&user);
        if record.newest().is_some() {
            self.stats.clusters.cluster_removed.inc();
            info!(cluster = name, "cluster removed");
        }
        if record.active.is_some() {
            self.stats.clusters.active_clusters.dec();
            self.publish.dirty.clusters = true;
        }
        for held in [record.active, record.warming].into_iter().flatten() {
            self.release_all(&held.wants, &user);
        }
    }

    /// Gives up what a version referred to; what nobody refers to is forgotten.
    pub(super) fn release_all(&mut self, wants: &SmallVec<[Want; 1]>, user: &User) {
        for want in wants {
            if self.follow.release(want, user) {
                self.forget(want);
            }
        }
    }

    fn forget(&mut self, want: &Want) {
        match want.ty {
            ResourceType::Endpoints => {
                self.endpoints.remove(want);
                self.stale.renew(want, None);
            }
            ResourceType::Extension => {
                self.extensions.remove(want);
                self.extension_stats.remove(want);
            }
            ResourceType::Routes => {
                self.routes.remove(want);
                self.leave_hosts(want);
                if self.table_sources.get(&want.name) == Some(want) {
                    self.table_sources.remove(&want.name);
                    self.publish.dirty.routes = true;
                }
            }
            ResourceType::Cluster
            | ResourceType::Listener
            | ResourceType::VirtualHost
            | ResourceType::Secret => {}
        }
    }
}
