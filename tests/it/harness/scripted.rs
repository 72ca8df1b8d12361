//! A management server that does what a test tells it, when it tells it: each stream is in the
//! hands of the test, which reads the requests and writes the responses.

use std::net::SocketAddr;
use std::pin::Pin;

use discovery::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use futures_util::Stream;
use nuncio::proto::envoy::service::cluster::v3::cluster_discovery_service_server as cds;
use nuncio::proto::envoy::service::discovery::v3 as discovery;
use nuncio::proto::envoy::service::discovery::v3::aggregated_discovery_service_server as ads;
use nuncio::proto::envoy::service::endpoint::v3::endpoint_discovery_service_server as eds;
use nuncio::proto::envoy::service::extension::v3::extension_config_discovery_service_server as ecds;
use nuncio::proto::envoy::service::listener::v3::listener_discovery_service_server as lds;
use nuncio::proto::envoy::service::route::v3::route_discovery_service_server as rds;
use nuncio::proto::envoy::service::route::v3::virtual_host_discovery_service_server as vhds;
use nuncio::proto::envoy::service::secret::v3::secret_discovery_service_server as sds;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use super::resources::{any, name_of};
use super::wait::{eventually, soon};

/// A resource type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Cluster,
    Endpoints,
    Listener,
    Extension,
    Routes,
    VirtualHost,
    Secret,
}

impl Kind {
    pub(crate) const ALL: [Self; 7] = [
        Self::Cluster,
        Self::Endpoints,
        Self::Listener,
        Self::Extension,
        Self::Routes,
        Self::VirtualHost,
        Self::Secret,
    ];

    pub(crate) fn message(self) -> &'static str {
        match self {
            Self::Cluster => "envoy.config.cluster.v3.Cluster",
            Self::Endpoints => "envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listener => "envoy.config.listener.v3.Listener",
            Self::Extension => "envoy.config.core.v3.TypedExtensionConfig",
            Self::Routes => "envoy.config.route.v3.RouteConfiguration",
            Self::VirtualHost => "envoy.config.route.v3.VirtualHost",
            Self::Secret => "envoy.extensions.transport_sockets.tls.v3.Secret",
        }
    }

    pub(crate) fn url(self) -> String {
        format!("type.googleapis.com/{}", self.message())
    }

    /// The kind of a type URL.
    pub(crate) fn of(url: &str) -> Self {
        let known = Self::ALL.into_iter().find(|kind| kind.url() == url);
        known.unwrap_or_else(|| panic!("a request of type {url:?}"))
    }
}

/// A state-of-the-world response.
pub(crate) fn sotw(kind: Kind, version: &str, resources: &[Value]) -> DiscoveryResponse {
    DiscoveryResponse {
        version_info: version.to_owned(),
        resources: resources.iter().map(|value| any(kind, value)).collect(),
        type_url: kind.url(),
        nonce: format!("{kind:?}-{version}"),
        ..Default::default()
    }
}

/// A delta response; every resource has the response's version.
pub(crate) fn delta(
    kind: Kind,
    version: &str,
    resources: &[Value],
    removed: &[&str],
) -> DeltaDiscoveryResponse {
    let resource = |value: &Value| Resource {
        name: name_of(kind, value),
        version: version.to_owned(),
        resource: Some(any(kind, value)),
        ..Default::default()
    };
    DeltaDiscoveryResponse {
        system_version_info: version.to_owned(),
        resources: resources.iter().map(resource).collect(),
        type_url: kind.url(),
        nonce: format!("{kind:?}-{version}"),
        removed_resources: removed.iter().map(|name| (*name).to_owned()).collect(),
        ..Default::default()
    }
}

/// What requests of both variants have in common.
pub(crate) trait Question: Send + std::fmt::Debug + 'static {
    fn kind(&self) -> Kind;
    fn nonce(&self) -> &str;
    fn nack(&self) -> Option<&str>;
}

impl Question for DiscoveryRequest {
    fn kind(&self) -> Kind {
        Kind::of(&self.type_url)
    }

    fn nonce(&self) -> &str {
        &self.response_nonce
    }

    fn nack(&self) -> Option<&str> {
        self.error_detail.as_ref().map(|status| &*status.message)
    }
}

impl Question for DeltaDiscoveryRequest {
    fn kind(&self) -> Kind {
        Kind::of(&self.type_url)
    }

    fn nonce(&self) -> &str {
        &self.response_nonce
    }

    fn nack(&self) -> Option<&str> {
        self.error_detail.as_ref().map(|status| &*status.message)
    }
}

/// One stream. Dropping it ends the stream with status OK.
pub(crate) struct Accepted<Q, R> {
    /// The service it was opened at: `ADS`, `CDS`, `EDS`, `LDS`, `ECDS`, ...
    pub(crate) service: &'static str,
    requests: Streaming<Q>,
    responses: mpsc::Sender<Result<R, Status>>,
    /// Requests read while another was looked for.
    skipped: Vec<Q>,
}

impl<Q: Question, R> Accepted<Q, R> {
    /// The next request of a type; those of other types are kept.
    pub(crate) async fn request(&mut self, kind: Kind) -> Q {
        if let Some(at) = self.skipped.iter().position(|q| q.kind() == kind) {
            return self.skipped.remove(at);
        }
        loop {
            let request = soon(&format!("a {kind:?} request"), self.requests.message()).await;
            let request = request.unwrap().expect("the stream goes on");
            if request.kind() == kind {
                return request;
            }
            self.skipped.push(request);
        }
    }

    /// Asserts that no request of a type was sent before the next of another.
    pub(crate) fn nothing_of(&self, kind: Kind) {
        let found: Vec<_> = self.skipped.iter().filter(|q| q.kind() == kind).collect();
        assert!(found.is_empty(), "unexpected {found:?}");
    }

    pub(crate) async fn respond(&self, response: R) {
        self.responses.send(Ok(response)).await.expect("the stream is open");
    }

    pub(crate) async fn fail(self, status: Status) {
        let _ = self.responses.send(Err(status)).await;
    }
}

/// The answer to a response, if it is an ACK.
pub(crate) async fn ack_of<Q: Question, R>(
    stream: &mut Accepted<Q, R>,
    kind: Kind,
    version: &str,
) -> Q {
    let answer = answer_of(stream, kind, version).await;
    assert_eq!(answer.nack(), None, "expected an ACK of {kind:?} {version}");
    answer
}

/// The text of the NACK of a response.
pub(crate) async fn nack_of<Q: Question, R>(
    stream: &mut Accepted<Q, R>,
    kind: Kind,
    version: &str,
) -> (Q, String) {
    let answer = answer_of(stream, kind, version).await;
    let text = answer.nack().map(str::to_owned);
    (answer, text.unwrap_or_else(|| panic!("expected a NACK of {kind:?} {version}")))
}

async fn answer_of<Q: Question, R>(stream: &mut Accepted<Q, R>, kind: Kind, version: &str) -> Q {
    let nonce = format!("{kind:?}-{version}");
    loop {
        let request = stream.request(kind).await;
        if request.nonce() == nonce {
            return request;
        }
    }
}

/// A stream of the state of the world.
pub(crate) type Sotw = Accepted<DiscoveryRequest, DiscoveryResponse>;
/// A delta stream.
pub(crate) type Delta = Accepted<DeltaDiscoveryRequest, DeltaDiscoveryResponse>;

/// A running server, on threads of its own so that it dies whole.
pub(crate) struct Management {
    pub(crate) address: SocketAddr,
    sotw: mpsc::Receiver<Sotw>,
    delta: mpsc::Receiver<Delta>,
    runtime: Option<Runtime>,
}

impl Drop for Management {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Management {
    pub(crate) async fn start() -> Self {
        Self::at(([127, 0, 0, 1], 0).into()).await
    }

    /// On an address that an earlier one may just have left.
    pub(crate) async fn at(address: SocketAddr) -> Self {
        let listener =
            eventually("the address is free", || async { TcpListener::bind(address).await.ok() });
        let listener = listener.await.into_std().unwrap();
        let address = listener.local_addr().unwrap();
        let (sotw_sender, sotw) = mpsc::channel(16);
        let (delta_sender, delta) = mpsc::channel(16);
        let doors = Doors { sotw: sotw_sender, delta: delta_sender };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            Server::builder()
                .add_service(ads::AggregatedDiscoveryServiceServer::new(doors.clone()))
                .add_service(cds::ClusterDiscoveryServiceServer::new(doors.clone()))
                .add_service(eds::EndpointDiscoveryServiceServer::new(doors.clone()))
                .add_service(lds::ListenerDiscoveryServiceServer::new(doors.clone()))
                .add_service(ecds::ExtensionConfigDiscoveryServiceServer::new(doors.clone()))
                .add_service(rds::RouteDiscoveryServiceServer::new(doors.clone()))
                .add_service(vhds::VirtualHostDiscoveryServiceServer::new(doors.clone()))
                .add_service(sds::SecretDiscoveryServiceServer::new(doors))
                .serve_with_incoming(TcpIncoming::from(listener))
                .await
        });
        Self { address, sotw, delta, runtime: Some(runtime) }
    }

    /// The next stream of the state of the world.
    pub(crate) async fn sotw(&mut self) -> Sotw {
        soon("a stream is opened", self.sotw.recv()).await.unwrap()
    }

    /// The next delta stream.
    pub(crate) async fn delta(&mut self) -> Delta {
        soon("a delta stream is opened", self.delta.recv()).await.unwrap()
    }
}

type Outgoing<R> = Pin<Box<dyn Stream<Item = Result<R, Status>> + Send>>;

/// Where accepted streams go.
#[derive(Clone)]
struct Doors {
    sotw: mpsc::Sender<Sotw>,
    delta: mpsc::Sender<Delta>,
}

async fn admit<Q, R: Send + 'static>(
    door: &mpsc::Sender<Accepted<Q, R>>,
    service: &'static str,
    request: Request<Streaming<Q>>,
) -> Result<Response<Outgoing<R>>, Status> {
    let (responses, mut outgoing) = mpsc::channel(64);
    let requests = request.into_inner();
    let accepted = Accepted { service, requests, responses, skipped: Vec::new() };
    door.send(accepted).await.map_err(|_over| Status::unavailable("the test is over"))?;
    let outgoing = futures_util::stream::poll_fn(move |cx| outgoing.poll_recv(cx));
    Ok(Response::new(Box::pin(outgoing)))
}

type SotwIn = Request<Streaming<DiscoveryRequest>>;
type SotwOut = Result<Response<Outgoing<DiscoveryResponse>>, Status>;
type DeltaIn = Request<Streaming<DeltaDiscoveryRequest>>;
type DeltaOut = Result<Response<Outgoing<DeltaDiscoveryResponse>>, Status>;

macro_rules! door {
    ($service:path, $name:literal, $sotw_type:ident $sotw:ident, $delta_type:ident $delta:ident) => {
        #[tonic::async_trait]
        impl $service for Doors {
            type $sotw_type = Outgoing<DiscoveryResponse>;
            type $delta_type = Outgoing<DeltaDiscoveryResponse>;

            async fn $sotw(&self, request: SotwIn) -> SotwOut {
                admit(&self.sotw, $name, request).await
            }

            async fn $delta(&self, request: DeltaIn) -> DeltaOut {
                admit(&self.delta, $name, request).await
            }
        }
    };
}

#[tonic::async_trait]
impl vhds::VirtualHostDiscoveryService for Doors {
    type DeltaVirtualHostsStream = Outgoing<DeltaDiscoveryResponse>;

    async fn delta_virtual_hosts(&self, request: DeltaIn) -> DeltaOut {
        admit(&self.delta, "VHDS", request).await
    }
}

door!(ads::AggregatedDiscoveryService, "ADS",
    StreamAggregatedResourcesStream stream_aggregated_resources,
    DeltaAggregatedResourcesStream delta_aggregated_resources);
door!(cds::ClusterDiscoveryService, "CDS",
    StreamClustersStream stream_clusters, DeltaClustersStream delta_clusters);
door!(eds::EndpointDiscoveryService, "EDS",
    StreamEndpointsStream stream_endpoints, DeltaEndpointsStream delta_endpoints);
door!(lds::ListenerDiscoveryService, "LDS",
    StreamListenersStream stream_listeners, DeltaListenersStream delta_listeners);
door!(ecds::ExtensionConfigDiscoveryService, "ECDS",
    StreamExtensionConfigsStream stream_extension_configs,
    DeltaExtensionConfigsStream delta_extension_configs);
door!(rds::RouteDiscoveryService, "RDS",
    StreamRoutesStream stream_routes, DeltaRoutesStream delta_routes);
door!(sds::SecretDiscoveryService, "SDS",
    StreamSecretsStream stream_secrets, DeltaSecretsStream delta_secrets);
