//! The resource types that are served, in the order in which they are made.

/// A type of resource. Variants are in make-before-break order: what others refer to comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceType {
    /// `extensions.transport_sockets.tls.v3.Secret` (SDS).
    Secret,
    /// `config.cluster.v3.Cluster` (CDS).
    Cluster,
    /// `config.endpoint.v3.ClusterLoadAssignment` (EDS).
    Endpoint,
    /// `config.listener.v3.Listener` (LDS).
    Listener,
    /// `config.core.v3.TypedExtensionConfig` (ECDS).
    Extension,
    /// `config.route.v3.RouteConfiguration` (RDS).
    Route,
    /// `config.route.v3.VirtualHost` (VHDS).
    VirtualHost,
}

impl ResourceType {
    /// Every type, in make-before-break order.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Secret,
        Self::Cluster,
        Self::Endpoint,
        Self::Listener,
        Self::Extension,
        Self::Route,
        Self::VirtualHost,
    ];

    /// How many there are.
    pub(crate) const COUNT: usize = 7;

    /// The full name of the message type.
    pub fn type_name(self) -> &'static str {
        match self {
            Self::Secret => "envoy.extensions.transport_sockets.tls.v3.Secret",
            Self::Cluster => "envoy.config.cluster.v3.Cluster",
            Self::Endpoint => "envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listener => "envoy.config.listener.v3.Listener",
            Self::Extension => "envoy.config.core.v3.TypedExtensionConfig",
            Self::Route => "envoy.config.route.v3.RouteConfiguration",
            Self::VirtualHost => "envoy.config.route.v3.VirtualHost",
        }
    }

    /// The type URL, as in requests and responses.
    pub fn url(self) -> &'static str {
        match self {
            Self::Secret => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoint => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::Extension => "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
            Self::Route => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            Self::VirtualHost => "type.googleapis.com/envoy.config.route.v3.VirtualHost",
        }
    }

    /// The type of a type URL, if it is one of ours.
    pub fn from_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|ty| ty.url() == url)
    }

    /// The top-level key of a resource file, the key in the status documents and the metric label.
    pub fn key(self) -> &'static str {
        match self {
            Self::Secret => "secrets",
            Self::Cluster => "clusters",
            Self::Endpoint => "endpoints",
            Self::Listener => "listeners",
            Self::Extension => "extensions",
            Self::Route => "routes",
            Self::VirtualHost => "virtual_hosts",
        }
    }

    /// The type of a top-level key.
    pub fn from_key(key: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|ty| ty.key() == key)
    }

    /// How one resource of the type is called in messages.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Secret => "Secret",
            Self::Cluster => "Cluster",
            Self::Endpoint => "ClusterLoadAssignment",
            Self::Listener => "Listener",
            Self::Extension => "TypedExtensionConfig",
            Self::Route => "RouteConfiguration",
            Self::VirtualHost => "VirtualHost",
        }
    }

    /// Whether a state-of-the-world response holds everything subscribed, so that absence means
    /// removal. For the other types absence means nothing.
    pub fn is_complete(self) -> bool {
        matches!(self, Self::Cluster | Self::Listener)
    }

    /// Whether what is sent besides the names asked for is the server's choice. Only delta has such types.
    pub(crate) fn is_chosen_here(self) -> bool {
        matches!(self, Self::VirtualHost)
    }

    /// Position in [`Self::ALL`].
    pub(crate) fn index(self) -> usize {
        match self {
            Self::Secret => 0,
            Self::Cluster => 1,
            Self::Endpoint => 2,
            Self::Listener => 3,
            Self::Extension => 4,
            Self::Route => 5,
            Self::VirtualHost => 6,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_found_by_its_names() {
        for (index, ty) in ResourceType::ALL.into_iter().enumerate() {
            assert_eq!(ty.index(), index);
            assert_eq!(ResourceType::from_url(ty.url()), Some(ty));
            assert_eq!(ResourceType::from_key(ty.key()), Some(ty));
            assert_eq!(ty.url(), format!("type.googleapis.com/{}", ty.type_name()));
        }
        assert_eq!(ResourceType::from_url("type.googleapis.com/x.Y"), None);
    }
}
