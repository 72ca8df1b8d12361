//! What every `compile` speaks: errors with field paths, and value forms of the API.
//!
//! A `compile` turns one proto message into the runtime type it stands beside, in one step, and
//! reports every fault it finds, each with the path of its field:
//!
//! ```text
//! Cluster "users": load_assignment.endpoints[2].lb_endpoints[0].endpoint.address: port 70000 is not in 0..=65535
//! ```
//!
//! The pattern is: take each field through [`Errors::take`], which keeps the fault and goes on, then
//! leave with all of them if there were any.

pub mod address_range;
pub mod error;
pub mod fields;
pub mod matcher;
pub mod metadata;
pub mod runtime;
pub mod source;

pub use error::{ConfigError, Errors, Fault, OrFault, ResourceId};
