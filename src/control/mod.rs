//! Turns resources into snapshots; the only writer of configuration.
//!
//! ```text
//! xds::Update ─► ingest    each resource judged alone: audit, decode, compile
//!                store     good replaces last good; bad keeps it and records its error
//!                follow    names now wanted are subscribed          before the verdict leaves
//!                verdict ─► xds                                     ACK, or NACK with every error
//!                warming   clusters wait for endpoints, listeners for route tables, filters
//!                publish   one snapshot a burst ─► watch ─► workers
//! ```
//!
//! One task owns all of it ([`Control::start`]). The rules are in a state machine without I/O whose
//! time is an argument; this file moves events in and effects out. Endpoints take a short road:
//! they go straight into their clusters, and no snapshot is built.

mod asks;
pub mod check;
mod clusters;
mod compile;
pub mod dump;
mod endpoints;
mod extensions;
pub mod files;
mod follow;
mod ignored;
mod ingest;
pub mod last_good;
mod listeners;
mod publish;
mod routes;
mod run;
mod secrets;
mod sources;
mod stale;
mod startup;
mod state;
pub mod stats;
mod store;
mod virtual_hosts;
mod warming;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::{Arc, Weak};

use prost_types::Any;
use tokio::sync::{mpsc, oneshot, watch};

use crate::config::ResourceId;
use crate::filter::on_demand::Ask;
use crate::snapshot::Snapshot;
use crate::telemetry::Telemetry;
use crate::upstream::Cluster;
use crate::xds::{Events, GrpcOptions, ResourceType, Source, Variant, Xds};

use follow::Want;
use store::Running;

pub use compile::Compilers;
pub use dump::Dump;
pub use ignored::IgnoredField;
pub use sources::GrpcResolver;
pub use startup::{Phase, Status, Subscription};
pub use store::{Origin, Rejected};

/// What control is made of.
pub struct Options {
    /// What the compile steps need to know.
    pub compilers: Compilers,
    /// How to reach the servers of an `ApiConfigSource`.
    pub grpc: GrpcResolver,
    /// What the server for resources that say `ads` speaks, if there is one.
    pub ads: Option<Variant>,
    /// `dynamic_resources.cds_config`
    pub cds: Option<Subscription>,
    /// `dynamic_resources.lds_config`
    pub lds: Option<Subscription>,
    /// How many workers will listen on each listener's address.
    pub workers: usize,
    /// Where counts are registered.
    pub telemetry: Telemetry,
}

/// What control starts with.
#[derive(Default)]
pub struct First {
    /// The resources of the bootstrap, by type.
    pub static_resources: Vec<(ResourceType, Vec<Any>)>,
    /// Fields of the bootstrap that are not known, by where they are.
    pub ignored: Vec<(ResourceId, Vec<String>)>,
    /// Where the last good configuration is kept, and whose it is.
    pub last_good: Option<LastGood>,
    /// Where requests ask for virtual hosts.
    pub asks: Option<mpsc::Receiver<Ask>>,
}

/// Keeping the last good configuration on disk.
#[derive(Debug, Clone)]
pub struct LastGood {
    /// An existing directory.
    pub dir: PathBuf,
    /// Whose configuration it is: `node.cluster` and `node.id`. A file of another is not read.
    pub node: String,
}

/// Something to be done outside the state machine.
#[derive(Debug)]
enum Effect {
    AddGrpc(Source, Box<GrpcOptions>),
    /// The file is replaced by renames in the directory.
    WatchDirectory(PathBuf, PathBuf),
    SubscribeAll(Arc<Source>, ResourceType),
    Subscribe(Arc<Source>, ResourceType, Vec<Arc<str>>),
    Unsubscribe(Arc<Source>, ResourceType, Vec<Arc<str>>),
    /// Do a cluster's own work while the guard lives.
    Run(Arc<Cluster>, Weak<Running>),
    /// Say that the name came when the cluster is ready so far, unless the guard is gone before.
    Await(Readiness, Arc<Cluster>, Weak<Running>, Want),
}

/// What a cluster can wait for that it does itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Readiness {
    /// Each of its names was tried once.
    Resolved,
    /// Each of its hosts was checked once.
    Checked,
}

/// What can be asked of the control task.
enum Command {
    Dump(oneshot::Sender<Dump>),
    Stop(oneshot::Sender<()>),
}

/// The handle to the control task, which ends when the last handle is dropped.
#[derive(Clone)]
pub struct Control {
    commands: mpsc::Sender<Command>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    status: watch::Receiver<Status>,
}

impl Control {
    /// Takes in the static resources and what the disk has, and starts the task on the present
    /// runtime.
    ///
    /// # Errors
    /// The faults of the static resources, one text a resource.
    pub fn start(
        options: Options,
        first: First,
        xds: Xds,
        events: Events,
    ) -> Result<Self, Vec<String>> {
        run::start(options, first, xds, events)
    }

    /// The configuration as the workers get it.
    pub fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.clone()
    }

    /// How far the start has come.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Everything control holds, for `/config_dump`. None once the task has ended.
    pub async fn dump(&self) -> Option<Dump> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Dump(reply)).await.ok()?;
        answer.await.ok()
    }

    /// Ends the task, after it has written to disk what is not there yet.
    pub async fn stop(&self) {
        let (reply, answer) = oneshot::channel();
        if self.commands.send(Command::Stop(reply)).await.is_ok() {
            // No answer means that the task has ended, which is what was asked for.
            let _ended = answer.await;
        }
    }
}
