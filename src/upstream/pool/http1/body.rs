//! A response's body, which holds its connection and gives it back at its end, not before.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tokio::time::Instant;

use super::chunked::Piece;
use super::connection::Connection;
use super::decode::{Framing, Head};
use super::encode::Sending;
use super::upload::Upload;
use crate::exchange::{Body, BodyError, ResponseHead};
use crate::upstream::pool::HostPool;
use crate::upstream::pool::request::ActiveRequest;

/// Bytes read at once of a body of unknown length.
const USUAL_READ: usize = 16 * 1024;

/// An exchange whose response has begun.
pub(super) struct Response<'a> {
    pub(super) pool: &'a Arc<HostPool>,
    pub(super) connection: Connection,
    pub(super) sending: Sending,
    pub(super) active: ActiveRequest,
}

impl Response<'_> {
    /// The response's head, and its body, which goes on with `input`.
    pub(super) fn split(self, head: Head, mut input: Bytes) -> (ResponseHead, Body) {
        let Self { pool, mut connection, sending, active } = self;
        let Head { parts, framing, keep_alive, len: _ } = head;
        let sent = sending.is_done();
        // Most answers are short and all here.
        if let Framing::Length(length) = framing
            && let Ok(length) = usize::try_from(length)
            && length <= input.len()
        {
            let now = Instant::now();
            active.finished(now);
            let body = Body::from(input.split_to(length));
            if keep_alive && sent && input.is_empty() {
                pool.park(connection, now);
            }
            return (parts, body);
        }
        // A body that the upstream did not ask for is not sent, and the connection not used again.
        let upload = match sent || sending.is_held() {
            true => None,
            false => connection.split_off(sending),
        };
        let body = Http1Body {
            pool: Arc::clone(pool),
            reusable: keep_alive && (sent || upload.is_some()),
            rest: Some((connection, active)),
            upload,
            framing,
            input,
            next: None,
            filled: false,
        };
        (parts, Body::boxed(body))
    }
}

struct Http1Body {
    pool: Arc<HostPool>,
    /// `None` once the body has ended.
    rest: Option<(Connection, ActiveRequest)>,
    reusable: bool,
    upload: Option<Upload>,
    framing: Framing,
    /// Received and not yet given on.
    input: Bytes,
    /// What follows the data given on last, looked at ahead to know whether that was the last.
    next: Option<Piece>,
    /// The last read took as much as it asked for.
    filled: bool,
}

impl Http1Body {
    /// The next piece of data, or the end.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, BodyError>> {
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
            let Some((connection, _)) = &mut self.rest else {
                return Poll::Ready(Ok(Piece::End(None)));
            };
            let want = match self.framing {
                Framing::Length(left) => usize::try_from(left).unwrap_or(usize::MAX),
                _ if self.filled => usize::MAX,
                _ => USUAL_READ,
            };
            self.input = ready!(connection.poll_read(cx, want)).map_err(BodyError::Io)?;
            self.filled = self.input.len() >= USUAL_READ;
            if self.input.is_empty() {
                return Poll::Ready(match self.framing {
                    Framing::Close => Ok(Piece::End(None)),
                    _ => Err(BodyError::Io(std::io::ErrorKind::UnexpectedEof.into())),
                });
            }
        }
    }

    /// The body has ended as it should.
    fn end(&mut self, cx: &mut Context<'_>) {
        let Some((mut connection, active)) = self.rest.take() else { return };
        let now = Instant::now();
        active.finished(now);
        let joined = match self.upload.take() {
            Some(upload) => connection.join(cx, upload),
            None => true,
        };
        if joined && self.reusable && self.input.is_empty() {
            self.pool.park(connection, now);
        }
    }

    /// After data: whether that was all. What is here already is looked at.
    fn look_ahead(&mut self, cx: &mut Context<'_>) -> Result<(), BodyError> {
        let next = match &mut self.framing {
            Framing::Length(0) => Piece::End(None),
            Framing::Chunked(chunked) if !self.input.is_empty() => {
                chunked.decode(&mut self.input).map_err(|e| BodyError::Malformed(e.0))?
            }
            _ => Piece::More,
        };
        match next {
            Piece::More => {}
            Piece::End(None) => self.end(cx),
            Piece::End(Some(_)) | Piece::Data(_) => self.next = Some(next),
        }
        Ok(())
    }

    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.rest.is_none() {
            return Poll::Ready(None);
        }
        if let Some(upload) = &mut self.upload
            && let Poll::Ready(error) = upload.poll_broken(cx)
        {
            return Poll::Ready(Some(Err(error)));
        }
        Poll::Ready(match ready!(self.poll_piece(cx)) {
            Ok(Piece::Data(data)) => match self.look_ahead(cx) {
                Ok(()) => Some(Ok(Frame::data(data))),
                Err(error) => Some(Err(error)),
            },
            Ok(Piece::End(trailers)) => {
                self.end(cx);
                trailers.filter(|t| !HeaderMap::is_empty(t)).map(|t| Ok(Frame::trailers(t)))
            }
            // `poll_piece` reads on.
            Ok(Piece::More) => None,
            Err(error) => Some(Err(error)),
        })
    }
}

impl http_body::Body for Http1Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Self::poll_frame(&mut self, cx));
        if let Some(Err(_)) = &frame
            && let Some((connection, active)) = self.rest.take()
        {
            active.broke_off();
            drop((connection, self.upload.take()));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.framing, &self.rest) {
            (Framing::Length(left), _) => SizeHint::with_exact(*left),
            (_, None) => SizeHint::with_exact(0),
            _ => SizeHint::default(),
        }
    }
}
