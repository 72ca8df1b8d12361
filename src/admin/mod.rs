//! The admin endpoint: what an operator asks a running process, in Envoy's paths and some of our own, over
//! HTTP/1.1 or HTTP/2. What concerns the caches can be asked by gRPC as well.
//!
//! It runs on the control runtime and only reads, but for the paths that change something, which
//! want POST and go through [`Hooks`]. Long answers are written on a blocking thread, so that a
//! dump of ten thousand clusters holds up no configuration.

mod cache;
mod clusters;
mod config_dump;
mod info;
mod listeners;
mod query;
mod redact;
mod stats;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tower::Service as _;
use tracing::{debug, info, warn};

use crate::control::Control;
use crate::filter::cache::SharedCache;
use crate::filter::kept::Kept;
use crate::proto::envoy::config::core::v3::Node;
use crate::proto::nuncio::service::cache::v1::cache_service_server::CacheServiceServer;
use crate::telemetry::Telemetry;
use crate::telemetry::otel::Otel;
use query::Query;

/// Connections served at once; more wait.
const MOST_CONNECTIONS: usize = 64;
/// How long a client may take to send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// What the paths of gRPC methods begin with.
const GRPC_PATHS: &str = "/nuncio.service.cache.v1.CacheService/";

/// What the admin endpoint can make the server do.
pub trait Hooks: Send + Sync + 'static {
    /// Stops accepting connections; those established drain. `POST /drain_listeners`
    fn drain_listeners(&self);

    /// Ends the process in good order. `POST /quitquitquit`
    fn quit(&self);

    /// The process is about to end, so load balancers should look elsewhere.
    fn is_draining(&self) -> bool {
        false
    }

    /// The workers have taken up the first configuration.
    fn is_serving(&self) -> bool {
        true
    }
}

/// What the admin endpoint shows.
pub struct Admin {
    /// Where configuration is.
    pub control: Control,
    /// Where counts are.
    pub telemetry: Telemetry,
    /// The response caches.
    pub caches: Kept<SharedCache>,
    /// The metrics of `/metrics`.
    pub otel: Arc<Otel>,
    /// What it can make the server do.
    pub hooks: Arc<dyn Hooks>,
    /// The bootstrap as it was read: an `envoy.config.bootstrap.v3.Bootstrap`.
    pub bootstrap: Vec<u8>,
    /// Who we say we are.
    pub node: Node,
    /// Worker threads.
    pub concurrency: usize,
    /// When the process started.
    pub started: Instant,
}

/// The running endpoint. Dropping it closes the port and every connection.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    task: AbortHandle,
}

impl Running {
    /// Where it listens, with the port the system chose.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Binds the endpoint, writes its address to `address_path` if there is one, and starts serving on
/// the present runtime.
///
/// # Errors
/// When the address cannot be bound, or the file cannot be written.
pub async fn start(
    admin: Admin,
    address: SocketAddr,
    address_path: Option<&Path>,
) -> std::io::Result<Running> {
    let refused = |e: std::io::Error| std::io::Error::new(e.kind(), format!("{address}: {e}"));
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let address = listener.local_addr()?;
    if let Some(path) = address_path {
        write_address(path, address)?;
    }
    info!(%address, "admin endpoint");
    let task = tokio::spawn(accept(listener, Arc::new(admin))).abort_handle();
    Ok(Running { address, task })
}

/// Whoever waits for the file must not see half of it.
fn write_address(path: &Path, address: SocketAddr) -> std::io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}", std::process::id()));
    std::fs::write(&temporary, address.to_string())?;
    std::fs::rename(&temporary, path)
}

async fn accept(listener: TcpListener, admin: Arc<Admin>) {
    let permits = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let admin = admin.clone();
                connections.spawn(async move {
                    serve(stream, admin).await;
                    drop(permit);
                });
            }
            Err(error) => {
                warn!(%error, "the admin endpoint cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, admin: Arc<Admin>) {
    let by_grpc = CacheServiceServer::new(cache::Service(admin.clone()));
    let service = service_fn(|request: Request<Incoming>| {
        let (admin, mut by_grpc) = (admin.clone(), by_grpc.clone());
        async move {
            if request.uri().path().starts_with(GRPC_PATHS) {
                return by_grpc.call(request).await.map(|response| response.map(Either::Right));
            }
            Ok::<_, Infallible>(answer(&admin, &request).await.map(Either::Left))
        }
    });
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
        debug!(%error, "admin connection ended");
    }
}

/// An answer, before it is a response.
#[derive(Debug)]
struct Reply {
    status: StatusCode,
    content_type: &'static str,
    body: String,
}

const TEXT: &str = "text/plain; charset=UTF-8";
const JSON: &str = "application/json";

impl Reply {
    fn text(body: impl Into<String>) -> Self {
        Self { status: StatusCode::OK, content_type: TEXT, body: body.into() }
    }

    fn json(value: &serde_json::Value) -> Self {
        Self { content_type: JSON, ..Self::text(format!("{value:#}\n")) }
    }

    fn error(status: StatusCode, body: impl Into<String>) -> Self {
        Self { status, ..Self::text(body) }
    }

    fn unavailable() -> Self {
        Self::error(StatusCode::SERVICE_UNAVAILABLE, "the process is ending\n")
    }
}

/// Every path: whether it changes something, and what it is for.
const PATHS: [(&str, bool, &str); 14] = [
    ("/", false, "this page"),
    ("/cache", false, "what is in the response caches"),
    (
        "/cache/purge",
        true,
        "forget stored responses (?url= | ?prefix= | ?pattern= | ?tag= | ?everything; &soft, &stat_prefix=)",
    ),
    ("/clusters", false, "upstream clusters and their hosts (?format=json)"),
    ("/config_dump", false, "configuration (?include_eds, ?resource=, ?name_regex=)"),
    ("/drain_listeners", true, "close the listeners and drain their connections"),
    ("/help", false, "this page"),
    ("/listeners", false, "listeners and their addresses (?format=json)"),
    ("/metrics", false, "documented metrics in Prometheus' form"),
    ("/quitquitquit", true, "end the process"),
    ("/ready", false, "200 if traffic is served, else 503"),
    ("/server_info", false, "version, state and node"),
    ("/stats", false, "counts (?filter=, ?usedonly, ?format=json|prometheus)"),
    ("/stats/prometheus", false, "counts in Prometheus' form (?filter=, ?usedonly)"),
];

async fn answer(admin: &Arc<Admin>, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let allowed = PATHS.iter().find(|(p, ..)| *p == path).map(|(_, changes, _)| *changes);
    match allowed {
        Some(true) if request.method() != Method::POST => return not_allowed(request, "POST"),
        Some(false) if !matches!(*request.method(), Method::GET | Method::HEAD) => {
            return not_allowed(request, "GET");
        }
        _ => {}
    }
    respond(reply(admin, path, query).await)
}

async fn reply(admin: &Arc<Admin>, path: &str, query: Query) -> Reply {
    match path {
        "/ready" => info::ready(admin),
        "/server_info" => info::server_info(admin),
        "/cache" => cache::show(&admin.caches),
        "/cache/purge" => cache::purge_by_query(&admin.caches, &query).await,
        "/listeners" => listeners::listeners(&admin.control.snapshots().borrow(), &query),
        "/drain_listeners" => {
            admin.hooks.drain_listeners();
            Reply::text("OK\n")
        }
        "/quitquitquit" => {
            admin.hooks.quit();
            Reply::text("OK\n")
        }
        "/" | "/help" => help(),
        "/clusters" | "/config_dump" => {
            let Some(dump) = admin.control.dump().await else { return Reply::unavailable() };
            let snapshot = admin.control.snapshots().borrow().clone();
            let is_clusters = path == "/clusters";
            long(admin, move |admin| match is_clusters {
                true => clusters::clusters(&snapshot, &dump, &query),
                false => config_dump::config_dump(&admin.bootstrap, &dump, &query),
            })
            .await
        }
        "/stats" => long(admin, move |admin| stats::stats(&admin.telemetry, &query)).await,
        "/stats/prometheus" => {
            long(admin, move |admin| stats::prometheus(&admin.telemetry, &query)).await
        }
        "/metrics" => long(admin, |admin| stats::metrics(&admin.otel)).await,
        _ => {
            let Reply { body, .. } = help();
            Reply::error(StatusCode::NOT_FOUND, format!("no such path; there are\n{body}"))
        }
    }
}

/// Writes an answer on a thread that may take its time.
async fn long(admin: &Arc<Admin>, write: impl FnOnce(&Admin) -> Reply + Send + 'static) -> Reply {
    let admin = admin.clone();
    let written = tokio::task::spawn_blocking(move || write(&admin)).await;
    written.unwrap_or_else(|error| {
        Reply::error(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"))
    })
}

fn help() -> Reply {
    let line = |(path, changes, what): &(&str, bool, &str)| {
        format!("  {path}{}: {what}\n", if *changes { " (POST)" } else { "" })
    };
    Reply::text(PATHS.iter().map(line).collect::<String>())
}

fn not_allowed(request: &Request<Incoming>, wanted: &'static str) -> Response<Full<Bytes>> {
    let text = format!("Method {} not allowed, {wanted} required.", request.method());
    let mut response = respond(Reply::error(StatusCode::METHOD_NOT_ALLOWED, text));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(wanted));
    response
}

fn respond(reply: Reply) -> Response<Full<Bytes>> {
    let Reply { status, content_type, body } = reply;
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, max-age=0"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
