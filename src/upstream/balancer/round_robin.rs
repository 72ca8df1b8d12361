//! `ROUND_ROBIN`: each host in turn, by weight.

use std::sync::Arc;

use super::edf::Edf;
use crate::upstream::host::Host;

/// Whose turn it is among some hosts.
#[derive(Debug)]
pub(super) enum RoundRobin {
    /// Equal weights need no schedule.
    Equal(usize),
    Weighted(Edf),
}

impl RoundRobin {
    /// Begins at a place that `random` chooses, so that workers do not all begin at the first host.
    pub(super) fn new(hosts: &[Arc<Host>], random: u64) -> Self {
        let Some(first) = hosts.first() else { return Self::Equal(0) };
        let below = |n: u64| usize::try_from(random % n.max(1)).unwrap_or(0);
        if hosts.iter().all(|host| host.weight() == first.weight()) {
            return Self::Equal(below(hosts.len() as u64));
        }
        let mut edf = Edf::new(hosts.iter().map(|host| host.weight()));
        // Bounded, as a set may be replaced often and weights may be large.
        for _ in 0..below(hosts.len().min(1024) as u64) {
            edf.next();
        }
        Self::Weighted(edf)
    }

    pub(super) fn next(&mut self, hosts: &[Arc<Host>]) -> Option<usize> {
        match self {
            Self::Equal(_) if hosts.is_empty() => None,
            Self::Equal(cursor) => {
                let index = if *cursor < hosts.len() { *cursor } else { 0 };
                *cursor = index + 1;
                Some(index)
            }
            Self::Weighted(edf) => edf.next(),
        }
    }
}
