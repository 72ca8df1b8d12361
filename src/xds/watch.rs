//! Directories in which files are replaced by rename.
//!
//! One watcher for all files, as the system grants few.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use notify::event::ModifyKind;
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use parking_lot::Mutex;
use tokio::sync::Notify;

type Bells = Arc<Mutex<HashMap<PathBuf, Vec<Weak<Notify>>>>>;

/// Rings a bell when anything is renamed in a directory.
#[derive(Default)]
pub(super) struct DirectoryWatch {
    watcher: Mutex<Option<RecommendedWatcher>>,
    bells: Bells,
}

impl DirectoryWatch {
    /// Rings `bell` from now on. Bells that were dropped are forgotten; their directory stays
    /// watched, which costs an entry.
    pub(super) fn add(&self, directory: &Path, bell: &Arc<Notify>) -> notify::Result<()> {
        let mut watcher = self.watcher.lock();
        let watcher = match &mut *watcher {
            Some(watcher) => watcher,
            none => none.insert(start(self.bells.clone())?),
        };
        let first = !self.bells.lock().contains_key(directory);
        if first {
            watcher.watch(directory, RecursiveMode::NonRecursive)?;
        }
        let mut bells = self.bells.lock();
        let bells = bells.entry(directory.to_owned()).or_default();
        bells.retain(|bell| bell.strong_count() > 0);
        bells.push(Arc::downgrade(bell));
        Ok(())
    }
}

fn start(bells: Bells) -> notify::Result<RecommendedWatcher> {
    notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let ring = |list: &Vec<Weak<Notify>>| {
            list.iter().filter_map(Weak::upgrade).for_each(|bell| bell.notify_one());
        };
        match event {
            // Events were lost: any file may have been replaced.
            Err(_) => bells.lock().values().for_each(ring),
            Ok(event) if event.need_rescan() => bells.lock().values().for_each(ring),
            Ok(event) if matches!(event.kind, EventKind::Modify(ModifyKind::Name(_))) => {
                let bells = bells.lock();
                event.paths.iter().filter_map(|p| bells.get(p.parent()?)).for_each(ring);
            }
            Ok(_) => {}
        }
    })
}
