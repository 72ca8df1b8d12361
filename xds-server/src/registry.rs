//! Who is connected, and how each takes what it is sent.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use nuncio::proto::envoy::config::core::v3::{Node, node::UserAgentVersionType};
use parking_lot::Mutex;

use crate::ledger::Nack;
use crate::machine::Core;
use crate::types::ResourceType;

/// One open stream.
#[derive(Debug, Clone)]
pub(crate) struct Stream {
    pub(crate) node: Node,
    pub(crate) group: Arc<str>,
    pub(crate) peer: Option<SocketAddr>,
    /// `ads`, or the key of the stream's only type.
    pub(crate) kind: &'static str,
    pub(crate) variant: &'static str,
    pub(crate) since: SystemTime,
    pub(crate) types: BTreeMap<ResourceType, TypeState>,
}

/// One type on one stream.
#[derive(Debug, Clone, Default)]
pub(crate) struct TypeState {
    pub(crate) wildcard: bool,
    pub(crate) names: usize,
    pub(crate) sent: Option<Arc<str>>,
    pub(crate) acked: Option<Arc<str>>,
    pub(crate) nonce: Option<Arc<str>>,
    pub(crate) outstanding: bool,
    pub(crate) nack: Option<Nack>,
}

impl TypeState {
    /// The state of a machine, for show.
    pub(crate) fn of(core: &Core) -> Self {
        Self {
            wildcard: core.subscription.is_wildcard(),
            names: core.subscription.names(),
            sent: core.ledger.sent.clone(),
            acked: core.ledger.acked.clone(),
            nonce: core.ledger.nonce.clone(),
            outstanding: core.ledger.outstanding,
            nack: core.ledger.nack.clone(),
        }
    }
}

/// The version a node says it runs; empty if it says none.
pub(crate) fn user_agent_version(node: &Node) -> &str {
    match &node.user_agent_version_type {
        Some(UserAgentVersionType::UserAgentVersion(version)) => version,
        None => "",
    }
}

/// The open streams, by the order in which they were opened.
#[derive(Debug, Default)]
pub(crate) struct Registry(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: u64,
    streams: BTreeMap<u64, Stream>,
}

impl Registry {
    /// Enters a stream for as long as the entry lives.
    pub(crate) fn enter(self: &Arc<Self>, stream: Stream) -> Entry {
        let mut state = self.0.lock();
        state.last += 1;
        let id = state.last;
        state.streams.insert(id, stream);
        Entry { registry: Arc::clone(self), id }
    }

    /// Every open stream with its number.
    pub(crate) fn streams(&self) -> Vec<(u64, Stream)> {
        self.0.lock().streams.iter().map(|(id, stream)| (*id, stream.clone())).collect()
    }

    /// Open streams by kind and variant.
    pub(crate) fn counts(&self) -> BTreeMap<(&'static str, &'static str), u64> {
        let mut counts = BTreeMap::new();
        for stream in self.0.lock().streams.values() {
            *counts.entry((stream.kind, stream.variant)).or_default() += 1;
        }
        counts
    }
}

/// A stream's place in the registry; dropping it takes the stream out.
#[derive(Debug)]
pub(crate) struct Entry {
    registry: Arc<Registry>,
    id: u64,
}

impl Entry {
    /// Changes what is shown of the stream.
    pub(crate) fn update(&self, change: impl FnOnce(&mut Stream)) {
        if let Some(stream) = self.registry.0.lock().streams.get_mut(&self.id) {
            change(stream);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.registry.0.lock().streams.remove(&self.id);
    }
}
