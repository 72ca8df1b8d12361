//! The tier over Redis or Valkey.
//!
//! ```text
//! keeper       connects, listens to the others, follows the log; ends a connection that does no good
//! queue        what waits to be written
//! writer       writes it, in order
//! log          the purges that are known, and their script
//! value        what stands under a key
//! connection   to a server or a cluster, in the third version of the protocol: Redis 6 and later
//! ```
//!
//! Lookups are sent from the caller's thread and answered there; everything else runs in two tasks, the
//! keeper and the writer. There is a [`Link`] while the server is there and answers in time, and without
//! one nothing is asked: that is the breaker. The keeper alone tries whether the server is back.

mod connection;
mod keeper;
mod log;
mod queue;
mod value;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use redis::{Cmd, RedisError, Value};
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use self::connection::{Connection, Servers};
use self::log::{Log, Names};
use self::queue::{Fill, Order, Queue, What};
use self::value::Stored;
use super::{
    Config, Error, Event, Found, Lookup, OnEvent, Stamp, Tier, TierFuture, TierStats, Told,
};

/// Longest wait for an answer that no request waits for.
const WRITTEN_WITHIN: Duration = Duration::from_secs(2);

/// What a failed lookup adds to a link's trouble and an answered one takes from it, and how much is
/// too much. Three in a row are, and so is one of five for long: a member of a cluster may be away.
const TROUBLE: u32 = 5;
const RELIEF: u32 = 1;
const TOO_MUCH: u32 = 15;

/// The longest that a value is kept: more than its fields allow may overflow in the server.
const LONGEST_TTL: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// A tier in a Redis server or cluster.
pub(super) struct Redis {
    shared: Arc<Shared>,
    tasks: [AbortHandle; 2],
}

/// What the callers and the tasks share.
struct Shared {
    timeout: Duration,
    servers: Servers,
    prefix: String,
    names: Names,
    /// By this we know our own messages.
    sender: [u8; 8],
    link: watch::Sender<Option<Arc<Link>>>,
    log: Mutex<Log>,
    /// Steps in the log are taken one after another, so that an answer is not taken over late.
    turn: tokio::sync::Mutex<()>,
    queue: Queue,
    stats: Arc<TierStats>,
    on_event: OnEvent,
}

/// The server, while it does well.
struct Link {
    reads: Connection,
    writes: Connection,
    trouble: AtomicU32,
    lost: Notify,
}

/// Whether the addresses are some, and go together.
pub(super) fn check(config: &Config) -> Result<(), Error> {
    Servers::new(config).map(drop)
}

impl Redis {
    pub(super) fn start(
        config: Config,
        runtime: &Handle,
        stats: Arc<TierStats>,
        on_event: OnEvent,
    ) -> Result<Self, Error> {
        let servers = Servers::new(&config)?;
        let sender: [u8; 8] = rand::random();
        let names = Names {
            log: format!("{}purges", config.prefix),
            channel: format!("{}invalidate", config.prefix),
            notice: keeper::notice(sender),
        };
        let shared = Arc::new(Shared {
            timeout: config.timeout,
            servers,
            prefix: config.prefix,
            names,
            sender,
            link: watch::Sender::new(None),
            log: Mutex::new(Log::new(sender)),
            turn: tokio::sync::Mutex::default(),
            queue: Queue::default(),
            stats,
            on_event,
        });
        let keeper = runtime.spawn(keeper::keep(Arc::clone(&shared))).abort_handle();
        let writer = runtime.spawn(writer::write(Arc::clone(&shared))).abort_handle();
        Ok(Self { shared, tasks: [keeper, writer] })
    }

    async fn look_up(&self, key: &[u8]) -> Lookup {
        let Shared { stats, queue, .. } = &*self.shared;
        // Before the server is asked: what is purged from here on is later than the fill.
        let mut lookup = Lookup { found: None, stamp: self.stamp() };
        let Some(link) = self.shared.link.borrow().clone() else {
            stats.skipped.inc();
            return lookup;
        };
        if !queue.has_forgotten(key)
            && let Some(stored) = self.shared.read(&link, key).await
        {
            match value::read(&stored) {
                Some(Stored::Tombstone(mark)) => lookup.stamp.tombstone = Some(mark),
                Some(Stored::Value(position, value)) => {
                    // In the order in which a purge passes from one to the other.
                    let waiting = queue.purges();
                    let judged = self.shared.log.lock().since(position).zip(waiting);
                    lookup.found = judged.map(|(mut purges, waiting)| {
                        purges.extend(waiting);
                        Found { value, purges }
                    });
                }
                None => stats.error.inc(),
            }
        }
        if lookup.found.is_some() {
            stats.hit.inc()
        } else {
            stats.miss.inc()
        }
        lookup
    }

    fn order(&self, what: What) -> Told {
        let (told, asked) = oneshot::channel();
        let dropped = self.shared.queue.order(Order { what, told });
        if dropped > 0 {
            tracing::warn!("too much waits for the cache tier: it will be emptied instead");
            self.shared.stats.write_dropped.add(dropped as u64);
        }
        Told(asked)
    }
}

impl Tier for Redis {
    fn get<'a>(&'a self, key: &'a [u8]) -> TierFuture<'a, Lookup> {
        Box::pin(self.look_up(key))
    }

    fn stamp(&self) -> Stamp {
        let position = self.shared.log.lock().position();
        Stamp { position, tombstone: None, begun: Instant::now() }
    }

    fn fill(&self, key: Bytes, value: Bytes, ttl: Duration, stamp: &Stamp) {
        let up = self.shared.link.borrow().is_some();
        let kept = match stamp.position {
            Some(position) if up && ttl >= Duration::from_millis(1) => {
                let (ttl, stamp) = (ttl.min(LONGEST_TTL), stamp.clone());
                self.shared.queue.fill(Fill { key, value, ttl, position, stamp })
            }
            _ => false,
        };
        if !kept {
            self.shared.stats.write_dropped.inc();
        }
    }

    fn forget(&self, keys: Vec<Bytes>, message: Bytes) -> Told {
        self.order(What::Forget { keys, message })
    }

    fn purge(&self, message: Bytes) -> Told {
        self.order(What::Purge { message })
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Shared {
    /// The name of a key in the server.
    fn name(&self, key: &[u8]) -> Vec<u8> {
        [self.prefix.as_bytes(), b"v:", key].concat()
    }

    /// What is under a key, if there is something and the server says so in time.
    async fn read(&self, link: &Arc<Link>, key: &[u8]) -> Option<Bytes> {
        let mut command = redis::cmd("GET");
        command.arg(self.name(key));
        match timeout(self.timeout, link.reads.ask(&command)).await {
            Ok(Ok(value)) => {
                link.answered();
                match value {
                    Value::BulkString(stored) => return Some(stored.into()),
                    Value::Nil => {}
                    _ => self.stats.error.inc(),
                }
            }
            Ok(Err(error)) => {
                self.stats.error.inc();
                self.failed(link, &error);
            }
            Err(_) => {
                self.stats.timeout.inc();
                self.failed(link, &connection::late());
            }
        }
        None
    }

    fn failed(&self, link: &Arc<Link>, error: &RedisError) {
        if link.trouble.fetch_add(TROUBLE, Ordering::Relaxed) + TROUBLE >= TOO_MUCH {
            self.lose(link, error);
        }
    }

    /// Gives a link up. The keeper makes another.
    fn lose(&self, link: &Arc<Link>, error: &RedisError) {
        let lost = self.link.send_if_modified(|current| {
            let is_current = current.as_ref().is_some_and(|current| Arc::ptr_eq(current, link));
            if is_current {
                *current = None;
            }
            is_current
        });
        if lost {
            self.stats.connected.set(0);
            tracing::warn!(%error, "the cache tier is lost");
            link.lost.notify_one();
        }
    }

    /// Waits for the server to be there.
    async fn linked(&self) -> Arc<Link> {
        let mut link = self.link.subscribe();
        loop {
            if let Some(link) = link.borrow_and_update().clone() {
                return link;
            }
            if link.changed().await.is_err() {
                // The sender is ours.
                std::future::pending::<()>().await;
            }
        }
    }

    fn tell(&self, news: log::News) {
        for message in news.messages {
            self.stats.received.inc();
            (self.on_event)(Event::Message(message));
        }
        if news.missed {
            self.stats.missed.inc();
            (self.on_event)(Event::Missed);
        }
    }
}

impl Link {
    fn answered(&self) {
        // Nearly always there is nothing to take away.
        if self.trouble.load(Ordering::Relaxed) > 0 {
            let less = |trouble: u32| Some(trouble.saturating_sub(RELIEF));
            // The closure never declines.
            let _always = self.trouble.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        }
    }

    /// Sends a command that no request waits for.
    async fn write(&self, command: &Cmd) -> Result<Value, RedisError> {
        match timeout(WRITTEN_WITHIN, self.writes.ask(command)).await {
            Ok(answer) => answer,
            Err(_) => Err(connection::late()),
        }
    }
}
