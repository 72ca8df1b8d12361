//! Copies of a request for other clusters, whose answers nobody waits for.
//!
//! A copy is sent by a task of its own, which nothing of the request waits for: its cluster may be slow,
//! dead or unknown. It is held to the route's timeout and to its cluster's circuit breakers.
//!
//! Differs: a mirror that does not read a body as fast as the client sends it does not slow the client
//! down; past the limit of what is kept for it its request breaks off. Our own address is not added to
//! a copy's `x-forwarded-for`.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout};

use super::Router;
use super::attempt::Attempt;
use super::tee::{Copied, Tee};
use super::timers::{Timers, Times};
use crate::exchange::deadline::Deadlines;
use crate::exchange::{Body, RequestHead, RoutingPriority, StreamInfo};
use crate::route::{Extras, Forward};
use crate::upstream::{LbContext, LocalCluster};

const X_ENVOY_INTERNAL: HeaderName = HeaderName::from_static("x-envoy-internal");

/// An answer that says nothing for so long is not read any further.
const LONGEST_SILENCE: Duration = Duration::from_secs(60);

/// A copy on its way.
struct Shadow {
    cluster: Arc<LocalCluster>,
    head: RequestHead,
    body: Option<Copied>,
    stream: StreamInfo,
    times: Times,
    priority: RoutingPriority,
    hash: Option<u64>,
}

impl Router {
    /// Sends the copies that a route wants of a request whose head is as its upstream gets it. The body
    /// that is left is to be read in place of the request's.
    pub(super) fn mirror(
        &self,
        (forward, extras): (&Forward, &Extras),
        (head, body): (&RequestHead, Body),
        stream: &mut StreamInfo,
        (times, hash): (Times, Option<u64>),
    ) -> Body {
        if extras.mirrors().is_empty() || head.method == Method::CONNECT {
            return body;
        }
        let random = rand::random();
        let admitted = extras.mirrors().iter().filter(|mirror| mirror.admits(random));
        // A cluster that does not exist gets no copy, and nobody is told.
        let to = admitted.filter_map(|mirror| {
            let cluster = self.cx.clusters.get(&mirror.choose_cluster(head)?)?;
            Some((mirror, cluster))
        });
        let to: Vec<_> = to.collect();
        let limit = forward.body_limit(stream.downstream.buffer_limit);
        let (body, copies) = Tee::split(body, to.len(), limit);
        for ((mirror, cluster), copied) in to.into_iter().zip(copies) {
            let mut head = mirror.copy(head, stream);
            head.headers.insert(X_ENVOY_INTERNAL, HeaderValue::from_static("true"));
            let mut own =
                StreamInfo::new(Instant::now(), stream.protocol, Arc::clone(&stream.downstream));
            own.idle_timeout = stream.idle_timeout;
            own.request_body = copied.as_ref().map(Copied::progress);
            let priority = forward.priority();
            let shadow = Shadow { cluster, head, body: copied, stream: own, times, priority, hash };
            tokio::spawn(shadow.send(self.cx.deadlines.clone()));
        }
        body
    }
}

impl Shadow {
    /// Sends the copy and reads its answer, so that the connection can be used again.
    async fn send(self, deadlines: Deadlines) {
        let Self { cluster, head, body, stream, times, priority, hash } = self;
        let stats = &cluster.cluster().stats;
        let cx = LbContext { hash, metadata: None, override_host: None, without_priorities: 0 };
        let (Ok(host), Ok(permit)) = (cluster.choose(&cx), cluster.admit(priority)) else {
            stats.count_response(http::StatusCode::SERVICE_UNAVAILABLE);
            return;
        };
        let mut timers = Timers::new(&deadlines, times);
        let attempt = Attempt { cluster: &cluster, host: &host, stream: &stream };
        let body = body.map_or(Body::Empty, Body::boxed);
        let answered = attempt.run(head, body, permit, &mut timers).await;
        let stream = Box::new(stream);
        let mut response = match answered {
            Ok(answer) => answer.into_response(stream, timers, false),
            Err(failure) => {
                // Counts what there is to count; the answer is for nobody.
                drop(failure.into_response(stream, cluster.cluster(), false));
                return;
            }
        };
        let over = response.stream.response_deadline.take();
        let read = async {
            while let Ok(Some(Ok(_))) = timeout(LONGEST_SILENCE, response.body.frame()).await {}
        };
        match over {
            None => read.await,
            Some(over) => {
                futures_util::future::select(std::pin::pin!(read), over).await;
            }
        }
    }
}
