//! What may be stored and for how long it may be used: RFC 9111 as arithmetic. Time comes in.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use http::header::{
    AGE, AUTHORIZATION, CONTENT_TYPE, DATE, ETAG, EXPIRES, HeaderName, LAST_MODIFIED, SET_COOKIE,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use thiserror::Error;

use super::directives::{RequestDirectives, ResponseDirectives, seconds};
use super::vary::vary;
use crate::config::matcher::StringMatcher;

/// The longest that a response is fresh by heuristics alone.
const LONGEST_HEURISTIC: Duration = Duration::from_secs(24 * 3600);

/// The rules that are not in the messages. The default is RFC 9111 as it stands.
#[derive(Debug, Clone)]
pub struct Policy {
    /// How long a response is fresh that says nothing of it.
    pub default_ttl: Duration,
    /// A tenth of the time since it was changed is guessed.
    pub heuristics: bool,
    /// What requests say does not count.
    pub ignore_request: bool,
    /// Statuses that are stored, and how long such a response is fresh that says nothing of it. Without it,
    /// those of RFC 9110 section 15.1, and some others that state a lifetime.
    pub statuses: Option<BTreeMap<u16, Option<Duration>>>,
    /// Types of bodies that are stored; any if there are none.
    pub content_types: Vec<MediaRange>,
    /// Cookies may be stored.
    pub set_cookie: bool,
    /// Fields that go before `Cache-Control` (RFC 9213).
    pub targeted: Vec<HeaderName>,
    /// Headers that a response may depend on; any if there are none.
    pub vary: Vec<StringMatcher>,
    /// How stale responses are used.
    pub stale: StalePolicy,
}

/// How stale responses are used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StalePolicy {
    /// For so long while they are validated, if they do not say.
    pub while_revalidate: Duration,
    /// For so long instead of an error, if they do not say.
    pub if_error: Duration,
    /// Never for longer.
    pub limit: Option<Duration>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            default_ttl: Duration::ZERO,
            heuristics: true,
            ignore_request: false,
            statuses: None,
            content_types: Vec::new(),
            set_cookie: false,
            targeted: vec![HeaderName::from_static("cdn-cache-control")],
            vary: Vec::new(),
            stale: StalePolicy::default(),
        }
    }
}

/// `type/subtype` or `type/*`, in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaRange(String);

impl MediaRange {
    /// Reads one.
    ///
    /// # Errors
    /// What would be right.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const WANTED: &str = "a media type such as text/html, or text/* or */*";
        let (kind, subtype) = text.split_once('/').ok_or(WANTED)?;
        let is_part = |part: &str| {
            !part.is_empty() && !part.contains(|c: char| c.is_whitespace() || "/*;,".contains(c))
        };
        let right = match (kind, subtype) {
            ("*", "*") => true,
            (kind, "*") => is_part(kind),
            (kind, subtype) => is_part(kind) && is_part(subtype),
        };
        right.then(|| Self(text.to_ascii_lowercase())).ok_or(WANTED)
    }

    /// Whether a body is of such a type, its parameters aside.
    pub fn holds(&self, content_type: Option<&HeaderValue>) -> bool {
        let value = content_type.map(HeaderValue::as_bytes).unwrap_or_default();
        let essence = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        match self.0.strip_suffix('*') {
            Some("*/") => true,
            Some(kind) => {
                essence.get(..kind.len()).is_some_and(|k| k.eq_ignore_ascii_case(kind.as_bytes()))
            }
            None => essence.eq_ignore_ascii_case(self.0.as_bytes()),
        }
    }
}

/// Why a response is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the response is not to be stored: {}", self.as_str())]
pub enum Uncacheable {
    /// Its status says nothing that could be said again, or is not one to be stored.
    Status,
    /// `no-store`, of the request or the response.
    NoStore,
    /// It is for one user.
    Private,
    /// The request was authorized and the response does not say that others may have it.
    Authorization,
    /// It depends on what is not in the request, `Vary: *`, or on a header that it may not depend on.
    Vary,
    /// It sets a cookie.
    SetCookie,
    /// It is not fresh and cannot be validated.
    NoLifetime,
    /// It is larger than what is stored.
    TooLarge,
    /// Its body is not of a type to be stored.
    ContentType,
    /// The method is not one whose responses are stored, or there is no body where there would be one.
    Method,
}

impl Uncacheable {
    /// The word for it in `Cache-Status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::NoStore => "no-store",
            Self::Private => "private",
            Self::Authorization => "authorization",
            Self::Vary => "vary",
            Self::SetCookie => "set-cookie",
            Self::NoLifetime => "no-lifetime",
            Self::TooLarge => "too-large",
            Self::ContentType => "content-type",
            Self::Method => "method",
        }
    }
}

/// How long a response may be used, found once when it is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Freshness {
    /// From its making.
    pub lifetime: Duration,
    /// How old it was when it came.
    pub initial_age: Duration,
    /// It is validated before each use.
    pub always_validate: bool,
    /// It is never used stale.
    pub never_stale: bool,
    /// So long after its lifetime it is used while it is validated.
    pub stale_while_revalidate: Duration,
    /// So long after its lifetime it is better than an error.
    pub stale_if_error: Duration,
    /// Its body is to stay as it is.
    pub no_transform: bool,
}

/// What may be done with a stored response for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Answer with it.
    Fresh,
    /// Answer with it, and ask the origin whether it still holds.
    WhileRevalidate,
    /// Ask the origin first: it is stale.
    Stale,
    /// Ask the origin first: it is fresh, but not fresh enough for this request.
    Refused,
}

/// The statuses that may be stored without a stated lifetime (RFC 9110 section 15.1).
fn is_heuristic(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

/// Statuses whose meaning we know well enough to store them.
fn is_understood(status: StatusCode) -> bool {
    is_heuristic(status) || matches!(status.as_u16(), 302 | 303 | 307 | 400 | 403 | 500 | 502..=504)
}

impl Policy {
    /// Whether a response may be stored (RFC 9111 section 3), and for how long it may be used. `delay` is
    /// from the request to the response's head.
    ///
    /// # Errors
    /// Why not.
    pub fn judge(
        &self,
        request: &HeaderMap,
        (status, response): (StatusCode, &HeaderMap),
        (now, delay): (SystemTime, Duration),
    ) -> Result<Freshness, Uncacheable> {
        let asked = self.asked(request);
        let said = self.said(response);
        let own_ttl = match &self.statuses {
            None if is_understood(status) => None,
            Some(statuses) if statuses.contains_key(&status.as_u16()) => {
                statuses.get(&status.as_u16()).copied().flatten()
            }
            _ => return Err(Uncacheable::Status),
        };
        let spares = said.must_understand && is_understood(status);
        if asked.no_store || said.no_store && !spares {
            return Err(Uncacheable::NoStore);
        }
        if said.private {
            return Err(Uncacheable::Private);
        }
        let shared = said.public || said.must_revalidate || said.s_maxage.is_some();
        if request.contains_key(AUTHORIZATION) && !shared {
            return Err(Uncacheable::Authorization);
        }
        if !vary(response).all(|name| self.may_depend_on(name)) {
            return Err(Uncacheable::Vary);
        }
        let of_type = |range: &MediaRange| range.holds(response.get(CONTENT_TYPE));
        if !self.content_types.is_empty() && !self.content_types.iter().any(of_type) {
            return Err(Uncacheable::ContentType);
        }
        let date = time(response.get(DATE)).unwrap_or(now);
        let stated = stated_lifetime(&said, response, date);
        let spared =
            said.private_fields.contains(&SET_COOKIE) || said.no_cache_fields.contains(&SET_COOKIE);
        let permitted = spared || self.set_cookie && stated.is_some();
        if response.contains_key(SET_COOKIE) && !permitted {
            return Err(Uncacheable::SetCookie);
        }
        if stated.is_none() && !is_heuristic(status) && !said.public && self.statuses.is_none() {
            return Err(Uncacheable::NoLifetime);
        }
        let lifetime = stated.or_else(|| self.guess(own_ttl, response, date));
        let can_be_validated = response.contains_key(ETAG) || response.contains_key(LAST_MODIFIED);
        if lifetime.is_none_or(|lifetime| lifetime.is_zero()) && !can_be_validated {
            // Unless it is good for something though it is stale.
            let outlasts = |said: Option<Duration>| said.is_some_and(|for_how| !for_how.is_zero());
            if lifetime.is_none()
                || !outlasts(said.stale_while_revalidate) && !outlasts(said.stale_if_error)
            {
                return Err(Uncacheable::NoLifetime);
            }
        }
        let limited = |stated: Option<Duration>, otherwise: Duration| {
            let stated = stated.unwrap_or(otherwise);
            self.stale.limit.map_or(stated, |limit| stated.min(limit))
        };
        Ok(Freshness {
            lifetime: lifetime.unwrap_or_default(),
            initial_age: initial_age(response, (now, delay), date),
            always_validate: said.no_cache,
            never_stale: said.must_revalidate || said.proxy_revalidate || said.s_maxage.is_some(),
            stale_while_revalidate: limited(
                said.stale_while_revalidate,
                self.stale.while_revalidate,
            ),
            stale_if_error: limited(said.stale_if_error, self.stale.if_error),
            no_transform: said.no_transform,
        })
    }

    /// What a response says, as far as this cache is concerned.
    pub fn said(&self, response: &HeaderMap) -> ResponseDirectives {
        ResponseDirectives::of(response, &self.targeted)
    }

    fn may_depend_on(&self, name: &[u8]) -> bool {
        let name = name.to_ascii_lowercase();
        name != b"*"
            && (self.vary.is_empty() || self.vary.iter().any(|allowed| allowed.matches(&name)))
    }

    /// Section 4.2.2; `None` if there is nothing to go by.
    fn guess(
        &self,
        own_ttl: Option<Duration>,
        response: &HeaderMap,
        date: SystemTime,
    ) -> Option<Duration> {
        let changed = time(response.get(LAST_MODIFIED)).filter(|_| self.heuristics);
        let guessed = changed.and_then(|at| date.duration_since(at).ok());
        let guessed = guessed.map(|since| (since / 10).min(LONGEST_HEURISTIC));
        let lifetime = own_ttl.or(guessed).or(Some(self.default_ttl));
        lifetime.filter(|lifetime| !lifetime.is_zero())
    }

    /// What may be done with a response of this age for a request (section 4.2.4 and 5.2.1). One that was
    /// marked stale counts as at its lifetime's end if it is younger.
    pub fn use_of(
        &self,
        freshness: &Freshness,
        (age, marked): (Duration, bool),
        request: &HeaderMap,
    ) -> Use {
        let asked = self.asked(request);
        let is_fresh = age < freshness.lifetime && !marked;
        if freshness.always_validate {
            return Use::Stale;
        }
        let refused = if is_fresh { Use::Refused } else { Use::Stale };
        if asked.no_cache {
            return refused;
        }
        if asked.max_age.is_some_and(|most| age > most) {
            return refused;
        }
        let needed = age.saturating_add(asked.min_fresh.unwrap_or_default());
        if is_fresh && needed < freshness.lifetime {
            return Use::Fresh;
        }
        let stale = needed.saturating_sub(freshness.lifetime);
        let within_limit = self.stale.limit.is_none_or(|limit| stale <= limit);
        match asked.max_stale {
            _ if freshness.never_stale => refused,
            Some(most) if within_limit && most.is_none_or(|most| stale <= most) => Use::Fresh,
            // A request that says how fresh it is to be wants nothing stale.
            _ if asked.min_fresh.is_some() || asked.max_age.is_some() => refused,
            _ if stale < freshness.stale_while_revalidate => Use::WhileRevalidate,
            _ => refused,
        }
    }

    /// Whether a stale response of this age is better for a request than an error (RFC 5861 section 4).
    pub fn outlasts_error(
        &self,
        freshness: &Freshness,
        age: Duration,
        request: &HeaderMap,
    ) -> bool {
        let asked = self.asked(request);
        let allowed = freshness.stale_if_error.max(asked.stale_if_error.unwrap_or_default());
        let allowed = self.stale.limit.map_or(allowed, |limit| allowed.min(limit));
        let strict = freshness.never_stale || freshness.always_validate || asked.no_cache;
        !strict && age < freshness.lifetime.saturating_add(allowed)
    }

    /// What a request says, if it counts.
    pub fn asked(&self, request: &HeaderMap) -> RequestDirectives {
        match self.ignore_request {
            true => RequestDirectives::default(),
            false => RequestDirectives::of(request),
        }
    }
}

impl Freshness {
    /// Whether a response of this age, that cannot be validated, is of use to nobody any more.
    pub fn is_spent(&self, age: Duration) -> bool {
        age >= self.lifetime.saturating_add(self.stale_while_revalidate.max(self.stale_if_error))
    }
}

/// Section 4.2.1; `None` if nothing says how long.
fn stated_lifetime(
    said: &ResponseDirectives,
    response: &HeaderMap,
    date: SystemTime,
) -> Option<Duration> {
    if let Some(stated) = said.s_maxage.or(said.max_age) {
        return Some(stated);
    }
    let expires = response.get(EXPIRES).filter(|_| !said.targeted)?;
    // An invalid date, such as 0, is in the past.
    let until = time(Some(expires)).and_then(|at| at.duration_since(date).ok());
    Some(until.unwrap_or_default())
}

/// Section 4.2.3: how old a response is that comes now.
fn initial_age(
    response: &HeaderMap,
    (now, delay): (SystemTime, Duration),
    date: SystemTime,
) -> Duration {
    let apparent = now.duration_since(date).unwrap_or_default();
    // Of a list, which it should not be, the first counts (section 5.1).
    let stated = response
        .get(AGE)
        .and_then(|age| seconds(age.to_str().ok()?.split(',').next()?.trim()))
        .unwrap_or_default();
    apparent.max(stated + delay)
}

/// An HTTP date.
pub(crate) fn time(value: Option<&HeaderValue>) -> Option<SystemTime> {
    httpdate::parse_http_date(value?.to_str().ok()?).ok()
}

#[cfg(test)]
mod tests;
