//! The cost of the response cache itself, with a hundred thousand responses in it.
//!
//! `cargo bench --bench cache`. A hit should stay well under a microsecond, and a purge of a directory, a
//! tag or everything under a millisecond however much it hits.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BatchSize, Criterion};
use http::{HeaderMap, HeaderValue, StatusCode};
use nuncio::cache::{
    Bounds, Entry, Freshness, Key, Lookup, Scope, Store, Stored, UrlPattern, Variant,
};

const RESPONSES: usize = 100_000;

fn key(n: usize) -> Key {
    Key::new("http", "example.test", &format!("/api/users/{n}"))
}

fn response() -> Entry {
    let mut headers = HeaderMap::new();
    headers.insert("etag", HeaderValue::from_static("\"1\""));
    headers.insert("cache-tag", HeaderValue::from_static("users"));
    let freshness = Freshness { lifetime: Duration::from_secs(3_600), ..Freshness::default() };
    let mut entry = Entry::new((StatusCode::OK, headers), Variant::default(), freshness);
    entry.body = Stored::copy_of([Bytes::from_static(&[b'x'; 1_000])].iter());
    entry
}

fn store() -> Arc<Store> {
    let bounds = Bounds { entries: 1_000_000, bytes: 1 << 30 };
    let store = Arc::new(Store::new(bounds, Arc::default()));
    for n in 0..RESPONSES {
        store.insert(key(n), response());
    }
    store
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let full = store();
    let request = HeaderMap::new();
    let mut n = 0;
    criterion.bench_function("key", |bench| bench.iter(|| key(7)));
    criterion.bench_function("hit", |bench| {
        let keys: Vec<Key> = (0..RESPONSES).step_by(97).map(key).collect();
        bench.iter(|| {
            n = (n + 1) % keys.len();
            assert!(matches!(full.get(&keys[n], &request), Lookup::Found(_)));
        });
    });
    criterion.bench_function("fill", |bench| {
        bench.iter_batched(
            || {
                n = (n + 7_919) % RESPONSES;
                (key(n), response())
            },
            |(key, response)| full.insert(key, response),
            BatchSize::SmallInput,
        );
    });
    let mut purges = criterion.benchmark_group("purge of 100,000");
    purges.sample_size(10);
    let pattern = |text| Scope::Pattern(UrlPattern::parse(text).expect("a pattern"));
    for (name, scope) in [
        ("directory", pattern("/api/users/*")),
        ("tag", Scope::Tag((*b"users").into())),
        ("everything", Scope::Everything),
        ("pattern that is counted one by one", pattern("/api/*9")),
    ] {
        purges.bench_function(name, |bench| {
            bench.iter_batched_ref(
                store,
                |store| assert!(store.purge(&scope, false) > 0),
                BatchSize::PerIteration,
            );
        });
    }
    purges.finish();
    criterion.final_summary();
}
