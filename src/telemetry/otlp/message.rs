//! Metrics as the messages that OTLP sends.

use std::time::SystemTime;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Histogram, HistogramDataPoint, Metric, ResourceMetrics, ScopeMetrics,
};
use opentelemetry_sdk::Resource;

use crate::telemetry::otel::Collected;
use crate::telemetry::otel::histograms::{Family, Point};

/// Points of one message. Collectors refuse messages of more than 4 MiB, and a point has some hundred
/// bytes.
const MOST_POINTS: usize = 4_000;

/// What was collected, as messages of a size that collectors take. `since` is when counting began.
pub(super) fn requests(
    collected: &Collected,
    resource: &Resource,
    since: SystemTime,
) -> Vec<ExportMetricsServiceRequest> {
    let whole = ExportMetricsServiceRequest::from(&collected.instruments);
    let of_scopes = whole.resource_metrics.into_iter().flat_map(|of| of.scope_metrics);
    let mut scope = None;
    let mut metrics = Vec::new();
    for of_scope in of_scopes {
        scope = of_scope.scope.or(scope);
        metrics.extend(of_scope.metrics);
    }
    let now = SystemTime::now();
    let histograms = collected.histograms.iter().filter(|family| !family.points.is_empty());
    metrics.extend(histograms.map(|family| histogram(family, nanos(since), nanos(now))));
    let messages = parts(metrics).into_iter().map(|metrics| ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(resource.into()),
            scope_metrics: vec![ScopeMetrics {
                scope: scope.clone(),
                metrics,
                schema_url: String::new(),
            }],
            schema_url: String::new(),
        }],
    });
    messages.collect()
}

fn histogram(family: &Family, since: u64, now: u64) -> Metric {
    let point = |point: &Point| HistogramDataPoint {
        attributes: point.attributes.iter().map(Into::into).collect(),
        start_time_unix_nano: since,
        time_unix_nano: now,
        count: point.counts.iter().sum(),
        sum: Some(point.sum),
        bucket_counts: point.counts.clone(),
        explicit_bounds: point.bounds.clone(),
        ..HistogramDataPoint::default()
    };
    Metric {
        name: family.name.to_owned(),
        description: family.description.to_owned(),
        unit: "s".to_owned(),
        data: Some(Data::Histogram(Histogram {
            data_points: family.points.iter().map(point).collect(),
            aggregation_temporality: AggregationTemporality::Cumulative.into(),
        })),
        ..Metric::default()
    }
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// The same metrics in lists of not too many points.
fn parts(metrics: Vec<Metric>) -> Vec<Vec<Metric>> {
    let mut parts: Vec<Vec<Metric>> = vec![Vec::new()];
    let mut room = MOST_POINTS;
    for mut metric in metrics {
        loop {
            if room == 0 {
                parts.push(Vec::new());
                room = MOST_POINTS;
            }
            let rest = split_off(&mut metric, room);
            room -= len(&metric).min(room);
            if let Some(part) = parts.last_mut() {
                part.push(metric);
            }
            match rest {
                Some(rest) => metric = rest,
                None => break,
            }
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

/// Keeps the first points of a metric and returns it with the others, if there are any.
fn split_off(metric: &mut Metric, most: usize) -> Option<Metric> {
    if len(metric) <= most {
        return None;
    }
    let mut rest = metric.clone();
    match (&mut metric.data, &mut rest.data) {
        (Some(Data::Gauge(kept)), Some(Data::Gauge(rest))) => {
            rest.data_points = kept.data_points.split_off(most);
        }
        (Some(Data::Sum(kept)), Some(Data::Sum(rest))) => {
            rest.data_points = kept.data_points.split_off(most);
        }
        (Some(Data::Histogram(kept)), Some(Data::Histogram(rest))) => {
            rest.data_points = kept.data_points.split_off(most);
        }
        // There are no others.
        _ => return None,
    }
    Some(rest)
}

fn len(metric: &Metric) -> usize {
    match &metric.data {
        Some(Data::Gauge(gauge)) => gauge.data_points.len(),
        Some(Data::Sum(sum)) => sum.data_points.len(),
        Some(Data::Histogram(histogram)) => histogram.data_points.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::metrics::v1::{Gauge, NumberDataPoint};

    use super::*;

    fn gauge(name: &str, points: u64) -> Metric {
        let point = |i| NumberDataPoint { time_unix_nano: i, ..NumberDataPoint::default() };
        Metric {
            name: name.to_owned(),
            data: Some(Data::Gauge(Gauge { data_points: (0..points).map(point).collect() })),
            ..Metric::default()
        }
    }

    #[test]
    fn many_points_go_in_several_messages_and_none_is_lost() {
        let parts = parts(vec![gauge("a", 10), gauge("b", 9_000), gauge("c", 1)]);
        let told: Vec<Vec<_>> = parts
            .iter()
            .map(|part| part.iter().map(|metric| (metric.name.as_str(), len(metric))).collect())
            .collect();
        let most = MOST_POINTS;
        let expected = [
            vec![("a", 10), ("b", most - 10)],
            vec![("b", most)],
            vec![("b", 9_000 - 2 * most + 10), ("c", 1)],
        ];
        assert_eq!(told, expected);
        assert!(super::parts(Vec::new()).is_empty());
    }
}
