//! An incremental server that sends only what it believes the client lacks.

use std::collections::{BTreeMap, BTreeSet};

use super::super::delta::Delta;
use super::super::types::ResourceType;
use super::{Server, World, body, ttl};
use crate::proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource,
};

pub(super) struct DeltaServer {
    ty: ResourceType,
    asked: bool,
    wildcard: bool,
    names: BTreeSet<String>,
    nonce: u64,
    /// What the client was sent or claims to have; an accepted removal is forgotten.
    known: BTreeMap<String, String>,
}

impl DeltaServer {
    fn respond(
        &mut self,
        resources: Vec<Resource>,
        removed_resources: Vec<String>,
    ) -> Option<DeltaDiscoveryResponse> {
        if resources.is_empty() && removed_resources.is_empty() {
            return None;
        }
        self.nonce += 1;
        Some(DeltaDiscoveryResponse {
            type_url: self.ty.type_url().into(),
            nonce: self.nonce.to_string(),
            resources,
            removed_resources,
            ..Default::default()
        })
    }

    fn diff(&mut self, world: &World, absent: &[String]) -> Option<DeltaDiscoveryResponse> {
        let mut resources = Vec::new();
        for (name, item) in &world.resources {
            let version = item.version.to_string();
            let wanted = self.wildcard || self.names.contains(*name);
            if wanted && self.known.get(*name) != Some(&version) {
                self.known.insert((*name).to_owned(), version.clone());
                resources.push(Resource {
                    name: (*name).into(),
                    version,
                    resource: Some(body(self.ty, name, *item)),
                    ttl: ttl(*item),
                    ..Default::default()
                });
            }
        }
        let gone = |name: &&String| !world.resources.contains_key(name.as_str());
        let known: Vec<_> = self.known.keys().cloned().collect();
        let removed: BTreeSet<_> = known.iter().chain(absent).filter(gone).cloned().collect();
        self.known.retain(|name, _| !removed.contains(name));
        self.respond(resources, removed.into_iter().collect())
    }
}

impl Server<Delta> for DeltaServer {
    fn new(ty: ResourceType) -> Self {
        Self {
            ty,
            asked: false,
            wildcard: false,
            names: BTreeSet::new(),
            nonce: 0,
            known: BTreeMap::new(),
        }
    }

    fn request(
        &mut self,
        world: &World,
        request: DeltaDiscoveryRequest,
    ) -> Option<DeltaDiscoveryResponse> {
        let first = !std::mem::replace(&mut self.asked, true);
        let subscribe = request.resource_names_subscribe;
        if first {
            assert!(request.response_nonce.is_empty(), "a new stream has no nonce");
            assert!(self.ty.wildcard() || !subscribe.is_empty(), "never empty first");
            self.wildcard = self.ty.wildcard() && subscribe.is_empty();
            self.known = request.initial_resource_versions.into_iter().collect();
        } else {
            assert!(request.initial_resource_versions.is_empty(), "only in the first request");
            assert!(
                !subscribe.is_empty()
                    || !request.resource_names_unsubscribe.is_empty()
                    || !request.response_nonce.is_empty(),
                "a request that says nothing"
            );
            subscribe.iter().for_each(|name| drop(self.known.remove(name)));
        }
        for name in &request.resource_names_unsubscribe {
            assert!(self.names.remove(name), "{name} was not subscribed to");
            self.known.remove(name);
        }
        self.names.extend(subscribe.iter().cloned());
        if first || !subscribe.is_empty() { self.diff(world, &subscribe) } else { None }
    }

    fn push(&mut self, world: &World) -> Option<DeltaDiscoveryResponse> {
        if self.asked { self.diff(world, &[]) } else { None }
    }

    fn heartbeat(&mut self, world: &World) -> Option<DeltaDiscoveryResponse> {
        let mortal = world.resources.iter().filter(|(name, item)| {
            item.mortal && self.known.get(**name) == Some(&item.version.to_string())
        });
        let beat = |(name, item): (&&str, &super::Item)| Resource {
            name: (*name).into(),
            version: item.version.to_string(),
            ttl: ttl(*item),
            ..Default::default()
        };
        let resources = mortal.map(beat).collect();
        self.respond(resources, Vec::new())
    }

    fn claims(request: &DeltaDiscoveryRequest) -> Option<BTreeMap<String, u64>> {
        let claims = request.initial_resource_versions.iter();
        Some(claims.map(|(name, version)| (name.clone(), version.parse().unwrap())).collect())
    }

    fn nonce(request: &DeltaDiscoveryRequest) -> &str {
        &request.response_nonce
    }

    fn tells_absence(_: ResourceType) -> bool {
        true
    }
}
