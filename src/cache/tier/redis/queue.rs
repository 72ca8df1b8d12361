//! What waits to be written, in the order in which it was given, and bounded.
//!
//! Fills that find no room are dropped. What was forgotten or purged is not: until it is written it
//! holds for this proxy's own lookups, and if too much of it waits, everything is dropped and a new era
//! stands for all of it, which no value outlives.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::cache::tier::{Position, Stamp};

/// Fills that may wait, and their bytes.
const MOST_FILLS: usize = 1024;
const MOST_BYTES: usize = 32 << 20;

/// Orders that may wait, and their bytes.
const MOST_ORDERS: usize = 4096;
const MOST_ORDER_BYTES: usize = 4 << 20;

/// Fills that are written at once, and their bytes: what a connection takes in well under a second.
const BATCH: usize = 64;
const BATCH_BYTES: usize = 4 << 20;

/// What an entry takes beside its bytes.
const OVERHEAD: usize = 128;

/// A value to be kept.
#[derive(Debug)]
pub(super) struct Fill {
    pub(super) key: Bytes,
    pub(super) value: Bytes,
    pub(super) ttl: Duration,
    pub(super) position: Position,
    pub(super) stamp: Stamp,
}

impl Fill {
    fn bytes(&self) -> usize {
        self.key.len() + self.value.len() + OVERHEAD
    }
}

/// What must be written.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) what: What,
    /// Whoever gave it may wait for it.
    pub(super) told: oneshot::Sender<()>,
}

#[derive(Debug, Clone)]
pub(super) enum What {
    Forget { keys: Vec<Bytes>, message: Bytes },
    Purge { message: Bytes },
}

impl What {
    fn bytes(&self) -> usize {
        match self {
            Self::Forget { keys, message } => {
                let keys: usize = keys.iter().map(|key| key.len() + OVERHEAD).sum();
                keys + message.len() + OVERHEAD
            }
            Self::Purge { message } => message.len() + OVERHEAD,
        }
    }
}

/// What is to be done next.
#[derive(Debug)]
pub(super) enum Work {
    /// Fills that no order stands between.
    Fills(Vec<Fill>),
    Order(Order),
    /// Begin a new era.
    Renew,
}

/// What waits.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    more: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Entry>,
    fills: usize,
    fill_bytes: usize,
    /// Given and not done, waiting or not.
    orders: usize,
    order_bytes: usize,
    forgotten: HashMap<Bytes, usize>,
    purges: VecDeque<Bytes>,
    /// A new era is to be begun.
    renew: bool,
    /// It is being begun. What is given now is not part of it.
    renewing: bool,
}

#[derive(Debug)]
enum Entry {
    Fill(Fill),
    Order(Order),
}

impl Queue {
    /// False if there is no room.
    pub(super) fn fill(&self, fill: Fill) -> bool {
        let mut state = self.state.lock();
        let bytes = fill.bytes();
        let is_full = state.fills >= MOST_FILLS || state.fill_bytes + bytes > MOST_BYTES;
        if is_full || state.is_renewal() {
            return false;
        }
        state.fills += 1;
        state.fill_bytes += bytes;
        state.waiting.push_back(Entry::Fill(fill));
        drop(state);
        self.more.notify_one();
        true
    }

    /// Returns how many fills were dropped.
    pub(super) fn order(&self, order: Order) -> usize {
        let mut state = self.state.lock();
        if state.renew {
            // The new era, which is not begun yet, will stand for this one too.
            return 0;
        }
        let bytes = order.what.bytes();
        if state.orders >= MOST_ORDERS || state.order_bytes + bytes > MOST_ORDER_BYTES {
            let dropped = state.fills;
            *state = State { renew: true, renewing: state.renewing, ..State::default() };
            drop(state);
            self.more.notify_one();
            return dropped;
        }
        state.orders += 1;
        state.order_bytes += bytes;
        match &order.what {
            What::Forget { keys, .. } => {
                for key in keys {
                    *state.forgotten.entry(key.clone()).or_default() += 1;
                }
            }
            What::Purge { message } => state.purges.push_back(message.clone()),
        }
        state.waiting.push_back(Entry::Order(order));
        drop(state);
        self.more.notify_one();
        0
    }

    /// Whether what is under a key was forgotten here, and the server may not know.
    pub(super) fn has_forgotten(&self, key: &[u8]) -> bool {
        let state = self.state.lock();
        state.is_renewal() || state.forgotten.contains_key(key)
    }

    /// What was purged here, and the server may not know; none if that is everything.
    pub(super) fn purges(&self) -> Option<Vec<Bytes>> {
        let state = self.state.lock();
        if state.is_renewal() {
            return None;
        }
        Some(state.purges.iter().cloned().collect())
    }

    /// Whether there is something else to do than the order at hand.
    pub(super) fn is_overrun(&self) -> bool {
        self.state.lock().renew
    }

    /// An order was carried out.
    pub(super) fn done(&self, what: &What) {
        let mut state = self.state.lock();
        if state.renew {
            // Nothing is counted any more.
            return;
        }
        state.orders -= 1;
        state.order_bytes -= what.bytes();
        match what {
            What::Forget { keys, .. } => {
                for key in keys {
                    if let Some(count) = state.forgotten.get_mut(key) {
                        *count -= 1;
                        if *count == 0 {
                            state.forgotten.remove(key);
                        }
                    }
                }
            }
            // They are carried out in order.
            What::Purge { .. } => drop(state.purges.pop_front()),
        }
    }

    /// The new era has begun.
    pub(super) fn renewed(&self) {
        self.state.lock().renewing = false;
    }

    /// Waits for something to do. Cancel safe; for one caller.
    pub(super) async fn next(&self) -> Work {
        loop {
            if let Some(work) = self.state.lock().take() {
                return work;
            }
            self.more.notified().await;
        }
    }
}

impl State {
    fn is_renewal(&self) -> bool {
        self.renew || self.renewing
    }

    fn take(&mut self) -> Option<Work> {
        if self.renew {
            (self.renew, self.renewing) = (false, true);
            return Some(Work::Renew);
        }
        let mut batch = Vec::new();
        let mut bytes = 0;
        loop {
            match self.waiting.pop_front() {
                Some(Entry::Fill(fill))
                    if batch.is_empty() || bytes + fill.bytes() <= BATCH_BYTES =>
                {
                    bytes += fill.bytes();
                    self.fills -= 1;
                    self.fill_bytes -= fill.bytes();
                    batch.push(fill);
                    if batch.len() == BATCH {
                        return Some(Work::Fills(batch));
                    }
                }
                Some(Entry::Order(order)) if batch.is_empty() => return Some(Work::Order(order)),
                other => {
                    if let Some(entry) = other {
                        self.waiting.push_front(entry);
                    }
                    return (!batch.is_empty()).then_some(Work::Fills(batch));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    const POSITION: Position = Position { era: [0; 8], number: 0 };

    fn fill(n: usize, size: usize) -> Fill {
        let stamp = Stamp { position: Some(POSITION), tombstone: None, begun: Instant::now() };
        let (key, value) = (Bytes::from(n.to_string()), Bytes::from(vec![0; size]));
        Fill { key, value, ttl: Duration::from_secs(1), position: POSITION, stamp }
    }

    fn forget(key: &str) -> Order {
        let keys = vec![Bytes::copy_from_slice(key.as_bytes())];
        Order { what: What::Forget { keys, message: Bytes::new() }, told: oneshot::channel().0 }
    }

    fn purge(message: &'static str) -> Order {
        let what = What::Purge { message: Bytes::from_static(message.as_bytes()) };
        Order { what, told: oneshot::channel().0 }
    }

    async fn next_order(queue: &Queue) -> Order {
        match queue.next().await {
            Work::Order(order) => order,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn orders_keep_their_place_between_fills() {
        let queue = Queue::default();
        for n in 0..3 {
            assert!(queue.fill(fill(n, 10)));
        }
        queue.order(forget("1"));
        queue.fill(fill(3, 10));
        let Work::Fills(first) = queue.next().await else { panic!() };
        assert_eq!(first.len(), 3);
        next_order(&queue).await;
        let Work::Fills(second) = queue.next().await else { panic!() };
        assert_eq!(&second[0].key[..], b"3");
    }

    #[tokio::test]
    async fn fills_are_bounded_by_number_and_bytes_and_written_in_batches() {
        let queue = Queue::default();
        let taken = (0..2000).filter(|n| queue.fill(fill(*n, 10))).count();
        assert_eq!(taken, MOST_FILLS);
        let Work::Fills(batch) = queue.next().await else { panic!() };
        assert_eq!(batch.len(), BATCH);
        assert!(queue.fill(fill(1, 10)), "there is room again");
        let queue = Queue::default();
        let taken = (0..100).filter(|n| queue.fill(fill(*n, 1 << 20))).count();
        assert_eq!(taken, 31);
        let Work::Fills(batch) = queue.next().await else { panic!() };
        assert_eq!(batch.len(), 3);
    }

    #[tokio::test]
    async fn what_is_not_written_yet_holds_here() {
        let queue = Queue::default();
        queue.order(forget("a"));
        queue.order(forget("a"));
        queue.order(purge("p"));
        assert!(queue.has_forgotten(b"a") && !queue.has_forgotten(b"b"));
        queue.done(&next_order(&queue).await.what);
        assert!(queue.has_forgotten(b"a"), "once more");
        queue.done(&next_order(&queue).await.what);
        assert!(!queue.has_forgotten(b"a"));
        assert_eq!(queue.purges().unwrap(), ["p"]);
        queue.done(&next_order(&queue).await.what);
        assert!(queue.purges().unwrap().is_empty());
    }

    #[tokio::test]
    async fn too_many_orders_become_a_new_era() {
        let queue = Queue::default();
        queue.fill(fill(1, 10));
        queue.order(purge("p"));
        let Work::Fills(_) = queue.next().await else { panic!() };
        let at_hand = next_order(&queue).await;
        queue.fill(fill(2, 10));
        let dropped: usize = (0..MOST_ORDERS).map(|_| queue.order(forget("a"))).sum();
        assert_eq!(dropped, 1);
        assert!(queue.is_overrun() && queue.has_forgotten(b"b") && queue.purges().is_none());
        assert!(!queue.fill(fill(3, 10)));
        queue.done(&at_hand.what);
        assert!(matches!(queue.next().await, Work::Renew));
        assert!(queue.has_forgotten(b"b") && !queue.fill(fill(3, 10)), "it is not begun yet");
        queue.order(forget("c"));
        queue.renewed();
        assert!(!queue.has_forgotten(b"a") && queue.has_forgotten(b"c"), "it may have been later");
        queue.done(&next_order(&queue).await.what);
        assert!(!queue.has_forgotten(b"c") && queue.fill(fill(4, 10)));
        queue.order(purge("q"));
        assert!(matches!(queue.next().await, Work::Fills(_)));
        queue.done(&next_order(&queue).await.what);
    }
}
