//! Which names are wanted at which source, and by whom: LDS to RDS and ECDS, CDS to EDS.
//!
//! Users of one name share one subscription. Changes are gathered while an update is applied and
//! leave as one list a source and type, before the verdict, so that a server hears what we want
//! next no later than that we took what it sent.

use std::collections::BTreeMap;
use std::sync::Arc;

use foldhash::fast::FixedState;
use indexmap::IndexSet;
use smallvec::SmallVec;

use super::Effect;
use super::store::Map;
use crate::xds::{ResourceType, Source};

/// A source by number, so that a want is small and quick to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SourceId(u32);

/// One name at one source.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Want {
    pub(super) source: SourceId,
    pub(super) ty: ResourceType,
    pub(super) name: Arc<str>,
}

/// Who wants a name: a cluster wants endpoints, a listener route tables and extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum User {
    Cluster(Arc<str>),
    Listener(Arc<str>),
}

/// What is to be told to a source about names of one type.
#[derive(Debug, Default)]
struct News {
    unsubscribe: IndexSet<Arc<str>, FixedState>,
    subscribe: IndexSet<Arc<str>, FixedState>,
}

/// Every name wanted.
#[derive(Debug, Default)]
pub(super) struct Follow {
    sources: Vec<Arc<Source>>,
    ids: Map<Arc<Source>, SourceId>,
    /// A user is listed once for each of its versions: the one in service and the one warming.
    users: Map<Want, SmallVec<[User; 1]>>,
    news: BTreeMap<(SourceId, ResourceType), News>,
}

impl Follow {
    /// The number of a source; a new one is remembered for good.
    pub(super) fn source(&mut self, source: &Source) -> SourceId {
        if let Some(id) = self.ids.get(source) {
            return *id;
        }
        let id = SourceId(u32::try_from(self.sources.len()).unwrap_or(u32::MAX));
        let source = Arc::new(source.clone());
        self.sources.push(source.clone());
        self.ids.insert(source, id);
        id
    }

    /// The number of a source that has been subscribed at.
    pub(super) fn known(&self, source: &Source) -> Option<SourceId> {
        self.ids.get(source).copied()
    }

    /// A version of `user` wants a name. True if nobody did before.
    pub(super) fn add(&mut self, want: &Want, user: User) -> bool {
        let users = self.users.entry(want.clone()).or_default();
        users.push(user);
        let first = users.len() == 1;
        if first {
            self.subscribe(want);
        }
        first
    }

    /// A version of `user` wants a name no more. True if nobody does now: what is held of it
    /// should be forgotten, as a later subscription brings it again.
    pub(super) fn release(&mut self, want: &Want, user: &User) -> bool {
        let Some(users) = self.users.get_mut(want) else { return false };
        if let Some(at) = users.iter().position(|u| u == user) {
            users.swap_remove(at);
        }
        if !users.is_empty() {
            return false;
        }
        self.users.remove(want);
        self.unsubscribe(want);
        true
    }

    /// Makes the source send a name again, though it believes that we have it.
    pub(super) fn again(&mut self, want: &Want) {
        let news = self.news(want);
        news.unsubscribe.insert(want.name.clone());
        news.subscribe.insert(want.name.clone());
    }

    /// Subscribes to a name that no user wants.
    pub(super) fn subscribe(&mut self, want: &Want) {
        self.news(want).subscribe.insert(want.name.clone());
    }

    /// Takes [`Self::subscribe`] back.
    pub(super) fn unsubscribe(&mut self, want: &Want) {
        let news = self.news(want);
        // A subscription the source has not heard of is simply withdrawn.
        if !news.subscribe.swap_remove(&want.name) || news.unsubscribe.contains(&want.name) {
            news.unsubscribe.insert(want.name.clone());
        }
    }

    /// The source of a number.
    pub(super) fn at(&self, source: SourceId) -> Option<Arc<Source>> {
        self.sources.get(source.0 as usize).cloned()
    }

    /// Who wants a name.
    pub(super) fn users(&self, want: &Want) -> &[User] {
        self.users.get(want).map_or(&[], SmallVec::as_slice)
    }

    /// Whether anybody wants a name.
    pub(super) fn is_wanted(&self, want: &Want) -> bool {
        self.users.contains_key(want)
    }

    /// Every name wanted of a type, at any source.
    pub(super) fn wanted(&self, ty: ResourceType) -> impl Iterator<Item = &Want> {
        self.users.keys().filter(move |want| want.ty == ty)
    }

    /// What the sources are to be told, unsubscriptions first.
    pub(super) fn flush(&mut self, effects: &mut Vec<Effect>) {
        for ((source, ty), News { unsubscribe, subscribe }) in std::mem::take(&mut self.news) {
            let Some(source) = self.sources.get(source.0 as usize) else { continue };
            if !unsubscribe.is_empty() {
                let names = unsubscribe.into_iter().collect();
                effects.push(Effect::Unsubscribe(source.clone(), ty, names));
            }
            if !subscribe.is_empty() {
                let names = subscribe.into_iter().collect();
                effects.push(Effect::Subscribe(source.clone(), ty, names));
            }
        }
    }

    fn news(&mut self, want: &Want) -> &mut News {
        self.news.entry((want.source, want.ty)).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(follow: &mut Follow) -> Vec<String> {
        let mut effects = Vec::new();
        follow.flush(&mut effects);
        let text = |e: &Effect| match e {
            Effect::Subscribe(_, _, names) => format!("+{}", names.join(",")),
            Effect::Unsubscribe(_, _, names) => format!("-{}", names.join(",")),
            Effect::SubscribeAll(..)
            | Effect::AddGrpc(..)
            | Effect::WatchDirectory(..)
            | Effect::Run(..)
            | Effect::Await(..) => "?".into(),
        };
        effects.iter().map(text).collect()
    }

    #[test]
    fn users_of_one_name_share_one_subscription() {
        let mut follow = Follow::default();
        let source = follow.source(&Source::Ads);
        let want = Want { source, ty: ResourceType::Endpoints, name: "e".into() };
        let (a, b) = (User::Cluster("a".into()), User::Cluster("b".into()));
        assert!(follow.add(&want, a.clone()));
        assert!(!follow.add(&want, b.clone()));
        assert_eq!(told(&mut follow), ["+e"]);
        assert!(!follow.release(&want, &a));
        assert!(told(&mut follow).is_empty());
        assert!(follow.release(&want, &b));
        assert_eq!(told(&mut follow), ["-e"]);
        assert!(!follow.release(&want, &b), "a second release changes nothing");
    }

    #[test]
    fn what_no_source_heard_of_is_not_told() {
        let mut follow = Follow::default();
        let source = follow.source(&Source::Ads);
        let want = Want { source, ty: ResourceType::Endpoints, name: "e".into() };
        let user = User::Cluster("a".into());
        follow.add(&want, user.clone());
        follow.release(&want, &user);
        assert!(told(&mut follow).is_empty());
        follow.add(&want, user.clone());
        told(&mut follow);
        follow.again(&want);
        assert_eq!(told(&mut follow), ["-e", "+e"]);
        follow.again(&want);
        follow.release(&want, &user);
        assert_eq!(told(&mut follow), ["-e"], "the source heard of the first subscription");
    }
}
