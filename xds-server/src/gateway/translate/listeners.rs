//! A listener: an address, and the filters that every request passes.

use serde_json::json;

use super::filters::Filters;
use super::{Made, TABLE, ads, extension, object};
use crate::gateway::model::ListenAt;
use crate::types::ResourceType;

const HCM: &str =
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

pub(super) fn listener(index: usize, listener: &ListenAt, filters: &Filters) -> Made {
    let http = filters.chain.iter().map(|filter| &filter.value);
    let manager = object([
        ("stat_prefix", Some(json!(TABLE))),
        ("rds", Some(json!({ "route_config_name": TABLE, "config_source": ads() }))),
        ("use_remote_address", Some(json!(true))),
        ("proxy_100_continue", filters.asks_for_bodies.then(|| json!(true))),
        ("http_filters", Some(http.cloned().collect())),
    ]);
    let address = json!({ "socket_address": {
        "address": listener.address.0.to_string(), "port_value": listener.port.0,
    } });
    let manager = extension("envoy.filters.network.http_connection_manager", HCM, manager);
    let mut from = vec![(String::new(), format!("listeners[{index}]"))];
    let chain = "filter_chains[0].filters[0].typed_config.http_filters";
    let parts = filters.chain.iter().enumerate();
    from.extend(parts.map(|(i, filter)| (format!("{chain}[{i}]"), filter.from.to_owned())));
    Made {
        ty: ResourceType::Listener,
        name: listener.name.clone(),
        value: json!({
            "name": listener.name,
            "address": address,
            "filter_chains": [{ "filters": [manager] }],
        }),
        from,
    }
}
