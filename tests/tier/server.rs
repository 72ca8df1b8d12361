//! Proxies, as far as they have to do with the tier.

use std::sync::Arc;
use std::time::Duration;

use nuncio::cache::tier::{self, Config, Event, Found, Lookup, Tier, TierStats};
use parking_lot::Mutex;
use tokio::runtime::Handle;

pub(crate) use crate::redis_server::{Server, free_port};
use crate::wait::eventually;

/// A request's patience: more than a busy machine needs for an answer.
pub(crate) const TIMEOUT: Duration = Duration::from_millis(200);

/// As long as nobody wants to wait for a test.
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// What of a proxy has to do with the tier.
pub(crate) struct Proxy {
    pub(crate) tier: Arc<dyn Tier>,
    pub(crate) stats: Arc<TierStats>,
    events: Arc<Mutex<Vec<Event>>>,
}

impl Proxy {
    pub(crate) fn new(addresses: &[String], cluster: bool) -> Self {
        let stats = Arc::<TierStats>::default();
        let events = Arc::<Mutex<Vec<Event>>>::default();
        let heard = Arc::clone(&events);
        let prefix = "nuncio:".to_owned();
        let config = Config { addresses: addresses.to_vec(), cluster, timeout: TIMEOUT, prefix };
        let on_event = Box::new(move |event| heard.lock().push(event));
        let tier = tier::start(config, &Handle::current(), Arc::clone(&stats), on_event).unwrap();
        Self { tier, stats, events }
    }

    /// One that has found the server.
    pub(crate) async fn connected(server: &Server) -> Self {
        let proxy = Self::new(&[server.address()], false);
        proxy.until_connected().await;
        proxy
    }

    pub(crate) async fn until_connected(&self) {
        eventually("the tier is there", async || (self.stats.connected.value() == 1).then_some(()))
            .await;
    }

    pub(crate) async fn get(&self, key: &str) -> Lookup {
        self.tier.get(key.as_bytes()).await
    }

    /// What is found; a busy machine may need more than one try.
    pub(crate) async fn found(&self, key: &str) -> Found {
        eventually("it is found", async || self.get(key).await.found).await
    }

    /// Makes sure that there is nothing, and not merely no answer.
    pub(crate) async fn assert_none(&self, key: &str) {
        eventually("it is not found", async || {
            let before = (self.stats.timeout.value(), self.stats.skipped.value());
            assert_eq!(self.get(key).await.found, None, "{key}");
            (before == (self.stats.timeout.value(), self.stats.skipped.value())).then_some(())
        })
        .await;
    }

    /// Fills as after a lookup, and waits until it is written.
    pub(crate) async fn fill(&self, key: &str, value: &str) {
        let lookup = self.get(key).await;
        self.fill_from(key, value, &lookup).await;
    }

    /// Ends the fill that a lookup began, and waits until it is written or refused.
    pub(crate) async fn fill_from(&self, key: &str, value: &str, lookup: &Lookup) {
        let ended = || {
            let TierStats { written, write_refused, write_dropped, .. } = &*self.stats;
            written.value() + write_refused.value() + write_dropped.value()
        };
        let before = ended();
        let (key, value) = (key.to_owned().into(), value.to_owned().into());
        self.tier.fill(key, value, HOUR, &lookup.stamp);
        eventually("the fill ends", async || (ended() > before).then_some(())).await;
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.events.lock().clone()
    }

    pub(crate) async fn heard(&self, message: &'static str) {
        let event = Event::Message(message.into());
        eventually("the message comes", async || self.events().contains(&event).then_some(()))
            .await;
    }

    pub(crate) fn missed(&self) -> usize {
        self.events().iter().filter(|event| **event == Event::Missed).count()
    }
}
