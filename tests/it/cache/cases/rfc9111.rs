//! Caching.

use super::*;

pub(super) const CASES: &[Case] = &[
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
];
