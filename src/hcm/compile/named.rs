//! Where we say who we are: `add_user_agent` and `proxy_status_config`.

use http::HeaderValue;

use super::{NodeName, optional_header};
use crate::config::{Errors, Fault};
use crate::hcm::proxy_status::ProxyStatus;
use crate::hcm::trust::UserAgent;
use crate::proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager as proto;

/// Nothing where nobody gave us a name.
pub(super) fn user_agent(node: &NodeName) -> Result<Option<UserAgent>, Errors> {
    let cluster = optional_header(&node.cluster)?;
    let node = optional_header(&node.id)?;
    Ok(cluster.map(|cluster| UserAgent { cluster, node }))
}

pub(super) fn proxy_status(
    config: proto::ProxyStatusConfig,
    node: &NodeName,
) -> Result<ProxyStatus, Errors> {
    use proto::proxy_status_config::ProxyName;
    let proto::ProxyStatusConfig {
        remove_details,
        // There are no such details.
        remove_connection_termination_details: _,
        remove_response_flags,
        set_recommended_response_code,
        proxy_name,
    } = config;
    let name = match proxy_name {
        Some(ProxyName::LiteralProxyName(name)) => {
            let is_named = !name.is_empty() && HeaderValue::from_str(&name).is_ok();
            if !is_named {
                let fault = Fault::invalid(format!("{name:?}"), "not a name in a header");
                return Err(Errors::from(fault).at("literal_proxy_name"));
            }
            name.into()
        }
        Some(ProxyName::UseNodeId(true)) if !node.id.is_empty() => Box::from(&*node.id),
        Some(ProxyName::UseNodeId(_)) | None => Box::from("nuncio"),
    };
    Ok(ProxyStatus {
        name,
        details: !remove_details,
        flags: !remove_response_flags,
        recommended_status: set_recommended_response_code,
    })
}
