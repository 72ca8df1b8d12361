//! A response's body, which holds its connection and gives it back at its end, not before.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::Instant;

use super::connection::Connection;
use super::decode::Head;
use super::encode::Sending;
use super::upload::Upload;
use crate::exchange::{Body, BodyError, ResponseHead};
use crate::http1::{BodyReader, Framing};
use crate::upstream::pool::HostPool;
use crate::upstream::pool::counted::ActiveRequest;

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
            reader: BodyReader::new(framing, input, pool.settings.http1.trailers),
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
    reader: BodyReader,
}

impl Http1Body {
    /// The body has ended as it should.
    fn end(&mut self, cx: &mut Context<'_>) {
        let Some((mut connection, active)) = self.rest.take() else { return };
        let now = Instant::now();
        active.finished(now);
        let joined = match self.upload.take() {
            Some(upload) => connection.join(cx, upload),
            None => true,
        };
        if joined && self.reusable && self.reader.input().is_empty() {
            self.pool.park(connection, now);
        }
    }

    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some((connection, _)) = &mut self.rest else { return Poll::Ready(None) };
        if let Some(upload) = &mut self.upload
            && let Poll::Ready(error) = upload.poll_broken(cx)
        {
            return Poll::Ready(Some(Err(error)));
        }
        let frame = ready!(self.reader.poll_frame(cx, connection));
        if self.reader.is_over() {
            self.end(cx);
        }
        Poll::Ready(frame)
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
        self.reader.size_hint()
    }
}
