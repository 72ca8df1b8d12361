//! One update in: each resource judged alone, the good ones applied, the verdict given.
//!
//! Every resource is tried. One that broke a rule the API states for a field itself, or whose name
//! comes twice, rejects the whole response, as in Envoy; any other fault rejects only the resource
//! that has it. Bytes that are what is in service already change nothing, not even a connection.

use std::sync::Arc;

use bytes::Bytes;
use prost_types::Any;
use tokio::time::Instant;
use tracing::{info, warn};

use super::compile::{kind, peek_name};
use super::follow::SourceId;
use super::state::State;
use super::store::{Map, Origin, Rejected};
use crate::config::{ConfigError, Errors, Fault, OrFault, ResourceId};
use crate::xds::{Rejection, Resource, ResourceType, Verdict};

/// What a source said about one type.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) origin: Origin,
    pub(super) source: SourceId,
    pub(super) ty: ResourceType,
    pub(super) version: Arc<str>,
    /// Resources and kept names are all there is.
    pub(super) full: bool,
    pub(super) resources: Vec<Resource>,
    pub(super) kept: Vec<String>,
    pub(super) removed: Vec<String>,
    /// Names asked for that were answered otherwise.
    pub(super) answered: Vec<String>,
    /// The removed names are those whose time to live ended.
    pub(super) expired: bool,
    /// Something of it could not even be read, which alone refuses it.
    pub(super) damaged: bool,
}

/// One resource on its way in.
pub(super) struct Item {
    pub(super) source: SourceId,
    pub(super) origin: Origin,
    pub(super) name: Arc<str>,
    pub(super) body: Any,
    pub(super) version: Arc<str>,
}

/// A resource that compiled.
pub(super) struct Good<T> {
    pub(super) source: SourceId,
    pub(super) origin: Origin,
    pub(super) name: Arc<str>,
    pub(super) raw: Bytes,
    pub(super) version: Arc<str>,
    pub(super) value: T,
}

/// What is done with a resource before it is decoded.
pub(super) enum Admission {
    Judge,
    Unchanged,
    /// Nobody wants it: accepted, and nothing done.
    Unwanted,
    /// A static resource has its name: accepted, and ignored with a warning.
    Taken,
}

/// The resources of one update as far as judging one needs to know of the others.
#[derive(Default)]
pub(super) struct Batch {
    /// Names that go with this update.
    pub(super) leaving: Vec<Arc<str>>,
    /// Domains that virtual hosts of this update have taken, by table.
    pub(super) domains: Map<(Arc<str>, Box<str>), ()>,
    /// Addresses that listeners of this update have taken.
    pub(super) addresses: Map<std::net::SocketAddr, Arc<str>>,
    pub(super) ignored: Vec<String>,
}

/// How resources of one type are taken in.
pub(super) trait Kind {
    const TYPE: ResourceType;
    /// The protocol's name for a resource is not the one in the message.
    const IS_NAMED_APART: bool = false;
    /// What one compiles to, with what applying it needs.
    type Out;

    fn admit(state: &State, item: &Item) -> Admission;
    fn compile(state: &mut State, item: &Item, batch: &mut Batch) -> Result<Self::Out, Errors>;
    fn apply(state: &mut State, good: Good<Self::Out>, now: Instant);
    /// The bytes in service came again.
    fn confirm(state: &mut State, item: &Item, now: Instant);
    /// A version was not accepted. What is in service stays.
    fn reject(state: &mut State, source: SourceId, name: &Arc<str>, rejected: Rejected);
    /// The source says that there is no such resource.
    fn remove(state: &mut State, source: SourceId, name: &str, expired: bool);
    /// Names in service that are not in `present`, for types whose updates can be complete.
    fn absent(state: &State, present: &Map<Arc<str>, ()>, only: Option<Origin>) -> Vec<Arc<str>>;
}

/// A resource that did not compile.
struct Bad {
    name: Arc<str>,
    /// The name the protocol knows it by.
    wire_name: String,
    raw: Bytes,
    version: Arc<str>,
    errors: Vec<ConfigError>,
}

/// Everything an update was found to be.
struct Judged<T> {
    good: Vec<Good<T>>,
    unchanged: Vec<Item>,
    bad: Vec<Bad>,
    /// Why nothing of it may be applied.
    whole: bool,
    /// Every name it mentions; also names beside it that it does not mean to remove.
    present: Map<Arc<str>, ()>,
    /// Some resource's name could not be read, so absence proves nothing.
    nameless: bool,
}

impl State {
    /// Takes an update in.
    pub(super) fn ingest(&mut self, change: Change, now: Instant) -> Verdict {
        match change.ty {
            ResourceType::Cluster => self.take_in::<super::clusters::Clusters>(change, now),
            ResourceType::Endpoints => self.take_in::<super::endpoints::Assignments>(change, now),
            ResourceType::Listener => self.take_in::<super::listeners::Listeners>(change, now),
            ResourceType::Extension => self.take_in::<super::extensions::Configs>(change, now),
            ResourceType::Routes => self.take_in::<super::routes::Tables>(change, now),
            ResourceType::VirtualHost => self.take_in_hosts(change, now),
            ResourceType::Secret => self.take_in::<super::secrets::Secrets>(change, now),
        }
    }

    pub(super) fn take_in<K: Kind>(&mut self, change: Change, now: Instant) -> Verdict {
        let Change {
            origin,
            source,
            ty,
            version,
            full,
            resources,
            kept,
            removed,
            answered: _,
            expired,
            damaged,
        } = change;
        debug_assert_eq!(ty, K::TYPE);
        // The first answer after a start from disk replaces what the disk gave.
        let replaces = origin == Origin::Dynamic && self.startup.stale.contains(&ty);
        let mut batch = Batch::default();
        if ty == ResourceType::Listener {
            batch.leaving.extend(removed.iter().map(|n| Arc::from(n.as_str())));
            if full || replaces {
                let only = (!full).then_some(Origin::Disk);
                batch.leaving.extend(K::absent(self, &mentioned(&resources, &kept), only));
            }
        }
        if K::IS_NAMED_APART {
            let named = resources.iter().filter_map(|r| r.name.as_deref());
            batch.leaving.extend(named.chain(removed.iter().map(String::as_str)).map(Arc::from));
        }
        let judged = self.judge::<K>(
            resources,
            &mut batch,
            Item { source, origin, name: "".into(), body: Any::default(), version },
        );
        let Judged { good, unchanged, bad, whole, mut present, nameless } = judged;

        let verdict = verdict(&bad, whole.then_some((&good, &unchanged)));
        for Bad { name, wire_name: _, raw, version, errors } in bad {
            let details = lines(errors.iter());
            warn!(resource = %kind(ty), %name, "rejected: {details}");
            if name.is_empty() {
                continue;
            }
            let rejected = Rejected { raw, version, when: Self::wall(), details };
            K::reject(self, source, &name, rejected);
        }
        if !whole {
            self.unsaved |= origin == Origin::Dynamic && !(good.is_empty() && removed.is_empty());
            for item in &unchanged {
                K::confirm(self, item, now);
            }
            for good in good {
                K::apply(self, good, now);
            }
            present.extend(kept.into_iter().map(|name| (Arc::from(name), ())));
            let mut gone: Vec<Arc<str>> = removed.iter().map(|n| Arc::from(n.as_str())).collect();
            if full && !nameless {
                gone.extend(K::absent(self, &present, None));
            } else if replaces && !nameless {
                gone.extend(K::absent(self, &present, Some(Origin::Disk)));
            }
            for name in gone {
                self.unsaved = true;
                K::remove(self, source, &name, expired);
            }
            if replaces {
                self.replaced(ty);
            }
        }
        if origin == Origin::Dynamic && !expired {
            self.answered(ty);
            if let Some(stats) = self.subscription_stats(ty) {
                stats.update_attempt.inc();
                match verdict.rejected.is_empty() && !damaged {
                    true => stats.update_success.inc(),
                    false => stats.update_rejected.inc(),
                }
            }
        }
        self.advance(now);
        verdict
    }

    fn judge<K: Kind>(
        &mut self,
        resources: Vec<Resource>,
        batch: &mut Batch,
        of: Item,
    ) -> Judged<K::Out> {
        let mut judged = Judged {
            good: Vec::with_capacity(resources.len()),
            unchanged: Vec::new(),
            bad: Vec::new(),
            whole: false,
            present: Map::default(),
            nameless: false,
        };
        judged.present.reserve(resources.len());
        for resource in resources {
            let Resource { name: wire_name, version, body, ttl: _ } = resource;
            let version =
                if *version == *of.version { of.version.clone() } else { Arc::from(version) };
            let read = identify(wire_name.as_deref(), &body, K::IS_NAMED_APART);
            let wire_name = wire_name.unwrap_or_default();
            let name: Arc<str> = read.clone().unwrap_or_else(|_| wire_name.as_str().into());
            let item = Item { source: of.source, origin: of.origin, name, body, version };
            judged.nameless |= item.name.is_empty();
            let twice =
                !item.name.is_empty() && judged.present.insert(item.name.clone(), ()).is_some();
            let outcome = match read {
                Err(errors) => Err(errors),
                Ok(_) if twice => {
                    Err(Errors::from(Fault::Duplicate(item.name.to_string())).at("name"))
                }
                Ok(_) => match K::admit(self, &item) {
                    Admission::Unwanted => continue,
                    Admission::Taken => {
                        self.warn_of_static(kind(K::TYPE), &item.name);
                        continue;
                    }
                    Admission::Unchanged => {
                        judged.unchanged.push(item);
                        continue;
                    }
                    Admission::Judge => self.compile::<K>(&item, batch),
                },
            };
            let Item { source, origin, name, body, version } = item;
            let raw = Bytes::from(body.value);
            match outcome {
                Ok(value) => {
                    judged.good.push(Good { source, origin, name, raw, version, value });
                }
                Err(errors) => {
                    let id = ResourceId { kind: kind(K::TYPE), name: name.clone() };
                    let errors = errors.of(&id);
                    judged.whole |= twice || errors.iter().any(|e| e.fault.is_constraint());
                    let wire_name = if wire_name.is_empty() { name.to_string() } else { wire_name };
                    judged.bad.push(Bad { name, wire_name, raw, version, errors });
                }
            }
        }
        judged
    }

    fn compile<K: Kind>(&mut self, item: &Item, batch: &mut Batch) -> Result<K::Out, Errors> {
        let outcome = K::compile(self, item, batch);
        if !batch.ignored.is_empty() {
            let id = ResourceId { kind: kind(K::TYPE), name: item.name.clone() };
            self.ignore(&id, &std::mem::take(&mut batch.ignored));
        }
        outcome
    }

    /// Notes fields that are not known.
    pub(super) fn ignore(&mut self, resource: &ResourceId, paths: &[String]) {
        self.ignored.add(resource, paths);
        self.stats.own.config_fields_ignored.add(paths.len() as u64);
    }

    /// A server's word has taken the place of the disk's, for one type.
    fn replaced(&mut self, ty: ResourceType) {
        self.startup.stale.retain(|t| *t != ty);
        if self.startup.stale.is_empty() && self.startup.restored.take().is_some() {
            self.stats.own.snapshot_age_seconds.set(0);
            info!("the management server has replaced the configuration read from disk");
        }
    }

    /// A static name stays what it is, whatever a server sends under it.
    pub(super) fn warn_of_static(&mut self, kind: &'static str, name: &Arc<str>) {
        if self.taken.len() < 1_000 && self.taken.insert((kind, name.clone()), ()).is_none() {
            warn!(kind, %name, "a static resource has this name; the dynamic one is ignored");
        }
    }
}

/// The resource's name. Protocol and message must agree on it.
fn identify(wire_name: Option<&str>, body: &Any, is_named_apart: bool) -> Result<Arc<str>, Errors> {
    let Some(name) = peek_name(&body.value) else {
        return Err(Fault::Undecodable("it is not protobuf".to_owned()).into());
    };
    if name.is_empty() {
        return Err(Fault::Required).at("name");
    }
    match wire_name {
        Some(wire) if is_named_apart && !wire.is_empty() => Ok(wire.into()),
        Some(wire) if !wire.is_empty() && wire != name => {
            let reason = format!("the response calls the resource {wire:?}");
            Err(Fault::invalid(format!("{name:?}"), reason)).at("name")
        }
        _ => Ok(name.into()),
    }
}

/// Every name that can be read in an update.
fn mentioned(resources: &[Resource], kept: &[String]) -> Map<Arc<str>, ()> {
    let named = resources.iter().filter_map(|r| peek_name(&r.body.value));
    named.chain(kept.iter().map(String::as_str)).map(|name| (Arc::from(name), ())).collect()
}

/// The faults of a resource, one a line.
fn lines<'a>(errors: impl Iterator<Item = &'a ConfigError>) -> String {
    errors.map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// The bad resources with their faults, and, when nothing was applied, the good ones too: the
/// protocol must not think that they are held.
fn verdict<T>(bad: &[Bad], whole: Option<(&Vec<Good<T>>, &Vec<Item>)>) -> Verdict {
    let mut rejected: Vec<Rejection> = bad
        .iter()
        .map(|b| Rejection { name: b.wire_name.clone(), error: lines(b.errors.iter()) })
        .collect();
    if let Some((good, unchanged)) = whole {
        let faulty: Map<&str, ()> = bad.iter().map(|b| (&*b.name, ())).collect();
        let names = good.iter().map(|g| &g.name).chain(unchanged.iter().map(|i| &i.name));
        let spared = names.filter(|name| !faulty.contains_key(&***name));
        rejected.extend(spared.map(|name| {
            Rejection {
                name: name.to_string(),
                error:
                    "not applied, since another resource of the response breaks a rule of the API"
                        .to_owned(),
            }
        }));
    }
    Verdict { rejected }
}
