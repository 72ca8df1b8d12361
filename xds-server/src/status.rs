//! The documents of the status API, as JSON by serde. Times are RFC 3339, in UTC.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;

use crate::cache::World;
use crate::problem::Problem;
use crate::registry::{Registry, TypeState, user_agent_version};
use crate::types::ResourceType;

/// `GET /status`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// Version of the server.
    pub version: &'static str,
    /// When it started.
    pub started: String,
    /// Seconds since.
    pub uptime_seconds: u64,
    /// Proxies with at least one stream open, by node.
    pub proxies: Vec<Proxy>,
    /// Groups of nodes and how their sets were taken.
    pub groups: Vec<Group>,
    /// What is wrong with the source as a whole; each group keeps what it has.
    pub errors: Vec<Problem>,
}

/// One connected proxy: all streams of one node.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Proxy {
    /// `node.id`.
    pub node_id: String,
    /// `node.cluster`.
    pub node_cluster: String,
    /// `node.user_agent_name`: `envoy`, `nuncio`.
    pub user_agent: String,
    /// `node.user_agent_version`; empty if the node gives none or in another form.
    pub user_agent_version: String,
    /// The group it is served.
    pub group: Arc<str>,
    /// When the oldest of its streams was opened.
    pub connected_since: String,
    /// Seconds since.
    pub connected_seconds: u64,
    /// Its streams, oldest first.
    pub streams: Vec<Stream>,
    /// Every type it asked for on each of them.
    pub types: Vec<Type>,
}

/// One open stream.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stream {
    /// Number of the stream, unique in the life of the server.
    pub id: u64,
    /// `ads`, or the only type of the stream: `clusters`, `endpoints`, ...
    pub stream: &'static str,
    /// `sotw` or `delta`.
    pub variant: &'static str,
    /// The address it comes from.
    pub peer: Option<SocketAddr>,
    /// When it was opened.
    pub connected_since: String,
    /// Seconds since.
    pub connected_seconds: u64,
}

/// One type on one stream.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Type {
    /// `clusters`, `endpoints`, `listeners`, `routes` or `secrets`.
    pub r#type: &'static str,
    /// Its type URL.
    pub type_url: &'static str,
    /// The stream's number.
    pub stream: u64,
    /// Whether everything is subscribed.
    pub wildcard: bool,
    /// How many names are subscribed one by one.
    pub names: usize,
    /// How the last response was taken: `none` was sent, `waiting`, `acked` or `nacked`.
    pub state: &'static str,
    /// Version of the last response.
    pub version_sent: Option<Arc<str>>,
    /// Version of the last response that was accepted.
    pub version_acked: Option<Arc<str>>,
    /// Nonce of the last response.
    pub nonce: Option<Arc<str>>,
    /// The last refusal on this stream, also when later responses were accepted.
    pub last_nack: Option<Nack>,
}

/// A refusal by a proxy.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Nack {
    /// What the proxy said.
    pub message: String,
    /// The version it refused.
    pub version: Arc<str>,
    /// The nonce of the response it refused.
    pub nonce: Arc<str>,
    /// When.
    pub since: String,
}

/// One group of nodes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Group {
    /// Its name; `default` is the group of nodes that no rule fits.
    pub name: Arc<str>,
    /// When the set in service was accepted; `null` if there is none.
    pub accepted: Option<String>,
    /// What is wrong with the newest set. Empty: it is the one in service.
    pub errors: Vec<Problem>,
    /// Since when it is refused for these.
    pub refused: Option<String>,
    /// Doubts about the set in service.
    pub warnings: Vec<Problem>,
}

/// `GET /snapshot?group=NAME`: what is served.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Served {
    /// The group.
    pub group: Arc<str>,
    /// When the set was accepted.
    pub accepted: Option<String>,
    /// Each type, by its key.
    pub types: BTreeMap<&'static str, ServedType>,
}

/// One type of a group's set.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ServedType {
    /// Version of the whole, as in state-of-the-world responses.
    pub version: Arc<str>,
    /// Version of each resource, as in delta responses, by name.
    pub resources: BTreeMap<Arc<str>, Arc<str>>,
}

/// Makes the `/status` document.
pub(crate) fn status(
    world: &World,
    registry: &Registry,
    started: SystemTime,
    now: SystemTime,
) -> Status {
    Status {
        version: env!("CARGO_PKG_VERSION"),
        started: rfc3339(started),
        uptime_seconds: seconds(started, now),
        proxies: proxies(registry, now),
        groups: world.groups.iter().map(|(name, state)| group(name, state)).collect(),
        errors: world.errors.clone(),
    }
}

/// Makes the `/snapshot` document; `None` for a group that is unknown or has no set.
pub(crate) fn served(world: &World, group: &str) -> Option<Served> {
    let (name, state) = world.groups.get_key_value(group)?;
    let snapshot = state.snapshot.as_ref()?;
    let served_type = |ty: ResourceType| {
        let set = snapshot.set(ty);
        let versions = set.resources.iter().map(|(n, r)| (Arc::clone(n), Arc::clone(&r.version)));
        let served =
            ServedType { version: Arc::clone(&set.version), resources: versions.collect() };
        (ty.key(), served)
    };
    Some(Served {
        group: Arc::clone(name),
        accepted: state.accepted.map(rfc3339),
        types: ResourceType::ALL.into_iter().map(served_type).collect(),
    })
}

fn group(name: &Arc<str>, state: &crate::cache::Group) -> Group {
    Group {
        name: Arc::clone(name),
        accepted: state.accepted.map(rfc3339),
        errors: state.errors.clone(),
        refused: state.refused.map(rfc3339),
        warnings: state.warnings.clone(),
    }
}

fn proxies(registry: &Registry, now: SystemTime) -> Vec<Proxy> {
    let mut proxies: BTreeMap<(String, String), Proxy> = BTreeMap::new();
    for (id, stream) in registry.streams() {
        let node = stream.node;
        let key = (node.id.clone(), node.cluster.clone());
        let proxy = proxies.entry(key).or_insert_with(|| Proxy {
            user_agent_version: user_agent_version(&node).to_owned(),
            node_id: node.id,
            node_cluster: node.cluster,
            user_agent: node.user_agent_name,
            group: Arc::clone(&stream.group),
            connected_since: rfc3339(stream.since),
            connected_seconds: seconds(stream.since, now),
            streams: Vec::new(),
            types: Vec::new(),
        });
        proxy.streams.push(Stream {
            id,
            stream: stream.kind,
            variant: stream.variant,
            peer: stream.peer,
            connected_since: rfc3339(stream.since),
            connected_seconds: seconds(stream.since, now),
        });
        proxy.types.extend(stream.types.into_iter().map(|(ty, state)| shown(id, ty, state)));
    }
    proxies.into_values().collect()
}

fn shown(stream: u64, ty: ResourceType, state: TypeState) -> Type {
    let refused = state.nack.as_ref().is_some_and(|nack| Some(&nack.nonce) == state.nonce.as_ref());
    Type {
        r#type: ty.key(),
        type_url: ty.url(),
        stream,
        wildcard: state.wildcard,
        names: state.names,
        state: match (&state.nonce, state.outstanding) {
            (None, _) if state.acked.is_none() => "none",
            (_, true) => "waiting",
            _ if refused => "nacked",
            _ => "acked",
        },
        version_sent: state.sent,
        version_acked: state.acked,
        nonce: state.nonce,
        last_nack: state.nack.map(|nack| Nack {
            message: nack.message,
            version: nack.version,
            nonce: nack.nonce,
            since: rfc3339(nack.since),
        }),
    }
}

fn seconds(since: SystemTime, now: SystemTime) -> u64 {
    now.duration_since(since).map_or(0, |passed| passed.as_secs())
}

fn rfc3339(time: SystemTime) -> String {
    let mut stamp = prost_types::Timestamp::from(time);
    stamp.nanos -= stamp.nanos % 1_000_000;
    stamp.to_string()
}
