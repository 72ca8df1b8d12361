//! The control task: moves events into the state machine and its effects out.

use std::sync::{Arc, Weak};
use std::time::{Duration, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::follow::{SourceId, Want};
use super::ingest::Change;
use super::last_good::Keeper;
use super::state::State;
use super::store::{Origin, Running};
use super::{Command, Control, Effect, First, Options, Phase, Readiness};
use crate::filter::on_demand::Ask;
use crate::snapshot::Snapshot;
use crate::upstream::Cluster;
use crate::xds::{Event, Events, Resource, ResourceType, Source, Update, Verdict, Xds};

/// Events taken in before a snapshot is built, if more are waiting.
const LARGEST_BURST: usize = 64;
/// How often the age of a configuration from disk is brought up to date.
const AGE_INTERVAL: Duration = Duration::from_secs(5);

struct Task {
    state: State,
    xds: Xds,
    events: Events,
    commands: mpsc::Receiver<Command>,
    asks: Option<mpsc::Receiver<Ask>>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    status: watch::Sender<super::Status>,
    keeper: Option<Keeper>,
    /// Clusters that did what they wait for.
    ready: mpsc::Receiver<Want>,
    tell_ready: mpsc::Sender<Want>,
    /// Streams that are open.
    connected: Vec<(Source, Option<ResourceType>)>,
}

pub(super) fn start(
    options: Options,
    first: First,
    xds: Xds,
    events: Events,
) -> Result<Control, Vec<String>> {
    let now = Instant::now();
    let First { static_resources, ignored, last_good, asks } = first;
    let mut state = State::new(options);
    for (resource, paths) in &ignored {
        state.ignore(resource, paths);
    }
    state.take_static(static_resources, now)?;
    let keeper = last_good.map(|last_good| Keeper::new(last_good, &state.stats));
    if let Some(keeper) = &keeper {
        restore(&mut state, keeper, now);
    }
    state.start(now);
    let (commands, command_receiver) = mpsc::channel(16);
    let (snapshot_sender, snapshots) = watch::channel(Arc::default());
    let (status_sender, status) = watch::channel(state.startup.status());
    let (tell_ready, ready) = mpsc::channel(64);
    let task = Task {
        state,
        xds,
        events,
        commands: command_receiver,
        asks,
        snapshots: snapshot_sender,
        status: status_sender,
        keeper,
        ready,
        tell_ready,
        connected: Vec::new(),
    };
    tokio::spawn(task.run());
    Ok(Control { commands, snapshots, status })
}

/// Serves what an earlier process had, if there is any of it.
fn restore(state: &mut State, keeper: &Keeper, now: Instant) {
    match keeper.read() {
        Ok(None) => {}
        Ok(Some(saved)) => {
            let age = saved.when.elapsed().unwrap_or_default();
            let resources = saved.resources.iter().map(|(_, r)| r.len()).sum::<usize>();
            state.restore(saved, now);
            warn!(
                file = %keeper.path().display(),
                resources,
                age_seconds = age.as_secs(),
                "serving the configuration read from disk until the management server answers"
            );
        }
        Err(error) => {
            let file = keeper.path().display();
            warn!(%file, %error, "the file of last good configuration is not used");
        }
    }
}

impl Task {
    async fn run(mut self) {
        loop {
            self.settle();
            let wake = self.next_wake();
            let keeper = &mut self.keeper;
            let saved = async {
                match keeper {
                    Some(keeper) => keeper.written().await,
                    None => std::future::pending().await,
                }
            };
            let asks = &mut self.asks;
            let asked = async {
                match asks {
                    Some(asks) => asks.recv().await,
                    None => std::future::pending().await,
                }
            };
            let timer = async {
                match wake {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(event) = self.events.recv() => self.burst(event),
                command = self.commands.recv() => match command {
                    None => return,
                    Some(Command::Dump(reply)) => {
                        // Whoever asked may have gone.
                        let _gone = reply.send(self.state.dump(&self.xds));
                    }
                    Some(Command::Stop(reply)) => return self.stop(reply).await,
                },
                Some(want) = self.ready.recv() => {
                    self.state.satisfy(&want);
                    self.state.advance(Instant::now());
                }
                Some(ask) = asked => self.asked(ask),
                () = saved => {}
                () = timer => self.state.tick(Instant::now()),
            }
        }
    }

    /// Takes in an event and those behind it.
    fn burst(&mut self, event: Event) {
        let mut next = Some(event);
        for _ in 0..LARGEST_BURST {
            let Some(event) = next else { break };
            self.handle(event);
            next = self.events.try_recv().ok();
        }
        if let Some(event) = next {
            self.handle(event);
        }
    }

    /// Takes in a request's question and those behind it.
    fn asked(&mut self, ask: Ask) {
        let now = Instant::now();
        self.state.ask(ask, now);
        let Some(asks) = &mut self.asks else { return };
        for _ in 0..LARGEST_BURST {
            let Ok(ask) = asks.try_recv() else { break };
            self.state.ask(ask, now);
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Update(update) => self.update(update),
            Event::Connected { source, ty } => {
                info!(%source, ty = ty.map(ResourceType::short), "connected to the management server");
                self.connected.push((source, ty));
                self.state.stats.control_plane.connected_state.set(1);
            }
            Event::Disconnected { source, ty, error } => {
                warn!(%source, ty = ty.map(ResourceType::short), error, "no stream to the management server");
                let key = (source, ty);
                self.connected.retain(|open| *open != key);
                let connected = i64::from(!self.connected.is_empty());
                self.state.stats.control_plane.connected_state.set(connected);
                self.state.failed(&key.0, key.1);
            }
        }
    }

    fn update(&mut self, update: Update) {
        let Update {
            source,
            ty,
            token,
            version,
            full,
            resources,
            kept,
            removed,
            answered,
            expired,
            malformed,
        } = update;
        // A name that cannot be read may be any resource, so absence proves nothing.
        let full = full && malformed.iter().all(|m| !m.name.is_empty());
        let damaged = !malformed.is_empty();
        let kept = kept.into_iter().chain(malformed.into_iter().map(|m| m.name)).collect();
        let verdict = match self.state.follow.known(&source) {
            Some(source) => {
                let origin = Origin::Dynamic;
                let change = Change {
                    origin,
                    source,
                    ty,
                    version,
                    full,
                    resources,
                    kept,
                    removed,
                    answered,
                    expired,
                    damaged,
                };
                self.state.ingest(change, Instant::now())
            }
            None => Verdict::accept(),
        };
        self.effects();
        self.xds.verdict(token, verdict);
    }

    fn effects(&mut self) {
        for effect in self.state.take_effects() {
            match effect {
                Effect::AddGrpc(source, options) => self.xds.add_grpc(source, *options),
                Effect::WatchDirectory(path, directory) => {
                    self.xds.watch_directory(path, directory);
                }
                Effect::Run(cluster, guard) => {
                    if let Some(guard) = guard.upgrade() {
                        guard.started(tokio::spawn(cluster.run()).abort_handle());
                    }
                }
                Effect::Await(what, cluster, guard, want) => {
                    self.await_cluster(what, cluster, &guard, want);
                }
                Effect::SubscribeAll(source, ty) => self.xds.subscribe_all(&source, ty),
                Effect::Subscribe(source, ty, names) => self.xds.subscribe(&source, ty, &names),
                Effect::Unsubscribe(source, ty, names) => {
                    self.xds.unsubscribe(&source, ty, &names);
                }
            }
        }
    }

    fn await_cluster(
        &self,
        what: Readiness,
        cluster: Arc<Cluster>,
        guard: &Weak<Running>,
        want: Want,
    ) {
        let Some(guard) = guard.upgrade() else { return };
        let tell = self.tell_ready.clone();
        let task = tokio::spawn(async move {
            match what {
                Readiness::Resolved => cluster.first_resolution().await,
                Readiness::Checked => cluster.first_checks().await,
            }
            // Only fails when control has ended.
            let _ended = tell.send(want).await;
        });
        guard.started(task.abort_handle());
    }

    /// Lets out what the last events led to.
    fn settle(&mut self) {
        let now = Instant::now();
        self.state.settle_asks(now);
        self.effects();
        if self.state.publish.due(now).is_some_and(|at| at <= now) {
            if let Some(snapshot) = self.state.snapshot() {
                self.note(&snapshot);
                self.snapshots.send_replace(snapshot);
            }
            let after = Instant::now();
            self.state.publish.took(after - now, after);
        }
        let status = self.state.startup.status();
        let unpublished = self.state.publish.due(now).is_some();
        self.status.send_if_modified(|before| {
            // Traffic is not said to be served before the first listeners are out.
            let early = status.phase == Phase::Live && before.phase != Phase::Live && unpublished;
            let changed = *before != status && !early;
            if changed {
                *before = status;
            }
            changed
        });
        self.update_age();
        if let Some(keeper) = &mut self.keeper {
            keeper.look(&mut self.state, now);
        }
    }

    fn note(&self, snapshot: &Snapshot) {
        let config = &self.state.stats.config;
        config.version.set(i64::try_from(snapshot.version).unwrap_or(i64::MAX));
        let published = self.state.startup.restored.unwrap_or_else(State::wall);
        let seconds = published.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        config.published_unix_s.set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }

    fn update_age(&self) {
        if let Some(saved) = self.state.startup.restored {
            let age = saved.elapsed().unwrap_or_default().as_secs();
            let age = i64::try_from(age).unwrap_or(i64::MAX);
            self.state.stats.own.snapshot_age_seconds.set(age);
        }
    }

    fn next_wake(&self) -> Option<Instant> {
        let now = Instant::now();
        let age = self.state.startup.restored.map(|_| now + AGE_INTERVAL);
        let save = self.keeper.as_ref().and_then(|keeper| keeper.due(&self.state));
        [self.state.next_end(), self.state.publish.due(now), age, save].into_iter().flatten().min()
    }

    async fn stop(mut self, reply: oneshot::Sender<()>) {
        if let Some(keeper) = &mut self.keeper {
            keeper.finish(&mut self.state).await;
        }
        // Whoever asked may have gone.
        let _gone = reply.send(());
    }
}

impl State {
    /// Takes in the bootstrap's resources.
    fn take_static(
        &mut self,
        resources: Vec<(ResourceType, Vec<prost_types::Any>)>,
        now: Instant,
    ) -> Result<(), Vec<String>> {
        let source = self.follow.source(&Source::Ads);
        let mut faults = Vec::new();
        for (ty, resources) in resources {
            let change = Change::of(Origin::Static, source, ty, resources, "");
            let verdict = self.ingest(change, now);
            faults.extend(verdict.rejected.into_iter().map(|rejection| rejection.error));
        }
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    /// The network ended the wait for an answer.
    fn failed(&self, source: &Source, only: Option<ResourceType>) {
        for ty in [ResourceType::Cluster, ResourceType::Listener] {
            let here = self.startup.subscription(ty).is_some_and(|s| s.source == *source)
                && only.is_none_or(|only| only == ty);
            if here && let Some(stats) = self.subscription_stats(ty) {
                stats.update_failure.inc();
            }
        }
        if only.is_none_or(|only| only == ResourceType::Extension) {
            self.extensions_failed(source);
        }
    }
}

impl Change {
    /// Resources that come from no server.
    pub(super) fn of(
        origin: Origin,
        source: SourceId,
        ty: ResourceType,
        resources: Vec<prost_types::Any>,
        version: &str,
    ) -> Self {
        let resource = |body| Resource { name: None, version: version.to_owned(), body, ttl: None };
        Self {
            origin,
            source,
            ty,
            version: version.into(),
            full: false,
            resources: resources.into_iter().map(resource).collect(),
            kept: Vec::new(),
            removed: Vec::new(),
            answered: Vec::new(),
            expired: false,
            damaged: false,
        }
    }
}
