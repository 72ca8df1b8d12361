//! Secrets: checked, kept and shown by name. Their bytes leave control nowhere.

use std::sync::Arc;

use smallvec::SmallVec;
use tokio::time::Instant;

use super::compile;
use super::follow::SourceId;
use super::ingest::{Admission, Batch, Good, Item, Kind};
use super::state::State;
use super::store::{Held, Map, Origin, Rejected};
use crate::config::Errors;
use crate::snapshot::Secret;
use crate::xds::ResourceType;

/// See [`Kind`].
pub(super) struct Secrets;

impl Kind for Secrets {
    const TYPE: ResourceType = ResourceType::Secret;
    type Out = Secret;

    fn admit(state: &State, item: &Item) -> Admission {
        match state.secrets.get(&item.name) {
            Some(record) if record.origin == Origin::Static && item.origin != Origin::Static => {
                Admission::Taken
            }
            _ if state.secrets.is_unchanged(&item.name, &item.body.value) => Admission::Unchanged,
            _ => Admission::Judge,
        }
    }

    fn compile(_: &mut State, item: &Item, batch: &mut Batch) -> Result<Secret, Errors> {
        compile::secret(&item.body, &mut batch.ignored)
    }

    fn apply(state: &mut State, good: Good<Secret>, _now: Instant) {
        let Good { source: _, origin, name, raw, version, value } = good;
        let value = Arc::new(value);
        let held = Held {
            raw,
            version,
            updated: State::wall(),
            value,
            wants: SmallVec::new(),
            running: None,
        };
        state.secrets.activate(&name, origin, held);
        state.publish.dirty.secrets = true;
    }

    fn confirm(state: &mut State, item: &Item, _now: Instant) {
        state.secrets.confirm(&item.name, &item.version);
    }

    fn reject(state: &mut State, _source: SourceId, name: &Arc<str>, rejected: Rejected) {
        state.secrets.reject(name, rejected);
    }

    fn remove(state: &mut State, _source: SourceId, name: &str, _expired: bool) {
        if state.secrets.get(name).is_some_and(|record| record.origin != Origin::Static) {
            state.secrets.remove(name);
            state.publish.dirty.secrets = true;
        }
    }

    fn absent(_: &State, _: &Map<Arc<str>, ()>, _: Option<Origin>) -> Vec<Arc<str>> {
        Vec::new()
    }
}
