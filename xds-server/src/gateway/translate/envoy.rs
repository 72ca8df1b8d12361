//! What Envoy has instead of nuncio's own extensions, and the warnings about what it has nothing for.

use serde_json::{Value, json};

use super::{extension, seconds};
use crate::gateway::model::{Coding, Compression, StickySessions};
use crate::gateway::reader::Reader;

const COMPRESSOR: &str = "envoy.extensions.filters.http.compressor.v3.Compressor";
const DECOMPRESSOR: &str = "envoy.extensions.filters.http.decompressor.v3.Decompressor";
const STATEFUL: &str = "envoy.extensions.filters.http.stateful_session.v3.StatefulSession";
/// Found by this name, whatever its type is.
const COOKIE_NAME: &str = "envoy.http.stateful_session.cookie";
const COOKIE: &str = "envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState";

pub(super) fn connections(reader: &mut Reader<'_>) {
    for (key, nearest) in [
        ("max_idle_connections", "idle connections are bounded by idle_timeout alone"),
        ("transport_config.max_idle_conns_per_host", "see max_idle_connections"),
        ("transport_config.response_header_timeout", "a route's timeout bounds the whole response"),
        ("transport_config.expect_continue_timeout", "bodies are not held back"),
        ("disable_compression", "Accept-Encoding passes as it came"),
    ] {
        let at = format!("connection_pool.{key}");
        reader.warn(&at, format!("has no form in Envoy: {nearest}"));
    }
}

pub(super) fn cache(reader: &mut Reader<'_>) {
    reader.warn("cache", "has no form in Envoy that keeps to it: nothing is stored");
}

pub(super) fn route_compression(at: &str, reader: &mut Reader<'_>) {
    let message = "has no form in Envoy beside enabled: the rest is that of the block compression";
    reader.warn(&format!("{at}.compression"), message);
}

/// A compressor for each coding, and a decompressor for each that requests may have.
pub(super) fn compression(compression: &Compression, reader: &mut Reader<'_>) -> Vec<Value> {
    if !compression.exclude_paths.is_empty() {
        let message = "has no form in Envoy: say compression: {enabled: false} on routes instead";
        reader.warn("compression.exclude_paths", message);
    }
    let mut filters = Vec::new();
    for (index, coding) in compression.supported_encodings.iter().enumerate() {
        let Some(library) = library(*coding) else {
            let at = format!("compression.supported_encodings[{index}]");
            reader.warn(&at, format!("{} has no form in Envoy", coding.word()));
            continue;
        };
        if compression.response_compression {
            filters.push(compressor(compression, *coding, library));
        }
        if compression.request_compression {
            let name = format!("decompression.{}", coding.word());
            let kind = format!(
                "envoy.extensions.compression.{library}.decompressor.v3.{}",
                title(library)
            );
            let off =
                json!({ "default_value": false, "runtime_key": "gateway.response_decompression" });
            let fields = json!({
                "decompressor_library": extension(&named(library, "decompressor"), &kind, json!({})),
                "request_direction_config": { "advertise_accept_encoding": false },
                "response_direction_config": { "common_config": { "enabled": off } },
            });
            filters.push(extension(&name, DECOMPRESSOR, fields));
        }
    }
    filters
}

fn compressor(compression: &Compression, coding: Coding, library: &str) -> Value {
    let level = compression.compression_level.0;
    let settings = match coding {
        Coding::Brotli => json!({ "quality": level }),
        Coding::Zstd => json!({ "compression_level": level }),
        Coding::Gzip | Coding::Deflate => {
            json!({ "compression_level": format!("COMPRESSION_LEVEL_{level}") })
        }
    };
    let kind = format!("envoy.extensions.compression.{library}.compressor.v3.{}", title(library));
    let fields = json!({
        "compressor_library": extension(&named(library, "compressor"), &kind, settings),
        "response_direction_config": { "common_config": {
            "min_content_length": compression.min_size.0,
            "content_type": compression.content_types,
        } },
    });
    extension(&format!("compression.{}", coding.word()), COMPRESSOR, fields)
}

fn library(coding: Coding) -> Option<&'static str> {
    match coding {
        Coding::Gzip => Some("gzip"),
        Coding::Brotli => Some("brotli"),
        Coding::Zstd => Some("zstd"),
        Coding::Deflate => None,
    }
}

fn named(library: &str, what: &str) -> String {
    format!("envoy.compression.{library}.{what}")
}

fn title(library: &str) -> String {
    let (first, rest) = library.split_at(1);
    format!("{}{rest}", first.to_ascii_uppercase())
}

/// Envoy keeps the instance's address in the client's cookie, not a session's id.
pub(super) fn session(sessions: &StickySessions, reader: &mut Reader<'_>) -> Value {
    for key in ["header_name", "max_sessions"] {
        let at = format!("load_balancer.sticky_sessions.{key}");
        reader.warn(&at, "has no form in Envoy: the client keeps its instance in the cookie");
    }
    let cookie = json!({ "cookie": {
        "name": sessions.cookie_name, "path": "/", "ttl": seconds(sessions.duration.0),
    } });
    let fields = json!({ "session_state": extension(COOKIE_NAME, COOKIE, cookie) });
    extension("session", STATEFUL, fields)
}
