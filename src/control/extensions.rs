//! Configurations of HTTP filters by name (ECDS): wanted by listeners, and put into those that are
//! in service without a new version of them.
//!
//! One must suit every listener that names it, each in its newest version: one that is about to be
//! replaced goes on with what it has. A listener waits for those it names as it does for its route
//! table. What a server takes back is gone, and the filter falls to its default.

use std::collections::BTreeSet;
use std::sync::Arc;

use smallvec::SmallVec;
use tokio::time::Instant;
use tracing::{debug, error};

use super::compile;
use super::follow::{SourceId, User, Want};
use super::ingest::{Admission, Batch, Good, Item, Kind};
use super::listeners::{Followed, Follows};
use super::state::State;
use super::stats::{ExtensionStats, SubscriptionStats};
use super::store::{Held, Map, Origin, Record, Rejected};
use crate::config::{Errors, Fault};
use crate::filter::discovery::{Discovery, Extension, Extensions};
use crate::listener::{Listener, ListenerConfig};
use crate::telemetry::Scope;
use crate::xds::{ResourceType, Source};

/// See [`Kind`].
pub(super) struct Configs;

/// What is counted for one name.
#[derive(Debug, Clone)]
pub(super) struct ExtensionCells {
    config: Arc<ExtensionStats>,
    updates: Arc<SubscriptionStats>,
}

fn want(source: SourceId, name: &Arc<str>) -> Want {
    Want { source, ty: ResourceType::Extension, name: name.clone() }
}

impl Kind for Configs {
    const TYPE: ResourceType = ResourceType::Extension;
    type Out = Extension;

    fn admit(state: &State, item: &Item) -> Admission {
        let want = want(item.source, &item.name);
        if !state.follow.is_wanted(&want) {
            return Admission::Unwanted;
        }
        match state.extensions.is_unchanged(&want, &item.body.value) {
            true => Admission::Unchanged,
            false => Admission::Judge,
        }
    }

    fn compile(state: &mut State, item: &Item, batch: &mut Batch) -> Result<Extension, Errors> {
        let extension = compile::extension(&item.body, &mut batch.ignored)?;
        state.suits_all(&want(item.source, &item.name), &extension)?;
        Ok(extension)
    }

    fn apply(state: &mut State, good: Good<Extension>, _now: Instant) {
        let Good { source, origin, name, raw, version, value } = good;
        let want = want(source, &name);
        if let Some(cells) = state.extension_stats.get(&want) {
            cells.config.config_reload.inc();
            if origin == Origin::Dynamic {
                cells.answered(&cells.updates.update_success);
            }
        }
        let held = Held {
            raw,
            version,
            updated: State::wall(),
            value: Arc::new(value),
            wants: SmallVec::new(),
            running: None,
        };
        state.extensions.activate(&want, origin, held);
        state.publish.dirty.extensions = true;
        state.satisfy(&want);
    }

    fn confirm(state: &mut State, item: &Item, _now: Instant) {
        let want = want(item.source, &item.name);
        if let Some(cells) = state.extension_stats.get(&want) {
            cells.answered(&cells.updates.update_success);
        }
        state.extensions.confirm(&want, &item.version);
        state.satisfy(&want);
    }

    fn reject(state: &mut State, source: SourceId, name: &Arc<str>, rejected: Rejected) {
        let want = want(source, name);
        if let Some(cells) = state.extension_stats.get(&want) {
            cells.config.config_fail.inc();
            cells.answered(&cells.updates.update_rejected);
            state.extensions.reject(&want, rejected);
            // Waiting longer would not make it better: go on with what is known.
            state.satisfy(&want);
        }
    }

    fn remove(state: &mut State, source: SourceId, name: &str, _expired: bool) {
        let want = want(source, &name.into());
        let record = state.extensions.remove(&want);
        if record.is_some_and(|record| record.active.is_some()) {
            debug!(name, "the configuration of an extension is gone");
            state.publish.dirty.extensions = true;
            if let Some(cells) = state.extension_stats.get(&want) {
                cells.config.config_reload.inc();
                cells.answered(&cells.updates.update_success);
            }
        }
        state.satisfy(&want);
    }

    fn absent(_: &State, _: &Map<Arc<str>, ()>, _: Option<Origin>) -> Vec<Arc<str>> {
        Vec::new()
    }
}

impl ExtensionCells {
    /// A wait for an answer ended so, and the next begins.
    fn answered(&self, outcome: &crate::telemetry::metrics::Counter) {
        outcome.inc();
        self.updates.update_attempt.inc();
    }
}

impl State {
    /// The configurations that a listener names, each once, added to what it follows.
    pub(super) fn extension_configs(
        &mut self,
        config: &ListenerConfig,
        follows: &mut Follows,
    ) -> Result<(), Errors> {
        for discovery in config.discoveries() {
            let Discovery { place, index, source, without_warming, .. } = discovery;
            let at = |errors: Errors| {
                errors.at("config_discovery.config_source").index(*index).at("http_filters")
            };
            let resolved = self.sources.resolve(&mut self.follow, source).map_err(at)?;
            let want = want(resolved.source, &place.name);
            let of_name = |f: &&mut Followed| {
                f.want.ty == ResourceType::Extension && f.want.name == want.name
            };
            match follows.iter_mut().find(of_name) {
                None => follows.push(Followed {
                    want,
                    timeout: resolved.timeout,
                    is_awaited: !without_warming,
                }),
                Some(same) if same.want == want => same.is_awaited |= !without_warming,
                Some(_) => {
                    let reason = "the listener takes the configuration of this name from another \
                                  source as well; give one of them another name";
                    let fault = Fault::invalid(format!("{:?}", want.name), reason);
                    return Err(at(fault.into()));
                }
            }
        }
        Ok(())
    }

    /// A version of a listener follows a configuration. True if it must do without, as there is none
    /// or it has no use for it.
    ///
    /// Differs: in Envoy a listener does not wait for one that is to replace what it cannot use.
    pub(super) fn meet_extension(&mut self, want: &Want, config: &ListenerConfig) -> bool {
        let telemetry = &self.telemetry;
        let cells = self.extension_stats.entry(want.clone()).or_insert_with(|| {
            let scope = Scope::http_extension(&want.name);
            let cells = ExtensionCells {
                config: telemetry.group(scope.clone()),
                updates: telemetry.group(scope),
            };
            cells.updates.update_attempt.inc();
            cells
        });
        let Some(held) = self.extensions.get(want).and_then(|record| record.active.as_ref()) else {
            return true;
        };
        let mut named = config.discoveries().filter(|d| d.place.name == want.name);
        let lacks = named.any(|discovery| discovery.accepts(&held.value).is_err());
        if lacks {
            cells.config.config_conflict.inc();
        }
        lacks
    }

    /// Whether every listener that names a configuration can use this one.
    fn suits_all(&self, want: &Want, extension: &Extension) -> Result<(), Errors> {
        let listeners = self.follow.users(want).iter().filter_map(|user| match user {
            User::Listener(name) => Some(name),
            User::Cluster(_) => None,
        });
        let mut errors = Errors::new();
        // One with a version that warms is a user twice.
        for name in listeners.collect::<BTreeSet<_>>() {
            let Some(newest) = self.listeners.get(name).and_then(Record::newest) else { continue };
            if !newest.wants.contains(want) {
                continue;
            }
            let named = newest.value.config.discoveries().filter(|d| d.place.name == want.name);
            for discovery in named {
                if let Err(fault) = discovery.accepts(extension) {
                    let index = discovery.index;
                    let text = format!("listener {name:?}, http_filters[{index}]: {fault}");
                    errors.push("typed_config", Fault::Conflict(text.into()));
                }
            }
        }
        errors.finish()
    }

    /// A listener in service with what its filters are configured with now.
    pub(super) fn fitted(&self, name: &Arc<str>, held: &Held<Listener>) -> Arc<Listener> {
        let listener = &held.value;
        let mut discoveries = listener.config.discoveries().peekable();
        if discoveries.peek().is_none() {
            return listener.clone();
        }
        let before = self.publish.current.listeners.get(name).unwrap_or(listener);
        let mut extensions = Extensions::default();
        for discovery in discoveries {
            let named = |want: &&Want| {
                want.ty == ResourceType::Extension && want.name == discovery.place.name
            };
            let want = held.wants.iter().find(named);
            let record = want.and_then(|want| self.extensions.get(want));
            let extension = record.and_then(|r| r.active.as_ref()).map(|active| &active.value);
            if let Err(fault) = extensions.fit(discovery, extension, &before.extensions) {
                error!(listener = %name, filter = %discovery.place.name, %fault,
                    "a configuration that compiled does not compile in its place");
                if let Some(cells) = want.and_then(|want| self.extension_stats.get(want)) {
                    cells.config.config_fail.inc();
                }
            }
        }
        Arc::new(Listener { extensions: Arc::new(extensions), ..Listener::clone(listener) })
    }

    /// These were waited for in vain.
    pub(super) fn missed(&self, wants: &BTreeSet<Want>) {
        for cells in wants.iter().filter_map(|want| self.extension_stats.get(want)) {
            cells.config.config_fail.inc();
            cells.updates.init_fetch_timeout.inc();
        }
    }

    /// The network ended the wait for answers about extensions.
    pub(super) fn extensions_failed(&self, source: &Source) {
        let source = self.follow.known(source);
        let here = self.extension_stats.iter().filter(|(want, _)| Some(want.source) == source);
        for (_, cells) in here {
            cells.updates.update_failure.inc();
        }
    }
}
