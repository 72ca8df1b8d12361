//! A worker: one thread, one runtime, its own sockets, pools and balancers.
//!
//! Nothing on the path of a request crosses threads. What a worker hears from outside are new
//! snapshots and the phases of the server's end.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::exchange::deadline::Deadlines;
use crate::filter::WorkerContext;
use crate::listener::Listeners;
use crate::listener::worker::ConnectionIds;
use crate::snapshot::Snapshot;
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
    /// The server's phase.
    pub(super) phase: watch::Receiver<Phase>,
    /// How long connections of a replaced listener may go on.
    pub(super) drain_time: Duration,
    /// Ids of connections, shared by the workers.
    pub(super) connection_ids: ConnectionIds,
}

/// Starts a worker's thread. It ends after [`Phase::Stopping`], or when its channels close.
pub(super) fn spawn(options: WorkerOptions) -> std::io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new()
        .name(format!("worker-{}", options.index))
        .spawn(move || runtime.block_on(run(options)))
}

async fn run(options: WorkerOptions) {
    let WorkerOptions { index, mut snapshots, mut phase, drain_time, connection_ids } = options;
    let deadlines = Deadlines::default();
    let clusters = ClusterManager::new(Arc::default());
    tokio::spawn(deadlines.clone().run());
    let cx = WorkerContext { clusters: clusters.clone(), deadlines };
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
