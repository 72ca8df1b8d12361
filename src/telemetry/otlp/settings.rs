//! Whether, where and how metrics are pushed: OpenTelemetry's environment variables, which its
//! specification of SDK configuration and of the OTLP exporter defines.

use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::uri::{PathAndQuery, Scheme, Uri};
use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use percent_encoding::percent_decode_str;
use thiserror::Error;

/// A collector that has not answered after this has failed: `OTEL_EXPORTER_OTLP_TIMEOUT`.
const TIMEOUT: Duration = Duration::from_secs(10);
/// From one push to the next: `OTEL_METRIC_EXPORT_INTERVAL`.
const INTERVAL: Duration = Duration::from_secs(60);

/// How metrics travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Over gRPC.
    Grpc,
    /// As protobuf in a POST over HTTP/1.1.
    HttpProtobuf,
}

/// Where metrics are pushed to, and how.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How they travel.
    pub protocol: Protocol,
    /// Over HTTP the whole URL; over gRPC the origin.
    pub endpoint: Uri,
    /// What is sent with them, such as a key.
    pub headers: HeaderMap,
    /// How long a push may take.
    pub timeout: Duration,
    /// From one push to the next.
    pub interval: Duration,
    /// Whether they are compressed.
    pub gzip: bool,
    /// Who we say we are.
    pub resource: Resource,
}

/// A variable that cannot be honoured.
#[derive(Debug, PartialEq, Eq, Error)]
#[error("{variable}={value:?}: {fault}")]
pub struct SettingsError {
    variable: String,
    value: String,
    fault: String,
}

/// The variables, those that are empty left out.
struct Variables<R>(R);

impl<R: Fn(&str) -> Option<String>> Variables<R> {
    fn get(&self, name: &str) -> Option<(String, String)> {
        let value = (self.0)(name).map(|value| value.trim().to_owned());
        value.filter(|value| !value.is_empty()).map(|value| (name.to_owned(), value))
    }

    /// What is said of metrics alone goes before what is said of all signals.
    fn of_exporter(&self, name: &str) -> Option<(String, String)> {
        self.get(&format!("OTEL_EXPORTER_OTLP_METRICS_{name}"))
            .or_else(|| self.get(&format!("OTEL_EXPORTER_OTLP_{name}")))
    }

    fn parsed<T>(
        &self,
        variable: Option<(String, String)>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, SettingsError> {
        let Some((variable, value)) = variable else { return Ok(None) };
        match parse(&value) {
            Ok(parsed) => Ok(Some(parsed)),
            Err(fault) => Err(SettingsError { variable, value, fault }),
        }
    }
}

impl Settings {
    /// The settings that the variables say, which `read` gives; none if nothing is to be pushed. A push is
    /// asked for by an endpoint or by `OTEL_METRICS_EXPORTER=otlp`.
    ///
    /// # Errors
    /// The first variable that says what cannot be done.
    pub fn read(
        read: impl Fn(&str) -> Option<String>,
        node: &str,
    ) -> Result<Option<Self>, SettingsError> {
        let variables = Variables(read);
        let disabled = variables.parsed(variables.get("OTEL_SDK_DISABLED"), boolean)?;
        let exporters = variables.parsed(variables.get("OTEL_METRICS_EXPORTER"), exporters)?;
        let has_endpoint = variables.of_exporter("ENDPOINT").is_some();
        if disabled == Some(true) || !exporters.unwrap_or(has_endpoint) {
            return Ok(None);
        }
        let protocol = variables.parsed(variables.of_exporter("PROTOCOL"), protocol)?;
        let protocol = protocol.unwrap_or(Protocol::HttpProtobuf);
        let parse = match protocol {
            Protocol::Grpc => origin,
            Protocol::HttpProtobuf => url,
        };
        let of_metrics = variables.get("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT");
        let of_all = variables.get("OTEL_EXPORTER_OTLP_ENDPOINT");
        let endpoint = match variables.parsed(of_metrics, parse)? {
            Some(endpoint) => endpoint,
            None => match (variables.parsed(of_all, parse)?, protocol) {
                (Some(endpoint), Protocol::Grpc) => endpoint,
                (Some(endpoint), Protocol::HttpProtobuf) => of_signal(&endpoint),
                (None, Protocol::Grpc) => Uri::from_static("http://localhost:4317"),
                (None, Protocol::HttpProtobuf) => {
                    Uri::from_static("http://localhost:4318/v1/metrics")
                }
            },
        };
        let temporality = variables.of_exporter("TEMPORALITY_PREFERENCE");
        variables.parsed(temporality, cumulative)?;
        let aggregation = variables.of_exporter("DEFAULT_HISTOGRAM_AGGREGATION");
        variables.parsed(aggregation, explicit_buckets)?;
        let time = |variable| variables.parsed(variable, milliseconds);
        Ok(Some(Self {
            protocol,
            endpoint,
            headers: variables
                .parsed(variables.of_exporter("HEADERS"), headers)?
                .unwrap_or_default(),
            timeout: time(variables.of_exporter("TIMEOUT"))?.unwrap_or(TIMEOUT),
            interval: time(variables.get("OTEL_METRIC_EXPORT_INTERVAL"))?.unwrap_or(INTERVAL),
            gzip: variables.parsed(variables.of_exporter("COMPRESSION"), gzip)?.unwrap_or(false),
            resource: resource(&variables, node),
        }))
    }
}

fn resource<R: Fn(&str) -> Option<String>>(variables: &Variables<R>, node: &str) -> Resource {
    let mut attributes = vec![
        KeyValue::new("service.name", "nuncio"),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
    ];
    if !node.is_empty() {
        attributes.push(KeyValue::new("service.instance.id", node.to_owned()));
    }
    // The later of two with a key counts.
    let (_, said) = variables.get("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    attributes.extend(pairs(&said).map(|(key, value)| KeyValue::new(key, value)));
    if let Some((_, name)) = variables.get("OTEL_SERVICE_NAME") {
        attributes.push(KeyValue::new("service.name", name));
    }
    Resource::builder_empty().with_attributes(attributes).build()
}

/// `key=value,key=value`, the values percent-encoded. What is no pair is left out, as the specification
/// wants.
fn pairs(text: &str) -> impl Iterator<Item = (String, String)> {
    text.split(',').filter_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        let value = percent_decode_str(value.trim()).decode_utf8_lossy().into_owned();
        (!key.trim().is_empty()).then(|| (key.trim().to_owned(), value))
    })
}

fn boolean(value: &str) -> Result<bool, String> {
    match value.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("is not true or false".to_owned()),
    }
}

/// Whether one of the exporters is ours.
fn exporters(value: &str) -> Result<bool, String> {
    let mut pushes = false;
    for exporter in value.split(',') {
        match exporter.trim() {
            "otlp" => pushes = true,
            // It is always there, on the admin endpoint.
            "prometheus" | "none" => {}
            other => return Err(format!("{other:?} is not one of otlp, prometheus and none")),
        }
    }
    Ok(pushes)
}

fn protocol(value: &str) -> Result<Protocol, String> {
    match value {
        "grpc" => Ok(Protocol::Grpc),
        "http/protobuf" => Ok(Protocol::HttpProtobuf),
        _ => Err("is not supported; use grpc or http/protobuf".to_owned()),
    }
}

/// A URL without a path: methods have their own.
fn origin(value: &str) -> Result<Uri, String> {
    let url = url(value)?;
    match url.path_and_query().map_or("/", PathAndQuery::as_str) {
        "/" => Ok(url),
        path => Err(format!("over gRPC there is no path, and {path:?} is one")),
    }
}

fn url(value: &str) -> Result<Uri, String> {
    let uri: Uri = value.parse().map_err(|error| format!("is not a URL: {error}"))?;
    match uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTP => Ok(uri),
        Some(scheme) if *scheme == Scheme::HTTPS => {
            Err("TLS to a collector is not supported; use http:// to one beside the proxy"
                .to_owned())
        }
        _ => Err("is not a URL; write it as http://HOST:PORT".to_owned()),
    }
}

/// The endpoint of all signals, with the path of this one behind it.
fn of_signal(endpoint: &Uri) -> Uri {
    let path = format!("{}/v1/metrics", endpoint.path().trim_end_matches('/'));
    let mut parts = endpoint.clone().into_parts();
    parts.path_and_query = PathAndQuery::try_from(path).ok();
    // Scheme and authority are there, and a path of a URL with more behind it is one.
    Uri::from_parts(parts).unwrap_or_else(|_| endpoint.clone())
}

fn headers(value: &str) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for pair in value.split(',').filter(|pair| !pair.trim().is_empty()) {
        let mut pair = pairs(pair);
        let (name, value) = pair.next().ok_or("is not NAME=VALUE,NAME=VALUE")?;
        let name: HeaderName = name
            .parse()
            .map_err(|error| format!("{name:?} is not the name of a header: {error}"))?;
        let value = HeaderValue::try_from(value)
            .map_err(|error| format!("the value of {name} cannot be sent: {error}"))?;
        headers.append(name, value);
    }
    Ok(headers)
}

fn milliseconds(value: &str) -> Result<Duration, String> {
    match value.parse::<u64>() {
        Ok(0) | Err(_) => Err("is not a number of milliseconds above 0".to_owned()),
        Ok(ms) => Ok(Duration::from_millis(ms)),
    }
}

fn gzip(value: &str) -> Result<bool, String> {
    match value {
        "gzip" => Ok(true),
        "none" => Ok(false),
        _ => Err("is not gzip or none".to_owned()),
    }
}

fn cumulative(value: &str) -> Result<(), String> {
    match value.eq_ignore_ascii_case("cumulative") {
        true => Ok(()),
        false => Err("is not supported; only cumulative is".to_owned()),
    }
}

fn explicit_buckets(value: &str) -> Result<(), String> {
    match value.eq_ignore_ascii_case("explicit_bucket_histogram") {
        true => Ok(()),
        false => Err("is not supported; only explicit_bucket_histogram is".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::Key;

    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<Settings>, SettingsError> {
        let value = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        Settings::read(value, "edge-1")
    }

    fn settings(variables: &[(&str, &str)]) -> Settings {
        read(variables).unwrap().unwrap()
    }

    #[test]
    fn nothing_is_pushed_unless_somebody_asks() {
        let cases: [&[(&str, &str)]; 6] = [
            &[],
            &[("OTEL_SERVICE_NAME", "edge"), ("OTEL_METRIC_EXPORT_INTERVAL", "1000")],
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")],
            &[("OTEL_METRICS_EXPORTER", "none"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:1")],
            &[
                ("OTEL_METRICS_EXPORTER", "prometheus"),
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:1"),
            ],
            &[("OTEL_SDK_DISABLED", "TRUE"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:1")],
        ];
        for variables in cases {
            assert!(read(variables).unwrap().is_none(), "{variables:?}");
        }
    }

    #[test]
    fn where_to_is_said_for_metrics_or_for_all_signals() {
        let general = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:1/base/");
        let own = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://own:2/in");
        let grpc = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
        let asked = ("OTEL_METRICS_EXPORTER", "otlp,prometheus");
        let cases: [(&[(&str, &str)], &str); 6] = [
            (&[general], "http://all:1/base/v1/metrics"),
            (&[general, own], "http://own:2/in"),
            (&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:1")], "http://all:1/v1/metrics"),
            (&[grpc, ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:1")], "http://all:1/"),
            (&[asked], "http://localhost:4318/v1/metrics"),
            (&[asked, grpc], "http://localhost:4317/"),
        ];
        for (variables, endpoint) in cases {
            assert_eq!(settings(variables).endpoint.to_string(), endpoint, "{variables:?}");
        }
    }

    #[test]
    fn how_is_said_by_the_usual_variables() {
        let settings = settings(&[
            ("OTEL_METRICS_EXPORTER", "otlp"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b, x-team = edge"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "1500"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "5000"),
            ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "Cumulative"),
            (
                "OTEL_RESOURCE_ATTRIBUTES",
                "service.name=x,deployment.environment.name=a%2Cb,rubbish",
            ),
            ("OTEL_SERVICE_NAME", "edge"),
        ]);
        assert_eq!(settings.protocol, Protocol::Grpc);
        assert_eq!(
            (&settings.headers["api-key"], &settings.headers["x-team"]),
            (&HeaderValue::from_static("a b"), &HeaderValue::from_static("edge"),)
        );
        assert_eq!(settings.timeout, Duration::from_millis(1_500));
        assert_eq!(settings.interval, Duration::from_secs(5));
        assert!(settings.gzip);
        let said = |key| settings.resource.get(&Key::new(key)).unwrap().to_string();
        assert_eq!(said("service.name"), "edge");
        assert_eq!(said("deployment.environment.name"), "a,b");
        assert_eq!(said("service.instance.id"), "edge-1");
    }

    #[test]
    fn what_cannot_be_done_is_said_by_name() {
        let cases = [
            ("OTEL_SDK_DISABLED", "yes", "is not true or false"),
            ("OTEL_METRICS_EXPORTER", "console", "\"console\" is not one of otlp"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "use grpc or http/protobuf"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c", "TLS to a collector is not supported"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317", "http://HOST:PORT"),
            ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http:// c", "is not a URL"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "key", "is not NAME=VALUE"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a b=c", "\"a b\" is not the name of a header"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=%0A", "the value of a cannot be sent"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "milliseconds above 0"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "0", "milliseconds above 0"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd", "is not gzip or none"),
            ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta", "only cumulative"),
            (
                "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION",
                "base2_exponential_bucket_histogram",
                "only explicit_bucket_histogram",
            ),
        ];
        let grpc = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
        let error = read(&[grpc, ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:1/v1")]).unwrap_err();
        assert!(error.to_string().contains("over gRPC there is no path"), "{error}");
        for (name, value, fault) in cases {
            let mut variables = vec![(name, value)];
            if name != "OTEL_METRICS_EXPORTER" {
                variables.push(("OTEL_METRICS_EXPORTER", "otlp"));
            }
            let error = read(&variables).unwrap_err().to_string();
            assert!(error.starts_with(name) && error.contains(fault), "{name}={value}: {error}");
        }
    }
}
