//! Cases by section: what the origin answers, what the client asks, and what comes of it.

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

const CASES: &[Case] = &[
    ("9111-3", "a stated lifetime is stored", &again(GOOD, (200, HIT))),
    ("9111-3", "nothing stated is not", &again(PLAIN, (200, MISS))),
    (
        "9111-3",
        "no-store",
        &again((200, &[("cache-control", "no-store, max-age=60")]), (200, MISS)),
    ),
    ("9111-3", "private", &again((200, &[("cache-control", "private, max-age=60")]), (200, MISS))),
    (
        "9111-3",
        "Set-Cookie",
        &again((200, &[("cache-control", "max-age=60"), ("set-cookie", "a=b")]), (200, MISS)),
    ),
    ("9111-3", "a 404 with a lifetime", &again((404, FRESH), (404, HIT))),
    ("9111-3", "a 302 with a lifetime", &again((302, FRESH), (302, HIT))),
    ("9111-3", "a 302 without", &again((302, &[]), (302, MISS))),
    ("9111-3", "an unknown status", &again((299, FRESH), (299, MISS))),
    ("9111-3", "a partial response", &again((206, FRESH), (206, MISS))),
    (
        "9111-3.5",
        "authorized requests are not stored",
        &[
            step(&[("authorization", "x")], GOOD, (200, MISS)),
            step(&[("authorization", "x")], GOOD, (200, MISS)),
        ],
    ),
    (
        "9111-3.5",
        "unless the response is public",
        &[
            step(
                &[("authorization", "x")],
                (200, &[("cache-control", "public, max-age=60")]),
                (200, STORED),
            ),
            step(&[], GOOD, (200, HIT)),
        ],
    ),
    (
        "9111-3.5",
        "or has s-maxage",
        &[
            step(
                &[("authorization", "x")],
                (200, &[("cache-control", "s-maxage=60")]),
                (200, STORED),
            ),
            step(&[("authorization", "y")], GOOD, (200, HIT)),
        ],
    ),
    (
        "9111-4",
        "the query is part of the key",
        &[
            Step { asks: ("GET", "/?a"), ..step(&[], GOOD, (200, STORED)) },
            Step { asks: ("GET", "/?b"), ..step(&[], GOOD, (200, STORED)) },
            Step { asks: ("GET", "/?a"), ..step(&[], GOOD, (200, HIT)) },
        ],
    ),
    (
        "9111-4",
        "the host is part of the key",
        &[
            step(&[("host", "a")], GOOD, (200, STORED)),
            step(&[("host", "b")], GOOD, (200, STORED)),
            step(&[("host", "A")], GOOD, (200, HIT)),
        ],
    ),
    (
        "9111-4",
        "a request with a body is never a hit",
        &[
            step(&[], GOOD, (200, STORED)),
            Step { asks: ("GET body", "/"), ..step(&[], GOOD, (200, BYPASS)) },
            step(&[], GOOD, (200, HIT)),
        ],
    ),
    (
        "9111-4",
        "HEAD is answered by a GET's response",
        &[
            step(&[], GOOD, (200, STORED)),
            Step { asks: ("HEAD", "/"), ..step(&[], GOOD, (200, HIT)) },
        ],
    ),
    (
        "9111-4",
        "but makes none",
        &[
            Step { asks: ("HEAD", "/"), ..step(&[], GOOD, (200, MISS)) },
            step(&[], GOOD, (200, STORED)),
        ],
    ),
    (
        "9111-4.1",
        "Vary keeps responses apart",
        &[
            step(
                &[("x-a", "1")],
                (200, &[("cache-control", "max-age=60"), ("vary", "x-a")]),
                (200, STORED),
            ),
            step(
                &[("x-a", "2")],
                (200, &[("cache-control", "max-age=60"), ("vary", "x-a")]),
                (200, STORED),
            ),
            step(&[("x-a", "1")], GOOD, (200, HIT)),
            step(&[], (200, &[("cache-control", "max-age=60"), ("vary", "x-a")]), (200, STORED)),
            step(&[("x-a", "2")], GOOD, (200, HIT)),
        ],
    ),
    (
        "9111-4.1",
        "white space and field lines do not matter",
        &[
            step(
                &[("x-a", "1, 2")],
                (200, &[("cache-control", "max-age=60"), ("vary", "X-A")]),
                (200, STORED),
            ),
            step(&[("x-a", "1"), ("x-a", "2")], GOOD, (200, HIT)),
        ],
    ),
    (
        "9111-4.1",
        "Vary: * is never a hit",
        &again((200, &[("cache-control", "max-age=60"), ("vary", "x, *")]), (200, MISS)),
    ),
    (
        "9111-4.2.1",
        "s-maxage goes before max-age",
        &again((200, &[("cache-control", "max-age=0, s-maxage=60")]), (200, HIT)),
    ),
    (
        "9111-4.2.1",
        "max-age goes before Expires",
        &again((200, &[("expires", "0"), ("cache-control", "max-age=60")]), (200, HIT)),
    ),
    (
        "9111-4.2.1",
        "Expires in the past",
        &again((200, &[("expires", "Sun, 06 Nov 1994 08:49:37 GMT")]), (200, MISS)),
    ),
    (
        "9111-4.2.1",
        "an Expires that is no date",
        &again((200, &[("expires", "soon")]), (200, MISS)),
    ),
    (
        "9111-4.2.1",
        "a lifetime that is no number",
        &again((200, &[("cache-control", "max-age=long")]), (200, MISS)),
    ),
    (
        "9111-4.2.1",
        "of two lifetimes the shorter",
        &again((200, &[("cache-control", "max-age=60, max-age=0")]), (200, MISS)),
    ),
    (
        "9111-4.2.2",
        "a tenth of the time since it was changed",
        &again((200, &[("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")]), (200, HIT)),
    ),
    (
        "9111-4.2.2",
        "not for a status that is not defined so",
        &[
            step(&[], (403, &[("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")]), (403, MISS)),
            step(&[], (403, &[("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")]), (403, STALE)),
        ],
    ),
    (
        "9111-4.2.3",
        "Age counts",
        &[
            step(&[], AGED, (200, STORED)),
            step(&[], NOT_MODIFIED, (200, VALID)),
            step(&[], GOOD, (200, HIT)),
        ],
    ),
    (
        "9111-4.3.1",
        "a stale response is validated by its tag",
        &[
            step(&[], (200, &[("cache-control", "max-age=0"), ("etag", "\"1\"")]), (200, STORED)),
            step(&[], (304, &[("etag", "\"1\"")]), (200, VALID)),
        ],
    ),
    (
        "9111-4.3.3",
        "another response takes its place",
        &[
            step(&[], AGED, (200, STORED)),
            step(&[], GOOD, (200, "fwd=stale; fwd-status=200; stored")),
            step(&[], PLAIN, (200, HIT)),
        ],
    ),
    (
        "9111-4.3.3",
        "an error is passed on and what is stored stays",
        &[
            step(&[], AGED, (200, STORED)),
            step(&[], (500, &[]), (500, STALE)),
            step(&[], NOT_MODIFIED, (200, VALID)),
        ],
    ),
    (
        "9111-5.2.1.1",
        "a request's max-age",
        &[
            step(
                &[],
                (200, &[("cache-control", "max-age=60"), ("etag", "\"1\""), ("age", "30")]),
                (200, STORED),
            ),
            step(&[("cache-control", "max-age=20")], NOT_MODIFIED, (200, VALID)),
            step(&[("cache-control", "max-age=20")], GOOD, (200, HIT)),
        ],
    ),
    (
        "9111-5.2.1.2",
        "max-stale",
        &[
            step(&[], AGED, (200, STORED)),
            step(&[("cache-control", "max-stale=30")], GOOD, (200, "hit; ttl=-")),
            step(&[("cache-control", "max-stale")], GOOD, (200, "hit; ttl=-")),
        ],
    ),
    (
        "9111-5.2.1.3",
        "min-fresh",
        &[
            step(&[], TAGGED, (200, STORED)),
            step(&[("cache-control", "min-fresh=30")], GOOD, (200, HIT)),
            step(&[("cache-control", "min-fresh=90")], NOT_MODIFIED, (200, VALID)),
        ],
    ),
    (
        "9111-5.2.1.4",
        "a request's no-cache",
        &[
            step(&[], TAGGED, (200, STORED)),
            step(&[("cache-control", "no-cache")], NOT_MODIFIED, (200, VALID)),
        ],
    ),
    (
        "9111-5.2.1.5",
        "a request's no-store",
        &[
            step(&[("cache-control", "no-store")], GOOD, (200, MISS)),
            step(&[], GOOD, (200, STORED)),
        ],
    ),
    (
        "9111-5.2.1.7",
        "only-if-cached",
        &[
            step(&[("cache-control", "only-if-cached")], GOOD, (504, "")),
            step(&[], GOOD, (200, STORED)),
            step(&[("cache-control", "only-if-cached")], GOOD, (200, HIT)),
        ],
    ),
    (
        "9111-5.2.2.2",
        "must-revalidate is never stale",
        &[
            step(
                &[],
                (200, &[("cache-control", "max-age=0, must-revalidate"), ("etag", "\"1\"")]),
                (200, STORED),
            ),
            step(&[("cache-control", "max-stale")], NOT_MODIFIED, (200, VALID)),
        ],
    ),
    (
        "9111-5.2.2.4",
        "no-cache is validated each time",
        &[
            step(
                &[],
                (200, &[("cache-control", "no-cache, max-age=60"), ("etag", "\"1\"")]),
                (200, STORED),
            ),
            step(&[], (304, &[("cache-control", "no-cache, max-age=60")]), (200, VALID)),
            step(&[], NOT_MODIFIED, (200, VALID)),
        ],
    ),
    (
        "9111-5.4",
        "Pragma counts alone",
        &[
            step(&[], TAGGED, (200, STORED)),
            step(&[("pragma", "no-cache")], NOT_MODIFIED, (200, VALID)),
            step(&[("pragma", "no-cache"), ("cache-control", "max-stale=1")], GOOD, (200, HIT)),
        ],
    ),
    (
        "9110-13.1.2",
        "If-None-Match is answered",
        &[
            step(&[], TAGGED, (200, STORED)),
            step(&[("if-none-match", "\"0\", W/\"1\"")], GOOD, (304, HIT)),
            step(&[("if-none-match", "*")], GOOD, (304, HIT)),
            step(&[("if-none-match", "\"2\"")], GOOD, (200, HIT)),
        ],
    ),
    (
        "9110-13.1.3",
        "If-Modified-Since is answered",
        &[
            step(&[], DATED, (200, STORED)),
            step(&[("if-modified-since", "Sun, 06 Nov 1994 08:49:37 GMT")], GOOD, (304, HIT)),
            step(&[("if-modified-since", "Sun, 06 Nov 1994 08:49:36 GMT")], GOOD, (200, HIT)),
            step(&[("if-modified-since", "now")], GOOD, (200, HIT)),
        ],
    ),
    (
        "9110-13.2.2",
        "If-None-Match goes before If-Modified-Since",
        &[
            step(
                &[],
                (
                    200,
                    &[
                        ("cache-control", "max-age=60"),
                        ("etag", "\"1\""),
                        ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
                    ],
                ),
                (200, STORED),
            ),
            step(
                &[
                    ("if-none-match", "\"2\""),
                    ("if-modified-since", "Sun, 06 Nov 1994 08:49:37 GMT"),
                ],
                GOOD,
                (200, HIT),
            ),
        ],
    ),
    (
        "9110-13",
        "other preconditions pass by",
        &[
            step(&[], TAGGED, (200, STORED)),
            step(&[("if-match", "\"1\"")], GOOD, (200, BYPASS)),
            step(&[("if-unmodified-since", "Sun, 06 Nov 1994 08:49:37 GMT")], GOOD, (200, BYPASS)),
        ],
    ),
    (
        "9110-14",
        "ranges pass by and are not stored",
        &[
            step(&[("range", "bytes=0-1")], (206, FRESH), (206, BYPASS)),
            step(&[], GOOD, (200, STORED)),
            step(&[("range", "bytes=0-1")], (206, FRESH), (206, BYPASS)),
            step(&[], GOOD, (200, HIT)),
        ],
    ),
    (
        "9111-4.4",
        "unsafe methods invalidate",
        &[
            step(&[], GOOD, (200, STORED)),
            Step { asks: ("DELETE", "/"), ..step(&[], PLAIN, (200, "fwd=method")) },
            step(&[], GOOD, (200, STORED)),
        ],
    ),
    (
        "9111-4.4",
        "safe ones do not",
        &[
            step(&[], GOOD, (200, STORED)),
            Step { asks: ("OPTIONS", "/"), ..step(&[], PLAIN, (200, BYPASS)) },
            step(&[], GOOD, (200, HIT)),
        ],
    ),
];

#[tokio::test]
async fn every_case_comes_out_as_its_section_says() {
    let origin = Origin::http1("one").await;
    let (_proxy, address) = cached(&origin, json!({})).await;
    for (number, (section, story, steps)) in CASES.iter().enumerate() {
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
