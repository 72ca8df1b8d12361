//! A file or a folder of files in Envoy's YAML or JSON form, watched for changes.
//!
//! ```yaml
//! clusters: [{name: users, type: EDS, ...}]
//! endpoints: []
//! listeners: []
//! routes: []
//! secrets: []
//! ```
//!
//! Of a folder every `*.yaml`, `*.yml` and `*.json` is read, in order of name, hidden files and
//! folders not; what they hold is one set. A rule file names further folders, one a group of nodes.
//!
//! Watched are folders, by their real path: a file that is replaced by rename, and a link that is
//! swapped (Kubernetes swaps `..data` beside the links that go through it), both show there.

mod read;
mod rules;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::warn;

use super::{Load, Source};
use crate::problem::Problem;

/// Files are read when nothing has happened to them for this long: an edit is many events.
const QUIET: Duration = Duration::from_millis(50);
/// Files that never rest are read this often.
const LONGEST: Duration = Duration::from_millis(500);

/// The files that a server serves from.
pub struct FilesSource {
    config: PathBuf,
    groups: Option<PathBuf>,
    watcher: RecommendedWatcher,
    watched: BTreeSet<PathBuf>,
    events: mpsc::Receiver<()>,
}

impl FilesSource {
    /// Serves from `config`, a file or a folder. `groups` is the rule file; without one it is
    /// `groups.yaml` in the folder, if there is such a file.
    ///
    /// # Errors
    /// When the system has no more watches to give.
    pub fn new(config: impl Into<PathBuf>, groups: Option<PathBuf>) -> Result<Self, Problem> {
        let config = config.into();
        // One waiting event says as much as many.
        let (tell, events) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading is an event, too, and ours must not make us read again.
            if !matches!(event, Ok(notify::Event { kind: EventKind::Access(_), .. })) {
                let _ = tell.try_send(());
            }
        })
        .map_err(|error| Problem::new(format!("cannot watch for changes: {error}")))?;
        Ok(Self { config, groups, watcher, watched: BTreeSet::new(), events })
    }

    /// Watches each folder. Returns whether one of them was not watched before.
    fn watch(&mut self, folders: BTreeSet<PathBuf>) -> bool {
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
    fn rewatch(&mut self) {
        for folder in &self.watched {
            if let Err(error) = self.watcher.watch(folder, RecursiveMode::NonRecursive)
                && folder.exists()
            {
                warn!(folder = %folder.display(), %error, "cannot watch a folder for changes");
            }
        }
    }

    async fn read(&self) -> read::Read {
        let (config, groups) = (self.config.clone(), self.groups.clone());
        let task = tokio::task::spawn_blocking(move || read::read(&config, groups.as_deref()));
        task.await.unwrap_or_else(|error| read::Read {
            load: Err(vec![Problem::new(format!("reading failed: {error}"))]),
            folders: BTreeSet::new(),
        })
    }
}

impl Source for FilesSource {
    async fn load(&mut self) -> Result<Load, Vec<Problem>> {
        self.rewatch();
        let read::Read { load, folders } = self.read().await;
        if !self.watch(folders) {
            return load;
        }
        // What happened in a new folder between reading and watching it was not seen.
        let read::Read { load, folders } = self.read().await;
        self.watch(folders);
        load
    }

    async fn changed(&mut self) {
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
fn folders_of(path: &Path, folders: &mut BTreeSet<PathBuf>) {
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
