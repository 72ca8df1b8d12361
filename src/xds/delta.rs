//! Incremental: requests and responses carry what changed, each resource has its own version.
//!
//! Pure: no I/O, and time is an argument. Subscribing and answering are separate here: only an
//! answer has a nonce, only an error makes it a NACK, and both may share a request.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::mem;
use std::sync::Arc;

use tokio::time::Instant;

use super::machine::{Head, Machine, Offer};
use super::ttl::Lifetimes;
use super::turn::{Answer, Named, Outcome, Outstanding, Turn};
use super::types::{Rejection, Resource, ResourceType, Variant, Verdict};
use super::wrapper::{self, Unwrapped};
use crate::proto::envoy::config::core::v3::Node;
use crate::proto::envoy::service::discovery::v3 as discovery;
use discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};

/// One resource type under the incremental protocol.
#[derive(Debug)]
pub(super) struct Delta {
    ty: ResourceType,
    wildcard: bool,
    names: BTreeSet<Arc<str>>,
    /// Versions of the resources in service. One that was rejected is not here at its new version,
    /// or no server would send it again.
    versions: BTreeMap<String, String>,
    /// Names of resources that came for an alias, and the alias that is wanted: everybody here knows
    /// them by that.
    aliased: BTreeMap<String, String>,
    version: String,
    lives: Lifetimes,
    stream: Option<OnStream>,
    turn: Turn<DeltaDiscoveryResponse>,
}

/// What the server of the present stream has been told, and is to be told.
#[derive(Debug, Default)]
struct OnStream {
    asked: bool,
    told: BTreeSet<Arc<str>>,
    told_all: bool,
    subscribe: BTreeSet<Arc<str>>,
    unsubscribe: BTreeSet<Arc<str>>,
}

impl Delta {
    fn wants(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    /// Reads a response into what control is told and what the protocol remembers.
    fn read(&mut self, response: DeltaDiscoveryResponse, now: Instant) -> Option<Offer> {
        let DeltaDiscoveryResponse {
            system_version_info,
            resources,
            type_url: _,
            nonce,
            removed_resources,
            control_plane: _,
            removed_resource_names,
            resource_errors: _,
        } = response;
        let mut removed = removed_resources;
        removed.extend(
            removed_resource_names
                .into_iter()
                .map(|discovery::ResourceName { name, dynamic_parameter_constraints: _ }| name),
        );
        let sent = resources.len();
        let mut reading = Reading::default();
        let twice = repeated(&resources, &removed);
        for (name, index) in &twice {
            let reason = format_args!("the response names it more than once");
            reading.malformed.push(wrapper::refuse(name, *index, reason));
        }
        for (index, wrapper) in resources.into_iter().enumerate() {
            match wrapper::open(self.ty, index, wrapper) {
                Ok(resource) if twice.contains_key(&resource.name) => {}
                Ok(resource) => self.sort(resource, index, &mut reading),
                Err(rejection) => reading.malformed.push(rejection),
            }
        }
        removed.append(&mut reading.absent);
        for name in &mut removed {
            if let Some(alias) = self.aliased.remove(name) {
                *name = alias;
            }
        }
        // A name that nobody here asked for is no news; under a wildcard every name is.
        removed.retain(|name| self.wants(name) && !twice.contains_key(name));
        removed.sort_unstable();
        removed.dedup();

        let Reading { resources, named, heartbeats, answered, absent: _, malformed } = reading;
        for Named { name, ttl, .. } in &heartbeats {
            self.lives.renew(name, *ttl, now);
        }
        if sent > 0 && heartbeats.len() == sent && removed.is_empty() {
            self.turn.answer = Some(Answer { nonce, error: None });
            return None;
        }
        let seq = self.turn.hand(Outstanding {
            nonce,
            version: system_version_info.clone(),
            named,
            removed: removed.clone(),
            malformed: malformed.clone(),
            ..Outstanding::default()
        });
        Some(Offer {
            seq,
            version: system_version_info,
            full: false,
            resources,
            kept: Vec::new(),
            removed,
            answered,
            expired: false,
            malformed,
        })
    }

    fn sort(&mut self, resource: Unwrapped, index: usize, into: &mut Reading) {
        let Unwrapped { mut name, version, body, ttl, aliases, wrapped: _ } = resource;
        if name.is_empty() {
            into.malformed.push(wrapper::refuse("", index, format_args!("it has no name")));
            return;
        }
        if self.ty.is_chosen_by_server() {
            // It goes by its own name; an alias is what somebody waits for.
            let asked = aliases.into_iter().filter(|alias| self.names.contains(alias.as_str()));
            into.answered.extend(asked);
        } else if !self.wants(&name) {
            let known = self.aliased.get(&name).cloned();
            let alias = known.or_else(|| aliases.into_iter().find(|a| self.wants(a)));
            let Some(alias) = alias.filter(|a| self.wants(a)) else { return };
            self.aliased.insert(mem::replace(&mut name, alias.clone()), alias);
        }
        match body {
            Some(body) => {
                into.named.push(Named { name: name.clone(), version: version.clone(), ttl });
                into.resources.push(Resource { name: Some(name), version, body, ttl });
            }
            None if self.versions.get(&name) == Some(&version) => {
                into.heartbeats.push(Named { name, version, ttl });
            }
            // What was asked for is nothing.
            None if self.ty.is_chosen_by_server() => into.absent.push(name),
            None => {
                let reason = format_args!("it has no body, and no such version of it is held");
                into.malformed.push(wrapper::refuse(&name, index, reason));
            }
        }
    }
}

/// Names that stand more than once in a response, with the place of a second mention.
fn repeated(resources: &[discovery::Resource], removed: &[String]) -> BTreeMap<String, usize> {
    let mut seen = HashMap::with_capacity(resources.len());
    let mut twice = BTreeMap::new();
    for (index, resource) in resources.iter().enumerate() {
        if !resource.name.is_empty() && seen.insert(resource.name.as_str(), index).is_some() {
            twice.insert(resource.name.clone(), index);
        }
    }
    for name in removed {
        if let Some(index) = seen.get(name.as_str()) {
            twice.insert(name.clone(), *index);
        }
    }
    twice
}

/// The resources of a response, by what is to be done with them.
#[derive(Default)]
struct Reading {
    resources: Vec<Resource>,
    named: Vec<Named>,
    heartbeats: Vec<Named>,
    /// Names asked for that came by another name.
    answered: Vec<String>,
    /// Names of which the server says that there is no resource.
    absent: Vec<String>,
    malformed: Vec<Rejection>,
}

impl Machine for Delta {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;

    const VARIANT: Variant = Variant::Delta;

    fn new(ty: ResourceType) -> Self {
        Self {
            ty,
            wildcard: false,
            names: BTreeSet::new(),
            versions: BTreeMap::new(),
            aliased: BTreeMap::new(),
            version: String::new(),
            lives: Lifetimes::default(),
            stream: None,
            turn: Turn::default(),
        }
    }

    fn subscribe_all(&mut self) {
        self.wildcard = true;
    }

    fn subscribe(&mut self, name: &Arc<str>) {
        if !self.names.insert(name.clone()) {
            return;
        }
        if let Some(stream) = &mut self.stream {
            // Even if the server never heard of the unsubscription, it must send the resource
            // again for a new subscription.
            stream.unsubscribe.remove(name);
            stream.subscribe.insert(name.clone());
        }
    }

    fn unsubscribe(&mut self, name: &str) {
        let Some(name) = self.names.take(name) else { return };
        if !self.wildcard || self.ty.is_chosen_by_server() {
            // Under a wildcard the server answers with the resource or with its removal.
            self.versions.remove(&*name);
            self.lives.forget(&name);
            self.turn.forget(&name);
        }
        if let Some(stream) = &mut self.stream {
            stream.subscribe.remove(&name);
            if stream.told.contains(&name) {
                stream.unsubscribe.insert(name);
            }
        }
    }

    fn opened(&mut self) {
        // What came for an alias is asked for anew: the server knows its version by another name.
        for alias in mem::take(&mut self.aliased).values() {
            self.versions.remove(alias);
        }
        self.stream = Some(OnStream { subscribe: self.names.clone(), ..OnStream::default() });
    }

    fn closed(&mut self) {
        self.stream = None;
        self.turn.close();
    }

    fn receive(&mut self, response: DeltaDiscoveryResponse) {
        if self.stream.is_some() {
            let body = |r: &discovery::Resource| r.resource.as_ref().map_or(0, |b| b.value.len());
            let bytes = response.resources.iter().map(body).sum();
            self.turn.arrive(response, bytes);
        }
    }

    fn is_full(&self) -> bool {
        self.turn.is_full()
    }

    fn has_request(&self) -> bool {
        let Some(stream) = &self.stream else { return false };
        if self.turn.answer.is_some() {
            return true;
        }
        let news = !stream.subscribe.is_empty()
            || !stream.unsubscribe.is_empty()
            || self.wildcard && !stream.told_all;
        // The first request says which versions are in service, which is being decided.
        news && (stream.asked || !self.turn.is_stale())
    }

    fn has_answer(&self) -> bool {
        self.turn.answer.is_some()
    }

    fn take_request(&mut self) -> Option<DeltaDiscoveryRequest> {
        if !self.has_request() {
            return None;
        }
        let answer = self.turn.answer.take();
        let stream = self.stream.as_mut()?;
        let first = !mem::replace(&mut stream.asked, true);
        let mut subscribe = Vec::with_capacity(stream.subscribe.len() + 1);
        if self.wildcard && !mem::replace(&mut stream.told_all, true) {
            // An empty first request says the same, but only as long as it names nothing.
            let is_implied = first && stream.subscribe.is_empty() && self.ty.wildcard();
            if !is_implied && !self.ty.is_chosen_by_server() {
                subscribe.push("*".to_owned());
            }
        }
        for name in mem::take(&mut stream.subscribe) {
            subscribe.push(name.to_string());
            stream.told.insert(name);
        }
        let unsubscribe: Vec<_> = mem::take(&mut stream.unsubscribe)
            .into_iter()
            .map(|name| {
                stream.told.remove(&name);
                name.to_string()
            })
            .collect();
        let versions = if first { self.versions.clone() } else { BTreeMap::new() };
        let (response_nonce, error_detail) =
            answer.map_or_else(Default::default, |answer| (answer.nonce, answer.error));
        Some(DeltaDiscoveryRequest {
            node: None,
            type_url: self.ty.type_url().to_owned(),
            resource_names_subscribe: subscribe,
            resource_names_unsubscribe: unsubscribe,
            initial_resource_versions: versions.into_iter().collect(),
            response_nonce,
            error_detail,
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
            self.versions.remove(name);
        }
        Some(Offer { seq: self.turn.next_seq(), removed, expired: true, ..Offer::default() })
    }

    fn next_end(&self) -> Option<Instant> {
        self.lives.next_end()
    }

    fn decide(&mut self, seq: u64, verdict: &Verdict, now: Instant) -> Option<Outcome> {
        let (decided, outcome) = self.turn.decide(seq, verdict)?;
        if outcome == Outcome::Accepted {
            self.version = decided.version;
        }
        for Named { name, version, ttl } in decided.named {
            self.lives.renew(&name, ttl, now);
            self.versions.insert(name, version);
        }
        for name in &decided.removed {
            self.lives.forget(name);
            self.versions.remove(name);
        }
        Some(outcome)
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn set_node(request: &mut DeltaDiscoveryRequest, node: Node) {
        request.node = Some(node);
    }

    fn head(response: &DeltaDiscoveryResponse) -> Head<'_> {
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
