//! The project's own management server, embedded, with resources from memory.

use std::net::SocketAddr;
use std::time::Duration;

use nuncio_xds_server::status::{Status, Type};
use nuncio_xds_server::{ManagementServer, MemorySource};
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::time::Instant;

use super::resources::any;
use super::scripted::Kind;
use super::wait::{PATIENCE, eventually, pace};

/// A server that keeps its resources over its own deaths.
pub(crate) struct Plane {
    pub(crate) address: SocketAddr,
    source: MemorySource,
    running: Option<(ManagementServer, Runtime)>,
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Plane {
    /// Serves these resources.
    pub(crate) async fn start(resources: &[(Kind, Value)]) -> Self {
        let source = MemorySource::new();
        source.set(resources.iter().map(|(kind, value)| any(*kind, value)));
        let mut plane = Self { address: ([127, 0, 0, 1], 0).into(), source, running: None };
        plane.restart().await;
        plane
    }

    /// Adds or replaces one resource.
    pub(crate) fn update(&self, kind: Kind, value: &Value) {
        self.source.update([any(kind, value)]);
    }

    pub(crate) fn remove(&self, kind: Kind, name: &str) {
        self.source.remove(&kind.url(), name);
    }

    /// Ends at once, without a word to anybody.
    pub(crate) fn kill(&mut self) {
        if let Some((server, runtime)) = self.running.take() {
            runtime.shutdown_background();
            drop(server);
        }
    }

    /// Starts again on the same address.
    pub(crate) async fn restart(&mut self) {
        self.kill();
        let address = self.address;
        let listener = eventually("the address is free", async || {
            let socket = tokio::net::TcpListener::bind(address).await.ok()?;
            Some(socket.into_std().unwrap())
        });
        let listener = listener.await;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let source = self.source.clone();
        let start = ManagementServer::builder().listen_on(listener).start(source);
        let server = runtime.spawn(start).await.unwrap().unwrap_or_else(|e| panic!("{e}"));
        self.address = server.xds_address();
        self.running = Some((server, runtime));
    }

    pub(crate) fn status(&self) -> Status {
        self.running.as_ref().expect("the server runs").0.status()
    }

    /// Waits until the one proxy has accepted all that was sent.
    pub(crate) async fn until_settled(&self) {
        until_settled(|| self.status()).await;
    }
}

/// Waits until the one proxy of a server has accepted all that was sent.
pub(crate) async fn until_settled(status: impl Fn() -> Status) {
    let end = Instant::now() + PATIENCE;
    loop {
        let status = status();
        // A new stream is sent nothing of what the proxy says it has.
        let same = |t: &Type| t.version_sent.is_none() || t.version_sent == t.version_acked;
        let settled = |t: &Type| t.state != "waiting" && same(t);
        if status.proxies.len() == 1 && status.proxies[0].types.iter().all(settled) {
            return;
        }
        let shown = serde_json::to_string_pretty(&status).unwrap();
        assert!(Instant::now() < end, "not everything was acknowledged: {shown}");
        pace(Duration::from_millis(5)).await;
    }
}
