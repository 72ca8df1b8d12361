//! How many requests go to an instance over a connection that was there.

use crate::client::get;
use crate::mix::{Mix, percent};
use crate::origin::Origin;
use crate::world::{CLIENTS, World, instances};
use crate::{Bar, Failure};

const REQUESTS: u64 = 100_000;
const WORKERS: usize = 2;
const BAR: f64 = 99.0;

pub(crate) fn measure() -> Result<Vec<Bar>, Failure> {
    let mut origins = Vec::new();
    for _ in 0..4 {
        origins.push(Origin::start("text/plain", &[b'x'; 1 << 10])?);
    }
    let instances = instances(origins.iter().map(|origin| (origin.address, 1)));
    let world = World::start(
        WORKERS,
        &format!(
            "services: [{{ name: s, instances: {instances} }}]
routes: [{{ service: s }}]
connection_pool: {{}}
"
        ),
    )?;
    world.load.count(REQUESTS, &Mix::one(get("/"))).all_well()?;
    let made: u64 = origins.iter().map(Origin::connections).sum();
    let reused = 100.0 - percent(made, REQUESTS);
    Ok(vec![Bar {
        what: "64 clients, 100,000 requests",
        figure: format!("{reused:.2} %: {made} connections for {CLIENTS} clients"),
        bar: "above 99 %",
        is_met: reused > BAR,
    }])
}
