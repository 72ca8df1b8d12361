//! Resources that serve only while their server keeps repeating them.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;

/// When each named resource of one type ends. Resources without a time to live are not listed.
#[derive(Debug, Default)]
pub(super) struct Lifetimes {
    ends: HashMap<String, Instant>,
    order: BTreeSet<(Instant, String)>,
}

impl Lifetimes {
    /// A copy or a heartbeat arrived: its time starts again, or ends for good without `ttl`.
    pub(super) fn renew(&mut self, name: &str, ttl: Option<Duration>, now: Instant) {
        self.forget(name);
        // A time past the end of the clock is for ever.
        if let Some(end) = ttl.and_then(|ttl| now.checked_add(ttl)) {
            self.ends.insert(name.to_owned(), end);
            self.order.insert((end, name.to_owned()));
        }
    }

    pub(super) fn forget(&mut self, name: &str) {
        if let Some((name, end)) = self.ends.remove_entry(name) {
            self.order.remove(&(end, name));
        }
    }

    /// Keeps only the names for which `keep` holds.
    pub(super) fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.ends.retain(|name, _| keep(name));
        self.order.retain(|(_, name)| keep(name));
    }

    /// When the first one ends.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.order.first().map(|(end, _)| *end)
    }

    /// Takes out the names whose time is over.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<String> {
        let mut over = Vec::new();
        while self.next_end().is_some_and(|end| end <= now) {
            if let Some((_, name)) = self.order.pop_first() {
                self.ends.remove(&name);
                over.push(name);
            }
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_ends_unless_it_is_repeated() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let ttl = Some(Duration::from_secs(10));
        let mut lives = Lifetimes::default();
        lives.renew("a", ttl, at(0));
        lives.renew("b", ttl, at(0));
        lives.renew("c", ttl, at(0));
        lives.renew("forever", Some(Duration::MAX), at(0));
        lives.renew("b", ttl, at(5));
        lives.renew("c", None, at(5));
        assert_eq!(lives.next_end(), Some(at(10)));
        assert_eq!(lives.expire(at(9)), Vec::<String>::new());
        assert_eq!(lives.expire(at(12)), ["a"]);
        assert_eq!(lives.expire(at(15)), ["b"]);
        assert_eq!(lives.next_end(), None);
    }
}
