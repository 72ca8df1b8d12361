//! The server: it owns everything, starts it in order and ends it in order.
//!
//! ```text
//! options ─► bootstrap ─► telemetry, access log sinks
//!                         xds, control          on the runtime that starts the server
//!                         workers               a thread each
//!                         admin                 beside control
//! ```
//!
//! No statics hold state: several servers can run in one process, and dropping one ends its threads.

pub mod bootstrap;
pub mod options;
pub mod stats;
mod worker;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use thiserror::Error;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::admin::{self, Admin, Running};
use crate::coding::Slots;
use crate::config::ConfigError;
use crate::control::{self, Compilers, Control, First, LastGood};
use crate::filter::cache::SharedCache;
use crate::filter::kept::Kept;
use crate::filter::on_demand::{self, Asker};
use crate::listener::NodeName;
use crate::listener::worker::ConnectionIds;
use crate::snapshot::Snapshot;
use crate::telemetry::access_log::Sinks;
use crate::telemetry::otel::Otel;
use crate::telemetry::otlp::{self, Pushing};
use crate::telemetry::services::{Instance, Services};
use crate::telemetry::{Scope, Telemetry};
use crate::upstream::zone::LocalZone;
use crate::xds::{Source, Xds};
use bootstrap::Bootstrap;
use options::Options;
use stats::ServerStats;
use worker::{Phase, Progress, WorkerOptions};

/// Longest wait for requests in flight when the process is told to end.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// Longest wait for the collector that is told the last metrics.
const LAST_PUSH_WITHIN: Duration = Duration::from_secs(2);

/// Events of the xDS client that may wait for control.
const XDS_EVENTS: usize = 64;

/// Why a server could not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// Faults of the bootstrap.
    #[error("{}", lines(.0))]
    Bootstrap(Vec<ConfigError>),
    /// Faults of static resources, such as a port that is taken.
    #[error("{}", .0.join("\n"))]
    Static(Vec<String>),
    /// An environment variable about pushing metrics.
    #[error(transparent)]
    OtlpSettings(#[from] otlp::SettingsError),
    /// Metrics cannot be pushed.
    #[error("metrics cannot be pushed: {0}")]
    Otlp(String),
    /// The system refused.
    #[error("{0}: {1}")]
    Io(&'static str, #[source] std::io::Error),
}

fn lines(errors: &[ConfigError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// How a server is to be started.
#[derive(Debug)]
pub struct Builder {
    bootstrap: Bootstrap,
    workers: usize,
    drain_time: Duration,
    snapshot_dir: Option<PathBuf>,
    admin_address_path: Option<PathBuf>,
    otlp: Option<otlp::Settings>,
}

impl Builder {
    /// Worker threads, at least one; one unless set.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers.max(1);
        self
    }

    /// How long connections of a listener that is gone or changed may go on; 600 s unless set.
    #[must_use]
    pub fn drain_time(mut self, drain_time: Duration) -> Self {
        self.drain_time = drain_time;
        self
    }

    /// Keeps the last good configuration in this directory.
    #[must_use]
    pub fn snapshot_dir(mut self, dir: Option<PathBuf>) -> Self {
        self.snapshot_dir = dir;
        self
    }

    /// Writes the admin endpoint's address to this file.
    #[must_use]
    pub fn admin_address_path(mut self, path: Option<PathBuf>) -> Self {
        self.admin_address_path = path;
        self
    }

    /// Pushes metrics; not unless set.
    #[must_use]
    pub fn otlp(mut self, otlp: Option<otlp::Settings>) -> Self {
        self.otlp = otlp;
        self
    }

    /// Starts the server on the present runtime.
    ///
    /// # Errors
    /// Static resources that cannot be had, or a refusal of the system.
    pub async fn start(self) -> Result<Server, Error> {
        let Self { bootstrap, workers, drain_time, snapshot_dir, admin_address_path, otlp } = self;
        let telemetry = Telemetry::default();
        let sinks = Sinks::new(workers, &telemetry);
        let (xds, events) = Xds::start(bootstrap.node.clone(), XDS_EVENTS, control::files::decode);
        for (source, options) in &bootstrap.servers {
            xds.add_grpc(source.clone(), options.clone());
        }
        for (path, directory) in &bootstrap.watched {
            xds.watch_directory(path.clone(), directory.clone());
        }
        let zone = bootstrap.local_cluster.map(|cluster| {
            let locality = bootstrap.node.locality.clone().unwrap_or_default();
            LocalZone::new(cluster, locality.into())
        });
        let options = control::Options {
            compilers: Compilers::new(telemetry.clone(), sinks.clone())
                .in_zone(zone)
                .named(NodeName {
                    id: bootstrap.node.id.as_str().into(),
                    cluster: bootstrap.node.cluster.as_str().into(),
                })
                .with_runtime(Arc::clone(&bootstrap.runtime)),
            grpc: bootstrap.grpc,
            ads: bootstrap
                .servers
                .iter()
                .find_map(|(source, options)| (*source == Source::Ads).then_some(options.variant)),
            cds: bootstrap.cds,
            lds: bootstrap.lds,
            workers,
            telemetry: telemetry.clone(),
        };
        let node = format!("{}\n{}", bootstrap.node.cluster, bootstrap.node.id);
        let (hosts, asks) = on_demand::channel();
        let first = First {
            static_resources: bootstrap.static_resources,
            ignored: bootstrap.ignored,
            last_good: snapshot_dir.map(|dir| LastGood { dir, node }),
            asks: Some(asks),
        };
        let control = Control::start(options, first, xds, events).map_err(Error::Static)?;
        let otel = Arc::new(Otel::new(&telemetry, Serving(control.snapshots())));
        let stats: Arc<ServerStats> = telemetry.group(Scope::global("server"));
        stats.concurrency.set(i64::try_from(workers).unwrap_or(i64::MAX));
        let (phase, _) = watch::channel(Phase::Serving);
        let progress = Arc::new(Progress::new(control.snapshots(), workers));
        let caches = Kept::default();
        let start = WorkerStart {
            telemetry: &telemetry,
            caches: &caches,
            hosts: &hosts,
            drain_time,
            control: &control,
            phase: &phase,
            progress: &progress,
        };
        let workers = start.workers(workers)?;
        let push = |otlp| Pushing::start(otlp, Arc::clone(&otel), &telemetry);
        let pushing = otlp.map(push).transpose().map_err(Error::Otlp)?;
        let (quit, quit_asked) = watch::channel(false);
        let admin = match bootstrap.admin {
            None => None,
            Some(address) => {
                let hooks = Hooks { phase: phase.clone(), quit, drain_time, progress };
                let admin = Admin {
                    control: control.clone(),
                    telemetry,
                    caches,
                    otel,
                    hooks: Arc::new(hooks),
                    bootstrap: bootstrap.raw,
                    node: bootstrap.node,
                    concurrency: workers.len(),
                    started: Instant::now(),
                };
                let running = admin::start(admin, address, admin_address_path.as_deref()).await;
                Some(running.map_err(|e| Error::Io("starting the admin endpoint", e))?)
            }
        };
        let live = tokio::spawn(show_live(control.status(), stats)).abort_handle();
        Ok(Server { control, phase, workers, sinks, admin, pushing, quit_asked, live })
    }
}

/// The clusters that are served.
struct Serving(watch::Receiver<Arc<Snapshot>>);

impl Services for Serving {
    fn visit(&self, see: &mut dyn FnMut(Instance<'_>)) {
        // The channel is not held up meanwhile.
        let clusters = Arc::clone(&self.0.borrow().clusters);
        clusters.visit(see);
    }
}

/// What every worker is started with.
struct WorkerStart<'a> {
    telemetry: &'a Telemetry,
    caches: &'a Kept<SharedCache>,
    hosts: &'a Asker,
    drain_time: Duration,
    control: &'a Control,
    phase: &'a watch::Sender<Phase>,
    progress: &'a Arc<Progress>,
}

impl WorkerStart<'_> {
    fn workers(&self, count: usize) -> Result<Vec<JoinHandle<()>>, Error> {
        let connection_ids = ConnectionIds::default();
        let sessions = Kept::default();
        let slots = Slots::default();
        let start = |index| {
            worker::spawn(WorkerOptions {
                index,
                snapshots: self.control.snapshots(),
                sessions: sessions.clone(),
                caches: self.caches.clone(),
                slots: slots.clone(),
                background: Handle::current(),
                hosts: self.hosts.clone(),
                telemetry: self.telemetry.clone(),
                phase: self.phase.subscribe(),
                drain_time: self.drain_time,
                connection_ids: connection_ids.clone(),
                progress: Arc::clone(self.progress),
            })
        };
        let workers: Result<_, _> = (0..count).map(start).collect();
        workers.map_err(|e| Error::Io("starting a worker", e))
    }
}

/// `server.live` says whether traffic is served.
async fn show_live(mut status: watch::Receiver<control::Status>, stats: Arc<ServerStats>) {
    loop {
        let live = status.borrow_and_update().phase == control::Phase::Live;
        stats.live.set(i64::from(live));
        if status.changed().await.is_err() {
            return;
        }
    }
}

/// What the admin endpoint may do to the server.
struct Hooks {
    phase: watch::Sender<Phase>,
    quit: watch::Sender<bool>,
    drain_time: Duration,
    progress: Arc<Progress>,
}

impl admin::Hooks for Hooks {
    fn drain_listeners(&self) {
        self.phase.send_replace(Phase::Draining { over: self.drain_time });
    }

    fn quit(&self) {
        self.quit.send_replace(true);
    }

    fn is_draining(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::Stopping { .. })
    }

    fn is_serving(&self) -> bool {
        self.progress.is_serving()
    }
}

/// A running proxy. Dropping it ends it at once; [`Server::stop`] lets requests be answered.
pub struct Server {
    control: Control,
    phase: watch::Sender<Phase>,
    workers: Vec<JoinHandle<()>>,
    sinks: Sinks,
    admin: Option<Running>,
    pushing: Option<Pushing>,
    quit_asked: watch::Receiver<bool>,
    live: AbortHandle,
}

impl Server {
    /// How to start a server with this bootstrap.
    pub fn builder(bootstrap: Bootstrap) -> Builder {
        Builder {
            bootstrap,
            workers: 1,
            drain_time: Duration::from_secs(600),
            snapshot_dir: None,
            admin_address_path: None,
            otlp: None,
        }
    }

    /// Runs a server with the options of a command line until a signal or an operator ends it.
    ///
    /// # Errors
    /// As [`bootstrap::load`] and [`Builder::start`].
    pub async fn run(options: Options) -> Result<(), Error> {
        let loaded = bootstrap::load(&options).map_err(Error::Bootstrap)?;
        let signals = |kind| signal(kind).map_err(|e| Error::Io("listening for signals", e));
        let mut terminate = signals(SignalKind::terminate())?;
        let mut interrupt = signals(SignalKind::interrupt())?;
        let mut reopen = signals(SignalKind::user_defined1())?;
        let otlp = otlp::Settings::read(options::variable, &loaded.node.id)?;
        let drain_time = options.drain_time();
        let mut server = Self::builder(loaded)
            .workers(options.workers())
            .drain_time(drain_time)
            .snapshot_dir(options.snapshot_dir)
            .admin_address_path(options.admin_address_path)
            .otlp(otlp)
            .start()
            .await?;
        tracing::info!(workers = server.workers.len(), "started");
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                () = server.quit_asked() => break,
                _ = reopen.recv() => server.sinks.reopen(),
            }
        }
        server.stop(STOP_WITHIN.min(drain_time)).await;
        Ok(())
    }

    /// Where the admin endpoint listens, if there is one.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(Running::address)
    }

    /// The configuration as the workers get it.
    pub fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.control.snapshots()
    }

    /// Ready once an operator has asked the process to end.
    pub async fn quit_asked(&mut self) {
        // The sender is gone only if there is no admin endpoint to ask at.
        if self.quit_asked.wait_for(|asked| *asked).await.is_err() {
            std::future::pending().await
        }
    }

    /// Ends the server: no new connections, requests in flight are answered within `within`, then
    /// configuration and logs are written out.
    pub async fn stop(mut self, within: Duration) {
        tracing::info!("stopping");
        self.phase.send_replace(Phase::Stopping { within });
        let workers = std::mem::take(&mut self.workers);
        let joined = tokio::task::spawn_blocking(move || {
            workers.into_iter().filter_map(|worker| worker.join().err()).count()
        });
        match joined.await {
            Ok(0) => {}
            _ => tracing::error!("a worker did not end in good order"),
        }
        self.control.stop().await;
        if let Some(pushing) = self.pushing.take() {
            pushing.stop(LAST_PUSH_WITHIN).await;
        }
        let sinks = self.sinks.clone();
        let flushed = tokio::task::spawn_blocking(move || sinks.shutdown(Duration::from_secs(1)));
        if !flushed.await.unwrap_or(false) {
            tracing::warn!("not every access log line could be written");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The workers hear that the phase's sender is gone and end.
        self.live.abort();
    }
}
