//! HTTP/1.1: a connection serves one request at a time; idle ones wait on a stack.
//!
//! ```text
//! encode      a request's head and body, as bytes to be written
//! decode      bytes as a response's head, and where its body ends
//! connection  both over one socket, in the task of the request
//! body        the rest of a response; holds the connection and gives it back
//! upload      the rest of a request, when the response is first
//! ```

mod body;
mod connection;
mod decode;
mod encode;
mod upload;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Version;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use self::body::Response;
use self::connection::{Connection, Failure, Receiving};
use self::decode::Head;
use self::encode::Sending;
use super::connect::{ConnectionGuard, Leave, leave};
use super::counted::PendingRequest;
use super::request::for_http1;
use super::{Attempt, HostPool, UpstreamError};
use crate::exchange::{Body, KnownMethod, RequestHead, ResponseHead};
use crate::upstream::breaker::Permit;

/// An idle connection and since when.
struct Idle {
    connection: Connection,
    since: Instant,
}

/// The HTTP/1.1 connections of one worker to one host.
#[derive(Default)]
pub(super) struct Http1Pool {
    /// The last one parked is the first one used, so that a surplus grows old and is closed.
    idle: Mutex<Vec<Idle>>,
    pub(super) open: AtomicU32,
    /// Requests that wait for a connection.
    waiting: AtomicU32,
    /// Tells those who wait that a connection is idle or may be made.
    pub(super) freed: Notify,
}

/// Counts somebody who waits, until it is dropped.
pub(super) struct Here<'a>(&'a AtomicU32);

impl<'a> Here<'a> {
    pub(super) fn new(waiting: &'a AtomicU32) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Here<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Http1Pool {
    fn pop(&self) -> Option<Connection> {
        loop {
            let Idle { connection, .. } = self.idle.lock().pop()?;
            if connection.is_fresh() {
                return Some(connection);
            }
        }
    }

    /// Closes idle connections: all of them, or those that have been idle for too long, whose number
    /// it returns, and those that the upstream closed.
    pub(super) fn close_idle(&self, older_than: Option<(Instant, Option<Duration>)>) -> u64 {
        let mut idle = self.idle.lock();
        let Some((now, age)) = older_than else {
            // The drop of a connection takes no lock of ours.
            idle.clear();
            return 0;
        };
        let is_old =
            |i: &Idle| age.is_some_and(|age| now.saturating_duration_since(i.since) >= age);
        let old = idle.iter().filter(|i| is_old(i)).count();
        idle.retain(|i| !is_old(i) && i.connection.is_fresh());
        old as u64
    }

    /// Closes the connection that has been idle for longest; false if there is none.
    pub(super) fn close_one(&self) -> bool {
        let mut idle = self.idle.lock();
        let oldest = (!idle.is_empty()).then(|| idle.remove(0));
        drop(idle);
        oldest.is_some()
    }

    pub(super) fn idle_count(&self) -> usize {
        self.idle.lock().len()
    }
}

impl HostPool {
    /// Takes back a connection whose response has ended.
    fn park(&self, mut connection: Connection, now: Instant) {
        if self.is_retired() || self.is_worn(connection.served, connection.opened, now) {
            return;
        }
        if self.yields(self.http1.waiting.load(Ordering::Relaxed)) {
            return;
        }
        connection.rest();
        let mut idle = self.http1.idle.lock();
        if self.settings.max_idle.is_none_or(|most| idle.len() < most as usize) {
            idle.push(Idle { connection, since: now });
            drop(idle);
            self.http1.freed.notify_one();
        }
    }

    /// Closes idle connections that have become too old.
    pub(super) fn close_worn(&self, now: Instant) {
        let is_worn = |c: &Connection| self.is_worn(c.served, c.opened, now);
        self.http1.idle.lock().retain(|idle| !is_worn(&idle.connection));
    }

    /// Makes connections ahead of the requests that will want them.
    fn preconnect(self: &Arc<Self>, attempt: &Attempt<'_>) {
        let open = self.http1.open.load(Ordering::Relaxed);
        let idle = u32::try_from(self.http1.idle.lock().len()).unwrap_or(u32::MAX);
        let busy = u64::from(open.saturating_sub(idle));
        let wanted = (busy * u64::from(self.settings.preconnect_percent)).div_ceil(100);
        for _ in u64::from(open)..wanted {
            let Ok(leave) = leave(attempt) else { return };
            let stats = &attempt.cluster.stats;
            let guard = ConnectionGuard::begin(self, attempt.host, stats, false, leave);
            let pool = Arc::clone(self);
            // Ends within the connect timeout.
            tokio::spawn(async move {
                if let Ok(stream) = guard.dial(&pool).await {
                    pool.park(Connection::new(stream, guard), Instant::now());
                }
            });
        }
    }

    async fn checkout(
        self: &Arc<Self>,
        attempt: &Attempt<'_>,
    ) -> Result<Connection, UpstreamError> {
        if let Some(connection) = self.http1.pop() {
            return Ok(connection);
        }
        // Rare, and large.
        Box::pin(self.wait_for_connection(attempt)).await
    }

    async fn wait_for_connection(
        self: &Arc<Self>,
        attempt: &Attempt<'_>,
    ) -> Result<Connection, UpstreamError> {
        let stats = &attempt.cluster.stats;
        let pending = PendingRequest::begin(stats, attempt.acquire_pending()?);
        // From the first refusal on others are to know that somebody waits.
        let mut waiting = None;
        let connection = loop {
            let mut freed = std::pin::pin!(self.http1.freed.notified());
            freed.as_mut().enable();
            let mut elsewhere = std::pin::pin!(self.queue.freed());
            elsewhere.as_mut().enable();
            if let Some(connection) = self.http1.pop() {
                break Ok(connection);
            }
            if let Some(leave) = self.may_connect(attempt) {
                break self.dial_http1(attempt, leave).await;
            }
            if attempt.allows_no_connection() {
                break Err(UpstreamError::Overflow);
            }
            if waiting.is_none() {
                stats.upstream_cx_overflow.inc();
                waiting = Some((Here::new(&self.http1.waiting), self.queue.enter()));
                // Nobody tells of what was freed before that.
                continue;
            }
            tokio::select! {
                () = freed => {}
                () = elsewhere => {}
            }
        };
        pending.over(connection)
    }

    async fn dial_http1(
        self: &Arc<Self>,
        attempt: &Attempt<'_>,
        leave: Leave,
    ) -> Result<Connection, UpstreamError> {
        let stats = &attempt.cluster.stats;
        let guard = ConnectionGuard::begin(self, attempt.host, stats, false, leave);
        let stream = guard.dial(self).await?;
        Ok(Connection::new(stream, guard))
    }

    /// Opens a tunnel to the host itself, on a connection of its own. The answer is ours.
    pub(super) async fn tunnel(
        self: &Arc<Self>,
        attempt: &Attempt<'_>,
        permit: Permit,
        body: Body,
    ) -> Result<(ResponseHead, Body), UpstreamError> {
        let stats = &attempt.cluster.stats;
        let pending = PendingRequest::begin(stats, attempt.acquire_pending()?);
        let connection = match self.may_connect(attempt) {
            Some(leave) => self.dial_http1(attempt, leave).await,
            None => {
                stats.upstream_cx_overflow.inc();
                Err(UpstreamError::Overflow)
            }
        };
        let connection = pending.over(connection)?;
        let mut active = attempt.begin(permit, (KnownMethod::Connect, Version::HTTP_11));
        let answer = Head::of_tunnel();
        active.answered(answer.parts.status);
        let sending = Sending::raw(body);
        let response = Response { pool: self, connection, sending, active };
        Ok(response.split(answer, Bytes::new()))
    }

    /// Carries one exchange. A connection that turns out closed before anything was sent on it is
    /// replaced by another. So is one that was used before and closes without a word, once, if the
    /// request may be sent twice: it was most likely closed while the request was on its way
    /// (RFC 9112 section 9.3.1).
    pub(super) async fn send_http1(
        self: &Arc<Self>,
        attempt: &Attempt<'_>,
        permit: Permit,
        head: &mut RequestHead,
        body: Body,
    ) -> Result<(ResponseHead, Body), UpstreamError> {
        for_http1(head)?;
        let mut sending = Sending::new(head, body, self.settings.http1);
        let mut connection = self.checkout(attempt).await?;
        if self.settings.preconnect_percent > 100 {
            self.preconnect(attempt);
        }
        let kind = (KnownMethod::from(&head.method), Version::HTTP_11);
        let mut active = attempt.begin(permit, kind);
        let error = loop {
            let reused = connection.served > 0;
            connection.served += 1;
            let mut receiving = Receiving::new(head, &self.settings);
            let answer =
                std::future::poll_fn(|cx| connection.poll_answer(cx, &mut sending, &mut receiving));
            let Failure { error, silent } = match answer.await {
                Ok(answer) => {
                    active.answered(answer.parts.status);
                    let response = Response { pool: self, connection, sending, active };
                    return Ok(response.split(answer, receiving.input));
                }
                Err(failure) => failure,
            };
            drop(connection);
            let may_repeat = sending.is_unsent() || head.method.is_idempotent();
            if !(reused && silent && may_repeat && sending.rewind()) {
                break error;
            }
            connection = match self.checkout(attempt).await {
                Ok(connection) => connection,
                Err(error) => break error,
            };
        };
        active.failed(&error);
        Err(error)
    }
}
