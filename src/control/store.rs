//! The last good version of every resource, what waits to replace it, and what was last rejected.
//!
//! Bytes are kept as they came: they tell an unchanged resource from a changed one without decoding
//! it, and they are what `/config_dump` and the file on disk show.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use foldhash::fast::FixedState;
use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::task::AbortHandle;

use super::follow::Want;

/// A map whose keys came from a trusted management server, so speed counts more than surprise.
pub(super) type Map<K, V> = HashMap<K, V, FixedState>;

/// Who a resource belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The bootstrap's `static_resources`: never changed or removed.
    Static,
    /// A management server or file.
    Dynamic,
    /// The last run's file, until the management server says otherwise.
    Disk,
}

/// A resource that compiled, and its bytes.
#[derive(Debug)]
pub(super) struct Held<T> {
    pub(super) raw: Bytes,
    pub(super) version: Arc<str>,
    pub(super) updated: SystemTime,
    pub(super) value: Arc<T>,
    /// What it refers to and has subscribed.
    pub(super) wants: SmallVec<[Want; 1]>,
    /// The tasks of a cluster that has work of its own.
    pub(super) running: Option<Arc<Running>>,
}

/// Ends a cluster's own work when the version that began it is gone.
#[derive(Debug, Default)]
pub(super) struct Running(Mutex<Vec<AbortHandle>>);

impl Running {
    /// A task has been started.
    pub(super) fn started(&self, task: AbortHandle) {
        self.0.lock().push(task);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.get_mut().iter().for_each(AbortHandle::abort);
    }
}

/// The last version of a resource that was not accepted.
#[derive(Debug, Clone)]
pub struct Rejected {
    /// The message as it came.
    pub raw: Bytes,
    /// Its version.
    pub version: Arc<str>,
    /// When it came.
    pub when: SystemTime,
    /// Every fault, one a line.
    pub details: String,
}

/// Everything known about one name.
#[derive(Debug)]
pub(super) struct Record<T> {
    pub(super) origin: Origin,
    /// In service.
    pub(super) active: Option<Held<T>>,
    /// Accepted, and waiting for what it refers to.
    pub(super) warming: Option<Held<T>>,
    pub(super) rejected: Option<Box<Rejected>>,
}

impl<T> Record<T> {
    pub(super) fn new(origin: Origin) -> Self {
        Self { origin, active: None, warming: None, rejected: None }
    }

    /// What was accepted last, warm or not.
    pub(super) fn newest(&self) -> Option<&Held<T>> {
        self.warming.as_ref().or(self.active.as_ref())
    }

    pub(super) fn newest_mut(&mut self) -> Option<&mut Held<T>> {
        self.warming.as_mut().or(self.active.as_mut())
    }
}

/// The records of one type.
#[derive(Debug)]
pub(super) struct Store<K, T> {
    pub(super) records: Map<K, Record<T>>,
    /// How many have a version that is warming.
    pub(super) warming: usize,
}

impl<K, T> Default for Store<K, T> {
    fn default() -> Self {
        Self { records: Map::default(), warming: 0 }
    }
}

impl<K: Hash + Eq + Clone, T> Store<K, T> {
    pub(super) fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&Record<T>>
    where
        K: Borrow<Q>,
    {
        self.records.get(key)
    }

    pub(super) fn get_mut<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<&mut Record<T>>
    where
        K: Borrow<Q>,
    {
        self.records.get_mut(key)
    }

    /// The record of a name, made if there is none.
    pub(super) fn entry(&mut self, key: &K, origin: Origin) -> &mut Record<T> {
        self.records.entry(key.clone()).or_insert_with(|| Record::new(origin))
    }

    /// Whether these very bytes are what was accepted last under a name.
    pub(super) fn is_unchanged<Q: Hash + Eq + ?Sized>(&self, key: &Q, raw: &[u8]) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).and_then(Record::newest).is_some_and(|held| held.raw == raw)
    }

    /// The accepted version came again: it has a new version text, and no error any more.
    pub(super) fn confirm<Q: Hash + Eq + ?Sized>(&mut self, key: &Q, version: &Arc<str>)
    where
        K: Borrow<Q>,
    {
        if let Some(record) = self.get_mut(key) {
            record.rejected = None;
            if record.origin == Origin::Disk {
                record.origin = Origin::Dynamic;
            }
            if let Some(held) = record.newest_mut() {
                held.version = version.clone();
            }
        }
    }

    /// Puts a version in service at once, and gives back the one it replaces.
    pub(super) fn activate(&mut self, key: &K, origin: Origin, held: Held<T>) -> Option<Held<T>> {
        let record = self.entry(key, origin);
        record.origin = origin;
        record.rejected = None;
        record.active.replace(held)
    }

    /// Sets a version beside the one in service, and gives back the one that was waiting there.
    pub(super) fn warm(&mut self, key: &K, origin: Origin, held: Held<T>) -> Option<Held<T>> {
        let record = self.entry(key, origin);
        record.origin = origin;
        record.rejected = None;
        let before = record.warming.replace(held);
        if before.is_none() {
            self.warming += 1;
        }
        before
    }

    /// Takes the waiting version away.
    pub(super) fn unwarm<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<Held<T>>
    where
        K: Borrow<Q>,
    {
        let held = self.get_mut(key)?.warming.take();
        if held.is_some() {
            self.warming -= 1;
        }
        held
    }

    /// Forgets a name.
    pub(super) fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<Record<T>>
    where
        K: Borrow<Q>,
    {
        let record = self.records.remove(key)?;
        if record.warming.is_some() {
            self.warming -= 1;
        }
        Some(record)
    }

    /// Keeps the error of a version that was not accepted; what is in service stays there.
    pub(super) fn reject(&mut self, key: &K, rejected: Rejected) {
        self.entry(key, Origin::Dynamic).rejected = Some(Box::new(rejected));
    }
}
