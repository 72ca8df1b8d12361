//! State of the world: each response of a complete type holds everything wanted.
//!
//! Listener and Cluster responses are complete. For the other types absence means nothing, so a
//! response holds only what changed or was asked for anew.

use std::sync::Arc;
use std::time::SystemTime;

use nuncio::proto::envoy::config::core::v3::Node;
use nuncio::proto::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};

use crate::ledger::Outcome;
use crate::machine::{Core, Machine, Removals, Reply, control_plane, refusal};
use crate::snapshot::{Resource, TypeSet};
use crate::types::ResourceType;

/// One type on one state-of-the-world stream.
#[derive(Debug)]
pub(crate) struct Sotw {
    core: Core,
    /// A response is due even if nothing differs: the first, or the one that shows that a name asked
    /// for does not exist.
    owes: bool,
}

impl Machine for Sotw {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;
    const VARIANT: &'static str = "sotw";

    fn serves(ty: ResourceType) -> bool {
        !ty.is_chosen_here()
    }

    fn type_url(request: &DiscoveryRequest) -> &str {
        &request.type_url
    }

    fn node(request: &mut DiscoveryRequest) -> Option<Node> {
        request.node.take()
    }

    fn new(ty: ResourceType) -> Self {
        Self { core: Core::new(ty), owes: false }
    }

    fn core(&self) -> &Core {
        &self.core
    }

    fn core_mut(&mut self) -> &mut Core {
        &mut self.core
    }

    fn request(&mut self, request: DiscoveryRequest, set: &TypeSet, now: SystemTime) -> Outcome {
        let core = &mut self.core;
        let error = request.error_detail.map(refusal);
        let outcome = core.ledger.answer(&request.response_nonce, error, now);
        if outcome == Outcome::Stale {
            // It will be followed by one that answers the last response and has the newest names.
            return outcome;
        }
        let complete = core.ty.is_complete();
        let mut names = request.resource_names;
        names.extend(request.resource_locators.into_iter().map(|locator| locator.name));
        let added = core.subscription.replace(&names, complete);
        if complete && added {
            let fresh = core.ledger.nonce.is_none();
            if fresh && core.subscription.is_wildcard() && *request.version_info == *set.version {
                // A complete set of this version is the whole of what would be sent.
                core.subscription.has_all(set);
                core.ledger.acked = Some(Arc::clone(&set.version));
            } else {
                self.owes = true;
            }
        }
        core.touch();
        outcome
    }

    fn pending(&mut self, set: &Arc<TypeSet>, removals: Removals) -> bool {
        let complete = self.core.ty.is_complete();
        if !complete && !self.core.is_clean(set, removals) {
            self.core.subscription.drop_gone(set);
        }
        self.owes
            || self.core.look(set, removals, |sub| {
                sub.changed(set).next().is_some()
                    || complete && removals == Removals::Send && sub.gone(set).next().is_some()
            })
    }

    fn respond(
        &mut self,
        set: &TypeSet,
        removals: Removals,
        nonce: u64,
    ) -> Reply<DiscoveryResponse> {
        self.owes = false;
        let core = &mut self.core;
        core.touch();
        let changed: Vec<Arc<Resource>> = core.subscription.changed(set).cloned().collect();
        let sub = &mut core.subscription;
        let (resources, version) = if core.ty.is_complete() {
            let mut all: Vec<_> = sub.wanted(set).map(|r| r.any.clone()).collect();
            let mut version = Arc::clone(&set.version);
            if !sub.is_wildcard() {
                // Not the version of the whole: a client that comes back with it has a part.
                version = format!("{version}-named").into();
            }
            match removals {
                Removals::Hold => {
                    let before = all.len();
                    all.extend(sub.held(set).map(|r| r.any.clone()));
                    if all.len() > before {
                        version = format!("{version}-make").into();
                    }
                }
                Removals::Send => {
                    let gone: Vec<_> = sub.gone(set).cloned().collect();
                    gone.iter().for_each(|name| {
                        sub.forget(name);
                    });
                }
            }
            (all, version)
        } else {
            (changed.iter().map(|r| r.any.clone()).collect(), Arc::clone(&set.version))
        };
        changed.iter().for_each(|resource| sub.send(resource));
        let endpoints = changed.iter().filter_map(|r| r.refers.endpoints.clone()).collect();
        let nonce = core.ledger.send(Arc::clone(&version), nonce);
        let message = DiscoveryResponse {
            version_info: version.to_string(),
            resources,
            type_url: core.ty.url().to_owned(),
            nonce: nonce.to_string(),
            control_plane: control_plane(),
            resource_errors: Vec::new(),
        };
        Reply { message, endpoints }
    }
}
