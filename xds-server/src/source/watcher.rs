//! Watching folders for changes of the files in them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::warn;

use crate::problem::Problem;

/// Files are read when nothing has happened to them for this long: an edit is many events.
const QUIET: Duration = Duration::from_millis(50);
/// Files that never rest are read this often.
const LONGEST: Duration = Duration::from_millis(500);

/// Folders, and the news from them.
pub(super) struct FolderWatcher {
    watcher: RecommendedWatcher,
    watched: BTreeSet<PathBuf>,
    events: mpsc::Receiver<()>,
}

impl FolderWatcher {
    /// Watches nothing yet. Fails if the system has no more watches to give.
    pub(super) fn new() -> Result<Self, Problem> {
        // One waiting event says as much as many.
        let (tell, events) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading is an event, too, and ours must not make us read again.
            if !matches!(event, Ok(notify::Event { kind: EventKind::Access(_), .. })) {
                let _ = tell.try_send(());
            }
        })
        .map_err(|error| Problem::new(format!("cannot watch for changes: {error}")))?;
        Ok(Self { watcher, watched: BTreeSet::new(), events })
    }

    /// Watches each folder. Returns whether one of them was not watched before.
    pub(super) fn watch(&mut self, folders: BTreeSet<PathBuf>) -> bool {
        for gone in self.watched.difference(&folders) {
            // Fails if the folder itself is gone, and then there is nothing to undo.
            let _ = self.watcher.unwatch(gone);
        }
        let new = folders.difference(&self.watched).next().is_some();
        self.watched = folders;
        self.rewatch();
        new
    }

    /// A folder that was removed and made again has the same path and is not watched any more.
    pub(super) fn rewatch(&mut self) {
        for folder in &self.watched {
            if let Err(error) = self.watcher.watch(folder, RecursiveMode::NonRecursive)
                && folder.exists()
            {
                warn!(folder = %folder.display(), %error, "cannot watch a folder for changes");
            }
        }
    }

    /// Waits until something happened and it is quiet again.
    pub(super) async fn changed(&mut self) {
        if self.events.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
        let longest = Instant::now() + LONGEST;
        let settle = async { while let Ok(Some(())) = timeout(QUIET, self.events.recv()).await {} };
        let _ = timeout_at(longest, settle).await;
    }
}

/// The folders whose changes can change what `path` means: the one it is in and, through links, the
/// one it leads to.
pub(super) fn folders_of(path: &Path, folders: &mut BTreeSet<PathBuf>) {
    let parent = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    };
    folders.extend(parent.canonicalize());
    if let Ok(real) = path.canonicalize() {
        folders.extend(real.parent().map(Path::to_owned));
        if real.is_dir() {
            folders.insert(real);
        }
    }
}
