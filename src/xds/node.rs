//! Who we say we are: the node of the first request of every stream.

use crate::proto::envoy::config::core::v3::Node;
use crate::proto::envoy::config::core::v3::node::UserAgentVersionType;

/// What of the protocol's optional parts is implemented, in the spelling of Envoy's list of well
/// known client features.
const CLIENT_FEATURES: [&str; 2] =
    ["xds.config.resource-in-sotw", "xds.config.supports-resource-ttl"];

/// The node of the bootstrap with the fields that a client fills in by itself. They replace what
/// the bootstrap says there, since a server decides by them what this program understands.
pub(super) fn complete(mut node: Node) -> Node {
    node.user_agent_name = "nuncio".to_owned();
    node.user_agent_version_type =
        Some(UserAgentVersionType::UserAgentVersion(env!("CARGO_PKG_VERSION").to_owned()));
    node.client_features = CLIENT_FEATURES.map(str::to_owned).to_vec();
    node
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_is_the_bootstraps_and_capabilities_are_ours() {
        let node = complete(Node {
            id: "n".into(),
            cluster: "c".into(),
            user_agent_name: "envoy".into(),
            client_features: vec!["envoy.lb.does_not_support_overprovisioning".into()],
            ..Node::default()
        });
        assert_eq!((node.id.as_str(), node.cluster.as_str()), ("n", "c"));
        assert_eq!(node.user_agent_name, "nuncio");
        assert_eq!(node.client_features, CLIENT_FEATURES);
    }
}
