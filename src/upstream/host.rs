//! A host: one address of a cluster, with what all workers count on it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::RwLock;
use tokio::time::Instant;

use super::health::{CheckTarget, Health};
use super::load_report::Reports;
use super::outlier::Monitor;
use crate::telemetry::durations::Durations;

/// Where a group of hosts runs: `config.core.v3.Locality`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Locality {
    /// The region, or empty.
    pub region: Arc<str>,
    /// The zone, or empty.
    pub zone: Arc<str>,
    /// The part of the zone, or empty.
    pub sub_zone: Arc<str>,
}

/// What the management server says of a host's health: `config.core.v3.HealthStatus`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum HealthStatus {
    /// Nothing: taken as healthy.
    #[default]
    Unknown,
    /// Takes requests.
    Healthy,
    /// Takes none, but in a panic.
    Unhealthy,
    /// Is being shut down; takes none.
    Draining,
    /// Did not answer; takes none.
    Timeout,
    /// Takes requests that the healthy ones cannot.
    Degraded,
}

impl HealthStatus {
    const ALL: [Self; 6] = [
        Self::Unknown,
        Self::Healthy,
        Self::Unhealthy,
        Self::Draining,
        Self::Timeout,
        Self::Degraded,
    ];

    /// Envoy's spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "UNKNOWN",
            Self::Healthy => "HEALTHY",
            Self::Unhealthy => "UNHEALTHY",
            Self::Draining => "DRAINING",
            Self::Timeout => "TIMEOUT",
            Self::Degraded => "DEGRADED",
        }
    }
}

/// What a host takes, by all that is known of its health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    /// Requests like any other.
    Healthy,
    /// Requests that the healthy ones cannot take.
    Degraded,
    /// None, but in a panic.
    Unhealthy,
}

/// Free-form data of an endpoint, by the name of the filter that reads it.
pub type Metadata = BTreeMap<String, prost_types::Struct>;

crate::stats! {
    /// What all workers count on one host, under the names of `/clusters`.
    pub struct HostStats {
        /// Connections open or being opened.
        gauge cx_active,
        /// Connections that could not be made.
        counter cx_connect_fail,
        /// Connections begun.
        counter cx_total,
        /// Requests on a connection now.
        gauge rq_active,
        /// Answers of class 5xx, and requests without an answer.
        counter rq_error,
        /// Other answers.
        counter rq_success,
        /// Requests whose time ran out.
        counter rq_timeout,
        /// Requests given to a connection.
        counter rq_total,
    }
}

crate::stats! {
    /// What all workers count on the connections to one host, beyond what `/clusters` shows.
    pub(super) struct ConnectionStats {
        /// Connections that are being made.
        gauge cx_connecting,
        /// Connections that carry requests.
        gauge cx_busy,
        /// Connections that were not made in time; `cx_connect_fail` has them, too.
        counter cx_connect_timeout,
        /// Requests whose connection failed under them.
        counter cx_broken,
        /// Requests whose response did not begin in time.
        counter rq_header_timeout,
    }
}

/// What is counted on a host that has connections.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    pub(super) connections: ConnectionStats,
    /// How long requests took.
    pub(super) durations: Durations,
}

/// What an endpoint says that only some need.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Told {
    /// Free-form data.
    pub metadata: Option<Arc<Metadata>>,
    /// How to check it.
    pub check: Option<Arc<CheckTarget>>,
}

/// One address of a cluster. It stays the same object while updates keep its address and host name;
/// weight and health may change under it.
///
/// What a choice reads comes first, so that looking at one host of many costs one cache line.
#[derive(Debug)]
#[repr(C)]
pub struct Host {
    weight: AtomicU32,
    /// By the load that it reports; 0 if it does not.
    reported_weight: AtomicU32,
    /// What is counted on it.
    pub stats: HostStats,
    address: SocketAddr,
    /// Connections that are open or being made.
    connections: AtomicU32,
    health: AtomicU8,
    checked: AtomicU8,
    ejected: AtomicBool,
    /// How often its endpoint said something else than before.
    revision: AtomicU32,
    /// When it last began to be healthy, in nanoseconds since the first host of the process.
    up_since: AtomicU64,
    hostname: Arc<str>,
    reports: OnceLock<Box<Reports>>,
    /// Made when the first request is judged, so that it costs clusters without outlier detection
    /// nothing.
    monitor: OnceLock<Box<Monitor>>,
    /// Made with its first connection: most hosts of a large configuration have none.
    traffic: OnceLock<Box<Traffic>>,
    told: RwLock<Told>,
}

impl Host {
    /// A host that nothing was sent to yet; `weight` is at least 1.
    pub fn new(address: SocketAddr, hostname: Arc<str>, weight: u32, health: HealthStatus) -> Self {
        Self {
            address,
            hostname,
            weight: AtomicU32::new(weight.max(1)),
            reported_weight: AtomicU32::new(0),
            reports: OnceLock::new(),
            health: AtomicU8::new(health as u8),
            checked: AtomicU8::new(Health::Healthy as u8),
            up_since: AtomicU64::new(since_first(Instant::now())),
            ejected: AtomicBool::new(false),
            revision: AtomicU32::new(0),
            monitor: OnceLock::new(),
            traffic: OnceLock::new(),
            told: RwLock::default(),
            connections: AtomicU32::new(0),
            stats: HostStats::default(),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its name: `Endpoint.hostname`, or the name that DNS resolved; else empty.
    pub fn hostname(&self) -> &Arc<str> {
        &self.hostname
    }

    /// Its share among the hosts of its priority; at least 1.
    pub fn weight(&self) -> u32 {
        match self.reported_weight.load(Ordering::Relaxed) {
            0 => self.weight.load(Ordering::Relaxed),
            weight => weight,
        }
    }

    /// What it reported of its load.
    pub(super) fn reports(&self) -> &Reports {
        self.reports.get_or_init(Box::default)
    }

    /// Whoever calls this publishes the host set anew if it says that something differs.
    pub(super) fn set_reported_weight(&self, weight: Option<u32>) -> bool {
        let weight = weight.unwrap_or(0);
        self.reported_weight.swap(weight, Ordering::Relaxed) != weight
    }

    /// What the management server says of its health.
    pub fn health(&self) -> HealthStatus {
        let health = usize::from(self.health.load(Ordering::Relaxed));
        HealthStatus::ALL.get(health).copied().unwrap_or_default()
    }

    /// What it takes, by what the management server and its health checks say and whether it is
    /// ejected.
    pub fn availability(&self) -> Availability {
        let checked = self.checked();
        if self.is_ejected() || !checked.is_up() {
            return Availability::Unhealthy;
        }
        match self.health() {
            HealthStatus::Unknown | HealthStatus::Healthy if checked == Health::Degraded => {
                Availability::Degraded
            }
            HealthStatus::Unknown | HealthStatus::Healthy => Availability::Healthy,
            HealthStatus::Degraded => Availability::Degraded,
            HealthStatus::Unhealthy | HealthStatus::Draining | HealthStatus::Timeout => {
                Availability::Unhealthy
            }
        }
    }

    /// What its health checks say; [`Health::Healthy`] where hosts are not checked.
    pub fn checked(&self) -> Health {
        Health::from_u8(self.checked.load(Ordering::Relaxed))
    }

    /// Whoever calls this publishes the host set anew.
    pub(super) fn set_checked(&self, health: Health) {
        let before = Health::from_u8(self.checked.swap(health as u8, Ordering::Relaxed));
        if health.is_up() && !before.is_up() {
            self.up_since.store(since_first(Instant::now()), Ordering::Relaxed);
        }
    }

    /// When it came, or when its health checks last found it up.
    pub(super) fn up_since(&self) -> Instant {
        let since = Duration::from_nanos(self.up_since.load(Ordering::Relaxed));
        first().checked_add(since).unwrap_or_else(first)
    }

    /// What its endpoint says that only some need. Takes a lock.
    pub(super) fn told(&self) -> Told {
        self.told.read().clone()
    }

    /// How it wants to be checked. Takes a lock.
    pub(super) fn check_target(&self) -> Option<Arc<CheckTarget>> {
        self.told.read().check.clone()
    }

    /// Outlier detection has taken it out: Envoy's `FAILED_OUTLIER_CHECK`.
    pub fn is_ejected(&self) -> bool {
        self.ejected.load(Ordering::Relaxed)
    }

    /// Whoever calls this publishes the host set anew.
    pub(super) fn set_ejected(&self, ejected: bool) {
        self.ejected.store(ejected, Ordering::Relaxed);
    }

    /// Connections to it that are open or being made.
    pub(super) fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Counts a connection to it unless there are so many already. Exact, whoever else does so at the
    /// same time.
    pub(super) fn take_connection(self: &Arc<Self>, limit: u32) -> Option<HostConnection> {
        let below = |open: u32| (open < limit).then_some(open + 1);
        let taken = self.connections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, below);
        taken.is_ok().then(|| HostConnection(Arc::clone(self)))
    }

    /// What outlier detection knows of it.
    pub(super) fn monitor(&self) -> &Monitor {
        self.monitor.get_or_init(Box::default)
    }

    /// Where its connections and the time of its requests are counted.
    pub(super) fn traffic(&self) -> &Traffic {
        self.traffic.get_or_init(Box::default)
    }

    /// The same, if it had a connection.
    pub(super) fn known_traffic(&self) -> Option<&Traffic> {
        self.traffic.get().map(|traffic| &**traffic)
    }

    /// Outlier detection ends: it is not ejected, and nothing is remembered.
    pub(super) fn forgive(&self) {
        self.set_ejected(false);
        if let Some(monitor) = self.monitor.get() {
            monitor.forget();
        }
    }

    /// The endpoint's metadata. Takes a lock; not for every request.
    pub fn metadata(&self) -> Option<Arc<Metadata>> {
        self.told.read().metadata.clone()
    }

    /// Grows with each update that says something else.
    pub(super) fn revision(&self) -> u32 {
        self.revision.load(Ordering::Relaxed)
    }

    /// Takes over what an update says.
    pub(super) fn update(&self, weight: u32, health: HealthStatus, told: &Told) {
        let weight = weight.max(1);
        let mut changed = self.weight.swap(weight, Ordering::Relaxed) != weight;
        changed |= self.health.swap(health as u8, Ordering::Relaxed) != health as u8;
        let mut current = self.told.write();
        if *current != *told {
            current.clone_from(told);
            changed = true;
        }
        if changed {
            self.revision.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A connection that counts at its host; dropping it ends that.
pub(super) struct HostConnection(Arc<Host>);

impl Drop for HostConnection {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// When the process made its first host.
fn first() -> Instant {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    *FIRST.get_or_init(Instant::now)
}

fn since_first(now: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(first()).as_nanos()).unwrap_or(u64::MAX)
}
