//! Requests in the form of HTTP/1.1 (RFC 9112 sections 3 and 6).
//!
//! A [`Sending`] belongs to the request and not to the connection: as long as nothing of it was
//! written it can go on another one.

use std::task::{Context, Poll};

use http::Method;
use http::header::{CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING, UPGRADE};
use http_body::Body as _;
use tokio::io::AsyncWrite;

use crate::exchange::{Body, RequestHead};
use crate::http1::fields::push_field;
use crate::http1::{HeaderCase, Message, MessageFraming, SendError};
use crate::upstream::pool::settings::Http1Settings;

/// A usual head with the headers that proxies add.
const USUAL_HEAD: usize = 768;

/// A request on its way onto a connection.
pub(super) struct Sending {
    message: Message<Body>,
    /// There never was a body.
    bodyless: bool,
    /// What the body waits for.
    held: Option<Held>,
}

/// What the upstream must say before a body is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    /// That it wants it (RFC 9110 section 10.1.1).
    Continue,
    /// That it speaks another protocol from now on (RFC 9110 section 7.8), or is a tunnel.
    Switch,
}

impl Sending {
    pub(super) fn new(head: &RequestHead, body: Body, settings: Http1Settings) -> Self {
        let bodyless = body.is_end_stream();
        let switches = head.method == Method::CONNECT || head.headers.contains_key(UPGRADE);
        let framing = match body.size_hint().exact() {
            _ if bodyless => MessageFraming::Length(0),
            _ if switches => MessageFraming::Close,
            Some(length) => MessageFraming::Length(length),
            None => MessageFraming::Chunked { trailers: settings.trailers },
        };
        let held = match (bodyless, switches) {
            (true, _) => None,
            (false, true) => Some(Held::Switch),
            (false, false) => head.headers.contains_key(EXPECT).then_some(Held::Continue),
        };
        let case = HeaderCase::new(&head.extensions, settings.names);
        let mut lead = Vec::with_capacity(USUAL_HEAD);
        encode_head(&mut lead, head, framing, (bodyless, &case));
        Self { message: Message::new(lead, body, framing, case), bodyless, held }
    }

    /// What a tunnel carries to its far end: no message, but bytes.
    pub(super) fn raw(body: Body) -> Self {
        let message = Message::new(Vec::new(), body, MessageFraming::Close, HeaderCase::default());
        Self { message, bodyless: false, held: None }
    }

    /// Whether its end is that of its connection.
    pub(super) fn ends_connection(&self) -> bool {
        self.message.ends_connection()
    }

    /// Whether the body waits for the upstream to ask for it.
    pub(super) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Whether it waits for a `100 Continue`, which need not come.
    pub(super) fn awaits_continue(&self) -> bool {
        self.held == Some(Held::Continue)
    }

    /// The upstream wants the body.
    pub(super) fn go_on(&mut self) {
        if self.awaits_continue() {
            self.held = None;
        }
    }

    /// The upstream is a tunnel from now on, if it was asked to be one.
    pub(super) fn switch(&mut self) -> bool {
        self.held.take_if(|held| *held == Held::Switch).is_some()
    }

    /// Whether nothing of it was written yet.
    pub(super) fn is_unsent(&self) -> bool {
        self.message.is_unsent()
    }

    /// Makes it go out from its first byte again; false if it has a body, which is gone.
    pub(super) fn rewind(&mut self) -> bool {
        if !self.is_unsent() && !self.bodyless {
            return false;
        }
        self.message.rewind();
        true
    }

    /// Whether all of it was written.
    pub(super) fn is_done(&self) -> bool {
        self.message.is_done()
    }

    /// Writes what there is of it; ready when all of it is written, or it cannot be.
    pub(super) fn poll_send<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut W,
    ) -> Poll<Result<(), SendError>> {
        match self.held {
            None => self.message.poll_send(cx, io),
            Some(_) => match self.message.poll_head(cx, io) {
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                _ => Poll::Pending,
            },
        }
    }
}

fn encode_head(
    out: &mut Vec<u8>,
    head: &RequestHead,
    framing: MessageFraming,
    (bodyless, case): (bool, &HeaderCase),
) {
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(target(head).as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let mut says_length = false;
    for (name, value) in &head.headers {
        if *name == CONTENT_LENGTH {
            says_length = true;
        } else if *name != TRANSFER_ENCODING {
            push_field(out, &case.written(name), value.as_bytes());
        }
    }
    match framing {
        // Methods that are expected to have a body say that they have none (RFC 9110 section 8.6).
        MessageFraming::Length(0) if bodyless && !says_length && !expects_body(&head.method) => {}
        MessageFraming::Length(length) => {
            let mut digits = itoa::Buffer::new();
            let length = digits.format(length).as_bytes();
            push_field(out, &case.written(&CONTENT_LENGTH), length);
        }
        MessageFraming::Chunked { .. } => {
            push_field(out, &case.written(&TRANSFER_ENCODING), b"chunked");
        }
        MessageFraming::Close => {}
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
