//! Pools against real origins on the loopback.

mod http1;
mod http1_wire;
mod http2;
mod options;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::UpstreamError;
use crate::exchange::{Body, RequestHead, ResponseHead, RoutingPriority};
use crate::proto::json::from_json;
use crate::upstream::{Cluster, ClusterManager, Clusters, CompileContext, LbContext, LocalCluster};

/// An origin that answers `ok`, but `/wait` only when told to.
struct Origin {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    /// One permit answers one `/wait`.
    answer: Arc<Semaphore>,
    /// Requests that reached it.
    seen: Arc<AtomicUsize>,
}

impl Origin {
    async fn start(http2: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = Self {
            address: listener.local_addr().unwrap(),
            accepted: Arc::default(),
            answer: Arc::new(Semaphore::new(0)),
            seen: Arc::default(),
        };
        let (accepted, answer, seen) =
            (Arc::clone(&origin.accepted), Arc::clone(&origin.answer), Arc::clone(&origin.seen));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                accepted.fetch_add(1, Ordering::SeqCst);
                let (answer, seen) = (Arc::clone(&answer), Arc::clone(&seen));
                let service = service_fn(move |request: http::Request<Incoming>| {
                    let (answer, seen) = (Arc::clone(&answer), Arc::clone(&seen));
                    async move {
                        seen.fetch_add(1, Ordering::SeqCst);
                        if request.uri().path() == "/wait" {
                            answer.acquire().await.unwrap().forget();
                        }
                        let body = request.into_body().collect().await.unwrap();
                        let answer = match body.to_bytes() {
                            empty if empty.is_empty() => Bytes::from_static(b"ok"),
                            echo => echo,
                        };
                        Ok::<_, Infallible>(http::Response::new(Full::new(answer)))
                    }
                });
                let io = TokioIo::new(stream);
                tokio::spawn(async move {
                    let _ = match http2 {
                        true => {
                            hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                                .serve_connection(io, service)
                                .await
                        }
                        false => {
                            hyper::server::conn::http1::Builder::new()
                                .serve_connection(io, service)
                                .await
                        }
                    };
                });
            }
        });
        origin
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

/// A static cluster `c` of one host, with the fields of `with` on top.
fn cluster(address: SocketAddr, with: Value, cx: &CompileContext) -> Arc<Cluster> {
    let endpoint = json!({"endpoint": {"address": {"socket_address":
        {"address": address.ip().to_string(), "port_value": address.port()}}}});
    let mut cluster = json!({"name": "c", "load_assignment":
        {"cluster_name": "c", "endpoints": [{"lb_endpoints": [endpoint]}]}});
    for (key, value) in with.as_object().unwrap() {
        cluster[key] = value.clone();
    }
    Arc::new(Cluster::compile(from_json(cluster).unwrap().message, cx).unwrap())
}

fn clusters(cluster: &Arc<Cluster>) -> Arc<Clusters> {
    Arc::new([Arc::clone(cluster)].into_iter().collect())
}

/// A worker's part of such a cluster; the manager keeps it alive.
fn local(address: SocketAddr, with: Value) -> (ClusterManager, Arc<LocalCluster>) {
    let cluster = cluster(address, with, &CompileContext::default());
    let manager = ClusterManager::new(clusters(&cluster));
    let local = manager.get("c").unwrap();
    (manager, local)
}

fn head(path: &str) -> RequestHead {
    let request = http::Request::builder().uri(path).header("host", "origin.example");
    request.body(()).unwrap().into_parts().0
}

async fn send(
    local: &LocalCluster,
    path: &str,
    body: Body,
) -> Result<(ResponseHead, Body), UpstreamError> {
    let permit = local.admit(RoutingPriority::Default).map_err(|_open| UpstreamError::Overflow)?;
    let host = local.choose(&LbContext::default()).unwrap();
    local.send(&host, permit, head(path), body).await
}

/// The text of the answer.
async fn get(local: &LocalCluster, path: &str) -> Result<String, UpstreamError> {
    let (head, body) = send(local, path, Body::Empty).await?;
    assert_eq!(head.status, 200);
    let body = body.collect().await.unwrap().to_bytes();
    Ok(String::from_utf8(body.to_vec()).unwrap())
}

/// Lets other tasks run until `done`; sockets answer in their own time.
async fn until(done: impl Fn() -> bool) {
    let wait = async {
        while !done() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), wait).await.expect("in time");
}

fn spawn_get(
    local: &Arc<LocalCluster>,
    path: &'static str,
) -> tokio::task::JoinHandle<Result<String, UpstreamError>> {
    let local = Arc::clone(local);
    tokio::spawn(async move { get(&local, path).await })
}

fn assert_nothing_in_use(local: &LocalCluster) {
    use crate::upstream::breaker::Resource;
    let cluster = local.cluster();
    assert_eq!(cluster.stats.upstream_rq_active.value(), 0);
    assert_eq!(cluster.stats.upstream_rq_pending_active.value(), 0);
    for resource in [Resource::Request, Resource::Pending] {
        assert_eq!(cluster.breakers().in_use(RoutingPriority::Default, resource), 0);
    }
    let hosts = cluster.hosts();
    assert!(hosts.iter().all(|host| host.stats.rq_active.value() == 0));
}

#[tokio::test]
async fn requests_given_up_at_any_moment_leave_nothing_behind() {
    for with in [json!({}), json!({"http2_protocol_options": {}})] {
        let origin = Origin::start(with.get("http2_protocol_options").is_some()).await;
        let mut with = with;
        with["circuit_breakers"] = json!({"thresholds": [{"max_connections": 3}]});
        let (_manager, local) = local(origin.address, with);
        for yields in 0..200 {
            let requests: Vec<_> = (0..6).map(|_| spawn_get(&local, "/")).collect();
            for _ in 0..yields % 40 {
                tokio::task::yield_now().await;
            }
            for (index, request) in requests.into_iter().enumerate() {
                match index % 2 {
                    0 => request.abort(),
                    _ => assert_eq!(request.await.unwrap().unwrap(), "ok"),
                }
            }
        }
        assert_eq!(get(&local, "/").await.unwrap(), "ok");
        until(|| local.cluster().stats.upstream_rq_active.value() == 0).await;
        until(|| local.cluster().stats.upstream_cx_active.value() <= 3).await;
        assert_nothing_in_use(&local);
    }
}

/// A request's future is allocated and moved for each request.
#[tokio::test]
async fn the_future_of_an_exchange_is_small() {
    let origin = Origin::start(false).await;
    let (_manager, local) = local(origin.address, json!({}));
    let permit = local.admit(RoutingPriority::Default).unwrap();
    let host = local.choose(&LbContext::default()).unwrap();
    let future = local.send(&host, permit, head("/"), Body::Empty);
    assert!(size_of_val(&future) <= 1_100, "{} bytes", size_of_val(&future));
}
