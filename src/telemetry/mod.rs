//! Metrics and access logs: cells the hot path touches, and the views others read them through.
//!
//! A module declares its cells with [`stats!`](crate::stats) and binds them when a resource is
//! compiled: `telemetry.group(Scope::cluster("users"))`. Binding the same scope again while it
//! is alive gives the same cells, so counters go on when a resource changes; dropping the last
//! holder unregisters them.

pub mod access_log;
pub mod durations;
pub mod envoy_view;
pub mod metrics;
pub mod otel;
pub mod otlp;
pub mod scope;
pub mod services;

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use metrics::StatGroup;
pub use scope::Scope;

/// Where groups of cells are registered. Cheap to clone.
#[derive(Clone, Default)]
pub struct Telemetry(Arc<Mutex<Registry>>);

#[derive(Default)]
struct Registry {
    groups: HashMap<(Scope, TypeId), Registered>,
    /// Registrations left before dead groups are swept out.
    until_sweep: usize,
}

struct Registered {
    typed: Weak<dyn Any + Send + Sync>,
    group: Weak<dyn StatGroup>,
}

impl Telemetry {
    /// The cells of this type of `scope`: those that are alive, or new ones. Types that share a scope
    /// must not share names.
    pub fn group<T: StatGroup + Default>(&self, scope: Scope) -> Arc<T> {
        let key = (scope, TypeId::of::<T>());
        let mut registry = self.0.lock();
        if let Some(registered) = registry.groups.get(&key)
            && let Some(alive) = registered.typed.upgrade()
            && let Ok(group) = Arc::downcast::<T>(alive)
        {
            return group;
        }
        registry.sweep();
        let group = Arc::new(T::default());
        let registered = Registered {
            typed: Arc::downgrade(&group) as Weak<dyn Any + Send + Sync>,
            group: Arc::downgrade(&group) as Weak<dyn StatGroup>,
        };
        registry.groups.insert(key, registered);
        group
    }

    /// Every group that is alive, in no order. The lock is not held while they are read.
    pub fn groups(&self) -> Vec<(Scope, Arc<dyn StatGroup>)> {
        let registry = self.0.lock();
        let alive = |((scope, _), r): (&(Scope, TypeId), &Registered)| {
            Some((scope.clone(), r.group.upgrade()?))
        };
        registry.groups.iter().filter_map(alive).collect()
    }
}

impl Registry {
    /// Forgets dead groups once as many were added as are alive, so that adding stays cheap.
    fn sweep(&mut self) {
        if self.until_sweep > 0 {
            self.until_sweep -= 1;
            return;
        }
        self.groups.retain(|_, r| r.group.strong_count() > 0);
        self.until_sweep = self.groups.len().max(64);
    }
}

impl std::fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Telemetry").field("groups", &self.0.lock().groups.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::stats! {
        struct TestStats {
            counter seen,
        }
    }

    #[test]
    fn a_scope_bound_again_keeps_its_counts_until_nobody_holds_it() {
        let telemetry = Telemetry::default();
        let first: Arc<TestStats> = telemetry.group(Scope::cluster("a"));
        first.seen.inc();
        let again: Arc<TestStats> = telemetry.group(Scope::cluster("a"));
        assert_eq!(again.seen.value(), 1);
        drop((first, again));
        assert!(telemetry.groups().is_empty());
        assert_eq!(telemetry.group::<TestStats>(Scope::cluster("a")).seen.value(), 0);
    }
}
