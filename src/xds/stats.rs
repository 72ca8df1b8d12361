//! What a stream counts. Plain cells, shared so that telemetry can read them at any time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use super::types::{ResourceType, Source};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds one.
    pub(super) fn inc(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// The number now.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counts of one resource type at one source, under the names Envoy gives them
/// (`cluster_manager.cds.update_success` and its like).
#[derive(Debug, Default)]
pub struct TypeStats {
    /// Fetches begun: a first request on a stream, and every wait after an answer.
    pub update_attempt: Count,
    /// Updates accepted whole.
    pub update_success: Count,
    /// Updates of which something was rejected, if only one resource.
    pub update_rejected: Count,
    /// Fetches that the network ended: the stream could not be opened or broke, or the file could
    /// not be read.
    pub update_failure: Count,
}

/// Counts of one stream, under Envoy's names (`control_plane.rate_limit_enforced`) where it has one.
#[derive(Debug, Default)]
pub struct StreamStats {
    /// Streams opened.
    pub opened: Count,
    /// Streams that ended, and attempts to open one that failed.
    pub failed: Count,
    /// Requests sent.
    pub requests: Count,
    /// Responses received.
    pub responses: Count,
    /// Requests that had to wait for the rate limit.
    pub rate_limit_enforced: Count,
    /// Responses of a type that is unknown or was not asked for; they are not answered.
    pub unknown_type: Count,
    /// `resource_errors` entries received. They are logged.
    pub resource_errors: Count,
}

/// A stream, as an operator would like to see it.
#[derive(Clone, Debug)]
pub struct SourceStatus {
    /// Where.
    pub source: Source,
    /// The stream's only type; none for the aggregated stream.
    pub ty: Option<ResourceType>,
    /// Whether the stream is open, or the file was last read without error.
    pub connected: bool,
    /// Since when it is, or is not.
    pub since: Option<SystemTime>,
    /// `control_plane.identifier` of the server, as last received; empty if never.
    pub control_plane: String,
    /// Why the last stream ended or the file could not be read.
    pub last_error: Option<String>,
    /// Counts of the stream.
    pub stats: Arc<StreamStats>,
    /// The types subscribed to, in the order in which they are applied.
    pub types: Vec<TypeStatus>,
}

/// One resource type at one source.
#[derive(Clone, Debug)]
pub struct TypeStatus {
    /// Which.
    pub ty: ResourceType,
    /// The last version accepted whole; empty before.
    pub version: String,
    /// The text of the last NACK, if the last answer was one.
    pub last_nack: Option<String>,
    /// Counts.
    pub stats: Arc<TypeStats>,
}
