//! A worker: one thread, one runtime, its own sockets, pools and balancers.
//!
//! Nothing on the path of a request crosses threads. What a worker hears from outside are new
//! snapshots and the phases of the server's end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::coding::Slots;
use crate::exchange::deadline::Deadlines;
use crate::filter::WorkerContext;
use crate::filter::cache::SharedCache;
use crate::filter::kept::Kept;
use crate::filter::on_demand::Asker;
use crate::filter::session::SessionTable;
use crate::listener::Listeners;
use crate::listener::worker::ConnectionIds;
use crate::snapshot::Snapshot;
use crate::telemetry::Telemetry;
use crate::upstream::ClusterManager;

/// What the server wants of its workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Serve.
    Serving,
    /// Close the listeners; established connections end within `over`.
    Draining {
        /// The drain time.
        over: Duration,
    },
    /// End: connections are closed once their requests are answered, at the latest after `within`.
    Stopping {
        /// The time left.
        within: Duration,
    },
}

/// What a worker is started with.
pub(super) struct WorkerOptions {
    /// Counts from 0.
    pub(super) index: usize,
    /// The configuration.
    pub(super) snapshots: watch::Receiver<Arc<Snapshot>>,
    /// Sessions, shared by the workers.
    pub(super) sessions: Kept<SessionTable>,
    /// Stored responses, shared by the workers.
    pub(super) caches: Kept<SharedCache>,
    /// Where codecs work beside the workers, shared by them.
    pub(super) slots: Slots,
    /// Where work is done that no request waits for.
    pub(super) background: Handle,
    /// Where virtual hosts are asked for.
    pub(super) hosts: Asker,
    /// Where things are counted.
    pub(super) telemetry: Telemetry,
    /// The server's phase.
    pub(super) phase: watch::Receiver<Phase>,
    /// How long connections of a replaced listener may go on.
    pub(super) drain_time: Duration,
    /// Ids of connections, shared by the workers.
    pub(super) connection_ids: ConnectionIds,
    /// Where it says which snapshot it has taken up.
    pub(super) progress: Arc<Progress>,
}

/// Which snapshot each worker has taken up.
#[derive(Debug)]
pub(super) struct Progress {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    /// The version, by worker.
    applied: Box<[AtomicU64]>,
    serving: AtomicBool,
}

impl Progress {
    pub(super) fn new(snapshots: watch::Receiver<Arc<Snapshot>>, workers: usize) -> Self {
        let applied = (0..workers).map(|_| AtomicU64::new(0)).collect();
        Self { snapshots, applied, serving: AtomicBool::new(false) }
    }

    fn applied(&self, worker: usize, version: u64) {
        if let Some(applied) = self.applied.get(worker) {
            applied.store(version, Ordering::Release);
        }
    }

    /// Whether every worker had once taken up what was then the configuration.
    pub(super) fn is_serving(&self) -> bool {
        if self.serving.load(Ordering::Acquire) {
            return true;
        }
        let version = self.snapshots.borrow().version;
        let serving = self.applied.iter().all(|a| a.load(Ordering::Acquire) >= version);
        if serving {
            self.serving.store(true, Ordering::Release);
        }
        serving
    }
}

/// Starts a worker's thread. It ends after [`Phase::Stopping`], or when its channels close.
pub(super) fn spawn(options: WorkerOptions) -> std::io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new()
        .name(format!("worker-{}", options.index))
        .spawn(move || runtime.block_on(run(options)))
}

async fn run(options: WorkerOptions) {
    let WorkerOptions {
        index,
        mut snapshots,
        sessions,
        caches,
        slots,
        background,
        hosts,
        telemetry,
        mut phase,
        drain_time,
        connection_ids,
        progress,
    } = options;
    let deadlines = Deadlines::default();
    let clusters = ClusterManager::new(Arc::default());
    tokio::spawn(deadlines.clone().run());
    let cx = WorkerContext {
        worker: index,
        clusters: clusters.clone(),
        deadlines,
        sessions,
        caches,
        slots,
        background,
        hosts,
        telemetry,
    };
    let mut listeners = Listeners::new(index, cx, connection_ids, drain_time);
    loop {
        tokio::select! {
            changed = snapshots.changed() => {
                if changed.is_err() {
                    break;
                }
                let snapshot = Arc::clone(&snapshots.borrow_and_update());
                // Clusters first: a route must not name one that this worker does not know yet.
                clusters.apply(Arc::clone(&snapshot.clusters));
                listeners.apply(&snapshot.listeners, &snapshot.routes);
                progress.applied(index, snapshot.version);
            }
            changed = phase.changed() => {
                let now = *phase.borrow_and_update();
                match now {
                    _ if changed.is_err() => break,
                    Phase::Serving => {}
                    Phase::Draining { over } => listeners.stop(over),
                    Phase::Stopping { within } => {
                        stop(&mut listeners, within).await;
                        break;
                    }
                }
            }
        }
    }
}

/// Lets requests in flight be answered.
async fn stop(listeners: &mut Listeners, within: Duration) {
    listeners.stop(Duration::ZERO);
    let deadline = Instant::now() + within;
    let mut look = tokio::time::interval(Duration::from_millis(10));
    while listeners.open_connections() > 0 && Instant::now() < deadline {
        look.tick().await;
    }
}
