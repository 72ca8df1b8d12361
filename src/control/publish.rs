//! When the next snapshot is due, and which parts of it must be built anew.
//!
//! One burst of updates makes one snapshot. Building one costs time in proportion to what is in
//! it, so the next waits a few times as long as the last took: however fast updates come, no more
//! than a fifth of control's time goes into snapshots.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::snapshot::Snapshot;

/// Below this a snapshot costs nothing worth saving.
const CHEAP: Duration = Duration::from_micros(200);
/// The longest wait: no change is held back so long that anybody notices.
const LONGEST: Duration = Duration::from_millis(100);

/// Which parts of the snapshot changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Dirty {
    pub(super) clusters: bool,
    pub(super) routes: bool,
    pub(super) listeners: bool,
    pub(super) extensions: bool,
    pub(super) secrets: bool,
}

/// The last snapshot and what has changed since.
#[derive(Debug, Default)]
pub(super) struct Publish {
    pub(super) current: Arc<Snapshot>,
    pub(super) dirty: Dirty,
    not_before: Option<Instant>,
}

impl Publish {
    /// What changed, if anything did.
    pub(super) fn take_dirty(&mut self) -> Option<Dirty> {
        let dirty = std::mem::take(&mut self.dirty);
        (dirty != Dirty::default()).then_some(dirty)
    }

    /// When the next snapshot should be built; none while nothing changed.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        (self.dirty != Dirty::default()).then(|| self.not_before.map_or(now, |at| at.max(now)))
    }

    /// Building and sending one took so long.
    pub(super) fn took(&mut self, cost: Duration, now: Instant) {
        self.not_before = (cost > CHEAP).then(|| now + (4 * cost).min(LONGEST));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dear_snapshots_come_less_often() {
        let now = Instant::now();
        let mut publish = Publish::default();
        assert_eq!(publish.due(now), None);
        publish.dirty.routes = true;
        assert_eq!(publish.due(now), Some(now));
        publish.took(Duration::from_millis(2), now);
        assert_eq!(publish.due(now), Some(now + Duration::from_millis(8)));
        publish.took(Duration::from_secs(9), now);
        assert_eq!(publish.due(now), Some(now + LONGEST));
        publish.took(Duration::from_micros(20), now);
        assert_eq!(publish.due(now), Some(now));
        assert_eq!(publish.take_dirty(), Some(Dirty { routes: true, ..Dirty::default() }));
        assert_eq!(publish.due(now), None);
    }
}
