//! `config.route.v3.RouteAction`, `RedirectAction` and `DirectResponseAction` to [`Action`].

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderValue, StatusCode};
use prost_types::Struct;

use super::{Inherited, LevelFields, Shared, hash, headers, retry};
use crate::config::matcher::HeaderField;
use crate::config::metadata::{LB, MetadataMatch};
use crate::config::{Errors, Fault, OrFault, fields};
use crate::exchange::RoutingPriority;
use crate::proto::envoy::config::core::v3 as core;
use crate::proto::envoy::config::route::v3 as proto;
use crate::route::action::{
    Action, ClusterSource, DirectResponse, Forward, HostRewrite, Redirect, RedirectPath, Timeout,
};
use crate::route::rewrite::{HostValue, Matched, PrefixRewrite};
use crate::route::tree::{PathMatcher, PathPattern};

/// How long an upstream may take if the route does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);

/// An action and all that holds for a request that takes it.
pub(super) struct Choice {
    pub(super) action: Action,
    pub(super) inherited: Inherited,
}

pub(super) enum Choices {
    One(Choice),
    /// One for each cluster, and the sum of the weights up to and with it.
    Weighted(Vec<u32>, Vec<Choice>),
}

impl PathPattern {
    /// How much of a path it matches.
    pub(super) fn matched(&self) -> Matched {
        match &self.matcher {
            PathMatcher::Prefix(prefix) | PathMatcher::SeparatedPrefix(prefix) => {
                Matched::Prefix(prefix.len())
            }
            PathMatcher::Exact(_) | PathMatcher::Regex(_) => Matched::Whole,
        }
    }
}

/// Compiles an action of a route that matches so much of the path.
pub(super) fn compile(
    action: proto::route::Action,
    matched: Matched,
    inherited: &Inherited,
    shared: &mut Shared<'_>,
) -> Result<Choices, Errors> {
    let action = match action {
        proto::route::Action::Route(action) => {
            return forward(action, matched, inherited, shared).at("route");
        }
        proto::route::Action::Redirect(action) => redirect(action, matched)
            .map(|redirect| Action::Redirect(Box::new(redirect)))
            .at("redirect")?,
        proto::route::Action::DirectResponse(action) => {
            direct_response(&action, shared).map(Action::Direct).at("direct_response")?
        }
    };
    Ok(Choices::One(Choice { action, inherited: inherited.clone() }))
}

fn forward(
    action: proto::RouteAction,
    matched: Matched,
    inherited: &Inherited,
    shared: &mut Shared<'_>,
) -> Result<Choices, Errors> {
    use proto::route_action::{ClusterNotFoundResponseCode, ClusterSpecifier};
    let proto::RouteAction {
        prefix_rewrite: rewrite,
        timeout,
        retry_policy,
        priority,
        hash_policy,
        cluster_not_found_response_code,
        idle_timeout,
        metadata_match,
        hedge_policy,
        cluster_specifier,
        host_rewrite_specifier,
    } = action;
    let mut errors = Errors::new();
    let prefix_rewrite = errors.take(prefix_rewrite(&rewrite, matched).at("prefix_rewrite"));
    let limit = timeout.as_ref().map(fields::duration).transpose().at("timeout");
    let limit = errors.take(limit).flatten().unwrap_or(DEFAULT_TIMEOUT);
    let idle_timeout = idle_timeout.as_ref().map(fields::duration).transpose().at("idle_timeout");
    let idle_timeout = errors.take(idle_timeout).flatten();
    let priority = match errors.take(fields::enumeration(priority).at("priority")) {
        Some(core::RoutingPriority::High) => RoutingPriority::High,
        Some(core::RoutingPriority::Default) | None => RoutingPriority::Default,
    };
    let not_found = fields::enumeration(cluster_not_found_response_code);
    let cluster_not_found = match errors.take(not_found.at("cluster_not_found_response_code")) {
        Some(ClusterNotFoundResponseCode::NotFound) => StatusCode::NOT_FOUND,
        Some(ClusterNotFoundResponseCode::InternalServerError) => StatusCode::INTERNAL_SERVER_ERROR,
        Some(ClusterNotFoundResponseCode::ServiceUnavailable) | None => {
            StatusCode::SERVICE_UNAVAILABLE
        }
    };
    let own = errors.take(retry_policy.map(retry::compile).transpose().at("retry_policy"));
    let retry = own.flatten().or_else(|| inherited.retry.clone());
    let host = errors.take(host_rewrite(host_rewrite_specifier));
    let hash = errors.take(hash::compile(&hash_policy).at("hash_policy")).flatten();
    let timeout = shared.timeout(limit);
    let wanted = metadata_match.and_then(for_balancing);
    let metadata =
        |inner: Option<Struct>| MetadataMatch::of(wanted.as_ref(), inner.as_ref()).map(Arc::new);
    let forward = |cluster, host, inner| Forward {
        cluster,
        timeout: Arc::clone(&timeout),
        idle_timeout,
        prefix_rewrite: prefix_rewrite.clone().flatten(),
        host,
        cluster_not_found,
        priority,
        hash: hash.clone(),
        metadata: metadata(inner),
        retry: retry.clone(),
        hedge: hedge_policy.map_or(inherited.hedge, |policy| policy.hedge_on_per_try_timeout),
        body_limit: inherited.body_limit,
    };
    let host = host.unwrap_or(HostRewrite::Keep);
    let one = |cluster, host| {
        let action = Action::Forward(forward(cluster, host, None));
        Choices::One(Choice { action, inherited: inherited.clone() })
    };
    let choices = match cluster_specifier {
        None => Err(Errors::from(Fault::Required).at("cluster_specifier")),
        Some(ClusterSpecifier::Cluster(name)) => fields::non_empty(&name)
            .map(|_checked| one(ClusterSource::Name(shared.cluster(&name)), host))
            .at("cluster"),
        Some(ClusterSpecifier::ClusterHeader(name)) => HeaderField::compile(&name)
            .map(|field| one(ClusterSource::Header(Box::new(field)), host))
            .at("cluster_header"),
        Some(ClusterSpecifier::WeightedClusters(weighted)) => {
            weighted_clusters(weighted, inherited, shared)
                .map(|shares| {
                    let choice = |share: Share| Choice {
                        action: Action::Forward(forward(
                            share.cluster,
                            share.host.unwrap_or_else(|| host.clone()),
                            share.metadata,
                        )),
                        inherited: share.inherited,
                    };
                    let ends = shares.iter().map(|share| share.end).collect();
                    Choices::Weighted(ends, shares.into_iter().map(choice).collect())
                })
                .at("weighted_clusters")
        }
    };
    let choices = errors.take(choices);
    match choices {
        Some(choices) if errors.is_empty() => Ok(choices),
        _ => Err(errors),
    }
}

impl Shared<'_> {
    fn timeout(&mut self, limit: Duration) -> Arc<Timeout> {
        let limit = (!limit.is_zero()).then_some(limit);
        let made = self.timeouts.entry(limit).or_insert_with(|| {
            let ms = |limit: Duration| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
            Arc::new(Timeout { limit, header: limit.map(|limit| HeaderValue::from(ms(limit))) })
        });
        Arc::clone(made)
    }
}

fn host_rewrite(
    specifier: Option<proto::route_action::HostRewriteSpecifier>,
) -> Result<HostRewrite, Errors> {
    use proto::route_action::HostRewriteSpecifier;
    match specifier {
        None | Some(HostRewriteSpecifier::AutoHostRewrite(false)) => Ok(HostRewrite::Keep),
        Some(HostRewriteSpecifier::AutoHostRewrite(true)) => Ok(HostRewrite::Auto),
        Some(HostRewriteSpecifier::HostRewriteLiteral(host)) => {
            literal_host(&host).at("host_rewrite_literal")
        }
    }
}

fn literal_host(host: &str) -> Result<HostRewrite, Fault> {
    if host.is_empty() {
        return Ok(HostRewrite::Keep);
    }
    HostValue::try_new(host).map(|host| HostRewrite::Literal(Box::new(host)))
}

/// An empty text rewrites nothing.
fn prefix_rewrite(to: &str, matched: Matched) -> Result<Option<Box<PrefixRewrite>>, Fault> {
    if to.is_empty() {
        return Ok(None);
    }
    check_path(to)?;
    Ok(Some(Box::new(PrefixRewrite { matched, to: to.into() })))
}

fn check_path(path: &str) -> Result<(), Fault> {
    if !path.starts_with('/') || path.contains('#') || PathAndQuery::try_from(path).is_err() {
        return Err(Fault::invalid(format!("{path:?}"), "not a path; one begins with \"/\""));
    }
    Ok(())
}

/// The part of metadata that balancers read.
fn for_balancing(metadata: core::Metadata) -> Option<Struct> {
    // Typed metadata is for extensions that read it; there is none.
    let core::Metadata { mut filter_metadata, typed_filter_metadata: _ } = metadata;
    filter_metadata.remove(LB)
}

/// A cluster of a weighted route.
struct Share {
    end: u32,
    cluster: ClusterSource,
    host: Option<HostRewrite>,
    metadata: Option<Struct>,
    inherited: Inherited,
}

fn weighted_clusters(
    weighted: proto::WeightedCluster,
    inherited: &Inherited,
    shared: &mut Shared<'_>,
) -> Result<Vec<Share>, Errors> {
    let proto::WeightedCluster { clusters } = weighted;
    let mut errors = Errors::new();
    if clusters.is_empty() {
        errors.push("clusters", Fault::Required);
    }
    let total: u64 = clusters.iter().map(|cluster| u64::from(cluster.weight.unwrap_or(0))).sum();
    if total > u64::from(u32::MAX) {
        let reason = "the sum of the weights must not exceed 4294967295";
        errors.push("clusters", Fault::invalid(total, reason));
    } else if total == 0 && !clusters.is_empty() {
        let reason = "the sum of the weights must be greater than 0";
        errors.push("clusters", Fault::invalid(total, reason));
    }
    let mut shares = Vec::with_capacity(clusters.len());
    let mut end = 0u32;
    for (i, cluster) in clusters.into_iter().enumerate() {
        // A sum that does not fit is a fault already.
        end = end.saturating_add(cluster.weight.unwrap_or(0));
        let share = cluster_weight(cluster, end, inherited, shared).index(i).at("clusters");
        shares.extend(errors.take(share));
    }
    errors.finish().map(|()| shares)
}

fn cluster_weight(
    cluster: proto::weighted_cluster::ClusterWeight,
    end: u32,
    above: &Inherited,
    shared: &mut Shared<'_>,
) -> Result<Share, Errors> {
    use proto::weighted_cluster::cluster_weight::HostRewriteSpecifier;
    let proto::weighted_cluster::ClusterWeight {
        name,
        weight,
        request_headers_to_add,
        response_headers_to_add,
        response_headers_to_remove,
        request_headers_to_remove,
        typed_per_filter_config,
        cluster_header,
        metadata_match,
        host_rewrite_specifier,
    } = cluster;
    let mut errors = Errors::new();
    if weight.is_none() {
        errors.push("weight", Fault::Required);
    }
    let cluster = match (name.is_empty(), cluster_header.is_empty()) {
        (true, true) => {
            errors.push("name", Fault::Required);
            None
        }
        (false, false) => {
            errors.push("cluster_header", Fault::Conflict("excludes name; set only one".into()));
            None
        }
        (false, true) => Some(ClusterSource::Name(shared.cluster(&name))),
        (true, false) => errors
            .take(HeaderField::compile(&cluster_header).at("cluster_header"))
            .map(|field| ClusterSource::Header(Box::new(field))),
    };
    let host = match host_rewrite_specifier {
        None => None,
        Some(HostRewriteSpecifier::HostRewriteLiteral(host)) => {
            errors.take(literal_host(&host).at("host_rewrite_literal"))
        }
    };
    let fields = LevelFields {
        headers: headers::Fields {
            request_headers_to_add: &request_headers_to_add,
            request_headers_to_remove: &request_headers_to_remove,
            response_headers_to_add: &response_headers_to_add,
            response_headers_to_remove: &response_headers_to_remove,
        },
        typed_per_filter_config: &typed_per_filter_config,
    };
    let inherited = errors.take(above.below(fields, shared));
    match (cluster, inherited) {
        (Some(cluster), Some(inherited)) if errors.is_empty() => {
            let metadata = metadata_match.and_then(for_balancing);
            Ok(Share { end, cluster, host, metadata, inherited })
        }
        _ => Err(errors),
    }
}

fn redirect(action: proto::RedirectAction, matched: Matched) -> Result<Redirect, Errors> {
    use proto::redirect_action::{
        PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
    };
    let proto::RedirectAction {
        host_redirect,
        response_code,
        strip_query,
        port_redirect,
        path_rewrite_specifier,
        scheme_rewrite_specifier,
    } = action;
    let mut errors = Errors::new();
    let status = match errors.take(fields::enumeration(response_code).at("response_code")) {
        Some(RedirectResponseCode::MovedPermanently) | None => StatusCode::MOVED_PERMANENTLY,
        Some(RedirectResponseCode::Found) => StatusCode::FOUND,
        Some(RedirectResponseCode::SeeOther) => StatusCode::SEE_OTHER,
        Some(RedirectResponseCode::TemporaryRedirect) => StatusCode::TEMPORARY_REDIRECT,
        Some(RedirectResponseCode::PermanentRedirect) => StatusCode::PERMANENT_REDIRECT,
    };
    let scheme = match scheme_rewrite_specifier {
        None | Some(SchemeRewriteSpecifier::HttpsRedirect(false)) => None,
        Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => Some(Scheme::HTTPS),
        Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) if scheme.is_empty() => None,
        Some(SchemeRewriteSpecifier::SchemeRedirect(text)) => {
            let scheme = Scheme::try_from(text.as_str())
                .map_err(|_invalid| Fault::invalid(format!("{text:?}"), "not a URI's scheme"));
            errors.take(scheme.at("scheme_redirect"))
        }
    };
    let port = errors.take(fields::port(port_redirect).at("port_redirect"));
    if !host_redirect.is_empty() {
        errors.take(HostValue::try_new(&host_redirect).at("host_redirect"));
    }
    let path = match path_rewrite_specifier {
        None => RedirectPath::Keep,
        Some(PathRewriteSpecifier::PathRedirect(path)) if path.is_empty() => RedirectPath::Keep,
        Some(PathRewriteSpecifier::PathRedirect(path)) => {
            errors.take(redirect_path(&path).at("path_redirect"));
            RedirectPath::Replace(path.into())
        }
        Some(PathRewriteSpecifier::PrefixRewrite(to)) => {
            let rewrite = errors.take(prefix_rewrite(&to, matched).at("prefix_rewrite"));
            rewrite.flatten().map_or(RedirectPath::Keep, |rewrite| RedirectPath::Prefix(*rewrite))
        }
    };
    errors.finish()?;
    Ok(Redirect {
        status,
        scheme,
        host: (!host_redirect.is_empty()).then(|| host_redirect.into()),
        port: port.filter(|port| *port != 0),
        path,
        strip_query,
    })
}

/// A place in a `Location`, which may end in a fragment.
fn redirect_path(path: &str) -> Result<(), Fault> {
    check_path(path.split_once('#').map_or(path, |(path, _)| path))?;
    HeaderValue::from_str(path)
        .map(drop)
        .map_err(|_invalid| Fault::out_of_range(format!("{path:?}"), "a header value"))
}

fn direct_response(
    action: &proto::DirectResponseAction,
    shared: &Shared<'_>,
) -> Result<DirectResponse, Errors> {
    let proto::DirectResponseAction { status, body } = action;
    let mut errors = Errors::new();
    let status = errors.take(fields::in_range(*status, 200..=599).at("status"));
    let status = status.and_then(|status| StatusCode::from_u16(u16::try_from(status).ok()?).ok());
    let body = match body {
        None => Some(Bytes::new()),
        Some(body) => {
            errors.take(response_body(body, shared.max_direct_response_body_size_bytes).at("body"))
        }
    };
    match (status, body) {
        (Some(status), Some(body)) if errors.is_empty() => Ok(DirectResponse { status, body }),
        _ => Err(errors),
    }
}

fn response_body(source: &core::DataSource, limit: u32) -> Result<Bytes, Errors> {
    let body = match &source.specifier {
        Some(core::data_source::Specifier::Filename(name)) => {
            beginning_of_file(name, limit).at("filename")?
        }
        _ => fields::data_source(source)?,
    };
    if u64::try_from(body.len()).is_ok_and(|length| length <= u64::from(limit)) {
        return Ok(body.into());
    }
    let reason = "larger than max_direct_response_body_size_bytes allows";
    Err(Fault::invalid(format!("a body of more than {limit} bytes"), reason).into())
}

/// A file up to one byte more than `limit`, so that no file is read that is too large to keep.
fn beginning_of_file(name: &str, limit: u32) -> Result<Vec<u8>, Fault> {
    let mut body = Vec::new();
    std::fs::File::open(name)
        .and_then(|file| file.take(u64::from(limit) + 1).read_to_end(&mut body))
        .map(|_length| body)
        .map_err(|error| Fault::System {
            action: format!("reading {name:?}"),
            reason: error.to_string(),
        })
}
