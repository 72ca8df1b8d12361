//! HTTP/2 as hostile and careless clients speak it: what ends a stream, what ends a connection, and what
//! never reaches an origin.

mod floods;
mod flow;
mod frames;
mod malformed;
mod streams;
mod wire;

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::harness::resources::{bootstrap, hcm, listener_of, static_cluster, table, to};
use crate::harness::{Origin, Proxy, ProxyBuilder};

/// An origin, a proxy of one worker in front of it, and the address of its listener.
async fn world(options: Value) -> (Origin, Proxy, SocketAddr) {
    let origin = Origin::http1("one").await;
    let (proxy, address) = before(&origin, options).await;
    (origin, proxy, address)
}

/// A proxy before an origin.
async fn before(origin: &Origin, options: Value) -> (Proxy, SocketAddr) {
    let manager = hcm(json!({ "route_config": table("local", &[to("one")]) }), options);
    let cluster = static_cluster("one", &[origin.address]);
    let config = bootstrap(&[listener_of("in", manager)], &[cluster]);
    let proxy = ProxyBuilder::new(config).args(["--concurrency", "1"]).ready().await;
    let address = proxy.listener("in").await;
    (proxy, address)
}
