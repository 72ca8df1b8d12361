//! Judging one resource alone, by the rules of the proxy.

use std::sync::Arc;

use nuncio::control::check;
use prost::Message;
use prost_types::Any;

/// What is said of one resource.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    /// Every fault: the path of the field, empty for the whole, and what is wrong.
    pub(crate) errors: Vec<(String, String)>,
    /// Paths of fields that the proxy does not know.
    pub(crate) ignored: Vec<String>,
}

/// Judges a resource as the proxy would.
pub(crate) fn check(checker: &check::Checker, any: &Any) -> Checked {
    let check::Checked { ty: _, id: _, errors, ignored, references: _ } = checker.resource(any);
    let errors = errors.into_iter().map(|error| (error.path, error.fault.to_string())).collect();
    Checked { errors, ignored }
}

/// The name of a resource: field 1 of every type.
pub(crate) fn name_of(any: &Any) -> Option<Arc<str>> {
    #[derive(Clone, PartialEq, Message)]
    struct Named {
        #[prost(string, tag = "1")]
        name: String,
    }
    Some(Named::decode(&*any.value).ok()?.name.into())
}

#[cfg(test)]
mod tests {
    use nuncio::proto::any::pack;
    use nuncio::proto::envoy::config::cluster::v3::Cluster;
    use nuncio::proto::envoy::config::core::v3::TypedExtensionConfig;
    use nuncio::proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
    use nuncio::proto::envoy::config::listener::v3::Listener;
    use nuncio::proto::envoy::config::route::v3::RouteConfiguration;
    use nuncio::proto::envoy::extensions::transport_sockets::tls::v3::Secret;

    use super::*;
    use crate::types::ResourceType;

    #[test]
    fn every_type_keeps_its_name_in_field_1() {
        let name = || "x".to_owned();
        let messages = [
            pack(&Cluster { name: name(), ..Cluster::default() }),
            pack(&ClusterLoadAssignment { cluster_name: name(), ..Default::default() }),
            pack(&Listener { name: name(), ..Listener::default() }),
            pack(&TypedExtensionConfig { name: name(), ..TypedExtensionConfig::default() }),
            pack(&RouteConfiguration { name: name(), ..RouteConfiguration::default() }),
            pack(&Secret { name: name(), ..Secret::default() }),
        ];
        for any in messages {
            assert!(ResourceType::from_url(&any.type_url).is_some(), "{}", any.type_url);
            assert_eq!(name_of(&any).as_deref(), Some("x"));
        }
        assert_eq!(name_of(&Any { value: vec![0x0a], ..Any::default() }), None);
    }
}
