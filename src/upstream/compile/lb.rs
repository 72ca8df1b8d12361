//! The balancing policy of a cluster, in its old and its new form.

use crate::config::{Errors, Fault, OrFault, fields};
use crate::proto::any;
use crate::proto::envoy::config::cluster::v3 as proto;
use crate::proto::envoy::extensions::load_balancing_policies as policies;
use crate::upstream::balancer::{LbConfig, LbPolicy};
use policies::least_request::v3::LeastRequest;
use policies::random::v3::Random;
use policies::round_robin::v3::RoundRobin;
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
    pub(super) load_balancing_policy: Option<proto::LoadBalancingPolicy>,
}

pub(super) fn compile(proto: Fields) -> Result<LbConfig, Errors> {
    let Fields { lb_policy, lb_config, common_lb_config, load_balancing_policy } = proto;
    let mut errors = Errors::new();
    let policy = match load_balancing_policy {
        Some(policy) => errors.take(extension(policy).at("load_balancing_policy")),
        None => errors.take(named(lb_policy, lb_config)),
    };
    let mut config = LbConfig::default();
    let proto::cluster::CommonLbConfig { healthy_panic_threshold } =
        common_lb_config.unwrap_or_default();
    if let Some(threshold) = healthy_panic_threshold {
        let threshold = threshold.value;
        match (0.0..=100.0).contains(&threshold) {
            true => config.panic_threshold = threshold,
            false => errors.push(
                "common_lb_config.healthy_panic_threshold.value",
                Fault::out_of_range(threshold, "in 0..=100"),
            ),
        }
    }
    match policy {
        Some(policy) if errors.is_empty() => Ok(LbConfig { policy, ..config }),
        _ => Err(errors),
    }
}

fn named(policy: i32, config: Option<proto::cluster::LbConfig>) -> Result<LbPolicy, Errors> {
    let mut errors = Errors::new();
    let choices = match config {
        None | Some(proto::cluster::LbConfig::RoundRobinLbConfig(_)) => DEFAULT_CHOICES,
        Some(proto::cluster::LbConfig::LeastRequestLbConfig(config)) => {
            let proto::cluster::LeastRequestLbConfig { choice_count } = config;
            errors.take(choices(choice_count).at("least_request_lb_config")).unwrap_or_default()
        }
    };
    let refused = |name: &str| {
        let text = format!("{name} is not supported yet; use ROUND_ROBIN, RANDOM or LEAST_REQUEST");
        Err(Errors::from(Fault::unsupported(text)).at("lb_policy"))
    };
    let policy = match fields::enumeration(policy).at("lb_policy") {
        Err(error) => Err(error),
        Ok(Named::RoundRobin) => Ok(LbPolicy::RoundRobin),
        Ok(Named::Random) => Ok(LbPolicy::Random),
        Ok(Named::LeastRequest) => Ok(LbPolicy::LeastRequest { choices }),
        Ok(Named::RingHash) => refused("RING_HASH"),
        Ok(Named::Maglev) => refused("MAGLEV"),
        Ok(Named::ClusterProvided) => refused("CLUSTER_PROVIDED"),
        Ok(Named::LoadBalancingPolicyConfig) => {
            let fault = Fault::Conflict("lb_policy LOAD_BALANCING_POLICY_CONFIG needs it".into());
            Err(Errors::from(fault).at("load_balancing_policy"))
        }
    };
    match errors.take(policy) {
        Some(policy) if errors.is_empty() => Ok(policy),
        _ => Err(errors),
    }
}

/// The first policy that is known; those before it are for other proxies.
fn extension(proto: proto::LoadBalancingPolicy) -> Result<LbPolicy, Errors> {
    let proto::LoadBalancingPolicy { policies } = proto;
    let mut unknown = Vec::new();
    for (index, policy) in policies.into_iter().enumerate() {
        let proto::load_balancing_policy::Policy { typed_extension_config } = policy;
        let found = fields::required(typed_extension_config)
            .at("typed_extension_config")
            .and_then(|extension| {
                let config = fields::required(extension.typed_config);
                config.and_then(|config| known(&config)).at("typed_extension_config.typed_config")
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
fn known(config: &prost_types::Any) -> Result<Result<LbPolicy, String>, Errors> {
    let undecodable = |e: any::UnpackError| Errors::from(Fault::Undecodable(e.to_string()));
    let name = any::effective_type(config).map_err(undecodable)?;
    let policy = match &*name {
        "envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin" => {
            let RoundRobin {} = any::unpack(config).map_err(undecodable)?;
            LbPolicy::RoundRobin
        }
        "envoy.extensions.load_balancing_policies.random.v3.Random" => {
            let Random {} = any::unpack(config).map_err(undecodable)?;
            LbPolicy::Random
        }
        "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest" => {
            let LeastRequest { choice_count } = any::unpack(config).map_err(undecodable)?;
            LbPolicy::LeastRequest { choices: choices(choice_count)? }
        }
        other => return Ok(Err(other.to_owned())),
    };
    Ok(Ok(policy))
}

fn choices(count: Option<u32>) -> Result<u32, Errors> {
    match count {
        None => Ok(DEFAULT_CHOICES),
        Some(count) => {
            let count = fields::in_range(count, 2..=u32::MAX).at("choice_count")?;
            Ok(count.min(MAX_CHOICES))
        }
    }
}
