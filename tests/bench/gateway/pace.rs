//! Load at a pace: requests are due at their moments, whether the ones before are answered or not.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::Failure;
use crate::client::{Client, PATIENCE};
use crate::load::{Load, Tally};
use crate::mix::Mix;

/// Answers come about in the order of the requests: so many of the oldest are looked for at a time.
const LOOKS: usize = 8;

impl Load {
    /// So many requests a second until a time is over. Latency counts from the moment at which a request was
    /// due, so that those which a stall held up show it.
    ///
    /// One thread looks at the clock and at all connections again and again and never gives up its
    /// processor: timers are too coarse for what is measured here, and who yields waits for others.
    pub(crate) fn pace(self, per_second: f64, time: Duration, mix: &Mix) -> Result<Tally, Failure> {
        let mut request = mix.of(0);
        let mut tally = Tally::default();
        let mut idle: Vec<Client> =
            (0..self.clients).map(|_| Client::eager(self.address)).collect();
        let mut busy: VecDeque<(Client, Instant)> = VecDeque::new();
        let interval = Duration::from_secs_f64(1.0 / per_second);
        let start = Instant::now();
        let end = start + time;
        let mut due = start;
        while due < end || !busy.is_empty() {
            let mut is_quiet = true;
            while due < end && due <= Instant::now() {
                let Some(mut client) = idle.pop() else { break };
                client.send(request())?;
                busy.push_back((client, due));
                due += interval;
                is_quiet = false;
            }
            let mut at = 0;
            while let Some((client, since)) = busy.get_mut(at).filter(|_| at < LOOKS) {
                match client.receive().transpose() {
                    Some(answer) => {
                        tally.note(answer, *since);
                        idle.extend(busy.remove(at).map(|(client, _)| client));
                        is_quiet = false;
                    }
                    None => at += 1,
                }
            }
            if is_quiet {
                if start.elapsed() > time + PATIENCE {
                    return Err(format!("{} requests were never answered", busy.len()).into());
                }
                std::hint::spin_loop();
            }
        }
        tally.took = start.elapsed();
        Ok(tally)
    }
}
