//! What control holds, as `/config_dump` and its neighbours show it.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

use super::IgnoredField;
use super::state::State;
use super::store::{Held, Origin, Record, Rejected};
use crate::xds::{SourceStatus, Xds};

/// One accepted version of a resource.
#[derive(Debug, Clone)]
pub struct Version {
    /// The message as it came.
    pub raw: Bytes,
    /// Its version; empty for static resources.
    pub version: Arc<str>,
    /// When it was taken in.
    pub updated: SystemTime,
}

/// One resource.
#[derive(Debug, Clone)]
pub struct Shown {
    /// Its name.
    pub name: Arc<str>,
    /// Whose it is.
    pub origin: Origin,
    /// The version in service.
    pub active: Option<Version>,
    /// The version that waits for what it refers to.
    pub warming: Option<Version>,
    /// The last version that was not accepted, if none was since.
    pub rejected: Option<Rejected>,
}

/// Everything, each list sorted by name.
#[derive(Debug, Default)]
pub struct Dump {
    /// `Cluster`
    pub clusters: Vec<Shown>,
    /// `ClusterLoadAssignment` of EDS clusters
    pub endpoints: Vec<Shown>,
    /// `Listener`
    pub listeners: Vec<Shown>,
    /// `TypedExtensionConfig` from ECDS
    pub extensions: Vec<Shown>,
    /// `RouteConfiguration` from RDS, with the virtual hosts that came for it
    pub routes: Vec<Shown>,
    /// `Secret`, with their private parts: not to be shown as they are.
    pub secrets: Vec<Shown>,
    /// Fields that came and are not known.
    pub ignored: Vec<IgnoredField>,
    /// The streams and files subscribed to.
    pub sources: Vec<SourceStatus>,
}

impl State {
    pub(super) fn dump(&self, xds: &Xds) -> Dump {
        Dump {
            clusters: sorted(self.clusters.records.iter()),
            endpoints: sorted(self.endpoints.records.iter().map(|(want, r)| (&want.name, r))),
            listeners: sorted(self.listeners.records.iter()),
            extensions: sorted(self.extensions.records.iter().map(|(want, r)| (&want.name, r))),
            routes: by_name(self.routes.records.iter().map(|(w, r)| self.shown_table(w, r))),
            secrets: sorted(self.secrets.records.iter()),
            ignored: self.ignored.list(),
            sources: xds.status(),
        }
    }
}

fn sorted<'a, T: 'a>(records: impl Iterator<Item = (&'a Arc<str>, &'a Record<T>)>) -> Vec<Shown> {
    by_name(records.map(|(name, record)| show(name, record)))
}

fn by_name(shown: impl Iterator<Item = Shown>) -> Vec<Shown> {
    let mut shown: Vec<Shown> = shown.collect();
    shown.sort_by(|a, b| a.name.cmp(&b.name));
    shown
}

pub(super) fn show<T>(name: &Arc<str>, record: &Record<T>) -> Shown {
    let version = |held: &Held<T>| Version {
        raw: held.raw.clone(),
        version: held.version.clone(),
        updated: held.updated,
    };
    Shown {
        name: name.clone(),
        origin: record.origin,
        active: record.active.as_ref().map(version),
        warming: record.warming.as_ref().map(version),
        rejected: record.rejected.as_deref().cloned(),
    }
}
