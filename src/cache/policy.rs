//! What may be stored and for how long it may be used: RFC 9111 as arithmetic. Time comes in.

use std::time::{Duration, SystemTime};

use http::header::{AGE, AUTHORIZATION, DATE, EXPIRES, LAST_MODIFIED, SET_COOKIE};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::directives::{RequestDirectives, ResponseDirectives};
use super::key::vary;

/// The longest that a response is fresh by heuristics alone.
const LONGEST_HEURISTIC: Duration = Duration::from_secs(24 * 3600);

/// The rules that are not in the messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// How long a response is fresh that says nothing of it.
    pub default_ttl: Duration,
    /// A tenth of the time since it was changed is guessed.
    pub heuristics: bool,
    /// What requests say does not count.
    pub ignore_request: bool,
}

/// Why a response is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uncacheable {
    /// Its status says nothing that could be said again.
    Status,
    /// `no-store`, of the request or the response.
    NoStore,
    /// It is for one user.
    Private,
    /// The request was authorized and the response does not say that others may have it.
    Authorization,
    /// It depends on something that is not in the request: `Vary: *`.
    VaryAny,
    /// It sets a cookie.
    SetCookie,
    /// It is not fresh and cannot be validated.
    NoLifetime,
    /// It is larger than what is stored.
    TooLarge,
}

/// How long a response may be used, found once when it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freshness {
    /// From its making.
    pub lifetime: Duration,
    /// How old it was when it came.
    pub initial_age: Duration,
    /// It is validated before each use.
    pub always_validate: bool,
    /// It is never used stale.
    pub never_stale: bool,
    /// So long after its lifetime it is better than an error.
    pub stale_if_error: Duration,
}

/// What may be done with a stored response for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Answer with it.
    Fresh,
    /// Ask the origin whether it still holds.
    Validate,
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
    /// Whether the response to a GET may be stored (RFC 9111 section 3), and for how long it may be
    /// used. `delay` is from the request to the response's head.
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
        let said = ResponseDirectives::of(response);
        if !is_understood(status) {
            return Err(Uncacheable::Status);
        }
        if asked.no_store || said.no_store && !said.must_understand {
            return Err(Uncacheable::NoStore);
        }
        if said.private {
            return Err(Uncacheable::Private);
        }
        let shared = said.public || said.must_revalidate || said.s_maxage.is_some();
        if request.contains_key(AUTHORIZATION) && !shared {
            return Err(Uncacheable::Authorization);
        }
        if vary(response).any(|name| name == b"*") {
            return Err(Uncacheable::VaryAny);
        }
        let spared =
            said.private_fields.contains(&SET_COOKIE) || said.no_cache_fields.contains(&SET_COOKIE);
        if response.contains_key(SET_COOKIE) && !spared {
            return Err(Uncacheable::SetCookie);
        }
        let date = time(response.get(DATE)).unwrap_or(now);
        let lifetime = self.lifetime(&said, status, response, date);
        let can_be_validated =
            response.contains_key(http::header::ETAG) || response.contains_key(LAST_MODIFIED);
        if lifetime.is_none_or(|lifetime| lifetime.is_zero()) && !can_be_validated {
            return Err(Uncacheable::NoLifetime);
        }
        Ok(Freshness {
            lifetime: lifetime.unwrap_or_default(),
            initial_age: initial_age(response, (now, delay), date),
            always_validate: said.no_cache,
            never_stale: said.must_revalidate || said.proxy_revalidate || said.s_maxage.is_some(),
            stale_if_error: said.stale_if_error.unwrap_or_default(),
        })
    }

    /// Section 4.2.1; `None` if nothing says how long.
    fn lifetime(
        &self,
        said: &ResponseDirectives,
        status: StatusCode,
        response: &HeaderMap,
        date: SystemTime,
    ) -> Option<Duration> {
        if let Some(stated) = said.s_maxage.or(said.max_age) {
            return Some(stated);
        }
        if let Some(expires) = response.get(EXPIRES) {
            // An invalid date, such as 0, is in the past.
            let until = time(Some(expires)).and_then(|at| at.duration_since(date).ok());
            return Some(until.unwrap_or_default());
        }
        if !is_heuristic(status) && !said.public {
            return None;
        }
        let changed = time(response.get(LAST_MODIFIED)).filter(|_| self.heuristics);
        let guessed = changed.and_then(|at| date.duration_since(at).ok());
        let guessed = guessed.map(|since| (since / 10).min(LONGEST_HEURISTIC));
        guessed.or(Some(self.default_ttl)).filter(|lifetime| !lifetime.is_zero())
    }

    /// What may be done with a response of this age for a request (section 4.2.4 and 5.2.1).
    pub fn use_of(&self, freshness: &Freshness, age: Duration, request: &HeaderMap) -> Use {
        let asked = self.asked(request);
        if freshness.always_validate || asked.no_cache {
            return Use::Validate;
        }
        if asked.max_age.is_some_and(|most| age > most) {
            return Use::Validate;
        }
        let needed = age.saturating_add(asked.min_fresh.unwrap_or_default());
        if needed < freshness.lifetime {
            return Use::Fresh;
        }
        let stale = needed.saturating_sub(freshness.lifetime);
        match asked.max_stale {
            _ if freshness.never_stale => Use::Validate,
            Some(most) if most.is_none_or(|most| stale <= most) => Use::Fresh,
            _ => Use::Validate,
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

/// Section 4.2.3: how old a response is that comes now.
fn initial_age(
    response: &HeaderMap,
    (now, delay): (SystemTime, Duration),
    date: SystemTime,
) -> Duration {
    let apparent = now.duration_since(date).unwrap_or_default();
    let stated = response
        .get(AGE)
        .and_then(|age| age.to_str().ok()?.trim().parse().ok())
        .map_or(Duration::ZERO, |seconds: u32| Duration::from_secs(u64::from(seconds)));
    apparent.max(stated + delay)
}

/// An HTTP date.
pub(crate) fn time(value: Option<&HeaderValue>) -> Option<SystemTime> {
    httpdate::parse_http_date(value?.to_str().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Policy {
        Policy { default_ttl: Duration::ZERO, heuristics: true, ignore_request: false }
    }

    fn headers(of: &[(&'static str, &str)]) -> HeaderMap {
        of.iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).collect()
    }

    fn now() -> SystemTime {
        httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap()
    }

    type Header = (&'static str, &'static str);
    type Headers = &'static [Header];

    fn judge(
        request: &[Header],
        status: u16,
        response: &[Header],
    ) -> Result<Freshness, Uncacheable> {
        let status = StatusCode::from_u16(status).unwrap();
        let at = (now(), Duration::ZERO);
        policy().judge(&headers(request), (status, &headers(response)), at)
    }

    #[test]
    fn what_is_stored_is_what_section_3_allows() {
        use Uncacheable::*;
        let fresh = ("cache-control", "max-age=60");
        let cases: &[(Headers, u16, Headers, Option<Uncacheable>)] = &[
            (&[], 200, &[("cache-control", "max-age=60")], None),
            (&[], 200, &[("expires", "Sun, 06 Nov 1994 08:50:37 GMT")], None),
            (&[], 200, &[("last-modified", "Sun, 06 Nov 1994 00:00:00 GMT")], None),
            (&[], 200, &[("etag", "\"1\"")], None),
            (&[], 200, &[], Some(NoLifetime)),
            (&[], 302, &[("cache-control", "max-age=60")], None),
            (&[], 206, &[("cache-control", "max-age=60")], Some(Status)),
            (&[], 299, &[("cache-control", "max-age=60")], Some(Status)),
            (&[], 200, &[("cache-control", "no-store, max-age=60")], Some(NoStore)),
            (&[], 200, &[("cache-control", "no-store, must-understand, max-age=60")], None),
            (
                &[("cache-control", "no-store")],
                200,
                &[("cache-control", "max-age=60")],
                Some(NoStore),
            ),
            (&[], 200, &[("cache-control", "private, max-age=60")], Some(Private)),
            (&[], 200, &[("cache-control", "private=\"x\", max-age=60")], None),
            (
                &[("authorization", "x")],
                200,
                &[("cache-control", "max-age=60")],
                Some(Authorization),
            ),
            (&[("authorization", "x")], 200, &[("cache-control", "s-maxage=60")], None),
            (&[("authorization", "x")], 200, &[("cache-control", "public, max-age=6")], None),
            (&[], 200, &[("cache-control", "max-age=60"), ("vary", "a, *")], Some(VaryAny)),
            (&[], 200, &[("cache-control", "max-age=60"), ("set-cookie", "a=b")], Some(SetCookie)),
            (
                &[],
                200,
                &[("cache-control", "max-age=60, no-cache=\"set-cookie\""), ("set-cookie", "a")],
                None,
            ),
            (&[], 200, &[("expires", "0")], Some(NoLifetime)),
        ];
        for (request, status, response, expected) in cases {
            let found = judge(request, *status, response).err();
            assert_eq!(found, *expected, "{request:?} {status} {response:?}");
        }
        assert!(judge(&[], 200, &[fresh]).is_ok());
    }

    #[test]
    fn lifetimes_and_ages_are_those_of_section_4_2() {
        let of = |response: &[Header]| {
            let freshness = judge(&[], 200, response).unwrap();
            (freshness.lifetime.as_secs(), freshness.initial_age.as_secs())
        };
        assert_eq!(of(&[("cache-control", "max-age=60, s-maxage=5")]), (5, 0));
        let expires = ("expires", "Sun, 06 Nov 1994 08:49:47 GMT");
        assert_eq!(of(&[expires, ("cache-control", "max-age=60")]), (60, 0));
        assert_eq!(of(&[expires, ("date", "Sun, 06 Nov 1994 08:49:27 GMT")]), (20, 10));
        assert_eq!(of(&[("cache-control", "max-age=60"), ("age", "40")]), (60, 40));
        let modified = ("last-modified", "Sun, 06 Nov 1994 08:32:57 GMT");
        assert_eq!(of(&[modified]), (100, 0), "a tenth of a thousand seconds");
        assert_eq!(of(&[("last-modified", "Tue, 06 Nov 1984 08:32:57 GMT")]).0, 86_400);
    }

    #[test]
    fn a_request_bounds_what_it_takes() {
        let freshness = |response| judge(&[], 200, response).unwrap();
        let minute = freshness(&[("cache-control", "max-age=60")]);
        let strict = freshness(&[("cache-control", "max-age=60, must-revalidate")]);
        let never = freshness(&[("cache-control", "max-age=60, no-cache")]);
        let of = |freshness: &Freshness, age: u64, request: Headers| {
            policy().use_of(freshness, Duration::from_secs(age), &headers(request)) == Use::Fresh
        };
        assert!(of(&minute, 59, &[]) && !of(&minute, 60, &[]) && !of(&never, 0, &[]));
        assert!(!of(&minute, 5, &[("cache-control", "no-cache")]));
        assert!(!of(&minute, 5, &[("pragma", "no-cache")]));
        assert!(!of(&minute, 6, &[("cache-control", "max-age=5")]));
        assert!(of(&minute, 5, &[("cache-control", "max-age=5")]));
        assert!(!of(&minute, 55, &[("cache-control", "min-fresh=5")]));
        assert!(of(&minute, 65, &[("cache-control", "max-stale=5")]));
        assert!(!of(&minute, 66, &[("cache-control", "max-stale=5")]));
        assert!(of(&minute, 999, &[("cache-control", "max-stale")]));
        assert!(!of(&strict, 61, &[("cache-control", "max-stale")]));
        let deaf = Policy { ignore_request: true, ..policy() };
        let asks = headers(&[("cache-control", "no-cache")]);
        assert_eq!(deaf.use_of(&minute, Duration::ZERO, &asks), Use::Fresh);
    }
}
