//! How long exchanges took, apart by what OpenTelemetry's HTTP conventions want apart: method, protocol
//! and outcome.
//!
//! Recording finds its cells through two pointers and takes no lock. Cells are made when an outcome is
//! first seen, and there are not more of them than a reader can bear, whatever clients and upstreams say.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{StatusCode, Version};

use super::metrics::{Cell, StatGroup};
use crate::exchange::{KnownMethod, ResponseFlag, ResponseFlags};

/// Upper bounds of the buckets, in microseconds: those that the conventions advise, and below them
/// finer ones, since most answers of a gateway's neighbours come within five milliseconds.
pub const BOUNDS_US: [u64; 17] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 75_000, 100_000, 250_000, 500_000, 750_000,
    1_000_000, 2_500_000, 5_000_000, 7_500_000, 10_000_000,
];

/// How many of [`BOUNDS_US`] are finer than what the conventions advise.
pub const FINER: usize = 3;

/// Outcomes of one method over one protocol that are kept apart; the rest are one.
const MOST_OUTCOMES: usize = 24;

/// How an exchange ended, in two bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Outcome(u16);

impl Outcome {
    /// What came after [`MOST_OUTCOMES`] others.
    const OTHER: Self = Self(u16::MAX);
    /// A status needs ten bits.
    const STATUS: u16 = (1 << 10) - 1;

    /// It was answered, whole unless `flag` says why not; or it was not, for that reason.
    pub fn new(status: Option<StatusCode>, flag: Option<ResponseFlag>) -> Self {
        let status = status.map_or(0, |status| status.as_u16()) & Self::STATUS;
        // 0 for none; at most 32.
        let flag = flag.map_or(0, |flag| (flag as u32).trailing_zeros() + 1);
        Self(u16::try_from(flag).unwrap_or(0) << 10 | status)
    }

    /// The status of the response, if there was one.
    pub fn status(self) -> Option<u16> {
        let status = self.0 & Self::STATUS;
        (self != Self::OTHER && status != 0).then_some(status)
    }

    /// The letters of the response flag that says why it did not come to its end; `_OTHER` for what is
    /// not told apart any more.
    pub fn broke(self) -> Option<&'static str> {
        if self == Self::OTHER {
            return Some("_OTHER");
        }
        let bit = 1_u32.checked_shl(u32::from((self.0 >> 10).checked_sub(1)?))?;
        ResponseFlags::ALL.iter().find(|(flag, _)| *flag as u32 == bit).map(|(_, letters)| *letters)
    }
}

/// Observations of one kind: buckets and their sum.
#[derive(Debug, Default)]
struct Buckets {
    counts: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

/// The same as read at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BucketCounts {
    /// Observations in each bucket, not cumulative; the last has no upper bound.
    pub counts: [u64; BOUNDS_US.len() + 1],
    /// Sum of all observations, in microseconds.
    pub sum_us: u64,
}

impl BucketCounts {
    /// Adds what another has.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(other.counts) {
            *mine += theirs;
        }
        self.sum_us += other.sum_us;
    }
}

struct Node {
    outcome: Outcome,
    buckets: Buckets,
    next: Chain,
}

type Chain = OnceLock<Box<Node>>;

/// The protocols that are told apart, by `network.protocol.version`.
const VERSIONS: [&str; 3] = ["1.0", "1.1", "2"];

fn version_index(version: Version) -> usize {
    match version {
        Version::HTTP_2 => 2,
        Version::HTTP_11 => 1,
        _ => 0,
    }
}

/// How long the exchanges of one owner took.
#[derive(Default)]
pub struct Durations {
    by_kind: [[Chain; VERSIONS.len()]; KnownMethod::ALL.len()],
}

/// Exchanges of one kind, for readers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// `http.request.method`.
    pub method: &'static str,
    /// `network.protocol.version`.
    pub version: &'static str,
    /// How they ended.
    pub outcome: Outcome,
    /// How long they took.
    pub buckets: BucketCounts,
}

impl Durations {
    /// Adds one exchange.
    pub fn record(
        &self,
        (method, version): (KnownMethod, Version),
        outcome: Outcome,
        took: Duration,
    ) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.partition_point(|bound| us > *bound);
        let chain = &self.by_kind[method as usize][version_index(version)];
        let buckets = buckets_of(chain, outcome);
        buckets.counts[bucket].fetch_add(1, Ordering::Relaxed);
        buckets.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// Every kind of exchange there was.
    pub fn visit(&self, mut see: impl FnMut(Reading)) {
        for (method, versions) in KnownMethod::ALL.iter().zip(&self.by_kind) {
            for (version, chain) in VERSIONS.iter().zip(versions) {
                let mut node = chain.get();
                while let Some(this) = node {
                    see(Reading {
                        method: method.as_str(),
                        version,
                        outcome: this.outcome,
                        buckets: this.buckets.read(),
                    });
                    node = this.next.get();
                }
            }
        }
    }

    /// All exchanges together.
    pub fn total(&self) -> BucketCounts {
        let mut total = BucketCounts::default();
        self.visit(|reading| total.add(&reading.buckets));
        total
    }
}

/// The buckets of an outcome; of all those that came too late to have their own, if it is one of them.
fn buckets_of(mut chain: &Chain, outcome: Outcome) -> &Buckets {
    let node =
        |outcome| Box::new(Node { outcome, buckets: Buckets::default(), next: Chain::new() });
    for _ in 0..MOST_OUTCOMES {
        let found = chain.get_or_init(|| node(outcome));
        if found.outcome == outcome {
            return &found.buckets;
        }
        chain = &found.next;
    }
    &chain.get_or_init(|| node(Outcome::OTHER)).buckets
}

impl Buckets {
    fn read(&self) -> BucketCounts {
        BucketCounts {
            counts: std::array::from_fn(|i| self.counts[i].load(Ordering::Relaxed)),
            sum_us: self.sum_us.load(Ordering::Relaxed),
        }
    }
}

impl StatGroup for Durations {
    /// It has none of Envoy's names.
    fn visit(&self, _visit: &mut dyn FnMut(&'static str, Cell<'_>)) {}

    fn durations(&self) -> Option<&Durations> {
        Some(self)
    }
}

impl std::fmt::Debug for Durations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Durations").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: (KnownMethod, Version) = (KnownMethod::Get, Version::HTTP_11);

    fn answered(status: u16) -> Outcome {
        Outcome::new(StatusCode::from_u16(status).ok(), None)
    }

    fn readings(durations: &Durations) -> Vec<Reading> {
        let mut readings = Vec::new();
        durations.visit(|reading| readings.push(reading));
        readings
    }

    #[test]
    fn exchanges_are_apart_by_method_protocol_and_outcome() {
        let durations = Durations::default();
        let post = (KnownMethod::Post, Version::HTTP_2);
        durations.record(GET, answered(200), Duration::from_micros(500));
        durations.record(GET, answered(200), Duration::from_micros(501));
        durations.record(GET, answered(503), Duration::from_secs(11));
        durations.record(post, answered(200), Duration::ZERO);
        let readings = readings(&durations);
        let kinds: Vec<_> =
            readings.iter().map(|r| (r.method, r.version, r.outcome.status())).collect();
        assert_eq!(
            kinds,
            [("GET", "1.1", Some(200)), ("GET", "1.1", Some(503)), ("POST", "2", Some(200))]
        );
        assert_eq!((readings[0].buckets.counts[0], readings[0].buckets.counts[1]), (1, 1));
        assert_eq!(readings[0].buckets.sum_us, 1_001);
        assert_eq!(readings[1].buckets.counts[BOUNDS_US.len()], 1);
        assert_eq!(durations.total().counts.iter().sum::<u64>(), 4);
    }

    #[test]
    fn an_outcome_is_a_status_a_reason_or_both() {
        let ok = Some(StatusCode::OK);
        let cases = [
            (ok, None, (Some(200), None)),
            (None, Some(ResponseFlag::NoHealthyUpstream), (None, Some("UH"))),
            (None, Some(ResponseFlag::DurationTimeout), (None, Some("DT"))),
            (ok, Some(ResponseFlag::UpstreamConnectionTermination), (Some(200), Some("UC"))),
            (StatusCode::from_u16(999).ok(), None, (Some(999), None)),
        ];
        for (status, flag, expected) in cases {
            let outcome = Outcome::new(status, flag);
            assert_eq!((outcome.status(), outcome.broke()), expected);
        }
    }

    #[test]
    fn an_upstream_with_a_status_for_everything_fills_no_memory() {
        let durations = Durations::default();
        for status in 200..900 {
            durations.record(GET, answered(status), Duration::ZERO);
        }
        let readings = readings(&durations);
        assert_eq!(readings.len(), MOST_OUTCOMES + 1);
        let last = readings.last().unwrap();
        assert_eq!((last.outcome.status(), last.outcome.broke()), (None, Some("_OTHER")));
        assert_eq!(last.buckets.counts[0], 700 - MOST_OUTCOMES as u64);
    }

    #[test]
    fn threads_that_meet_lose_nothing() {
        let durations = Durations::default();
        std::thread::scope(|scope| {
            for first in [200, 210, 220, 230] {
                let durations = &durations;
                scope.spawn(move || {
                    for i in 0..1_000 {
                        durations.record(GET, answered(first + i % 30), Duration::ZERO);
                    }
                });
            }
        });
        assert_eq!(durations.total().counts[0], 4_000);
    }
}
