//! Memory for what is on its way into the store: it is of the same budget as what is there.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Store;

/// What is being filled may take one part of so many of the memory.
const FILLING: u64 = 2;

/// The memory for stored responses goes up and down by one part of so many as what is being filled takes
/// more or less.
const STEPS: u64 = 64;

impl Store {
    /// Memory for something that is being filled; none of it yet.
    pub fn reserve(self: &Arc<Self>) -> Reservation {
        Reservation { store: Arc::clone(self), bytes: 0 }
    }

    /// Makes room for what is being filled.
    fn set_aside(&self) {
        let wanted = || {
            let bytes = self.bounds.lock().bytes;
            let filling = self.filling.load(Ordering::Relaxed);
            self.stats.bytes_filling.set(i64::try_from(filling).unwrap_or(i64::MAX));
            let step = (bytes / STEPS).max(1);
            filling.next_multiple_of(step).min(bytes / FILLING)
        };
        if *self.set_aside.lock() == wanted() {
            return;
        }
        let mut index = self.index.lock();
        // Another may have been here since.
        let wanted = wanted();
        *self.set_aside.lock() = wanted;
        self.make_room(&mut index);
        drop(index);
        self.count();
    }
}

/// Memory that something takes that is being filled. It is given back when this is dropped.
#[derive(Debug)]
pub struct Reservation {
    store: Arc<Store>,
    bytes: u64,
}

impl Reservation {
    /// Takes more; false if too much is being filled already.
    pub fn add(&mut self, bytes: u64) -> bool {
        let most = self.store.bounds.lock().bytes / FILLING;
        let now = self.store.filling.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if now > most {
            self.store.filling.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        self.bytes += bytes;
        self.store.set_aside();
        true
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.store.filling.fetch_sub(self.bytes, Ordering::Relaxed);
            self.store.set_aside();
        }
    }
}
