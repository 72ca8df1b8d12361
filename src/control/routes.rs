//! Route tables: wanted by listeners, published as soon as they come.
//!
//! Routes are not held back for the clusters they name: a cluster that is missing is answered 503.

use std::sync::Arc;

use smallvec::SmallVec;
use tokio::time::Instant;

use super::follow::{SourceId, Want};
use super::ingest::{Admission, Batch, Good, Item, Kind};
use super::state::State;
use super::store::{Held, Map, Origin, Rejected};
use crate::config::Errors;
use crate::route::RouteTable;
use crate::xds::ResourceType;

/// See [`Kind`].
pub(super) struct Tables;

fn want(source: SourceId, name: &Arc<str>) -> Want {
    Want { source, ty: ResourceType::Routes, name: name.clone() }
}

impl Kind for Tables {
    const TYPE: ResourceType = ResourceType::Routes;
    type Out = RouteTable;

    fn admit(state: &State, item: &Item) -> Admission {
        let want = want(item.source, &item.name);
        if !state.follow.is_wanted(&want) {
            return Admission::Unwanted;
        }
        match state.routes.is_unchanged(&want, &item.body.value) {
            true => Admission::Unchanged,
            false => Admission::Judge,
        }
    }

    fn compile(state: &mut State, item: &Item, batch: &mut Batch) -> Result<RouteTable, Errors> {
        let table = state.compilers.routes(&item.body, &mut batch.ignored)?;
        state.check_hosts(&table)?;
        Ok(table)
    }

    fn apply(state: &mut State, good: Good<RouteTable>, now: Instant) {
        let Good { source, origin, name, raw, version, value } = good;
        let want = want(source, &name);
        let value = Arc::new(value);
        let held = Held {
            raw,
            version,
            updated: State::wall(),
            value,
            wants: SmallVec::new(),
            running: None,
        };
        state.routes.activate(&want, origin, held);
        state.publish.dirty.routes = true;
        if state.follow_hosts(&want, origin, now) {
            state.satisfy(&want);
        }
    }

    fn confirm(state: &mut State, item: &Item, _now: Instant) {
        let want = want(item.source, &item.name);
        state.routes.confirm(&want, &item.version);
        state.satisfy(&want);
    }

    fn reject(state: &mut State, source: SourceId, name: &Arc<str>, rejected: Rejected) {
        let want = want(source, name);
        if state.follow.is_wanted(&want) {
            state.routes.reject(&want, rejected);
            state.satisfy(&want);
        }
    }

    fn remove(state: &mut State, source: SourceId, name: &str, _expired: bool) {
        // A table stays in use while a listener refers to it, and only such tables are held.
        state.satisfy(&want(source, &name.into()));
    }

    fn absent(_: &State, _: &Map<Arc<str>, ()>, _: Option<Origin>) -> Vec<Arc<str>> {
        Vec::new()
    }
}
