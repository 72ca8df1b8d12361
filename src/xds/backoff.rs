//! Waiting between attempts: exponential with full jitter.
//!
//! The wait is drawn evenly from zero to a ceiling that doubles with each failure, so that many
//! proxies that lost a server at once do not come back at once.

use std::time::Duration;

use rand::Rng;

/// The bounds of the waits. `GrpcService.EnvoyGrpc.retry_policy.retry_back_off`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackoffOptions {
    base: Duration,
    max: Duration,
}

impl Default for BackoffOptions {
    fn default() -> Self {
        Self { base: Duration::from_millis(500), max: Duration::from_secs(30) }
    }
}

impl BackoffOptions {
    /// From `base_interval` and `max_interval`; without the latter, ten times the former.
    ///
    /// # Errors
    /// When the base is below a millisecond or above the maximum.
    pub fn try_new(base: Duration, max: Option<Duration>) -> Result<Self, BackoffError> {
        let max = max.unwrap_or_else(|| base.saturating_mul(10));
        if base < Duration::from_millis(1) {
            return Err(BackoffError::BaseTooShort);
        }
        if max < base {
            return Err(BackoffError::MaxBelowBase);
        }
        Ok(Self { base, max })
    }
}

/// Why a back-off cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BackoffError {
    /// `base_interval` is below a millisecond.
    #[error("base_interval must be at least 1ms")]
    BaseTooShort,
    /// `max_interval` is below `base_interval`.
    #[error("max_interval must not be below base_interval")]
    MaxBelowBase,
}

/// The waits of one stream.
#[derive(Debug)]
pub(super) struct Backoff {
    options: BackoffOptions,
    ceiling: Duration,
}

impl Backoff {
    pub(super) fn new(options: BackoffOptions) -> Self {
        Self { options, ceiling: options.base }
    }

    /// The first ceiling.
    pub(super) const fn base(&self) -> Duration {
        self.options.base
    }

    /// How long to wait now.
    pub(super) fn next(&mut self, rng: &mut impl Rng) -> Duration {
        let wait = self.ceiling.mul_f64(rng.random::<f64>());
        self.ceiling = self.ceiling.saturating_mul(2).min(self.options.max);
        wait
    }

    /// The server answered: the next failure is a first one again.
    pub(super) fn reset(&mut self) {
        self.ceiling = self.options.base;
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn waits_are_jittered_below_a_doubling_ceiling() {
        let mut rng = SmallRng::seed_from_u64(1);
        let mut longest = [Duration::ZERO; 9];
        let mut shortest = [Duration::MAX; 9];
        for _ in 0..2000 {
            let mut backoff = Backoff::new(BackoffOptions::default());
            for n in 0..9 {
                let wait = backoff.next(&mut rng);
                longest[n] = longest[n].max(wait);
                shortest[n] = shortest[n].min(wait);
            }
        }
        let ceilings = [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000].map(ms);
        for n in 0..9 {
            assert!(longest[n] <= ceilings[n] && longest[n] > ceilings[n].mul_f64(0.95));
            assert!(shortest[n] < ceilings[n].mul_f64(0.05), "full jitter reaches down to zero");
        }
    }

    #[test]
    fn a_reset_starts_from_the_base() {
        let mut rng = SmallRng::seed_from_u64(1);
        let mut backoff = Backoff::new(BackoffOptions::default());
        for _ in 0..10 {
            backoff.next(&mut rng);
        }
        backoff.reset();
        assert!(backoff.next(&mut rng) <= ms(500));
    }

    #[test]
    fn the_maximum_defaults_to_ten_times_the_base() {
        let options = BackoffOptions::try_new(ms(20), None).unwrap();
        assert_eq!(options, BackoffOptions { base: ms(20), max: ms(200) });
        assert_eq!(BackoffOptions::try_new(ms(0), None), Err(BackoffError::BaseTooShort));
        assert_eq!(BackoffOptions::try_new(ms(20), Some(ms(10))), Err(BackoffError::MaxBelowBase));
    }
}
