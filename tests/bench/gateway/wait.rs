//! Waiting: for a condition, with an end, and for a moment on the clock.

use std::time::Duration;

use tokio::time::Instant;

use crate::Failure;

/// How long anything may take on a busy machine before the bench gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Looks every millisecond until there is something.
pub(crate) fn until<T>(
    what: &str,
    mut look: impl FnMut() -> Result<Option<T>, Failure>,
) -> Result<T, Failure> {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() > end {
            return Err(format!("never happened: {what}").into());
        }
        until_moment(Instant::now() + Duration::from_millis(1));
    }
}

/// Waits for a moment; not at all if it is over.
pub(crate) fn until_moment(moment: Instant) {
    loop {
        let left = moment.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::park_timeout(left);
    }
}
