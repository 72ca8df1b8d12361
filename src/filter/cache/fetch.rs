//! Requests to the origin, for a client or for nobody in particular.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Method;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout};

use super::Caching;
use super::answer::Asked;
use super::fill::Sent;
use super::tier::SharedTier;
use super::validate::{Arrived, ask_if_it_holds};
use crate::cache::{Entry, Key, Lead, Leader};
use crate::exchange::{
    Body, HttpService, Request, RequestHead, Response, ResponseFuture, StreamInfo, StreamReset,
};

/// An origin that says nothing for so long is not waited for when no client does.
const LONGEST_SILENCE: Duration = Duration::from_secs(60);

impl Caching {
    /// Asks the origin for what is not stored, or whether it still holds.
    pub(super) async fn fetch(
        self,
        sent: Sent,
        mut request: Request,
        next: &HttpService,
    ) -> Result<Response, StreamReset> {
        let Some(entry) = &sent.stored else {
            let fetched = Fetch::new(self, sent, next.send(request)).await?;
            return Ok(fetched.arrived().await.whatever());
        };
        let plain = request.head.clone();
        ask_if_it_holds(&mut request.head, entry);
        let fetched = Fetch::new(self, sent, next.send(request)).await?;
        match fetched.arrived().await {
            Arrived::Response(response) => Ok(response),
            // What it says to be unchanged is not what is stored.
            Arrived::Again(again) => {
                let (caching, mut sent, response) = *again;
                let request = Request { head: plain, body: Body::Empty, stream: response.stream };
                sent.stored = None;
                sent.at = Instant::now();
                let fetched = Fetch::new(caching, sent, next.send(request)).await?;
                Ok(fetched.arrived().await.whatever())
            }
        }
    }

    /// Validates what is stored while no client waits for it, unless somebody does already.
    pub(super) fn validate_behind(
        &self,
        key: &Key,
        entry: &Arc<Entry>,
        request: &Request,
        next: &HttpService,
    ) {
        if !entry.is_to_be_asked_behind(Instant::now()) {
            return;
        }
        let Lead::Fetch(leader) = self.store.lead(key, &request.head.headers) else { return };
        self.store.stats.background.inc();
        let request = of_our_own(request);
        let (caching, next) = (self.clone(), next.clone());
        let asked =
            Asked { method: request.head.method.clone(), headers: request.head.headers.clone() };
        let (key, stored) = (key.clone(), Some(Arc::clone(entry)));
        tokio::spawn(async move {
            let at = Instant::now();
            let behind = caching.tier.as_ref().map(SharedTier::begin);
            let sent = Sent { asked, key, at, leader, stored, status: "fwd=stale", behind };
            // What went wrong is counted where it did; what is stored stays.
            let fetch = Box::pin(caching.fetch(sent, request, &next));
            if let Ok(Ok(mut response)) = timeout(LONGEST_SILENCE, fetch).await {
                while let Ok(Some(Ok(_))) = timeout(LONGEST_SILENCE, response.body.frame()).await {}
            }
        });
    }
}

/// A request like one of a client, that goes the same way, but is ours: it is not logged or counted as the
/// client's, and asks for all of the response.
fn of_our_own(request: &Request) -> Request {
    let theirs = &request.stream;
    let mut stream =
        StreamInfo::new(Instant::now(), theirs.protocol, Arc::clone(&theirs.downstream));
    stream.route.clone_from(&theirs.route);
    stream.route_table.clone_from(&theirs.route_table);
    stream.route_name.clone_from(&theirs.route_name);
    let mut head: RequestHead = request.head.clone();
    head.method = match head.method {
        Method::HEAD => Method::GET,
        other => other,
    };
    for name in super::OWN_WAYS.into_iter().chain([http::header::IF_RANGE]) {
        head.headers.remove(name);
    }
    // A client's way to learn of interim responses is the client's.
    head.extensions.clear();
    Request { head, body: Body::Empty, stream: Box::new(stream) }
}

/// A request to the origin. If whoever made it leaves while others follow, it goes on without it.
struct Fetch(Option<Open>);

struct Open {
    caching: Caching,
    sent: Sent,
    coming: ResponseFuture,
}

/// A response from the origin.
struct Fetched {
    caching: Caching,
    sent: Sent,
    response: Response,
}

impl Fetch {
    fn new(caching: Caching, sent: Sent, coming: ResponseFuture) -> Self {
        Self(Some(Open { caching, sent, coming }))
    }
}

impl Fetched {
    async fn arrived(self) -> Arrived {
        self.caching.arrived(self.sent, self.response).await
    }
}

impl Future for Fetch {
    type Output = Result<Fetched, StreamReset>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(open) = &mut self.0 else { return Poll::Pending };
        let response = std::task::ready!(open.coming.as_mut().poll(cx));
        let Some(Open { caching, sent, .. }) = self.0.take() else { return Poll::Pending };
        Poll::Ready(response.map(|response| Fetched { caching, sent, response }))
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        let is_followed = |leader: &Leader| leader.flight.is_followed();
        if let Some(open) = self.0.take_if(|open| is_followed(&open.sent.leader))
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move {
                let flight = Arc::clone(&open.sent.leader.flight);
                let mut fetch = Self(Some(open));
                let fetched = poll_fn(|cx| match Pin::new(&mut fetch).poll(cx) {
                    Poll::Ready(fetched) => Poll::Ready(fetched.ok()),
                    Poll::Pending => flight.poll_left(cx).map(|()| None),
                });
                // The fill goes on for as long as somebody follows. If it is to be asked again, one of
                // those who follow does.
                if let Ok(Some(fetched)) = timeout(LONGEST_SILENCE, fetched).await {
                    drop(fetched.arrived().await);
                }
            });
        }
    }
}
