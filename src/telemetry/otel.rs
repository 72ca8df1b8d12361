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
//! | `gateway_loadbalancer_requests_total` | `service`, `instance`, `strategy` | requests given to an instance, each try for itself |
//! | `gateway_loadbalancer_request_duration_seconds` | the same | histogram: from a request on its connection to the end of the response |
//! | `gateway_loadbalancer_instance_health` | the same | 1 if it is well enough to be chosen, else 0 |
//! | `gateway_loadbalancer_active_connections` | the same | requests that it has, each on a connection or stream |
//! | `gateway_connection_pool_total_connections` | `service`, `instance` | connections open or being made |
//! | `gateway_connection_pool_active_connections` | the same | connections that carry requests |
//! | `gateway_connection_pool_idle_connections` | the same | connections that wait for one |
//! | `gateway_connection_pool_errors_total` | the same, `kind` | connections that could not be made (`connect`) or failed under a request (`broken`) |
//! | `gateway_connection_pool_timeouts_total` | the same, `kind` | connections that took too long to be made (`connect`), responses to begin (`response`) |
//! | `http_server_request_duration_seconds` | OpenTelemetry's, `stat_prefix` | histogram: from a request's head to the end of its response |
//! | `http_client_request_duration_seconds` | OpenTelemetry's, `service` | the same of requests to upstreams |
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
pub mod histograms;
mod services;
mod traffic;

use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use opentelemetry::KeyValue;
use opentelemetry::metrics::MeterProvider;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::reader::MetricReader;
use opentelemetry_sdk::metrics::{
    Instrument, InstrumentKind, ManualReader, Pipeline as SdkPipeline, SdkMeterProvider, Stream,
    Temporality,
};
use parking_lot::Mutex;
use prometheus::{Registry, TextEncoder};
use thiserror::Error;

use super::metrics::Cell;
use super::services::Services;
use super::{Scope, Telemetry};
use histograms::Family;
use services::Rows;

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

/// Attribute sets an instrument may have: more than there will be clusters with traffic. The kit's own
/// limit of 2,000 would fold the rest into one, and it sets memory aside for all that there may be.
const MOST_ATTRIBUTE_SETS: usize = 50_000;

/// The instruments and the way to read them. They are made when they are first read, since the kit
/// sets some megabytes aside for them, and a process that is watched another way should not pay for that.
pub struct Otel {
    telemetry: Telemetry,
    services: Box<dyn Services>,
    scraped: Mutex<Option<Pipeline<Registry>>>,
    pushed: Mutex<Option<Pipeline<SharedReader>>>,
}

/// Instruments, and whoever reads them.
struct Pipeline<R> {
    reader: R,
    /// What instruments show of services while they are read.
    rows: Rows,
    /// The instruments live as long as it does.
    _provider: SdkMeterProvider,
}

/// All metrics at one moment.
pub struct Collected {
    /// What the instruments give.
    pub instruments: ResourceMetrics,
    /// The histograms beside them.
    pub histograms: Vec<Family>,
}

/// Why the metrics could not be set up or written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The kit refuses an exporter, or to be read.
    #[error("the metrics could not be read: {0}")]
    Exporter(#[from] OTelSdkError),
    /// A metric cannot be written in Prometheus' form.
    #[error("metrics could not be written: {0}")]
    Encoding(#[from] prometheus::Error),
}

impl Otel {
    /// Instruments over the cells of `telemetry`, and over `services`.
    pub fn new(telemetry: &Telemetry, services: impl Services + 'static) -> Self {
        Self {
            telemetry: telemetry.clone(),
            services: Box::new(services),
            scraped: Mutex::default(),
            pushed: Mutex::default(),
        }
    }

    /// Reads every instrument: the body of `GET /metrics`, of type `text/plain; version=0.0.4`.
    /// Costs a visit of every group of cells for each instrument.
    ///
    /// # Errors
    /// [`Error::Exporter`] if the exporter cannot be set up, [`Error::Encoding`] if the encoder
    /// refuses a name; nothing of ours can cause either.
    pub fn render(&self) -> Result<String, Error> {
        let mut made = self.scraped.lock();
        let pipeline = match &mut *made {
            Some(pipeline) => pipeline,
            none => {
                let registry = Registry::new();
                let exporter = opentelemetry_prometheus::exporter()
                    .with_registry(registry.clone())
                    .scope_info_enabled(false)
                    .without_target_info()
                    .build()?;
                none.insert(Pipeline::new(&self.telemetry, exporter, registry))
            }
        };
        let (mut families, histograms) = self.read(&pipeline.rows, || pipeline.reader.gather());
        let histograms = histograms.iter().filter(|family| !family.points.is_empty());
        families.extend(histograms.map(Family::prometheus));
        Ok(TextEncoder::new().encode_to_string(&families)?)
    }

    /// Reads every instrument, for somebody who passes it on. Costs what [`Otel::render`] does.
    ///
    /// # Errors
    /// [`Error::Exporter`] if the kit fails; nothing of ours can cause it.
    pub fn collect(&self) -> Result<Collected, Error> {
        let mut made = self.pushed.lock();
        let pipeline = made.get_or_insert_with(|| {
            let reader = SharedReader::default();
            Pipeline::new(&self.telemetry, reader.clone(), reader)
        });
        let mut instruments = ResourceMetrics::default();
        let (result, histograms) =
            self.read(&pipeline.rows, || pipeline.reader.collect(&mut instruments));
        result?;
        Ok(Collected { instruments, histograms })
    }

    /// What `read` makes of the instruments, and the histograms of the same moment.
    fn read<T>(&self, shown: &Rows, read: impl FnOnce() -> T) -> (T, Vec<Family>) {
        // Once for all instruments, which are read under a lock.
        let rows = Arc::new(super::services::read(&*self.services));
        shown.store(Arc::clone(&rows));
        let result = read();
        shown.store(Arc::default());
        (result, histograms::families(&self.telemetry, &rows))
    }
}

impl<R> Pipeline<R> {
    fn new(telemetry: &Telemetry, to: impl MetricReader, reader: R) -> Self {
        let rows = Rows::default();
        let every_set = |_: &Instrument| {
            Stream::builder().with_cardinality_limit(MOST_ATTRIBUTE_SETS).build().ok()
        };
        // What the process is called is said by whoever pushes.
        let nobody = Resource::builder_empty().build();
        let provider = SdkMeterProvider::builder()
            .with_resource(nobody)
            .with_reader(to)
            .with_view(every_set)
            .build();
        let meter = provider.meter("nuncio");
        traffic::instruments(&meter, telemetry);
        services::instruments(&meter, &rows);
        cache::instruments(&meter, telemetry);
        compression::instruments(&meter, telemetry);
        Self { reader, rows, _provider: provider }
    }
}

/// A reader that the kit has and we ask.
#[derive(Debug, Clone, Default)]
struct SharedReader(Arc<ManualReader>);

impl MetricReader for SharedReader {
    fn register_pipeline(&self, pipeline: Weak<SdkPipeline>) {
        self.0.register_pipeline(pipeline);
    }

    fn collect(&self, metrics: &mut ResourceMetrics) -> OTelSdkResult {
        self.0.collect(metrics)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn temporality(&self, kind: InstrumentKind) -> Temporality {
        self.0.temporality(kind)
    }
}

impl std::fmt::Debug for Otel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Otel")
    }
}

/// Seconds since 1970, as [`ConfigStats::published_unix_s`] counts them.
pub fn unix_now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
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
        let otel = Otel::new(&telemetry, ());
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
        let otel = Otel::new(&telemetry, ());
        let groups: Vec<_> = (0..2_500)
            .map(|i| telemetry.group::<TestStats>(Scope::cluster(&format!("c{i}"))))
            .collect();
        groups.iter().for_each(|g| g.upstream_rq_total.inc());
        let text = otel.render().unwrap();
        let lines = text.lines().filter(|l| l.starts_with("gateway_upstream_requests_total{"));
        assert_eq!(lines.count(), 2_500);
    }
}
