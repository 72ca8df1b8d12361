//! A management server on a loopback port that does what a test tells it to.

use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use futures_util::Stream;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tonic::metadata::MetadataMap;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

use crate::proto::envoy::service::cluster::v3::cluster_discovery_service_server as cds;
use crate::proto::envoy::service::discovery::v3::aggregated_discovery_service_server as ads;
use crate::proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use crate::proto::envoy::service::endpoint::v3::endpoint_discovery_service_server as eds;

type Outgoing<R> = Pin<Box<dyn Stream<Item = Result<R, Status>> + Send>>;

/// One stream, in the hands of the test. Dropping it ends the stream with status OK.
pub(super) struct Accepted<Q, R> {
    pub(super) service: &'static str,
    pub(super) metadata: MetadataMap,
    requests: Streaming<Q>,
    responses: mpsc::Sender<Result<R, Status>>,
}

impl<Q, R> Accepted<Q, R> {
    pub(super) async fn request(&mut self) -> Q {
        soon(self.requests.message()).await.unwrap().expect("a request")
    }

    /// Whether the client ended the stream.
    pub(super) async fn ended(&mut self) -> bool {
        !matches!(soon(self.requests.message()).await, Ok(Some(_)))
    }

    pub(super) async fn respond(&self, response: R) {
        self.responses.send(Ok(response)).await.unwrap();
    }

    pub(super) async fn fail(self, status: Status) {
        self.responses.send(Err(status)).await.unwrap();
    }
}

/// Waits, but not for ever.
pub(super) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it should have come")
}

pub(super) struct Management {
    pub(super) address: SocketAddr,
    pub(super) sotw: mpsc::Receiver<Accepted<DiscoveryRequest, DiscoveryResponse>>,
    pub(super) delta: mpsc::Receiver<Accepted<DeltaDiscoveryRequest, DeltaDiscoveryResponse>>,
    task: AbortHandle,
}

impl Drop for Management {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Management {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sotw_sender, sotw) = mpsc::channel(8);
        let (delta_sender, delta) = mpsc::channel(8);
        let doors = Doors { sotw: sotw_sender, delta: delta_sender };
        let serving = Server::builder()
            .add_service(ads::AggregatedDiscoveryServiceServer::new(doors.clone()))
            .add_service(cds::ClusterDiscoveryServiceServer::new(doors.clone()))
            .add_service(eds::EndpointDiscoveryServiceServer::new(doors))
            .serve_with_incoming(TcpIncoming::from(listener));
        let task = tokio::spawn(serving).abort_handle();
        Self { address, sotw, delta, task }
    }

    pub(super) fn endpoint(&self) -> Endpoint {
        Endpoint::from_shared(format!("http://{}", self.address)).unwrap()
    }

    pub(super) async fn sotw(&mut self) -> Accepted<DiscoveryRequest, DiscoveryResponse> {
        soon(self.sotw.recv()).await.unwrap()
    }

    pub(super) async fn delta(
        &mut self,
    ) -> Accepted<DeltaDiscoveryRequest, DeltaDiscoveryResponse> {
        soon(self.delta.recv()).await.unwrap()
    }
}

/// Where accepted streams go.
#[derive(Clone)]
struct Doors {
    sotw: mpsc::Sender<Accepted<DiscoveryRequest, DiscoveryResponse>>,
    delta: mpsc::Sender<Accepted<DeltaDiscoveryRequest, DeltaDiscoveryResponse>>,
}

async fn admit<Q, R: Send + 'static>(
    door: &mpsc::Sender<Accepted<Q, R>>,
    service: &'static str,
    request: Request<Streaming<Q>>,
) -> Result<Response<Outgoing<R>>, Status> {
    let (responses, mut outgoing) = mpsc::channel(8);
    let (metadata, _, requests) = request.into_parts();
    let accepted = Accepted { service, metadata, requests, responses };
    door.send(accepted).await.map_err(|error| Status::unavailable(error.to_string()))?;
    let outgoing = futures_util::stream::poll_fn(move |cx| outgoing.poll_recv(cx));
    Ok(Response::new(Box::pin(outgoing)))
}

type SotwIn = Request<Streaming<DiscoveryRequest>>;
type SotwOut = Result<Response<Outgoing<DiscoveryResponse>>, Status>;
type DeltaIn = Request<Streaming<DeltaDiscoveryRequest>>;
type DeltaOut = Result<Response<Outgoing<DeltaDiscoveryResponse>>, Status>;

#[tonic::async_trait]
impl ads::AggregatedDiscoveryService for Doors {
    type StreamAggregatedResourcesStream = Outgoing<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Outgoing<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(&self, request: SotwIn) -> SotwOut {
        admit(&self.sotw, "ADS", request).await
    }

    async fn delta_aggregated_resources(&self, request: DeltaIn) -> DeltaOut {
        admit(&self.delta, "ADS", request).await
    }
}

#[tonic::async_trait]
impl cds::ClusterDiscoveryService for Doors {
    type StreamClustersStream = Outgoing<DiscoveryResponse>;
    type DeltaClustersStream = Outgoing<DeltaDiscoveryResponse>;

    async fn stream_clusters(&self, request: SotwIn) -> SotwOut {
        admit(&self.sotw, "CDS", request).await
    }

    async fn delta_clusters(&self, request: DeltaIn) -> DeltaOut {
        admit(&self.delta, "CDS", request).await
    }
}

#[tonic::async_trait]
impl eds::EndpointDiscoveryService for Doors {
    type StreamEndpointsStream = Outgoing<DiscoveryResponse>;
    type DeltaEndpointsStream = Outgoing<DeltaDiscoveryResponse>;

    async fn stream_endpoints(&self, request: SotwIn) -> SotwOut {
        admit(&self.sotw, "EDS", request).await
    }

    async fn delta_endpoints(&self, request: DeltaIn) -> DeltaOut {
        admit(&self.delta, "EDS", request).await
    }
}
