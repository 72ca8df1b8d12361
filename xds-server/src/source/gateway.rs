//! A gateway file, watched for changes and translated anew after each, and after each change to its
//! instances.

use std::collections::BTreeSet;
use std::path::PathBuf;

use tokio::sync::watch;

use super::watcher::{FolderWatcher, folders_of};
use super::{GroupLoad, Load, Source};
use crate::gateway::{Flavour, Live};
use crate::groups::DEFAULT_GROUP;
use crate::problem::Problem;

/// A gateway file that a server serves from.
pub struct GatewaySource {
    live: Live,
    changes: watch::Receiver<u64>,
    watcher: FolderWatcher,
}

impl GatewaySource {
    /// Serves from a file, in a flavour.
    ///
    /// # Errors
    /// When the system has no more watches to give.
    pub fn new(file: impl Into<PathBuf>, flavour: Flavour) -> Result<Self, Problem> {
        let live = Live::new(file.into(), flavour);
        Ok(Self { changes: live.watch(), live, watcher: FolderWatcher::new()? })
    }

    /// Keeps changes to instances in this file, and begins with those that are in it.
    ///
    /// # Errors
    /// What is wrong with the file, if it is there.
    pub fn keeping(self, file: impl Into<PathBuf>) -> Result<Self, Vec<Problem>> {
        let live = self.live.keeping(file.into())?;
        Ok(Self { changes: live.watch(), live, ..self })
    }

    /// Its instances, for the API that changes them.
    pub fn live(&self) -> Live {
        self.live.clone()
    }
}

impl Source for GatewaySource {
    async fn load(&mut self) -> Result<Load, Vec<Problem>> {
        self.changes.mark_unchanged();
        self.watcher.rewatch();
        let mut folders = BTreeSet::new();
        folders_of(self.live.file(), &mut folders);
        self.watcher.watch(folders);
        let live = self.live.clone();
        let loaded = tokio::task::spawn_blocking(move || live.load()).await;
        let loaded = loaded
            .unwrap_or_else(|error| Err(vec![Problem::new(format!("reading failed: {error}"))]));
        let group = match loaded {
            Ok((items, warnings)) => GroupLoad { items, warnings, ..GroupLoad::default() },
            Err(errors) => GroupLoad { errors, ..GroupLoad::default() },
        };
        let groups = vec![GroupLoad { name: DEFAULT_GROUP.into(), ..group }];
        Ok(Load { groups, ..Load::default() })
    }

    async fn changed(&mut self) {
        tokio::select! {
            () = self.watcher.changed() => {}
            // Cannot end: `live` holds a sender.
            _ = self.changes.changed() => {}
        }
    }
}
