//! Outlier detection: hosts that answer badly are taken out for a while
//! (`config.cluster.v3.OutlierDetection`).
//!
//! ```text
//! pool     -> Cluster::judge    counts one request at its host: a few atomic adds
//!                               a host that reached a limit is ejected there and then
//! sweep    once an interval     lets hosts back, and compares them by what they did
//! ```
//!
//! An ejected host is unhealthy for the balancers until it is let back. No more are out at once than
//! `max_ejection_percent`. Counts belong to the host, so they outlive a change of the cluster.

mod monitor;
mod rates;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};
use tracing::info;

pub use self::monitor::{Kind, Monitor, Outcome};
use self::rates::Tally;
use super::Cluster;
use super::host::Host;

/// `config.cluster.v3.OutlierDetection`, with Envoy's defaults. Enforcing is in percent of the times
/// that an outlier is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlierConfig {
    /// How often hosts are let back and compared.
    pub interval: Duration,
    /// How long a host is out the first time; the second time twice as long, and so on.
    pub base_ejection_time: Duration,
    /// No host is out for longer, but for the jitter.
    pub max_ejection_time: Duration,
    /// Up to so much longer, by chance, so that not all come back at once.
    pub max_ejection_time_jitter: Duration,
    /// No more of a hundred hosts are out at once.
    pub max_ejection_percent: u32,
    /// One may be out all the same.
    pub always_eject_one_host: bool,
    /// A health check that passes ends an ejection.
    pub health_check_lets_back: bool,
    /// Failures to connect and timeouts count apart from bad answers.
    pub split: bool,
    /// 5xx in a row.
    pub consecutive_5xx: u32,
    /// 502, 503 and 504 in a row.
    pub consecutive_gateway_failure: u32,
    /// Failures of our own side in a row, if they are split.
    pub consecutive_local_origin_failure: u32,
    /// Fewer hosts with enough requests are not compared.
    pub success_rate_minimum_hosts: u32,
    /// Requests of an interval that are enough.
    pub success_rate_request_volume: u32,
    /// How far below the mean is too far, in thousandths of the standard deviation.
    pub success_rate_stdev_factor: u32,
    /// Bad requests of a hundred that are too many.
    pub failure_percentage_threshold: u32,
    /// See [`Self::success_rate_minimum_hosts`].
    pub failure_percentage_minimum_hosts: u32,
    /// See [`Self::success_rate_request_volume`].
    pub failure_percentage_request_volume: u32,
    /// How often what is found is acted on.
    pub enforcing: Enforcing,
}

/// For each kind of outlier, in how many of a hundred cases it is ejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enforcing {
    /// `enforcing_consecutive_5xx`
    pub consecutive_5xx: u32,
    /// `enforcing_consecutive_gateway_failure`
    pub consecutive_gateway_failure: u32,
    /// `enforcing_consecutive_local_origin_failure`
    pub consecutive_local_origin_failure: u32,
    /// `enforcing_success_rate`
    pub success_rate: u32,
    /// `enforcing_local_origin_success_rate`
    pub local_origin_success_rate: u32,
    /// `enforcing_failure_percentage`
    pub failure_percentage: u32,
    /// `enforcing_failure_percentage_local_origin`
    pub failure_percentage_local_origin: u32,
}

impl Default for OutlierConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(300),
            max_ejection_time_jitter: Duration::ZERO,
            max_ejection_percent: 10,
            always_eject_one_host: false,
            health_check_lets_back: true,
            split: false,
            consecutive_5xx: 5,
            consecutive_gateway_failure: 5,
            consecutive_local_origin_failure: 5,
            success_rate_minimum_hosts: 5,
            success_rate_request_volume: 100,
            success_rate_stdev_factor: 1900,
            failure_percentage_threshold: 85,
            failure_percentage_minimum_hosts: 5,
            failure_percentage_request_volume: 50,
            enforcing: Enforcing {
                consecutive_5xx: 100,
                consecutive_gateway_failure: 0,
                consecutive_local_origin_failure: 100,
                success_rate: 100,
                local_origin_success_rate: 100,
                failure_percentage: 0,
                failure_percentage_local_origin: 0,
            },
        }
    }
}

crate::stats! {
    /// `cluster.NAME.outlier_detection.*`
    pub struct OutlierStats {
        /// Hosts that are out now.
        gauge ejections_active,
        /// Hosts taken out.
        counter ejections_enforced_total,
        /// Hosts not taken out because too many were.
        counter ejections_overflow,
        /// Found by 5xx in a row.
        counter ejections_detected_consecutive_5xx,
        /// Taken out for them.
        counter ejections_enforced_consecutive_5xx,
        /// Found by 502, 503 and 504 in a row.
        counter ejections_detected_consecutive_gateway_failure,
        /// Taken out for them.
        counter ejections_enforced_consecutive_gateway_failure,
        /// Found by failures of our own side in a row.
        counter ejections_detected_consecutive_local_origin_failure,
        /// Taken out for them.
        counter ejections_enforced_consecutive_local_origin_failure,
        /// Found by few good answers.
        counter ejections_detected_success_rate,
        /// Taken out for them.
        counter ejections_enforced_success_rate,
        /// Found by few good connections.
        counter ejections_detected_local_origin_success_rate,
        /// Taken out for them.
        counter ejections_enforced_local_origin_success_rate,
        /// Found by a large share of bad answers.
        counter ejections_detected_failure_percentage,
        /// Taken out for it.
        counter ejections_enforced_failure_percentage,
        /// Found by a large share of bad connections.
        counter ejections_detected_local_origin_failure_percentage,
        /// Taken out for it.
        counter ejections_enforced_local_origin_failure_percentage,
    }
}

/// The outlier detection of one cluster.
#[derive(Debug)]
pub(super) struct Outlier {
    pub(super) config: OutlierConfig,
    pub(super) stats: Arc<OutlierStats>,
}

impl Outlier {
    /// Whether an outlier of this kind is to be ejected this time. Counts it as found.
    fn enforces(&self, kind: Kind) -> bool {
        let (stats, enforcing) = (&self.stats, &self.config.enforcing);
        let (found, percent) = match kind {
            Kind::Consecutive5xx => {
                (&stats.ejections_detected_consecutive_5xx, enforcing.consecutive_5xx)
            }
            Kind::ConsecutiveGatewayFailure => (
                &stats.ejections_detected_consecutive_gateway_failure,
                enforcing.consecutive_gateway_failure,
            ),
            Kind::ConsecutiveLocalOriginFailure => (
                &stats.ejections_detected_consecutive_local_origin_failure,
                enforcing.consecutive_local_origin_failure,
            ),
            Kind::SuccessRate => (&stats.ejections_detected_success_rate, enforcing.success_rate),
            Kind::LocalOriginSuccessRate => (
                &stats.ejections_detected_local_origin_success_rate,
                enforcing.local_origin_success_rate,
            ),
            Kind::FailurePercentage => {
                (&stats.ejections_detected_failure_percentage, enforcing.failure_percentage)
            }
            Kind::LocalOriginFailurePercentage => (
                &stats.ejections_detected_local_origin_failure_percentage,
                enforcing.failure_percentage_local_origin,
            ),
        };
        found.inc();
        rand::random_range(0..100) < percent
    }

    fn count_enforced(&self, kind: Kind) {
        let stats = &self.stats;
        stats.ejections_enforced_total.inc();
        match kind {
            Kind::Consecutive5xx => &stats.ejections_enforced_consecutive_5xx,
            Kind::ConsecutiveGatewayFailure => {
                &stats.ejections_enforced_consecutive_gateway_failure
            }
            Kind::ConsecutiveLocalOriginFailure => {
                &stats.ejections_enforced_consecutive_local_origin_failure
            }
            Kind::SuccessRate => &stats.ejections_enforced_success_rate,
            Kind::LocalOriginSuccessRate => &stats.ejections_enforced_local_origin_success_rate,
            Kind::FailurePercentage => &stats.ejections_enforced_failure_percentage,
            Kind::LocalOriginFailurePercentage => {
                &stats.ejections_enforced_local_origin_failure_percentage
            }
        }
        .inc();
    }

    /// Whether one more of so many hosts may be out.
    fn has_room(&self, out: usize, hosts: usize) -> bool {
        let most = u64::from(self.config.max_ejection_percent.min(100));
        let allowed = (out as u64 + 1) * 100 <= most * hosts as u64;
        allowed || out == 0 && self.config.always_eject_one_host
    }
}

impl Cluster {
    /// Counts how a request to a host went, and takes the host out if that makes it an outlier. Costs
    /// nothing in a cluster without outlier detection.
    pub fn judge(&self, host: &Host, outcome: Outcome) {
        let Some(outlier) = &self.outlier else { return };
        for kind in host.monitor().record(&outlier.config, outcome).into_iter().flatten() {
            if outlier.enforces(kind) {
                self.eject(host, kind, Instant::now());
            }
        }
    }

    fn eject(&self, host: &Host, kind: Kind, now: Instant) {
        let Some(outlier) = &self.outlier else { return };
        let _updating = self.updating.lock();
        let hosts = self.hosts();
        let out = hosts.iter().filter(|host| host.is_ejected()).count();
        if host.is_ejected() || self.retired.load(Ordering::Relaxed) {
            return;
        }
        if !outlier.has_room(out, hosts.len()) {
            outlier.stats.ejections_overflow.inc();
            return;
        }
        let jitter = outlier.config.max_ejection_time_jitter.mul_f64(rand::random());
        if host.monitor().eject(&outlier.config, now, jitter) {
            outlier.count_enforced(kind);
            host.set_ejected(true);
            info!(cluster = %self.name, host = %host.address(), reason = ?kind, "host ejected");
            self.publish(hosts.resorted());
        }
    }

    /// A health check of a host passed.
    pub(super) fn let_back(&self, host: &Host) {
        if self.outlier.as_ref().is_some_and(|outlier| outlier.config.health_check_lets_back)
            && host.is_ejected()
        {
            info!(cluster = %self.name, host = %host.address(), "health check lets host back");
            let _updating = self.updating.lock();
            host.forgive();
            self.publish(self.hosts().resorted());
        }
    }

    /// Lets hosts back and compares them, once an interval, until it is dropped; ends at once without
    /// outlier detection. Run it on the control runtime and abort it when the cluster goes.
    pub async fn outlier_task(self: Arc<Self>) {
        let Some(outlier) = &self.outlier else { return };
        let mut ticks = tokio::time::interval(outlier.config.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first one is at once.
        ticks.tick().await;
        loop {
            let now = ticks.tick().await;
            self.sweep_outliers(now);
        }
    }

    fn sweep_outliers(&self, now: Instant) {
        let Some(outlier) = &self.outlier else { return };
        let hosts: Vec<Arc<Host>> = self.hosts().iter().cloned().collect();
        let mut back = false;
        for host in &hosts {
            if host.monitor().settle(now) {
                host.set_ejected(false);
                info!(cluster = %self.name, host = %host.address(), "host let back");
                back = true;
            }
        }
        if back {
            let _updating = self.updating.lock();
            self.publish(self.hosts().resorted());
        }
        let take = |window: fn(&Monitor) -> (u64, u64)| -> Vec<Tally> {
            let tally = |(host, of): (usize, &Arc<Host>)| {
                let (good, all) = window(of.monitor());
                Tally { host, good, all }
            };
            hosts.iter().enumerate().map(tally).collect()
        };
        let OutlierConfig {
            success_rate_request_volume: volume,
            success_rate_minimum_hosts: minimum,
            success_rate_stdev_factor: factor,
            failure_percentage_request_volume: failure_volume,
            failure_percentage_minimum_hosts: failure_minimum,
            failure_percentage_threshold: percent,
            ..
        } = outlier.config;
        let mut windows = vec![(
            take(|monitor| monitor.external.take()),
            Kind::SuccessRate,
            Kind::FailurePercentage,
        )];
        if outlier.config.split {
            windows.push((
                take(|monitor| monitor.local.take()),
                Kind::LocalOriginSuccessRate,
                Kind::LocalOriginFailurePercentage,
            ));
        }
        for (tallies, rate, percentage) in windows {
            let found = rates::below_the_others(&tallies, (volume, minimum, factor));
            let often = rates::too_often_bad(&tallies, (failure_volume, failure_minimum, percent));
            let of = |kind| move |host| (host, kind);
            for (host, kind) in
                found.into_iter().map(of(rate)).chain(often.into_iter().map(of(percentage)))
            {
                if outlier.enforces(kind) {
                    self.eject(&hosts[host], kind, now);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
