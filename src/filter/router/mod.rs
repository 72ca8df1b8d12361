//! `envoy.filters.http.router`: the end of every chain. It joins the matched route to a cluster,
//! picks a host, and carries the exchange there and back.

mod asked;
mod attempt;
mod backoff;
mod hedge;
mod idle_body;
mod internal_redirect;
mod mirror;
mod replay;
mod retry;
mod tee;
mod timed_body;
mod timers;
mod tries;

use std::sync::Arc;

use http::header::{HOST, SET_COOKIE};
use http::{HeaderValue, StatusCode};

use super::registry::Registration;
use super::{FilterFactory, Stage, WorkerContext};
use crate::config::Fault;
use crate::exchange::headers::{X_ENVOY_ATTEMPT_COUNT, X_ENVOY_EXPECTED_RQ_TIMEOUT_MS};
use crate::exchange::upgrade::EndsHere;
use crate::exchange::{
    Dispatch, HttpService, LocalReply, Request, RequestHead, Response, ResponseFlag,
    ResponseFuture, StreamInfo, StreamReset,
};
use crate::proto::any::unpack;
use crate::proto::envoy::extensions::filters::http::router::v3 as proto;
use crate::route::hash::Hashed;
use crate::route::{Action, Forward, RequestCounts, Route, RouteTable, UpgradeRule, replace_host};
use crate::telemetry::Scope;
use crate::upstream::{Host, LbContext, LocalCluster};
use asked::Asked;
use attempt::Attempt;
use internal_redirect::RedirectStats;
use timed_body::timed;
use timers::{Timers, Times};
use tries::Wanted;

pub(super) const REGISTRATION: Registration = Registration {
    config_type: "envoy.extensions.filters.http.router.v3.Router",
    terminal: true,
    compile: |config, cx| {
        let proto::Router { suppress_envoy_headers, respect_expected_rq_timeout } =
            unpack(config).map_err(|e| Fault::Undecodable(e.to_string()))?;
        Ok(Arc::new(RouterConfig {
            envoy_headers: !suppress_envoy_headers,
            respect_expected: respect_expected_rq_timeout,
            stat_prefix: Arc::clone(&cx.stat_prefix),
        }))
    },
};

#[derive(Debug, Clone)]
struct RouterConfig {
    /// Tell upstreams and clients of timeouts and service times by `x-envoy-` headers.
    envoy_headers: bool,
    /// A proxy before this one says in `x-envoy-expected-rq-timeout-ms` how long a request may take.
    respect_expected: bool,
    /// `HttpConnectionManager.stat_prefix`
    stat_prefix: Arc<str>,
}

impl FilterFactory for RouterConfig {
    fn stage(&self, cx: &WorkerContext) -> Stage {
        let scope = Scope::http(&self.stat_prefix);
        Stage::Terminal(HttpService::new(Router {
            config: self.clone(),
            stats: cx.telemetry.group(scope.clone()),
            redirects: cx.telemetry.group(scope),
            cx: cx.clone(),
        }))
    }
}

crate::stats! {
    /// `http.STAT_PREFIX.`
    struct RouterStats {
        /// Requests without a route.
        counter no_route,
    }
}

struct Router {
    config: RouterConfig,
    stats: Arc<RouterStats>,
    redirects: Arc<RedirectStats>,
    cx: WorkerContext,
}

impl Dispatch for Router {
    fn dispatch(self: Arc<Self>, request: Request) -> ResponseFuture {
        Box::pin(async move { self.answer(request).await })
    }
}

impl Router {
    async fn answer(&self, mut request: Request) -> Result<Response, StreamReset> {
        let Some(route) = matched_route(&mut request.stream, &request.head) else {
            self.stats.no_route.inc();
            return Ok(LocalReply::route_not_found().into_response(request.stream));
        };
        if request.stream.upgrade.is_some()
            && let Err(reply) = upgrade(&mut request, route.action())
        {
            return Ok(reply.into_response(request.stream));
        }
        let mut response = match route.action() {
            Action::Forward(forward) => self.forward(request, &route, forward).await?,
            Action::Redirect(redirect) => {
                route.record_request(&request.head, &mut request.stream);
                redirect.reply(&request.head).into_response(request.stream)
            }
            Action::Direct(direct) => {
                route.record_request(&request.head, &mut request.stream);
                direct.reply(&request.head, &mut request.stream).into_response(request.stream)
            }
            Action::NonForwarding => {
                route.record_request(&request.head, &mut request.stream);
                let status = StatusCode::SERVICE_UNAVAILABLE;
                LocalReply::cluster_not_found(status).into_response(request.stream)
            }
        };
        let Response { head, stream, .. } = &mut response;
        route.apply_response_headers(head, stream);
        Ok(response)
    }

    async fn forward(
        &self,
        request: Request,
        route: &Route,
        forward: &Forward,
    ) -> Result<Response, StreamReset> {
        let Request { head, body, mut stream } = request;
        let name = forward.choose_cluster(&head);
        let cluster = name.as_ref().and_then(|name| self.cx.clusters.get(name));
        stream.upstream_cluster = name;
        let Some(cluster) = cluster else {
            let status = match &stream.upstream_cluster {
                Some(_) => forward.cluster_not_found(),
                // Without the header that names the cluster nothing was looked for.
                None => StatusCode::SERVICE_UNAVAILABLE,
            };
            route.record_request(&head, &mut stream);
            return Ok(LocalReply::cluster_not_found(status).into_response(stream));
        };
        let request = Request { head, body, stream };
        let counts = route.counts(&request.head);
        if counts.is_empty() {
            return self.forward_to(cluster, request, (route, forward), &counts).await;
        }
        counts.each(|stats| stats.upstream_rq_total.inc());
        let sent = Box::pin(self.forward_to(cluster, request, (route, forward), &counts));
        let mut response = sent.await?;
        if response.stream.flags.has(ResponseFlag::UpstreamRequestTimeout) {
            counts.each(|stats| stats.upstream_rq_timeout.inc());
        }
        timed(&mut response, counts);
        Ok(response)
    }

    /// Sends a request to a cluster that exists.
    async fn forward_to(
        &self,
        cluster: Arc<LocalCluster>,
        request: Request,
        (route, forward): (&Route, &Forward),
        counts: &RequestCounts,
    ) -> Result<Response, StreamReset> {
        let Request { mut head, body, mut stream } = request;
        if cluster.drops() {
            route.record_request(&head, &mut stream);
            return Ok(refuse(&cluster, LocalReply::drop_overload(), stream));
        }
        if let Some(idle) = forward.idle_timeout() {
            stream.idle_timeout = Some(idle).filter(|idle| !idle.is_zero());
        }
        let hashed = match forward.hash_policies() {
            Some(policies) => policies.hash(&head, stream.remote_ip(), rand::random),
            None => Hashed::default(),
        };
        let asked = Asked::take(&mut head, self.config.respect_expected);
        if forward.retry_policy().is_some() || forward.extras().is_some() || asked.is_some() {
            let request = Request { head, body, stream };
            let wanted =
                Wanted { route, forward, asked: asked.as_deref(), hash: hashed.hash, counts };
            let tried = Box::pin(self.try_repeatedly(cluster, request, &wanted)).await;
            return tried.map(|response| with_cookies(response, hashed));
        }
        let cx = LbContext {
            hash: hashed.hash,
            metadata: forward.metadata_match(),
            override_host: stream.override_host.as_deref(),
            without_priorities: 0,
        };
        let Ok(host) = cluster.choose(&cx) else {
            route.record_request(&head, &mut stream);
            return Ok(refuse(&cluster, LocalReply::no_healthy_upstream(), stream));
        };
        stream.upstream_host = Some(host.address());
        self.announce(&mut head, route, forward);
        route.apply_request_headers(&mut head, &mut stream);
        if let Err(reply) = forward.rewrite(&mut head, self.config.envoy_headers) {
            return Ok(reply.into_response(stream));
        }
        self.rewrite_host(&mut head, &mut stream, forward, &host);
        let Ok(permit) = cluster.admit(forward.priority()) else {
            return Ok(refuse(&cluster, LocalReply::overflow(), stream));
        };
        let mut timers = Timers::new(&self.cx.deadlines, Times::of(forward));
        let attempt = Attempt { cluster: &cluster, host: &host, stream: &stream };
        let mut response = match attempt.run(head, body, permit, &mut timers).await {
            Ok(answer) => answer.into_response(stream, timers, self.config.envoy_headers),
            Err(failure) => failure.into_response(stream, cluster.cluster(), false)?,
        };
        if route.include_attempt_count_in_response() {
            response.head.headers.insert(X_ENVOY_ATTEMPT_COUNT, HeaderValue::from_static("1"));
        }
        Ok(with_cookies(response, hashed))
    }

    /// Tells the upstream what it is asked for.
    fn announce(&self, head: &mut RequestHead, route: &Route, forward: &Forward) {
        if self.config.envoy_headers
            && let Some(expected) = forward.expected_timeout_header()
        {
            head.headers.insert(X_ENVOY_EXPECTED_RQ_TIMEOUT_MS, expected.clone());
        }
        if route.include_request_attempt_count() {
            head.headers.insert(X_ENVOY_ATTEMPT_COUNT, HeaderValue::from_static("1"));
        }
    }

    /// Does the part of the rewriting that depends on the host.
    fn rewrite_host(
        &self,
        head: &mut RequestHead,
        stream: &mut StreamInfo,
        forward: &Forward,
        host: &Host,
    ) {
        if forward.auto_host_rewrite()
            && let Ok(name) = HeaderValue::from_str(host.hostname())
            && !name.is_empty()
        {
            replace_host(head, name, forward.kept_host(self.config.envoy_headers));
        }
        // Access logs see the request as the upstream does.
        if let Some(record) = &mut stream.request {
            record.path = head.uri.path_and_query().cloned();
            record.authority = head.headers.get(HOST).cloned();
            record.headers.clone_from(&head.headers);
        }
    }
}

/// Gives the client the cookies that its next request is to be hashed by.
fn with_cookies(mut response: Response, hashed: Hashed) -> Response {
    for cookie in hashed.set_cookies {
        response.head.headers.append(SET_COOKIE, cookie);
    }
    response
}

/// A refusal that counts against the cluster.
fn refuse(cluster: &LocalCluster, reply: LocalReply, stream: Box<StreamInfo>) -> Response {
    cluster.cluster().stats.count_response(reply.status());
    reply.into_response(stream)
}

/// Asks the upstream for the protocol that the client wants to change to, if that is allowed.
fn upgrade(request: &mut Request, action: &Action) -> Result<(), LocalReply> {
    let Some(asked) = &request.stream.upgrade else { return Ok(()) };
    let rule = match action {
        Action::Forward(forward) => {
            forward.extras().and_then(|extras| extras.upgrade(&asked.upgrade))
        }
        _ => None,
    };
    if !rule.map_or(asked.is_allowed, UpgradeRule::is_enabled) {
        return Err(LocalReply::upgrade_failed());
    }
    asked.upgrade.ask(&mut request.head.headers);
    if rule.is_some_and(UpgradeRule::ends_here) {
        request.head.extensions.insert(EndsHere);
    }
    Ok(())
}

/// The route pinned to the exchange, or, if a filter took it away, the one the request matches now.
fn matched_route(stream: &mut StreamInfo, head: &RequestHead) -> Option<Arc<Route>> {
    if let Some(route) = &stream.route {
        return Arc::downcast(Arc::clone(route)).ok();
    }
    let table = Arc::downcast::<RouteTable>(Arc::clone(stream.route_table.as_ref()?)).ok()?;
    let route = table.find(head, rand::random)?;
    stream.route = Some(Arc::clone(&route) as _);
    Some(route)
}
