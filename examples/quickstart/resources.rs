//! The resources of the story, as Envoy's YAML, and how text becomes what is served.

use std::net::SocketAddr;

use nuncio::proto::any::pack;
use nuncio::proto::envoy::config::cluster::v3::Cluster;
use nuncio::proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use nuncio::proto::envoy::config::listener::v3::Listener;
use nuncio::proto::envoy::config::route::v3::RouteConfiguration;
use nuncio::proto::{json, yaml};
use prost::{Message, Name};
use prost_types::Any;

use crate::Failure;

/// The proxy's bootstrap: who it is, and where its configuration comes from.
pub(crate) fn bootstrap(management: SocketAddr) -> String {
    format!(
        r#"
node: {{id: quickstart, cluster: quickstart}}
admin: {{address: {admin}}}
dynamic_resources:
  ads_config:
    api_type: DELTA_GRPC
    transport_api_version: V3
    grpc_services: [{{envoy_grpc: {{cluster_name: management}}}}]
  cds_config: {{ads: {{}}, resource_api_version: V3}}
  lds_config: {{ads: {{}}, resource_api_version: V3}}
static_resources:
  clusters:
  - name: management
    type: STATIC
    connect_timeout: 1s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{http2_protocol_options: {{}}}}
    load_assignment:
      cluster_name: management
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {management}}}}}]}}]
"#,
        admin = address(SocketAddr::from(([127, 0, 0, 1], 0))),
        management = address(management),
    )
}

/// Where the proxy listens; its routes come by name, and port 0 takes a free one.
pub(crate) fn listener() -> Result<Any, Failure> {
    any::<Listener>(&format!(
        r#"
name: public
address: {}
filter_chains:
- filters:
  - name: envoy.filters.network.http_connection_manager
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      stat_prefix: public
      rds: {{route_config_name: public, config_source: {{ads: {{}}, resource_api_version: V3}}}}
      http_filters:
      - name: envoy.filters.http.router
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
"#,
        address(SocketAddr::from(([127, 0, 0, 1], 0)))
    ))
}

/// A cluster whose endpoints the management server tells.
pub(crate) fn cluster(name: &str) -> Result<Any, Failure> {
    any::<Cluster>(&format!(
        "{{name: {name}, type: EDS, connect_timeout: 1s, \
         eds_cluster_config: {{eds_config: {{ads: {{}}, resource_api_version: V3}}}}}}"
    ))
}

/// The endpoints of a cluster, each with its weight.
pub(crate) fn endpoints(cluster: &str, hosts: &[(SocketAddr, u32)]) -> Result<Any, Failure> {
    let hosts: Vec<_> = hosts
        .iter()
        .map(|(host, weight)| {
            let host = address(*host);
            format!("{{endpoint: {{address: {host}}}, load_balancing_weight: {weight}}}")
        })
        .collect();
    any::<ClusterLoadAssignment>(&format!(
        "{{cluster_name: {cluster}, endpoints: [{{lb_endpoints: [{}]}}]}}",
        hosts.join(", ")
    ))
}

/// Routes of every host: those given, then everything else to the cluster `web`.
pub(crate) fn routes(first: &str) -> Result<Any, Failure> {
    any::<RouteConfiguration>(&format!(
        r#"
name: public
virtual_hosts:
- name: any
  domains: ["*"]
  routes: [{first}{{match: {{prefix: /}}, route: {{cluster: web}}}}]
"#
    ))
}

fn address(address: SocketAddr) -> String {
    format!("{{socket_address: {{address: {}, port_value: {}}}}}", address.ip(), address.port())
}

fn any<T: Message + Name + Default>(text: &str) -> Result<Any, Failure> {
    Ok(pack(&json::from_json::<T>(yaml::parse(text)?.value)?.message))
}
