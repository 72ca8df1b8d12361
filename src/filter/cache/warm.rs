//! Warming: responses that are fetched before anybody asks for them, by the way that a client's request
//! would take.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::header::HOST;
use http::{HeaderValue, Method, Uri, Version};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::config::at_least_a_second;
use crate::cache::CacheStats;
use crate::config::{Errors, Fault, OrFault, fields};
use crate::exchange::headers::X_FORWARDED_PROTO;
use crate::exchange::{Body, Downstream, HttpService, Request, StreamInfo};
use crate::proto::nuncio::extensions::filters::http::cache::v1::cache as proto;

const DEFAULT_CONCURRENCY: u32 = 5;
/// Attempts for one URL in one round, and the wait before the second; it doubles.
const ATTEMPTS: u32 = 4;
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// How long one attempt may take.
const LONGEST: Duration = Duration::from_secs(60);

/// What is fetched, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Warming {
    targets: Vec<Target>,
    interval: Option<Duration>,
    concurrency: usize,
}

/// A URL.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    scheme: &'static str,
    host: HeaderValue,
    path: Uri,
}

impl Warming {
    pub(super) fn compile(message: &proto::Warming) -> Result<Self, Errors> {
        let proto::Warming { urls, interval, concurrency } = message;
        let mut errors = Errors::new();
        let targets = errors.each("urls", urls, |url| target(url));
        if urls.is_empty() {
            errors.push("urls", Fault::Required);
        }
        let interval = interval.as_ref().map(at_least_a_second).transpose().at("interval");
        let interval = errors.take(interval).flatten();
        let concurrency = fields::in_range(concurrency.unwrap_or(DEFAULT_CONCURRENCY), 1..=100);
        let concurrency = errors.take(concurrency.at("concurrency")).unwrap_or_default() as usize;
        errors.finish()?;
        Ok(Self { targets, interval, concurrency })
    }
}

fn target(url: &str) -> Result<Target, Errors> {
    let wrong = || {
        let wanted = "a path that begins with /, or http://host/path";
        Errors::from(Fault::out_of_range(format!("{url:?}"), wanted))
    };
    let uri: Uri = url.parse().map_err(|_unreadable| wrong())?;
    let scheme = match uri.scheme_str() {
        None if url.starts_with('/') => "http",
        Some("http") => "http",
        Some("https") => "https",
        _ => return Err(wrong()),
    };
    let host = uri.authority().map_or("localhost", |authority| authority.as_str());
    let host = HeaderValue::from_str(host).map_err(|_unreadable| wrong())?;
    let path = uri.into_parts().path_and_query.map(Uri::from).unwrap_or_default();
    Ok(Target { scheme, host, path })
}

/// Warming that goes on until this is dropped.
pub(super) struct Warmer {
    warming: Warming,
    front: Arc<Mutex<HttpService>>,
    task: AbortHandle,
}

impl Warmer {
    pub(super) fn start(warming: &Warming, front: &HttpService, stats: &Arc<CacheStats>) -> Self {
        let front = Arc::new(Mutex::new(front.clone()));
        let rounds = rounds(warming.clone(), Arc::clone(&front), Arc::clone(stats));
        let task = tokio::spawn(rounds).abort_handle();
        Self { warming: warming.clone(), front, task }
    }

    pub(super) fn is_of(&self, warming: &Warming) -> bool {
        self.warming == *warming
    }

    /// From now on requests go this way.
    pub(super) fn go_through(&self, front: &HttpService) {
        *self.front.lock() = front.clone();
    }
}

impl Drop for Warmer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn rounds(warming: Warming, front: Arc<Mutex<HttpService>>, stats: Arc<CacheStats>) {
    loop {
        let mut waiting = warming.targets.iter();
        let fetch = |target| fetch(target, &front, &stats);
        let mut fetching: FuturesUnordered<_> =
            waiting.by_ref().take(warming.concurrency).map(fetch).collect();
        while fetching.next().await.is_some() {
            fetching.extend(waiting.next().map(fetch));
        }
        let Some(interval) = warming.interval else { return };
        // A tenth earlier or later, so that a fleet does not ask all at once.
        tokio::time::sleep(interval.mul_f64(rand::random_range(0.9..1.1))).await;
    }
}

/// A failure may be one of a beginning: clusters without hosts yet, an origin that starts.
async fn fetch(target: &Target, front: &Mutex<HttpService>, stats: &CacheStats) {
    let mut wait = FIRST_WAIT;
    for attempt in 1..=ATTEMPTS {
        let front = front.lock().clone();
        let is_done = tokio::time::timeout(LONGEST, try_fetch(target, &front)).await;
        if is_done == Ok(true) {
            stats.warmed.inc();
            return;
        }
        stats.warm_failed.inc();
        if attempt < ATTEMPTS {
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
    }
}

async fn try_fetch(target: &Target, front: &HttpService) -> bool {
    let mut head = http::Request::new(()).into_parts().0;
    head.method = Method::GET;
    head.uri.clone_from(&target.path);
    head.headers.insert(HOST, target.host.clone());
    head.headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(target.scheme));
    let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let downstream = Downstream {
        id: 0,
        remote: nowhere,
        local: nowhere,
        remote_ip: HeaderValue::from_static("127.0.0.1"),
        buffer_limit: u32::MAX,
    };
    let stream = StreamInfo::new(Instant::now(), Version::HTTP_11, Arc::new(downstream));
    let request = Request { head, body: Body::Empty, stream: Box::new(stream) };
    let Ok(mut response) = front.send(request).await else { return false };
    let is_good = response.head.status.is_success();
    while let Some(frame) = response.body.frame().await {
        if frame.is_err() {
            return false;
        }
    }
    is_good
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_paths_or_whole_urls() {
        let of = |url: &str| target(url).map(|t| (t.scheme, t.host, t.path.to_string()));
        let host = HeaderValue::from_static;
        assert_eq!(of("/a?b").unwrap(), ("http", host("localhost"), "/a?b".into()));
        assert_eq!(of("https://X:1/a").unwrap(), ("https", host("X:1"), "/a".into()));
        assert_eq!(of("http://x").unwrap().2, "/");
        for bad in ["", "a", "x.test/a", "ftp://x/", "http://", "/ä b"] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
