//! `nuncio.extensions.filters.http.cache.v1.Cache`: answers with stored responses, and stores what it may
//! (RFC 9111).
//!
//! ```text
//! GET, HEAD   found and fresh      answered here                                   answer.rs, encode.rs
//!             found and not fresh  asked of the origin with its validators         validate.rs
//!             not found            one asks, and stores what comes; others follow  lead.rs, fetch.rs, fill.rs
//! other       passed on; unsafe ones that succeed make what is stored forgotten    invalidate.rs
//! beside it   sweeps, warming, what a fleet shares                       shared.rs, warm.rs, tier.rs
//! ```
//!
//! Requests with a body or with a precondition that is meant for the origin (`If-Match`,
//! `If-Unmodified-Since`) pass by.

mod answer;
mod config;
mod encode;
mod envoy;
mod fetch;
mod fill;
mod invalidate;
mod lead;
mod purge;
mod shared;
mod tier;
mod validate;
mod warm;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::header::{HOST, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE, RANGE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use tokio::time::Instant;

use self::answer::{Asked, from_stored, said_of_hit, say};
use self::config::Rules;
pub(super) use self::config::{OVERRIDE, REGISTRATION};
use self::encode::Form;
pub(super) use self::envoy::{CACHE as ENVOYS, CACHE_V2 as ENVOYS_V2};
use self::fill::Sent;
use self::lead::Turn;
pub use self::purge::{NoTarget, Purged, Target, purge};
pub use self::shared::SharedCache;
use self::tier::SharedTier;
use super::{Filter, route_config};
use crate::cache::{Entry, Key, Lookup, Outcome, Store, Use};
use crate::exchange::headers::X_FORWARDED_PROTO;
use crate::exchange::{HttpService, LocalReply, Request, RequestHead, Response, StreamReset};

/// Preconditions that are for the origin to look at (RFC 9111 section 4.3.2).
const FOR_THE_ORIGIN: [HeaderName; 2] = [IF_MATCH, IF_UNMODIFIED_SINCE];

/// Requests with these are answered in a way of their own; nobody can follow what comes of them.
const OWN_WAYS: [HeaderName; 3] = [RANGE, IF_NONE_MATCH, IF_MODIFIED_SINCE];

struct Cache {
    /// By which routes refer to it.
    name: Arc<str>,
    rules: Arc<Rules>,
    shared: Arc<SharedCache>,
}

/// The cache, as it is for one request.
#[derive(Clone)]
struct Caching {
    rules: Arc<Rules>,
    store: Arc<Store>,
    tier: Option<Arc<SharedTier>>,
}

impl Filter for Cache {
    async fn call(
        &self,
        mut request: Request,
        next: &HttpService,
    ) -> Result<Response, StreamReset> {
        let rules = match route_config::<Rules>(&request.stream, &self.name) {
            Some(rules) => rules,
            None => Arc::clone(&self.rules),
        };
        let store = Arc::clone(&self.shared.store);
        let caching = Caching { rules, store, tier: self.shared.tier() };
        if let Some(invalidation) = &caching.rules.invalidation
            && let Some(reply) = invalidation.heed(&caching, &mut request)
        {
            return Ok(reply.into_response(request.stream));
        }
        if request.stream.upgrade.is_some() {
            return caching.pass(request, next, "fwd=bypass").await;
        }
        if !request.head.method.is_safe() {
            return caching.pass_unsafe(request, next).await;
        }
        if !caching.rules.has_method(&request.head.method) {
            return caching.pass(request, next, "fwd=method").await;
        }
        if !caching.may_answer(&request) {
            return caching.pass(request, next, "fwd=bypass").await;
        }
        caching.answer(request, next).await
    }
}

impl Caching {
    async fn pass(
        &self,
        request: Request,
        next: &HttpService,
        status: &str,
    ) -> Result<Response, StreamReset> {
        self.store.stats.bypass.inc();
        let mut response = next.send(request).await?;
        let code = response.head.status.as_u16();
        say(&mut response.head, format_args!("{status}; fwd-status={code}"));
        Ok(response)
    }

    fn may_answer(&self, request: &Request) -> bool {
        let Request { head, stream, .. } = request;
        stream.request_body.is_none()
            && !FOR_THE_ORIGIN.iter().any(|name| head.headers.contains_key(name))
            && known_scheme(head).is_some()
            && !self.rules.excludes(head.uri.path())
    }

    fn key(&self, head: &RequestHead) -> Key {
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        self.rules.key.key(&head.method, (scheme(head), host(head)), path, &head.headers)
    }

    async fn answer(self, request: Request, next: &HttpService) -> Result<Response, StreamReset> {
        let key = self.key(&request.head);
        let headers = &request.head.headers;
        let (found, status) = match self.store.get(&key, headers) {
            Lookup::Nothing => (None, "fwd=uri-miss"),
            Lookup::OtherVariants => (None, "fwd=vary-miss"),
            Lookup::Found(entry) => match self.use_of(&entry, headers) {
                Use::Fresh => {
                    self.store.stats.hit.inc();
                    return Ok(self.hit(&key, entry, (request, ""), next).await);
                }
                Use::WhileRevalidate => {
                    self.store.stats.hit.inc();
                    self.store.stats.stale_while_revalidate.inc();
                    self.validate_behind(&key, &entry, &request, next);
                    let detail = "; detail=stale-while-revalidate";
                    return Ok(self.hit(&key, entry, (request, detail), next).await);
                }
                Use::Stale => (Some(entry), "fwd=stale"),
                Use::Refused => (Some(entry), "fwd=request"),
            },
        };
        // A hit shall not carry about what all of that needs.
        Box::pin(self.ask(key, (found, status), request, next)).await
    }

    /// Answers with what the origin says, or what another request brings from there.
    async fn ask(
        self,
        key: Key,
        (stored, status): (Option<Arc<Entry>>, &'static str),
        request: Request,
        next: &HttpService,
    ) -> Result<Response, StreamReset> {
        let headers = &request.head.headers;
        if self.rules.policy.asked(headers).only_if_cached {
            self.store.stats.miss.inc();
            let reply = LocalReply::new(StatusCode::GATEWAY_TIMEOUT, "cache_only_if_cached", "");
            let mut response = reply.into_response(request.stream);
            say(&mut response.head, format_args!("detail=only-if-cached"));
            return Ok(response);
        }
        let asked = Asked { method: request.head.method.clone(), headers: headers.clone() };
        match &stored {
            Some(_) => self.store.stats.stale.inc(),
            None => self.store.stats.miss.inc(),
        }
        match self.turn(&key, &asked, request, status).await {
            Turn::Answered(response) => Ok(response),
            Turn::Fetch(leader, request) => {
                let at = Instant::now();
                let sent = Sent { asked, key, at, leader, stored, status, behind: None };
                self.ask_fleet(sent, request, next).await
            }
        }
    }

    /// Looks what the fleet has before the origin is asked.
    async fn ask_fleet(
        self,
        mut sent: Sent,
        request: Request,
        next: &HttpService,
    ) -> Result<Response, StreamReset> {
        let Some(tier) = self.tier.clone() else { return self.fetch(sent, request, next).await };
        if sent.stored.is_some() || sent.asked.method == Method::HEAD {
            sent.behind = Some(tier.begin());
            return self.fetch(sent, request, next).await;
        }
        let (found, behind) = tier.look_up(&sent.key, &sent.asked.headers).await;
        sent.behind = Some(behind);
        sent.at = Instant::now();
        let Some(entry) = found else { return self.fetch(sent, request, next).await };
        let usable = self.use_of(&entry, &sent.asked.headers) == Use::Fresh;
        let Some(entry) = self.store.fill(sent.key.clone(), entry, &sent.leader.ticket) else {
            return self.fetch(sent, request, next).await;
        };
        if !usable {
            sent.stored = Some(entry);
            return self.fetch(sent, request, next).await;
        }
        self.store.stats.shared_hit.inc();
        sent.leader.flight.say(Outcome::Here(Arc::clone(&entry)));
        Ok(self.hit(&sent.key, entry, (request, "; detail=shared"), next).await)
    }

    /// What may be done with a stored response for a request.
    fn use_of(&self, entry: &Entry, asked: &HeaderMap) -> Use {
        let age = (entry.age(Instant::now()), entry.is_marked());
        self.rules.policy.use_of(&entry.freshness, age, asked)
    }

    /// A stored response in the form that is best for a request.
    async fn formed(&self, key: &Key, entry: Arc<Entry>, asked: &HeaderMap) -> (Arc<Entry>, Form) {
        match &self.rules.encoding {
            None => (entry, Form::Only),
            Some(encoding) => encoding.form(&self.store, key, entry, asked).await,
        }
    }

    /// Answers with what is stored.
    async fn hit(
        &self,
        key: &Key,
        entry: Arc<Entry>,
        (request, detail): (Request, &str),
        next: &HttpService,
    ) -> Response {
        let (age, lifetime) = (entry.age(Instant::now()), entry.freshness.lifetime);
        let is_stale = age >= lifetime || entry.is_marked();
        if let Some(ahead) = self.rules.refresh_ahead
            && !is_stale
            && ahead.is_due(age, lifetime)
            && entry.hits.load(Ordering::Relaxed) >= ahead.min_hits
        {
            self.validate_behind(key, &entry, &request, next);
        }
        if let Some(job) = self.store.copies_body(key, &entry) {
            // No request waits for it.
            tokio::task::spawn_blocking(move || {
                if let Err(error) = job.run() {
                    tracing::debug!(%error, "the body of a stored response could not be copied to a file");
                }
            });
        }
        let Request { head, stream, .. } = request;
        let (entry, form) = self.formed(key, entry, &head.headers).await;
        let left = seconds(lifetime) - seconds(age);
        let left = if is_stale { left.min(0) } else { left };
        let status = said_of_hit(left, detail);
        from_stored(&entry, form, (&head.method, &head.headers), status, stream)
    }
}

fn seconds(time: std::time::Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

fn host(head: &RequestHead) -> &str {
    head.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default()
}

/// As the client, or a proxy that is trusted, says it was. The origin may make much of it, so what is neither is
/// not for the cache.
fn known_scheme(head: &RequestHead) -> Option<&'static str> {
    match head.headers.get(X_FORWARDED_PROTO).map(HeaderValue::as_bytes) {
        None | Some(b"http") => Some("http"),
        Some(b"https") => Some("https"),
        Some(_) => None,
    }
}

fn scheme(head: &RequestHead) -> &'static str {
    known_scheme(head).unwrap_or("http")
}

/// Whether nobody can follow what comes of a request.
fn is_own_way(asked: &Asked) -> bool {
    asked.method == Method::HEAD || OWN_WAYS.iter().any(|name| asked.headers.contains_key(name))
}
