//! The status API: a small HTTP/1.1 server that only answers GET.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{debug, warn};

use crate::groups::DEFAULT_GROUP;
use crate::status::{served, status};
use crate::stream::Hub;

/// More connections than this wait to be accepted.
const MOST_CONNECTIONS: usize = 64;
/// A request's head must arrive within this time, and an idle connection is closed after it.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

const INDEX: &str = "\
xds-server

/status                what is wrong, and each proxy: sent, accepted, refused
/snapshot?group=NAME   what a group is served, by name and version (default: group=default)
/ready                 200 while it serves
/metrics               counters for Prometheus
";

/// Answers on `listener` until the server stops.
pub(crate) async fn serve(listener: TcpListener, hub: Hub, started: SystemTime) {
    let mut stop = hub.stop.clone();
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accept = async {
            let permit = Arc::clone(&room).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            accepted = accept => accepted,
            Some(_) = connections.join_next() => continue,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "cannot accept a status connection");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let hub = hub.clone();
        connections.spawn(async move {
            let _permit = permit;
            let answer = service_fn(|request| {
                let response = answer(&request, &hub, started);
                async { Ok::<_, Infallible>(response) }
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), answer)
                .await;
            if let Err(error) = served {
                debug!(%error, "status connection failed");
            }
        });
    }
}

fn answer(request: &Request<Incoming>, hub: &Hub, started: SystemTime) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned());
        response.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let world = Arc::clone(&hub.world.borrow());
    match request.uri().path() {
        "/" => text(StatusCode::OK, INDEX.to_owned()),
        "/status" => json(&status(&world, &hub.registry, started, SystemTime::now())),
        "/snapshot" => {
            let group = group_of(request.uri().query().unwrap_or_default());
            match served(&world, &group) {
                Some(document) => json(&document),
                None => {
                    let message = format!("no set is served to a group {group:?}\n");
                    text(StatusCode::NOT_FOUND, message)
                }
            }
        }
        "/ready" => text(StatusCode::OK, "ready\n".to_owned()),
        "/metrics" => text(StatusCode::OK, hub.stats.prometheus(&world, &hub.registry)),
        path => text(StatusCode::NOT_FOUND, format!("no {path} here; see /\n")),
    }
}

/// The value of `group` in a query, percent-decoded.
fn group_of(query: &str) -> String {
    let value = query.split('&').find_map(|pair| pair.strip_prefix("group="));
    let Some(value) = value else { return DEFAULT_GROUP.to_owned() };
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = |digit: u8| char::from(digit).to_digit(16).and_then(|d| u8::try_from(d).ok());
        let escaped = match (first, after) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)).map(|(h, l)| h * 16 + l),
            _ => None,
        };
        match escaped {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(if *first == b'+' { b' ' } else { *first });
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn json(document: &impl Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_vec_pretty(document) {
        Ok(mut body) => {
            body.push(b'\n');
            respond(StatusCode::OK, "application/json", body)
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    respond(status, "text/plain; charset=utf-8", body.into_bytes())
}

fn respond(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_is_read_from_the_query() {
        for (query, group) in [
            ("", "default"),
            ("group=edge", "edge"),
            ("x=1&group=edge%2Deu+1", "edge-eu 1"),
            ("group=%zz%", "%zz%"),
            ("group=", ""),
        ] {
            assert_eq!(group_of(query), group);
        }
    }
}
