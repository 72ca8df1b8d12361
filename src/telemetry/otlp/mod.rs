//! Pushing the documented metrics to a collector by OTLP, over gRPC or HTTP.
//!
//! What is pushed is what [`otel`](super::otel) reads, so it is the same as `/metrics` shows. Sums are
//! cumulative: a push that fails is made good by the next one, so none is sent twice.

mod message;
mod send;
pub mod settings;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use self::send::Sender;
pub use self::settings::{Protocol, Settings, SettingsError};
use super::otel::Otel;
use super::{Scope, Telemetry};

crate::stats! {
    /// What became of pushes; scope `otlp`.
    pub struct OtlpStats {
        /// Pushes that the collector took.
        counter pushes,
        /// Those that it did not, or not whole.
        counter push_failures,
    }
}

/// The task that pushes.
pub struct Pushing {
    /// Dropped or told, it ends.
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Pushing {
    /// Starts pushing on the present runtime.
    ///
    /// # Errors
    /// When the endpoint cannot be one.
    pub fn start(
        settings: Settings,
        otel: Arc<Otel>,
        telemetry: &Telemetry,
    ) -> Result<Self, String> {
        let (stop, stopped) = oneshot::channel();
        let push = Push {
            sender: Sender::new(&settings)?,
            otel,
            stats: telemetry.group(Scope::global("otlp")),
            since: SystemTime::now(),
            failing: false,
            settings,
        };
        Ok(Self { stop, task: tokio::spawn(push.run(stopped)) })
    }

    /// Pushes a last time and ends; gives up after `within`.
    pub async fn stop(self, within: Duration) {
        let _ended = self.stop.send(());
        let abort = self.task.abort_handle();
        if tokio::time::timeout(within, self.task).await.is_err() {
            tracing::warn!("the last metrics could not be pushed in time");
            abort.abort();
        }
    }
}

struct Push {
    settings: Settings,
    sender: Sender,
    otel: Arc<Otel>,
    stats: Arc<OtlpStats>,
    since: SystemTime,
    failing: bool,
}

impl Push {
    async fn run(mut self, mut stopped: oneshot::Receiver<()>) {
        let mut ticks = tokio::time::interval(self.settings.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first is at once, when there is nothing to tell yet.
        ticks.tick().await;
        loop {
            tokio::select! {
                _ = ticks.tick() => self.push().await,
                told = &mut stopped => {
                    if told.is_ok() {
                        self.push().await;
                    }
                    return;
                }
            }
        }
    }

    async fn push(&mut self) {
        let timeout = self.settings.timeout;
        let pushed = match tokio::time::timeout(timeout, self.push_all()).await {
            Ok(pushed) => pushed,
            Err(_elapsed) => Err(format!("no answer within {timeout:?}")),
        };
        let failed = pushed.is_err();
        if failed { &self.stats.push_failures } else { &self.stats.pushes }.inc();
        let to = &self.settings.endpoint;
        // Told once each time that it turns.
        match pushed {
            Err(error) if !self.failing => tracing::warn!(%to, error, "metrics were not pushed"),
            Err(error) => tracing::debug!(%to, error, "metrics were not pushed again"),
            Ok(()) if self.failing => tracing::info!(%to, "metrics are pushed again"),
            Ok(()) => {}
        }
        self.failing = failed;
    }

    async fn push_all(&mut self) -> Result<(), String> {
        let (otel, since) = (Arc::clone(&self.otel), self.since);
        let resource = self.settings.resource.clone();
        // Reading ten thousand clusters would hold up configuration.
        let messages = tokio::task::spawn_blocking(move || {
            let collected = otel.collect().map_err(|error| error.to_string())?;
            Ok::<_, String>(message::requests(&collected, &resource, since))
        });
        for message in messages.await.map_err(|error| error.to_string())?? {
            self.sender.send(message).await?;
        }
        Ok(())
    }
}
