//! Weights that hosts' own load reports make: `client_side_weighted_round_robin`.
//!
//! A host tells its load with its responses (`xds.data.orca.v3.OrcaLoadReport`, in the header
//! `endpoint-load-metrics` as text, JSON or binary, or in `endpoint-load-metrics-bin`). Its weight is
//! the requests it answers for the work it does: `rps / (utilization + penalty * eps / rps)`. Weights
//! are computed anew once a period, on the control runtime; a host without a good one has the median
//! of the others.
//!
//! Differs: reports in trailers are not read.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::{HeaderMap, HeaderName};
use parking_lot::Mutex;
use prost::Message;
use serde::Deserialize;
use tokio::time::{Instant, MissedTickBehavior};

use super::Cluster;
use super::host::Host;

const TEXT: HeaderName = HeaderName::from_static("endpoint-load-metrics");
const BINARY: HeaderName = HeaderName::from_static("endpoint-load-metrics-bin");

/// `ClientSideWeightedRoundRobin`
#[derive(Debug, Clone, PartialEq)]
pub struct LoadReportConfig {
    /// Reports of a host count only after it has reported for so long; 10 s unless set.
    pub blackout_period: Duration,
    /// A report counts for so long; 3 min unless set.
    pub weight_expiration_period: Duration,
    /// How often weights are computed; 1 s unless set, at least 100 ms.
    pub weight_update_period: Duration,
    /// How much errors count; 1 unless set.
    pub error_utilization_penalty: f64,
    /// Which metrics say how busy a host is, if it does not say so itself.
    pub metric_names: Vec<String>,
}

impl Default for LoadReportConfig {
    fn default() -> Self {
        Self {
            blackout_period: Duration::from_secs(10),
            weight_expiration_period: Duration::from_secs(180),
            weight_update_period: Duration::from_secs(1),
            error_utilization_penalty: 1.0,
            metric_names: Vec::new(),
        }
    }
}

/// `xds.data.orca.v3.OrcaLoadReport`, the fields that weights are made of.
#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default)]
struct LoadReport {
    #[prost(double, tag = "1")]
    cpu_utilization: f64,
    #[prost(double, tag = "2")]
    mem_utilization: f64,
    #[prost(map = "string, double", tag = "4")]
    request_cost: HashMap<String, f64>,
    #[prost(map = "string, double", tag = "5")]
    utilization: HashMap<String, f64>,
    #[prost(double, tag = "6")]
    rps_fractional: f64,
    #[prost(double, tag = "7")]
    eps: f64,
    #[prost(map = "string, double", tag = "8")]
    named_metrics: HashMap<String, f64>,
    #[prost(double, tag = "9")]
    application_utilization: f64,
}

/// The reports of one host.
#[derive(Debug, Default)]
pub(super) struct Reports(Mutex<Option<Reported>>);

#[derive(Debug, Clone, Copy)]
struct Reported {
    weight: f64,
    first: Instant,
    last: Instant,
}

impl Reports {
    fn take(&self, weight: f64, now: Instant, expiration: Duration) {
        let mut reported = self.0.lock();
        let first = match *reported {
            Some(before) if now.saturating_duration_since(before.last) <= expiration => {
                before.first
            }
            // After a silence the host has to prove itself again.
            _ => now,
        };
        *reported = Some(Reported { weight, first, last: now });
    }

    fn weight(&self, now: Instant, config: &LoadReportConfig) -> Option<f64> {
        let Reported { weight, first, last } = (*self.0.lock())?;
        let since = |then| now.saturating_duration_since(then);
        (since(first) >= config.blackout_period && since(last) <= config.weight_expiration_period)
            .then_some(weight)
    }
}

impl LoadReport {
    /// The report in a response's head, if there is one that can be read.
    fn of(headers: &HeaderMap) -> Option<Self> {
        if let Some(value) = headers.get(BINARY) {
            return Self::decode(&*BASE64.decode(value.as_bytes()).ok()?).ok();
        }
        let (form, value) = headers.get(TEXT)?.to_str().ok()?.split_once(' ')?;
        match form {
            "BIN" => Self::decode(&*BASE64.decode(value.trim()).ok()?).ok(),
            "JSON" => serde_json::from_str(value).ok(),
            "TEXT" => Self::text(value),
            _ => None,
        }
    }

    /// `cpu_utilization=0.3, named_metrics.queue=2`
    fn text(pairs: &str) -> Option<Self> {
        let mut report = Self::default();
        for pair in pairs.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=')?;
            let value: f64 = value.trim().parse().ok()?;
            match key.trim().split_once('.') {
                Some(("named_metrics", name)) => {
                    report.named_metrics.insert(name.to_owned(), value);
                }
                Some(("utilization", name)) => {
                    report.utilization.insert(name.to_owned(), value);
                }
                Some(("request_cost", name)) => {
                    report.request_cost.insert(name.to_owned(), value);
                }
                Some(_) => return None,
                None => match key.trim() {
                    "cpu_utilization" => report.cpu_utilization = value,
                    "mem_utilization" => report.mem_utilization = value,
                    "application_utilization" => report.application_utilization = value,
                    "rps_fractional" => report.rps_fractional = value,
                    "eps" => report.eps = value,
                    _ => return None,
                },
            }
        }
        Some(report)
    }

    /// The value of `cpu_utilization`, `named_metrics.NAME` and their like.
    fn metric(&self, name: &str) -> Option<f64> {
        match name.split_once('.') {
            Some(("named_metrics", name)) => self.named_metrics.get(name).copied(),
            Some(("utilization", name)) => self.utilization.get(name).copied(),
            Some(("request_cost", name)) => self.request_cost.get(name).copied(),
            Some(_) => None,
            None => match name {
                "cpu_utilization" => Some(self.cpu_utilization),
                "mem_utilization" => Some(self.mem_utilization),
                "application_utilization" => Some(self.application_utilization),
                _ => None,
            },
        }
    }

    /// How much the host is worth. `None` if it does not say enough.
    fn weight(&self, config: &LoadReportConfig) -> Option<f64> {
        let metrics = config.metric_names.iter().filter_map(|name| self.metric(name));
        let utilization = match metrics.fold(0.0, f64::max) {
            _ if self.application_utilization > 0.0 => self.application_utilization,
            named if named > 0.0 => named,
            _ => self.cpu_utilization,
        };
        let penalty = match self.rps_fractional > 0.0 && self.eps > 0.0 {
            true => config.error_utilization_penalty * self.eps / self.rps_fractional,
            false => 0.0,
        };
        let weight = self.rps_fractional / (utilization + penalty);
        (utilization > 0.0 && weight.is_finite() && weight > 0.0).then_some(weight)
    }
}

impl Cluster {
    /// A host answered, perhaps with a report. Costs nothing in a cluster without them.
    pub(super) fn note_load(&self, host: &Host, headers: &HeaderMap) {
        if let Some(config) = &self.lb.load_reports
            && let Some(report) = LoadReport::of(headers)
            && let Some(weight) = report.weight(config)
        {
            host.reports().take(weight, Instant::now(), config.weight_expiration_period);
        }
    }

    /// Computes weights once a period until it is dropped; ends at once without reports. Run it on the
    /// control runtime and abort it when the cluster goes.
    pub(super) async fn weights_task(self: Arc<Self>) {
        let Some(config) = &self.lb.load_reports else { return };
        let mut ticks = tokio::time::interval(config.weight_update_period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let now = ticks.tick().await;
            let hosts: Vec<Arc<Host>> = self.hosts().iter().cloned().collect();
            let reported = |host: &Arc<Host>| host.reports().weight(now, config);
            let weights = with_median(hosts.iter().map(reported).collect());
            let mut changed = false;
            for (host, weight) in hosts.iter().zip(weights) {
                changed |= host.set_reported_weight(weight);
            }
            if changed {
                self.sort_hosts();
            }
        }
    }
}

/// Whole weights of at least 1, the median for hosts without one; nothing if none has one.
fn with_median(weights: Vec<Option<f64>>) -> Vec<Option<u32>> {
    let mut known: Vec<f64> = weights.iter().copied().flatten().collect();
    known.sort_by(f64::total_cmp);
    let median = known.get(known.len() / 2).copied();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is clamped")]
    let whole = |weight: f64| weight.round().clamp(1.0, f64::from(u32::MAX)) as u32;
    weights.into_iter().map(|weight| weight.or(median).map(whole)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    fn of(text: &str) -> Option<f64> {
        LoadReport::of(&headers(TEXT, text))?.weight(&LoadReportConfig::default())
    }

    #[test]
    fn reports_are_read_in_every_form() {
        assert_eq!(of("TEXT cpu_utilization=0.5,rps_fractional=100"), Some(200.0));
        assert_eq!(of(r#"JSON {"cpu_utilization":0.5,"rps_fractional":100,"x":1}"#), Some(200.0));
        let report =
            LoadReport { cpu_utilization: 0.5, rps_fractional: 100.0, ..Default::default() };
        let binary = BASE64.encode(report.encode_to_vec());
        assert_eq!(of(&format!("BIN {binary}")), Some(200.0));
        assert_eq!(LoadReport::of(&headers(BINARY, &binary)), Some(report));
        for rubbish in ["", "TEXT", "TEXT a=b", "TEXT cpu=1", "JSON {", "BIN %", "YAML a: b"] {
            assert_eq!(of(rubbish), None, "{rubbish}");
        }
    }

    #[test]
    fn a_weight_is_requests_by_work() {
        assert_eq!(of("TEXT cpu_utilization=0.2,rps_fractional=100,eps=30"), Some(200.0));
        let own = "TEXT application_utilization=0.5,cpu_utilization=0.1,rps_fractional=10";
        assert_eq!(of(own), Some(20.0));
        for nothing in ["TEXT rps_fractional=5", "TEXT cpu_utilization=0.5", "TEXT "] {
            assert_eq!(of(nothing), None, "{nothing}");
        }
        let named = LoadReportConfig {
            metric_names: vec!["named_metrics.queue".into(), "mem_utilization".into()],
            ..LoadReportConfig::default()
        };
        let report =
            LoadReport::text("named_metrics.queue=0.5,mem_utilization=0.4,rps_fractional=10");
        assert_eq!(report.unwrap().weight(&named), Some(20.0));
    }

    #[test]
    fn reports_count_after_a_while_and_for_a_while() {
        let config = LoadReportConfig::default();
        let (reports, start) = (Reports::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        reports.take(5.0, start, config.weight_expiration_period);
        assert_eq!(reports.weight(at(9), &config), None);
        assert_eq!(reports.weight(at(10), &config), Some(5.0));
        assert_eq!(reports.weight(at(181), &config), None);
        reports.take(6.0, at(200), config.weight_expiration_period);
        assert_eq!(reports.weight(at(201), &config), None, "it begins anew");
    }

    #[test]
    fn who_has_no_weight_has_the_median() {
        assert_eq!(with_median(vec![None, None]), [None, None]);
        let weights = with_median(vec![Some(0.2), None, Some(7.0), Some(9.4)]);
        assert_eq!(weights, [Some(1), Some(7), Some(7), Some(9)]);
    }
}
