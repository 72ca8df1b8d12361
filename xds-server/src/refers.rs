//! Which other resources a resource names: what ordering and the consistency check look at.

use std::collections::BTreeSet;
use std::sync::Arc;

use nuncio::proto::any::unpack;
use nuncio::proto::envoy::config::cluster::v3::{Cluster, cluster};
use nuncio::proto::envoy::config::core::v3::ConfigSource;
use nuncio::proto::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use nuncio::proto::envoy::config::listener::v3::{FilterChain, Listener, filter};
use nuncio::proto::envoy::config::route::v3::{
    RouteConfiguration, route, route_action::ClusterSpecifier,
};
use nuncio::proto::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, http_connection_manager::RouteSpecifier,
};
use prost_types::Any;

use crate::types::ResourceType;

/// The names by which a resource refers to others that this server would be asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Refers {
    /// A cluster's endpoints, when they come by EDS from the server of the cluster.
    pub(crate) endpoints: Option<Arc<str>>,
    /// A listener's route tables, when they come by RDS from the server of the listener.
    pub(crate) routes: BTreeSet<Arc<str>>,
    /// The clusters that a route table, on its own or in a listener, forwards to.
    pub(crate) clusters: BTreeSet<Arc<str>>,
}

impl Refers {
    /// Reads the names out of a message. What cannot be decoded refers to nothing: saying what is
    /// wrong with it is the check's business.
    pub(crate) fn of(ty: ResourceType, any: &Any) -> Self {
        let mut refers = Self::default();
        match ty {
            ResourceType::Cluster => {
                refers.endpoints = unpack::<Cluster>(any).ok().and_then(|c| endpoints_of(&c));
            }
            ResourceType::Listener => {
                if let Ok(listener) = unpack::<Listener>(any) {
                    let chains =
                        listener.filter_chains.iter().chain(&listener.default_filter_chain);
                    chains.for_each(|chain| refers.read(chain));
                }
            }
            ResourceType::Route => {
                if let Ok(table) = unpack::<RouteConfiguration>(any) {
                    clusters_of(&table, &mut refers.clusters);
                }
            }
            ResourceType::Endpoint | ResourceType::Secret => {}
        }
        refers
    }

    fn read(&mut self, chain: &FilterChain) {
        for filter in &chain.filters {
            let Some(filter::ConfigType::TypedConfig(config)) = &filter.config_type else {
                continue;
            };
            match unpack::<HttpConnectionManager>(config).ok().and_then(|m| m.route_specifier) {
                Some(RouteSpecifier::Rds(rds)) if is_ours(rds.config_source.as_ref()) => {
                    self.routes.insert(rds.route_config_name.into());
                }
                Some(RouteSpecifier::RouteConfig(table)) => {
                    clusters_of(&table, &mut self.clusters);
                }
                Some(RouteSpecifier::Rds(_)) | None => {}
            }
        }
    }
}

/// Whether a source means the server that the resource itself came from.
fn is_ours(source: Option<&ConfigSource>) -> bool {
    matches!(
        source.and_then(|s| s.config_source_specifier.as_ref()),
        Some(ConfigSourceSpecifier::Ads(_) | ConfigSourceSpecifier::Self_(_))
    )
}

fn endpoints_of(cluster: &Cluster) -> Option<Arc<str>> {
    let eds = cluster.eds_cluster_config.as_ref()?;
    let by_eds = cluster.cluster_discovery_type
        == Some(cluster::ClusterDiscoveryType::Type(cluster::DiscoveryType::Eds.into()));
    if !by_eds || !is_ours(eds.eds_config.as_ref()) {
        return None;
    }
    let name = if eds.service_name.is_empty() { &cluster.name } else { &eds.service_name };
    Some(name.as_str().into())
}

fn clusters_of(table: &RouteConfiguration, names: &mut BTreeSet<Arc<str>>) {
    for route in table.virtual_hosts.iter().flat_map(|host| &host.routes) {
        let Some(route::Action::Route(action)) = &route.action else { continue };
        match &action.cluster_specifier {
            Some(ClusterSpecifier::Cluster(name)) => insert(names, name),
            Some(ClusterSpecifier::WeightedClusters(weighted)) => {
                weighted.clusters.iter().for_each(|c| insert(names, &c.name));
            }
            Some(ClusterSpecifier::ClusterHeader(_)) | None => {}
        }
    }
}

/// A table of thousands of routes names few clusters: look before making a name.
fn insert(names: &mut BTreeSet<Arc<str>>, name: &str) {
    if !names.contains(name) {
        names.insert(name.into());
    }
}
