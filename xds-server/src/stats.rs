//! Counters of the server and their text form for Prometheus.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::cache::World;
use crate::ledger::Outcome;
use crate::registry::Registry;
use crate::types::ResourceType;

/// What is counted; relaxed atomics.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    streams: AtomicU64,
    unknown_types: AtomicU64,
    loads_good: AtomicU64,
    loads_refused: AtomicU64,
    types: [TypeStats; ResourceType::COUNT],
}

#[derive(Debug, Default)]
struct TypeStats {
    requests: AtomicU64,
    responses: AtomicU64,
    acks: AtomicU64,
    nacks: AtomicU64,
    stale: AtomicU64,
}

impl Stats {
    /// A stream was opened.
    pub(crate) fn stream(&self) {
        self.streams.fetch_add(1, Relaxed);
    }

    /// A request named a type that is not served.
    pub(crate) fn unknown_type(&self) {
        self.unknown_types.fetch_add(1, Relaxed);
    }

    /// The source was read.
    pub(crate) fn load(&self, good: bool) {
        let counter = if good { &self.loads_good } else { &self.loads_refused };
        counter.fetch_add(1, Relaxed);
    }

    /// A request came.
    pub(crate) fn request(&self, ty: ResourceType, outcome: Outcome) {
        let stats = &self.types[ty.index()];
        stats.requests.fetch_add(1, Relaxed);
        match outcome {
            Outcome::Subscribed => return,
            Outcome::Acked => &stats.acks,
            Outcome::Nacked => &stats.nacks,
            Outcome::Stale => &stats.stale,
        }
        .fetch_add(1, Relaxed);
    }

    /// A response went out.
    pub(crate) fn response(&self, ty: ResourceType) {
        self.types[ty.index()].responses.fetch_add(1, Relaxed);
    }

    /// Everything in the text format of Prometheus.
    pub(crate) fn prometheus(&self, world: &World, registry: &Registry) -> String {
        let mut text = Text(String::new());
        text.family("xds_server_streams_total", "counter", "Streams opened.");
        text.sample("xds_server_streams_total", &[], self.streams.load(Relaxed));
        text.family("xds_server_streams", "gauge", "Streams open now.");
        for ((stream, variant), count) in registry.counts() {
            text.sample("xds_server_streams", &[("stream", stream), ("variant", variant)], count);
        }
        let name = "xds_server_unknown_type_requests_total";
        text.family(name, "counter", "Requests of a type that is not served.");
        text.sample(name, &[], self.unknown_types.load(Relaxed));
        type Field = fn(&TypeStats) -> &AtomicU64;
        let families: [(&str, &str, Field); 5] = [
            ("xds_server_requests_total", "Requests received.", |t| &t.requests),
            ("xds_server_responses_total", "Responses sent.", |t| &t.responses),
            ("xds_server_acks_total", "Responses accepted.", |t| &t.acks),
            ("xds_server_nacks_total", "Responses refused.", |t| &t.nacks),
            ("xds_server_stale_requests_total", "Requests with a stale nonce.", |t| &t.stale),
        ];
        for (name, help, field) in families {
            text.family(name, "counter", help);
            for (ty, stats) in ResourceType::ALL.iter().zip(&self.types) {
                text.sample(name, &[("type", ty.key())], field(stats).load(Relaxed));
            }
        }
        let name = "xds_server_loads_total";
        text.family(name, "counter", "Readings of the source, by whether all of it was good.");
        text.sample(name, &[("result", "good")], self.loads_good.load(Relaxed));
        text.sample(name, &[("result", "refused")], self.loads_refused.load(Relaxed));
        let name = "xds_server_resources";
        text.family(name, "gauge", "Resources in service.");
        for (group, state) in &world.groups {
            let Some(snapshot) = &state.snapshot else { continue };
            for ty in ResourceType::ALL {
                let count = snapshot.set(ty).resources.len() as u64;
                text.sample(name, &[("group", group), ("type", ty.key())], count);
            }
        }
        let name = "xds_server_errors";
        text.family(name, "gauge", "Errors in the newest set of a group; 0 if it is in service.");
        for (group, state) in &world.groups {
            text.sample(name, &[("group", group)], state.errors.len() as u64);
        }
        let name = "xds_server_accepted_timestamp_seconds";
        text.family(name, "gauge", "When the set in service was accepted.");
        for (group, state) in &world.groups {
            if let Some(accepted) = state.accepted {
                text.sample(name, &[("group", group)], unix_seconds(accepted));
            }
        }
        text.0
    }
}

fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        self.0.push_str(name);
        for (i, (label, text)) in labels.iter().enumerate() {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let open = if i == 0 { '{' } else { ',' };
            let _ = write!(self.0, "{open}{label}=\"{text}\"");
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{close} {value}");
    }
}
