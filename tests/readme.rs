//! The README's table of fields says what `proto/` says, and its links lead somewhere.
//!
//! After a change of `proto/`, `cargo test --test readme -- --ignored` writes the table anew.

#![cfg(test)]

use std::collections::{BTreeSet, VecDeque};
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use nuncio::proto::descriptors;
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

const BEGIN: &str = "<!-- fields: begin -->\n";
const END: &str = "<!-- fields: end -->\n";

/// Sections of the table, and the messages they begin with. Any other message stands in the first
/// from which honoured fields lead to it. A name that ends in a dot is every message of the packages
/// below it that no field leads to: what goes into a `typed_config`.
const SECTIONS: &[(&str, &[&str])] = &[
    ("Bootstrap", &["envoy.config.bootstrap.v3.Bootstrap"]),
    (
        "Listener, network filters",
        &["envoy.config.listener.v3.Listener", "envoy.extensions.filters.network."],
    ),
    ("HTTP filters", &["envoy.extensions.filters.http."]),
    ("RouteConfiguration", &["envoy.config.route.v3.RouteConfiguration"]),
    (
        "Cluster",
        &[
            "envoy.config.cluster.v3.Cluster",
            "envoy.extensions.upstreams.",
            "nuncio.extensions.upstreams.",
            "envoy.extensions.load_balancing_policies.",
            "envoy.extensions.clusters.",
        ],
    ),
    ("ClusterLoadAssignment", &["envoy.config.endpoint.v3.ClusterLoadAssignment"]),
    (
        "Secret, transport sockets",
        &[
            "envoy.extensions.transport_sockets.tls.v3.Secret",
            "envoy.extensions.transport_sockets.",
        ],
    ),
    ("Access logs", &["envoy.config.accesslog.v3.AccessLog", "envoy.extensions.access_loggers."]),
    ("Other extensions", &["envoy.extensions."]),
    (SHARED, &[]),
];

/// Where the types are that every other message uses.
const SHARED: &str = "Shared types";

fn readme() -> String {
    std::fs::read_to_string(root().join("README.md")).unwrap()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn table_of_fields_is_what_the_proto_folder_declares() {
    let readme = readme();
    let (_, rest) = readme.split_once(BEGIN).expect("the README marks where the table begins");
    let (table, _) = rest.split_once(END).expect("the README marks where the table ends");
    let should = fields_table();
    let difference = should.lines().zip(table.lines()).find(|(a, b)| a != b);
    assert!(
        table == should,
        "run `cargo test --test readme -- --ignored`; the first difference: {difference:#?}"
    );
}

#[test]
#[ignore = "changes README.md; run it after a change of proto/"]
fn write_the_table_of_fields() {
    let readme = readme();
    let (before, rest) = readme.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let text = format!("{before}{BEGIN}{}{END}{after}", fields_table());
    std::fs::write(root().join("README.md"), text).unwrap();
}

#[test]
fn every_refused_field_of_a_reachable_message_is_listed() {
    let table = fields_table();
    for (message, refused) in [
        ("Cluster", "upstream_bind_config"),
        ("Listener", "udp_listener_config"),
        ("RouteConfiguration", "vhost_header"),
        ("ClusterLoadAssignment", "named_endpoints"),
        ("HttpConnectionManager", "scoped_routes"),
    ] {
        let row = table.lines().find(|l| l.starts_with(&format!("| `{message}` |"))).unwrap();
        assert!(row.rsplit('|').nth(1).unwrap().contains(&format!("`{refused}`")), "{row}");
    }
}

#[test]
fn links_to_our_own_files_lead_somewhere() {
    let pages = std::fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        pages.filter(|page| page.extension().is_some_and(|e| e == "md")).collect();
    let others = ["README.md", "CHANGELOG.md", "proto/README.md", "xds-server/README.md"];
    files.extend(others.map(|file| root().join(file)));
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let to = if path.is_empty() { file.clone() } else { file.parent().unwrap().join(path) };
            assert!(to.exists(), "{} links to {link}", file.display());
            if !heading.is_empty() {
                let text = std::fs::read_to_string(&to).unwrap();
                let is_there = text.lines().any(|line| anchor(line).is_some_and(|a| a == heading));
                assert!(is_there, "{} links to {link}", file.display());
            }
        }
    }
}

/// By what name a heading is linked to.
fn anchor(line: &str) -> Option<String> {
    let title = line.strip_prefix('#')?.trim_start_matches('#').trim().to_lowercase();
    let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    Some(kept.map(|c| if c == ' ' { '-' } else { c }).collect())
}

#[test]
fn every_option_of_the_command_line_is_explained() {
    let help = Command::new(env!("CARGO_BIN_EXE_nuncio")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let options: Vec<_> = help
        .split_whitespace()
        .filter(|w| w.starts_with("--"))
        .map(|w| w.trim_matches(','))
        .collect();
    assert!(options.contains(&"--mode"), "{help}");
    let readme = readme();
    for option in options {
        assert!(readme.contains(&format!("`{option}")), "{option} is not in the README");
    }
}

/// Markdown: a table for each section, a row for each message, its honoured and refused fields.
fn fields_table() -> String {
    let mut seen = BTreeSet::new();
    let mut shared = Vec::new();
    let mut text = String::new();
    for (title, roots) in SECTIONS {
        let mut queue: VecDeque<_> = roots.iter().flat_map(|r| messages(r)).collect();
        if *title == SHARED {
            queue.extend(shared.drain(..));
        }
        let mut rows = Vec::new();
        while let Some(message) = queue.pop_front() {
            let name = message.full_name();
            if is_shared(name) && *title != SHARED {
                shared.push(message);
                continue;
            }
            let elsewhere = SECTIONS.iter().any(|(t, roots)| t != title && roots.contains(&name));
            if !name.starts_with("envoy.") || elsewhere || !seen.insert(name.to_owned()) {
                continue;
            }
            let (refused, honoured): (Vec<_>, Vec<_>) = message.fields().partition(is_refused);
            queue.extend(honoured.iter().filter_map(target));
            // An empty message is there to be referred to, unless it is an extension.
            if message.fields().len() > 0 || is_extension(&message) {
                rows.push((short_name(&message), names(&honoured), names(&refused)));
            }
        }
        if rows.is_empty() {
            continue;
        }
        write!(text, "\n**{title}**\n\n| message | honoured | refused |\n|---|---|---|\n").unwrap();
        for (name, honoured, refused) in rows {
            writeln!(text, "| `{name}` | {honoured} | {refused} |").unwrap();
        }
    }
    text.push('\n');
    text
}

fn messages(root: &str) -> Vec<MessageDescriptor> {
    match root.strip_suffix('.') {
        None => vec![descriptors().get_message_by_name(root).unwrap()],
        Some(_) => descriptors()
            .all_messages()
            .filter(|m| m.package_name().starts_with(root) && is_extension(m))
            .collect(),
    }
}

/// Whether no field leads to a message.
fn is_extension(message: &MessageDescriptor) -> bool {
    let targets = |m: MessageDescriptor| m.fields().filter_map(|f| target(&f)).collect::<Vec<_>>();
    message.parent_message().is_none()
        && !descriptors().all_messages().flat_map(targets).any(|t| t == *message)
}

fn is_shared(name: &str) -> bool {
    name.starts_with("envoy.config.core.") || name.starts_with("envoy.type.")
}

fn is_refused(field: &FieldDescriptor) -> bool {
    let option = descriptors().get_extension_by_name("nuncio.refused").unwrap();
    field.options().has_extension(&option)
}

fn target(field: &FieldDescriptor) -> Option<MessageDescriptor> {
    let Kind::Message(message) = field.kind() else { return None };
    if !message.is_map_entry() {
        return Some(message);
    }
    match message.map_entry_value_field().kind() {
        Kind::Message(value) => Some(value),
        _ => None,
    }
}

/// The name without its package: `Cluster.LbConfig`.
fn short_name(message: &MessageDescriptor) -> String {
    let name = message.full_name();
    name.strip_prefix(message.package_name()).unwrap_or(name).trim_start_matches('.').to_owned()
}

fn names(fields: &[FieldDescriptor]) -> String {
    let names: Vec<_> = fields.iter().map(|f| format!("`{}`", f.name())).collect();
    names.join(", ")
}
