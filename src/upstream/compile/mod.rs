//! `config.cluster.v3.Cluster` to [`Cluster`].

mod connection;
mod endpoints;
mod hashing;
mod health;
mod lb;
mod limits;
mod outlier;
mod policies;
mod protocol;
mod subset;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use prost_types::Value;
use prost_types::value::Kind;
use tokio::sync::watch;

use super::balancer::locality::LocalityPolicy;
use super::breaker::Breakers;
use super::dns::{DnsResolver, DnsSettings, FailureRate, LookupFamily};
use super::health::HealthChecks;
use super::hosts::{Endpoints, HostSet};
use super::outlier::Outlier;
use super::zone::LocalZone;
use super::{Cluster, Discovery, EdsConfig};
use crate::config::runtime::Runtime;
use crate::config::{Errors, Fault, OrFault, fields, source};
use crate::proto::any;
use crate::proto::envoy::config::cluster::v3 as proto;
use crate::proto::envoy::config::core::v3 as core;
use crate::proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use crate::proto::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use crate::telemetry::access_log::Sinks;
use crate::telemetry::{Scope, Telemetry};
use proto::cluster::{DiscoveryType, DnsLookupFamily};

/// `dns_refresh_rate` unless set.
const DEFAULT_DNS_REFRESH_RATE: Duration = Duration::from_secs(5);

/// What compiling a cluster needs beside its message.
#[derive(Debug, Clone, Default)]
pub struct CompileContext {
    /// Where its cells are bound.
    pub telemetry: Telemetry,
    /// Resolves the names of DNS clusters; clones share one.
    pub resolver: DnsResolver,
    /// Where events of health checks are written; without it nowhere.
    pub sinks: Option<Sinks>,
    /// Where this proxy runs, if it is said of which cluster it is.
    pub zone: Option<Arc<LocalZone>>,
    /// What goes before the defaults of fields that name a key.
    pub runtime: Arc<Runtime>,
}

impl Cluster {
    /// Compiles a cluster. One with hosts of its own has them at once; one with names, after
    /// [`Cluster::resolve_task`] found them; one over EDS, after [`Cluster::set_endpoints`].
    ///
    /// # Errors
    ///
    /// Every fault, with its field's path.
    pub fn compile(proto: proto::Cluster, cx: &CompileContext) -> Result<Self, Errors> {
        let proto::Cluster {
            name,
            cluster_discovery_type,
            eds_cluster_config,
            connect_timeout,
            lb_policy,
            max_requests_per_connection,
            upstream_connection_options,
            preconnect_policy,
            circuit_breakers,
            outlier_detection,
            health_checks,
            http_protocol_options,
            http2_protocol_options,
            dns_refresh_rate,
            dns_lookup_family,
            transport_socket,
            common_lb_config,
            alt_stat_name,
            common_http_protocol_options,
            ignore_health_on_host_removal: _,
            load_assignment,
            lb_config,
            lb_subset_config,
            typed_extension_protocol_options,
            respect_dns_ttl,
            load_balancing_policy,
            dns_failure_refresh_rate,
            metadata,
        } = proto;
        let mut errors = Errors::new();
        let cluster_name = errors.take(fields::non_empty(&name).at("name"));
        let connection = errors.take(protocol::compile(protocol::Fields {
            connect_timeout,
            max_requests_per_connection,
            upstream_connection_options,
            preconnect_policy,
            common: common_http_protocol_options,
            http1: http_protocol_options,
            http2: http2_protocol_options,
            typed: typed_extension_protocol_options,
        }));
        let lb = lb::Fields {
            lb_policy,
            lb_config,
            common_lb_config,
            lb_subset_config,
            load_balancing_policy,
        };
        let lb = errors.take(lb::compile(lb, &cx.runtime));
        let limits = errors.take(limits::compile(circuit_breakers).at("circuit_breakers"));
        let outlier = outlier_detection
            .and_then(|proto| errors.take(outlier::compile(proto).at("outlier_detection")));
        let checks = errors.take(health::compile(health_checks, cx.sinks.as_ref())).flatten();
        errors.take(transport(transport_socket).at("transport_socket"));
        let strategy = errors.take(strategy(metadata).at("metadata")).flatten();
        let dns =
            errors.take(dns_fields(dns_refresh_rate, dns_failure_refresh_rate, dns_lookup_family));
        let found = errors.take(discovery(
            cluster_discovery_type,
            &name,
            Sources { eds: eds_cluster_config, load_assignment },
        ));
        let (Some(name), Some(connection), Some(lb), Some(limits), Some(dns), Some(found)) =
            (cluster_name, connection, lb, limits, dns, found)
        else {
            return Err(errors);
        };
        errors.finish()?;

        let stat_name = if alt_stat_name.is_empty() { &*name } else { alt_stat_name.as_str() };
        let scope = Scope::cluster(stat_name);
        let (discovery, endpoints) = match found {
            Found::Static(endpoints) => (Discovery::Static, endpoints),
            Found::Eds(eds) => (Discovery::Eds(eds), Endpoints::default()),
            Found::Dns { endpoints, logical } => {
                let settings = DnsSettings {
                    endpoints,
                    logical,
                    family: dns.family,
                    refresh_rate: dns.refresh_rate,
                    respect_ttl: respect_dns_ttl,
                    failure: dns.failure,
                    resolver: cx.resolver.clone(),
                    tried: watch::Sender::new(false),
                };
                (Discovery::Dns(Box::new(settings)), Endpoints::default())
            }
        };
        // Not by `alt_stat_name`: clusters may share one, but not their limits.
        let outlier = outlier.map(|config| Outlier {
            config,
            stats: cx.telemetry.group(Scope::cluster(&name).part("outlier_detection")),
        });
        let health = checks.map(|config| {
            let stats = cx.telemetry.group(Scope::cluster(stat_name).part("health_check"));
            Box::new(HealthChecks::new(config, stats))
        });
        let usage = cx.telemetry.group(Scope::cluster(&name).part("circuit_breakers"));
        let subsets = lb.subsets.is_some();
        let zones = matches!(lb.locality, LocalityPolicy::ZoneAware(_));
        let cluster = Self {
            name,
            discovery,
            strategy: strategy.unwrap_or_else(|| lb.policy.name().into()),
            lb,
            connection: Arc::new(connection),
            breakers: Breakers::new(usage, limits[0], limits[1]),
            outlier,
            health,
            subset_stats: subsets.then(|| cx.telemetry.group(scope.clone())),
            zone_stats: zones.then(|| cx.telemetry.group(scope.clone())),
            zone: cx.zone.clone(),
            stats: cx.telemetry.group(scope),
            hosts: ArcSwap::from_pointee(HostSet::default()),
            updating: Mutex::new(()),
            retired: AtomicBool::new(false),
        };
        cluster.set_endpoints(&endpoints);
        Ok(cluster)
    }
}

/// `strategy` in the metadata named `nuncio`: what the balancing is called where the configuration was
/// made. Other metadata is for those whom it names.
fn strategy(metadata: Option<core::Metadata>) -> Result<Option<Arc<str>>, Errors> {
    let Some(core::Metadata { mut filter_metadata, typed_filter_metadata: _ }) = metadata else {
        return Ok(None);
    };
    let ours = filter_metadata.remove("nuncio");
    match ours.and_then(|mut ours| ours.fields.remove("strategy")) {
        None => Ok(None),
        Some(Value { kind: Some(Kind::StringValue(name)) }) if !name.is_empty() => {
            Ok(Some(name.into()))
        }
        Some(_) => {
            let fault = Fault::Conflict("is a name, and not empty".into());
            Err(Errors::from(fault).at("strategy").at("nuncio").at("filter_metadata"))
        }
    }
}

/// Where endpoints may be named.
struct Sources {
    eds: Option<proto::cluster::EdsClusterConfig>,
    load_assignment: Option<ClusterLoadAssignment>,
}

enum Found {
    Static(Endpoints),
    Eds(EdsConfig),
    Dns { endpoints: Endpoints, logical: bool },
}

fn discovery(
    proto: Option<proto::cluster::ClusterDiscoveryType>,
    name: &str,
    Sources { eds, load_assignment }: Sources,
) -> Result<Found, Errors> {
    let kind = match proto {
        None => DiscoveryType::Static,
        Some(proto::cluster::ClusterDiscoveryType::Type(kind)) => {
            fields::enumeration(kind).at("type")?
        }
    };
    let mut errors = Errors::new();
    if kind != DiscoveryType::Eds && eds.is_some() {
        errors.push("eds_cluster_config", Fault::Conflict("is for clusters of type EDS".into()));
    }
    let found = match kind {
        DiscoveryType::Static => errors.take(assignment(load_assignment, false)).map(Found::Static),
        DiscoveryType::Eds => {
            if load_assignment.is_some() {
                let fault = Fault::Conflict("is not for clusters of type EDS".into());
                errors.push("load_assignment", fault);
            }
            errors.take(eds_config(eds, name).at("eds_cluster_config")).map(Found::Eds)
        }
        DiscoveryType::StrictDns => errors
            .take(assignment(load_assignment, true))
            .map(|endpoints| Found::Dns { endpoints, logical: false }),
        DiscoveryType::LogicalDns => errors
            .take(assignment(load_assignment, true).and_then(single))
            .map(|endpoints| Found::Dns { endpoints, logical: true }),
        DiscoveryType::OriginalDst => {
            errors.push(
                "type",
                Fault::unsupported("ORIGINAL_DST is not supported; use STATIC, EDS or a DNS type"),
            );
            None
        }
    };
    errors.finish()?;
    found.ok_or_else(Errors::new)
}

fn assignment(proto: Option<ClusterLoadAssignment>, names: bool) -> Result<Endpoints, Errors> {
    let compiled = proto.map(|proto| endpoints::compile(proto, names).at("load_assignment"));
    compiled.unwrap_or_else(|| Ok(Endpoints::default()))
}

fn single(endpoints: Endpoints) -> Result<Endpoints, Errors> {
    match &endpoints.localities[..] {
        [only] if only.endpoints.len() == 1 => Ok(endpoints),
        _ => {
            let fault = Fault::Conflict("LOGICAL_DNS takes one locality with one endpoint".into());
            Err(Errors::from(fault).at("load_assignment"))
        }
    }
}

fn eds_config(
    proto: Option<proto::cluster::EdsClusterConfig>,
    name: &str,
) -> Result<EdsConfig, Errors> {
    // Not `Fault::Required`: the API does not state the rule, so the rest of a response may live.
    let missing = || Fault::Conflict("a cluster of type EDS must say where from".into());
    let proto::cluster::EdsClusterConfig { eds_config, service_name } =
        proto.ok_or_else(missing)?;
    let source = eds_config.ok_or_else(missing).map_err(Errors::from).at("eds_config")?;
    let source = source::compile(&source).at("eds_config")?;
    let service_name = if service_name.is_empty() { name } else { &service_name };
    Ok(EdsConfig { service_name: service_name.into(), source })
}

fn transport(proto: Option<core::TransportSocket>) -> Result<(), Errors> {
    let Some(core::TransportSocket { name: _, config_type }) = proto else { return Ok(()) };
    let Some(core::transport_socket::ConfigType::TypedConfig(config)) = config_type else {
        return Err(Errors::from(Fault::Required).at("typed_config"));
    };
    match any::unpack::<RawBuffer>(&config) {
        Ok(RawBuffer {}) => Ok(()),
        Err(any::UnpackError::WrongType { found, .. }) => {
            let text =
                format!("{found}: connections to upstreams can only be plain; use RawBuffer");
            Err(Errors::from(Fault::unsupported(text)).at("typed_config"))
        }
        Err(error) => Err(Errors::from(Fault::Undecodable(error.to_string())).at("typed_config")),
    }
}

struct DnsFields {
    refresh_rate: Duration,
    failure: FailureRate,
    family: LookupFamily,
}

fn dns_fields(
    refresh_rate: Option<prost_types::Duration>,
    failure_rate: Option<proto::cluster::RefreshRate>,
    family: i32,
) -> Result<DnsFields, Errors> {
    let mut errors = Errors::new();
    let refresh_rate = refresh_rate
        .and_then(|r| errors.take(protocol::at_least_1_ms(&r).at("dns_refresh_rate")))
        .unwrap_or(DEFAULT_DNS_REFRESH_RATE);
    let failure = failure_rate
        .and_then(|rate| errors.take(failure_of(rate).at("dns_failure_refresh_rate")))
        .unwrap_or(FailureRate { base: refresh_rate, max: refresh_rate });
    let family = match errors.take(fields::enumeration(family).at("dns_lookup_family")) {
        Some(DnsLookupFamily::Auto) | None => LookupFamily::Auto,
        Some(DnsLookupFamily::V4Only) => LookupFamily::V4Only,
        Some(DnsLookupFamily::V6Only) => LookupFamily::V6Only,
        Some(DnsLookupFamily::V4Preferred) => LookupFamily::V4Preferred,
        Some(DnsLookupFamily::All) => LookupFamily::All,
    };
    errors.finish()?;
    Ok(DnsFields { refresh_rate, failure, family })
}

fn failure_of(proto: proto::cluster::RefreshRate) -> Result<FailureRate, Errors> {
    let proto::cluster::RefreshRate { base_interval, max_interval } = proto;
    let base = fields::required(base_interval)
        .and_then(|base| protocol::at_least_1_ms(&base))
        .at("base_interval")?;
    let max = match max_interval {
        None => base.saturating_mul(10),
        Some(max) => protocol::at_least_1_ms(&max).at("max_interval")?,
    };
    if max < base {
        let fault = Fault::Conflict("must not be less than base_interval".into());
        return Err(Errors::from(fault).at("max_interval"));
    }
    Ok(FailureRate { base, max })
}
