//! The table of a store: stored responses by resource, and which of them goes when there is no room.
//!
//! S3-FIFO: whatever comes waits in a short queue, and goes from there unless somebody asks for it
//! meanwhile. What was asked for is kept in a second queue, and goes from there when it comes to the front
//! without having been asked for since. What went from the first queue is remembered for a while; if it
//! comes again it is kept at once. So what is asked for once in a while does not push out what is asked for
//! often, however much of it there is.
//!
//! Readers count on the resource itself and share the lock. A write costs the logarithm of what is there.
//! The table has no bounds of its own; the store makes room before it stores.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU8, Ordering};

use foldhash::fast::RandomState;
use parking_lot::RwLock;
use slab::Slab;

use super::Variants;
use crate::cache::key::Key;

/// What is not kept yet may take one part of so many of the bytes.
const NEWCOMERS: u64 = 16;

/// One resource is remembered for so many that are there.
const REMEMBERED: usize = 4;

/// How often a resource comes to the front of the queue before it goes, if it is asked for as often.
const MOST_ASKED: u8 = 3;

/// So many resources are looked at to find one that goes. Nobody waits longer for the lock than this takes.
const LOOKS: usize = 64;

/// What a resource takes in the table and the index beside its responses.
const OVERHEAD: u64 = 512;

/// What the responses of a resource take in memory, with what stands around them.
pub(super) fn weight(key: &Key, variants: &Variants) -> u64 {
    variants.iter().map(|entry| entry.weight()).sum::<u64>() + 2 * key.len() as u64 + OVERHEAD
}

#[derive(Default)]
pub(super) struct Table {
    slots: RwLock<Slots>,
}

#[derive(Default)]
struct Slots {
    by_key: HashMap<Key, usize, RandomState>,
    slots: Slab<Slot>,
    newcomers: Queue,
    kept: Queue,
    remembered: Remembered,
    /// The next turn that a queue gives out.
    next_turn: u64,
}

struct Slot {
    key: Key,
    variants: Variants,
    weight: u64,
    /// How often it was asked for since it came to the front, as far as that counts.
    asked: AtomicU8,
    is_kept: bool,
    turn: u64,
}

/// Slots by their turns.
#[derive(Default)]
struct Queue {
    turns: BTreeMap<u64, usize>,
    weight: u64,
}

/// Hashes of what went before anybody asked for it again, oldest first. One that came back may still be in
/// the order.
#[derive(Default)]
struct Remembered {
    order: VecDeque<u64>,
    hashes: HashSet<u64, RandomState>,
}

impl Table {
    /// What is stored of a key, for somebody who asks for it.
    pub(super) fn get(&self, key: &Key) -> Option<Variants> {
        let slots = self.slots.read();
        let slot = slots.find(key)?;
        // Most of the time it is there already, and nobody writes.
        if slot.asked.load(Ordering::Relaxed) < MOST_ASKED {
            slot.asked.fetch_add(1, Ordering::Relaxed);
        }
        Some(slot.variants.clone())
    }

    /// The same, but it does not count.
    pub(super) fn peek(&self, key: &Key) -> Option<Variants> {
        self.slots.read().find(key).map(|slot| slot.variants.clone())
    }

    /// Stores in place of what was stored of the key; gives that back.
    pub(super) fn insert(&self, key: Key, variants: Variants) -> Option<Variants> {
        let mut slots = self.slots.write();
        let weight = weight(&key, &variants);
        let Some(at) = slots.by_key.get(&key).copied() else {
            slots.add(key, variants, weight);
            return None;
        };
        let slot = &mut slots.slots[at];
        let (is_kept, before) = (slot.is_kept, std::mem::replace(&mut slot.weight, weight));
        let variants = std::mem::replace(&mut slot.variants, variants);
        let queue = slots.queue(is_kept);
        queue.weight = queue.weight - before + weight;
        Some(variants)
    }

    /// Takes away what is stored of a key.
    pub(super) fn remove(&self, key: &Key) -> Option<Variants> {
        let mut slots = self.slots.write();
        let at = slots.by_key.get(key).copied()?;
        Some(slots.take(at).variants)
    }

    /// Takes away what is worth least.
    pub(super) fn evict(&self) -> Option<(Key, Variants)> {
        let slot = self.slots.write().evict()?;
        Some((slot.key, slot.variants))
    }

    /// Resources.
    pub(super) fn len(&self) -> usize {
        self.slots.read().slots.len()
    }

    /// What they weigh.
    pub(super) fn weight(&self) -> u64 {
        self.slots.read().weight()
    }

    /// What a key weighs; 0 if nothing is stored of it.
    pub(super) fn weight_of(&self, key: &Key) -> u64 {
        self.slots.read().find(key).map_or(0, |slot| slot.weight)
    }

    /// All that is there from the begin of the iteration to its end. The table is not locked from one to the
    /// next.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, Variants)> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let slots = self.slots.read();
            while at < slots.slots.capacity() {
                let slot = slots.slots.get(at);
                at += 1;
                if let Some(slot) = slot {
                    return Some((slot.key.clone(), slot.variants.clone()));
                }
            }
            None
        })
    }
}

impl Slots {
    fn find(&self, key: &Key) -> Option<&Slot> {
        self.slots.get(*self.by_key.get(key)?)
    }

    fn weight(&self) -> u64 {
        self.newcomers.weight + self.kept.weight
    }

    fn queue(&mut self, is_kept: bool) -> &mut Queue {
        if is_kept { &mut self.kept } else { &mut self.newcomers }
    }

    fn hash(&self, key: &Key) -> u64 {
        self.by_key.hasher().hash_one(key)
    }

    fn add(&mut self, key: Key, variants: Variants, weight: u64) {
        let hash = self.hash(&key);
        let is_kept = self.remembered.hashes.remove(&hash);
        let slot =
            Slot { key: key.clone(), variants, weight, asked: AtomicU8::new(0), is_kept, turn: 0 };
        let at = self.slots.insert(slot);
        self.by_key.insert(key, at);
        self.line_up(at);
    }

    /// Puts a slot that is in no queue at the end of its own.
    fn line_up(&mut self, at: usize) {
        let turn = self.next_turn;
        self.next_turn += 1;
        let slot = &mut self.slots[at];
        slot.turn = turn;
        let (is_kept, weight) = (slot.is_kept, slot.weight);
        let queue = self.queue(is_kept);
        queue.turns.insert(turn, at);
        queue.weight += weight;
    }

    fn leave(&mut self, at: usize) {
        let slot = &self.slots[at];
        let (is_kept, turn, weight) = (slot.is_kept, slot.turn, slot.weight);
        let queue = self.queue(is_kept);
        queue.turns.remove(&turn);
        queue.weight -= weight;
    }

    fn take(&mut self, at: usize) -> Slot {
        self.leave(at);
        let slot = self.slots.remove(at);
        self.by_key.remove(&slot.key);
        slot
    }

    fn evict(&mut self) -> Option<Slot> {
        for look in 1.. {
            let too_many = self.newcomers.weight * NEWCOMERS >= self.weight();
            let first = |queue: &Queue| queue.turns.first_key_value().map(|(_, at)| *at);
            let (newcomer, kept) = (first(&self.newcomers), first(&self.kept));
            let at = if too_many { newcomer.or(kept) } else { kept.or(newcomer) }?;
            let slot = &mut self.slots[at];
            let asked = slot.asked.get_mut();
            if *asked == 0 || look == LOOKS {
                let slot = self.take(at);
                if !slot.is_kept {
                    let hash = self.hash(&slot.key);
                    self.remembered.add(hash, self.slots.len() / REMEMBERED);
                }
                return Some(slot);
            }
            // Being kept is what a newcomer gets for having been asked for.
            *asked = if slot.is_kept { (*asked).min(MOST_ASKED) - 1 } else { 0 };
            self.leave(at);
            self.slots[at].is_kept = true;
            self.line_up(at);
        }
        None
    }
}

impl Remembered {
    /// Remembers one, and no more than so many.
    fn add(&mut self, hash: u64, most: usize) {
        self.order.push_back(hash);
        self.hashes.insert(hash);
        while self.order.len() > most {
            let Some(oldest) = self.order.pop_front() else { return };
            self.hashes.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests;
