//! HTTP filters: what a request passes on its way to the router, and a response on its way back.
//!
//! There are two kinds. A [`HeadFilter`] looks at heads or swaps a body; it is synchronous, and a
//! run of neighbours shares one stage of the chain. A [`Filter`] may wait or wrap; it is a
//! `tower::Layer` over [`HttpService`]. Both live one file each and are listed in [`registry`].
//!
//! The configuration of any filter may be a resource of its own, discovered by name ([`discovery`]).
//! Configuration is compiled once ([`FilterFactory`]); each worker makes its own [`Stage`] of it.
//! [`chain`] folds the stages in the order the listener gave.

pub mod buffer;
pub mod cache;
pub mod chain;
pub mod compression;
pub mod discovery;
pub mod grpc_web;
mod head;
pub mod header_mutation;
pub mod kept;
pub mod on_demand;
pub mod registry;
pub mod router;
pub mod session;
pub mod stateful_session;

use std::any::Any;
use std::future::Future;
use std::sync::Arc;

use tokio::runtime::Handle;

use self::cache::SharedCache;
use self::kept::Kept;
use self::session::SessionTable;
use crate::coding::Slots;
use crate::exchange::deadline::Deadlines;
use crate::exchange::{
    Body, Dispatch, HttpService, LocalReply, Request, RequestHead, Response, ResponseFuture,
    ResponseHead, StreamInfo, StreamReset,
};
use crate::route::{FilterOverride, Route};
use crate::telemetry::Telemetry;
use crate::upstream::ClusterManager;

/// What a worker lends to the stages of its chains.
#[derive(Clone)]
pub struct WorkerContext {
    /// Which worker it is, from 0.
    pub worker: usize,
    /// The worker's view of the clusters.
    pub clusters: ClusterManager,
    /// The worker's timers.
    pub deadlines: Deadlines,
    /// Where sessions are kept, shared by the workers.
    pub sessions: Kept<SessionTable>,
    /// Where responses are stored, shared by the workers.
    pub caches: Kept<SharedCache>,
    /// Where codecs work beside the workers, shared by them.
    pub slots: Slots,
    /// Where work is done that no request waits for.
    pub background: Handle,
    /// Where virtual hosts are asked for.
    pub hosts: on_demand::Asker,
    /// Where filters count.
    pub telemetry: Telemetry,
}

/// What a [`HeadFilter`] wants done with a request.
#[derive(Debug)]
pub enum Flow {
    /// Pass it on.
    Continue,
    /// Answer it here.
    Reply(LocalReply),
}

/// A filter that only looks at and changes heads, or swaps a body.
pub trait HeadFilter: Send + Sync + 'static {
    /// The request on its way in.
    fn on_request(&self, _stream: &mut StreamInfo, _head: &mut RequestHead) -> Flow {
        Flow::Continue
    }

    /// The response on its way out; not called for a request this filter did not see.
    fn on_response(&self, _stream: &mut StreamInfo, _head: &mut ResponseHead, _body: &mut Body) {}
}

/// A filter that must wait, or wrap what is behind it.
pub trait Filter: Send + Sync + 'static {
    /// Answers `request`, or passes it to `next`.
    fn call(
        &self,
        request: Request,
        next: &HttpService,
    ) -> impl Future<Output = Result<Response, StreamReset>> + Send;
}

/// One filter of one worker's chain.
pub enum Stage {
    /// Synchronous.
    Head(Arc<dyn HeadFilter>),
    /// Asynchronous.
    Layer(Box<dyn tower::Layer<HttpService, Service = HttpService> + Send + Sync>),
    /// The end of the chain.
    Terminal(HttpService),
}

impl Stage {
    /// A stage of an asynchronous filter.
    pub fn layer(filter: impl Filter) -> Self {
        Self::Layer(Box::new(FilterLayer(Arc::new(filter))))
    }
}

/// The compiled configuration of a filter.
pub trait FilterFactory: Send + Sync + 'static {
    /// The filter's stage in a chain of one worker.
    fn stage(&self, cx: &WorkerContext) -> Stage;

    /// The chain is whole: what the filter does of its own accord may begin. Requests that it sends to
    /// `front` are routed and pass the whole chain, like those of a client; without a route table yet, or
    /// any more, they are answered 404.
    fn start(&self, _cx: &WorkerContext, _front: &HttpService) {}
}

/// The options that the matched route has for the filter `name`, if they are of type `T`.
pub fn route_config<T: Any + Send + Sync>(stream: &StreamInfo, name: &str) -> Option<Arc<T>> {
    let route = stream.route.as_ref()?.downcast_ref::<Route>()?;
    match route.filter_override(name)? {
        FilterOverride::Config(config) => Arc::downcast(Arc::clone(config)).ok(),
        FilterOverride::Disabled => None,
    }
}

struct FilterLayer<F>(Arc<F>);

impl<F: Filter> tower::Layer<HttpService> for FilterLayer<F> {
    type Service = HttpService;

    fn layer(&self, next: HttpService) -> HttpService {
        HttpService::new(Layered { filter: Arc::clone(&self.0), next })
    }
}

struct Layered<F> {
    filter: Arc<F>,
    next: HttpService,
}

impl<F: Filter> Dispatch for Layered<F> {
    fn dispatch(self: Arc<Self>, request: Request) -> ResponseFuture {
        Box::pin(async move { self.filter.call(request, &self.next).await })
    }
}
