//! Resources in their JSON form, as short as stories need them.

use std::net::SocketAddr;

use nuncio::proto::json::encode_json;
use prost_types::Any;
use serde_json::{Value, json};

use super::scripted::Kind;

/// A resource as it travels.
pub(crate) fn any(kind: Kind, value: &Value) -> Any {
    let (bytes, ignored) = encode_json(kind.message(), value.clone())
        .unwrap_or_else(|e| panic!("{kind:?} {value}: {e}"));
    assert!(ignored.is_empty(), "{kind:?} {value}: {ignored:?}");
    Any { type_url: kind.url(), value: bytes }
}

/// A resource's name.
pub(crate) fn name_of(kind: Kind, value: &Value) -> String {
    let field = if kind == Kind::Endpoints { "cluster_name" } else { "name" };
    value[field].as_str().unwrap_or_default().to_owned()
}

/// A port on loopback.
pub(crate) fn address(port: u16) -> Value {
    json!({ "socket_address": { "address": "127.0.0.1", "port_value": port } })
}

pub(crate) fn socket(address: SocketAddr) -> Value {
    json!({ "socket_address": {
        "address": address.ip().to_string(), "port_value": address.port(),
    } })
}

/// An endpoint of an assignment.
pub(crate) fn endpoint(address: SocketAddr) -> Value {
    json!({ "endpoint": { "address": socket(address) } })
}

/// A `ClusterLoadAssignment`.
pub(crate) fn assignment(name: &str, endpoints: &[SocketAddr]) -> Value {
    let endpoints: Vec<_> = endpoints.iter().map(|a| endpoint(*a)).collect();
    json!({ "cluster_name": name, "endpoints": [{ "lb_endpoints": endpoints }] })
}

/// A cluster with its endpoints.
pub(crate) fn static_cluster(name: &str, endpoints: &[SocketAddr]) -> Value {
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": assignment(name, endpoints),
    })
}

/// A cluster whose endpoints come over the aggregated stream.
pub(crate) fn eds_cluster(name: &str) -> Value {
    json!({
        "name": name,
        "type": "EDS",
        "connect_timeout": "5s",
        "eds_cluster_config": { "eds_config": ads() },
    })
}

/// The aggregated stream as a `ConfigSource`.
pub(crate) fn ads() -> Value {
    json!({ "ads": {}, "resource_api_version": "V3" })
}

/// Has a cluster speak HTTP/2.
pub(crate) fn over_http2(mut cluster: Value) -> Value {
    cluster["typed_extension_protocol_options"] = json!({
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": { "http2_protocol_options": {} },
        },
    });
    cluster
}

/// A value with some of its fields set to others.
pub(crate) fn with(mut value: Value, fields: Value) -> Value {
    let fields = fields.as_object().expect("fields are an object").clone();
    value.as_object_mut().expect("it is an object").extend(fields);
    value
}

/// A route of everything to a cluster.
pub(crate) fn to(cluster: &str) -> Value {
    route("/", json!({ "cluster": cluster }))
}

/// A route by prefix with this `route` action.
pub(crate) fn route(prefix: &str, action: Value) -> Value {
    json!({ "match": { "prefix": prefix }, "route": action })
}

/// A route table with one virtual host for every domain.
pub(crate) fn table(name: &str, routes: &[Value]) -> Value {
    json!({
        "name": name,
        "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": routes }],
    })
}

/// The router.
pub(crate) fn router() -> Value {
    filter("envoy.filters.http.router", "envoy.extensions.filters.http.router.v3.Router", json!({}))
}

/// A filter with its configuration.
pub(crate) fn filter(name: &str, kind: &str, config: Value) -> Value {
    json!({ "name": name, "typed_config": typed(kind, config) })
}

/// A message as an `Any`.
pub(crate) fn typed(kind: &str, config: Value) -> Value {
    let mut typed = json!({ "@type": format!("type.googleapis.com/{kind}") });
    let fields = config.as_object().expect("a message is an object").clone();
    typed.as_object_mut().expect("it is one").extend(fields);
    typed
}

/// A connection manager; `extra` fields replace its own.
pub(crate) fn hcm(routes: Value, extra: Value) -> Value {
    let manager = with(json!({ "stat_prefix": "in", "http_filters": [router()] }), routes);
    typed(
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        with(manager, extra),
    )
}

/// Options of a connection manager whose clients here are within.
pub(crate) fn from_within() -> Value {
    let here = json!({ "address_prefix": "127.0.0.0", "prefix_len": 8 });
    json!({ "use_remote_address": true, "internal_address_config": { "cidr_ranges": [here] } })
}

/// A listener on a port the system chooses, with a connection manager.
pub(crate) fn listener_of(name: &str, hcm: Value) -> Value {
    listener_at(name, 0, hcm)
}

/// A listener on a port, with a connection manager.
pub(crate) fn listener_at(name: &str, port: u16, hcm: Value) -> Value {
    json!({
        "name": name,
        "address": address(port),
        "filter_chains": [{ "filters": [{
            "name": "envoy.filters.network.http_connection_manager", "typed_config": hcm,
        }] }],
    })
}

/// A listener with routes of its own.
pub(crate) fn listener(name: &str, routes: &[Value]) -> Value {
    listener_of(name, hcm(json!({ "route_config": table("local", routes) }), json!({})))
}

/// A listener whose routes come over the aggregated stream.
pub(crate) fn rds_listener(name: &str, table: &str) -> Value {
    listener_of(name, hcm(rds(table), json!({})))
}

/// The `rds` field of a connection manager.
pub(crate) fn rds(table: &str) -> Value {
    json!({ "rds": { "route_config_name": table, "config_source": ads() } })
}

/// A bootstrap of static resources.
pub(crate) fn bootstrap(listeners: &[Value], clusters: &[Value]) -> Value {
    json!({ "static_resources": { "listeners": listeners, "clusters": clusters } })
}

/// The cluster of the management server.
pub(crate) fn xds_cluster(management: SocketAddr) -> Value {
    over_http2(static_cluster("xds", &[management]))
}

/// `grpc_services` that name it.
pub(crate) fn grpc_services() -> Value {
    json!([{ "envoy_grpc": {
        "cluster_name": "xds",
        "retry_policy": { "retry_back_off": { "base_interval": "0.02s", "max_interval": "0.1s" } },
    } }])
}

/// A bootstrap whose listeners and clusters come over one aggregated stream.
pub(crate) fn dynamic(management: SocketAddr, variant: &str) -> Value {
    json!({
        "node": { "id": "node-1", "cluster": "cluster-1", "locality": { "zone": "zone-1" } },
        "static_resources": { "clusters": [xds_cluster(management)] },
        "dynamic_resources": {
            "ads_config": {
                "api_type": variant,
                "transport_api_version": "V3",
                "grpc_services": grpc_services(),
            },
            "lds_config": ads(),
            "cds_config": ads(),
        },
    })
}

/// [`dynamic`], state of the world.
pub(crate) fn dynamic_sotw(management: SocketAddr) -> Value {
    dynamic(management, "GRPC")
}

/// [`dynamic`], delta.
pub(crate) fn dynamic_delta(management: SocketAddr) -> Value {
    dynamic(management, "DELTA_GRPC")
}
