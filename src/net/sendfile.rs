//! Bytes that are sent from a file, which saves the kernel a copy: `sendfile(2)` gives the socket the
//! file's own pages, while `writev(2)` fills pages of the socket's.
//!
//! The codec above knows nothing of it. It writes slices as always, and a slice that lies in memory which
//! is also in the file is sent from there. Whatever cannot be found in the file is written as it is, so
//! that the bytes on the wire are the same in any case.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use rustix::fs::{MemfdFlags, memfd_create, sendfile};
use rustix::io::write;
use tokio::io::{AsyncWrite, Interest};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;

/// Bytes in pieces, and a file without a name that holds the same in a row.
#[derive(Debug)]
pub struct FileCopy {
    pieces: Vec<Bytes>,
    file: OwnedFd,
}

impl FileCopy {
    /// Writes pieces to a file in memory.
    pub fn of(pieces: &[Bytes]) -> io::Result<Self> {
        let file = memfd_create("body", MemfdFlags::CLOEXEC)?;
        for piece in pieces {
            let mut left = &piece[..];
            while !left.is_empty() {
                left = &left[write(&file, left)?..];
            }
        }
        Ok(Self { pieces: pieces.to_vec(), file })
    }

    /// Where in the file the slice lies, if it is of the memory that was copied. It is looked for from
    /// `place` on, which is left at where it was found: its piece, and the piece's offset.
    fn offset_of(&self, slice: &[u8], place: &mut (usize, u64)) -> Option<u64> {
        if slice.is_empty() {
            return None;
        }
        let began = place.0;
        loop {
            let piece = self.pieces.get(place.0)?;
            let at = slice.as_ptr().addr().wrapping_sub(piece.as_ptr().addr());
            if at < piece.len() && slice.len() <= piece.len() - at {
                return Some(place.1 + at as u64);
            }
            *place = match place.0 + 1 {
                next if next == self.pieces.len() => (0, 0),
                next => (next, place.1 + piece.len() as u64),
            };
            if place.0 == began {
                return None;
            }
        }
    }
}

/// The writing half of a socket that sends from a file what is in one.
#[derive(Debug)]
pub struct FromFiles {
    socket: OwnedWriteHalf,
    copy: Option<Arc<FileCopy>>,
    /// Where in the file the last slice was found.
    place: (usize, u64),
}

/// How a write begins.
enum Begins {
    /// With so many slices that are in no file.
    Plain(usize),
    /// With so many bytes of a file from `offset` on.
    InFile { copy: Arc<FileCopy>, offset: u64, length: usize },
}

impl FromFiles {
    /// A socket that knows of no file yet.
    pub fn new(socket: OwnedWriteHalf) -> Self {
        Self { socket, copy: None, place: (0, 0) }
    }

    /// Names the file of what is written from now on, if it has one.
    pub fn set_copy(&mut self, copy: Option<Arc<FileCopy>>) {
        self.copy = copy;
    }

    fn beginning(&mut self, bufs: &[io::IoSlice<'_>]) -> Begins {
        let Some(copy) = &self.copy else { return Begins::Plain(bufs.len()) };
        let mut found = bufs.iter().map(|buf| copy.offset_of(buf, &mut self.place));
        match found.next() {
            None => Begins::Plain(bufs.len()),
            Some(None) => Begins::Plain(1 + found.take_while(Option::is_none).count()),
            Some(Some(offset)) => {
                let mut end = offset + bufs[0].len() as u64;
                let mut length = bufs[0].len();
                for (buf, next) in bufs[1..].iter().zip(found) {
                    if next != Some(end) {
                        break;
                    }
                    end += buf.len() as u64;
                    length += buf.len();
                }
                Begins::InFile { copy: Arc::clone(copy), offset, length }
            }
        }
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        (copy, offset, length): (&FileCopy, u64, usize),
    ) -> Poll<io::Result<usize>> {
        loop {
            let socket: &TcpStream = self.socket.as_ref();
            ready!(socket.poll_write_ready(cx))?;
            let sent = socket.try_io(Interest::WRITABLE, || {
                let mut offset = offset;
                Ok(sendfile(socket.as_fd(), &copy.file, Some(&mut offset), length)?)
            });
            match sent {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                sent => return Poll::Ready(sent),
            }
        }
    }
}

impl AsyncWrite for FromFiles {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match this.beginning(&[io::IoSlice::new(buf)]) {
            Begins::Plain(_) => Pin::new(&mut this.socket).poll_write(cx, buf),
            Begins::InFile { copy, offset, length } => this.poll_send(cx, (&copy, offset, length)),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match this.beginning(bufs) {
            Begins::Plain(n) => match &bufs[..n.min(bufs.len())] {
                // A vector of one is not worth a vector.
                [one] => Pin::new(&mut this.socket).poll_write(cx, one),
                several => Pin::new(&mut this.socket).poll_write_vectored(cx, several),
            },
            Begins::InFile { copy, offset, length } => this.poll_send(cx, (&copy, offset, length)),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// What arrives of slices, and how many of the bytes are in the file at the first look.
    async fn arrives(copy: &Arc<FileCopy>, slices: &[Bytes]) -> Vec<u8> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let (_read, write) = client.into_split();
        let mut stream = FromFiles::new(write);
        stream.set_copy(Some(Arc::clone(copy)));
        let all: Vec<u8> = slices.concat();
        let write = async {
            let mut sent = 0;
            while sent < all.len() {
                let mut skip = sent;
                let mut left: Vec<&[u8]> = Vec::new();
                for slice in slices {
                    let now = skip.min(slice.len());
                    skip -= now;
                    left.extend((now < slice.len()).then(|| &slice[now..]));
                }
                let vector: Vec<_> = left.iter().map(|slice| io::IoSlice::new(slice)).collect();
                sent += stream.write_vectored(&vector).await.unwrap();
            }
            stream.shutdown().await.unwrap();
        };
        let mut read = Vec::new();
        let (_, n) = tokio::join!(write, server.read_to_end(&mut read));
        assert_eq!(n.unwrap(), all.len());
        assert_eq!(read, all);
        read
    }

    fn pieces() -> Vec<Bytes> {
        let piece =
            |seed: usize, n: usize| (0..n).map(|i| (i * 7 + seed).to_le_bytes()[0]).collect();
        vec![piece(1, 60_000), piece(2, 60_000), piece(3, 1_000_000), piece(4, 17)]
    }

    #[tokio::test]
    async fn what_is_in_the_file_and_what_is_not_arrives_in_order() {
        let pieces = pieces();
        let copy = Arc::new(FileCopy::of(&pieces).unwrap());
        let (head, tail) = (Bytes::from_static(b"head"), Bytes::from_static(b"tail"));
        let [a, b, c, d] = &pieces[..] else { unreachable!() };
        let whole = [&head, a, b, c, d, &tail].map(Bytes::clone);
        arrives(&copy, &whole).await;
        // Parts, in another order, twice, and beside others of the same bytes.
        let elsewhere = Bytes::copy_from_slice(b);
        let mixed =
            [c.slice(5..), head, elsewhere, a.slice(1..2), a.slice(..), tail, d.slice(3..9)];
        arrives(&copy, &mixed).await;
        arrives(&copy, &[c.slice(..500_000)]).await;
    }

    #[test]
    fn a_slice_is_found_where_it_lies_and_nowhere_else() {
        let pieces = pieces();
        let copy = FileCopy::of(&pieces).unwrap();
        let mut place = (0, 0);
        for (slice, offset) in [
            (pieces[0].slice(3..), Some(3)),
            (pieces[3].clone(), Some(1_120_000)),
            (pieces[1].slice(10..11), Some(60_010)),
            (Bytes::copy_from_slice(&pieces[1]), None),
            (pieces[2].clone(), Some(120_000)),
            (pieces[2].slice(2..2), None),
        ] {
            assert_eq!(copy.offset_of(&slice, &mut place), offset);
        }
    }
}
