//! What a coded body came to, told once however it ends.

use std::time::Duration;

use crate::coding;

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

/// Counts, and tells what it counted once.
pub(super) struct Tally<F: FnOnce(Outcome)> {
    pub(super) input: u64,
    pub(super) output: u64,
    pub(super) time: Duration,
    on_end: Option<F>,
}

impl<F: FnOnce(Outcome)> Tally<F> {
    pub(super) fn new(on_end: F) -> Self {
        Self { input: 0, output: 0, time: Duration::ZERO, on_end: Some(on_end) }
    }

    pub(super) fn end(&mut self, end: End) {
        if let Some(on_end) = self.on_end.take() {
            let Self { input, output, time, .. } = *self;
            on_end(Outcome { input, output, time, end });
        }
    }
}

impl<F: FnOnce(Outcome)> Drop for Tally<F> {
    fn drop(&mut self) {
        self.end(End::Dropped);
    }
}
