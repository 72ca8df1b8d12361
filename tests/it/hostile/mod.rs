//! Bytes of HTTP/1.1 that are made to be read in two ways, as data: what is sent, and what becomes of it.
//!
//! Each case is sent on a connection of its own with one more request behind it. Either all of it is refused
//! and the connection closed, so that nobody is served what stood behind, or the origin gets exactly the
//! requests that the table says. After each case somebody else asks, over the connections to the origin that
//! the case left behind, and gets his own answer.

mod answers;
mod bodies;
mod bounds;
mod heads;
mod recorder;

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use tokio::time::timeout;

use crate::harness::resources::{bootstrap, hcm, listener_of, route, static_cluster, table};
use crate::harness::{Http1, Proxy, ProxyBuilder};
use recorder::Recorder;

/// Cases in which the codec of clients' connections does not yet do what its table says. It is safe in them.
const STRICTER: &[&str] = &[];

/// How long a connection may stay open that ought to be closed.
const PATIENCE: Duration = Duration::from_secs(20);

/// What follows each case.
const NEXT: &[u8] = b"GET /next HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n";

/// Bytes and what they lead to.
struct Case {
    name: &'static str,
    send: &'static [u8],
    wants: Wants,
    /// The client ends its direction instead of sending one more request.
    ends: bool,
}

enum Wants {
    /// One of these statuses, then the end; the origin gets nothing.
    Refused(&'static [u16]),
    /// 400; the origin gets nothing of it. What stands behind may be served: it is clear where that begins.
    Rejected,
    /// The origin gets these, then the request behind.
    Served(&'static [&'static str]),
    /// The one or the other.
    Either(&'static [&'static str]),
    /// The origin gets these; then 400 and the end.
    ServedThenRefused(&'static [&'static str]),
    /// The origin gets these; then the end.
    ServedThenClosed(&'static [&'static str]),
    /// The origin gets no whole request, nobody a good answer.
    Broken,
}

const fn refused(name: &'static str, send: &'static [u8]) -> Case {
    Case { name, send, wants: Wants::Refused(&[400]), ends: false }
}

const fn rejected(name: &'static str, send: &'static [u8]) -> Case {
    Case { name, send, wants: Wants::Rejected, ends: false }
}

const fn refused_with(statuses: &'static [u16], name: &'static str, send: &'static [u8]) -> Case {
    Case { name, send, wants: Wants::Refused(statuses), ends: false }
}

const fn served(name: &'static str, send: &'static [u8], seen: &'static [&'static str]) -> Case {
    Case { name, send, wants: Wants::Served(seen), ends: false }
}

const fn either(name: &'static str, send: &'static [u8], seen: &'static [&'static str]) -> Case {
    Case { name, send, wants: Wants::Either(seen), ends: false }
}

const fn broken(name: &'static str, send: &'static [u8]) -> Case {
    Case { name, send, wants: Wants::Broken, ends: false }
}

const fn cut(name: &'static str, send: &'static [u8]) -> Case {
    Case { name, send, wants: Wants::Broken, ends: true }
}

/// A proxy with one worker, so that everybody shares connections to the origin.
struct World {
    origin: Recorder,
    proxy: Proxy,
    address: SocketAddr,
}

impl World {
    /// `old` takes requests of HTTP/1.0.
    async fn start(old: bool) -> Self {
        let origin = Recorder::start().await;
        let options = json!({
            "generate_request_id": false,
            "http_protocol_options": { "accept_http_10": old },
        });
        // Between two timeouts that are only there so that a failure ends.
        let all = route("/", json!({ "cluster": "one", "timeout": "10s" }));
        let manager = hcm(json!({ "route_config": table("local", &[all]) }), options);
        let cluster = static_cluster("one", &[origin.address]);
        let config = bootstrap(&[listener_of("in", manager)], &[cluster]);
        let proxy = ProxyBuilder::new(config).args(["--concurrency", "1"]).ready().await;
        let address = proxy.listener("in").await;
        Self { origin, proxy, address }
    }

    /// Everything the proxy says to these bytes until it closes the connection.
    async fn exchange(&self, parts: &[&[u8]], ends: bool) -> Result<Vec<u8>, String> {
        let mut client = Http1::connect(self.address).await;
        for part in parts {
            // It may have closed the connection already.
            let _closed = client.try_send(part).await;
        }
        if ends {
            client.finish().await;
        }
        let said = timeout(PATIENCE, client.rest()).await;
        said.map(|said| said.to_vec()).map_err(|_late| "the connection stays open".to_owned())
    }

    /// Somebody else is served, whatever went before.
    ///
    /// Returns what the origin got before.
    async fn innocent(&self, after: &str) -> Vec<String> {
        let ask = b"GET /innocent HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n";
        let said = self.exchange(&[ask], false).await.unwrap_or_else(|e| panic!("{after}: {e}"));
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(said.starts_with("HTTP/1.1 200 "), "after {after}: {said}");
        assert!(said.ends_with("\r\n\r\n/innocent"), "after {after}: {said}");
        let mut seen = self.origin.take();
        assert_eq!(seen.pop().as_deref(), Some("GET /innocent"), "after {after}: {seen:?}");
        assert!(!seen.iter().any(|seen| seen.starts_with("unclear")), "{after}: {seen:#?}");
        seen
    }

    async fn tell(&self, case: &Case) -> Result<(), String> {
        let parts = [case.send, if case.ends { b"" } else { NEXT }];
        let said = self.exchange(&parts, case.ends).await;
        let seen = self.innocent(case.name).await;
        let statuses = statuses(&said?);
        let got = format!("answered {statuses:?}, the origin got {seen:?}");
        let with_next = |wanted: &[&str]| {
            seen.len() == wanted.len() + 1
                && seen.iter().zip(wanted).all(|(seen, wanted)| seen == wanted)
                && seen.last().is_some_and(|last| last == "GET /next")
        };
        let is_refused =
            |with: &[u16]| seen.is_empty() && matches!(&statuses[..], [one] if with.contains(one));
        let is_served =
            |wanted: &[&str]| with_next(wanted) && statuses == vec![200; wanted.len() + 1];
        let right = match &case.wants {
            Wants::Refused(with) => is_refused(with),
            Wants::Rejected => is_refused(&[400]) || with_next(&[]) && statuses == [400, 200],
            Wants::Served(wanted) => is_served(wanted),
            Wants::Either(wanted) => is_served(wanted) || is_refused(&[400, 501]),
            Wants::ServedThenRefused(wanted) => {
                seen == *wanted
                    && statuses.split_last().is_some_and(|(last, before)| {
                        *last == 400 && before == vec![200; wanted.len()]
                    })
            }
            Wants::ServedThenClosed(wanted) => {
                seen == *wanted && statuses == vec![200; wanted.len()]
            }
            Wants::Broken => seen.is_empty() && statuses.iter().all(|status| *status >= 400),
        };
        if right { Ok(()) } else { Err(got) }
    }

    /// Plays a table. What goes wrong is what [`STRICTER`] lists.
    async fn play(&self, cases: &[Case]) {
        let mut wrong = Vec::new();
        for case in cases {
            if let Err(what) = self.tell(case).await {
                wrong.push((case.name, what));
            }
        }
        let names: Vec<_> = wrong.iter().map(|(name, _)| *name).collect();
        let known: Vec<_> =
            cases.iter().map(|case| case.name).filter(|name| STRICTER.contains(name)).collect();
        assert_eq!(names, known, "{wrong:#?}");
        self.proxy.until_stat("http.in.downstream_cx_active", 0).await;
        self.proxy.until_stat("http.in.downstream_rq_active", 0).await;
        assert!(!self.proxy.process.stderr().contains("panicked"));
    }
}

/// The statuses of final answers, which must be in the one clear form.
fn statuses(mut said: &[u8]) -> Vec<u16> {
    let mut statuses = Vec::new();
    while !said.is_empty() {
        let shown = || said.escape_ascii().to_string();
        let end =
            said.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or_else(|| panic!("{}", shown()));
        let head = std::str::from_utf8(&said[..end]).unwrap();
        assert!(!head.replace("\r\n", "").contains(['\r', '\n', '\0']), "{}", shown());
        let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length = length.map_or(0, |length| length.parse().unwrap());
        said = said.get(end + 4 + length..).unwrap_or_else(|| panic!("{}", shown()));
        if status >= 200 {
            statuses.push(status);
        }
    }
    statuses
}
