//! What the codecs of a connection have in common, and hyper's of HTTP/2 with our limits.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use thiserror::Error;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::HcmConfig;
use super::compile::Http2Options;
use super::connection::ConnectionHandle;
use super::exchange::{ConnectionService, Reset};
use crate::net::{Cork, Corked, Rewind};

/// What the two codecs' connections have in common.
pub(super) trait Codable: Future<Output = Ended> {
    fn graceful_shutdown(self: Pin<&mut Self>);
}

/// How a connection ended.
#[derive(Debug, Error)]
pub(super) enum Ended {
    /// As it should.
    #[error("it is over")]
    Well,
    /// Its socket failed.
    #[error("the socket failed: {0}")]
    Io(#[source] std::io::Error),
    /// A request could not be answered, and there is no other way to say so.
    #[error("{0}")]
    Reset(#[source] Reset),
    /// hyper says.
    #[error("{0}")]
    Http2(#[source] hyper::Error),
}

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
    type Output = Ended;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if this.ended.is_none()
            && let Poll::Ready(outcome) = Pin::new(&mut this.conn).poll(cx)
        {
            this.ended = Some(outcome);
        }
        match (this.cork.poll_send(cx), this.ended.take()) {
            // The peer takes nothing more: there is no connection left to speak of.
            (Poll::Ready(Err(_)), ended) => Poll::Ready(how(ended.unwrap_or(Ok(())))),
            (Poll::Ready(Ok(())), Some(outcome)) => Poll::Ready(how(outcome)),
            (_, ended) => {
                this.ended = ended;
                Poll::Pending
            }
        }
    }
}

fn how(outcome: hyper::Result<()>) -> Ended {
    outcome.map_or_else(Ended::Http2, |()| Ended::Well)
}

impl Codable for Box<CorkedHttp2> {
    fn graceful_shutdown(mut self: Pin<&mut Self>) {
        Pin::new(&mut self.conn).graceful_shutdown();
    }
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
