//! Virtual hosts that come apart from their table (VHDS).
//!
//! Each is compiled alone, with what its table says about every route. Putting them together costs an
//! entry for each domain; no route is compiled again.

use std::sync::Arc;

use super::compile::Above;
use super::{HostRoutes, RouteTable};
use crate::config::Fault;
use crate::config::source::ConfigSource;

/// Where a table takes more virtual hosts from.
#[derive(Debug)]
pub(super) struct HostDiscovery {
    pub(super) source: ConfigSource,
    pub(super) above: Above,
}

/// A compiled `config.route.v3.VirtualHost` that belongs to a table by name.
#[derive(Debug)]
pub struct DiscoveredHost {
    /// In lower case.
    pub(super) domains: Box<[Box<str>]>,
    pub(super) routes: Arc<HostRoutes>,
    pub(super) cluster_names: Box<[Arc<str>]>,
}

impl DiscoveredHost {
    /// The domains it is for, in lower case.
    pub fn domains(&self) -> impl Iterator<Item = &str> {
        self.domains.iter().map(|domain| &**domain)
    }

    /// Every cluster that a route names.
    pub fn cluster_names(&self) -> &[Arc<str>] {
        &self.cluster_names
    }
}

impl RouteTable {
    /// Where more virtual hosts come from, if any do (`vhds`).
    pub fn host_source(&self) -> Option<&ConfigSource> {
        self.discovery.as_ref().map(|discovery| &discovery.source)
    }

    /// Whether a virtual host of the table itself has a domain, which is given in lower case.
    pub fn has_domain(&self, domain: &str) -> bool {
        self.domains.has(domain)
    }

    /// This table with more virtual hosts, and which of them, by position, were left out because a domain
    /// of theirs is taken.
    pub fn with_hosts<'h>(
        &self,
        hosts: impl Iterator<Item = &'h DiscoveredHost>,
    ) -> (Self, Vec<(usize, Fault)>) {
        let mut domains = self.domains.clone();
        let mut all = self.hosts.to_vec();
        let mut cluster_names = self.cluster_names.to_vec();
        let mut left_out = Vec::new();
        for (index, host) in hosts.enumerate() {
            let taken = host.domains().find(|domain| domains.has(domain));
            if let Some(domain) = taken {
                left_out.push((index, Fault::Duplicate(domain.to_owned())));
                continue;
            }
            let position = u32::try_from(all.len()).unwrap_or(u32::MAX);
            for domain in host.domains() {
                if let Err(fault) = domains.add(domain, position) {
                    left_out.push((index, fault));
                }
            }
            all.push(Arc::clone(&host.routes));
            cluster_names.extend_from_slice(&host.cluster_names);
        }
        cluster_names.sort_unstable();
        cluster_names.dedup();
        let table = Self {
            name: Arc::clone(&self.name),
            domains,
            hosts: all.into(),
            ignore_port: self.ignore_port,
            ignore_path_parameters: self.ignore_path_parameters,
            internal_only_headers: self.internal_only_headers.clone(),
            cluster_names: cluster_names.into(),
            discovery: self.discovery.clone(),
        };
        (table, left_out)
    }
}
