//! How soon an instance that dies gets no more requests.

use std::time::Duration;

use tokio::time::Instant;

use crate::client::{Client, get};
use crate::origin::Origin;
use crate::wait::{until, until_moment};
use crate::world::{World, instances};
use crate::{Bar, Failure};

const TRIES: u32 = 20;
const INTERVAL: Duration = Duration::from_millis(200);
const THRESHOLD: u32 = 3;
/// Beyond the time that the checks take.
const GRACE: Duration = Duration::from_millis(100);

pub(crate) fn measure() -> Result<Vec<Bar>, Failure> {
    let lasting = Origin::start("text/plain", b"here")?;
    let mut dying = Origin::start("text/plain", b"here")?;
    let address = dying.address;
    let instances = instances([(lasting.address, 1), (address, 1)]);
    let interval = INTERVAL.as_millis();
    let world = World::start(
        1,
        &format!(
            "services: [{{ name: s, instances: {instances} }}]
routes: [{{ service: s }}]
load_balancer:
  health_check: {{ interval: {interval}ms, timeout: 100ms, failure_threshold: {THRESHOLD}, success_threshold: 1 }}
"
        ),
    )?;
    let healthy = |wanted| {
        until("health checks agree", || {
            Ok((world.stat("cluster.s.membership_healthy")? == wanted).then_some(()))
        })
    };
    let bar = INTERVAL * THRESHOLD + GRACE;
    let mut worst = Duration::ZERO;
    for attempt in 0..TRIES {
        healthy(2)?;
        // Another moment between two checks each time.
        until_moment(Instant::now() + INTERVAL * attempt / TRIES);
        let died = Instant::now();
        drop(dying);
        let last = last_failure(&world, died + bar + INTERVAL);
        worst = worst.max(last.saturating_duration_since(died));
        healthy(1)?;
        dying = Origin::at(address, "text/plain", b"here")?;
    }
    Ok(vec![Bar {
        what: "interval 200 ms, threshold 3",
        figure: format!("worst of {TRIES}: {} ms", worst.as_millis()),
        bar: "out within 700 ms",
        is_met: worst <= bar && worst > Duration::ZERO,
    }])
}

/// When a request failed last that was sent before the end.
fn last_failure(world: &World, end: Instant) -> Instant {
    let mut client = Client::new(world.load.address);
    let request = get("/");
    let mut last = Instant::now();
    while Instant::now() < end {
        if !client.ask(&request).is_ok_and(|answer| answer.status == 200) {
            last = Instant::now();
        }
        until_moment(Instant::now() + Duration::from_millis(1));
    }
    last
}
