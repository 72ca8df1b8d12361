//! `config.route.v3.WeightedCluster`: a route's clusters, each with its share.

use http::HeaderName;
use prost_types::Struct;

use super::action::for_balancing;
use super::{Inherited, LevelFields, Shared, headers, rewrite};
use crate::config::matcher::header_name;
use crate::config::{Errors, Fault, OrFault};
use crate::proto::envoy::config::route::v3 as proto;
use crate::route::action::ClusterSource;
use crate::route::host_rewrite::HostRewrite;

/// A cluster of a weighted route.
pub(super) struct Share {
    /// The sum of the weights up to and with its own.
    pub(super) end: u32,
    pub(super) cluster: ClusterSource,
    pub(super) host: Option<HostRewrite>,
    pub(super) metadata: Option<Struct>,
    pub(super) inherited: Inherited,
}

/// The clusters, and the header that requests bring their number in, if they do.
pub(super) fn compile(
    weighted: proto::WeightedCluster,
    inherited: &Inherited,
    shared: &mut Shared<'_>,
) -> Result<(Vec<Share>, Option<HeaderName>), Errors> {
    use proto::weighted_cluster::RandomValueSpecifier;
    let proto::WeightedCluster { mut clusters, runtime_key_prefix, random_value_specifier } =
        weighted;
    let mut errors = Errors::new();
    let number = random_value_specifier.and_then(|specifier| match specifier {
        RandomValueSpecifier::HeaderName(name) => errors.take(header_name(&name).at("header_name")),
    });
    if !runtime_key_prefix.is_empty() {
        for cluster in &mut clusters {
            let key = format!("{runtime_key_prefix}.{}", cluster.name);
            if let Some(weight) = shared.cx.runtime.whole(&key) {
                cluster.weight = Some(u32::try_from(weight).unwrap_or(u32::MAX));
            }
        }
    }
    if clusters.is_empty() {
        errors.push("clusters", Fault::Required);
    }
    let total: u64 = clusters.iter().map(|cluster| u64::from(cluster.weight.unwrap_or(0))).sum();
    if total > u64::from(u32::MAX) {
        let reason = "the sum of the weights must not exceed 4294967295";
        errors.push("clusters", Fault::invalid(total, reason));
    } else if total == 0 && !clusters.is_empty() {
        let reason = "the sum of the weights must be greater than 0";
        errors.push("clusters", Fault::invalid(total, reason));
    }
    let mut shares = Vec::with_capacity(clusters.len());
    let mut end = 0u32;
    for (i, cluster) in clusters.into_iter().enumerate() {
        // A sum that does not fit is a fault already.
        end = end.saturating_add(cluster.weight.unwrap_or(0));
        let share = cluster_weight(cluster, end, inherited, shared).index(i).at("clusters");
        shares.extend(errors.take(share));
    }
    errors.finish().map(|()| (shares, number))
}

fn cluster_weight(
    cluster: proto::weighted_cluster::ClusterWeight,
    end: u32,
    above: &Inherited,
    shared: &mut Shared<'_>,
) -> Result<Share, Errors> {
    use proto::weighted_cluster::cluster_weight::HostRewriteSpecifier;
    let proto::weighted_cluster::ClusterWeight {
        name,
        weight,
        request_headers_to_add,
        response_headers_to_add,
        response_headers_to_remove,
        request_headers_to_remove,
        typed_per_filter_config,
        cluster_header,
        metadata_match,
        host_rewrite_specifier,
    } = cluster;
    let mut errors = Errors::new();
    if weight.is_none() {
        errors.push("weight", Fault::Required);
    }
    let cluster = errors.take(shared.cluster_or_header(("name", &name), &cluster_header));
    let host = match host_rewrite_specifier {
        None => None,
        Some(HostRewriteSpecifier::HostRewriteLiteral(host)) => {
            errors.take(rewrite::literal_host(&host).at("host_rewrite_literal"))
        }
    };
    let fields = LevelFields {
        headers: headers::Fields {
            request_headers_to_add: &request_headers_to_add,
            request_headers_to_remove: &request_headers_to_remove,
            response_headers_to_add: &response_headers_to_add,
            response_headers_to_remove: &response_headers_to_remove,
        },
        typed_per_filter_config: &typed_per_filter_config,
    };
    let inherited = errors.take(above.below(fields, shared));
    match (cluster, inherited) {
        (Some(cluster), Some(inherited)) if errors.is_empty() => {
            let metadata = metadata_match.and_then(for_balancing);
            Ok(Share { end, cluster, host, metadata, inherited })
        }
        _ => Err(errors),
    }
}
