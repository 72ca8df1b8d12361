//! The server as a whole: start, addresses, status, stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tracing::{error, info};

use crate::api::{self, Access};
use crate::assemble::Rigour;
use crate::cache::Keeper;
use crate::http;
use crate::order::Waits;
use crate::problem::Problem;
use crate::registry::Registry;
use crate::service;
use crate::source::Source;
use crate::stats::Stats;
use crate::status::{self, Served, Status};
use crate::stream::Hub;

/// A dead peer is found within the sum of these.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Per connection: a proxy that subscribes each cluster's endpoints on a stream of its own has many.
const MOST_STREAMS: u32 = 100_000;
/// How long a stop waits for connections to close.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a server did not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// An address could not be bound.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The first set is not good, so that there is nothing to serve.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Source(Vec<Problem>),
}

#[derive(Debug)]
enum Listen {
    Address(String),
    Bound(std::net::TcpListener),
}

impl Listen {
    async fn bind(self) -> Result<(TcpListener, SocketAddr), StartError> {
        let (address, bound) = match self {
            Self::Address(address) => {
                let bound = TcpListener::bind(&address).await;
                (address, bound)
            }
            Self::Bound(listener) => {
                let bound =
                    listener.set_nonblocking(true).and_then(|()| TcpListener::from_std(listener));
                ("the given socket".to_owned(), bound)
            }
        };
        let with_address = bound.and_then(|listener| {
            let address = listener.local_addr()?;
            Ok((listener, address))
        });
        with_address.map_err(|source| StartError::Listen { address, source })
    }
}

/// How a server is to be started.
pub struct Builder {
    xds: Listen,
    status: Option<Listen>,
    api: Option<(Listen, Access)>,
    rigour: Rigour,
    waits: Waits,
}

impl Builder {
    /// Serves xDS on this address, `HOST:PORT`; port 0 takes a free one. Default `127.0.0.1:0`.
    #[must_use]
    pub fn listen(self, address: impl Into<String>) -> Self {
        Self { xds: Listen::Address(address.into()), ..self }
    }

    /// Serves xDS on this socket.
    #[must_use]
    pub fn listen_on(self, listener: std::net::TcpListener) -> Self {
        Self { xds: Listen::Bound(listener), ..self }
    }

    /// Serves the status API on this address. Without it there is none, but
    /// [`ManagementServer::status`].
    #[must_use]
    pub fn status(self, address: impl Into<String>) -> Self {
        Self { status: Some(Listen::Address(address.into())), ..self }
    }

    /// Serves the status API on this socket.
    #[must_use]
    pub fn status_on(self, listener: std::net::TcpListener) -> Self {
        Self { status: Some(Listen::Bound(listener)), ..self }
    }

    /// Serves the API that changes instances on this address.
    #[must_use]
    pub fn api(self, address: impl Into<String>, access: Access) -> Self {
        Self { api: Some((Listen::Address(address.into()), access)), ..self }
    }

    /// Whether resources are held to the proxy's rules before they are served. Default true. Off,
    /// anything of a known type that has a name is served: for tests of what refuses it.
    #[must_use]
    pub fn check(mut self, check: bool) -> Self {
        self.rigour.check = check;
        self
    }

    /// Whether a field that is not known here is an error. Default false: a warning.
    #[must_use]
    pub fn strict(mut self, strict: bool) -> Self {
        self.rigour.strict = strict;
        self
    }

    /// How long ordered updates wait for a client.
    #[must_use]
    pub fn waits(self, waits: Waits) -> Self {
        Self { waits, ..self }
    }

    /// Binds, reads the source and serves. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// When an address cannot be bound, or the first set has any fault.
    pub async fn start(self, source: impl Source) -> Result<ManagementServer, StartError> {
        let (xds, xds_address) = self.xds.bind().await?;
        let status = match self.status {
            Some(listen) => Some(listen.bind().await?),
            None => None,
        };
        let api = match self.api {
            Some((listen, access)) => Some((listen.bind().await?, access)),
            None => None,
        };
        let stats = Arc::new(Stats::default());
        let mut keeper = Keeper::new(source, self.rigour, Arc::clone(&stats));
        keeper.refresh().await;
        let world = keeper.watch();
        let errors: Vec<_> = world.borrow().all_errors().cloned().collect();
        if !errors.is_empty() {
            return Err(StartError::Source(errors));
        }

        let (stop, stopped) = watch::channel(false);
        let registry = Arc::new(Registry::default());
        let hub = Hub { world, registry, stats, waits: self.waits, stop: stopped };
        let started = SystemTime::now();
        let mut tasks = vec![
            tokio::spawn(until_stopped(keeper.run(), hub.stop.clone())),
            tokio::spawn(serve_xds(xds, hub.clone())),
        ];
        let status_address = status.as_ref().map(|(_, address)| *address);
        if let Some((listener, _)) = status {
            tasks.push(tokio::spawn(http::serve(listener, hub.clone(), started)));
        }
        let api_address = api.as_ref().map(|((_, address), _)| *address);
        if let Some(((listener, _), access)) = api {
            tasks.push(tokio::spawn(api::serve(listener, hub.clone(), access, started)));
        }
        info!(xds = %xds_address, status = ?status_address, api = ?api_address, "listening");
        Ok(ManagementServer { hub, started, stop, tasks, xds_address, status_address, api_address })
    }
}

async fn until_stopped(work: impl Future<Output = ()>, mut stop: watch::Receiver<bool>) {
    tokio::select! {
        () = work => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
}

async fn serve_xds(listener: TcpListener, hub: Hub) {
    let mut stop = hub.stop.clone();
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let served = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_concurrent_streams(MOST_STREAMS)
        .add_routes(service::routes(hub))
        .serve_with_incoming_shutdown(incoming, async move {
            let _ = stop.wait_for(|stop| *stop).await;
        });
    if let Err(error) = served.await {
        error!(%error, "the xds server ended");
    }
}

/// A running management server. Many can run in one process. Dropping it stops it: streams end at
/// once, connections as soon as their clients let go; [`ManagementServer::stop`] waits for that.
#[derive(Debug)]
pub struct ManagementServer {
    hub: Hub,
    started: SystemTime,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    xds_address: SocketAddr,
    status_address: Option<SocketAddr>,
    api_address: Option<SocketAddr>,
}

impl ManagementServer {
    /// A server that checks what it serves and listens on a free port of 127.0.0.1.
    pub fn builder() -> Builder {
        Builder {
            xds: Listen::Address("127.0.0.1:0".to_owned()),
            status: None,
            api: None,
            rigour: Rigour::default(),
            waits: Waits::default(),
        }
    }

    /// Where xDS is served.
    pub fn xds_address(&self) -> SocketAddr {
        self.xds_address
    }

    /// Where the status API is served, if it is.
    pub fn status_address(&self) -> Option<SocketAddr> {
        self.status_address
    }

    /// Where the API that changes instances is served, if it is.
    pub fn api_address(&self) -> Option<SocketAddr> {
        self.api_address
    }

    /// What `GET /status` shows.
    pub fn status(&self) -> Status {
        status::status(
            &self.hub.world.borrow(),
            &self.hub.registry,
            self.started,
            SystemTime::now(),
        )
    }

    /// What `GET /snapshot` shows of a group; `None` if it is served nothing.
    pub fn snapshot(&self, group: &str) -> Option<Served> {
        status::served(&self.hub.world.borrow(), group)
    }

    /// Ends every stream, closes the ports and waits until all is closed, for at most 5 s.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        for mut task in std::mem::take(&mut self.tasks) {
            if timeout(STOP_TIMEOUT, &mut task).await.is_err() {
                task.abort();
            }
        }
    }
}

impl Drop for ManagementServer {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}
