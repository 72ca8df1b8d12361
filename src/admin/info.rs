//! `/ready` and `/server_info`.

use std::time::SystemTime;

use http::StatusCode;
use prost::{Message, Name};
use serde_json::{Value, json};

use super::{Admin, Reply};
use crate::control::{Phase, Status};
use crate::proto::envoy::config::core::v3::Node;
use crate::proto::json::to_json;

/// Envoy's names of the states.
fn state(admin: &Admin) -> (&'static str, Status) {
    let status = admin.control.status().borrow().clone();
    let name = match status.phase {
        _ if admin.hooks.is_draining() => "DRAINING",
        Phase::Clusters => "PRE_INITIALIZING",
        Phase::Listeners => "INITIALIZING",
        Phase::Live if !admin.hooks.is_serving() => "INITIALIZING",
        Phase::Live => "LIVE",
    };
    (name, status)
}

pub(super) fn ready(admin: &Admin) -> Reply {
    let (name, Status { phase: _, restored }) = state(admin);
    let mut reply = Reply::text(format!("{name}\n"));
    if name != "LIVE" {
        reply.status = StatusCode::SERVICE_UNAVAILABLE;
    } else if let Some(saved) = restored {
        reply.body.push_str(&format!(
            "serving the configuration saved {} s ago; the management server has not answered yet\n",
            saved.elapsed().unwrap_or_default().as_secs()
        ));
    }
    reply
}

pub(super) fn server_info(admin: &Admin) -> Reply {
    let (state, _) = state(admin);
    let uptime = format!("{}s", admin.started.elapsed().as_secs());
    let node = to_json(&Node::full_name(), &admin.node.encode_to_vec()).unwrap_or(Value::Null);
    Reply::json(&json!({
        "version": concat!("nuncio/", env!("CARGO_PKG_VERSION")),
        "state": state,
        "uptime_current_epoch": uptime,
        "uptime_all_epochs": uptime,
        "hot_restart_version": "disabled",
        "command_line_options": {
            "concurrency": admin.concurrency,
            "service_node": admin.node.id,
            "service_cluster": admin.node.cluster,
        },
        "node": node,
    }))
}

/// RFC 3339, in UTC.
pub(super) fn timestamp(time: SystemTime) -> String {
    prost_types::Timestamp::from(time).to_string()
}
