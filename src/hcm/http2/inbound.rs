//! The body of a request between its connection, which receives it, and whoever reads it. What is read is
//! told the connection, which then lets the client send as much more.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;

use super::wake::{Calls, Interim};
use crate::exchange::BodyError;

/// Pieces shorter than this are copied together. A slice would keep all of the buffer it was read into.
pub(super) const SHORT: usize = 8 * 1024;

/// What was received and not yet read.
#[derive(Debug, Default)]
pub(super) struct Inbound(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    pieces: VecDeque<Bytes>,
    /// Short pieces after those.
    tail: BytesMut,
    trailers: Option<HeaderMap>,
    end: Option<End>,
    /// Bytes to come, if the request said so.
    left: Option<u64>,
    reader: Option<Waker>,
    /// Bytes read that the connection was not told of.
    read: usize,
    /// Nobody reads any more.
    is_dropped: bool,
    /// The connection has no use for news.
    is_detached: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Whole,
    /// The stream or its connection ended first.
    Cut,
}

impl Inbound {
    pub(super) fn new(length: Option<u64>) -> Self {
        Self(Mutex::new(State { left: length, ..State::default() }))
    }

    /// Adds a piece. Returns how much of it nobody will read.
    pub(super) fn push(&self, piece: Piece<'_>) -> usize {
        let mut state = self.0.lock();
        let length = piece.as_ref().len();
        if state.is_dropped {
            return length;
        }
        match piece {
            Piece::Shared(piece) => {
                state.flush_tail();
                state.pieces.push_back(piece);
            }
            Piece::Short(piece) => {
                if state.tail.len() + piece.len() > 2 * SHORT {
                    state.flush_tail();
                }
                state.tail.extend_from_slice(piece);
            }
        }
        wake(state);
        0
    }

    /// All is here.
    pub(super) fn finish(&self, trailers: Option<HeaderMap>) {
        let mut state = self.0.lock();
        if state.end.is_none() {
            state.trailers = trailers.filter(|trailers| !trailers.is_empty());
            state.end = Some(End::Whole);
            wake(state);
        }
    }

    /// The rest will not come.
    pub(super) fn cut(&self) {
        let mut state = self.0.lock();
        if state.end.is_none() {
            state.end = Some(End::Cut);
            wake(state);
        }
    }

    /// Bytes read since the last call.
    pub(super) fn take_read(&self) -> usize {
        std::mem::take(&mut self.0.lock().read)
    }

    /// The stream is over: returns the bytes that were not told as read, and tells nothing more.
    pub(super) fn detach(&self) -> usize {
        let mut state = self.0.lock();
        state.is_detached = true;
        let waiting: usize = state.pieces.iter().map(Bytes::len).sum();
        std::mem::take(&mut state.read) + waiting + state.tail.len()
    }
}

/// Wakes the reader, without the lock.
fn wake(mut state: parking_lot::MutexGuard<'_, State>) {
    let reader = state.reader.take();
    drop(state);
    if let Some(reader) = reader {
        reader.wake();
    }
}

/// What a DATA frame holds.
pub(super) enum Piece<'a> {
    Short(&'a [u8]),
    Shared(Bytes),
}

impl AsRef<[u8]> for Piece<'_> {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Short(piece) => piece,
            Self::Shared(piece) => piece,
        }
    }
}

impl State {
    fn flush_tail(&mut self) {
        if !self.tail.is_empty() {
            let tail = self.tail.split().freeze();
            self.pieces.push_back(tail);
        }
    }

    fn next(&mut self) -> Option<Bytes> {
        match self.pieces.pop_front() {
            Some(piece) => Some(piece),
            None if self.tail.is_empty() => None,
            None => Some(std::mem::take(&mut self.tail).freeze()),
        }
    }

    fn is_read(&self) -> bool {
        self.pieces.is_empty() && self.tail.is_empty()
    }
}

/// The reader's side of an [`Inbound`].
#[derive(Debug)]
pub(super) struct RequestBody {
    inbound: Arc<Inbound>,
    calls: Arc<Calls>,
    slot: usize,
    /// The stream whose client waits to be told to go on.
    asks: Option<u32>,
}

impl RequestBody {
    /// With `asks` the client of that stream is told to go on when the body is first waited for.
    pub(super) fn new(
        inbound: Arc<Inbound>,
        calls: Arc<Calls>,
        slot: usize,
        asks: Option<u32>,
    ) -> Self {
        Self { inbound, calls, slot, asks }
    }

    /// Tells the connection of so many bytes more, unless it knows that there are some.
    fn tell_read(&self, mut state: parking_lot::MutexGuard<'_, State>, length: usize) {
        let is_first = state.read == 0 && length > 0 && !state.is_detached;
        state.read += length;
        drop(state);
        if is_first {
            self.calls.read(self.slot);
        }
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let mut state = this.inbound.0.lock();
        if let Some(piece) = state.next() {
            state.left = state.left.map(|left| left.saturating_sub(piece.len() as u64));
            this.tell_read(state, piece.len());
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        match state.end {
            Some(End::Whole) => {
                Poll::Ready(state.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
            }
            Some(End::Cut) => {
                Poll::Ready(Some(Err(BodyError::Io(io::ErrorKind::ConnectionReset.into()))))
            }
            None => {
                if !state.reader.as_ref().is_some_and(|reader| reader.will_wake(cx.waker())) {
                    state.reader = Some(cx.waker().clone());
                }
                drop(state);
                if let Some(stream) = this.asks.take() {
                    let headers = HeaderMap::new();
                    this.calls.interim(Interim { stream, status: StatusCode::CONTINUE, headers });
                }
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let state = self.inbound.0.lock();
        state.end == Some(End::Whole) && state.is_read() && state.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.inbound.0.lock().left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let mut state = self.inbound.0.lock();
        state.is_dropped = true;
        state.reader = None;
        let left = std::mem::take(&mut state.pieces).iter().map(Bytes::len).sum::<usize>();
        let left = left + std::mem::take(&mut state.tail).len();
        self.tell_read(state, left);
    }
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;

    use super::super::wake::News;
    use super::*;

    fn body(length: Option<u64>) -> (Arc<Inbound>, RequestBody, Arc<Calls>) {
        let (inbound, calls) = (Arc::new(Inbound::new(length)), Arc::new(Calls::default()));
        let body = RequestBody::new(Arc::clone(&inbound), Arc::clone(&calls), 4, None);
        (inbound, body, calls)
    }

    fn poll(body: &mut RequestBody) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop()))
    }

    fn read(body: &mut RequestBody) -> Bytes {
        let Poll::Ready(Some(Ok(frame))) = poll(body) else { panic!("there is data") };
        frame.into_data().unwrap()
    }

    fn told(calls: &Calls) -> Vec<usize> {
        let mut news = News::default();
        calls.take(&mut news);
        news.read
    }

    #[test]
    fn short_pieces_come_together_and_reading_is_told_once() {
        let (inbound, mut body, calls) = body(Some(6));
        assert!(poll(&mut body).is_pending());
        for piece in [b"ab", b"cd"] {
            assert_eq!(inbound.push(Piece::Short(piece)), 0);
        }
        inbound.push(Piece::Shared(Bytes::from_static(b"ef")));
        assert_eq!(read(&mut body), "abcd");
        assert_eq!(body.size_hint().exact(), Some(2));
        assert_eq!(read(&mut body), "ef");
        assert_eq!((told(&calls), inbound.take_read()), (vec![4], 6));
        assert!(!body.is_end_stream() && poll(&mut body).is_pending());
        inbound.finish(None);
        assert!(body.is_end_stream() && matches!(poll(&mut body), Poll::Ready(None)));
    }

    #[test]
    fn what_is_cut_off_is_no_end() {
        let (inbound, mut cut, _) = body(None);
        inbound.push(Piece::Short(b"x"));
        inbound.cut();
        assert_eq!(read(&mut cut), "x");
        assert!(!cut.is_end_stream());
        assert!(matches!(poll(&mut cut), Poll::Ready(Some(Err(BodyError::Io(_))))));
        inbound.finish(None);
        assert!(!cut.is_end_stream(), "what was cut off does not become whole");
    }

    #[test]
    fn what_nobody_reads_is_told_as_read() {
        let (inbound, body, calls) = body(None);
        inbound.push(Piece::Short(b"abc"));
        drop(body);
        assert_eq!((told(&calls), inbound.take_read()), (vec![4], 3));
        assert_eq!(inbound.push(Piece::Short(b"de")), 2);
        let (inbound, mut body, calls) = self::body(None);
        inbound.push(Piece::Short(b"abc"));
        assert_eq!(inbound.detach(), 3);
        read(&mut body);
        drop(body);
        assert!(told(&calls).is_empty());
    }
}
