//! The action of a `config.route.v3.Route`, and its `RouteAction` above all, to [`Action`].

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use prost_types::Struct;

use super::rewrite::PathFields;
use super::weighted::Share;
use super::{
    Inherited, Shared, direct_response, hash, internal_redirect, mirror, redirect, retry, rewrite,
    upgrade, weighted,
};
use crate::config::matcher::HeaderField;
use crate::config::metadata::{LB, MetadataMatch};
use crate::config::{Errors, Fault, OrFault, fields};
use crate::exchange::RoutingPriority;
use crate::proto::envoy::config::core::v3 as core;
use crate::proto::envoy::config::route::v3 as proto;
use crate::route::action::{Action, ClusterSource, Extras, Forward, Timeout};
use crate::route::duration::{GrpcTimeout, StreamDuration};
use crate::route::host_rewrite::HostRewrite;
use crate::route::tree::PathPattern;

/// How long an upstream may take if the route does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);

/// An action and all that holds for a request that takes it.
pub(super) struct Choice {
    pub(super) action: Action,
    pub(super) inherited: Inherited,
}

pub(super) enum Choices {
    One(Choice),
    /// One for each cluster.
    Weighted(WeightedChoices),
}

pub(super) struct WeightedChoices {
    /// The sum of the weights up to and with each.
    pub(super) ends: Vec<u32>,
    pub(super) choices: Vec<Choice>,
    /// Where a request brings the number it is drawn by.
    pub(super) number: Option<HeaderName>,
}

/// Compiles an action of a route that matches `pattern`; if that is at fault, the action is checked all
/// the same.
pub(super) fn compile(
    action: proto::route::Action,
    pattern: Option<&PathPattern>,
    inherited: &Inherited,
    shared: &mut Shared<'_>,
) -> Result<Choices, Errors> {
    let action = match action {
        proto::route::Action::Route(action) => {
            return forward(action, pattern, inherited, shared).at("route");
        }
        proto::route::Action::Redirect(action) => redirect::compile(action, pattern)
            .map(|redirect| Action::Redirect(Box::new(redirect)))
            .at("redirect")?,
        proto::route::Action::DirectResponse(action) => {
            direct_response::compile(&action, shared).map(Action::Direct).at("direct_response")?
        }
        proto::route::Action::NonForwardingAction(proto::NonForwardingAction {}) => {
            Action::NonForwarding
        }
    };
    Ok(Choices::One(Choice { action, inherited: inherited.clone() }))
}

fn forward(
    action: proto::RouteAction,
    pattern: Option<&PathPattern>,
    inherited: &Inherited,
    shared: &mut Shared<'_>,
) -> Result<Choices, Errors> {
    use proto::route_action::{ClusterNotFoundResponseCode, ClusterSpecifier};
    let proto::RouteAction {
        prefix_rewrite,
        regex_rewrite,
        path_rewrite_policy,
        append_x_forwarded_host,
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
        request_mirror_policies,
        internal_redirect_policy,
        max_stream_duration,
        max_grpc_timeout,
        grpc_timeout_offset,
        upgrade_configs,
    } = action;
    let mut errors = Errors::new();
    let path = PathFields {
        prefix_rewrite: &prefix_rewrite,
        regex_rewrite: regex_rewrite.as_ref(),
        path_rewrite_policy,
    };
    let path = errors.take(rewrite::path(path, pattern)).flatten().map(Box::new);
    let limit =
        errors.take(optional_duration(timeout).at("timeout")).flatten().unwrap_or(DEFAULT_TIMEOUT);
    let stream_duration = max_stream_duration.map(stream_duration).transpose();
    let stream_duration = errors.take(stream_duration.at("max_stream_duration")).flatten();
    // Where streams have a duration the older fields do not count.
    let limit = if stream_duration.is_some() { Duration::ZERO } else { limit };
    let grpc_timeout = errors.take(grpc_timeout(max_grpc_timeout, grpc_timeout_offset)).flatten();
    let grpc_timeout = grpc_timeout.filter(|_| stream_duration.is_none());
    let idle_timeout = errors.take(optional_duration(idle_timeout).at("idle_timeout")).flatten();
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
    let host = errors.take(rewrite::host(host_rewrite_specifier));
    let hash = errors.take(hash::compile(&hash_policy).at("hash_policy")).flatten();
    let mirrors = mirror::below(&inherited.mirrors, request_mirror_policies, shared);
    let mirrors: Box<[_]> = errors.take(mirrors).unwrap_or_default().into();
    let redirects = internal_redirect_policy.map(internal_redirect::compile).transpose();
    let internal_redirect = errors.take(redirects.at("internal_redirect_policy")).flatten();
    let upgrades = errors.take(upgrade::compile(&upgrade_configs)).unwrap_or_default();
    let extras = Extras { mirrors, internal_redirect, stream_duration, grpc_timeout, upgrades };
    let extras = (!extras.is_empty()).then(|| Arc::new(extras));
    let timeout = shared.timeout(limit);
    let wanted = metadata_match.and_then(for_balancing);
    let metadata =
        |inner: Option<Struct>| MetadataMatch::of(wanted.as_ref(), inner.as_ref()).map(Arc::new);
    let forward = |cluster, host, inner| Forward {
        cluster,
        timeout: Arc::clone(&timeout),
        idle_timeout,
        path: path.clone(),
        host,
        append_forwarded_host: append_x_forwarded_host,
        cluster_not_found,
        priority,
        hash: hash.clone(),
        metadata: metadata(inner),
        retry: retry.clone(),
        hedge: hedge_policy.map_or(inherited.hedge, super::hedges),
        body_limit: inherited.body_limit,
        extras: extras.clone(),
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
            weighted::compile(weighted, inherited, shared)
                .map(|(shares, number)| {
                    let choice = |share: Share| Choice {
                        action: Action::Forward(forward(
                            share.cluster,
                            share.host.unwrap_or_else(|| host.clone()),
                            share.metadata,
                        )),
                        inherited: share.inherited,
                    };
                    let ends = shares.iter().map(|share| share.end).collect();
                    let choices = shares.into_iter().map(choice).collect();
                    Choices::Weighted(WeightedChoices { ends, choices, number })
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

fn optional_duration(duration: Option<prost_types::Duration>) -> Result<Option<Duration>, Errors> {
    duration.as_ref().map(fields::duration).transpose()
}

fn stream_duration(
    message: proto::route_action::MaxStreamDuration,
) -> Result<StreamDuration, Errors> {
    let proto::route_action::MaxStreamDuration {
        max_stream_duration,
        grpc_timeout_header_max,
        grpc_timeout_header_offset,
    } = message;
    let mut errors = Errors::new();
    let most = errors.take(optional_duration(max_stream_duration).at("max_stream_duration"));
    let grpc_most = optional_duration(grpc_timeout_header_max).at("grpc_timeout_header_max");
    let grpc_most = errors.take(grpc_most);
    let offset = optional_duration(grpc_timeout_header_offset).at("grpc_timeout_header_offset");
    let grpc_offset = errors.take(offset).flatten().unwrap_or_default();
    errors.finish()?;
    Ok(StreamDuration { most: most.flatten(), grpc_most: grpc_most.flatten(), grpc_offset })
}

fn grpc_timeout(
    most: Option<prost_types::Duration>,
    offset: Option<prost_types::Duration>,
) -> Result<Option<GrpcTimeout>, Errors> {
    let mut errors = Errors::new();
    let most = errors.take(optional_duration(most).at("max_grpc_timeout")).flatten();
    let offset = errors.take(optional_duration(offset).at("grpc_timeout_offset")).flatten();
    errors.finish()?;
    Ok(most.map(|most| GrpcTimeout { most, offset: offset.unwrap_or_default() }))
}

/// The part of metadata that balancers read.
pub(super) fn for_balancing(metadata: core::Metadata) -> Option<Struct> {
    // Typed metadata is for extensions that read it; there is none.
    let core::Metadata { mut filter_metadata, typed_filter_metadata: _ } = metadata;
    filter_metadata.remove(LB)
}
