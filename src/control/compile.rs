//! Bytes to runtime type, one resource alone: audit, decode, compile.
//!
//! The same road for a resource from a server, from the bootstrap, from the disk and for
//! [`check`](super::check): what one refuses all refuse.

use std::sync::Arc;

use prost::{Message, Name};
use prost_types::Any;

use crate::config::runtime::Runtime;
use crate::config::{Errors, Fault, OrFault};
use crate::filter::discovery::Extension;
use crate::filter::registry::compile_override;
use crate::listener::{self, ListenerConfig, NodeName};
use crate::proto::audit::{self, Audit};
use crate::proto::envoy::config::cluster::v3 as cluster;
use crate::proto::envoy::config::core::v3 as core;
use crate::proto::envoy::config::endpoint::v3 as endpoint;
use crate::proto::envoy::config::listener::v3 as proto_listener;
use crate::proto::envoy::config::route::v3 as proto_route;
use crate::proto::envoy::extensions::transport_sockets::tls::v3 as tls;
use crate::route::discovered::DiscoveredHost;
use crate::route::{self, RouteTable};
use crate::snapshot::Secret;
use crate::telemetry::Telemetry;
use crate::telemetry::access_log::Sinks;
use crate::upstream::zone::LocalZone;
use crate::upstream::{self, Cluster, Endpoints};
use crate::xds::ResourceType;

/// What the compile steps need to know besides the resource. Cheap to clone.
#[derive(Clone)]
pub struct Compilers {
    upstream: Arc<upstream::CompileContext>,
    listener: Arc<listener::CompileContext>,
    runtime: Arc<Runtime>,
}

impl Compilers {
    /// Compile steps whose results count in `telemetry` and log to `sinks`.
    pub fn new(telemetry: Telemetry, sinks: Sinks) -> Self {
        let upstream = upstream::CompileContext {
            telemetry: telemetry.clone(),
            sinks: Some(sinks.clone()),
            ..Default::default()
        };
        let runtime = Arc::<Runtime>::default();
        let listener = listener::CompileContext {
            telemetry,
            sinks,
            runtime: Arc::clone(&runtime),
            node: NodeName::default(),
        };
        Self { upstream: Arc::new(upstream), listener: Arc::new(listener), runtime }
    }

    /// The same for a proxy whose operator has set runtime keys.
    #[must_use]
    pub fn with_runtime(mut self, runtime: Arc<Runtime>) -> Self {
        let shared = || Arc::clone(&runtime);
        let upstream = (*self.upstream).clone();
        self.upstream = Arc::new(upstream::CompileContext { runtime: shared(), ..upstream });
        let listener = (*self.listener).clone();
        self.listener = Arc::new(listener::CompileContext { runtime: shared(), ..listener });
        Self { runtime, ..self }
    }

    /// The same for a proxy that has a name.
    #[must_use]
    pub fn named(mut self, node: NodeName) -> Self {
        self.listener = Arc::new(listener::CompileContext { node, ..(*self.listener).clone() });
        self
    }

    /// The same for a proxy that knows where it runs.
    #[must_use]
    pub fn in_zone(mut self, zone: Option<LocalZone>) -> Self {
        let zone = zone.map(Arc::new);
        self.upstream = Arc::new(upstream::CompileContext { zone, ..(*self.upstream).clone() });
        self
    }

    /// Compile steps for looking only: no file is opened, and counts go nowhere.
    pub fn check_only() -> Self {
        Self::new(Telemetry::default(), Sinks::check_only())
    }

    pub(super) fn cluster(&self, body: &Any, ignored: &mut Vec<String>) -> Result<Cluster, Errors> {
        let proto: cluster::Cluster = decode(body, ignored)?;
        Cluster::compile(proto, &self.upstream)
    }

    pub(super) fn listener(
        &self,
        body: &Any,
        ignored: &mut Vec<String>,
    ) -> Result<ListenerConfig, Errors> {
        let proto: proto_listener::Listener = decode(body, ignored)?;
        listener::compile(proto, &self.listener)
    }

    pub(super) fn routes(
        &self,
        body: &Any,
        ignored: &mut Vec<String>,
    ) -> Result<RouteTable, Errors> {
        let proto: proto_route::RouteConfiguration = decode(body, ignored)?;
        RouteTable::compile(proto, &self.for_routes())
    }

    /// A virtual host of a table, if that is known.
    pub(super) fn host(
        &self,
        body: &Any,
        table: Option<&RouteTable>,
        ignored: &mut Vec<String>,
    ) -> Result<DiscoveredHost, Errors> {
        let proto: proto_route::VirtualHost = decode(body, ignored)?;
        RouteTable::compile_host(table, proto, &self.for_routes())
    }

    fn for_routes(&self) -> route::CompileContext<'_> {
        route::CompileContext {
            compile_filter_override: &compile_override,
            runtime: &self.runtime,
            telemetry: &self.listener.telemetry,
        }
    }
}

pub(super) fn endpoints(body: &Any, ignored: &mut Vec<String>) -> Result<Endpoints, Errors> {
    let proto: endpoint::ClusterLoadAssignment = decode(body, ignored)?;
    Endpoints::compile(proto)
}

pub(super) fn extension(body: &Any, ignored: &mut Vec<String>) -> Result<Extension, Errors> {
    let proto: core::TypedExtensionConfig = decode(body, ignored)?;
    Extension::compile(proto)
}

pub(super) fn secret(body: &Any, ignored: &mut Vec<String>) -> Result<Secret, Errors> {
    use tls::secret::Type;
    let proto: tls::Secret = decode(body, ignored)?;
    let tls::Secret { name, r#type } = proto;
    let kind = match r#type {
        None => return Err(Errors::from(Fault::Required).at("type")),
        Some(Type::TlsCertificate(_)) => "tls_certificate",
        Some(Type::SessionTicketKeys(_)) => "session_ticket_keys",
        Some(Type::ValidationContext(_)) => "validation_context",
        Some(Type::GenericSecret(_)) => "generic_secret",
    };
    Ok(Secret { name: crate::config::fields::non_empty(&name).at("name")?, kind })
}

/// Audits and decodes a message. Fields that are not known are added to `ignored`, whatever else
/// comes of the message.
fn decode<M: Message + Name + Default>(body: &Any, ignored: &mut Vec<String>) -> Result<M, Errors> {
    let Audit { ignored: paths, refused, malformed, unlisted } =
        audit::audit(&M::full_name(), &body.value);
    ignored.extend(paths);
    if unlisted > 0 {
        ignored.push(format!("and {unlisted} more"));
    }
    let mut errors = Errors::new();
    for audit::Refused { path, reason } in refused {
        errors.push(path, Fault::unsupported(reason));
    }
    if let Some(audit::Malformed { path, reason }) = malformed {
        errors.push(path, Fault::Undecodable(reason.to_owned()));
    }
    let decoded = M::decode(body.value.as_slice())
        .map_err(|error| Errors::from(Fault::Undecodable(error.to_string())));
    match errors.take(decoded) {
        Some(message) if errors.is_empty() => Ok(message),
        _ => Err(errors),
    }
}

/// What errors call a resource of a type.
pub(super) const fn kind(ty: ResourceType) -> &'static str {
    match ty {
        ResourceType::Cluster => "Cluster",
        ResourceType::Endpoints => "ClusterLoadAssignment",
        ResourceType::Listener => "Listener",
        ResourceType::Extension => "TypedExtensionConfig",
        ResourceType::Routes => "RouteConfiguration",
        ResourceType::VirtualHost => "VirtualHost",
        ResourceType::Secret => "Secret",
    }
}

/// The name in a resource's bytes, which is field 1 of every type. Of damaged bytes the part before
/// the damage counts; none if no name is there.
pub(super) fn peek_name(mut bytes: &[u8]) -> Option<&str> {
    let mut name = None;
    while !bytes.is_empty() {
        match next_name(&mut bytes) {
            Some(Some(found)) => name = Some(found),
            Some(None) => {}
            None => return std::str::from_utf8(name?).ok(),
        }
    }
    std::str::from_utf8(name.unwrap_or_default()).ok()
}

/// Reads one field: field 1's bytes, or nothing of another field. None if it is damaged.
fn next_name<'a>(bytes: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
    let (tag, wire_type) = decode_key(bytes).ok()?;
    if (tag, wire_type) == (1, WireType::LengthDelimited) {
        let length = usize::try_from(decode_varint(bytes).ok()?).ok()?;
        let (name, rest) = bytes.split_at_checked(length)?;
        *bytes = rest;
        return Some(Some(name));
    }
    skip_field(wire_type, tag, bytes, DecodeContext::default()).ok()?;
    Some(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_read_without_decoding_the_rest() {
        let cluster =
            cluster::Cluster { name: "a".into(), alt_stat_name: "b".into(), ..Default::default() };
        let bytes = cluster.encode_to_vec();
        assert_eq!(peek_name(&bytes), Some("a"));
        assert_eq!(peek_name(&[]), Some(""));
        assert_eq!(peek_name(&[0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(peek_name(&[0x0a, 0x05, b'a']), None);
        assert_eq!(peek_name(&[&bytes[..], &[0xff]].concat()), Some("a"), "damage comes later");
        let later: Vec<u8> = bytes.iter().chain(&[0x0a, 1, b'z']).copied().collect();
        assert_eq!(peek_name(&later), Some("z"), "the last one counts, as in decoding");
    }
}
