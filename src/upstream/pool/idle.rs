//! The end of connections: idle, worn out, or to a host that is gone.

use std::collections::HashSet;
use std::net::SocketAddr;

use foldhash::fast::RandomState;
use tokio::time::Instant;

use super::{HostPool, Pools};
use crate::upstream::hosts::HostSet;

impl HostPool {
    /// Whether a connection has served as many requests, or is as old, as the settings allow.
    pub(super) fn is_worn(&self, served: u32, opened: Instant, now: Instant) -> bool {
        if self.settings.max_requests_per_connection.is_some_and(|max| served >= max.get()) {
            self.stats.upstream_cx_max_requests.inc();
            return true;
        }
        let too_old = self
            .settings
            .max_connection_duration
            .is_some_and(|max| now.saturating_duration_since(opened) >= max);
        if too_old {
            self.stats.upstream_cx_max_duration_reached.inc();
        }
        too_old
    }
}

impl Pools {
    /// Closes what has been idle for too long or has become too old, and what the upstream closed
    /// meanwhile. Called by the worker's sweeper about once a second.
    pub(in crate::upstream) fn sweep(&self, now: Instant) {
        let limit = Some((now, self.settings.idle_timeout));
        for pool in self.by_address.lock().values() {
            let closed = pool.http1.close_idle(limit) + pool.http2.close_idle(limit);
            self.stats.upstream_cx_idle_timeout.add(closed);
            if self.settings.max_connection_duration.is_some() {
                pool.close_worn(now);
            }
        }
    }

    /// Drops the pools of hosts that are not in `set`; what they carry goes on to its end.
    pub(in crate::upstream) fn retain(&self, set: &HostSet) {
        let mut pools = self.by_address.lock();
        if pools.is_empty() {
            return;
        }
        let wanted: HashSet<SocketAddr, RandomState> = set.iter().map(|h| h.address()).collect();
        pools.retain(|address, pool| {
            let keep = wanted.contains(address);
            if !keep {
                pool.retire();
            }
            keep
        });
    }
}
