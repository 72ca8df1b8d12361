//! No field of a resource is accepted and ignored.
//!
//! `proto/` declares fields that are honoured and fields that are refused; the option `nuncio.refused` is the
//! one table of refusals, which the audit enforces. Here every other field is looked for in the code:
//! somewhere its message is taken apart whole, without `..`, and the field is bound; a member of a `oneof` is
//! told apart from the others. A field that is named and thrown away stands in [`WITHOUT_EFFECT`], with the
//! file and the reason.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::LazyLock;

use nuncio::proto::descriptors;
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor, OneofDescriptor};

use super::patterns::{Patterns, StructPattern};
use super::source::rust_files;

/// What everything that is configured begins with. Extensions come in by their type, not by a field.
const ROOTS: [&str; 6] = [
    "envoy.config.bootstrap.v3.Bootstrap",
    "envoy.config.cluster.v3.Cluster",
    "envoy.config.endpoint.v3.ClusterLoadAssignment",
    "envoy.config.listener.v3.Listener",
    "envoy.config.route.v3.RouteConfiguration",
    "envoy.extensions.transport_sockets.tls.v3.Secret",
];

/// Where nothing is lost though a field is named and thrown away, or its message is not taken apart: the field,
/// or the beginning of its full name; the file or folder; and why.
const WITHOUT_EFFECT: &[(&str, &str, &str)] = &[
    (
        "envoy.config.cluster.v3.Cluster.ignore_health_on_host_removal",
        "src/upstream/compile/mod.rs",
        "a host that is removed is gone at once, said or not",
    ),
    (
        "envoy.config.accesslog.v3.AccessLog.name",
        "src/",
        "a name is for people: the type says what it is",
    ),
    (
        "envoy.config.core.v3.TransportSocket.name",
        "src/",
        "a name is for people: the type says what it is",
    ),
    (
        "envoy.config.core.v3.TypedExtensionConfig.name",
        "src/",
        "a name is for people: the type says what it is",
    ),
    (
        "envoy.config.listener.v3.ListenerFilter.name",
        "src/",
        "a name is for people: the type says what it is",
    ),
    (
        "envoy.config.route.v3.RetryPolicy.RetryHostPredicate.name",
        "src/",
        "a name is for people: the type says what it is",
    ),
    (
        "envoy.config.route.v3.RetryPolicy.RetryPriority.name",
        "src/",
        "a name is for people: the type says what it is",
    ),
    (
        "envoy.config.listener.v3.FilterChain.name",
        "src/listener/compile.rs",
        "a name is for people: there is one chain",
    ),
    (
        "envoy.config.bootstrap.v3.Bootstrap.static_resources",
        "src/server/bootstrap.rs",
        "they go the way of all resources, before the rest is decoded",
    ),
    (
        "envoy.config.bootstrap.v3.Bootstrap.StaticResources.",
        "",
        "they go the way of all resources, before the rest is decoded",
    ),
    ("envoy.config.core.v3.Node.", "", "it goes to the management server as it came"),
    ("envoy.config.core.v3.ApiConfigSource.request_timeout", "src/", "for REST, which is refused"),
    (
        "envoy.config.core.v3.ApiConfigSource.rate_limit_settings",
        "src/config/source.rs",
        "compiled in src/server/bootstrap/management.rs",
    ),
    (
        "envoy.config.core.v3.ApiConfigSource.set_node_on_first_message_only",
        "src/config/source.rs",
        "compiled in src/server/bootstrap/management.rs",
    ),
    (
        "envoy.config.core.v3.ApiConfigSource.transport_api_version",
        "src/server/bootstrap/management.rs",
        "compiled in src/config/source.rs",
    ),
    (
        "envoy.config.core.v3.GrpcService.timeout",
        "src/server/bootstrap/management.rs",
        "streams have no end of their own",
    ),
    (
        "envoy.config.core.v3.GrpcService.GoogleGrpc.stat_prefix",
        "src/server/bootstrap/management.rs",
        "names nothing that is sent or decided",
    ),
    (
        "envoy.config.core.v3.GrpcService.EnvoyGrpc.skip_envoy_headers",
        "src/server/bootstrap/management.rs",
        "no such headers are sent",
    ),
    (
        "envoy.config.core.v3.RetryPolicy.num_retries",
        "src/server/bootstrap/management.rs",
        "a stream is tried for ever",
    ),
    (
        "envoy.config.core.v3.KeepaliveSettings.connection_idle_interval",
        "src/server/bootstrap/management.rs",
        "the cluster that it is of refuses it",
    ),
    (
        "envoy.config.core.v3.SubstitutionFormatString.content_type",
        "src/telemetry/access_log/compile.rs",
        "for bodies: a log has none, and compile_body reads it",
    ),
    (
        "envoy.config.core.v3.Metadata.typed_filter_metadata",
        "src/",
        "for extensions that read it: there is none",
    ),
    (
        "envoy.config.core.v3.HttpProtocolOptions.headers_with_underscores_action",
        "src/upstream/compile/protocol.rs",
        "for what clients send alone, as the API says",
    ),
    (
        "envoy.config.core.v3.Http1ProtocolOptions.allow_absolute_url",
        "src/upstream/compile/protocol.rs",
        "for what clients send alone",
    ),
    (
        "envoy.config.core.v3.Http1ProtocolOptions.accept_http_10",
        "src/upstream/compile/protocol.rs",
        "for what clients send alone",
    ),
    (
        "envoy.config.core.v3.Http1ProtocolOptions.default_host_for_http_10",
        "src/upstream/compile/protocol.rs",
        "for what clients send alone",
    ),
    (
        "envoy.config.route.v3.VirtualHost.domains",
        "src/route/compile/mod.rs",
        "compiled with those of the other hosts, a step before",
    ),
    (
        "envoy.config.route.v3.RouteAction.RequestMirrorPolicy.trace_sampled",
        "src/route/compile/mirror.rs",
        "requests are not traced, and so their copies are not either",
    ),
    (
        "envoy.extensions.load_balancing_policies.subset.v3.Subset.subset_lb_policy",
        "src/upstream/compile/subset.rs",
        "compiled in src/upstream/compile/policies.rs, a step before",
    ),
    (
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.ProxyStatusConfig.remove_connection_termination_details",
        "src/hcm/compile/named.rs",
        "there are no such details",
    ),
    (
        "envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext.",
        "",
        "a secret is kept as it came: nothing uses it while TLS is terminated elsewhere",
    ),
    (
        "envoy.extensions.transport_sockets.tls.v3.GenericSecret.",
        "",
        "a secret is kept as it came: nothing uses it while TLS is terminated elsewhere",
    ),
    (
        "envoy.extensions.transport_sockets.tls.v3.SubjectAltNameMatcher.",
        "",
        "a secret is kept as it came: nothing uses it while TLS is terminated elsewhere",
    ),
    (
        "envoy.extensions.transport_sockets.tls.v3.TlsCertificate.",
        "",
        "a secret is kept as it came: nothing uses it while TLS is terminated elsewhere",
    ),
    (
        "envoy.extensions.transport_sockets.tls.v3.TlsSessionTicketKeys.",
        "",
        "a secret is kept as it came: nothing uses it while TLS is terminated elsewhere",
    ),
];

#[test]
fn no_field_is_accepted_and_ignored() {
    super::none(findings(&ours(), &configured()));
}

#[test]
fn a_field_that_is_read_no_more_is_found() {
    let cluster = |pattern: &&mut StructPattern| {
        pattern.types.iter().any(|path| path == "envoy::config::cluster::v3::Cluster")
    };
    let name = "envoy.config.cluster.v3.Cluster";
    let mut thrown_away = ours();
    for pattern in thrown_away.structs.iter_mut().filter(cluster) {
        pattern.bound.remove("connect_timeout");
        pattern.dropped.insert("connect_timeout".to_owned());
    }
    let mut open = ours();
    open.structs.iter_mut().filter(cluster).for_each(|pattern| pattern.has_rest = true);
    let mut not_taken_apart = ours();
    not_taken_apart.structs.retain_mut(|pattern| !cluster(&pattern));
    let mut alike = ours();
    alike.variants.remove("envoy::config::cluster::v3::cluster::LbConfig::MaglevLbConfig");
    for (patterns, expected) in [
        (thrown_away, format!("{name}.connect_timeout is thrown away")),
        (open, format!("{name}.connect_timeout is read nowhere")),
        (not_taken_apart, format!("{name}.connect_timeout is read nowhere")),
        (alike, format!("{name}.maglev_lb_config is not told from the others of its `oneof`")),
    ] {
        let found = findings(&patterns, &configured());
        assert!(found.iter().any(|finding| finding.ends_with(&expected)), "{expected}: {found:#?}");
    }
}

fn ours() -> Patterns {
    static OURS: LazyLock<Patterns> = LazyLock::new(|| Patterns::of(&rust_files(&["src"])));
    OURS.clone()
}

/// The messages that are reached from what is configured, by their path in Rust.
fn configured() -> BTreeMap<String, MessageDescriptor> {
    let mut queue: VecDeque<_> = descriptors()
        .all_messages()
        .filter(|message| ROOTS.contains(&message.full_name()) || is_extension(message))
        .collect();
    let mut found = BTreeMap::new();
    while let Some(message) = queue.pop_front() {
        let is_well_known = message.package_name().starts_with("google.");
        if is_well_known || found.insert(rust_path(&message), message.clone()).is_some() {
            continue;
        }
        queue.extend(message.fields().filter(|field| !is_refused(field)).filter_map(target));
    }
    found
}

/// Whether a message goes into a `typed_config`.
fn is_extension(message: &MessageDescriptor) -> bool {
    let package = message.package_name();
    let is_named_by_type = ["envoy.extensions.", "nuncio.extensions."]
        .iter()
        .any(|extensions| package.starts_with(extensions));
    let leads = |other: MessageDescriptor| {
        other.fields().filter_map(target).any(|target| target == *message)
    };
    is_named_by_type
        && message.parent_message().is_none()
        && !descriptors().all_messages().any(leads)
}

fn is_refused(field: &FieldDescriptor) -> bool {
    let option = descriptors().get_extension_by_name("nuncio.refused").unwrap();
    field.options().has_extension(&option)
}

fn target(field: FieldDescriptor) -> Option<MessageDescriptor> {
    match field.kind() {
        Kind::Message(entry) if entry.is_map_entry() => target(entry.map_entry_value_field()),
        Kind::Message(message) => Some(message),
        _ => None,
    }
}

/// `envoy.config.route.v3.RouteAction.HashPolicy` is `envoy::config::route::v3::route_action::HashPolicy`.
fn rust_path(message: &MessageDescriptor) -> String {
    let mut path = message.name().to_owned();
    let mut inner = message.clone();
    while let Some(outer) = inner.parent_message() {
        path = format!("{}::{path}", snake_case(outer.name()));
        inner = outer;
    }
    format!("{}::{path}", message.package_name().replace('.', "::"))
}

fn snake_case(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let mut snake = String::new();
    for (i, letter) in letters.iter().enumerate() {
        let begins = letter.is_uppercase()
            && i > 0
            && (!letters[i - 1].is_uppercase()
                || letters.get(i + 1).is_some_and(|next| next.is_lowercase()));
        if begins {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    snake
}

fn upper_camel_case(name: &str) -> String {
    let word = |word: &str| {
        let (first, rest) = word.split_at(word.len().min(1));
        first.to_uppercase() + rest
    };
    name.split('_').map(word).collect()
}

fn findings(patterns: &Patterns, configured: &BTreeMap<String, MessageDescriptor>) -> Vec<String> {
    let mut found = Vec::new();
    let mut used = BTreeSet::new();
    let mut is_excused = |field: &str, file: &str| {
        let excuses = WITHOUT_EFFECT.iter().enumerate();
        let mut mine = excuses.filter(|(_, (excused, place, _))| {
            field.starts_with(excused) && file.starts_with(place)
        });
        mine.next().is_some_and(|(at, _)| {
            used.insert(at);
            true
        })
    };
    for (path, message) in configured {
        let name = message.full_name();
        let mine: Vec<_> =
            patterns.structs.iter().filter(|pattern| pattern.types.contains(path)).collect();
        let is_whole = mine.iter().any(|pattern| !pattern.has_rest);
        for field in message.fields().filter(|field| !is_refused(field)) {
            let oneof = field.containing_oneof().filter(|oneof| !oneof.is_synthetic());
            let member = oneof.as_ref().map_or(field.name(), OneofDescriptor::name);
            let full = format!("{name}.{}", field.name());
            let bound_in = |file: &str| {
                mine.iter().any(|pattern| pattern.file == file && pattern.bound.contains(member))
            };
            let mut is_dropped = false;
            for StructPattern { file, line, dropped, .. } in mine.iter().copied() {
                if dropped.contains(member) && !bound_in(file) {
                    is_dropped = true;
                    if !is_excused(&full, file) {
                        found.push(format!("{file}:{line}: {full} is thrown away"));
                    }
                }
            }
            let is_bound = mine.iter().any(|pattern| pattern.bound.contains(member));
            if !(is_whole && (is_bound || is_dropped)) {
                if !is_excused(&full, "") {
                    found.push(format!("{full} is read nowhere"));
                }
            } else if let Some(oneof) = oneof
                && !patterns.variants.contains(&variant(path, message, &oneof, &field))
                && !is_excused(&full, "")
            {
                found.push(format!("{full} is not told from the others of its `oneof`"));
            }
        }
    }
    for (at, (field, file, _)) in WITHOUT_EFFECT.iter().enumerate() {
        if !used.contains(&at) {
            found.push(format!("{file}: {field} needs no excuse any more"));
        }
    }
    found
}

/// What a member of a `oneof` is in Rust: `envoy::config::core::v3::data_source::Specifier::Filename`.
fn variant(
    path: &str,
    message: &MessageDescriptor,
    oneof: &OneofDescriptor,
    field: &FieldDescriptor,
) -> String {
    let package = path.strip_suffix(message.name()).unwrap_or_default();
    let choice = upper_camel_case(oneof.name());
    // A keyword in Rust.
    let name = match upper_camel_case(field.name()) {
        name if name == "Self" => "Self_".to_owned(),
        name => name,
    };
    format!("{package}{}::{choice}::{name}", snake_case(message.name()))
}
