//! Wanted against sent: what one stream asked for of one type, and what it was given.
//!
//! The difference of the two is everything there is to say, in both variants of the protocol. Pure:
//! no I/O, no time.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::snapshot::{Resource, TypeSet};

/// The name that stands for every resource of a type.
pub(crate) const WILDCARD: &str = "*";

/// What a client was last told of one name.
#[derive(Debug, Clone)]
pub(crate) enum Sent {
    /// This resource.
    Resource(Arc<Resource>),
    /// Something of this version, on an earlier stream, says the client.
    Version(Arc<str>),
    /// That there is none.
    Absent,
}

impl Sent {
    fn is_version(&self, version: &str) -> bool {
        match self {
            Self::Resource(resource) => *resource.version == *version,
            Self::Version(known) => **known == *version,
            Self::Absent => false,
        }
    }
}

/// The subscription of one stream to one type.
#[derive(Debug, Default)]
pub(crate) struct Subscription {
    began: bool,
    wildcard: bool,
    /// The wildcard came from a first request without names and ends as the variant says.
    legacy: bool,
    /// The server chooses what is sent besides the names.
    chosen: bool,
    names: HashSet<Arc<str>>,
    sent: HashMap<Arc<str>, Sent>,
    /// Names to be answered whatever was sent before: unsubscribed while the wildcard holds them.
    owed: HashSet<Arc<str>>,
}

impl Subscription {
    /// Whether the client wants to be told of this name.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.wildcard || self.chosen || self.names.contains(name)
    }

    /// Whether the client wants every name.
    pub(crate) fn is_wildcard(&self) -> bool {
        self.wildcard
    }

    /// Leaves it to the server what is sent besides the names.
    pub(crate) fn leave_choice(&mut self) {
        self.chosen = true;
    }

    /// How many names the client asked for one by one.
    pub(crate) fn names(&self) -> usize {
        self.names.len()
    }

    /// State of the world: the list of names replaces the earlier one. `may_be_legacy` is whether an
    /// empty first list means everything. Returns whether a name was added.
    pub(crate) fn replace(&mut self, names: &[String], may_be_legacy: bool) -> bool {
        let first = !std::mem::replace(&mut self.began, true);
        if names.is_empty() && (self.legacy || first && may_be_legacy) {
            let added = !self.wildcard;
            (self.legacy, self.wildcard) = (true, true);
            return added;
        }
        let had_wildcard = self.wildcard;
        self.legacy = false;
        self.wildcard = names.iter().any(|n| n == WILDCARD);
        let mut added = self.wildcard && !had_wildcard;
        let mut next = HashSet::with_capacity(names.len());
        for name in names.iter().filter(|n| *n != WILDCARD) {
            let name = match self.names.get(name.as_str()) {
                Some(known) => Arc::clone(known),
                None => {
                    added = true;
                    name.as_str().into()
                }
            };
            next.insert(name);
        }
        self.names = next;
        self.forget_unwanted();
        added
    }

    /// Delta: takes the names of a request. A first request that subscribes to nothing means
    /// everything if `may_be_legacy`. A name that is subscribed again will be sent again.
    pub(crate) fn change(
        &mut self,
        subscribe: &[String],
        unsubscribe: &[String],
        may_be_legacy: bool,
    ) {
        let first = !std::mem::replace(&mut self.began, true);
        if first && subscribe.is_empty() && may_be_legacy {
            (self.legacy, self.wildcard) = (true, true);
        }
        for name in subscribe {
            self.owed.remove(name.as_str());
            if name == WILDCARD {
                self.wildcard = true;
                self.sent.clear();
            } else {
                self.sent.remove(name.as_str());
                self.names.insert(name.as_str().into());
            }
        }
        for name in unsubscribe {
            if name == WILDCARD {
                self.wildcard = false;
            } else {
                self.names.remove(name.as_str());
                self.sent.remove(name.as_str());
                if self.wildcard {
                    self.owed.insert(name.as_str().into());
                }
            }
        }
        if unsubscribe.iter().any(|n| n == WILDCARD) {
            self.owed.clear();
            self.forget_unwanted();
        }
    }

    /// Delta, first request of a stream: what the client says it still has.
    pub(crate) fn known<'a>(&mut self, versions: impl Iterator<Item = (&'a String, &'a String)>) {
        for (name, version) in versions {
            if self.wants(name) {
                self.sent.insert(name.as_str().into(), Sent::Version(version.as_str().into()));
            }
        }
    }

    /// State of the world: the client has all of `set` from an earlier stream.
    pub(crate) fn has_all(&mut self, set: &TypeSet) {
        let all = set.resources.iter().map(|(n, r)| (Arc::clone(n), Sent::Resource(Arc::clone(r))));
        self.sent = all.collect();
    }

    /// The next time this name is looked at, it is sent whatever was sent before. Returns whether it
    /// had been sent.
    pub(crate) fn forget(&mut self, name: &str) -> bool {
        self.sent.remove(name).is_some()
    }

    /// Whether the client was told of this name and not asked again since.
    pub(crate) fn was_sent(&self, name: &str) -> bool {
        self.sent.contains_key(name)
    }

    /// The wanted resources of `set`.
    pub(crate) fn wanted<'a>(
        &'a self,
        set: &'a TypeSet,
    ) -> Box<dyn Iterator<Item = &'a Arc<Resource>> + 'a> {
        if self.wildcard {
            return Box::new(set.resources.values());
        }
        let named = self.names.iter().filter_map(|name| set.get(name));
        if !self.chosen {
            return Box::new(named);
        }
        // Several names may lead to one. What the client has it follows, however it came.
        let has = self.sent.keys().filter_map(|name| set.resources.get(name));
        let mut seen = HashSet::new();
        let all = named.chain(set.given()).chain(has);
        Box::new(all.filter(move |resource| seen.insert(Arc::as_ptr(resource))))
    }

    /// The wanted resources of `set` that the client does not have in this version.
    pub(crate) fn changed<'a>(
        &'a self,
        set: &'a TypeSet,
    ) -> impl Iterator<Item = &'a Arc<Resource>> {
        self.wanted(set)
            .filter(|r| !self.sent.get(&r.name).is_some_and(|sent| sent.is_version(&r.version)))
    }

    /// Names that the client has and `set` has not.
    pub(crate) fn gone<'a>(&'a self, set: &'a TypeSet) -> impl Iterator<Item = &'a Arc<str>> {
        self.sent
            .iter()
            .filter(|(name, sent)| {
                !matches!(sent, Sent::Absent) && !set.resources.contains_key(&**name)
            })
            .map(|(name, _)| name)
    }

    /// Resources that the client was sent and `set` has not.
    pub(crate) fn held<'a>(&'a self, set: &'a TypeSet) -> impl Iterator<Item = &'a Arc<Resource>> {
        self.sent.iter().filter_map(|(name, sent)| match sent {
            Sent::Resource(resource) if !set.resources.contains_key(&**name) => Some(resource),
            _ => None,
        })
    }

    /// Names that were asked for, are not in `set`, and of which the client was told nothing yet.
    pub(crate) fn unknown<'a>(&'a self, set: &'a TypeSet) -> impl Iterator<Item = &'a Arc<str>> {
        let asked = self.names.iter().filter(|name| !self.sent.contains_key(*name));
        asked.chain(&self.owed).filter(|name| set.get(name).is_none())
    }

    /// Records that a resource was sent.
    pub(crate) fn send(&mut self, resource: &Arc<Resource>) {
        self.owed.remove(&resource.name);
        self.sent.insert(Arc::clone(&resource.name), Sent::Resource(Arc::clone(resource)));
    }

    /// Records that the client was told that there is no such resource.
    pub(crate) fn remove(&mut self, name: &Arc<str>) {
        self.owed.remove(name);
        if self.names.contains(name) {
            self.sent.insert(Arc::clone(name), Sent::Absent);
        } else {
            self.sent.remove(name);
        }
    }

    /// Drops the record of names that are not in `set`, for types where absence says nothing.
    pub(crate) fn drop_gone(&mut self, set: &TypeSet) {
        self.sent.retain(|name, _| set.get(name).is_some());
    }

    fn forget_unwanted(&mut self) {
        if !self.wildcard {
            let names = &self.names;
            self.sent.retain(|name, _| names.contains(name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(names: &[&str]) -> Vec<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    fn set(names: &[&str]) -> TypeSet {
        TypeSet::new(names.iter().map(|name| {
            Arc::new(Resource::new(*name, prost_types::Any::default(), Default::default()))
        }))
    }

    fn changed(subscription: &Subscription, set: &TypeSet) -> Vec<String> {
        let mut names: Vec<_> = subscription.changed(set).map(|r| r.name.to_string()).collect();
        names.sort();
        names
    }

    fn settle(subscription: &mut Subscription, set: &TypeSet) {
        let all: Vec<_> = subscription.changed(set).cloned().collect();
        all.iter().for_each(|r| subscription.send(r));
        let unknown: Vec<_> = subscription.unknown(set).cloned().collect();
        unknown.iter().for_each(|n| subscription.remove(n));
    }

    #[test]
    fn an_empty_first_list_means_all_until_a_name_is_given() {
        let mut sub = Subscription::default();
        assert!(sub.replace(&[], true));
        assert!(sub.is_wildcard());
        assert!(!sub.replace(&[], true), "still everything, nothing new");
        assert!(sub.is_wildcard());
        assert!(sub.replace(&strings(&["a"]), true));
        assert!(!sub.wants("b"));
        sub.replace(&[], true);
        assert!(!sub.wants("a"), "now an empty list means nothing");

        let mut sub = Subscription::default();
        sub.replace(&[], false);
        assert!(!sub.is_wildcard(), "not for the other types");
        sub.replace(&strings(&["*"]), false);
        assert!(sub.is_wildcard(), "but by name for any");
    }

    #[test]
    fn a_name_dropped_from_the_list_and_added_again_is_sent_again() {
        let (mut sub, set) = (Subscription::default(), set(&["a", "b"]));
        sub.replace(&strings(&["a", "b"]), false);
        settle(&mut sub, &set);
        assert!(changed(&sub, &set).is_empty());
        sub.replace(&strings(&["a"]), false);
        assert!(sub.replace(&strings(&["a", "b"]), false));
        assert_eq!(changed(&sub, &set), ["b"]);
    }

    #[test]
    fn a_name_subscribed_again_is_sent_again() {
        let (mut sub, set) = (Subscription::default(), set(&["a", "b"]));
        sub.change(&strings(&["a", "b", "c"]), &[], true);
        assert!(!sub.is_wildcard());
        assert_eq!(sub.unknown(&set).map(|n| &**n).collect::<Vec<_>>(), ["c"]);
        settle(&mut sub, &set);
        assert_eq!(sub.unknown(&set).count(), 0, "once is enough");
        sub.change(&strings(&["b", "c"]), &[], true);
        assert_eq!(changed(&sub, &set), ["b"]);
        assert_eq!(sub.unknown(&set).count(), 1);
    }

    #[test]
    fn a_legacy_wildcard_survives_names_in_delta() {
        let (mut sub, set) = (Subscription::default(), set(&["a", "b"]));
        sub.change(&[], &[], true);
        settle(&mut sub, &set);
        sub.change(&strings(&["a"]), &[], true);
        assert!(sub.is_wildcard());
        assert_eq!(changed(&sub, &set), ["a"]);
        settle(&mut sub, &set);
        sub.change(&[], &strings(&["*"]), true);
        assert!(sub.wants("a") && !sub.wants("b"));
    }

    #[test]
    fn a_name_unsubscribed_under_the_wildcard_is_answered() {
        let (mut sub, set) = (Subscription::default(), set(&["a"]));
        sub.change(&strings(&["*", "a", "x"]), &[], true);
        settle(&mut sub, &set);
        sub.change(&[], &strings(&["a", "x"]), true);
        assert_eq!(changed(&sub, &set), ["a"]);
        assert_eq!(sub.unknown(&set).map(|n| &**n).collect::<Vec<_>>(), ["x"]);
        settle(&mut sub, &set);
        assert!(changed(&sub, &set).is_empty() && sub.unknown(&set).count() == 0);
    }

    #[test]
    fn subscribing_and_unsubscribing_all_at_once_means_nothing() {
        let mut sub = Subscription::default();
        sub.change(&strings(&["*"]), &strings(&["*"]), true);
        assert!(!sub.wants("a"));
    }

    #[test]
    fn only_what_differs_from_what_is_known_is_sent() {
        let (mut sub, set) = (Subscription::default(), set(&["a", "b"]));
        sub.change(&[], &[], true);
        let same = set.get("a").unwrap().version.to_string();
        let known = [
            ("a".to_owned(), same),
            ("b".to_owned(), "old".to_owned()),
            ("c".to_owned(), "old".to_owned()),
        ];
        sub.known(known.iter().map(|(n, v)| (n, v)));
        assert_eq!(changed(&sub, &set), ["b"]);
        assert_eq!(sub.gone(&set).map(|n| &**n).collect::<Vec<_>>(), ["c"]);
    }
}
