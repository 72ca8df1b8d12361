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
    let (mut worst, mut worst_told) = (Duration::ZERO, Duration::ZERO);
    for attempt in 0..TRIES {
        healthy(2)?;
        // Another moment between two checks each time.
        until_moment(Instant::now() + INTERVAL * attempt / TRIES);
        let died = Instant::now();
        drop(dying);
        let (last, told) = std::thread::scope(|scope| {
            let told = scope.spawn(|| {
                let told = || {
                    let health = world.metric("gateway_loadbalancer_instance_health", address)?;
                    Ok((health == 0.0).then(Instant::now))
                };
                until("the metric is at 0", told)
            });
            let last = last_failure(&world, died + bar + INTERVAL);
            (last, told.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        worst = worst.max(last.saturating_duration_since(died));
        worst_told = worst_told.max(told?.saturating_duration_since(died));
        healthy(1)?;
        dying = Origin::at(address, "text/plain", b"here")?;
    }
    Ok(vec![Bar {
        what: "interval 200 ms, threshold 3",
        figure: format!(
            "worst of {TRIES}: {} ms, the metric at 0 after {} ms",
            worst.as_millis(),
            worst_told.as_millis()
        ),
        bar: "within 700 ms",
        is_met: worst.max(worst_told) <= bar && worst > Duration::ZERO,
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
