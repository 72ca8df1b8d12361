//! Listeners: bound when they come, warmed by their route tables and extension configurations, put in
//! service, removed.
//!
//! A changed listener that keeps its address keeps its sockets, so that no connection in their queues
//! is lost. A new one may take the address of one that goes in the same update.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::Instant;
use tracing::{debug, info};

use super::follow::{SourceId, User, Want};
use super::ingest::{Admission, Batch, Good, Item, Kind};
use super::state::State;
use super::store::{Held, Map, Origin, Record, Rejected};
use crate::config::{Errors, Fault, OrFault};
use crate::listener::{ListenSockets, Listener, ListenerConfig};
use crate::xds::ResourceType;

/// See [`Kind`].
pub(super) struct Listeners;

/// A name that a listener follows.
pub(super) struct Followed {
    pub(super) want: Want,
    /// `initial_fetch_timeout`
    pub(super) timeout: Option<Duration>,
    /// The listener is not warm without it.
    pub(super) is_awaited: bool,
}

pub(super) type Follows = SmallVec<[Followed; 1]>;

/// A compiled listener, bound, and the route tables and extension configurations it follows.
pub(super) struct Compiled {
    listener: Listener,
    follows: Follows,
}

/// A version on its way into the store.
struct Incoming {
    origin: Origin,
    held: Held<Listener>,
    follows: Follows,
}

impl Kind for Listeners {
    const TYPE: ResourceType = ResourceType::Listener;
    type Out = Compiled;

    fn admit(state: &State, item: &Item) -> Admission {
        match state.listeners.get(&item.name) {
            Some(record) if record.origin == Origin::Static && item.origin != Origin::Static => {
                Admission::Taken
            }
            _ if state.listeners.is_unchanged(&item.name, &item.body.value) => Admission::Unchanged,
            _ => Admission::Judge,
        }
    }

    fn compile(state: &mut State, item: &Item, batch: &mut Batch) -> Result<Compiled, Errors> {
        let config = state.compilers.listener(&item.body, &mut batch.ignored)?;
        let mut follows = state.route_tables(&config)?;
        state.extension_configs(&config, &mut follows)?;
        let sockets = state.sockets(&item.name, &config, batch).at("address")?;
        let extensions = Arc::default();
        Ok(Compiled {
            listener: Listener { config: Arc::new(config), sockets, extensions },
            follows,
        })
    }

    fn apply(state: &mut State, good: Good<Compiled>, now: Instant) {
        let Good { source: _, origin, name, raw, version, value } = good;
        let Compiled { listener, follows } = value;
        let is_new = state.listeners.get(&name).is_none_or(|record| record.newest().is_none());
        match is_new {
            true => state.stats.listeners.listener_added.inc(),
            false => state.stats.listeners.listener_modified.inc(),
        }
        let wants = follows.iter().map(|followed| followed.want.clone()).collect();
        let held = Held {
            raw,
            version,
            updated: State::wall(),
            value: Arc::new(listener),
            wants,
            running: None,
        };
        state.put_listener(&name, Incoming { origin, held, follows }, now);
    }

    fn confirm(state: &mut State, item: &Item, _now: Instant) {
        state.listeners.confirm(&item.name, &item.version);
    }

    fn reject(state: &mut State, _source: SourceId, name: &Arc<str>, rejected: Rejected) {
        state.listeners.reject(name, rejected);
    }

    fn remove(state: &mut State, _source: SourceId, name: &str, _expired: bool) {
        state.remove_listener(name);
    }

    fn absent(state: &State, present: &Map<Arc<str>, ()>, only: Option<Origin>) -> Vec<Arc<str>> {
        let absent = state.listeners.records.iter().filter(|(name, record)| {
            record.origin != Origin::Static
                && only.is_none_or(|only| record.origin == only)
                && !present.contains_key(*name)
        });
        absent.map(|(name, _)| name.clone()).collect()
    }
}

impl State {
    /// The route tables a listener names, each once.
    fn route_tables(&mut self, config: &ListenerConfig) -> Result<Follows, Errors> {
        let mut follows = Follows::new();
        for rds in config.rds() {
            let resolved = self
                .sources
                .resolve(&mut self.follow, &rds.source)
                .at("config_source")
                .at("rds")?;
            let want =
                Want { source: resolved.source, ty: ResourceType::Routes, name: rds.name.clone() };
            let elsewhere = self.table_sources.get(&want.name).is_some_and(|w| *w != want)
                || follows.iter().any(|f: &Followed| f.want.name == want.name && f.want != want);
            if elsewhere {
                let reason = "another listener takes the route table of this name from another \
                              source; give one of them another name";
                let fault = Fault::invalid(format!("{:?}", want.name), reason);
                return Err(Errors::from(fault).at("rds.route_config_name"));
            }
            if follows.iter().all(|f| f.want != want) {
                let timeout = resolved.timeout;
                follows.push(Followed { want, timeout, is_awaited: true });
            }
        }
        Ok(follows)
    }

    /// The sockets for a listener: those it has, or new ones.
    fn sockets(
        &self,
        name: &Arc<str>,
        config: &ListenerConfig,
        batch: &mut Batch,
    ) -> Result<Arc<ListenSockets>, Errors> {
        let address = config.address;
        let own = self.listeners.get(name).and_then(|record| sockets_at(record, address));
        if let Some(sockets) = own {
            return Ok(sockets);
        }
        if address.port() != 0 {
            let conflict = |owner: &Arc<str>| {
                let reason = format!("listener {owner:?} has this address");
                Errors::from(Fault::invalid(address, reason))
            };
            if let Some(owner) = batch.addresses.get(&address) {
                return Err(conflict(owner));
            }
            if let Some(owner) = self.addresses.get(&address)
                && owner != name
            {
                // One that goes with this update gives its address up. The new one gets sockets of
                // its own: workers open what is new before they close what is gone.
                if !batch.leaving.contains(owner) {
                    return Err(conflict(owner));
                }
            }
            batch.addresses.insert(address, name.clone());
        }
        let bound = ListenSockets::bind(config, self.workers);
        Ok(bound.inspect_err(|_| self.stats.listeners.listener_create_failure.inc())?)
    }

    fn put_listener(
        &mut self,
        name: &Arc<str>,
        Incoming { origin, held, follows }: Incoming,
        now: Instant,
    ) {
        let user = User::Listener(name.clone());
        let mut waits = Vec::new();
        for Followed { want, timeout, is_awaited } in follows {
            self.follow.add(&want, user.clone());
            let lacks = match want.ty {
                ResourceType::Extension => self.meet_extension(&want, &held.value.config),
                _ => {
                    self.table_sources.insert(want.name.clone(), want.clone());
                    self.routes.get(&want).is_none_or(|record| record.active.is_none())
                }
            };
            if lacks && is_awaited {
                waits.push((want, timeout));
            }
        }
        self.warming.cancel(&user);
        if let Some(before) = self.listeners.unwarm(name) {
            self.release_all(&before.wants, &user);
            self.disown(name, &before);
        }
        let address = held.value.config.address;
        if address.port() != 0 {
            self.addresses.insert(address, name.clone());
        }
        self.listeners.warm(name, origin, held);
        if waits.is_empty() {
            self.activate_listener(name);
        } else {
            debug!(listener = %name, "listener is warming");
            self.warming.start(user, waits, now);
        }
    }

    /// Puts the warming version in service with what is known of what it follows.
    pub(super) fn activate_listener(&mut self, name: &Arc<str>) {
        let Some(held) = self.listeners.unwarm(name) else { return };
        let Some(origin) = self.listeners.get(name).map(|record| record.origin) else { return };
        info!(listener = %name, address = %held.value.config.address, "listener is in service");
        match self.listeners.activate(name, origin, held) {
            Some(before) => {
                self.release_all(&before.wants, &User::Listener(name.clone()));
                self.disown(name, &before);
            }
            None => self.stats.listeners.total_listeners_active.inc(),
        }
        self.publish.dirty.listeners = true;
    }

    fn remove_listener(&mut self, name: &str) {
        match self.listeners.get(name) {
            None => return,
            Some(record) if record.origin == Origin::Static => return,
            Some(_) => {}
        }
        let Some(record) = self.listeners.remove(name) else { return };
        let name: Arc<str> = name.into();
        let user = User::Listener(name.clone());
        self.warming.cancel(&user);
        if record.newest().is_some() {
            self.stats.listeners.listener_removed.inc();
            info!(listener = %name, "listener removed");
        }
        if record.active.is_some() {
            self.stats.listeners.total_listeners_active.dec();
            self.publish.dirty.listeners = true;
        }
        for held in [record.active, record.warming].into_iter().flatten() {
            self.release_all(&held.wants, &user);
            self.disown(&name, &held);
        }
    }

    /// A version of a listener is gone, and with it its address unless another version has it.
    fn disown(&mut self, name: &Arc<str>, gone: &Held<Listener>) {
        let address: SocketAddr = gone.value.config.address;
        let kept =
            self.listeners.get(name).is_some_and(|record| sockets_at(record, address).is_some());
        if !kept && self.addresses.get(&address) == Some(name) {
            self.addresses.remove(&address);
        }
    }
}

/// The sockets of whichever version of a listener has this configured address.
fn sockets_at(record: &Record<Listener>, address: SocketAddr) -> Option<Arc<ListenSockets>> {
    let versions = [record.warming.as_ref(), record.active.as_ref()];
    let held = versions.into_iter().flatten().find(|h| h.value.config.address == address)?;
    Some(held.value.sockets.clone())
}
