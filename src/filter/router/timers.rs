//! When an exchange, and the try under way, must have an answer.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::asked::Asked;
use crate::exchange::StreamInfo;
use crate::exchange::deadline::{Deadline, Deadlines};
use crate::route::Forward;

/// What an exchange ran into.
#[derive(Debug, Clone, Copy)]
pub(super) enum Limit {
    /// The route's timeout.
    Timeout,
    /// The stream's idle timeout.
    Idle,
    /// The timeout of one try.
    PerTry,
    /// Nothing came of a try for too long.
    PerTryIdle,
    /// The stream has lived too long.
    Duration,
}

/// How long an exchange and each of its tries may take; `None` is for ever.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// From the request's last byte to the response's last, all tries together.
    pub(super) whole: Option<Duration>,
    /// From a try's start, or the request's last byte if that is later, to the response's head.
    ///
    /// Differs: a try's start is before it has a connection.
    pub(super) per_try: Option<Duration>,
    /// The same, while nothing comes.
    pub(super) per_try_idle: Option<Duration>,
}

impl Times {
    /// What the route says.
    pub(super) fn of(forward: &Forward) -> Self {
        Self::within(forward.timeout(), forward, None)
    }

    /// What the request says in place of the route, whose timeout is `whole`. A try has no time of its
    /// own if it may take as long as all.
    pub(super) fn within(
        whole: Option<Duration>,
        forward: &Forward,
        asked: Option<&Asked>,
    ) -> Self {
        let some = |time: Duration| (!time.is_zero()).then_some(time);
        let whole = match asked.and_then(|asked| asked.timeout) {
            Some(timeout) => some(timeout),
            None => whole,
        };
        let per_try = match asked.and_then(|asked| asked.per_try_timeout) {
            Some(timeout) => some(timeout),
            None => forward.retry_policy().and_then(|policy| policy.per_try_timeout),
        };
        let per_try = per_try.filter(|per_try| whole.is_none_or(|whole| *per_try < whole));
        let per_try_idle = forward.retry_policy().and_then(|policy| policy.per_try_idle_timeout);
        Self { whole, per_try, per_try_idle }
    }
}

/// The timers of one exchange. They start when the request has arrived whole; until then the body
/// times itself.
pub(super) struct Timers<'a> {
    pub(super) deadlines: &'a Deadlines,
    times: Times,
    /// When the request was complete.
    complete: Option<Instant>,
    exchange: Option<(Deadline, Limit)>,
    /// The end of the stream's life, once it was looked for.
    life: Option<Deadline>,
    attempt: Option<(Deadline, Limit)>,
}

impl<'a> Timers<'a> {
    pub(super) fn new(deadlines: &'a Deadlines, times: Times) -> Self {
        Self { deadlines, times, complete: None, exchange: None, life: None, attempt: None }
    }

    /// Another try begins, or the one under way is over.
    pub(super) fn restart(&mut self) {
        self.attempt = None;
    }

    /// Ready once a limit has passed. `trying` is false between tries.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        stream: &StreamInfo,
        trying: bool,
    ) -> Poll<Limit> {
        if let Some(after) = stream.max_duration {
            let deadlines = self.deadlines;
            let life = self.life.get_or_insert_with(|| deadlines.at(stream.start + after));
            if Pin::new(life).poll(cx).is_ready() {
                return Poll::Ready(Limit::Duration);
            }
        }
        if self.complete.is_none() {
            // A tunnel is as good as asked for with its head.
            let body = stream.request_body.as_ref().filter(|_| stream.upgrade.is_none());
            let start = match body {
                // After a redirect it is as if the client had asked anew.
                None => stream.redirects.as_ref().and_then(|r| r.since).unwrap_or(stream.start),
                Some(body) => {
                    // Registered first: the body may finish between the two lines.
                    body.wake_when_complete(cx.waker());
                    if !body.is_complete() {
                        return Poll::Pending;
                    }
                    Instant::now()
                }
            };
            self.complete = Some(start);
            let limits = [(self.times.whole, Limit::Timeout), (stream.idle_timeout, Limit::Idle)];
            let first = limits.into_iter().filter_map(|(after, limit)| Some((after?, limit)));
            self.exchange = first
                .min_by_key(|(after, _)| *after)
                .map(|(after, limit)| (self.deadlines.at(start + after), limit));
        }
        if let Some((deadline, limit)) = &mut self.exchange
            && Pin::new(deadline).poll(cx).is_ready()
        {
            return Poll::Ready(*limit);
        }
        let limits =
            [(self.times.per_try, Limit::PerTry), (self.times.per_try_idle, Limit::PerTryIdle)];
        let first = limits.into_iter().filter_map(|(after, limit)| Some((after?, limit)));
        let Some((after, limit)) = first.min_by_key(|(after, _)| *after).filter(|_| trying) else {
            return Poll::Pending;
        };
        let deadlines = self.deadlines;
        let (attempt, limit) =
            self.attempt.get_or_insert_with(|| (deadlines.at(Instant::now() + after), limit));
        Pin::new(attempt).poll(cx).map(|()| *limit)
    }

    /// The time since the request was complete; none before.
    pub(super) fn elapsed(&self) -> Duration {
        self.complete.map_or(Duration::ZERO, |complete| complete.elapsed())
    }

    /// How long nothing may come of a response's body.
    pub(super) fn body_idle(&self) -> Option<(Duration, Deadlines)> {
        self.times.per_try_idle.map(|idle| (idle, self.deadlines.clone()))
    }

    /// When the response must have been handed over, if the request is complete.
    pub(super) fn response_deadline(self, stream: &StreamInfo, now: Instant) -> Option<Deadline> {
        match self.exchange {
            Some((deadline, Limit::Timeout)) => Some(deadline),
            _ => self.times.whole.map(|timeout| self.deadlines.at(now + timeout)),
        }
        .filter(|_| stream.request_complete())
    }
}
