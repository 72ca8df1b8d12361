//! Checks by a request: `config.core.v3.HealthCheck.HttpHealthCheck`. Connections of their own, so
//! that a pool that is full or broken says nothing about its host.

use std::ops::Range;

use ::http::header::HOST;
use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version};
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::{Asked, HealthStats, IMMEDIATE_FAIL, Kept, Verdict};
use crate::config::matcher::StringMatcher;

const DEGRADED: HeaderName = HeaderName::from_static("x-envoy-degraded");

/// The cluster that a host says it is of.
const CHECKED_CLUSTER: HeaderName =
    HeaderName::from_static("x-envoy-upstream-healthchecked-cluster");

/// An answer's body is read up to this, so that its connection can be used again.
const MOST_BODY: usize = 64 * 1024;

/// A request, and the answers that are good.
#[derive(Debug)]
pub struct HttpCheck {
    /// GET unless set.
    pub method: Method,
    /// The path, with a query if it has one.
    pub path: Uri,
    /// The authority; the cluster's name unless set. An endpoint's own goes before.
    pub host: Option<HeaderValue>,
    /// All others.
    pub headers: HeaderMap,
    /// Statuses of a host that is well; 200 unless set.
    pub expected: Vec<Range<u16>>,
    /// Statuses that are bad only if they come a few times in a row.
    pub retriable: Vec<Range<u16>>,
    /// HTTP/2 with prior knowledge, not HTTP/1.1.
    pub http2: bool,
    /// What the host must call its cluster.
    pub service_name: Option<StringMatcher>,
}

/// A connection and the task that drives it.
pub(super) struct Connection<S> {
    sender: S,
    driver: JoinHandle<()>,
}

pub(super) type Http1 = Connection<http1::SendRequest<Empty<Bytes>>>;
pub(super) type Http2 = Connection<http2::SendRequest<Full<Bytes>>>;

impl<S> Drop for Connection<S> {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl HttpCheck {
    pub(super) async fn run(
        &self,
        asked: &Asked<'_>,
        kept: &mut Kept,
        stats: &HealthStats,
    ) -> Verdict {
        let lost = Verdict::Lost { timeout: false };
        let Some(host) = asked.authority(self.host.as_ref()) else { return lost };
        let answer = match self.http2 {
            true => send_http2(asked, kept, self.request(&host, Full::default())).await,
            false => send_http1(asked, kept, self.request(&host, Empty::new())).await,
        };
        let Some((status, headers)) = answer else { return lost };
        if let Some(name) = &self.service_name {
            let found = headers.get(CHECKED_CLUSTER).map_or(&b""[..], HeaderValue::as_bytes);
            if !name.matches(found) {
                stats.verify_cluster.inc();
                return Verdict::Bad;
            }
        }
        let is_in = |ranges: &[Range<u16>]| ranges.iter().any(|r| r.contains(&status.as_u16()));
        match () {
            () if headers.contains_key(IMMEDIATE_FAIL) => Verdict::Bad,
            () if is_in(&self.expected) => {
                Verdict::Success { degraded: headers.contains_key(DEGRADED) }
            }
            () if is_in(&self.retriable) => lost,
            () => Verdict::Bad,
        }
    }

    fn request<B>(&self, host: &HeaderValue, body: B) -> Request<B> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.path.clone();
        *request.headers_mut() = self.headers.clone();
        request.headers_mut().insert(HOST, host.clone());
        request
    }
}

/// The status and headers of the answer, read to its end.
async fn finish(response: ::http::Response<Incoming>) -> Option<(StatusCode, HeaderMap, bool)> {
    let (head, body) = response.into_parts();
    let whole = Limited::new(body, MOST_BODY).collect().await.is_ok();
    Some((head.status, head.headers, whole))
}

async fn send_http1(
    asked: &Asked<'_>,
    kept: &mut Kept,
    request: Request<Empty<Bytes>>,
) -> Option<(StatusCode, HeaderMap)> {
    let usable = kept.http1.take().filter(|connection| connection.sender.is_ready());
    let mut connection = match usable {
        Some(connection) => connection,
        None => {
            let stream = TcpStream::connect(asked.address).await.ok()?;
            let (sender, driver) = http1::handshake(TokioIo::new(stream)).await.ok()?;
            Connection { sender, driver: tokio::spawn(async move { drop(driver.await) }) }
        }
    };
    let response = connection.sender.send_request(request).await.ok()?;
    let (status, headers, whole) = finish(response).await?;
    if whole {
        kept.http1 = Some(connection);
    }
    Some((status, headers))
}

/// A connection of HTTP/2, a kept one or a new one.
pub(super) async fn http2(asked: &Asked<'_>, kept: &mut Kept) -> Option<Http2> {
    if let Some(connection) = kept.http2.take().filter(|c| !c.sender.is_closed()) {
        return Some(connection);
    }
    let stream = TcpStream::connect(asked.address).await.ok()?;
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (sender, driver) = handshake.ok()?;
    Some(Connection { sender, driver: tokio::spawn(async move { drop(driver.await) }) })
}

/// Sends a request whose target is a path and whose authority is in `Host`.
pub(super) async fn ask_http2(
    connection: &mut Http2,
    mut request: Request<Full<Bytes>>,
) -> Option<::http::Response<Incoming>> {
    let host = request.headers_mut().remove(HOST)?;
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let uri = Uri::builder().scheme("http").authority(host.as_bytes()).path_and_query(path);
    *request.uri_mut() = uri.build().ok()?;
    *request.version_mut() = Version::HTTP_2;
    connection.sender.ready().await.ok()?;
    connection.sender.send_request(request).await.ok()
}

async fn send_http2(
    asked: &Asked<'_>,
    kept: &mut Kept,
    request: Request<Full<Bytes>>,
) -> Option<(StatusCode, HeaderMap)> {
    let mut connection = http2(asked, kept).await?;
    let response = ask_http2(&mut connection, request).await?;
    let (status, headers, _) = finish(response).await?;
    kept.http2 = Some(connection);
    Some((status, headers))
}
