//! What compression saves of the bytes, and what it takes of the proxy's CPU.

use crate::client::{get, get_gzip};
use crate::load::{Tally, as_f64};
use crate::mix::{Mix, percent};
use crate::origin::Origin;
use crate::world::{World, instances};
use crate::{Bar, Failure, median, payload};

const LENGTH: usize = 30 << 10;
const ROUNDS: usize = 5;
const REQUESTS: u64 = 4_000;
const WORKERS: usize = 1;
const BAR: f64 = 60.0;

pub(crate) fn measure() -> Result<Vec<Bar>, Failure> {
    let origin = Origin::start("application/json", &payload::json(LENGTH))?;
    let instances = instances([(origin.address, 1)]);
    let world = World::start(
        WORKERS,
        &format!(
            "services: [{{ name: s, instances: {instances} }}]
routes: [{{ service: s }}]
compression: {{ compression_level: 6, supported_encodings: [gzip] }}
"
        ),
    )?;
    let (plain, gzip) = (Mix::one(get("/")), Mix::one(get_gzip("/")));
    let round = |mix: &Mix| -> Result<(Tally, f64), Failure> {
        let before = world.proxy.cpu()?;
        let tally = world.load.count(REQUESTS, mix).all_well()?;
        let cpu = (world.proxy.cpu()? - before).as_secs_f64() * 1e6;
        Ok((tally, cpu / as_f64(REQUESTS)))
    };
    round(&plain)?;
    round(&gzip)?;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    let (mut length, mut encoded) = (0, 0);
    for _ in 0..ROUNDS {
        without.push(round(&plain)?.1);
        let (tally, cpu) = round(&gzip)?;
        with.push(cpu);
        (length, encoded) = (length + tally.bytes, encoded + tally.encoded);
    }
    let requests = REQUESTS * ROUNDS as u64;
    if encoded != requests {
        return Err(format!("{encoded} of {requests} answers were encoded").into());
    }
    let saved = 100.0 - percent(length, requests * LENGTH as u64);
    let (without, with) = (median(without), median(with));
    let share = 100.0 * (1.0 - without / with);
    Ok(vec![Bar {
        what: "JSON of 30 KB, gzip 6",
        figure: format!(
            "{saved:.1} % saved; CPU {with:.0} us for {without:.0} us: {share:.0} % of it"
        ),
        bar: "above 60 % saved",
        is_met: saved > BAR,
    }])
}
