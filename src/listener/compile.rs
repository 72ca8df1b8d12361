//! `Listener` to [`ListenerConfig`].

use std::net::SocketAddr;
use std::sync::Arc;

use super::limit::{self, ConnectionLimit};
use super::stats::ListenerStats;
use crate::config::{Errors, Fault, OrFault, fields};
use crate::filter::discovery::Discovery;
use crate::hcm;
use crate::hcm::compile::{HcmConfig, RdsConfig, RouteSource};
use crate::net::BindOptions;
use crate::proto::any::{UnpackError, effective_type, unpack};
use crate::proto::envoy::config::core::v3::{TransportSocket, transport_socket};
use crate::proto::envoy::config::listener::v3 as proto;
use crate::telemetry::Scope;

pub use crate::hcm::compile::{CompileContext, NodeName};

const HCM: &str =
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const CONNECTION_LIMIT: &str =
    "envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit";
const RAW_BUFFER: &str = "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer";

/// A compiled listener, shared by the workers.
#[derive(Debug)]
pub struct ListenerConfig {
    /// The resource's name.
    pub name: Arc<str>,
    /// The address to bind; port 0 lets the system choose.
    pub address: SocketAddr,
    /// How the sockets are made.
    pub bind: BindOptions,
    /// Length of the accept queue.
    pub backlog: i32,
    /// Bytes of a request that may be held: `per_connection_buffer_limit_bytes`, 1 MiB unless set.
    pub buffer_limit: u32,
    /// What is done with connections.
    pub chain: Chain,
    /// Cells of its address.
    pub stats: Arc<ListenerStats>,
}

/// A filter chain: limits, then HTTP.
#[derive(Debug)]
pub struct Chain {
    /// Connection limits, outermost first.
    pub limits: Vec<Arc<ConnectionLimit>>,
    /// The connection manager at its end.
    pub hcm: Arc<HcmConfig>,
}

impl ListenerConfig {
    /// The route tables it needs from elsewhere.
    pub fn rds(&self) -> impl Iterator<Item = &RdsConfig> {
        let rds = match &self.chain.hcm.routes {
            RouteSource::Rds(rds) => Some(rds),
            RouteSource::Inline(_) => None,
        };
        rds.into_iter()
    }

    /// The filters whose configuration it needs from elsewhere.
    pub fn discoveries(&self) -> impl Iterator<Item = &Discovery> {
        self.chain.hcm.filters.discoveries()
    }
}

/// Compiles a listener.
pub fn compile(message: proto::Listener, cx: &CompileContext) -> Result<ListenerConfig, Errors> {
    let proto::Listener {
        name,
        address,
        stat_prefix,
        filter_chains,
        default_filter_chain,
        per_connection_buffer_limit_bytes,
        drain_type,
        listener_filters,
        freebind,
        enable_reuse_port,
        reuse_port,
        tcp_backlog_size,
        bind_to_port,
    } = message;
    let mut errors = Errors::new();
    let name = errors.take(fields::non_empty(&name).at("name"));
    let address =
        errors.take(fields::required(address.as_ref()).and_then(fields::socket_addr).at("address"));
    if bind_to_port == Some(false) {
        let fault = Fault::unsupported("a listener without a port of its own is not supported");
        errors.push("bind_to_port", fault);
    }
    if reuse_port {
        errors.push("reuse_port", Fault::unsupported("deprecated; use enable_reuse_port"));
    }
    // Connections drain whenever their listener goes or changes, which both types ask for.
    errors.take(fields::enumeration::<proto::listener::DrainType>(drain_type).at("drain_type"));
    for (i, filter) in listener_filters.iter().enumerate() {
        errors.take(compile_listener_filter(filter).index(i).at("listener_filters"));
    }
    let backlog = errors.take(compile_backlog(tcp_backlog_size).at("tcp_backlog_size"));
    let chain = errors.take(compile_chains(filter_chains, default_filter_chain, cx));
    errors.finish()?;
    let missing = || Errors::from(Fault::Required);
    let address = address.ok_or_else(missing)?;
    let stats_name = if stat_prefix.is_empty() { address.to_string() } else { stat_prefix };
    Ok(ListenerConfig {
        name: name.ok_or_else(missing)?,
        address,
        bind: BindOptions {
            reuse_port: enable_reuse_port.unwrap_or(true),
            freebind: freebind.unwrap_or(false),
        },
        backlog: backlog.ok_or_else(missing)?,
        buffer_limit: per_connection_buffer_limit_bytes.unwrap_or(1 << 20),
        chain: chain.ok_or_else(missing)?,
        stats: cx.telemetry.group(Scope::listener(&stats_name)),
    })
}

/// The kernel caps it at `net.core.somaxconn`.
fn compile_backlog(value: Option<u32>) -> Result<i32, Errors> {
    let value = value.unwrap_or(4096);
    i32::try_from(value)
        .map_err(|_wide| Fault::out_of_range(value, format!("in 0..={}", i32::MAX)).into())
}

fn undecodable(error: UnpackError) -> Fault {
    Fault::Undecodable(error.to_string())
}

fn compile_listener_filter(filter: &proto::ListenerFilter) -> Result<(), Errors> {
    let proto::ListenerFilter { name: _, config_type } = filter;
    let Some(proto::listener_filter::ConfigType::TypedConfig(config)) = config_type else {
        return Err(Errors::from(Fault::Required).at("typed_config"));
    };
    let kind = effective_type(config).map_err(undecodable).at("typed_config")?;
    Err(Fault::UnknownExtension(kind.into_owned())).at("typed_config")
}

fn compile_chains(
    mut chains: Vec<proto::FilterChain>,
    default: Option<proto::FilterChain>,
    cx: &CompileContext,
) -> Result<Chain, Errors> {
    match (chains.len(), default) {
        (1, None) => compile_chain(chains.swap_remove(0), cx).index(0).at("filter_chains"),
        (0, Some(default)) => compile_chain(default, cx).at("default_filter_chain"),
        (0, None) => Err(Errors::from(Fault::invalid(
            "no filter chains",
            "a listener needs one, or connections could not be served",
        ))
        .at("filter_chains")),
        _ => Err(Errors::from(Fault::unsupported(
            "several filter chains are not supported yet; use one",
        ))
        .at("filter_chains")),
    }
}

fn compile_chain(chain: proto::FilterChain, cx: &CompileContext) -> Result<Chain, Errors> {
    let proto::FilterChain { filter_chain_match, filters, transport_socket, name: _ } = chain;
    let mut errors = Errors::new();
    // An empty match takes every connection; every condition is declared and refused.
    let (None | Some(proto::FilterChainMatch {})) = filter_chain_match;
    if let Some(socket) = &transport_socket {
        errors.take(compile_transport_socket(socket).at("transport_socket"));
    }
    let mut limits = Vec::new();
    let mut hcm = None;
    let last = filters.len().saturating_sub(1);
    for (i, filter) in filters.into_iter().enumerate() {
        match errors.take(compile_network_filter(filter, cx).index(i).at("filters")) {
            Some(NetworkFilter::Limit(limit)) if i < last => limits.push(Arc::new(limit)),
            Some(NetworkFilter::Hcm(config)) if i == last => hcm = Some(Arc::new(*config)),
            Some(_) => {
                let reason = "the last network filter, and only it, must be the connection manager";
                errors.take::<()>(Err(Fault::Conflict(reason.into())).index(i).at("filters"));
            }
            None => {}
        }
    }
    if hcm.is_none() && errors.is_empty() {
        errors.push("filters", Fault::Required);
    }
    errors.finish()?;
    match hcm {
        Some(hcm) => Ok(Chain { limits, hcm }),
        None => Err(Fault::Required.into()),
    }
}

fn compile_transport_socket(socket: &TransportSocket) -> Result<(), Errors> {
    let TransportSocket { name: _, config_type } = socket;
    let Some(transport_socket::ConfigType::TypedConfig(config)) = config_type else {
        return Err(Errors::from(Fault::Required).at("typed_config"));
    };
    match effective_type(config).map_err(undecodable).at("typed_config")? {
        kind if kind == RAW_BUFFER => Ok(()),
        kind => Err(Fault::UnknownExtension(kind.into_owned())).at("typed_config"),
    }
}

enum NetworkFilter {
    Limit(ConnectionLimit),
    Hcm(Box<HcmConfig>),
}

fn compile_network_filter(
    filter: proto::Filter,
    cx: &CompileContext,
) -> Result<NetworkFilter, Errors> {
    let proto::Filter { name, config_type } = filter;
    fields::non_empty(&name).at("name")?;
    let Some(proto::filter::ConfigType::TypedConfig(config)) = config_type else {
        return Err(Errors::from(Fault::Required).at("typed_config"));
    };
    let kind = effective_type(&config).map_err(undecodable).at("typed_config")?;
    match &*kind {
        HCM => {
            let message = unpack(&config).map_err(undecodable).at("typed_config")?;
            let compiled = hcm::compile::compile(message, cx).at("typed_config")?;
            Ok(NetworkFilter::Hcm(Box::new(compiled)))
        }
        CONNECTION_LIMIT => {
            let message = unpack(&config).map_err(undecodable).at("typed_config")?;
            Ok(NetworkFilter::Limit(limit::compile(&message).at("typed_config")?))
        }
        _ => Err(Fault::UnknownExtension(kind.into_owned())).at("typed_config"),
    }
}
