//! What is said between a request and its response: interim responses (RFC 9110 section 15.2).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use tokio::io::AsyncWrite;

use crate::exchange::headers::is_hop_by_hop;
use crate::exchange::interim::{Interim, InterimSink};
use crate::hcm::connection::Connection;
use crate::http1::fields::push_field;

/// Bytes that may wait at the most; more are dropped, which an interim response may always be.
const MOST: usize = 16 * 1024;

/// The interim responses of one request.
#[derive(Default)]
pub(super) struct Interims {
    /// To be written; up to `written` they were.
    bytes: Vec<u8>,
    written: usize,
    /// What upstreams send.
    passed_on: Option<Arc<Queue>>,
}

/// Filled by whoever hears an upstream.
struct Queue {
    bytes: Mutex<Vec<u8>>,
    is_waiting: AtomicBool,
    connection: Arc<Connection>,
}

impl Interims {
    /// Where upstreams' go: an extension of the request's head.
    pub(super) fn sink(&mut self, connection: &Arc<Connection>) -> Interim {
        let queue = Arc::new(Queue {
            bytes: Mutex::default(),
            is_waiting: AtomicBool::new(false),
            connection: Arc::clone(connection),
        });
        self.passed_on = Some(Arc::clone(&queue));
        Interim(queue)
    }

    /// Tells the client to send its body.
    pub(super) fn go_on(&mut self) {
        self.bytes.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
    }

    /// Writes what there is, as far as that goes now.
    pub(super) fn write(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut (impl AsyncWrite + Unpin),
    ) -> io::Result<()> {
        self.collect();
        while self.written < self.bytes.len() {
            match Pin::new(&mut *io).poll_write(cx, &self.bytes[self.written..]) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(n)) => self.written += n,
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(()),
            }
        }
        self.bytes.clear();
        self.written = 0;
        Ok(())
    }

    /// What is still to go out before the response, which may have come with it.
    pub(super) fn rest(&mut self) -> &[u8] {
        self.collect();
        &self.bytes[self.written..]
    }

    fn collect(&mut self) {
        if let Some(queue) = &self.passed_on
            && queue.is_waiting.swap(false, Ordering::AcqRel)
        {
            self.bytes.append(&mut queue.bytes.lock());
        }
    }
}

impl InterimSink for Queue {
    fn send(&self, status: StatusCode, headers: &HeaderMap) {
        let mut text = b"HTTP/1.1 ".to_vec();
        text.extend_from_slice(status.as_str().as_bytes());
        text.push(b' ');
        text.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
        text.extend_from_slice(b"\r\n");
        for (name, value) in headers.iter().filter(|(name, _)| !is_hop_by_hop(name)) {
            push_field(&mut text, name.as_str().as_bytes(), value.as_bytes());
        }
        text.extend_from_slice(b"\r\n");
        let mut bytes = self.bytes.lock();
        if bytes.len() + text.len() <= MOST {
            bytes.append(&mut text);
            self.is_waiting.store(true, Ordering::Release);
            self.connection.wake();
        }
    }
}
