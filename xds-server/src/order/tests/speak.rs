//! A model client that speaks either variant, and a stream to it whose time is the test's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use nuncio::proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use nuncio::proto::google::rpc::Status;
use prost_types::Any;
use tokio::time::Instant;

use crate::delta::Delta;
use crate::machine::Machine;
use crate::order::{Conversation, Waits};
use crate::refers::Refers;
use crate::snapshot::{Lists, Resource, Snapshot};
use crate::sotw::Sotw;
use crate::types::ResourceType::{self, Cluster};

pub(super) type Content = BTreeMap<(ResourceType, String), u32>;

/// The resources of `content`; a cluster's endpoints have the cluster's name.
pub(super) fn snapshot(previous: Option<&Snapshot>, content: &Content) -> Arc<Snapshot> {
    let mut lists = Lists::default();
    for ((ty, name), value) in content {
        let any =
            Any { type_url: ty.url().to_owned(), value: format!("{name}={value}").into_bytes() };
        let endpoints = (*ty == Cluster).then(|| name.as_str().into());
        let refers = Refers { endpoints, ..Refers::default() };
        lists[ty.index()].push(Arc::new(Resource::new(name.as_str(), any, refers)));
    }
    Arc::new(Snapshot::new(previous, lists))
}

pub(super) fn content(items: &[(ResourceType, &str, u32)]) -> Content {
    items.iter().map(|(ty, name, value)| ((*ty, (*name).to_owned()), *value)).collect()
}

/// What the model client knows of a response, whatever the variant.
pub(super) struct Heard {
    pub(super) ty: ResourceType,
    pub(super) nonce: String,
    pub(super) version: String,
    /// Name and value of each resource.
    pub(super) resources: Vec<(String, u32)>,
    pub(super) removed: Vec<String>,
}

impl Heard {
    pub(super) fn names(&self) -> Vec<&str> {
        self.resources.iter().map(|(name, _)| name.as_str()).collect()
    }
}

pub(super) fn read(any: &Any) -> (String, u32) {
    let text = std::str::from_utf8(&any.value).unwrap();
    let (name, value) = text.split_once('=').unwrap();
    (name.to_owned(), value.parse().unwrap())
}

/// What the tests need of a variant to speak it.
pub(super) trait Speak: Machine {
    fn hear(response: Self::Response) -> Heard;
    fn answer(heard: &Heard, client: &Client, refuse: bool) -> Self::Request;
    /// `add` and `drop` have been applied to the client already.
    fn names(ty: ResourceType, client: &Client, add: &[String], drop: &[String]) -> Self::Request;
    fn first(ty: ResourceType, client: &Client) -> Self::Request;
}

pub(super) fn error(refuse: bool) -> Option<Status> {
    refuse.then(|| Status { code: 3, message: "refused".to_owned(), ..Status::default() })
}

impl Speak for Sotw {
    fn hear(response: DiscoveryResponse) -> Heard {
        Heard {
            ty: ResourceType::from_url(&response.type_url).unwrap(),
            nonce: response.nonce,
            version: response.version_info,
            resources: response.resources.iter().map(read).collect(),
            removed: Vec::new(),
        }
    }

    fn answer(heard: &Heard, client: &Client, refuse: bool) -> DiscoveryRequest {
        let mut request = Self::names(heard.ty, client, &[], &[]);
        request.response_nonce.clone_from(&heard.nonce);
        request.error_detail = error(refuse);
        request
    }

    fn names(ty: ResourceType, client: &Client, _: &[String], _: &[String]) -> DiscoveryRequest {
        let known = &client.types[&ty];
        DiscoveryRequest {
            type_url: ty.url().to_owned(),
            version_info: known.version.clone(),
            resource_names: known.names.iter().cloned().collect(),
            response_nonce: known.nonce.clone(),
            ..Default::default()
        }
    }

    fn first(ty: ResourceType, client: &Client) -> DiscoveryRequest {
        Self::names(ty, client, &[], &[])
    }
}

impl Speak for Delta {
    fn hear(response: DeltaDiscoveryResponse) -> Heard {
        let ty = ResourceType::from_url(&response.type_url).unwrap();
        let read = |r: &nuncio::proto::envoy::service::discovery::v3::Resource| {
            let (name, value) = read(r.resource.as_ref().unwrap());
            assert_eq!(name, r.name);
            (name, value)
        };
        Heard {
            ty,
            nonce: response.nonce,
            version: response.system_version_info,
            resources: response.resources.iter().map(read).collect(),
            removed: response.removed_resources,
        }
    }

    fn answer(heard: &Heard, _: &Client, refuse: bool) -> DeltaDiscoveryRequest {
        DeltaDiscoveryRequest {
            type_url: heard.ty.url().to_owned(),
            response_nonce: heard.nonce.clone(),
            error_detail: error(refuse),
            ..Default::default()
        }
    }

    fn names(
        ty: ResourceType,
        _: &Client,
        add: &[String],
        drop: &[String],
    ) -> DeltaDiscoveryRequest {
        DeltaDiscoveryRequest {
            type_url: ty.url().to_owned(),
            resource_names_subscribe: add.to_vec(),
            resource_names_unsubscribe: drop.to_vec(),
            ..Default::default()
        }
    }

    fn first(ty: ResourceType, client: &Client) -> DeltaDiscoveryRequest {
        let known = &client.types[&ty];
        let held = known.view.iter().map(|(name, value)| (name, format!("{name}={value}")));
        let version = |bytes: String| {
            let any = Any { type_url: String::new(), value: bytes.into_bytes() };
            crate::snapshot::version_of(&any).to_string()
        };
        DeltaDiscoveryRequest {
            type_url: ty.url().to_owned(),
            resource_names_subscribe: known.names.iter().cloned().collect(),
            initial_resource_versions: held.map(|(n, b)| (n.clone(), version(b))).collect(),
            ..Default::default()
        }
    }
}

#[derive(Default)]
pub(super) struct Known {
    pub(super) names: BTreeSet<String>,
    pub(super) wildcard: bool,
    pub(super) view: BTreeMap<String, u32>,
    pub(super) version: String,
    pub(super) nonce: String,
}

#[derive(Default)]
pub(super) struct Client {
    pub(super) types: BTreeMap<ResourceType, Known>,
    pub(super) delta: bool,
}

impl Client {
    fn take(&mut self, heard: &Heard) {
        let known = self.types.get_mut(&heard.ty).unwrap();
        known.nonce.clone_from(&heard.nonce);
        known.version.clone_from(&heard.version);
        if !self.delta && heard.ty.is_complete() {
            known.view.clear();
        }
        for (name, value) in &heard.resources {
            if known.wildcard || known.names.contains(name) {
                known.view.insert(name.clone(), *value);
            }
        }
        for name in &heard.removed {
            known.view.remove(name);
        }
    }
}

/// One client and its stream, with time under the test's hand.
pub(super) struct Story<M> {
    pub(super) talk: Conversation<M>,
    pub(super) client: Client,
    pub(super) now: Instant,
}

impl<M: Speak> Story<M> {
    pub(super) fn new(content: &Content) -> Self {
        let client = Client { delta: M::VARIANT == "delta", ..Client::default() };
        let talk = Conversation::new(snapshot(None, content), Waits::default());
        Self { talk, client, now: Instant::now() }
    }

    pub(super) fn now(&self) -> (Instant, SystemTime) {
        (self.now, SystemTime::UNIX_EPOCH)
    }

    pub(super) fn subscribe(&mut self, ty: ResourceType, names: &[&str]) {
        let new = !self.client.types.contains_key(&ty);
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let known = self.client.types.entry(ty).or_default();
        known.wildcard |= new && names.is_empty();
        known.names.extend(names.iter().cloned());
        let request = match new {
            true => M::first(ty, &self.client),
            false => M::names(ty, &self.client, &names, &[]),
        };
        self.talk.request(ty, request, self.now());
    }

    pub(super) fn next(&mut self) -> Option<Heard> {
        let turn = self.talk.turn(self.now)?;
        let heard = M::hear(self.talk.take(turn).unwrap());
        self.client.take(&heard);
        Some(heard)
    }

    pub(super) fn answer(&mut self, heard: &Heard, refuse: bool) {
        let request = M::answer(heard, &self.client, refuse);
        self.talk.request(heard.ty, request, self.now());
    }

    pub(super) fn change(&mut self, content: &Content) {
        let next = snapshot(Some(self.talk.snapshot()), content);
        self.talk.replace(next);
    }

    /// Takes responses and accepts each at once; returns the types in order.
    pub(super) fn settle(&mut self) -> Vec<ResourceType> {
        let mut types = Vec::new();
        while let Some(heard) = self.next() {
            self.answer(&heard, false);
            types.push(heard.ty);
        }
        types
    }

    pub(super) fn sleep_until_woken(&mut self) {
        self.now = self.talk.wake_at().unwrap();
    }
}
