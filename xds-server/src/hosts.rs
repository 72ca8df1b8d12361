//! Virtual hosts apart from their tables (VHDS): which table each belongs to, the names it may be asked for
//! by, and which wait to be asked for.
//!
//! A virtual host is named `TABLE/HOST`. It is sent to everybody who takes virtual hosts, but where a
//! listener of its table has the on-demand filter: then it is sent when somebody asks for one of its domains.
//! One with a wildcard among them is sent all the same, since nobody would ask for it by name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nuncio::proto::envoy::config::route::v3::VirtualHost;

use crate::snapshot::{Resource, Snapshot};
use crate::types::ResourceType::{Listener, Route, VirtualHost as Host};

/// The type of the filter's configuration.
pub(crate) const ON_DEMAND: &str = "envoy.extensions.filters.http.on_demand.v3.OnDemand";

/// What a virtual host says of where it belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The table, by the host's name; empty if that does not say one.
    pub(crate) table: Arc<str>,
    /// In lower case.
    pub(crate) domains: BTreeSet<Arc<str>>,
}

impl Place {
    pub(crate) fn of(host: &VirtualHost) -> Self {
        let table = host.name.rsplit_once('/').map_or("", |(table, _)| table);
        Self { table: table.into(), domains: domains(host) }
    }

    /// Other names under which the resource `own` may be asked for.
    pub(crate) fn aliases<'p>(&'p self, own: &'p str) -> impl Iterator<Item = Arc<str>> + 'p {
        let exact = self.domains.iter().filter(|domain| !domain.contains('*'));
        let names = exact.map(|domain| Arc::from(format!("{}/{domain}", self.table)));
        names.filter(move |name: &Arc<str>| **name != *own)
    }

    /// Whether the host waits to be asked for, given the tables whose hosts do.
    pub(crate) fn waits(&self, on_demand: &BTreeSet<Arc<str>>) -> bool {
        on_demand.contains(&self.table) && !self.domains.iter().any(|domain| domain.contains('*'))
    }
}

/// The domains of a host in lower case.
pub(crate) fn domains(host: &VirtualHost) -> BTreeSet<Arc<str>> {
    host.domains.iter().map(|domain| domain.to_ascii_lowercase().into()).collect()
}

/// The tables of which a listener asks for hosts on demand.
pub(crate) fn on_demand(listeners: &[Arc<Resource>]) -> BTreeSet<Arc<str>> {
    let asking = listeners.iter().filter(|listener| listener.refers.on_demand);
    asking.flat_map(|listener| listener.refers.routes.iter().cloned()).collect()
}

/// What is wrong with the hosts of a set: one that no table would take is a doubt, one that a proxy would
/// refuse an error.
pub(crate) struct Faults<'s> {
    pub(crate) errors: Vec<(&'s Resource, String)>,
    pub(crate) doubts: Vec<(&'s Resource, String)>,
}

pub(crate) fn faults(snapshot: &Snapshot) -> Faults<'_> {
    let mut faults = Faults { errors: Vec::new(), doubts: Vec::new() };
    let mut taken = BTreeMap::new();
    for host in snapshot.set(Host).resources.values() {
        let Some(place) = &host.refers.place else { continue };
        let table = &place.table;
        if table.is_empty() {
            faults.errors.push((host, "must be named ROUTE_CONFIGURATION/HOST".to_owned()));
            continue;
        }
        let found = snapshot.set(Route).get(table);
        let doubt = match found {
            None => Some(format!("belongs to route table {table:?}, which is not in the set")),
            Some(found) if !found.refers.takes_hosts => {
                Some(format!("belongs to route table {table:?}, which has no vhds from here"))
            }
            Some(_) => None,
        };
        faults.doubts.extend(doubt.map(|doubt| (&**host, doubt)));
        for domain in &place.domains {
            let own = found.filter(|table| table.refers.domains.contains(domain));
            let earlier = taken.insert((table.clone(), domain.clone()), &host.name);
            let owner = match (own, earlier) {
                (Some(_), _) => format!("route table {table:?}"),
                (None, Some(name)) => format!("virtual host {name:?}"),
                (None, None) => continue,
            };
            faults.errors.push((host, format!("has domain {domain:?} of {owner}")));
        }
    }
    faults
}

/// Whether any listener asks for hosts on demand that its table does not take.
pub(crate) fn vain(snapshot: &Snapshot) -> impl Iterator<Item = (&Resource, String)> {
    let asking = snapshot.set(Listener).resources.values().filter(|l| l.refers.on_demand);
    asking.flat_map(|listener| {
        let tables = listener.refers.routes.iter().filter_map(|name| snapshot.set(Route).get(name));
        tables.filter(|table| !table.refers.takes_hosts).map(|table| {
            let name = &table.name;
            (&**listener, format!("asks for hosts on demand, but route table {name:?} has no vhds"))
        })
    })
}
