//! A second place for stored responses, which a fleet of proxies shares: a Redis or Valkey server, or a
//! cluster of them. Bytes go in and come out; what they mean is the caller's.
//!
//! ```text
//! get      before the origin is asked: what is there, and the stamp of the fill that may follow
//! fill     write-behind: kept later, or dropped
//! forget   keys that are no longer right, and a message for the other proxies
//! purge    a message that may speak of any value: a pattern, a tag, everything
//! ```
//!
//! A request never waits longer than [`Config::timeout`], and not at all while the server is known to
//! be away: then nothing is found and nothing is kept.
//!
//! # The guarantee
//!
//! **Once [`Told::confirmed`] says yes, no proxy that has seen the message finds a value in the tier
//! that comes of a fill that began before it.** The proxy that forgets or purges has seen it at once;
//! another has when it is given [`Event::Message`] or [`Event::Missed`].
//!
//! - *Keys*: a forgotten key is replaced by a tombstone with a random mark. A fill is kept only if there
//!   is no tombstone, or the one that its [`Stamp`] saw; a fill that takes longer than a minute is not
//!   kept, and a tombstone stays for two. To unlink alone would let an older fill come back.
//! - *Purges* have numbers, and a log of them is kept in the server. A value carries the number of the
//!   last purge that its proxy had seen when the fill began. Who finds it gets with it the purges that
//!   came later ([`Found::purges`]), and judges. A purge so costs the same however much it speaks of.
//! - The log is bounded. A value older than what is left of it cannot be judged, and is not found. If
//!   the log is lost or goes back, by a restart, an eviction or a failover, a new era begins, and values
//!   of another era are not found.
//! - What was forgotten and purged here and is not yet in the server holds for this proxy all the same.
//!   It is tried until it is told; if too much waits, a new era is begun in its place.
//!
//! What it rests on: the server does not evict tombstones before their time (any policy but
//! `volatile-ttl` and the random ones), and does not stand still for a minute with a fill in its hands.
//! A failover that loses a tombstone, since replication is asynchronous, loses what it stood for, and a
//! proxy that ends loses what it had not told yet.
//!
//! What a proxy keeps itself is its own to drop: at [`Event::Message`] what the message speaks of, at
//! [`Event::Missed`] anything. What was found here goes there by the rule of any fill: not if it was
//! forgotten since [`Tier::get`] began.

#[cfg(feature = "redis")]
mod redis;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// How long a request waits for the tier unless configured otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_millis(50);

/// Longest wait of [`Told::confirmed`].
const CONFIRMED_WITHIN: Duration = Duration::from_secs(2);

/// How the tier is reached.
#[derive(Clone, PartialEq, Eq)]
pub struct Config {
    /// `host:port` or `redis://user:password@host:port/database` of a server, at least one. With
    /// [`Self::cluster`] any members of it; otherwise names of one and the same server, tried in turn.
    pub addresses: Vec<String>,
    /// Whether they are members of a cluster.
    pub cluster: bool,
    /// The longest that a request waits for the tier.
    pub timeout: Duration,
    /// What the keys and the channel begin with. Proxies that share values have the same.
    pub prefix: String,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // An address may hold a password.
        f.debug_struct("Config")
            .field("addresses", &self.addresses.len())
            .field("cluster", &self.cluster)
            .field("timeout", &self.timeout)
            .field("prefix", &self.prefix)
            .finish()
    }
}

/// Why there can be no tier. An address is named by its place, since it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    /// No address is given.
    #[error("addresses: must not be empty")]
    NoAddress,
    /// An address is none.
    #[error("addresses[{0}]: must be host:port or redis://user:password@host:port/database")]
    Address(usize),
    /// The timeout is zero.
    #[error("timeout: must be more than zero")]
    NoTimeout,
    /// The addresses do not go together.
    #[error("addresses: members of a cluster have the same user and password, and database 0")]
    Cluster,
    /// This program cannot speak to the server.
    #[error("this program was built without the feature `redis`")]
    NotBuilt,
}

crate::stats! {
    /// `http.STAT_PREFIX.cache.tier.*`
    pub struct TierStats {
        /// Values found.
        counter hit,
        /// Lookups that found nothing, or nothing that may be used.
        counter miss,
        /// Answers that were errors, and connections lost while one was awaited.
        counter error,
        /// Answers that did not come in time.
        counter timeout,
        /// Lookups not made, since the server is known to be away.
        counter skipped,
        /// Values kept.
        counter written,
        /// Values not kept: too many wait, the server is away or refuses, the fill took too long.
        counter write_dropped,
        /// Values not kept since their key was forgotten meanwhile.
        counter write_refused,
        /// Messages that other proxies were told.
        counter published,
        /// Messages of other proxies.
        counter received,
        /// Times that messages may have been missed.
        counter missed,
        /// Whether the server is there: 1 or 0.
        gauge connected,
    }
}

/// What other proxies did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A message that another proxy gave to [`Tier::forget`] or [`Tier::purge`].
    Message(Bytes),
    /// Messages may have been missed: the server was not there, or is there for the first time.
    Missed,
}

/// Called with each event, on the runtime of the tier, which it must not keep waiting. An event may come
/// twice.
pub type OnEvent = Box<dyn Fn(Event) + Send + Sync>;

/// What [`Tier::get`] came to.
#[derive(Debug, Clone)]
pub struct Lookup {
    /// The value, if there is one.
    pub found: Option<Found>,
    /// For the fill that may follow.
    pub stamp: Stamp,
}

/// A value, and what has to be known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// As it was given to [`Tier::fill`].
    pub value: Bytes,
    /// Messages given to [`Tier::purge`], by any proxy, since its fill began. If one of them speaks of
    /// the value, the value must not be used.
    pub purges: Vec<Bytes>,
}

/// When a fill began, in terms of what was forgotten and purged.
#[derive(Debug, Clone)]
#[cfg_attr(not(feature = "redis"), expect(dead_code, reason = "only the server's side reads it"))]
pub struct Stamp {
    /// The last purge seen; without one the fill is not kept.
    position: Option<Position>,
    /// The tombstone seen in its place.
    tombstone: Option<[u8; 8]>,
    begun: Instant,
}

/// A place in the log of purges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Position {
    era: [u8; 8],
    number: u64,
}

/// Whether the others were told.
#[derive(Debug)]
pub struct Told(oneshot::Receiver<()>);

impl Told {
    /// Waits until the server has what was forgotten or purged, two seconds at most; false if it does
    /// not have it yet. It will be told as soon as it is there. Cancel safe.
    pub async fn confirmed(self) -> bool {
        matches!(tokio::time::timeout(CONFIRMED_WITHIN, self.0).await, Ok(Ok(())))
    }
}

/// A future of [`Tier`].
pub type TierFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Values shared by a fleet. Any thread may use it; what it has to do itself it does on the runtime that
/// it was started on. Dropping it ends that.
pub trait Tier: Send + Sync {
    /// Looks a value up. Takes no longer than [`Config::timeout`]. Begins a fill.
    fn get<'a>(&'a self, key: &'a [u8]) -> TierFuture<'a, Lookup>;

    /// A fill begins that was not preceded by [`Self::get`], such as a validation of what the proxy has
    /// itself. Takes no time; its value is not kept if the key was forgotten in the last two minutes.
    fn stamp(&self) -> Stamp;

    /// Keeps a value for `ttl`. Returns at once; the value may be dropped.
    fn fill(&self, key: Bytes, value: Bytes, ttl: Duration, stamp: &Stamp);

    /// Forgets values by their keys, and sends a message to the other proxies. Returns at once; it
    /// happens after fills given before and before those given later.
    fn forget(&self, keys: Vec<Bytes>, message: Bytes) -> Told;

    /// Sends a message to the other proxies, and keeps it for those that will find values that come of
    /// earlier fills. Returns at once, and happens in turn like [`Self::forget`].
    fn purge(&self, message: Bytes) -> Told;
}

impl Config {
    /// Whether there can be such a tier.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self) -> Result<(), Error> {
        if self.addresses.is_empty() {
            return Err(Error::NoAddress);
        }
        if self.timeout.is_zero() {
            return Err(Error::NoTimeout);
        }
        check_addresses(self)
    }
}

/// Starts a tier. Its tasks run on `runtime`, and it connects there: there is a tier whether the server
/// is there or not.
///
/// # Errors
/// A configuration that cannot work.
pub fn start(
    config: Config,
    runtime: &Handle,
    stats: Arc<TierStats>,
    on_event: OnEvent,
) -> Result<Arc<dyn Tier>, Error> {
    config.check()?;
    connect(config, runtime, stats, on_event)
}

#[cfg(feature = "redis")]
fn check_addresses(config: &Config) -> Result<(), Error> {
    redis::check(config)
}

#[cfg(not(feature = "redis"))]
fn check_addresses(_: &Config) -> Result<(), Error> {
    Err(Error::NotBuilt)
}

#[cfg(feature = "redis")]
fn connect(
    config: Config,
    runtime: &Handle,
    stats: Arc<TierStats>,
    on_event: OnEvent,
) -> Result<Arc<dyn Tier>, Error> {
    Ok(Arc::new(redis::Redis::start(config, runtime, stats, on_event)?))
}

#[cfg(not(feature = "redis"))]
fn connect(_: Config, _: &Handle, _: Arc<TierStats>, _: OnEvent) -> Result<Arc<dyn Tier>, Error> {
    Err(Error::NotBuilt)
}
