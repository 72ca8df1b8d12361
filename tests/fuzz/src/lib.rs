//! What the targets have in common: the types of resources, and the road from bytes to runtime.
//!
//! ```text
//! cargo install cargo-fuzz
//! cd tests/fuzz
//! cargo run --example seeds -- ../../examples/*.yaml ../../examples/resources/*.yaml
//! cargo +nightly fuzz run --fuzz-dir . compile_listener -- -max_total_time=600
//! ```

use nuncio::control::check::Checker;
use prost_types::Any;

/// `envoy.config.cluster.v3.Cluster`
pub const CLUSTER: &str = "envoy.config.cluster.v3.Cluster";
/// `envoy.config.endpoint.v3.ClusterLoadAssignment`
pub const ENDPOINTS: &str = "envoy.config.endpoint.v3.ClusterLoadAssignment";
/// `envoy.config.core.v3.TypedExtensionConfig`
pub const EXTENSION: &str = "envoy.config.core.v3.TypedExtensionConfig";
/// `envoy.config.listener.v3.Listener`
pub const LISTENER: &str = "envoy.config.listener.v3.Listener";
/// `envoy.config.route.v3.RouteConfiguration`
pub const ROUTES: &str = "envoy.config.route.v3.RouteConfiguration";

/// Keys of a file of resources, and what is in their lists.
pub const SECTIONS: [(&str, &str); 5] = [
    ("clusters", CLUSTER),
    ("endpoints", ENDPOINTS),
    ("extensions", EXTENSION),
    ("listeners", LISTENER),
    ("routes", ROUTES),
];

/// The name that targets have for a section.
pub fn target(section: &str) -> &str {
    match section {
        "clusters" => "cluster",
        "extensions" => "extension",
        "listeners" => "listener",
        other => other,
    }
}

/// Judges bytes as a resource, the way the proxy does. Nothing is bound or opened.
pub fn compile(type_name: &str, bytes: &[u8]) {
    thread_local!(static CHECKER: Checker = Checker::default());
    let type_url = format!("type.googleapis.com/{type_name}");
    let any = Any { type_url, value: bytes.to_vec() };
    let checked = CHECKER.with(|checker| checker.resource(&any));
    for error in checked.errors {
        let _ = error.to_string();
    }
}
