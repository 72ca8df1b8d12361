//! A request that may be tried again, or that says itself how long it may take.
//!
//! Apart from the usual way through the router, so that a request without any of this pays nothing
//! for it.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use smallvec::SmallVec;
use tokio::time::Instant;

use super::asked::Asked;
use super::attempt::{Answer, Attempt, Failure};
use super::hedge::Hedge;
use super::internal_redirect::{Asked as Redirected, follow};
use super::replay::Replay;
use super::retry::Plan;
use super::timers::{Timers, Times};
use super::{Router, refuse};
use crate::exchange::grpc_timeout;
use crate::exchange::headers::{X_ENVOY_ATTEMPT_COUNT, X_ENVOY_EXPECTED_RQ_TIMEOUT_MS, is_grpc};
use crate::exchange::{
    LocalReply, Request, RequestHead, Response, ResponseFlag, StreamInfo, StreamReset,
};
use crate::route::{Extras, Forward, RequestCounts, Route};
use crate::upstream::{Host, LbContext, LocalCluster, Permit};

const X_ENVOY_IS_TIMEOUT_RETRY: HeaderName = HeaderName::from_static("x-envoy-is-timeout-retry");

/// The route of a request, and what the request asks for itself.
pub(super) struct Wanted<'a> {
    pub(super) route: &'a Route,
    pub(super) forward: &'a Forward,
    pub(super) asked: Option<&'a Asked>,
    /// By which its host is chosen.
    pub(super) hash: Option<u64>,
    /// Where it counts beside its cluster.
    pub(super) counts: &'a RequestCounts,
}

/// How a try ended for good.
enum Ended {
    Tried(Result<Answer, Failure>),
    Refused(LocalReply),
}

impl Router {
    /// Tries until an answer is good enough, or there is no more to be done.
    pub(super) async fn try_repeatedly(
        &self,
        mut cluster: Arc<LocalCluster>,
        request: Request,
        wanted: &Wanted<'_>,
    ) -> Result<Response, StreamReset> {
        let Wanted { route, forward, asked, hash, counts } = *wanted;
        let Request { mut head, body, mut stream } = request;
        let times = self.times(&mut head, &mut stream, forward, asked);
        let mut plan = Plan::new(forward.retry_policy(), asked, &head);
        let metadata = forward.metadata_match();
        let pinned = stream.override_host.take();
        let cx =
            LbContext { hash, metadata, override_host: pinned.as_deref(), without_priorities: 0 };
        let Ok(mut host) = cluster.choose(&cx) else {
            route.record_request(&head, &mut stream);
            return Ok(refuse(&cluster, LocalReply::no_healthy_upstream(), stream));
        };
        self.announce_times(&mut head, forward, times);
        stream.upstream_host = Some(host.address());
        route.apply_request_headers(&mut head, &mut stream);
        if let Err(reply) = forward.rewrite(&mut head, self.config.envoy_headers) {
            return Ok(reply.into_response(stream));
        }
        let body = match forward.extras() {
            None => body,
            Some(extras) => {
                self.mirror((forward, extras), (&head, body), &mut stream, (times, hash))
            }
        };
        // Without a plan there is one try, and nothing to keep for another.
        let follows = forward.extras().and_then(Extras::internal_redirect);
        let limit = match plan.is_some() || follows.is_some() {
            true => forward.body_limit(stream.downstream.buffer_limit),
            false => 0,
        };
        let replay = Replay::new(body, limit);
        let mut timers = Timers::new(&self.cx.deadlines, times);
        let hedges = asked.and_then(|asked| asked.hedge).unwrap_or(forward.hedges());
        let mut hedge = (hedges && plan.is_some()).then(Hedge::default);
        let mut tried = SmallVec::<[SocketAddr; 4]>::new();
        let mut count = 1u32;
        // Priorities that were tried, by bit.
        let mut left_out = 0;
        // Whether the last try took too long.
        let mut was_late = false;
        // Held until it is known what the retry came to.
        let mut retry: Option<Permit> = None;
        let ended = loop {
            stream.upstream_host = Some(host.address());
            let Ok(permit) = cluster.admit(forward.priority()) else {
                break Ended::Refused(LocalReply::overflow());
            };
            let Some(body) = replay.next() else { break Ended::Refused(LocalReply::overflow()) };
            let mut copy = head.clone();
            if route.include_request_attempt_count() {
                copy.headers.insert(X_ENVOY_ATTEMPT_COUNT, HeaderValue::from(count));
            }
            if count > 1 {
                self.announce_retry(&mut copy, route, (times, timers.elapsed()), was_late);
            }
            self.rewrite_host(&mut copy, &mut stream, forward, &host);
            let outcome = match (&mut hedge, &plan) {
                (Some(hedge), Some(plan)) => {
                    let to = (Arc::clone(&cluster), Arc::clone(&host));
                    let sent = (copy, body, permit);
                    let outcome = hedge.run(to, sent, (plan, &mut timers), &stream).await;
                    host = outcome.0;
                    outcome.1
                }
                _ => {
                    let attempt = Attempt { cluster: &cluster, host: &host, stream: &stream };
                    attempt.run(copy, body, permit, &mut timers).await
                }
            };
            let stats = &cluster.cluster().stats;
            let own_timeout = match outcome {
                Err(Failure::PerTry) => Some(&stats.upstream_rq_per_try_timeout),
                Err(Failure::PerTryIdle) => Some(&stats.upstream_rq_per_try_idle_timeout),
                _ => None,
            };
            was_late = own_timeout.is_some();
            if let Some(counter) = own_timeout {
                counter.inc();
                host.stats.rq_timeout.inc();
            }
            let Some(plan) = &mut plan else { break Ended::Tried(outcome) };
            let again = match &outcome {
                Ok(answer) => plan.rejects(&answer.head),
                Err(failure) => plan.survives(failure),
            };
            if !again {
                if retry.is_some() {
                    stats.upstream_rq_retry_success.inc();
                    counts.each(|stats| stats.upstream_rq_retry_success.inc());
                }
                break Ended::Tried(outcome);
            }
            if let Some(hedge) = &mut hedge
                && matches!(outcome, Err(Failure::PerTry))
                && !replay.share()
            {
                // The rest of the body cannot be read twice: what is slow is given up.
                *hedge = Hedge::default();
            }
            // The last retry is over, and makes room for this one.
            drop(retry.take());
            let permit =
                self.may_try_again(&cluster, (plan, &replay), (forward, counts), &mut stream);
            let Some(permit) = permit else {
                let Some(hedge) = &mut hedge else { break Ended::Tried(outcome) };
                let rescued = hedge.rescue(plan, &mut timers, &stream).await;
                let Some((by, rescued)) = rescued else { break Ended::Tried(outcome) };
                host = by;
                break Ended::Tried(rescued);
            };
            retry = Some(permit);
            let asked_wait =
                outcome.as_ref().ok().and_then(|answer| plan.asked_wait(&answer.head.headers));
            match asked_wait {
                Some(_) => stats.upstream_rq_retry_backoff_ratelimited.inc(),
                None => stats.upstream_rq_retry_backoff_exponential.inc(),
            }
            let wait = asked_wait.unwrap_or_else(|| plan.waits.next(rand::random()));
            // What is held of the last try goes back before the wait.
            drop(outcome);
            tried.push(host.address());
            let slow = hedge.as_mut().map(|hedge| (hedge, &*plan));
            match self.wait(wait, &mut timers, &stream, slow).await {
                Waited::Over => {}
                Waited::Won(by, answer) => {
                    host = by;
                    break Ended::Tried(answer);
                }
                Waited::Ended(failure) => break Ended::Tried(Err(failure)),
            }
            // The configuration may have changed meanwhile.
            let current = self.cx.clusters.get(cluster.cluster().name());
            let next = current.and_then(|current| {
                cluster = current;
                if plan.previous_priorities().is_some_and(|often| count.is_multiple_of(often)) {
                    left_out = cluster.priorities_of(&tried);
                }
                let cx = LbContext { override_host: None, without_priorities: left_out, ..cx };
                choose_again(&cluster, plan, &tried, cx)
            });
            host = match next {
                Some(next) => next,
                None => break Ended::Refused(LocalReply::no_healthy_upstream()),
            };
            count += 1;
        };
        if limit > 0 && replay.is_gone() {
            cluster.cluster().stats.retry_or_shadow_abandoned.inc();
        }
        let mut response = match ended {
            Ended::Refused(reply) => return Ok(refuse(&cluster, reply, stream)),
            Ended::Tried(Ok(answer)) => {
                stream.upstream_host = Some(host.address());
                if let Some(policy) = follows.filter(|policy| policy.follows(answer.head.status)) {
                    let asked = Redirected { route, head, replay: &replay };
                    let followed = follow(policy, asked, &answer.head, stream, &self.redirects);
                    let stats = &cluster.cluster().stats;
                    stream = match followed {
                        Ok(again) => {
                            stats.upstream_internal_redirect_succeeded_total.inc();
                            return Err(again);
                        }
                        Err(stream) => {
                            stats.upstream_internal_redirect_failed_total.inc();
                            stream
                        }
                    };
                }
                let answer = answer.watched(&timers, &cluster);
                answer.into_response(stream, timers, self.config.envoy_headers)
            }
            Ended::Tried(Err(failure)) => {
                let alt_response = asked.is_some_and(|asked| asked.alt_response);
                failure.into_response(stream, cluster.cluster(), alt_response)?
            }
        };
        if route.include_attempt_count_in_response() {
            response.head.headers.insert(X_ENVOY_ATTEMPT_COUNT, HeaderValue::from(count));
        }
        Ok(response)
    }

    /// How long all of it may take, by the route, by what the request asks for, and by what its client
    /// says in `grpc-timeout`, as far as the route goes by that.
    fn times(
        &self,
        head: &mut RequestHead,
        stream: &mut StreamInfo,
        forward: &Forward,
        asked: Option<&Asked>,
    ) -> Times {
        let extras = forward.extras();
        if let Some(duration) = extras.and_then(Extras::stream_duration) {
            stream.max_duration = duration.limit(head, stream.max_duration);
        }
        let grpc = extras.and_then(Extras::grpc_timeout).filter(|_| is_grpc(&head.headers));
        let Some(grpc) = grpc else { return Times::within(forward.timeout(), forward, asked) };
        let times = Times::within(grpc.limit(head), forward, asked);
        if let Some(expected) = times.per_try.or(times.whole) {
            grpc_timeout::write(&mut head.headers, expected);
        }
        times
    }

    /// Tells the upstream how long it has.
    fn announce_times(&self, head: &mut RequestHead, forward: &Forward, times: Times) {
        if !self.config.envoy_headers {
            return;
        }
        let expected = match times.per_try.or(times.whole) {
            Some(time) if forward.timeout() != Some(time) => milliseconds(time),
            Some(_) => match forward.expected_timeout_header() {
                Some(expected) => expected.clone(),
                None => return,
            },
            None => return,
        };
        head.headers.insert(X_ENVOY_EXPECTED_RQ_TIMEOUT_MS, expected);
    }

    /// Tells the upstream how long another try has, and why there is one.
    fn announce_retry(
        &self,
        head: &mut RequestHead,
        route: &Route,
        (times, elapsed): (Times, Duration),
        was_late: bool,
    ) {
        if let Some(whole) = times.whole.filter(|_| self.config.envoy_headers) {
            let left = whole.saturating_sub(elapsed).max(Duration::from_millis(1));
            let expected = times.per_try.map_or(left, |per_try| per_try.min(left));
            head.headers.insert(X_ENVOY_EXPECTED_RQ_TIMEOUT_MS, milliseconds(expected));
        }
        if route.include_is_timeout_retry() {
            let was_late = HeaderValue::from_static(if was_late { "true" } else { "false" });
            head.headers.insert(X_ENVOY_IS_TIMEOUT_RETRY, was_late);
        }
    }

    /// Leave to try once more, which goes back when the try is over.
    fn may_try_again(
        &self,
        cluster: &LocalCluster,
        (plan, replay): (&mut Plan<'_>, &Replay),
        (forward, counts): (&Forward, &RequestCounts),
        stream: &mut StreamInfo,
    ) -> Option<Permit> {
        if !replay.rewind() {
            return None;
        }
        let Some(remaining) = plan.remaining.checked_sub(1) else {
            cluster.cluster().stats.upstream_rq_retry_limit_exceeded.inc();
            counts.each(|stats| stats.upstream_rq_retry_limit_exceeded.inc());
            stream.flags.set(ResponseFlag::UpstreamRetryLimitExceeded);
            return None;
        };
        plan.remaining = remaining;
        let permit = cluster.admit_retry(forward.priority());
        match permit {
            Ok(_) => counts.each(|stats| stats.upstream_rq_retry.inc()),
            Err(_) => {
                counts.each(|stats| stats.upstream_rq_retry_overflow.inc());
                stream.flags.set(ResponseFlag::UpstreamOverflow);
            }
        }
        permit.ok()
    }

    /// Waits between two tries, unless the exchange's own time passes first, or a slow try wins.
    async fn wait(
        &self,
        wait: Duration,
        timers: &mut Timers<'_>,
        stream: &StreamInfo,
        mut slow: Option<(&mut Hedge, &Plan<'_>)>,
    ) -> Waited {
        let mut over = self.cx.deadlines.at(Instant::now() + wait);
        std::future::poll_fn(|cx| {
            if let Some((hedge, plan)) = &mut slow
                && let Poll::Ready((host, answer)) = hedge.poll_slow(cx, plan)
            {
                return Poll::Ready(Waited::Won(host, answer));
            }
            if let Poll::Ready(limit) = timers.poll(cx, stream, false) {
                return Poll::Ready(Waited::Ended(limit.into()));
            }
            Pin::new(&mut over).poll(cx).map(|()| Waited::Over)
        })
        .await
    }
}

fn milliseconds(time: Duration) -> HeaderValue {
    HeaderValue::from(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

/// How a wait between two tries ended.
enum Waited {
    Over,
    /// A slow try was answered.
    Won(Arc<Host>, Result<Answer, Failure>),
    /// The exchange's own time passed.
    Ended(Failure),
}

/// A host for another try: not one to keep away from, if the draws allow; else whatever came last.
fn choose_again(
    cluster: &LocalCluster,
    plan: &Plan<'_>,
    tried: &SmallVec<[SocketAddr; 4]>,
    mut cx: LbContext<'_>,
) -> Option<Arc<Host>> {
    let mut redraws = plan.redraws();
    loop {
        let host = cluster.choose(&cx).ok()?;
        // By the request's hash it would always be the same host.
        cx.hash = None;
        if redraws == 0 || !plan.avoids(&host, tried) {
            return Some(host);
        }
        redraws -= 1;
    }
}
