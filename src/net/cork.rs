//! Writes of HTTP/2 gathered until the connection has nothing more to say.
//!
//! The h2 library hands over each short DATA frame with a write and a flush of its own, so that 32
//! responses that are ready together would be 32 packets. Here writes and flushes only fill a
//! buffer; the owner of the connection sends it once each time it has polled the connection.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes gathered at the most.
const MOST: usize = 16 * 1024;

/// A stream whose writes wait for [`Cork::poll_send`].
#[derive(Debug)]
pub struct Corked<R, W> {
    read: R,
    cork: Cork<W>,
}

/// The writing half, shared by the stream and the owner of the connection.
#[derive(Debug)]
pub struct Cork<W>(Arc<Mutex<Gathered<W>>>);

#[derive(Debug)]
struct Gathered<W> {
    write: W,
    buffer: BytesMut,
}

impl<R, W> Corked<R, W> {
    /// A stream of two halves, and the handle that sends.
    pub fn new(read: R, write: W) -> (Self, Cork<W>) {
        let gathered = Arc::new(Mutex::new(Gathered { write, buffer: BytesMut::new() }));
        (Self { read, cork: Cork(Arc::clone(&gathered)) }, Cork(gathered))
    }
}

impl<W: AsyncWrite + Unpin> Cork<W> {
    /// Sends what was gathered.
    pub fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.lock().poll_send(cx)
    }
}

impl<W: AsyncWrite + Unpin> Gathered<W> {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.buffer.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while !self.buffer.is_empty() {
            let sent = ready!(Pin::new(&mut self.write).poll_write(cx, &self.buffer))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.buffer.advance(sent);
        }
        // An idle connection keeps no buffer.
        self.buffer = BytesMut::new();
        Poll::Ready(Ok(()))
    }

    /// Whether `more` bytes go into the buffer; sends what is there if they do not.
    fn poll_room(&mut self, cx: &mut Context<'_>, more: usize) -> Poll<io::Result<bool>> {
        if self.buffer.len() + more > MOST {
            ready!(self.poll_send(cx))?;
        }
        Poll::Ready(Ok(more <= MOST))
    }
}

impl<R: AsyncRead + Unpin, W: Unpin> AsyncRead for Corked<R, W> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.read).poll_read(cx, buf)
    }
}

impl<R: Unpin, W: AsyncWrite + Unpin> AsyncWrite for Corked<R, W> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut gathered = self.cork.0.lock();
        if ready!(gathered.poll_room(cx, buf.len()))? {
            gathered.buffer.extend_from_slice(buf);
            return Poll::Ready(Ok(buf.len()));
        }
        Pin::new(&mut gathered.write).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut gathered = self.cork.0.lock();
        let total = bufs.iter().map(|buf| buf.len()).sum();
        if ready!(gathered.poll_room(cx, total))? {
            bufs.iter().for_each(|buf| gathered.buffer.extend_from_slice(buf));
            return Poll::Ready(Ok(total));
        }
        Pin::new(&mut gathered.write).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathered = self.cork.0.lock();
        ready!(gathered.poll_send(cx))?;
        Pin::new(&mut gathered.write).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn short_writes_leave_together_and_in_order() {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        let (read, write) = tokio::io::split(ours);
        let (mut stream, cork) = Corked::new(read, write);
        for piece in [&b"one "[..], b"two ", b"three"] {
            stream.write_all(piece).await.unwrap();
            stream.flush().await.unwrap();
        }
        let mut seen = [0; 64];
        let nothing = poll_fn(|cx| {
            let mut buf = ReadBuf::new(&mut seen);
            Poll::Ready(Pin::new(&mut theirs).poll_read(cx, &mut buf).is_pending())
        });
        assert!(nothing.await, "nothing leaves before it is sent");
        poll_fn(|cx| cork.poll_send(cx)).await.unwrap();
        let n = theirs.read(&mut seen).await.unwrap();
        assert_eq!(&seen[..n], b"one two three");
    }

    #[tokio::test]
    async fn what_does_not_fit_goes_straight_after_what_waits() {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        let (read, write) = tokio::io::split(ours);
        let (mut stream, _cork) = Corked::new(read, write);
        stream.write_all(b"head").await.unwrap();
        stream.write_all(&vec![b'x'; 3 * MOST]).await.unwrap();
        stream.write_all(b"tail").await.unwrap();
        stream.shutdown().await.unwrap();
        drop((stream, _cork));
        let mut all = Vec::new();
        theirs.read_to_end(&mut all).await.unwrap();
        assert_eq!(all.len(), 8 + 3 * MOST);
        assert!(all.starts_with(b"headx") && all.ends_with(b"xtail"));
    }
}
