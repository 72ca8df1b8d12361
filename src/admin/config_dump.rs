//! `/config_dump`: every resource in force, waiting or rejected, in the shape of Envoy's
//! `admin.v3.ConfigDump`, and the fields that came and are not known.

use http::StatusCode;
use prost::Name;
use regex::Regex;
use serde_json::{Map, Value, json};

use super::Reply;
use super::info::timestamp;
use super::query::Query;
use super::redact::redact;
use crate::control::dump::{Dump, Shown, Version};
use crate::control::{Origin, Rejected};
use crate::proto::envoy::config::bootstrap::v3::Bootstrap;
use crate::proto::json::to_json;
use crate::xds::{ResourceType, SourceStatus};

const ADMIN: &str = "type.googleapis.com/envoy.admin.v3.";

/// One part of the dump: its type, and lists of resources by the name of their field.
struct Part {
    type_name: &'static str,
    lists: Vec<(&'static str, &'static str, Vec<Value>)>,
}

pub(super) fn config_dump(bootstrap: &[u8], dump: &Dump, query: &Query) -> Reply {
    let names = match query.regex("name_regex") {
        Ok(names) => names,
        Err(error) => return Reply::error(StatusCode::BAD_REQUEST, error),
    };
    if query.has("mask") {
        let text = "mask is not supported; use resource and name_regex\n";
        return Reply::error(StatusCode::BAD_REQUEST, text);
    }
    let parts = parts(dump, names.as_ref(), query.has("include_eds"));
    if let Some(field) = query.value("resource").filter(|field| !field.is_empty()) {
        return one_list(parts, field);
    }
    let mut configs = vec![json!({
        "@type": format!("{ADMIN}BootstrapConfigDump"),
        "bootstrap": message(&Bootstrap::full_name(), bootstrap),
    })];
    configs.extend(parts.into_iter().map(|part| {
        let mut config = Map::new();
        config.insert("@type".into(), format!("{ADMIN}{}", part.type_name).into());
        for (field, _, list) in part.lists {
            if !list.is_empty() {
                config.insert(field.into(), list.into());
            }
        }
        Value::Object(config)
    }));
    Reply::json(&json!({
        "configs": configs,
        "ignored_fields": ignored(dump),
        "subscriptions": dump.sources.iter().map(subscription).collect::<Vec<_>>(),
    }))
}

/// The resources of one field alone, each with its type.
fn one_list(parts: Vec<Part>, field: &str) -> Reply {
    let found = parts.into_iter().flat_map(|part| part.lists).find(|(name, ..)| *name == field);
    let Some((_, type_name, mut list)) = found else {
        let text = format!("{field} not found in config dump\n");
        return Reply::error(StatusCode::NOT_FOUND, text);
    };
    for item in &mut list {
        if let Value::Object(fields) = item {
            fields.shift_insert(0, "@type".into(), format!("{ADMIN}{type_name}").into());
        }
    }
    Reply::json(&json!({"configs": list}))
}

fn parts(dump: &Dump, names: Option<&Regex>, include_eds: bool) -> Vec<Part> {
    let chosen = |list: &[Shown]| -> Vec<Shown> {
        list.iter().filter(|s| names.is_none_or(|n| n.is_match(&s.name))).cloned().collect()
    };
    let mut parts = vec![clusters(&chosen(&dump.clusters))];
    // As in Envoy, the part is there only where a filter is discovered.
    if !dump.extensions.is_empty() {
        parts.push(plain(
            &chosen(&dump.extensions),
            &Plain {
                type_name: "EcdsConfigDump",
                ty: ResourceType::Extension,
                field: "ecds_filter",
                list: "ecds_filters",
                list_type: "EcdsConfigDump.EcdsFilterConfig",
                static_list: None,
            },
        ));
    }
    parts.extend([
        listeners(&chosen(&dump.listeners)),
        plain(
            &chosen(&dump.routes),
            &Plain {
                type_name: "RoutesConfigDump",
                ty: ResourceType::Routes,
                field: "route_config",
                list: "dynamic_route_configs",
                list_type: "RoutesConfigDump.DynamicRouteConfig",
                static_list: None,
            },
        ),
        // There are none; Envoy's dump has the part all the same.
        Part { type_name: "ScopedRoutesConfigDump", lists: Vec::new() },
        plain(
            &chosen(&dump.secrets),
            &Plain {
                type_name: "SecretsConfigDump",
                ty: ResourceType::Secret,
                field: "secret",
                list: "dynamic_active_secrets",
                list_type: "SecretsConfigDump.DynamicSecret",
                static_list: Some(("static_secrets", "SecretsConfigDump.StaticSecret")),
            },
        ),
    ]);
    if include_eds {
        parts.push(plain(
            &chosen(&dump.endpoints),
            &Plain {
                type_name: "EndpointsConfigDump",
                ty: ResourceType::Endpoints,
                field: "endpoint_config",
                list: "dynamic_endpoint_configs",
                list_type: "EndpointsConfigDump.DynamicEndpointConfig",
                static_list: None,
            },
        ));
    }
    parts
}

fn clusters(shown: &[Shown]) -> Part {
    let (mut fixed, mut active, mut warming) = (Vec::new(), Vec::new(), Vec::new());
    for cluster in shown {
        let entry = |version: &Version, status| {
            entry(ResourceType::Cluster, "cluster", cluster, version, status)
        };
        match &cluster.active {
            Some(version) if cluster.origin == Origin::Static => {
                fixed.push(entry(version, None));
            }
            Some(version) => active.push(entry(version, Some("ACKED"))),
            None => {}
        }
        if let Some(version) = &cluster.warming {
            warming.push(entry(version, Some("WARMING")));
        }
        if cluster.active.is_none() && cluster.warming.is_none() {
            warming.extend(
                cluster
                    .rejected
                    .as_ref()
                    .map(|rejected| rejected_only(ResourceType::Cluster, "cluster", rejected)),
            );
        }
    }
    Part {
        type_name: "ClustersConfigDump",
        lists: vec![
            ("static_clusters", "ClustersConfigDump.StaticCluster", fixed),
            ("dynamic_active_clusters", "ClustersConfigDump.DynamicCluster", active),
            ("dynamic_warming_clusters", "ClustersConfigDump.DynamicCluster", warming),
        ],
    }
}

fn listeners(shown: &[Shown]) -> Part {
    let (mut fixed, mut dynamic) = (Vec::new(), Vec::new());
    for listener in shown {
        let state = |version: &Version| {
            let mut state = entry(ResourceType::Listener, "listener", listener, version, None);
            if let Value::Object(fields) = &mut state {
                fields.remove("error_state");
            }
            state
        };
        if listener.origin == Origin::Static {
            fixed.extend(listener.active.as_ref().or(listener.warming.as_ref()).map(state));
            continue;
        }
        let mut entry = Map::new();
        entry.insert("name".into(), (&*listener.name).into());
        for (field, version) in
            [("active_state", &listener.active), ("warming_state", &listener.warming)]
        {
            if let Some(version) = version {
                entry.insert(field.into(), state(version));
            }
        }
        if let Some(rejected) = &listener.rejected {
            let error = error_state(ResourceType::Listener, rejected);
            entry.insert("error_state".into(), error);
        }
        entry.insert("client_status".into(), client_status(listener).into());
        dynamic.push(Value::Object(entry));
    }
    Part {
        type_name: "ListenersConfigDump",
        lists: vec![
            ("static_listeners", "ListenersConfigDump.StaticListener", fixed),
            ("dynamic_listeners", "ListenersConfigDump.DynamicListener", dynamic),
        ],
    }
}

/// A type whose resources are in one list, or in one for each origin.
struct Plain {
    type_name: &'static str,
    ty: ResourceType,
    field: &'static str,
    list: &'static str,
    list_type: &'static str,
    static_list: Option<(&'static str, &'static str)>,
}

fn plain(shown: &[Shown], of: &Plain) -> Part {
    let (mut fixed, mut dynamic) = (Vec::new(), Vec::new());
    for resource in shown {
        let is_static = resource.origin == Origin::Static;
        let status = (!is_static).then_some(client_status(resource));
        let mut value = match (&resource.active, &resource.rejected) {
            (Some(version), _) => entry(of.ty, of.field, resource, version, status),
            (None, Some(rejected)) => rejected_only(of.ty, of.field, rejected),
            (None, None) => continue,
        };
        if of.ty == ResourceType::Secret
            && let Value::Object(fields) = &mut value
        {
            fields.shift_insert(0, "name".into(), (&*resource.name).into());
        }
        match is_static && of.static_list.is_some() {
            true => fixed.push(value),
            false => dynamic.push(value),
        }
    }
    let mut lists = vec![(of.list, of.list_type, dynamic)];
    lists.extend(of.static_list.map(|(list, list_type)| (list, list_type, fixed)));
    Part { type_name: of.type_name, lists }
}

fn entry(
    ty: ResourceType,
    field: &str,
    shown: &Shown,
    version: &Version,
    status: Option<&str>,
) -> Value {
    let mut entry = Map::new();
    if !version.version.is_empty() {
        entry.insert("version_info".into(), (&*version.version).into());
    }
    entry.insert(field.into(), resource(ty, &version.raw));
    entry.insert("last_updated".into(), timestamp(version.updated).into());
    if let Some(rejected) = &shown.rejected {
        entry.insert("error_state".into(), error_state(ty, rejected));
    }
    if let Some(status) = status {
        let status = if shown.rejected.is_some() { "NACKED" } else { status };
        entry.insert("client_status".into(), status.into());
    }
    Value::Object(entry)
}

fn rejected_only(ty: ResourceType, field: &str, rejected: &Rejected) -> Value {
    json!({
        "version_info": &*rejected.version,
        field: resource(ty, &rejected.raw),
        "last_updated": timestamp(rejected.when),
        "error_state": error_state(ty, rejected),
        "client_status": "NACKED",
    })
}

fn error_state(ty: ResourceType, rejected: &Rejected) -> Value {
    json!({
        "failed_configuration": resource(ty, &rejected.raw),
        "last_update_attempt": timestamp(rejected.when),
        "details": rejected.details,
        "version_info": &*rejected.version,
    })
}

fn client_status(shown: &Shown) -> &'static str {
    match shown {
        Shown { rejected: Some(_), .. } => "NACKED",
        Shown { warming: Some(_), .. } => "WARMING",
        _ => "ACKED",
    }
}

/// A resource with its type. Bytes that cannot be shown say why.
fn resource(ty: ResourceType, raw: &[u8]) -> Value {
    let url = ty.type_url();
    let type_name = url.rsplit_once('/').map_or(url, |(_, name)| name);
    let mut value = message(type_name, raw);
    if let Value::Object(fields) = &mut value {
        fields.shift_insert(0, "@type".into(), url.into());
    }
    value
}

fn message(type_name: &str, raw: &[u8]) -> Value {
    match to_json(type_name, raw) {
        Ok(mut value) => {
            redact(&mut value);
            value
        }
        Err(error) => json!({"undecodable": error.to_string()}),
    }
}

fn ignored(dump: &Dump) -> Vec<Value> {
    let field = |f: &crate::control::IgnoredField| json!({"resource_type": f.kind, "path": f.path, "count": f.count, "example": f.example});
    dump.ignored.iter().map(field).collect()
}

fn subscription(status: &SourceStatus) -> Value {
    let types = status.types.iter().map(|ty| {
        json!({
            "type_url": ty.ty.type_url(),
            "version_info": ty.version,
            "last_nack": ty.last_nack,
        })
    });
    json!({
        "source": status.source.to_string(),
        "connected": status.connected,
        "since": status.since.map(timestamp),
        "control_plane": status.control_plane,
        "last_error": status.last_error,
        "types": types.collect::<Vec<_>>(),
    })
}
