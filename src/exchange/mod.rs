//! One request and its answer: the vocabulary that routing, filters and upstreams share.
//!
//! A [`Request`] owns the [`StreamInfo`] of its exchange; whoever answers moves it into the
//! [`Response`]. Where the exchange ends, however it ends, the `StreamInfo` is dropped, and that
//! closes the books on it exactly once.
//!
//! The stages of a request are [`HttpService`]s: `tower` services over one erased type, so that a
//! chain can be put together at run time. A service is always ready; admission is the circuit
//! breakers' business.

pub mod body;
pub mod deadline;
pub mod grpc;
pub mod grpc_timeout;
pub mod headers;
pub mod interim;
pub mod known_method;
pub mod local_reply;
pub mod path;
pub mod stream_info;
pub mod upgrade;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

pub use body::{Body, BodyError};
pub use known_method::KnownMethod;
pub use local_reply::{LocalReply, LocalReplyForm};
pub use stream_info::{
    BodyProgress, Client, Downstream, OnStreamEnd, OverrideHost, ResponseFlag, ResponseFlags,
    StreamInfo,
};

/// Which of a cluster's circuit breakers a request counts against:
/// `config.core.v3.RoutingPriority`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RoutingPriority {
    /// `DEFAULT`.
    #[default]
    Default,
    /// `HIGH`.
    High,
}

/// Everything of a request but its body.
pub type RequestHead = http::request::Parts;
/// Everything of a response but its body.
pub type ResponseHead = http::response::Parts;

/// A request on its way to an upstream.
#[derive(Debug)]
pub struct Request {
    /// Method, target, headers.
    pub head: RequestHead,
    /// The body, streamed.
    pub body: Body,
    /// What is known about the exchange.
    pub stream: Box<StreamInfo>,
}

/// A response on its way to the client.
#[derive(Debug)]
pub struct Response {
    /// Status and headers.
    pub head: ResponseHead,
    /// The body, streamed.
    pub body: Body,
    /// What is known about the exchange.
    pub stream: Box<StreamInfo>,
}

/// An exchange that can no longer be answered: the client's stream is reset, unless it begins anew.
#[derive(Debug)]
pub struct StreamReset {
    /// What is known about the exchange; its flags and details say why it was reset.
    pub stream: Box<StreamInfo>,
    again: Option<Box<(RequestHead, Body)>>,
}

impl StreamReset {
    /// The stream is reset.
    pub fn new(stream: Box<StreamInfo>) -> Self {
        Self { stream, again: None }
    }

    /// Instead of an answer the exchange begins anew with another request: it goes through the whole
    /// chain, whose stages see the end of the first one only.
    pub fn again(head: RequestHead, body: Body, stream: Box<StreamInfo>) -> Self {
        Self { stream, again: Some(Box::new((head, body))) }
    }

    /// The request to begin anew with, if that is what is wanted.
    ///
    /// # Errors
    /// The reset, if it is one.
    pub fn into_request(self) -> Result<Request, Self> {
        let Self { stream, again } = self;
        match again {
            Some(again) => {
                let (head, body) = *again;
                Ok(Request { head, body, stream })
            }
            None => Err(Self { stream, again: None }),
        }
    }
}

/// What a stage of the chain returns.
pub type ResponseFuture = Pin<Box<dyn Future<Output = Result<Response, StreamReset>> + Send>>;

/// The erased form of a stage. Its method is not called `call`: beside `tower::Service` method
/// lookup would find the wrong one.
pub trait Dispatch: Send + Sync + 'static {
    /// Answers `request`, or passes it on.
    fn dispatch(self: Arc<Self>, request: Request) -> ResponseFuture;
}

/// A stage of the chain with everything behind it. A clone is one count up.
#[derive(Clone)]
pub struct HttpService(Arc<dyn Dispatch>);

impl HttpService {
    /// Erases `stage`.
    pub fn new(stage: impl Dispatch) -> Self {
        Self(Arc::new(stage))
    }

    /// Answers `request`.
    pub fn send(&self, request: Request) -> ResponseFuture {
        Arc::clone(&self.0).dispatch(request)
    }
}

impl std::fmt::Debug for HttpService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HttpService")
    }
}

impl tower::Service<Request> for HttpService {
    type Response = Response;
    type Error = StreamReset;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StreamReset>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> ResponseFuture {
        self.send(request)
    }
}
