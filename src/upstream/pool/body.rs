//! The body of an HTTP/2 response, which holds its stream's place until it ends.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::counted::ActiveRequest;
use super::http2::StreamSlot;
use crate::exchange::{Body, BodyError};

struct UpstreamBody {
    incoming: Incoming,
    rest: Option<(StreamSlot, ActiveRequest)>,
}

/// The response's body, which owns what the exchange holds.
pub(super) fn wrap(incoming: Incoming, slot: StreamSlot, active: ActiveRequest) -> Body {
    let mut body = UpstreamBody { incoming, rest: Some((slot, active)) };
    if http_body::Body::is_end_stream(&body.incoming) {
        body.end();
        return Body::Empty;
    }
    Body::boxed(body)
}

impl UpstreamBody {
    fn end(&mut self) {
        if let Some((slot, active)) = self.rest.take() {
            active.finished(Instant::now());
            drop(slot);
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
                if let Some((slot, active)) = self.rest.take() {
                    active.broke_off();
                    drop(slot);
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
