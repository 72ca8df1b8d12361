//! What is stored is found, bounded, purged and swept, and the counts agree.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;

use super::*;
use crate::cache::{Freshness, Lead, Outcome, Stored, UrlPattern, Variant};

const LARGE: Bounds = Bounds { entries: 1_000, bytes: 10 << 20 };

fn headers(of: &[(&'static str, &str)]) -> HeaderMap {
    of.iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).collect()
}

fn entry(body: usize, language: &str) -> Entry {
    tagged(body, language, "none")
}

fn tagged(body: usize, language: &str, tag: &str) -> Entry {
    let headers = headers(&[("vary", "accept-language"), ("etag", "\"1\""), ("cache-tag", tag)]);
    let variant = Variant::of(&headers, &asking(language));
    let freshness = Freshness { lifetime: Duration::from_secs(60), ..Freshness::default() };
    let mut entry = Entry::new((StatusCode::OK, headers), variant, freshness);
    entry.body = Stored::copy_of([Bytes::from(vec![b'x'; body])].iter());
    entry
}

fn asking(language: &str) -> HeaderMap {
    headers(&[("accept-language", language)])
}

fn key(n: usize) -> Key {
    Key::new("http", "t", &format!("/{n}"))
}

fn pattern(text: &str) -> Scope {
    Scope::Pattern(UrlPattern::parse(text).unwrap())
}

fn found(store: &Store, key: &Key, language: &str) -> Option<Arc<Entry>> {
    match store.get(key, &asking(language)) {
        Lookup::Found(entry) => Some(entry),
        _ => None,
    }
}

/// The index knows what the table has, and the counts agree.
fn check(store: &Store) {
    let variants: u64 = store.table.iter().map(|(_, variants)| variants.len() as u64).sum();
    assert_eq!(store.index.lock().purge(&Scope::Everything, true), Some(variants));
    let identity = store.stats.bytes_identity.value() + store.stats.bytes_gzip.value();
    let weights =
        store.table.iter().flat_map(|(_, v)| v.iter().map(|e| e.weight()).collect::<Vec<_>>());
    assert_eq!(identity, i64::try_from(weights.sum::<u64>()).unwrap());
}

#[test]
fn variants_are_kept_apart_and_their_number_is_bounded() {
    let store = Store::new(LARGE, Arc::default());
    for n in 0..100 {
        store.insert(key(1), entry(10, &format!("l{n}")));
    }
    assert!(found(&store, &key(1), "l99").is_some());
    assert!(found(&store, &key(1), "l84").is_some());
    assert!(matches!(store.get(&key(1), &asking("l83")), Lookup::OtherVariants));
    assert_eq!(store.stats.evicted_variants.value(), 84);
    store.insert(key(1), entry(20, "l99"));
    assert_eq!(found(&store, &key(1), "l99").unwrap().body.length(), 20);
    check(&store);
    assert!(store.remove(&key(1)) && !store.remove(&key(1)));
    assert_eq!((store.stats.entries.value(), store.stats.bytes.value()), (0, 0));
    assert_eq!(store.stats.bytes_identity.value(), 0);
}

#[test]
fn a_fill_does_not_bring_back_what_was_purged_since_it_began() {
    let store = Store::new(LARGE, Arc::default());
    let (early, other) = (store.begin(), store.begin());
    store.remove(&key(1));
    let late = store.begin();
    assert!(store.fill(key(2), entry(1, "a"), &other).is_some());
    assert!(store.fill(key(1), entry(1, "a"), &early).is_none());
    assert!(store.fill(key(1), entry(1, "a"), &late).is_some());
    drop((early, late, other));
    for scope in [pattern("/*"), pattern("/*9"), Scope::Tag((*b"red").into()), Scope::Everything] {
        let early = store.begin();
        store.purge(&scope, false);
        assert!(store.fill(key(9), tagged(1, "a", "red"), &early).is_none(), "{scope:?}");
        let soft = store.begin();
        store.purge(&scope, true);
        let marked = store.fill(key(9), tagged(1, "a", "red"), &soft).unwrap();
        assert!(marked.is_marked());
    }
}

#[tokio::test]
async fn what_is_purged_is_not_found_again_and_a_sweep_takes_it_away() {
    let store = Store::new(LARGE, Arc::default());
    let fill = || {
        for n in 0..20 {
            store.insert(key(n), tagged(10, "a", if n % 2 == 0 { "even" } else { "odd, all" }));
        }
    };
    for (scope, hits) in [
        (pattern("/*"), 20),
        (pattern("/1"), 1),
        (pattern("/1*"), 11),
        (pattern("//other/*"), 0),
        (Scope::Tag((*b"odd").into()), 10),
        (Scope::Url(None, "/7".into()), 1),
        (Scope::Everything, 20),
    ] {
        fill();
        store.sweep().await;
        assert!(store.index.lock().is_swept());
        assert_eq!(store.purge(&scope, true), hits, "{scope:?}");
        let marked = |n: &usize| found(&store, &key(*n), "a").unwrap().is_marked();
        assert_eq!((0..20).filter(marked).count() as u64, hits, "{scope:?}");
        fill();
        store.sweep().await;
        assert_eq!(store.purge(&scope, false), hits, "{scope:?}");
        let left = |n: &usize| found(&store, &key(*n), "a").is_some();
        assert_eq!((0..20).filter(left).count() as u64, 20 - hits, "{scope:?}");
        store.sweep().await;
        assert_eq!(store.table.len() as u64, 20 - hits, "{scope:?}");
        check(&store);
    }
    assert_eq!(store.stats.purge_pattern.value(), 8);
}

#[tokio::test]
async fn a_sweep_leaves_what_is_being_counted_for_the_next() {
    let store = Store::new(LARGE, Arc::default());
    (0..20).for_each(|n| drop(store.insert(key(n), entry(1, "a"))));
    store.counting.fetch_add(1, Ordering::Relaxed);
    assert_eq!(store.purge_uncounted(&pattern("/1*"), false), None);
    assert_eq!((0..20).filter(|n| found(&store, &key(*n), "a").is_some()).count(), 9);
    store.sweep().await;
    assert!(store.table.len() == 20 && !store.index.lock().is_swept());
    // A purge hits what none has hit before.
    assert_eq!(store.purge(&pattern("*1*"), false), 0);
    assert_eq!(store.purge(&pattern("*2*"), false), 1);
    store.counting.fetch_sub(1, Ordering::Relaxed);
    store.sweep().await;
    assert!(store.table.len() == 8 && store.index.lock().is_swept());
    check(&store);
}

#[tokio::test(start_paused = true)]
async fn a_sweep_takes_away_what_is_of_no_use() {
    let store = Store::new(LARGE, Arc::default());
    let mut plain = entry(1, "a");
    plain.headers.remove("etag");
    store.insert(key(1), plain);
    store.insert(key(2), entry(1, "a"));
    tokio::time::advance(Duration::from_secs(59)).await;
    store.sweep().await;
    assert_eq!(store.table.len(), 2);
    tokio::time::advance(Duration::from_secs(2)).await;
    store.sweep().await;
    assert!(found(&store, &key(1), "a").is_none() && found(&store, &key(2), "a").is_some());
    assert_eq!(store.stats.expired.value(), 1);
    check(&store);
}

#[tokio::test]
async fn who_follows_is_told_however_the_fill_ends() {
    let store = Store::new(LARGE, Arc::default());
    let request = asking("a");
    let lead = |n: usize| match store.lead(&key(n), &request) {
        Lead::Fetch(leader) => leader,
        Lead::Follow(_) => panic!("nobody fetches it"),
    };
    let follow = |n: usize| match store.lead(&key(n), &request) {
        Lead::Follow(follower) => follower,
        Lead::Fetch(_) => panic!("somebody fetches it"),
    };
    let leader = lead(1);
    let mut followed = follow(1);
    drop(lead(2));
    let entry_a = store.fill(key(1), entry(1, "a"), &leader.ticket).unwrap();
    leader.flight.stored(entry_a);
    leader.flight.finish(None);
    assert!(matches!(followed.outcome().await, Outcome::Here(_)));
    // One that asks for another variant fetches for itself.
    assert!(matches!(store.lead(&key(1), &asking("b")), Lead::Fetch(_)));
    drop(leader);
    let given_up = lead(1);
    let mut followed = follow(1);
    drop(given_up);
    assert!(matches!(followed.outcome().await, Outcome::Gone));
    let refused = lead(1);
    let mut followed = follow(1);
    refused.flight.say(Outcome::Refused);
    assert!(matches!(followed.outcome().await, Outcome::Refused));
    assert!(matches!(store.lead(&key(1), &request), Lead::Fetch(_)));
    drop(refused);
    assert!(store.flights.lock().is_empty());
}

#[test]
fn nobody_follows_a_fetch_that_began_before_a_purge() {
    let store = Store::new(LARGE, Arc::default());
    let request = asking("a");
    let follows = || matches!(store.lead(&key(1), &request), Lead::Follow(_));
    let lead = || match store.lead(&key(1), &request) {
        Lead::Fetch(leader) => leader,
        Lead::Follow(_) => panic!("nobody fetches it"),
    };
    for says in [false, true] {
        for (scope, hits) in [
            (Some(pattern("/*")), true),
            (Some(pattern("/2")), false),
            (Some(Scope::Tag((*b"red").into())), true),
            (Some(Scope::Tag((*b"blue").into())), !says),
            (None, true),
        ] {
            let leader = lead();
            if says {
                leader.flight.say(Outcome::Comes(Arc::new(tagged(1, "a", "red"))));
            }
            assert!(follows());
            match &scope {
                Some(scope) => assert_eq!(store.purge(scope, false), 0),
                None => assert!(!store.remove(&key(1))),
            }
            assert_eq!(follows(), !hits, "{scope:?}");
            let next = store.lead(&key(1), &request);
            assert!(follows(), "what began after it may be followed");
            drop((leader, next));
        }
    }
    assert!(store.flights.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn nobody_follows_a_fetch_that_has_fallen_silent() {
    let store = Store::new(LARGE, Arc::default());
    let request = asking("a");
    let lead = || store.lead(&key(1), &request);
    let follows = || matches!(lead(), Lead::Follow(_));
    let wait = async || tokio::time::advance(Duration::from_secs(3)).await;
    let Lead::Fetch(stuck) = lead() else { panic!("nobody fetches it") };
    wait().await;
    stuck.flight.say(Outcome::Comes(Arc::new(entry(2, "a"))));
    wait().await;
    stuck.flight.push(Bytes::from_static(b"x"));
    wait().await;
    assert!(follows());
    wait().await;
    let Lead::Fetch(second) = lead() else { panic!("it is stuck") };
    assert!(follows(), "the second");
    drop(second);
    stuck.flight.finish(None);
    assert!(follows(), "it is whole");
}

#[test]
fn entries_and_bytes_are_bounded() {
    let few = Store::new(Bounds { entries: 10, ..LARGE }, Arc::default());
    for n in 0..200 {
        few.insert(key(n), entry(100, "a"));
        assert!(few.table.len() <= 10);
    }
    assert!(few.table.len() >= 9, "{}", few.table.len());
    assert!(few.stats.evicted_entries.value() >= 190);
    few.bound(Bounds { entries: 3, ..LARGE });
    assert!(few.table.len() <= 3);
    check(&few);
    let small = Store::new(Bounds { bytes: 100_000, ..LARGE }, Arc::default());
    for n in 0..200 {
        small.insert(key(n), entry(5_000, "a"));
        assert!(small.table.weight() <= 100_000);
    }
    assert!(small.table.len() > 10);
    assert!(small.stats.evicted_memory.value() > 150);
    small.insert(key(999), entry(200_000, "a"));
    assert!(found(&small, &key(999), "a").is_none(), "larger than all");
    small.bound(Bounds { bytes: 20_000, ..LARGE });
    assert!(small.table.weight() <= 20_000);
    check(&small);
}

#[test]
fn however_often_room_is_made_large_responses_fit() {
    let store = Store::new(Bounds { entries: 2, bytes: 10_000_001 }, Arc::default());
    for n in 0..10_000 {
        store.insert(key(n), entry(n * 7_919 % 3_000, "a"));
    }
    store.bound(Bounds { entries: 2, bytes: 20_000_001 });
    store.insert(key(0), entry(19_000_000, "a"));
    assert!(found(&store, &key(0), "a").is_some());
}

#[test]
fn what_is_being_filled_makes_what_is_stored_give_way() {
    let store = Arc::new(Store::new(Bounds { bytes: 1 << 20, ..LARGE }, Arc::default()));
    for n in 0..200 {
        store.insert(key(n), entry(8_000, "a"));
    }
    let full = store.table.weight();
    assert!(full > 900_000);
    let (mut one, mut other) = (store.reserve(), store.reserve());
    assert!(one.add(400_000) && store.table.weight() <= (1 << 20) - 400_000);
    assert!(!other.add(200_000), "half of it is the most");
    assert!(other.add(100_000));
    drop((one, other));
    assert_eq!((*store.set_aside.lock(), store.stats.bytes_filling.value()), (0, 0));
    check(&store);
}

#[test]
fn another_form_takes_the_place_of_the_first_unless_that_is_gone() {
    let store = Store::new(LARGE, Arc::default());
    let first = store.insert(key(1), entry(1_000, "a")).unwrap();
    let mut with_gzip = first.like();
    with_gzip.gzip = Some(Stored::copy_of([Bytes::from_static(b"zip")].iter()));
    store.replace(&key(1), &first, with_gzip);
    assert_eq!(store.stats.bytes_gzip.value(), 3);
    assert!(found(&store, &key(1), "a").unwrap().gzip.is_some());
    store.replace(&key(1), &first, first.like());
    assert!(found(&store, &key(1), "a").unwrap().gzip.is_some(), "the first is gone");
    check(&store);
}

#[tokio::test]
async fn another_form_is_stale_if_the_first_was_marked_while_it_was_made() {
    let store = Store::new(LARGE, Arc::default());
    let first = store.insert(key(1), entry(1_000, "a")).unwrap();
    let other = first.like();
    store.purge(&Scope::Everything, true);
    store.sweep().await;
    store.replace(&key(1), &first, other);
    assert!(found(&store, &key(1), "a").unwrap().is_marked());
}

/// Each response says how many purges had begun when it was fetched; none that says fewer than are over may
/// be found.
#[test]
fn nothing_from_before_a_purge_is_found_after_it_whatever_else_happens() {
    const ROUNDS: usize = 3_000;
    let store = Store::new(Bounds { entries: 30, bytes: 200_000 }, Arc::default());
    let (begun, over) = (AtomicU64::new(0), AtomicU64::new(0));
    let key = |n: usize| Key::new("http", ["a", "b"][n % 2], &format!("/d/{}x", n % 40));
    let fetch = |n: usize| {
        let ticket = store.begin();
        let mut entry = tagged(n % 3_000, ["a", "b", "c"][n % 3], "all");
        entry.headers.insert("x-begun", begun.load(Ordering::SeqCst).into());
        store.fill(key(n), entry, &ticket)
    };
    let purge = |n: usize| {
        let now = begun.fetch_add(1, Ordering::SeqCst) + 1;
        let scopes = ["/*", "/d/*", "/d*", "*x"].map(pattern);
        let rest = [Scope::Everything, Scope::Tag((*b"all").into())];
        store.purge(scopes.iter().chain(&rest).nth(n % 6).unwrap(), false);
        over.fetch_max(now, Ordering::SeqCst);
    };
    let look = |n: usize| {
        let over = over.load(Ordering::SeqCst);
        let language = ["a", "b", "c"][n % 3];
        let Some(entry) = found(&store, &key(n), language) else { return };
        let of = entry.headers["x-begun"].to_str().unwrap().parse::<u64>().unwrap();
        assert!(of >= over, "of {of} after {over}");
        if n.is_multiple_of(5) {
            store.replace(&key(n), &entry, entry.like());
        }
    };
    let sweep = |_| futures_util::FutureExt::now_or_never(store.sweep());
    let run = |step: &(dyn Fn(usize) + Sync), times: usize| {
        (0..times).for_each(|n| step(n * 7_919));
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| run(&|n| drop(fetch(n)), ROUNDS));
            scope.spawn(|| run(&look, ROUNDS * 4));
        }
        scope.spawn(|| run(&purge, ROUNDS / 4));
        scope.spawn(|| run(&|n| _ = store.remove(&key(n)), ROUNDS));
        scope.spawn(|| run(&|n| assert!(sweep(n).is_some()), ROUNDS / 4));
    });
    purge(4);
    sweep(0);
    assert_eq!(store.table.len(), 0);
    (0..60).for_each(|n| drop(fetch(n)));
    check(&store);
}
