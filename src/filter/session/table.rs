//! Which host each session is on: a bounded table that the workers share.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, UnitWeighter};
use smallvec::SmallVec;
use tokio::time::Instant;

crate::stats! {
    /// `http.STAT_PREFIX.session.*`
    pub(super) struct SessionStats {
        /// Sessions begun.
        counter created,
        /// Requests that went to the host of their session.
        counter pinned,
        /// Sessions that went on to another host since theirs was gone or could not take the request.
        counter repinned,
        /// Sessions ended since nothing was asked in them for too long.
        counter expired,
        /// Sessions in the table; one that is idle for too long counts until it is asked for.
        gauge active,
    }
}

/// The hosts of a session: one of each cluster.
pub(super) type Pins = SmallVec<[(Arc<str>, SocketAddr); 1]>;

/// How long a session lives and how many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) idle: Duration,
    pub(super) most: u32,
}

struct Session {
    /// Nanoseconds since the table was made.
    used: AtomicU64,
    pins: Mutex<Pins>,
}

/// Sessions by their ids.
pub struct SessionTable {
    /// Few of these have more than one shard: a shard has its own part of the bound.
    sessions: Cache<Box<str>, Arc<Session>>,
    idle: AtomicU64,
    start: Instant,
    pub(super) stats: Arc<SessionStats>,
}

impl SessionTable {
    pub(super) fn new(bounds: Bounds, stats: Arc<SessionStats>) -> Self {
        let most = usize::try_from(bounds.most).unwrap_or(usize::MAX).max(1);
        // Shards bound themselves, so a small table has one.
        let shards = if most < 4_096 { 1 } else { 16 };
        let mut options = OptionsBuilder::new();
        options.shards(shards).estimated_items_capacity(most).weight_capacity(most as u64);
        let options = options.build().unwrap_or_else(|_| unreachable!("every option is set"));
        let sessions = Cache::with_options(
            options,
            UnitWeighter,
            DefaultHashBuilder::default(),
            DefaultLifecycle::default(),
        );
        let table = Self { sessions, idle: AtomicU64::new(0), start: Instant::now(), stats };
        table.bound(bounds);
        table
    }

    /// Changes how long sessions live and how many there are.
    pub(super) fn bound(&self, bounds: Bounds) {
        self.idle.store(nanoseconds(bounds.idle), Ordering::Relaxed);
        if self.sessions.capacity() != u64::from(bounds.most.max(1)) {
            self.sessions.set_capacity(u64::from(bounds.most.max(1)));
        }
    }

    fn now(&self) -> u64 {
        nanoseconds(self.start.elapsed())
    }

    /// The hosts of a session, which lives on from now; none of one that is not known or was idle for
    /// too long.
    pub(super) fn find(&self, id: &str) -> Pins {
        let Some(session) = self.sessions.get(id) else { return Pins::new() };
        let now = self.now();
        let used = session.used.swap(now, Ordering::Relaxed);
        if now.saturating_sub(used) > self.idle.load(Ordering::Relaxed) {
            self.sessions.remove(id);
            self.stats.expired.inc();
            self.count();
            return Pins::new();
        }
        session.pins.lock().clone()
    }

    /// A request of a session was put to a host.
    pub(super) fn pin(&self, id: &str, cluster: &Arc<str>, host: SocketAddr) {
        if let Some(session) = self.sessions.get(id) {
            let mut pins = session.pins.lock();
            match pins.iter_mut().find(|(known, _)| known == cluster) {
                Some((_, known)) if *known == host => self.stats.pinned.inc(),
                Some((_, known)) => {
                    *known = host;
                    self.stats.repinned.inc();
                }
                None => pins.push((Arc::clone(cluster), host)),
            }
            return;
        }
        let mut pins = Pins::new();
        pins.push((Arc::clone(cluster), host));
        let session = Session { used: AtomicU64::new(self.now()), pins: Mutex::new(pins) };
        self.sessions.insert(id.into(), Arc::new(session));
        self.stats.created.inc();
        self.count();
    }

    fn count(&self) {
        self.stats.active.set(i64::try_from(self.sessions.len()).unwrap_or(i64::MAX));
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn host(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn found(table: &SessionTable, id: &str) -> Vec<u16> {
        table.find(id).iter().map(|(_, host)| host.port()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_lives_while_it_is_used_and_has_a_host_of_each_cluster() {
        let table = SessionTable::new(Bounds { idle: SECOND, most: 10 }, Arc::default());
        let (a, b) = (Arc::from("a"), Arc::from("b"));
        table.pin("s", &a, host(1));
        table.pin("s", &b, host(2));
        table.pin("s", &a, host(1));
        table.pin("s", &b, host(3));
        for _ in 0..3 {
            tokio::time::advance(SECOND).await;
            assert_eq!(found(&table, "s"), [1, 3]);
        }
        let stats = &table.stats;
        let counts = [&stats.created, &stats.pinned, &stats.repinned].map(|c| c.value());
        assert_eq!((counts, stats.active.value()), ([1, 1, 1], 1));
        tokio::time::advance(SECOND + Duration::from_millis(1)).await;
        assert!(found(&table, "s").is_empty());
        assert_eq!((stats.expired.value(), stats.active.value()), (1, 0));
    }

    #[test]
    fn a_table_never_has_more_than_it_may() {
        let table = SessionTable::new(Bounds { idle: SECOND, most: 50 }, Arc::default());
        for id in 0..1_000 {
            table.pin(&id.to_string(), &"a".into(), host(1));
            assert!(table.sessions.len() <= 50);
        }
        assert!(table.sessions.len() >= 40, "{}", table.sessions.len());
        table.bound(Bounds { idle: SECOND, most: 5 });
        assert!(table.sessions.len() <= 5, "{}", table.sessions.len());
    }
}
