//! Hedging: a try that is over its time goes on beside the next one, and the first good answer counts
//! (`HedgePolicy.hedge_on_per_try_timeout`).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::time::Instant;

use super::attempt::{Answer, Failure, Sent};
use super::retry::Plan;
use super::timers::{Limit, Timers};
use crate::exchange::{Body, RequestHead, StreamInfo};
use crate::upstream::outlier::Outcome as Judged;
use crate::upstream::{Host, LocalCluster, Permit};

/// A try that may outlive its turn.
struct Try {
    host: Arc<Host>,
    sent: Instant,
    sending: Pin<Box<dyn Future<Output = Sent> + Send>>,
}

/// The tries that took too long and may still win.
#[derive(Default)]
pub(super) struct Hedge {
    slow: Vec<Try>,
}

/// How a try ended, and whose answer it is.
pub(super) type Outcome = (Arc<Host>, Result<Answer, Failure>);

impl Hedge {
    /// Sends one more try and waits for it, or for a good answer of one before it. If the try's own
    /// time passes it goes on, and the failure says that another may be begun.
    pub(super) async fn run(
        &mut self,
        (cluster, host): (Arc<LocalCluster>, Arc<Host>),
        (head, body, permit): (RequestHead, Body, Permit),
        (plan, timers): (&Plan<'_>, &mut Timers<'_>),
        stream: &StreamInfo,
    ) -> Outcome {
        let to = Arc::clone(&host);
        let judged_by = Arc::clone(cluster.cluster());
        let sending = Box::pin(async move { cluster.send(&to, permit, head, body).await });
        let mut own = Some(Try { host, sent: Instant::now(), sending });
        let outcome = std::future::poll_fn(|cx| {
            if let Poll::Ready(won) = self.poll_slow(cx, plan) {
                return Poll::Ready(won);
            }
            let Some(Try { host, sent, sending }) = &mut own else { return Poll::Pending };
            if let Poll::Ready(outcome) = sending.as_mut().poll(cx) {
                let answer = outcome.map_err(Failure::Upstream);
                let answer = answer.map(|(head, body)| Answer::new(head, body, *sent));
                return Poll::Ready((Arc::clone(host), answer));
            }
            let Poll::Ready(limit) = timers.poll(cx, stream, plan.remaining > 0) else {
                return Poll::Pending;
            };
            let failed = (Arc::clone(host), Err(limit.into()));
            if !matches!(limit, Limit::Idle | Limit::Duration) {
                judged_by.judge(host, Judged::Timeout);
            }
            if matches!(limit, Limit::PerTry) {
                self.slow.extend(own.take());
            }
            Poll::Ready(failed)
        });
        let outcome = outcome.await;
        timers.restart();
        outcome
    }

    /// Ready with a good answer of a slow try. Those that end in anything else are forgotten.
    pub(super) fn poll_slow(&mut self, cx: &mut Context<'_>, plan: &Plan<'_>) -> Poll<Outcome> {
        let mut index = 0;
        while let Some(Try { host, sent, sending }) = self.slow.get_mut(index) {
            match sending.as_mut().poll(cx) {
                Poll::Pending => index += 1,
                Poll::Ready(Ok((head, body))) if !plan.rejects(&head) => {
                    let outcome = (Arc::clone(host), Ok(Answer::new(head, body, *sent)));
                    self.slow.clear();
                    return Poll::Ready(outcome);
                }
                Poll::Ready(_) => drop(self.slow.swap_remove(index)),
            }
        }
        Poll::Pending
    }

    /// The last try has failed and there is no other: a slow one may still be good. `None` when none
    /// is left, or what ran out of time.
    pub(super) async fn rescue(
        &mut self,
        plan: &Plan<'_>,
        timers: &mut Timers<'_>,
        stream: &StreamInfo,
    ) -> Option<Outcome> {
        std::future::poll_fn(|cx| {
            if let Poll::Ready(won) = self.poll_slow(cx, plan) {
                return Poll::Ready(Some(won));
            }
            let Some(last) = self.slow.last() else { return Poll::Ready(None) };
            timers
                .poll(cx, stream, false)
                .map(|limit| Some((Arc::clone(&last.host), Err(limit.into()))))
        })
        .await
    }
}
