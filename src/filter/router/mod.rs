//! `envoy.filters.http.router`: the end of every chain. It joins the matched route to a cluster,
//! picks a host, and carries the exchange there and back.

mod attempt;

use std::sync::Arc;

use http::StatusCode;
use http::uri::Scheme;

use super::registry::Registration;
use super::{FilterFactory, Stage, WorkerContext};
use crate::config::Fault;
use crate::exchange::headers::{X_ENVOY_ATTEMPT_COUNT, X_ENVOY_EXPECTED_RQ_TIMEOUT_MS};
use crate::exchange::{
    Dispatch, HttpService, LocalReply, Request, RequestHead, Response, ResponseFuture, StreamInfo,
    StreamReset,
};
use crate::proto::any::unpack;
use crate::proto::envoy::extensions::filters::http::router::v3 as proto;
use crate::route::{Action, Forward, Route, RouteTable};
use crate::upstream::LbContext;

pub(super) const REGISTRATION: Registration = Registration {
    config_type: "envoy.extensions.filters.http.router.v3.Router",
    terminal: true,
    compile: |config| {
        let proto::Router { suppress_envoy_headers } =
            unpack(config).map_err(|e| Fault::Undecodable(e.to_string()))?;
        Ok(Arc::new(RouterConfig { envoy_headers: !suppress_envoy_headers }))
    },
};

#[derive(Debug, Clone, Copy)]
struct RouterConfig {
    /// Tell upstreams and clients of timeouts and service times by `x-envoy-` headers.
    envoy_headers: bool,
}

impl FilterFactory for RouterConfig {
    fn stage(&self, cx: &WorkerContext) -> Stage {
        Stage::Terminal(HttpService::new(Router { config: *self, cx: cx.clone() }))
    }
}

struct Router {
    config: RouterConfig,
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
            return Ok(LocalReply::route_not_found().into_response(request.stream));
        };
        let mut response = match route.action() {
            // No TLS is terminated here, so the client's scheme is http.
            Action::Redirect(redirect) => {
                redirect.reply(&request.head, &Scheme::HTTP).into_response(request.stream)
            }
            Action::Direct(direct) => direct.reply().into_response(request.stream),
            Action::Forward(forward) => self.forward(request, &route, forward).await?,
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
        let Request { mut head, body, mut stream } = request;
        let name = forward.choose_cluster(&head, rand::random());
        let cluster = name.as_ref().and_then(|name| self.cx.clusters.get(name));
        stream.upstream_cluster = name;
        let Some(cluster) = cluster else {
            let status = match &stream.upstream_cluster {
                Some(_) => forward.cluster_not_found(),
                // Without the header that names the cluster nothing was looked for.
                None => StatusCode::SERVICE_UNAVAILABLE,
            };
            return Ok(LocalReply::cluster_not_found(status).into_response(stream));
        };
        let cx = LbContext { hash: None };
        let host = match cluster.choose(&cx) {
            Ok(host) => host,
            Err(_no_host) => return Ok(LocalReply::no_healthy_upstream().into_response(stream)),
        };
        stream.upstream_host = Some(host.address());
        let permit = match cluster.admit(forward.priority()) {
            Ok(permit) => permit,
            Err(_overflow) => return Ok(LocalReply::overflow().into_response(stream)),
        };
        self.prepare(&mut head, &mut stream, route, forward);
        if forward.auto_host_rewrite()
            && let Some(name) = host.host_header()
        {
            head.headers.insert(http::header::HOST, name);
        }
        let attempt = attempt::Attempt {
            cluster: &cluster,
            host: &host,
            permit,
            timeout: forward.timeout(),
            deadlines: &self.cx.deadlines,
            service_time: self.config.envoy_headers,
        };
        let mut response = attempt.run(Request { head, body, stream }).await?;
        if route.include_attempt_count_in_response() {
            response.head.headers.insert(X_ENVOY_ATTEMPT_COUNT, ONE);
        }
        Ok(response)
    }

    /// Brings the request's head into the form the upstream gets.
    fn prepare(
        &self,
        head: &mut RequestHead,
        stream: &mut StreamInfo,
        route: &Route,
        forward: &Forward,
    ) {
        if self.config.envoy_headers
            && let Some(expected) = forward.expected_timeout_header()
        {
            head.headers.insert(X_ENVOY_EXPECTED_RQ_TIMEOUT_MS, expected.clone());
        }
        if route.include_request_attempt_count() {
            head.headers.insert(X_ENVOY_ATTEMPT_COUNT, ONE);
        }
        route.apply_request_headers(head, stream);
        forward.rewrite(head);
    }
}

const ONE: http::HeaderValue = http::HeaderValue::from_static("1");

/// The route pinned to the exchange, or, if a filter took it away, the one the request matches now.
fn matched_route(stream: &mut StreamInfo, head: &RequestHead) -> Option<Arc<Route>> {
    if let Some(route) = &stream.route {
        return Arc::downcast(Arc::clone(route)).ok();
    }
    let table = Arc::downcast::<RouteTable>(Arc::clone(stream.route_table.as_ref()?)).ok()?;
    let route = table.find(head, rand::random())?;
    stream.route = Some(Arc::clone(&route) as _);
    Some(route)
}
