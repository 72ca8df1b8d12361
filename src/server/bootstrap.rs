//! The bootstrap: what a process is told before any management server can tell it more.
//!
//! File and command line are merged as Envoy does: messages by field, lists one after the other, of
//! two values the later. Static resources are taken out of it one by one and go to control like
//! those of a server; what is left is read here. Every fault is found, not only the first.

mod management;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prost::Message;
use prost_types::Any;
use serde_json::{Map, Value};

use super::options::Options;
use crate::config::runtime::Runtime;
use crate::config::source::{self, FileSource, SourceKind};
use crate::config::{ConfigError, Errors, Fault, OrFault, ResourceId, fields};
use crate::control::check::Checker;
use crate::control::{GrpcResolver, Subscription};
use crate::proto::envoy::config::bootstrap::v3 as proto;
use crate::proto::envoy::config::cluster::v3::Cluster;
use crate::proto::envoy::config::core::v3 as core;
use crate::proto::{audit, json, yaml};
use crate::xds::{GrpcOptions, ResourceType, Source};
use management::StaticClusters;

const BOOTSTRAP: &str = "envoy.config.bootstrap.v3.Bootstrap";

/// The lists of `static_resources`, in the order in which they are taken in.
const LISTS: [(&str, &str, ResourceType); 3] = [
    ("secrets", "envoy.extensions.transport_sockets.tls.v3.Secret", ResourceType::Secret),
    ("clusters", "envoy.config.cluster.v3.Cluster", ResourceType::Cluster),
    ("listeners", "envoy.config.listener.v3.Listener", ResourceType::Listener),
];

/// A bootstrap that can be started with.
#[derive(Clone)]
pub struct Bootstrap {
    /// Who we say we are.
    pub node: core::Node,
    /// The cluster of the proxies like this one: `cluster_manager.local_cluster_name`.
    pub local_cluster: Option<Arc<str>>,
    /// Where the admin endpoint listens, if there is one.
    pub admin: Option<SocketAddr>,
    /// The runtime keys that are set.
    pub runtime: Arc<Runtime>,
    /// How to reach the servers of the bootstrap's own subscriptions.
    pub servers: Vec<(Source, GrpcOptions)>,
    /// Files of the bootstrap's own subscriptions, and the directories that are watched for them.
    pub watched: Vec<(PathBuf, PathBuf)>,
    /// `dynamic_resources.cds_config`
    pub cds: Option<Subscription>,
    /// `dynamic_resources.lds_config`
    pub lds: Option<Subscription>,
    /// How to reach the servers that resources name.
    pub grpc: GrpcResolver,
    /// The static resources, by type.
    pub static_resources: Vec<(ResourceType, Vec<Any>)>,
    /// Fields that are not known, by where they are.
    pub ignored: Vec<(ResourceId, Vec<String>)>,
    /// The whole message, for `/config_dump`.
    pub raw: Vec<u8>,
}

impl std::fmt::Debug for Bootstrap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bootstrap").field("node", &self.node.id).finish_non_exhaustive()
    }
}

/// Reads and checks the bootstrap that the command line names.
///
/// # Errors
/// Every fault of every resource.
pub fn load(options: &Options) -> Result<Bootstrap, Vec<ConfigError>> {
    let mut value = Value::Object(Map::new());
    if let Some(path) = &options.config_path {
        merge(&mut value, read(path)?);
    }
    if let Some(text) = &options.config_yaml {
        merge(&mut value, parse("--config-yaml", text)?);
    }
    let mut bootstrap = compile(value)?;
    if let Some(id) = &options.service_node {
        bootstrap.node.id.clone_from(id);
    }
    if let Some(cluster) = &options.service_cluster {
        bootstrap.node.cluster.clone_from(cluster);
    }
    if let Some(zone) = &options.service_zone {
        bootstrap.node.locality.get_or_insert_default().zone.clone_from(zone);
    }
    Ok(bootstrap)
}

fn read(path: &Path) -> Result<Value, Vec<ConfigError>> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let action = format!("reading {}", path.display());
        Errors::from(Fault::System { action, reason: error.to_string() }).of(&whole())
    })?;
    parse(&path.display().to_string(), &text)
}

fn parse(what: &str, text: &str) -> Result<Value, Vec<ConfigError>> {
    let fault = |reason: String| Errors::from(Fault::invalid(what, reason)).of(&whole());
    // JSON is YAML.
    match yaml::parse(text).map_err(|error| fault(error.to_string()))?.value {
        Value::Null => Ok(Value::Object(Map::new())),
        value @ Value::Object(_) => Ok(value),
        _ => Err(fault("a bootstrap is a mapping of its fields".to_owned())),
    }
}

/// Adds `later` to `value`.
fn merge(value: &mut Value, later: Value) {
    match (value, later) {
        (Value::Object(value), Value::Object(later)) => {
            for (key, later) in later {
                merge(value.entry(key).or_insert(Value::Null), later);
            }
        }
        (Value::Array(value), Value::Array(later)) => value.extend(later),
        (value, later) => *value = later,
    }
}

fn whole() -> ResourceId {
    ResourceId { kind: "Bootstrap", name: "".into() }
}

/// Compiles a bootstrap in its JSON form.
fn compile(value: Value) -> Result<Bootstrap, Vec<ConfigError>> {
    let raw_value = value.clone();
    let mut found = Found::default();
    let mut rest = value;
    found.take_static(&mut rest);
    let clusters = found.clusters();
    let grpc = management::resolver(clusters);
    let own = found.rest(rest, &grpc);
    let Found { errors, resources, ignored } = found;
    let Some(own) = own.filter(|_| errors.is_empty()) else { return Err(errors) };
    // It was encoded in parts just now, so as a whole it can be too.
    let raw = json::encode_json(BOOTSTRAP, raw_value).map(|(raw, _)| raw).unwrap_or_default();
    let Own { node, local_cluster, admin, runtime, servers, watched, cds, lds } = own;
    Ok(Bootstrap {
        node,
        local_cluster,
        admin,
        runtime,
        servers,
        watched,
        cds,
        lds,
        grpc,
        static_resources: resources,
        ignored,
        raw,
    })
}

/// What the bootstrap says besides resources.
struct Own {
    node: core::Node,
    local_cluster: Option<Arc<str>>,
    admin: Option<SocketAddr>,
    runtime: Arc<Runtime>,
    servers: Vec<(Source, GrpcOptions)>,
    watched: Vec<(PathBuf, PathBuf)>,
    cds: Option<Subscription>,
    lds: Option<Subscription>,
}

#[derive(Default)]
struct Found {
    errors: Vec<ConfigError>,
    resources: Vec<(ResourceType, Vec<Any>)>,
    ignored: Vec<(ResourceId, Vec<String>)>,
}

impl Found {
    /// Takes the lists of static resources out of the bootstrap, and checks each resource.
    fn take_static(&mut self, bootstrap: &mut Value) {
        let Some(lists) = ["static_resources", "staticResources"]
            .into_iter()
            .find(|key| bootstrap.get(key).is_some())
            .and_then(|key| bootstrap.get_mut(key)?.as_object_mut())
        else {
            return;
        };
        let checker = Checker::default();
        for (list, type_name, ty) in LISTS {
            // What is not a list is left there, and found wrong with the rest.
            let Some(Value::Array(items)) = lists.get_mut(list) else { continue };
            let items = std::mem::take(items);
            let mut taken: Vec<Any> = Vec::with_capacity(items.len());
            let mut names: Vec<Arc<str>> = Vec::new();
            for (index, mut item) in items.into_iter().enumerate() {
                name_listener(ty, index, &mut item);
                let Some(any) = self.encode(ty, type_name, item) else { continue };
                let checked = checker.resource(&any);
                self.errors.extend(checked.errors);
                if names.contains(&checked.id.name) {
                    let fault = Fault::Duplicate(checked.id.name.to_string());
                    self.errors.extend(Errors::from(fault).at("name").of(&checked.id));
                }
                names.push(checked.id.name);
                taken.push(any);
            }
            self.resources.push((ty, taken));
        }
    }

    fn encode(&mut self, ty: ResourceType, type_name: &str, item: Value) -> Option<Any> {
        let name = item.get("name").and_then(Value::as_str).unwrap_or_default();
        let kind = type_name.rsplit('.').next().unwrap_or_default();
        let kind = ["Secret", "Cluster", "Listener"].into_iter().find(|k| *k == kind);
        let id = ResourceId { kind: kind.unwrap_or("resource"), name: name.into() };
        match json::encode_json(type_name, item) {
            Ok((value, ignored)) => {
                if !ignored.is_empty() {
                    self.ignored.push((id, ignored));
                }
                Some(Any { type_url: ty.type_url().to_owned(), value })
            }
            Err(error) => {
                self.errors.extend(json_errors(&error).of(&id));
                None
            }
        }
    }

    /// The clusters that the bootstrap's own subscriptions can name.
    fn clusters(&self) -> StaticClusters {
        let clusters = self.resources.iter().filter(|(ty, _)| *ty == ResourceType::Cluster);
        let decoded = clusters
            .flat_map(|(_, clusters)| clusters)
            .filter_map(|any| Cluster::decode(any.value.as_slice()).ok());
        decoded.map(|cluster| (cluster.name.clone(), management::addresses(&cluster))).collect()
    }

    /// Reads what is left of the bootstrap.
    fn rest(&mut self, rest: Value, grpc: &GrpcResolver) -> Option<Own> {
        let mut errors = Errors::new();
        let encoded =
            errors.take(json::encode_json(BOOTSTRAP, rest).map_err(|error| json_errors(&error)));
        let own = encoded.and_then(|(bytes, ignored)| {
            if !ignored.is_empty() {
                self.ignored.push((whole(), ignored));
            }
            for audit::Refused { path, reason } in audit::audit(BOOTSTRAP, &bytes).refused {
                errors.push(path, Fault::unsupported(reason));
            }
            let decoded = proto::Bootstrap::decode(bytes.as_slice())
                .map_err(|error| Errors::from(Fault::Undecodable(error.to_string())));
            let bootstrap = errors.take(decoded)?;
            errors.take(own(bootstrap, grpc))
        });
        self.errors.extend(errors.of(&whole()));
        own
    }
}

/// Envoy lets a static listener go without a name.
fn name_listener(ty: ResourceType, index: usize, item: &mut Value) {
    if ty == ResourceType::Listener
        && let Value::Object(fields) = item
        && !fields.contains_key("name")
    {
        fields.insert("name".to_owned(), format!("static_listener_{index}").into());
    }
}

fn json_errors(error: &json::JsonError) -> Errors {
    let mut errors = Errors::new();
    for json::Fault { path, problem } in error.faults() {
        errors.push(path.clone(), Fault::Conflict(problem.clone().into()));
    }
    errors
}

fn own(bootstrap: proto::Bootstrap, grpc: &GrpcResolver) -> Result<Own, Errors> {
    let proto::Bootstrap {
        node,
        static_resources: _,
        dynamic_resources,
        cluster_manager,
        admin,
        layered_runtime,
    } = bootstrap;
    let mut errors = Errors::new();
    let runtime = layered_runtime.as_ref().map(Runtime::compile).transpose();
    let runtime = errors.take(runtime.at("layered_runtime")).flatten().unwrap_or_default();
    let admin = admin.and_then(|proto::Admin { address }| {
        errors.take(address.as_ref().map(fields::socket_addr).transpose().at("admin.address"))?
    });
    let dynamic = dynamic_resources.unwrap_or_default();
    let proto::bootstrap::DynamicResources { lds_config, cds_config, ads_config } = dynamic;
    let (mut servers, mut watched) = (Vec::new(), Vec::new());
    let has_ads = ads_config.is_some();
    if let Some(api) = ads_config {
        let options = errors.take(grpc(&api).at("dynamic_resources.ads_config"));
        servers.extend(options.map(|options| (Source::Ads, options)));
    }
    let mut subscription = |config: Option<core::ConfigSource>, name, field: &'static str| {
        let config = config?;
        let compiled = subscription(&config, name, grpc, has_ads).at(field);
        let (subscription, way) = errors.take(compiled.at("dynamic_resources"))?;
        match way {
            Way::Ads | Way::File(None) => {}
            Way::Server(options) => servers.push((subscription.source.clone(), *options)),
            Way::File(Some(directory)) => watched.push(directory),
        }
        Some(subscription)
    };
    let cds = subscription(cds_config, "cds", "cds_config");
    let lds = subscription(lds_config, "lds", "lds_config");
    errors.finish()?;
    let proto::ClusterManager { local_cluster_name } = cluster_manager.unwrap_or_default();
    let local_cluster = (!local_cluster_name.is_empty()).then(|| local_cluster_name.into());
    let (node, runtime) = (node.unwrap_or_default(), Arc::new(runtime));
    Ok(Own { node, local_cluster, admin, runtime, servers, watched, cds, lds })
}

/// What a source needs to be followed.
enum Way {
    Ads,
    Server(Box<GrpcOptions>),
    /// A file and the directory that is watched for it, if not its own.
    File(Option<(PathBuf, PathBuf)>),
}

fn subscription(
    config: &core::ConfigSource,
    name: &str,
    grpc: &GrpcResolver,
    has_ads: bool,
) -> Result<(Subscription, Way), Errors> {
    let compiled = source::compile(config)?;
    let (source, way) = match &compiled.kind {
        SourceKind::Ads if !has_ads => {
            let reason = "it needs dynamic_resources.ads_config";
            return Err(Errors::from(Fault::invalid("ads", reason)));
        }
        SourceKind::Ads => (Source::Ads, Way::Ads),
        SourceKind::Path(FileSource { path, watched_directory }) => {
            let watched = watched_directory.clone().map(|directory| (path.clone(), directory));
            (Source::File(path.clone()), Way::File(watched))
        }
        SourceKind::Grpc(source) => {
            let options = grpc(&source.api).at("api_config_source")?;
            (Source::Grpc(name.into()), Way::Server(Box::new(options)))
        }
    };
    let initial_fetch_timeout = compiled.initial_fetch_timeout;
    Ok((Subscription { source, initial_fetch_timeout }, way))
}

/// Says whether the configuration is good: every fault on a line of its own, or one line that it
/// is. True if it is.
///
/// # Errors
/// When `out` cannot be written to.
pub fn validate(options: &Options, out: &mut impl std::io::Write) -> std::io::Result<bool> {
    match load(options) {
        Ok(bootstrap) => {
            for (resource, paths) in &bootstrap.ignored {
                for path in paths {
                    writeln!(out, "{resource}: {path}: is not supported and is ignored")?;
                }
            }
            let path = options.config_path.as_deref().unwrap_or(Path::new("--config-yaml"));
            writeln!(out, "configuration '{}' OK", path.display())?;
            Ok(true)
        }
        Err(errors) => {
            for error in errors {
                writeln!(out, "{error}")?;
            }
            Ok(false)
        }
    }
}

#[cfg(test)]
mod tests;
