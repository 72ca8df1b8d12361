//! What the workers, and the versions of a listener, share of a cache: the store, and what is done to it
//! beside the traffic.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::config::Keeping;
use super::warm::{Warmer, Warming};
use crate::cache::{Bounds, CacheStats, Store};
use crate::exchange::HttpService;

/// A cache that filters of the same name and stat prefix share.
pub struct SharedCache {
    /// What is stored.
    pub store: Arc<Store>,
    cleanup: watch::Sender<Duration>,
    sweeper: Mutex<Option<AbortHandle>>,
    warmer: Mutex<Option<Warmer>>,
}

impl SharedCache {
    pub(super) fn new(bounds: Bounds, stats: Arc<CacheStats>) -> Self {
        Self {
            store: Arc::new(Store::new(bounds, stats)),
            cleanup: watch::Sender::new(Duration::MAX),
            sweeper: Mutex::default(),
            warmer: Mutex::default(),
        }
    }

    /// Takes up a configuration. What is stored stays, as far as there is room for it.
    pub(super) fn keep(&self, keeping: &Keeping) {
        self.store.bound(keeping.bounds);
        self.cleanup.send_if_modified(|cleanup| {
            std::mem::replace(cleanup, keeping.cleanup) != keeping.cleanup
        });
        let mut sweeper = self.sweeper.lock();
        // Where there is no runtime there is no traffic either.
        if sweeper.is_none()
            && let Ok(runtime) = Handle::try_current()
        {
            let sweep = sweep(Arc::clone(&self.store), self.cleanup.subscribe());
            *sweeper = Some(runtime.spawn(sweep).abort_handle());
        }
    }

    /// Keeps what is to be warm so, through `front`.
    pub(super) fn warm(&self, warming: Option<&Warming>, front: &HttpService) {
        let mut warmer = self.warmer.lock();
        let Some(warming) = warming else {
            *warmer = None;
            return;
        };
        match &*warmer {
            Some(warmer) if warmer.is_of(warming) => warmer.go_through(front),
            _ => *warmer = Some(Warmer::start(warming, front, &self.store.stats)),
        }
    }
}

impl Drop for SharedCache {
    fn drop(&mut self) {
        if let Some(sweeper) = &*self.sweeper.lock() {
            sweeper.abort();
        }
    }
}

/// Sweeps now and then, and soon after each purge.
async fn sweep(store: Arc<Store>, mut cleanup: watch::Receiver<Duration>) {
    loop {
        let interval = *cleanup.borrow_and_update();
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = store.unswept.notified() => {}
            changed = cleanup.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        }
        let began = Instant::now();
        store.sweep().await;
        // However often something is purged, most of the time is the traffic's.
        tokio::time::sleep(began.elapsed() * 4).await;
    }
}
