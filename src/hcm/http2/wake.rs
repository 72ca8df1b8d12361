//! Wakes one connection for many streams: each stream has a waker of its own, and what was woken is all that
//! the connection looks at.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

use futures_util::task::AtomicWaker;
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;

use crate::exchange::headers::is_hop_by_hop;
use crate::exchange::interim::InterimSink;

/// Interim responses that may wait at the most.
const MOST_INTERIM: usize = 64;

/// What the streams of a connection tell it.
#[derive(Debug, Default)]
pub(super) struct Calls {
    /// The connection looks again before it rests, and needs no wake.
    is_awake: AtomicBool,
    connection: AtomicWaker,
    news: Mutex<News>,
}

/// What is new since the connection last looked.
#[derive(Debug, Default)]
pub(super) struct News {
    /// Slots whose stream is to be polled.
    pub(super) woken: Vec<usize>,
    /// Slots whose request's body was read.
    pub(super) read: Vec<usize>,
    /// Interim responses that came.
    pub(super) interim: Vec<Interim>,
}

impl News {
    pub(super) fn is_empty(&self) -> bool {
        self.woken.is_empty() && self.read.is_empty() && self.interim.is_empty()
    }
}

/// An interim response on its way to a stream.
#[derive(Debug)]
pub(super) struct Interim {
    pub(super) stream: u32,
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
}

impl Calls {
    /// The connection begins to look.
    pub(super) fn begin(&self, cx: &Context<'_>) {
        self.connection.register(cx.waker());
        self.is_awake.store(true, Ordering::Release);
    }

    /// The connection rests; false if something came in the meantime.
    pub(super) fn rest(&self) -> bool {
        self.is_awake.store(false, Ordering::Release);
        self.news.lock().is_empty()
    }

    /// Puts what is new in the place of `seen`, which is empty.
    pub(super) fn take(&self, seen: &mut News) {
        std::mem::swap(&mut *self.news.lock(), seen);
    }

    /// The interim responses of a stream whose response came right behind them.
    pub(super) fn interims_of(&self, stream: u32) -> Vec<Interim> {
        self.news.lock().interim.extract_if(.., |interim| interim.stream == stream).collect()
    }

    /// Gives memory back.
    pub(super) fn shrink(&self) {
        let mut news = self.news.lock();
        if news.is_empty() {
            *news = News::default();
        }
    }

    /// The body of a slot's request was read.
    pub(super) fn read(&self, slot: usize) {
        self.tell(|news| news.read.push(slot));
    }

    /// Something is to be said to a client before its response.
    pub(super) fn interim(&self, interim: Interim) {
        self.tell(|news| {
            if news.interim.len() < MOST_INTERIM {
                news.interim.push(interim);
            }
        });
    }

    fn tell(&self, what: impl FnOnce(&mut News)) {
        what(&mut self.news.lock());
        if !self.is_awake.load(Ordering::Acquire) {
            self.connection.wake();
        }
    }
}

/// The waker of a slot, which serves one stream after the other.
#[derive(Debug)]
pub(super) struct SlotWaker {
    state: Arc<SlotState>,
    pub(super) waker: Waker,
}

#[derive(Debug)]
struct SlotState {
    calls: Arc<Calls>,
    slot: usize,
    is_woken: AtomicBool,
}

impl SlotWaker {
    pub(super) fn new(calls: &Arc<Calls>, slot: usize) -> Self {
        let calls = Arc::clone(calls);
        let state = Arc::new(SlotState { calls, slot, is_woken: AtomicBool::new(false) });
        Self { waker: Waker::from(Arc::clone(&state)), state }
    }

    /// The slot is about to be looked at: what wakes it from now on counts again.
    pub(super) fn begin(&self) {
        self.state.is_woken.store(false, Ordering::Release);
    }
}

impl Wake for SlotState {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_woken.swap(true, Ordering::AcqRel) {
            self.calls.tell(|news| news.woken.push(self.slot));
        }
    }
}

/// Passes the interim responses of one stream on.
#[derive(Debug)]
pub(super) struct StreamInterim {
    pub(super) calls: Arc<Calls>,
    pub(super) stream: u32,
}

impl InterimSink for StreamInterim {
    fn send(&self, status: StatusCode, headers: &HeaderMap) {
        let mut kept = HeaderMap::with_capacity(headers.len());
        for (name, value) in headers.iter().filter(|(name, _)| !is_hop_by_hop(name)) {
            kept.append(name, value.clone());
        }
        let interim = Interim { stream: self.stream, status, headers: kept };
        self.calls.interim(interim);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_told_once_until_it_was_looked_at() {
        let calls = Arc::new(Calls::default());
        calls.begin(&Context::from_waker(Waker::noop()));
        let slots: Vec<_> = (0..3).map(|slot| SlotWaker::new(&calls, slot)).collect();
        for slot in [2, 0, 2, 0, 2] {
            slots[slot].waker.wake_by_ref();
        }
        let mut news = News::default();
        calls.take(&mut news);
        assert_eq!(news.woken, [2, 0]);
        assert!(calls.rest());
        slots[0].begin();
        news.woken.clear();
        slots[0].waker.wake_by_ref();
        slots[2].waker.wake_by_ref();
        assert!(!calls.rest());
        calls.take(&mut news);
        assert_eq!(news.woken, [0]);
    }
}
