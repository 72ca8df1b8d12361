//! A response on its way to the client and into the store.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

use crate::cache::{Entry, Key, Store, Ticket};
use crate::exchange::{Body, BodyError};

/// What is to be stored once its body is whole.
pub(super) struct Fill {
    pub(super) store: Arc<Store>,
    pub(super) key: Key,
    /// Its body is empty yet.
    pub(super) entry: Entry,
    pub(super) limit: u64,
    /// How long the body is said to be.
    pub(super) stated: Option<u64>,
    pub(super) ticket: Ticket,
}

impl Fill {
    /// The same body, which fills the store as it passes.
    pub(super) fn watch(self, body: Body) -> Body {
        if body.is_end_stream() {
            self.finish();
            return body;
        }
        Body::boxed(Filling { body, size: 0, fill: Some(Box::new(self)) })
    }

    fn finish(self) {
        if self.stated.is_none_or(|stated| stated == self.entry.length()) {
            self.store.fill(self.key, Arc::new(self.entry), self.ticket);
        }
    }
}

struct Filling {
    body: Body,
    size: u64,
    /// `None` when it is stored, or will not be.
    fill: Option<Box<Fill>>,
}

impl Filling {
    fn take(&mut self, frame: &Frame<Bytes>) {
        let Some(fill) = &mut self.fill else { return };
        match frame.data_ref() {
            Some(data) if self.size + data.len() as u64 <= fill.limit => {
                self.size += data.len() as u64;
                if !data.is_empty() {
                    fill.entry.body.push(data.clone());
                }
            }
            // Too large; or with trailers, which is rare, and whole only with them.
            Some(_) | None => {
                if let Some(fill) = self.fill.take() {
                    fill.store.stats.uncacheable.inc();
                    fill.ticket.refuse();
                }
            }
        }
    }

    fn finish(&mut self) {
        if let Some(fill) = self.fill.take() {
            fill.finish();
        }
    }
}

impl http_body::Body for Filling {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let frame = std::task::ready!(Pin::new(&mut this.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                this.take(frame);
                // The end may not be asked for.
                if this.body.is_end_stream() {
                    this.finish();
                }
            }
            Some(Err(_)) => this.fill = None,
            None => this.finish(),
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
