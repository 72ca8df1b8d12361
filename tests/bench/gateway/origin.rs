//! An origin that costs little: one thread, one answer, and counts of what came.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::Failure;

/// Where health checks ask. They are not counted.
const HEALTH: &[u8] = b"GET /health ";

/// The most that a request head may be.
const LONGEST_HEAD: usize = 64 << 10;

#[derive(Debug, Default)]
struct Counts {
    connections: AtomicU64,
    requests: AtomicU64,
}

/// A running origin. Dropping it closes its listener and all connections at once.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    counts: Arc<Counts>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Origin {
    /// Answers every request with this body.
    pub(crate) fn start(content_type: &str, body: &[u8]) -> Result<Self, Failure> {
        Self::at(([127, 0, 0, 1], 0).into(), content_type, body)
    }

    /// The same on a known address.
    pub(crate) fn at(
        address: SocketAddr,
        content_type: &str,
        body: &[u8],
    ) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let listener = runtime.block_on(TcpListener::bind(address))?;
        let address = listener.local_addr()?;
        let length = body.len();
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n"
        );
        let answer = Bytes::from([head.as_bytes(), body].concat());
        let counts = Arc::new(Counts::default());
        let (stop, stopped) = oneshot::channel();
        let kept = Arc::clone(&counts);
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, answer, kept) => {}
                    _ = stopped => {}
                }
            });
        });
        Ok(Self { address, counts, stop: Some(stop), thread: Some(thread) })
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> u64 {
        self.counts.connections.load(Ordering::Relaxed)
    }

    /// Requests so far, without health checks.
    pub(crate) fn requests(&self) -> u64 {
        self.counts.requests.load(Ordering::Relaxed)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It cannot have panicked but by a fault that it has told of on standard error.
            let _ = thread.join();
        }
    }
}

async fn accept(listener: TcpListener, answer: Bytes, counts: Arc<Counts>) {
    while let Ok((stream, _)) = listener.accept().await {
        counts.connections.fetch_add(1, Ordering::Relaxed);
        // What a connection ends with is the proxy's business.
        tokio::spawn(serve(stream, answer.clone(), Arc::clone(&counts)));
    }
}

async fn serve(mut stream: TcpStream, answer: Bytes, counts: Arc<Counts>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = BytesMut::with_capacity(4 << 10);
    while stream.read_buf(&mut buffer).await? > 0 {
        // No request has a body.
        while let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            if !buffer.starts_with(HEALTH) {
                counts.requests.fetch_add(1, Ordering::Relaxed);
            }
            buffer.advance(end + 4);
            stream.write_all(&answer).await?;
        }
        if buffer.len() > LONGEST_HEAD {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    Ok(())
}
