//! What a client sends: read by the connection between requests, and by a request's body while that is
//! under way.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::io::AsyncReadExt;
use tokio::net::tcp::OwnedReadHalf;

use crate::exchange::BodyError;
use crate::hcm::connection::Connection;
use crate::http1::receive::read_into;
use crate::http1::{BodyReader, Source};

/// Bytes asked for when a head is expected; a short body comes with it.
const FIRST_READ: usize = 8 * 1024;

/// Bytes asked for at the most. There is room for so many while a client is waited for.
const LARGEST_READ: usize = 64 * 1024;

/// A buffer with less room than this is not worth a read.
const LEAST_ROOM: usize = 1024;

/// The reading half of a connection.
pub(super) struct Input {
    read: OwnedReadHalf,
    /// Received and not yet understood.
    pub(super) pending: Bytes,
    /// Where bodies are read to.
    buffer: BytesMut,
}

impl Input {
    pub(super) fn new(read: OwnedReadHalf, pending: Bytes) -> Self {
        Self { read, pending, buffer: BytesMut::new() }
    }

    /// Adds to what is pending; false at the end. While it waits there is no buffer.
    pub(super) fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        ready!(self.read.as_ref().poll_read_ready(cx))?;
        let pending = std::mem::take(&mut self.pending);
        let mut buffer =
            pending.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        if buffer.capacity() - buffer.len() < LEAST_ROOM {
            buffer.reserve(FIRST_READ);
        }
        let read = std::pin::pin!(self.read.read_buf(&mut buffer)).as_mut().poll(cx);
        // Empty bytes would keep the buffer.
        self.pending = if buffer.is_empty() { Bytes::new() } else { buffer.freeze() };
        read.map_ok(|n| n > 0)
    }
}

impl Source for Input {
    fn poll_read(&mut self, cx: &mut Context<'_>, want: usize) -> Poll<io::Result<Bytes>> {
        read_into(&mut self.read, &mut self.buffer, cx, want.min(LARGEST_READ))
    }
}

/// An input that came back from a body.
pub(super) struct Returned {
    pub(super) input: Input,
    /// What was not read of the body.
    pub(super) rest: BodyReader,
    /// The body broke off: nobody knows what comes next.
    pub(super) broken: Option<Broken>,
}

/// How a body broke off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// With its connection.
    Gone,
    /// It is not in its form.
    Malformed,
}

/// The connection's side of an input that a body has.
pub(super) struct Lent {
    returned: Mutex<Option<Returned>>,
    is_back: AtomicBool,
    /// Somebody waits for the body, whose client wants to be asked for it.
    is_asked_for: AtomicBool,
    /// The connection is being polled, and will look here of its own accord.
    is_watched: AtomicBool,
    connection: Arc<Connection>,
}

impl Lent {
    fn tell(&self, what: &AtomicBool) {
        what.store(true, Ordering::Release);
        if !self.is_watched.load(Ordering::Relaxed) {
            self.connection.wake();
        }
    }

    /// Says whether the connection is being polled.
    pub(super) fn watch(&self, is_watched: bool) {
        self.is_watched.store(is_watched, Ordering::Relaxed);
    }

    /// Whether the client is to be told to send the body; true once.
    pub(super) fn take_asked_for(&self) -> bool {
        self.is_asked_for.load(Ordering::Acquire) && self.is_asked_for.swap(false, Ordering::AcqRel)
    }

    /// The input, once the body is over or nobody wants it any more.
    pub(super) fn take(&self) -> Option<Returned> {
        self.is_back.load(Ordering::Acquire).then(|| self.returned.lock().take())?
    }
}

/// The body of a request, which has its connection's input until it ends.
pub(super) struct RequestBody {
    /// None once it is given back.
    input: Option<(Input, BodyReader)>,
    lent: Arc<Lent>,
    /// The client waits to be asked for it.
    asks: bool,
    size: SizeHint,
}

impl RequestBody {
    /// A body that reads from `input`, and where it comes back. With `asks` the connection is told when
    /// it is first wanted.
    pub(super) fn new(
        input: Input,
        reader: BodyReader,
        asks: bool,
        connection: &Arc<Connection>,
    ) -> (Self, Arc<Lent>) {
        let lent = Arc::new(Lent {
            returned: Mutex::default(),
            is_back: AtomicBool::new(false),
            is_asked_for: AtomicBool::new(false),
            is_watched: AtomicBool::new(true),
            connection: Arc::clone(connection),
        });
        let size = reader.size_hint();
        (Self { input: Some((input, reader)), lent: Arc::clone(&lent), asks, size }, lent)
    }

    fn give_back(&mut self, broken: Option<Broken>) {
        if let Some((input, rest)) = self.input.take() {
            *self.lent.returned.lock() = Some(Returned { input, rest, broken });
            self.lent.tell(&self.lent.is_back);
        }
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let Some((input, reader)) = &mut this.input else { return Poll::Ready(None) };
        if std::mem::take(&mut this.asks) {
            this.lent.tell(&this.lent.is_asked_for);
        }
        let frame = ready!(reader.poll_frame(cx, input));
        this.size = reader.size_hint();
        match &frame {
            Some(Err(BodyError::Malformed(_))) => this.give_back(Some(Broken::Malformed)),
            Some(Err(_)) => this.give_back(Some(Broken::Gone)),
            _ if reader.is_over() => this.give_back(None),
            _ => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.input.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.size
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.give_back(None);
    }
}
