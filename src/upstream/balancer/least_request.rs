//! `LEAST_REQUEST`: of a few hosts drawn at random, the one with the fewest requests.
//!
//! Differs: with unequal weights the drawn hosts are compared by requests per weight, where Envoy
//! builds a schedule of weights that shrink with load. Both keep load in proportion to weight.

use std::sync::Arc;

use crate::upstream::host::Host;

/// `choices` hosts are drawn, with repetition.
pub(super) fn choose(
    hosts: &[Arc<Host>],
    choices: u32,
    mut random: impl FnMut() -> u64,
) -> Option<usize> {
    let count = u64::try_from(hosts.len()).ok().filter(|count| *count > 0)?;
    let mut draw = || usize::try_from(random() % count).unwrap_or(0);
    let mut best = draw();
    for _ in 1..choices {
        let other = draw();
        if is_less_loaded(&hosts[other], &hosts[best]) {
            best = other;
        }
    }
    Some(best)
}

fn is_less_loaded(a: &Host, b: &Host) -> bool {
    let requests = |host: &Host| i128::from(host.stats.rq_active.value()) + 1;
    requests(a) * i128::from(b.weight()) < requests(b) * i128::from(a.weight())
}
