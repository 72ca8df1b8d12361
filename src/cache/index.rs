//! Which stored responses a purge hits: how many, at once, and which, when they are next looked at.
//!
//! Every response counts in the places that its URL lies in: all, its host, each directory of its path, the
//! URL itself; and in its tags. To purge a place is to write down there when it was done: what was begun
//! before is dead from then on, wherever it still lies, and a sweep clears it away later. The counts answer
//! how many that were. Counts of places below are put right when somebody next comes by them.
//!
//! Patterns that are no place, such as `/a*b`, are kept in a list until a sweep has been everywhere.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use smallvec::SmallVec;

use super::entry::Entry;
use super::glob::UrlPattern;
use super::key::Key;

/// Directories deeper than this count with the last of them.
const DEEPEST: usize = 16;

/// Purges that are remembered for the sake of fills under way. What a fill brings that is older than those
/// that were forgotten is not stored.
const MOST_RULES: usize = 1_024;

/// What a purge is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Everything.
    Everything,
    /// One URL, with its query; everywhere if the host is `None`.
    Url(Option<Box<str>>, Box<str>),
    /// All URLs of a pattern.
    Pattern(UrlPattern),
    /// All responses with a tag.
    Tag(Box<[u8]>),
}

impl Scope {
    /// The URL of a key, whatever else counts in the key.
    pub fn url_of(key: &Key) -> Self {
        let (host, path) = key.place();
        Self::Url(Some(host.into()), path.into())
    }

    /// Whether it is for a stored response.
    pub fn speaks_of(&self, key: &Key, entry: &Entry) -> bool {
        self.holds(key, entry.tags())
    }

    fn holds<'a>(&self, key: &Key, mut tags: impl Iterator<Item = &'a [u8]>) -> bool {
        let (host, path) = key.place();
        match self {
            Self::Everything => true,
            Self::Url(wanted, url) => {
                wanted.as_ref().is_none_or(|wanted| **wanted == *host) && **url == *path
            }
            Self::Pattern(pattern) => pattern.matches(host, path),
            Self::Tag(tag) => tags.any(|has| *has == **tag),
        }
    }
}

/// What became of a response by the purges since its fill began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    Good,
    /// It counts as stale.
    Marked,
    /// It is not to be used.
    Dead,
}

#[derive(Debug, Default, Clone, Copy)]
struct Node {
    /// Responses in it, as of `as_of`.
    live: u64,
    /// The last purge of it or of a place around it that `live` has taken note of.
    as_of: u64,
    /// When it was last purged.
    purged: u64,
    /// When it was last marked stale.
    marked: u64,
}

impl Node {
    fn settle(&mut self, purged: u64) {
        if self.as_of < purged {
            self.live = 0;
            self.as_of = purged;
        }
    }

    fn is_idle(&self) -> bool {
        self.live == 0 && self.purged == 0 && self.marked == 0
    }
}

/// Places, tags, and purges. Its clock goes up by one with each purge and each fill.
#[derive(Debug, Default)]
pub(super) struct Index {
    clock: u64,
    hasher: RandomState,
    places: HashMap<u64, Node, RandomState>,
    hosts: HashSet<u64, RandomState>,
    tags: HashMap<u64, Node, RandomState>,
    /// Where purges are written down that a sweep has not made needless yet.
    written: Vec<(Slot, u64)>,
    /// Patterns that are no place.
    patterns: Vec<(u64, UrlPattern, bool)>,
    /// Fills under way, by when they began.
    fills: BTreeSet<u64>,
    /// Purges since the oldest of them.
    rules: VecDeque<(u64, Scope, bool)>,
    /// Purges up to here are forgotten, though there may be older fills.
    forgotten: u64,
}

#[derive(Debug, Clone, Copy)]
enum Slot {
    Place(u64),
    Tag(u64),
}

/// The places of a URL, from all to itself.
type Chain = SmallVec<[u64; 8]>;

/// How a purge is found to lie.
enum Lies {
    Everywhere,
    /// A directory (true) or a URL (false) of one host or of all.
    In(Option<Box<str>>, Box<str>, bool),
    Nowhere(UrlPattern),
    Tag(Box<[u8]>),
}

impl Index {
    /// A fill begins.
    pub(super) fn begin(&mut self) -> u64 {
        self.clock += 1;
        self.fills.insert(self.clock);
        self.clock
    }

    /// It is over.
    pub(super) fn end(&mut self, begun: u64) {
        self.fills.remove(&begun);
        let oldest = self.fills.first().copied().unwrap_or(u64::MAX);
        while self.rules.front().is_some_and(|(at, ..)| *at < oldest) {
            self.rules.pop_front();
        }
    }

    /// The time of the last purge or fill.
    pub(super) fn now(&self) -> u64 {
        self.clock
    }

    /// What became of what a fill brings that is still under way.
    pub(super) fn standing_of_fill(&self, key: &Key, entry: &Entry, begun: u64) -> Standing {
        if begun <= self.forgotten {
            return Standing::Dead;
        }
        let since = self.rules.iter().filter(|(at, ..)| *at > begun);
        let hit = since.filter(|(_, scope, _)| scope.holds(key, entry.tags()));
        hit.map(|(.., soft)| if *soft { Standing::Marked } else { Standing::Dead })
            .max()
            .unwrap_or(Standing::Good)
    }

    /// Whether no purge is of what a fill will bring. Before there is a head its tags may be any.
    pub(super) fn outlived(&self, key: &Key, head: Option<&Entry>, begun: u64) -> bool {
        if let Some(head) = head {
            return self.standing_of_fill(key, head, begun) == Standing::Good;
        }
        let may_hold =
            |scope: &Scope| matches!(scope, Scope::Tag(_)) || scope.holds(key, std::iter::empty());
        begun > self.forgotten
            && !self.rules.iter().any(|(at, scope, _)| *at > begun && may_hold(scope))
    }

    /// What became of a stored response.
    pub(super) fn standing(&self, key: &Key, entry: &Entry) -> Standing {
        self.standing_without(key, entry, None)
    }

    /// The same, as if there had not been the purge of a pattern that was at a time.
    pub(super) fn standing_without(
        &self,
        key: &Key,
        entry: &Entry,
        purge: Option<u64>,
    ) -> Standing {
        let (mut purged, mut marked) = (0, 0);
        let mut see = |node: Option<&Node>| {
            if let Some(node) = node {
                purged = purged.max(node.purged);
                marked = marked.max(node.marked);
            }
        };
        self.chain(key).iter().for_each(|place| see(self.places.get(place)));
        entry.tags().for_each(|tag| see(self.tags.get(&self.tag(tag))));
        let (host, path) = key.place();
        for (at, pattern, soft) in &self.patterns {
            if *at > entry.begun && Some(*at) != purge && pattern.matches(host, path) {
                let last = if *soft { &mut marked } else { &mut purged };
                *last = (*last).max(*at);
            }
        }
        match entry.begun {
            begun if begun < purged => Standing::Dead,
            begun if begun < marked => Standing::Marked,
            _ => Standing::Good,
        }
    }

    /// A good response is stored.
    pub(super) fn add(&mut self, key: &Key, entry: &Entry) {
        let chain = self.chain(key);
        if let Some(host) = chain.get(1) {
            self.hosts.insert(*host);
        }
        let mut purged = 0;
        for place in chain {
            let node = self.places.entry(place).or_default();
            purged = purged.max(node.purged);
            node.settle(purged);
            node.live += 1;
        }
        for tag in entry.tags() {
            self.tags.entry(self.hasher.hash_one(tag)).or_default().live += 1;
        }
    }

    /// A response is stored no more, dead or not.
    pub(super) fn remove(&mut self, key: &Key, entry: &Entry) {
        let chain = self.chain(key);
        let purges = chain.iter().filter_map(|place| self.places.get(place)).map(|n| n.purged);
        let counts = purges.max().unwrap_or(0) < entry.begun;
        let mut purged = 0;
        for (depth, place) in chain.iter().enumerate() {
            let Some(node) = self.places.get_mut(place) else { continue };
            purged = purged.max(node.purged);
            node.settle(purged);
            if counts {
                node.live = node.live.saturating_sub(1);
            }
            if node.is_idle() {
                self.places.remove(place);
                if depth == 1 {
                    self.hosts.remove(place);
                }
            }
        }
        for tag in entry.tags() {
            let tag = self.hasher.hash_one(tag);
            let Some(node) = self.tags.get_mut(&tag) else { continue };
            if node.purged < entry.begun {
                node.live = node.live.saturating_sub(1);
            }
            if node.is_idle() {
                self.tags.remove(&tag);
            }
        }
    }

    /// Everything of a scope is dead from now on, or marked stale. How many that are; `None` if they must be
    /// counted one by one.
    pub(super) fn purge(&mut self, scope: &Scope, soft: bool) -> Option<u64> {
        self.clock += 1;
        self.remember(scope, soft);
        match lies(scope) {
            Lies::Everywhere => Some(self.purge_chain(&[ALL], soft)),
            Lies::In(Some(host), path, is_directory) => {
                let host = self.host(&host);
                Some(self.purge_place(host, &path, is_directory, soft))
            }
            Lies::In(None, path, is_directory) => {
                let hosts: Vec<u64> = self.hosts.iter().copied().collect();
                let hit = hosts.into_iter().map(|h| self.purge_place(h, &path, is_directory, soft));
                Some(hit.sum())
            }
            Lies::Nowhere(pattern) => {
                // One that comes again and again must not make the list longer than sweeps make it shorter.
                self.patterns.retain(|(_, known, was_soft)| *known != pattern || soft && !was_soft);
                self.patterns.push((self.clock, pattern, soft));
                None
            }
            Lies::Tag(tag) => {
                let tag = self.tag(&tag);
                // Nothing has it, and what is being filled is seen to elsewhere.
                let Some(node) = self.tags.get_mut(&tag) else { return Some(0) };
                let hit = node.live;
                if soft {
                    node.marked = self.clock;
                } else {
                    node.purged = self.clock;
                    node.live = 0;
                }
                self.written.push((Slot::Tag(tag), self.clock));
                Some(hit)
            }
        }
    }

    /// A purge for the sake of fills under way alone: its caller takes away what is stored.
    pub(super) fn remember(&mut self, scope: &Scope, soft: bool) {
        if self.fills.is_empty() {
            return;
        }
        if self.rules.len() == MOST_RULES
            && let Some((at, ..)) = self.rules.pop_front()
        {
            self.forgotten = at;
        }
        self.rules.push_back((self.clock, scope.clone(), soft));
    }

    /// Like [`Index::remember`], at a time of its own.
    pub(super) fn remember_now(&mut self, scope: &Scope) {
        self.clock += 1;
        self.remember(scope, false);
    }

    /// A sweep that began at this time has seen everything, and taken away what was dead.
    pub(super) fn swept(&mut self, since: u64) {
        self.patterns.retain(|(at, ..)| *at > since);
        let mut later = Vec::new();
        for (slot, at) in std::mem::take(&mut self.written) {
            if at > since {
                later.push((slot, at));
                continue;
            }
            let (nodes, id) = match slot {
                Slot::Place(id) => (&mut self.places, id),
                Slot::Tag(id) => (&mut self.tags, id),
            };
            let Some(node) = nodes.get_mut(&id) else { continue };
            for last in [&mut node.purged, &mut node.marked] {
                if *last <= since {
                    *last = 0;
                }
            }
            if node.is_idle() {
                nodes.remove(&id);
                if matches!(slot, Slot::Place(_)) {
                    self.hosts.remove(&id);
                }
            }
        }
        self.written = later;
    }

    /// Whether no purge is written down any more.
    #[cfg(test)]
    pub(super) fn is_swept(&self) -> bool {
        self.written.is_empty() && self.patterns.is_empty()
    }

    fn purge_place(&mut self, host: u64, path: &str, is_directory: bool, soft: bool) -> u64 {
        let chain = self.chain_below(host, path, is_directory);
        self.purge_chain(&chain, soft)
    }

    fn purge_chain(&mut self, chain: &[u64], soft: bool) -> u64 {
        let mut purged = 0;
        for place in chain {
            // Nothing lies in a place that is not there.
            let Some(node) = self.places.get_mut(place) else { return 0 };
            purged = purged.max(node.purged);
            node.settle(purged);
        }
        let Some((last, around)) = chain.split_last() else { return 0 };
        let Some(node) = self.places.get_mut(last) else { return 0 };
        let hit = node.live;
        self.written.push((Slot::Place(*last), self.clock));
        if soft {
            node.marked = self.clock;
            return hit;
        }
        node.purged = self.clock;
        node.settle(self.clock);
        for place in around {
            if let Some(node) = self.places.get_mut(place) {
                node.live = node.live.saturating_sub(hit);
            }
        }
        hit
    }

    fn tag(&self, tag: &[u8]) -> u64 {
        self.hasher.hash_one(tag)
    }

    fn host(&self, host: &str) -> u64 {
        self.hasher.hash_one(host)
    }

    fn chain(&self, key: &Key) -> Chain {
        let (host, path) = key.place();
        self.chain_below(self.host(host), path, false)
    }

    /// Of a directory, that is its path with the slash at its end, or of a URL.
    fn chain_below(&self, host: u64, path: &str, is_directory: bool) -> Chain {
        let mut chain: Chain = smallvec::smallvec![ALL, host];
        let end = path.find('?').unwrap_or(path.len());
        let slashes = path[..end].match_indices('/').map(|(at, _)| at + 1);
        for end in slashes.take(DEEPEST) {
            chain.push(self.hasher.hash_one((host, true, &path[..end])));
        }
        if !is_directory {
            chain.push(self.hasher.hash_one((host, false, path)));
        }
        chain
    }
}

/// The place of everything.
const ALL: u64 = 0;

fn lies(scope: &Scope) -> Lies {
    let pattern = match scope {
        Scope::Everything => return Lies::Everywhere,
        Scope::Url(host, path) => return Lies::In(host.clone(), path.clone(), false),
        Scope::Tag(tag) => return Lies::Tag(tag.clone()),
        Scope::Pattern(pattern) => pattern,
    };
    if let Some(path) = pattern.path.exact() {
        return Lies::In(pattern.host.clone(), path.into(), false);
    }
    match pattern.path.prefix() {
        Some("" | "/") if pattern.host.is_none() => Lies::Everywhere,
        Some("") => Lies::In(pattern.host.clone(), "/".into(), true),
        Some(path) if is_directory(path) => Lies::In(pattern.host.clone(), path.into(), true),
        _ => Lies::Nowhere(pattern.clone()),
    }
}

fn is_directory(path: &str) -> bool {
    path.ends_with('/') && !path.contains('?') && path.matches('/').count() <= DEEPEST
}

#[cfg(test)]
mod tests;
