//! Interim responses of upstreams on their way to the client (RFC 9110 section 15.2).

use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, StatusCode};

/// Takes interim responses for one client connection.
pub trait InterimSink: Send + Sync {
    /// Sends one, or drops it, as the connection can.
    fn send(&self, status: StatusCode, headers: &HeaderMap);
}

/// Where a request's interim responses go: an extension of its head. Without it they are dropped.
#[derive(Clone)]
pub struct Interim(pub Arc<dyn InterimSink>);

impl fmt::Debug for Interim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Interim")
    }
}
