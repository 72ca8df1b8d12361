//! What the codecs of a connection have in common.

use std::future::Future;
use std::pin::Pin;

use thiserror::Error;

use super::exchange::Reset;
use super::http2::Failure;
use crate::http1::SendError;

/// What the two codecs' connections have in common.
pub(super) trait Codable: Future<Output = Ended> {
    fn graceful_shutdown(self: Pin<&mut Self>);
}

/// How a connection ended.
#[derive(Debug, Error)]
pub(super) enum Ended {
    /// As it should.
    #[error("it is over")]
    Well,
    /// Its socket failed.
    #[error("the socket failed: {0}")]
    Io(#[source] std::io::Error),
    /// A request could not be answered, and there is no other way to say so.
    #[error("{0}")]
    Reset(#[source] Reset),
    /// A response could not be sent whole.
    #[error("a response was cut short: {0}")]
    Unsent(#[source] SendError),
    /// Its streams could not go on.
    #[error("{0}")]
    Http2(#[source] Failure),
}
