//! `/listeners`: names and bound addresses.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::Reply;
use super::query::Query;
use crate::snapshot::Snapshot;

pub(super) fn listeners(snapshot: &Snapshot, query: &Query) -> Reply {
    if query.wants_json() {
        let status = |(name, listener): (&std::sync::Arc<str>, &_)| {
            let listener: &std::sync::Arc<crate::listener::Listener> = listener;
            json!({"name": &**name, "local_address": address(listener.sockets.address())})
        };
        let statuses: Vec<Value> = snapshot.listeners.iter().map(status).collect();
        return Reply::json(&json!({"listener_statuses": statuses}));
    }
    let mut text = String::new();
    for (name, listener) in &snapshot.listeners {
        text.push_str(&format!("{name}::{}\n", listener.sockets.address()));
    }
    Reply::text(text)
}

/// An address in the form of `config.core.v3.Address`.
pub(super) fn address(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}
