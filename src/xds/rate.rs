//! A token bucket for outgoing requests. `ApiConfigSource.rate_limit_settings`

use std::time::Duration;

use tokio::time::Instant;

/// How many requests a stream may send.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateLimit {
    max_tokens: u32,
    fill_rate: f64,
}

impl RateLimit {
    /// From `max_tokens` (requests in a burst, default 100) and `fill_rate` (requests a second,
    /// default 10).
    ///
    /// # Errors
    /// When there is never a token: no room for one, or a rate that is not a positive number.
    pub fn try_new(
        max_tokens: Option<u32>,
        fill_rate: Option<f64>,
    ) -> Result<Self, RateLimitError> {
        let (max_tokens, fill_rate) = (max_tokens.unwrap_or(100), fill_rate.unwrap_or(10.0));
        if max_tokens == 0 {
            return Err(RateLimitError::NoTokens);
        }
        // Slower than one request a year would overflow nothing but help nobody.
        if !(fill_rate.is_finite() && fill_rate > 1.0 / 31_536_000.0) {
            return Err(RateLimitError::NoRate);
        }
        Ok(Self { max_tokens, fill_rate })
    }
}

/// Why a rate limit cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RateLimitError {
    /// `max_tokens` is zero.
    #[error("max_tokens must be at least 1")]
    NoTokens,
    /// `fill_rate` is not a positive number of tokens a second.
    #[error("fill_rate must be a positive number, at least one token a year")]
    NoRate,
}

/// The tokens of one stream. They outlive reconnects, as the limit protects the server.
#[derive(Debug)]
pub(super) struct Bucket {
    limit: RateLimit,
    tokens: f64,
    filled: Option<Instant>,
}

impl Bucket {
    pub(super) fn new(limit: RateLimit) -> Self {
        Self { limit, tokens: f64::from(limit.max_tokens), filled: None }
    }

    /// When the next request may go; now or earlier means at once.
    pub(super) fn ready_at(&mut self, now: Instant) -> Instant {
        self.fill(now);
        if self.tokens >= 1.0 {
            return now;
        }
        // Timers are no finer than a millisecond: rounding up keeps the wait from being short.
        now + Duration::from_secs_f64((1.0 - self.tokens) / self.limit.fill_rate)
            + Duration::from_millis(1)
    }

    /// Spends a token for a request that goes now.
    pub(super) fn spend(&mut self, now: Instant) {
        self.fill(now);
        self.tokens = (self.tokens - 1.0).max(0.0);
    }

    fn fill(&mut self, now: Instant) {
        let waited = self.filled.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.filled = Some(now);
        self.tokens = (self.tokens + waited.as_secs_f64() * self.limit.fill_rate)
            .min(f64::from(self.limit.max_tokens));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_followed_by_the_fill_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(RateLimit::try_new(Some(3), Some(10.0)).unwrap());
        let (mut sent, mut now) = (0, start);
        while now < start + Duration::from_secs(10) {
            if bucket.ready_at(now) <= now {
                bucket.spend(now);
                sent += 1;
            } else {
                now = bucket.ready_at(now);
            }
        }
        assert!((100..=103).contains(&sent), "{sent}");
    }

    #[test]
    fn the_defaults_are_a_hundred_and_ten_a_second() {
        let limit = RateLimit::try_new(None, None).unwrap();
        assert_eq!(limit, RateLimit { max_tokens: 100, fill_rate: 10.0 });
        assert_eq!(RateLimit::try_new(Some(0), None), Err(RateLimitError::NoTokens));
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(RateLimit::try_new(None, Some(rate)), Err(RateLimitError::NoRate));
        }
    }
}
