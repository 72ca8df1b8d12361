//! One fill, many readers: a response is handed out to all who asked for it while it arrives.
//!
//! Whoever fetches it says what it is ([`Flight::say`]) and pushes its bytes; each [`Follower`] reads at its
//! own speed. While it may be stored, the fetch does not wait for readers; when it may not be any more, what
//! the slowest has read is let go, and the fetch waits for the slowest, unless that reads nothing at all
//! while others wait ([`Flight::leave_behind`]). When nobody reads, it is over.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use parking_lot::Mutex;
use slab::Slab;
use tokio::time::Instant;

use super::entry::{Entry, PIECE, Stored};

/// What a fetch reads ahead of the slowest reader if nothing of it will be stored.
const AHEAD: u64 = 256 << 10;

/// Who comes when nothing was heard of a fetch for so long had better not wait for it.
const LONGEST_SILENCE: Duration = Duration::from_secs(5);

/// What is known of a response that somebody else fetches.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It comes, and may be stored; this is its head.
    Comes(Arc<Entry>),
    /// It is here.
    Here(Arc<Entry>),
    /// An error came; this is stored and may be better than that.
    Instead(Arc<Entry>),
    /// It is not for sharing: ask yourself.
    Refused,
    /// Whoever fetched it is gone: let another.
    Gone,
}

/// A response that is being fetched.
#[derive(Debug, Default)]
pub struct Flight(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    outcome: Option<Outcome>,
    /// With their places in the body.
    pieces: VecDeque<(u64, Bytes)>,
    /// How much has arrived.
    length: u64,
    /// How much of that, at the end, is not in pieces for the store yet.
    raw: u64,
    end: Option<End>,
    /// It will not be stored: what was read is let go.
    passes: bool,
    readers: Slab<Reader>,
    /// Waits for readers.
    fetcher: Option<Waker>,
    heard: Heard,
}

/// When something last came of it.
#[derive(Debug)]
struct Heard(Instant);

impl Default for Heard {
    fn default() -> Self {
        Self(Instant::now())
    }
}

#[derive(Debug)]
enum End {
    Whole(Option<HeaderMap>),
    Broken,
}

#[derive(Debug, Default)]
struct Reader {
    at: u64,
    waker: Option<Waker>,
}

/// The fetch of a flight broke off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken;

/// What a follower reads.
#[derive(Debug)]
pub enum Part {
    /// Bytes of the body.
    Data(Bytes),
    /// What comes after it.
    Trailers(HeaderMap),
}

impl Flight {
    /// Says what comes; nobody hears it who has been told before.
    pub fn say(&self, outcome: Outcome) {
        let mut state = self.0.lock();
        if state.outcome.is_none() {
            state.outcome = Some(outcome);
            state.heard = Heard::default();
            state.wake();
        }
    }

    /// Whether its origin may have fallen silent for good, before the head or in the middle of the body.
    pub fn is_silent(&self) -> bool {
        let state = self.0.lock();
        let comes = matches!(state.outcome, None | Some(Outcome::Comes(_)));
        comes && state.end.is_none() && state.heard.0.elapsed() >= LONGEST_SILENCE
    }

    /// What was said, if anything.
    pub fn outcome(&self) -> Option<Outcome> {
        self.0.lock().outcome.clone()
    }

    /// Reads along, from the beginning; `None` if that is gone.
    pub fn follow(self: &Arc<Self>) -> Option<Follower> {
        let mut state = self.0.lock();
        if state.passes {
            return None;
        }
        let id = state.readers.insert(Reader::default());
        Some(Follower { flight: Arc::clone(self), id })
    }

    /// Whether anybody reads along.
    pub fn is_followed(&self) -> bool {
        !self.0.lock().readers.is_empty()
    }

    /// Waits until more is wanted; false if nobody is left to want it.
    pub fn poll_wanted(&self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut state = self.0.lock();
        let slowest = state.readers.iter().map(|(_, reader)| reader.at).min();
        match slowest {
            None => Poll::Ready(false),
            Some(at) if !state.passes || state.length.saturating_sub(at) < AHEAD => {
                Poll::Ready(true)
            }
            Some(_) => {
                state.fetcher = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// How far those have read who keep others waiting that have read all there is.
    pub fn held_up_at(&self) -> Option<u64> {
        let state = self.0.lock();
        let places = || state.readers.iter().map(|(_, reader)| reader.at);
        let slowest = places().min().filter(|_| state.passes)?;
        (slowest < state.length && places().any(|at| at >= state.length)).then_some(slowest)
    }

    /// Goes on without those who are no further than here: for them it breaks off.
    pub fn leave_behind(&self, place: u64) {
        let mut state = self.0.lock();
        // Nobody joins what passes, so that no other takes their numbers.
        debug_assert!(state.passes);
        let left: Vec<usize> =
            state.readers.iter().filter(|(_, r)| r.at <= place).map(|(id, _)| id).collect();
        for id in left {
            state.readers.remove(id).waker.into_iter().for_each(Waker::wake);
        }
        state.let_go();
    }

    /// Waits until nobody reads any more.
    pub fn poll_left(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        if state.readers.is_empty() {
            return Poll::Ready(());
        }
        state.fetcher = Some(cx.waker().clone());
        Poll::Pending
    }

    /// More of the body.
    pub fn push(&self, data: Bytes) {
        if data.is_empty() {
            return;
        }
        let mut state = self.0.lock();
        let at = state.length;
        state.length += data.len() as u64;
        state.raw += data.len() as u64;
        state.pieces.push_back((at, data));
        state.heard = Heard::default();
        if !state.passes && state.raw >= PIECE as u64 {
            state.settle();
        }
        state.wake();
    }

    /// It will not be stored. Whoever comes from now on is to ask for itself.
    pub fn pass(&self) {
        let mut state = self.0.lock();
        state.passes = true;
        state.outcome = Some(Outcome::Refused);
        state.let_go();
        state.wake();
    }

    /// All of the body so far, in memory of its own.
    pub fn body(&self) -> Stored {
        let mut state = self.0.lock();
        state.settle();
        Stored::of(state.pieces.iter().map(|(_, piece)| piece.clone()).collect())
    }

    /// It is stored.
    pub fn stored(&self, entry: Arc<Entry>) {
        self.0.lock().outcome = Some(Outcome::Here(entry));
    }

    /// The body is whole.
    pub fn finish(&self, trailers: Option<HeaderMap>) {
        let mut state = self.0.lock();
        state.end.get_or_insert(End::Whole(trailers));
        state.wake();
    }
}

/// The fetch is over, however it ended.
#[derive(Debug)]
pub struct EndGuard(pub Arc<Flight>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        let mut state = self.0.0.lock();
        if state.outcome.is_none() || state.end.is_none() {
            state.end.get_or_insert(End::Broken);
            match state.outcome {
                None => state.outcome = Some(Outcome::Gone),
                Some(Outcome::Comes(_)) => state.outcome = Some(Outcome::Refused),
                Some(_) => {}
            }
            state.wake();
        }
    }
}

impl State {
    fn wake(&mut self) {
        self.readers.iter_mut().filter_map(|(_, r)| r.waker.take()).for_each(Waker::wake);
    }

    /// Puts what has arrived into memory of its own, so that nothing else is kept with it. What does not fill
    /// a piece is put into another together with what comes next.
    fn settle(&mut self) {
        let from = self.length - self.raw;
        let first = self.pieces.partition_point(|(at, _)| *at < from);
        let raw: Vec<Bytes> = self.pieces.drain(first..).map(|(_, piece)| piece).collect();
        let mut at = from;
        for piece in Stored::copy_of(raw.iter()).pieces() {
            self.pieces.push_back((at, piece.clone()));
            at += piece.len() as u64;
        }
        self.raw = self.length % PIECE as u64;
    }

    fn let_go(&mut self) {
        let slowest = self.readers.iter().map(|(_, reader)| reader.at).min();
        let slowest = slowest.unwrap_or(self.length);
        while self.pieces.front().is_some_and(|(at, b)| at + b.len() as u64 <= slowest) {
            self.pieces.pop_front();
        }
    }
}

/// Reads a response that another fetches.
#[derive(Debug)]
pub struct Follower {
    flight: Arc<Flight>,
    id: usize,
}

impl Follower {
    /// Waits for what comes.
    pub async fn outcome(&mut self) -> Outcome {
        poll_fn(|cx| {
            let mut state = self.flight.0.lock();
            match &state.outcome {
                Some(outcome) => Poll::Ready(outcome.clone()),
                None => {
                    if let Some(reader) = state.readers.get_mut(self.id) {
                        reader.waker = Some(cx.waker().clone());
                    }
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// The next part of the body; `None` at its end.
    pub fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Part, Broken>>> {
        let mut guard = self.flight.0.lock();
        let state = &mut *guard;
        let Some(reader) = state.readers.get_mut(self.id) else {
            return Poll::Ready(Some(Err(Broken)));
        };
        if reader.at < state.length {
            let next = state.pieces.partition_point(|(at, _)| *at <= reader.at).saturating_sub(1);
            let Some((at, data)) = state.pieces.get(next) else {
                return Poll::Ready(Some(Err(Broken)));
            };
            let skip = usize::try_from(reader.at - at).unwrap_or(usize::MAX).min(data.len());
            let data = data.slice(skip..);
            reader.at += data.len() as u64;
            if state.passes {
                state.let_go();
                state.fetcher.take().into_iter().for_each(Waker::wake);
            }
            return Poll::Ready(Some(Ok(Part::Data(data))));
        }
        match &mut state.end {
            Some(End::Broken) => Poll::Ready(Some(Err(Broken))),
            Some(End::Whole(trailers)) => match trailers.clone().filter(|_| reader.at < u64::MAX) {
                Some(trailers) => {
                    // Beyond the trailers there is nothing.
                    reader.at = u64::MAX;
                    Poll::Ready(Some(Ok(Part::Trailers(trailers))))
                }
                None => Poll::Ready(None),
            },
            None => {
                reader.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Whether all of it was read.
    pub fn is_at_end(&self) -> bool {
        let state = self.flight.0.lock();
        let Some(reader) = state.readers.get(self.id) else { return false };
        match &state.end {
            Some(End::Whole(None)) => reader.at >= state.length,
            Some(End::Whole(Some(_))) => reader.at == u64::MAX,
            _ => false,
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut state = self.flight.0.lock();
        state.readers.try_remove(self.id);
        if state.passes {
            state.let_go();
        }
        if state.passes || state.readers.is_empty() {
            state.fetcher.take().into_iter().for_each(Waker::wake);
        }
    }
}

#[cfg(test)]
mod tests;
