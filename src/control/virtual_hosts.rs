//! Virtual hosts that come apart from their tables (VHDS), named `TABLE/HOST`.
//!
//! What a server sends is kept whether its table is known or not, since either may come first. A table
//! is put together when somebody looks at it after a change; a host that is not accepted leaves the
//! others, and what was in service under its name, as they are.
//!
//! Differs: in Envoy a bad virtual host rejects the response it came in.

use std::collections::BTreeSet;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;
use tokio::time::Instant;
use tracing::warn;

use super::Effect;
use super::dump::{Shown, show};
use super::follow::{SourceId, User, Want};
use super::ingest::{Admission, Batch, Change, Good, Item, Kind};
use super::state::State;
use super::stats::VhdsStats;
use super::store::{Held, Map, Origin, Record, Rejected};
use crate::config::{Errors, Fault, OrFault};
use crate::route::RouteTable;
use crate::route::discovered::DiscoveredHost;
use crate::telemetry::Scope;
use crate::xds::{ResourceType, Verdict};

/// See [`Kind`].
pub(super) struct Hosts;

/// The tables that take hosts, and the hosts there are.
#[derive(Debug, Default)]
pub(super) struct Vhds {
    /// Tables in service that take hosts.
    pub(super) tables: Map<Arc<str>, Taking>,
    /// What came for a table, known or not.
    came: Map<(SourceId, Arc<str>), Came>,
    /// Sources subscribed at, and whether they have answered.
    sources: Map<SourceId, bool>,
    /// Tables that wait for a source's first answer, until when at the latest.
    unanswered: Vec<(Want, SourceId, Option<Instant>)>,
}

/// A table that takes hosts.
#[derive(Debug)]
pub(super) struct Taking {
    pub(super) routes: Want,
    /// Where the hosts come from.
    pub(super) source: SourceId,
    /// How long anybody waits for an answer.
    pub(super) timeout: Option<std::time::Duration>,
    /// The table with its hosts; none after a change.
    whole: Option<Arc<RouteTable>>,
    pub(super) stats: Arc<VhdsStats>,
}

/// The hosts of one table.
#[derive(Debug, Default)]
struct Came {
    names: BTreeSet<Arc<str>>,
    owners: Map<Box<str>, Arc<str>>,
}

pub(super) fn want(source: SourceId, name: &Arc<str>) -> Want {
    Want { source, ty: ResourceType::VirtualHost, name: name.clone() }
}

/// The table's name, which may have slashes, and the host's.
fn table_of(name: &str) -> Result<&str, Errors> {
    match name.rsplit_once('/') {
        Some((table, host)) if !table.is_empty() && !host.is_empty() => Ok(table),
        _ => {
            let reason = "the resource must be named ROUTE_CONFIGURATION/HOST";
            Err(Fault::invalid(format!("{name:?}"), reason).into())
        }
    }
}

impl Kind for Hosts {
    const TYPE: ResourceType = ResourceType::VirtualHost;
    const IS_NAMED_APART: bool = true;
    type Out = DiscoveredHost;

    fn admit(state: &State, item: &Item) -> Admission {
        match state.hosts.is_unchanged(&want(item.source, &item.name), &item.body.value) {
            true => Admission::Unchanged,
            false => Admission::Judge,
        }
    }

    fn compile(state: &mut State, item: &Item, batch: &mut Batch) -> Result<Self::Out, Errors> {
        let table: Arc<str> = table_of(&item.name)?.into();
        let base = state.base_table(&table, item.source);
        let host = state.compilers.host(&item.body, base.as_deref(), &mut batch.ignored)?;
        let came = state.vhds.came.get(&(item.source, table.clone()));
        let mut errors = Errors::new();
        for (index, domain) in host.domains().enumerate() {
            let place = (table.clone(), domain.into());
            let owner = came.and_then(|came| came.owners.get(domain));
            // One of the same update gives up what it had.
            let owner = owner.filter(|owner| !batch.leaving.contains(owner));
            let taken = base.as_ref().is_some_and(|base| base.has_domain(domain))
                || owner.is_some_and(|owner| *owner != item.name)
                || batch.domains.contains_key(&place);
            match taken {
                true => errors.take::<()>(
                    Err(Errors::from(Fault::Duplicate(domain.to_owned())))
                        .index(index)
                        .at("domains"),
                ),
                false => batch.domains.insert(place, ()),
            };
        }
        errors.finish()?;
        Ok(host)
    }

    fn apply(state: &mut State, good: Good<Self::Out>, _now: Instant) {
        let Good { source, origin, name, raw, version, value } = good;
        let value = Arc::new(value);
        let held = Held {
            raw,
            version,
            updated: State::wall(),
            value,
            wants: SmallVec::new(),
            running: None,
        };
        let want = want(source, &name);
        state.disown_domains(&want);
        state.hosts.activate(&want, origin, held);
        state.own_domains(&want);
        state.host_changed(&want);
        if origin == Origin::Disk {
            // Asked for by its name, the server says what has become of it.
            state.asks.keep(&mut state.follow, &want);
        }
    }

    fn confirm(state: &mut State, item: &Item, _now: Instant) {
        state.hosts.confirm(&want(item.source, &item.name), &item.version);
    }

    fn reject(state: &mut State, source: SourceId, name: &Arc<str>, rejected: Rejected) {
        state.hosts.reject(&want(source, name), rejected);
    }

    fn remove(state: &mut State, source: SourceId, name: &str, _expired: bool) {
        let want = want(source, &name.into());
        state.disown_domains(&want);
        state.asks.drop_name(&mut state.follow, &want);
        if state.hosts.remove(&want).is_some() {
            state.host_changed(&want);
        }
    }

    fn absent(_: &State, _: &Map<Arc<str>, ()>, _: Option<Origin>) -> Vec<Arc<str>> {
        Vec::new()
    }
}

impl State {
    /// Takes an update of virtual hosts in, and tells those who wait of it.
    pub(super) fn take_in_hosts(&mut self, change: Change, now: Instant) -> Verdict {
        let Change { source, origin, expired, .. } = change;
        let named = change.resources.iter().filter_map(|r| r.name.as_deref());
        let names = named.chain(change.removed.iter().chain(&change.answered).map(String::as_str));
        let names: BTreeSet<Arc<str>> = names.map(Arc::from).collect();
        let verdict = self.take_in::<Hosts>(change, now);
        if origin != Origin::Dynamic || expired {
            return verdict;
        }
        for taking in self.vhds.tables.values().filter(|taking| taking.source == source) {
            if names.is_empty() {
                taking.stats.empty_update.inc();
            }
            match verdict.rejected.is_empty() {
                true => taking.stats.update_success.inc(),
                false => taking.stats.update_rejected.inc(),
            }
        }
        self.asks.answered(names.iter().map(|name| want(source, name)));
        if self.vhds.sources.insert(source, true) != Some(true) {
            self.first_answer(|of, _| of == source);
            self.advance(now);
        }
        verdict
    }

    /// The source of a table's hosts, if it can give them.
    pub(super) fn check_hosts(&mut self, table: &RouteTable) -> Result<(), Errors> {
        let Some(source) = table.host_source() else { return Ok(()) };
        let outcome = self.sources.resolve_delta(&mut self.follow, source);
        outcome.map(drop).at("config_source").at("vhds")
    }

    /// A version of a table is in service. False if it must wait for its hosts.
    pub(super) fn follow_hosts(&mut self, routes: &Want, origin: Origin, now: Instant) -> bool {
        let before = self.vhds.tables.remove(&routes.name);
        let record = self.routes.get(routes).and_then(|record| record.active.as_ref());
        let Some(table) = record.map(|held| held.value.clone()) else { return true };
        let Some(source) = table.host_source() else { return true };
        let Ok(resolved) = self.sources.resolve_delta(&mut self.follow, source) else {
            // It was found when the table was compiled.
            return true;
        };
        let stats = before.map(|before| before.stats).unwrap_or_else(|| self.host_stats(routes));
        stats.update_attempt.inc();
        let (source, timeout) = (resolved.source, resolved.timeout);
        let taking = Taking { routes: routes.clone(), source, timeout, whole: None, stats };
        self.vhds.tables.insert(routes.name.clone(), taking);
        if let Entry::Vacant(new) = self.vhds.sources.entry(source) {
            new.insert(false);
            let at = self.follow.at(source);
            self.sources.flush(&mut self.effects);
            self.effects.extend(at.map(|at| Effect::SubscribeAll(at, ResourceType::VirtualHost)));
        }
        self.compile_again(&table, source);
        let is_answered = self.vhds.sources.get(&source) == Some(&true);
        if is_answered || origin == Origin::Disk {
            return true;
        }
        let end = timeout.and_then(|timeout| now.checked_add(timeout));
        self.vhds.unanswered.retain(|(want, ..)| want != routes);
        self.vhds.unanswered.push((routes.clone(), source, end));
        false
    }

    /// A table is wanted no more. Its hosts stay: they are still subscribed to.
    pub(super) fn leave_hosts(&mut self, routes: &Want) {
        self.vhds.tables.remove(&routes.name);
        self.vhds.unanswered.retain(|(want, ..)| want != routes);
    }

    /// Ends the waits for first answers that lasted too long.
    pub(super) fn expire_first_hosts(&mut self, now: Instant) {
        self.first_answer(|_, end| end.is_some_and(|end| end <= now));
    }

    /// When [`Self::expire_first_hosts`] next has something to do.
    pub(super) fn next_first_hosts(&self) -> Option<Instant> {
        self.vhds.unanswered.iter().filter_map(|(.., end)| *end).min()
    }

    fn first_answer(&mut self, is_over: impl Fn(SourceId, Option<Instant>) -> bool) {
        let over: Vec<_> = self
            .vhds
            .unanswered
            .extract_if(.., |(_, source, end)| is_over(*source, *end))
            .collect();
        for (routes, source, _) in over {
            if self.vhds.sources.get(&source) == Some(&false)
                && let Some(taking) = self.vhds.tables.get(&routes.name)
            {
                taking.stats.init_fetch_timeout.inc();
                warn!(table = %routes.name, "no virtual hosts came within initial_fetch_timeout; going on without");
            }
            self.satisfy(&routes);
        }
    }

    /// What a table says about routes may have changed: its hosts are compiled with it again.
    fn compile_again(&mut self, table: &Arc<RouteTable>, source: SourceId) {
        let Some(came) = self.vhds.came.get(&(source, table.name().clone())) else { return };
        for name in came.names.clone() {
            let want = want(source, &name);
            let Some(held) = self.hosts.get_mut(&want).and_then(|r| r.active.as_mut()) else {
                continue;
            };
            let type_url = ResourceType::VirtualHost.type_url().to_owned();
            let body = prost_types::Any { type_url, value: held.raw.to_vec() };
            match self.compilers.host(&body, Some(table), &mut Vec::new()) {
                Ok(host) => held.value = Arc::new(host),
                Err(errors) => {
                    let details = errors.to_string();
                    warn!(%name, details, "a virtual host does not fit its new table; it stays as it was");
                }
            }
        }
    }

    /// A table in service with the hosts that came for it.
    pub(super) fn whole_table(&mut self, routes: &Want) -> Option<Arc<RouteTable>> {
        let base = &self.routes.get(routes)?.active.as_ref()?.value;
        let Some(taking) = self.vhds.tables.get_mut(&routes.name) else {
            return Some(base.clone());
        };
        if let Some(whole) = &taking.whole {
            return Some(whole.clone());
        }
        let came = self.vhds.came.get(&(taking.source, routes.name.clone()));
        let names = came.into_iter().flat_map(|came| &came.names);
        let hosts = names.filter_map(|name| {
            let record = self.hosts.get(&want(taking.source, name))?;
            Some((name, &*record.active.as_ref()?.value))
        });
        let hosts: Vec<_> = hosts.collect();
        let (whole, left_out) = base.with_hosts(hosts.iter().map(|(_, host)| *host));
        for (index, fault) in left_out {
            let name = hosts.get(index).map(|(name, _)| *name);
            warn!(name = name.map(|name| &**name), %fault, "a virtual host is left out of its table");
        }
        let whole = Arc::new(whole);
        taking.whole = Some(whole.clone());
        Some(whole)
    }

    /// The table as it came, if it takes hosts from this source.
    fn base_table(&self, name: &Arc<str>, source: SourceId) -> Option<Arc<RouteTable>> {
        let taking = self.vhds.tables.get(name).filter(|taking| taking.source == source)?;
        Some(self.routes.get(&taking.routes)?.active.as_ref()?.value.clone())
    }

    fn host_changed(&mut self, want: &Want) {
        let Ok(table) = table_of(&want.name) else { return };
        if let Some(taking) = self.vhds.tables.get_mut(table)
            && taking.source == want.source
        {
            taking.whole = None;
            taking.stats.config_reload.inc();
            self.publish.dirty.routes = true;
        }
    }

    fn own_domains(&mut self, want: &Want) {
        let Ok(table) = table_of(&want.name) else { return };
        let Some(held) = self.hosts.get(want).and_then(|r| r.active.as_ref()) else { return };
        let came = self.vhds.came.entry((want.source, table.into())).or_default();
        came.names.insert(want.name.clone());
        for domain in held.value.domains() {
            came.owners.insert(domain.into(), want.name.clone());
        }
    }

    fn disown_domains(&mut self, want: &Want) {
        let Ok(table) = table_of(&want.name) else { return };
        let key = (want.source, Arc::from(table));
        let Some(came) = self.vhds.came.get_mut(&key) else { return };
        came.names.remove(&want.name);
        if let Some(held) = self.hosts.get(want).and_then(|r| r.active.as_ref()) {
            for domain in held.value.domains() {
                if came.owners.get(domain) == Some(&want.name) {
                    came.owners.remove(domain);
                }
            }
        }
        if came.names.is_empty() {
            self.vhds.came.remove(&key);
        }
    }

    /// `http.STAT_PREFIX.vhds.TABLE.`, of the first listener that wants the table.
    fn host_stats(&self, routes: &Want) -> Arc<VhdsStats> {
        let listener = self.follow.users(routes).iter().find_map(|user| match user {
            User::Listener(name) => self.listeners.get(name)?.newest(),
            User::Cluster(_) => None,
        });
        let prefix = listener.map(|held| held.value.config.chain.hcm.stat_prefix.clone());
        let part = format!("vhds.{}", routes.name.replace(':', "_"));
        self.telemetry.group(Scope::http(&prefix.unwrap_or_default()).part(part))
    }

    /// Where hosts may come from.
    pub(super) fn host_sources(&self) -> Vec<SourceId> {
        self.vhds.sources.keys().copied().collect()
    }

    /// A table with its hosts, as people see it.
    pub(super) fn shown_table(&self, routes: &Want, record: &Record<RouteTable>) -> Shown {
        let mut shown = show(&routes.name, record);
        let Some(taking) = self.vhds.tables.get(&routes.name) else { return shown };
        let hosts = self.hosts.records.iter().filter(|(want, _)| {
            want.source == taking.source && table_of(&want.name).is_ok_and(|t| t == &*routes.name)
        });
        let mut hosts: Vec<_> = hosts.collect();
        hosts.sort_unstable_by(|(a, _), (b, _)| a.name.cmp(&b.name));
        let in_service = hosts.iter().filter_map(|(_, record)| Some(&record.active.as_ref()?.raw));
        if let Some(active) = &mut shown.active {
            active.raw = with_hosts(&active.raw, in_service);
        }
        let rejected = hosts.iter().find_map(|(_, record)| record.rejected.as_deref());
        if let (None, Some(rejected)) = (&shown.rejected, rejected) {
            let raw = with_hosts(&Bytes::new(), std::iter::once(&rejected.raw));
            shown.rejected = Some(Rejected { raw, ..rejected.clone() });
        }
        shown
    }
}

/// The bytes of a `RouteConfiguration` and more `virtual_hosts`.
fn with_hosts<'a>(table: &Bytes, hosts: impl Iterator<Item = &'a Bytes>) -> Bytes {
    /// `RouteConfiguration.virtual_hosts`
    const FIELD: u32 = 2;
    let mut raw = table.to_vec();
    hosts.for_each(|host| prost::encoding::bytes::encode(FIELD, host, &mut raw));
    raw.into()
}
