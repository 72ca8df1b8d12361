//! Which request goes where.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::blocks::{Cache, Coding, Compression, Invalidation};
use crate::gateway::block::{block, choice};
use crate::gateway::form::{Form, Number, Size, Time};
use crate::gateway::reader::Reader;

block! {
    /// A route: which requests, and what becomes of them. One of `service`, `services` and `redirect`.
    Route {
        /// The host that is asked: a name, `*.example.com`, or any unless it is said. Its port does not count.
        host: Option<String> => "VirtualHost.domains",
        /// The whole path; or `prefix`. All paths unless one of both is said.
        path: Option<PathText> => "RouteMatch.path",
        /// What the path begins with.
        prefix: Option<PathText> => "RouteMatch.prefix",
        /// The methods, such as `[GET, HEAD]`; all unless there are any.
        methods: Vec<String> = Vec::new() => "RouteMatch.headers :method",
        /// What headers must be, by name: text for the whole value, or a test.
        headers: BTreeMap<String, Test> = BTreeMap::new() => "RouteMatch.headers",
        /// What query parameters must be, by name: text for the whole value, or a test.
        query: BTreeMap<String, Test> = BTreeMap::new() => "RouteMatch.query_parameters",
        /// The service that requests are forwarded to.
        service: Option<String> => "RouteAction.cluster",
        /// Or several, each with its share.
        services: Vec<Share> = Vec::new() => "RouteAction.weighted_clusters",
        /// What is changed of requests before they are forwarded.
        rewrite: Option<Rewrite> => "RouteAction",
        /// Or where clients are sent instead.
        redirect: Option<Redirect> => "Route.redirect",
        /// How long a request may take with all its tries; 15s unless it is said, `0s` for no end.
        timeout: Option<Time<0>> => "RouteAction.timeout",
        /// When a request that failed is tried again. Never unless it is said.
        retries: Option<Retries> => "RouteAction.retry_policy",
        /// The cache here. Keys that are not said are those of `cache`.
        cache: Option<RouteCache> => "Route.typed_per_filter_config cache",
        /// Compression here. Keys that are not said are those of `compression`.
        compression: Option<RouteCompression> => "Route.typed_per_filter_config compression",
    }
}

block! {
    /// A service and its share of the requests.
    Share {
        /// The service.
        name: String => "WeightedCluster.clusters.name",
        /// Its share beside those of the others.
        weight: Number<0, 1_000_000> = Number(1) => "WeightedCluster.clusters.weight",
    }
}

block! {
    /// What is changed of a request before it is forwarded.
    Rewrite {
        /// What takes the place of the route's `path` or `prefix`.
        path: Option<PathText> => "RouteAction.prefix_rewrite",
        /// The host that the instance sees.
        host: Option<String> => "RouteAction.host_rewrite_literal",
    }
}

choice! {
    /// How a client is to speak where it is sent.
    Scheme {
        /// Plain.
        Http = "http",
        /// Over TLS.
        Https = "https",
    }
}

block! {
    /// Where clients are sent. What is not said stays as it was asked for.
    Redirect {
        /// The scheme: `http` or `https`.
        scheme: Option<Scheme> => "RedirectAction.scheme_redirect",
        /// The host.
        host: Option<String> => "RedirectAction.host_redirect",
        /// The port.
        port: Option<Number<1, 65535>> => "RedirectAction.port_redirect",
        /// The whole path.
        path: Option<PathText> => "RedirectAction.path_redirect",
        /// Or what takes the place of the route's `path` or `prefix`.
        prefix: Option<PathText> => "RedirectAction.prefix_rewrite",
        /// The status: 301, 302, 303, 307 or 308.
        status: RedirectStatus = RedirectStatus::Moved => "RedirectAction.response_code",
    }
}

choice! {
    /// What makes a request be tried again.
    RetryOn {
        /// The connection could not be made.
        ConnectFailure = "connect-failure",
        /// The instance did not take the request.
        RefusedStream = "refused-stream",
        /// The connection broke before the response.
        Reset = "reset",
        /// 502, 503 or 504.
        GatewayError = "gateway-error",
        /// Any 5xx, and no response.
        ServerError = "5xx",
    }
}

block! {
    /// When a request that failed is tried again, on another instance if there is one.
    Retries {
        /// So many times at the most.
        attempts: Number<1, 10> = Number(1) => "RetryPolicy.num_retries",
        /// What is a failure: `connect-failure`, `refused-stream`, `reset`, `gateway-error`, `5xx`. What may have
        /// reached an instance is done twice with the last three.
        when: Vec<RetryOn> = vec![RetryOn::ConnectFailure, RetryOn::RefusedStream] => "RetryPolicy.retry_on",
        /// How long one try may take; as long as all of them unless it is said.
        per_try_timeout: Option<Time<1>> => "RetryPolicy.per_try_timeout",
    }
}

block! {
    /// The cache on one route.
    RouteCache {
        /// Whether responses are stored here.
        enabled: bool = true => "FilterConfig.disabled",
        /// See `cache.default_ttl`.
        default_ttl: Option<Time<0>> => "Cache.default_ttl",
        /// See `cache.compression`.
        compression: Option<bool> => "Cache.compression",
        /// See `cache.invalidation`; keys that are not said have the defaults of that block.
        invalidation: Option<Invalidation> => "Cache.invalidation",
    }
}

block! {
    /// Compression on one route.
    RouteCompression {
        /// Whether bodies are compressed here.
        enabled: bool = true => "FilterConfig.disabled",
        /// See `compression.min_size`.
        min_size: Option<Size> => "Compression.bodies.min_size",
        /// See `compression.compression_level`.
        compression_level: Option<Number<1, 22>> => "Compression.encodings.level",
        /// See `compression.supported_encodings`.
        supported_encodings: Option<Vec<Coding>> => "Compression.encodings.coding",
        /// See `compression.content_types`.
        content_types: Option<Vec<String>> => "Compression.bodies.content_types",
        /// See `compression.exclude_paths`.
        exclude_paths: Option<Vec<String>> => "Compression.excluded_paths",
        /// See `compression.request_compression`.
        request_compression: Option<bool> => "Compression.request_decompression",
        /// See `compression.response_compression`.
        response_compression: Option<bool> => "Compression.disable_response_compression",
    }
}

impl RouteCache {
    /// The cache of a route where the gateway's is this.
    pub(crate) fn over(&self, cache: &Cache) -> Cache {
        let Self { enabled, default_ttl, compression, invalidation } = self;
        Cache {
            enabled: *enabled,
            default_ttl: default_ttl.unwrap_or(cache.default_ttl),
            compression: compression.unwrap_or(cache.compression),
            invalidation: invalidation.as_ref().unwrap_or(&cache.invalidation).clone(),
            ..cache.clone()
        }
    }
}

impl RouteCompression {
    /// The compression of a route where the gateway's is this.
    pub(crate) fn over(&self, whole: &Compression) -> Compression {
        let Self {
            enabled,
            min_size,
            compression_level,
            supported_encodings,
            content_types,
            exclude_paths,
            request_compression,
            response_compression,
        } = self;
        let list =
            |own: &Option<Vec<String>>, whole: &[String]| own.as_deref().unwrap_or(whole).to_vec();
        Compression {
            enabled: *enabled,
            min_size: min_size.unwrap_or(whole.min_size),
            compression_level: compression_level.unwrap_or(whole.compression_level),
            supported_encodings: supported_encodings
                .as_ref()
                .unwrap_or(&whole.supported_encodings)
                .clone(),
            content_types: list(content_types, &whole.content_types),
            exclude_paths: list(exclude_paths, &whole.exclude_paths),
            request_compression: request_compression.unwrap_or(whole.request_compression),
            response_compression: response_compression.unwrap_or(whole.response_compression),
        }
    }
}

/// A path, which begins with `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PathText(pub(crate) String);

impl Form for PathText {
    fn read(reader: &mut Reader<'_>, at: &str, value: &Value) -> Option<Self> {
        let path =
            value.as_str().filter(|path| path.starts_with('/') && !path.contains(['?', '#']));
        reader.expect(
            at,
            value,
            path.map(|path| Self(path.to_owned())),
            "a path that begins with /",
        )
    }

    fn shown(&self) -> Value {
        json!(self.0)
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^/[^?#]*$" })
    }
}

/// The status of a redirect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RedirectStatus {
    Moved,
    Found,
    SeeOther,
    Temporary,
    Permanent,
}

impl RedirectStatus {
    const ALL: [(Self, u64, &'static str); 5] = [
        (Self::Moved, 301, "MOVED_PERMANENTLY"),
        (Self::Found, 302, "FOUND"),
        (Self::SeeOther, 303, "SEE_OTHER"),
        (Self::Temporary, 307, "TEMPORARY_REDIRECT"),
        (Self::Permanent, 308, "PERMANENT_REDIRECT"),
    ];

    fn row(self) -> (Self, u64, &'static str) {
        Self::ALL.into_iter().find(|(status, _, _)| *status == self).unwrap_or(Self::ALL[0])
    }

    /// What Envoy calls it.
    pub(crate) fn envoy(self) -> &'static str {
        self.row().2
    }
}

impl Form for RedirectStatus {
    fn read(reader: &mut Reader<'_>, at: &str, value: &Value) -> Option<Self> {
        let found =
            value.as_u64().and_then(|n| Self::ALL.into_iter().find(|(_, code, _)| *code == n));
        let found = found.map(|(status, _, _)| status);
        reader.expect(at, value, found, "301, 302, 303, 307 or 308")
    }

    fn shown(&self) -> Value {
        json!(self.row().1)
    }

    fn schema() -> Value {
        json!({ "enum": Self::ALL.map(|(_, code, _)| code) })
    }
}

/// What a value must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Test {
    Exact(String),
    Prefix(String),
    Suffix(String),
    Contains(String),
    Regex(String),
    Present(bool),
}

const TESTS: [&str; 6] = ["exact", "prefix", "suffix", "contains", "regex", "present"];

impl Form for Test {
    fn read(reader: &mut Reader<'_>, at: &str, value: &Value) -> Option<Self> {
        if let Some(text) = value.as_str() {
            return Some(Self::Exact(text.to_owned()));
        }
        let what =
            "text, or one of exact, prefix, suffix, contains, regex and present with a value";
        let map = reader.expect(at, value, value.as_object(), what)?;
        reader.mapping(at, value, &TESTS)?;
        let mut entries = map.iter();
        let (Some((key, value)), None) = (entries.next(), entries.next()) else {
            reader.fault(at, format!("expected {what}"));
            return None;
        };
        let at = &super::super::reader::join(at, key);
        if key == "present" {
            return bool::read(reader, at, value).map(Self::Present);
        }
        let make = match key.as_str() {
            "exact" => Self::Exact,
            "prefix" => Self::Prefix,
            "suffix" => Self::Suffix,
            "contains" => Self::Contains,
            "regex" => Self::Regex,
            // Told already as an unknown key.
            _ => return None,
        };
        String::read(reader, at, value).map(make)
    }

    fn shown(&self) -> Value {
        match self {
            Self::Exact(text) => json!(text),
            Self::Prefix(text) => json!({ "prefix": text }),
            Self::Suffix(text) => json!({ "suffix": text }),
            Self::Contains(text) => json!({ "contains": text }),
            Self::Regex(text) => json!({ "regex": text }),
            Self::Present(is) => json!({ "present": is }),
        }
    }

    fn schema() -> Value {
        let text = json!({ "type": "string" });
        let one = |key: &str| {
            let value = if key == "present" { json!({ "type": "boolean" }) } else { text.clone() };
            json!({ "type": "object", "additionalProperties": false, "required": [key], "properties": { key: value } })
        };
        let tests: Vec<_> = TESTS.iter().map(|key| one(key)).collect();
        json!({ "anyOf": std::iter::once(text.clone()).chain(tests).collect::<Vec<_>>() })
    }
}
