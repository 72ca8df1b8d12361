//! Work that takes too long for a worker, done on another thread.

use std::future::Future;
use std::pin::Pin;

use crate::coding::Slots;

/// Work being done, or waiting for its place. None came of it if it was given up: the process is about to
/// end, or the work itself panicked.
pub(super) type Beside<T> = Pin<Box<dyn Future<Output = Option<T>> + Send>>;

/// Does it as soon as there is a place for it.
pub(super) fn beside<T: Send + 'static>(
    slots: Slots,
    work: impl FnOnce() -> T + Send + 'static,
) -> Beside<T> {
    Box::pin(async move {
        let place = slots.acquire().await?;
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(place);
            done
        });
        done.await.ok()
    })
}
