//! What a filter keeps over the versions of its listener, and what the workers share of it.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::registry::FilterContext;

/// One thing for each place where a filter stands. Clones share them.
pub struct Kept<T>(Arc<Mutex<HashMap<FilterContext, Weak<T>>>>);

impl<T> Kept<T> {
    /// What is in use at a place, or a new one. A listener that is changed finds the old one's, since its
    /// workers take up the new version before they let go of the old; listeners that name the same place
    /// share it.
    pub fn get(&self, place: &FilterContext, make: impl FnOnce() -> T) -> Arc<T> {
        let mut kept = self.0.lock();
        if let Some(found) = kept.get(place).and_then(Weak::upgrade) {
            return found;
        }
        kept.retain(|_, thing| thing.strong_count() > 0);
        let made = Arc::new(make());
        kept.insert(place.clone(), Arc::downgrade(&made));
        made
    }

    /// What is in use at a place.
    pub fn find(&self, place: &FilterContext) -> Option<Arc<T>> {
        self.0.lock().get(place).and_then(Weak::upgrade)
    }

    /// All that is in use, by place.
    pub fn all(&self) -> Vec<(FilterContext, Arc<T>)> {
        let kept = self.0.lock();
        let in_use = kept.iter().filter_map(|(place, kept)| Some((place.clone(), kept.upgrade()?)));
        let mut all: Vec<_> = in_use.collect();
        all.sort_by(|(a, _), (b, _)| (&a.stat_prefix, &a.name).cmp(&(&b.stat_prefix, &b.name)));
        all
    }
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T> Clone for Kept<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_use_is_found_again_and_what_is_not_is_forgotten() {
        let kept = Kept::default();
        let place =
            |filter: &str| FilterContext { name: filter.into(), ..FilterContext::default() };
        let first = kept.get(&place("a"), || 1);
        assert_eq!((*kept.clone().get(&place("a"), || 2), *kept.get(&place("b"), || 3)), (1, 3));
        let in_use: Vec<i32> = kept.all().iter().map(|(_, kept)| **kept).collect();
        assert_eq!((in_use, kept.find(&place("b"))), (vec![1], None));
        drop(first);
        assert_eq!(*kept.get(&place("a"), || 4), 4);
        assert_eq!(kept.0.lock().len(), 1, "b is forgotten too");
    }
}
