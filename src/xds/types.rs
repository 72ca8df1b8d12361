//! The vocabulary of the protocol: resource types, sources, updates and verdicts.
//!
//! A resource type is known here by its type URL and by how the protocol treats it, never by what
//! its messages mean. [`Update`] is what a server said, [`Verdict`] what control made of it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use prost_types::Any;

/// The kinds of resource that can be subscribed to, in the order in which they are applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceType {
    /// `envoy.config.cluster.v3.Cluster`
    Cluster,
    /// `envoy.config.endpoint.v3.ClusterLoadAssignment`
    Endpoints,
    /// `envoy.config.listener.v3.Listener`
    Listener,
    /// `envoy.config.core.v3.TypedExtensionConfig`
    Extension,
    /// `envoy.config.route.v3.RouteConfiguration`
    Routes,
    /// `envoy.config.route.v3.VirtualHost`
    VirtualHost,
    /// `envoy.extensions.transport_sockets.tls.v3.Secret`
    Secret,
}

impl ResourceType {
    /// Every type, make before break: what is referred to comes before what refers to it.
    ///
    /// What listeners wait for comes after them: a listener that takes another kind of extension is
    /// known when the extension comes.
    pub const ALL: [Self; 7] = [
        Self::Cluster,
        Self::Endpoints,
        Self::Listener,
        Self::Extension,
        Self::Routes,
        Self::VirtualHost,
        Self::Secret,
    ];

    /// The type URL that requests, responses and resources carry.
    pub const fn type_url(self) -> &'static str {
        match self {
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoints => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::Extension => "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
            Self::Routes => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            Self::VirtualHost => "type.googleapis.com/envoy.config.route.v3.VirtualHost",
            Self::Secret => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
        }
    }

    /// The type of a type URL, if it is one of ours.
    pub fn from_type_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|ty| ty.type_url() == url)
    }

    /// The usual abbreviation of its discovery service: `CDS`, `EDS`, `LDS`, `ECDS`, `RDS`,
    /// `VHDS` or `SDS`.
    pub const fn short(self) -> &'static str {
        match self {
            Self::Cluster => "CDS",
            Self::Endpoints => "EDS",
            Self::Listener => "LDS",
            Self::Extension => "ECDS",
            Self::Routes => "RDS",
            Self::VirtualHost => "VHDS",
            Self::Secret => "SDS",
        }
    }

    /// Whether the type is subscribed to as a whole. A state-of-the-world response of such a type
    /// is complete: what it does not name is gone.
    pub const fn wildcard(self) -> bool {
        matches!(self, Self::Cluster | Self::Listener)
    }

    /// Whether the server chooses what it sends of the type besides what is asked for by name, so that
    /// no request asks for all of it. Only delta has such types.
    pub const fn is_chosen_by_server(self) -> bool {
        matches!(self, Self::VirtualHost)
    }

    /// Its place in [`Self::ALL`].
    pub(super) const fn index(self) -> usize {
        self as usize
    }

    /// The path of the discovery service that serves only this type.
    pub(super) const fn method(self, variant: Variant) -> &'static str {
        match (self, variant) {
            (Self::Cluster, Variant::Sotw) => {
                "/envoy.service.cluster.v3.ClusterDiscoveryService/StreamClusters"
            }
            (Self::Cluster, Variant::Delta) => {
                "/envoy.service.cluster.v3.ClusterDiscoveryService/DeltaClusters"
            }
            (Self::Endpoints, Variant::Sotw) => {
                "/envoy.service.endpoint.v3.EndpointDiscoveryService/StreamEndpoints"
            }
            (Self::Endpoints, Variant::Delta) => {
                "/envoy.service.endpoint.v3.EndpointDiscoveryService/DeltaEndpoints"
            }
            (Self::Listener, Variant::Sotw) => {
                "/envoy.service.listener.v3.ListenerDiscoveryService/StreamListeners"
            }
            (Self::Listener, Variant::Delta) => {
                "/envoy.service.listener.v3.ListenerDiscoveryService/DeltaListeners"
            }
            (Self::Extension, Variant::Sotw) => {
                "/envoy.service.extension.v3.ExtensionConfigDiscoveryService/StreamExtensionConfigs"
            }
            (Self::Extension, Variant::Delta) => {
                "/envoy.service.extension.v3.ExtensionConfigDiscoveryService/DeltaExtensionConfigs"
            }
            (Self::Routes, Variant::Sotw) => {
                "/envoy.service.route.v3.RouteDiscoveryService/StreamRoutes"
            }
            (Self::Routes, Variant::Delta) => {
                "/envoy.service.route.v3.RouteDiscoveryService/DeltaRoutes"
            }
            // It has no other variant; control subscribes to it at delta sources only.
            (Self::VirtualHost, Variant::Sotw | Variant::Delta) => {
                "/envoy.service.route.v3.VirtualHostDiscoveryService/DeltaVirtualHosts"
            }
            (Self::Secret, Variant::Sotw) => {
                "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets"
            }
            (Self::Secret, Variant::Delta) => {
                "/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets"
            }
        }
    }
}

impl fmt::Display for ResourceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.short())
    }
}

/// Which of the two protocols a stream speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Variant {
    /// State of the world: each request and response carries the whole list.
    Sotw,
    /// Incremental: requests and responses carry what changed.
    Delta,
}

/// One server or file to subscribe at. Subscriptions at equal sources share a stream.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// The aggregated stream of the bootstrap, `dynamic_resources.ads_config`.
    Ads,
    /// A server of its own (`ConfigSource.api_config_source`), by a key the caller chooses. It
    /// gets one stream for each type subscribed.
    Grpc(Arc<str>),
    /// A file replaced by rename (`ConfigSource.path_config_source`).
    File(PathBuf),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ads => f.write_str("ads"),
            Self::Grpc(key) => write!(f, "grpc {key}"),
            Self::File(path) => write!(f, "file {}", path.display()),
        }
    }
}

/// What the protocol reports to control.
#[derive(Debug)]
pub enum Event {
    /// Resources came, changed or went. Wants exactly one [`super::Xds::verdict`].
    Update(Update),
    /// A stream is open. Files have no such event: their updates say enough.
    Connected {
        /// Where.
        source: Source,
        /// The stream's only type; none for the aggregated stream.
        ty: Option<ResourceType>,
    },
    /// A stream ended or could not be opened, or a file could not be read or decoded. What was
    /// accepted earlier stays in service.
    Disconnected {
        /// Where.
        source: Source,
        /// The stream's only type; none for the aggregated stream.
        ty: Option<ResourceType>,
        /// Why.
        error: String,
    },
}

/// One response of a server, unwrapped, or resources whose time to live ended.
#[derive(Debug)]
pub struct Update {
    /// Who said it.
    pub source: Source,
    /// What it is about.
    pub ty: ResourceType,
    /// To be handed back with the verdict.
    pub token: UpdateToken,
    /// The version of the response as a whole; may be empty.
    pub version: Arc<str>,
    /// Whether `resources` and `kept` are all there is, so that absence means deletion.
    pub full: bool,
    /// New or changed resources, in the order of the response.
    pub resources: Vec<Resource>,
    /// Names of resources that a full update mentions without a body: they are unchanged.
    pub kept: Vec<String>,
    /// Names that no longer exist, or never did, or whose time to live ended.
    pub removed: Vec<String>,
    /// Names asked for that the server has answered by another name, or by saying that it has nothing.
    pub answered: Vec<String>,
    /// No server said this: the time to live of the removed names ended.
    pub expired: bool,
    /// What the protocol itself found wrong. It is part of the answer whatever the verdict says.
    pub malformed: Vec<Rejection>,
}

/// Which update a verdict is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateToken {
    pub(super) source: Source,
    pub(super) ty: ResourceType,
    pub(super) seq: u64,
}

/// One resource, not decoded.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    /// Its name, where the protocol carries one. A bare state-of-the-world resource has none: it
    /// is in the message.
    pub name: Option<String>,
    /// Its own version, else that of the response.
    pub version: String,
    /// The message; its type URL is that of the update's type.
    pub body: Any,
    /// How long it may serve without being sent again.
    pub ttl: Option<Duration>,
}

/// One resource that is not accepted, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The name as the update gave it, or as the message gives it. Empty when there is none.
    pub name: String,
    /// The reason, with the path of the field.
    pub error: String,
}

/// What control decided about an update.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The resources not accepted; all others are. Empty accepts the whole update.
    pub rejected: Vec<Rejection>,
}

impl Verdict {
    /// Everything was accepted.
    pub const fn accept() -> Self {
        Self { rejected: Vec::new() }
    }
}
