//! A response's body that must keep moving: `RetryPolicy.per_try_idle_timeout`, once there is a head.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::Instant;

use crate::exchange::deadline::{Deadline, Deadlines};
use crate::exchange::{Body, BodyError};
use crate::upstream::LocalCluster;

/// Ends in an error if nothing comes for too long while it is asked for more.
pub(super) struct IdleBody {
    pub(super) body: Body,
    pub(super) limit: Duration,
    pub(super) deadlines: Deadlines,
    /// Since it was last asked in vain.
    pub(super) waiting: Option<Deadline>,
    pub(super) cluster: Arc<LocalCluster>,
}

impl http_body::Body for IdleBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Self { body, limit, deadlines, waiting, cluster } = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) {
            *waiting = None;
            return Poll::Ready(frame);
        }
        let deadline = waiting.get_or_insert_with(|| deadlines.at(Instant::now() + *limit));
        std::task::ready!(Pin::new(deadline).poll(cx));
        cluster.cluster().stats.upstream_rq_per_try_idle_timeout.inc();
        Poll::Ready(Some(Err(BodyError::Timeout)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
