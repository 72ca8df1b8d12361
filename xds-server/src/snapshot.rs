//! What one group of proxies is served: every resource, with versions that are hashes.
//!
//! A snapshot never changes. The next one shares with it each resource, and each whole type, that
//! stayed the same; a stream that finds the pointer it knows has nothing to do. Versions depend on
//! content alone, so that a restarted server gives the same ones and a proxy that reconnects is sent
//! only what differs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use prost_types::Any;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::hosts;
use crate::refers::Refers;
use crate::types::ResourceType;

/// One resource as it is sent.
#[derive(Debug, PartialEq)]
pub(crate) struct Resource {
    /// Its name.
    pub(crate) name: Arc<str>,
    /// Hash of its bytes: the version in delta responses.
    pub(crate) version: Arc<str>,
    /// The message.
    pub(crate) any: Any,
    /// What it names in other resources.
    pub(crate) refers: Refers,
    /// Paths of its fields that have no effect.
    pub(crate) ignored: Vec<String>,
}

impl Resource {
    /// A resource; its version is computed from the bytes.
    pub(crate) fn new(name: impl Into<Arc<str>>, any: Any, refers: Refers) -> Self {
        Self { name: name.into(), version: version_of(&any), any, refers, ignored: Vec::new() }
    }

    /// Other names under which it may be asked for.
    pub(crate) fn aliases(&self) -> impl Iterator<Item = Arc<str>> {
        self.refers.place.iter().flat_map(|place| place.aliases(&self.name))
    }

    /// The same with fields that have no effect.
    pub(crate) fn ignoring(self, ignored: Vec<String>) -> Self {
        Self { ignored, ..self }
    }
}

/// The version of a message: a hash that is stable over runs and releases.
pub(crate) fn version_of(any: &Any) -> Arc<str> {
    format!("{:016x}", xxh3_64(&any.value)).into()
}

/// Every resource of one type.
#[derive(Debug, PartialEq)]
pub(crate) struct TypeSet {
    /// Hash of all names and versions: the version in state-of-the-world responses.
    pub(crate) version: Arc<str>,
    /// The resources by name.
    pub(crate) resources: BTreeMap<Arc<str>, Arc<Resource>>,
    /// Those that may be asked for by other names as well.
    aliases: BTreeMap<Arc<str>, Arc<Resource>>,
    /// The route tables whose virtual hosts wait to be asked for.
    on_demand: BTreeSet<Arc<str>>,
}

impl TypeSet {
    /// A set of resources; a later one of the same name replaces an earlier.
    pub(crate) fn new(resources: impl IntoIterator<Item = Arc<Resource>>) -> Self {
        let resources: BTreeMap<_, _> =
            resources.into_iter().map(|r| (Arc::clone(&r.name), r)).collect();
        let mut hash = Xxh3::new();
        for resource in resources.values() {
            // The lengths keep a name's end apart from the version that follows it.
            hash.update(&(resource.name.len() as u64).to_le_bytes());
            hash.update(resource.name.as_bytes());
            hash.update(resource.version.as_bytes());
        }
        let aliases = resources.values().flat_map(|resource| {
            resource.aliases().map(|alias| (alias, Arc::clone(resource))).collect::<Vec<_>>()
        });
        Self {
            version: format!("{:016x}", hash.digest()).into(),
            aliases: aliases.collect(),
            on_demand: BTreeSet::new(),
            resources,
        }
    }

    /// The resource of a name, or of one of its other names.
    pub(crate) fn get(&self, name: &str) -> Option<&Arc<Resource>> {
        self.resources.get(name).or_else(|| self.aliases.get(name))
    }

    /// What is sent without being asked for, to those who leave the choice to us.
    pub(crate) fn given(&self) -> impl Iterator<Item = &Arc<Resource>> {
        let waits = |resource: &Resource| {
            resource.refers.place.as_ref().is_some_and(|place| place.waits(&self.on_demand))
        };
        self.resources.values().filter(move |resource| !waits(resource))
    }
}

/// The resources of a snapshot to be, by [`ResourceType::index`].
pub(crate) type Lists = [Vec<Arc<Resource>>; ResourceType::COUNT];

/// Everything one group of proxies is served.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    sets: [Arc<TypeSet>; ResourceType::COUNT],
}

impl Snapshot {
    /// A snapshot that shares what did not change with `previous`.
    pub(crate) fn new(previous: Option<&Snapshot>, mut resources: Lists) -> Self {
        let mut on_demand = hosts::on_demand(&resources[ResourceType::Listener.index()]);
        let set = |ty: ResourceType| {
            let mut next = TypeSet::new(std::mem::take(&mut resources[ty.index()]));
            if ty == ResourceType::VirtualHost {
                next.on_demand = std::mem::take(&mut on_demand);
            }
            match previous.map(|p| p.set(ty)) {
                Some(old) if **old == next => Arc::clone(old),
                _ => Arc::new(next),
            }
        };
        Self { sets: ResourceType::ALL.map(set) }
    }

    /// The resources of one type.
    pub(crate) fn set(&self, ty: ResourceType) -> &Arc<TypeSet> {
        &self.sets[ty.index()]
    }

    /// The types of which something differs.
    pub(crate) fn changed(&self, previous: &Snapshot) -> impl Iterator<Item = ResourceType> {
        ResourceType::ALL.into_iter().filter(|ty| !Arc::ptr_eq(self.set(*ty), previous.set(*ty)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(name: &str, bytes: &[u8]) -> Arc<Resource> {
        let any = Any { type_url: String::new(), value: bytes.to_vec() };
        Arc::new(Resource::new(name, any, Refers::default()))
    }

    fn snapshot(previous: Option<&Snapshot>, clusters: &[(&str, &[u8])]) -> Snapshot {
        let mut lists = Lists::default();
        lists[ResourceType::Cluster.index()] =
            clusters.iter().map(|(name, bytes)| resource(name, bytes)).collect();
        Snapshot::new(previous, lists)
    }

    #[test]
    fn equal_content_is_shared_and_has_equal_versions() {
        let one = snapshot(None, &[("a", b"1"), ("b", b"2")]);
        let same = snapshot(Some(&one), &[("b", b"2"), ("a", b"1")]);
        assert_eq!(same.changed(&one).count(), 0);
        let other = snapshot(Some(&one), &[("a", b"1"), ("b", b"3")]);
        assert_eq!(other.changed(&one).collect::<Vec<_>>(), [ResourceType::Cluster]);
        assert_ne!(
            other.set(ResourceType::Cluster).version,
            one.set(ResourceType::Cluster).version
        );
    }

    #[test]
    fn a_name_and_a_version_are_kept_apart() {
        let one = TypeSet::new([resource("a", b"1")]);
        let renamed = TypeSet::new([resource("b", b"1")]);
        assert_ne!(one.version, renamed.version);
        assert_ne!(TypeSet::new([]).version, one.version);
    }
}
