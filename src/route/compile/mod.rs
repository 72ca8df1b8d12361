//! `config.route.v3.RouteConfiguration` to [`RouteTable`].
//!
//! What levels say about all routes below them is put together on the way down ([`Inherited`]), and
//! whatever is equal is made once and shared, since a table may have ten thousand routes that differ
//! in a path and a cluster only.

mod action;
mod direct_response;
mod discovered;
mod hash;
mod headers;
mod internal_redirect;
mod mirror;
mod overrides;
mod predicate;
mod redirect;
mod retry;
mod rewrite;
mod stats;
mod upgrade;
mod weighted;

pub(super) use self::discovered::Above;
pub use self::headers::{header_addition, header_removal, response_additions};

use std::any::Any;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use prost_types::Any as ProtoAny;

use super::action::{ClusterSource, Timeout};
use super::headers::Mutations;
use super::host::Domains;
use super::mirror::Mirror;
use super::policy::{BodyLimit, RetryPolicy};
use super::tree::{PathIndex, PathPattern};
use super::{
    Action, Entry, HostRoutes, Overrides, Redirect, Route, RouteTable, Target, ToTls, VirtualHost,
    Weighted,
};
use crate::config::matcher::{HeaderField, RegexMatcher, header_name};
use crate::config::runtime::Runtime;
use crate::config::{Errors, Fault, OrFault, fields};
use crate::proto::any::{UnpackError, effective_type, unpack};
use crate::proto::envoy::config::core::v3::TypedExtensionConfig;
use crate::proto::envoy::config::route::v3 as proto;
use crate::telemetry::{Scope, Telemetry};

/// Compiles the options that routes have for one filter, by its name.
pub type CompileFilterOverride<'a> =
    dyn Fn(&str, &ProtoAny) -> Result<Arc<dyn Any + Send + Sync>, Errors> + 'a;

/// What compiling a table needs from outside.
#[derive(Clone, Copy)]
pub struct CompileContext<'a> {
    /// Compiles the options that a route has for the filter of a name. A type that no filter takes is
    /// [`Fault::UnknownExtension`].
    pub compile_filter_override: &'a CompileFilterOverride<'a>,
    /// What goes before the defaults of fields that name a key.
    pub runtime: &'a Runtime,
    /// Where what routes count is registered.
    pub telemetry: &'a Telemetry,
}

impl std::fmt::Debug for CompileContext<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CompileContext").finish_non_exhaustive()
    }
}

/// What all parts of one table share while it is compiled.
struct Shared<'a> {
    cx: &'a CompileContext<'a>,
    clusters: HashSet<Arc<str>>,
    timeouts: HashMap<Option<Duration>, Arc<Timeout>>,
    regexes: HashMap<String, RegexMatcher>,
    rules: Rules,
}

/// What a table says of how its parts are compiled.
#[derive(Debug, Clone, Copy)]
struct Rules {
    most_specific_header_mutations_wins: bool,
    max_direct_response_body_size_bytes: u32,
}

impl<'a> Shared<'a> {
    fn new(cx: &'a CompileContext<'a>, rules: Rules) -> Self {
        Self {
            cx,
            clusters: HashSet::new(),
            timeouts: HashMap::new(),
            regexes: HashMap::new(),
            rules,
        }
    }

    /// Every cluster named, in order.
    fn cluster_names(self) -> Box<[Arc<str>]> {
        let mut names: Box<[_]> = self.clusters.into_iter().collect();
        names.sort_unstable();
        names
    }

    fn cluster(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.clusters.get(name) {
            return Arc::clone(known);
        }
        let name: Arc<str> = name.into();
        self.clusters.insert(Arc::clone(&name));
        name
    }

    /// A cluster that the field `named` names, or that requests name in the header `cluster_header`.
    fn cluster_or_header(
        &mut self,
        (named, name): (&'static str, &str),
        cluster_header: &str,
    ) -> Result<ClusterSource, Errors> {
        match (name.is_empty(), cluster_header.is_empty()) {
            (true, true) => Err(Errors::from(Fault::Required).at(named)),
            (false, false) => {
                let fault = Fault::Conflict(format!("excludes {named}; set only one").into());
                Err(Errors::from(fault).at("cluster_header"))
            }
            (false, true) => Ok(ClusterSource::Name(self.cluster(name))),
            (true, false) => HeaderField::compile(cluster_header)
                .map(|field| ClusterSource::Header(Box::new(field)))
                .at("cluster_header"),
        }
    }
}

/// The configuration of an extension that must be of one type.
fn extension<T: prost::Message + prost::Name + Default>(
    extension: TypedExtensionConfig,
) -> Result<T, Errors> {
    let TypedExtensionConfig { name: _, typed_config } = extension;
    let config = fields::required(typed_config).at("typed_config")?;
    let undecodable = |error: UnpackError| Fault::Undecodable(error.to_string());
    let kind = effective_type(&config).map_err(undecodable).at("typed_config")?;
    if kind != T::full_name() {
        return Err(Fault::UnknownExtension(kind.into_owned())).at("typed_config");
    }
    unpack(&config).map_err(undecodable).at("typed_config")
}

/// What a level and those above it say about every route below.
#[derive(Debug, Clone, Default)]
struct Inherited {
    overrides: Option<Arc<Overrides>>,
    mutations: Option<Arc<Mutations>>,
    retry: Option<Arc<RetryPolicy>>,
    hedge: bool,
    body_limit: Option<BodyLimit>,
    mirrors: Vec<Arc<Mirror>>,
}

/// The fields by which a level adds to what is [`Inherited`].
struct LevelFields<'a> {
    headers: headers::Fields<'a>,
    typed_per_filter_config: &'a HashMap<String, ProtoAny>,
}

impl Inherited {
    /// What holds below a level.
    fn below(&self, level: LevelFields<'_>, shared: &Shared<'_>) -> Result<Self, Errors> {
        let mut errors = Errors::new();
        let mutations = errors.take(headers::below(
            self.mutations.as_ref(),
            level.headers,
            shared.rules.most_specific_header_mutations_wins,
        ));
        let overrides = errors.take(overrides::below(
            self.overrides.as_ref(),
            level.typed_per_filter_config,
            shared.cx,
        ));
        errors.finish()?;
        Ok(Self {
            overrides: overrides.unwrap_or_default(),
            mutations: mutations.unwrap_or_default(),
            retry: self.retry.clone(),
            hedge: self.hedge,
            body_limit: self.body_limit,
            mirrors: self.mirrors.clone(),
        })
    }
}

impl RouteTable {
    /// Compiles a table.
    ///
    /// # Errors
    /// Every fault in it, with its path.
    pub fn compile(
        table: proto::RouteConfiguration,
        cx: &CompileContext<'_>,
    ) -> Result<Self, Errors> {
        let proto::RouteConfiguration {
            name,
            virtual_hosts,
            internal_only_headers,
            response_headers_to_add,
            response_headers_to_remove,
            request_headers_to_add,
            request_headers_to_remove,
            most_specific_header_mutations_wins,
            max_direct_response_body_size_bytes,
            request_mirror_policies,
            ignore_port_in_host_matching,
            ignore_path_parameters_in_path_matching,
            typed_per_filter_config,
            vhds,
        } = table;
        let mut errors = Errors::new();
        let rules = Rules {
            most_specific_header_mutations_wins,
            max_direct_response_body_size_bytes: max_direct_response_body_size_bytes
                .unwrap_or(4096),
        };
        let mut shared = Shared::new(cx, rules);
        let fields = LevelFields {
            headers: headers::Fields {
                request_headers_to_add: &request_headers_to_add,
                request_headers_to_remove: &request_headers_to_remove,
                response_headers_to_add: &response_headers_to_add,
                response_headers_to_remove: &response_headers_to_remove,
            },
            typed_per_filter_config: &typed_per_filter_config,
        };
        let mut inherited =
            errors.take(Inherited::default().below(fields, &shared)).unwrap_or_default();
        let mirrors = mirror::below(&[], request_mirror_policies, &mut shared);
        inherited.mirrors = errors.take(mirrors).unwrap_or_default();
        let name_of = |(i, name): (usize, &String)| header_name(name).index(i);
        let internal_only_headers = internal_only_headers
            .iter()
            .enumerate()
            .filter_map(|header| errors.take(name_of(header).at("internal_only_headers")))
            .collect();
        let mut domains = Domains::default();
        let mut hosts = Vec::with_capacity(virtual_hosts.len());
        for (i, host) in virtual_hosts.into_iter().enumerate() {
            let position = u32::try_from(hosts.len()).unwrap_or(u32::MAX);
            errors.take(
                add_domains(&mut domains, &host.domains, position).index(i).at("virtual_hosts"),
            );
            let host = virtual_host(host, &inherited, &mut shared).index(i).at("virtual_hosts");
            hosts.extend(errors.take(host).map(Arc::new));
        }
        let discovery = vhds.map(|vhds| discovered::compile(&vhds, inherited, rules).at("vhds"));
        let discovery = discovery.and_then(|discovery| errors.take(discovery)).map(Arc::new);
        errors.finish()?;
        Ok(Self {
            name: name.into(),
            domains,
            hosts: hosts.into(),
            ignore_port: ignore_port_in_host_matching,
            ignore_path_parameters: ignore_path_parameters_in_path_matching,
            internal_only_headers,
            cluster_names: shared.cluster_names(),
            discovery,
        })
    }
}

fn add_domains(domains: &mut Domains, names: &[String], host: u32) -> Result<(), Errors> {
    let mut errors = Errors::new();
    if names.is_empty() {
        errors.push("domains", Fault::Required);
    }
    for (i, domain) in names.iter().enumerate() {
        errors.take(domains.add(domain, host).index(i).at("domains"));
    }
    errors.finish()
}

/// Whether a try that is over its time goes on beside the next one.
fn hedges(policy: proto::HedgePolicy) -> bool {
    let proto::HedgePolicy { hedge_on_per_try_timeout } = policy;
    hedge_on_per_try_timeout
}

fn virtual_host(
    host: proto::VirtualHost,
    above: &Inherited,
    shared: &mut Shared<'_>,
) -> Result<HostRoutes, Errors> {
    use proto::virtual_host::TlsRequirementType;
    let proto::VirtualHost {
        name,
        // They are compiled with those of the other hosts.
        domains: _,
        routes,
        request_headers_to_add,
        response_headers_to_add,
        response_headers_to_remove,
        request_headers_to_remove,
        require_tls,
        include_request_attempt_count,
        typed_per_filter_config,
        retry_policy,
        hedge_policy,
        per_request_buffer_limit_bytes,
        include_attempt_count_in_response,
        include_is_timeout_retry_header,
        virtual_clusters,
        request_mirror_policies,
        request_body_buffer_limit,
    } = host;
    let mut errors = Errors::new();
    let name = errors.take(fields::non_empty(&name).at("name")).unwrap_or_default();
    let fields = LevelFields {
        headers: headers::Fields {
            request_headers_to_add: &request_headers_to_add,
            request_headers_to_remove: &request_headers_to_remove,
            response_headers_to_add: &response_headers_to_add,
            response_headers_to_remove: &response_headers_to_remove,
        },
        typed_per_filter_config: &typed_per_filter_config,
    };
    let mut inherited = errors.take(above.below(fields, shared)).unwrap_or_default();
    inherited.retry =
        errors.take(retry_policy.map(retry::compile).transpose().at("retry_policy")).flatten();
    let mirrors = mirror::below(&above.mirrors, request_mirror_policies, shared);
    inherited.mirrors = errors.take(mirrors).unwrap_or_default();
    inherited.hedge = hedge_policy.is_some_and(hedges);
    inherited.body_limit =
        retry::body_limit(per_request_buffer_limit_bytes, request_body_buffer_limit);
    let clusters = stats::virtual_clusters(&name, &virtual_clusters, shared);
    let virtual_clusters = errors.take(clusters).flatten();
    let host = Arc::new(VirtualHost {
        name,
        include_request_attempt_count,
        include_attempt_count_in_response,
        include_is_timeout_retry: include_is_timeout_retry_header,
        virtual_clusters,
    });
    let mut patterns = Vec::with_capacity(routes.len());
    let mut entries = Vec::with_capacity(routes.len());
    for (i, message) in routes.into_iter().enumerate() {
        let compiled = route(message, &host, &inherited, shared).index(i).at("routes");
        if let Some((pattern, entry)) = errors.take(compiled) {
            patterns.push(pattern);
            entries.push(entry);
        }
    }
    let to_tls = match errors.take(fields::enumeration(require_tls).at("require_tls")) {
        Some(TlsRequirementType::None) | None => None,
        Some(required) => Some(ToTls {
            external_only: required == TlsRequirementType::ExternalOnly,
            route: Arc::new(Route {
                name: None,
                host: Arc::clone(&host),
                action: Action::Redirect(Box::new(Redirect::to_https())),
                overrides: None,
                mutations: None,
                stats: None,
            }),
        }),
    };
    errors.finish()?;
    Ok(HostRoutes { to_tls, paths: PathIndex::new(patterns), entries: entries.into() })
}

fn route(
    route: proto::Route,
    host: &Arc<VirtualHost>,
    above: &Inherited,
    shared: &mut Shared<'_>,
) -> Result<(PathPattern, Entry), Errors> {
    let proto::Route {
        r#match: route_match,
        request_headers_to_add,
        response_headers_to_add,
        response_headers_to_remove,
        request_headers_to_remove,
        typed_per_filter_config,
        name,
        stat_prefix,
        per_request_buffer_limit_bytes,
        request_body_buffer_limit,
        action,
    } = route;
    let mut errors = Errors::new();
    let matched = errors.take(
        fields::required(route_match)
            .and_then(|route_match| predicate::route_match(route_match, shared))
            .at("match"),
    );
    let fields = LevelFields {
        headers: headers::Fields {
            request_headers_to_add: &request_headers_to_add,
            request_headers_to_remove: &request_headers_to_remove,
            response_headers_to_add: &response_headers_to_add,
            response_headers_to_remove: &response_headers_to_remove,
        },
        typed_per_filter_config: &typed_per_filter_config,
    };
    let mut inherited = errors.take(above.below(fields, shared)).unwrap_or_default();
    inherited.body_limit =
        retry::body_limit(per_request_buffer_limit_bytes, request_body_buffer_limit)
            .or(inherited.body_limit);
    let pattern = matched.as_ref().map(|(pattern, _)| pattern);
    let choices = match action {
        None => {
            errors.push("action", Fault::Required);
            None
        }
        Some(action) => errors.take(action::compile(action, pattern, &inherited, shared)),
    };
    let (Some((pattern, predicates)), Some(choices)) = (matched, choices) else {
        return Err(errors);
    };
    errors.finish()?;
    let name: Option<Arc<str>> = (!name.is_empty()).then(|| name.into());
    let stats = (!stat_prefix.is_empty())
        .then(|| shared.cx.telemetry.group(Scope::route(&host.name, &stat_prefix)));
    let route = |choice: action::Choice| {
        // The action has the rest already.
        let Inherited { overrides, mutations, retry: _, hedge: _, body_limit: _, mirrors: _ } =
            choice.inherited;
        Arc::new(Route {
            name: name.clone(),
            host: Arc::clone(host),
            action: choice.action,
            overrides,
            mutations,
            stats: stats.clone(),
        })
    };
    let target = match choices {
        action::Choices::One(choice) => Target::One(route(choice)),
        action::Choices::Weighted(weighted) => Target::Weighted(Box::new(Weighted {
            ends: weighted.ends.into(),
            routes: weighted.choices.into_iter().map(route).collect(),
            number: weighted.number,
        })),
    };
    Ok((pattern, Entry { predicates, target }))
}
