//! Folds a listener's filters into one service, in the order they were given.
//!
//! Each run of neighbouring synchronous filters becomes one stage, so that a usual chain allocates
//! one or two futures a request. A route may disable a filter, or enable one that the listener
//! disabled; each filter stands behind a [`Gate`] that asks.
//!
//! Where configurations are discovered, a [`LiveChain`] is folded anew when one of them changes.
//! Requests in flight keep the chain that they began with.

use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::discovery::{Discovery, Extensions};
use super::registry::Factory;
use super::{Flow, HeadFilter, Stage, WorkerContext};
use crate::exchange::{Dispatch, HttpService, Request, ResponseFuture, StreamInfo};
use crate::route::{FilterOverride, Route};

/// A compiled chain: every filter with its gate, the router last.
pub struct FilterChain {
    entries: Vec<(Gate, Entry)>,
}

/// One filter of a chain.
pub enum Entry {
    /// Its configuration came with the listener.
    Given(Factory),
    /// Its configuration is discovered.
    Discovered(Box<Discovery>),
}

/// What each discovered filter of a chain runs on, in their order.
type Chosen = Vec<Option<Factory>>;

/// Whether a filter takes part in an exchange.
#[derive(Debug, Clone)]
pub struct Gate {
    /// The filter's name in the listener, by which routes refer to it.
    pub name: Arc<str>,
    /// Off unless the route says otherwise.
    pub disabled: bool,
}

impl Gate {
    fn is_open(&self, stream: &StreamInfo) -> bool {
        let route = stream.route.as_ref().and_then(|route| route.downcast_ref::<Route>());
        match route.and_then(|route| route.filter_override(&self.name)) {
            Some(FilterOverride::Disabled) => false,
            Some(FilterOverride::Config(_)) => true,
            None => !self.disabled,
        }
    }
}

impl FilterChain {
    /// A chain of compiled filters; the last must be terminal.
    pub fn new(entries: Vec<(Gate, Entry)>) -> Self {
        Self { entries }
    }

    /// The filters whose configuration is discovered.
    pub fn discoveries(&self) -> impl Iterator<Item = &Discovery> {
        self.entries.iter().filter_map(|(_, entry)| match entry {
            Entry::Given(_) => None,
            Entry::Discovered(discovery) => Some(&**discovery),
        })
    }

    /// The chain of one worker, with what is known of the discovered configurations.
    pub fn start(&self, found: &Extensions, cx: &WorkerContext) -> LiveChain {
        let begin = |discovery: &Discovery| discovery.choose(discovery.default(), found);
        let chosen: Chosen = self.discoveries().map(begin).collect();
        LiveChain { service: ArcSwap::from_pointee(self.build(&chosen, cx)), chosen: chosen.into() }
    }

    /// What each filter runs on, or that it has nothing to run on.
    fn factories<'a>(
        &'a self,
        chosen: &'a Chosen,
    ) -> impl Iterator<Item = (&'a Gate, Result<&'a Factory, &'a Discovery>)> {
        let mut chosen = chosen.iter();
        self.entries.iter().map(move |(gate, entry)| {
            let factory = match entry {
                Entry::Given(factory) => Ok(factory),
                Entry::Discovered(discovery) => {
                    chosen.next().and_then(Option::as_ref).ok_or(&**discovery)
                }
            };
            (gate, factory)
        })
    }

    fn build(&self, chosen: &Chosen, cx: &WorkerContext) -> HttpService {
        let stages = self.factories(chosen).map(|(gate, factory)| {
            let stage = match factory {
                Ok(factory) => factory.stage(cx),
                Err(discovery) => discovery.missing(),
            };
            (gate.clone(), stage)
        });
        fold(stages.collect())
    }
}

/// The chain of one worker.
pub struct LiveChain {
    service: ArcSwap<HttpService>,
    chosen: Mutex<Chosen>,
}

impl LiveChain {
    /// Sends a request through the chain as it is now.
    pub fn send(&self, request: Request) -> ResponseFuture {
        self.service.load().send(request)
    }

    /// Lets the filters begin what they do of their own accord; `front` is the way into this chain, `of`
    /// what it was started from.
    pub fn begin(&self, of: &FilterChain, cx: &WorkerContext, front: &HttpService) {
        let chosen = self.chosen.lock();
        let factories = of.factories(&chosen).filter_map(|(_, factory)| factory.ok());
        factories.for_each(|factory| factory.start(cx, front));
    }

    /// Takes up the discovered configurations that changed; false if none did. `of` is what it was started
    /// from.
    pub fn follow(&self, of: &FilterChain, found: &Extensions, cx: &WorkerContext) -> bool {
        let mut chosen = self.chosen.lock();
        let choose = |(discovery, now): (&Discovery, &Option<Factory>)| {
            discovery.choose(now.as_ref(), found)
        };
        let next: Chosen = of.discoveries().zip(&*chosen).map(choose).collect();
        let is_same = |(a, b): (&Option<Factory>, &Option<Factory>)| match (a, b) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        let changed = !next.iter().zip(&*chosen).all(is_same);
        if changed {
            // The old chain goes last: what its filters keep is found by those of the new one.
            self.service.store(Arc::new(of.build(&next, cx)));
            *chosen = next;
        }
        changed
    }
}

impl std::fmt::Debug for FilterChain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.entries.iter().map(|(gate, _)| gate)).finish()
    }
}

fn fold(stages: Vec<(Gate, Stage)>) -> HttpService {
    let mut next = HttpService::new(NoRouter);
    let mut run = Vec::new();
    for (gate, stage) in stages.into_iter().rev() {
        match stage {
            Stage::Terminal(service) => next = service,
            Stage::Head(filter) => run.push((gate, filter)),
            Stage::Layer(layer) => {
                next = end_run(&mut run, next);
                next = HttpService::new(Gated { gate, inside: layer.layer(next.clone()), next });
            }
        }
    }
    end_run(&mut run, next)
}

/// Makes one stage of the head filters collected so far, which came last first.
fn end_run(run: &mut Vec<(Gate, Arc<dyn HeadFilter>)>, next: HttpService) -> HttpService {
    if run.is_empty() {
        return next;
    }
    let mut filters = std::mem::take(run);
    filters.reverse();
    HttpService::new(HeadRun { filters, next })
}

/// Neighbouring head filters.
struct HeadRun {
    filters: Vec<(Gate, Arc<dyn HeadFilter>)>,
    next: HttpService,
}

impl Dispatch for HeadRun {
    fn dispatch(self: Arc<Self>, mut request: Request) -> ResponseFuture {
        Box::pin(async move {
            // Gates are asked once: a filter that changes the route must not unbalance the way back.
            let mut seen = smallvec::SmallVec::<[&Arc<dyn HeadFilter>; 8]>::new();
            let mut reply = None;
            for (gate, filter) in &self.filters {
                if !gate.is_open(&request.stream) {
                    continue;
                }
                seen.push(filter);
                if let Flow::Reply(local) =
                    filter.on_request(&mut request.stream, &mut request.head)
                {
                    reply = Some(local);
                    break;
                }
            }
            let mut response = match reply {
                Some(reply) => reply.into_response(request.stream),
                None => self.next.send(request).await?,
            };
            for filter in seen.iter().rev() {
                filter.on_response(&mut response.stream, &mut response.head, &mut response.body);
            }
            Ok(response)
        })
    }
}

/// A layer and the way around it.
struct Gated {
    gate: Gate,
    inside: HttpService,
    next: HttpService,
}

impl Dispatch for Gated {
    fn dispatch(self: Arc<Self>, request: Request) -> ResponseFuture {
        match self.gate.is_open(&request.stream) {
            true => self.inside.send(request),
            false => self.next.send(request),
        }
    }
}

/// Stands where a chain has no terminal filter; the compile step does not let that happen.
struct NoRouter;

impl Dispatch for NoRouter {
    fn dispatch(self: Arc<Self>, request: Request) -> ResponseFuture {
        Box::pin(async move {
            Ok(crate::exchange::LocalReply::route_not_found().into_response(request.stream))
        })
    }
}
