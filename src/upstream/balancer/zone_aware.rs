//! Zone-aware balancing: requests stay in the proxy's own zone as far as that keeps load even over all
//! upstream hosts (`ZoneAwareLbConfig`).
//!
//! A zone with a share p of the proxies gets a share p of the requests. If at least as large a share of
//! the upstream's hosts is there, all can stay; else as many stay as those hosts take, and the rest goes
//! to zones whose share of hosts is larger than theirs of proxies. Of the first priority and its
//! healthy hosts only.

use std::sync::Arc;

use super::locality::Weighed;
use crate::upstream::host::{Host, Locality};
use crate::upstream::hosts::HostSet;
use crate::upstream::zone::{LocalZone, ZoneCounts};

/// `ZoneAwareLbConfig`
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ZoneAware {
    /// For how many of a hundred requests; 100 unless set.
    pub routing_enabled: f64,
    /// With fewer healthy hosts zones do not matter; 6 unless set.
    pub min_cluster_size: u64,
    /// In a panic requests are refused, not sent to hosts that are not healthy.
    pub fail_traffic_on_panic: bool,
    /// With so many healthy hosts in the own zone all requests stay there.
    pub force_local_min_size: Option<u32>,
    /// Shares are of the hosts' weights, not of their number.
    pub by_weight: bool,
}

impl Default for ZoneAware {
    fn default() -> Self {
        Self {
            routing_enabled: 100.0,
            min_cluster_size: 6,
            fail_traffic_on_panic: false,
            force_local_min_size: None,
            by_weight: false,
        }
    }
}

crate::stats! {
    /// `cluster.NAME.lb_zone_*`
    pub struct ZoneStats {
        /// Times that there were too few hosts for zones to matter.
        counter lb_zone_cluster_too_small,
        /// Times that the proxy's own cluster was not known well enough.
        counter lb_local_cluster_not_ok,
        /// Requests of a zone that takes all of its own.
        counter lb_zone_routing_all_directly,
        /// Requests that stayed where not all could.
        counter lb_zone_routing_sampled,
        /// Requests to other zones.
        counter lb_zone_routing_cross_zone,
    }
}

/// Zones by weight, the own one first; `None` if zones do not matter now.
pub(super) fn weigh(
    set: &HostSet,
    config: &ZoneAware,
    (zone, counts): (&LocalZone, Option<&ZoneCounts>),
    stats: &ZoneStats,
) -> Option<Vec<Weighed>> {
    let first = set.priorities.first()?;
    let mut groups: Vec<(Arc<Locality>, Vec<Arc<Host>>)> = Vec::new();
    for group in &first.localities {
        let hosts = first.healthy_of(group).cloned();
        match groups.iter_mut().find(|(locality, _)| *locality == group.locality) {
            Some((_, known)) => known.extend(hosts),
            None => groups.push((Arc::clone(&group.locality), hosts.collect())),
        }
    }
    groups.retain(|(_, hosts)| !hosts.is_empty());
    let own = groups.iter().position(|(locality, _)| **locality == zone.locality)?;
    groups.swap(0, own);
    if groups.len() < 2 {
        return None;
    }
    if (first.healthy.len() as u64) < config.min_cluster_size {
        stats.lb_zone_cluster_too_small.inc();
        return None;
    }
    let proxies = |locality: &Locality| {
        counts.and_then(|counts| counts.hosts.get(locality)).copied().unwrap_or(0)
    };
    if proxies(&zone.locality) == 0 {
        stats.lb_local_cluster_not_ok.inc();
        return None;
    }
    let size = |hosts: &[Arc<Host>]| -> f64 {
        match config.by_weight {
            true => hosts.iter().map(|host| f64::from(host.weight())).sum(),
            false => float(hosts.len()),
        }
    };
    let all_hosts: f64 = groups.iter().map(|(_, hosts)| size(hosts)).sum();
    let all_proxies: usize = counts.map_or(0, |counts| counts.hosts.values().sum());
    let shares: Vec<(f64, f64)> = groups
        .iter()
        .map(|(locality, hosts)| {
            (size(hosts) / all_hosts, float(proxies(locality)) / float(all_proxies))
        })
        .collect();
    let (of_hosts, of_proxies) = shares[0];
    let forced =
        config.force_local_min_size.is_some_and(|least| groups[0].1.len() >= least as usize);
    if of_hosts >= of_proxies || forced {
        groups.truncate(1);
        return Some(groups.into_iter().map(|(_, hosts)| Weighed { hosts, weight: 1.0 }).collect());
    }
    let stays = of_hosts / of_proxies;
    let spare: Vec<f64> =
        shares.iter().skip(1).map(|(hosts, proxies)| (hosts - proxies).max(0.0)).collect();
    let all_spare: f64 = spare.iter().sum();
    let weights = spare.iter().map(|spare| match all_spare > 0.0 {
        true => (1.0 - stays) * spare / all_spare,
        false => (1.0 - stays) / float(shares.len() - 1),
    });
    let weights = std::iter::once(stays).chain(weights);
    let weighed =
        groups.into_iter().zip(weights).map(|((_, hosts), weight)| Weighed { hosts, weight });
    Some(weighed.filter(|weighed| weighed.weight > 0.0).collect())
}

#[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 hosts")]
fn float(count: usize) -> f64 {
    count as f64
}
