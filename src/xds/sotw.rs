//! State of the world: every request lists all names wanted, and says which version is in use.
//!
//! Pure: no I/O, and time is an argument. A request is both a subscription and an answer, told
//! apart only by its nonce. So that a change of names is never mistaken for an answer, it waits
//! until the responses at hand are answered, and rides with the last of those answers.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::mem;
use std::sync::Arc;

use tokio::time::Instant;

use super::machine::{Head, Machine, Offer};
use super::ttl::Lifetimes;
use super::turn::{Named, Outcome, Outstanding, Turn};
use super::types::{Rejection, Resource, ResourceType, Variant, Verdict};
use super::wrapper::{self, Unwrapped};
use crate::proto::envoy::config::core::v3::Node;
use crate::proto::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};

/// One resource type under the state-of-the-world protocol.
#[derive(Debug)]
pub(super) struct Sotw {
    ty: ResourceType,
    wildcard: bool,
    names: BTreeSet<Arc<str>>,
    version: String,
    /// Versions of the resources that have a time to live: a heartbeat must repeat them.
    mortal: HashMap<String, String>,
    lives: Lifetimes,
    /// Some wanted name was not yet part of an accepted response.
    uncovered: bool,
    /// A resource of the accepted version is no longer held.
    expired: bool,
    stream: Option<OnStream>,
    turn: Turn<DiscoveryResponse>,
}

/// What the server of the present stream has been told.
#[derive(Debug, Default)]
struct OnStream {
    asked: bool,
    /// A name has been listed, so that an empty list no longer means everything.
    named: bool,
    nonce: String,
    names_changed: bool,
    /// Names given up and wanted again before the server heard of it.
    readded: BTreeSet<Arc<str>>,
    /// Names given up of which the server has not heard.
    dropped: BTreeSet<Arc<str>>,
}

impl Sotw {
    /// What the server is to be asked for. Empty means everything, until a name was listed.
    fn list(&mut self) -> Vec<String> {
        let Some(stream) = &mut self.stream else { return Vec::new() };
        stream.dropped.clear();
        let readded = mem::take(&mut stream.readded);
        // A server sends a name again only if it saw it go.
        stream.names_changed = !readded.is_empty();
        let names = self.names.iter().filter(|n| !readded.contains(*n)).map(|n| n.to_string());
        let mut list: Vec<String> = Vec::with_capacity(self.names.len() + 1);
        if self.wildcard && (stream.named || !self.names.is_empty() || !self.ty.wildcard()) {
            list.push("*".to_owned());
        }
        list.extend(names);
        stream.named |= !list.is_empty();
        list
    }

    /// Reads a response into what control is told and what the protocol remembers.
    fn read(&mut self, response: DiscoveryResponse, now: Instant) -> Option<Offer> {
        let DiscoveryResponse {
            version_info,
            resources,
            type_url: _,
            nonce,
            control_plane: _,
            resource_errors: _,
        } = response;
        let mut reading = Reading::default();
        let sent = resources.len();
        for (index, any) in resources.into_iter().enumerate() {
            match wrapper::open_any(self.ty, index, any) {
                Ok(resource) => self.sort(resource, index, &version_info, &mut reading),
                Err(rejection) => reading.malformed.push(rejection),
            }
        }
        let Reading { resources, named, heartbeats, malformed } = reading;
        for Named { name, ttl, .. } in &heartbeats {
            self.lives.renew(name, *ttl, now);
        }
        if sent > 0 && heartbeats.len() == sent {
            self.turn.answer = Some(super::turn::Answer { nonce, error: None });
            return None;
        }
        // Something unreadable and nameless may be any resource, so absence proves nothing.
        let full = self.ty.wildcard() && malformed.iter().all(|m| !m.name.is_empty());
        let mut kept: Vec<String> = heartbeats.into_iter().map(|n| n.name).collect();
        kept.extend(malformed.iter().filter(|m| !m.name.is_empty()).map(|m| m.name.clone()));
        let seq = self.turn.hand(Outstanding {
            nonce,
            version: version_info.clone(),
            named,
            kept: kept.clone(),
            full,
            malformed: malformed.clone(),
            ..Outstanding::default()
        });
        Some(Offer {
            seq,
            version: version_info,
            full,
            resources,
            kept,
            removed: Vec::new(),
            answered: Vec::new(),
            expired: false,
            malformed,
        })
    }

    fn sort(&self, resource: Unwrapped, index: usize, version: &str, into: &mut Reading) {
        let Unwrapped { name, version: own, body, ttl, aliases, wrapped } = resource;
        if !wrapped {
            into.resources.extend(body.map(|body| Resource {
                name: None,
                version: version.to_owned(),
                body,
                ttl: None,
            }));
            return;
        }
        let Some(body) = body else {
            // Servers repeat the version of the resource, or give it none.
            if self.mortal.get(&name).is_some_and(|held| *held == own || version == self.version) {
                into.heartbeats.push(Named { name, version: own, ttl });
            } else {
                let reason = format_args!("it has no body, and no such version of it is held");
                into.malformed.push(wrapper::refuse(&name, index, reason));
            }
            return;
        };
        let is_wanted = |name: &str| self.wildcard || self.names.contains(name);
        let name = match name {
            name if self.ty.wildcard() || name.is_empty() || is_wanted(&name) => name,
            // Everybody here knows it by the name that is wanted.
            _ => match aliases.into_iter().find(|alias| is_wanted(alias)) {
                Some(alias) => alias,
                None => return,
            },
        };
        if !name.is_empty() {
            into.named.push(Named { name: name.clone(), version: own.clone(), ttl });
        }
        into.resources.push(Resource {
            name: (!name.is_empty()).then_some(name),
            version: if own.is_empty() { version.to_owned() } else { own },
            body,
            ttl,
        });
    }

    fn forget(&mut self, name: &str) {
        self.turn.forget(name);
        self.lives.forget(name);
        self.mortal.remove(name);
    }
}

/// The resources of a response, by what is to be done with them.
#[derive(Default)]
struct Reading {
    resources: Vec<Resource>,
    named: Vec<Named>,
    heartbeats: Vec<Named>,
    malformed: Vec<Rejection>,
}

impl Machine for Sotw {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;

    const VARIANT: Variant = Variant::Sotw;

    fn new(ty: ResourceType) -> Self {
        Self {
            ty,
            wildcard: false,
            names: BTreeSet::new(),
            version: String::new(),
            mortal: HashMap::new(),
            lives: Lifetimes::default(),
            uncovered: false,
            expired: false,
            stream: None,
            turn: Turn::default(),
        }
    }

    fn subscribe_all(&mut self) {
        if !mem::replace(&mut self.wildcard, true)
            && let Some(stream) = &mut self.stream
        {
            stream.names_changed = true;
        }
    }

    fn subscribe(&mut self, name: &Arc<str>) {
        if !self.names.insert(name.clone()) {
            return;
        }
        self.uncovered = true;
        if let Some(stream) = &mut self.stream {
            stream.names_changed = true;
            if stream.dropped.remove(name) {
                stream.readded.insert(name.clone());
            }
        }
    }

    fn unsubscribe(&mut self, name: &str) {
        let Some(name) = self.names.take(name) else { return };
        if !self.wildcard {
            self.forget(&name);
        }
        if let Some(stream) = &mut self.stream {
            stream.names_changed = true;
            stream.readded.remove(&name);
            if stream.asked {
                stream.dropped.insert(name);
            }
        }
    }

    fn opened(&mut self) {
        if mem::take(&mut self.expired) || self.uncovered {
            // With a version a server may think that nothing is missing here.
            self.version.clear();
        }
        self.stream = Some(OnStream { names_changed: true, ..OnStream::default() });
    }

    fn closed(&mut self) {
        self.stream = None;
        self.turn.close();
    }

    fn receive(&mut self, response: DiscoveryResponse) {
        if let Some(stream) = &mut self.stream {
            stream.nonce.clone_from(&response.nonce);
            let bytes = response.resources.iter().map(|any| any.value.len()).sum();
            self.turn.arrive(response, bytes);
        }
    }

    fn is_full(&self) -> bool {
        self.turn.is_full()
    }

    fn has_request(&self) -> bool {
        let Some(stream) = &self.stream else { return false };
        // An empty first list would be a wildcard to some servers.
        let sayable = stream.asked || self.wildcard || !self.names.is_empty();
        self.turn.answer.is_some() || (stream.names_changed && sayable && self.turn.is_idle())
    }

    fn has_answer(&self) -> bool {
        self.turn.answer.is_some()
    }

    fn take_request(&mut self) -> Option<DiscoveryRequest> {
        if !self.has_request() {
            return None;
        }
        let answer = self.turn.answer.take();
        let resource_names = self.list();
        let stream = self.stream.as_mut()?;
        stream.asked = true;
        let (response_nonce, error_detail) = match answer {
            Some(answer) => (answer.nonce, answer.error),
            None => (stream.nonce.clone(), None),
        };
        Some(DiscoveryRequest {
            version_info: self.version.clone(),
            node: None,
            resource_names,
            type_url: self.ty.type_url().to_owned(),
            response_nonce,
            error_detail,
            resource_locators: Vec::new(),
        })
    }

    fn asked(&self) -> bool {
        self.stream.as_ref().is_some_and(|s| s.asked)
    }

    fn has_offer(&self, now: Instant) -> bool {
        self.turn.is_due() || (self.turn.is_idle() && self.next_end().is_some_and(|end| end <= now))
    }

    fn take_offer(&mut self, now: Instant) -> Option<Offer> {
        if let Some(response) = self.turn.take() {
            return self.read(response, now);
        }
        // What is on its way may renew what seems over.
        if !self.turn.is_idle() {
            return None;
        }
        let removed = self.lives.expire(now);
        if removed.is_empty() {
            return None;
        }
        for name in &removed {
            self.mortal.remove(name);
        }
        self.expired = true;
        Some(Offer { seq: self.turn.next_seq(), removed, expired: true, ..Offer::default() })
    }

    fn next_end(&self) -> Option<Instant> {
        self.lives.next_end()
    }

    fn decide(&mut self, seq: u64, verdict: &Verdict, now: Instant) -> Option<Outcome> {
        let (decided, outcome) = self.turn.decide(seq, verdict)?;
        if outcome == Outcome::Accepted {
            self.version = decided.version;
            // No request leaves while a response is decided about, so one that finds all names
            // told now was sent knowing them.
            self.uncovered &= !self.stream.as_ref().is_some_and(|s| s.asked && !s.names_changed);
        }
        for Named { name, version, ttl } in &decided.named {
            self.lives.renew(name, *ttl, now);
            match ttl {
                Some(_) => self.mortal.insert(name.clone(), version.clone()),
                None => self.mortal.remove(name),
            };
        }
        if decided.full && !self.mortal.is_empty() {
            let rejected = verdict.rejected.iter().map(|r| &r.name);
            let named = decided.named.iter().map(|n| &n.name);
            let present: HashSet<_> = named.chain(&decided.kept).chain(rejected).collect();
            self.mortal.retain(|name, _| present.contains(name));
            self.lives.retain(|name| self.mortal.contains_key(name));
        }
        Some(outcome)
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn set_node(request: &mut DiscoveryRequest, node: Node) {
        request.node = Some(node);
    }

    fn head(response: &DiscoveryResponse) -> Head<'_> {
        Head {
            type_url: &response.type_url,
            nonce: &response.nonce,
            control_plane: response.control_plane.as_ref(),
            resource_errors: &response.resource_errors,
        }
    }
}

#[cfg(test)]
mod tests;
