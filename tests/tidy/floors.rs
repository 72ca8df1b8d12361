//! Who may know whom: the floors of `src/`, the door of the wire types, the server's share.

use crate::source::File;

/// A module may use those on lower floors, never its own floor's neighbours and never above.
const FLOORS: &[(u8, &[&str])] = &[
    (12, &["main"]),
    (11, &["server"]),
    (10, &["admin"]),
    (9, &["control"]),
    (8, &["snapshot"]),
    (7, &["listener"]),
    (6, &["hcm"]),
    (5, &["filter"]),
    (4, &["route", "cache", "upstream", "xds"]),
    (3, &["tls"]),
    (2, &["telemetry", "http1"]),
    (1, &["exchange", "net"]),
    (0, &["proto", "config", "coding"]),
];

/// What a module may use beside the lower floors.
const BESIDE: &[(&str, &str, &str)] =
    &[("config", "proto", "config is what every compile says about wire types")];

/// Macros stand at the root of the crate whatever module they are exported from.
const MACROS: &[(&str, &str)] = &[("stats", "telemetry")];

/// Where wire types are seen, from `src/`. Folders end in `/`. Beside these: files and folders
/// whose name starts with `compile`, and tests, which play the part of the sender.
const DOOR: &[(&str, &str)] = &[
    ("proto/", "they live there"),
    ("config/", "the vocabulary of every compile"),
    ("xds/", "speaks the discovery services"),
    ("control/", "turns resources into snapshots"),
    ("admin/", "dumps resources as they came"),
    ("server/bootstrap", "reads the bootstrap"),
    ("filter/", "a filter's file is whole: it holds its own compile"),
    ("listener/limit.rs", "a network filter, whole like the others"),
];

/// What the management server may use of the proxy's library: it checks, it does not proxy.
const SERVERS_SHARE: &[&str] = &["proto", "config", "control::check"];

fn floor(module: &str) -> Option<u8> {
    FLOORS.iter().find(|(_, modules)| modules.contains(&module)).map(|(floor, _)| *floor)
}

pub(crate) fn upward_uses(file: &File) -> Vec<String> {
    let modules = file.modules();
    let Some(&from) = modules.first() else { return Vec::new() };
    let Some(own) = floor(from) else {
        return vec![format!("{}:1: the module `{from}` has no floor", file.path)];
    };
    file.uses("crate")
        .iter()
        .filter_map(|used| {
            let to = used.path.first()?.as_str();
            let to = MACROS.iter().find(|(name, _)| *name == to).map_or(to, |(_, home)| *home);
            if to == from || BESIDE.iter().any(|(a, b, _)| (*a, *b) == (from, to)) {
                return None;
            }
            let what = match floor(to) {
                // A name that is no module: something re-exported at the root would hide its floor.
                None => format!("`{to}` has no floor"),
                Some(other) if other < own => return None,
                Some(other) => format!("{from} (floor {own}) uses {to} (floor {other})"),
            };
            Some(file.at(used.line, &what))
        })
        .collect()
}

pub(crate) fn wire_types_beyond_the_door(file: &File) -> Vec<String> {
    let Some(path) = file.path.strip_prefix("src/") else { return Vec::new() };
    let door = DOOR.iter().any(|(place, _)| path.starts_with(place))
        || path.split('/').any(|part| part.starts_with("compile"));
    if door {
        return Vec::new();
    }
    file.uses("crate")
        .iter()
        .filter(|used| used.path.first().is_some_and(|m| m == "proto") && !used.in_tests)
        .map(|used| file.at(used.line, "wire types stop at `compile`"))
        .collect()
}

pub(crate) fn management_server_uses(file: &File) -> Vec<String> {
    if !file.path.starts_with("xds-server/src/") {
        return Vec::new();
    }
    file.uses("nuncio")
        .iter()
        .filter(|used| {
            let path = used.path.join("::");
            !SERVERS_SHARE.iter().any(|may| path == *may || path.starts_with(&format!("{may}::")))
        })
        .map(|used| file.at(used.line, &format!("the management server uses {SERVERS_SHARE:?}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(check: fn(&File) -> Vec<String>, path: &str, text: &str) -> usize {
        check(&File::new(path.to_owned(), text.to_owned())).len()
    }

    #[test]
    fn a_module_may_only_look_down() {
        for (path, text, findings) in [
            ("src/route/mod.rs", "use crate::upstream::Cluster;", 1),
            ("src/route/mod.rs", "use crate::hcm::Hcm;", 1),
            ("src/route/mod.rs", "use super::xds::Node;", 1),
            ("src/route/mod.rs", "use crate::{net, filter, config::fields};", 1),
            ("src/route/mod.rs", "use crate::Server;", 1),
            ("src/route/mod.rs", "use crate::exchange::Body; use crate::route::host;", 0),
            ("src/config/fields.rs", "use crate::proto::any;", 0),
            ("src/proto/any.rs", "use crate::config::fields;", 1),
            ("src/exchange/body.rs", "use crate::net::Stream;", 1),
            ("src/attic/mod.rs", "", 1),
            ("src/snapshot.rs", "use crate::{route::Tables, upstream::Clusters};", 0),
            ("src/lib.rs", "pub mod anything;", 0),
        ] {
            assert_eq!(count(upward_uses, path, text), findings, "{path}: {text}");
        }
    }

    #[test]
    fn only_compile_and_its_like_see_wire_types() {
        let text = "use crate::proto::any::unpack;\n";
        for path in ["src/route/mod.rs", "src/hcm/request.rs", "src/server/worker.rs"] {
            assert_eq!(count(wire_types_beyond_the_door, path, text), 1, "{path}");
        }
        for path in ["src/route/compile/host.rs", "src/listener/compile_tls.rs", "src/xds/mod.rs"] {
            assert_eq!(count(wire_types_beyond_the_door, path, text), 0, "{path}");
        }
        let in_tests = format!("mod tests {{\n    {text}}}\n");
        assert_eq!(count(wire_types_beyond_the_door, "src/route/mod.rs", &in_tests), 0);
    }

    #[test]
    fn the_management_server_does_not_proxy() {
        let path = "xds-server/src/lib.rs";
        assert_eq!(count(management_server_uses, path, "use nuncio::proto::any;"), 0);
        assert_eq!(count(management_server_uses, path, "use nuncio::control::check;"), 0);
        assert_eq!(count(management_server_uses, path, "use nuncio::control::Control;"), 1);
        assert_eq!(count(management_server_uses, path, "use nuncio::{proto, server};"), 1);
    }
}
