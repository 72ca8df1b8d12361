//! The instances of a service as endpoints.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Context, Made, object};
use crate::gateway::model::{HostPort, Instance, Service, Strategy};
use crate::types::ResourceType;

impl Context<'_> {
    /// The endpoints that are sent on their own; `None` for those that proxies resolve.
    pub(super) fn assignment(&self, index: usize, service: &Service) -> Option<Made> {
        if service.is_resolved() {
            return None;
        }
        Some(Made {
            ty: ResourceType::Endpoint,
            name: service.name.clone(),
            value: self.endpoints(service),
            from: vec![(String::new(), format!("services[{index}].instances"))],
        })
    }

    /// The `ClusterLoadAssignment` of a service.
    pub(super) fn endpoints(&self, service: &Service) -> Value {
        let mut zones: BTreeMap<Option<&str>, Vec<Value>> = BTreeMap::new();
        if let Some(dns) = &service.dns {
            zones.entry(None).or_default().push(json!({ "endpoint": { "address": address(dns) } }));
        }
        let most = if self.balancer.enabled { usize::MAX } else { 1 };
        let weighs = self.strategy(service).is_some_and(honours_weights);
        for instance in service.instances.iter().take(most) {
            let endpoint = self.endpoint(service, instance, weighs);
            zones.entry(instance.zone.as_deref()).or_default().push(endpoint);
        }
        let localities: Vec<_> = zones
            .into_iter()
            .map(|(zone, endpoints)| {
                object([
                    ("locality", zone.map(|zone| json!({ "zone": zone }))),
                    ("lb_endpoints", Some(endpoints.into())),
                ])
            })
            .collect();
        json!({ "cluster_name": service.name, "endpoints": localities })
    }

    fn endpoint(&self, service: &Service, instance: &Instance, weighs: bool) -> Value {
        let name = instance.name();
        let draining = self.draining.contains(&(service.name.clone(), name));
        let endpoint = object([
            ("address", Some(address(&instance.url.0))),
            ("hostname", instance.id.as_ref().map(|id| json!(id))),
        ]);
        let metadata = || json!({ "filter_metadata": { "envoy.lb": instance.metadata } });
        object([
            ("endpoint", Some(endpoint)),
            ("health_status", draining.then(|| json!("DRAINING"))),
            ("metadata", (!instance.metadata.is_empty()).then(metadata)),
            ("load_balancing_weight", weighs.then(|| json!(instance.weight.0))),
        ])
    }
}

fn address(of: &HostPort) -> Value {
    json!({ "socket_address": { "address": of.host, "port_value": of.port } })
}

fn honours_weights(strategy: Strategy) -> bool {
    match strategy {
        Strategy::Weighted | Strategy::LeastRequest | Strategy::RingHash | Strategy::Maglev => true,
        Strategy::RoundRobin
        | Strategy::HealthBased
        | Strategy::StickySession
        | Strategy::Random => false,
    }
}
