//! The cache's configuration.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method};

use super::encode::Encoding;
use super::invalidate::Invalidation;
use super::tier;
use super::warm::Warming;
use super::{Cache, SharedCache};
use crate::cache::tier::Config as TierConfig;
use crate::cache::{Bounds, Glob, KeyPolicy, MediaRange, Policy, StalePolicy};
use crate::config::matcher::{StringMatcher, header_name};
use crate::config::{Errors, Fault, OrFault, fields};
use crate::exchange::HttpService;
use crate::filter::registry::{FilterContext, OverrideRegistration, Registration};
use crate::filter::{FilterFactory, Stage, WorkerContext};
use crate::proto::any::unpack;
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

pub(in crate::filter) const OVERRIDE: OverrideRegistration = OverrideRegistration {
    config_type: "nuncio.extensions.filters.http.cache.v1.Cache",
    compile: |config| {
        let message: proto::Cache =
            unpack(config).map_err(|e| Fault::Undecodable(e.to_string()))?;
        let mut errors = Errors::new();
        for (field, is_set) in [
            ("max_entries", message.max_entries.is_some()),
            ("max_memory_bytes", message.max_memory_bytes.is_some()),
            ("cleanup_interval", message.cleanup_interval.is_some()),
            ("warming", message.warming.is_some()),
            ("shared_tier", message.shared_tier.is_some()),
        ] {
            if is_set {
                errors.push(field, Fault::unsupported("not for a route; it is the listener's"));
            }
        }
        let rules = errors.take(rules(message));
        errors.finish()?;
        Ok(Arc::new(rules.ok_or_else(Errors::new)?))
    },
};

const DEFAULT_ENTRIES: u32 = 10_000;
pub(super) const DEFAULT_BYTES: u64 = 100 << 20;
const DEFAULT_BODY: u64 = 1 << 20;
const LEAST_BYTES: u64 = 65_536;
const DEFAULT_CLEANUP: Duration = Duration::from_secs(60);

/// What holds for a request.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub(super) policy: Policy,
    pub(super) key: KeyPolicy,
    pub(super) max_body: u64,
    excluded: Vec<Glob>,
    methods: Vec<Method>,
    pub(super) encoding: Option<Encoding>,
    pub(super) refresh_ahead: Option<RefreshAhead>,
    pub(super) invalidation: Option<Invalidation>,
}

/// When a response is fetched again before it is stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RefreshAhead {
    /// In the last part of its lifetime.
    percent: u32,
    /// If it was asked for so often.
    pub(super) min_hits: u32,
}

impl RefreshAhead {
    /// Whether a response of this age is near the end of its lifetime.
    pub(super) fn is_due(self, age: Duration, lifetime: Duration) -> bool {
        age >= lifetime.saturating_sub(lifetime * self.percent / 100)
    }
}

impl Rules {
    pub(super) fn excludes(&self, path: &str) -> bool {
        self.excluded.iter().any(|pattern| pattern.matches(path))
    }

    /// Whether responses to this method are stored.
    pub(super) fn has_method(&self, method: &Method) -> bool {
        self.methods.contains(method)
    }
}

/// What holds for the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Keeping {
    pub(super) bounds: Bounds,
    pub(super) cleanup: Duration,
    pub(super) warming: Option<Warming>,
    pub(super) tier: Option<TierConfig>,
}

pub(super) struct Config {
    pub(super) rules: Rules,
    pub(super) keeping: Keeping,
    pub(super) context: FilterContext,
}

pub(super) fn compile(message: proto::Cache, cx: &FilterContext) -> Result<Config, Errors> {
    let mut errors = Errors::new();
    let keeping = keeping(&message, &mut errors);
    let rules = errors.take(rules(message));
    errors.finish()?;
    let rules = rules.ok_or_else(Errors::new)?;
    let most = keeping.bounds.bytes / 2;
    if rules.max_body > most && rules.max_body != DEFAULT_BODY {
        let fault = Fault::out_of_range(rules.max_body, "at most half of max_memory_bytes");
        return Err(Errors::from(fault).at("max_body_bytes"));
    }
    Ok(Config { rules, keeping, context: cx.clone() })
}

fn keeping(message: &proto::Cache, errors: &mut Errors) -> Keeping {
    let proto::Cache {
        max_entries, max_memory_bytes, cleanup_interval, warming, shared_tier, ..
    } = message;
    let entries = max_entries.map(|most| fields::in_range(most, 1..=u32::MAX)).transpose();
    let entries = errors.take(entries.at("max_entries")).flatten().unwrap_or(DEFAULT_ENTRIES);
    let bytes = max_memory_bytes.unwrap_or(DEFAULT_BYTES);
    if bytes < LEAST_BYTES {
        errors.push("max_memory_bytes", Fault::out_of_range(bytes, "65536 or more"));
    }
    let cleanup = cleanup_interval.as_ref().map(at_least_a_second).transpose();
    let cleanup = errors.take(cleanup.at("cleanup_interval")).flatten();
    let warming = warming.as_ref().map(Warming::compile).transpose().at("warming");
    let tier = shared_tier.as_ref().map(tier::compile).transpose().at("shared_tier");
    Keeping {
        bounds: Bounds { entries, bytes },
        cleanup: cleanup.unwrap_or(DEFAULT_CLEANUP),
        warming: errors.take(warming).flatten(),
        tier: errors.take(tier).flatten(),
    }
}

/// A time that background work waits.
pub(super) fn at_least_a_second(time: &prost_types::Duration) -> Result<Duration, Errors> {
    let time = fields::duration(time)?;
    match time >= Duration::from_secs(1) {
        true => Ok(time),
        false => Err(Fault::out_of_range(format!("{time:?}"), "1s or more").into()),
    }
}

/// What of a message is about requests; the rest is seen to by [`keeping`].
fn rules(message: proto::Cache) -> Result<Rules, Errors> {
    let mut errors = Errors::new();
    let proto::Cache {
        default_ttl,
        disable_heuristic_freshness,
        max_entries: _,
        max_memory_bytes: _,
        max_body_bytes,
        ignore_request_cache_control,
        excluded_paths,
        cleanup_interval: _,
        content_types,
        methods,
        statuses,
        key,
        allowed_vary_headers,
        store_set_cookie,
        targeted_fields,
        stale,
        compression,
        warming: _,
        refresh_ahead,
        invalidation,
        shared_tier: _,
    } = message;
    let default_ttl = default_ttl.map(|ttl| fields::duration(&ttl)).transpose();
    let default_ttl = errors.take(default_ttl.at("default_ttl")).flatten().unwrap_or_default();
    let excluded = errors.each("excluded_paths", &excluded_paths, |p| Glob::of_paths(p));
    let content_types = errors.each("content_types", &content_types, |t| media_range(t));
    let own_methods = errors.each("methods", &methods, |method| cacheable(method));
    let statuses_given = errors.each("statuses", &statuses, compile_status);
    let vary = errors.each("allowed_vary_headers", &allowed_vary_headers, StringMatcher::compile);
    let targeted = errors.each("targeted_fields", &targeted_fields, |name| header_name(name));
    let key = errors.take(compile_key(&key.unwrap_or_default()).at("key")).unwrap_or_default();
    let stale = errors.take(compile_stale(&stale.unwrap_or_default()).at("stale"));
    let encoding = compression.as_ref().map(Encoding::compile).transpose().at("compression");
    let refresh_ahead = refresh_ahead.as_ref().map(compile_ahead).transpose().at("refresh_ahead");
    let invalidation = invalidation.map(Invalidation::compile).transpose().at("invalidation");
    let plain = Policy::default();
    let rules = Rules {
        policy: Policy {
            default_ttl,
            heuristics: !disable_heuristic_freshness,
            ignore_request: ignore_request_cache_control,
            statuses: (!statuses.is_empty()).then(|| statuses_given.into_iter().collect()),
            content_types,
            set_cookie: store_set_cookie,
            targeted: if targeted_fields.is_empty() { plain.targeted } else { targeted },
            vary,
            stale: stale.unwrap_or_default(),
        },
        key,
        max_body: max_body_bytes.unwrap_or(DEFAULT_BODY),
        excluded,
        methods: match methods.is_empty() {
            true => vec![Method::GET, Method::HEAD],
            false => own_methods,
        },
        encoding: errors.take(encoding).flatten(),
        refresh_ahead: errors.take(refresh_ahead).flatten(),
        invalidation: errors.take(invalidation).flatten(),
    };
    errors.finish()?;
    Ok(rules)
}

pub(super) fn media_range(text: &str) -> Result<MediaRange, Errors> {
    MediaRange::parse(text).map_err(|w| Fault::out_of_range(format!("{text:?}"), w).into())
}

fn cacheable(method: &str) -> Result<Method, Errors> {
    let known = [Method::GET, Method::HEAD, Method::OPTIONS];
    let found = known.into_iter().find(|known| known.as_str() == method);
    found.ok_or_else(|| Fault::out_of_range(format!("{method:?}"), "GET, HEAD or OPTIONS").into())
}

fn compile_status(message: &proto::cache::Status) -> Result<(u16, Option<Duration>), Errors> {
    let proto::cache::Status { status, ttl } = message;
    let ttl = ttl.as_ref().map(fields::positive_duration).transpose().at("ttl")?;
    let number = fields::in_range(*status, 200..=599).at("status")?;
    match u16::try_from(number) {
        Ok(number) if !matches!(number, 206 | 304) => Ok((number, ttl)),
        _ => {
            let fault = Fault::out_of_range(status, "a status other than 206 and 304");
            Err(Errors::from(fault).at("status"))
        }
    }
}

fn compile_key(message: &proto::cache::Key) -> Result<KeyPolicy, Errors> {
    let proto::cache::Key {
        query_parameters_included,
        query_parameters_excluded,
        sort_query_parameters,
        headers,
        cookies,
        exclude_host,
    } = message;
    let mut errors = Errors::new();
    let patterns = |list: &[String]| list.iter().map(|name| Glob::new(name)).collect();
    let cookies =
        errors.each("cookies", cookies, |name| Ok(fields::non_empty(name)?.as_ref().to_owned()));
    let headers: Vec<HeaderName> = errors.each("headers", headers, |name| header_name(name));
    errors.finish()?;
    Ok(KeyPolicy {
        included: patterns(query_parameters_included),
        excluded: patterns(query_parameters_excluded),
        sorted: *sort_query_parameters,
        headers,
        cookies,
        exclude_host: *exclude_host,
    })
}

fn compile_stale(message: &proto::cache::Stale) -> Result<StalePolicy, Errors> {
    let proto::cache::Stale { while_revalidate, if_error, limit } = message;
    let mut errors = Errors::new();
    let mut time = |field: &'static str, value: &Option<prost_types::Duration>| {
        let value = value.as_ref().map(fields::duration).transpose().at(field);
        errors.take(value).flatten()
    };
    let stale = StalePolicy {
        while_revalidate: time("while_revalidate", while_revalidate).unwrap_or_default(),
        if_error: time("if_error", if_error).unwrap_or_default(),
        limit: time("limit", limit),
    };
    errors.finish()?;
    Ok(stale)
}

fn compile_ahead(message: &proto::cache::RefreshAhead) -> Result<RefreshAhead, Errors> {
    let proto::cache::RefreshAhead { percent, min_hits } = message;
    Ok(RefreshAhead {
        percent: fields::in_range(*percent, 1..=90).at("percent")?,
        min_hits: min_hits.unwrap_or(1),
    })
}

impl FilterFactory for Config {
    fn stage(&self, cx: &WorkerContext) -> Stage {
        let scope = Scope::http(&self.context.stat_prefix).part("cache");
        let make = || SharedCache::new(self.keeping.bounds, scope, cx);
        let shared = cx.caches.get(&self.context, make);
        shared.keep(&self.keeping, &self.rules.key);
        Stage::layer(Cache {
            name: Arc::clone(&self.context.name),
            rules: Arc::new(self.rules.clone()),
            shared,
        })
    }

    fn start(&self, cx: &WorkerContext, front: &HttpService) {
        // One worker is enough.
        if cx.worker == 0
            && let Some(shared) = cx.caches.find(&self.context)
        {
            shared.warm(self.keeping.warming.as_ref(), front);
        }
    }
}
