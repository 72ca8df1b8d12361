//! `config.endpoint.v3.ClusterLoadAssignment` to [`Endpoints`].

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use crate::config::{Errors, Fault, OrFault, fields};
use crate::proto::envoy::config::core::v3 as core;
use crate::proto::envoy::config::endpoint::v3 as proto;
use crate::upstream::health::CheckTarget;
use crate::upstream::host::{HealthStatus, Locality, Metadata, Told};
use crate::upstream::hosts::{
    Endpoint, EndpointAddress, EndpointPolicy, Endpoints, LocalityEndpoints,
};

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
    let spread = policy.and_then(|policy| errors.take(endpoint_policy(policy).at("policy")));
    let mut localities = Vec::with_capacity(endpoints.len());
    for (index, group) in endpoints.into_iter().enumerate() {
        localities.extend(errors.take(locality(group, names).index(index).at("endpoints")));
    }
    errors.finish()?;
    let (policy, stale_after) = spread.unwrap_or_default();
    Ok(Endpoints { name: name.unwrap_or_default(), policy, stale_after, localities })
}

fn endpoint_policy(
    proto: proto::cluster_load_assignment::Policy,
) -> Result<(EndpointPolicy, Option<Duration>), Errors> {
    let proto::cluster_load_assignment::Policy {
        drop_overloads,
        overprovisioning_factor,
        endpoint_stale_after,
        weighted_priority_health,
    } = proto;
    let mut errors = Errors::new();
    let factor = overprovisioning_factor.map(|factor| fields::in_range(factor, 1..=u32::MAX));
    let factor = errors.take(factor.transpose().at("overprovisioning_factor")).flatten();
    let stale_after = endpoint_stale_after.map(|after| fields::positive_duration(&after));
    let stale_after = errors.take(stale_after.transpose().at("endpoint_stale_after")).flatten();
    if drop_overloads.len() > 1 {
        let text = format!("{} categories; one can be dropped", drop_overloads.len());
        errors.push("drop_overloads", Fault::unsupported(text));
    }
    let drop = drop_overloads.into_iter().next().map(|drop| {
        let proto::cluster_load_assignment::policy::DropOverload { category, drop_percentage } =
            drop;
        let mut errors = Errors::new();
        errors.take(fields::non_empty(&category).at("category"));
        let share = fields::required(drop_percentage).and_then(|p| fields::per_million(&p));
        let share = errors.take(share.at("drop_percentage"));
        errors.finish().map(|()| share.unwrap_or_default())
    });
    let drop = errors.take(drop.transpose().index(0).at("drop_overloads")).flatten();
    errors.finish()?;
    let default = EndpointPolicy::default();
    let policy = EndpointPolicy {
        overprovisioning_factor: factor.unwrap_or(default.overprovisioning_factor),
        weighted_priority_health,
        drop_per_million: drop.unwrap_or(default.drop_per_million),
    };
    Ok((policy, stale_after))
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
    let locality = Locality::from(locality.unwrap_or_default());
    Ok(LocalityEndpoints { locality: Arc::new(locality), weight, priority, endpoints })
}

impl From<core::Locality> for Locality {
    fn from(proto: core::Locality) -> Self {
        let core::Locality { region, zone, sub_zone } = proto;
        Self { region: region.into(), zone: zone.into(), sub_zone: sub_zone.into() }
    }
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

pub(super) fn health_of(status: core::HealthStatus) -> HealthStatus {
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
