//! The balancing policy of a cluster: its own fields, and what is common to all policies.

use std::sync::Arc;

use super::hashing::{Hashing, MAGLEV, RING, balance, maglev_size, ring_sizes};
use super::policies::{Place, extension};
use crate::config::runtime::Runtime;
use crate::config::{Errors, Fault, OrFault, fields};
use crate::proto::envoy::config::cluster::v3 as proto;
use crate::proto::envoy::config::core::v3::{self as core, RuntimeDouble};
use crate::proto::envoy::r#type::v3::Percent;
use crate::upstream::balancer::hashing::HashFunction;
use crate::upstream::balancer::least_request::LeastRequest;
use crate::upstream::balancer::locality::LocalityPolicy;
use crate::upstream::balancer::slow_start::SlowStart;
use crate::upstream::balancer::subset::SubsetConfig;
use crate::upstream::balancer::zone_aware::ZoneAware;
use crate::upstream::balancer::{LbConfig, LbPolicy};
use crate::upstream::host::HealthStatus;
use crate::upstream::load_report::LoadReportConfig;
use proto::cluster::LbPolicy as Named;

/// Hosts that LEAST_REQUEST draws unless told otherwise.
const DEFAULT_CHOICES: u32 = 2;
/// Drawing more hosts costs time for every request and gains nothing.
const MAX_CHOICES: u32 = 64;

/// The fields of a cluster that say how hosts are chosen.
pub(super) struct Fields {
    pub(super) lb_policy: i32,
    pub(super) lb_config: Option<proto::cluster::LbConfig>,
    pub(super) common_lb_config: Option<proto::cluster::CommonLbConfig>,
    pub(super) lb_subset_config: Option<proto::cluster::LbSubsetConfig>,
    pub(super) load_balancing_policy: Option<proto::LoadBalancingPolicy>,
}

/// How hosts are chosen, and of which.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) policy: LbPolicy,
    pub(super) locality: LocalityPolicy,
    pub(super) slow_start: Option<SlowStart>,
    pub(super) subsets: Option<SubsetConfig>,
    pub(super) load_reports: Option<Box<LoadReportConfig>>,
}

impl From<LbPolicy> for Choice {
    fn from(policy: LbPolicy) -> Self {
        Self {
            policy,
            locality: LocalityPolicy::Ignored,
            slow_start: None,
            subsets: None,
            load_reports: None,
        }
    }
}

pub(super) fn compile(proto: Fields, runtime: &Runtime) -> Result<LbConfig, Errors> {
    use proto::cluster::common_lb_config::LocalityConfigSpecifier;
    let Fields { lb_policy, lb_config, common_lb_config, lb_subset_config, load_balancing_policy } =
        proto;
    let mut errors = Errors::new();
    let proto::cluster::CommonLbConfig {
        healthy_panic_threshold,
        consistent_hashing_lb_config,
        ignore_new_hosts_until_first_hc,
        override_host_status,
        locality_config_specifier,
    } = common_lb_config.unwrap_or_default();
    let common_locality = match locality_config_specifier {
        None => LocalityPolicy::Ignored,
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => LocalityPolicy::Weighted,
        Some(LocalityConfigSpecifier::ZoneAwareLbConfig(zones)) => {
            let proto::cluster::common_lb_config::ZoneAwareLbConfig {
                routing_enabled,
                min_cluster_size,
                fail_traffic_on_panic,
            } = zones;
            let enabled = percent(routing_enabled, 100.0).at("routing_enabled.value");
            let enabled = enabled.at("common_lb_config.zone_aware_lb_config");
            let default = ZoneAware::default();
            LocalityPolicy::ZoneAware(ZoneAware {
                routing_enabled: errors.take(enabled).unwrap_or_default(),
                min_cluster_size: min_cluster_size.unwrap_or(default.min_cluster_size),
                fail_traffic_on_panic,
                ..default
            })
        }
    };
    let hashing = consistent_hashing_lb_config.map(|config| {
        let proto::cluster::common_lb_config::ConsistentHashingLbConfig {
            use_hostname_for_hashing,
            hash_balance_factor,
        } = config;
        let hashing = balance(use_hostname_for_hashing, hash_balance_factor);
        errors.take(hashing.at("common_lb_config.consistent_hashing_lb_config"))
    });
    let choice = match load_balancing_policy {
        Some(policy) => {
            errors.take(extension(policy, Place::Cluster, runtime).at("load_balancing_policy"))
        }
        None => errors
            .take(named(lb_policy, lb_config, hashing.flatten().unwrap_or_default(), runtime))
            .map(|choice| Choice { locality: common_locality, ..choice }),
    };
    // Without selectors Envoy makes no subsets.
    let subsets = lb_subset_config.filter(|config| !config.subset_selectors.is_empty());
    let subsets = subsets
        .and_then(|config| errors.take(super::subset::compile(config).at("lb_subset_config")));
    let default = LbConfig::default();
    let threshold = healthy_panic_threshold.map(|Percent { value }| proto_percent(value));
    let threshold = threshold.transpose().at("common_lb_config.healthy_panic_threshold.value");
    let panic_threshold = errors.take(threshold).flatten().unwrap_or(default.panic_threshold);
    let statuses = override_host_status
        .map(|core::HealthStatusSet { statuses: set }| statuses(&set))
        .transpose();
    let statuses = errors.take(statuses.at("common_lb_config.override_host_status")).flatten();
    match choice {
        Some(Choice { policy, locality, slow_start, subsets: own, load_reports })
            if errors.is_empty() =>
        {
            Ok(LbConfig {
                policy,
                panic_threshold,
                locality,
                ignore_new_hosts: ignore_new_hosts_until_first_hc,
                slow_start,
                load_reports,
                subsets: own.or(subsets).map(Arc::new),
                override_statuses: statuses.unwrap_or(default.override_statuses),
            })
        }
        _ => Err(errors),
    }
}

pub(super) fn percent(value: Option<Percent>, default: f64) -> Result<f64, Errors> {
    value.map_or(Ok(default), |Percent { value }| proto_percent(value))
}

fn proto_percent(value: f64) -> Result<f64, Errors> {
    match (0.0..=100.0).contains(&value) {
        true => Ok(value),
        false => Err(Fault::out_of_range(value, "in 0..=100").into()),
    }
}

/// A bit for each status.
fn statuses(statuses: &[i32]) -> Result<u8, Errors> {
    let mut bits = 0;
    for (index, status) in statuses.iter().enumerate() {
        let status = fields::enumeration(*status).index(index).at("statuses")?;
        let status: HealthStatus = super::endpoints::health_of(status);
        bits |= 1 << status as u8;
    }
    Ok(bits)
}

fn named(
    policy: i32,
    config: Option<proto::cluster::LbConfig>,
    hashing: Hashing,
    runtime: &Runtime,
) -> Result<Choice, Errors> {
    use proto::cluster::LbConfig as Options;
    let mut errors = Errors::new();
    let mut least = LeastRequest::default();
    let mut slow = [None; 2];
    let mut ring = RING;
    let mut maglev = MAGLEV;
    match config {
        None => {}
        Some(Options::RoundRobinLbConfig(config)) => {
            let proto::cluster::RoundRobinLbConfig { slow_start_config } = config;
            let compiled =
                slow_start_config.map(|config| slow_start_of(config, runtime)).transpose();
            slow[0] = errors.take(compiled.at("round_robin_lb_config")).flatten();
        }
        Some(Options::LeastRequestLbConfig(config)) => {
            let proto::cluster::LeastRequestLbConfig {
                choice_count,
                active_request_bias,
                slow_start_config,
            } = config;
            let choices = choices(choice_count).at("least_request_lb_config");
            least.choices = errors.take(choices);
            let bias = bias(active_request_bias, runtime).at("least_request_lb_config");
            least.active_request_bias = errors.take(bias).unwrap_or_default();
            let compiled =
                slow_start_config.map(|config| slow_start_of(config, runtime)).transpose();
            slow[1] = errors.take(compiled.at("least_request_lb_config")).flatten();
        }
        Some(Options::RingHashLbConfig(config)) => {
            use proto::cluster::ring_hash_lb_config::HashFunction as Named;
            let proto::cluster::RingHashLbConfig {
                minimum_ring_size,
                hash_function,
                maximum_ring_size,
            } = config;
            let function = fields::enumeration(hash_function).at("hash_function");
            let function = errors.take(function.at("ring_hash_lb_config"));
            let function = match function {
                Some(Named::MurmurHash2) => HashFunction::Murmur2,
                Some(Named::XxHash) | None => HashFunction::XxHash,
            };
            let compiled = ring_sizes(minimum_ring_size, maximum_ring_size, function);
            ring = errors.take(compiled.at("ring_hash_lb_config")).unwrap_or(ring);
        }
        Some(Options::MaglevLbConfig(config)) => {
            let proto::cluster::MaglevLbConfig { table_size } = config;
            let compiled = maglev_size(table_size).at("maglev_lb_config");
            maglev = errors.take(compiled).unwrap_or(maglev);
        }
    }
    let refused = |name: &str| {
        let text = format!("{name} is not supported; use ROUND_ROBIN, RANDOM or LEAST_REQUEST");
        Err(Errors::from(Fault::unsupported(text)).at("lb_policy"))
    };
    let [slow_round_robin, slow_least_request] = slow;
    let choice = match fields::enumeration(policy).at("lb_policy") {
        Err(error) => Err(error),
        Ok(Named::RoundRobin) => {
            Ok(Choice { slow_start: slow_round_robin, ..LbPolicy::RoundRobin.into() })
        }
        Ok(Named::Random) => Ok(LbPolicy::Random.into()),
        Ok(Named::LeastRequest) => {
            Ok(Choice { slow_start: slow_least_request, ..LbPolicy::LeastRequest(least).into() })
        }
        Ok(Named::RingHash) => Ok(hashing.with(ring).into()),
        Ok(Named::Maglev) => Ok(hashing.with(maglev).into()),
        Ok(Named::ClusterProvided) => refused("CLUSTER_PROVIDED"),
        Ok(Named::LoadBalancingPolicyConfig) => {
            let fault = Fault::Conflict("lb_policy LOAD_BALANCING_POLICY_CONFIG needs it".into());
            Err(Errors::from(fault).at("load_balancing_policy"))
        }
    };
    match errors.take(choice) {
        Some(choice) if errors.is_empty() => Ok(choice),
        _ => Err(errors),
    }
}

fn slow_start_of(
    proto: proto::cluster::SlowStartConfig,
    runtime: &Runtime,
) -> Result<SlowStart, Errors> {
    let proto::cluster::SlowStartConfig { slow_start_window, aggression, min_weight_percent } =
        proto;
    slow_start((slow_start_window, aggression, min_weight_percent), runtime).at("slow_start_config")
}

pub(super) fn slow_start(
    (window, aggression, least): (
        Option<prost_types::Duration>,
        Option<RuntimeDouble>,
        Option<Percent>,
    ),
    runtime: &Runtime,
) -> Result<SlowStart, Errors> {
    let window = fields::required(window)
        .and_then(|window| fields::positive_duration(&window))
        .at("slow_start_window")?;
    let aggression = aggression.map_or(1.0, |value| runtime.decimal(&value));
    if !(aggression.is_finite() && aggression > 0.0) {
        let fault = Fault::out_of_range(aggression, "more than 0");
        return Err(Errors::from(fault).at("aggression.default_value"));
    }
    let least = percent(least, 10.0).at("min_weight_percent.value")? / 100.0;
    Ok(SlowStart { window, aggression, least })
}

pub(super) fn bias(proto: Option<RuntimeDouble>, runtime: &Runtime) -> Result<f64, Errors> {
    let bias = proto.map_or(1.0, |value| runtime.decimal(&value));
    match bias.is_finite() && bias >= 0.0 {
        true => Ok(bias),
        false => {
            let fault = Fault::out_of_range(bias, "0 or more");
            Err(Errors::from(fault).at("active_request_bias.default_value"))
        }
    }
}

pub(super) fn choices(count: Option<u32>) -> Result<u32, Errors> {
    match count {
        None => Ok(DEFAULT_CHOICES),
        Some(count) => {
            let count = fields::in_range(count, 2..=u32::MAX).at("choice_count")?;
            Ok(count.min(MAX_CHOICES))
        }
    }
}
