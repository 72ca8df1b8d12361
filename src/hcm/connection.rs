//! One client connection: its codec is chosen, its timers are armed, and it ends when the client
//! leaves, a timer says so or its listener drains.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use slab::Slab;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::codec::{Codable, Ended};
use super::compile::Codec;
use super::http1::Http1;
use super::http2::{Failure, Http2Connection};
use super::{Hcm, HcmConfig};
use crate::exchange::Downstream;
use crate::exchange::deadline::Deadline;

/// The first bytes of HTTP/2 with prior knowledge (RFC 9113 section 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Told to the connections of one version of a listener when it stops taking new ones.
#[derive(Debug, Default)]
pub struct Drain {
    begun: Mutex<Option<Draining>>,
    /// Whether `begun` is set, for the path of a request.
    is_draining: AtomicBool,
    connections: Mutex<Slab<Arc<Connection>>>,
}

#[derive(Debug, Clone, Copy)]
struct Draining {
    since: Instant,
    over: Duration,
}

impl Drain {
    /// Asks every connection to end within `over`: more and more answers announce the end, and what
    /// is left is closed.
    pub fn begin(&self, over: Duration) {
        *self.begun.lock() = Some(Draining { since: Instant::now(), over });
        self.is_draining.store(true, Ordering::Release);
        for (_, connection) in &*self.connections.lock() {
            connection.signal(Connection::DRAIN);
        }
    }

    /// Connections still open.
    pub fn open_connections(&self) -> usize {
        self.connections.lock().len()
    }

    /// Whether the answer that is about to be sent should announce the connection's end. The
    /// likelihood grows over the drain time, so that clients do not all come back at once.
    fn wants_close(&self) -> bool {
        if !self.is_draining.load(Ordering::Acquire) {
            return false;
        }
        let Some(Draining { since, over }) = *self.begun.lock() else { return false };
        let share = since.elapsed().as_secs_f64() / over.as_secs_f64().max(f64::MIN_POSITIVE);
        rand::random::<f64>() < share
    }

    fn end(&self) -> Option<Instant> {
        self.begun.lock().map(|draining| draining.since + draining.over)
    }
}

/// What a connection's requests and its loop share.
#[derive(Debug, Default)]
pub(super) struct Connection {
    signals: AtomicU8,
    waker: AtomicWaker,
    in_flight: AtomicU32,
    requests: AtomicU32,
    /// When the last request ended, in milliseconds of the connection's life.
    idle_since_ms: AtomicU64,
}

impl Connection {
    const DRAIN: u8 = 1;
    const CLOSE: u8 = 2;

    fn signal(&self, signal: u8) {
        self.signals.fetch_or(signal, Ordering::AcqRel);
        self.wake();
    }

    /// Has the connection polled.
    pub(super) fn wake(&self) {
        self.waker.wake();
    }

    /// The signals since the last call. There are none nearly always, so a load comes first.
    fn take_signals(&self) -> u8 {
        match self.signals.load(Ordering::Acquire) {
            0 => 0,
            _ => self.signals.swap(0, Ordering::AcqRel),
        }
    }

    /// Ends the connection once its requests are answered.
    pub(super) fn close_gracefully(&self) {
        self.signal(Self::CLOSE);
    }

    /// A request begins; it is the `n`th.
    pub(super) fn begin_request(&self) -> u32 {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A request ended `since` the connection's start.
    pub(super) fn end_request(&self, since: Duration) {
        self.idle_since_ms.store(millis(since), Ordering::Relaxed);
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What a request needs of its connection.
pub(super) struct ConnectionHandle {
    pub(super) hcm: Arc<Hcm>,
    pub(super) downstream: Arc<Downstream>,
    pub(super) connection: Arc<Connection>,
    pub(super) drain: Arc<Drain>,
    pub(super) start: Instant,
}

impl ConnectionHandle {
    /// Whether the answer to the `n`th request must announce the connection's end.
    pub(super) fn wants_close(&self, n: u32) -> bool {
        let stats = &self.hcm.config.stats;
        if self.hcm.config.max_requests_per_connection.is_some_and(|most| n >= most) {
            stats.downstream_cx_max_requests_reached.inc();
            return true;
        }
        let close = self.drain.wants_close();
        if close {
            stats.downstream_cx_drain_close.inc();
        }
        close
    }
}

impl Hcm {
    /// Serves one connection until it ends, and keeps `open` until then. The future is what an idle
    /// connection costs, beside the buffers of its codec; so it begins with what it needs already
    /// made.
    pub fn serve(
        self: Arc<Self>,
        mut socket: TcpStream,
        downstream: Arc<Downstream>,
        drain: Arc<Drain>,
        open: impl Send,
    ) -> impl Future<Output = ()> + Send {
        let counted = Open::new(&self.config);
        let connection = Arc::new(Connection::default());
        let registered = Registered::new(&drain, &connection);
        let start = Instant::now();
        let handle = Arc::new(ConnectionHandle { hcm: self, downstream, connection, drain, start });
        async move {
            let _until_the_end = (open, counted, registered);
            let config = &handle.hcm.config;
            let (codec, peeked) = match config.codec {
                Codec::Http1 => (Codec::Http1, Bytes::new()),
                Codec::Http2 => (Codec::Http2, Bytes::new()),
                Codec::Auto => match peek(&mut socket, &handle).await {
                    Some(found) => found,
                    None => return,
                },
            };
            match codec {
                Codec::Http2 => {
                    config.stats.downstream_cx_http2_total.inc();
                    config.stats.downstream_cx_http2_active.inc();
                    // Larger than one of HTTP/1, which shall not pay for it.
                    let conn = Http2Connection::new(socket, peeked.into(), Arc::clone(&handle));
                    Run::new(Box::new(conn), &handle).await;
                    config.stats.downstream_cx_http2_active.dec();
                }
                Codec::Http1 | Codec::Auto => {
                    config.stats.downstream_cx_http1_total.inc();
                    config.stats.downstream_cx_http1_active.inc();
                    Run::new(Http1::new(socket, peeked, &handle), &handle).await;
                    config.stats.downstream_cx_http1_active.dec();
                }
            }
        }
    }
}

/// Reads until the protocol is known; `None` if the client left or was too slow.
async fn peek(socket: &mut TcpStream, handle: &ConnectionHandle) -> Option<(Codec, Bytes)> {
    let read = async {
        socket.readable().await.ok()?;
        let mut bytes = BytesMut::with_capacity(2048);
        loop {
            if socket.read_buf(&mut bytes).await.ok()? == 0 {
                return None;
            }
            let known = bytes.len().min(PREFACE.len());
            if bytes[..known] != PREFACE[..known] {
                return Some((Codec::Http1, bytes.freeze()));
            }
            if known == PREFACE.len() {
                return Some((Codec::Http2, bytes.freeze()));
            }
        }
    };
    let mut read = pin!(read);
    let mut timers = Timers::new(handle);
    std::future::poll_fn(|cx| {
        if let Poll::Ready(found) = read.as_mut().poll(cx) {
            return Poll::Ready(found);
        }
        // Nothing was asked for yet, so any reason to end is reason enough.
        timers.poll(cx, handle).map(|_| None)
    })
    .await
}

/// A connection with its timers. Not an `async fn`, which would hold the connection twice.
struct Run<'a, C> {
    conn: C,
    handle: &'a ConnectionHandle,
    timers: Timers,
}

impl<'a, C> Run<'a, C> {
    fn new(conn: C, handle: &'a ConnectionHandle) -> Self {
        Self { conn, handle, timers: Timers::new(handle) }
    }
}

impl<C: Codable + Unpin> Future for Run<'_, C> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { conn, handle, timers } = &mut *self;
        loop {
            if let Poll::Ready(ended) = Pin::new(&mut *conn).poll(cx) {
                if matches!(ended, Ended::Http2(Failure::Protocol(..))) {
                    handle.hcm.config.stats.downstream_cx_protocol_error.inc();
                }
                tracing::debug!(%ended, peer = %handle.downstream.remote, "connection ended");
                return Poll::Ready(());
            }
            match timers.poll(cx, handle) {
                Poll::Ready(End::Gracefully) => Pin::new(&mut *conn).graceful_shutdown(),
                Poll::Ready(End::Now) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// How a connection is to end.
enum End {
    Gracefully,
    Now,
}

/// A connection's one timer, which stands for all its limits.
struct Timers {
    deadline: Option<Deadline>,
    /// The end was announced; when the timer passes again the connection is dropped.
    ending: bool,
}

impl Timers {
    fn new(handle: &ConnectionHandle) -> Self {
        let mut timers = Self { deadline: None, ending: false };
        timers.arm(handle);
        timers
    }

    fn arm(&mut self, handle: &ConnectionHandle) {
        let timeouts = &handle.hcm.config.timeouts;
        let idle =
            timeouts.idle.map(|idle| handle.idle_since().unwrap_or_else(Instant::now) + idle);
        let life = timeouts.max_connection_duration.map(|life| handle.start + life);
        let at = [idle, life, handle.drain.end()].into_iter().flatten().min();
        self.deadline = at.map(|at| handle.hcm.cx.deadlines.at(at));
    }

    fn poll(&mut self, cx: &mut Context<'_>, handle: &ConnectionHandle) -> Poll<End> {
        handle.connection.waker.register(cx.waker());
        let signals = handle.connection.take_signals();
        if signals & Connection::CLOSE != 0 {
            return self.announce(handle);
        }
        if signals & Connection::DRAIN != 0 && !self.ending {
            self.arm(handle);
        }
        loop {
            let Some(deadline) = &mut self.deadline else { return Poll::Pending };
            if Pin::new(deadline).poll(cx).is_pending() {
                return Poll::Pending;
            }
            if self.ending {
                return Poll::Ready(End::Now);
            }
            if self.is_due(handle) {
                return self.announce(handle);
            }
            self.arm(handle);
        }
    }

    /// Whether a limit was reached, rather than moved on since the timer was armed.
    fn is_due(&self, handle: &ConnectionHandle) -> bool {
        let stats = &handle.hcm.config.stats;
        let timeouts = &handle.hcm.config.timeouts;
        let now = Instant::now();
        if handle.drain.end().is_some_and(|end| end <= now) {
            stats.downstream_cx_drain_close.inc();
            return true;
        }
        if timeouts.max_connection_duration.is_some_and(|life| handle.start + life <= now) {
            stats.downstream_cx_max_duration_reached.inc();
            return true;
        }
        let idle = timeouts.idle.zip(handle.idle_since());
        if idle.is_some_and(|(idle, since)| since + idle <= now) {
            stats.downstream_cx_idle_timeout.inc();
            return true;
        }
        false
    }

    fn announce(&mut self, handle: &ConnectionHandle) -> Poll<End> {
        self.ending = true;
        self.deadline =
            Some(handle.hcm.cx.deadlines.at(Instant::now() + handle.hcm.config.timeouts.drain));
        Poll::Ready(End::Gracefully)
    }
}

impl ConnectionHandle {
    /// Since when no request is in flight.
    fn idle_since(&self) -> Option<Instant> {
        let idle = self.connection.in_flight.load(Ordering::Relaxed) == 0;
        let since = self.connection.idle_since_ms.load(Ordering::Relaxed);
        idle.then(|| self.start + Duration::from_millis(since))
    }
}

/// Counts a connection while it is open.
struct Open(Arc<HcmConfig>);

impl Open {
    fn new(config: &Arc<HcmConfig>) -> Self {
        config.stats.downstream_cx_total.inc();
        config.stats.downstream_cx_active.inc();
        Self(Arc::clone(config))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.stats.downstream_cx_active.dec();
    }
}

/// Keeps a connection where [`Drain`] finds it.
struct Registered {
    drain: Arc<Drain>,
    key: usize,
}

impl Registered {
    fn new(drain: &Arc<Drain>, connection: &Arc<Connection>) -> Self {
        let key = drain.connections.lock().insert(Arc::clone(connection));
        Self { drain: Arc::clone(drain), key }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let removed = self.drain.connections.lock().try_remove(self.key);
        drop(removed);
    }
}

/// The IP address of a peer as a header value.
pub fn ip_header(address: std::net::SocketAddr) -> io::Result<http::HeaderValue> {
    let ip = address.ip().to_canonical();
    http::HeaderValue::try_from(ip.to_string()).map_err(io::Error::other)
}
