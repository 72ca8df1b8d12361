//! Cases by section: what the origin answers, what the client asks, and what comes of it.

mod others;
mod rfc9111;

use serde_json::json;

use super::{cached, verdict};
use crate::harness::{Origin, Script, request};

type Headers = &'static [(&'static str, &'static str)];

/// One request, what the origin would answer, and what the client must see.
struct Step {
    /// Method and path.
    asks: (&'static str, &'static str),
    with: Headers,
    origin: (u16, Headers),
    /// Status, and the beginning of what `Cache-Status` says.
    sees: (u16, &'static str),
}

const fn step(with: Headers, origin: (u16, Headers), sees: (u16, &'static str)) -> Step {
    Step { asks: ("GET", "/"), with, origin, sees }
}

const MISS: &str = "fwd=uri-miss";
const STORED: &str = "fwd=uri-miss; fwd-status=200; stored";
const STALE: &str = "fwd=stale";
const VALID: &str = "hit; fwd=stale; fwd-status=304";
const HIT: &str = "hit; ttl=";
const BYPASS: &str = "fwd=bypass";

const FRESH: Headers = &[("cache-control", "max-age=60")];
const PLAIN: (u16, Headers) = (200, &[]);
const GOOD: (u16, Headers) = (200, FRESH);
const TAGGED: (u16, Headers) = (200, &[("cache-control", "max-age=60"), ("etag", "\"1\"")]);
const AGED: (u16, Headers) =
    (200, &[("cache-control", "max-age=60"), ("etag", "\"1\""), ("age", "61")]);
const DATED: (u16, Headers) =
    (200, &[("cache-control", "max-age=60"), ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")]);
const NOT_MODIFIED: (u16, Headers) = (304, &[("etag", "\"1\""), ("cache-control", "max-age=60")]);

/// A second request is a hit or a miss by what the first response was.
const fn again(origin: (u16, Headers), second: (u16, &'static str)) -> [Step; 2] {
    let status = origin.0;
    [step(&[], origin, (status, MISS)), step(&[], origin, second)]
}

/// Section, story, steps.
type Case = (&'static str, &'static str, &'static [Step]);

const SURVIVES: (u16, Headers) =
    (200, &[("cache-control", "max-age=60, stale-if-error=30"), ("etag", "\"1\""), ("age", "61")]);

#[tokio::test]
async fn every_case_comes_out_as_its_section_says() {
    let origin = Origin::http1("one").await;
    let (_proxy, address) = cached(&origin, json!({})).await;
    let cases = rfc9111::CASES.iter().chain(others::CASES);
    for (number, (section, story, steps)) in cases.enumerate() {
        for (at, Step { asks, with, origin: answers, sees }) in steps.iter().enumerate() {
            let what = format!("RFC {section}, {story}, step {at}");
            let script =
                answers.1.iter().fold(Script::status(answers.0), |script, (name, value)| {
                    script.header(name, value)
                });
            origin.script(script);
            let (method, body) = match asks.0 {
                "GET body" => ("GET", &b"x"[..]),
                method => (method, &b""[..]),
            };
            // A place of its own for each case.
            let path = format!("/{number}{}", asks.1);
            let before = origin.requests();
            let answer = request(address, method, &path, with, body).await;
            assert_eq!(answer.status, sees.0, "{what}");
            let said = verdict(&answer);
            assert!(said.starts_with(sees.1), "{what}: {said:?}, not {:?}", sees.1);
            let asked = origin.requests() - before;
            let expected = usize::from(!sees.1.starts_with(HIT) && sees.0 != 504);
            assert_eq!(asked, expected, "{what}: requests to the origin");
            if said.starts_with("hit") {
                assert!(!answer.header("age").is_empty(), "{what}");
            }
        }
    }
}
