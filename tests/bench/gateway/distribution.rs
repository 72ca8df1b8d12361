//! Whether each instance gets its share.

use crate::client::get;
use crate::load::as_f64;
use crate::mix::Mix;
use crate::origin::Origin;
use crate::world::{World, instances};
use crate::{Bar, Failure};

const REQUESTS: u64 = 10_000;
const WORKERS: usize = 2;

/// Percent of its share that an instance may have too few or too many.
const BAR: f64 = 1.0;

pub(crate) fn measure() -> Result<Vec<Bar>, Failure> {
    Ok(vec![
        shares("4 instances, round_robin", "round_robin", [1; 4])?,
        shares("4 instances, weighted 4:3:2:1", "weighted", [4, 3, 2, 1])?,
    ])
}

fn shares(what: &'static str, strategy: &str, weights: [u32; 4]) -> Result<Bar, Failure> {
    let mut origins = Vec::new();
    for _ in weights {
        origins.push(Origin::start("text/plain", b"here")?);
    }
    let instances = instances(origins.iter().map(|origin| origin.address).zip(weights));
    let world = World::start(
        WORKERS,
        &format!(
            "services: [{{ name: s, strategy: {strategy}, instances: {instances} }}]
routes: [{{ service: s }}]
load_balancer: {{ health_check: {{ enabled: false }} }}
"
        ),
    )?;
    world.load.count(REQUESTS, &Mix::one(get("/"))).all_well()?;
    let got: Vec<u64> = origins.iter().map(Origin::requests).collect();
    let sum = f64::from(weights.iter().sum::<u32>());
    let off = got.iter().zip(weights).map(|(got, weight)| {
        let share = as_f64(REQUESTS) * f64::from(weight) / sum;
        100.0 * (as_f64(*got) - share).abs() / share
    });
    let worst = off.fold(0.0, f64::max);
    Ok(Bar {
        what,
        figure: format!("{got:?} of {REQUESTS}: off by {worst:.2} %"),
        bar: "within 1 %",
        is_met: worst <= BAR,
    })
}
