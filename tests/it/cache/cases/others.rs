//! Preconditions, ranges, invalidation, and what the extensions add.

use super::*;

pub(super) const CASES: &[Case] = &[
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
    (
        "5861-4",
        "a stale response is better than an error",
        &[
            step(&[], SURVIVES, (200, STORED)),
            step(&[], (503, &[]), (200, "hit; fwd=stale; fwd-status=503")),
            step(&[], (500, &[]), (200, "hit; fwd=stale; fwd-status=500")),
            step(&[], (404, &[]), (404, STALE)),
        ],
    ),
    (
        "5861-4",
        "if it says so, or the request does",
        &[
            step(&[], AGED, (200, STORED)),
            step(&[], (503, &[]), (503, STALE)),
            step(&[("cache-control", "stale-if-error=60")], (503, &[]), (200, "hit; fwd=stale")),
        ],
    ),
    (
        "5861-4",
        "for so long and no longer",
        &[
            step(
                &[],
                (
                    200,
                    &[
                        ("cache-control", "max-age=60, stale-if-error=30"),
                        ("etag", "\"1\""),
                        ("age", "95"),
                    ],
                ),
                (200, STORED),
            ),
            step(&[], (503, &[]), (503, STALE)),
        ],
    ),
    (
        "5861-4",
        "never if it must be validated",
        &[
            step(
                &[],
                (
                    200,
                    &[
                        ("cache-control", "max-age=60, stale-if-error=30, must-revalidate"),
                        ("etag", "\"1\""),
                        ("age", "61"),
                    ],
                ),
                (200, STORED),
            ),
            step(&[], (503, &[]), (503, STALE)),
        ],
    ),
];
