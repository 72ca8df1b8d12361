//! The HTTP connection manager: a connection comes in, its requests go through the filter chain, and
//! responses go out.
//!
//! ```text
//! listener -> Hcm::serve   codec chosen; connection timers armed          connection.rs, codec.rs, http1/
//!             request::begin   StreamInfo born, headers made sane, route pinned  request.rs, sane.rs
//!             HttpService      the filters and the router
//!             respond::finish  late header work, body tracked to its end    respond.rs
//! ```
//!
//! An [`Hcm`] belongs to one worker and one version of a listener; a change of the listener makes a
//! new one, and connections of the old one drain.

mod client;
mod codec;
pub mod compile;
pub mod connection;
mod date;
mod exchange;
mod http1;
pub mod http2;
mod local_reply;
mod proxy_status;
mod request;
mod respond;
mod sane;
pub mod stats;
mod trust;
pub mod upgrade;

use std::sync::{Arc, Weak};

use arc_swap::ArcSwapOption;
use tokio::time::Instant;

pub use compile::{HcmConfig, RdsConfig, RouteSource};
pub use connection::Drain;

use crate::exchange::{
    Dispatch, HttpService, OnStreamEnd, Request, ResponseFlag, ResponseFuture, StreamInfo,
    StreamReset,
};
use crate::filter::WorkerContext;
use crate::filter::chain::LiveChain;
use crate::filter::discovery::Extensions;
use crate::route::{RouteTable, Tables};
use crate::telemetry::durations::Outcome;

/// The connection manager of one listener on one worker.
pub struct Hcm {
    pub(crate) config: Arc<HcmConfig>,
    chain: LiveChain,
    /// The route table now; none until the first one arrives.
    table: ArcSwapOption<RouteTable>,
    cx: WorkerContext,
}

impl Hcm {
    /// Builds the worker's chain of `config`, with what is known of discovered filters.
    pub fn new(config: Arc<HcmConfig>, found: &Extensions, cx: &WorkerContext) -> Self {
        let table = match &config.routes {
            RouteSource::Inline(table) => Some(Arc::clone(table)),
            RouteSource::Rds(_) => None,
        };
        let chain = config.filters.start(found, cx);
        Self { config, chain, table: ArcSwapOption::from(table), cx: cx.clone() }
    }

    /// Takes up the current version of its route table. One that was removed stays in use.
    pub fn follow_routes(&self, tables: &Tables) {
        if let RouteSource::Rds(rds) = &self.config.routes
            && let Some(table) = tables.get(&rds.name)
        {
            self.table.store(Some(Arc::clone(table)));
        }
    }

    /// Takes up the current configurations of discovered filters.
    pub fn follow_extensions(self: &Arc<Self>, found: &Extensions) {
        if self.chain.follow(&self.config.filters, found, &self.cx) {
            self.start();
        }
    }

    /// Lets its filters begin what they do of their own accord.
    pub fn start(self: &Arc<Self>) {
        let front = HttpService::new(Front(Arc::downgrade(self)));
        self.chain.begin(&self.config.filters, &self.cx, &front);
    }
}

/// The way in for requests of our own: they are routed and pass the whole chain. It is closed when the
/// connection manager is gone.
struct Front(Weak<Hcm>);

impl Dispatch for Front {
    fn dispatch(self: Arc<Self>, mut request: Request) -> ResponseFuture {
        Box::pin(async move {
            let Some(hcm) = self.0.upgrade() else {
                return Err(StreamReset::new(request.stream));
            };
            if let Some(table) = hcm.table.load_full() {
                request::find_route(&table, &request.head, &mut request.stream);
                request.stream.route_table = Some(table as _);
            }
            loop {
                match hcm.chain.send(request).await {
                    Ok(response) => return Ok(response),
                    Err(reset) => request = reset.into_request()?,
                }
            }
        })
    }
}

impl OnStreamEnd for Hcm {
    fn stream_ended(&self, stream: &mut StreamInfo) {
        let stats = &self.config.stats;
        if stream.status.is_none() && stream.flags.is_empty() {
            // Dropped on its way through the chain: nobody waits for the answer any more.
            stream.flags.set(ResponseFlag::DownstreamConnectionTermination);
            stream.details = "downstream_remote_disconnect";
        }
        stats.downstream_rq_active.dec();
        let ended = stream.ended.unwrap_or_else(Instant::now);
        let took = ended.saturating_duration_since(stream.start);
        stats.downstream_rq_time.record(took);
        let broke = if stream.complete { None } else { stream.flags.first() };
        let outcome = Outcome::new(stream.status, broke);
        self.config.durations.record((stream.method, stream.protocol), outcome, took);
        if stream.flags.has(ResponseFlag::StreamIdleTimeout) {
            stats.downstream_rq_idle_timeout.inc();
        }
        if stream.flags.has(ResponseFlag::DurationTimeout) {
            stats.downstream_rq_max_duration_reached.inc();
        }
        if !stream.complete && stream.flags.has(ResponseFlag::DownstreamConnectionTermination) {
            stats.downstream_rq_rx_reset.inc();
        }
        if !self.config.access_logs.is_empty() {
            self.config.access_logs.log(stream);
        }
    }
}
