//! Load: clients on threads of their own, as fast as they are answered.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::Failure;
use crate::client::{Answer, Client};
use crate::mix::Mix;
use crate::wait::until_moment;

/// What the clients together saw.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) requests: u64,
    /// Answers that were not 200, and requests without one.
    pub(crate) failed: u64,
    /// The first of them.
    pub(crate) first_failure: Option<String>,
    /// Bytes of bodies as they travelled.
    pub(crate) bytes: u64,
    pub(crate) encoded: u64,
    pub(crate) took: Duration,
    /// Microseconds of each request.
    latencies: Vec<u32>,
}

impl Tally {
    pub(crate) fn per_second(&self) -> f64 {
        as_f64(self.requests) / self.took.as_secs_f64()
    }

    /// The latency that this part of the requests does not exceed.
    pub(crate) fn quantile(&mut self, part: f64) -> Duration {
        self.latencies.sort_unstable();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
        let at = (part * as_f64(self.latencies.len() as u64)) as usize;
        let at = at.min(self.latencies.len().saturating_sub(1));
        Duration::from_micros(self.latencies.get(at).copied().unwrap_or_default().into())
    }

    /// Fails if a request did.
    pub(crate) fn all_well(self) -> Result<Self, Failure> {
        match &self.first_failure {
            None => Ok(self),
            Some(first) => {
                let (failed, requests) = (self.failed, self.requests);
                Err(format!("{failed} of {requests} requests failed, first: {first}").into())
            }
        }
    }

    /// Takes note of a request that began then and has ended now.
    pub(crate) fn note(&mut self, answer: Result<Answer, Failure>, since: Instant) {
        let micros = since.elapsed().as_micros();
        self.latencies.push(u32::try_from(micros).unwrap_or(u32::MAX));
        self.requests += 1;
        let failure = match answer {
            Ok(answer) => {
                self.bytes += answer.length as u64;
                self.encoded += u64::from(answer.is_encoded);
                (answer.status != 200).then(|| format!("status {}", answer.status))
            }
            Err(error) => Some(error.to_string()),
        };
        if let Some(failure) = failure {
            self.failed += 1;
            self.first_failure.get_or_insert(failure);
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.failed += other.failed;
        self.first_failure = self.first_failure.take().or(other.first_failure);
        self.bytes += other.bytes;
        self.took += other.took;
        self.encoded += other.encoded;
        self.latencies.extend(other.latencies);
    }
}

/// The nearest number that has a fraction.
#[expect(clippy::cast_precision_loss, reason = "counts of a bench are far below 2^53")]
pub(crate) fn as_f64(n: u64) -> f64 {
    n as f64
}

/// Clients of one proxy.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) address: SocketAddr,
    pub(crate) clients: usize,
}

impl Load {
    /// So many requests, each client asking as soon as it has its answer.
    pub(crate) fn count(self, total: u64, mix: &Mix) -> Tally {
        let left = AtomicU64::new(total);
        let take = || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        self.run(|client| {
            let (mut connection, mut tally) = (Client::new(self.address), Tally::default());
            let mut request = mix.of(client);
            while take().is_ok() {
                let start = Instant::now();
                tally.note(connection.ask(request()), start);
            }
            tally
        })
    }

    /// The same until a time is over.
    pub(crate) fn saturate(self, time: Duration, mix: &Mix) -> Tally {
        let end = Instant::now() + time;
        self.run(|client| {
            let (mut connection, mut tally) = (Client::new(self.address), Tally::default());
            let mut request = mix.of(client);
            while Instant::now() < end {
                let start = Instant::now();
                tally.note(connection.ask(request()), start);
            }
            tally
        })
    }

    fn run(self, client: impl Fn(usize) -> Tally + Sync) -> Tally {
        let start = Instant::now();
        let mut all = Tally::default();
        std::thread::scope(|scope| {
            let client = &client;
            let threads: Vec<_> =
                (0..self.clients).map(|n| scope.spawn(move || client(n))).collect();
            for thread in threads {
                match thread.join() {
                    Ok(tally) => all.add(tally),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
        });
        all.took = start.elapsed();
        all
    }
}

/// Does something every second for as long as this is kept.
pub(crate) fn every_second<T>(
    mut action: impl FnMut() -> Result<(), Failure> + Send,
    while_this: impl FnOnce() -> T,
) -> Result<T, Failure> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let over = &over;
        let thread = scope.spawn(move || {
            let mut next = Instant::now();
            while !over.load(Ordering::Relaxed) {
                action()?;
                next += Duration::from_secs(1);
                while Instant::now() < next && !over.load(Ordering::Relaxed) {
                    until_moment(next.min(Instant::now() + Duration::from_millis(20)));
                }
            }
            Ok::<_, Failure>(())
        });
        let result = while_this();
        over.store(true, Ordering::Relaxed);
        match thread.join() {
            Ok(done) => done.map(|()| result),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
