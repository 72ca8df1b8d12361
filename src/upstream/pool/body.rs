//! A response's body that gives its connection back when it ends, and not before.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::HostPool;
use super::http1::Http1Connection;
use super::http2::StreamSlot;
use super::request::ActiveRequest;
use crate::exchange::{Body, BodyError};

/// What a response holds until its end.
pub(super) enum Held {
    /// The whole connection.
    Http1(Arc<HostPool>, Http1Connection),
    /// One stream of a connection.
    Http2(StreamSlot),
}

impl Held {
    fn give_back(self, now: Instant) {
        match self {
            Self::Http1(pool, connection) => pool.park(connection, now),
            Self::Http2(slot) => drop(slot),
        }
    }
}

struct UpstreamBody {
    incoming: Incoming,
    rest: Option<(Held, ActiveRequest)>,
}

/// The response's body, which owns what the exchange holds.
pub(super) fn wrap(incoming: Incoming, held: Held, active: ActiveRequest) -> Body {
    let mut body = UpstreamBody { incoming, rest: Some((held, active)) };
    if http_body::Body::is_end_stream(&body.incoming) {
        body.end();
        return Body::Empty;
    }
    Body::boxed(body)
}

impl UpstreamBody {
    fn end(&mut self) {
        if let Some((held, active)) = self.rest.take() {
            let now = Instant::now();
            active.finished(now);
            held.give_back(now);
        }
    }
}

impl http_body::Body for UpstreamBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = std::task::ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        match &frame {
            // Who knows the length does not ask again after the last byte.
            Some(Ok(_)) if !self.incoming.is_end_stream() => {}
            Some(Ok(_)) | None => self.end(),
            Some(Err(_)) => {
                if let Some((held, active)) = self.rest.take() {
                    active.broke_off();
                    drop(held);
                }
            }
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Connection)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
