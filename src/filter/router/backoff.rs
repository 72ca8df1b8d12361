//! How long to wait before a request is tried again.

use std::time::{Duration, SystemTime};

use http::HeaderMap;

use crate::route::{BackOff, RateLimited};

/// Random waits whose bound doubles from try to try.
#[derive(Debug)]
pub(super) struct Waits {
    bound: Duration,
    max: Duration,
}

impl Waits {
    pub(super) fn new(BackOff { base, max }: BackOff) -> Self {
        Self { bound: base, max }
    }

    /// The next wait: anything below the bound, so that clients that failed together do not come
    /// back together. `random` is uniform over all `u64`.
    pub(super) fn next(&mut self, random: u64) -> Duration {
        let bound = self.bound;
        self.bound = bound.saturating_mul(2).min(self.max);
        below(bound, random)
    }
}

/// How long the upstream asks to be left alone, and up to half as long again; `None` if it does not
/// ask, or for longer than allowed.
pub(super) fn asked_for(
    limited: &RateLimited,
    headers: &HeaderMap,
    now: SystemTime,
    random: u64,
) -> Option<Duration> {
    let waits = limited.headers.iter().filter_map(|header| {
        let seconds = headers.get(&header.name)?.to_str().ok()?.trim().parse::<u32>().ok()?;
        let seconds = Duration::from_secs(u64::from(seconds));
        if !header.timestamp {
            return Some(seconds);
        }
        (SystemTime::UNIX_EPOCH + seconds).duration_since(now).ok()
    });
    let wait = waits.into_iter().find(|wait| *wait <= limited.max)?;
    Some(wait + below(wait / 2, random))
}

fn below(bound: Duration, random: u64) -> Duration {
    let us = u64::try_from(bound.as_micros()).unwrap_or(u64::MAX);
    Duration::from_micros(random.checked_rem(us).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng as _, SeedableRng as _};

    use super::*;
    use crate::route::ResetHeader;

    #[test]
    fn the_bound_of_a_wait_doubles_up_to_its_limit() {
        let seed = 20_260_101;
        let mut rng = StdRng::seed_from_u64(seed);
        let ms = Duration::from_millis;
        let mut longest = [Duration::ZERO; 6];
        let mut shortest = [Duration::MAX; 6];
        for _ in 0..2_000 {
            let mut waits = Waits::new(BackOff { base: ms(25), max: ms(250) });
            for (longest, shortest) in longest.iter_mut().zip(&mut shortest) {
                let wait = waits.next(rng.random());
                *longest = wait.max(*longest);
                *shortest = wait.min(*shortest);
            }
        }
        for (i, bound) in [25, 50, 100, 200, 250, 250].map(ms).into_iter().enumerate() {
            assert!(longest[i] < bound && longest[i] > bound * 9 / 10, "seed {seed}: {longest:?}");
            assert!(shortest[i] < bound / 10, "seed {seed}: {shortest:?}");
        }
    }

    #[test]
    fn an_upstream_says_when_to_come_back() {
        let header =
            |name, timestamp| ResetHeader { name: http::HeaderName::from_static(name), timestamp };
        let limited = RateLimited {
            headers: [header("retry-after", false), header("x-reset", true)].into(),
            max: Duration::from_secs(60),
        };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let cases = [
            (&[("retry-after", "2")][..], Some(2)),
            (&[("retry-after", "61"), ("x-reset", "1030")], Some(30)),
            (&[("retry-after", "soon"), ("x-reset", "1030")], Some(30)),
            (&[("x-reset", "999")], None),
            (&[("x-reset", "1061")], None),
            (&[("retry-after", "-1")], None),
            (&[("retry-after", "0")], Some(0)),
            (&[], None),
        ];
        for (headers, seconds) in cases {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.insert(*name, value.parse().unwrap());
            }
            let expected = seconds.map(Duration::from_secs);
            assert_eq!(asked_for(&limited, &map, now, 0), expected, "{headers:?}");
            let most = asked_for(&limited, &map, now, u64::MAX);
            let in_range = |(wait, least): (Duration, Duration)| wait <= least + least / 2;
            assert!(most.zip(expected).is_none_or(in_range), "{headers:?}: {most:?}");
        }
    }
}
