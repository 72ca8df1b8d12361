//! From the resources of a source to a snapshot: each checked alone, then all together.
//!
//! A resource that did not change is neither checked again nor copied, so that an edit costs what
//! it touches.

use std::collections::HashMap;
use std::sync::Arc;

use nuncio::control::check::Checker;
use nuncio::proto::yaml::LineMap;
use prost_types::Any;

use crate::check::{check, name_of};
use crate::hosts;
use crate::problem::{Place, Problem};
use crate::refers::Refers;
use crate::snapshot::{Lists, Resource, Snapshot, version_of};
use crate::types::ResourceType;

/// Where the fields of one resource are written.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    file: Arc<std::path::PathBuf>,
    lines: Arc<LineMap>,
    from: From,
}

#[derive(Debug, Clone)]
enum From {
    /// It is in the file as it is, at a path: `clusters[2]`.
    Path(String),
    /// It was made from what is at other paths: those of its fields, and where these come from.
    Parts(Vec<(String, String)>),
}

impl Origin {
    /// Of a resource that is in a file at a path.
    pub(crate) fn new(file: &Arc<std::path::PathBuf>, lines: &Arc<LineMap>, path: String) -> Self {
        Self { file: Arc::clone(file), lines: Arc::clone(lines), from: From::Path(path) }
    }

    /// Of a resource whose fields were made from what is elsewhere in a file.
    pub(crate) fn of_parts(
        file: &Arc<std::path::PathBuf>,
        lines: &Arc<LineMap>,
        parts: Vec<(String, String)>,
    ) -> Self {
        Self { file: Arc::clone(file), lines: Arc::clone(lines), from: From::Parts(parts) }
    }

    /// The place of a field, or of the nearest part of the resource that the file has.
    pub(crate) fn place(&self, field: &str) -> Option<Place> {
        let mark = match &self.from {
            From::Path(path) => {
                let below = match field {
                    "" => path.clone(),
                    field if field.starts_with('[') => format!("{path}{field}"),
                    field => format!("{path}.{field}"),
                };
                self.lines.mark_of(&below).or_else(|| self.lines.mark_of(path))?
            }
            From::Parts(parts) => {
                let within = |(part, _): &&(String, String)| match field.strip_prefix(&**part) {
                    Some(rest) => {
                        part.is_empty() || rest.is_empty() || rest.starts_with(['.', '['])
                    }
                    None => false,
                };
                let (_, path) = parts.iter().filter(within).max_by_key(|(part, _)| part.len())?;
                self.lines.mark_of(path)?
            }
        };
        Some(Place { file: Arc::clone(&self.file), mark })
    }
}

/// A resource as a source gives it.
#[derive(Debug, Clone)]
pub struct Item {
    any: Any,
    /// Fields that were lost when the message was made.
    ignored: Vec<String>,
    origin: Option<Origin>,
}

impl Item {
    /// A resource that comes from no file.
    pub fn new(any: Any) -> Self {
        Self { any, ignored: Vec::new(), origin: None }
    }

    pub(crate) fn from_file(any: Any, ignored: Vec<String>, origin: Origin) -> Self {
        Self { any, ignored, origin: Some(origin) }
    }
}

/// How strictly a set is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rigour {
    /// Each resource is held to the proxy's rules. Off, anything that has a name is served: for
    /// tests of what refuses it.
    pub(crate) check: bool,
    /// A field that the proxy would ignore is an error.
    pub(crate) strict: bool,
}

/// The snapshot of a set of resources and the doubts about it, or everything that is wrong with it.
/// `errors` were found while it was read: the set is then known to be bad and its parts are judged
/// alone, since what seems to be missing may be in what could not be read.
pub(crate) fn assemble(
    previous: Option<&Snapshot>,
    items: Vec<Item>,
    errors: Vec<Problem>,
    rigour: Rigour,
) -> Result<(Snapshot, Vec<Problem>), Vec<Problem>> {
    let whole = errors.is_empty();
    let mut found = Findings { checker: Checker::default(), rigour, errors, warnings: Vec::new() };
    let mut lists = Lists::default();
    let mut origins: HashMap<(ResourceType, Arc<str>), Option<Origin>> =
        HashMap::with_capacity(items.len());
    for Item { any, ignored, origin } in items {
        let place = |field: &str| origin.as_ref().and_then(|origin| origin.place(field));
        let Some(ty) = ResourceType::from_url(&any.type_url) else {
            let message = format!("type {:?} is not served", any.type_url);
            found.errors.push(Problem::new(message).at(place("")));
            continue;
        };
        let Some(name) = name_of(&any).filter(|name| !name.is_empty()) else {
            let field = if ty == ResourceType::Endpoint { "cluster_name" } else { "name" };
            let problem = Problem::new("is required").of(ty.kind(), "", field);
            found.errors.push(problem.at(place(field)));
            continue;
        };
        if let Some(earlier) = origins.get(&(ty, Arc::clone(&name))) {
            let earlier = earlier.as_ref().and_then(|origin| origin.place(""));
            let message = match earlier {
                Some(p) => format!("is defined already at {}:{}", p.file.display(), p.mark.line),
                None => "is defined twice".to_owned(),
            };
            found.errors.push(Problem::new(message).of(ty.kind(), &name, "").at(place("")));
            continue;
        }
        let kept = previous
            .and_then(|p| p.set(ty).get(&name))
            .filter(|old| old.any == any && *old.version == *version_of(&any));
        let resource = match kept {
            Some(old) => Arc::clone(old),
            None => found.judge(ty, &name, any, &place),
        };
        found.ignored(ty, &name, &resource.ignored, &place);
        found.ignored(ty, &name, &ignored, &place);
        origins.insert((ty, name), origin);
        lists[ty.index()].push(resource);
    }
    let snapshot = Snapshot::new(previous, lists);
    if whole {
        found.consistency(&snapshot, &origins);
    }
    match found.errors.is_empty() {
        true => Ok((snapshot, found.warnings)),
        false => Err(found.errors),
    }
}

struct Findings {
    checker: Checker,
    rigour: Rigour,
    errors: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl Default for Rigour {
    fn default() -> Self {
        Self { check: true, strict: false }
    }
}

type Places<'a> = &'a dyn Fn(&str) -> Option<Place>;

impl Findings {
    fn judge(
        &mut self,
        ty: ResourceType,
        name: &str,
        any: Any,
        place: Places<'_>,
    ) -> Arc<Resource> {
        let mut ignored = Vec::new();
        if self.rigour.check {
            let checked = check(&self.checker, &any);
            for (field, message) in checked.errors {
                let problem = Problem::new(message).of(ty.kind(), name, &field);
                self.errors.push(problem.at(place(&field)));
            }
            ignored = checked.ignored;
        }
        let refers = Refers::of(ty, &any);
        Arc::new(Resource::new(name, any, refers).ignoring(ignored))
    }

    fn ignored(&mut self, ty: ResourceType, name: &str, fields: &[String], place: Places<'_>) {
        let problems = match self.rigour.strict {
            true => &mut self.errors,
            false => &mut self.warnings,
        };
        for field in fields {
            let problem = Problem::new("is not known here and has no effect");
            problems.push(problem.of(ty.kind(), name, field).at(place(field)));
        }
    }

    /// What a set lacks. A listener without its route table would never serve, and one without an
    /// extension that it has no default for would refuse every request, so these are errors; a cluster without endpoints or a route without its cluster serve 503 until they come.
    fn consistency(
        &mut self,
        snapshot: &Snapshot,
        origins: &HashMap<(ResourceType, Arc<str>), Option<Origin>>,
    ) {
        use ResourceType::{Cluster, Endpoint, Extension, Listener, Route, VirtualHost};
        let problem = |resource: &Resource, ty: ResourceType, message: String| {
            let origin = origins.get(&(ty, Arc::clone(&resource.name)));
            let place = origin.and_then(Option::as_ref).and_then(|origin| origin.place(""));
            Problem::new(message).of(ty.kind(), &resource.name, "").at(place)
        };
        for listener in snapshot.set(Listener).resources.values() {
            for name in &listener.refers.routes {
                if snapshot.set(Route).get(name).is_none() && self.rigour.check {
                    let message = format!("names route table {name:?}, which is not in the set");
                    self.errors.push(problem(listener, Listener, message));
                }
            }
        }
        for listener in snapshot.set(Listener).resources.values().filter(|_| self.rigour.check) {
            for (name, wanted) in &listener.refers.extensions {
                let found = snapshot.set(Extension).get(name);
                let config_type = found.and_then(|found| found.refers.config_type.as_ref());
                let (problems, message) = match (found, config_type) {
                    (None, _) if wanted.is_needed => (
                        &mut self.errors,
                        format!("names extension {name:?}, which is not in the set"),
                    ),
                    (None, _) => (
                        &mut self.warnings,
                        format!("uses a default: extension {name:?} is not in the set"),
                    ),
                    (Some(_), Some(found)) if !wanted.types.contains(found) => (
                        &mut self.errors,
                        format!("does not take extension {name:?}: {found} is not in type_urls"),
                    ),
                    (Some(_), _) => continue,
                };
                problems.push(problem(listener, Listener, message));
            }
        }
        let hosts::Faults { errors, doubts } = hosts::faults(snapshot);
        let of_host = |(host, message)| problem(host, VirtualHost, message);
        if self.rigour.check {
            self.errors.extend(errors.into_iter().map(of_host));
        }
        self.warnings.extend(doubts.into_iter().map(of_host));
        let vain = hosts::vain(snapshot);
        self.warnings.extend(vain.map(|(listener, message)| problem(listener, Listener, message)));
        for cluster in snapshot.set(Cluster).resources.values() {
            if let Some(name) = &cluster.refers.endpoints
                && snapshot.set(Endpoint).get(name).is_none()
            {
                let message = format!("has no endpoints: {name:?} is not in the set");
                self.warnings.push(problem(cluster, Cluster, message));
            }
        }
        for ty in [Listener, Route, VirtualHost] {
            for table in snapshot.set(ty).resources.values() {
                for name in &table.refers.clusters {
                    if snapshot.set(Cluster).get(name).is_none() {
                        let message =
                            format!("routes to cluster {name:?}, which is not in the set");
                        self.warnings.push(problem(table, ty, message));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use nuncio::proto::any::pack;
    use nuncio::proto::json::encode_json;
    use serde_json::json;

    use super::*;

    fn item(ty: ResourceType, value: serde_json::Value) -> Item {
        let (value, ignored) = encode_json(ty.type_name(), value).unwrap();
        let any = Any { type_url: ty.url().to_owned(), value };
        Item { any, ignored, origin: None }
    }

    fn cluster(name: &str) -> Item {
        item(
            ResourceType::Cluster,
            json!({"name": name, "type": "EDS", "connect_timeout": "1s",
                "eds_cluster_config": {"eds_config": {"ads": {}, "resource_api_version": "V3"}}}),
        )
    }

    fn listener(routes: &str) -> Item {
        listener_with(routes, Vec::new())
    }

    fn listener_with(routes: &str, mut filters: Vec<serde_json::Value>) -> Item {
        filters.push(json!({"name": "router", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
        }}));
        item(
            ResourceType::Listener,
            json!({"name": "l",
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
            "filter_chains": [{"filters": [{"name": "hcm", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.\
                    http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": "l",
                "rds": {"route_config_name": routes,
                    "config_source": {"ads": {}, "resource_api_version": "V3"}},
                "http_filters": filters}}]}]}),
        )
    }

    fn routes(name: &str, cluster: &str) -> Item {
        item(
            ResourceType::Route,
            json!({"name": name, "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [
                {"match": {"prefix": "/"}, "route": {"cluster": cluster}}]}]}),
        )
    }

    fn texts(problems: &[Problem]) -> Vec<String> {
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_did_not_change_is_shared() {
        let items = || vec![cluster("a"), cluster("b")];
        let (one, _) = assemble(None, items(), Vec::new(), Rigour::default()).unwrap();
        let (two, _) = assemble(Some(&one), items(), Vec::new(), Rigour::default()).unwrap();
        assert_eq!(two.changed(&one).count(), 0);
        let (three, _) =
            assemble(Some(&one), vec![cluster("a"), cluster("c")], Vec::new(), Rigour::default())
                .unwrap();
        let get = |s: &Snapshot| Arc::clone(s.set(ResourceType::Cluster).get("a").unwrap());
        assert!(Arc::ptr_eq(&get(&one), &get(&three)));
    }

    #[test]
    fn missing_references_are_found() {
        let errors = assemble(
            None,
            vec![listener("r"), cluster("a"), cluster("a")],
            Vec::new(),
            Rigour::default(),
        )
        .unwrap_err();
        assert_eq!(
            texts(&errors),
            [
                r#"Cluster "a": is defined twice"#,
                r#"Listener "l": names route table "r", which is not in the set"#
            ]
        );
        let items = vec![listener("r"), routes("r", "b"), cluster("a")];
        let (_, warnings) = assemble(None, items, Vec::new(), Rigour::default()).unwrap();
        assert_eq!(
            texts(&warnings),
            [
                r#"Cluster "a": has no endpoints: "a" is not in the set"#,
                r#"RouteConfiguration "r": routes to cluster "b", which is not in the set"#
            ]
        );
    }

    #[test]
    fn extensions_must_be_there_and_be_what_listeners_take() {
        const BUFFER: &str = "envoy.extensions.filters.http.buffer.v3.Buffer";
        let named = |more: serde_json::Value| {
            let mut filter = json!({"name": "x", "config_discovery": {
                "config_source": {"ads": {}}, "type_urls": [format!("type.googleapis.com/{BUFFER}")]}});
            let source = filter["config_discovery"].as_object_mut().unwrap();
            source.extend(more.as_object().unwrap().clone());
            listener_with("r", vec![filter])
        };
        let extension = |kind: &str, config: serde_json::Value| {
            let mut config = config;
            config["@type"] = json!(format!("type.googleapis.com/{kind}"));
            item(ResourceType::Extension, json!({"name": "x", "typed_config": config}))
        };
        let set = |items: Vec<Item>| {
            let routes = [routes("r", "a"), item(ResourceType::Cluster, json!({"name": "a"}))];
            let items = items.into_iter().chain(routes).collect();
            assemble(None, items, Vec::new(), Rigour::default())
        };
        let buffer = || extension(BUFFER, json!({"max_request_bytes": 1}));
        let (_, warnings) = set(vec![named(json!({})), buffer()]).unwrap();
        assert_eq!(texts(&warnings), [""; 0]);
        let errors = set(vec![named(json!({}))]).unwrap_err();
        let expected = r#"Listener "l": names extension "x", which is not in the set"#;
        assert_eq!(texts(&errors), [expected]);
        let default = json!({"@type": format!("x/{BUFFER}"), "max_request_bytes": 1});
        let (_, warnings) = set(vec![named(json!({"default_config": default}))]).unwrap();
        let expected = r#"Listener "l": uses a default: extension "x" is not in the set"#;
        assert_eq!(texts(&warnings), [expected]);
        let mutation = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation";
        let errors = set(vec![named(json!({})), extension(mutation, json!({}))]).unwrap_err();
        let expected =
            format!(r#"Listener "l": does not take extension "x": {mutation} is not in type_urls"#);
        assert_eq!(texts(&errors), [expected]);
        let elsewhere = json!({"config_source": {"path_config_source": {"path": "x"}}});
        assert!(set(vec![named(elsewhere)]).is_ok(), "it is not asked for here");
        let errors = set(vec![extension(BUFFER, json!({"max_request_bytes": 0}))]).unwrap_err();
        assert!(texts(&errors)[0].contains("typed_config.max_request_bytes"), "{errors:?}");
    }

    #[test]
    fn an_unknown_field_is_a_doubt_or_an_error() {
        let odd = || item(ResourceType::Cluster, json!({"name": "a", "conect_timeout": "1s"}));
        let expected = [r#"Cluster "a": conect_timeout: is not known here and has no effect"#];
        let (_, warnings) = assemble(None, vec![odd()], Vec::new(), Rigour::default()).unwrap();
        assert_eq!(texts(&warnings), expected);
        let errors = assemble(None, vec![odd()], Vec::new(), Rigour { check: true, strict: true })
            .unwrap_err();
        assert_eq!(texts(&errors), expected);
    }

    #[test]
    fn what_has_no_name_or_no_known_type_is_refused() {
        let secret = pack(&nuncio::proto::envoy::config::core::v3::Node::default());
        let items = vec![item(ResourceType::Endpoint, json!({})), Item::new(secret)];
        let errors = assemble(None, items, Vec::new(), Rigour::default()).unwrap_err();
        assert_eq!(
            texts(&errors),
            [
                r#"ClusterLoadAssignment "": cluster_name: is required"#,
                r#"type "type.googleapis.com/envoy.config.core.v3.Node" is not served"#
            ]
        );
    }
}
