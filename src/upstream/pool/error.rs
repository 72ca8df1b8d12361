//! Why an upstream gave no answer.

use std::error::Error as _;
use std::io;

use http::StatusCode;
use thiserror::Error;

use crate::exchange::{BodyError, LocalReply};

/// Why an upstream gave no answer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum UpstreamError {
    /// Too many requests wait for a connection.
    #[error("the circuit breaker is open")]
    Overflow,
    /// The connection could not be made.
    #[error("connecting failed: {0}")]
    ConnectFailure(#[source] io::Error),
    /// The connection was not made within `connect_timeout`.
    #[error("connecting took too long")]
    ConnectTimeout,
    /// The connection was closed before the response's head.
    #[error("the upstream closed the connection before it answered")]
    Terminated,
    /// The upstream reset the stream before the response's head.
    #[error("the upstream reset the stream before it answered")]
    RemoteReset,
    /// The response's head did not come within `response_header_timeout`.
    #[error("the upstream took too long to answer")]
    ResponseHeaderTimeout,
    /// The upstream refused the stream (`REFUSED_STREAM`): it has not acted on it.
    #[error("the upstream refused the stream")]
    Refused,
    /// The answer was not HTTP, or the request cannot be put into the upstream's protocol.
    #[error("the upstream broke the protocol")]
    Protocol,
    /// The request's body broke off while it was sent.
    #[error("the request's body broke off: {0}")]
    RequestBody(RequestBodyError),
}

/// Why a request's body broke off: a [`BodyError`] without its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RequestBodyError {
    /// The client's connection failed.
    #[error("the client is gone")]
    Connection,
    /// The client broke the protocol.
    #[error("the client broke the protocol")]
    Malformed,
    /// Nothing came for too long.
    #[error("the client stalled")]
    Timeout,
    /// The rest did not come in time.
    #[error("the client took too long")]
    Late,
    /// It grew over a limit.
    #[error("it is too large")]
    TooLarge,
    /// Its content coding is broken.
    #[error("it cannot be decoded")]
    Undecodable,
}

impl From<&BodyError> for RequestBodyError {
    fn from(error: &BodyError) -> Self {
        match error {
            BodyError::Connection(_) | BodyError::Io(_) | BodyError::Shared => Self::Connection,
            BodyError::Malformed(_) => Self::Malformed,
            BodyError::Timeout => Self::Timeout,
            BodyError::Late => Self::Late,
            BodyError::TooLarge { .. } => Self::TooLarge,
            BodyError::Coding(error) if error.is_too_large() => Self::TooLarge,
            BodyError::Coding(_) | BodyError::Base64 => Self::Undecodable,
        }
    }
}

impl UpstreamError {
    /// The answer to give instead.
    pub fn reply(&self) -> LocalReply {
        match self {
            Self::Overflow => LocalReply::overflow(),
            Self::ConnectFailure(_) => LocalReply::connect_failure(),
            Self::ConnectTimeout => LocalReply::connect_timeout(),
            Self::Terminated => LocalReply::connection_termination(),
            Self::RemoteReset | Self::Refused => LocalReply::remote_reset(),
            Self::ResponseHeaderTimeout => LocalReply::upstream_timeout(),
            Self::Protocol => LocalReply::upstream_protocol_error(),
            Self::RequestBody(RequestBodyError::Connection) => {
                LocalReply::bad_request("downstream_remote_disconnect")
            }
            Self::RequestBody(RequestBodyError::Malformed) => {
                LocalReply::bad_request("http1.codec_error")
            }
            Self::RequestBody(RequestBodyError::Timeout) => LocalReply::stream_idle_timeout(false),
            Self::RequestBody(RequestBodyError::Late) => LocalReply::request_timeout(),
            Self::RequestBody(RequestBodyError::TooLarge) => LocalReply::payload_too_large(),
            Self::RequestBody(RequestBodyError::Undecodable) => {
                LocalReply::bad_request(BodyError::UNDECODABLE)
            }
        }
    }

    /// The client broke off; the upstream had no part in it.
    pub fn is_clients(&self) -> bool {
        matches!(self, Self::RequestBody(_))
    }

    /// The status of [`UpstreamError::reply`].
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Overflow
            | Self::ConnectFailure(_)
            | Self::ConnectTimeout
            | Self::Terminated
            | Self::RemoteReset
            | Self::Refused => StatusCode::SERVICE_UNAVAILABLE,
            Self::ResponseHeaderTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Protocol => StatusCode::BAD_GATEWAY,
            Self::RequestBody(
                RequestBodyError::Connection
                | RequestBodyError::Malformed
                | RequestBodyError::Undecodable,
            ) => StatusCode::BAD_REQUEST,
            Self::RequestBody(RequestBodyError::Timeout | RequestBodyError::Late) => {
                StatusCode::REQUEST_TIMEOUT
            }
            Self::RequestBody(RequestBodyError::TooLarge) => StatusCode::PAYLOAD_TOO_LARGE,
        }
    }

    /// What an error on a connection that was made means for the request on it.
    pub(super) fn of(error: &hyper::Error) -> Self {
        let mut source = error.source();
        while let Some(cause) = source {
            if let Some(body) = cause.downcast_ref::<BodyError>() {
                return Self::RequestBody(body.into());
            }
            if let Some(h2) = cause.downcast_ref::<h2::Error>() {
                return match () {
                    () if h2.is_remote() && h2.reason() == Some(h2::Reason::REFUSED_STREAM) => {
                        Self::Refused
                    }
                    () if h2.is_reset() && h2.is_remote() => Self::RemoteReset,
                    () if h2.is_io() || h2.is_go_away() && h2.is_remote() => Self::Terminated,
                    () => Self::Protocol,
                };
            }
            source = cause.source();
        }
        match error.is_parse() || error.is_user() {
            true => Self::Protocol,
            false => Self::Terminated,
        }
    }
}

/// A failure to connect, for everybody who waited for the connection.
#[derive(Debug, Clone)]
pub(super) enum SharedFailure {
    Timeout,
    Failure(io::ErrorKind, String),
}

impl From<&UpstreamError> for SharedFailure {
    fn from(error: &UpstreamError) -> Self {
        match error {
            UpstreamError::ConnectTimeout => Self::Timeout,
            UpstreamError::ConnectFailure(e) => Self::Failure(e.kind(), e.to_string()),
            other => Self::Failure(io::ErrorKind::Other, other.to_string()),
        }
    }
}

impl SharedFailure {
    pub(super) fn error(&self) -> UpstreamError {
        match self {
            Self::Timeout => UpstreamError::ConnectTimeout,
            Self::Failure(kind, text) => {
                UpstreamError::ConnectFailure(io::Error::new(*kind, text.clone()))
            }
        }
    }
}
