//! One connection: a request goes out, the head of its response comes in, both in the task of whoever
//! asked. Nothing runs on it in between; a connection that the upstream closed while it was idle is
//! found out when it is looked at.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::{Method, StatusCode};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::time::Instant;

use super::decode::{self, Head};
use super::encode::Sending;
use super::upload::Upload;
use crate::exchange::RequestHead;
use crate::exchange::interim::Interim;
use crate::http1::receive::read_into;
use crate::http1::{Malformed, SendError, Source};
use crate::net::ShortWrites;
use crate::upstream::pool::connect::ConnectionGuard;
use crate::upstream::pool::error::{RequestBodyError, UpstreamError};
use crate::upstream::pool::patience::Patience;
use crate::upstream::pool::settings::ConnectionSettings;

/// Bytes asked for when a head is expected; a short body comes with it.
const FIRST_READ: usize = 8 * 1024;

/// Bytes asked for at the most. There is room for so many while an origin is waited for.
const LARGEST_READ: usize = 96 * 1024;

/// One connection, idle or held by the request on it.
pub(in crate::upstream::pool) struct Connection {
    io: Io,
    buffer: BytesMut,
    pub(super) opened: Instant,
    pub(super) served: u32,
    _guard: ConnectionGuard,
}

enum Io {
    Whole(ShortWrites<TcpStream>),
    /// The other half goes on sending a request whose response has begun.
    Reading(OwnedReadHalf),
    Lost,
}

/// What came of a request.
pub(super) struct Failure {
    pub(super) error: UpstreamError,
    /// Not one byte came back.
    pub(super) silent: bool,
}

impl From<UpstreamError> for Failure {
    fn from(error: UpstreamError) -> Self {
        Self { error, silent: false }
    }
}

/// The answer to one request, as far as it has come.
pub(super) struct Receiving<'a> {
    /// The request's: its method says whether the answer has a body, an extension of it where interim
    /// responses go.
    pub(super) head: &'a RequestHead,
    settings: &'a ConnectionSettings,
    /// Received and not yet understood: after the head, the body's beginning.
    pub(super) input: Bytes,
    /// Something came, be it an interim response.
    pub(super) heard: bool,
    /// The upstream takes nothing more of the request.
    pub(super) deaf: bool,
    /// For the head, once the request is sent.
    header_timeout: Patience,
    /// For the upstream's wish for the body.
    continue_timeout: Patience,
}

impl<'a> Receiving<'a> {
    pub(super) fn new(head: &'a RequestHead, settings: &'a ConnectionSettings) -> Self {
        Self {
            head,
            settings,
            input: Bytes::new(),
            heard: false,
            deaf: false,
            header_timeout: Patience::default(),
            continue_timeout: Patience::default(),
        }
    }
}

impl Connection {
    pub(super) fn new(stream: TcpStream, guard: ConnectionGuard) -> Self {
        Self {
            io: Io::Whole(ShortWrites(stream)),
            buffer: BytesMut::new(),
            opened: Instant::now(),
            served: 0,
            _guard: guard,
        }
    }

    /// Whether an idle connection is as it was left: open, and nothing came on it. No system call
    /// unless the system has said that there is something.
    pub(super) fn is_fresh(&self) -> bool {
        let Io::Whole(stream) = &self.io else { return false };
        let nothing = stream.0.try_read(&mut [0]);
        nothing.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Makes it ready to wait for another request.
    pub(super) fn rest(&mut self) {
        self.buffer = BytesMut::new();
    }

    /// Sends the request and waits for its response's head.
    pub(super) fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        sending: &mut Sending,
        receiving: &mut Receiving<'_>,
    ) -> Poll<Result<Head, Failure>> {
        let settings = receiving.settings;
        loop {
            let was_held = sending.awaits_continue();
            if let Poll::Ready(answer) = self.poll_exchange(cx, sending, receiving) {
                return Poll::Ready(answer);
            }
            let limit = Some(settings.expect_continue_timeout);
            if was_held && receiving.continue_timeout.poll_over(cx, limit).is_ready() {
                sending.go_on();
            }
            if was_held == sending.awaits_continue() {
                break;
            }
        }
        let limit = settings.response_header_timeout;
        if sending.is_done() && receiving.header_timeout.poll_over(cx, limit).is_ready() {
            return Poll::Ready(Err(UpstreamError::ResponseHeaderTimeout.into()));
        }
        Poll::Pending
    }

    fn poll_exchange(
        &mut self,
        cx: &mut Context<'_>,
        sending: &mut Sending,
        receiving: &mut Receiving<'_>,
    ) -> Poll<Result<Head, Failure>> {
        if let Io::Whole(stream) = &mut self.io
            && !receiving.deaf
            && !sending.is_done()
        {
            match sending.poll_send(cx, stream) {
                Poll::Ready(Ok(())) | Poll::Pending => {}
                // Perhaps it has said why.
                Poll::Ready(Err(SendError::Io)) => receiving.deaf = true,
                Poll::Ready(Err(SendError::Length)) => {
                    return Poll::Ready(Err(UpstreamError::Protocol.into()));
                }
                Poll::Ready(Err(SendError::Body(error))) => {
                    let error = RequestBodyError::from(&error);
                    return Poll::Ready(Err(UpstreamError::RequestBody(error).into()));
                }
            }
        }
        loop {
            match next_head(receiving, sending) {
                Ok(Some(head)) => return Poll::Ready(Ok(head)),
                Ok(None) => {}
                Err(Malformed(reason)) => {
                    tracing::debug!(reason, "an upstream's response is malformed");
                    return Poll::Ready(Err(UpstreamError::Protocol.into()));
                }
            }
            let more = match ready!(self.poll_read(cx, FIRST_READ)) {
                Ok(more) if !more.is_empty() => more,
                Ok(_) | Err(_) => {
                    let silent = !receiving.heard;
                    let error = UpstreamError::Terminated;
                    return Poll::Ready(Err(Failure { error, silent }));
                }
            };
            receiving.heard = true;
            receiving.input = match receiving.input.is_empty() {
                true => more,
                false => [&receiving.input[..], &more].concat().into(),
            };
        }
    }

    /// Lets the rest of a request be sent while its response is read.
    pub(super) fn split_off(&mut self, sending: Sending) -> Option<Upload> {
        match std::mem::replace(&mut self.io, Io::Lost) {
            Io::Whole(stream) => {
                let (read, write) = stream.0.into_split();
                self.io = Io::Reading(read);
                Some(Upload::start(sending, write))
            }
            Io::Reading(_) | Io::Lost => None,
        }
    }

    /// Takes back what [`Self::split_off`] gave away; false if the upload was not whole.
    pub(super) fn join(&mut self, cx: &mut Context<'_>, upload: Upload) -> bool {
        let (Some(write), Io::Reading(read)) =
            (upload.finished(cx), std::mem::replace(&mut self.io, Io::Lost))
        else {
            return false;
        };
        match read.reunite(write) {
            Ok(stream) => self.io = Io::Whole(ShortWrites(stream)),
            Err(_never) => return false,
        }
        true
    }
}

/// The head at the front of the input, if it is all there. Interim responses before it are
/// passed on or dropped (RFC 9110 section 15.2); a switch of protocols is one that nobody asked for.
fn next_head(
    receiving: &mut Receiving<'_>,
    sending: &mut Sending,
) -> Result<Option<Head>, Malformed> {
    while !receiving.input.is_empty() {
        let found = decode::head(&receiving.input, &receiving.head.method, receiving.settings)?;
        let Some(head) = found else { return Ok(None) };
        receiving.input.advance(head.len);
        match head.parts.status {
            StatusCode::SWITCHING_PROTOCOLS if sending.switch() => return Ok(Some(head)),
            StatusCode::SWITCHING_PROTOCOLS => return Err(Malformed("a switch of protocols")),
            StatusCode::CONTINUE => sending.go_on(),
            status if status.is_informational() => {
                if let Some(Interim(sink)) = receiving.head.extensions.get() {
                    sink.send(status, &head.parts.headers);
                }
            }
            status => {
                if receiving.head.method == Method::CONNECT && status.is_success() {
                    sending.switch();
                }
                return Ok(Some(head));
            }
        }
    }
    Ok(None)
}

impl Source for Connection {
    fn poll_read(&mut self, cx: &mut Context<'_>, want: usize) -> Poll<io::Result<Bytes>> {
        read_into(&mut self.io, &mut self.buffer, cx, want.min(LARGEST_READ))
    }
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Whole(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Reading(read) => Pin::new(read).poll_read(cx, buf),
            Self::Lost => Poll::Ready(Ok(())),
        }
    }
}
