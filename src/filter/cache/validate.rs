//! Whether a stored response still holds (RFC 9111 section 4.3), and what is done if that cannot be known.

use std::sync::Arc;
use std::time::SystemTime;

use http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, DATE, ETAG, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, LAST_MODIFIED,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use httpdate::fmt_http_date;
use tokio::time::Instant;

use super::Caching;
use super::answer::{Asked, CACHE_STATUS, from_stored, said};
use super::fill::{Sent, stored_headers};
use crate::cache::{Entry, Outcome, Variant};
use crate::exchange::headers::is_hop_by_hop;
use crate::exchange::{RequestHead, Response};

/// What came of a request to the origin.
pub(super) enum Arrived {
    /// This is for the client.
    Response(Response),
    /// An answer to another question: without validators it must be asked again.
    Again(Box<(Caching, Sent, Response)>),
}

impl Arrived {
    /// The response, where there were no validators.
    pub(super) fn whatever(self) -> Response {
        match self {
            Self::Response(response) => response,
            Self::Again(again) => again.2,
        }
    }
}

/// Puts the stored response's validators in place of the client's.
pub(super) fn ask_if_it_holds(head: &mut RequestHead, entry: &Entry) {
    head.headers.remove(IF_NONE_MATCH);
    head.headers.remove(IF_MODIFIED_SINCE);
    for (stored, wanted) in [(ETAG, IF_NONE_MATCH), (LAST_MODIFIED, IF_MODIFIED_SINCE)] {
        if let Some(value) = entry.headers.get(stored) {
            head.headers.insert(wanted, value.clone());
        }
    }
}

impl Caching {
    /// Makes of the origin's response what is the client's, and stores what may be stored.
    pub(super) async fn arrived(self, sent: Sent, mut response: Response) -> Arrived {
        date(&mut response.head.headers);
        let Some(entry) = sent.stored.clone() else {
            return Arrived::Response(self.keep(sent, response).await);
        };
        let status = response.head.status;
        if matches!(status.as_u16(), 500 | 502..=504) && self.outlasts(&entry, &sent.asked) {
            self.store.stats.stale_if_error.inc();
            let status = status.as_u16();
            let status =
                said(format_args!("{}; fwd-status={status}; detail=stale-if-error", sent.status));
            let (entry, form) = self.formed(&sent.key, entry, &sent.asked.headers).await;
            let by = (&sent.asked.method, &sent.asked.headers);
            let response = from_stored(&entry, form, by, status, response.stream);
            sent.leader.flight.say(Outcome::Instead(entry));
            return Arrived::Response(response);
        }
        if status != StatusCode::NOT_MODIFIED || !entry.can_be_validated() {
            return Arrived::Response(self.keep(sent, response).await);
        }
        if !is_of(&response.head.headers, &entry) {
            return Arrived::Again(Box::new((self, sent, response)));
        }
        Arrived::Response(self.renew(sent, &entry, response).await)
    }

    /// Whether something stale is better for a request than an error.
    pub(super) fn outlasts(&self, entry: &Entry, asked: &Asked) -> bool {
        let age = entry.age(Instant::now());
        self.rules.policy.outlasts_error(&entry.freshness, age, &asked.headers)
    }

    /// Answers with what is stored, which still holds.
    async fn renew(self, sent: Sent, entry: &Arc<Entry>, mut response: Response) -> Response {
        let Sent { asked, key, at, leader, status, behind, .. } = sent;
        self.store.stats.revalidated.inc();
        let merged = merge(&entry.headers, &response.head.headers);
        let now = (SystemTime::now(), at.elapsed());
        let judged = self.rules.policy.judge(&asked.headers, (entry.status, &merged), now);
        let mut fresh = entry.like();
        fresh.headers = stored_headers(&merged, &self.rules.policy.said(&merged));
        fresh.stored = Instant::now();
        fresh.marked_fresh();
        fresh.variant = Variant::of(&merged, &asked.headers);
        let fresh = match judged {
            Ok(freshness) => {
                fresh.freshness = freshness;
                let renewed = Arc::new(fresh.like());
                let fresh = match (self.store.fill(key.clone(), fresh, &leader.ticket), behind) {
                    (Some(fresh), Some(behind)) => {
                        behind.keep(&key, &fresh);
                        fresh
                    }
                    (fresh, _) => fresh.unwrap_or(renewed),
                };
                leader.flight.say(Outcome::Here(Arc::clone(&fresh)));
                fresh
            }
            Err(_) => {
                // It is for this client alone. If that is since the client wants it so, others may still
                // have what is stored.
                leader.flight.say(Outcome::Refused);
                let by_itself = (entry.status, &merged);
                if self.rules.policy.judge(&HeaderMap::new(), by_itself, now).is_err() {
                    self.forget(&key);
                }
                Arc::new(fresh)
            }
        };
        // Whatever was left of the origin's answer is not the client's.
        response.stream.flags = Default::default();
        let (fresh, form) = self.formed(&key, fresh, &asked.headers).await;
        let status = said(format_args!("{status}; fwd-status=304"));
        from_stored(&fresh, form, (&asked.method, &asked.headers), status, response.stream)
    }
}

/// A response says when it came if its origin did not say when it was made (RFC 9110 section 6.6.1).
fn date(headers: &mut HeaderMap) {
    if !headers.contains_key(DATE)
        && let Ok(now) = HeaderValue::try_from(fmt_http_date(SystemTime::now()))
    {
        headers.insert(DATE, now);
    }
}

/// Whether a 304 is about a stored response (section 4.3.4): its validator, if it has a strong one, is.
fn is_of(answered: &HeaderMap, entry: &Entry) -> bool {
    match answered.get(ETAG) {
        Some(etag) if !etag.as_bytes().starts_with(b"W/") => entry.headers.get(ETAG) == Some(etag),
        _ => true,
    }
}

/// Section 3.2: what the new response says goes before what is stored.
fn merge(stored: &HeaderMap, answered: &HeaderMap) -> HeaderMap {
    let mut merged = stored.clone();
    let mut replaced: Vec<&HeaderName> = Vec::new();
    for (name, value) in answered {
        if is_hop_by_hop(name) || is_of_content(name) || *name == CACHE_STATUS {
            continue;
        }
        match replaced.contains(&name) {
            true => drop(merged.append(name.clone(), value.clone())),
            false => {
                merged.insert(name.clone(), value.clone());
                replaced.push(name);
            }
        }
    }
    merged
}

/// Headers that belong to the stored body, which a validation does not change.
fn is_of_content(name: &HeaderName) -> bool {
    [CONTENT_LENGTH, CONTENT_ENCODING, CONTENT_TYPE, CONTENT_RANGE].contains(name)
}
