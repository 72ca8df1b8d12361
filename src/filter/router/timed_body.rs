//! A response's body whose end is the end of a request that routes count.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::Instant;

use crate::exchange::{Body, BodyError, Response};
use crate::route::RequestCounts;

struct TimedBody {
    body: Body,
    since: Instant,
    counts: RequestCounts,
    done: bool,
}

/// Counts an answer, and how long it takes until it is whole.
pub(super) fn timed(response: &mut Response, counts: RequestCounts) {
    counts.answered(response.head.status);
    let since = response.stream.start;
    let body = std::mem::take(&mut response.body);
    let mut timed = TimedBody { body, since, counts, done: false };
    match timed.body.is_end_stream() {
        true => timed.finish(),
        false => response.body = Body::boxed(timed),
    }
}

impl TimedBody {
    fn finish(&mut self) {
        if !self.done {
            self.done = true;
            let took = self.since.elapsed();
            self.counts.each(|stats| stats.upstream_rq_time.record(took));
        }
    }
}

impl http_body::Body for TimedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let frame = std::task::ready!(Pin::new(&mut this.body).poll_frame(cx));
        let is_broken = matches!(frame, Some(Err(_)));
        if !is_broken && (frame.is_none() || this.body.is_end_stream()) {
            this.finish();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
