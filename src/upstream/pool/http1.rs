//! HTTP/1.1: a connection serves one request at a time; idle ones wait on a stack.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use http_body::Body as _;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::body::{self, Held};
use super::connect::ConnectionGuard;
use super::request::{PendingRequest, for_http1};
use super::settings::DEFAULT_MAX_HEADERS;
use super::{Attempt, HostPool, UpstreamError};
use crate::exchange::{Body, RequestHead, ResponseHead};
use crate::net::ShortWrites;
use crate::upstream::breaker::Permit;

/// One connection, not in use or held by the request on it.
pub(super) struct Http1Connection {
    sender: SendRequest<Body>,
    opened: Instant,
    served: u32,
}

/// An idle connection and since when.
struct Idle {
    connection: Http1Connection,
    since: Instant,
}

/// The HTTP/1.1 connections of one worker to one host.
#[derive(Default)]
pub(super) struct Http1Pool {
    /// The last one parked is the first one used, so that a surplus grows old and is closed.
    idle: Mutex<Vec<Idle>>,
    pub(super) open: AtomicU32,
    /// Tells those who wait that a connection is idle or may be made.
    pub(super) freed: Notify,
}

impl Http1Pool {
    fn pop(&self) -> Option<Http1Connection> {
        let mut idle = self.idle.lock();
        while let Some(Idle { connection, .. }) = idle.pop() {
            if connection.sender.is_ready() {
                return Some(connection);
            }
        }
        None
    }

    /// Closes idle connections: all of them, or those that have been idle for too long.
    pub(super) fn close_idle(&self, older_than: Option<(Instant, Duration)>) -> u64 {
        let mut idle = self.idle.lock();
        let before = idle.len();
        match older_than {
            None => idle.clear(),
            Some((now, age)) => idle.retain(|i| {
                now.saturating_duration_since(i.since) < age && !i.connection.sender.is_closed()
            }),
        }
        (before - idle.len()) as u64
    }

    #[cfg(test)]
    pub(super) fn idle_count(&self) -> usize {
        self.idle.lock().len()
    }
}

impl HostPool {
    /// Takes back a connection whose response has ended.
    pub(super) fn park(self: Arc<Self>, mut connection: Http1Connection, now: Instant) {
        if connection.sender.is_ready() {
            self.park_ready(connection, now);
        } else if !connection.sender.is_closed() {
            // The request's own body is still being sent; hyper says when the connection is free.
            tokio::spawn(async move {
                if connection.sender.ready().await.is_ok() {
                    self.park_ready(connection, Instant::now());
                }
            });
        }
    }

    fn park_ready(&self, connection: Http1Connection, now: Instant) {
        if self.is_retired() || self.is_worn(connection.served, connection.opened, now) {
            return;
        }
        self.http1.idle.lock().push(Idle { connection, since: now });
        self.http1.freed.notify_one();
    }

    async fn checkout(
        self: &Arc<Self>,
        attempt: &Attempt<'_>,
    ) -> Result<Http1Connection, UpstreamError> {
        if let Some(connection) = self.http1.pop() {
            return Ok(connection);
        }
        let stats = &attempt.cluster.stats;
        let pending = PendingRequest::begin(stats, attempt.acquire_pending()?);
        let mut refused = false;
        let connection = loop {
            let mut freed = std::pin::pin!(self.http1.freed.notified());
            freed.as_mut().enable();
            if let Some(connection) = self.http1.pop() {
                break Ok(connection);
            }
            match self.may_connect(attempt, &self.http1.open) {
                Some(permit) => break self.dial_http1(attempt, permit).await,
                None if !refused => {
                    refused = true;
                    stats.upstream_cx_overflow.inc();
                }
                None => {}
            }
            freed.await;
        };
        pending.over(connection)
    }

    async fn dial_http1(
        self: &Arc<Self>,
        attempt: &Attempt<'_>,
        permit: Permit,
    ) -> Result<Http1Connection, UpstreamError> {
        let stats = &attempt.cluster.stats;
        let guard = ConnectionGuard::begin(self, attempt.host, stats, false, permit);
        let stream = guard.dial(self).await?;
        let mut builder = http1::Builder::new();
        // Another limit than hyper's own makes it allocate for each head.
        if self.settings.max_headers != DEFAULT_MAX_HEADERS {
            builder.max_headers(self.settings.max_headers as usize);
        }
        let handshake = builder.handshake(TokioIo::new(ShortWrites(stream))).await;
        let (sender, connection) = handshake.map_err(|e| guard.handshake_failed(e))?;
        tokio::spawn(async move {
            let _guard = guard;
            if let Err(error) = connection.await {
                tracing::debug!(%error, "upstream connection ended");
            }
        });
        Ok(Http1Connection { sender, opened: Instant::now(), served: 0 })
    }

    /// Carries one exchange. A connection that turns out closed before anything was sent on it is
    /// replaced by another: hyper hands the request back, so nobody can have seen it.
    pub(super) async fn send_http1(
        self: &Arc<Self>,
        attempt: &Attempt<'_>,
        permit: Permit,
        mut head: RequestHead,
        body: Body,
    ) -> Result<(ResponseHead, Body), UpstreamError> {
        for_http1(&mut head, body.size_hint().exact().is_some())?;
        let mut request = http::Request::from_parts(head, body);
        let mut connection = self.checkout(attempt).await?;
        let active = attempt.begin(permit);
        let failure = loop {
            let reused = connection.served > 0;
            connection.served += 1;
            let mut error = match connection.sender.try_send_request(request).await {
                Ok(response) => {
                    let (head, incoming) = response.into_parts();
                    active.answered(head.status);
                    let held = Held::Http1(Arc::clone(self), connection);
                    return Ok((head, body::wrap(incoming, held, active)));
                }
                Err(error) => error,
            };
            request = match error.take_message() {
                Some(unsent) if reused => unsent,
                _ => break UpstreamError::of(error.error()),
            };
            connection = match self.checkout(attempt).await {
                Ok(connection) => connection,
                Err(error) => break error,
            };
        };
        active.failed(&failure);
        Err(failure)
    }
}
