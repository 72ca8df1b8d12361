//! Ways through a proxy that change bodies: our filter and Envoy's, in every coding, at levels of all kinds.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::codings::ALL;
use super::envoy::{DECOMPRESSOR, compressor, library};
use super::{compression, filtered};
use crate::harness::Proxy;
use crate::harness::resources::{
    bootstrap, filter, over_http2, route, static_cluster, table, with,
};

const QUICK: usize = 4 << 20;
const SLOW: usize = 100_000;

/// One listener.
pub(super) struct Way {
    pub(super) name: String,
    pub(super) address: SocketAddr,
    /// What its responses come in, to clients that take everything.
    pub(super) answers: &'static str,
    /// What its requests reach the origin in.
    pub(super) asks: &'static str,
    /// What its requests may come in, beside the plain form.
    pub(super) takes: &'static [&'static str],
    /// Bytes that it takes in a reasonable time.
    pub(super) most: usize,
    /// Responses of so many bytes or more are encoded, whatever they are.
    pub(super) least: usize,
    filters: Vec<Value>,
}

impl Way {
    fn new(name: &str, answers: &'static str, most: usize, filters: Vec<Value>) -> Self {
        Self {
            name: name.to_owned(),
            address: ([127, 0, 0, 1], 0).into(),
            answers,
            asks: "",
            takes: &[],
            most,
            // Envoy's `min_content_length`.
            least: 30,
            filters,
        }
    }

    fn ours(answers: &'static str, asks: &'static str, level: u32, most: usize) -> Self {
        let mut config = json!({
            "encodings": [{ "coding": answers, "level": level }],
            "bodies": { "min_size": 0 },
            "request_decompression": { "max_ratio": 100_000 },
        });
        if !asks.is_empty() {
            let encoding = json!({ "coding": asks, "level": level.min(9) });
            config["request_compression"] =
                json!({ "encoding": encoding, "bodies": { "min_size": 0 } });
        }
        let name = format!("{answers} {level} {asks}");
        let way = Self::new(&name, answers, most, vec![compression(config)]);
        // What is shorter stays as it is if it gains nothing.
        Self { asks, takes: &ALL, least: (64 << 10) + 1, ..way }
    }

    /// Envoy's compressor of both directions, and its decompressor of requests before it, or of both.
    fn envoys(name: &str, coding: &'static str, config: Value, decodes_answers: bool) -> Self {
        let (kind, unkind, takes) = match coding {
            "gzip" => ("gzip.compressor.v3.Gzip", "gzip.decompressor.v3.Gzip", &["gzip"]),
            "br" => ("brotli.compressor.v3.Brotli", "brotli.decompressor.v3.Brotli", &["br"]),
            _ => ("zstd.compressor.v3.Zstd", "zstd.decompressor.v3.Zstd", &["zstd"]),
        };
        let is_slow = name.ends_with("slow");
        let makes = compressor(
            "c",
            kind,
            json!({
                "compressor_library": library("l", kind, config), "request_direction_config": {},
                "response_direction_config": {},
            }),
        );
        let enabled = json!({ "default_value": decodes_answers, "runtime_key": "x" });
        let reads = json!({
            "decompressor_library": library("l", unkind, json!({})),
            "response_direction_config": { "common_config": { "enabled": enabled } },
        });
        let filters = vec![filter("d", DECOMPRESSOR, reads), makes];
        let answers = if decodes_answers { "" } else { coding };
        let way = Self::new(name, answers, if is_slow { SLOW } else { QUICK }, filters);
        Self { asks: coding, takes, ..way }
    }
}

/// A proxy with all of them, to an origin that is asked over HTTP/1.1 below `/1/` and over HTTP/2 below `/2/`.
pub(super) async fn ways(origin: SocketAddr) -> (Proxy, Vec<Way>) {
    let fast = json!({ "compression_level": "BEST_SPEED", "compression_strategy": "HUFFMAN_ONLY" });
    let best = json!({ "compression_level": 9, "window_bits": 15, "memory_level": 9 });
    let widest = json!({ "quality": 11, "window_bits": 24, "input_block_bits": 24 });
    let mut ways = vec![
        Way::ours("gzip", "", 0, QUICK),
        Way::ours("gzip", "zstd", 1, QUICK),
        Way::ours("gzip", "gzip", 6, QUICK),
        Way::ours("gzip", "br", 9, SLOW),
        Way::ours("deflate", "deflate", 1, QUICK),
        Way::ours("deflate", "", 6, QUICK),
        Way::ours("br", "deflate", 0, QUICK),
        Way::ours("br", "br", 4, QUICK / 4),
        Way::ours("br", "", 9, SLOW),
        Way::ours("br", "", 11, SLOW),
        Way::ours("zstd", "zstd", 1, QUICK),
        Way::ours("zstd", "gzip", 3, QUICK),
        Way::ours("zstd", "br", 9, SLOW),
        Way::ours("zstd", "", 22, SLOW),
        Way::envoys("gzip", "gzip", json!({}), false),
        Way::envoys("gzip back", "gzip", json!({}), true),
        Way::envoys("gzip fast", "gzip", fast, false),
        Way::envoys("gzip slow", "gzip", best, false),
        Way::envoys("br", "br", json!({}), false),
        Way::envoys("br back", "br", json!({}), true),
        Way::envoys("br slow", "br", widest, false),
        Way::envoys("zstd", "zstd", json!({}), false),
        Way::envoys("zstd back", "zstd", json!({ "enable_checksum": true }), true),
        Way::envoys("zstd slow", "zstd", json!({ "compression_level": 19 }), false),
    ];
    let defaults = compression(json!({ "request_decompression": {} }));
    let default = Way::new("default", "zstd", QUICK, vec![defaults]);
    ways.push(Way { takes: &ALL, least: (64 << 10) + 1, ..default });

    let routes =
        [route("/1/", json!({ "cluster": "one" })), route("/2/", json!({ "cluster": "two" }))];
    let routes = json!({ "route_config": table("local", &routes) });
    let listeners = ways
        .iter()
        .map(|way| with(filtered(&way.filters, routes.clone()), json!({ "name": way.name })));
    let listeners: Vec<_> = listeners.collect();
    let clusters = [static_cluster("one", &[origin]), over_http2(static_cluster("two", &[origin]))];
    let proxy = Proxy::with(bootstrap(&listeners, &clusters)).await;
    for way in &mut ways {
        way.address = proxy.listener(&way.name).await;
    }
    (proxy, ways)
}
