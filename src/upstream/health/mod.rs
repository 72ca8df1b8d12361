//! Active health checks: hosts are asked whether they are well (`config.core.v3.HealthCheck`).
//!
//! ```text
//! task      one for each host of the cluster, on the control runtime: ask, judge, wait
//! state     what results in a row make of the host; pure
//! http, grpc, tcp    how a host is asked
//! ```
//!
//! A verdict changes a flag of the host and sorts the cluster's hosts anew; every worker sees that at
//! its next choice. A host that nobody has asked yet takes no requests, and a new cluster is not in
//! service before each of its first hosts was asked once.
//!
//! Differs: a host that the management server removes is gone at once, healthy or not, as with
//! `ignore_health_on_host_removal`.

mod events;
mod grpc;
mod http;
mod state;
mod tcp;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ::http::{HeaderName, HeaderValue};
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinSet};
use tracing::{info, warn};

pub use self::events::EventLog;
use self::events::{Event, Reason};
pub use self::grpc::GrpcCheck;
pub use self::http::HttpCheck;
use self::state::{Change, State};
pub use self::state::{Health, Verdict};
pub use self::tcp::TcpCheck;
use super::Cluster;
use super::host::Host;

/// A response with this header takes its host out at once.
pub(super) const IMMEDIATE_FAIL: HeaderName =
    HeaderName::from_static("x-envoy-immediate-health-check-fail");

/// When hosts are checked and how much is made of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// For an answer.
    pub timeout: Duration,
    /// Between checks of a host that is up.
    pub interval: Duration,
    /// Of one that is down.
    pub unhealthy_interval: Duration,
    /// After the check that found it down.
    pub unhealthy_edge_interval: Duration,
    /// After the check that found it up.
    pub healthy_edge_interval: Duration,
    /// While the cluster has carried no request.
    pub no_traffic_interval: Duration,
    /// The same, of a host that is up.
    pub no_traffic_healthy_interval: Duration,
    /// Up to so much longer, by chance, before the first check.
    pub initial_jitter: Duration,
    /// The same before every other.
    pub interval_jitter: Duration,
    /// The same, in percent of the interval.
    pub interval_jitter_percent: u32,
    /// Checks in a row without an answer that take a host out.
    pub unhealthy_threshold: u32,
    /// Good ones that bring it back.
    pub healthy_threshold: u32,
}

impl Default for Timing {
    fn default() -> Self {
        let minute = Duration::from_secs(60);
        Self {
            timeout: minute,
            interval: minute,
            unhealthy_interval: minute,
            unhealthy_edge_interval: minute,
            healthy_edge_interval: minute,
            no_traffic_interval: minute,
            no_traffic_healthy_interval: minute,
            initial_jitter: Duration::ZERO,
            interval_jitter: Duration::ZERO,
            interval_jitter_percent: 0,
            unhealthy_threshold: 1,
            healthy_threshold: 1,
        }
    }
}

/// How a host is asked.
#[derive(Debug)]
pub enum Checker {
    /// With a request.
    Http(HttpCheck),
    /// With a call of `grpc.health.v1.Health`.
    Grpc(GrpcCheck),
    /// With a connection, and perhaps some bytes.
    Tcp(TcpCheck),
}

/// The health checks of a cluster.
#[derive(Debug)]
pub struct HealthConfig {
    /// When.
    pub timing: Timing,
    /// How.
    pub checker: Checker,
    /// Another port than the endpoints'.
    pub alt_port: Option<u16>,
    /// Connections are kept between checks.
    pub reuse_connection: bool,
    /// Every failed check is logged, not the ones that change something only.
    pub log_failures: bool,
    /// Every good check is logged.
    pub log_successes: bool,
    /// Where that is logged, beside the log of the proxy.
    pub events: EventLog,
}

/// What an endpoint says of how to check it: `Endpoint.HealthCheckConfig`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckTarget {
    /// Another address than its own.
    pub address: Option<SocketAddr>,
    /// Another port.
    pub port: Option<u16>,
    /// The authority to ask for; empty leaves it to the check.
    pub hostname: Arc<str>,
    /// It is not checked, and taken to be well.
    pub disabled: bool,
}

crate::stats! {
    /// `cluster.NAME.health_check.*`
    pub struct HealthStats {
        /// Checks begun.
        counter attempt,
        /// Checks that went well.
        counter success,
        /// Checks that did not.
        counter failure,
        /// Hosts taken out by what they said in a response.
        counter passive_failure,
        /// Checks without an answer.
        counter network_failure,
        /// Hosts that said they were of another cluster.
        counter verify_cluster,
        /// Hosts that are up.
        gauge healthy,
        /// Hosts that are up and less able than others.
        gauge degraded,
    }
}

/// One cluster's checks.
#[derive(Debug)]
pub(super) struct HealthChecks {
    pub(super) config: HealthConfig,
    pub(super) stats: Arc<HealthStats>,
    /// The hosts are others than before.
    pub(super) changed: Notify,
    /// How many checks came to a result; told so that whoever waits for the first ones looks again.
    results: watch::Sender<u64>,
}

impl HealthChecks {
    pub(super) fn new(config: HealthConfig, stats: Arc<HealthStats>) -> Self {
        Self { config, stats, changed: Notify::new(), results: watch::Sender::new(0) }
    }
}

impl Cluster {
    /// Whether its hosts are checked.
    pub fn is_checked(&self) -> bool {
        self.health.is_some()
    }

    /// Whether it has hosts that were not checked yet.
    pub fn has_unchecked(&self) -> bool {
        self.is_checked() && self.hosts().iter().any(|host| host.checked() == Health::Pending)
    }

    /// Waits until no host is unchecked any more; at once without health checks. New hosts may come
    /// meanwhile, and are waited for too.
    pub async fn first_checks(&self) {
        let Some(health) = &self.health else { return };
        let mut results = health.results.subscribe();
        // The sender lives as long as the cluster.
        let _ = results.wait_for(|_| !self.has_unchecked()).await;
    }

    /// Checks the cluster's hosts until it is dropped; ends at once without health checks.
    pub(super) async fn health_task(self: Arc<Self>) {
        let Some(health) = &self.health else { return };
        // Dropping the set ends what is in it.
        let mut checks = JoinSet::new();
        let mut running: HashMap<usize, AbortHandle> = HashMap::new();
        loop {
            let hosts = self.hosts();
            // The address of its object is a host's identity.
            let current: HashMap<usize, &Arc<Host>> =
                hosts.iter().map(|host| (Arc::as_ptr(host).addr(), host)).collect();
            running.retain(|host, check| {
                let keep = current.contains_key(host);
                if !keep {
                    check.abort();
                }
                // One that ended found its host not to be checked, which may have changed.
                keep && !check.is_finished()
            });
            for (pointer, host) in current {
                running.entry(pointer).or_insert_with(|| {
                    let check = Arc::clone(&self).check_host(Arc::clone(host));
                    checks.spawn(check)
                });
            }
            // What was aborted is forgotten.
            while checks.try_join_next().is_some() {}
            health.changed.notified().await;
        }
    }

    async fn check_host(self: Arc<Self>, host: Arc<Host>) {
        let Some(health) = &self.health else { return };
        let HealthConfig { timing, checker, .. } = &health.config;
        tokio::time::sleep(timing.initial_jitter.mul_f64(rand::random())).await;
        let mut state = State::new(host.checked());
        let mut kept = Kept::default();
        loop {
            let target = host.check_target();
            if target.as_ref().is_some_and(|target| target.disabled) {
                // Others may be checked; this one is as the management server says.
                self.set_checked(&host, Health::Healthy);
                health.results.send_modify(|n| *n += 1);
                return;
            }
            health.stats.attempt.inc();
            let asked = Asked {
                address: address(&host, target.as_deref(), health.config.alt_port),
                hostname: target.as_ref().map_or("", |target| &target.hostname),
                cluster: &self.name,
            };
            let check = async {
                match checker {
                    Checker::Http(check) => check.run(&asked, &mut kept, &health.stats).await,
                    Checker::Grpc(check) => check.run(&asked, &mut kept).await,
                    Checker::Tcp(check) => check.run(&asked).await,
                }
            };
            let timeout = Verdict::Lost { timeout: true };
            let verdict = tokio::time::timeout(timing.timeout, check).await.unwrap_or(timeout);
            if !health.config.reuse_connection || !matches!(verdict, Verdict::Success { .. }) {
                kept = Kept::default();
            }
            // A response may have taken the host out since.
            if host.checked() == Health::Excluded {
                state = State::new(Health::Excluded);
            }
            let before = state.health;
            let change = state.take(verdict, timing);
            self.note(&host, verdict, change);
            let healths = (before, state.health);
            for event in events::of_check(&health.config, healths, (verdict, change)) {
                health.config.events.tell(&health.config, &self.name, &host, event);
            }
            self.set_checked(&host, state.health);
            if state.health.is_up() && matches!(verdict, Verdict::Success { .. }) {
                self.let_back(&host);
            }
            health.results.send_modify(|n| *n += 1);
            let used = self.stats.upstream_cx_total.value() > 0;
            tokio::time::sleep(timing.wait(state.health, change, (used, rand::random()))).await;
        }
    }

    fn note(&self, host: &Host, verdict: Verdict, change: Change) {
        let Some(health) = &self.health else { return };
        let (cluster, host) = (&self.name, host.address());
        match verdict {
            Verdict::Success { .. } => {
                health.stats.success.inc();
                if change == Change::Edge || health.config.log_successes {
                    info!(%cluster, %host, "health check passed");
                }
            }
            Verdict::Bad | Verdict::Lost { .. } => {
                health.stats.failure.inc();
                if matches!(verdict, Verdict::Lost { .. }) {
                    health.stats.network_failure.inc();
                }
                if change == Change::Edge || health.config.log_failures {
                    warn!(%cluster, %host, ?verdict, "health check failed");
                }
            }
        }
    }

    /// A host said in a response that it is not to be used: it is out until a check passes.
    pub(super) fn fail_at_once(&self, host: &Host) {
        let Some(health) = &self.health else { return };
        if host.checked() != Health::Excluded {
            health.stats.passive_failure.inc();
            warn!(cluster = %self.name, host = %host.address(), "host asked to be taken out");
            self.set_checked(host, Health::Excluded);
            let event = Event::Ejected(Reason::Passive);
            health.config.events.tell(&health.config, &self.name, host, event);
        }
    }

    fn set_checked(&self, host: &Host, health: Health) {
        if host.checked() == health {
            return;
        }
        let _updating = self.updating.lock();
        if self.retired.load(Ordering::Relaxed) {
            return;
        }
        host.set_checked(health);
        self.publish(self.hosts().resorted());
    }
}

/// Whom a check asks, and what for.
struct Asked<'a> {
    address: SocketAddr,
    /// The endpoint's own authority, or empty.
    hostname: &'a str,
    cluster: &'a str,
}

impl Asked<'_> {
    /// Whom the check is for: the endpoint's own authority, else the check's, else the cluster's name.
    fn authority(&self, own: Option<&HeaderValue>) -> Option<HeaderValue> {
        match (self.hostname.is_empty(), own) {
            (false, _) => HeaderValue::from_str(self.hostname).ok(),
            (true, Some(own)) => Some(own.clone()),
            (true, None) => HeaderValue::from_str(self.cluster).ok(),
        }
    }
}

/// What is kept of a connection between checks.
#[derive(Default)]
struct Kept {
    http1: Option<http::Http1>,
    http2: Option<http::Http2>,
}

fn address(host: &Host, target: Option<&CheckTarget>, alt_port: Option<u16>) -> SocketAddr {
    let mut address = target.and_then(|target| target.address).unwrap_or(host.address());
    if let Some(port) = target.and_then(|target| target.port).or(alt_port) {
        address.set_port(port);
    }
    address
}
