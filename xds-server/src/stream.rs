//! One client's stream: requests in, responses out.
//!
//! The stream of responses does all the work while it is polled, and it is polled only while the
//! client takes what it is sent. A client that stops reading therefore costs one connection and
//! nothing else: no task, no queue, no turn that another waits for. When it reads again it is sent
//! the latest snapshot.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::Stream;
use futures_util::stream::unfold;
use nuncio::proto::envoy::config::core::v3::Node;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tonic::{Status, Streaming};
use tracing::{debug, info, warn};

use crate::cache::World;
use crate::ledger::Outcome;
use crate::machine::{Core, Machine};
use crate::order::{Conversation, Turn, Waits};
use crate::registry::{self, Entry, Registry, TypeState};
use crate::snapshot::Snapshot;
use crate::stats::Stats;
use crate::types::ResourceType;

/// What all streams share.
#[derive(Debug, Clone)]
pub(crate) struct Hub {
    pub(crate) world: watch::Receiver<Arc<World>>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) waits: Waits,
    /// Becomes true, or loses its sender, when the server stops.
    pub(crate) stop: watch::Receiver<bool>,
}

/// The responses to a stream of requests. `only` is the type of a service that has one.
pub(crate) fn respond<M: Machine>(
    hub: Hub,
    only: Option<ResourceType>,
    peer: Option<SocketAddr>,
    requests: Streaming<M::Request>,
) -> impl Stream<Item = Result<M::Response, Status>> + Send {
    hub.stats.stream();
    let client = Client::<M> { hub, only, peer, requests, seated: None, unknown: HashSet::new() };
    unfold(Some(client), |client| async {
        let mut client = client?;
        match client.next().await {
            Ok(Some(response)) => Some((Ok(response), Some(client))),
            Ok(None) => None,
            Err(status) => Some((Err(status), None)),
        }
    })
}

struct Client<M: Machine> {
    hub: Hub,
    only: Option<ResourceType>,
    peer: Option<SocketAddr>,
    requests: Streaming<M::Request>,
    /// Known once the first request has said who asks.
    seated: Option<Seated<M>>,
    /// Types that were asked for and are not served: each is logged once.
    unknown: HashSet<String>,
}

struct Seated<M> {
    node: Node,
    group: Arc<str>,
    talk: Conversation<M>,
    entry: Entry,
}

/// What a stream can wake up for.
enum Event<R> {
    Request(Result<Option<R>, Status>),
    World,
    Time,
    Stop,
}

impl<M: Machine> Client<M> {
    /// The next response; `None` when the stream is over.
    async fn next(&mut self) -> Result<Option<M::Response>, Status> {
        loop {
            let now = Instant::now();
            let mut wake = None;
            if let Some(seated) = &mut self.seated {
                if let Some(turn) = seated.talk.turn(now) {
                    return Ok(seated.take(turn, &self.hub.stats));
                }
                wake = seated.talk.wake_at();
            }
            let event = tokio::select! {
                request = self.requests.message() => Event::Request(request),
                Ok(()) = self.hub.world.changed() => Event::World,
                () = sleep_until(wake.unwrap_or(now)), if wake.is_some() => Event::Time,
                _ = self.hub.stop.wait_for(|stop| *stop) => Event::Stop,
            };
            match event {
                Event::Request(Ok(Some(request))) => self.request(request)?,
                Event::Request(Ok(None)) | Event::Stop => return Ok(None),
                Event::Request(Err(status)) => {
                    debug!(peer = ?self.peer, %status, "stream broken");
                    return Ok(None);
                }
                Event::World => self.follow(),
                Event::Time => {}
            }
        }
    }

    fn request(&mut self, mut request: M::Request) -> Result<(), Status> {
        let ty = self.type_of(&request)?;
        let node = M::node(&mut request);
        let seated = match &mut self.seated {
            Some(seated) => {
                seated.identify(node, &self.hub);
                seated
            }
            None => {
                let seat = Self::seat(&self.hub, self.only, self.peer, node.unwrap_or_default())?;
                self.seated.insert(seat)
            }
        };
        match ty {
            Some(ty) => seated.request(ty, request, &self.hub.stats),
            None => {
                self.hub.stats.unknown_type();
                let url = M::type_url(&request);
                if self.unknown.len() < 100 && self.unknown.insert(url.to_owned()) {
                    warn!(node = seated.node.id, type_url = url, "asked for a type not served");
                }
            }
        }
        Ok(())
    }

    /// The type of a request; `None` for one that is not served.
    fn type_of(&self, request: &M::Request) -> Result<Option<ResourceType>, Status> {
        match (self.only, M::type_url(request)) {
            (None, "") => Err(Status::invalid_argument("type_url is required on this stream")),
            (None, url) => Ok(ResourceType::from_url(url).filter(|ty| M::serves(*ty))),
            (Some(ty), url) if url.is_empty() || url == ty.url() => Ok(Some(ty)),
            (Some(ty), url) => {
                let message =
                    format!("type_url {url} is not {}, the type of this service", ty.url());
                Err(Status::invalid_argument(message))
            }
        }
    }

    fn seat(
        hub: &Hub,
        only: Option<ResourceType>,
        peer: Option<SocketAddr>,
        node: Node,
    ) -> Result<Seated<M>, Status> {
        let (group, snapshot) = resolve(&hub.world.borrow(), &node);
        let Some(snapshot) = snapshot else {
            return Err(Status::unavailable(format!(
                "group {group:?} has no good set to serve yet"
            )));
        };
        let kind = only.map_or("ads", ResourceType::key);
        info!(node = node.id, cluster = node.cluster, %group, ?peer, stream = kind,
            variant = M::VARIANT, "proxy connected");
        let entry = hub.registry.enter(registry::Stream {
            node: node.clone(),
            group: Arc::clone(&group),
            peer,
            kind,
            variant: M::VARIANT,
            since: SystemTime::now(),
            types: Default::default(),
        });
        Ok(Seated { node, group, talk: Conversation::new(snapshot, hub.waits), entry })
    }

    /// Serves what is in service now.
    fn follow(&mut self) {
        if let Some(seated) = &mut self.seated {
            let world = self.hub.world.borrow_and_update();
            seated.follow(&world);
        }
    }
}

fn resolve(world: &World, node: &Node) -> (Arc<str>, Option<Arc<Snapshot>>) {
    let (name, group) = world.group(&node.id, &node.cluster);
    (name, group.and_then(|group| group.snapshot.clone()))
}

impl<M: Machine> Seated<M> {
    fn follow(&mut self, world: &World) {
        let (group, snapshot) = resolve(world, &self.node);
        // A group without a good set leaves the proxy with what it has.
        let Some(snapshot) = snapshot else { return };
        if group != self.group {
            info!(node = self.node.id, from = %self.group, to = %group, "proxy changes its group");
            self.group = Arc::clone(&group);
            self.entry.update(|stream| stream.group = group);
        }
        if !Arc::ptr_eq(self.talk.snapshot(), &snapshot) {
            self.talk.replace(snapshot);
        }
    }

    /// A node that comes late is taken; later ones must be the same, and an empty one, which some
    /// clients send with each answer, says nothing.
    fn identify(&mut self, node: Option<Node>, hub: &Hub) {
        let Some(node) = node else { return };
        if !self.node.id.is_empty() || node.id.is_empty() {
            return;
        }
        self.entry.update(|stream| stream.node = node.clone());
        self.node = node;
        self.follow(&hub.world.borrow());
    }

    fn request(&mut self, ty: ResourceType, request: M::Request, stats: &Stats) {
        let outcome = self.talk.request(ty, request, (Instant::now(), SystemTime::now()));
        stats.request(ty, outcome);
        let Some(core) = self.show(ty) else { return };
        let node = &self.node.id;
        match (outcome, &core.ledger.nack) {
            (Outcome::Nacked, Some(nack)) => {
                warn!(node, r#type = ty.key(), version = %nack.version, nonce = %nack.nonce,
                    reason = nack.message, "proxy refused a response");
            }
            _ => debug!(node, r#type = ty.key(), ?outcome, "request"),
        }
    }

    fn take(&mut self, turn: Turn, stats: &Stats) -> Option<M::Response> {
        let response = self.talk.take(turn);
        stats.response(turn.ty);
        if let Some(core) = self.show(turn.ty) {
            debug!(node = self.node.id, r#type = turn.ty.key(), version = ?core.ledger.sent,
                nonce = ?core.ledger.nonce, "response");
        }
        response
    }

    /// Brings the registry up to date.
    fn show(&self, ty: ResourceType) -> Option<&Core> {
        let core = self.talk.machine(ty)?.core();
        let state = TypeState::of(core);
        self.entry.update(|stream| {
            stream.types.insert(ty, state);
        });
        Some(core)
    }
}

impl<M> Drop for Seated<M> {
    fn drop(&mut self) {
        info!(node = self.node.id, group = %self.group, "proxy disconnected");
    }
}
