//! What one host did: failures in a row, successes of an interval, ejections. No clock and no chance
//! of its own.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::OutlierConfig;

/// How a request to a host went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered.
    Answer(StatusCode),
    /// No connection could be made.
    ConnectFailure,
    /// No answer came in time.
    Timeout,
    /// The connection or the stream ended before the answer, or the answer was none.
    Reset,
}

/// Why a host is an outlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Answers of class 5xx in a row.
    Consecutive5xx,
    /// 502, 503 and 504 in a row.
    ConsecutiveGatewayFailure,
    /// Failures on our side of the connection in a row.
    ConsecutiveLocalOriginFailure,
    /// Far fewer good answers than the others.
    SuccessRate,
    /// Far fewer good connections than the others.
    LocalOriginSuccessRate,
    /// Too large a share of bad answers.
    FailurePercentage,
    /// Too large a share of bad connections.
    LocalOriginFailurePercentage,
}

/// Requests of one interval.
#[derive(Debug, Default)]
pub(super) struct Window {
    good: AtomicU64,
    all: AtomicU64,
}

impl Window {
    fn count(&self, good: bool) {
        self.all.fetch_add(1, Ordering::Relaxed);
        if good {
            self.good.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Good ones and all since the last call.
    pub(super) fn take(&self) -> (u64, u64) {
        // In this order a request between the two makes the share better, not worse.
        let all = self.all.swap(0, Ordering::Relaxed);
        (self.good.swap(0, Ordering::Relaxed).min(all), all)
    }
}

/// Failures in a row.
#[derive(Debug, Default)]
struct InARow(AtomicU32);

impl InARow {
    /// One more; true for the one that makes it `limit`, after which counting begins anew.
    fn failed(&self, limit: u32) -> bool {
        let reached = self.0.fetch_add(1, Ordering::Relaxed).saturating_add(1) == limit;
        if reached {
            self.0.store(0, Ordering::Relaxed);
        }
        reached
    }

    fn end(&self) {
        // Nearly always there is nothing to forget, and a load is shared by all workers.
        if self.0.load(Ordering::Relaxed) != 0 {
            self.0.store(0, Ordering::Relaxed);
        }
    }
}

/// What is known of one host.
#[derive(Debug, Default)]
pub struct Monitor {
    server_errors: InARow,
    gateway_errors: InARow,
    local_errors: InARow,
    pub(super) external: Window,
    pub(super) local: Window,
    ejection: Mutex<Ejection>,
}

#[derive(Debug, Default)]
struct Ejection {
    /// When it ends.
    until: Option<Instant>,
    /// How many times the base time the next one lasts, less one.
    times: u32,
}

impl Monitor {
    /// Counts one request. Returns what that makes the host, at most two things.
    pub(super) fn record(&self, config: &OutlierConfig, outcome: Outcome) -> [Option<Kind>; 2] {
        let is_local = matches!(outcome, Outcome::ConnectFailure | Outcome::Timeout);
        if config.split && is_local {
            self.local.count(false);
            let reached = self.local_errors.failed(config.consecutive_local_origin_failure);
            return [reached.then_some(Kind::ConsecutiveLocalOriginFailure), None];
        }
        if config.split {
            self.local.count(true);
            self.local_errors.end();
        }
        let code = match outcome {
            Outcome::Answer(status) => status.as_u16(),
            Outcome::ConnectFailure => 503,
            Outcome::Timeout => 504,
            Outcome::Reset => 500,
        };
        let good = code < 500;
        self.external.count(good);
        if good {
            self.server_errors.end();
            self.gateway_errors.end();
            return [None, None];
        }
        let gateway = match code {
            502..=504 => self.gateway_errors.failed(config.consecutive_gateway_failure),
            _ => {
                self.gateway_errors.end();
                false
            }
        };
        let server = self.server_errors.failed(config.consecutive_5xx);
        [gateway.then_some(Kind::ConsecutiveGatewayFailure), server.then_some(Kind::Consecutive5xx)]
    }

    /// Takes the host out; false if it is already. Longer each time, up to a limit; `jitter` comes on
    /// top.
    pub(super) fn eject(&self, config: &OutlierConfig, now: Instant, jitter: Duration) -> bool {
        let mut ejection = self.ejection.lock();
        if ejection.until.is_some() {
            return false;
        }
        ejection.times = ejection.times.saturating_add(1);
        let time = config.base_ejection_time.saturating_mul(ejection.times);
        ejection.until = Some(now + time.min(config.max_ejection_time) + jitter);
        true
    }

    /// Lets the host back if its time is over; true if it was out until now. One that was not out for
    /// an interval is out for less long next time.
    pub(super) fn settle(&self, now: Instant) -> bool {
        let mut ejection = self.ejection.lock();
        match ejection.until {
            Some(until) if until <= now => {
                ejection.until = None;
                drop(ejection);
                self.forget();
                true
            }
            Some(_) => false,
            None => {
                ejection.times = ejection.times.saturating_sub(1);
                false
            }
        }
    }

    /// Forgets everything but how often it was ejected.
    pub(in crate::upstream) fn forget(&self) {
        self.ejection.lock().until = None;
        for row in [&self.server_errors, &self.gateway_errors, &self.local_errors] {
            row.end();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> OutlierConfig {
        OutlierConfig { consecutive_5xx: 3, consecutive_gateway_failure: 2, ..Default::default() }
    }

    fn answer(code: u16) -> Outcome {
        Outcome::Answer(StatusCode::from_u16(code).unwrap())
    }

    fn found(monitor: &Monitor, config: &OutlierConfig, outcomes: &[Outcome]) -> Vec<Kind> {
        outcomes.iter().flat_map(|o| monitor.record(config, *o)).flatten().collect()
    }

    #[test]
    fn failures_count_in_a_row_and_by_kind() {
        use Kind::{Consecutive5xx as Server, ConsecutiveGatewayFailure as Gateway};
        let bad = || answer(500);
        let cases: [(&[Outcome], &[Kind]); 7] = [
            (&[bad(), bad()], &[]),
            (&[bad(), bad(), bad()], &[Server]),
            (&[bad(), bad(), answer(404), bad()], &[]),
            (&[bad(), answer(503), answer(503)], &[Gateway, Server]),
            (&[answer(502), bad(), answer(502)], &[Server]),
            (&[Outcome::ConnectFailure, Outcome::Timeout, Outcome::Reset], &[Gateway, Server]),
            (&[bad(), bad(), bad(), bad(), bad(), bad()], &[Server, Server]),
        ];
        for (outcomes, expected) in cases {
            assert_eq!(found(&Monitor::default(), &config(), outcomes), expected, "{outcomes:?}");
        }
    }

    #[test]
    fn split_errors_of_our_own_side_count_apart() {
        let split = OutlierConfig { split: true, consecutive_local_origin_failure: 2, ..config() };
        let monitor = Monitor::default();
        let outcomes = [answer(500), Outcome::ConnectFailure, answer(500), Outcome::Timeout];
        assert_eq!(found(&monitor, &split, &outcomes), []);
        let local = [Outcome::ConnectFailure];
        assert_eq!(found(&monitor, &split, &local), [Kind::ConsecutiveLocalOriginFailure]);
        assert_eq!((monitor.external.take(), monitor.local.take()), ((0, 2), (2, 5)));
    }

    #[test]
    fn a_host_is_out_for_longer_each_time_and_for_less_when_it_has_behaved() {
        let config = OutlierConfig {
            base_ejection_time: Duration::from_secs(10),
            max_ejection_time: Duration::from_secs(25),
            ..config()
        };
        let (monitor, mut now) = (Monitor::default(), Instant::now());
        for expected in [10, 20, 25, 25] {
            assert!(monitor.eject(&config, now, Duration::ZERO));
            assert!(!monitor.eject(&config, now, Duration::ZERO), "it is out already");
            now += Duration::from_secs(expected);
            assert!(!monitor.settle(now - Duration::from_millis(1)));
            assert!(monitor.settle(now));
        }
        for _ in 0..3 {
            assert!(!monitor.settle(now));
        }
        assert!(monitor.eject(&config, now, Duration::from_secs(1)));
        now += Duration::from_secs(21);
        assert!(!monitor.settle(now - Duration::from_millis(1)), "twice ten, and the jitter");
        assert!(monitor.settle(now));
    }
}
