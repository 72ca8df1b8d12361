//! The body of a message, read to where it ends (RFC 9112 section 6.3).

use std::future::Future;
use std::io;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::chunked::{Chunked, Piece};
use crate::exchange::BodyError;

/// Bytes read at once of a body of unknown length.
const USUAL_READ: usize = 16 * 1024;

/// Where a message's body ends.
#[derive(Debug, PartialEq)]
pub enum Framing {
    /// After so many more bytes; 0 is no body at all.
    Length(u64),
    /// After its last chunk.
    Chunked(Chunked),
    /// With the connection.
    Close,
}

/// Where the bytes of a body come from.
pub trait Source {
    /// The next bytes, none at the end; asks for up to `want`, or so.
    fn poll_read(&mut self, cx: &mut Context<'_>, want: usize) -> Poll<io::Result<Bytes>>;
}

/// A buffer with less room than this is not worth a read.
const LEAST_ROOM: usize = 2 * 1024;

/// Reads bytes, none at the end. They are shared with the buffer, which is given room for `want` if it has
/// little.
pub fn read_into(
    io: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    cx: &mut Context<'_>,
    want: usize,
) -> Poll<io::Result<Bytes>> {
    if buffer.capacity() - buffer.len() < LEAST_ROOM.min(want) {
        buffer.reserve(want);
    }
    let mut read = std::pin::pin!(io.read_buf(buffer));
    ready!(read.as_mut().poll(cx))?;
    Poll::Ready(Ok(buffer.split().freeze()))
}

/// A body, as far as it was read.
#[derive(Debug)]
pub struct BodyReader {
    framing: Framing,
    /// Received and not yet given on.
    input: Bytes,
    /// What follows the data given on last, looked at ahead to know whether that was the last.
    next: Option<Piece>,
    /// The last read took as much as it asked for.
    filled: bool,
    /// Trailers are given on.
    trailers: bool,
    /// All of it was given on.
    over: bool,
}

impl BodyReader {
    /// A body of which `input` is here already. Its trailers are given on, or dropped.
    pub fn new(framing: Framing, input: Bytes, trailers: bool) -> Self {
        let over = framing == Framing::Length(0);
        Self { framing, input, next: None, filled: false, trailers, over }
    }

    /// Whether all of it was given on.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Received, and not of the body if that is over.
    pub fn input(&self) -> &Bytes {
        &self.input
    }

    /// What is left of the input, for whoever reads on after the body.
    pub fn into_input(self) -> Bytes {
        self.input
    }

    /// Where it ends, seen from what is still to come.
    pub fn framing(&self) -> &Framing {
        &self.framing
    }

    /// How long it still is.
    pub fn size_hint(&self) -> SizeHint {
        match &self.framing {
            Framing::Length(left) => SizeHint::with_exact(*left),
            _ if self.over => SizeHint::with_exact(0),
            _ => SizeHint::default(),
        }
    }

    /// The next frame; `None` after the last one.
    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut impl Source,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.over {
            return Poll::Ready(None);
        }
        Poll::Ready(match ready!(self.poll_piece(cx, source)) {
            Ok(Piece::Data(data)) => match self.look_ahead() {
                Ok(()) => Some(Ok(Frame::data(data))),
                Err(error) => Some(Err(error)),
            },
            Ok(Piece::End(trailers)) => {
                self.over = true;
                let trailers = trailers.filter(|t| self.trailers && !HeaderMap::is_empty(t));
                trailers.map(|trailers| Ok(Frame::trailers(trailers)))
            }
            // `poll_piece` reads on.
            Ok(Piece::More) => None,
            Err(error) => Some(Err(error)),
        })
    }

    /// The next piece of data, or the end.
    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut impl Source,
    ) -> Poll<Result<Piece, BodyError>> {
        if let Some(piece) = self.next.take() {
            return Poll::Ready(Ok(piece));
        }
        loop {
            let piece = match &mut self.framing {
                Framing::Length(0) => Piece::End(None),
                Framing::Length(_) | Framing::Close if self.input.is_empty() => Piece::More,
                Framing::Length(left) => {
                    let all = usize::try_from(*left).unwrap_or(usize::MAX);
                    let data = self.input.split_to(all.min(self.input.len()));
                    *left -= data.len() as u64;
                    Piece::Data(data)
                }
                Framing::Close => Piece::Data(std::mem::take(&mut self.input)),
                Framing::Chunked(chunked) => {
                    chunked.decode(&mut self.input).map_err(|e| BodyError::Malformed(e.0))?
                }
            };
            if !matches!(piece, Piece::More) {
                return Poll::Ready(Ok(piece));
            }
            let want = match self.framing {
                Framing::Length(left) => usize::try_from(left).unwrap_or(usize::MAX),
                _ if self.filled => usize::MAX,
                _ => USUAL_READ,
            };
            self.input = ready!(source.poll_read(cx, want)).map_err(BodyError::Io)?;
            self.filled = self.input.len() >= USUAL_READ;
            if self.input.is_empty() {
                return Poll::Ready(match self.framing {
                    Framing::Close => Ok(Piece::End(None)),
                    _ => Err(BodyError::Io(io::ErrorKind::UnexpectedEof.into())),
                });
            }
        }
    }

    /// After data: whether that was all. What is here already is looked at.
    fn look_ahead(&mut self) -> Result<(), BodyError> {
        let next = match &mut self.framing {
            Framing::Length(0) => Piece::End(None),
            Framing::Chunked(chunked) if !self.input.is_empty() => {
                chunked.decode(&mut self.input).map_err(|e| BodyError::Malformed(e.0))?
            }
            _ => Piece::More,
        };
        match next {
            Piece::More => {}
            Piece::End(Some(_)) if self.trailers => self.next = Some(next),
            Piece::End(_) => self.over = true,
            Piece::Data(_) => self.next = Some(next),
        }
        Ok(())
    }
}
