//! The client side of xDS: streams, subscriptions, answers. It knows type URLs, not their meaning.
//!
//! ```text
//! grpc, file       bytes <-> messages; connect, back off, watch         tasks, one a stream or file
//! link             subscribe and verdict from anywhere; wakes the task
//! mux              one stream, many types; node, rate limit, order
//! sotw, delta      one type: names, versions, nonces, lifetimes        pure: no I/O, time is given
//! turn, wrapper    one answer for each response; what travels in an Any
//! ```
//!
//! Control holds an [`Xds`] and reads [`Events`]. Every [`Update`] wants one verdict, and control
//! subscribes to what follows from an update before it gives it, so that the server hears of both
//! in that order. Resources are handed on undecoded; whether one is good is control's to say.
//!
//! Versions accepted by an earlier process are never claimed: a version is only a name the server
//! gave, another server may give it to something else, and a wrong claim would never be corrected.

mod backoff;
mod delta;
mod file;
mod grpc;
mod link;
mod machine;
mod mux;
mod node;
mod rate;
mod sotw;
mod stats;
mod ttl;
mod turn;
mod types;
mod watch;
mod wrapper;

#[cfg(test)]
mod simulation;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tracing::error;

use crate::proto::envoy::config::core::v3::Node;

pub use backoff::{BackoffError, BackoffOptions};
pub use file::FileDecoder;
pub use grpc::GrpcOptions;
pub use rate::{RateLimit, RateLimitError};
pub use stats::{Count, SourceStatus, StreamStats, TypeStats, TypeStatus};
pub use types::{
    Event, Rejection, Resource, ResourceType, Source, Update, UpdateToken, Variant, Verdict,
};

/// What happens on all streams, in order for each.
pub type Events = mpsc::Receiver<Event>;

/// The handle to all subscriptions. Clones are the same; dropping the last ends every stream.
#[derive(Clone)]
pub struct Xds(Arc<Inner>);

struct Inner {
    node: Node,
    decode: FileDecoder,
    events: mpsc::Sender<Event>,
    runtime: Handle,
    watch: Arc<watch::DirectoryWatch>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    servers: HashMap<Source, Arc<GrpcOptions>>,
    watched_directories: HashMap<PathBuf, PathBuf>,
    streams: HashMap<(Source, Option<ResourceType>), Running>,
}

/// A stream or file that is subscribed to, and its task.
struct Running {
    port: Arc<dyn link::Port>,
    task: AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Xds {
    /// Starts with no subscriptions. `capacity` is the number of events that may wait for control;
    /// `decode` reads resource files. Streams will run on the present runtime.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(node: Node, capacity: usize, decode: FileDecoder) -> (Self, Events) {
        let (events, receiver) = mpsc::channel(capacity.max(1));
        let inner = Inner {
            node: node::complete(node),
            decode,
            events,
            runtime: Handle::current(),
            watch: Arc::default(),
            state: Mutex::default(),
        };
        (Self(Arc::new(inner)), receiver)
    }

    /// Says how to reach [`Source::Ads`] or a [`Source::Grpc`]. The first subscription opens the
    /// stream; options given after that are for streams not yet open.
    pub fn add_grpc(&self, source: Source, options: GrpcOptions) {
        self.0.state.lock().servers.insert(source, Arc::new(options));
    }

    /// Says that a [`Source::File`] is replaced when something is renamed in `directory`, not in
    /// its own. `PathConfigSource.watched_directory`; to be called before subscribing.
    pub fn watch_directory(&self, path: PathBuf, directory: PathBuf) {
        self.0.state.lock().watched_directories.insert(path, directory);
    }

    /// Subscribes to every resource of a type.
    pub fn subscribe_all(&self, source: &Source, ty: ResourceType) {
        if let Some(port) = self.0.port(source, ty) {
            port.subscribe_all(ty);
        }
    }

    /// Subscribes to names besides those subscribed to. One that already is changes nothing:
    /// counting who uses it is the caller's.
    pub fn subscribe(&self, source: &Source, ty: ResourceType, names: &[Arc<str>]) {
        if names.is_empty() {
            return;
        }
        if let Some(port) = self.0.port(source, ty) {
            port.subscribe(ty, names);
        }
    }

    /// Gives up names. The caller forgets the resources: a later subscription brings them again.
    pub fn unsubscribe(&self, source: &Source, ty: ResourceType, names: &[Arc<str>]) {
        if let Some(port) = self.0.find(source, ty) {
            port.unsubscribe(ty, names);
        }
    }

    /// Answers an update, once. Subscription changes made before it reach the server no later.
    pub fn verdict(&self, token: UpdateToken, verdict: Verdict) {
        if let Some(port) = self.0.find(&token.source, token.ty) {
            port.decide(&token, &verdict);
        }
    }

    /// The state of every stream and file subscribed to, in no particular order.
    pub fn status(&self) -> Vec<SourceStatus> {
        let state = self.0.state.lock();
        state.streams.values().map(|running| running.port.status()).collect()
    }
}

impl Inner {
    fn find(&self, source: &Source, ty: ResourceType) -> Option<Arc<dyn link::Port>> {
        let state = self.state.lock();
        state.streams.get(&key(source, ty)).map(|running| running.port.clone())
    }

    /// The stream for a type at a source, opened if it is not.
    fn port(&self, source: &Source, ty: ResourceType) -> Option<Arc<dyn link::Port>> {
        let mut state = self.state.lock();
        let key = key(source, ty);
        if let Some(running) = state.streams.get(&key) {
            return Some(running.port.clone());
        }
        let running = match source {
            Source::File(path) => {
                let watched = state.watched_directories.get(path).cloned();
                let link = Arc::new(file::FileLink::new(path.clone(), watched, ty));
                let (watch, events) = (self.watch.clone(), self.events.clone());
                let run = file::run(link.clone(), watch, self.decode, events);
                Running { port: link, task: self.runtime.spawn(run).abort_handle() }
            }
            Source::Ads | Source::Grpc(_) => {
                let Some(options) = state.servers.get(source) else {
                    error!(%source, %ty, "subscription at a source that was never added");
                    return None;
                };
                match options.variant {
                    Variant::Sotw => self.open::<sotw::Sotw>(&key, options.clone()),
                    Variant::Delta => self.open::<delta::Delta>(&key, options.clone()),
                }
            }
        };
        let port = running.port.clone();
        state.streams.insert(key, running);
        Some(port)
    }

    fn open<M: machine::Machine>(
        &self,
        (source, only): &(Source, Option<ResourceType>),
        options: Arc<GrpcOptions>,
    ) -> Running {
        let node = mux::NodePolicy {
            node: self.node.clone(),
            first_only: options.set_node_on_first_message_only,
        };
        let bucket = options.rate_limit.map(rate::Bucket::new);
        let link =
            Arc::new(link::Link::<M>::new(mux::Mux::new(source.clone(), *only, node, bucket)));
        let method = grpc::method(*only, M::VARIANT);
        let run = grpc::run(link.clone(), options, method, self.events.clone());
        Running { port: link, task: self.runtime.spawn(run).abort_handle() }
    }
}

/// The aggregated stream carries all types; any other source has one stream, or reader, for each.
fn key(source: &Source, ty: ResourceType) -> (Source, Option<ResourceType>) {
    (source.clone(), (*source != Source::Ads).then_some(ty))
}

impl std::fmt::Debug for Xds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Xds").field("streams", &self.0.state.lock().streams.len()).finish()
    }
}
