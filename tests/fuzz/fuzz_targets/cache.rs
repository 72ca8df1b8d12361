//! What origins, clients and other proxies say to the response cache: directives, ranges, patterns of URLs,
//! and what comes from the shared tier.
#![no_main]

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue, StatusCode};
use libfuzzer_sys::fuzz_target;
use nuncio::cache::{Policy, Ranges, UrlPattern, Variant, entry, wire};

fuzz_target!(|input: (u64, &[u8], &[u8])| {
    let (number, one, other) = input;
    let Ranges::Parts(parts) = Ranges::parse(one, number) else { return hear(one, other) };
    for part in parts {
        assert!(part.length > 0 && part.start + part.length <= number);
    }
});

fn hear(one: &[u8], other: &[u8]) {
    let _ = wire::record(one.to_vec().into());
    let _ = wire::purged(one.to_vec().into());
    if let (Ok(pattern), Ok(url)) = (std::str::from_utf8(one), std::str::from_utf8(other))
        && let Ok(pattern) = UrlPattern::parse(pattern)
    {
        let _ = pattern.matches("host", url);
    }
    let (Ok(one), Ok(other)) = (HeaderValue::from_bytes(one), HeaderValue::from_bytes(other)) else {
        return;
    };
    for name in ["cache-control", "cdn-cache-control", "vary", "age", "expires", "cache-tag"] {
        let mut response = HeaderMap::new();
        response.insert(name, one.clone());
        response.append(name, other.clone());
        let mut request = HeaderMap::new();
        request.insert("cache-control", other.clone());
        let now = (SystemTime::UNIX_EPOCH, Duration::ZERO);
        let policy = Policy::default();
        let judged = policy.judge(&request, (StatusCode::OK, &response), now);
        if let Ok(freshness) = judged {
            let _ = policy.use_of(&freshness, (Duration::MAX, false), &request);
            let _ = policy.outlasts_error(&freshness, Duration::MAX, &request);
        }
        let _ = Variant::of(&response, &request).matches(&request);
        let _ = entry::tags(&response).count();
    }
}
