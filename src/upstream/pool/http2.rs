//! HTTP/2: connections are shared by as many requests as the upstream and the cluster allow.
//!
//! One connection is made at a time, by a task of its own, and everybody who waits shares its fate.
//! A connection that the upstream is closing (GOAWAY) hands back what it has not sent and is not
//! chosen again.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Version;
use hyper::client::conn::http2::{self, Connection, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::body;
use super::broken;
use super::connect::{ConnectionGuard, Leave};
use super::counted::PendingRequest;
use super::error::SharedFailure;
use super::http1::Here;
use super::patience;
use super::request::for_http2;
use super::{Attempt, HostPool, UpstreamError};
use crate::exchange::{Body, KnownMethod, RequestHead, ResponseHead};
use crate::upstream::breaker::Permit;
use crate::upstream::host::Host;

/// One connection.
struct Http2Connection {
    sender: SendRequest<Body>,
    host: Arc<Host>,
    opened: Instant,
    /// What the upstream allows, as far as it is known.
    peer_limit: Arc<AtomicU32>,
    use_: Mutex<Use>,
}

struct Use {
    streams: u32,
    served: u32,
    idle_since: Instant,
}

/// The HTTP/2 connections of one worker to one host.
#[derive(Default)]
pub(super) struct Http2Pool {
    state: Mutex<State>,
    pub(super) open: AtomicU32,
    /// Requests that wait for a stream.
    waiting: AtomicU32,
    /// Tells those who wait that a stream is free or that connecting is over.
    pub(super) freed: Notify,
}

#[derive(Default)]
struct State {
    connections: Vec<Arc<Http2Connection>>,
    /// The number of the connection that is being made.
    connecting: Option<u64>,
    begun: u64,
    /// The last connection that could not be made.
    failed: Option<(u64, SharedFailure)>,
}

/// One stream of a connection; dropping it frees the place.
pub(super) struct StreamSlot {
    connection: Arc<Http2Connection>,
    pool: Arc<HostPool>,
    /// Others used the connection before.
    reused: bool,
}

impl Drop for StreamSlot {
    fn drop(&mut self) {
        let mut used = self.connection.use_.lock();
        used.streams -= 1;
        let is_idle = used.streams == 0;
        if is_idle {
            used.idle_since = Instant::now();
            self.connection.host.traffic().connections.cx_busy.dec();
        }
        drop(used);
        if is_idle && self.pool.yields(self.pool.http2.waiting.load(Ordering::Relaxed)) {
            self.pool.http2.forget(&self.connection);
        }
        self.pool.http2.freed.notify_one();
    }
}

impl HostPool {
    /// A place on a connection there is.
    fn http2_slot(self: &Arc<Self>) -> Option<StreamSlot> {
        let mut state = self.http2.state.lock();
        let now = self.settings.max_connection_duration.map(|_| Instant::now());
        state.connections.retain(|c| {
            let served = c.use_.lock().served;
            !c.sender.is_closed() && !self.is_worn(served, c.opened, now.unwrap_or(c.opened))
        });
        for connection in &state.connections {
            let limit = connection
                .peer_limit
                .load(Ordering::Relaxed)
                .min(self.settings.http2.max_concurrent_streams);
            let mut used = connection.use_.lock();
            if used.streams < limit {
                if used.streams == 0 {
                    connection.host.traffic().connections.cx_busy.inc();
                }
                used.streams += 1;
                used.served = used.served.saturating_add(1);
                return Some(StreamSlot {
                    reused: used.served > 1,
                    connection: Arc::clone(connection),
                    pool: Arc::clone(self),
                });
            }
        }
        None
    }

    async fn http2_checkout(
        self: &Arc<Self>,
        attempt: &Attempt<'_>,
    ) -> Result<StreamSlot, UpstreamError> {
        if let Some(slot) = self.http2_slot() {
            return Ok(slot);
        }
        let pending = PendingRequest::begin(&attempt.cluster.stats, attempt.acquire_pending()?);
        // From the first refusal on others are to know that somebody waits.
        let mut waiting = None;
        let mut waits_for = None;
        let slot = loop {
            let mut freed = std::pin::pin!(self.http2.freed.notified());
            freed.as_mut().enable();
            let mut elsewhere = std::pin::pin!(self.queue.freed());
            elsewhere.as_mut().enable();
            if let Some(slot) = self.http2_slot() {
                break Ok(slot);
            }
            if let Some(failure) = self.http2.failure_of(waits_for) {
                break Err(failure);
            }
            waits_for = self.http2.state.lock().connecting;
            if waits_for.is_none() {
                if let Some(leave) = self.may_connect(attempt) {
                    waits_for = Some(self.connect_http2(attempt, leave));
                } else if attempt.allows_no_connection() {
                    break Err(UpstreamError::Overflow);
                } else if waiting.is_none() {
                    attempt.cluster.stats.upstream_cx_overflow.inc();
                    waiting = Some((Here::new(&self.http2.waiting), self.queue.enter()));
                    // Nobody tells of what was freed before that.
                    continue;
                }
            }
            tokio::select! {
                () = freed => {}
                () = elsewhere => {}
            }
        };
        pending.over(slot)
    }

    /// Begins to connect and returns the number of the connection.
    fn connect_http2(self: &Arc<Self>, attempt: &Attempt<'_>, leave: Leave) -> u64 {
        let mut state = self.http2.state.lock();
        state.begun += 1;
        let number = state.begun;
        state.connecting = Some(number);
        drop(state);
        let stats = &attempt.cluster.stats;
        let guard = ConnectionGuard::begin(self, attempt.host, stats, true, leave);
        let pool = Arc::clone(self);
        // Ends within the connect timeout.
        tokio::spawn(async move {
            let result = pool.dial_http2(guard).await;
            let mut state = pool.http2.state.lock();
            state.connecting = None;
            match result {
                // Even if the host is gone by now: somebody waits for it.
                Ok(connection) => state.connections.push(connection),
                Err(error) => state.failed = Some((number, SharedFailure::from(&error))),
            }
            drop(state);
            pool.http2.freed.notify_waiters();
        });
        number
    }

    async fn dial_http2(
        &self,
        guard: ConnectionGuard,
    ) -> Result<Arc<Http2Connection>, UpstreamError> {
        let stream = guard.dial(self).await?;
        let settings = &self.settings.http2;
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(settings.initial_stream_window_size)
            .initial_connection_window_size(settings.initial_connection_window_size)
            .header_table_size(settings.hpack_table_size);
        if let Some(keepalive) = settings.keepalive {
            builder
                .keep_alive_interval(keepalive.interval)
                .keep_alive_timeout(keepalive.timeout)
                .keep_alive_while_idle(true);
        }
        let handshake = builder.handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|e| guard.handshake_failed(e))?;
        let peer_limit = Arc::new(AtomicU32::new(0));
        let host = Arc::clone(guard.host());
        let driver = Driver { connection, peer_limit: Arc::clone(&peer_limit) };
        driver.publish_limit();
        tokio::spawn(async move {
            let _guard = guard;
            if let Err(error) = driver.await {
                tracing::debug!(%error, "upstream connection ended");
            }
        });
        let now = Instant::now();
        let use_ = Mutex::new(Use { streams: 0, served: 0, idle_since: now });
        Ok(Arc::new(Http2Connection { sender, host, opened: now, peer_limit, use_ }))
    }

    /// Carries one exchange; see [`HostPool::send_http1`].
    pub(super) async fn send_http2(
        self: &Arc<Self>,
        attempt: &Attempt<'_>,
        permit: Permit,
        head: &mut RequestHead,
        body: Body,
    ) -> Result<(ResponseHead, Body), UpstreamError> {
        for_http2(head)?;
        let kind = (KnownMethod::from(&head.method), Version::HTTP_2);
        let head = std::mem::replace(head, http::Request::new(()).into_parts().0);
        let (body, broken) = broken::watch(body);
        let (body, mut late) = patience::watch(body, self.settings.response_header_timeout);
        let mut request = http::Request::from_parts(head, body);
        let mut slot = self.http2_checkout(attempt).await?;
        let mut active = attempt.begin(permit, kind);
        let failure = loop {
            let mut sender = slot.connection.sender.clone();
            let mut answer = pin!(sender.try_send_request(request));
            let answer = std::future::poll_fn(|cx| {
                if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
                    return Poll::Ready(Some(answer));
                }
                match &mut late {
                    Some(late) => late.as_mut().poll(cx).map(|()| None),
                    None => Poll::Pending,
                }
            });
            let Some(answer) = answer.await else { break UpstreamError::ResponseHeaderTimeout };
            let mut error = match answer {
                Ok(response) => {
                    let (head, incoming) = response.into_parts();
                    if head.headers.len() > self.settings.max_headers as usize {
                        break UpstreamError::Protocol;
                    }
                    active.answered(head.status);
                    return Ok((head, body::wrap(incoming, slot, active)));
                }
                Err(error) => error,
            };
            request = match error.take_message() {
                Some(unsent) if slot.reused => unsent,
                _ => break broken.explain(error.error()),
            };
            self.http2.forget(&slot.connection);
            slot = match self.http2_checkout(attempt).await {
                Ok(slot) => slot,
                Err(error) => break error,
            };
        };
        active.failed(&failure);
        Err(failure)
    }
}

impl Http2Pool {
    fn failure_of(&self, waits_for: Option<u64>) -> Option<UpstreamError> {
        let state = self.state.lock();
        let (number, failure) = state.failed.as_ref()?;
        (waits_for == Some(*number)).then(|| failure.error())
    }

    /// Does not choose this connection again; what is on it goes on.
    fn forget(&self, connection: &Arc<Http2Connection>) {
        self.state.lock().connections.retain(|c| !Arc::ptr_eq(c, connection));
    }

    /// Gives up connections that carry nothing (`None`: whatever they carry, which goes on), and
    /// those that are closed. Returns the number of those that were idle for too long.
    pub(super) fn close_idle(&self, older_than: Option<(Instant, Option<Duration>)>) -> u64 {
        let mut state = self.state.lock();
        let Some((now, age)) = older_than else {
            state.connections.clear();
            return 0;
        };
        let mut old = 0;
        state.connections.retain(|c| {
            let used = c.use_.lock();
            let idle_for = now.saturating_duration_since(used.idle_since);
            let is_old = used.streams == 0 && age.is_some_and(|age| idle_for >= age);
            old += u64::from(is_old);
            !is_old && !c.sender.is_closed()
        });
        old
    }

    /// Gives up a connection that carries nothing; false if there is none.
    pub(super) fn close_one(&self) -> bool {
        let mut state = self.state.lock();
        let idle = state.connections.iter().position(|c| c.use_.lock().streams == 0);
        let closed = idle.map(|index| state.connections.swap_remove(index));
        drop(state);
        closed.is_some()
    }

    /// Connections that carry nothing.
    pub(super) fn idle_count(&self) -> usize {
        self.state.lock().connections.iter().filter(|c| c.use_.lock().streams == 0).count()
    }

    #[cfg(test)]
    pub(super) fn connection_count(&self) -> usize {
        self.state.lock().connections.len()
    }
}

/// Drives a connection, and reads what the upstream allows whenever it was polled.
struct Driver {
    connection: Connection<TokioIo<TcpStream>, Body, TokioExecutor>,
    peer_limit: Arc<AtomicU32>,
}

impl Driver {
    fn publish_limit(&self) {
        let limit = u32::try_from(self.connection.current_max_send_streams()).unwrap_or(u32::MAX);
        self.peer_limit.store(limit, Ordering::Relaxed);
    }
}

impl Future for Driver {
    type Output = hyper::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        let polled = Pin::new(&mut self.connection).poll(cx);
        if polled.is_pending() {
            self.publish_limit();
        }
        polled
    }
}
