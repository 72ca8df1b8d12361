//! A response on its way from the origin: judged, handed out to all who ask for it, and stored.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use http::header::{
    AGE, CONTENT_LENGTH, ETAG, LAST_MODIFIED, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION,
};
use http::{HeaderMap, HeaderName, Method, StatusCode};
use http_body::Body as _;
use tokio::time::{Instant, Sleep};

use super::Caching;
use super::answer::{Asked, CACHE_STATUS, followed, say};
use super::encode::{Form, dress};
use super::tier::Behind;
use crate::cache::directives::ResponseDirectives;
use crate::cache::{Entry, Freshness, Key, Leader, Outcome, Reservation, Uncacheable, Variant};
use crate::exchange::headers::is_hop_by_hop;
use crate::exchange::{Body, Response};

/// What a piece of a body takes beside its bytes while it is on its way.
const PIECE_OVERHEAD: u64 = 64;

/// Who reads nothing for so long while others wait for it is left behind.
const LONGEST_STALL: Duration = Duration::from_secs(10);

/// A request that went to the origin.
pub(super) struct Sent {
    pub(super) asked: Asked,
    pub(super) key: Key,
    pub(super) at: Instant,
    pub(super) leader: Leader,
    /// What is stored for it, and may still hold.
    pub(super) stored: Option<Arc<Entry>>,
    /// Why it went there, for `Cache-Status`.
    pub(super) status: &'static str,
    /// What comes of it is for the fleet as well.
    pub(super) behind: Option<Behind>,
}

impl Caching {
    /// Whether a response may be stored.
    pub(super) fn judge(
        &self,
        asked: &Asked,
        (status, headers): (StatusCode, &HeaderMap),
        delay: Duration,
    ) -> Result<Freshness, Uncacheable> {
        // To HEAD the body is missing that would be stored.
        if asked.method == Method::HEAD {
            return Err(Uncacheable::Method);
        }
        let at = (SystemTime::now(), delay);
        let freshness = self.rules.policy.judge(&asked.headers, (status, headers), at)?;
        match stated_length(headers) {
            Some(length) if length > self.rules.max_body => Err(Uncacheable::TooLarge),
            _ => Ok(freshness),
        }
    }

    /// A response for the client, and for those who follow; it is stored as it passes if it may be.
    pub(super) async fn keep(self, sent: Sent, mut response: Response) -> Response {
        let Sent { asked, key, at, leader, status, stored, behind } = sent;
        let head = &mut response.head;
        if let Some(stored) = stored
            && asked.method == Method::HEAD
            && is_another(&stored.headers, &head.headers)
        {
            stored.mark();
        }
        let code = head.status.as_u16();
        let judged = self.judge(&asked, (head.status, &head.headers), at.elapsed());
        let follower = leader.flight.follow();
        let (Ok(freshness), Some(follower)) = (&judged, follower) else {
            let why = judged.err().unwrap_or(Uncacheable::NoStore);
            self.store.stats.refuse(why);
            leader.flight.say(Outcome::Refused);
            say(head, format_args!("{status}; fwd-status={code}; detail={}", why.as_str()));
            return response;
        };
        let said = self.rules.policy.said(&head.headers);
        let entry = Entry::new(
            (head.status, stored_headers(&head.headers, &said)),
            Variant::of(&head.headers, &asked.headers),
            freshness.clone(),
        );
        let length = stated_length(&head.headers);
        if let Some(encoding) = &self.rules.encoding
            && encoding.applies(
                (head.status, &head.headers),
                freshness.no_transform,
                length.unwrap_or(u64::MAX),
            )
        {
            dress(&mut head.headers, Form::Identity);
        }
        say(head, format_args!("{status}; fwd-status={code}; stored"));
        leader.flight.say(Outcome::Comes(Arc::new(entry.like())));
        let store = Arc::clone(&self.store);
        let storing = Some(Storing { entry, size: 0, room: store.reserve(), stated: length });
        let body = std::mem::take(&mut response.body);
        let mut fill = Fill { caching: self, key, leader, body, storing, behind, stall: None };
        // Most bodies are here already.
        let is_over = poll_fn(|cx| Poll::Ready(Pin::new(&mut fill).poll(cx).is_ready())).await;
        if !is_over {
            tokio::spawn(fill);
        }
        response.body = followed(follower, length);
        response
    }
}

/// Fetches a body for those who follow. It is over when the body is, or when nobody follows any more.
struct Fill {
    caching: Caching,
    key: Key,
    leader: Leader,
    body: Body,
    /// `None` when it is clear that it will not be stored.
    storing: Option<Storing>,
    behind: Option<Behind>,
    /// Where the slowest reader is that others wait for, and how long they do yet.
    stall: Option<(u64, Pin<Box<Sleep>>)>,
}

struct Storing {
    entry: Entry,
    size: u64,
    room: Reservation,
    /// How long the body is said to be.
    stated: Option<u64>,
}

impl Fill {
    fn refuse(&mut self, why: Uncacheable) {
        if self.storing.take().is_some() {
            self.caching.store.stats.refuse(why);
        }
    }

    /// Waits until more is wanted; false if nobody is left to want it.
    fn poll_wanted(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let flight = &self.leader.flight;
        loop {
            if let Poll::Ready(is_wanted) = flight.poll_wanted(cx) {
                self.stall = None;
                return Poll::Ready(is_wanted);
            }
            let Some(place) = flight.held_up_at() else {
                self.stall = None;
                return Poll::Pending;
            };
            let stall = self.stall.take().filter(|(since, _)| *since == place);
            let begins = || (place, Box::pin(tokio::time::sleep(LONGEST_STALL)));
            let (_, patience) = self.stall.insert(stall.unwrap_or_else(begins));
            std::task::ready!(patience.as_mut().poll(cx));
            flight.leave_behind(place);
        }
    }

    fn finish(&mut self, trailers: Option<HeaderMap>) {
        let flight = &self.leader.flight;
        if let Some(Storing { mut entry, size, stated, .. }) = self.storing.take()
            && stated.is_none_or(|stated| stated == size)
        {
            entry.body = flight.body();
            let key = self.key.clone();
            if let Some(stored) = self.caching.store.fill(key, entry, &self.leader.ticket) {
                if let Some(behind) = self.behind.take() {
                    behind.keep(&self.key, &stored);
                }
                flight.stored(stored);
            }
        }
        flight.finish(trailers);
    }
}

impl Future for Fill {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if this.body.is_end_stream() {
            this.finish(None);
            return Poll::Ready(());
        }
        while std::task::ready!(this.poll_wanted(cx)) {
            let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
                return this.leader.flight.poll_left(cx);
            };
            let frame = match frame {
                Some(Ok(frame)) => frame,
                // Those who follow see it break off.
                Some(Err(_)) => return Poll::Ready(()),
                None => {
                    this.finish(None);
                    return Poll::Ready(());
                }
            };
            match frame.into_data() {
                Ok(data) => {
                    let length = data.len() as u64;
                    if let Some(storing) = &mut this.storing {
                        storing.size += length;
                        let fits = storing.size <= this.caching.rules.max_body
                            && storing.room.add(length + PIECE_OVERHEAD);
                        if !fits {
                            this.refuse(Uncacheable::TooLarge);
                            this.leader.flight.pass();
                        }
                    }
                    this.leader.flight.push(data);
                    // The end may not be asked for.
                    if this.body.is_end_stream() {
                        this.finish(None);
                        return Poll::Ready(());
                    }
                }
                Err(frame) => {
                    // It is whole only with its trailers, which are rare, and not stored.
                    this.refuse(Uncacheable::TooLarge);
                    this.finish(frame.into_trailers().ok());
                    return Poll::Ready(());
                }
            }
        }
        Poll::Ready(())
    }
}

/// Whether a response to HEAD shows that a stored one does not hold any more (RFC 9111 section 4.3.5).
fn is_another(stored: &HeaderMap, shown: &HeaderMap) -> bool {
    let differs =
        |name: &HeaderName| shown.get(name).is_some_and(|shown| stored.get(name) != Some(shown));
    differs(&ETAG) || differs(&LAST_MODIFIED) || differs(&CONTENT_LENGTH)
}

/// What goes on between a client and a proxy is not for others (RFC 9111 section 3.1).
const OF_PROXIES: [HeaderName; 3] =
    [PROXY_AUTHENTICATE, HeaderName::from_static("proxy-authentication-info"), PROXY_AUTHORIZATION];

/// How long a body is said to be.
pub(super) fn stated_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The headers that are stored: not those of the connection, nor those that are for one user.
pub(super) fn stored_headers(headers: &HeaderMap, said: &ResponseDirectives) -> HeaderMap {
    let kept = headers.iter().filter(|(name, _)| {
        !is_hop_by_hop(name)
            && **name != CACHE_STATUS
            && **name != AGE
            && !OF_PROXIES.contains(name)
            && !said.no_cache_fields.contains(name)
            && !said.private_fields.contains(name)
    });
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}
