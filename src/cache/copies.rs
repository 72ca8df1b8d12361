//! Large bodies that are asked for often, in files as well: from there they are sent cheaper.
//!
//! A copy takes the memory of its body once more. It is counted with its response, and all of them
//! together may take only a small part of the memory, and so many file descriptors.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::entry::{Entry, Other, Stored};
use super::{Key, Store};
use crate::net::FileCopy;

/// Below, a copy in the kernel costs less than another system call.
const LARGE: u64 = 64 << 10;
/// How often a response was the answer before its body is worth a copy.
const OFTEN: u32 = 16;
/// Copies may take one part of so many of the memory.
const SHARE: u64 = 8;
/// Copies of one store, and with it their file descriptors.
const MOST: u64 = 256;

/// What the copies of a store take together.
#[derive(Debug, Default)]
pub(super) struct Copies {
    bytes: AtomicU64,
    number: AtomicU64,
}

/// A share in what copies may take, for one of them.
#[derive(Debug)]
struct Held {
    copies: Arc<Copies>,
    bytes: u64,
}

impl Copies {
    fn hold(self: &Arc<Self>, bytes: u64, most: u64) -> Option<Held> {
        let held = Held { copies: Arc::clone(self), bytes };
        let number = self.number.fetch_add(1, Ordering::Relaxed) + 1;
        let together = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        (number <= MOST && together <= most).then_some(held)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.copies.number.fetch_sub(1, Ordering::Relaxed);
        self.copies.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The copy of a body.
#[derive(Debug, Clone)]
pub struct Copied {
    file: Arc<FileCopy>,
    held: Arc<Held>,
}

impl Copied {
    /// The file with the body.
    pub fn file(&self) -> &Arc<FileCopy> {
        &self.file
    }

    /// The memory that it takes, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.held.bytes
    }
}

impl Store {
    /// Whether the body of a response is to be copied: it is large, asked for often, and there is room.
    /// Whoever is given the job does it.
    pub fn copies_body(self: &Arc<Self>, key: &Key, entry: &Arc<Entry>) -> Option<Job> {
        let is_worth_it = entry.copy.is_none()
            && entry.body.length() >= LARGE
            && entry.hits.load(Ordering::Relaxed) >= OFTEN
            && entry.others.may_make(Other::Copy);
        if !is_worth_it {
            return None;
        }
        let held = self.copies.hold(entry.body.length(), self.bounds().bytes / SHARE)?;
        let job =
            || Job { store: Arc::clone(self), key: key.clone(), entry: Arc::clone(entry), held };
        entry.others.make(Other::Copy).then(job)
    }
}

/// A body that is to be copied.
#[derive(Debug)]
pub struct Job {
    store: Arc<Store>,
    key: Key,
    entry: Arc<Entry>,
    held: Held,
}

impl Job {
    /// Copies it, which may take a while, and puts the response in its place with the copy. If that
    /// fails it is not tried again with this response.
    pub fn run(self) -> io::Result<()> {
        // In one piece, since it is sent so often; there are few enough of them.
        let body = Stored::of(vec![Bytes::from(self.entry.body.pieces().concat())]);
        let made = FileCopy::of(body.pieces());
        let file = Arc::new(made.inspect_err(|_| self.entry.others.refuse(Other::Copy))?);
        let mut with_copy = self.entry.like();
        with_copy.body = body;
        with_copy.copy = Some(Copied { file, held: Arc::new(self.held) });
        self.store.replace(&self.key, &self.entry, with_copy);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, StatusCode};

    use super::*;
    use crate::cache::{Bounds, Freshness, Lookup, Stored, Variant};

    fn stored(store: &Arc<Store>, path: &str, bytes: u64) -> (Key, Arc<Entry>) {
        let head = (StatusCode::OK, HeaderMap::new());
        let mut entry = Entry::new(head, Variant::default(), Freshness::default());
        entry.body =
            Stored::copy_of([Bytes::from(vec![b'x'; usize::try_from(bytes).unwrap()])].iter());
        let key = Key::new("http", "t", path);
        let entry = store.insert(key.clone(), entry).unwrap();
        entry.hits.store(OFTEN, Ordering::Relaxed);
        (key, entry)
    }

    fn get(store: &Store, key: &Key) -> Arc<Entry> {
        match store.get(key, &HeaderMap::new()) {
            Lookup::Found(entry) => entry,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn large_bodies_that_are_asked_for_often_are_copied_while_there_is_room() {
        let bytes = 8 << 20;
        let store = Arc::new(Store::new(Bounds { entries: 99, bytes }, Arc::default()));
        let (small, entry) = stored(&store, "/small", LARGE - 1);
        assert!(store.copies_body(&small, &entry).is_none());
        let (rare, entry) = stored(&store, "/rare", LARGE);
        entry.hits.store(OFTEN - 1, Ordering::Relaxed);
        assert!(store.copies_body(&rare, &entry).is_none());

        let (key, entry) = stored(&store, "/a", 600 << 10);
        let job = store.copies_body(&key, &entry).unwrap();
        assert!(store.copies_body(&key, &entry).is_none(), "somebody is at it");
        let before = store.stats.bytes.value();
        job.run().unwrap();
        assert_eq!(store.stats.bytes_copies.value(), 600 << 10);
        assert!(store.stats.bytes.value() - before >= 600 << 10, "it counts");
        let copied = get(&store, &key);
        assert!(copied.copy.is_some() && copied.hits.load(Ordering::Relaxed) == OFTEN);
        assert!(store.copies_body(&key, &copied).is_none(), "it has one");

        let (other, entry) = stored(&store, "/b", 600 << 10);
        assert!(store.copies_body(&other, &entry).is_none(), "an eighth is taken");
        assert!(store.remove(&key));
        drop(copied);
        assert!(store.copies_body(&other, &entry).is_some(), "it was given back");
    }

    #[test]
    fn a_copy_does_not_bring_back_what_was_forgotten_meanwhile() {
        let bytes = 64 << 20;
        let store = Arc::new(Store::new(Bounds { entries: 99, bytes }, Arc::default()));
        let (key, entry) = stored(&store, "/a", LARGE);
        let job = store.copies_body(&key, &entry).unwrap();
        store.remove(&key);
        job.run().unwrap();
        assert!(matches!(store.get(&key, &HeaderMap::new()), Lookup::Nothing));
        drop(entry);
        assert_eq!(store.copies.number.load(Ordering::Relaxed), 0);
    }
}
