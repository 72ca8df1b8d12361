//! Circuit breakers: limits on what a cluster may have in flight, counted over all workers.
//!
//! A [`Permit`] is one unit in use; dropping it gives the unit back. Usage is kept by the name of the
//! cluster, so that what a replaced cluster still has in flight counts against its successor.
//!
//! Differs: connections made for requests of high priority share the pools of the others; only the
//! counts are kept apart (`config.cluster.v3.CircuitBreakers`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use thiserror::Error;

use super::connection_queue::ConnectionQueue;
use crate::exchange::RoutingPriority;
use crate::telemetry::metrics::{Cell, Gauge, StatGroup};

/// Limits of one priority, as units in use at once; 0 allows none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// `max_connections`, 1024 unless set.
    pub max_connections: u32,
    /// `max_pending_requests`, 1024 unless set.
    pub max_pending_requests: u32,
    /// `max_requests`, 1024 unless set.
    pub max_requests: u32,
    /// `max_connection_pools`, without limit unless set; a worker has a pool for each host it uses.
    pub max_connection_pools: u32,
    /// `per_host_thresholds.max_connections`, without limit unless set.
    pub max_connections_per_host: u32,
    /// `max_retries`, 3 unless set; without effect if there is a budget.
    pub max_retries: u32,
    /// `retry_budget`, which takes the place of `max_retries`.
    pub retry_budget: Option<RetryBudget>,
    /// `track_remaining`: show how many units are left.
    pub track_remaining: bool,
}

/// Retries as a share of what is under way: `CircuitBreakers.Thresholds.RetryBudget`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryBudget {
    /// Percent of the requests that wait or are under way, 0 to 100; 20 unless set.
    pub percent: f64,
    /// Retries that are always allowed; 3 unless set.
    pub min_concurrency: u32,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self { percent: 20.0, min_concurrency: 3 }
    }
}

impl RetryBudget {
    /// Retries allowed at once while `active` requests wait or are under way.
    fn limit(self, active: u32) -> u32 {
        let share = f64::from(active) * self.percent / 100.0;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a u32, rounded down"
        )]
        let share = share as u32;
        share.max(self.min_concurrency)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            max_pending_requests: 1024,
            max_requests: 1024,
            max_connection_pools: u32::MAX,
            max_connections_per_host: u32::MAX,
            max_retries: 3,
            retry_budget: None,
            track_remaining: false,
        }
    }
}

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// A connection to a host.
    Connection,
    /// A request that waits for a connection.
    Pending,
    /// A request, from its admission to the end of its response.
    Request,
    /// A request that is being tried again.
    Retry,
    /// A worker's connections to one host.
    Pool,
}

impl Resource {
    const ALL: [Self; 5] =
        [Self::Connection, Self::Pending, Self::Request, Self::Retry, Self::Pool];
}

/// A limit was met: Envoy's `UO`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the circuit breaker is open")]
pub struct Overflow;

#[derive(Debug, Default)]
struct Used {
    units: AtomicU32,
    /// 1 while the limit is met.
    open: Gauge,
    /// Units left; kept up if somebody asked for it.
    remaining: Gauge,
    tracked: AtomicBool,
}

/// Units in use by all clusters of one name.
#[derive(Debug, Default)]
pub(super) struct Usage {
    used: [[Used; 5]; 2],
    /// Who waits for a connection.
    pub(super) queue: Arc<ConnectionQueue>,
}

impl StatGroup for Usage {
    fn visit(&self, visit: &mut dyn FnMut(&'static str, Cell<'_>)) {
        const NAMES: [[&str; 5]; 2] = [
            [
                "default.cx_open",
                "default.rq_pending_open",
                "default.rq_open",
                "default.rq_retry_open",
                "default.cx_pool_open",
            ],
            [
                "high.cx_open",
                "high.rq_pending_open",
                "high.rq_open",
                "high.rq_retry_open",
                "high.cx_pool_open",
            ],
        ];
        for (names, used) in NAMES.iter().zip(&self.used) {
            for (name, used) in names.iter().zip(used) {
                visit(name, Cell::Gauge(&used.open));
            }
        }
        const REMAINING: [[&str; 5]; 2] = [
            [
                "default.remaining_cx",
                "default.remaining_pending",
                "default.remaining_rq",
                "default.remaining_retries",
                "default.remaining_cx_pools",
            ],
            [
                "high.remaining_cx",
                "high.remaining_pending",
                "high.remaining_rq",
                "high.remaining_retries",
                "high.remaining_cx_pools",
            ],
        ];
        for (names, used) in REMAINING.iter().zip(&self.used) {
            for (name, used) in names.iter().zip(used) {
                if used.tracked.load(Ordering::Relaxed) {
                    visit(name, Cell::Gauge(&used.remaining));
                }
            }
        }
    }
}

/// The circuit breakers of one cluster.
#[derive(Debug)]
pub struct Breakers {
    usage: Arc<Usage>,
    limits: [Limits; 2],
}

impl Breakers {
    pub(super) fn new(usage: Arc<Usage>, default: Limits, high: Limits) -> Self {
        let breakers = Self { usage, limits: [default, high] };
        for priority in [RoutingPriority::Default, RoutingPriority::High] {
            for resource in Resource::ALL {
                breakers.track(priority, resource);
            }
        }
        breakers
    }

    /// Shows what is left, or stops showing it. A budget has no fixed end to count down to.
    fn track(&self, priority: RoutingPriority, resource: Resource) {
        let limits = &self.limits[priority as usize];
        let budgeted = resource == Resource::Retry && limits.retry_budget.is_some();
        let tracked = limits.track_remaining && !budgeted;
        let used = &self.usage.used[priority as usize][resource as usize];
        used.tracked.store(tracked, Ordering::Relaxed);
        if tracked {
            let limit = i64::from(self.limit(priority, resource));
            used.remaining.set(limit - i64::from(used.units.load(Ordering::Relaxed)));
        }
    }

    /// The limits of one priority.
    pub fn limits(&self, priority: RoutingPriority) -> Limits {
        self.limits[priority as usize]
    }

    /// Whether so few connections are allowed that those made under `before` may be too many.
    pub(super) fn allow_fewer_connections(&self, before: &Self) -> bool {
        self.limits.iter().zip(&before.limits).any(|(now, before)| {
            now.max_connections < before.max_connections
                || now.max_connections_per_host < before.max_connections_per_host
                || now.max_connection_pools < before.max_connection_pools
        })
    }

    /// Units of `resource` in use now.
    pub fn in_use(&self, priority: RoutingPriority, resource: Resource) -> u32 {
        self.usage.used[priority as usize][resource as usize].units.load(Ordering::Relaxed)
    }

    /// Takes one unit, unless the limit is met. Exact, whoever else takes one at the same time.
    pub fn acquire(
        &self,
        priority: RoutingPriority,
        resource: Resource,
    ) -> Result<Permit, Overflow> {
        let limit = self.limit(priority, resource);
        let used = &self.usage.used[priority as usize][resource as usize];
        let taken = used.units.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |units| {
            (units < limit).then_some(units + 1)
        });
        match taken {
            Ok(before) => Ok(self.permit(priority, resource, before)),
            Err(_full) => {
                used.open.set(1);
                Err(Overflow)
            }
        }
    }

    /// Who waits for a connection, and who has idle ones.
    pub(super) fn queue(&self) -> &Arc<ConnectionQueue> {
        &self.usage.queue
    }

    fn permit(&self, priority: RoutingPriority, resource: Resource, before: u32) -> Permit {
        let limit = self.limit(priority, resource);
        let used = &self.usage.used[priority as usize][resource as usize];
        if before.saturating_add(1) >= limit {
            used.open.set(1);
        }
        if used.tracked.load(Ordering::Relaxed) {
            used.remaining.dec();
        }
        Permit { usage: Arc::clone(&self.usage), priority, resource, limit }
    }

    fn limit(&self, priority: RoutingPriority, resource: Resource) -> u32 {
        let limits = &self.limits[priority as usize];
        match resource {
            Resource::Connection => limits.max_connections,
            Resource::Pending => limits.max_pending_requests,
            Resource::Request => limits.max_requests,
            Resource::Pool => limits.max_connection_pools,
            Resource::Retry => match limits.retry_budget {
                None => limits.max_retries,
                Some(budget) => {
                    let active = [Resource::Request, Resource::Pending]
                        .map(|resource| self.in_use(priority, resource));
                    budget.limit(active[0].saturating_add(active[1]))
                }
            },
        }
    }
}

/// One unit in use; dropping it gives it back.
#[derive(Debug)]
#[must_use = "dropping a permit gives it back"]
pub struct Permit {
    usage: Arc<Usage>,
    priority: RoutingPriority,
    resource: Resource,
    limit: u32,
}

impl Permit {
    /// The priority it was taken at.
    pub fn priority(&self) -> RoutingPriority {
        self.priority
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let used = &self.usage.used[self.priority as usize][self.resource as usize];
        let before = used.units.fetch_sub(1, Ordering::Relaxed);
        // The limit of retries moves with a budget, so that the edge may be passed unseen.
        if before == self.limit || before < self.limit && self.resource == Resource::Retry {
            used.open.set(0);
        }
        if used.tracked.load(Ordering::Relaxed) {
            used.remaining.inc();
        }
        if self.resource == Resource::Connection {
            self.usage.queue.tell();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breakers(max_requests: u32) -> Breakers {
        let limits = Limits { max_requests, ..Limits::default() };
        Breakers::new(Arc::default(), limits, Limits::default())
    }

    #[test]
    fn a_limit_is_exact_under_threads() {
        let breakers = breakers(7);
        let most = AtomicU32::new(0);
        let now = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        if let Ok(permit) =
                            breakers.acquire(RoutingPriority::Default, Resource::Request)
                        {
                            most.fetch_max(
                                now.fetch_add(1, Ordering::SeqCst) + 1,
                                Ordering::SeqCst,
                            );
                            now.fetch_sub(1, Ordering::SeqCst);
                            drop(permit);
                        }
                    }
                });
            }
        });
        assert!(most.load(Ordering::SeqCst) <= 7);
        let all: Vec<_> = std::iter::from_fn(|| {
            breakers.acquire(RoutingPriority::Default, Resource::Request).ok()
        })
        .collect();
        assert_eq!(all.len(), 7);
        drop(all);
        assert_eq!(breakers.in_use(RoutingPriority::Default, Resource::Request), 0);
    }

    #[test]
    fn zero_allows_none_and_priorities_are_apart() {
        let breakers = breakers(0);
        assert!(breakers.acquire(RoutingPriority::Default, Resource::Request).is_err());
        assert!(breakers.acquire(RoutingPriority::High, Resource::Request).is_ok());
        assert!(breakers.acquire(RoutingPriority::Default, Resource::Pending).is_ok());
    }

    #[test]
    fn a_retry_budget_follows_what_is_under_way() {
        let budget = RetryBudget { percent: 50.0, min_concurrency: 1 };
        let limits = Limits { retry_budget: Some(budget), max_retries: 0, ..Limits::default() };
        let breakers = Breakers::new(Arc::default(), limits, Limits::default());
        let take = |resource| breakers.acquire(RoutingPriority::Default, resource);
        let first = take(Resource::Retry).unwrap();
        assert!(take(Resource::Retry).is_err(), "nothing is under way");
        let requests: Vec<_> = (0..5).map(|_| take(Resource::Request).unwrap()).collect();
        let second = take(Resource::Retry).unwrap();
        assert!(take(Resource::Retry).is_err(), "half of five is two");
        drop((first, second, requests));
        assert_eq!(breakers.in_use(RoutingPriority::Default, Resource::Retry), 0);
    }

    #[test]
    fn what_is_left_is_shown_only_if_asked_for() {
        let remaining = |breakers: &Breakers| {
            let mut found = Vec::new();
            breakers.usage.visit(&mut |name, cell| {
                if let (true, Cell::Gauge(gauge)) = (name.contains("remaining"), cell) {
                    found.push((name, gauge.value()));
                }
            });
            found
        };
        assert_eq!(remaining(&breakers(7)), []);
        let limits = Limits { max_requests: 7, track_remaining: true, ..Limits::default() };
        let breakers = Breakers::new(Arc::default(), limits, Limits::default());
        let permit = breakers.acquire(RoutingPriority::Default, Resource::Request).unwrap();
        assert_eq!(remaining(&breakers)[2], ("default.remaining_rq", 6));
        drop(permit);
        assert_eq!(remaining(&breakers)[2], ("default.remaining_rq", 7));
    }

    #[test]
    fn the_gauge_is_open_while_the_limit_is_met() {
        let open = |breakers: &Breakers| {
            let mut value = None;
            breakers.usage.visit(&mut |name, cell| {
                if let ("default.rq_open", Cell::Gauge(gauge)) = (name, cell) {
                    value = Some(gauge.value());
                }
            });
            value
        };
        let breakers = breakers(1);
        assert_eq!(open(&breakers), Some(0));
        let permit = breakers.acquire(RoutingPriority::Default, Resource::Request).unwrap();
        assert_eq!(open(&breakers), Some(1));
        drop(permit);
        assert_eq!(open(&breakers), Some(0));
    }
}
