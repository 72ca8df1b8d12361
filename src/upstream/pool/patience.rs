//! How long an upstream is waited for once it has the request: `ConnectionPool`'s
//! `response_header_timeout` and `expect_continue_timeout`. Whoever sets neither pays nothing.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tokio::sync::Notify;
use tokio::time::Sleep;

use crate::exchange::{Body, BodyError};

/// A timer that starts when it is first waited for.
#[derive(Default)]
pub(super) struct Patience(Option<Pin<Box<Sleep>>>);

impl Patience {
    /// Ready when so much time has passed since the first call; `None` is never.
    pub(super) fn poll_over(&mut self, cx: &mut Context<'_>, limit: Option<Duration>) -> Poll<()> {
        let Some(limit) = limit else { return Poll::Pending };
        let timer = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        timer.as_mut().poll(cx)
    }
}

/// Ready when an answer has been waited for long enough.
pub(super) type Late = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The same for a request whose body another task sends: the time starts with the body's end.
pub(super) fn watch(body: Body, limit: Option<Duration>) -> (Body, Option<Late>) {
    let Some(limit) = limit else { return (body, None) };
    let ended = Arc::new(Notify::new());
    let body = match body.is_end_stream() {
        true => {
            ended.notify_one();
            body
        }
        false => Body::boxed(Watched { body, ended: Arc::clone(&ended) }),
    };
    let late = async move {
        ended.notified().await;
        tokio::time::sleep(limit).await;
    };
    (body, Some(Box::pin(late)))
}

/// A body that tells its end.
struct Watched {
    body: Body,
    ended: Arc<Notify>,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none() || self.body.is_end_stream() {
            self.ended.notify_one();
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
