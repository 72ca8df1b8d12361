//! The documented metrics as OpenTelemetry instruments, served in Prometheus' form.
//!
//! The cells stay where they are; observable instruments read them when somebody asks. Names are
//! kept stable for dashboards, apart from Envoy's names for the same cells, which
//! [`envoy_view`](super::envoy_view) prints:
//!
//! | metric | attributes | what |
//! |---|---|---|
//! | `gateway_requests_total` | `stat_prefix`, `response_class` | requests answered, by `2xx` and so on |
//! | `http_server_active_requests` | `stat_prefix` | requests without an answer yet |
//! | `gateway_connections_total` | `stat_prefix` | client connections accepted |
//! | `gateway_active_connections` | `stat_prefix` | client connections open |
//! | `gateway_upstream_requests_total` | `cluster` | requests sent; clusters that had any |
//! | `gateway_upstream_active_requests` | `cluster` | requests in flight; the same clusters |
//! | `gateway_cache_hits_total` | `stat_prefix` | requests answered with what was stored |
//! | `gateway_cache_misses_total` | `stat_prefix` | requests for what was not stored |
//! | `gateway_cache_size` | `stat_prefix` | bytes of memory that the cache takes |
//! | `gateway_cache_evictions_total` | `stat_prefix`, `reason` | responses forgotten for want of room or use |
//! | `gateway_cache_invalidations_total` | `stat_prefix`, `kind` | requests and purges that made responses forgotten |
//! | `gateway_cache_requests_total` | `stat_prefix`, `verdict` | requests by what the cache did |
//! | `gateway_cache_uncacheable_total` | `stat_prefix`, `reason` | responses that were not stored |
//! | `gateway_cache_entries` | `stat_prefix` | URLs stored |
//! | `gateway_cache_form_size` | `stat_prefix`, `form` | bytes by form: identity, gzip, on their way |
//! | `gateway_cache_warmings_total` | `stat_prefix`, `result` | attempts to fetch before anybody asks |
//! | `gateway_compression_bodies_total` | `stat_prefix`, `operation`, `library`, `direction` | bodies encoded and decoded |
//! | `gateway_compression_bytes_total` | the same, `side` | bytes into codecs and out of them |
//! | `gateway_compression_failures_total` | the same, `reason` | bodies that did not come to their end |
//! | `gateway_compression_ratio_bucket_total` | the same, `le` | whole bodies by how much smaller they got, cumulative |
//! | `gateway_compression_time_seconds_total` | the same | time that codecs took |
//! | `gateway_compression_active` | the same | bodies under way |
//! | `gateway_compression_skipped_total` | `stat_prefix`, `direction`, `reason` | messages that were not encoded |
//! | `gateway_config_version` | | number of the configuration served |
//! | `gateway_config_age_seconds` | | how long ago it was published |
//!
//! Nothing is global: an [`Otel`] has a meter provider and a registry of its own.

mod cache;
mod compression;

use std::time::SystemTime;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{AsyncInstrument, Meter, MeterProvider};
use opentelemetry_sdk::metrics::{Instrument, SdkMeterProvider, Stream};
use parking_lot::Mutex;
use prometheus::{Registry, TextEncoder};
use thiserror::Error;

use super::metrics::{Cell, StatGroup};
use super::{Scope, Telemetry};

crate::stats! {
    /// What is being served; scope `config`. Control sets it with every snapshot it publishes.
    pub struct ConfigStats {
        /// Number of the snapshot that is served; 0 before the first.
        gauge version,
        /// When it was published or, for one read from disk, accepted: seconds since 1970; 0 before
        /// the first.
        gauge published_unix_s,
    }
}

impl ConfigStats {
    /// The scope of the process's one set of these.
    pub fn scope() -> Scope {
        Scope::global("config")
    }
}

/// Attribute sets an instrument may have: more than there will be clusters. The kit's own limit of
/// 2,000 would fold the rest into one.
const MOST_ATTRIBUTE_SETS: usize = 1_000_000;

/// The instruments and the way to read them. They are made when they are first read, since the kit
/// sets 16 MB aside for them, and a process that is watched another way should not pay for that.
pub struct Otel {
    telemetry: Telemetry,
    pipeline: Mutex<Option<Pipeline>>,
}

struct Pipeline {
    registry: Registry,
    /// The instruments live as long as it does.
    _provider: SdkMeterProvider,
}

/// Why the metrics could not be set up or written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The exporter could not register itself.
    #[error("the metrics exporter could not be set up: {0}")]
    Exporter(#[from] opentelemetry_sdk::error::OTelSdkError),
    /// A metric cannot be written in Prometheus' form.
    #[error("metrics could not be written: {0}")]
    Encoding(#[from] prometheus::Error),
}

impl Otel {
    /// Instruments over the cells of `telemetry`.
    pub fn new(telemetry: &Telemetry) -> Self {
        Self { telemetry: telemetry.clone(), pipeline: Mutex::new(None) }
    }

    /// Reads every instrument: the body of `GET /metrics`, of type `text/plain; version=0.0.4`.
    /// Costs a visit of every group of cells for each instrument.
    ///
    /// # Errors
    /// [`Error::Exporter`] if the exporter cannot be set up, [`Error::Encoding`] if the encoder
    /// refuses a name; nothing of ours can cause either.
    pub fn render(&self) -> Result<String, Error> {
        let mut pipeline = self.pipeline.lock();
        if pipeline.is_none() {
            *pipeline = Some(Pipeline::new(&self.telemetry)?);
        }
        let families = pipeline.as_ref().map(|p| p.registry.gather()).unwrap_or_default();
        Ok(TextEncoder::new().encode_to_string(&families)?)
    }
}

impl Pipeline {
    fn new(telemetry: &Telemetry) -> Result<Self, Error> {
        let registry = Registry::new();
        let exporter = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .scope_info_enabled(false)
            .without_target_info()
            .build()?;
        let every_set = |_: &Instrument| {
            Stream::builder().with_cardinality_limit(MOST_ATTRIBUTE_SETS).build().ok()
        };
        let provider =
            SdkMeterProvider::builder().with_reader(exporter).with_view(every_set).build();
        let meter = provider.meter("nuncio");
        downstream_instruments(&meter, telemetry);
        upstream_instruments(&meter, telemetry);
        cache::instruments(&meter, telemetry);
        compression::instruments(&meter, telemetry);
        config_instruments(&meter, telemetry);
        Ok(Self { registry, _provider: provider })
    }
}

impl std::fmt::Debug for Otel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Otel")
    }
}

fn downstream_instruments(meter: &Meter, telemetry: &Telemetry) {
    let cells = telemetry.clone();
    meter
        .u64_observable_counter("gateway.requests")
        .with_description("Requests answered, by the class of the response's code")
        .with_callback(move |observer| {
            each_cell(&cells, ("http", ""), |prefix, cell, value| {
                let class = match cell {
                    "downstream_rq_1xx" => "1xx",
                    "downstream_rq_2xx" => "2xx",
                    "downstream_rq_3xx" => "3xx",
                    "downstream_rq_4xx" => "4xx",
                    "downstream_rq_5xx" => "5xx",
                    _ => return,
                };
                let attributes = [stat_prefix(prefix), KeyValue::new("response_class", class)];
                observer.observe(count(value), &attributes);
            });
        })
        .build();
    let cells = telemetry.clone();
    meter
        .i64_observable_up_down_counter("http.server.active_requests")
        .with_description("Requests without an answer yet")
        .with_callback(move |observer| observe_level(&cells, "downstream_rq_active", observer))
        .build();
    let cells = telemetry.clone();
    meter
        .u64_observable_counter("gateway.connections")
        .with_description("Client connections accepted")
        .with_callback(move |observer| {
            each_cell(&cells, ("http", ""), |prefix, cell, value| {
                if cell == "downstream_cx_total" {
                    observer.observe(count(value), &[stat_prefix(prefix)]);
                }
            });
        })
        .build();
    let cells = telemetry.clone();
    meter
        .i64_observable_up_down_counter("gateway.active_connections")
        .with_description("Client connections open")
        .with_callback(move |observer| observe_level(&cells, "downstream_cx_active", observer))
        .build();
}

fn upstream_instruments(meter: &Meter, telemetry: &Telemetry) {
    let cells = telemetry.clone();
    meter
        .u64_observable_counter("gateway.upstream.requests")
        .with_description("Requests sent to a cluster that had any")
        .with_callback(move |observer| {
            each_busy_cluster(&cells, |cluster, group| {
                group.visit(&mut |cell, value| {
                    if cell == "upstream_rq_total" {
                        observer.observe(count(value), std::slice::from_ref(cluster));
                    }
                });
            });
        })
        .build();
    let cells = telemetry.clone();
    meter
        .i64_observable_up_down_counter("gateway.upstream.active_requests")
        .with_description("Requests in flight to a cluster that had any")
        .with_callback(move |observer| {
            each_busy_cluster(&cells, |cluster, group| {
                group.visit(&mut |cell, value| {
                    if cell == "upstream_rq_active" {
                        observer.observe(level(value), std::slice::from_ref(cluster));
                    }
                });
            });
        })
        .build();
}

fn config_instruments(meter: &Meter, telemetry: &Telemetry) {
    let config = telemetry.group::<ConfigStats>(ConfigStats::scope());
    meter
        .i64_observable_gauge("gateway.config.version")
        .with_description("Number of the configuration that is served")
        .with_callback(move |observer| observer.observe(config.version.value(), &[]))
        .build();
    let config = telemetry.group::<ConfigStats>(ConfigStats::scope());
    meter
        .i64_observable_gauge("gateway.config.age")
        .with_unit("s")
        .with_description("How long ago the configuration that is served was published")
        .with_callback(move |observer| {
            let published = config.published_unix_s.value();
            if published > 0 {
                observer.observe(unix_now().saturating_sub(published), &[]);
            }
        })
        .build();
}

/// Seconds since 1970, as [`ConfigStats::published_unix_s`] counts them.
pub fn unix_now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn observe_level(telemetry: &Telemetry, wanted: &str, observer: &dyn AsyncInstrument<i64>) {
    each_cell(telemetry, ("http", ""), |prefix, cell, value| {
        if cell == wanted {
            observer.observe(level(value), &[stat_prefix(prefix)]);
        }
    });
}

/// Calls `each` with every cell of a part of the owners of a kind.
fn each_cell(
    telemetry: &Telemetry,
    (kind, part): (&str, &str),
    mut each: impl FnMut(&str, &'static str, Cell<'_>),
) {
    for (scope, group) in telemetry.groups() {
        if scope.kind == kind && scope.part == part {
            let instance = scope.instance.as_deref().unwrap_or_default();
            group.visit(&mut |cell, value| each(instance, cell, value));
        }
    }
}

/// Calls `each` with the attribute and the cells of every cluster that was sent a request.
fn each_busy_cluster(telemetry: &Telemetry, mut each: impl FnMut(&KeyValue, &dyn StatGroup)) {
    for (scope, group) in telemetry.groups() {
        if scope.kind != "cluster" || !scope.part.is_empty() {
            continue;
        }
        let mut busy = false;
        group.visit(&mut |cell, value| busy |= cell == "upstream_rq_total" && count(value) > 0);
        if let Some(name) = scope.instance.filter(|_| busy) {
            each(&KeyValue::new("cluster", name), &*group);
        }
    }
}

fn stat_prefix(prefix: &str) -> KeyValue {
    KeyValue::new("stat_prefix", prefix.to_owned())
}

fn count(cell: Cell<'_>) -> u64 {
    match cell {
        Cell::Counter(counter) => counter.value(),
        Cell::Gauge(gauge) => u64::try_from(gauge.value()).unwrap_or(0),
        Cell::Histogram(histogram) => histogram.value().count(),
    }
}

fn level(cell: Cell<'_>) -> i64 {
    match cell {
        Cell::Gauge(gauge) => gauge.value(),
        cell => i64::try_from(count(cell)).unwrap_or(i64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::stats! {
        struct TestStats {
            counter downstream_rq_2xx,
            counter downstream_rq_5xx,
            counter downstream_cx_total,
            gauge downstream_rq_active,
            gauge downstream_cx_active,
            counter upstream_rq_total,
            gauge upstream_rq_active,
        }
    }

    #[test]
    fn instruments_read_the_cells() {
        let telemetry = Telemetry::default();
        let otel = Otel::new(&telemetry);
        let http = telemetry.group::<TestStats>(Scope::http("main"));
        let config = telemetry.group::<ConfigStats>(ConfigStats::scope());
        config.version.set(7);
        config.published_unix_s.set(unix_now());
        http.downstream_rq_2xx.add(3);
        http.downstream_rq_active.inc();
        let busy = telemetry.group::<TestStats>(Scope::cluster("busy"));
        busy.upstream_rq_total.inc();
        let _idle = telemetry.group::<TestStats>(Scope::cluster("idle"));
        let text = otel.render().unwrap();
        for line in [
            "# TYPE gateway_requests_total counter",
            r#"gateway_requests_total{response_class="2xx",stat_prefix="main"} 3"#,
            r#"gateway_requests_total{response_class="5xx",stat_prefix="main"} 0"#,
            r#"http_server_active_requests{stat_prefix="main"} 1"#,
            r#"gateway_connections_total{stat_prefix="main"} 0"#,
            r#"gateway_active_connections{stat_prefix="main"} 0"#,
            r#"gateway_upstream_requests_total{cluster="busy"} 1"#,
            r#"gateway_upstream_active_requests{cluster="busy"} 0"#,
            "gateway_config_version 7",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        assert!(text.contains("gateway_config_age_seconds "), "{text}");
        assert!(!text.contains("idle"), "{text}");

        http.downstream_rq_2xx.inc();
        drop(busy);
        let text = otel.render().unwrap();
        assert!(text.contains(r#"stat_prefix="main"} 4"#), "{text}");
        assert!(!text.contains("busy"), "{text}");
    }

    #[test]
    fn more_clusters_than_the_kits_limit_stay_apart() {
        let telemetry = Telemetry::default();
        let otel = Otel::new(&telemetry);
        let groups: Vec<_> = (0..2_500)
            .map(|i| telemetry.group::<TestStats>(Scope::cluster(&format!("c{i}"))))
            .collect();
        groups.iter().for_each(|g| g.upstream_rq_total.inc());
        let text = otel.render().unwrap();
        let lines = text.lines().filter(|l| l.starts_with("gateway_upstream_requests_total{"));
        assert_eq!(lines.count(), 2_500);
    }
}
