//! A proxy in the middle of its life, served by a scripted server: one listener with discovered
//! routes, one cluster with discovered endpoints, one origin. The stories of both variants start here.

use std::net::SocketAddr;

use serde_json::Value;

use crate::harness::resources::{
    assignment, dynamic_delta, dynamic_sotw, eds_cluster, rds_listener, table, to,
};
use crate::harness::scripted::{Delta, Sotw};
use crate::harness::{Kind, Management, Origin, Proxy, ProxyBuilder, ack_of, delta, sotw};

pub(crate) struct World<S> {
    pub(crate) origin: Origin,
    pub(crate) server: Management,
    pub(crate) stream: S,
    pub(crate) proxy: Proxy,
    pub(crate) address: SocketAddr,
}

/// The four resources of the start, all of version 1.
fn first(origin: &Origin) -> [(Kind, Value); 4] {
    [
        (Kind::Cluster, eds_cluster("one")),
        (Kind::Endpoints, assignment("one", &[origin.address])),
        (Kind::Listener, rds_listener("in", "table")),
        (Kind::Routes, table("table", &[to("one")])),
    ]
}

impl World<Sotw> {
    pub(crate) async fn sotw() -> Self {
        Self::sotw_with(&[]).await
    }

    /// With more options on the command line.
    pub(crate) async fn sotw_with(args: &[&str]) -> Self {
        let origin = Origin::http1("one").await;
        let mut server = Management::start().await;
        let builder = ProxyBuilder::new(dynamic_sotw(server.address));
        let proxy = builder.args(args.iter().copied()).start().await;
        let mut stream = server.sotw().await;
        for (kind, resource) in first(&origin) {
            stream.request(kind).await;
            stream.respond(sotw(kind, "1", &[resource])).await;
            ack_of(&mut stream, kind, "1").await;
        }
        proxy.until_ready().await;
        let address = proxy.listener("in").await;
        Self { origin, server, stream, proxy, address }
    }

    /// Sends a response and waits for its ACK.
    pub(crate) async fn push(&mut self, kind: Kind, version: &str, resources: &[Value]) {
        self.stream.respond(sotw(kind, version, resources)).await;
        ack_of(&mut self.stream, kind, version).await;
    }
}

impl World<Delta> {
    pub(crate) async fn delta() -> Self {
        let origin = Origin::http1("one").await;
        let mut server = Management::start().await;
        let proxy = ProxyBuilder::new(dynamic_delta(server.address)).start().await;
        let mut stream = server.delta().await;
        for (kind, resource) in first(&origin) {
            stream.request(kind).await;
            stream.respond(delta(kind, "1", &[resource], &[])).await;
            ack_of(&mut stream, kind, "1").await;
        }
        proxy.until_ready().await;
        let address = proxy.listener("in").await;
        Self { origin, server, stream, proxy, address }
    }

    /// Sends a response and waits for its ACK.
    pub(crate) async fn push(
        &mut self,
        kind: Kind,
        version: &str,
        resources: &[Value],
        removed: &[&str],
    ) {
        self.stream.respond(delta(kind, version, resources, removed)).await;
        ack_of(&mut self.stream, kind, version).await;
    }
}

impl<S> World<S> {
    /// Waits until a request is answered with this body.
    pub(crate) async fn until_answers(&self, path: &str, body: &str) {
        crate::harness::eventually(&format!("{path} is answered {body:?}"), async || {
            (crate::harness::get(self.address, path).await.text() == body).then_some(())
        })
        .await;
    }

    /// Waits until a request is answered with this status.
    pub(crate) async fn until_status(&self, path: &str, status: u16) {
        crate::harness::eventually(&format!("{path} is answered {status}"), async || {
            (crate::harness::get(self.address, path).await.status == status).then_some(())
        })
        .await;
    }
}
