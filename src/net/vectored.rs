//! Writes small messages with one plain send.
//!
//! A head and a short body come as two slices. The kernel takes longer to take a vector apart than
//! we to put two short slices together, and a vector of one slice is not worth a vector at all.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Slices that together are no longer than this are copied into one.
const SMALL: usize = 2048;

/// A stream whose short vectored writes are plain ones.
#[derive(Debug)]
pub struct ShortWrites<T>(pub T);

impl<T: AsyncRead + Unpin> AsyncRead for ShortWrites<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for ShortWrites<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [one] = bufs {
            return Pin::new(&mut self.0).poll_write(cx, one);
        }
        let total: usize = bufs.iter().map(|buf| buf.len()).sum();
        if total > SMALL {
            return Pin::new(&mut self.0).poll_write_vectored(cx, bufs);
        }
        // Not an array: that would be zeroed first.
        let mut joined = SmallVec::<[u8; SMALL]>::new();
        bufs.iter().for_each(|buf| joined.extend_from_slice(buf));
        Pin::new(&mut self.0).poll_write(cx, &joined)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn what_is_written_arrives_whole_and_in_order() {
        for lengths in [&[5][..], &[100, 1024], &[1, 2047], &[1024, 1025], &[9, 0, 9]] {
            let (client, mut server) = tokio::io::duplex(1 << 16);
            let slices: Vec<Vec<u8>> =
                lengths.iter().zip(b'a'..).map(|(n, byte)| vec![byte; *n]).collect();
            let vector: Vec<_> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
            let mut client = ShortWrites(client);
            let written = client.write_vectored(&vector).await.unwrap();
            drop(client);
            let mut read = Vec::new();
            server.read_to_end(&mut read).await.unwrap();
            assert_eq!(read.len(), written);
            assert_eq!(read, slices.concat()[..written], "{lengths:?}");
        }
    }
}
