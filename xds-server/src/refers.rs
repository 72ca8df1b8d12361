//! Which other resources a resource names: what ordering and the consistency check look at.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nuncio::proto::any::{effective_type, type_name, unpack};
use nuncio::proto::envoy::config::cluster::v3::{Cluster, cluster};
use nuncio::proto::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use nuncio::proto::envoy::config::core::v3::{ConfigSource, TypedExtensionConfig};
use nuncio::proto::envoy::config::listener::v3::{FilterChain, Listener, filter};
use nuncio::proto::envoy::config::route::v3::{
    RouteConfiguration, VirtualHost, route, route_action::ClusterSpecifier,
};
use nuncio::proto::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, http_connection_manager::RouteSpecifier, http_filter,
};
use prost_types::Any;

use crate::hosts::{ON_DEMAND, Place, domains};
use crate::types::ResourceType;

/// The names by which a resource refers to others that this server would be asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Refers {
    /// A cluster's endpoints, when they come by EDS from the server of the cluster.
    pub(crate) endpoints: Option<Arc<str>>,
    /// A listener's route tables, when they come by RDS from the server of the listener.
    pub(crate) routes: BTreeSet<Arc<str>>,
    /// The extensions that a listener's filters are discovered from, when they come by ECDS from the
    /// server of the listener.
    pub(crate) extensions: BTreeMap<Arc<str>, Wanted>,
    /// The type of an extension's configuration.
    pub(crate) config_type: Option<String>,
    /// The clusters that a route table, on its own or in a listener, or a virtual host forwards to.
    pub(crate) clusters: BTreeSet<Arc<str>>,
    /// A listener asks for virtual hosts on demand.
    pub(crate) on_demand: bool,
    /// A route table takes virtual hosts from its own server.
    pub(crate) takes_hosts: bool,
    /// The domains of such a table itself, in lower case.
    pub(crate) domains: BTreeSet<Arc<str>>,
    /// Where a virtual host belongs.
    pub(crate) place: Option<Place>,
}

/// What a listener takes of one extension.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The types of configuration that every filter takes.
    pub(crate) types: BTreeSet<String>,
    /// There is a filter that has nothing to fall back on.
    pub(crate) is_needed: bool,
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
                    clusters_of(&table.virtual_hosts, &mut refers.clusters);
                    let source = table.vhds.map(|vhds| vhds.config_source);
                    refers.takes_hosts = source.is_some_and(|source| is_ours(source.as_ref()));
                    if refers.takes_hosts {
                        refers.domains = table.virtual_hosts.iter().flat_map(domains).collect();
                    }
                }
            }
            ResourceType::VirtualHost => {
                if let Ok(host) = unpack::<VirtualHost>(any) {
                    refers.place = Some(Place::of(&host));
                    clusters_of(&[host], &mut refers.clusters);
                }
            }
            ResourceType::Extension => {
                let config = unpack::<TypedExtensionConfig>(any).ok().and_then(|e| e.typed_config);
                refers.config_type =
                    config.and_then(|config| Some(effective_type(&config).ok()?.into_owned()));
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
            let Ok(manager) = unpack::<HttpConnectionManager>(config) else { continue };
            manager.http_filters.iter().for_each(|filter| self.want(filter));
            self.on_demand |= manager.http_filters.iter().any(is_on_demand);
            match manager.route_specifier {
                Some(RouteSpecifier::Rds(rds)) if is_ours(rds.config_source.as_ref()) => {
                    self.routes.insert(rds.route_config_name.into());
                }
                Some(RouteSpecifier::RouteConfig(table)) => {
                    clusters_of(&table.virtual_hosts, &mut self.clusters);
                }
                Some(RouteSpecifier::Rds(_)) | None => {}
            }
        }
    }

    fn want(&mut self, filter: &HttpFilter) {
        let Some(http_filter::ConfigType::ConfigDiscovery(source)) = &filter.config_type else {
            return;
        };
        if !is_ours(source.config_source.as_ref()) {
            return;
        }
        let types = source.type_urls.iter().map(|url| type_name(url).to_owned()).collect();
        let is_needed = source.default_config.is_none();
        match self.extensions.entry(filter.name.as_str().into()) {
            Entry::Vacant(vacant) => drop(vacant.insert(Wanted { types, is_needed })),
            Entry::Occupied(mut earlier) => {
                let earlier = earlier.get_mut();
                earlier.types.retain(|name| types.contains(name));
                earlier.is_needed |= is_needed;
            }
        }
    }
}

fn is_on_demand(filter: &HttpFilter) -> bool {
    let Some(http_filter::ConfigType::TypedConfig(config)) = &filter.config_type else {
        return false;
    };
    effective_type(config).is_ok_and(|kind| kind == ON_DEMAND)
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

fn clusters_of(hosts: &[VirtualHost], names: &mut BTreeSet<Arc<str>>) {
    for route in hosts.iter().flat_map(|host| &host.routes) {
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
