//! The cache's configuration, in our form and in Envoy's.

use std::sync::Arc;

use http::HeaderMap;

use super::Cache;
use crate::cache::{Bounds, Policy, Store, vary};
use crate::config::matcher::StringMatcher;
use crate::config::{Errors, Fault, OrFault, fields};
use crate::filter::registry::{FilterContext, Registration};
use crate::filter::{FilterFactory, Stage, WorkerContext};
use crate::proto::any::{UnpackError, unpack};
use crate::proto::envoy::extensions::filters::http::cache::v3::CacheConfig;
use crate::proto::envoy::extensions::http::cache::simple_http_cache::v3::SimpleHttpCacheConfig;
use crate::proto::nuncio::extensions::filters::http::cache::v1 as proto;
use crate::telemetry::Scope;

pub(in crate::filter) const REGISTRATION: Registration = Registration {
    config_type: "nuncio.extensions.filters.http.cache.v1.Cache",
    terminal: false,
    compile: |config, cx| {
        let message = unpack(config).map_err(|e| Fault::Undecodable(e.to_string()))?;
        Ok(Arc::new(compile(message, cx)?))
    },
};

const DEFAULT_ENTRIES: u32 = 10_000;
const DEFAULT_BYTES: u64 = 100 << 20;
const DEFAULT_BODY: u64 = 1 << 20;

/// `envoy.filters.http.cache` with a store in memory: plain RFC 9111.
pub(in crate::filter) const ENVOYS: Registration = Registration {
    config_type: "envoy.extensions.filters.http.cache.v3.CacheConfig",
    terminal: false,
    compile: |config, cx| {
        let message = unpack(config).map_err(|e| Fault::Undecodable(e.to_string()))?;
        Ok(Arc::new(envoys(message, cx)?))
    },
};

#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub(super) policy: Policy,
    pub(super) max_body: u64,
    excluded: Arc<[PathPattern]>,
    /// Headers that a response may depend on; none is any.
    vary: Arc<[StringMatcher]>,
}

impl Rules {
    pub(super) fn excludes(&self, path: &str) -> bool {
        self.excluded.iter().any(|pattern| pattern.matches(path))
    }

    /// Whether a response depends on nothing but what it may depend on.
    pub(super) fn takes_vary(&self, response: &HeaderMap) -> bool {
        let is_taken = |name: &[u8]| {
            let name = name.to_ascii_lowercase();
            self.vary.iter().any(|allowed| allowed.matches(&name))
        };
        self.vary.is_empty() || vary(response).all(is_taken)
    }
}

/// A path, or the beginning of paths.
#[derive(Debug, Clone, PartialEq, Eq)]
enum PathPattern {
    Exact(String),
    Prefix(String),
}

impl PathPattern {
    fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => path == exact,
            Self::Prefix(prefix) => path.starts_with(prefix),
        }
    }
}

struct Config {
    rules: Rules,
    bounds: Bounds,
    place: FilterContext,
}

fn compile(message: proto::Cache, cx: &FilterContext) -> Result<Config, Errors> {
    let proto::Cache {
        default_ttl,
        disable_heuristic_freshness,
        max_entries,
        max_memory_bytes,
        max_body_bytes,
        ignore_request_cache_control,
        excluded_paths,
    } = message;
    let mut errors = Errors::new();
    let ttl = default_ttl.map(|ttl| fields::duration(&ttl)).transpose().at("default_ttl");
    let default_ttl = errors.take(ttl).flatten().unwrap_or_default();
    let entries = max_entries.map(|most| fields::in_range(most, 1..=u32::MAX)).transpose();
    let entries = errors.take(entries.at("max_entries")).flatten().unwrap_or(DEFAULT_ENTRIES);
    let bytes = max_memory_bytes.unwrap_or(DEFAULT_BYTES);
    if bytes < 65_536 {
        errors.push("max_memory_bytes", Fault::out_of_range(bytes, "65536 or more"));
    }
    let mut excluded = Vec::with_capacity(excluded_paths.len());
    for (index, pattern) in excluded_paths.iter().enumerate() {
        let (path, is_prefix) = match pattern.strip_suffix('*') {
            Some(prefix) => (prefix, true),
            None => (pattern.as_str(), false),
        };
        if !path.starts_with('/') || path.contains('*') {
            let reason = "a path that begins with /, and has * at its end if anywhere";
            let fault = Fault::out_of_range(format!("{pattern:?}"), reason);
            errors.take::<()>(Err(Errors::from(fault).index(index).at("excluded_paths")));
        }
        excluded.push(match is_prefix {
            true => PathPattern::Prefix(path.to_owned()),
            false => PathPattern::Exact(path.to_owned()),
        });
    }
    errors.finish()?;
    Ok(Config {
        rules: Rules {
            policy: Policy {
                default_ttl,
                heuristics: !disable_heuristic_freshness,
                ignore_request: ignore_request_cache_control,
            },
            max_body: max_body_bytes.unwrap_or(DEFAULT_BODY),
            excluded: excluded.into(),
            vary: Arc::default(),
        },
        bounds: Bounds { entries, bytes },
        place: cx.clone(),
    })
}

impl FilterFactory for Config {
    fn stage(&self, cx: &WorkerContext) -> Stage {
        let scope = Scope::http(&self.place.stat_prefix).part("cache");
        let make = || Store::new(self.bounds, cx.telemetry.group(scope));
        let store = cx.caches.get(&self.place, make);
        store.bound(self.bounds);
        Stage::layer(Cache { rules: self.rules.clone(), store })
    }
}

fn envoys(message: CacheConfig, cx: &FilterContext) -> Result<Config, Errors> {
    let CacheConfig {
        typed_config,
        allowed_vary_headers,
        max_body_bytes,
        disabled,
        ignore_request_cache_control_header,
    } = message;
    let mut errors = Errors::new();
    let is_disabled = disabled == Some(true);
    if let Some(store) = &typed_config {
        match unpack::<SimpleHttpCacheConfig>(store) {
            Ok(SimpleHttpCacheConfig {}) => {}
            Err(UnpackError::WrongType { found, .. }) => {
                errors.push("typed_config", Fault::UnknownExtension(found));
            }
            Err(error) => errors.push("typed_config", Fault::Undecodable(error.to_string())),
        }
    } else if !is_disabled {
        errors.push("typed_config", Fault::Required);
    }
    let mut vary = Vec::with_capacity(allowed_vary_headers.len());
    for (index, matcher) in allowed_vary_headers.iter().enumerate() {
        let matcher = StringMatcher::compile(matcher).index(index).at("allowed_vary_headers");
        vary.extend(errors.take(matcher));
    }
    let max_body_bytes = (max_body_bytes > 0).then_some(u64::from(max_body_bytes));
    let own = proto::Cache {
        max_body_bytes,
        ignore_request_cache_control: ignore_request_cache_control_header,
        // A cache that is switched off lets everything pass.
        excluded_paths: if is_disabled { vec!["/*".to_owned()] } else { Vec::new() },
        ..proto::Cache::default()
    };
    let config = errors.take(compile(own, cx));
    errors.finish()?;
    let mut config = config.ok_or_else(Errors::new)?;
    config.rules.vary = vary.into();
    Ok(config)
}
