//! Balancing policies in their new form: `LoadBalancingPolicy` with an extension for each.

use std::time::Duration;

use super::hashing::{balance, consistent, maglev_size, ring_sizes};
use super::lb::{Choice, bias, choices, percent, slow_start};
use crate::config::runtime::Runtime;
use crate::config::{Errors, Fault, OrFault, fields};
use crate::proto::any;
use crate::proto::envoy::config::cluster::v3 as proto;
use crate::proto::envoy::extensions::load_balancing_policies as policies;
use crate::upstream::balancer::LbPolicy;
use crate::upstream::balancer::hashing::HashFunction;
use crate::upstream::balancer::least_request::LeastRequest;
use crate::upstream::balancer::locality::LocalityPolicy;
use crate::upstream::balancer::slow_start::SlowStart;
use crate::upstream::balancer::zone_aware::ZoneAware;
use crate::upstream::load_report::LoadReportConfig;
use policies::client_side_weighted_round_robin::v3::ClientSideWeightedRoundRobin;
use policies::common::v3::{LocalityLbConfig, locality_lb_config};
use policies::least_request::v3 as least_request;
use policies::maglev::v3::Maglev;
use policies::random::v3::Random;
use policies::ring_hash::v3::{RingHash, ring_hash};
use policies::round_robin::v3::RoundRobin;
use policies::subset::v3::Subset;
use policies::wrr_locality::v3::WrrLocality;

/// Where a policy stands. Those of localities and subsets do not stand within another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Cluster,
    Within,
}

/// The first policy that is known; those before it are for other proxies.
pub(super) fn extension(
    proto: proto::LoadBalancingPolicy,
    place: Place,
    runtime: &Runtime,
) -> Result<Choice, Errors> {
    let proto::LoadBalancingPolicy { policies } = proto;
    let mut unknown = Vec::new();
    for (index, policy) in policies.into_iter().enumerate() {
        let proto::load_balancing_policy::Policy { typed_extension_config } = policy;
        let found = fields::required(typed_extension_config)
            .at("typed_extension_config")
            .and_then(|extension| {
                let config = fields::required(extension.typed_config);
                config
                    .and_then(|config| known(&config, place, runtime))
                    .at("typed_extension_config.typed_config")
            })
            .index(index)
            .at("policies")?;
        match found {
            Ok(policy) => return Ok(policy),
            Err(name) => unknown.push(name),
        }
    }
    match unknown.is_empty() {
        true => Err(Errors::from(Fault::Required).at("policies")),
        false => Err(Errors::from(Fault::UnknownExtension(unknown.join(", "))).at("policies")),
    }
}

/// The policy, or the name of one that is not known.
fn known(
    config: &prost_types::Any,
    place: Place,
    runtime: &Runtime,
) -> Result<Result<Choice, String>, Errors> {
    let undecodable = |e: any::UnpackError| Errors::from(Fault::Undecodable(e.to_string()));
    let name = any::effective_type(config).map_err(undecodable)?;
    let policy = match &*name {
        "envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin" => {
            let RoundRobin { slow_start_config, locality_lb_config } =
                any::unpack(config).map_err(undecodable)?;
            Choice {
                locality: locality(locality_lb_config)?,
                slow_start: slow_start_config
                    .map(|config| slow_start_extension(config, runtime))
                    .transpose()?,
                ..LbPolicy::RoundRobin.into()
            }
        }
        "envoy.extensions.load_balancing_policies.random.v3.Random" => {
            let Random { locality_lb_config } = any::unpack(config).map_err(undecodable)?;
            Choice { locality: locality(locality_lb_config)?, ..LbPolicy::Random.into() }
        }
        "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest" => {
            least_request_extension(any::unpack(config).map_err(undecodable)?, runtime)?
        }
        "envoy.extensions.load_balancing_policies.ring_hash.v3.RingHash" => {
            ring_hash(any::unpack(config).map_err(undecodable)?)?
        }
        "envoy.extensions.load_balancing_policies.maglev.v3.Maglev" => {
            let Maglev { table_size, consistent_hashing_lb_config, locality_weighted_lb_config } =
                any::unpack(config).map_err(undecodable)?;
            let hashing = consistent(consistent_hashing_lb_config)?;
            Choice {
                locality: weighted(locality_weighted_lb_config),
                ..hashing.with(maglev_size(table_size)?).into()
            }
        }
        "envoy.extensions.load_balancing_policies.client_side_weighted_round_robin.v3.\
         ClientSideWeightedRoundRobin" => {
            reported(any::unpack(config).map_err(undecodable)?, runtime)?
        }
        "envoy.extensions.load_balancing_policies.wrr_locality.v3.WrrLocality"
            if place == Place::Cluster =>
        {
            let WrrLocality { endpoint_picking_policy } =
                any::unpack(config).map_err(undecodable)?;
            let choice = fields::required(endpoint_picking_policy)
                .and_then(|policy| extension(policy, Place::Within, runtime))
                .at("endpoint_picking_policy")?;
            Choice { locality: LocalityPolicy::Weighted, ..choice }
        }
        "envoy.extensions.load_balancing_policies.subset.v3.Subset" if place == Place::Cluster => {
            let mut proto: Subset = any::unpack(config).map_err(undecodable)?;
            let inner = fields::required(proto.subset_lb_policy.take())
                .and_then(|policy| extension(policy, Place::Within, runtime))
                .at("subset_lb_policy")?;
            Choice { subsets: Some(super::subset::extension(proto)?), ..inner }
        }
        other => return Ok(Err(other.to_owned())),
    };
    Ok(Ok(policy))
}

fn slow_start_extension(
    proto: policies::common::v3::SlowStartConfig,
    runtime: &Runtime,
) -> Result<SlowStart, Errors> {
    let policies::common::v3::SlowStartConfig { slow_start_window, aggression, min_weight_percent } =
        proto;
    slow_start((slow_start_window, aggression, min_weight_percent), runtime).at("slow_start_config")
}

fn least_request_extension(
    proto: least_request::LeastRequest,
    runtime: &Runtime,
) -> Result<Choice, Errors> {
    use least_request::least_request::SelectionMethod;
    let least_request::LeastRequest {
        choice_count,
        active_request_bias,
        slow_start_config,
        locality_lb_config,
        selection_method,
    } = proto;
    let drawn = choices(choice_count)?;
    let choices = match fields::enumeration(selection_method).at("selection_method")? {
        SelectionMethod::NChoices => Some(drawn),
        SelectionMethod::FullScan => None,
    };
    let policy = LeastRequest { choices, active_request_bias: bias(active_request_bias, runtime)? };
    Ok(Choice {
        locality: locality(locality_lb_config)?,
        slow_start: slow_start_config
            .map(|config| slow_start_extension(config, runtime))
            .transpose()?,
        ..LbPolicy::LeastRequest(policy).into()
    })
}

fn reported(proto: ClientSideWeightedRoundRobin, runtime: &Runtime) -> Result<Choice, Errors> {
    let ClientSideWeightedRoundRobin {
        blackout_period,
        weight_expiration_period,
        weight_update_period,
        error_utilization_penalty,
        metric_names_for_computing_utilization,
        slow_start_config,
    } = proto;
    let default = LoadReportConfig::default();
    let period = |value: Option<prost_types::Duration>, field: &'static str| {
        value.map(|value| fields::duration(&value)).transpose().at(field)
    };
    let update = period(weight_update_period, "weight_update_period")?;
    let penalty = error_utilization_penalty.map_or(default.error_utilization_penalty, f64::from);
    if !(penalty.is_finite() && penalty >= 0.0) {
        let fault = Fault::out_of_range(penalty, "0 or more");
        return Err(Errors::from(fault).at("error_utilization_penalty"));
    }
    let load_reports = LoadReportConfig {
        blackout_period: period(blackout_period, "blackout_period")?
            .unwrap_or(default.blackout_period),
        weight_expiration_period: period(weight_expiration_period, "weight_expiration_period")?
            .unwrap_or(default.weight_expiration_period),
        // As in Envoy, weights are not computed more often.
        weight_update_period: update
            .unwrap_or(default.weight_update_period)
            .max(Duration::from_millis(100)),
        error_utilization_penalty: penalty,
        metric_names: metric_names_for_computing_utilization,
    };
    Ok(Choice {
        slow_start: slow_start_config
            .map(|config| slow_start_extension(config, runtime))
            .transpose()?,
        load_reports: Some(Box::new(load_reports)),
        ..LbPolicy::RoundRobin.into()
    })
}

fn locality(config: Option<LocalityLbConfig>) -> Result<LocalityPolicy, Errors> {
    use locality_lb_config::LocalityConfigSpecifier::{
        LocalityWeightedLbConfig, ZoneAwareLbConfig,
    };
    use locality_lb_config::zone_aware_lb_config::{ForceLocalZone, LocalityBasis};
    let LocalityLbConfig { locality_config_specifier } = config.unwrap_or_default();
    Ok(match locality_config_specifier {
        None => LocalityPolicy::Ignored,
        Some(LocalityWeightedLbConfig(_)) => LocalityPolicy::Weighted,
        Some(ZoneAwareLbConfig(zones)) => {
            let locality_lb_config::ZoneAwareLbConfig {
                routing_enabled,
                min_cluster_size,
                fail_traffic_on_panic,
                force_local_zone,
                locality_basis,
            } = zones;
            let default = ZoneAware::default();
            let path = "locality_lb_config.zone_aware_lb_config";
            let enabled = percent(routing_enabled, 100.0).at("routing_enabled.value").at(path)?;
            let basis = fields::enumeration::<LocalityBasis>(locality_basis)
                .at("locality_basis")
                .at(path)?;
            let least = |ForceLocalZone { min_size }| min_size.unwrap_or(1);
            LocalityPolicy::ZoneAware(ZoneAware {
                routing_enabled: enabled,
                min_cluster_size: min_cluster_size.unwrap_or(default.min_cluster_size),
                fail_traffic_on_panic,
                force_local_min_size: force_local_zone.map(least),
                by_weight: basis == LocalityBasis::HealthyHostsWeight,
            })
        }
    })
}

fn weighted(config: Option<locality_lb_config::LocalityWeightedLbConfig>) -> LocalityPolicy {
    match config {
        None => LocalityPolicy::Ignored,
        Some(locality_lb_config::LocalityWeightedLbConfig {}) => LocalityPolicy::Weighted,
    }
}

fn ring_hash(proto: RingHash) -> Result<Choice, Errors> {
    let RingHash {
        hash_function,
        minimum_ring_size,
        maximum_ring_size,
        use_hostname_for_hashing,
        hash_balance_factor,
        consistent_hashing_lb_config,
        locality_weighted_lb_config,
    } = proto;
    let function = match fields::enumeration(hash_function).at("hash_function")? {
        ring_hash::HashFunction::MurmurHash2 => HashFunction::Murmur2,
        ring_hash::HashFunction::DefaultHash | ring_hash::HashFunction::XxHash => {
            HashFunction::XxHash
        }
    };
    let hashing = match consistent_hashing_lb_config {
        Some(config) => consistent(Some(config))?,
        // The older place of both.
        None => balance(use_hostname_for_hashing, hash_balance_factor)?,
    };
    let policy = hashing.with(ring_sizes(minimum_ring_size, maximum_ring_size, function)?);
    Ok(Choice { locality: weighted(locality_weighted_lb_config), ..policy.into() })
}
