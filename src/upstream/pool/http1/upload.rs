//! The rest of a request whose response came before all of it was sent.
//!
//! The two directions must not wait for each other: a client may read nothing before it has sent
//! everything. Only here a second task is on the path of an HTTP/1.1 exchange.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::task::JoinHandle;

use super::encode::Sending;
use crate::exchange::BodyError;
use crate::http1::SendError;
use crate::net::ShortWrites;

/// Dropping it ends the upload, and with it the connection.
pub(super) enum Upload {
    Running(JoinHandle<Result<OwnedWriteHalf, SendError>>),
    /// All was sent.
    Over(Option<OwnedWriteHalf>),
    Failed,
}

impl Upload {
    pub(super) fn start(mut sending: Sending, write: OwnedWriteHalf) -> Self {
        Self::Running(tokio::spawn(async move {
            let mut write = ShortWrites(write);
            std::future::poll_fn(|cx| sending.poll_send(cx, &mut write)).await?;
            if sending.ends_connection() {
                // The far end of a tunnel is told that nothing more comes.
                write.shutdown().await.map_err(|_io| SendError::Io)?;
            }
            Ok(write.0)
        }))
    }

    /// Ready when the request's body broke off. An upstream that takes no more of it may still
    /// answer.
    pub(super) fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        let Self::Running(task) = self else { return Poll::Pending };
        match ready!(Pin::new(task).poll(cx)) {
            Ok(Ok(write)) => *self = Self::Over(Some(write)),
            Ok(Err(SendError::Body(error))) => {
                *self = Self::Failed;
                return Poll::Ready(error);
            }
            Ok(Err(SendError::Io | SendError::Length)) | Err(_) => *self = Self::Failed,
        }
        Poll::Pending
    }

    /// The writing half, if all was sent.
    pub(super) fn finished(mut self, cx: &mut Context<'_>) -> Option<OwnedWriteHalf> {
        if self.poll_broken(cx).is_ready() {
            return None;
        }
        match &mut self {
            Self::Over(write) => write.take(),
            Self::Running(_) | Self::Failed => None,
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Self::Running(task) = self {
            task.abort();
        }
    }
}
