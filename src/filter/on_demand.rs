//! `envoy.filters.http.on_demand`: a request for a host that its table does not know waits until the
//! management server was asked for it.
//!
//! Control is asked through a channel and answers with the table as it is then, which is newer than the
//! worker's perhaps. It ends each wait, by the timeout of the table's `vhds.config_source`.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::registry::Registration;
use super::{Filter, FilterFactory, Stage, WorkerContext};
use crate::config::Fault;
use crate::exchange::{HttpService, Request, Response, StreamReset};
use crate::proto::any::unpack;
use crate::proto::envoy::extensions::filters::http::on_demand::v3 as proto;
use crate::route::RouteTable;

/// Requests that may wait for control to hear of them.
const MOST_UNHEARD: usize = 256;

/// A longer name is nobody's host: RFC 1035 section 2.3.4 allows 253 characters, a port adds 6.
const LONGEST_HOST: usize = 259;

pub(super) const REGISTRATION: Registration = Registration {
    config_type: "envoy.extensions.filters.http.on_demand.v3.OnDemand",
    terminal: false,
    compile: |config, _| {
        let proto::OnDemand {} = unpack(config).map_err(|e| Fault::Undecodable(e.to_string()))?;
        Ok(Arc::new(OnDemand))
    },
};

/// One request's question.
#[derive(Debug)]
pub struct Ask {
    /// Name of the route table.
    pub table: Arc<str>,
    /// The host, in lower case.
    pub host: Box<str>,
    /// Gets the table once the host is in it, or known not to be. Dropped if the table is unknown.
    pub reply: oneshot::Sender<Arc<RouteTable>>,
}

/// Where filters ask.
#[derive(Debug, Clone)]
pub struct Asker(mpsc::Sender<Ask>);

/// A way to ask, and where the questions come out.
pub fn channel() -> (Asker, mpsc::Receiver<Ask>) {
    let (sender, receiver) = mpsc::channel(MOST_UNHEARD);
    (Asker(sender), receiver)
}

struct OnDemand;

impl FilterFactory for OnDemand {
    fn stage(&self, cx: &WorkerContext) -> Stage {
        Stage::layer(Waiting { asker: cx.hosts.clone() })
    }
}

struct Waiting {
    asker: Asker,
}

impl Filter for Waiting {
    async fn call(
        &self,
        mut request: Request,
        next: &HttpService,
    ) -> Result<Response, StreamReset> {
        let (reply, answer) = oneshot::channel();
        let Some(ask) = question(&request, reply) else { return next.send(request).await };
        let Some(table) = self.asker.ask(ask, answer).await else {
            return next.send(request).await;
        };
        let route = table.find(&request.head, rand::random);
        request.stream.route_table = Some(table as _);
        let Some(route) = route else { return next.send(request).await };
        let Request { head, body, mut stream } = request;
        stream.route_name = route.name().cloned();
        stream.route = Some(route as _);
        // Filters before this one have not seen the route and what it says about them.
        Err(StreamReset::again(head, body, stream))
    }
}

/// What to ask for a request, if its host is not in the table it has.
fn question(request: &Request, reply: oneshot::Sender<Arc<RouteTable>>) -> Option<Ask> {
    let table = request.stream.route_table.as_ref()?.downcast_ref::<RouteTable>()?;
    if table.host_source().is_none() || table.has_host(&request.head) {
        return None;
    }
    let host = std::str::from_utf8(table.asked_host(&request.head)).ok()?;
    let is_one = !host.is_empty() && host.len() <= LONGEST_HOST;
    let host = host.to_ascii_lowercase().into();
    is_one.then(|| Ask { table: Arc::clone(table.name()), host, reply })
}

impl Asker {
    /// The table once the host is in it or known not to be; none if nobody can say.
    async fn ask(
        &self,
        ask: Ask,
        answer: oneshot::Receiver<Arc<RouteTable>>,
    ) -> Option<Arc<RouteTable>> {
        self.0.send(ask).await.ok()?;
        answer.await.ok()
    }
}
