//! How a request's body broke off, told to whoever sends it over HTTP/2, where another task reads it and what
//! it finds wrong is lost on the way.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

use super::error::{RequestBodyError, UpstreamError};
use crate::exchange::{Body, BodyError};

/// How a body broke off, if it did.
#[derive(Default, Clone)]
pub(super) struct Broken(Option<Arc<OnceLock<RequestBodyError>>>);

impl Broken {
    /// What became of the request of this body, of which a connection says what it knows.
    pub(super) fn explain(&self, error: &hyper::Error) -> UpstreamError {
        match self.0.as_ref().and_then(|broken| broken.get()) {
            Some(broken) => UpstreamError::RequestBody(*broken),
            None => UpstreamError::of(error),
        }
    }
}

/// A body that tells how it breaks off. One that is empty does not, and costs nothing.
pub(super) fn watch(body: Body) -> (Body, Broken) {
    if body.is_end_stream() || matches!(body, Body::Full(_)) {
        return (body, Broken::default());
    }
    let broken = Arc::new(OnceLock::new());
    let watched = Watched { body, broken: Arc::clone(&broken) };
    (Body::boxed(watched), Broken(Some(broken)))
}

struct Watched {
    body: Body,
    broken: Arc<OnceLock<RequestBodyError>>,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Err(error)) = &frame {
            // Only its first fault is told.
            let _ = self.broken.set(error.into());
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
