//! What purges hit, against a model without any cleverness.

use http::{HeaderMap, StatusCode};
use proptest::prelude::*;

use super::*;
use crate::cache::{Freshness, Variant};

const HOSTS: [&str; 2] = ["a", "b"];
const PATHS: [&str; 8] = ["/", "/x", "/d/", "/d/x", "/d/y?q=/", "/d/e/x", "/d/e/f/x", "/g/x"];
const PATTERNS: [&str; 7] = ["/*", "/d/*", "/d/e/*", "//a/d/*", "/d/x", "//b/*", "/d*x"];

fn entry(index: &mut Index, tag: Option<u8>) -> Entry {
    let mut headers = HeaderMap::new();
    if let Some(tag) = tag {
        headers.insert("cache-tag", format!("t{tag}").parse().unwrap());
    }
    let head = (StatusCode::OK, headers);
    let mut entry = Entry::new(head, Variant::default(), Freshness::default());
    entry.begun = index.begin();
    entry
}

fn pattern(text: &str) -> Scope {
    Scope::Pattern(UrlPattern::parse(text).unwrap())
}

/// What is stored, by key, as it would be without any cleverness.
struct Model {
    index: Index,
    stored: Vec<(Key, Entry)>,
}

impl Model {
    fn add(&mut self, key: Key, tag: Option<u8>) {
        let entry = entry(&mut self.index, tag);
        assert_eq!(self.index.standing_of_fill(&key, &entry, entry.begun), Standing::Good);
        self.index.add(&key, &entry);
        self.index.end(entry.begun);
        self.stored.push((key, entry));
    }

    fn is_good(&self, (key, entry): &(Key, Entry)) -> bool {
        self.index.standing(key, entry) == Standing::Good
    }

    fn purge(&mut self, scope: &Scope) {
        let hit = |(key, entry): &&(Key, Entry)| scope.holds(key, entry.tags());
        let good: Vec<_> = self.stored.iter().filter(|stored| self.is_good(stored)).collect();
        let expected = good.iter().copied().filter(hit).count() as u64;
        let left = good.len() - usize::try_from(expected).unwrap();
        if let Some(found) = self.index.purge(scope, false) {
            assert_eq!(found, expected, "{scope:?}");
        }
        let good = self.stored.iter().filter(|stored| self.is_good(stored));
        assert_eq!(good.count(), left, "{scope:?}");
    }

    fn sweep(&mut self) {
        let since = self.index.now();
        let (good, dead): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.stored).into_iter().partition(|stored| self.is_good(stored));
        dead.iter().for_each(|(key, entry)| self.index.remove(key, entry));
        self.stored = good;
        self.index.swept(since);
        assert!(self.index.is_swept());
    }
}

proptest! {
    #[test]
    fn purges_hit_what_they_say_and_say_how_many(
        steps in prop::collection::vec((0..6_u8, 0..100_usize), 1..120),
    ) {
        let mut model = Model { index: Index::default(), stored: Vec::new() };
        for (step, choice) in steps {
            match step {
                0..=2 => {
                    let key = Key::new("http", HOSTS[choice % 2], PATHS[choice % 8]);
                    model.add(key, (choice % 3 > 0).then_some(u8::try_from(choice % 3).unwrap()));
                }
                3 => model.purge(&pattern(PATTERNS[choice % 7])),
                4 if choice % 4 == 0 => {
                    model.sweep();
                    model.purge(&Scope::Tag(format!("t{}", choice % 3).into_bytes().into()));
                    // Places and tags take note of each other's purges when what is dead is taken away.
                    model.sweep();
                }
                4 => model.sweep(),
                _ if !model.stored.is_empty() => {
                    let (key, entry) = model.stored.swap_remove(choice % model.stored.len());
                    model.index.remove(&key, &entry);
                }
                _ => {}
            }
            if step == 3 && choice % 7 == 6 {
                model.sweep();
            }
        }
        for (key, entry) in std::mem::take(&mut model.stored) {
            model.index.remove(&key, &entry);
        }
        model.index.swept(model.index.now());
        prop_assert!(model.index.places.is_empty() && model.index.tags.is_empty());
        prop_assert!(model.index.hosts.is_empty());
    }
}

#[test]
fn a_fill_is_dead_if_anything_that_holds_it_was_purged_meanwhile() {
    let key = Key::new("http", "a", "/d/x?q");
    for (scope, hits) in [
        (Scope::Everything, true),
        (pattern("/d/*"), true),
        (pattern("//b/d/*"), false),
        (pattern("/d*q"), true),
        (Scope::Url(Some("a".into()), "/d/x?q".into()), true),
        (Scope::Url(None, "/d/x".into()), false),
        (Scope::Tag((*b"t1").into()), true),
        (Scope::Tag((*b"t2").into()), false),
    ] {
        for soft in [false, true] {
            let mut index = Index::default();
            let early = entry(&mut index, Some(1));
            index.purge(&scope, soft);
            let late = entry(&mut index, Some(1));
            let expected = match (hits, soft) {
                (false, _) => Standing::Good,
                (true, true) => Standing::Marked,
                (true, false) => Standing::Dead,
            };
            assert_eq!(index.standing_of_fill(&key, &early, early.begun), expected, "{scope:?}");
            assert_eq!(index.standing_of_fill(&key, &late, late.begun), Standing::Good);
            index.end(early.begun);
            index.end(late.begun);
            assert!(index.rules.is_empty());
        }
    }
}

#[test]
fn more_purges_than_are_remembered_make_old_fills_dead() {
    let mut index = Index::default();
    let key = Key::new("http", "a", "/x");
    let fill = entry(&mut index, None);
    for n in 0..MOST_RULES {
        index.purge(&Scope::Url(None, format!("/{n}").into()), false);
    }
    assert_eq!(index.standing_of_fill(&key, &fill, fill.begun), Standing::Good);
    index.purge(&pattern("/other"), false);
    assert_eq!(index.standing_of_fill(&key, &fill, fill.begun), Standing::Dead);
}

#[test]
fn a_pattern_that_is_purged_again_is_kept_once() {
    let mut index = Index::default();
    let key = Key::new("http", "a", "/d/x");
    let old = entry(&mut index, None);
    index.add(&key, &old);
    let mut middle = None;
    for soft in [true, false, false, true, true] {
        index.purge(&pattern("/d*x"), soft);
        middle.get_or_insert_with(|| entry(&mut index, None));
    }
    assert_eq!(index.patterns.len(), 2);
    assert_eq!(index.standing(&key, &old), Standing::Dead);
    assert_eq!(index.standing(&key, &middle.unwrap()), Standing::Dead);
    let last = entry(&mut index, None);
    index.purge(&pattern("/d*x"), true);
    assert_eq!(index.standing(&key, &last), Standing::Marked);
}

#[test]
fn a_soft_purge_marks_until_something_newer_is_stored() {
    let mut index = Index::default();
    let key = Key::new("http", "a", "/d/x");
    let old = entry(&mut index, None);
    index.add(&key, &old);
    assert_eq!(index.purge(&pattern("/d/*"), true), Some(1));
    assert_eq!(index.standing(&key, &old), Standing::Marked);
    let new = entry(&mut index, None);
    assert_eq!(index.standing(&key, &new), Standing::Good);
    assert_eq!(index.purge(&Scope::Everything, false), Some(1));
    assert_eq!(index.standing(&key, &old), Standing::Dead);
}
