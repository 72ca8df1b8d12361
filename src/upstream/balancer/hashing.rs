//! Consistent hashing: which host a request's hash belongs to.
//!
//! A [`HashTable`] is built once for the hosts of a priority, by whoever publishes them, and shared by
//! the workers. Hash functions and construction are Envoy's, so that a request goes to the same host
//! whichever of the two proxies it comes through.

use std::sync::Arc;

use xxhash_rust::xxh64::xxh64;

use super::maglev::Maglev;
use super::ring_hash::Ring;
use crate::upstream::host::Host;
use crate::upstream::stats::ClusterStats;

/// How the hash of a host is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HashFunction {
    /// XXH64, seed 0.
    #[default]
    XxHash,
    /// MurmurHash64A with the seed of libstdc++.
    Murmur2,
}

/// A policy that chooses by hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashPolicy {
    /// The next point on a ring: `RingHashLbConfig`.
    RingHash {
        /// Points at the least; more make shares more even. 1024 unless set.
        minimum_size: u64,
        /// Points at the most: up to 8,388,608.
        maximum_size: u64,
        /// How points are made.
        function: HashFunction,
    },
    /// A table: `MaglevLbConfig`.
    Maglev {
        /// Its size, a prime; 65,537 unless set, at most 5,000,011.
        table_size: u32,
    },
}

/// Consistent hashing as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashConfig {
    /// Which table.
    pub policy: HashPolicy,
    /// Hosts are known by their name and not by their address.
    pub use_hostname: bool,
    /// How much more than its share of the requests under way a host may have, in percent of the
    /// share, 100 or more; `None` is without bound: `hash_balance_factor`.
    pub balance_factor: Option<u32>,
}

/// The hosts of a priority by hash.
#[derive(Debug)]
pub struct HashTable {
    table: Table,
    hosts: Box<[Arc<Host>]>,
    /// Each host's share, for the bound on its load; the shares add up to 1.
    shares: Box<[f64]>,
}

#[derive(Debug)]
enum Table {
    Ring(Ring),
    Maglev(Maglev),
}

impl HashTable {
    /// The table of hosts with these shares; `None` if there are none. Costs time by the size of the
    /// table.
    pub(super) fn build(config: &HashConfig, hosts: Vec<(Arc<Host>, f64)>) -> Option<Self> {
        if hosts.is_empty() {
            return None;
        }
        let (hosts, shares): (Vec<_>, Vec<_>) = hosts.into_iter().unzip();
        let keys: Vec<String> = hosts.iter().map(|host| key(host, config.use_hostname)).collect();
        let table = match config.policy {
            HashPolicy::RingHash { minimum_size, maximum_size, function } => {
                Table::Ring(Ring::build(&keys, &shares, (minimum_size, maximum_size), function))
            }
            HashPolicy::Maglev { table_size } => {
                Table::Maglev(Maglev::build(&keys, &shares, table_size))
            }
        };
        Some(Self { table, hosts: hosts.into(), shares: shares.into() })
    }

    /// The host that a hash belongs to, unless `balance_factor` sends it elsewhere.
    pub(super) fn choose(
        &self,
        hash: u64,
        balance_factor: Option<u32>,
        stats: &ClusterStats,
    ) -> Arc<Host> {
        let index = match balance_factor {
            None => self.find(hash),
            Some(factor) => self.find_bounded(hash, factor, stats.upstream_rq_active.value()),
        };
        Arc::clone(&self.hosts[index])
    }

    fn find(&self, hash: u64) -> usize {
        match &self.table {
            Table::Ring(ring) => ring.choose(hash),
            Table::Maglev(maglev) => maglev.choose(hash),
        }
    }

    /// The same, but for hosts with more requests under way than `factor` percent of their share of
    /// `active`, all that are under way: they are passed over for others, in an order that the hash
    /// decides. If all are over it, the one that is least so is taken. O(1) while the first is not.
    fn find_bounded(&self, hash: u64, factor: u32, active: i64) -> usize {
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 requests")]
        let requests = |active: i64| active.max(0) as f64;
        let total = requests(active) + 1.0;
        let load = |index: usize| {
            let slots = (total * self.shares[index] * f64::from(factor) / 100.0).ceil().max(1.0);
            requests(self.hosts[index].stats.rq_active.value()) / slots
        };
        let first = self.find(hash);
        if load(first) < 1.0 {
            return first;
        }
        let mut best = (load(first), first);
        let mut random = hash;
        // An order of the hosts that belongs to the hash, so that what overflows goes together.
        let mut order: Vec<usize> = (0..self.hosts.len()).filter(|index| *index != first).collect();
        while !order.is_empty() {
            let drawn = super::next_random(&mut random) % order.len() as u64;
            let index = order.swap_remove(usize::try_from(drawn).unwrap_or_default());
            match load(index) {
                load if load < 1.0 => return index,
                load if load < best.0 => best = (load, index),
                _ => {}
            }
        }
        best.1
    }
}

/// What a host is known by: `hash_key` of its `envoy.lb` metadata, its name, or its address.
fn key(host: &Host, use_hostname: bool) -> String {
    use prost_types::value::Kind::StringValue;
    let metadata = host.metadata();
    let field = metadata.as_ref().and_then(|m| m.get("envoy.lb")?.fields.get("hash_key"));
    match field.and_then(|field| field.kind.as_ref()) {
        Some(StringValue(key)) if !key.is_empty() => key.clone(),
        _ if use_hostname => host.hostname().to_string(),
        _ => host.address().to_string(),
    }
}

impl HashFunction {
    pub(super) fn hash(self, bytes: &[u8]) -> u64 {
        match self {
            Self::XxHash => xxh64(bytes, 0),
            Self::Murmur2 => murmur2(bytes, 0xc70f_6907),
        }
    }
}

/// `MurmurHash64A`, by Austin Appleby.
fn murmur2(bytes: &[u8], seed: u64) -> u64 {
    const MULTIPLIER: u64 = 0xc6a4_a793_5bd1_e995;
    let mix = |value: u64| value ^ (value >> 47);
    let mut hash = seed ^ (bytes.len() as u64).wrapping_mul(MULTIPLIER);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        let word = mix(u64::from_le_bytes(*word).wrapping_mul(MULTIPLIER));
        hash = (hash ^ word.wrapping_mul(MULTIPLIER)).wrapping_mul(MULTIPLIER);
    }
    if !rest.is_empty() {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        hash = (hash ^ u64::from_le_bytes(last)).wrapping_mul(MULTIPLIER);
    }
    mix(mix(hash).wrapping_mul(MULTIPLIER))
}

#[cfg(test)]
mod tests;
