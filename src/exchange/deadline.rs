//! Deadlines of a worker's exchanges, without a timer for each.
//!
//! Most deadlines never pass: a request ends long before its timeout. So a deadline is only a slot
//! in a slab, and one task sleeps until the earliest that was ever asked for since it last looked.
//! Setting one and dropping it costs two short uncontended locks; the task wakes about once a
//! timeout, not once a request.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use slab::Slab;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The deadlines of one worker. Cheap to clone.
#[derive(Clone, Default)]
pub struct Deadlines(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Told when a deadline is earlier than all before it.
    earlier: Notify,
}

#[derive(Default)]
struct State {
    slots: Slab<Slot>,
    /// No live deadline is earlier than this.
    next: Option<Instant>,
}

struct Slot {
    at: Instant,
    passed: bool,
    waker: Option<Waker>,
}

impl Deadlines {
    /// A deadline at `at`. It passes only while [`Deadlines::run`] is being polled.
    pub fn at(&self, at: Instant) -> Deadline {
        let mut state = self.0.state.lock();
        let key = state.slots.insert(Slot { at, passed: false, waker: None });
        if state.next.is_none_or(|next| at < next) {
            state.next = Some(at);
            drop(state);
            self.0.earlier.notify_one();
        }
        Deadline { shared: Arc::clone(&self.0), key, at }
    }

    /// Lets deadlines pass, for ever. Each worker runs this once as a task.
    pub async fn run(self) {
        loop {
            let next = self.0.state.lock().next;
            match next {
                None => self.0.earlier.notified().await,
                Some(next) => tokio::select! {
                    () = tokio::time::sleep_until(next) => self.0.state.lock().pass(Instant::now()),
                    () = self.0.earlier.notified() => {}
                },
            }
        }
    }
}

impl State {
    fn pass(&mut self, now: Instant) {
        self.next = None;
        for (_, slot) in &mut self.slots {
            if slot.passed {
                continue;
            }
            if slot.at <= now {
                slot.passed = true;
                if let Some(waker) = slot.waker.take() {
                    waker.wake();
                }
            } else if self.next.is_none_or(|next| slot.at < next) {
                self.next = Some(slot.at);
            }
        }
    }
}

/// A future that is ready once its time has come. Dropping it gives the slot back.
pub struct Deadline {
    shared: Arc<Shared>,
    key: usize,
    at: Instant,
}

impl Deadline {
    /// When it passes.
    pub fn when(&self) -> Instant {
        self.at
    }

    /// The same future, later or earlier.
    pub fn reset(&mut self, at: Instant) {
        let deadlines = Deadlines(Arc::clone(&self.shared));
        *self = deadlines.at(at);
    }
}

impl Future for Deadline {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.shared.state.lock();
        let slot = &mut state.slots[self.key];
        if slot.passed {
            return Poll::Ready(());
        }
        if !slot.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            slot.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        let slot = self.shared.state.lock().slots.try_remove(self.key);
        // A waker may own the task that holds the lock's other users; it is dropped outside of it.
        drop(slot);
    }
}

impl std::fmt::Debug for Deadline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deadline").field("at", &self.at).finish()
    }
}

impl std::fmt::Debug for Deadlines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deadlines").field("live", &self.0.state.lock().slots.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn deadlines_pass_in_their_order_whatever_the_order_they_were_set_in() {
        let deadlines = Deadlines::default();
        tokio::spawn(deadlines.clone().run());
        let start = Instant::now();
        for order in [[30, 10, 20], [10, 20, 30], [20, 30, 10]] {
            let start = Instant::now();
            let mut set: Vec<_> =
                order.iter().map(|s| deadlines.at(start + Duration::from_secs(*s))).collect();
            set.sort_by_key(Deadline::when);
            for deadline in set {
                let at = deadline.when();
                deadline.await;
                let late = Instant::now() - at;
                assert!(late < Duration::from_millis(2), "{late:?} late");
            }
        }
        assert!(Instant::now() - start >= Duration::from_secs(90));
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_deadline_leaves_nothing_behind() {
        let deadlines = Deadlines::default();
        tokio::spawn(deadlines.clone().run());
        let soon = deadlines.at(Instant::now() + Duration::from_secs(1));
        let later = deadlines.at(Instant::now() + Duration::from_secs(5));
        drop(soon);
        later.await;
        assert_eq!(deadlines.0.state.lock().slots.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_in_the_past_passes_at_once() {
        let deadlines = Deadlines::default();
        tokio::spawn(deadlines.clone().run());
        tokio::time::advance(Duration::from_secs(5)).await;
        deadlines.at(Instant::now() - Duration::from_secs(1)).await;
    }
}
