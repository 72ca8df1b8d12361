//! A gateway file, watched for changes and translated anew after each.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::watcher::{FolderWatcher, folders_of};
use super::{GroupLoad, Load, Source};
use crate::gateway::{Draining, Flavour, GatewayFile};
use crate::groups::DEFAULT_GROUP;
use crate::problem::Problem;

/// A gateway file that a server serves from.
pub struct GatewaySource {
    file: PathBuf,
    flavour: Flavour,
    watcher: FolderWatcher,
}

impl GatewaySource {
    /// Serves from a file, in a flavour.
    ///
    /// # Errors
    /// When the system has no more watches to give.
    pub fn new(file: impl Into<PathBuf>, flavour: Flavour) -> Result<Self, Problem> {
        Ok(Self { file: file.into(), flavour, watcher: FolderWatcher::new()? })
    }

    async fn read(&self) -> GroupLoad {
        let (file, flavour) = (self.file.clone(), self.flavour);
        let task = tokio::task::spawn_blocking(move || read(&file, flavour));
        task.await
            .unwrap_or_else(|error| refused(vec![Problem::new(format!("reading failed: {error}"))]))
    }
}

impl Source for GatewaySource {
    async fn load(&mut self) -> Result<Load, Vec<Problem>> {
        self.watcher.rewatch();
        let folders = |file: &Path| {
            let mut folders = BTreeSet::new();
            folders_of(file, &mut folders);
            folders
        };
        self.watcher.watch(folders(&self.file));
        Ok(Load { groups: vec![self.read().await], ..Load::default() })
    }

    async fn changed(&mut self) {
        self.watcher.changed().await;
    }
}

fn read(file: &Path, flavour: Flavour) -> GroupLoad {
    let load = || {
        let file = GatewayFile::open(file)?;
        let translation = file.translate(flavour, &Draining::new())?;
        let items = file.items(translation.made)?;
        let (name, warnings) = (DEFAULT_GROUP.into(), translation.warnings);
        Ok(GroupLoad { name, items, warnings, errors: Vec::new() })
    };
    load().unwrap_or_else(refused)
}

fn refused(errors: Vec<Problem>) -> GroupLoad {
    GroupLoad { name: DEFAULT_GROUP.into(), errors, ..GroupLoad::default() }
}
