//! What is stored and for how long it is used, as tables.

use super::*;

fn headers(of: &[(&'static str, &str)]) -> HeaderMap {
    of.iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).collect()
}

fn now() -> SystemTime {
    httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap()
}

type Header = (&'static str, &'static str);
type Headers = &'static [Header];

fn judge(request: &[Header], status: u16, response: &[Header]) -> Result<Freshness, Uncacheable> {
    let status = StatusCode::from_u16(status).unwrap();
    let at = (now(), Duration::ZERO);
    Policy::default().judge(&headers(request), (status, &headers(response)), at)
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
        (&[("cache-control", "no-store")], 200, &[("cache-control", "max-age=60")], Some(NoStore)),
        (&[], 200, &[("cache-control", "private, max-age=60")], Some(Private)),
        (&[], 200, &[("cache-control", "private=\"x\", max-age=60")], None),
        (&[("authorization", "x")], 200, &[("cache-control", "max-age=60")], Some(Authorization)),
        (&[("authorization", "x")], 200, &[("cache-control", "s-maxage=60")], None),
        (&[("authorization", "x")], 200, &[("cache-control", "public, max-age=6")], None),
        (&[], 200, &[("cache-control", "max-age=60"), ("vary", "a, *")], Some(Vary)),
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
        let age = (Duration::from_secs(age), false);
        Policy::default().use_of(freshness, age, &headers(request)) == Use::Fresh
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
    let deaf = Policy { ignore_request: true, ..Policy::default() };
    let asks = headers(&[("cache-control", "no-cache")]);
    assert_eq!(deaf.use_of(&minute, (Duration::ZERO, false), &asks), Use::Fresh);
}

#[test]
fn stale_responses_are_used_while_they_are_validated_within_limits() {
    let of = |policy: &Policy, response: Headers, age: u64, request: Headers| {
        let at = (now(), Duration::ZERO);
        let response = (StatusCode::OK, &headers(response));
        let freshness = policy.judge(&HeaderMap::new(), response, at).unwrap();
        policy.use_of(&freshness, (Duration::from_secs(age), false), &headers(request))
    };
    let plain = Policy::default();
    let says: Headers = &[("cache-control", "max-age=60, stale-while-revalidate=30")];
    assert_eq!(of(&plain, says, 59, &[]), Use::Fresh);
    assert_eq!(of(&plain, says, 89, &[]), Use::WhileRevalidate);
    assert_eq!(of(&plain, says, 90, &[]), Use::Stale);
    assert_eq!(of(&plain, says, 70, &[("cache-control", "no-cache")]), Use::Stale);
    assert_eq!(of(&plain, says, 70, &[("cache-control", "min-fresh=1")]), Use::Stale);
    let strict: Headers =
        &[("cache-control", "max-age=60, must-revalidate, stale-while-revalidate=30")];
    assert_eq!(of(&plain, strict, 70, &[]), Use::Stale);
    let stale = StalePolicy {
        while_revalidate: Duration::from_secs(9),
        limit: Some(Duration::from_secs(5)),
        ..StalePolicy::default()
    };
    let limited = Policy { stale, ..Policy::default() };
    let silent: Headers = &[("cache-control", "max-age=60")];
    assert_eq!(of(&limited, silent, 64, &[]), Use::WhileRevalidate);
    assert_eq!(of(&limited, silent, 65, &[]), Use::Stale);
    assert_eq!(of(&limited, says, 66, &[("cache-control", "max-stale")]), Use::Stale);
    let marked = Freshness { lifetime: Duration::from_secs(60), ..Freshness::default() };
    let young = (Duration::from_secs(1), true);
    assert_eq!(plain.use_of(&marked, young, &HeaderMap::new()), Use::Stale);
}

#[test]
fn media_ranges_hold_types_whatever_their_parameters() {
    let holds = |range: &str, value: &'static str| {
        MediaRange::parse(range).unwrap().holds(Some(&HeaderValue::from_static(value)))
    };
    assert!(holds("Text/HTML", "text/html; charset=x") && holds("image/*", "IMAGE/png"));
    assert!(!holds("text/html", "text/html5") && !holds("image/*", "imagex/png"));
    assert!(holds("*/*", "x"));
    for bad in ["text", "text/", "*/html", "te*/x", "text/html;q=1", "a/b/c", ""] {
        assert!(MediaRange::parse(bad).is_err(), "{bad}");
    }
}
