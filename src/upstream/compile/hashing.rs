//! The policies that hash: their tables, and what both have in common.

use crate::config::{Errors, Fault, OrFault, fields};
use crate::proto::envoy::extensions::load_balancing_policies::common::v3::ConsistentHashingLbConfig;
use crate::upstream::balancer::LbPolicy;
use crate::upstream::balancer::hashing::{HashConfig, HashFunction, HashPolicy};

/// `minimum_ring_size`, `maximum_ring_size` and `table_size` unless set.
pub(super) const RING: HashPolicy = HashPolicy::RingHash {
    minimum_size: 1024,
    maximum_size: MAX_RING,
    function: HashFunction::XxHash,
};
pub(super) const MAGLEV: HashPolicy = HashPolicy::Maglev { table_size: 65_537 };
const MAX_RING: u64 = 8 << 20;
const MAX_TABLE: u32 = 5_000_011;

/// What both policies that hash have in common.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Hashing {
    use_hostname: bool,
    balance_factor: Option<u32>,
}

impl Hashing {
    pub(super) fn with(self, policy: HashPolicy) -> LbPolicy {
        let Self { use_hostname, balance_factor } = self;
        LbPolicy::Hash(HashConfig { policy, use_hostname, balance_factor })
    }
}

pub(super) fn balance(use_hostname: bool, factor: Option<u32>) -> Result<Hashing, Errors> {
    let factor = factor.map(|factor| fields::in_range(factor, 100..=u32::MAX));
    let balance_factor = factor.transpose().at("hash_balance_factor")?;
    Ok(Hashing { use_hostname, balance_factor })
}

pub(super) fn consistent(proto: Option<ConsistentHashingLbConfig>) -> Result<Hashing, Errors> {
    let ConsistentHashingLbConfig { use_hostname_for_hashing, hash_balance_factor } =
        proto.unwrap_or_default();
    balance(use_hostname_for_hashing, hash_balance_factor).at("consistent_hashing_lb_config")
}

pub(super) fn ring_sizes(
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

pub(super) fn maglev_size(size: Option<u64>) -> Result<HashPolicy, Errors> {
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
