//! Streams over gRPC: connect, exchange, and when the stream ends, again.
//!
//! One task a stream. It connects to its servers in turn, moves requests and responses between the
//! wire and the [`Mux`](super::mux::Mux), and hands updates to control. It never stops reading
//! because control is slow, except to bound what waits.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use http::uri::{Authority, PathAndQuery};
use rand::Rng;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::client::Grpc;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::backoff::{Backoff, BackoffOptions};
use super::link::{Gone, Link};
use super::machine::Machine;
use super::rate::RateLimit;
use super::types::{Event, ResourceType, Variant};

/// The windows in which a server may send before we have read, in bytes. The default of HTTP/2 is
/// a round trip for each 64 KiB.
const WINDOW: u32 = 4 << 20;
/// Requests handed to the transport that it has not yet sent.
const REQUESTS_UNDER_WAY: usize = 4;

/// How to reach the servers of one source, and how to behave there. `ApiConfigSource`
#[derive(Clone, Debug)]
pub struct GrpcOptions {
    /// The servers, tried in turn: after a failure the next, after the last the first.
    pub endpoints: Vec<Endpoint>,
    /// State of the world or incremental.
    pub variant: Variant,
    /// Whether to leave the node out of later requests (incremental streams always do).
    pub set_node_on_first_message_only: bool,
    /// A bound on requests, if any.
    pub rate_limit: Option<RateLimit>,
    /// Waits between attempts.
    pub backoff: BackoffOptions,
    /// Headers of each stream.
    pub initial_metadata: MetadataMap,
    /// The `:authority` to ask for; by default that of the endpoint.
    pub authority: Option<Authority>,
    /// The largest response accepted, in bytes.
    pub max_receive_bytes: usize,
    /// How long a connection may take to come about.
    pub connect_timeout: Duration,
    /// How often a silent connection is probed.
    pub keep_alive_interval: Duration,
    /// How long a probe may go unanswered.
    pub keep_alive_timeout: Duration,
}

impl GrpcOptions {
    /// The defaults for a list of servers.
    pub fn new(endpoints: Vec<Endpoint>, variant: Variant) -> Self {
        Self {
            endpoints,
            variant,
            set_node_on_first_message_only: true,
            rate_limit: None,
            backoff: BackoffOptions::default(),
            initial_metadata: MetadataMap::new(),
            authority: None,
            max_receive_bytes: 200 << 20,
            connect_timeout: Duration::from_secs(5),
            keep_alive_interval: Duration::from_secs(30),
            keep_alive_timeout: Duration::from_secs(20),
        }
    }

    fn endpoint(&self, turn: usize) -> Result<Endpoint, String> {
        let count = self.endpoints.len().max(1);
        let endpoint = self.endpoints.get(turn % count).ok_or("no server is configured")?;
        let mut endpoint = endpoint
            .clone()
            .connect_timeout(self.connect_timeout)
            .http2_keep_alive_interval(self.keep_alive_interval)
            .keep_alive_timeout(self.keep_alive_timeout)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW);
        if let Some(authority) = &self.authority {
            let mut parts = endpoint.uri().clone().into_parts();
            parts.authority = Some(authority.clone());
            let origin = Uri::from_parts(parts)
                .map_err(|error| format!("authority {authority:?} cannot be used: {error}"))?;
            endpoint = endpoint.origin(origin);
        }
        Ok(endpoint)
    }
}

/// The path of the service: that of one type, or the aggregated one.
pub(super) fn method(ty: Option<ResourceType>, variant: Variant) -> &'static str {
    match (ty, variant) {
        (Some(ty), _) => ty.method(variant),
        (None, Variant::Sotw) => {
            "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
        }
        (None, Variant::Delta) => {
            "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
        }
    }
}

/// How a stream ended.
struct End {
    error: String,
    /// The server closed it with status OK.
    planned: bool,
    responded: bool,
}

impl End {
    /// How long to wait before the next attempt, after a stream that lived for `lived`.
    fn wait(&self, lived: Duration, backoff: &mut Backoff, rng: &mut impl Rng) -> Duration {
        // A server that accepts streams but never answers is no better than one that is gone.
        if self.responded {
            backoff.reset();
        }
        // One that goes away in good order is expected back; one that keeps doing so is not.
        if self.planned && self.responded && lived >= backoff.base() {
            return Duration::ZERO;
        }
        backoff.next(rng)
    }
}

/// Keeps one stream alive until control is gone. Dropping it ends the stream.
pub(super) async fn run<M: Machine>(
    link: Arc<Link<M>>,
    options: Arc<GrpcOptions>,
    method: &'static str,
    events: mpsc::Sender<Event>,
) {
    let mut backoff = Backoff::new(options.backoff);
    let mut turn = 0;
    loop {
        let started = Instant::now();
        let Ok(end) = session(&link, &options, turn, method, &events).await else { return };
        link.with(|mux| mux.closed(&end.error));
        if !end.planned {
            turn += 1;
        }
        let wait = end.wait(started.elapsed(), &mut backoff, &mut rand::rng());
        if link.tell_during(&events, tokio::time::sleep(wait)).await.is_err() {
            return;
        }
    }
}

/// One connection and its stream, from dialling to the end.
async fn session<M: Machine>(
    link: &Link<M>,
    options: &GrpcOptions,
    turn: usize,
    method: &'static str,
    events: &mpsc::Sender<Event>,
) -> Result<End, Gone> {
    let failed = |error: String| End { error, planned: false, responded: false };
    let endpoint = match options.endpoint(turn) {
        Ok(endpoint) => endpoint,
        Err(error) => return Ok(failed(error)),
    };
    let client = async {
        let mut client = Grpc::new(endpoint.connect().await?)
            .max_decoding_message_size(options.max_receive_bytes);
        client.ready().await?;
        Ok::<_, tonic::transport::Error>(client)
    };
    match link.tell_during(events, client).await? {
        Ok(client) => {
            let end = exchange(link, client, options, method, events).await?;
            Ok(End { responded: link.with(|mux| mux.responded()), ..end })
        }
        Err(error) => {
            Ok(failed(format!("cannot connect to {}: {}", endpoint.uri(), with_causes(&error))))
        }
    }
}

/// Moves messages both ways until the stream ends.
async fn exchange<M: Machine>(
    link: &Link<M>,
    mut client: Grpc<Channel>,
    options: &GrpcOptions,
    method: &'static str,
    events: &mpsc::Sender<Event>,
) -> Result<End, Gone> {
    let (requests, mut outgoing) = mpsc::channel(REQUESTS_UNDER_WAY);
    let outgoing = futures_util::stream::poll_fn(move |cx| outgoing.poll_recv(cx));
    let mut request = Request::new(outgoing);
    *request.metadata_mut() = options.initial_metadata.clone();
    link.with(|mux| mux.opened());

    // Servers may hold back even the head of the answer until they have seen a request.
    let codec = ProstCodec::<M::Request, M::Response>::default();
    let mut call = pin!(client.streaming(request, PathAndQuery::from_static(method), codec));
    let mut incoming: Option<Streaming<M::Response>> = None;
    let mut sending = true;
    loop {
        let ready = link.ready();
        tokio::select! {
            answer = &mut call, if incoming.is_none() => match answer {
                Ok(answer) => incoming = Some(answer.into_inner()),
                Err(status) => return Ok(broken(&status)),
            },
            message = next(&mut incoming), if ready.read => match message {
                Ok(Some(response)) => link.with(|mux| mux.receive(response)),
                Ok(None) => {
                    let error = "the server closed the stream".to_owned();
                    return Ok(End { error, planned: true, responded: false });
                }
                Err(status) => return Ok(broken(&status)),
            },
            room = requests.reserve(), if sending && ready.request => match room {
                Ok(room) => {
                    if let Some(request) = link.with(|mux| mux.take_request(Instant::now())) {
                        room.send(request);
                    }
                }
                // The transport gave up sending; the reading side will say why.
                Err(mpsc::error::SendError(())) => sending = false,
            },
            room = events.reserve(), if ready.event => {
                link.tell(room.map_err(|mpsc::error::SendError(())| Gone)?);
            }
            () = link.rung(ready.wake) => {}
        }
    }
}

async fn next<R>(incoming: &mut Option<Streaming<R>>) -> Result<Option<R>, Status> {
    match incoming {
        Some(incoming) => incoming.message().await,
        None => std::future::pending().await,
    }
}

fn broken(status: &Status) -> End {
    let error = format!("{:?}: {}", status.code(), status.message());
    End { error, planned: false, responded: false }
}

/// An error and what it came from; the transport's own text alone says only that it failed.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests;
