//! The codecs of a connection: hyper's, with our limits, behind one face.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::HcmConfig;
use super::compile::Http2Options;
use super::connection::ConnectionHandle;
use super::exchange::ConnectionService;
use crate::net::{Cork, Corked, FromFiles, Rewind, ShortWrites, WithInterim};

/// Headers that hyper takes without being told.
const DEFAULT_MAX_HEADERS: u32 = 100;

/// What the two codecs' connections have in common.
pub(super) trait Codable: Future<Output = hyper::Result<()>> {
    fn graceful_shutdown(self: Pin<&mut Self>);
}

pub(super) type Http1Io = TokioIo<WithInterim<ShortWrites<Rewind<FromFiles>>>>;
pub(super) type Http1 = http1::Connection<Http1Io, ConnectionService>;
pub(super) type Http2Io = TokioIo<Corked<Rewind<OwnedReadHalf>, OwnedWriteHalf>>;
type Http2 = http2::Connection<Http2Io, ConnectionService, TokioExecutor>;

/// An HTTP/2 connection that sends what its streams wrote once each time it was polled.
pub(super) struct CorkedHttp2 {
    pub(super) conn: Http2,
    pub(super) cork: Cork<OwnedWriteHalf>,
    /// The connection is over, but for what is still to be sent.
    pub(super) ended: Option<hyper::Result<()>>,
}

impl Future for CorkedHttp2 {
    type Output = hyper::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if this.ended.is_none()
            && let Poll::Ready(outcome) = Pin::new(&mut this.conn).poll(cx)
        {
            this.ended = Some(outcome);
        }
        match (this.cork.poll_send(cx), this.ended.take()) {
            // The peer takes nothing more: there is no connection left to speak of.
            (Poll::Ready(Err(_)), ended) => Poll::Ready(ended.unwrap_or(Ok(()))),
            (Poll::Ready(Ok(())), Some(outcome)) => Poll::Ready(outcome),
            (_, ended) => {
                this.ended = ended;
                Poll::Pending
            }
        }
    }
}

impl Codable for Http1 {
    fn graceful_shutdown(self: Pin<&mut Self>) {
        Http1::graceful_shutdown(self);
    }
}

impl Codable for Box<CorkedHttp2> {
    fn graceful_shutdown(mut self: Pin<&mut Self>) {
        Pin::new(&mut self.conn).graceful_shutdown();
    }
}

pub(super) fn http1(config: &HcmConfig, io: Http1Io, handle: Arc<ConnectionHandle>) -> Http1 {
    let mut builder = http1::Builder::new();
    // Bodies are read in pieces of up to this size as well.
    let buffer = config.max_request_headers_bytes.max(64 * 1024);
    builder.max_buf_size(buffer as usize).header_read_timeout(config.timeouts.request_headers);
    // Another limit than hyper's own makes it allocate for each head.
    if config.max_headers_count != DEFAULT_MAX_HEADERS {
        builder.max_headers(config.max_headers_count as usize);
    }
    if config.timeouts.request_headers.is_some() {
        builder.timer(TokioTimer::new());
    }
    builder.serve_connection(io, ConnectionService(handle))
}

pub(super) fn http2(config: &HcmConfig, io: Http2Io, handle: Arc<ConnectionHandle>) -> Http2 {
    let Http2Options {
        max_concurrent_streams,
        initial_stream_window_size,
        initial_connection_window_size,
        keepalive,
    } = config.http2;
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(max_concurrent_streams)
        .max_header_list_size(config.max_request_headers_bytes)
        .initial_stream_window_size(initial_stream_window_size)
        .initial_connection_window_size(initial_connection_window_size);
    if let Some((interval, timeout)) = keepalive {
        builder.keep_alive_interval(interval).keep_alive_timeout(timeout);
    }
    builder.serve_connection(io, ConnectionService(handle))
}
