//! Where resources come from.

pub mod files;
pub mod gateway;
pub mod memory;
mod watcher;

use std::future::Future;
use std::sync::Arc;

use crate::assemble::Item;
use crate::groups::Rules;
use crate::problem::Problem;

/// Everything a source has at one moment.
#[derive(Debug, Clone, Default)]
pub struct Load {
    /// Which nodes are served which group.
    pub rules: Rules,
    /// The groups; one that is missing here is served no longer.
    pub groups: Vec<GroupLoad>,
}

/// One group's resources.
#[derive(Debug, Clone, Default)]
pub struct GroupLoad {
    /// The group's name.
    pub name: Arc<str>,
    /// Its resources.
    pub items: Vec<Item>,
    /// What could not be read. Any leaves the last good set in service; the resources that were
    /// read are still judged, so that all faults show at once.
    pub errors: Vec<Problem>,
    /// Doubts about what was read.
    pub warnings: Vec<Problem>,
}

/// Something that holds resources and says when they may have changed.
///
/// The server loads once at the start and again after each [`Source::changed`]; what did not change
/// costs little, so saying it too often does no harm. Both futures may be dropped at any await.
pub trait Source: Send + 'static {
    /// Reads everything.
    ///
    /// # Errors
    /// When nothing can be read or the rules are wrong; all groups then stay as they are.
    fn load(&mut self) -> impl Future<Output = Result<Load, Vec<Problem>>> + Send;

    /// Waits until something may have changed.
    fn changed(&mut self) -> impl Future<Output = ()> + Send;
}
