//! What the workers, and the versions of a listener, share of a cache: the store, and what is done to it
//! beside the traffic.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinError};
use tokio::time::Instant;

use super::config::Keeping;
use super::tier::SharedTier;
use super::warm::{Warmer, Warming};
use crate::cache::tier::{Config as TierConfig, TierStats};
use crate::cache::{Bounds, KeyPolicy, Scope as PurgeScope, Store};
use crate::exchange::HttpService;
use crate::filter::WorkerContext;
use crate::telemetry::Scope;

/// A cache that filters of the same name and stat prefix share.
pub struct SharedCache {
    /// What is stored.
    pub store: Arc<Store>,
    /// By what responses are found now.
    key: ArcSwap<KeyPolicy>,
    tier: ArcSwapOption<SharedTier>,
    /// Held while the tier is changed.
    sharing: Mutex<()>,
    tier_stats: Arc<TierStats>,
    background: Handle,
    cleanup: watch::Sender<Duration>,
    sweeper: AbortHandle,
    warmer: Mutex<Option<Warmer>>,
}

impl SharedCache {
    pub(super) fn new(bounds: Bounds, scope: Scope, cx: &WorkerContext) -> Self {
        let store = Arc::new(Store::new(bounds, cx.telemetry.group(scope.clone())));
        let cleanup = watch::Sender::new(Duration::MAX);
        let sweep = sweep(Arc::clone(&store), cleanup.subscribe());
        let sweeper = cx.background.spawn(sweep).abort_handle();
        Self {
            store,
            key: ArcSwap::default(),
            tier: ArcSwapOption::empty(),
            sharing: Mutex::default(),
            tier_stats: cx.telemetry.group(scope.part("cache.tier")),
            background: cx.background.clone(),
            cleanup,
            sweeper,
            warmer: Mutex::default(),
        }
    }

    /// Takes up a configuration. What is stored stays, as far as there is room for it.
    pub(super) fn keep(&self, keeping: &Keeping, key: &KeyPolicy) {
        self.store.bound(keeping.bounds);
        self.key.store(Arc::new(key.clone()));
        self.cleanup.send_if_modified(|cleanup| {
            std::mem::replace(cleanup, keeping.cleanup) != keeping.cleanup
        });
        self.share(keeping.tier.as_ref());
    }

    /// Each worker comes by; the first makes the change.
    fn share(&self, config: Option<&TierConfig>) {
        let _one_at_a_time = self.sharing.lock();
        let now = self.tier.load_full();
        if now.as_ref().map(|tier| &tier.config) == config {
            return;
        }
        let start = |config| {
            SharedTier::start(config, &self.background, Arc::clone(&self.tier_stats), &self.store)
        };
        self.tier.store(config.and_then(start));
    }

    /// By what responses are found; a route may have its own.
    pub(super) fn key_policy(&self) -> Arc<KeyPolicy> {
        self.key.load_full()
    }

    /// Whether the server of the shared tier is there; `None` if there is no tier.
    pub fn tier_is_connected(&self) -> Option<bool> {
        self.tier.load().as_ref().map(|_| self.tier_stats.connected.value() == 1)
    }

    /// What the fleet shares, if it does.
    pub(super) fn tier(&self) -> Option<Arc<SharedTier>> {
        self.tier.load_full()
    }

    /// Forgets what is of a scope, or marks it stale, here and in the fleet. How many responses that were
    /// here, and whether the fleet has been told: it will be as soon as it can.
    ///
    /// # Errors
    /// The process is ending, or the purge broke off.
    pub async fn purge(&self, scope: &PurgeScope, soft: bool) -> Result<(u64, bool), JoinError> {
        let (store, counted) = (Arc::clone(&self.store), scope.clone());
        // What has to be counted one by one takes its time.
        let hit = tokio::task::spawn_blocking(move || store.purge(&counted, soft)).await?;
        let told = match self.tier() {
            Some(tier) => tier.purge(scope, soft).await,
            None => true,
        };
        Ok((hit, told))
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
        self.sweeper.abort();
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
