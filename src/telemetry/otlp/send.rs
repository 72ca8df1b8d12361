//! Sending messages to a collector, over gRPC or HTTP.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT};
use http::{Method, Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use prost::Message;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};

use super::settings::{Protocol, Settings};

/// What collectors and their operators know us by.
const AGENT: &str = concat!("nuncio/", env!("CARGO_PKG_VERSION"));

/// A longer answer is none of a collector.
const LONGEST_ANSWER: usize = 1 << 20;

type HttpClient = Client<HttpConnector, Full<Bytes>>;

/// The way to a collector; the connection is kept.
pub(super) enum Sender {
    Grpc { client: Box<MetricsServiceClient<Channel>>, headers: HeaderMap },
    Http { client: Box<HttpClient>, url: Uri, headers: HeaderMap, gzip: bool },
}

impl Sender {
    /// Connects when it first sends.
    pub(super) fn new(settings: &Settings) -> Result<Self, String> {
        let mut headers = settings.headers.clone();
        Ok(match settings.protocol {
            Protocol::Grpc => {
                let endpoint =
                    Endpoint::from(settings.endpoint.clone()).connect_timeout(settings.timeout);
                let endpoint = endpoint.user_agent(AGENT).map_err(|error| error.to_string())?;
                let mut client = MetricsServiceClient::new(endpoint.connect_lazy());
                if settings.gzip {
                    client = client.send_compressed(CompressionEncoding::Gzip);
                }
                Self::Grpc { client: Box::new(client), headers }
            }
            Protocol::HttpProtobuf => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
                headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(AGENT));
                if settings.gzip {
                    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                }
                let client = Box::new(Client::builder(TokioExecutor::new()).build_http());
                let url = settings.endpoint.clone();
                Self::Http { client, url, headers, gzip: settings.gzip }
            }
        })
    }

    /// Sends a message. The error says why it is not with the collector, or what of it is not.
    pub(super) async fn send(
        &mut self,
        message: ExportMetricsServiceRequest,
    ) -> Result<(), String> {
        let answer = match self {
            Self::Grpc { client, headers } => {
                let metadata = MetadataMap::from_headers(headers.clone());
                let request = tonic::Request::from_parts(metadata, Default::default(), message);
                let answer = client.export(request).await;
                answer
                    .map_err(|status| format!("{:?}: {}", status.code(), status.message()))?
                    .into_inner()
            }
            Self::Http { client, url, headers, gzip } => {
                let mut body = message.encode_to_vec();
                if *gzip {
                    body = compressed(&body).map_err(|error| error.to_string())?;
                }
                let mut request = Request::new(Full::new(Bytes::from(body)));
                *request.method_mut() = Method::POST;
                *request.uri_mut() = url.clone();
                *request.headers_mut() = headers.clone();
                let response = client.request(request).await.map_err(|error| causes(&error))?;
                let (head, body) = response.into_parts();
                let body = Limited::new(body, LONGEST_ANSWER).collect().await;
                let body = body.map_err(|error| error.to_string())?.to_bytes();
                if !head.status.is_success() {
                    let text = String::from_utf8_lossy(&body).chars().take(200).collect::<String>();
                    return Err(format!("{}: {text}", head.status));
                }
                ExportMetricsServiceResponse::decode(body).map_err(|error| error.to_string())?
            }
        };
        match answer.partial_success {
            Some(partial) if partial.rejected_data_points > 0 => Err(format!(
                "{} points were rejected: {}",
                partial.rejected_data_points, partial.error_message
            )),
            _ => Ok(()),
        }
    }
}

/// An error and what it came from.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn compressed(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes)?;
    encoder.finish()
}
