//! The filters: cache, compression, session, router, so that a hit costs no compression; and what of
//! them a route has of its own.

use serde_json::{Map, Value, json};

use super::{Context, Flavour, envoy, extension, object, seconds, typed};
use crate::gateway::form::Form;
use crate::gateway::model::{Cache, Compression, Invalidation, Route, StickySessions};
use crate::gateway::reader::Reader;

const CACHE: &str = "nuncio.extensions.filters.http.cache.v1.Cache";
const COMPRESSION: &str = "nuncio.extensions.filters.http.compression.v1.Compression";
const SESSION: &str = "nuncio.extensions.filters.http.session.v1.Session";
const ROUTER: &str = "envoy.extensions.filters.http.router.v3.Router";
const FILTER_CONFIG: &str = "envoy.config.route.v3.FilterConfig";

/// Who may make stored responses forgotten by a header: the proxy's own machine.
const TRUSTED: [(&str, u32); 2] = [("127.0.0.0", 8), ("::1", 128)];

/// One filter, and the block that it comes from.
pub(super) struct HttpFilter {
    pub(super) value: Value,
    pub(super) from: &'static str,
}

/// The chain of every listener, and what routes need to know of it.
pub(super) struct Filters {
    pub(super) chain: Vec<HttpFilter>,
    /// Whether instances are asked before they are sent a body that expects it.
    pub(super) asks_for_bodies: bool,
    /// The names of the filters that compress and decompress.
    compressors: Vec<String>,
    cache: Option<Cache>,
    compression: Option<Compression>,
    session: bool,
}

impl Context<'_> {
    pub(super) fn filters(&self, reader: &mut Reader<'_>) -> Filters {
        let routes = &self.gateway.routes;
        let mut chain = Vec::new();
        let cached = routes.iter().any(|route| route.cache.as_ref().is_some_and(|c| c.enabled));
        let mut cache = whole(&self.gateway.cache, cached, |cache| cache.enabled);
        let cache_enabled = self.gateway.cache.as_ref().is_some_and(|cache| cache.enabled);
        if cache.is_some() && self.flavour == Flavour::Envoy {
            envoy::cache(reader);
            cache = None;
        }
        let compressed =
            routes.iter().any(|route| route.compression.as_ref().is_some_and(|c| c.enabled));
        let compression = whole(&self.gateway.compression, compressed, |c| c.enabled);
        let compression_enabled = self.gateway.compression.as_ref().is_some_and(|c| c.enabled);
        if let Some(cache) = &cache {
            let mut fields = self.policy(cache, compression.as_ref());
            if let Value::Object(fields) = &mut fields {
                fields.extend(store(cache, cache_enabled));
            }
            chain.push(filter("cache", CACHE, fields, (!cache_enabled, "cache")));
        }
        let mut compressors = Vec::new();
        if let Some(compression) = &compression {
            let made = match self.flavour {
                Flavour::Nuncio => vec![extension("compression", COMPRESSION, coded(compression))],
                Flavour::Envoy => envoy::compression(compression, reader),
            };
            for value in made {
                compressors.extend(value["name"].as_str().map(str::to_owned));
                let value = disabled(value, !compression_enabled);
                chain.push(HttpFilter { value, from: "compression" });
            }
        }
        let session = routes.iter().any(|route| self.keeps_sessions(route));
        if session {
            let sessions = &self.balancer.sticky_sessions;
            let value = match self.flavour {
                Flavour::Nuncio => extension("session", SESSION, session_of(sessions)),
                Flavour::Envoy => envoy::session(sessions, reader),
            };
            chain.push(HttpFilter { value, from: "load_balancer.sticky_sessions" });
        }
        chain.push(filter("router", ROUTER, json!({}), (false, "listeners")));
        let asks_for_bodies =
            self.gateway.connection_pool.is_some() && self.flavour == Flavour::Nuncio;
        Filters { chain, asks_for_bodies, compressors, cache, compression, session }
    }

    /// What a route has instead of the listener's filters: `typed_per_filter_config`.
    pub(super) fn overrides(
        &self,
        at: &str,
        route: &Route,
        filters: &Filters,
        reader: &mut Reader<'_>,
    ) -> Map<String, Value> {
        let mut own = Map::new();
        if let (Some(here), Some(cache)) = (&route.cache, &filters.cache) {
            let compression = route.compression.as_ref().zip(filters.compression.as_ref());
            let compression = compression.map(|(here, whole)| here.over(whole));
            let compression = compression.as_ref().or(filters.compression.as_ref());
            let config = here.enabled.then(|| self.policy(&here.over(cache), compression));
            own.insert("cache".to_owned(), config.map_or_else(off, |c| typed(CACHE, c)));
        }
        if let (Some(here), Some(whole)) = (&route.compression, &filters.compression) {
            let config = match (here.enabled, self.flavour) {
                (false, _) => off(),
                (true, Flavour::Nuncio) => typed(COMPRESSION, coded(&here.over(whole))),
                (true, Flavour::Envoy) => {
                    if here.over(whole) != (Compression { enabled: true, ..whole.clone() }) {
                        envoy::route_compression(at, reader);
                    }
                    typed(FILTER_CONFIG, json!({ "config": {} }))
                }
            };
            own.extend(filters.compressors.iter().map(|name| (name.clone(), config.clone())));
        }
        if filters.session && route.redirect.is_none() && !self.keeps_sessions(route) {
            own.insert("session".to_owned(), off());
        }
        own
    }

    /// What may differ from route to route.
    fn policy(&self, cache: &Cache, compression: Option<&Compression>) -> Value {
        let Cache { default_ttl, compression: encodes, invalidation, .. } = cache;
        let defaults = Compression::absent();
        let forms = encodes.then_some(compression.or(defaults.as_ref())).flatten();
        object([
            ("default_ttl", Some(seconds(default_ttl.0))),
            ("compression", forms.map(forms_of)),
            ("invalidation", invalidation.enabled.then(|| invalidated(invalidation))),
        ])
    }
}

/// The settings of a filter that the gateway or a route needs.
fn whole<T: Clone + Form>(block: &Option<T>, needed: bool, enabled: fn(&T) -> bool) -> Option<T> {
    let used = needed || block.as_ref().is_some_and(enabled);
    used.then(|| block.clone().or_else(T::absent)).flatten()
}

fn filter(name: &str, kind: &str, fields: Value, (off, from): (bool, &'static str)) -> HttpFilter {
    HttpFilter { value: disabled(extension(name, kind, fields), off), from }
}

/// A filter that is off unless a route says otherwise.
fn disabled(mut filter: Value, off: bool) -> Value {
    if off {
        filter["disabled"] = json!(true);
    }
    filter
}

/// The options that switch a filter off.
fn off() -> Value {
    typed(FILTER_CONFIG, json!({ "disabled": true }))
}

/// What concerns the store, which all routes share.
fn store(cache: &Cache, enabled: bool) -> Map<String, Value> {
    let warming = &cache.cache_warming;
    let store = object([
        ("max_entries", Some(json!(cache.max_size.0))),
        ("max_memory_bytes", Some(json!(cache.max_memory.0.to_string()))),
        ("cleanup_interval", Some(seconds(cache.cleanup_interval.0))),
        (
            "warming",
            (warming.enabled && enabled).then(|| {
                json!({
                    "urls": warming.urls,
                    "interval": seconds(warming.interval.0),
                    "concurrency": warming.concurrency.0,
                })
            }),
        ),
    ]);
    match store {
        Value::Object(store) => store,
        _ => Map::new(),
    }
}

/// The encoded forms of stored responses, which are in gzip.
fn forms_of(compression: &Compression) -> Value {
    let level = compression.compression_level.0;
    object([
        ("level", (level <= 9).then(|| json!(level))),
        ("min_size", Some(json!(compression.min_size.0.to_string()))),
        ("content_types", Some(json!(compression.content_types))),
    ])
}

fn invalidated(invalidation: &Invalidation) -> Value {
    let Invalidation { enabled: _, patterns, headers, methods, invalidate_all } = invalidation;
    let trusted =
        TRUSTED.map(|(address, length)| json!({ "address_prefix": address, "prefix_len": length }));
    object([
        ("patterns", Some(json!(patterns))),
        ("methods", Some(json!(methods))),
        ("headers", Some(json!(headers))),
        ("trusted_addresses", (!headers.is_empty()).then(|| json!(trusted))),
        ("invalidate_all", invalidate_all.then(|| json!(true))),
    ])
}

fn coded(compression: &Compression) -> Value {
    let level = compression.compression_level.0;
    let encodings = compression.supported_encodings.iter();
    let encodings: Vec<_> =
        encodings.map(|coding| json!({ "coding": coding.word(), "level": level })).collect();
    object([
        ("encodings", Some(encodings.into())),
        (
            "bodies",
            Some(json!({
                "min_size": compression.min_size.0.to_string(),
                "content_types": compression.content_types,
            })),
        ),
        ("excluded_paths", Some(json!(compression.exclude_paths))),
        ("disable_response_compression", (!compression.response_compression).then(|| json!(true))),
        ("request_decompression", compression.request_compression.then(|| json!({}))),
    ])
}

fn session_of(sessions: &StickySessions) -> Value {
    json!({
        "cookie_name": sessions.cookie_name,
        "header_name": sessions.header_name,
        "duration": seconds(sessions.duration.0),
        "max_sessions": sessions.max_sessions.0,
    })
}
