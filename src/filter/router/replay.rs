//! A request's body that can be sent more than once.
//!
//! The first try streams it from the client. What it was given is kept up to a limit, so that the
//! next one starts from the beginning and goes on where the last one stopped reading. Past the limit
//! everything is let go and the try under way is the last.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use parking_lot::Mutex;

use crate::exchange::{Body, BodyError};

/// The body and what was read of it.
pub(super) enum Replay {
    /// There is none.
    Empty,
    /// One that is read by a try at a time.
    Shared(Arc<Mutex<Source>>),
}

pub(super) struct Source {
    body: Body,
    size: SizeHint,
    kept: Vec<Piece>,
    kept_bytes: u64,
    limit: u64,
    /// It can no longer be sent from the beginning.
    gone: bool,
    ended: bool,
    /// The try that may read, from 1.
    reader: u32,
    /// All of it is kept, and tries read it beside each other.
    shared: bool,
}

/// A frame that can be had twice.
#[derive(Clone)]
pub(super) enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl Piece {
    /// `Err` for a frame of a kind that is not known.
    pub(super) fn of(frame: Frame<Bytes>) -> Result<Self, Frame<Bytes>> {
        let frame = match frame.into_data() {
            Ok(data) => return Ok(Self::Data(data)),
            Err(frame) => frame,
        };
        frame.into_trailers().map(Self::Trailers)
    }

    /// Bytes of the body in it.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Data(data) => data.len() as u64,
            Self::Trailers(_) => 0,
        }
    }
}

impl From<Piece> for Frame<Bytes> {
    fn from(piece: Piece) -> Self {
        match piece {
            Piece::Data(data) => Self::data(data),
            Piece::Trailers(trailers) => Self::trailers(trailers),
        }
    }
}

impl Replay {
    /// Keeps up to `limit` bytes of `body`.
    pub(super) fn new(body: Body, limit: u64) -> Self {
        if body.is_end_stream() {
            return Self::Empty;
        }
        Self::Shared(Arc::new(Mutex::new(Source {
            size: body.size_hint(),
            body,
            kept: Vec::new(),
            kept_bytes: 0,
            limit,
            gone: false,
            ended: false,
            reader: 0,
            shared: false,
        })))
    }

    /// The body for another try; none before it reads any more. `None` if it cannot be sent again.
    pub(super) fn next(&self) -> Option<Body> {
        let Self::Shared(shared) = self else { return Some(Body::Empty) };
        let mut source = shared.lock();
        if source.gone {
            return None;
        }
        source.reader += 1;
        let reader = Reader { shared: Arc::clone(shared), id: source.reader, next: 0 };
        Some(Body::boxed(reader))
    }

    /// Lets tries read beside each other from now on; false if some of the body is still to come or is
    /// gone.
    pub(super) fn share(&self) -> bool {
        let Self::Shared(shared) = self else { return true };
        let mut source = shared.lock();
        source.shared = source.ended && !source.gone;
        source.shared
    }

    /// Whether all of it was read, and is kept.
    pub(super) fn can_be_sent_again(&self) -> bool {
        let Self::Shared(shared) = self else { return true };
        let source = shared.lock();
        source.ended && !source.gone
    }

    /// Whether it was too large to be kept.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Self::Shared(shared) if shared.lock().gone)
    }

    /// Stops the try under way from reading; false if there cannot be another. What is left of a
    /// connection may outlive its try.
    pub(super) fn rewind(&self) -> bool {
        let Self::Shared(shared) = self else { return true };
        let mut source = shared.lock();
        if !source.gone {
            source.reader += 1;
        }
        !source.gone
    }
}

impl Source {
    fn keep(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        let piece = match Piece::of(frame) {
            Ok(piece) => piece,
            Err(other) => return other,
        };
        self.kept_bytes += piece.bytes();
        if self.kept_bytes > self.limit {
            self.gone = true;
            self.kept = Vec::new();
        }
        if !self.gone {
            self.kept.push(piece.clone());
        }
        piece.into()
    }
}

struct Reader {
    shared: Arc<Mutex<Source>>,
    id: u32,
    /// Position among the pieces kept.
    next: usize,
}

impl http_body::Body for Reader {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let source = &mut *this.shared.lock();
        if source.reader != this.id && !source.shared {
            // Never the end, which would make a part look whole.
            return Poll::Ready(Some(Err(BodyError::Timeout)));
        }
        if let Some(piece) = source.kept.get(this.next) {
            this.next += 1;
            return Poll::Ready(Some(Ok(piece.clone().into())));
        }
        let frame = std::task::ready!(Pin::new(&mut source.body).poll_frame(cx));
        source.ended |= frame.is_none() || source.body.is_end_stream();
        this.next += 1;
        Poll::Ready(frame.map(|frame| frame.map(|frame| source.keep(frame))))
    }

    fn is_end_stream(&self) -> bool {
        let source = self.shared.lock();
        source.reader == self.id && source.ended && self.next >= source.kept.len()
    }

    fn size_hint(&self) -> SizeHint {
        match self.next {
            0 => self.shared.lock().size,
            _ => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;

    fn pieces(count: u8) -> Body {
        let frame = |i| Ok(Frame::data(Bytes::from(vec![i; 10])));
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", http::HeaderValue::from_static("1"));
        let frames = (0..count).map(frame).chain([Ok(Frame::trailers(trailers))]);
        Body::boxed(StreamBody::new(futures_util::stream::iter(frames)))
    }

    async fn rest(body: Body) -> (Vec<u8>, bool) {
        let all = body.collect().await.unwrap();
        let has_trailers = all.trailers().is_some();
        (all.to_bytes().to_vec(), has_trailers)
    }

    #[tokio::test]
    async fn every_try_gets_all_bytes_wherever_the_last_one_stopped() {
        let whole = (0..5).flat_map(|i| [i; 10]).collect::<Vec<u8>>();
        for read in 0..6 {
            let replay = Replay::new(pieces(5), 50);
            let mut first = replay.next().unwrap();
            for _ in 0..read {
                first.frame().await.unwrap().unwrap();
            }
            assert!(replay.rewind());
            assert!(matches!(first.frame().await, Some(Err(_))), "an old try reads on");
            for _ in 0..2 {
                assert_eq!(rest(replay.next().unwrap()).await, (whole.clone(), true), "{read}");
            }
        }
    }

    #[tokio::test]
    async fn past_the_limit_the_try_goes_on_and_is_the_last() {
        let replay = Replay::new(pieces(5), 49);
        let body = replay.next().unwrap();
        let (bytes, has_trailers) = rest(body).await;
        assert_eq!((bytes.len(), has_trailers), (50, true));
        assert!(!replay.rewind());
        assert!(replay.next().is_none());
    }

    #[tokio::test]
    async fn without_a_body_there_is_nothing_to_keep() {
        let replay = Replay::new(Body::Empty, 0);
        assert!(replay.rewind());
        assert!(matches!(replay.next(), Some(Body::Empty)));
    }
}
