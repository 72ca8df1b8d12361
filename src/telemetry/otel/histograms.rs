//! Histograms of how long exchanges took. OpenTelemetry has no instrument that reads buckets which
//! somebody else filled, so they are put beside what the instruments give, in the form of the reader.

use opentelemetry::KeyValue;
use prometheus::proto::{Bucket, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use super::{services, stat_prefix};
use crate::telemetry::Telemetry;
use crate::telemetry::durations::{BOUNDS_US, BucketCounts, FINER, Outcome, Reading};
use crate::telemetry::services::Row;

/// A histogram of seconds and its points.
#[derive(Debug)]
pub struct Family {
    /// Its name as OpenTelemetry writes it.
    pub name: &'static str,
    /// What it is.
    pub description: &'static str,
    /// One a set of attributes.
    pub points: Vec<Point>,
}

/// The observations with the same attributes.
#[derive(Debug)]
pub struct Point {
    /// What they are about.
    pub attributes: Vec<KeyValue>,
    /// Upper bounds of all buckets but the last, in seconds.
    pub bounds: Vec<f64>,
    /// Observations in each bucket, not cumulative.
    pub counts: Vec<u64>,
    /// Their sum in seconds.
    pub sum: f64,
}

/// All histograms there are.
pub fn families(telemetry: &Telemetry, rows: &[Row]) -> Vec<Family> {
    vec![
        Family {
            name: "gateway.loadbalancer.request.duration",
            description: "From a request on its connection to the end of the response, by instance",
            points: rows.iter().filter_map(of_instance).collect(),
        },
        Family {
            name: "http.client.request.duration",
            description: "Duration of HTTP client requests: those to upstreams",
            points: rows.iter().flat_map(of_client).collect(),
        },
        Family {
            name: "http.server.request.duration",
            description: "Duration of HTTP server requests: those of our clients",
            points: of_server(telemetry),
        },
    ]
}

fn of_instance(row: &Row) -> Option<Point> {
    let mut all = BucketCounts::default();
    row.durations.iter().for_each(|reading| all.add(&reading.buckets));
    (!row.durations.is_empty()).then(|| point(services::attributes(row, true), &all, 0))
}

/// By OpenTelemetry's conventions for HTTP clients.
fn of_client(row: &Row) -> impl Iterator<Item = Point> {
    row.durations.iter().map(|reading| {
        let (address, port) = row.server.clone();
        let mut attributes = of_exchange(reading, 400);
        attributes.push(KeyValue::new("server.address", address));
        attributes.push(KeyValue::new("server.port", i64::from(port)));
        attributes.push(KeyValue::new("service", std::sync::Arc::clone(&row.service)));
        point(attributes, &reading.buckets, FINER)
    })
}

/// By OpenTelemetry's conventions for HTTP servers.
fn of_server(telemetry: &Telemetry) -> Vec<Point> {
    let mut points = Vec::new();
    for (scope, group) in telemetry.groups() {
        let Some(durations) = group.durations() else { continue };
        let prefix = scope.instance.as_deref().unwrap_or_default();
        durations.visit(|reading| {
            let mut attributes = of_exchange(&reading, 500);
            attributes.push(KeyValue::new("url.scheme", "http"));
            attributes.push(stat_prefix(prefix));
            points.push(point(attributes, &reading.buckets, FINER));
        });
    }
    points
}

/// What servers and clients have in common. A status from `error` on is an error.
fn of_exchange(reading: &Reading, error: u16) -> Vec<KeyValue> {
    let Reading { method, version, outcome, buckets: _ } = reading;
    let mut attributes = vec![
        KeyValue::new("http.request.method", *method),
        KeyValue::new("network.protocol.version", *version),
    ];
    if let Some(status) = outcome.status() {
        attributes.push(KeyValue::new("http.response.status_code", i64::from(status)));
    }
    if let Some(kind) = error_type(*outcome, error) {
        attributes.push(KeyValue::new("error.type", kind));
    }
    attributes
}

/// `error.type`: why there was no response or not the whole of it, by the letters of access logs; else
/// its status, if that is an error.
fn error_type(outcome: Outcome, error: u16) -> Option<String> {
    match (outcome.broke(), outcome.status()) {
        (Some(letters), _) => Some(letters.to_owned()),
        (None, Some(status)) if status >= error => Some(status.to_string()),
        (None, _) => None,
    }
}

/// The first buckets that are finer than wanted become one.
fn point(attributes: Vec<KeyValue>, buckets: &BucketCounts, finer: usize) -> Point {
    let seconds = |us: u64| std::time::Duration::from_micros(us).as_secs_f64();
    let (fine, rest) = buckets.counts.split_at(finer + 1);
    let counts = std::iter::once(fine.iter().sum()).chain(rest.iter().copied()).collect();
    let bounds = BOUNDS_US[finer..].iter().map(|bound| seconds(*bound)).collect();
    Point { attributes, bounds, counts, sum: seconds(buckets.sum_us) }
}

impl Family {
    /// In Prometheus' form.
    pub(super) fn prometheus(&self) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(format!("{}_seconds", self.name.replace('.', "_")));
        family.set_help(self.description.to_owned());
        family.set_field_type(MetricType::HISTOGRAM);
        family.set_metric(self.points.iter().map(Point::prometheus).collect());
        family
    }
}

impl Point {
    fn prometheus(&self) -> Metric {
        let label = |attribute: &KeyValue| {
            let mut label = LabelPair::default();
            label.set_name(attribute.key.as_str().replace('.', "_"));
            label.set_value(attribute.value.to_string());
            label
        };
        let mut labels: Vec<LabelPair> = self.attributes.iter().map(label).collect();
        labels.sort();
        let mut sum = 0;
        // The encoder writes the last bucket, which has no bound, itself.
        let buckets = self.counts.iter().zip(&self.bounds).map(|(count, bound)| {
            sum += count;
            let mut bucket = Bucket::default();
            bucket.set_cumulative_count(sum);
            bucket.set_upper_bound(*bound);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_sum(self.sum);
        histogram.set_sample_count(self.counts.iter().sum());
        let mut metric = Metric::from_label(labels);
        metric.set_histogram(histogram);
        metric
    }
}
