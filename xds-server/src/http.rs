//! The status API: a small HTTP/1.1 server that only answers GET.

use std::sync::Arc;
use std::time::SystemTime;

use hyper::body::Incoming;
use hyper::header::{ALLOW, HeaderValue};
use hyper::{Method, Request, StatusCode};
use tokio::net::TcpListener;

use crate::groups::DEFAULT_GROUP;
use crate::listen::{self, Answer, decoded, json, text};
use crate::status::{served, status};
use crate::stream::Hub;

const INDEX: &str = "\
xds-server

/status                what is wrong, and each proxy: sent, accepted, refused
/snapshot?group=NAME   what a group is served, by name and version (default: group=default)
/ready                 200 while it serves
/metrics               counters for Prometheus
";

/// Answers on `listener` until the server stops.
pub(crate) async fn serve(listener: TcpListener, hub: Hub, started: SystemTime) {
    let stop = hub.stop.clone();
    let answer = move |request| std::future::ready(answer(&request, &hub, started));
    listen::serve(listener, stop, answer).await;
}

fn answer(request: &Request<Incoming>, hub: &Hub, started: SystemTime) -> Answer {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned());
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let world = Arc::clone(&hub.world.borrow());
    match request.uri().path() {
        "/" => text(StatusCode::OK, INDEX.to_owned()),
        "/status" => {
            json(StatusCode::OK, &status(&world, &hub.registry, started, SystemTime::now()))
        }
        "/snapshot" => {
            let group = group_of(request.uri().query().unwrap_or_default());
            match served(&world, &group) {
                Some(document) => json(StatusCode::OK, &document),
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
    decoded(value)
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
