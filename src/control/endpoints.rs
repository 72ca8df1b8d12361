//! Endpoints: the short road. An assignment goes straight into the clusters that follow it; no
//! snapshot is built, and the cost does not depend on how many other clusters there are.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::Instant;

use super::compile;
use super::follow::{SourceId, User, Want};
use super::ingest::{Admission, Batch, Good, Item, Kind};
use super::state::State;
use super::store::{Held, Map, Origin, Record, Rejected};
use crate::config::Errors;
use crate::upstream::{Cluster, Endpoints};
use crate::xds::ResourceType;

/// See [`Kind`].
pub(super) struct Assignments;

fn want(source: SourceId, name: &Arc<str>) -> Want {
    Want { source, ty: ResourceType::Endpoints, name: name.clone() }
}

impl Kind for Assignments {
    const TYPE: ResourceType = ResourceType::Endpoints;
    type Out = Endpoints;

    fn admit(state: &State, item: &Item) -> Admission {
        let want = want(item.source, &item.name);
        if !state.follow.is_wanted(&want) {
            return Admission::Unwanted;
        }
        match state.endpoints.is_unchanged(&want, &item.body.value) {
            true => Admission::Unchanged,
            false => Admission::Judge,
        }
    }

    fn compile(_: &mut State, item: &Item, batch: &mut Batch) -> Result<Endpoints, Errors> {
        compile::endpoints(&item.body, &mut batch.ignored)
    }

    fn apply(state: &mut State, good: Good<Endpoints>, now: Instant) {
        let Good { source, origin, name, raw, version, value } = good;
        let want = want(source, &name);
        let value = Arc::new(value);
        state.give(&want, &value);
        state.count_update(&want, &value);
        state.hold(&want, value.stale_after, now);
        let held = Held {
            raw,
            version,
            updated: State::wall(),
            value,
            wants: SmallVec::new(),
            running: None,
        };
        state.endpoints.activate(&want, origin, held);
        state.satisfy(&want);
    }

    fn confirm(state: &mut State, item: &Item, now: Instant) {
        let want = want(item.source, &item.name);
        let active = state.endpoints.get(&want).and_then(|record| record.active.as_ref());
        let stale_after = active.and_then(|active| active.value.stale_after);
        state.hold(&want, stale_after, now);
        state.endpoints.confirm(&want, &item.version);
        state.satisfy(&want);
    }

    fn reject(state: &mut State, source: SourceId, name: &Arc<str>, rejected: Rejected) {
        let want = want(source, name);
        if state.follow.is_wanted(&want) {
            state.endpoints.reject(&want, rejected);
            // Waiting longer would not make it better: go on with what is known.
            state.satisfy(&want);
        }
    }

    fn remove(state: &mut State, source: SourceId, name: &str, expired: bool) {
        let want = want(source, &name.into());
        // A cluster keeps the endpoints that a server stops sending, as in Envoy; only those that
        // came with a time to live end with it.
        if expired && state.endpoints.get(&want).is_some_and(|r| r.active.is_some()) {
            state.give(&want, &Endpoints::default());
            state.endpoints.remove(&want);
            state.stale.renew(&want, None);
        }
        state.satisfy(&want);
    }

    fn absent(_: &State, _: &Map<Arc<str>, ()>, _: Option<Origin>) -> Vec<Arc<str>> {
        Vec::new()
    }
}

impl State {
    /// Endpoints came that hold for so long.
    fn hold(&mut self, want: &Want, stale_after: Option<Duration>, now: Instant) {
        self.stale.renew(want, stale_after.and_then(|after| now.checked_add(after)));
        if stale_after.is_some() {
            for cluster in self.serving(want) {
                cluster.stats.assignment_timeout_received.inc();
            }
        }
    }

    /// Hands endpoints to every cluster that follows them, in service or warming.
    pub(super) fn give(&self, want: &Want, endpoints: &Endpoints) {
        let versions = self.followers(want).flat_map(|r| [&r.active, &r.warming]).flatten();
        for held in versions.filter(|held| held.wants.contains(want)) {
            held.value.set_endpoints(endpoints);
        }
    }

    /// Counts that endpoints came, once for each cluster: its versions share what is counted.
    fn count_update(&self, want: &Want, endpoints: &Endpoints) {
        let is_empty = endpoints.localities.iter().all(|locality| locality.endpoints.is_empty());
        for record in self.followers(want) {
            let Some(held) = record.active.as_ref().or(record.warming.as_ref()) else { continue };
            let stats = &held.value.stats;
            stats.update_attempt.inc();
            stats.update_success.inc();
            if is_empty {
                stats.update_empty.inc();
            }
        }
    }

    /// The clusters in service among those that follow these endpoints.
    pub(super) fn serving(&self, want: &Want) -> impl Iterator<Item = &Cluster> {
        self.followers(want).filter_map(|record| Some(&*record.active.as_ref()?.value))
    }

    fn followers(&self, want: &Want) -> impl Iterator<Item = &Record<Cluster>> {
        self.follow.users(want).iter().filter_map(|user| match user {
            User::Cluster(name) => self.clusters.get(name),
            User::Listener(_) => None,
        })
    }
}
