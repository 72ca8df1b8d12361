//! `config.route.v3.VirtualCluster` to [`VirtualClusters`].

use super::Shared;
use crate::config::matcher::HeaderMatcher;
use crate::config::{Errors, Fault, OrFault, fields};
use crate::proto::envoy::config::route::v3 as proto;
use crate::route::stats::{VirtualCluster, VirtualClusters};
use crate::telemetry::Scope;

/// The virtual clusters of a virtual host, if it has any.
pub(super) fn virtual_clusters(
    host: &str,
    clusters: &[proto::VirtualCluster],
    shared: &Shared<'_>,
) -> Result<Option<Box<VirtualClusters>>, Errors> {
    if clusters.is_empty() {
        return Ok(None);
    }
    let stats = |name: &str| shared.cx.telemetry.group(Scope::virtual_cluster(host, name));
    let mut errors = Errors::new();
    let mut compiled = Vec::with_capacity(clusters.len());
    for (i, cluster) in clusters.iter().enumerate() {
        let proto::VirtualCluster { name, headers } = cluster;
        let mut own = Errors::new();
        own.take(fields::non_empty(name).at("name"));
        if headers.is_empty() {
            own.push("headers", Fault::Required);
        }
        let header = |(i, h)| HeaderMatcher::compile(h).index(i).at("headers");
        let headers = headers.iter().enumerate().map(header);
        let headers = headers.filter_map(|header| own.take(header)).collect();
        match own.finish().index(i).at("virtual_clusters") {
            Ok(()) => compiled.push(VirtualCluster { headers, stats: stats(name) }),
            Err(faults) => drop(errors.take::<()>(Err(faults))),
        }
    }
    errors.finish()?;
    Ok(Some(Box::new(VirtualClusters { clusters: compiled.into(), other: stats("other") })))
}
