//! Delta: each response holds what changed and the names of what went away.

use std::sync::Arc;
use std::time::SystemTime;

use nuncio::proto::envoy::config::core::v3::Node;
use nuncio::proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource as Wrapped,
};

use crate::ledger::Outcome;
use crate::machine::{Core, Machine, Removals, Reply, control_plane, refusal};
use crate::snapshot::{Resource, TypeSet};
use crate::types::ResourceType;

/// One type on one delta stream.
#[derive(Debug)]
pub(crate) struct Delta {
    core: Core,
    began: bool,
    /// A wildcard was asked for and not answered yet: an empty set must be said, too.
    owes: bool,
}

impl Machine for Delta {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;
    const VARIANT: &'static str = "delta";

    fn type_url(request: &DeltaDiscoveryRequest) -> &str {
        &request.type_url
    }

    fn node(request: &mut DeltaDiscoveryRequest) -> Option<Node> {
        request.node.take()
    }

    fn new(ty: ResourceType) -> Self {
        Self { core: Core::new(ty), began: false, owes: false }
    }

    fn core(&self) -> &Core {
        &self.core
    }

    fn core_mut(&mut self) -> &mut Core {
        &mut self.core
    }

    fn request(
        &mut self,
        request: DeltaDiscoveryRequest,
        set: &TypeSet,
        now: SystemTime,
    ) -> Outcome {
        let core = &mut self.core;
        let error = request.error_detail.map(refusal);
        let outcome = core.ledger.answer(&request.response_nonce, error, now);
        // Names count whatever the nonce: a change is said once and never repeated.
        let sub = &mut core.subscription;
        let first = !std::mem::replace(&mut self.began, true);
        let had_wildcard = sub.is_wildcard();
        sub.change(
            &request.resource_names_subscribe,
            &request.resource_names_unsubscribe,
            core.ty.is_complete(),
        );
        if first && core.ty.is_chosen_here() {
            sub.leave_choice();
            self.owes = true;
        }
        for resource in request.resource_names_subscribe.iter().filter_map(|name| set.get(name)) {
            // Asked for again by another name than it was sent by.
            sub.forget(&resource.name);
        }
        if first {
            sub.known(request.initial_resource_versions.iter());
        }
        if sub.is_wildcard() && !had_wildcard && request.initial_resource_versions.is_empty() {
            self.owes = true;
        }
        core.touch();
        outcome
    }

    fn pending(&mut self, set: &Arc<TypeSet>, removals: Removals) -> bool {
        self.owes
            || self.core.look(set, removals, |sub| {
                sub.changed(set).next().is_some()
                    || sub.unknown(set).next().is_some()
                    || removals == Removals::Send && sub.gone(set).next().is_some()
            })
    }

    fn respond(
        &mut self,
        set: &TypeSet,
        removals: Removals,
        nonce: u64,
    ) -> Reply<DeltaDiscoveryResponse> {
        self.owes = false;
        let core = &mut self.core;
        core.touch();
        let sub = &mut core.subscription;
        let changed: Vec<Arc<Resource>> = sub.changed(set).cloned().collect();
        let mut removed: Vec<Arc<str>> = sub.unknown(set).cloned().collect();
        if removals == Removals::Send {
            removed.extend(sub.gone(set).cloned());
        }
        removed.sort();
        removed.dedup();
        changed.iter().for_each(|resource| sub.send(resource));
        removed.iter().for_each(|name| sub.remove(name));
        let endpoints = changed.iter().filter_map(|r| r.refers.endpoints.clone()).collect();
        let nonce = core.ledger.send(Arc::clone(&set.version), nonce);
        let message = DeltaDiscoveryResponse {
            system_version_info: set.version.to_string(),
            resources: changed.iter().map(|r| wrapped(r)).collect(),
            type_url: core.ty.url().to_owned(),
            nonce: nonce.to_string(),
            removed_resources: removed.iter().map(ToString::to_string).collect(),
            control_plane: control_plane(),
            removed_resource_names: Vec::new(),
            resource_errors: Vec::new(),
        };
        Reply { message, endpoints }
    }
}

fn wrapped(resource: &Resource) -> Wrapped {
    Wrapped {
        version: resource.version.to_string(),
        resource: Some(resource.any.clone()),
        name: resource.name.to_string(),
        aliases: resource.aliases().map(|alias| alias.to_string()).collect(),
        ..Wrapped::default()
    }
}
