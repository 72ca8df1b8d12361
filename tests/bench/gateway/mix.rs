//! What clients ask for.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::client::get;
use crate::load::as_f64;

/// Requests, and how popular each is.
pub(crate) struct Mix {
    requests: Vec<Vec<u8>>,
    /// Which part of all asks for a request or one before it.
    up_to: Vec<f64>,
}

impl Mix {
    /// Always the same.
    pub(crate) fn one(request: Vec<u8>) -> Self {
        Self { requests: vec![request], up_to: vec![1.0] }
    }

    /// So many paths by Zipf's law: the nth is asked for as often as `1 / n^exponent` says.
    pub(crate) fn zipf(paths: u32, exponent: f64) -> Self {
        let mut sum = 0.0;
        let mut up_to: Vec<f64> = (1..=paths)
            .map(|n| {
                sum += f64::from(n).powf(-exponent);
                sum
            })
            .collect();
        up_to.iter_mut().for_each(|part| *part /= sum);
        Self { requests: (1..=paths).map(|n| get(&format!("/page/{n}"))).collect(), up_to }
    }

    /// Which part of all asks for one of the `n` most popular.
    pub(crate) fn part_of_first(&self, n: usize) -> f64 {
        self.up_to.get(n.saturating_sub(1)).copied().unwrap_or(1.0)
    }

    /// The requests of one client, the same in every run.
    pub(crate) fn of<'a>(&'a self, client: usize) -> impl FnMut() -> &'a [u8] {
        let mut random = StdRng::seed_from_u64(client as u64);
        move || {
            let at = match self.requests.len() {
                1 => 0,
                _ => {
                    let x: f64 = random.random();
                    self.up_to.partition_point(|part| *part <= x)
                }
            };
            &self.requests[at.min(self.requests.len() - 1)]
        }
    }
}

/// A part of a whole in percent.
pub(crate) fn percent(part: u64, whole: u64) -> f64 {
    100.0 * as_f64(part) / as_f64(whole)
}
