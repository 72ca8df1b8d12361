//! From what a gateway file says to resources, in their JSON form.
//!
//! Names are those of the file, and nothing depends on anything but the file, so that a change of one
//! key changes the resources that the key becomes and no other: of an instance the service's
//! endpoints, of a service its cluster, of a route the route table, of a block the cluster or the
//! listener's filters.

mod clusters;
mod endpoints;
mod envoy;
mod filters;
mod listeners;
mod routes;

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::model::{Gateway, LoadBalancer, Service, Strategy};
use super::reader::Reader;
use super::rules::route_keeps_sessions;
use crate::types::ResourceType;

/// The name of the route table, and the prefix of the statistics.
pub(super) const TABLE: &str = "gateway";

/// Who is to understand the resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Flavour {
    /// nuncio, with its own extensions.
    #[default]
    Nuncio,
    /// Any Envoy. What it has no form for is a warning, and left out.
    Envoy,
}

/// One resource, and which part of the file each part of it comes from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Made {
    pub(crate) ty: ResourceType,
    pub(crate) name: String,
    pub(crate) value: Value,
    /// Paths of fields, and the path of what they were made from; the first is the whole.
    pub(crate) from: Vec<(String, String)>,
}

/// Instances that finish what they have and get nothing new, by service and name.
pub(crate) type Draining = BTreeSet<(String, String)>;

/// What everything is made from.
pub(super) struct Context<'a> {
    pub(super) gateway: &'a Gateway,
    pub(super) balancer: &'a LoadBalancer,
    pub(super) flavour: Flavour,
    pub(super) draining: &'a Draining,
}

impl Context<'_> {
    /// The resources, in make-before-break order. What Envoy has no form for is told to the reader.
    pub(super) fn translate(&self, reader: &mut Reader<'_>) -> Vec<Made> {
        let services = || self.gateway.services.iter().enumerate();
        let mut made: Vec<Made> = services().map(|(i, s)| self.cluster(i, s, reader)).collect();
        made.extend(services().filter_map(|(i, s)| self.assignment(i, s)));
        let filters = self.filters(reader);
        let listeners = self.gateway.listeners.iter().enumerate();
        made.extend(listeners.map(|(i, listener)| listeners::listener(i, listener, &filters)));
        made.push(self.route_table(&filters, reader));
        made
    }

    fn service(&self, name: &str) -> Option<&Service> {
        self.gateway.services.iter().find(|service| service.name == name)
    }

    /// How a service chooses; `None` if it does not.
    fn strategy(&self, service: &Service) -> Option<Strategy> {
        self.balancer.strategy_of(service)
    }

    fn keeps_sessions(&self, route: &super::model::Route) -> bool {
        let keeps =
            |name: &str| self.service(name).is_some_and(|s| self.balancer.keeps_sessions(s));
        route_keeps_sessions(route, keeps)
    }
}

/// A message as an `Any`.
fn typed(kind: &str, fields: Value) -> Value {
    let mut typed = Map::new();
    typed.insert("@type".to_owned(), json!(format!("type.googleapis.com/{kind}")));
    if let Value::Object(fields) = fields {
        typed.extend(fields);
    }
    typed.into()
}

/// An extension with its name.
fn extension(name: &str, kind: &str, fields: Value) -> Value {
    json!({ "name": name, "typed_config": typed(kind, fields) })
}

/// This stream as the source of what is named.
fn ads() -> Value {
    json!({ "ads": {}, "resource_api_version": "V3" })
}

/// A duration as protobuf's JSON has it.
fn seconds(time: std::time::Duration) -> Value {
    match time.subsec_millis() {
        0 => json!(format!("{}s", time.as_secs())),
        ms => json!(format!("{}.{ms:03}s", time.as_secs())),
    }
}

/// An object without the keys that have no value.
fn object<const N: usize>(entries: [(&str, Option<Value>); N]) -> Value {
    let said = entries.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    Value::Object(said.collect())
}
