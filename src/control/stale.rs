//! Endpoints that hold for a time only: `ClusterLoadAssignment.Policy.endpoint_stale_after`.

use std::collections::BTreeMap;

use tokio::time::Instant;
use tracing::warn;

use super::follow::Want;
use super::state::State;
use super::store::Map;
use crate::upstream::Endpoints;

/// When which endpoints become stale.
#[derive(Debug, Default)]
pub(super) struct Stale {
    last: u64,
    ends: BTreeMap<(Instant, u64), Want>,
    by_want: Map<Want, (Instant, u64)>,
}

impl Stale {
    /// Endpoints came, and hold until `end`; or, without one, until others come.
    pub(super) fn renew(&mut self, want: &Want, end: Option<Instant>) {
        if let Some(key) = self.by_want.remove(want) {
            self.ends.remove(&key);
        }
        if let Some(end) = end {
            self.last += 1;
            self.ends.insert((end, self.last), want.clone());
            self.by_want.insert(want.clone(), (end, self.last));
        }
    }

    /// What is stale now.
    fn expire(&mut self, now: Instant) -> Vec<Want> {
        let later = self.ends.split_off(&(now, u64::MAX));
        let over: Vec<Want> = std::mem::replace(&mut self.ends, later).into_values().collect();
        for want in &over {
            self.by_want.remove(want);
        }
        over
    }

    pub(super) fn next_end(&self) -> Option<Instant> {
        self.ends.keys().next().map(|(end, _)| *end)
    }
}

impl State {
    /// Takes away endpoints that nothing newer came for.
    pub(super) fn expire_stale(&mut self, now: Instant) {
        for want in self.stale.expire(now) {
            warn!(name = %want.name, "endpoints are stale; the cluster has none now");
            for cluster in self.serving(&want) {
                cluster.stats.assignment_stale.inc();
            }
            self.give(&want, &Endpoints::default());
            self.endpoints.remove(&want);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::follow::Follow;
    use super::*;
    use crate::xds::{ResourceType, Source};

    #[test]
    fn what_is_renewed_does_not_become_stale() {
        let source = Follow::default().source(&Source::Ads);
        let want = |name: &str| Want { source, ty: ResourceType::Endpoints, name: name.into() };
        let (mut stale, now) = (Stale::default(), Instant::now());
        let at = |seconds| now + Duration::from_secs(seconds);
        stale.renew(&want("a"), Some(at(1)));
        stale.renew(&want("b"), Some(at(1)));
        stale.renew(&want("c"), Some(at(1)));
        stale.renew(&want("a"), Some(at(2)));
        stale.renew(&want("b"), None);
        assert_eq!(stale.next_end(), Some(at(1)));
        assert_eq!(stale.expire(now), []);
        assert_eq!(stale.expire(at(1)), [want("c")]);
        assert_eq!(stale.expire(at(2)), [want("a")]);
        assert!(stale.by_want.is_empty() && stale.next_end().is_none());
    }
}
