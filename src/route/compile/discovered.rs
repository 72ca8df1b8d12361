//! `config.route.v3.Vhds`, and virtual hosts that come apart from their table.

use std::sync::Arc;

use super::super::RouteTable;
use super::super::discovered::{DiscoveredHost, HostDiscovery};
use super::{CompileContext, Inherited, Rules, Shared, add_domains, virtual_host};
use crate::config::{Errors, OrFault, fields, source};
use crate::proto::envoy::config::route::v3 as proto;
use crate::route::host::Domains;

/// What a table says about virtual hosts that come later.
#[derive(Debug, Clone)]
pub(in crate::route) struct Above {
    inherited: Inherited,
    rules: Rules,
}

pub(super) fn compile(
    vhds: &proto::Vhds,
    inherited: Inherited,
    rules: Rules,
) -> Result<HostDiscovery, Errors> {
    let proto::Vhds { config_source } = vhds;
    let source = fields::required(config_source.as_ref()).and_then(source::compile);
    Ok(HostDiscovery { source: source.at("config_source")?, above: Above { inherited, rules } })
}

impl RouteTable {
    /// Compiles a virtual host as one of `table`; without one, as one of a table that says nothing else.
    ///
    /// # Errors
    /// Every fault in it, with its path. Whether another virtual host has one of its domains is not
    /// known here.
    pub fn compile_host(
        table: Option<&Self>,
        host: proto::VirtualHost,
        cx: &CompileContext<'_>,
    ) -> Result<DiscoveredHost, Errors> {
        let above = table.and_then(|table| table.discovery.as_ref()).map(|d| d.above.clone());
        let Above { inherited, rules } = above.unwrap_or_else(|| Above {
            inherited: Inherited::default(),
            rules: Rules {
                most_specific_header_mutations_wins: false,
                max_direct_response_body_size_bytes: u32::MAX,
            },
        });
        let mut errors = Errors::new();
        let mut shared = Shared::new(cx, rules);
        errors.take(add_domains(&mut Domains::default(), &host.domains, 0));
        let domains =
            host.domains.iter().map(|domain| domain.to_ascii_lowercase().into()).collect();
        let routes = errors.take(virtual_host(host, &inherited, &mut shared));
        match routes {
            Some(routes) if errors.is_empty() => Ok(DiscoveredHost {
                domains,
                routes: Arc::new(routes),
                cluster_names: shared.cluster_names(),
            }),
            _ => Err(errors),
        }
    }
}
