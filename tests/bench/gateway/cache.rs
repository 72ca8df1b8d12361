//! How much of a usual load the cache answers, and how fast.

use std::time::Duration;

use crate::load::Tally;
use crate::mix::{Mix, percent};
use crate::origin::Origin;
use crate::world::{CLIENTS, World, instances};
use crate::{Bar, Failure};

const PATHS: u32 = 5_000;
const ENTRIES: usize = 1_000;

/// What Zipf's law is named for: the nth is asked for a nth as often as the first. Traffic of the web is between
/// 0.6 and 1.1.
const EXPONENT: f64 = 1.0;

const WARM_UP: u64 = 100_000;
const REQUESTS: u64 = 300_000;

/// So many of the most popular paths are always stored.
const HOT: u32 = 64;

const TIME: Duration = Duration::from_secs(5);
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
    let mut saturated = world.load.saturate(TIME, &hot).all_well()?;
    let mut half = world.load.pace(saturated.per_second() / 2.0, TIME, &hot)?.all_well()?;
    let (requests, missed) = (saturated.requests + half.requests, origin.requests() - before);
    if percent(missed, requests) > 0.1 {
        return Err(
            format!("{missed} of {requests} requests for what is stored were misses").into()
        );
    }
    let latency = |of: &mut Tally, what, bar, most| {
        let p99 = of.quantile(0.99);
        let (p50, rate) = (of.quantile(0.5), of.per_second());
        let figure = format!("p99 {p99:.2?}, p50 {p50:.2?} at {rate:.0}/s, {CLIENTS} clients");
        Bar { what, figure, bar, is_met: p99 < most }
    };
    Ok(vec![
        Bar {
            what: "5,000 paths, 1,000 entries",
            figure: format!(
                "{hit:.1} % hits; the best there is for Zipf {EXPONENT:.1}: {best:.1} %"
            ),
            bar: "above 80 %",
            is_met: hit > HIT_RATIO,
        },
        latency(&mut saturated, "hit of 1 KB, saturated", "p99 under 10 ms", SATURATED),
        latency(&mut half, "hit of 1 KB, half of that load", "p99 under 1 ms", HALF),
    ])
}
