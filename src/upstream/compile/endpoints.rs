//! `config.endpoint.v3.ClusterLoadAssignment` to [`Endpoints`].

use std::sync::Arc;

use http::HeaderValue;

use crate::config::{Errors, Fault, OrFault, fields};
use crate::proto::envoy::config::core::v3 as core;
use crate::proto::envoy::config::endpoint::v3 as proto;
use crate::upstream::health::CheckTarget;
use crate::upstream::host::{HealthStatus, Locality, Metadata, Told};
use crate::upstream::hosts::{Endpoint, EndpointAddress, Endpoints, LocalityEndpoints};

/// The highest priority number: `LocalityLbEndpoints.priority`.
const MAX_PRIORITY: u32 = 128;

impl Endpoints {
    /// Compiles the endpoints of an EDS or static cluster, whose addresses are IP addresses.
    ///
    /// # Errors
    ///
    /// Every fault, with its field's path.
    pub fn compile(proto: proto::ClusterLoadAssignment) -> Result<Self, Errors> {
        compile(proto, false)
    }
}

/// `names`: addresses may be names to resolve.
pub(super) fn compile(
    proto: proto::ClusterLoadAssignment,
    names: bool,
) -> Result<Endpoints, Errors> {
    let proto::ClusterLoadAssignment { cluster_name, endpoints, policy } = proto;
    let mut errors = Errors::new();
    let name = errors.take(fields::non_empty(&cluster_name).at("cluster_name"));
    let mut overprovisioning_factor = 140;
    if let Some(proto::cluster_load_assignment::Policy { overprovisioning_factor: Some(factor) }) =
        policy
    {
        let factor = fields::in_range(factor, 1..=u32::MAX);
        let factor = errors.take(factor.at("overprovisioning_factor").at("policy"));
        overprovisioning_factor = factor.unwrap_or_default();
    }
    let mut localities = Vec::with_capacity(endpoints.len());
    for (index, group) in endpoints.into_iter().enumerate() {
        localities.extend(errors.take(locality(group, names).index(index).at("endpoints")));
    }
    errors.finish()?;
    Ok(Endpoints { name: name.unwrap_or_default(), overprovisioning_factor, localities })
}

fn locality(proto: proto::LocalityLbEndpoints, names: bool) -> Result<LocalityEndpoints, Errors> {
    let proto::LocalityLbEndpoints { locality, lb_endpoints, load_balancing_weight, priority } =
        proto;
    let mut errors = Errors::new();
    let priority = fields::in_range(priority, 0..=MAX_PRIORITY).at("priority");
    let priority = errors.take(priority).unwrap_or_default();
    // 0 gets nothing where locality weights count.
    let weight = load_balancing_weight.map_or(Ok(0), |w| fields::in_range(w, 1..=u32::MAX));
    let weight = errors.take(weight.at("load_balancing_weight")).unwrap_or_default();
    let mut endpoints = Vec::with_capacity(lb_endpoints.len());
    for (index, endpoint) in lb_endpoints.into_iter().enumerate() {
        endpoints.extend(errors.take(lb_endpoint(endpoint, names).index(index).at("lb_endpoints")));
    }
    let total = endpoints.iter().try_fold(0u32, |sum, e: &Endpoint| sum.checked_add(e.weight));
    if total.is_none() {
        let reason = "the weights of a locality must add up to at most 4294967295";
        errors.push("lb_endpoints", Fault::invalid("load_balancing_weight", reason));
    }
    errors.finish()?;
    let core::Locality { region, zone, sub_zone } = locality.unwrap_or_default();
    let locality = Locality { region: region.into(), zone: zone.into(), sub_zone: sub_zone.into() };
    Ok(LocalityEndpoints { locality: Arc::new(locality), weight, priority, endpoints })
}

fn lb_endpoint(proto: proto::LbEndpoint, names: bool) -> Result<Endpoint, Errors> {
    let proto::LbEndpoint { health_status, metadata, load_balancing_weight, host_identifier } =
        proto;
    let mut errors = Errors::new();
    let weight = load_balancing_weight.map_or(Ok(1), |w| fields::in_range(w, 1..=u32::MAX));
    let weight = errors.take(weight.at("load_balancing_weight"));
    let health = errors.take(fields::enumeration(health_status).at("health_status")).map(health_of);
    let endpoint = match host_identifier {
        Some(proto::lb_endpoint::HostIdentifier::Endpoint(endpoint)) => {
            errors.take(address(endpoint, names).at("endpoint"))
        }
        None => {
            errors.push("endpoint", Fault::Required);
            None
        }
    };
    match (weight, health, endpoint) {
        (Some(weight), Some(health), Some((address, hostname, check))) => Ok(Endpoint {
            address,
            hostname,
            health,
            weight,
            told: Told { metadata: metadata.and_then(metadata_of), check },
        }),
        _ => Err(errors),
    }
}

/// An endpoint's address, name, and how to check it.
type Found = (EndpointAddress, Arc<str>, Option<Arc<CheckTarget>>);

fn address(proto: proto::Endpoint, names: bool) -> Result<Found, Errors> {
    let proto::Endpoint { address, health_check_config, hostname } = proto;
    let check = health_check_config.map(check_target).transpose().at("health_check_config")?;
    let address = fields::required(address).at("address")?;
    let address = match names {
        false => fields::socket_addr(&address).at("address").map(EndpointAddress::Ip)?,
        true => {
            let (host, port) = fields::host_port(&address).at("address")?;
            EndpointAddress::Name { host, port }
        }
    };
    Ok((address, hostname.into(), check.flatten()))
}

fn check_target(
    proto: proto::endpoint::HealthCheckConfig,
) -> Result<Option<Arc<CheckTarget>>, Errors> {
    let proto::endpoint::HealthCheckConfig {
        port_value,
        hostname,
        address,
        disable_active_health_check,
    } = proto;
    let port = match port_value {
        0 => None,
        port => Some(fields::port(port).at("port_value")?),
    };
    if HeaderValue::from_str(&hostname).is_err() {
        let fault = Fault::invalid("host name", "it must be fit for a header");
        return Err(Errors::from(fault).at("hostname"));
    }
    let address = address.map(|address| fields::socket_addr(&address).at("address")).transpose()?;
    let target = CheckTarget {
        address,
        port,
        hostname: hostname.into(),
        disabled: disable_active_health_check,
    };
    Ok((target != CheckTarget::default()).then(|| Arc::new(target)))
}

fn health_of(status: core::HealthStatus) -> HealthStatus {
    match status {
        core::HealthStatus::Unknown => HealthStatus::Unknown,
        core::HealthStatus::Healthy => HealthStatus::Healthy,
        core::HealthStatus::Unhealthy => HealthStatus::Unhealthy,
        core::HealthStatus::Draining => HealthStatus::Draining,
        core::HealthStatus::Timeout => HealthStatus::Timeout,
        core::HealthStatus::Degraded => HealthStatus::Degraded,
    }
}

fn metadata_of(proto: core::Metadata) -> Option<Arc<Metadata>> {
    // Typed metadata is for extensions that read it; there is none.
    let core::Metadata { filter_metadata, typed_filter_metadata: _ } = proto;
    (!filter_metadata.is_empty()).then(|| Arc::new(filter_metadata.into_iter().collect()))
}
