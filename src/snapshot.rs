//! All configuration at one version, immutable, shared by every worker.
//!
//! Control builds one whenever the shape of the configuration changes and hands it out through a
//! `watch` channel; a worker splits it to its listeners, routes and clusters. What changes by the
//! second, such as the endpoints of a cluster, is inside the cluster and needs no new snapshot.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::listener::Listener;
use crate::route::Tables;
use crate::upstream::Clusters;

/// Configuration that requests are served by.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Counts up from 0, the empty snapshot a process begins with.
    pub version: u64,
    /// Listeners that are warm, by name.
    pub listeners: BTreeMap<Arc<str>, Arc<Listener>>,
    /// Route tables by name, those no listener has asked for left out.
    pub routes: Arc<Tables>,
    /// Clusters that are warm, by name.
    pub clusters: Arc<Clusters>,
    /// Secrets by name. Nothing reads their bytes yet: TLS contexts will.
    pub secrets: Arc<BTreeMap<Arc<str>, Arc<Secret>>>,
}

/// A secret, by kind only. Its bytes stay with control until something can use them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// The secret's name.
    pub name: Arc<str>,
    /// Which member of `Secret.type` is set: `tls_certificate`, `generic_secret`, ...
    pub kind: &'static str,
}
