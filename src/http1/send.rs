//! A message on its way onto a connection: the head, then the body as long as it says, in chunks or as
//! it is (RFC 9112 sections 6 and 7).

use std::io::{self, IoSlice, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use smallvec::SmallVec;
use thiserror::Error;
use tokio::io::AsyncWrite;

use super::case::HeaderCase;
use super::fields::{may_trail, push_field};
use crate::exchange::BodyError;

/// Bytes of a body that are gathered for one write, at the most, but for the last piece.
const GATHERED: usize = 64 * 1024;

/// Pieces gathered for one write.
const PIECES: usize = 16;

/// Why a message could not be sent.
#[derive(Debug, Error)]
pub enum SendError {
    /// The connection takes nothing more.
    #[error("the connection takes nothing more")]
    Io,
    /// The message's body broke off.
    #[error("{0}")]
    Body(#[source] BodyError),
    /// The message's body is not as long as its `content-length`.
    #[error("the body is not as long as its content-length")]
    Length,
}

/// How the body's end is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageFraming {
    /// By its length; so much of it is still to come.
    Length(u64),
    /// By an empty chunk, and trailers go on behind it or are dropped.
    Chunked {
        /// They go on.
        trailers: bool,
    },
    /// By the connection's end.
    Close,
}

/// A message, as far as it was written.
pub struct Message<B> {
    /// The head, later the line before a chunk; the bytes from `written` are still to be sent.
    lead: Vec<u8>,
    written: usize,
    /// Pieces of the body, still to be sent.
    pieces: SmallVec<[Bytes; 1]>,
    /// What follows them.
    tail: &'static [u8],
    body: B,
    framing: MessageFraming,
    case: HeaderCase,
    /// Trailers, to be sent after all that.
    trailers: Option<Box<HeaderMap>>,
    /// How the body broke off, which is told when all before it was written.
    broken: Option<Box<BodyError>>,
    /// Nothing more comes from the body.
    ended: bool,
    /// What waits is complete, and nothing is added before all of it was written.
    sealed: bool,
    /// Bytes of it are on a connection.
    begun: bool,
}

impl<B> Message<B>
where
    B: http_body::Body<Data = Bytes, Error = BodyError> + Unpin,
{
    /// A message whose head is `head`, with its empty line.
    pub fn new(head: Vec<u8>, body: B, framing: MessageFraming, case: HeaderCase) -> Self {
        Self {
            lead: head,
            written: 0,
            pieces: SmallVec::new(),
            tail: b"",
            ended: body.is_end_stream(),
            body,
            framing,
            case,
            trailers: None,
            broken: None,
            sealed: false,
            begun: false,
        }
    }

    /// Makes its head go out from the first byte again; only if nothing of a body was sent.
    pub fn rewind(&mut self) {
        (self.written, self.sealed, self.begun) = (0, false, false);
    }

    /// Whether nothing of it was written yet.
    pub fn is_unsent(&self) -> bool {
        !self.begun
    }

    /// Whether its end is that of its connection.
    pub fn ends_connection(&self) -> bool {
        self.framing == MessageFraming::Close
    }

    /// Whether all of it was written.
    pub fn is_done(&self) -> bool {
        self.ended && self.waiting() == 0 && self.trailers.is_none()
    }

    /// Writes its head; ready when all of it is written.
    pub fn poll_head<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut W,
    ) -> Poll<Result<(), SendError>> {
        self.poll_waiting(cx, io)
    }

    /// Writes what there is of it; ready when all of it is written, or it cannot be.
    pub fn poll_send<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut W,
    ) -> Poll<Result<(), SendError>> {
        // A body that has nothing for now is not asked twice: it may have let others have their turn.
        let mut is_waited_for = false;
        loop {
            if !self.sealed {
                // The head waits for the first pieces if they are here, so that all leave together.
                is_waited_for = self.gather(cx)?;
            }
            ready!(self.poll_waiting(cx, io))?;
            self.sealed = false;
            if let Some(error) = self.broken.take() {
                return Poll::Ready(Err(SendError::Body(*error)));
            }
            if self.is_done() {
                return Poll::Ready(Ok(()));
            }
            if is_waited_for {
                return Poll::Pending;
            }
        }
    }

    fn waiting(&self) -> usize {
        let pieces: usize = self.pieces.iter().map(Bytes::len).sum();
        self.lead.len() - self.written + pieces + self.tail.len()
    }

    fn poll_waiting<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut W,
    ) -> Poll<Result<(), SendError>> {
        while self.waiting() > 0 {
            let n = ready!(self.poll_write(cx, io)).map_err(|_io| SendError::Io)?;
            self.advance(n);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut W,
    ) -> Poll<io::Result<usize>> {
        let lead = &self.lead[self.written..];
        let n = match (self.pieces.is_empty(), self.tail.is_empty()) {
            (true, true) => ready!(Pin::new(io).poll_write(cx, lead))?,
            _ => {
                let lead = (!lead.is_empty()).then_some(lead);
                let tail = (!self.tail.is_empty()).then_some(self.tail);
                let all = lead.into_iter().chain(self.pieces.iter().map(|p| &p[..])).chain(tail);
                let slices: SmallVec<[IoSlice<'_>; 4]> = all.map(IoSlice::new).collect();
                ready!(Pin::new(io).poll_write_vectored(cx, &slices))?
            }
        };
        match n {
            0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            n => Poll::Ready(Ok(n)),
        }
    }

    fn advance(&mut self, mut written: usize) {
        self.begun = true;
        let of_lead = written.min(self.lead.len() - self.written);
        self.written += of_lead;
        written -= of_lead;
        let whole = self.pieces.iter().take_while(|piece| {
            let whole = piece.len() <= written;
            written -= if whole { piece.len() } else { 0 };
            whole
        });
        let whole = whole.count();
        self.pieces.drain(..whole);
        if let Some(piece) = self.pieces.first_mut() {
            piece.advance(written);
            return;
        }
        self.tail = &self.tail[written..];
    }

    /// Takes what the body has for now, and makes it ready to be written; true if more is waited for.
    fn gather(&mut self, cx: &mut Context<'_>) -> Result<bool, SendError> {
        let mut total = 0;
        let mut is_waited_for = false;
        while !self.ended && total < GATHERED && self.pieces.len() < PIECES {
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
                is_waited_for = true;
                break;
            };
            let frame = match frame {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => {
                    self.broken = Some(Box::new(error));
                    break;
                }
                None => {
                    self.ended = true;
                    break;
                }
            };
            match frame.into_data() {
                // An empty chunk would be the end.
                Ok(data) if data.is_empty() => {}
                Ok(data) => {
                    total += data.len();
                    self.pieces.push(data);
                }
                Err(other) => {
                    self.trailers = other.into_trailers().ok().map(Box::new);
                    self.ended = true;
                }
            }
            // The end leaves with the last piece, if it is known by now.
            self.ended |= self.body.is_end_stream();
        }
        self.seal(total)?;
        Ok(is_waited_for)
    }

    fn seal(&mut self, total: usize) -> Result<(), SendError> {
        self.sealed = true;
        let trailers = match &mut self.framing {
            MessageFraming::Close => return Ok(()),
            MessageFraming::Length(left) => {
                *left = left.checked_sub(total as u64).ok_or(SendError::Length)?;
                self.trailers = None;
                return match *left > 0 && self.ended {
                    true => Err(SendError::Length),
                    false => Ok(()),
                };
            }
            MessageFraming::Chunked { trailers } => *trailers,
        };
        if total > 0 {
            self.drop_written();
            // Writing to a vector does not fail.
            let _ = write!(self.lead, "{total:x}\r\n");
            self.tail = b"\r\n";
        }
        if self.ended {
            self.end(total > 0, trailers);
        }
        Ok(())
    }

    /// Adds what ends a chunked body, behind a last chunk or for itself.
    fn end(&mut self, behind_chunk: bool, keeps_trailers: bool) {
        let trailers = self.trailers.take();
        let trailers = trailers.filter(|trailers| keeps_trailers && !trailers.is_empty());
        let Some(trailers) = trailers else {
            match behind_chunk {
                true => self.tail = b"\r\n0\r\n\r\n",
                false => {
                    self.drop_written();
                    self.lead.extend_from_slice(b"0\r\n\r\n");
                }
            }
            return;
        };
        if behind_chunk {
            // They lead what comes next.
            self.trailers = Some(trailers);
            return;
        }
        self.drop_written();
        self.lead.extend_from_slice(b"0\r\n");
        for (name, value) in trailers.iter().filter(|(name, _)| may_trail(name)) {
            push_field(&mut self.lead, &self.case.written(name), value.as_bytes());
        }
        self.lead.extend_from_slice(b"\r\n");
    }

    /// Makes room in front: what was written is not needed again once there was a body.
    fn drop_written(&mut self) {
        self.lead.drain(..self.written);
        self.written = 0;
    }
}
