//! Everything control knows, and the rules by which it changes. No I/O but binding sockets, and
//! time is an argument, so that each rule can be shown in a test without a network.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::Instant;

use super::asks::Asks;
use super::compile::Compilers;
use super::extensions::ExtensionCells;
use super::follow::{Follow, User, Want};
use super::ignored::Ignored;
use super::publish::Publish;
use super::sources::Sources;
use super::stale::Stale;
use super::startup::Startup;
use super::stats::Stats;
use super::store::{Map, Store};
use super::virtual_hosts::Vhds;
use super::warming::{Expired, Warming};
use super::{Effect, Options};
use crate::filter::discovery::Extension;
use crate::listener::Listener;
use crate::route::RouteTable;
use crate::route::discovered::DiscoveredHost;
use crate::snapshot::{Secret, Snapshot};
use crate::telemetry::Telemetry;
use crate::upstream::{Cluster, Endpoints};

/// The one writer's state.
pub(super) struct State {
    pub(super) compilers: Compilers,
    pub(super) workers: usize,
    pub(super) clusters: Store<Arc<str>, Cluster>,
    pub(super) endpoints: Store<Want, Endpoints>,
    pub(super) listeners: Store<Arc<str>, Listener>,
    pub(super) routes: Store<Want, RouteTable>,
    pub(super) extensions: Store<Want, Extension>,
    pub(super) extension_stats: Map<Want, ExtensionCells>,
    pub(super) hosts: Store<Want, DiscoveredHost>,
    pub(super) vhds: Vhds,
    pub(super) asks: Asks,
    pub(super) secrets: Store<Arc<str>, Secret>,
    /// Which listener has which configured address; port 0 is nobody's.
    pub(super) addresses: Map<SocketAddr, Arc<str>>,
    /// Where the route table of a name comes from: workers know tables by name alone.
    pub(super) table_sources: Map<Arc<str>, Want>,
    pub(super) sources: Sources,
    pub(super) follow: Follow,
    pub(super) warming: Warming,
    pub(super) stale: Stale,
    pub(super) startup: Startup,
    pub(super) publish: Publish,
    pub(super) ignored: Ignored,
    pub(super) telemetry: Telemetry,
    pub(super) stats: Stats,
    pub(super) effects: Vec<Effect>,
    /// Static names that a server tried to take, so that each is warned of once.
    pub(super) taken: BTreeMap<(&'static str, Arc<str>), ()>,
    /// Something that belongs in the file on disk changed.
    pub(super) unsaved: bool,
}

impl State {
    pub(super) fn new(options: Options) -> Self {
        let Options { compilers, grpc, ads, cds, lds, workers, telemetry } = options;
        let stats = Stats::new(&telemetry);
        Self {
            compilers,
            workers: workers.max(1),
            clusters: Store::default(),
            endpoints: Store::default(),
            listeners: Store::default(),
            routes: Store::default(),
            extensions: Store::default(),
            extension_stats: Map::default(),
            hosts: Store::default(),
            vhds: Vhds::default(),
            asks: Asks::default(),
            secrets: Store::default(),
            addresses: Map::default(),
            table_sources: Map::default(),
            sources: Sources::new(grpc, ads),
            follow: Follow::default(),
            warming: Warming::default(),
            stale: Stale::default(),
            startup: Startup::new(cds, lds),
            publish: Publish::default(),
            ignored: Ignored::default(),
            telemetry,
            stats,
            effects: Vec::new(),
            taken: BTreeMap::new(),
            unsaved: false,
        }
    }

    /// What is to be done outside, in this order. To be done before the verdict is given.
    pub(super) fn take_effects(&mut self) -> Vec<Effect> {
        self.sources.flush(&mut self.effects);
        self.follow.flush(&mut self.effects);
        std::mem::take(&mut self.effects)
    }

    /// Ends waits that have lasted long enough.
    pub(super) fn tick(&mut self, now: Instant) {
        let Expired { warm, missed } = self.warming.expire(now);
        self.missed(&missed);
        for user in warm {
            let kind = match &user {
                User::Cluster(_) => "cluster",
                User::Listener(_) => "listener",
            };
            let (User::Cluster(name) | User::Listener(name)) = &user;
            tracing::warn!(kind, %name, "initial fetch timed out; going on with what there is");
            self.activate(user);
        }
        self.expire_first_hosts(now);
        self.expire_stale(now);
        self.advance(now);
    }

    /// When [`Self::tick`] next has something to do.
    pub(super) fn next_end(&self) -> Option<Instant> {
        let warming = [self.warming.next_end(), self.startup.next_end(), self.stale.next_end()];
        let hosts = [self.next_first_hosts(), self.asks.next_end()];
        warming.into_iter().chain(hosts).flatten().min()
    }

    /// A version that waited is warm, or has waited long enough.
    pub(super) fn activate(&mut self, user: User) {
        match user {
            User::Cluster(name) => self.activate_cluster(&name),
            User::Listener(name) => self.activate_listener(&name),
        }
    }

    /// A name came or is known not to: whoever waited for nothing else is warm.
    pub(super) fn satisfy(&mut self, want: &Want) {
        for user in self.warming.satisfy(want) {
            self.activate(user);
        }
    }

    /// The next snapshot, if anything in it changed.
    pub(super) fn snapshot(&mut self) -> Option<Arc<Snapshot>> {
        let dirty = self.publish.take_dirty()?;
        let mut next = Snapshot::clone(&self.publish.current);
        next.version += 1;
        if dirty.clusters {
            let active = |r: &super::store::Record<Cluster>| Some(r.active.as_ref()?.value.clone());
            next.clusters = Arc::new(self.clusters.records.values().filter_map(active).collect());
        }
        if dirty.routes {
            let wants: Vec<Want> = self.table_sources.values().cloned().collect();
            let tables = wants.iter().filter_map(|want| self.whole_table(want));
            next.routes = Arc::new(tables.collect());
        }
        if (dirty.listeners || dirty.extensions) && self.startup.is_live() {
            let active = self.listeners.records.iter().filter_map(|(name, record)| {
                Some((name.clone(), self.fitted(name, record.active.as_ref()?)))
            });
            next.listeners = active.collect();
        }
        if dirty.secrets {
            let active = self.secrets.records.iter().filter_map(|(name, record)| {
                Some((name.clone(), record.active.as_ref()?.value.clone()))
            });
            next.secrets = Arc::new(active.collect());
        }
        let next = Arc::new(next);
        self.publish.current = next.clone();
        Some(next)
    }

    pub(super) fn update_gauges(&self) {
        let gauge = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let clusters = &self.stats.clusters;
        clusters.warming_clusters.set(gauge(self.clusters.warming));
        let listeners = &self.stats.listeners;
        listeners.total_listeners_warming.set(gauge(self.listeners.warming));
    }

    /// The wall clock, for what people read.
    pub(super) fn wall() -> SystemTime {
        SystemTime::now()
    }
}
