//! The gRPC services: one for all types, one for each, in both variants.

use std::net::SocketAddr;
use std::pin::Pin;

use futures_util::Stream;
use nuncio::proto::envoy::service::cluster::v3::cluster_discovery_service_server as cds;
use nuncio::proto::envoy::service::discovery::v3::aggregated_discovery_service_server as ads;
use nuncio::proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use nuncio::proto::envoy::service::endpoint::v3::endpoint_discovery_service_server as eds;
use nuncio::proto::envoy::service::extension::v3::extension_config_discovery_service_server as ecds;
use nuncio::proto::envoy::service::listener::v3::listener_discovery_service_server as lds;
use nuncio::proto::envoy::service::route::v3::route_discovery_service_server as rds;
use nuncio::proto::envoy::service::route::v3::virtual_host_discovery_service_server as vhds;
use nuncio::proto::envoy::service::secret::v3::secret_discovery_service_server as sds;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming, async_trait};

use crate::delta::Delta;
use crate::machine::Machine;
use crate::sotw::Sotw;
use crate::stream::{Hub, respond};
use crate::types::ResourceType;

/// Ten thousand subscribed names and their versions fit several times over.
const LONGEST_REQUEST_BYTES: usize = 64 << 20;

type Responses<R> = Pin<Box<dyn Stream<Item = Result<R, Status>> + Send>>;

/// One implementation for all services; the service says which type it serves.
#[derive(Debug, Clone)]
struct Service(Hub);

impl Service {
    fn open<M: Machine>(
        &self,
        only: Option<ResourceType>,
        request: Request<Streaming<M::Request>>,
    ) -> Response<Responses<M::Response>> {
        let peer: Option<SocketAddr> = request.remote_addr();
        let requests = request.into_inner();
        Response::new(Box::pin(respond::<M>(self.0.clone(), only, peer, requests)))
    }
}

/// Every service of the server.
pub(crate) fn routes(hub: Hub) -> Routes {
    let service = Service(hub);
    let limit = LONGEST_REQUEST_BYTES;
    let mut routes = Routes::default();
    routes = routes.add_service(
        ads::AggregatedDiscoveryServiceServer::new(service.clone())
            .max_decoding_message_size(limit),
    );
    routes = routes.add_service(
        cds::ClusterDiscoveryServiceServer::new(service.clone()).max_decoding_message_size(limit),
    );
    routes = routes.add_service(
        eds::EndpointDiscoveryServiceServer::new(service.clone()).max_decoding_message_size(limit),
    );
    routes = routes.add_service(
        lds::ListenerDiscoveryServiceServer::new(service.clone()).max_decoding_message_size(limit),
    );
    routes = routes.add_service(
        ecds::ExtensionConfigDiscoveryServiceServer::new(service.clone())
            .max_decoding_message_size(limit),
    );
    routes = routes.add_service(
        rds::RouteDiscoveryServiceServer::new(service.clone()).max_decoding_message_size(limit),
    );
    routes = routes.add_service(
        vhds::VirtualHostDiscoveryServiceServer::new(service.clone())
            .max_decoding_message_size(limit),
    );
    routes.add_service(
        sds::SecretDiscoveryServiceServer::new(service).max_decoding_message_size(limit),
    )
}

/// Implements one service: its trait, its type if it has only one, and the names of its two methods
/// and their streams.
macro_rules! discovery {
    ($service:path, $only:expr, $sotw:ident, $sotw_stream:ident, $delta:ident, $delta_stream:ident) => {
        #[async_trait]
        impl $service for Service {
            type $sotw_stream = Responses<DiscoveryResponse>;
            type $delta_stream = Responses<DeltaDiscoveryResponse>;

            async fn $sotw(
                &self,
                request: Request<Streaming<DiscoveryRequest>>,
            ) -> Result<Response<Self::$sotw_stream>, Status> {
                Ok(self.open::<Sotw>($only, request))
            }

            async fn $delta(
                &self,
                request: Request<Streaming<DeltaDiscoveryRequest>>,
            ) -> Result<Response<Self::$delta_stream>, Status> {
                Ok(self.open::<Delta>($only, request))
            }
        }
    };
}

#[async_trait]
impl vhds::VirtualHostDiscoveryService for Service {
    type DeltaVirtualHostsStream = Responses<DeltaDiscoveryResponse>;

    async fn delta_virtual_hosts(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaVirtualHostsStream>, Status> {
        Ok(self.open::<Delta>(Some(ResourceType::VirtualHost), request))
    }
}

discovery!(
    ads::AggregatedDiscoveryService,
    None,
    stream_aggregated_resources,
    StreamAggregatedResourcesStream,
    delta_aggregated_resources,
    DeltaAggregatedResourcesStream
);
discovery!(
    cds::ClusterDiscoveryService,
    Some(ResourceType::Cluster),
    stream_clusters,
    StreamClustersStream,
    delta_clusters,
    DeltaClustersStream
);
discovery!(
    eds::EndpointDiscoveryService,
    Some(ResourceType::Endpoint),
    stream_endpoints,
    StreamEndpointsStream,
    delta_endpoints,
    DeltaEndpointsStream
);
discovery!(
    lds::ListenerDiscoveryService,
    Some(ResourceType::Listener),
    stream_listeners,
    StreamListenersStream,
    delta_listeners,
    DeltaListenersStream
);
discovery!(
    ecds::ExtensionConfigDiscoveryService,
    Some(ResourceType::Extension),
    stream_extension_configs,
    StreamExtensionConfigsStream,
    delta_extension_configs,
    DeltaExtensionConfigsStream
);
discovery!(
    rds::RouteDiscoveryService,
    Some(ResourceType::Route),
    stream_routes,
    StreamRoutesStream,
    delta_routes,
    DeltaRoutesStream
);
discovery!(
    sds::SecretDiscoveryService,
    Some(ResourceType::Secret),
    stream_secrets,
    StreamSecretsStream,
    delta_secrets,
    DeltaSecretsStream
);
