//! Who waits to make a connection to a cluster whose limit is met, whichever worker they are on.
//!
//! Each worker has idle connections of its own, so that the limit may be met by connections that another
//! worker keeps for later. Whoever needs one has one of those closed, and is told when there is room.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// Somebody with idle connections.
pub(super) trait CloseIdle: Send + Sync {
    /// Closes one, to this host if one is named; false if there is none.
    fn close_one(&self, to: Option<SocketAddr>) -> bool;
}

/// The queue of one cluster. Its order is nobody's: who comes first when there is room gets it.
#[derive(Default)]
pub(super) struct ConnectionQueue {
    waiting: AtomicU32,
    freed: Notify,
    idle: Mutex<Vec<Weak<dyn CloseIdle>>>,
}

impl ConnectionQueue {
    /// Another worker's pools.
    pub(super) fn register(&self, pools: Weak<dyn CloseIdle>) {
        let mut idle = self.idle.lock();
        idle.retain(|pools| pools.strong_count() > 0);
        idle.push(pools);
    }

    /// Closes an idle connection, whoever has it; false if there is none.
    pub(super) fn make_room(&self, to: Option<SocketAddr>) -> bool {
        // Not under the lock: closing is a matter of other locks.
        let all: Vec<_> = self.idle.lock().iter().filter_map(Weak::upgrade).collect();
        all.iter().any(|pools| pools.close_one(to))
    }

    /// Counts somebody who waits, until it is dropped.
    pub(super) fn enter(self: &Arc<Self>) -> Waiting {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting(Arc::clone(self))
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Ready when there may be room. To be enabled before one looks.
    pub(super) fn freed(&self) -> Notified<'_> {
        self.freed.notified()
    }

    /// There is room.
    pub(super) fn tell(&self) {
        if self.waiting() > 0 {
            self.freed.notify_waiters();
        }
    }
}

impl std::fmt::Debug for ConnectionQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectionQueue").field("waiting", &self.waiting()).finish_non_exhaustive()
    }
}

/// Somebody who waits.
pub(super) struct Waiting(Arc<ConnectionQueue>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
