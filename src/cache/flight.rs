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

use bytes::Bytes;
use http::HeaderMap;
use parking_lot::Mutex;
use slab::Slab;

use super::entry::{Entry, PIECE, Stored};

/// What a fetch reads ahead of the slowest reader if nothing of it will be stored.
const AHEAD: u64 = 256 << 10;

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
            state.wake();
        }
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
mod tests {
    use std::task::Waker;

    use http::StatusCode;

    use super::*;
    use crate::cache::{Freshness, Variant};

    fn head() -> Arc<Entry> {
        let head = (StatusCode::OK, HeaderMap::new());
        Arc::new(Entry::new(head, Variant::default(), Freshness::default()))
    }

    fn read(follower: &mut Follower) -> Poll<Option<Result<Bytes, Broken>>> {
        let part = follower.poll_part(&mut Context::from_waker(Waker::noop()));
        part.map(|part| {
            part.map(|part| match part? {
                Part::Data(data) => Ok(data),
                Part::Trailers(_) => Ok(Bytes::from_static(b"trailers")),
            })
        })
    }

    fn wanted(flight: &Flight) -> Poll<bool> {
        flight.poll_wanted(&mut Context::from_waker(Waker::noop()))
    }

    fn data(text: &'static str) -> Poll<Option<Result<Bytes, Broken>>> {
        Poll::Ready(Some(Ok(Bytes::from_static(text.as_bytes()))))
    }

    #[tokio::test]
    async fn late_followers_read_from_the_beginning_and_on_from_the_store() {
        let flight = Arc::new(Flight::default());
        let end = EndGuard(Arc::clone(&flight));
        let mut first = flight.follow().unwrap();
        flight.say(Outcome::Comes(head()));
        flight.push(Bytes::from_static(b"ab"));
        assert_eq!(read(&mut first), data("ab"));
        assert!(read(&mut first).is_pending());
        flight.push(Bytes::from_static(b"cd"));
        let mut second = flight.follow().unwrap();
        assert!(matches!(second.outcome().await, Outcome::Comes(_)));
        assert_eq!(read(&mut second), data("ab"));
        let mut entry = head().like();
        entry.body = flight.body();
        flight.stored(Arc::new(entry));
        flight.finish(None);
        drop(end);
        assert_eq!((read(&mut first), read(&mut second)), (data("cd"), data("cd")));
        assert!(first.is_at_end() && read(&mut first) == Poll::Ready(None));
        let mut third = flight.follow().unwrap();
        assert_eq!(read(&mut third), data("abcd"));
    }

    #[test]
    fn what_is_not_stored_is_let_go_at_the_pace_of_the_slowest() {
        let flight = Arc::new(Flight::default());
        let (mut quick, slow) = (flight.follow().unwrap(), flight.follow().unwrap());
        flight.push(Bytes::from(vec![b'x'; 1 << 20]));
        assert_eq!(wanted(&flight), Poll::Ready(true), "it may be stored");
        flight.pass();
        assert!(flight.follow().is_none());
        assert!(wanted(&flight).is_pending());
        while read(&mut quick).is_ready() {}
        let kept = flight.0.lock().pieces.len();
        assert_eq!(kept, (1_usize << 20).div_ceil(PIECE));
        drop(slow);
        assert_eq!(flight.0.lock().pieces.len(), 0);
        assert_eq!(wanted(&flight), Poll::Ready(true));
        drop(quick);
        assert_eq!(wanted(&flight), Poll::Ready(false), "nobody is left");
    }

    #[test]
    fn who_keeps_others_waiting_is_left_behind() {
        let flight = Arc::new(Flight::default());
        let (mut quick, mut slow) = (flight.follow().unwrap(), flight.follow().unwrap());
        flight.push(Bytes::from(vec![b'x'; 1 << 20]));
        assert_eq!(flight.held_up_at(), None, "it may be stored");
        flight.pass();
        assert_eq!(flight.held_up_at(), None, "nobody waits");
        while read(&mut quick).is_ready() {}
        assert_eq!(flight.held_up_at(), Some(0));
        assert_eq!(read(&mut slow), Poll::Ready(Some(Ok(Bytes::from(vec![b'x'; PIECE])))));
        assert_eq!(flight.held_up_at(), Some(PIECE as u64));
        flight.leave_behind(PIECE as u64);
        assert_eq!((wanted(&flight), flight.held_up_at()), (Poll::Ready(true), None));
        assert_eq!(flight.0.lock().pieces.len(), 0);
        assert_eq!(read(&mut slow), Poll::Ready(Some(Err(Broken))));
        assert!(!slow.is_at_end());
        drop(slow);
        flight.push(Bytes::from_static(b"a"));
        assert_eq!(read(&mut quick), data("a"));
    }

    #[tokio::test]
    async fn a_fetch_that_ends_without_a_word_is_nothing_and_one_that_breaks_off_is_broken() {
        let flight = Arc::new(Flight::default());
        let mut follower = flight.follow().unwrap();
        drop(EndGuard(Arc::clone(&flight)));
        assert!(matches!(follower.outcome().await, Outcome::Gone));
        let flight = Arc::new(Flight::default());
        let mut follower = flight.follow().unwrap();
        flight.say(Outcome::Comes(head()));
        flight.push(Bytes::from_static(b"a"));
        drop(EndGuard(Arc::clone(&flight)));
        assert_eq!(read(&mut follower), data("a"));
        assert_eq!(read(&mut follower), Poll::Ready(Some(Err(Broken))));
        assert!(matches!(flight.outcome(), Some(Outcome::Refused)));
    }

    #[test]
    fn however_it_arrives_a_body_is_kept_in_whole_pieces() {
        let flight = Flight::default();
        let sizes = [10, PIECE - 20, 5, 3 * PIECE, 7, PIECE + 1, 100, 2 * PIECE - 50];
        for (n, size) in sizes.into_iter().enumerate() {
            flight.push(Bytes::from(vec![u8::try_from(n).unwrap(); size]));
        }
        let body = flight.body();
        let total: usize = sizes.iter().sum();
        let lengths: Vec<usize> = body.pieces().iter().map(Bytes::len).collect();
        let (last, whole) = lengths.split_last().unwrap();
        assert!(whole.iter().all(|length| *length == PIECE), "{lengths:?}");
        assert_eq!((*last, body.length()), (total % PIECE, total as u64));
        let expected =
            sizes.iter().enumerate().flat_map(|(n, size)| vec![u8::try_from(n).unwrap(); *size]);
        assert!(body.pieces().concat().into_iter().eq(expected));
    }

    #[test]
    fn trailers_come_last_and_once() {
        let flight = Arc::new(Flight::default());
        let mut follower = flight.follow().unwrap();
        flight.finish(Some(HeaderMap::new()));
        assert!(!follower.is_at_end());
        assert_eq!(read(&mut follower), data("trailers"));
        assert!(follower.is_at_end());
        assert_eq!(read(&mut follower), Poll::Ready(None));
    }
}
