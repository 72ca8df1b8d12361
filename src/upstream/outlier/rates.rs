//! Hosts that do worse than the others of their cluster, by what each did in an interval.

/// Good requests of a host in one interval, and all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tally {
    /// Which host.
    pub(super) host: usize,
    pub(super) good: u64,
    pub(super) all: u64,
}

impl Tally {
    /// Good ones of a hundred.
    fn rate(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 requests")]
        let rate = self.good as f64 / self.all as f64 * 100.0;
        rate
    }
}

/// Those with enough requests to judge, if they are enough hosts.
fn judged(tallies: &[Tally], volume: u32, minimum_hosts: u32) -> Vec<Tally> {
    let enough = |tally: &&Tally| tally.all > 0 && tally.all >= u64::from(volume);
    let judged: Vec<_> = tallies.iter().filter(enough).copied().collect();
    match judged.len() >= minimum_hosts as usize {
        true => judged,
        false => Vec::new(),
    }
}

/// Hosts whose rate is more than `factor` thousandths of the standard deviation below the mean.
pub(super) fn below_the_others(
    tallies: &[Tally],
    (volume, minimum_hosts, factor): (u32, u32, u32),
) -> Vec<usize> {
    let judged = judged(tallies, volume, minimum_hosts);
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 hosts")]
    let count = judged.len() as f64;
    let mean = judged.iter().map(Tally::rate).sum::<f64>() / count;
    let variance = judged.iter().map(|tally| (tally.rate() - mean).powi(2)).sum::<f64>() / count;
    let threshold = mean - variance.sqrt() * f64::from(factor) / 1000.0;
    judged.iter().filter(|tally| tally.rate() < threshold).map(|tally| tally.host).collect()
}

/// Hosts of whose requests at least `percent` of a hundred were bad.
pub(super) fn too_often_bad(
    tallies: &[Tally],
    (volume, minimum_hosts, percent): (u32, u32, u32),
) -> Vec<usize> {
    let judged = judged(tallies, volume, minimum_hosts);
    let bad = |tally: &&Tally| 100.0 - tally.rate() >= f64::from(percent);
    judged.iter().filter(bad).map(|tally| tally.host).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tallies(of: &[(u64, u64)]) -> Vec<Tally> {
        of.iter().enumerate().map(|(host, &(good, all))| Tally { host, good, all }).collect()
    }

    const NONE: [usize; 0] = [];

    #[test]
    fn a_host_far_below_the_others_is_found() {
        let five = [(100, 100), (99, 100), (100, 100), (98, 100), (50, 100)];
        assert_eq!(below_the_others(&tallies(&five), (100, 5, 1900)), [4]);
        assert_eq!(below_the_others(&tallies(&five), (100, 5, 2100)), NONE);
        assert_eq!(below_the_others(&tallies(&five), (101, 5, 1900)), NONE, "too few requests");
        assert_eq!(below_the_others(&tallies(&five), (100, 6, 1900)), NONE, "too few hosts");
        assert_eq!(below_the_others(&tallies(&[(5, 10); 5]), (1, 5, 1900)), NONE, "all the same");
        assert_eq!(below_the_others(&tallies(&[(0, 0); 5]), (0, 5, 1900)), NONE, "no requests");
    }

    #[test]
    fn a_host_that_fails_often_is_found_whatever_the_others_do() {
        let hosts = [(15, 100), (16, 100), (0, 100), (1, 10)];
        assert_eq!(too_often_bad(&tallies(&hosts), (50, 3, 85)), [0, 2]);
        assert_eq!(too_often_bad(&tallies(&hosts), (10, 5, 85)), NONE, "too few hosts");
        assert_eq!(too_often_bad(&tallies(&hosts), (10, 4, 85)), [0, 2, 3]);
    }
}
