//! One worker's accept loop for one listener.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::{TcpListener, TcpStream};

use super::limit::Admitted;
use super::stats::ListenerStats;
use super::worker::Version;
use crate::exchange::Downstream;
use crate::hcm::connection::ip_header;

/// Ids of connections, unique in the process.
#[derive(Debug, Default, Clone)]
pub struct ConnectionIds(Arc<AtomicU64>);

impl ConnectionIds {
    fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// Accepts until it is aborted. Each connection gets the version of the listener that is current
/// when it arrives.
pub(super) async fn accept(
    listener: TcpListener,
    current: Arc<ArcSwap<Version>>,
    ids: ConnectionIds,
) {
    let mut pause = Duration::ZERO;
    loop {
        match listener.accept().await {
            Ok((socket, remote)) => {
                pause = Duration::ZERO;
                let version = current.load_full();
                if let Err(error) = admit(socket, remote, &version, &ids) {
                    tracing::debug!(%error, %remote, "connection lost before it was served");
                }
            }
            Err(error) if is_of_the_connection(&error) => {}
            Err(error) => {
                // Out of file descriptors or memory: trying again at once would spin.
                current.load().config.stats.downstream_accept_error.inc();
                if pause.is_zero() {
                    tracing::warn!(%error, "cannot accept connections");
                }
                pause = (pause * 2).clamp(Duration::from_millis(5), Duration::from_secs(1));
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// Errors that say that one client has gone, not that we cannot accept.
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

fn admit(
    socket: TcpStream,
    remote: SocketAddr,
    version: &Version,
    ids: &ConnectionIds,
) -> io::Result<()> {
    let stats = &version.config.stats;
    stats.downstream_cx_total.inc();
    let mut admitted = Vec::new();
    for limit in &version.config.chain.limits {
        match limit.admit() {
            Some(place) => admitted.push(place),
            None => {
                stats.downstream_cx_overflow.inc();
                if let Some(delay) = limit.delay {
                    tokio::spawn(async move {
                        tokio::time::sleep(delay).await;
                        drop(socket);
                    });
                }
                return Ok(());
            }
        }
    }
    socket.set_nodelay(true)?;
    let downstream = Arc::new(Downstream {
        id: ids.next(),
        remote,
        local: version.local_address(&socket)?,
        remote_ip: ip_header(remote)?,
        buffer_limit: version.config.buffer_limit,
    });
    let open = Open::new(stats, admitted);
    let hcm = Arc::clone(&version.hcm);
    let drain = Arc::clone(&version.drain);
    tokio::spawn(hcm.serve(socket, downstream, drain, open));
    Ok(())
}

/// Counts a connection while it is open, and keeps its places under the limits.
struct Open {
    stats: Arc<ListenerStats>,
    _admitted: Vec<Admitted>,
}

impl Open {
    fn new(stats: &Arc<ListenerStats>, admitted: Vec<Admitted>) -> Self {
        stats.downstream_cx_active.inc();
        Self { stats: Arc::clone(stats), _admitted: admitted }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.stats.downstream_cx_active.dec();
        self.stats.downstream_cx_destroy.inc();
    }
}
