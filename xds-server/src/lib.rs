//! The management server that drives nuncio, or any Envoy.
//!
//! Resources come from a [`source`]: a folder of files, a [`gateway`] file that is translated to them,
//! or the memory of the program that embeds the server. Each is checked alone by the rules of the
//! proxy and the set as a whole for what it lacks; what would be refused downstream is refused here,
//! with file, line and field, and the last good set stays in service. What is in service is streamed
//! to every proxy over ADS or the service of each type, as state of the world or delta.
//!
//! ```text
//! source     files, gateway, memory -> resources of each group of nodes
//! assemble   check, refers         -> Snapshot, or problems         (one task, the only writer)
//! cache      watch<World>          -> group of a node -> Snapshot
//! stream     one client's I/O      -> order: whose turn it is       (pure from here down)
//! order      make before break     -> sotw | delta: request in, response out
//! subscription                        wanted against sent
//! ```
//!
//! Beside it an [`api`] changes the instances of a gateway file while it is served.
//!
//! Architecture invariants: a snapshot never changes; everything below `stream` is free of I/O and
//! takes time as an argument; at most one response of a type waits for its answer; a client that
//! does not read costs its connection and holds up nobody.
//!
//! ```no_run
//! # async fn run() -> Result<(), nuncio_xds_server::StartError> {
//! use nuncio_xds_server::{ManagementServer, MemorySource};
//!
//! let source = MemorySource::new();
//! let server = ManagementServer::builder().start(source.clone()).await?;
//! println!("point ads_config at {}", server.xds_address());
//! source.set([/* nuncio::proto::any::pack(&cluster), ... */]);
//! server.stop().await;
//! # Ok(())
//! # }
//! ```

pub mod api;
mod assemble;
mod cache;
mod check;
mod delta;
pub mod gateway;
mod groups;
mod hosts;
mod http;
mod ledger;
mod listen;
mod machine;
mod order;
mod problem;
mod refers;
mod registry;
mod server;
mod service;
mod snapshot;
mod sotw;
pub mod source;
mod stats;
pub mod status;
mod stream;
mod subscription;
mod types;

pub use assemble::Item;
pub use groups::{DEFAULT_GROUP, Pattern, Rule, Rules};
pub use order::Waits;
pub use problem::Problem;
pub use server::{Builder, ManagementServer, StartError};
pub use source::files::FilesSource;
pub use source::gateway::GatewaySource;
pub use source::memory::MemorySource;
pub use source::{GroupLoad, Load, Source};
pub use types::ResourceType;
