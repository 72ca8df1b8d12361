//! The listeners of one worker, and how they follow the configuration.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

pub use super::accept::ConnectionIds;
use super::accept::accept;
use super::{Listener, ListenerConfig};
use crate::filter::WorkerContext;
use crate::hcm::{Drain, Hcm};
use crate::route::Tables;

/// The listeners of one worker.
pub struct Listeners {
    worker: usize,
    cx: WorkerContext,
    ids: ConnectionIds,
    /// How long connections of a version that was replaced may go on.
    drain_time: Duration,
    open: HashMap<Arc<str>, Open>,
    /// Versions that were replaced and still have connections.
    draining: Vec<Retired>,
    /// No listener is opened any more.
    stopped: bool,
}

struct Open {
    listener: Arc<Listener>,
    current: Arc<ArcSwap<Version>>,
    accepting: AbortHandle,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// A version that was replaced; its connections still follow its route table and filters. They alone keep it,
/// and what its filters keep, in memory.
struct Retired {
    name: Arc<str>,
    hcm: Weak<Hcm>,
    /// With it what was counted stays, to be read until the next change.
    _config: Arc<ListenerConfig>,
    drain: Arc<Drain>,
}

/// One version of a listener, as connections get it.
pub(super) struct Version {
    pub(super) config: Arc<ListenerConfig>,
    pub(super) hcm: Arc<Hcm>,
    pub(super) drain: Arc<Drain>,
    address: SocketAddr,
}

impl Version {
    fn new(listener: &Listener, cx: &WorkerContext, tables: &Tables) -> Self {
        let config = Arc::clone(&listener.config.chain.hcm);
        let hcm = Arc::new(Hcm::new(config, &listener.extensions, cx));
        hcm.follow_routes(tables);
        hcm.start();
        Self {
            config: Arc::clone(&listener.config),
            hcm,
            drain: Arc::new(Drain::default()),
            address: listener.sockets.address(),
        }
    }

    /// Our end of a connection; the system is asked only if the listener takes any address.
    pub(super) fn local_address(&self, socket: &TcpStream) -> io::Result<SocketAddr> {
        match self.address.ip().is_unspecified() {
            true => socket.local_addr(),
            false => Ok(self.address),
        }
    }
}

impl Listeners {
    /// No listeners yet. `worker` counts from 0 and chooses the sockets.
    pub fn new(worker: usize, cx: WorkerContext, ids: ConnectionIds, drain_time: Duration) -> Self {
        Self {
            worker,
            cx,
            ids,
            drain_time,
            open: HashMap::new(),
            draining: Vec::new(),
            stopped: false,
        }
    }

    /// Follows a new configuration: opens what is new, swaps what changed, drains what is gone.
    /// Must be called inside the worker's runtime.
    pub fn apply(&mut self, listeners: &BTreeMap<Arc<str>, Arc<Listener>>, tables: &Tables) {
        self.draining.retain(|retired| retired.drain.open_connections() > 0);
        let gone: Vec<_> =
            self.open.keys().filter(|name| !listeners.contains_key(*name)).cloned().collect();
        if !self.stopped {
            for (name, listener) in listeners {
                self.follow(name, listener, tables);
            }
        }
        let follow = |name: &Arc<str>, hcm: &Arc<Hcm>| {
            hcm.follow_routes(tables);
            if let Some(listener) = listeners.get(name) {
                hcm.follow_extensions(&listener.extensions);
            }
        };
        self.open.iter().for_each(|(name, open)| follow(name, &open.current.load().hcm));
        for retired in &self.draining {
            if let Some(hcm) = retired.hcm.upgrade() {
                follow(&retired.name, &hcm);
            }
        }
        // Last, so that a port that moves from one listener to another is never without one.
        for name in gone {
            if let Some(open) = self.open.remove(&name) {
                self.retire(&open.current.load(), self.drain_time);
            }
        }
    }

    /// Stops accepting for good, and asks every connection to end within `over`.
    pub fn stop(&mut self, over: Duration) {
        self.stopped = true;
        for (_, open) in std::mem::take(&mut self.open) {
            self.retire(&open.current.load(), over);
        }
        self.draining.iter().for_each(|retired| retired.drain.begin(over));
    }

    /// Connections still open, those that drain included.
    pub fn open_connections(&self) -> usize {
        let current = self.open.values().map(|open| open.current.load().drain.open_connections());
        let draining = self.draining.iter().map(|retired| retired.drain.open_connections());
        current.chain(draining).sum()
    }

    fn follow(&mut self, name: &Arc<str>, listener: &Arc<Listener>, tables: &Tables) {
        match self.open.get_mut(name) {
            Some(open) if Arc::ptr_eq(&open.listener.config, &listener.config) => {}
            Some(open) if Arc::ptr_eq(&open.listener.sockets, &listener.sockets) => {
                let old = open.current.swap(Arc::new(Version::new(listener, &self.cx, tables)));
                open.listener = Arc::clone(listener);
                self.retire(&old, self.drain_time);
            }
            _ => match self.listen(listener, tables) {
                Ok(open) => {
                    if let Some(old) = self.open.insert(Arc::clone(name), open) {
                        self.retire(&old.current.load(), self.drain_time);
                    }
                }
                Err(error) => {
                    let address = listener.sockets.address();
                    tracing::error!(listener = %name, %address, %error, "cannot listen");
                }
            },
        }
    }

    fn listen(&self, listener: &Arc<Listener>, tables: &Tables) -> io::Result<Open> {
        let socket = TcpListener::from_std(listener.sockets.listen(self.worker)?)?;
        let version = Version::new(listener, &self.cx, tables);
        let current = Arc::new(ArcSwap::from_pointee(version));
        let task = tokio::spawn(accept(socket, Arc::clone(&current), self.ids.clone()));
        Ok(Open { listener: Arc::clone(listener), current, accepting: task.abort_handle() })
    }

    fn retire(&mut self, version: &Version, over: Duration) {
        version.drain.begin(over);
        self.draining.push(Retired {
            name: Arc::clone(&version.config.name),
            hcm: Arc::downgrade(&version.hcm),
            _config: Arc::clone(&version.config),
            drain: Arc::clone(&version.drain),
        });
    }
}
