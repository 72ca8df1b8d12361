//! Where responses are kept: a bounded table that the workers share. Entries and bytes are bounded both.

mod room;
mod table;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderMap;
use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use super::copies::Copies;
use super::entry::Entry;
use super::glob::UrlPattern;
use super::index::{Index, Scope, Standing};
use super::key::Key;
use super::lead::Flights;
use super::stats::CacheStats;
use crate::telemetry::metrics::Counter;

use self::table::Table;

pub use self::room::Reservation;

/// Responses of one resource that differ by the request's headers. Older ones make room.
const MOST_VARIANTS: usize = 16;

/// Between two pauses of a sweep so many resources are looked at.
const SWEPT_AT_ONCE: usize = 128;

/// The stored responses of one resource.
type Variants = Arc<[Arc<Entry>]>;

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Resources.
    pub entries: u32,
    /// Memory, with what is being filled.
    pub bytes: u64,
}

/// What is stored for a request.
#[derive(Debug)]
pub enum Lookup {
    /// A response, fresh or not.
    Found(Arc<Entry>),
    /// Responses, but none for a request like this.
    OtherVariants,
    /// Nothing.
    Nothing,
}

/// A fill that is under way. What was purged since it began is not brought back by it.
#[derive(Debug)]
pub struct Ticket {
    pub(super) begun: u64,
    index: Arc<Mutex<Index>>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.index.lock().end(self.begun);
    }
}

/// A cache: stored responses by resource.
pub struct Store {
    table: Table,
    /// Also held while anything is stored or taken away.
    index: Arc<Mutex<Index>>,
    /// The index's time of the last purge.
    last_purge: AtomicU64,
    pub(super) flights: Arc<Flights>,
    pub(super) copies: Arc<Copies>,
    bounds: Mutex<Bounds>,
    filling: AtomicU64,
    /// What of the memory is set aside for what is being filled.
    set_aside: Mutex<u64>,
    /// Purges whose responses are being counted. It goes up under the index's lock.
    counting: AtomicU64,
    /// Somebody should sweep.
    pub unswept: Notify,
    /// So many other forms of responses are made at a time.
    pub encoders: Arc<Semaphore>,
    /// What is counted on it.
    pub stats: Arc<CacheStats>,
}

impl Store {
    /// An empty cache.
    pub fn new(bounds: Bounds, stats: Arc<CacheStats>) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            table: Table::default(),
            index: Arc::default(),
            last_purge: AtomicU64::new(0),
            flights: Arc::default(),
            copies: Arc::default(),
            bounds: Mutex::new(bounds),
            filling: AtomicU64::new(0),
            set_aside: Mutex::new(0),
            counting: AtomicU64::new(0),
            unswept: Notify::new(),
            encoders: Arc::new(Semaphore::new(processors)),
            stats,
        }
    }

    /// Changes how much is kept; what is over it is forgotten.
    pub fn bound(&self, bounds: Bounds) {
        let mut index = self.index.lock();
        *self.bounds.lock() = bounds;
        self.make_room(&mut index);
        self.make_place(&mut index, bounds.entries as usize);
        drop(index);
        self.count();
    }

    pub(super) fn bounds(&self) -> Bounds {
        *self.bounds.lock()
    }

    /// What is stored for a request.
    pub fn get(&self, key: &Key, request: &HeaderMap) -> Lookup {
        let Some(mut variants) = self.table.get(key) else { return Lookup::Nothing };
        if !variants.iter().all(|entry| self.is_known_good(entry)) {
            variants = self.good(key);
        }
        let mut found: Option<&Arc<Entry>> = None;
        for entry in variants.iter() {
            // Of several that match, the newest counts (RFC 9111 section 4.1).
            if entry.variant.matches(request)
                && found.is_none_or(|found| entry.date() > found.date())
            {
                found = Some(entry);
            }
        }
        match found {
            Some(entry) => Lookup::Found(Arc::clone(entry)),
            None if variants.is_empty() => Lookup::Nothing,
            None => Lookup::OtherVariants,
        }
    }

    /// Most of the time there was no purge since somebody looked last.
    fn is_known_good(&self, entry: &Entry) -> bool {
        entry.outlived.load(Ordering::Acquire) == self.last_purge.load(Ordering::Acquire)
    }

    /// What is stored of a key and no purge hit. It is looked up anew while the index stands still: of what a
    /// sweep has taken away since, the index does not know any more that it is dead.
    fn good(&self, key: &Key) -> Variants {
        let index = self.index.lock();
        let known = self.table.peek(key).unwrap_or_else(|| Arc::new([]));
        known.iter().filter(|entry| !self.is_dead_by(&index, key, entry)).map(Arc::clone).collect()
    }

    /// Whether a purge hit a stored response. It is marked here if one did so softly.
    fn is_dead(&self, key: &Key, entry: &Entry) -> bool {
        !self.is_known_good(entry) && self.is_dead_by(&self.index.lock(), key, entry)
    }

    fn is_dead_by(&self, index: &Index, key: &Key, entry: &Entry) -> bool {
        let last_purge = self.last_purge.load(Ordering::Acquire);
        match index.standing(key, entry) {
            Standing::Dead => return true,
            Standing::Marked => entry.marked.store(true, Ordering::Relaxed),
            Standing::Good => {}
        }
        entry.outlived.store(last_purge, Ordering::Release);
        false
    }

    /// A fill begins that nobody follows.
    pub fn begin(&self) -> Ticket {
        let begun = self.index.lock().begin();
        Ticket { begun, index: Arc::clone(&self.index) }
    }

    /// Whether no purge since its fill began is of what is on its way, as far as its head is known.
    pub(super) fn outlived(&self, key: &Key, head: Option<&Entry>, begun: u64) -> bool {
        self.index.lock().outlived(key, head, begun)
    }

    /// Stores what a fill brought, in place of the response for the same request if there is one; `None` if
    /// it was purged since the fill began.
    pub fn fill(&self, key: Key, mut entry: Entry, ticket: &Ticket) -> Option<Arc<Entry>> {
        let mut index = self.index.lock();
        match index.standing_of_fill(&key, &entry, ticket.begun) {
            Standing::Dead => return None,
            standing => entry.marked = (standing == Standing::Marked).into(),
        }
        entry.begun = ticket.begun;
        entry.outlived = self.last_purge.load(Ordering::Acquire).into();
        let entry = Arc::new(entry);
        self.place(&mut index, key, Arc::clone(&entry));
        self.stats.stored.inc();
        drop(index);
        self.count();
        Some(entry)
    }

    /// Stores a response.
    pub fn insert(&self, key: Key, entry: Entry) -> Option<Arc<Entry>> {
        let ticket = self.begin();
        self.fill(key, entry, &ticket)
    }

    /// Puts another form of a stored response in its place, unless that has changed meanwhile; gives it back.
    pub fn replace(&self, key: &Key, before: &Arc<Entry>, mut after: Entry) -> Arc<Entry> {
        let mut index = self.index.lock();
        let known = self.table.peek(key);
        let is_there = known.is_some_and(|k| k.iter().any(|entry| Arc::ptr_eq(entry, before)));
        let replaces = is_there && !self.is_dead_by(&index, key, before);
        // It may have been marked, and the sweep be over that would mark the other.
        after.marked = before.is_marked().into();
        let after = Arc::new(after);
        if replaces {
            self.place(&mut index, key.clone(), Arc::clone(&after));
        }
        drop(index);
        self.count();
        after
    }

    fn place(&self, index: &mut Index, key: Key, entry: Arc<Entry>) {
        let known = self.table.peek(&key).unwrap_or_else(|| Arc::new([]));
        if known.is_empty() {
            let others = self.bounds.lock().entries.max(1) as usize - 1;
            self.make_place(index, others);
        }
        let is_other = |other: &&Arc<Entry>| {
            other.variant != entry.variant && !self.is_dead_by(index, &key, other)
        };
        let others: SmallVec<[Arc<Entry>; 4]> =
            known.iter().filter(is_other).map(Arc::clone).collect();
        let too_many = (others.len() + 1).saturating_sub(MOST_VARIANTS);
        self.stats.evicted_variants.add(too_many as u64);
        // The newest first, so that the oldest is the one to go.
        let variants: Variants = std::iter::once(entry).chain(others).take(MOST_VARIANTS).collect();
        self.set(index, key, variants);
    }

    fn set(&self, index: &mut Index, key: Key, variants: Variants) {
        let weight = table::weight(&key, &variants);
        let before = if weight > self.room() {
            self.table.remove(&key)
        } else {
            // What is stored of it may itself have to go.
            while self.table.weight() - self.table.weight_of(&key) + weight > self.room() {
                self.evict(index, &self.stats.evicted_memory);
            }
            for entry in variants.iter() {
                index.add(&key, entry);
                self.count_forms(entry, 1);
            }
            self.table.insert(key.clone(), variants)
        };
        if let Some(before) = before {
            self.unindex(index, &key, &before);
        }
    }

    /// How much may be stored beside what is being filled.
    fn room(&self) -> u64 {
        let set_aside = *self.set_aside.lock();
        self.bounds.lock().bytes.saturating_sub(set_aside)
    }

    /// Leaves no more than fits.
    fn make_room(&self, index: &mut Index) {
        while self.table.weight() > self.room() {
            self.evict(index, &self.stats.evicted_memory);
        }
    }

    /// Leaves no more than so many resources.
    fn make_place(&self, index: &mut Index, most: usize) {
        while self.table.len() > most {
            self.evict(index, &self.stats.evicted_entries);
        }
    }

    /// Forgets the resource that is worth least.
    fn evict(&self, index: &mut Index, counter: &Counter) {
        if let Some((key, variants)) = self.table.evict() {
            counter.add(variants.len() as u64);
            self.unindex(index, &key, &variants);
        }
    }

    fn unindex(&self, index: &mut Index, key: &Key, variants: &Variants) {
        for entry in variants.iter() {
            index.remove(key, entry);
            self.count_forms(entry, -1);
        }
    }

    /// Forgets all that is stored of a key; whether there was anything. Fills under way do not bring it back.
    pub fn remove(&self, key: &Key) -> bool {
        let mut index = self.index.lock();
        index.remember_now(&Scope::url_of(key));
        let removed = self.table.remove(key);
        if let Some(variants) = &removed {
            self.unindex(&mut index, key, variants);
            self.stats.invalidated.inc();
        }
        drop(index);
        self.count();
        removed.is_some()
    }

    /// Forgets all of a scope, or marks it stale if it is done softly; how many responses that were. What is
    /// forgotten is not given out from then on, and fills under way do not bring it back.
    ///
    /// It takes effect in the same time however many responses there are. So does the answer, but for
    /// patterns with a star before their end or within a name, whose responses are counted one by one.
    pub fn purge(&self, scope: &Scope, soft: bool) -> u64 {
        let mut index = self.index.lock();
        let hit = self.issue(&mut index, scope, soft);
        let (Scope::Pattern(pattern), None) = (scope, hit) else { return hit.unwrap_or_default() };
        // What is taken away meanwhile could not be counted.
        self.counting.fetch_add(1, Ordering::Relaxed);
        let purge = index.now();
        drop(index);
        let hit = self.count_hit(pattern, purge);
        self.counting.fetch_sub(1, Ordering::Relaxed);
        self.stats.purged.add(hit);
        self.unswept.notify_one();
        hit
    }

    /// The same, but responses are never counted one by one: `None` says that nobody knows how many there
    /// were.
    pub fn purge_uncounted(&self, scope: &Scope, soft: bool) -> Option<u64> {
        self.issue(&mut self.index.lock(), scope, soft)
    }

    fn issue(&self, index: &mut Index, scope: &Scope, soft: bool) -> Option<u64> {
        let hit = index.purge(scope, soft);
        self.last_purge.store(index.now(), Ordering::Release);
        self.stats.purge(scope, hit);
        self.unswept.notify_one();
        hit
    }

    /// How many responses the purge of a pattern hit that was at this time.
    fn count_hit(&self, pattern: &UrlPattern, purge: u64) -> u64 {
        let matching = self.table.iter().filter(|(key, _)| {
            let (host, path) = key.place();
            pattern.matches(host, path)
        });
        let hit = |(key, variants): (Key, Variants)| {
            let index = self.index.lock();
            let was_good = |entry: &&Arc<Entry>| {
                entry.begun < purge
                    && index.standing_without(&key, entry, Some(purge)) != Standing::Dead
            };
            variants.iter().filter(was_good).count() as u64
        };
        matching.map(hit).sum()
    }

    /// Takes away what was purged, and what is of no use any more. Pauses often.
    pub async fn sweep(&self) {
        let since = self.index.lock().now();
        let mut is_whole = true;
        for (number, (key, variants)) in self.table.iter().enumerate() {
            if number % SWEPT_AT_ONCE == SWEPT_AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
            let now = Instant::now();
            if variants.iter().any(|entry| is_spent(entry, now) || self.is_dead(&key, entry)) {
                is_whole &= self.weed(&key, now);
            }
        }
        if is_whole {
            self.index.lock().swept(since);
        }
        self.count();
    }

    /// Takes away what is dead of a key, unless it is being counted what a purge hit.
    fn weed(&self, key: &Key, now: Instant) -> bool {
        let mut index = self.index.lock();
        if self.counting.load(Ordering::Relaxed) > 0 {
            return false;
        }
        let Some(variants) = self.table.peek(key) else { return true };
        let is_good = |entry: &&Arc<Entry>| {
            let is_dead = self.is_dead_by(&index, key, entry);
            let is_spent = !is_dead && is_spent(entry, now);
            self.stats.expired.add(u64::from(is_spent));
            !is_dead && !is_spent
        };
        let good: Variants = variants.iter().filter(is_good).map(Arc::clone).collect();
        if good.is_empty() {
            self.table.remove(key);
            self.unindex(&mut index, key, &variants);
        } else if good.len() < variants.len() {
            self.set(&mut index, key.clone(), good);
        }
        true
    }

    fn count_forms(&self, entry: &Entry, sign: i64) {
        let size = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let gzip = entry.gzip.as_ref().map_or(0, |gzip| size(gzip.length()));
        let copy = entry.copy.as_ref().map_or(0, |copy| size(copy.bytes()));
        self.stats.bytes_gzip.add(sign * gzip);
        self.stats.bytes_copies.add(sign * copy);
        self.stats.bytes_identity.add(sign * (size(entry.weight()) - gzip - copy));
    }

    fn count(&self) {
        let gauge = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        self.stats.entries.set(gauge(self.table.len() as u64));
        self.stats.bytes.set(gauge(self.table.weight()));
    }
}

/// Whether a response cannot be used by anybody any more, nor be validated.
fn is_spent(entry: &Entry, now: Instant) -> bool {
    !entry.can_be_validated() && entry.freshness.is_spent(entry.age(now))
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("entries", &self.table.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
