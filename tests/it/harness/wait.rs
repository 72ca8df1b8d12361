//! Waiting for a condition, with an end.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

/// How long anything may take on a busy machine before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Looks again and again until there is something, and returns it.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    let mut pause = tokio::time::interval(Duration::from_millis(5));
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < end, "never happened: {what}");
        pause.tick().await;
    }
}

/// Waits for a future, but not for ever.
pub(crate) async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("never happened: {what}"),
    }
}

/// Lets real time pass where time is what a test is about: heartbeats that must outlive a TTL, the
/// rate of a client. What has an effect to look for is waited for with [`eventually`].
pub(crate) async fn pace(time: Duration) {
    tokio::time::sleep(time).await;
}
