//! The streams of a connection that are not over: what each is about, and how it is found.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::Waker;

use bytes::Bytes;
use foldhash::fast::FixedState;
use http::HeaderMap;
use slab::Slab;

use super::flow::Window;
use super::inbound::Inbound;
use super::wake::{Calls, SlotWaker};
use crate::exchange::deadline::Deadline;
use crate::hcm::exchange::{Exchange, TrackedBody};

/// Streams that were reset lately: what their clients sent before they knew is no fault of theirs.
const REMEMBERED: usize = 64;

/// Slots that a connection without streams keeps.
const KEPT: usize = 2;

/// One request and its answer.
pub(super) struct Stream {
    pub(super) id: u32,
    pub(super) answer: Answer,
    /// What of the response's body was polled and not yet sent.
    pub(super) pending: Bytes,
    /// Trailers that follow it.
    pub(super) trailers: Option<HeaderMap>,
    /// Bytes that the client takes; below 0 after it took back what it had allowed.
    pub(super) send_window: i64,
    /// The request's body, if it has one.
    pub(super) inbound: Option<Arc<Inbound>>,
    pub(super) receive: Window,
    /// Bytes of it to come, if the request said how many.
    pub(super) length_left: Option<u64>,
    /// The client has ended its side.
    pub(super) is_received: bool,
    /// It is in the queue of those that may send, or among those that wait for the connection's window.
    pub(super) is_queued: bool,
    /// When the client must have taken something.
    pub(super) stalled: Option<Deadline>,
}

/// How far the response is.
pub(super) enum Answer {
    /// It is waited for.
    Awaited(Exchange),
    /// Its head is to be sent.
    Head(http::Response<TrackedBody>),
    /// Its head was sent.
    Body(TrackedBody),
    /// Between two of these.
    Taken,
}

/// Streams by slot and by id.
pub(super) struct Streams {
    slab: Slab<Stream>,
    slots: HashMap<u32, usize, FixedState>,
    wakers: Vec<SlotWaker>,
    /// Streams reset while their clients could still send, latest last.
    reset: VecDeque<u32>,
}

impl Streams {
    pub(super) fn new() -> Self {
        Self {
            slab: Slab::new(),
            slots: HashMap::with_hasher(FixedState::default()),
            wakers: Vec::new(),
            reset: VecDeque::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    /// The slot that the next stream gets.
    pub(super) fn next_slot(&self) -> usize {
        self.slab.vacant_key()
    }

    pub(super) fn insert(&mut self, stream: Stream, calls: &Arc<Calls>) -> usize {
        let id = stream.id;
        let slot = self.slab.insert(stream);
        self.slots.insert(id, slot);
        if slot == self.wakers.len() {
            self.wakers.push(SlotWaker::new(calls, slot));
        }
        slot
    }

    pub(super) fn remove(&mut self, slot: usize) -> Option<Stream> {
        let stream = self.slab.try_remove(slot)?;
        self.slots.remove(&stream.id);
        Some(stream)
    }

    pub(super) fn slot(&self, id: u32) -> Option<usize> {
        self.slots.get(&id).copied()
    }

    pub(super) fn get(&mut self, slot: usize) -> Option<&mut Stream> {
        self.slab.get_mut(slot)
    }

    /// A stream with its waker.
    pub(super) fn get_with_waker(&mut self, slot: usize) -> Option<(&mut Stream, &Waker)> {
        Some((self.slab.get_mut(slot)?, &self.wakers.get(slot)?.waker))
    }

    /// What wakes a slot from now on counts again.
    pub(super) fn begin(&self, slot: usize) {
        if let Some(waker) = self.wakers.get(slot) {
            waker.begin();
        }
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (usize, &mut Stream)> {
        self.slab.iter_mut()
    }

    /// Slots of all streams.
    pub(super) fn all(&self) -> Vec<usize> {
        self.slab.iter().map(|(slot, _)| slot).collect()
    }

    /// Remembers that a stream was reset before its client had ended it.
    pub(super) fn remember_reset(&mut self, id: u32) {
        if self.reset.len() == REMEMBERED {
            self.reset.pop_front();
        }
        self.reset.push_back(id);
    }

    pub(super) fn was_reset(&self, id: u32) -> bool {
        self.reset.contains(&id)
    }

    /// Whether they hold more memory than they should while nothing goes on.
    pub(super) fn is_large(&self) -> bool {
        self.wakers.len() > KEPT
    }

    /// Gives memory back, if there are none.
    pub(super) fn shrink(&mut self) {
        if self.is_empty() {
            *self = Self { reset: std::mem::take(&mut self.reset), ..Self::new() };
        }
    }
}
