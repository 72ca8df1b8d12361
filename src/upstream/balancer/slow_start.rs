//! Slow start: a new host, or one that became healthy, gets its share little by little
//! (`Cluster.SlowStartConfig`).
//!
//! Differs: Envoy multiplies the host's weight and schedules anew; here a host that is drawn is passed
//! over by chance, as often as its factor says. The shares are the same, and only clusters with such
//! hosts pay for it.

use std::time::Duration;

/// How a host's share grows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlowStart {
    /// Until its share is whole.
    pub window: Duration,
    /// 1 grows in proportion to time; more grows faster at first.
    pub aggression: f64,
    /// Its share at the beginning, in 0..=1.
    pub least: f64,
}

impl SlowStart {
    /// The part of its share that a host has at this age, in 0..=1.
    pub(super) fn factor(&self, age: Duration) -> f64 {
        if age >= self.window {
            return 1.0;
        }
        let time = (age.as_secs_f64() / self.window.as_secs_f64()).max(f64::EPSILON);
        time.powf(1.0 / self.aggression).clamp(self.least, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_grows_from_the_least_to_the_whole() {
        let seconds = Duration::from_secs;
        let linear = SlowStart { window: seconds(10), aggression: 1.0, least: 0.1 };
        let factors: Vec<f64> = [0, 1, 5, 10, 20].map(|s| linear.factor(seconds(s))).to_vec();
        assert_eq!(factors, [0.1, 0.1, 0.5, 1.0, 1.0]);
        let fast = SlowStart { aggression: 2.0, least: 0.0, ..linear };
        assert!((fast.factor(seconds(4)) - 0.4f64.sqrt()).abs() < 1e-9);
        assert!(fast.factor(Duration::ZERO) < 1e-6);
    }
}
