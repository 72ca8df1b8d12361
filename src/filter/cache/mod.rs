//! `nuncio.extensions.filters.http.cache.v1.Cache`: answers with stored responses, and stores what it may
//! (RFC 9111).
//!
//! ```text
//! GET, HEAD   found and fresh      answered here
//!             found and not fresh  asked of the origin with the stored response's validators
//!             not found            passed on, and stored on the way back if it may be
//! other       passed on; unsafe ones that succeed make what is stored of their target forgotten
//! ```
//!
//! Requests with a body, for a range, or with a precondition other than `If-None-Match` and
//! `If-Modified-Since` pass by.

mod answer;
mod config;
mod fill;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_LOCATION, CONTENT_RANGE, CONTENT_TYPE, ETAG, HOST,
    IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED,
    LOCATION, RANGE,
};
use http::{HeaderMap, HeaderName, Method, StatusCode, Uri};
use tokio::time::Instant;

use self::answer::{CACHE_STATUS, from_stored, say};
use self::config::Rules;
pub(super) use self::config::{ENVOYS, REGISTRATION};
use self::fill::Fill;
use super::Filter;
use crate::cache::directives::ResponseDirectives;
use crate::cache::{Entry, Freshness, Key, Store, Ticket, Uncacheable, Use, Variant};
use crate::exchange::headers::is_hop_by_hop;
use crate::exchange::{HttpService, LocalReply, Request, RequestHead, Response, StreamReset};

/// A fill that takes longer lets those who wait for it ask themselves.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Fills that one request waits for, if each brings what is for others.
const MOST_WAITS: usize = 4;

/// Preconditions that a stored response does not answer.
const OTHER_PRECONDITIONS: [HeaderName; 4] = [IF_MATCH, IF_UNMODIFIED_SINCE, IF_RANGE, RANGE];

struct Cache {
    rules: Rules,
    store: Arc<Store>,
}

/// A GET or HEAD that may be answered from the store.
struct Asked {
    key: Key,
    method: Method,
    /// As the client sent them.
    headers: HeaderMap,
}

impl Filter for Cache {
    async fn call(&self, request: Request, next: &HttpService) -> Result<Response, StreamReset> {
        if !request.head.method.is_safe() {
            return self.pass_unsafe(request, next).await;
        }
        if !self.may_answer(&request) {
            self.store.stats.bypass.inc();
            let mut response = next.send(request).await?;
            say(&mut response.head, "fwd=bypass");
            return Ok(response);
        }
        let key = key(&request.head);
        let headers = &request.head.headers;
        let found = self.store.get(&key, headers);
        if let Some(entry) = &found
            && let Some(left) = self.left(entry, headers)
        {
            self.store.stats.hit.inc();
            let Request { head, stream, .. } = request;
            let by = (&head.method, &head.headers);
            return Ok(from_stored(entry, by, &format!("hit; ttl={left}"), stream));
        }
        if self.rules.policy.asked(headers).only_if_cached {
            self.store.stats.miss.inc();
            let reply = LocalReply::new(StatusCode::GATEWAY_TIMEOUT, "cache_only_if_cached", "");
            return Ok(reply.into_response(request.stream));
        }
        let asked = Asked { key, method: request.head.method.clone(), headers: headers.clone() };
        match found {
            Some(entry) => {
                self.store.stats.stale.inc();
                self.validate(asked, entry, request, next).await
            }
            None => {
                let ticket = match self.lead(&asked).await {
                    Lead::Ticket(ticket) => ticket,
                    Lead::Filled(entry) => {
                        self.store.stats.coalesced.inc();
                        let status = "fwd=uri-miss; collapsed";
                        return Ok(from_stored(&entry, asked.by(), status, request.stream));
                    }
                };
                self.store.stats.miss.inc();
                let sent = Instant::now();
                let response = next.send(request).await?;
                Ok(self.keep(asked, response, (sent, ticket), "fwd=uri-miss"))
            }
        }
    }
}

impl Asked {
    /// What its answer depends on.
    fn by(&self) -> (&Method, &HeaderMap) {
        (&self.method, &self.headers)
    }
}

/// How a request goes on that nothing is stored for.
enum Lead {
    /// It asks the origin.
    Ticket(Ticket),
    /// Another asked, and this is what came.
    Filled(Arc<Entry>),
}

impl Cache {
    /// For how many seconds a response is fresh still; `None` if it is not to be used as it is.
    fn left(&self, entry: &Entry, asked: &HeaderMap) -> Option<i64> {
        let age = entry.age(Instant::now());
        let usable = self.rules.policy.use_of(&entry.freshness, age, asked) == Use::Fresh;
        usable.then(|| seconds(entry.freshness.lifetime) - seconds(age))
    }

    /// One of many requests for the same thing asks for it; the others wait for what comes, but not
    /// for long, and not again and again.
    async fn lead(&self, asked: &Asked) -> Lead {
        if asked.method == Method::GET {
            for _ in 0..MOST_WAITS {
                let followed = match self.store.lead(&asked.key) {
                    Ok(ticket) => return Lead::Ticket(ticket),
                    Err(followed) => followed,
                };
                match tokio::time::timeout(LONGEST_WAIT, followed.is_refused()).await {
                    Ok(false) => {}
                    Ok(true) | Err(_) => break,
                }
                // Nothing, if whoever asked left, or what came is for others.
                let found = self.store.get(&asked.key, &asked.headers);
                if let Some(entry) =
                    found.filter(|entry| self.left(entry, &asked.headers).is_some())
                {
                    return Lead::Filled(entry);
                }
            }
        }
        Lead::Ticket(self.store.begin())
    }

    fn may_answer(&self, request: &Request) -> bool {
        let Request { head, stream, .. } = request;
        let path = head.uri.path();
        matches!(head.method, Method::GET | Method::HEAD)
            && stream.request_body.is_none()
            && !OTHER_PRECONDITIONS.iter().any(|name| head.headers.contains_key(name))
            && !self.rules.excludes(path)
    }

    /// A request that may change its target: if it succeeds, what is stored of it, and of what its
    /// response names on the same host, is forgotten (RFC 9111 section 4.4).
    async fn pass_unsafe(
        &self,
        request: Request,
        next: &HttpService,
    ) -> Result<Response, StreamReset> {
        self.store.stats.bypass.inc();
        let key = key(&request.head);
        let target = request.head.uri.clone();
        let host = request.head.headers.get(HOST).cloned();
        let mut response = next.send(request).await?;
        if response.head.status.is_success() || response.head.status.is_redirection() {
            self.store.remove(&key);
            for name in [LOCATION, CONTENT_LOCATION] {
                let named = response.head.headers.get(&name).and_then(|value| value.to_str().ok());
                let host = host.as_ref().and_then(|host| host.to_str().ok());
                if let (Some(named), Some(host)) = (named, host)
                    && let Some(path) = on_same_host(named, host, &target)
                {
                    self.store.remove(&Key::new("http", host, &path));
                }
            }
        }
        say(&mut response.head, "fwd=method");
        Ok(response)
    }

    /// Asks the origin whether a stored response still holds (RFC 9111 section 4.3).
    async fn validate(
        &self,
        asked: Asked,
        entry: Arc<Entry>,
        mut request: Request,
        next: &HttpService,
    ) -> Result<Response, StreamReset> {
        let headers = &mut request.head.headers;
        headers.remove(IF_NONE_MATCH);
        headers.remove(IF_MODIFIED_SINCE);
        let mut has_validator = false;
        for (stored, wanted) in [(ETAG, IF_NONE_MATCH), (LAST_MODIFIED, IF_MODIFIED_SINCE)] {
            if let Some(value) = entry.headers.get(stored) {
                headers.insert(wanted, value.clone());
                has_validator = true;
            }
        }
        let ticket = self.store.begin();
        let sent = Instant::now();
        let mut response = next.send(request).await?;
        let (status, age) = (response.head.status.as_u16(), entry.age(Instant::now()));
        if matches!(status, 500 | 502..=504)
            && self.rules.policy.outlasts_error(&entry.freshness, age, &asked.headers)
        {
            self.store.stats.stale_if_error.inc();
            let said = format!("hit; fwd=stale; fwd-status={status}");
            return Ok(from_stored(&entry, asked.by(), &said, response.stream));
        }
        if response.head.status != StatusCode::NOT_MODIFIED || !has_validator {
            return Ok(self.keep(asked, response, (sent, ticket), "fwd=stale"));
        }
        self.store.stats.revalidated.inc();
        // Section 3.2: what the new response says goes before what is stored.
        let mut headers = entry.headers.clone();
        let mut replaced: Vec<HeaderName> = Vec::new();
        for (name, value) in &response.head.headers {
            if is_hop_by_hop(name) || is_of_content(name) || *name == CACHE_STATUS {
                continue;
            }
            match replaced.contains(name) {
                true => drop(headers.append(name.clone(), value.clone())),
                false => {
                    headers.insert(name.clone(), value.clone());
                    replaced.push(name.clone());
                }
            }
        }
        let judged = self.judge(&asked, (entry.status, &headers), sent.elapsed());
        let mut fresh = Entry { headers, stored: Instant::now(), ..Entry::clone(&entry) };
        match judged {
            Ok(freshness) => {
                fresh.freshness = freshness;
                self.store.fill(asked.key.clone(), Arc::new(fresh.clone()), ticket);
            }
            Err(_) => drop(self.store.remove(&asked.key)),
        }
        // Whatever was left of the origin's answer is not the client's.
        response.stream.flags = Default::default();
        let said = "hit; fwd=stale; fwd-status=304";
        Ok(from_stored(&fresh, asked.by(), said, response.stream))
    }

    fn judge(
        &self,
        asked: &Asked,
        (status, headers): (StatusCode, &HeaderMap),
        delay: Duration,
    ) -> Result<Freshness, Uncacheable> {
        let at = (SystemTime::now(), delay);
        let freshness = self.rules.policy.judge(&asked.headers, (status, headers), at)?;
        match self.rules.takes_vary(headers) {
            true => Ok(freshness),
            false => Err(Uncacheable::VaryAny),
        }
    }

    /// A response for the client, which is stored on its way if it may be.
    fn keep(
        &self,
        asked: Asked,
        mut response: Response,
        (sent, ticket): (Instant, Ticket),
        status: &str,
    ) -> Response {
        let head = &mut response.head;
        let judged = match asked.method == Method::GET {
            true => self.judge(&asked, (head.status, &head.headers), sent.elapsed()),
            // The body that would be stored is missing.
            false => Err(Uncacheable::Status),
        };
        let stated: Option<u64> =
            head.headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
        let judged = judged.and_then(|freshness| match stated {
            Some(length) if length > self.rules.max_body => Err(Uncacheable::TooLarge),
            _ => Ok(freshness),
        });
        let Ok(freshness) = judged else {
            self.store.stats.uncacheable.inc();
            ticket.refuse();
            say(head, &format!("{status}; fwd-status={}", head.status.as_u16()));
            return response;
        };
        let entry = Entry {
            status: head.status,
            headers: stored_headers(&head.headers),
            body: Vec::new(),
            variant: Variant::of(&head.headers, &asked.headers),
            freshness,
            stored: Instant::now(),
        };
        say(head, &format!("{status}; fwd-status={}; stored", head.status.as_u16()));
        let store = Arc::clone(&self.store);
        let fill =
            Fill { store, key: asked.key, entry, limit: self.rules.max_body, stated, ticket };
        response.body = fill.watch(response.body);
        response
    }
}

/// The headers that are stored: not those of the connection, nor those that are for one user.
fn stored_headers(headers: &HeaderMap) -> HeaderMap {
    let said = ResponseDirectives::of(headers);
    let kept = headers.iter().filter(|(name, _)| {
        !is_hop_by_hop(name)
            && **name != CACHE_STATUS
            && **name != http::header::AGE
            && !said.no_cache_fields.contains(name)
            && !said.private_fields.contains(name)
    });
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Headers that belong to the stored body, which a validation does not change.
fn is_of_content(name: &HeaderName) -> bool {
    [CONTENT_LENGTH, CONTENT_ENCODING, CONTENT_TYPE, CONTENT_RANGE].contains(name)
}

fn key(head: &RequestHead) -> Key {
    let host = head.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    Key::new("http", host, path)
}

/// The path and query of a reference, if it is one of this host.
fn on_same_host(reference: &str, host: &str, target: &Uri) -> Option<String> {
    if reference.starts_with('/') && !reference.starts_with("//") {
        return Some(reference.split('#').next().unwrap_or_default().to_owned());
    }
    let uri: Uri = reference.parse().ok()?;
    match uri.authority() {
        Some(authority) if authority.as_str().eq_ignore_ascii_case(host) => {
            Some(uri.path_and_query().map_or("/", |path| path.as_str()).to_owned())
        }
        Some(_) => None,
        // Relative to the target's directory.
        None => {
            let directory = target.path().rsplit_once('/').map_or("", |(directory, _)| directory);
            Some(format!("{directory}/{reference}"))
        }
    }
}

fn seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}
