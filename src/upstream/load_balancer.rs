//! A cluster without a proxy around it, for programs that want its balancing, pools and health checks.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::task::AbortHandle;

use super::Cluster;
use super::balancer::{LbContext, NoHost};
use super::breaker::Overflow;
use super::host::{Availability, HealthStatus, Host, Told};
use super::hosts::{Endpoint, EndpointAddress, Endpoints, LocalityEndpoints};
use super::manager::{ClusterManager, LocalCluster};
use super::pool::UpstreamError;
use crate::exchange::{Body, RoutingPriority};

/// Chooses hosts of a cluster, sends requests to them and looks after their health.
///
/// What it does and how is said by Envoy's `Cluster` message: the policy, circuit breakers, health checks,
/// outlier detection, connections. Cheap to share by reference; every method may be called from any
/// thread.
///
/// ```
/// use nuncio::proto::envoy::config::cluster::v3 as proto;
/// use nuncio::upstream::{Cluster, CompileContext, LbContext, LoadBalancer};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// # let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
/// # runtime.block_on(async {
/// // An upstream that answers one request a connection.
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// let address = listener.local_addr()?;
/// tokio::spawn(async move {
///     while let Ok((mut stream, _)) = listener.accept().await {
///         let _ = stream.read(&mut [0; 1024]).await;
///         let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await;
///     }
/// });
///
/// let message = proto::Cluster { name: "users".into(), ..proto::Cluster::default() };
/// let balancer = LoadBalancer::new(Cluster::compile(message, &CompileContext::default())?);
/// assert!(balancer.choose(&LbContext::default()).is_err(), "there is no instance yet");
///
/// balancer.add(address, 1);
/// let host = balancer.choose(&LbContext::default())?;
/// let request = http::Request::get("/").header("host", "users").body(Default::default())?;
/// let response = balancer.send(&host, request).await?;
/// assert_eq!(response.status(), 200);
/// let body = http_body_util::BodyExt::collect(response.into_body()).await?.to_bytes();
/// assert_eq!(body, "hello");
///
/// assert_eq!(host.stats.rq_total.value(), 1);
/// assert_eq!(balancer.cluster().stats.upstream_cx_total.value(), 1);
/// balancer.remove(address);
/// assert!(balancer.choose(&LbContext::default()).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct LoadBalancer {
    local: Arc<LocalCluster>,
    instances: Mutex<Vec<Endpoint>>,
    // Its timer closes idle connections.
    _manager: ClusterManager,
    tasks: AbortHandle,
}

/// Why a request was not sent or not answered.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// A circuit breaker is open.
    #[error(transparent)]
    Overflow(#[from] Overflow),
    /// The upstream gave no answer.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
}

impl LoadBalancer {
    /// A balancer of the instances that the cluster has, to which others can be added. Its health
    /// checks and name resolution run on the present runtime until it is dropped.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(cluster: Cluster) -> Self {
        let cluster = Arc::new(cluster);
        let manager = ClusterManager::new(Arc::default());
        let instances = cluster.hosts().iter().map(instance).collect();
        let tasks = tokio::spawn(Arc::clone(&cluster).run()).abort_handle();
        let local = manager.adopt(&cluster);
        Self { local, instances: Mutex::new(instances), _manager: manager, tasks }
    }

    /// The cluster: its hosts, limits and counts.
    pub fn cluster(&self) -> &Arc<Cluster> {
        self.local.cluster()
    }

    /// Adds an instance, or gives one that is known another weight. The weight is at least 1.
    pub fn add(&self, address: SocketAddr, weight: u32) {
        self.change(|instances| {
            match instances.iter_mut().find(|i| i.address == EndpointAddress::Ip(address)) {
                Some(known) => known.weight = weight.max(1),
                None => instances.push(Endpoint {
                    address: EndpointAddress::Ip(address),
                    hostname: "".into(),
                    health: HealthStatus::Unknown,
                    weight: weight.max(1),
                    told: Told::default(),
                }),
            }
        });
    }

    /// Removes an instance; what it is answering goes on to its end.
    pub fn remove(&self, address: SocketAddr) {
        self.change(|instances| instances.retain(|i| i.address != EndpointAddress::Ip(address)));
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Endpoint>)) {
        let mut instances = self.instances.lock();
        change(&mut instances);
        let locality = LocalityEndpoints {
            locality: Arc::default(),
            weight: 0,
            priority: 0,
            endpoints: instances.clone(),
        };
        self.cluster()
            .set_endpoints(&Endpoints { localities: vec![locality], ..Endpoints::default() });
    }

    /// Waits until every instance that there is was checked once; at once without health checks.
    pub async fn first_checks(&self) {
        self.cluster().first_checks().await;
    }

    /// An instance for a request.
    ///
    /// # Errors
    /// When none can take it.
    pub fn choose(&self, cx: &LbContext<'_>) -> Result<Arc<Host>, NoHost> {
        self.local.choose(cx)
    }

    /// Sends a request to an instance. Its target is a path, its authority a `Host` header. The
    /// connection goes back to its pool when the response's body has ended.
    ///
    /// # Errors
    /// When too much is under way, or there is no answer.
    pub async fn send(
        &self,
        host: &Arc<Host>,
        request: http::Request<Bytes>,
    ) -> Result<http::Response<Body>, SendError> {
        let permit = self.local.admit(RoutingPriority::Default)?;
        let (head, body) = request.into_parts();
        let (head, body) = self.local.send(host, permit, head, body.into()).await?;
        Ok(http::Response::from_parts(head, body))
    }

    /// Whether an instance takes requests, by its health checks and the answers it gave.
    pub fn is_healthy(host: &Host) -> bool {
        host.availability() != Availability::Unhealthy
    }
}

impl Drop for LoadBalancer {
    fn drop(&mut self) {
        self.tasks.abort();
    }
}

fn instance(host: &Arc<Host>) -> Endpoint {
    Endpoint {
        address: EndpointAddress::Ip(host.address()),
        hostname: Arc::clone(host.hostname()),
        health: host.health(),
        weight: host.weight(),
        told: host.told(),
    }
}
