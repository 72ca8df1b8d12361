//! Compression over sockets: what clients are given as data, and stories of bodies that break, of bombs, and
//! of changes while bodies are under way.

#[cfg(test)]
mod bombs;
#[cfg(test)]
mod cases;
#[cfg(test)]
mod changes;
#[cfg(test)]
mod codings;
#[cfg(test)]
mod curl;
#[cfg(test)]
mod envoy;
#[cfg(test)]
mod fairness;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod property;
#[cfg(test)]
mod requests;
#[cfg(test)]
mod responses;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod ways;
#[cfg(test)]
mod zeros;

use std::net::SocketAddr;

use serde_json::{Value, json};

use self::codings::decode;
use crate::harness::resources::{
    bootstrap, filter, hcm, listener_of, router, static_cluster, table, to,
};
use crate::harness::{Answer, Origin, Proxy, Script, request};

const COMPRESSION: &str = "nuncio.extensions.filters.http.compression.v1.Compression";

/// The filter with this configuration.
fn compression(config: Value) -> Value {
    filter("compression", COMPRESSION, config)
}

/// A listener with these filters before the router.
fn filtered(filters: &[Value], routes: Value) -> Value {
    let filters: Vec<_> = filters.iter().cloned().chain([router()]).collect();
    listener_of("in", hcm(routes, json!({ "http_filters": filters })))
}

/// A proxy of an origin, with these filters before the router.
async fn proxied(origin: &Origin, filters: &[Value]) -> (Proxy, SocketAddr) {
    let routes = json!({ "route_config": table("local", &[to("one")]) });
    let cluster = static_cluster("one", &[origin.address]);
    let proxy = Proxy::with(bootstrap(&[filtered(filters, routes)], &[cluster])).await;
    let address = proxy.listener("in").await;
    (proxy, address)
}

/// Text that can be compressed, of so many lines.
fn lines(count: usize) -> String {
    (0..count).map(|n| format!("line {n}\n")).collect()
}

/// A response with this text.
fn page(text: &str) -> Script {
    let script = Script { body: Some(text.to_owned().into()), ..Script::default() };
    script.header("content-type", "text/html")
}

/// Asks as a client that takes these codings.
async fn ask(address: SocketAddr, path: &str, accepts: &str) -> Answer {
    request(address, "GET", path, &[("accept-encoding", accepts)], b"").await
}

/// What a body is, whatever it is in.
#[track_caller]
fn plain(answer: &Answer) -> String {
    let body = match answer.header("content-encoding") {
        "" => answer.body.to_vec(),
        coding => decode(coding, &answer.body).expect("a whole body of its coding"),
    };
    String::from_utf8(body).unwrap()
}
