//! `LEAST_REQUEST`: of a few hosts drawn at random, or of all, the one with the fewest requests.
//!
//! Differs: with unequal weights the hosts are compared by requests per weight, where Envoy builds a
//! schedule of weights that shrink with load. Both keep load in proportion to weight.

use std::sync::Arc;

use super::below;
use crate::upstream::host::Host;

/// How the least loaded host is found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LeastRequest {
    /// How many hosts are drawn, at least 2; `None` looks at all of them: `FULL_SCAN`.
    pub choices: Option<u32>,
    /// How much requests under way count against weight: 0 not at all, 1 in proportion.
    pub active_request_bias: f64,
}

impl Default for LeastRequest {
    fn default() -> Self {
        Self { choices: Some(2), active_request_bias: 1.0 }
    }
}

impl LeastRequest {
    /// Hosts are drawn with repetition. O(n) if all are looked at.
    pub(super) fn choose(
        &self,
        hosts: &[Arc<Host>],
        mut random: impl FnMut() -> u64,
    ) -> Option<usize> {
        if hosts.is_empty() {
            return None;
        }
        let mut draw = || below(random(), hosts.len());
        let mut best = draw();
        match self.choices {
            Some(choices) => {
                for _ in 1..choices {
                    let other = draw();
                    if self.is_less_loaded(&hosts[other], &hosts[best]) {
                        best = other;
                    }
                }
            }
            // Beginning anywhere, so that hosts with equal load get equal shares.
            None => {
                let start = best;
                for other in (start..hosts.len()).chain(0..start) {
                    if self.is_less_loaded(&hosts[other], &hosts[best]) {
                        best = other;
                    }
                }
            }
        }
        Some(best)
    }

    #[expect(clippy::float_cmp, reason = "the default is exactly this")]
    fn is_less_loaded(&self, a: &Host, b: &Host) -> bool {
        let requests = |host: &Host| host.stats.rq_active.value() + 1;
        if self.active_request_bias == 1.0 {
            if a.weight() == b.weight() {
                return requests(a) < requests(b);
            }
            let load = |of: &Host, by: &Host| i128::from(requests(of)) * i128::from(by.weight());
            return load(a, b) < load(b, a);
        }
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 requests")]
        let load = |host: &Host| {
            (requests(host) as f64).powf(self.active_request_bias) / f64::from(host.weight())
        };
        load(a) < load(b)
    }
}
