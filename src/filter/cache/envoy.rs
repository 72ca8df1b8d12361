//! Envoy's forms of a response cache, with a store in memory: plain RFC 9111.

use std::sync::Arc;

use prost_types::Any;

use super::config::{self, Config};
use crate::config::{Errors, Fault};
use crate::filter::registry::{FilterContext, Registration};
use crate::proto::any::{UnpackError, unpack};
use crate::proto::envoy::extensions::filters::http::cache::v3::CacheConfig;
use crate::proto::envoy::extensions::filters::http::cache_v2::v3::CacheV2Config;
use crate::proto::envoy::extensions::http::cache::simple_http_cache::v3::SimpleHttpCacheConfig;
use crate::proto::envoy::extensions::http::cache_v2::simple_http_cache::v3::SimpleHttpCacheV2Config;
use crate::proto::nuncio::extensions::filters::http::cache::v1 as proto;

/// `envoy.filters.http.cache`
pub(in crate::filter) const CACHE: Registration = Registration {
    config_type: "envoy.extensions.filters.http.cache.v3.CacheConfig",
    terminal: false,
    compile: |config, cx| {
        let message: CacheConfig = unpack(config).map_err(|e| Fault::Undecodable(e.to_string()))?;
        let store = |store: &Any| unpack::<SimpleHttpCacheConfig>(store).map(drop);
        Ok(Arc::new(envoys(message, store, cx)?))
    },
};

/// `envoy.filters.http.cache_v2`, whose message has the fields of the first.
pub(in crate::filter) const CACHE_V2: Registration = Registration {
    config_type: "envoy.extensions.filters.http.cache_v2.v3.CacheV2Config",
    terminal: false,
    compile: |config, cx| {
        let CacheV2Config {
            typed_config,
            allowed_vary_headers,
            max_body_bytes,
            disabled,
            ignore_request_cache_control_header,
        } = unpack(config).map_err(|e| Fault::Undecodable(e.to_string()))?;
        let message = CacheConfig {
            typed_config,
            allowed_vary_headers,
            max_body_bytes,
            disabled,
            ignore_request_cache_control_header,
        };
        let store = |store: &Any| unpack::<SimpleHttpCacheV2Config>(store).map(drop);
        Ok(Arc::new(envoys(message, store, cx)?))
    },
};

/// 0 is no limit of Envoy's filter; ours is the default then. More than our store takes is not refused, since
/// Envoy's filter has no field to make that larger.
fn body_limit(bytes: u32) -> Option<u64> {
    (bytes > 0).then_some(u64::from(bytes).min(config::DEFAULT_BYTES / 2))
}

fn envoys(
    message: CacheConfig,
    unpack_store: impl Fn(&Any) -> Result<(), UnpackError>,
    cx: &FilterContext,
) -> Result<Config, Errors> {
    let CacheConfig {
        typed_config,
        allowed_vary_headers,
        max_body_bytes,
        disabled,
        ignore_request_cache_control_header,
    } = message;
    let is_disabled = disabled == Some(true);
    let mut own = proto::Cache {
        max_body_bytes: body_limit(max_body_bytes),
        ignore_request_cache_control: ignore_request_cache_control_header,
        allowed_vary_headers,
        ..proto::Cache::default()
    };
    let mut errors = Errors::new();
    match typed_config.as_ref().map(unpack_store) {
        None if is_disabled => {}
        None => errors.push("typed_config", Fault::Required),
        Some(Ok(())) => {}
        Some(Err(UnpackError::WrongType { found, .. })) => {
            errors.push("typed_config", Fault::UnknownExtension(found));
        }
        Some(Err(error)) => errors.push("typed_config", Fault::Undecodable(error.to_string())),
    }
    if is_disabled {
        // A cache that is switched off lets everything pass.
        own.excluded_paths = vec!["*".to_owned()];
    }
    let config = errors.take(config::compile(own, cx));
    errors.finish()?;
    config.ok_or_else(Errors::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_limit_of_envoys_is_refused() {
        let cx = FilterContext { name: "cache".into(), ..FilterContext::default() };
        for bytes in [0, 1, u32::MAX] {
            let own = proto::Cache { max_body_bytes: body_limit(bytes), ..Default::default() };
            assert!(config::compile(own, &cx).is_ok(), "{bytes}");
        }
    }
}
