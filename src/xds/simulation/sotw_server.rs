//! A state-of-the-world server that ignores stale nonces and spares a client what it claims to have.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use prost_types::Any;

use super::super::sotw::Sotw;
use super::super::types::ResourceType;
use super::{Item, Server, World, body, ttl};
use crate::proto::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse, Resource};

pub(super) struct SotwServer {
    ty: ResourceType,
    asked: bool,
    names: BTreeSet<String>,
    nonce: u64,
    /// Versions sent on this stream.
    sent: BTreeMap<&'static str, u64>,
}

impl SotwServer {
    fn wants(&self, name: &str) -> bool {
        self.ty.wildcard() || self.names.contains(name)
    }

    fn due(&self, world: &World) -> BTreeMap<&'static str, Item> {
        let wanted = world.resources.iter().filter(|(name, _)| self.wants(name));
        wanted.map(|(name, item)| (*name, *item)).collect()
    }

    fn wrap(&self, name: &str, item: Item, with_body: bool) -> Any {
        if !item.mortal {
            return body(self.ty, name, item);
        }
        let resource = Resource {
            name: name.into(),
            version: item.version.to_string(),
            resource: with_body.then(|| body(self.ty, name, item)),
            ttl: ttl(item),
            ..Default::default()
        };
        Any {
            type_url: "type.googleapis.com/envoy.service.discovery.v3.Resource".into(),
            value: resource.encode_to_vec(),
        }
    }

    fn respond(&mut self, world: &World, resources: Vec<Any>) -> DiscoveryResponse {
        self.nonce += 1;
        DiscoveryResponse {
            version_info: world.version.to_string(),
            resources,
            type_url: self.ty.type_url().into(),
            nonce: self.nonce.to_string(),
            ..Default::default()
        }
    }
}

impl Server<Sotw> for SotwServer {
    fn new(ty: ResourceType) -> Self {
        Self { ty, asked: false, names: BTreeSet::new(), nonce: 0, sent: BTreeMap::new() }
    }

    fn request(&mut self, world: &World, request: DiscoveryRequest) -> Option<DiscoveryResponse> {
        let first = !std::mem::replace(&mut self.asked, true);
        if first {
            assert!(request.response_nonce.is_empty(), "a new stream has no nonce");
            assert!(self.ty.wildcard() || !request.resource_names.is_empty(), "never empty first");
        } else if request.response_nonce != self.nonce.to_string()
            && !(self.nonce == 0 && request.response_nonce.is_empty())
        {
            return None;
        }
        assert!(request.version_info.is_empty() || !first || self.nonce == 0);
        self.names = request.resource_names.into_iter().collect();
        let names = &self.names;
        self.sent.retain(|name, _| self.ty.wildcard() || names.contains(*name));
        if first && self.ty.wildcard() && request.version_info == world.version.to_string() {
            self.sent = self.due(world).into_iter().map(|(n, item)| (n, item.version)).collect();
            return None;
        }
        if first && self.ty.wildcard() { self.all(world) } else { self.push(world) }
    }

    fn push(&mut self, world: &World) -> Option<DiscoveryResponse> {
        let due = self.due(world);
        let due: BTreeMap<_, _> = due.iter().map(|(name, item)| (*name, item.version)).collect();
        let news = if self.ty.wildcard() {
            due != self.sent
        } else {
            due.iter().any(|(name, version)| self.sent.get(name) != Some(version))
        };
        if self.asked && news { self.all(world) } else { None }
    }

    fn heartbeat(&mut self, world: &World) -> Option<DiscoveryResponse> {
        let mut due = self.due(world);
        due.retain(|name, item| item.mortal && self.sent.get(name) == Some(&item.version));
        if !self.asked || due.is_empty() {
            return None;
        }
        let resources = due.iter().map(|(name, item)| self.wrap(name, *item, false)).collect();
        Some(self.respond(world, resources))
    }

    fn claims(_: &DiscoveryRequest) -> Option<BTreeMap<String, u64>> {
        None
    }

    fn nonce(request: &DiscoveryRequest) -> &str {
        &request.response_nonce
    }

    fn tells_absence(ty: ResourceType) -> bool {
        ty.wildcard()
    }
}

impl SotwServer {
    fn all(&mut self, world: &World) -> Option<DiscoveryResponse> {
        let due = self.due(world);
        self.sent = due.iter().map(|(name, item)| (*name, item.version)).collect();
        let resources = due.iter().map(|(name, item)| self.wrap(name, *item, true)).collect();
        Some(self.respond(world, resources))
    }
}
