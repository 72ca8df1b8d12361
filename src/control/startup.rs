//! The phases of a start: clusters, then listeners, then traffic.
//!
//! Listeners are not asked for before the first clusters are warm, and none accepts before all of
//! the first listeners are: the first request finds everything there. A server that does not answer
//! holds a phase no longer than the `initial_fetch_timeout` of its `ConfigSource`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use tracing::{info, warn};

use super::Effect;
use super::state::State;
use crate::xds::{ResourceType, Source};

/// A type that is subscribed to as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// Where.
    pub source: Source,
    /// How long a start waits for the first answer; none is for ever.
    pub initial_fetch_timeout: Option<Duration>,
}

/// How far a start has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    /// The first clusters are not warm.
    #[default]
    Clusters,
    /// The first listeners are not warm.
    Listeners,
    /// Traffic is served.
    Live,
}

/// What an operator wants to know of a start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// How far it has come.
    pub phase: Phase,
    /// When the configuration in service was saved, while it is that of an earlier process.
    pub restored: Option<SystemTime>,
}

/// The first answer to one subscription.
#[derive(Debug)]
enum First {
    /// Not subscribed yet, or no such subscription (then without a source).
    Before,
    Waiting(Option<Instant>),
    Over,
}

#[derive(Debug)]
pub(super) struct Startup {
    phase: Phase,
    cds: Option<Subscription>,
    lds: Option<Subscription>,
    first_clusters: First,
    first_listeners: First,
    pub(super) restored: Option<SystemTime>,
    /// Types of which the server has not yet replaced what the disk gave.
    pub(super) stale: Vec<ResourceType>,
}

impl Startup {
    pub(super) fn new(cds: Option<Subscription>, lds: Option<Subscription>) -> Self {
        Self {
            phase: Phase::Clusters,
            cds,
            lds,
            first_clusters: First::Before,
            first_listeners: First::Before,
            restored: None,
            stale: Vec::new(),
        }
    }

    pub(super) fn is_live(&self) -> bool {
        self.phase == Phase::Live
    }

    pub(super) fn status(&self) -> Status {
        Status { phase: self.phase, restored: self.restored }
    }

    /// The source that a type is subscribed at as a whole.
    pub(super) fn subscription(&self, ty: ResourceType) -> Option<&Subscription> {
        match ty {
            ResourceType::Cluster => self.cds.as_ref(),
            ResourceType::Listener => self.lds.as_ref(),
            ResourceType::Endpoints
            | ResourceType::Extension
            | ResourceType::Routes
            | ResourceType::VirtualHost
            | ResourceType::Secret => None,
        }
    }

    pub(super) fn next_end(&self) -> Option<Instant> {
        let end = |first: &First| match first {
            First::Waiting(end) => *end,
            First::Before | First::Over => None,
        };
        [end(&self.first_clusters), end(&self.first_listeners)].into_iter().flatten().min()
    }
}

impl State {
    /// Subscribes to clusters. Static resources have been taken in before.
    pub(super) fn start(&mut self, now: Instant) {
        self.startup.first_clusters = self.subscribe_all(ResourceType::Cluster, now);
        self.advance(now);
    }

    fn subscribe_all(&mut self, ty: ResourceType, now: Instant) -> First {
        let Some(subscription) = self.startup.subscription(ty).cloned() else {
            return First::Over;
        };
        self.follow.source(&subscription.source);
        self.effects.push(Effect::SubscribeAll(Arc::new(subscription.source), ty));
        self.subscription_stats(ty).inspect(|s| s.update_attempt.inc());
        First::Waiting(subscription.initial_fetch_timeout.and_then(|t| now.checked_add(t)))
    }

    pub(super) fn subscription_stats(
        &self,
        ty: ResourceType,
    ) -> Option<&Arc<super::stats::SubscriptionStats>> {
        match ty {
            ResourceType::Cluster => Some(&self.stats.cds),
            ResourceType::Listener => Some(&self.stats.lds),
            ResourceType::Endpoints
            | ResourceType::Extension
            | ResourceType::Routes
            | ResourceType::VirtualHost
            | ResourceType::Secret => None,
        }
    }

    /// A server has answered about a type, whatever was made of the answer.
    pub(super) fn answered(&mut self, ty: ResourceType) {
        match ty {
            ResourceType::Cluster => self.startup.first_clusters = First::Over,
            ResourceType::Listener => self.startup.first_listeners = First::Over,
            ResourceType::Endpoints
            | ResourceType::Extension
            | ResourceType::Routes
            | ResourceType::VirtualHost
            | ResourceType::Secret => {}
        }
    }

    /// Goes on to the next phase if nothing holds this one.
    pub(super) fn advance(&mut self, now: Instant) {
        self.update_gauges();
        self.expire_first(now);
        if self.startup.phase == Phase::Clusters
            && matches!(self.startup.first_clusters, First::Over)
            && self.clusters.warming == 0
        {
            self.startup.phase = Phase::Listeners;
            self.ask_for_listeners(now);
        }
        if self.startup.phase == Phase::Listeners
            && matches!(self.startup.first_listeners, First::Over)
            && self.listeners.warming == 0
        {
            self.go_live();
            info!("all first resources are warm; accepting connections");
        }
        if self.startup.is_live()
            && matches!(self.startup.first_listeners, First::Before)
            && matches!(self.startup.first_clusters, First::Over)
        {
            // Serving what the disk gave does not wait, but asks in the same order.
            self.ask_for_listeners(now);
        }
    }

    /// Serves what there is.
    pub(super) fn go_live(&mut self) {
        self.startup.phase = Phase::Live;
        self.publish.dirty.listeners = true;
    }

    fn ask_for_listeners(&mut self, now: Instant) {
        if matches!(self.startup.first_listeners, First::Before) {
            self.startup.first_listeners = self.subscribe_all(ResourceType::Listener, now);
        }
    }

    fn expire_first(&mut self, now: Instant) {
        let over = |first: &mut First| {
            let over = matches!(first, First::Waiting(Some(end)) if *end <= now);
            if over {
                *first = First::Over;
            }
            over
        };
        if over(&mut self.startup.first_clusters) {
            self.stats.cds.init_fetch_timeout.inc();
            warn!("no clusters came within initial_fetch_timeout; going on without");
        }
        if over(&mut self.startup.first_listeners) {
            self.stats.lds.init_fetch_timeout.inc();
            warn!("no listeners came within initial_fetch_timeout; going on without");
        }
    }
}
