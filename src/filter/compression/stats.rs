//! What is counted of bodies that are encoded and decoded, by coding and direction, and of those that stay
//! as they are, by reason.

use std::sync::{Arc, OnceLock};

use super::meter::{End, Outcome};
use super::rules::Skip;
use crate::coding::{Coding, Error};
use crate::telemetry::metrics::Counter;
use crate::telemetry::{Scope, Telemetry};

crate::stats! {
    /// `http.STAT_PREFIX.compression.CODING.DIRECTION.*` of bodies that are encoded, and
    /// `http.STAT_PREFIX.decompression.CODING.DIRECTION.*` of those that are decoded.
    pub(super) struct CodingStats {
        /// Bodies that were begun.
        counter bodies,
        /// Bodies that are under way.
        gauge active,
        /// Bytes that went into the codec.
        counter bytes_in,
        /// Bytes that came out of it.
        counter bytes_out,
        /// Microseconds that the codec took.
        counter time_us,
        /// Bodies that broke off before they came here whole.
        counter broken,
        /// Bodies whose reader left.
        counter left,
        /// Encoded bodies that ended too early.
        counter truncated,
        /// Encoded bodies that their coding does not allow.
        counter corrupt,
        /// Encoded bodies that would have become too large.
        counter too_large,
        /// Whole bodies whose plain form is at most as large as the encoded one.
        counter ratio_1,
        /// At most twice as large, and so on.
        counter ratio_2,
        counter ratio_3,
        counter ratio_5,
        counter ratio_10,
        counter ratio_20,
        counter ratio_50,
        counter ratio_100,
        /// Larger yet.
        counter ratio_more,
    }
}

crate::stats! {
    /// `http.STAT_PREFIX.compression.DIRECTION.*`
    pub(super) struct SkipStats {
        /// Bodies that stayed as they are for their status.
        counter skipped_status,
        /// For their length.
        counter skipped_too_small,
        /// For their type.
        counter skipped_content_type,
        /// Since they were encoded already.
        counter skipped_encoded,
        /// For `no-transform`.
        counter skipped_no_transform,
        /// For their entity tag.
        counter skipped_entity_tag,
        /// Since the client takes none of the codings, or likes none better than the plain form.
        counter skipped_not_accepted,
        /// For the path.
        counter skipped_path,
        /// Since they took no bytes less.
        counter skipped_not_smaller,
        /// Messages without a body.
        counter skipped_empty,
    }
}

impl SkipStats {
    /// A body stayed as it is.
    pub(super) fn skip(&self, why: Skip) {
        let counter = match why {
            Skip::Status => &self.skipped_status,
            Skip::TooSmall => &self.skipped_too_small,
            Skip::ContentType => &self.skipped_content_type,
            Skip::Encoded => &self.skipped_encoded,
            Skip::NoTransform => &self.skipped_no_transform,
            Skip::EntityTag => &self.skipped_entity_tag,
            Skip::NotAccepted => &self.skipped_not_accepted,
            Skip::Path => &self.skipped_path,
            Skip::NotSmaller => &self.skipped_not_smaller,
            Skip::Empty => &self.skipped_empty,
        };
        counter.inc();
    }
}

/// Which way a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Request,
    Response,
}

impl Direction {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Response => "response",
        }
    }
}

/// What is done to a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Encode,
    Decode,
}

/// Cells by operation, direction and coding; they are there once they are asked for. Who takes over from an
/// older version of a filter asks before that goes, and counts on.
pub(super) struct Counts {
    telemetry: Telemetry,
    scope: Scope,
    codings: [OnceLock<Arc<CodingStats>>; 2 * 2 * Coding::ALL.len()],
    skips: [OnceLock<Arc<SkipStats>>; 2],
}

impl Counts {
    pub(super) fn new(telemetry: &Telemetry, stat_prefix: &str) -> Self {
        Self {
            telemetry: telemetry.clone(),
            scope: Scope::http(stat_prefix),
            codings: Default::default(),
            skips: Default::default(),
        }
    }

    /// The cells of bodies of a coding.
    pub(super) fn of(
        &self,
        operation: Operation,
        direction: Direction,
        coding: Coding,
    ) -> &Arc<CodingStats> {
        let kind = 2 * operation as usize + direction as usize;
        self.codings[kind * Coding::ALL.len() + coding as usize].get_or_init(|| {
            let word = match operation {
                Operation::Encode => "compression",
                Operation::Decode => "decompression",
            };
            let part = format!("{word}.{}.{}", coding.name(), direction.name());
            self.telemetry.group(self.scope.clone().part(part))
        })
    }

    /// A message in this direction was not encoded.
    pub(super) fn skip(&self, direction: Direction, why: Skip) {
        let stats = self.skips[direction as usize].get_or_init(|| {
            let part = format!("compression.{}", direction.name());
            self.telemetry.group(self.scope.clone().part(part))
        });
        stats.skip(why);
    }
}

/// Counts one body: as under way until this is dropped.
pub(super) struct Tally {
    stats: Arc<CodingStats>,
    operation: Operation,
}

impl Tally {
    pub(super) fn begin(stats: &Arc<CodingStats>, operation: Operation) -> Self {
        stats.bodies.inc();
        stats.active.inc();
        Self { stats: Arc::clone(stats), operation }
    }

    /// What became of it.
    pub(super) fn end(self, outcome: &Outcome) {
        let stats = &self.stats;
        stats.bytes_in.add(outcome.input);
        stats.bytes_out.add(outcome.output);
        stats.time_us.add(u64::try_from(outcome.time.as_micros()).unwrap_or(u64::MAX));
        match outcome.end {
            End::Complete => {
                let (plain, coded) = match self.operation {
                    Operation::Encode => (outcome.input, outcome.output),
                    Operation::Decode => (outcome.output, outcome.input),
                };
                stats.ratio(plain, coded).inc();
            }
            End::Inner => stats.broken.inc(),
            End::Dropped => stats.left.inc(),
            End::Coding(Error::Truncated(_)) => stats.truncated.inc(),
            End::Coding(error) if error.is_too_large() => stats.too_large.inc(),
            End::Coding(_) => stats.corrupt.inc(),
        }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.stats.active.dec();
    }
}

impl CodingStats {
    fn ratio(&self, plain: u64, coded: u64) -> &Counter {
        let bounds = [
            (1, &self.ratio_1),
            (2, &self.ratio_2),
            (3, &self.ratio_3),
            (5, &self.ratio_5),
            (10, &self.ratio_10),
            (20, &self.ratio_20),
            (50, &self.ratio_50),
            (100, &self.ratio_100),
        ];
        let is_within = |(times, _): &&(u64, _)| plain <= coded.saturating_mul(*times);
        bounds.iter().find(is_within).map_or(&self.ratio_more, |(_, counter)| counter)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::otel::Otel;

    fn outcome(input: u64, output: u64, end: End) -> Outcome {
        Outcome { input, output, time: Duration::from_micros(5), end }
    }

    #[test]
    fn a_body_is_counted_by_what_became_of_it() {
        let telemetry = Telemetry::default();
        let counts = Counts::new(&telemetry, "in");
        let stats = counts.of(Operation::Decode, Direction::Request, Coding::Gzip);
        for end in [
            End::Complete,
            End::Inner,
            End::Dropped,
            End::Coding(Error::Truncated(Coding::Gzip)),
            End::Coding(Error::Corrupt(Coding::Gzip)),
            End::Coding(Error::TooLarge { limit: 1 }),
        ] {
            let tally = Tally::begin(stats, Operation::Decode);
            assert_eq!(stats.active.value(), 1);
            tally.end(&outcome(10, 40, end));
        }
        assert_eq!(stats.active.value(), 0);
        let seen = [&stats.ratio_5, &stats.broken, &stats.left, &stats.truncated, &stats.corrupt];
        assert_eq!(seen.map(Counter::value), [1; 5]);
        assert_eq!((stats.too_large.value(), stats.bodies.value()), (1, 6));
        assert_eq!((stats.bytes_in.value(), stats.bytes_out.value()), (60, 240));
        let names: Vec<_> =
            telemetry.groups().iter().map(|(scope, _)| scope.envoy_name("x")).collect();
        assert_eq!(names, ["http.in.decompression.gzip.request.x"]);
    }

    #[test]
    fn ratios_are_of_the_plain_to_the_coded_form() {
        let stats = CodingStats::default();
        for (plain, coded, counter) in [
            (0, 20, &stats.ratio_1),
            (100, 99, &stats.ratio_2),
            (200, 100, &stats.ratio_2),
            (201, 100, &stats.ratio_3),
            (10_000, 100, &stats.ratio_100),
            (10_001, 100, &stats.ratio_more),
            (1, 0, &stats.ratio_more),
        ] {
            let before = counter.value();
            stats.ratio(plain, coded).inc();
            assert_eq!(counter.value(), before + 1, "{plain} / {coded}");
        }
    }

    #[test]
    fn the_documented_metrics_are_these_cells() {
        let telemetry = Telemetry::default();
        let counts = Counts::new(&telemetry, "in");
        let stats = counts.of(Operation::Encode, Direction::Response, Coding::Brotli);
        Tally::begin(stats, Operation::Encode).end(&outcome(100, 20, End::Complete));
        counts.skip(Direction::Response, Skip::NotAccepted);
        let text = Otel::new(&telemetry, ()).render().unwrap();
        let of = r#"direction="response",library="br",operation="encode""#;
        let of_in = format!(r#"{of},stat_prefix="in""#);
        for line in [
            format!("gateway_compression_bodies_total{{{of_in}}} 1"),
            format!(r#"gateway_compression_bytes_total{{{of},side="in",stat_prefix="in"}} 100"#),
            format!(r#"gateway_compression_bytes_total{{{of},side="out",stat_prefix="in"}} 20"#),
            format!("gateway_compression_active{{{of_in}}} 0"),
            format!("gateway_compression_time_seconds_total{{{of_in}}} 0.000005"),
            r#"gateway_compression_ratio_bucket_total{direction="response",le="3",library="br",operation="encode",stat_prefix="in"} 0"#.to_owned(),
            r#"gateway_compression_ratio_bucket_total{direction="response",le="5",library="br",operation="encode",stat_prefix="in"} 1"#.to_owned(),
            r#"gateway_compression_ratio_bucket_total{direction="response",le="+Inf",library="br",operation="encode",stat_prefix="in"} 1"#.to_owned(),
            r#"gateway_compression_skipped_total{direction="response",reason="not-accepted",stat_prefix="in"} 1"#.to_owned(),
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        // A cell that is named there and not here would be missing.
        let shown = text.lines().filter(|line| line.starts_with("gateway_compression_"));
        assert_eq!(shown.count(), 1 + 2 + 5 + 9 + 1 + 1 + 10, "{text}");
    }
}
