//! `envoy.filters.network.connection_limit`: closes connections beyond a number.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::config::{Errors, Fault, OrFault, fields};
use crate::proto::envoy::extensions::filters::network::connection_limit::v3 as proto;

/// A limit on open connections, exact across workers.
#[derive(Debug)]
pub struct ConnectionLimit {
    most: u64,
    /// How long a refused connection is held before it is closed.
    pub delay: Option<Duration>,
    open: AtomicU64,
}

impl ConnectionLimit {
    /// A place for one more connection, if there is one.
    pub fn admit(self: &Arc<Self>) -> Option<Admitted> {
        let admitted = Admitted(Arc::clone(self));
        // Counted first: two connections at once must not both take the last place.
        (self.open.fetch_add(1, Ordering::Relaxed) < self.most).then_some(admitted)
    }
}

/// A connection's place under a [`ConnectionLimit`].
#[derive(Debug)]
pub struct Admitted(Arc<ConnectionLimit>);

impl Drop for Admitted {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Compiles the filter's configuration.
pub fn compile(message: &proto::ConnectionLimit) -> Result<ConnectionLimit, Errors> {
    let proto::ConnectionLimit { stat_prefix, max_connections, delay } = message;
    let mut errors = Errors::new();
    errors.take(fields::non_empty(stat_prefix).at("stat_prefix"));
    let most = errors.take(fields::required(*max_connections).at("max_connections"));
    if most == Some(0) {
        errors.push("max_connections", Fault::out_of_range(0, "1 or more"));
    }
    let delay = match delay {
        None => None,
        Some(delay) => errors.take(fields::duration(delay).at("delay")),
    };
    match most {
        Some(most) if errors.is_empty() => {
            Ok(ConnectionLimit { most, delay, open: AtomicU64::new(0) })
        }
        _ => Err(errors),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_come_back_when_connections_end() {
        let limit = Arc::new(ConnectionLimit { most: 2, delay: None, open: AtomicU64::new(0) });
        let (first, second) = (limit.admit(), limit.admit());
        assert!(first.is_some() && second.is_some());
        assert!(limit.admit().is_none());
        drop(first);
        assert!(limit.admit().is_some());
    }
}
