//! Every cell under Envoy's stat names: what `/stats` and `/stats/prometheus` print.
//!
//! Three forms of the same cells: text (`cluster.users.upstream_rq_total: 1`), JSON, and
//! Prometheus' text exposition (`envoy_cluster_upstream_rq_total{envoy_cluster_name="users"} 1`).
//! Each is written straight into one string, cell by cell; the cost is one visit of every group,
//! plus one sort of the scopes' names.
//!
//! Owners come in the order of their names, and the cells of one in the order of theirs;
//! histograms follow the counters and gauges, as in Envoy.
//!
//! Differs: a cell counts as used when it is not zero; Envoy remembers whether it was ever written.
//! Quantiles are interpolated from the buckets of [`BUCKET_BOUNDS_MS`], so they are coarser than
//! Envoy's, and there is no flush interval: in the pairs `P50(interval,cumulative)` the first is
//! always `nan`.

use std::sync::Arc;

use regex::Regex;

use super::metrics::{BUCKET_BOUNDS_MS, Cell, HistogramValue, StatGroup};
use super::{Scope, Telemetry};

mod prometheus;

/// Which cells are shown.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Only cells whose Envoy name this matches somewhere.
    pub filter: Option<Regex>,
    /// Only cells that are not zero.
    pub used_only: bool,
}

/// Quantiles that are printed of a histogram, in percent.
const QUANTILES: [f64; 10] = [0.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 100.0];

impl Query {
    /// `/stats`: `name: value`, one cell a line.
    pub fn text(&self, telemetry: &Telemetry) -> String {
        let groups = sorted_groups(telemetry);
        let mut out = String::new();
        self.scalars(&groups, |name, value| {
            out.push_str(name);
            out.push_str(": ");
            out.push_str(itoa::Buffer::new().format(value));
            out.push('\n');
        });
        self.histograms(&groups, |name, value| {
            out.push_str(name);
            out.push_str(": ");
            push_quantiles(&mut out, value);
            out.push('\n');
        });
        out
    }

    /// `/stats?format=json`: `{"stats":[{"name":..,"value":..}, .., {"histograms":{..}}]}`.
    pub fn json(&self, telemetry: &Telemetry) -> String {
        let groups = sorted_groups(telemetry);
        let mut out = String::from(r#"{"stats":["#);
        self.scalars(&groups, |name, value| {
            separate(&mut out);
            out.push_str(r#"{"name":"#);
            push_json_string(&mut out, name);
            out.push_str(r#","value":"#);
            out.push_str(itoa::Buffer::new().format(value));
            out.push('}');
        });
        let mut histograms = String::new();
        self.histograms(&groups, |name, value| {
            separate(&mut histograms);
            histograms.push_str(r#"{"name":"#);
            push_json_string(&mut histograms, name);
            histograms.push_str(r#","values":["#);
            for (i, quantile) in quantiles(value).into_iter().enumerate() {
                histograms.push_str(if i == 0 { "" } else { "," });
                histograms.push_str(r#"{"interval":null,"cumulative":"#);
                match quantile {
                    Some(value) => push_number(&mut histograms, value),
                    None => histograms.push_str("null"),
                }
                histograms.push('}');
            }
            histograms.push_str("]}");
        });
        if !histograms.is_empty() {
            separate(&mut out);
            out.push_str(r#"{"histograms":{"supported_quantiles":["#);
            for (i, quantile) in QUANTILES.into_iter().enumerate() {
                out.push_str(if i == 0 { "" } else { "," });
                push_number(&mut out, quantile);
            }
            out.push_str(r#"],"computed_quantiles":["#);
            out.push_str(&histograms);
            out.push_str("]}}");
        }
        out.push_str("]}");
        out
    }

    /// `/stats/prometheus`: text exposition, all samples of a metric together.
    pub fn prometheus(&self, telemetry: &Telemetry) -> String {
        prometheus::render(self, &sorted_groups(telemetry))
    }

    /// Calls `each` with the name and value of every counter and gauge that is shown.
    fn scalars(&self, groups: &[Group], mut each: impl FnMut(&str, i128)) {
        let mut name = String::new();
        let mut cells: Vec<(&'static str, i128)> = Vec::new();
        for (scope, group) in groups {
            cells.clear();
            group.visit(&mut |cell, value| match value {
                Cell::Counter(counter) => cells.push((cell, counter.value().into())),
                Cell::Gauge(gauge) => cells.push((cell, gauge.value().into())),
                Cell::Histogram(_) => {}
            });
            if self.used_only {
                cells.retain(|(_, value)| *value != 0);
            }
            cells.sort_unstable_by_key(|(cell, _)| *cell);
            let prefix = start_name(&mut name, scope);
            for (cell, value) in &cells {
                name.truncate(prefix);
                name.push_str(cell);
                if self.shows(&name) {
                    each(&name, *value);
                }
            }
        }
    }

    /// Calls `each` with the name and value of every histogram that is shown.
    fn histograms(&self, groups: &[Group], mut each: impl FnMut(&str, &HistogramValue)) {
        let mut name = String::new();
        let mut cells: Vec<(&'static str, HistogramValue)> = Vec::new();
        for (scope, group) in groups {
            cells.clear();
            group.visit(&mut |cell, value| {
                if let Cell::Histogram(histogram) = value {
                    cells.push((cell, histogram.value()));
                }
            });
            if self.used_only {
                cells.retain(|(_, value)| value.count() != 0);
            }
            cells.sort_unstable_by_key(|(cell, _)| *cell);
            let prefix = start_name(&mut name, scope);
            for (cell, value) in &cells {
                name.truncate(prefix);
                name.push_str(cell);
                if self.shows(&name) {
                    each(&name, value);
                }
            }
        }
    }

    fn shows(&self, name: &str) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.is_match(name))
    }
}

type Group = (Scope, Arc<dyn StatGroup>);

fn sorted_groups(telemetry: &Telemetry) -> Vec<Group> {
    let mut groups = telemetry.groups();
    groups.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    groups
}

/// Begins a name with its scope and gives the length up to where the cell's name goes.
fn start_name(name: &mut String, scope: &Scope) -> usize {
    *name = scope.envoy_name("");
    name.push('.');
    name.len()
}

/// A comma between the members of a list that has some.
fn separate(out: &mut String) {
    if !out.is_empty() && !out.ends_with('[') {
        out.push(',');
    }
}

fn push_json_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if u32::from(c) < 0x20 => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// A number as JSON and Prometheus both read it; whole numbers have no point.
fn push_number(out: &mut String, value: f64) {
    out.push_str(&value.to_string());
}

fn push_quantiles(out: &mut String, value: &HistogramValue) {
    if value.count() == 0 {
        out.push_str("No recorded values");
        return;
    }
    for (i, (percent, quantile)) in QUANTILES.into_iter().zip(quantiles(value)).enumerate() {
        out.push_str(if i == 0 { "P" } else { " P" });
        push_number(out, percent);
        out.push_str("(nan,");
        push_number(out, quantile.unwrap_or(f64::NAN));
        out.push(')');
    }
}

/// The value in milliseconds below which each of [`QUANTILES`] lies, to three places; none of an
/// empty histogram.
fn quantiles(value: &HistogramValue) -> [Option<f64>; QUANTILES.len()] {
    let count = value.count();
    QUANTILES.map(|percent| (count > 0).then(|| quantile(value, count, percent)))
}

fn quantile(value: &HistogramValue, count: u64, percent: f64) -> f64 {
    let rank = count as f64 * percent / 100.0;
    let (mut below, mut lower) = (0.0, 0.0);
    for (bucket, in_bucket) in value.buckets.iter().enumerate() {
        let in_bucket = *in_bucket as f64;
        // Nothing is known of the last bucket but where it begins.
        let upper = BUCKET_BOUNDS_MS.get(bucket).copied().unwrap_or(lower);
        if in_bucket > 0.0 && below + in_bucket >= rank {
            let position = (rank - below) / in_bucket;
            return ((lower + (upper - lower) * position) * 1_000.0).round() / 1_000.0;
        }
        below += in_bucket;
        lower = upper;
    }
    lower
}

#[cfg(test)]
mod tests;
