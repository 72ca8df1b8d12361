//! Listeners: bound sockets, the connections they accept, and how both change at run time.
//!
//! The control task compiles a [`ListenerConfig`] and binds its [`ListenSockets`], one a worker, so
//! that a port that cannot be had is an error of the resource. Workers listen, accept and serve
//! ([`worker`]). A change that keeps the address keeps the sockets: new connections get the new
//! configuration, established ones drain.

mod accept;
pub mod compile;
pub mod limit;
pub mod stats;
pub mod worker;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use parking_lot::Mutex;
use socket2::Socket;

pub use compile::{CompileContext, ListenerConfig, NodeName, compile};
pub use worker::Listeners;

use crate::config::Fault;
use crate::filter::discovery::Extensions;
use crate::net;

/// A listener as the workers get it.
#[derive(Debug, Clone)]
pub struct Listener {
    /// What is done with connections.
    pub config: Arc<ListenerConfig>,
    /// Where they come in. The same sockets mean the same port, without a gap.
    pub sockets: Arc<ListenSockets>,
    /// What is known of its discovered filters. A change of it is no new version of the listener.
    pub extensions: Arc<Extensions>,
}

/// The sockets of one address.
#[derive(Debug)]
pub struct ListenSockets {
    address: SocketAddr,
    backlog: i32,
    sockets: Sockets,
}

#[derive(Debug)]
enum Sockets {
    /// One a worker; the kernel spreads connections over them.
    Each(Vec<Mutex<Option<Socket>>>),
    /// One for all, where the port may not be shared.
    Shared(Mutex<Option<Socket>>, Mutex<Option<TcpListener>>),
}

impl ListenSockets {
    /// Binds the address for `workers` workers. Connections are still refused: nobody listens yet.
    pub fn bind(config: &ListenerConfig, workers: usize) -> Result<Arc<Self>, Fault> {
        let fault = |error: io::Error| Fault::System {
            action: format!("binding {}", config.address),
            reason: error.to_string(),
        };
        let first = net::bind(config.address, config.bind).map_err(fault)?;
        // With port 0 the system chose one, and the other workers' sockets must share it.
        let address = net::local_address(&first).map_err(fault)?;
        let sockets = if config.bind.reuse_port {
            let mut sockets = vec![Mutex::new(Some(first))];
            for _ in 1..workers {
                sockets.push(Mutex::new(Some(net::bind(address, config.bind).map_err(fault)?)));
            }
            Sockets::Each(sockets)
        } else {
            Sockets::Shared(Mutex::new(Some(first)), Mutex::new(None))
        };
        Ok(Arc::new(Self { address, backlog: config.backlog, sockets }))
    }

    /// The bound address, with the port the system chose.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts to listen for one worker, once.
    fn listen(&self, worker: usize) -> io::Result<TcpListener> {
        let taken = || io::Error::other("the worker's socket was taken before");
        match &self.sockets {
            Sockets::Each(sockets) => {
                let socket = sockets.get(worker).and_then(|s| s.lock().take()).ok_or_else(taken)?;
                net::listen(socket, self.backlog)
            }
            Sockets::Shared(bound, listening) => {
                let mut listening = listening.lock();
                if let Some(socket) = bound.lock().take() {
                    *listening = Some(net::listen(socket, self.backlog)?);
                }
                listening.as_ref().ok_or_else(taken)?.try_clone()
            }
        }
    }
}
