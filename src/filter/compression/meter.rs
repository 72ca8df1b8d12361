//! What a coded body came to, and whether it works too long without a pause.

use std::future::Future;
use std::pin::pin;
use std::task::Context;
use std::time::Duration;

use tokio::time::Instant;

use crate::coding;
use crate::coding::pace::BUDGET;

/// What a body that encodes or decodes came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Bytes that went in.
    pub input: u64,
    /// Bytes that came out and were taken.
    pub output: u64,
    /// Time spent on it in the codec, on any thread.
    pub time: Duration,
    /// How it ended.
    pub end: End,
}

/// How a body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Whole.
    Complete,
    /// The body within broke off.
    Inner,
    /// Its coding failed.
    Coding(coding::Error),
    /// Nobody wanted the rest.
    Dropped,
}

/// Counts a body's bytes and its work.
#[derive(Debug, Default)]
pub(super) struct Meter {
    pub(super) input: u64,
    pub(super) output: u64,
    time: Duration,
    /// Worked since others last had the worker. A reader may ask again and again within one turn, so what
    /// counts is not one poll but all since the last that was pending.
    turn: Duration,
}

impl Meter {
    /// Does some work.
    pub(super) fn work<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let done = work();
        let took = start.elapsed();
        self.time += took;
        self.turn += took;
        done
    }

    /// Counts work that was done on another thread.
    pub(super) fn add(&mut self, time: Duration) {
        self.time += time;
    }

    /// Whether it is time to let others work.
    pub(super) fn turn_is_over(&self) -> bool {
        self.turn >= BUDGET
    }

    /// The caller returns `Pending`, since it waits for something.
    pub(super) fn wait(&mut self) {
        self.turn = Duration::ZERO;
    }

    /// The caller returns `Pending` only to be asked again after the others. Who just woke itself would be
    /// asked again before the runtime looks at its sockets, dozens of times in a row; who yields is asked
    /// after it has looked.
    pub(super) fn give_way(&mut self, cx: &mut Context<'_>) {
        self.wait();
        // Pending the first time, which is the only one; it has seen to the wake-up then.
        let _pending = pin!(tokio::task::yield_now()).poll(cx);
    }

    pub(super) fn outcome(&self, end: End) -> Outcome {
        let Self { input, output, time, turn: _ } = *self;
        Outcome { input, output, time, end }
    }
}
