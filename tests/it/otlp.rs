//! Metrics pushed to a collector: a story for gRPC and for HTTP, and for collectors that fail.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use flate2::read::GzDecoder;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use parking_lot::Mutex;
use prost::Message;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tonic::codec::CompressionEncoding;
use tonic::transport::server::{Server, TcpIncoming};

use crate::harness::resources::{bootstrap, listener, static_cluster, to};
use crate::harness::{Origin, Proxy, ProxyBuilder, Script, eventually, get, run_in};

/// What a collector was sent; dropping it closes its port.
struct Collector {
    address: SocketAddr,
    told: Told,
    task: AbortHandle,
}

#[derive(Clone, Default)]
struct Told {
    messages: Arc<Mutex<Vec<(HeaderMap, ExportMetricsServiceRequest)>>>,
    refuses: Arc<AtomicBool>,
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Collector {
    async fn grpc() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let told = Told::default();
        let service =
            MetricsServiceServer::new(told.clone()).accept_compressed(CompressionEncoding::Gzip);
        let serve =
            Server::builder().add_service(service).serve_with_incoming(TcpIncoming::from(listener));
        Self { address, told, task: tokio::spawn(serve).abort_handle() }
    }

    async fn http() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let told = Told::default();
        let seen = told.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let told = seen.clone();
                let serve = service_fn(move |request| told.clone().post(request));
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), serve);
                tokio::spawn(connection);
            }
        });
        Self { address, told, task: task.abort_handle() }
    }

    /// The value of a number or the count of a histogram with these attributes, as last pushed.
    fn last(&self, name: &str, attributes: &[(&str, &str)]) -> Option<u64> {
        let messages = self.told.messages.lock();
        let values = messages.iter().flat_map(|(_, message)| values(message, name));
        let is_it = |found: &BTreeMap<String, String>| {
            attributes.iter().all(|(key, value)| found.get(*key).is_some_and(|v| v == value))
        };
        values.filter(|(found, _)| is_it(found)).map(|(_, value)| value).next_back()
    }

    async fn until(&self, name: &str, attributes: &[(&str, &str)], wanted: u64) {
        eventually(&format!("{name} is pushed as {wanted}"), || {
            std::future::ready((self.last(name, attributes) == Some(wanted)).then_some(()))
        })
        .await;
    }
}

impl Told {
    fn add(&self, headers: HeaderMap, message: ExportMetricsServiceRequest) {
        self.messages.lock().push((headers, message));
    }

    async fn post(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
        let (head, body) = request.into_parts();
        let mut body = body.collect().await?.to_bytes().to_vec();
        let answer = |status, body: Vec<u8>| {
            let mut response = Response::new(Full::new(Bytes::from(body)));
            *response.status_mut() = status;
            Ok(response)
        };
        if self.refuses.load(Ordering::SeqCst) {
            return answer(StatusCode::SERVICE_UNAVAILABLE, b"full".to_vec());
        }
        assert_eq!((head.method.as_str(), head.uri.path()), ("POST", "/v1/metrics"));
        assert_eq!(head.headers["content-type"], "application/x-protobuf");
        if head.headers.get("content-encoding").is_some_and(|coding| coding == "gzip") {
            let mut plain = Vec::new();
            GzDecoder::new(&body[..]).read_to_end(&mut plain).unwrap();
            body = plain;
        }
        let message = ExportMetricsServiceRequest::decode(&body[..]).unwrap();
        self.add(head.headers, message);
        answer(StatusCode::OK, ExportMetricsServiceResponse::default().encode_to_vec())
    }
}

#[tonic::async_trait]
impl MetricsService for Told {
    async fn export(
        &self,
        request: tonic::Request<ExportMetricsServiceRequest>,
    ) -> Result<tonic::Response<ExportMetricsServiceResponse>, tonic::Status> {
        if self.refuses.load(Ordering::SeqCst) {
            return Err(tonic::Status::unavailable("full"));
        }
        let (metadata, _, message) = request.into_parts();
        self.add(metadata.into_headers(), message);
        Ok(tonic::Response::new(ExportMetricsServiceResponse::default()))
    }
}

fn text(value: Option<AnyValue>) -> String {
    match value.and_then(|value| value.value) {
        Some(any_value::Value::StringValue(text)) => text,
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        other => panic!("{other:?}"),
    }
}

fn map(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    attributes.iter().map(|a| (a.key.clone(), text(a.value.clone()))).collect()
}

fn values(
    message: &ExportMetricsServiceRequest,
    name: &str,
) -> Vec<(BTreeMap<String, String>, u64)> {
    let metrics = message.resource_metrics.iter().flat_map(|r| &r.scope_metrics);
    let metrics = metrics.flat_map(|scope| &scope.metrics).filter(|metric| metric.name == name);
    let number = |value: Option<Number>| match value {
        Some(Number::AsInt(value)) => u64::try_from(value).unwrap(),
        other => panic!("{other:?}"),
    };
    let mut values = Vec::new();
    for metric in metrics {
        match metric.data.as_ref().unwrap() {
            Data::Sum(sum) => {
                values
                    .extend(sum.data_points.iter().map(|p| (map(&p.attributes), number(p.value))));
            }
            Data::Gauge(gauge) => {
                values.extend(
                    gauge.data_points.iter().map(|p| (map(&p.attributes), number(p.value))),
                );
            }
            Data::Histogram(histogram) => {
                assert_eq!(metric.unit, "s");
                values.extend(histogram.data_points.iter().map(|p| {
                    assert_eq!(p.bucket_counts.iter().sum::<u64>(), p.count);
                    assert_eq!(p.bucket_counts.len(), p.explicit_bounds.len() + 1);
                    (map(&p.attributes), p.count)
                }));
            }
            other => panic!("{other:?}"),
        }
    }
    values
}

/// A proxy that pushes every so many milliseconds, and its origin.
async fn pushing(variables: &[(&str, &str)], interval: &str) -> (Origin, Proxy) {
    let origin = Origin::http1("one").await;
    let bootstrap =
        bootstrap(&[listener("in", &[to("one")])], &[static_cluster("one", &[origin.address])]);
    let mut builder =
        ProxyBuilder::new(bootstrap).variable("OTEL_METRIC_EXPORT_INTERVAL", interval);
    for (name, value) in variables {
        builder = builder.variable(name, value);
    }
    (origin, builder.ready().await)
}

async fn all_of_it_is_pushed(collector: Collector, protocol: &str) {
    let url = format!("http://{}", collector.address);
    let (origin, proxy) = pushing(
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &url),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=s3cret"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_SERVICE_NAME", "edge"),
        ],
        "50",
    )
    .await;
    let address = proxy.listener("in").await;
    for _ in 0..5 {
        assert_eq!(get(address, "/").await.status, 200);
    }
    origin.script(Script::status(404));
    assert_eq!(get(address, "/").await.status, 404);
    let at = origin.address.to_string();
    let of_one = [("service", "one"), ("instance", at.as_str())];
    collector.until("gateway.loadbalancer.requests", &of_one, 6).await;
    collector.until("gateway.loadbalancer.request.duration", &of_one, 6).await;
    collector.until("gateway.loadbalancer.instance_health", &of_one, 1).await;
    collector.until("gateway.connection_pool.active_connections", &of_one, 0).await;
    let ok = [("http.request.method", "GET"), ("http.response.status_code", "200")];
    collector.until("http.server.request.duration", &ok, 5).await;
    let failed = [("http.response.status_code", "404"), ("error.type", "404")];
    collector.until("http.client.request.duration", &failed, 1).await;
    assert_eq!(
        collector.last("http.server.request.duration", &failed),
        None,
        "a server's is no error"
    );

    let messages = collector.told.messages.lock();
    let (headers, message) = messages.last().unwrap();
    assert_eq!(headers["api-key"], "s3cret");
    let resource = map(&message.resource_metrics[0].resource.as_ref().unwrap().attributes);
    assert_eq!(resource["service.name"], "edge");
    assert_eq!(resource["service.version"], env!("CARGO_PKG_VERSION"));
}

#[tokio::test]
async fn a_collector_is_told_over_grpc() {
    all_of_it_is_pushed(Collector::grpc().await, "grpc").await;
}

#[tokio::test]
async fn a_collector_is_told_over_http() {
    all_of_it_is_pushed(Collector::http().await, "http/protobuf").await;
}

async fn a_failure_is_made_good(collector: Collector, protocol: &str) {
    collector.told.refuses.store(true, Ordering::SeqCst);
    let url = format!("http://{}", collector.address);
    let variables =
        [("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()), ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)];
    let (_origin, proxy) = pushing(&variables, "50").await;
    let address = proxy.listener("in").await;
    assert_eq!(get(address, "/").await.status, 200);
    proxy.until_stat_at_least("otlp.push_failures", 3).await;
    assert_eq!(proxy.stat("otlp.pushes").await, 0);
    let log = proxy.until_log("metrics were not pushed").await;
    assert!(log.contains("full"), "{log}");
    collector.told.refuses.store(false, Ordering::SeqCst);
    collector.until("gateway.loadbalancer.requests", &[("service", "one")], 1).await;
    proxy.until_log("metrics are pushed again").await;
    let log = proxy.process.stderr();
    assert_eq!(log.matches("metrics were not pushed").count(), 1, "{log}");
    assert_eq!(get(address, "/").await.status, 200);
}

#[tokio::test]
async fn a_collector_that_refuses_is_told_all_of_it_later() {
    a_failure_is_made_good(Collector::grpc().await, "grpc").await;
    a_failure_is_made_good(Collector::http().await, "http/protobuf").await;
}

#[tokio::test]
async fn a_proxy_that_ends_tells_its_last_numbers() {
    for (collector, protocol) in
        [(Collector::grpc().await, "grpc"), (Collector::http().await, "http/protobuf")]
    {
        let url = format!("http://{}", collector.address);
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
        ];
        let (_origin, mut proxy) = pushing(&variables, "3600000").await;
        let address = proxy.listener("in").await;
        for _ in 0..3 {
            assert_eq!(get(address, "/").await.status, 200);
        }
        assert!(proxy.terminate().await.success());
        assert_eq!(collector.last("gateway.loadbalancer.requests", &[("service", "one")]), Some(3));
    }
}

#[tokio::test]
async fn a_collector_that_does_not_answer_holds_up_neither_traffic_nor_the_end() {
    // It takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let variables =
        [("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()), ("OTEL_EXPORTER_OTLP_TIMEOUT", "100")];
    let (_origin, mut proxy) = pushing(&variables, "50").await;
    let address = proxy.listener("in").await;
    proxy.until_stat_at_least("otlp.push_failures", 2).await;
    let log = proxy.until_log("metrics were not pushed").await;
    assert!(log.contains("no answer within 100ms"), "{log}");
    assert_eq!(get(address, "/").await.status, 200);
    assert!(proxy.terminate().await.success());
}

#[tokio::test]
async fn a_variable_that_cannot_be_honoured_stops_the_start() {
    let bootstrap = bootstrap(&[], &[]).to_string();
    let dir = tempfile::TempDir::new().unwrap();
    let file = dir.path().join("bootstrap.json");
    std::fs::write(&file, bootstrap).unwrap();
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), "https://collector".to_owned())];
    let said = run_in(&variables, ["-c", file.to_str().unwrap()]).await;
    assert_eq!(said.code, Some(1));
    let fault =
        "OTEL_EXPORTER_OTLP_ENDPOINT=\"https://collector\": TLS to a collector is not supported";
    assert!(said.stderr.contains(fault), "{}", said.stderr);
}
