//! Where responses are kept: a bounded table that the workers share. Entries and bytes are bounded both.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use quick_cache::sync::{Cache as Table, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};
use tokio::sync::watch;
use tokio::time::Instant;

use super::key::{Key, Variant};
use super::policy::Freshness;

/// Responses of one resource that differ by the request's headers. Older ones make room.
const MOST_VARIANTS: usize = 16;

/// What an entry takes beside its bytes: the table, the maps, the counters.
const OVERHEAD: u64 = 512;
const HEADER_OVERHEAD: u64 = 64;

/// A stored response. What is in it does not change; a validation makes another.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its status.
    pub status: StatusCode,
    /// Its headers, without those of the connection.
    pub headers: HeaderMap,
    /// Its body, in the pieces that it came in.
    pub body: Vec<Bytes>,
    /// What of the request it depends on.
    pub variant: Variant,
    /// How long it may be used.
    pub freshness: Freshness,
    /// When it came, or was validated last.
    pub stored: Instant,
}

impl Entry {
    /// How old it is (RFC 9111 section 4.2.3).
    pub fn age(&self, now: Instant) -> Duration {
        self.freshness.initial_age + now.saturating_duration_since(self.stored)
    }

    /// The bytes of its body.
    pub fn length(&self) -> u64 {
        self.body.iter().map(|piece| piece.len() as u64).sum()
    }

    fn weight(&self) -> u64 {
        let headers = self
            .headers
            .iter()
            .map(|(name, value)| (name.as_str().len() + value.len()) as u64 + HEADER_OVERHEAD);
        self.length() + headers.sum::<u64>() + self.variant.len() as u64 + OVERHEAD
    }
}

/// The stored responses of one resource.
type Variants = Arc<[Arc<Entry>]>;

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<Key, Variants> for ByBytes {
    fn weight(&self, key: &Key, variants: &Variants) -> u64 {
        variants.iter().map(|entry| entry.weight()).sum::<u64>() + key.len() as u64 + OVERHEAD
    }
}

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Resources.
    pub entries: u32,
    /// Memory.
    pub bytes: u64,
}

crate::stats! {
    /// `http.STAT_PREFIX.cache.*`
    pub struct CacheStats {
        /// Requests answered with what was stored.
        counter hit,
        /// Requests for what was not stored.
        counter miss,
        /// Requests that waited for another's response instead of asking themselves.
        counter coalesced,
        /// Requests for what had to be validated.
        counter stale,
        /// Stale responses used since the origin answered with an error.
        counter stale_if_error,
        /// Validations after which what was stored was used.
        counter revalidated,
        /// Requests that could not be answered from a cache.
        counter bypass,
        /// Responses stored.
        counter stored,
        /// Responses that must not be stored, or are too large.
        counter uncacheable,
        /// Resources forgotten since a request changed them.
        counter invalidated,
        /// Resources stored.
        gauge entries,
        /// The memory that they take.
        gauge bytes,
    }
}

/// A fill that is under way. What was forgotten since it began is not brought back by it.
#[derive(Debug)]
pub struct Ticket {
    begun: u64,
    fills: Arc<Fills>,
    /// Others wait for this fill; they are told when it is over, however it ends.
    leads: Option<(Key, watch::Sender<()>)>,
}

/// A fill of another request, to be waited for.
#[derive(Debug)]
pub struct Followed(watch::Receiver<()>);

impl Followed {
    /// Waits until the fill is over; true if its response must not be stored, so that nothing comes of
    /// waiting for another.
    pub async fn is_refused(mut self) -> bool {
        // Otherwise the sender goes without a word.
        self.0.changed().await.is_ok()
    }
}

impl Ticket {
    /// The response must not be stored: whoever waits for it is to ask.
    pub fn refuse(self) {
        if let Some((_, followers)) = &self.leads {
            // Nobody may be waiting.
            let _nobody = followers.send(());
        }
    }
}

/// The fills under way, and what was forgotten meanwhile.
#[derive(Debug, Default)]
struct Fills(Mutex<FillState>);

#[derive(Debug, Default)]
struct FillState {
    clock: u64,
    under_way: usize,
    forgotten: HashMap<Key, u64>,
    /// The fills that others may wait for.
    led: HashMap<Key, watch::Receiver<()>>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.fills.0.lock();
        state.under_way -= 1;
        if let Some((key, _)) = &self.leads {
            state.led.remove(key);
        }
        if state.under_way == 0 {
            state.forgotten = HashMap::new();
        }
    }
}

/// A cache: stored responses by resource.
pub struct Store {
    table: Table<Key, Variants, ByBytes>,
    entries: Mutex<Bounds>,
    fills: Arc<Fills>,
    /// What is counted on it.
    pub stats: Arc<CacheStats>,
}

impl Store {
    /// An empty cache.
    pub fn new(bounds: Bounds, stats: Arc<CacheStats>) -> Self {
        let mut options = OptionsBuilder::new();
        let few = usize::try_from(bounds.entries).unwrap_or(usize::MAX).min(1 << 16);
        // A shard has its own part of the bound, which a large response must fit into.
        options.shards(1).estimated_items_capacity(few).weight_capacity(bounds.bytes);
        let options = options.build().unwrap_or_else(|_| unreachable!("every option is set"));
        let table = Table::with_options(
            options,
            ByBytes,
            DefaultHashBuilder::default(),
            DefaultLifecycle::default(),
        );
        Self { table, entries: Mutex::new(bounds), fills: Arc::default(), stats }
    }

    /// Changes how much is kept; what is over it is forgotten.
    pub fn bound(&self, bounds: Bounds) {
        let mut current = self.entries.lock();
        if current.bytes != bounds.bytes {
            self.table.set_capacity(bounds.bytes);
        }
        *current = bounds;
        drop(current);
        self.count();
    }

    /// The stored response for a request, fresh or not.
    pub fn get(&self, key: &Key, request: &HeaderMap) -> Option<Arc<Entry>> {
        let variants = self.table.get(key)?;
        variants.iter().find(|entry| entry.variant.matches(request)).cloned()
    }

    /// A fill begins that nobody waits for.
    pub fn begin(&self) -> Ticket {
        self.ticket(&mut self.fills.0.lock(), None)
    }

    /// A fill begins that others will wait for, unless there is one already.
    ///
    /// # Errors
    /// The one that there is.
    pub fn lead(&self, key: &Key) -> Result<Ticket, Followed> {
        let mut state = self.fills.0.lock();
        if let Some(led) = state.led.get(key) {
            return Err(Followed(led.clone()));
        }
        let (sender, receiver) = watch::channel(());
        state.led.insert(key.clone(), receiver);
        Ok(self.ticket(&mut state, Some((key.clone(), sender))))
    }

    fn ticket(&self, state: &mut FillState, leads: Option<(Key, watch::Sender<()>)>) -> Ticket {
        state.under_way += 1;
        state.clock += 1;
        Ticket { begun: state.clock, fills: Arc::clone(&self.fills), leads }
    }

    /// Stores what a fill brought, unless it was forgotten since.
    pub fn fill(&self, key: Key, entry: Arc<Entry>, ticket: Ticket) {
        let state = self.fills.0.lock();
        // Under the lock, so that nothing is forgotten between the look and the act.
        if state.forgotten.get(&key).is_none_or(|at| *at < ticket.begun) {
            self.insert(key, entry);
        }
        drop(state);
        drop(ticket);
    }

    /// Stores a response in place of the one for the same request, if there is one.
    pub fn insert(&self, key: Key, entry: Arc<Entry>) {
        let known = self.table.peek(&key).unwrap_or_else(|| Arc::new([]));
        if known.is_empty() && self.table.len() >= self.entries.lock().entries as usize {
            self.make_room();
        }
        let others = known.iter().filter(|other| other.variant != entry.variant).cloned();
        // The newest first, so that the oldest is the one to go.
        let first = std::iter::once(Arc::clone(&entry));
        let variants = first.chain(others).take(MOST_VARIANTS).collect();
        self.table.insert(key, variants);
        self.stats.stored.inc();
        self.count();
    }

    /// Forgets all that is stored of a resource; whether there was anything.
    pub fn remove(&self, key: &Key) -> bool {
        let mut state = self.fills.0.lock();
        if state.under_way > 0 {
            state.clock += 1;
            let now = state.clock;
            state.forgotten.insert(key.clone(), now);
        }
        let removed = self.table.remove(key).is_some();
        drop(state);
        if removed {
            self.stats.invalidated.inc();
            self.count();
        }
        removed
    }

    /// The table bounds bytes; a resource too many makes it forget one that it values least.
    fn make_room(&self) {
        let bytes = self.table.capacity();
        self.table.set_capacity(self.table.weight().saturating_sub(1));
        self.table.set_capacity(bytes);
    }

    fn count(&self) {
        let gauge = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        self.stats.entries.set(gauge(self.table.len() as u64));
        self.stats.bytes.set(gauge(self.table.weight()));
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("entries", &self.table.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: Bounds = Bounds { entries: 1_000, bytes: 10 << 20 };

    fn entry(body: usize, language: &str) -> Arc<Entry> {
        let vary =
            [("vary", "accept-language")].map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap()));
        let headers: HeaderMap = vary.into_iter().collect();
        let variant = Variant::of(&headers, &asking(language));
        Arc::new(Entry {
            status: StatusCode::OK,
            headers,
            body: vec![Bytes::from(vec![b'x'; body])],
            variant,
            freshness: Freshness {
                lifetime: Duration::from_secs(60),
                initial_age: Duration::ZERO,
                always_validate: false,
                never_stale: false,
                stale_if_error: Duration::ZERO,
            },
            stored: Instant::now(),
        })
    }

    fn asking(language: &str) -> HeaderMap {
        [("accept-language".parse().unwrap(), language.parse().unwrap())].into_iter().collect()
    }

    fn key(n: usize) -> Key {
        Key::new("http", "t", &format!("/{n}"))
    }

    #[test]
    fn variants_are_kept_apart_and_their_number_is_bounded() {
        let store = Store::new(LARGE, Arc::default());
        for n in 0..100 {
            store.insert(key(1), entry(10, &format!("l{n}")));
        }
        assert!(store.get(&key(1), &asking("l99")).is_some());
        assert!(store.get(&key(1), &asking("l84")).is_some());
        assert!(store.get(&key(1), &asking("l83")).is_none(), "the sixteen newest stay");
        store.insert(key(1), entry(20, "l99"));
        assert_eq!(store.get(&key(1), &asking("l99")).unwrap().length(), 20);
        assert!(store.remove(&key(1)) && !store.remove(&key(1)));
        assert_eq!((store.stats.entries.value(), store.stats.bytes.value()), (0, 0));
    }

    #[test]
    fn a_fill_does_not_bring_back_what_was_forgotten_since_it_began() {
        let store = Store::new(LARGE, Arc::default());
        let (early, other) = (store.begin(), store.begin());
        store.remove(&key(1));
        let late = store.begin();
        store.fill(key(2), entry(1, "a"), other);
        store.fill(key(1), entry(1, "a"), early);
        assert!(store.get(&key(1), &asking("a")).is_none());
        assert!(store.get(&key(2), &asking("a")).is_some());
        store.fill(key(1), entry(1, "a"), late);
        assert!(store.get(&key(1), &asking("a")).is_some());
        assert!(store.fills.0.lock().forgotten.is_empty());
    }

    #[tokio::test]
    async fn who_follows_is_told_however_the_fill_ends() {
        let store = Store::new(LARGE, Arc::default());
        let leader = store.lead(&key(1)).unwrap();
        let followed = store.lead(&key(1)).unwrap_err();
        assert!(store.lead(&key(2)).is_ok());
        store.fill(key(1), entry(1, "a"), leader);
        assert!(!followed.is_refused().await);
        assert!(store.get(&key(1), &asking("a")).is_some());
        let given_up = store.lead(&key(1)).unwrap();
        let followed = store.lead(&key(1)).unwrap_err();
        drop(given_up);
        assert!(!followed.is_refused().await);
        let refused = store.lead(&key(1)).unwrap();
        let followed = store.lead(&key(1)).unwrap_err();
        refused.refuse();
        assert!(followed.is_refused().await);
        assert!(store.lead(&key(1)).is_ok());
    }

    #[test]
    fn entries_and_bytes_are_bounded() {
        let few = Store::new(Bounds { entries: 10, ..LARGE }, Arc::default());
        for n in 0..200 {
            few.insert(key(n), entry(100, "a"));
            assert!(few.table.len() <= 10);
        }
        assert!(few.table.len() >= 9, "{}", few.table.len());
        let small = Store::new(Bounds { bytes: 100_000, ..LARGE }, Arc::default());
        for n in 0..200 {
            small.insert(key(n), entry(5_000, "a"));
            assert!(small.table.weight() <= 100_000);
        }
        assert!(small.table.len() > 10);
        small.insert(key(999), entry(200_000, "a"));
        assert!(small.get(&key(999), &asking("a")).is_none(), "larger than all");
        small.bound(Bounds { bytes: 20_000, ..LARGE });
        assert!(small.table.weight() <= 20_000);
    }
}
