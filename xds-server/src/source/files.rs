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
use std::path::PathBuf;

pub(crate) use read::parse;

use super::watcher::FolderWatcher;
use super::{Load, Source};
use crate::problem::Problem;

/// The files that a server serves from.
pub struct FilesSource {
    config: PathBuf,
    groups: Option<PathBuf>,
    watcher: FolderWatcher,
}

impl FilesSource {
    /// Serves from `config`, a file or a folder. `groups` is the rule file; without one it is
    /// `groups.yaml` in the folder, if there is such a file.
    ///
    /// # Errors
    /// When the system has no more watches to give.
    pub fn new(config: impl Into<PathBuf>, groups: Option<PathBuf>) -> Result<Self, Problem> {
        Ok(Self { config: config.into(), groups, watcher: FolderWatcher::new()? })
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
        self.watcher.rewatch();
        let read::Read { load, folders } = self.read().await;
        if !self.watcher.watch(folders) {
            return load;
        }
        // What happened in a new folder between reading and watching it was not seen.
        let read::Read { load, folders } = self.read().await;
        self.watcher.watch(folders);
        load
    }

    async fn changed(&mut self) {
        self.watcher.changed().await;
    }
}
