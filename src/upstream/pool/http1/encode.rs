//! Requests in the form of HTTP/1.1: the head, then the body as long as it says, or in chunks
//! (RFC 9112 sections 3, 6 and 7).
//!
//! A [`Sending`] belongs to the request and not to the connection: as long as nothing of it was
//! written it can go on another one.

use std::io::{self, IoSlice, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TE, TRAILER, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, Method};
use http_body::Body as _;
use tokio::io::AsyncWrite;

use crate::exchange::{Body, BodyError, RequestHead};

/// A usual head with the headers that proxies add.
const USUAL_HEAD: usize = 768;

/// Why a request could not be sent.
#[derive(Debug)]
pub(super) enum SendError {
    /// The connection takes nothing more.
    Io,
    /// The request's body broke off.
    Body(BodyError),
    /// The request's body is not as long as its `content-length`.
    Length,
}

/// How the body's end is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// By its length; so much of it is still to come.
    Length(u64),
    /// By an empty chunk.
    Chunked,
}

/// A request on its way onto a connection.
pub(super) struct Sending {
    /// The head, later the line before a chunk; the bytes from `written` are still to be sent.
    lead: Vec<u8>,
    written: usize,
    /// A piece of the body, still to be sent.
    piece: Bytes,
    /// What follows it.
    tail: &'static [u8],
    body: Body,
    framing: Framing,
    /// Nothing more comes from the body.
    ended: bool,
    /// There never was a body.
    bodyless: bool,
    /// Bytes of it are on a connection.
    begun: bool,
    /// The body waits for the upstream to ask for it (RFC 9110 section 10.1.1).
    held: bool,
}

impl Sending {
    pub(super) fn new(head: &RequestHead, body: Body) -> Self {
        let bodyless = body.is_end_stream();
        let framing = match body.size_hint().exact() {
            _ if bodyless => Framing::Length(0),
            Some(length) => Framing::Length(length),
            None => Framing::Chunked,
        };
        let mut lead = Vec::with_capacity(USUAL_HEAD);
        encode_head(&mut lead, head, framing, bodyless);
        Self {
            lead,
            written: 0,
            piece: Bytes::new(),
            tail: b"",
            body,
            framing,
            ended: bodyless,
            bodyless,
            begun: false,
            held: !bodyless && head.headers.contains_key(EXPECT),
        }
    }

    /// Whether the body waits for the upstream to ask for it.
    pub(super) fn is_held(&self) -> bool {
        self.held
    }

    /// Lets the body go.
    pub(super) fn release(&mut self) {
        self.held = false;
    }

    /// Whether nothing of it was written yet.
    pub(super) fn is_unsent(&self) -> bool {
        !self.begun
    }

    /// Makes it go out from its first byte again; false if it has a body, which is gone.
    pub(super) fn rewind(&mut self) -> bool {
        if self.begun && !self.bodyless {
            return false;
        }
        (self.written, self.begun) = (0, false);
        true
    }

    /// Whether all of it was written.
    pub(super) fn is_done(&self) -> bool {
        self.ended && self.waiting() == 0
    }

    /// Writes what there is of it; ready when all of it is written, or it cannot be.
    pub(super) fn poll_send<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut W,
    ) -> Poll<Result<(), SendError>> {
        loop {
            // The head waits for the first piece if that is here, so that both leave together.
            if !self.ended && !self.held && self.piece.is_empty() && self.tail.is_empty() {
                match self.poll_body(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending if self.waiting() == 0 => return Poll::Pending,
                    Poll::Pending => {}
                }
            }
            if self.waiting() == 0 {
                match (self.ended, self.held) {
                    (true, _) => return Poll::Ready(Ok(())),
                    (false, true) => return Poll::Pending,
                    (false, false) => continue,
                }
            }
            let n = ready!(self.poll_write(cx, io)).map_err(|_io| SendError::Io)?;
            self.advance(n);
        }
    }

    fn waiting(&self) -> usize {
        self.lead.len() - self.written + self.piece.len() + self.tail.len()
    }

    fn poll_write<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut W,
    ) -> Poll<io::Result<usize>> {
        let lead = &self.lead[self.written..];
        let n = match (self.piece.is_empty(), self.tail.is_empty()) {
            (true, true) => ready!(Pin::new(io).poll_write(cx, lead))?,
            _ => {
                let slices =
                    [IoSlice::new(lead), IoSlice::new(&self.piece), IoSlice::new(self.tail)];
                ready!(Pin::new(io).poll_write_vectored(cx, &slices))?
            }
        };
        match n {
            0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            n => Poll::Ready(Ok(n)),
        }
    }

    fn advance(&mut self, written: usize) {
        self.begun = true;
        let of_lead = written.min(self.lead.len() - self.written);
        self.written += of_lead;
        let of_piece = (written - of_lead).min(self.piece.len());
        self.piece.advance(of_piece);
        self.tail = &self.tail[written - of_lead - of_piece..];
    }

    /// Takes the body's next frame.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Err(SendError::Body(error))),
            None => return Poll::Ready(self.end(None)),
        };
        let frame = match frame.into_data() {
            Ok(data) => {
                self.take_piece(data)?;
                // The end leaves with the last piece, if it is known by now.
                if self.body.is_end_stream() {
                    self.end(None)?;
                }
                return Poll::Ready(Ok(()));
            }
            Err(other) => other,
        };
        Poll::Ready(match frame.into_trailers() {
            Ok(trailers) => self.end(Some(&trailers)),
            Err(_unknown) => Ok(()),
        })
    }

    fn take_piece(&mut self, piece: Bytes) -> Result<(), SendError> {
        if piece.is_empty() {
            // An empty chunk would be the end.
            return Ok(());
        }
        match &mut self.framing {
            Framing::Length(left) => {
                *left = left.checked_sub(piece.len() as u64).ok_or(SendError::Length)?;
            }
            Framing::Chunked => {
                self.drop_written();
                // Writing to a vector does not fail.
                let _ = write!(self.lead, "{:x}\r\n", piece.len());
                self.tail = b"\r\n";
            }
        }
        self.piece = piece;
        Ok(())
    }

    fn end(&mut self, trailers: Option<&HeaderMap>) -> Result<(), SendError> {
        self.ended = true;
        match self.framing {
            Framing::Length(0) => return Ok(()),
            Framing::Length(_) => return Err(SendError::Length),
            Framing::Chunked => {}
        }
        let trailers = trailers.filter(|trailers| !trailers.is_empty());
        match trailers {
            // The last piece is still there.
            None if !self.piece.is_empty() => self.tail = b"\r\n0\r\n\r\n",
            None => {
                self.drop_written();
                self.lead.extend_from_slice(b"0\r\n\r\n");
            }
            Some(trailers) => {
                self.drop_written();
                self.lead.extend_from_slice(b"0\r\n");
                for (name, value) in trailers.iter().filter(|(name, _)| may_trail(name)) {
                    push_field(&mut self.lead, name, value.as_bytes());
                }
                self.lead.extend_from_slice(b"\r\n");
            }
        }
        Ok(())
    }

    /// Makes room in front: what was written is not needed again once there was a body.
    fn drop_written(&mut self) {
        self.lead.drain(..self.written);
        self.written = 0;
    }
}

/// Fields that tell how to read a message cannot follow it (RFC 9110 section 6.5.1).
pub(super) fn may_trail(name: &HeaderName) -> bool {
    !matches!(*name, CONTENT_LENGTH | TRANSFER_ENCODING | HOST | CONNECTION | TE | TRAILER)
}

fn encode_head(out: &mut Vec<u8>, head: &RequestHead, framing: Framing, bodyless: bool) {
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(target(head).as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let mut says_length = false;
    for (name, value) in &head.headers {
        if *name == CONTENT_LENGTH {
            says_length = true;
        } else if *name != TRANSFER_ENCODING {
            push_field(out, name, value.as_bytes());
        }
    }
    match framing {
        // Methods that are expected to have a body say that they have none (RFC 9110 section 8.6).
        Framing::Length(0) if bodyless && !says_length && !expects_body(&head.method) => {}
        Framing::Length(length) => {
            out.extend_from_slice(b"content-length: ");
            out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    out.extend_from_slice(b"\r\n");
}

fn target(head: &RequestHead) -> &str {
    match (&head.method, head.uri.authority()) {
        (&Method::CONNECT, Some(authority)) => authority.as_str(),
        _ => head.uri.path_and_query().map_or("/", |target| target.as_str()),
    }
}

fn expects_body(method: &Method) -> bool {
    !matches!(
        *method,
        Method::GET
            | Method::HEAD
            | Method::DELETE
            | Method::CONNECT
            | Method::OPTIONS
            | Method::TRACE
    )
}

fn push_field(out: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}
