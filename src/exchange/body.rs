//! Bodies: streamed, never copied, with back-pressure from whoever reads them.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use thiserror::Error;

use crate::coding;

/// A message body. Trailers come as its last frame.
#[derive(Default)]
pub enum Body {
    /// No bytes at all.
    #[default]
    Empty,
    /// All bytes at once.
    Full(Bytes),
    /// Anything else, such as a body a filter wraps around another.
    Boxed(Pin<Box<dyn http_body::Body<Data = Bytes, Error = BodyError> + Send>>),
}

/// Why a body broke off.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BodyError {
    /// The connection it came on failed, or its sender broke the protocol.
    #[error("the body broke off: {0}")]
    Connection(#[from] hyper::Error),
    /// The connection it came on ended first.
    #[error("the connection failed before the body's end: {0}")]
    Io(#[source] std::io::Error),
    /// Its sender broke the protocol.
    #[error("the body is malformed: {0}")]
    Malformed(&'static str),
    /// Nothing moved for too long.
    #[error("the body stalled")]
    Timeout,
    /// It was not whole in time, though it moved.
    #[error("the body took too long")]
    Late,
    /// It was fetched for many, and the fetch broke off.
    #[error("the response broke off while it was shared")]
    Shared,
    /// It grew over a limit.
    #[error("the body is larger than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// It could not be encoded or decoded, or came out of its coding too large.
    #[error("the body's content coding failed: {0}")]
    Coding(#[from] coding::Error),
    /// It is said to be in base64, and is not.
    #[error("the body is not in base64")]
    Base64,
}

impl BodyError {
    /// Details of the answer to a request whose body cannot be decoded.
    pub const UNDECODABLE: &'static str = "request_body_undecodable";
}

impl Body {
    /// Wraps any body of the same data and error.
    pub fn boxed(
        body: impl http_body::Body<Data = Bytes, Error = BodyError> + Send + 'static,
    ) -> Self {
        Self::Boxed(Box::pin(body))
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() { Self::Empty } else { Self::Full(bytes) }
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let body = self.get_mut();
        match body {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *body = Self::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Self::Boxed(boxed) => boxed.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(_) => false,
            Self::Boxed(boxed) => boxed.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Boxed(boxed) => boxed.size_hint(),
        }
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Full(bytes) => write!(f, "Full({} bytes)", bytes.len()),
            Self::Boxed(_) => f.write_str("Boxed"),
        }
    }
}
