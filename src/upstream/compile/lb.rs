//! The balancing policy of a cluster, in its old and its new form.

use crate::config::{Errors, Fault, OrFault, fields};
use crate::proto::any;
use crate::proto::envoy::config::cluster::v3 as proto;
use crate::proto::envoy::extensions::load_balancing_policies as policies;
use crate::upstream::balancer::hashing::{HashConfig, HashFunction, HashPolicy};
use crate::upstream::balancer::locality::LocalityPolicy;
use crate::upstream::balancer::{LbConfig, LbPolicy};
use policies::common::v3::{ConsistentHashingLbConfig, LocalityLbConfig, locality_lb_config};
use policies::least_request::v3::LeastRequest;
use policies::maglev::v3::Maglev;
use policies::random::v3::Random;
use policies::ring_hash::v3::{RingHash, ring_hash};
use policies::round_robin::v3::RoundRobin;
use policies::wrr_locality::v3::WrrLocality;
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
    use proto::cluster::common_lb_config::LocalityConfigSpecifier;
    let proto::cluster::CommonLbConfig {
        healthy_panic_threshold,
        consistent_hashing_lb_config,
        locality_config_specifier,
    } = common_lb_config.unwrap_or_default();
    let common_locality = match locality_config_specifier {
        None => LocalityPolicy::Ignored,
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => LocalityPolicy::Weighted,
    };
    let hashing = consistent_hashing_lb_config.map(|config| {
        let proto::cluster::common_lb_config::ConsistentHashingLbConfig {
            use_hostname_for_hashing,
            hash_balance_factor,
        } = config;
        let hashing = balance(use_hostname_for_hashing, hash_balance_factor);
        errors.take(hashing.at("common_lb_config.consistent_hashing_lb_config"))
    });
    let policy = match load_balancing_policy {
        Some(policy) => errors.take(extension(policy, Place::Cluster).at("load_balancing_policy")),
        None => errors
            .take(named(lb_policy, lb_config, hashing.flatten().unwrap_or_default()))
            .map(|policy| (policy, common_locality)),
    };
    let mut config = LbConfig::default();
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
        Some((policy, locality)) if errors.is_empty() => {
            Ok(LbConfig { policy, locality, ..config })
        }
        _ => Err(errors),
    }
}

fn named(
    policy: i32,
    config: Option<proto::cluster::LbConfig>,
    hashing: Hashing,
) -> Result<LbPolicy, Errors> {
    use proto::cluster::LbConfig as Options;
    let mut errors = Errors::new();
    let mut choice = DEFAULT_CHOICES;
    let mut ring = RING;
    let mut maglev = MAGLEV;
    match config {
        None | Some(Options::RoundRobinLbConfig(_)) => {}
        Some(Options::LeastRequestLbConfig(config)) => {
            let proto::cluster::LeastRequestLbConfig { choice_count } = config;
            let choices = choices(choice_count).at("least_request_lb_config");
            choice = errors.take(choices).unwrap_or_default();
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
        let text = format!("{name} is not supported yet; use ROUND_ROBIN, RANDOM or LEAST_REQUEST");
        Err(Errors::from(Fault::unsupported(text)).at("lb_policy"))
    };
    let policy = match fields::enumeration(policy).at("lb_policy") {
        Err(error) => Err(error),
        Ok(Named::RoundRobin) => Ok(LbPolicy::RoundRobin),
        Ok(Named::Random) => Ok(LbPolicy::Random),
        Ok(Named::LeastRequest) => Ok(LbPolicy::LeastRequest { choices: choice }),
        Ok(Named::RingHash) => Ok(hashing.with(ring)),
        Ok(Named::Maglev) => Ok(hashing.with(maglev)),
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

/// Where a policy stands. Those of localities do not stand within another, however often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Cluster,
    WithinLocality,
}

/// A policy and how it spreads over localities.
type Spread = (LbPolicy, LocalityPolicy);

/// The first policy that is known; those before it are for other proxies.
fn extension(proto: proto::LoadBalancingPolicy, place: Place) -> Result<Spread, Errors> {
    let proto::LoadBalancingPolicy { policies } = proto;
    let mut unknown = Vec::new();
    for (index, policy) in policies.into_iter().enumerate() {
        let proto::load_balancing_policy::Policy { typed_extension_config } = policy;
        let found = fields::required(typed_extension_config)
            .at("typed_extension_config")
            .and_then(|extension| {
                let config = fields::required(extension.typed_config);
                config
                    .and_then(|config| known(&config, place))
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
fn known(config: &prost_types::Any, place: Place) -> Result<Result<Spread, String>, Errors> {
    let undecodable = |e: any::UnpackError| Errors::from(Fault::Undecodable(e.to_string()));
    let name = any::effective_type(config).map_err(undecodable)?;
    let policy = match &*name {
        "envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin" => {
            let RoundRobin { locality_lb_config } = any::unpack(config).map_err(undecodable)?;
            (LbPolicy::RoundRobin, locality(locality_lb_config))
        }
        "envoy.extensions.load_balancing_policies.random.v3.Random" => {
            let Random { locality_lb_config } = any::unpack(config).map_err(undecodable)?;
            (LbPolicy::Random, locality(locality_lb_config))
        }
        "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest" => {
            let LeastRequest { choice_count, locality_lb_config } =
                any::unpack(config).map_err(undecodable)?;
            let policy = LbPolicy::LeastRequest { choices: choices(choice_count)? };
            (policy, locality(locality_lb_config))
        }
        "envoy.extensions.load_balancing_policies.ring_hash.v3.RingHash" => {
            ring_hash(any::unpack(config).map_err(undecodable)?)?
        }
        "envoy.extensions.load_balancing_policies.maglev.v3.Maglev" => {
            let Maglev { table_size, consistent_hashing_lb_config, locality_weighted_lb_config } =
                any::unpack(config).map_err(undecodable)?;
            let hashing = consistent(consistent_hashing_lb_config)?;
            (hashing.with(maglev_size(table_size)?), weighted(locality_weighted_lb_config))
        }
        "envoy.extensions.load_balancing_policies.wrr_locality.v3.WrrLocality"
            if place == Place::Cluster =>
        {
            let WrrLocality { endpoint_picking_policy } =
                any::unpack(config).map_err(undecodable)?;
            let (policy, _) = fields::required(endpoint_picking_policy)
                .and_then(|policy| extension(policy, Place::WithinLocality))
                .at("endpoint_picking_policy")?;
            (policy, LocalityPolicy::Weighted)
        }
        other => return Ok(Err(other.to_owned())),
    };
    Ok(Ok(policy))
}

fn locality(config: Option<LocalityLbConfig>) -> LocalityPolicy {
    use locality_lb_config::LocalityConfigSpecifier::LocalityWeightedLbConfig;
    let LocalityLbConfig { locality_config_specifier } = config.unwrap_or_default();
    match locality_config_specifier {
        None => LocalityPolicy::Ignored,
        Some(LocalityWeightedLbConfig(_)) => LocalityPolicy::Weighted,
    }
}

fn weighted(config: Option<locality_lb_config::LocalityWeightedLbConfig>) -> LocalityPolicy {
    match config {
        None => LocalityPolicy::Ignored,
        Some(locality_lb_config::LocalityWeightedLbConfig {}) => LocalityPolicy::Weighted,
    }
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

/// `minimum_ring_size`, `maximum_ring_size` and `table_size` unless set.
const RING: HashPolicy = HashPolicy::RingHash {
    minimum_size: 1024,
    maximum_size: MAX_RING,
    function: HashFunction::XxHash,
};
const MAGLEV: HashPolicy = HashPolicy::Maglev { table_size: 65_537 };
const MAX_RING: u64 = 8 << 20;
const MAX_TABLE: u32 = 5_000_011;

/// What both policies that hash have in common.
#[derive(Debug, Clone, Copy, Default)]
struct Hashing {
    use_hostname: bool,
    balance_factor: Option<u32>,
}

impl Hashing {
    fn with(self, policy: HashPolicy) -> LbPolicy {
        let Self { use_hostname, balance_factor } = self;
        LbPolicy::Hash(HashConfig { policy, use_hostname, balance_factor })
    }
}

fn balance(use_hostname: bool, factor: Option<u32>) -> Result<Hashing, Errors> {
    let factor = factor.map(|factor| fields::in_range(factor, 100..=u32::MAX));
    let balance_factor = factor.transpose().at("hash_balance_factor")?;
    Ok(Hashing { use_hostname, balance_factor })
}

fn consistent(proto: Option<ConsistentHashingLbConfig>) -> Result<Hashing, Errors> {
    let ConsistentHashingLbConfig { use_hostname_for_hashing, hash_balance_factor } =
        proto.unwrap_or_default();
    balance(use_hostname_for_hashing, hash_balance_factor).at("consistent_hashing_lb_config")
}

fn ring_hash(proto: RingHash) -> Result<Spread, Errors> {
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
    Ok((policy, weighted(locality_weighted_lb_config)))
}

fn ring_sizes(
    minimum: Option<u64>,
    maximum: Option<u64>,
    function: HashFunction,
) -> Result<HashPolicy, Errors> {
    let mut errors = Errors::new();
    let mut size = |value: Option<u64>, default: u64, field: &'static str| {
        let value = value.unwrap_or(default);
        if value > MAX_RING {
            errors.push(field, Fault::out_of_range(value, format!("in 0..={MAX_RING}")));
        }
        value
    };
    let maximum_size = size(maximum, MAX_RING, "maximum_ring_size");
    let minimum_size = size(minimum, maximum_size.min(1024), "minimum_ring_size");
    if minimum_size > maximum_size {
        let text = format!("{minimum_size} is more than maximum_ring_size, {maximum_size}");
        errors.push("minimum_ring_size", Fault::Conflict(text.into()));
    }
    errors.finish()?;
    Ok(HashPolicy::RingHash { minimum_size, maximum_size: maximum_size.max(1), function })
}

fn maglev_size(size: Option<u64>) -> Result<HashPolicy, Errors> {
    let Some(size) = size else { return Ok(MAGLEV) };
    let in_range = u32::try_from(size).ok().filter(|size| (2..=MAX_TABLE).contains(size));
    let is_prime =
        |size: &u32| (2..).take_while(|n| n * n <= *size).all(|n| !size.is_multiple_of(n));
    match in_range {
        None => {
            let fault = Fault::out_of_range(size, format!("in 2..={MAX_TABLE}"));
            Err(Errors::from(fault).at("table_size"))
        }
        Some(size) if !is_prime(&size) => {
            let fault = Fault::Conflict(format!("{size} is not a prime number").into());
            Err(Errors::from(fault).at("table_size"))
        }
        Some(table_size) => Ok(HashPolicy::Maglev { table_size }),
    }
}
