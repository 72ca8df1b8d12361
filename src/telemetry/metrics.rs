//! Metric cells: what the hot path touches. Names, labels and output are elsewhere.
//!
//! A change is one relaxed atomic operation. Cells are plain fields of a group that
//! [`stats!`](crate::stats) declares, so that a cluster's statistics are one allocation and no map.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;

use super::durations::Durations;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The sum so far.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counts an answer among those of its class, from 1xx to 5xx. What is of none of them is an error.
pub fn count_class(status: StatusCode, classes: [&Counter; 5]) {
    let class = usize::from(status.as_u16() / 100);
    classes[class.clamp(1, 5) - 1].inc();
}

/// A number that rises and falls.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Takes one away.
    pub fn dec(&self) {
        self.add(-1);
    }

    /// Adds `n`, which may be negative.
    pub fn add(&self, n: i64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Replaces the value.
    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The value now.
    pub fn value(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds of the buckets of a [`Histogram`], in milliseconds: Envoy's defaults.
pub const BUCKET_BOUNDS_MS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1_000.0,
    2_500.0,
    5_000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// How long things took, in fixed buckets. Recording takes no lock.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKET_BOUNDS_MS.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    /// Adds one observation.
    pub fn record(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKET_BOUNDS_US.partition_point(|bound| us > *bound);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// What was recorded so far.
    pub fn value(&self) -> HistogramValue {
        let buckets = std::array::from_fn(|i| self.buckets[i].load(Ordering::Relaxed));
        HistogramValue { buckets, sum_us: self.sum_us.load(Ordering::Relaxed) }
    }
}

const BUCKET_BOUNDS_US: [u64; BUCKET_BOUNDS_MS.len()] = [
    500,
    1_000,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
    600_000_000,
    1_800_000_000,
    3_600_000_000,
];

/// A [`Histogram`] as read at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistogramValue {
    /// Observations in each bucket, not cumulative; the last has no upper bound.
    pub buckets: [u64; BUCKET_BOUNDS_MS.len() + 1],
    /// Sum of all observations in microseconds.
    pub sum_us: u64,
}

impl HistogramValue {
    /// How many observations there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// One cell of a group, for readers.
#[derive(Debug, Clone, Copy)]
pub enum Cell<'a> {
    /// A [`Counter`].
    Counter(&'a Counter),
    /// A [`Gauge`].
    Gauge(&'a Gauge),
    /// A [`Histogram`].
    Histogram(&'a Histogram),
}

/// A set of cells that live and die together, such as those of one cluster.
pub trait StatGroup: Send + Sync + 'static {
    /// Calls `visit` with every cell and its name, in Envoy's spelling and without the scope.
    fn visit(&self, visit: &mut dyn FnMut(&'static str, Cell<'_>));

    /// How long things took, if that is what the group holds.
    fn durations(&self) -> Option<&Durations> {
        None
    }
}

/// Declares a [`StatGroup`]: its cells, their names and what they mean, once.
///
/// ```
/// nuncio::stats! {
///     /// What one listener counts.
///     pub struct ListenerStats {
///         /// Connections accepted.
///         counter downstream_cx_total,
///         /// Connections open now.
///         gauge downstream_cx_active,
///     }
/// }
/// let stats = ListenerStats::default();
/// stats.downstream_cx_total.inc();
/// assert_eq!(stats.downstream_cx_total.value(), 1);
/// ```
#[macro_export]
macro_rules! stats {
    ($(#[$meta:meta])* $vis:vis struct $name:ident {
        $($(#[$cell_meta:meta])* $kind:ident $cell:ident),* $(,)?
    }) => {
        $(#[$meta])*
        #[derive(Debug, Default)]
        $vis struct $name {
            $($(#[$cell_meta])* pub $cell: $crate::stats!(@type $kind),)*
        }

        impl $crate::telemetry::metrics::StatGroup for $name {
            fn visit(
                &self,
                visit: &mut dyn FnMut(&'static str, $crate::telemetry::metrics::Cell<'_>),
            ) {
                $(visit(stringify!($cell), $crate::stats!(@cell $kind, &self.$cell));)*
            }
        }
    };
    (@type counter) => { $crate::telemetry::metrics::Counter };
    (@type gauge) => { $crate::telemetry::metrics::Gauge };
    (@type histogram) => { $crate::telemetry::metrics::Histogram };
    (@cell counter, $cell:expr) => { $crate::telemetry::metrics::Cell::Counter($cell) };
    (@cell gauge, $cell:expr) => { $crate::telemetry::metrics::Cell::Gauge($cell) };
    (@cell histogram, $cell:expr) => { $crate::telemetry::metrics::Cell::Histogram($cell) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_agree_in_both_units() {
        for (ms, us) in BUCKET_BOUNDS_MS.iter().zip(BUCKET_BOUNDS_US) {
            assert_eq!(Duration::from_micros(us).as_secs_f64() * 1_000.0, *ms);
        }
    }

    #[test]
    fn observations_land_in_the_bucket_that_bounds_them() {
        let histogram = Histogram::default();
        for ms in [0, 1, 2, 3_600_001] {
            histogram.record(Duration::from_millis(ms));
        }
        let value = histogram.value();
        assert_eq!((value.buckets[0], value.buckets[1], value.buckets[2]), (1, 1, 1));
        assert_eq!((value.buckets[19], value.count()), (1, 4));
    }
}
