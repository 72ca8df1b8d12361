//! What is asked for often stays, whatever else comes by.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::cache::{Entry, Freshness, Stored, Variant};

const MOST: usize = 1_000;

fn key(n: usize) -> Key {
    Key::new("http", "t", &format!("/{n}"))
}

fn variants(body: usize) -> Variants {
    let freshness = Freshness { lifetime: Duration::from_secs(60), ..Freshness::default() };
    let mut entry = Entry::new((StatusCode::OK, HeaderMap::new()), Variant::default(), freshness);
    entry.body = Stored::copy_of([Bytes::from(vec![b'x'; body])].iter());
    vec![std::sync::Arc::new(entry)].into()
}

/// Asks, stores what is not there, and says whether it was.
fn ask(table: &Table, n: usize) -> bool {
    if table.get(&key(n)).is_some() {
        return true;
    }
    while table.len() >= MOST {
        table.evict().unwrap();
    }
    assert!(table.insert(key(n), variants(1)).is_none());
    false
}

/// What the slots say together is what the queues say.
fn check(table: &Table) {
    let slots = table.slots.read();
    let sum = |is_kept| -> u64 {
        slots.slots.iter().filter(|(_, s)| s.is_kept == is_kept).map(|(_, s)| s.weight).sum()
    };
    assert_eq!((sum(false), sum(true)), (slots.newcomers.weight, slots.kept.weight));
    let queued = slots.newcomers.turns.len() + slots.kept.turns.len();
    assert_eq!((queued, slots.by_key.len()), (slots.slots.len(), slots.slots.len()));
    assert!(slots.remembered.order.len() <= MOST / REMEMBERED);
    assert!(slots.remembered.hashes.len() <= slots.remembered.order.len());
}

struct Zipf {
    up_to: Vec<f64>,
    random: StdRng,
}

impl Zipf {
    fn new(exponent: f64) -> Self {
        let mut sum = 0.0;
        let parts = (1..=5_000).map(|n| {
            sum += f64::from(n).powf(-exponent);
            sum
        });
        let parts: Vec<f64> = parts.collect();
        let up_to = parts.iter().map(|part| part / sum).collect();
        Self { up_to, random: StdRng::seed_from_u64(7) }
    }

    /// The part of so many requests that is hit, of paths from this one on.
    fn hits(&mut self, table: &Table, requests: u32, from: usize) -> f64 {
        let mut next = || {
            let x: f64 = self.random.random();
            from + self.up_to.partition_point(|part| *part <= x)
        };
        let hits = (0..requests).filter(|_| ask(table, next())).count();
        f64::from(u32::try_from(hits).unwrap()) / f64::from(requests)
    }
}

#[test]
fn a_fifth_of_the_paths_nearly_answers_what_the_best_fifth_would() {
    for (exponent, least) in [(1.1, 0.86), (1.0, 0.80), (0.8, 0.63)] {
        let (table, mut zipf) = (Table::default(), Zipf::new(exponent));
        zipf.hits(&table, 30_000, 0);
        let hits = zipf.hits(&table, 60_000, 0);
        let best = zipf.up_to[MOST - 1];
        assert!(hits > least && hits < best, "{hits} of at most {best} for {exponent}");
        check(&table);
    }
}

#[test]
fn what_is_asked_for_once_does_not_push_out_the_rest() {
    let (table, mut zipf) = (Table::default(), Zipf::new(1.0));
    zipf.hits(&table, 30_000, 0);
    (0..10_000).for_each(|n| _ = ask(&table, 1_000_000 + n));
    let hits = zipf.hits(&table, 2_000, 0);
    assert!(hits > 0.78, "{hits}");
    check(&table);
}

#[test]
fn when_other_paths_become_popular_the_old_ones_go() {
    let (table, mut zipf) = (Table::default(), Zipf::new(1.0));
    zipf.hits(&table, 60_000, 0);
    zipf.hits(&table, 20_000, 10_000);
    let hits = zipf.hits(&table, 20_000, 10_000);
    assert!(hits > 0.78, "{hits}");
    check(&table);
}

#[test]
fn a_resource_is_found_replaced_and_removed() {
    let table = Table::default();
    for n in 0..10 {
        table.insert(key(n), variants(n));
    }
    let rest = table.weight() - table.weight_of(&key(3));
    assert_eq!(table.insert(key(3), variants(1_003)).unwrap()[0].body.length(), 3);
    assert_eq!(table.weight() - table.weight_of(&key(3)), rest);
    assert!(table.weight_of(&key(3)) > 1_003);
    assert_eq!(table.peek(&key(3)).unwrap()[0].body.length(), 1_003);
    assert_eq!(table.remove(&key(3)).unwrap()[0].body.length(), 1_003);
    assert!(table.get(&key(3)).is_none() && table.remove(&key(3)).is_none());
    assert_eq!((table.weight_of(&key(3)), table.len(), table.iter().count()), (0, 9, 9));
    check(&table);
    while table.evict().is_some() {
        check(&table);
    }
    assert_eq!((table.len(), table.weight()), (0, 0));
}

#[test]
fn room_is_found_soon_even_if_everything_is_asked_for() {
    let table = Table::default();
    (0..MOST).for_each(|n| _ = ask(&table, n));
    for _ in 0..5 {
        (0..MOST).for_each(|n| _ = table.get(&key(n)));
    }
    // The first of them, and those behind have come one step closer.
    let (gone, _) = table.evict().unwrap();
    assert_eq!(gone, key(LOOKS - 1));
    check(&table);
}
