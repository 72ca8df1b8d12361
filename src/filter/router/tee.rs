//! One body for several readers: the first pulls it from the client, and the others get what it was
//! given.
//!
//! Nobody waits for the others. What one of them has not read is kept up to a limit; past it, and when
//! the body breaks off, it gets an error, never an end that would make a part look whole.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use parking_lot::Mutex;

use super::replay::Piece;
use crate::exchange::{Body, BodyError, BodyProgress};

/// A body whose pieces others get too.
pub(super) struct Tee {
    body: Body,
    /// Those who still read.
    copies: Vec<Arc<Mutex<Held>>>,
    limit: u64,
}

/// What one reader has yet to read.
#[derive(Default)]
struct Held {
    pieces: VecDeque<Piece>,
    bytes: u64,
    end: Option<End>,
    waker: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Whole,
    Broken,
    /// The reader is gone.
    Unread,
}

/// The body for one of the others.
pub(super) struct Copied {
    held: Arc<Mutex<Held>>,
    progress: Arc<BodyProgress>,
    size: SizeHint,
}

impl Tee {
    /// `body` for its first reader, and a body for each of `count` others, of which each may be so
    /// many bytes behind. A body that is empty is so for all.
    pub(super) fn split(body: Body, count: usize, limit: u64) -> (Body, Vec<Option<Copied>>) {
        if body.is_end_stream() {
            return (body, (0..count).map(|_| None).collect());
        }
        let size = body.size_hint();
        let copy = |held: &Arc<Mutex<Held>>| {
            Some(Copied { held: Arc::clone(held), progress: Arc::default(), size })
        };
        let copies: Vec<_> = (0..count).map(|_| Arc::default()).collect();
        let bodies = copies.iter().map(copy).collect();
        (Body::boxed(Self { body, copies, limit }), bodies)
    }

    fn give(&mut self, piece: &Piece) {
        let limit = self.limit;
        self.copies.retain(|copy| {
            let mut held = copy.lock();
            if held.end.is_some() {
                return false;
            }
            held.bytes += piece.bytes();
            if held.bytes > limit {
                held.finish(End::Broken);
                return false;
            }
            held.pieces.push_back(piece.clone());
            held.wake();
            true
        });
    }

    fn finish(&mut self, end: End) {
        for copy in self.copies.drain(..) {
            copy.lock().finish(end);
        }
    }
}

impl Held {
    fn finish(&mut self, end: End) {
        if self.end.is_none() {
            self.end = Some(end);
        }
        if end != End::Whole {
            self.pieces = VecDeque::new();
        }
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl http_body::Body for Tee {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let frame = match std::task::ready!(Pin::new(&mut this.body).poll_frame(cx)) {
            Some(Ok(frame)) => match Piece::of(frame) {
                Ok(piece) => {
                    this.give(&piece);
                    Some(Ok(piece.into()))
                }
                Err(other) => Some(Ok(other)),
            },
            Some(Err(error)) => {
                this.finish(End::Broken);
                Some(Err(error))
            }
            None => None,
        };
        if frame.is_none() || this.body.is_end_stream() {
            this.finish(End::Whole);
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

impl Drop for Tee {
    fn drop(&mut self) {
        self.finish(End::Broken);
    }
}

impl Copied {
    /// Knows when the copy was read to its end.
    pub(super) fn progress(&self) -> Arc<BodyProgress> {
        Arc::clone(&self.progress)
    }
}

impl http_body::Body for Copied {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut held = self.held.lock();
        if let Some(piece) = held.pieces.pop_front() {
            held.bytes -= piece.bytes();
            if held.pieces.is_empty() && held.end == Some(End::Whole) {
                self.progress.finish();
            }
            return Poll::Ready(Some(Ok(piece.into())));
        }
        match held.end {
            None => {
                held.waker = Some(cx.waker().clone());
                Poll::Pending
            }
            Some(End::Whole) => {
                self.progress.finish();
                Poll::Ready(None)
            }
            Some(End::Broken | End::Unread) => {
                self.progress.break_off();
                Poll::Ready(Some(Err(BodyError::Shared)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let held = self.held.lock();
        held.pieces.is_empty() && held.end == Some(End::Whole)
    }

    fn size_hint(&self) -> SizeHint {
        self.size
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        self.held.lock().finish(End::Unread);
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;

    fn pieces(count: u8) -> Body {
        let frame = |i| Ok(Frame::data(Bytes::from(vec![i; 10])));
        let mut trailers = http::HeaderMap::new();
        trailers.insert("x-sum", http::HeaderValue::from_static("1"));
        let frames = (0..count).map(frame).chain([Ok(Frame::trailers(trailers))]);
        Body::boxed(StreamBody::new(futures_util::stream::iter(frames)))
    }

    #[tokio::test]
    async fn every_reader_gets_all_of_it() {
        let (first, copies) = Tee::split(pieces(5), 2, 50);
        let first = first.collect().await.unwrap();
        assert_eq!(first.trailers().unwrap().len(), 1);
        let first = first.to_bytes();
        for copy in copies {
            let copy = copy.unwrap();
            let progress = copy.progress();
            let whole = copy.collect().await.unwrap();
            assert_eq!(whole.trailers().unwrap().len(), 1);
            assert_eq!(whole.to_bytes(), first);
            assert!(progress.is_complete());
        }
    }

    #[tokio::test]
    async fn who_falls_behind_gets_an_error_and_the_others_go_on() {
        let (mut first, mut copies) = Tee::split(pieces(5), 2, 20);
        let mut slow = copies.pop().unwrap().unwrap();
        let mut quick = copies.pop().unwrap().unwrap();
        while let Some(frame) = first.frame().await {
            frame.unwrap();
            quick.frame().await.unwrap().unwrap();
        }
        assert!(quick.frame().await.is_none());
        assert!(matches!(slow.frame().await, Some(Err(_))));
        assert!(!slow.progress().is_complete());
    }

    #[tokio::test]
    async fn a_body_that_is_given_up_breaks_off_for_all() {
        let (mut first, mut copies) = Tee::split(pieces(5), 1, 50);
        first.frame().await.unwrap().unwrap();
        drop(first);
        let mut copy = copies.pop().unwrap().unwrap();
        assert!(matches!(copy.frame().await, Some(Err(_))));
    }

    #[tokio::test]
    async fn readers_that_leave_hold_nothing_up() {
        let (first, copies) = Tee::split(pieces(5), 3, 10);
        drop(copies);
        assert_eq!(first.collect().await.unwrap().to_bytes().len(), 50);
        let (first, copies) = Tee::split(Body::Empty, 2, 10);
        assert!(first.is_end_stream() && copies.iter().all(Option::is_none));
    }
}
