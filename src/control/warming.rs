//! What each new version of a cluster or listener still waits for, and until when.
//!
//! Pure bookkeeping: time comes in, names of what is warm come out. Every operation costs the
//! number of things one version waits for, whatever the number of versions that wait.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::Instant;

use super::follow::{User, Want};
use super::store::Map;

/// One version that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct WaitId(u64);

#[derive(Debug)]
struct Wait {
    user: User,
    /// What has not come, and when waiting for it ends.
    left: SmallVec<[(Want, Option<Instant>); 1]>,
}

/// Everything that waits.
#[derive(Debug, Default)]
pub(super) struct Warming {
    last: u64,
    waits: Map<WaitId, Wait>,
    /// A user has at most one version that waits.
    clusters: Map<Arc<str>, WaitId>,
    listeners: Map<Arc<str>, WaitId>,
    by_want: Map<Want, SmallVec<[WaitId; 1]>>,
    deadlines: BTreeSet<(Instant, WaitId)>,
}

/// Waits that lasted too long.
#[derive(Debug)]
pub(super) struct Expired {
    /// Who waits for nothing any more.
    pub(super) warm: Vec<User>,
    /// What did not come in time.
    pub(super) missed: BTreeSet<Want>,
}

impl Warming {
    /// A version of `user` waits for `wants`, each with its `initial_fetch_timeout` (none is for
    /// ever). An earlier version that waited is forgotten.
    pub(super) fn start(
        &mut self,
        user: User,
        wants: impl IntoIterator<Item = (Want, Option<Duration>)>,
        now: Instant,
    ) {
        self.cancel(&user);
        let end = |timeout: Duration| now.checked_add(timeout);
        let left = wants.into_iter().map(|(want, timeout)| (want, timeout.and_then(end)));
        self.begin(user, left.collect());
    }

    fn begin(&mut self, user: User, left: SmallVec<[(Want, Option<Instant>); 1]>) {
        self.last += 1;
        let id = WaitId(self.last);
        for (want, end) in &left {
            self.by_want.entry(want.clone()).or_default().push(id);
            if let Some(end) = end {
                self.deadlines.insert((*end, id));
            }
        }
        self.index(&user).insert(name(&user).clone(), id);
        self.waits.insert(id, Wait { user, left });
    }

    /// A version of `user` waits for one thing, as long as it takes.
    pub(super) fn start_endless(&mut self, user: User, want: Want) {
        self.cancel(&user);
        self.begin(user, SmallVec::from_buf([(want, None)]));
    }

    /// The version of `user` that waits does so no more.
    pub(super) fn cancel(&mut self, user: &User) {
        let Some(id) = self.index(user).remove(name(user)) else { return };
        let Some(wait) = self.waits.remove(&id) else { return };
        for (want, end) in wait.left {
            self.unlist(&want, id);
            if let Some(end) = end {
                self.deadlines.remove(&(end, id));
            }
        }
    }

    /// A name came, or is known not to exist. Returns who waits for nothing any more.
    pub(super) fn satisfy(&mut self, want: &Want) -> Vec<User> {
        let ids = self.by_want.remove(want).unwrap_or_default();
        let mut warm = Vec::new();
        for id in ids {
            let Some(wait) = self.waits.get_mut(&id) else { continue };
            let over = |(w, end): &(Want, Option<Instant>)| (w == want).then_some(*end);
            for end in wait.left.iter().filter_map(over).flatten() {
                // Two wants may end together; the entry must outlive the first of them.
                let shared = wait.left.iter().any(|(w, e)| w != want && *e == Some(end));
                if !shared {
                    self.deadlines.remove(&(end, id));
                }
            }
            wait.left.retain(|(w, _)| w != want);
            if wait.left.is_empty() {
                warm.extend(self.finish(id));
            }
        }
        warm
    }

    /// Ends the waits that have lasted long enough.
    pub(super) fn expire(&mut self, now: Instant) -> Expired {
        let mut warm = Vec::new();
        let mut missed = BTreeSet::new();
        while let Some(&(end, id)) = self.deadlines.first() {
            if end > now {
                break;
            }
            self.deadlines.pop_first();
            let Some(wait) = self.waits.get_mut(&id) else { continue };
            let is_over = |e: &Option<Instant>| e.is_some_and(|e| e <= now);
            let over: Vec<Want> =
                wait.left.iter().filter(|(_, e)| is_over(e)).map(|(w, _)| w.clone()).collect();
            wait.left.retain(|(_, e)| !is_over(e));
            let done = wait.left.is_empty();
            for want in over {
                self.unlist(&want, id);
                missed.insert(want);
            }
            if done {
                warm.extend(self.finish(id));
            }
        }
        Expired { warm, missed }
    }

    /// When [`Self::expire`] next has something to do.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.deadlines.first().map(|(end, _)| *end)
    }

    fn finish(&mut self, id: WaitId) -> Option<User> {
        let Wait { user, left: _ } = self.waits.remove(&id)?;
        self.index(&user).remove(name(&user));
        Some(user)
    }

    fn unlist(&mut self, want: &Want, id: WaitId) {
        if let Some(ids) = self.by_want.get_mut(want) {
            ids.retain(|i| *i != id);
            if ids.is_empty() {
                self.by_want.remove(want);
            }
        }
    }

    fn index(&mut self, user: &User) -> &mut Map<Arc<str>, WaitId> {
        match user {
            User::Cluster(_) => &mut self.clusters,
            User::Listener(_) => &mut self.listeners,
        }
    }
}

fn name(user: &User) -> &Arc<str> {
    match user {
        User::Cluster(name) | User::Listener(name) => name,
    }
}

#[cfg(test)]
mod tests {
    use super::super::follow::Follow;
    use super::*;
    use crate::xds::{ResourceType, Source};

    fn want(name: &str) -> Want {
        let source = Follow::default().source(&Source::Ads);
        Want { source, ty: ResourceType::Routes, name: name.into() }
    }

    fn listener(name: &str) -> User {
        User::Listener(name.into())
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn all_that_is_waited_for_must_come() {
        let (mut warming, now) = (Warming::default(), Instant::now());
        let wants = [(want("a"), Some(SECOND)), (want("b"), Some(SECOND))];
        warming.start(listener("l"), wants, now);
        assert_eq!(warming.satisfy(&want("a")), []);
        assert_eq!(warming.next_end(), Some(now + SECOND), "the other is still timed");
        assert_eq!(warming.satisfy(&want("b")), [listener("l")]);
        assert_eq!(warming.next_end(), None);
        assert_eq!(warming.satisfy(&want("b")), []);
    }

    #[test]
    fn each_name_has_its_own_deadline() {
        let (mut warming, now) = (Warming::default(), Instant::now());
        let wants = [(want("a"), Some(SECOND)), (want("b"), Some(2 * SECOND))];
        warming.start(listener("l"), wants, now);
        warming.start(listener("m"), [(want("a"), None)], now);
        assert_eq!(warming.expire(now + SECOND).warm, []);
        let Expired { warm, missed } = warming.expire(now + 2 * SECOND);
        assert_eq!((warm, missed), (vec![listener("l")], [want("b")].into()));
        assert_eq!(warming.next_end(), None, "the other waits for ever");
        assert_eq!(warming.satisfy(&want("a")), [listener("m")]);
        assert!(warming.by_want.is_empty() && warming.waits.is_empty());
    }

    #[test]
    fn a_version_that_is_replaced_waits_no_more() {
        let (mut warming, now) = (Warming::default(), Instant::now());
        warming.start(listener("l"), [(want("a"), Some(SECOND))], now);
        warming.start(listener("l"), [(want("b"), None)], now);
        assert_eq!(warming.next_end(), None);
        assert_eq!(warming.satisfy(&want("a")), []);
        assert_eq!(warming.satisfy(&want("b")), [listener("l")]);
        assert!(warming.by_want.is_empty() && warming.waits.is_empty());
        assert!(warming.listeners.is_empty());
    }
}
