//! Interim responses (RFC 9110 section 15.2) on an HTTP/1.1 connection whose codec cannot send them.
//!
//! They are text put between two responses: sent when the codec has nothing left to write, or before
//! the first byte of what it writes next. If it is in the middle of something they are dropped, which an
//! interim response may always be.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that may wait at the most.
const MOST: usize = 16 * 1024;

/// What waits to be sent on one connection.
#[derive(Debug, Default)]
pub struct InterimQueue {
    bytes: Mutex<Vec<u8>>,
    is_waiting: AtomicBool,
    connection: AtomicWaker,
}

impl InterimQueue {
    /// Adds a whole response, and wakes the connection. More than fit are dropped.
    pub fn push(&self, response: &[u8]) {
        let mut bytes = self.bytes.lock();
        if bytes.len() + response.len() <= MOST {
            bytes.extend_from_slice(response);
            self.is_waiting.store(true, Ordering::Release);
            self.connection.wake();
        }
    }

    fn take(&self) -> Vec<u8> {
        self.is_waiting.store(false, Ordering::Release);
        std::mem::take(&mut *self.bytes.lock())
    }
}

/// A stream that sends what is in a queue where it may.
#[derive(Debug)]
pub struct WithInterim<T> {
    inner: T,
    state: Option<Box<State>>,
}

#[derive(Debug)]
struct State {
    queue: Arc<InterimQueue>,
    /// Taken from the queue and sent up to here.
    sending: Vec<u8>,
    sent: usize,
    /// Nothing of the codec's was written since it last had nothing left.
    clean: bool,
}

impl State {
    /// Sends what waits; ready when the codec may go on.
    fn poll_send<T: AsyncWrite + Unpin>(
        &mut self,
        inner: &mut T,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if self.sent == self.sending.len() {
                (self.sending, self.sent) = (Vec::new(), 0);
                if !self.queue.is_waiting.load(Ordering::Acquire) {
                    return Poll::Ready(Ok(()));
                }
                let waiting = self.queue.take();
                if !self.clean {
                    return Poll::Ready(Ok(()));
                }
                self.sending = waiting;
            }
            let sent = ready!(Pin::new(&mut *inner).poll_write(cx, &self.sending[self.sent..]))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += sent;
        }
    }
}

impl<T> WithInterim<T> {
    /// Without a queue it is the stream itself.
    pub fn new(inner: T, queue: Option<Arc<InterimQueue>>) -> Self {
        let state = |queue| State { queue, sending: Vec::new(), sent: 0, clean: true };
        Self { inner, state: queue.map(|queue| Box::new(state(queue))) }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for WithInterim<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for WithInterim<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self { inner, state } = &mut *self;
        if let Some(state) = state {
            ready!(state.poll_send(inner, cx))?;
            state.clean = false;
        }
        Pin::new(inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self { inner, state } = &mut *self;
        if let Some(state) = state {
            ready!(state.poll_send(inner, cx))?;
            state.clean = false;
        }
        Pin::new(inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    /// The codec calls this when everything of its own is written.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { inner, state } = &mut *self;
        ready!(Pin::new(&mut *inner).poll_flush(cx))?;
        let Some(state) = state else { return Poll::Ready(Ok(())) };
        state.clean = true;
        state.queue.connection.register(cx.waker());
        ready!(state.poll_send(inner, cx))?;
        Pin::new(inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn sent(
        speak: impl AsyncFnOnce(&mut WithInterim<tokio::io::DuplexStream>, &InterimQueue),
    ) -> String {
        let (client, mut server) = tokio::io::duplex(1 << 16);
        let queue = Arc::new(InterimQueue::default());
        let mut stream = WithInterim::new(client, Some(Arc::clone(&queue)));
        speak(&mut stream, &queue).await;
        drop(stream);
        let mut text = String::new();
        server.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn it_goes_between_responses_and_never_into_one() {
        let between = sent(async |stream, queue| {
            stream.write_all(b"one.").await.unwrap();
            stream.flush().await.unwrap();
            queue.push(b"103.");
            stream.flush().await.unwrap();
            queue.push(b"104.");
            stream.write_all(b"two.").await.unwrap();
        });
        assert_eq!(between.await, "one.103.104.two.");
        let within = sent(async |stream, queue| {
            stream.write_all(b"on").await.unwrap();
            queue.push(b"103.");
            stream.write_all(b"e.").await.unwrap();
            stream.flush().await.unwrap();
        });
        assert_eq!(within.await, "one.");
    }
}
