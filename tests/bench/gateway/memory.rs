//! Whether anything is left behind by requests and pushes.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::load::{as_f64, every_second};
use crate::mix::Mix;
use crate::origin::Origin;
use crate::wait::until;
use crate::world::{World, instances};
use crate::{Bar, Failure};

const REQUESTS: u64 = 2_000_000;
const WARM_UP: u64 = REQUESTS / 5;
const WORKERS: usize = 2;

/// Growth of memory after the warm-up: percent, or so many bytes if that is more.
const BAR: f64 = 5.0;
const OR_BYTES: u64 = 1 << 20;

pub(crate) fn measure() -> Result<Vec<Bar>, Failure> {
    let mut origins = Vec::new();
    for _ in 0..4 {
        origins.push(Origin::start("text/plain", &[b'x'; 1 << 10])?);
    }
    let world = World::start(WORKERS, &gateway(&origins, 0))?;
    let descriptors = world.proxy.descriptors()?;
    let mix = Mix::zipf(5_000, 1.0);
    let pushes = AtomicU32::new(0);
    let push = || {
        world.nothing_refused()?;
        world.rewrite(&gateway(&origins, pushes.fetch_add(1, Ordering::Relaxed) + 1))
    };
    let (warm, all) = every_second(push, || {
        let mut all = world.load.count(WARM_UP, &mix);
        let warm = world.proxy.rss();
        all.add(world.load.count(REQUESTS - WARM_UP, &mix));
        warm.map(|warm| (warm, all))
    })??;
    let end = world.proxy.rss()?;
    let all = all.all_well()?;
    let pushes = pushes.into_inner();
    let updates = world.stat("listener_manager.lds.update_success")?;
    if updates < u64::from(pushes) / 2 {
        return Err(format!("{pushes} changes reached the proxy as {updates} updates").into());
    }
    let mut left = 0;
    let closed = until("connections to instances that idle are closed", || {
        left = world.proxy.descriptors()?;
        Ok((left <= descriptors).then_some(()))
    });
    let growth = end.saturating_sub(warm);
    let (part, mb) = (100.0 * as_f64(growth) / as_f64(warm), |n| as_f64(n) / f64::from(1 << 20));
    let (warm, end, minutes) = (mb(warm), mb(end), all.took.as_secs_f64() / 60.0);
    Ok(vec![
        Bar {
            what: "2,000,000 requests",
            figure: format!(
                "{warm:.1} MB after 400,000, {end:.1} MB: +{part:.1} %; {pushes} pushes in {minutes:.1} min"
            ),
            bar: "under 5 % or 1 MB",
            is_met: part < BAR || growth < OR_BYTES,
        },
        Bar {
            what: "descriptors",
            figure: format!("{descriptors} before, {left} after"),
            bar: "none left",
            is_met: closed.is_ok(),
        },
    ])
}

/// The gateway file after so many changes: weights, instances, routes and the cache's policy differ.
fn gateway(origins: &[Origin], change: u32) -> String {
    let present = 3 + usize::from(change.is_multiple_of(2));
    let weighted = origins.iter().take(present).zip(change..);
    let instances = instances(weighted.map(|(origin, n)| (origin.address, 1 + n % 4)));
    let (ttl, level) = (60 + change % 3, 100 * (change % 5));
    format!(
        "services:
- {{ name: s, strategy: weighted, instances: {instances} }}
routes:
- {{ path: /moved-{change}, redirect: {{ path: / }} }}
- {{ prefix: /page/1, service: s, cache: {{ enabled: false }} }}
- {{ service: s }}
load_balancer: {{ health_check: {{ enabled: false }} }}
cache: {{ default_ttl: {ttl}s, max_size: {} }}
connection_pool: {{ idle_timeout: 1s }}
",
        1_000 + level
    )
}
