//! One client's stream without the I/O: its types, and whose turn it is to be sent.
//!
//! Make before break. When the snapshot changes, a stream is sent
//!
//! ```text
//! secrets, clusters, endpoints      at once, in this order
//! listeners, then extensions        when the client has taken the new clusters and their endpoints
//!   and routes, then virtual hosts
//! removals of extensions            when it has taken the listeners
//! removals of clusters, secrets     when it has taken the listeners, extensions, routes and virtual hosts
//! removals of endpoints             when it has taken the removal of their clusters
//! ```
//!
//! A client that does not answer holds up only itself, and for no longer than [`Waits`] allows. What
//! a client asks for the first time is sent at once: order matters between two states that both
//! serve traffic. Once per cluster sent, its endpoints are sent again, changed or not: Envoy warms a
//! changed cluster until endpoints come.
//!
//! Time comes in as an argument.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::ledger::Outcome;
use crate::machine::{Machine, Removals, Reply};
use crate::snapshot::Snapshot;
use crate::types::ResourceType;

/// How long one step of an ordered update waits for a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waits {
    /// For the answer to a response that later types depend on. Default 5 s.
    pub answer: Duration,
    /// For the client to ask for the endpoints of a cluster that it accepted. Default 1 s.
    pub subscribe: Duration,
}

impl Default for Waits {
    fn default() -> Self {
        Self { answer: Duration::from_secs(5), subscribe: Duration::from_secs(1) }
    }
}

/// The order in which what was waited for in vain is sent: still additions first.
const OVERDUE: [ResourceType; ResourceType::COUNT] = [
    ResourceType::Listener,
    ResourceType::Extension,
    ResourceType::Route,
    ResourceType::VirtualHost,
    ResourceType::Secret,
    ResourceType::Cluster,
    ResourceType::Endpoint,
];

/// A response that may be sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Turn {
    /// The type whose turn it is.
    pub(crate) ty: ResourceType,
    removals: Removals,
}

/// The types of one stream.
#[derive(Debug)]
pub(crate) struct Conversation<M> {
    machines: [Option<M>; ResourceType::COUNT],
    snapshot: Arc<Snapshot>,
    waits: Waits,
    last_nonce: u64,
    /// Endpoints of the clusters in a response that has no answer yet.
    offered: Vec<Arc<str>>,
    /// Endpoints that the client should ask for, and until when that is waited for.
    awaited: Vec<Arc<str>>,
    awaited_until: Option<Instant>,
    /// When something was first held back, since nothing was.
    held_since: Option<Instant>,
}

impl<M: Machine> Conversation<M> {
    /// A stream on which nothing was said yet.
    pub(crate) fn new(snapshot: Arc<Snapshot>, waits: Waits) -> Self {
        Self {
            machines: Default::default(),
            snapshot,
            waits,
            last_nonce: 0,
            offered: Vec::new(),
            awaited: Vec::new(),
            awaited_until: None,
            held_since: None,
        }
    }

    /// The machine of a type, once something was asked of it.
    pub(crate) fn machine(&self, ty: ResourceType) -> Option<&M> {
        self.machines[ty.index()].as_ref()
    }

    /// What the stream serves from.
    pub(crate) fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// Serves another snapshot from now on. One that was passed over is never sent.
    pub(crate) fn replace(&mut self, snapshot: Arc<Snapshot>) {
        self.snapshot = snapshot;
    }

    /// Takes a request of a type.
    pub(crate) fn request(
        &mut self,
        ty: ResourceType,
        request: M::Request,
        now: (Instant, SystemTime),
    ) -> Outcome {
        let machine = self.machines[ty.index()].get_or_insert_with(|| M::new(ty));
        let outcome = machine.request(request, self.snapshot.set(ty), now.1);
        if !matches!(outcome, Outcome::Acked | Outcome::Nacked) {
            return outcome;
        }
        let subscription = &machine.core().subscription;
        match ty {
            // Everything sent so far is answered: at most one response is on its way.
            ResourceType::Endpoint => self.awaited.retain(|name| !subscription.was_sent(name)),
            ResourceType::Cluster => {
                self.awaited.append(&mut self.offered);
                self.awaited_until = Some(now.0 + self.waits.subscribe);
            }
            _ => {}
        }
        if ty != ResourceType::Endpoint {
            // The client moves: the next step has the whole wait. Endpoints change too often to
            // tell anything of the step that is waited for.
            self.held_since = None;
        }
        outcome
    }

    /// The type that may be sent now, if any may.
    pub(crate) fn turn(&mut self, now: Instant) -> Option<Turn> {
        let turn = self.find_turn(now);
        if turn.is_some() {
            return turn;
        }
        match (self.is_holding(), self.held_since) {
            (false, _) => self.held_since = None,
            (true, None) => self.held_since = Some(now),
            (true, Some(_)) => {}
        }
        None
    }

    /// When [`Self::turn`] may have another answer though nothing was received.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        let held = self.held_since?;
        let answer = held + self.waits.answer;
        let subscribe = self.awaited_until.filter(|_| !self.awaited.is_empty());
        Some(subscribe.map_or(answer, |until| until.min(answer)))
    }

    /// The response of a turn.
    pub(crate) fn take(&mut self, turn: Turn) -> Option<M::Response> {
        self.last_nonce += 1;
        let machine = self.machines[turn.ty.index()].as_mut()?;
        let set = self.snapshot.set(turn.ty);
        let Reply { message, endpoints } = machine.respond(set, turn.removals, self.last_nonce);
        self.offer(endpoints);
        Some(message)
    }

    fn offer(&mut self, endpoints: Vec<Arc<str>>) {
        let set = self.snapshot.set(ResourceType::Endpoint);
        for name in endpoints {
            let machine = self.machines[ResourceType::Endpoint.index()].as_mut();
            if let Some(machine) = machine {
                let core = machine.core_mut();
                if core.subscription.forget(&name) {
                    core.touch();
                }
            }
            if set.get(&name).is_some() {
                self.offered.push(name);
            }
        }
    }

    fn find_turn(&mut self, now: Instant) -> Option<Turn> {
        self.settle_awaited(now);
        for ty in ResourceType::ALL {
            let first = self.machine(ty).is_some_and(|m| m.core().ledger.nonce.is_none());
            if !first && self.must_wait(ty) {
                continue;
            }
            let removals = match first || self.may_remove(ty) {
                true => Removals::Send,
                false => Removals::Hold,
            };
            if self.can_send(ty, removals) {
                return Some(Turn { ty, removals });
            }
        }
        let overdue = self.held_since.is_some_and(|since| now >= since + self.waits.answer);
        let removals = Removals::Send;
        let mut types = OVERDUE.into_iter().filter(|_| overdue);
        types.find(|ty| self.can_send(*ty, removals)).map(|ty| Turn { ty, removals })
    }

    /// Whether additions of a type must wait for those of another.
    fn must_wait(&mut self, ty: ResourceType) -> bool {
        match ty {
            ResourceType::Secret | ResourceType::Cluster | ResourceType::Endpoint => false,
            ResourceType::Listener => !self.has_clusters(),
            // A listener waits for the extensions that it names, and says of which type they may be.
            ResourceType::Extension | ResourceType::Route => {
                !self.has_clusters() || self.pending(ResourceType::Listener, Removals::Send)
            }
            ResourceType::VirtualHost => {
                !self.has_clusters() || self.pending(ResourceType::Route, Removals::Send)
            }
        }
    }

    /// Whether nothing that the client still uses can refer to what is removed.
    fn may_remove(&mut self, ty: ResourceType) -> bool {
        let unused = |this: &mut Self| {
            this.is_settled(ResourceType::Listener, Removals::Send)
                && this.is_settled(ResourceType::Extension, Removals::Send)
                && this.is_settled(ResourceType::Route, Removals::Send)
                && this.is_settled(ResourceType::VirtualHost, Removals::Send)
        };
        match ty {
            ResourceType::Listener | ResourceType::Route | ResourceType::VirtualHost => true,
            ResourceType::Extension => self.is_settled(ResourceType::Listener, Removals::Send),
            ResourceType::Secret | ResourceType::Cluster => unused(self),
            ResourceType::Endpoint => {
                unused(self) && self.is_settled(ResourceType::Cluster, Removals::Send)
            }
        }
    }

    /// Whether the client has taken every new cluster with its endpoints.
    fn has_clusters(&mut self) -> bool {
        self.is_settled(ResourceType::Cluster, Removals::Hold) && self.awaited.is_empty()
    }

    fn settle_awaited(&mut self, now: Instant) {
        if self.awaited.is_empty() {
            return;
        }
        self.awaited_until = self.awaited_until.filter(|until| now < *until);
        let waits = self.awaited_until.is_some();
        let endpoints = self.machines[ResourceType::Endpoint.index()].as_ref();
        let set = self.snapshot.set(ResourceType::Endpoint);
        self.awaited.retain(|name| {
            let asked = endpoints.is_some_and(|m| m.core().subscription.wants(name));
            (asked || waits) && set.get(name).is_some()
        });
    }

    fn pending(&mut self, ty: ResourceType, removals: Removals) -> bool {
        let set = self.snapshot.set(ty);
        self.machines[ty.index()].as_mut().is_some_and(|machine| machine.pending(set, removals))
    }

    fn is_outstanding(&self, ty: ResourceType) -> bool {
        self.machine(ty).is_some_and(|machine| machine.core().ledger.outstanding)
    }

    fn is_settled(&mut self, ty: ResourceType, removals: Removals) -> bool {
        !self.is_outstanding(ty) && !self.pending(ty, removals)
    }

    fn can_send(&mut self, ty: ResourceType, removals: Removals) -> bool {
        !self.is_outstanding(ty) && self.pending(ty, removals)
    }

    /// Whether something could be sent but for the order.
    fn is_holding(&mut self) -> bool {
        ResourceType::ALL.into_iter().any(|ty| self.can_send(ty, Removals::Send))
    }
}

#[cfg(test)]
mod tests;
