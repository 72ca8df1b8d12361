//! What it costs that the metrics are scraped.

use std::time::Duration;

use crate::client::get;
use crate::load::{as_f64, every_second};
use crate::mix::Mix;
use crate::origin::Origin;
use crate::world::{World, instances};
use crate::{Bar, Failure, median};

const PAIRS: usize = 12;
const ROUND: Duration = Duration::from_secs(2);
const WORKERS: usize = 1;

/// Percent of the CPU that a request takes.
const BAR: f64 = 3.0;

pub(crate) fn measure() -> Result<Vec<Bar>, Failure> {
    let origin = Origin::start("text/plain", &[b'x'; 1 << 10])?;
    let instances = instances([(origin.address, 1)]);
    let world = World::start(
        WORKERS,
        &format!("services: [{{ name: s, instances: {instances} }}]\nroutes: [{{ service: s }}]\n"),
    )?;
    let mix = Mix::one(get("/"));
    let quiet = || -> Result<f64, Failure> {
        let before = world.proxy.cpu()?;
        let tally = world.load.saturate(ROUND, &mix).all_well()?;
        let cpu = world.proxy.cpu()? - before;
        Ok(1e6 * cpu.as_secs_f64() / as_f64(tally.requests))
    };
    let scraped = || {
        let scrape = || match world.admin("/metrics")?.is_empty() {
            true => Err("/metrics is empty".into()),
            false => Ok(()),
        };
        every_second(scrape, quiet)?
    };
    quiet()?;
    let (mut without, mut with, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for pair in 0..PAIRS {
        // What drifts meanwhile does so for both.
        let (plain, costly) = if pair % 2 == 0 {
            let plain = quiet()?;
            (plain, scraped()?)
        } else {
            let costly = scraped()?;
            (quiet()?, costly)
        };
        ratios.push(costly / plain);
        without.push(plain);
        with.push(costly);
    }
    let cost = 100.0 * (median(ratios) - 1.0);
    let (without, with) = (median(without), median(with));
    Ok(vec![Bar {
        what: "GET of 1 KB, a scrape a second",
        figure: format!("{cost:+.1} %: CPU {without:.1} us a request, {with:.1} us scraped"),
        bar: "under 3 %",
        is_met: cost < BAR,
    }])
}
