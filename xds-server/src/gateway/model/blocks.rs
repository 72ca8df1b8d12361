//! The blocks that hold for the whole gateway: balancing, cache, connections, compression.

use std::collections::BTreeMap;

use crate::gateway::block::{block, choice};
use crate::gateway::form::{Form, Number, Said, Size, Time};

choice! {
    /// How the instance for a request is chosen.
    Strategy {
        /// One after the other, whatever their weights.
        RoundRobin = "round_robin",
        /// One after the other, each as often as its weight says.
        Weighted = "weighted",
        /// One after the other of those that are well; 503 if none is.
        HealthBased = "health_based",
        /// A session stays on its instance.
        StickySession = "sticky_session",
        /// The one of two with fewer requests under way, by weight.
        LeastRequest = "least_request",
        /// Any.
        Random = "random",
        /// By a hash of the client, on a ring.
        RingHash = "ring_hash",
        /// By a hash of the client, in Maglev's table.
        Maglev = "maglev",
    }
}

choice! {
    /// A coding of bodies.
    Coding {
        /// gzip
        Gzip = "gzip",
        /// deflate
        Deflate = "deflate",
        /// Brotli
        Brotli = "br",
        /// Zstandard
        Zstd = "zstd",
    }
}

block! {
    /// Which instance of a service a request goes to.
    LoadBalancer {
        /// `false`: the first instance of each service takes every request, and nobody asks whether it is well.
        enabled: bool = true => "Cluster.lb_policy; ClusterLoadAssignment.endpoints",
        /// The strategy of services that name none: a name of `strategies`, or a type.
        default_strategy: String = "round_robin".to_owned() => "Cluster.lb_policy",
        /// Strategies by name. Each type is a strategy of its own name already.
        strategies: BTreeMap<String, StrategyOf> = built_in() => "Cluster.lb_policy",
        /// Instances are asked whether they are well.
        health_check: HealthCheck => "Cluster.health_checks",
        /// How sessions are known to `sticky_session`, and what `ring_hash` and `maglev` hash.
        sticky_sessions: StickySessions => "the filter session",
    }
}

/// The strategies that a file need not name.
fn built_in() -> BTreeMap<String, StrategyOf> {
    use Strategy::{HealthBased, RoundRobin, StickySession, Weighted};
    [RoundRobin, Weighted, HealthBased, StickySession]
        .into_iter()
        .map(|strategy| (strategy.word().to_owned(), StrategyOf { r#type: strategy }))
        .collect()
}

block! {
    /// A strategy by a name of yours.
    StrategyOf {
        /// `round_robin` ignores weights, `weighted` honours them, `health_based` never serves an instance that
        /// is not well, `sticky_session` keeps sessions on their instance. Also `least_request`, `random`,
        /// `ring_hash`, `maglev`.
        r#type: Strategy => "Cluster.lb_policy",
    }
}

block! {
    /// Instances are asked whether they are well.
    HealthCheck {
        /// `false`: every instance counts as well.
        enabled: bool = true => "Cluster.health_checks",
        /// Time from one question to the next.
        interval: Time<1> = Time::secs(30) => "HealthCheck.interval, no_traffic_interval",
        /// An answer that takes longer is a failure.
        timeout: Time<1> = Time::secs(5) => "HealthCheck.timeout",
        /// So many failures in a row, and an instance gets no more requests.
        failure_threshold: Number<1, 1000> = Number(3) => "HealthCheck.unhealthy_threshold",
        /// So many successes in a row, and it gets them again.
        success_threshold: Number<1, 1000> = Number(2) => "HealthCheck.healthy_threshold",
        /// What is asked for; 200 is a success.
        path: String = "/health".to_owned() => "HealthCheck.http_health_check.path",
    }
}

block! {
    /// Sessions, which `sticky_session` keeps on one instance of each service.
    StickySessions {
        /// `false`: `sticky_session` is `round_robin`, and hashes are of the client's address alone.
        enabled: bool = true => "the filter session; RouteAction.hash_policy",
        /// A session that nobody asks in for so long is over.
        duration: Time<1> = Time::secs(1800) => "Session.duration",
        /// The cookie of a session; a client without one gets it.
        cookie_name: String = "session-id".to_owned() => "Session.cookie_name",
        /// The header of a session, with an id of the client's choice. It goes before the cookie.
        header_name: String = "X-Session-ID".to_owned() => "Session.header_name",
        /// So many sessions at the most; beyond, those that are used least are forgotten.
        max_sessions: Number<1, { u32::MAX }> = Number(10_000) => "Session.max_sessions",
    }
}

block! {
    /// Responses are stored and given again, as RFC 9111 lets a shared cache.
    Cache {
        /// `false`: nothing is stored, except for routes that say otherwise.
        enabled: bool = true => "the filter cache",
        /// How long a response is fresh that neither states a lifetime nor forbids to store it.
        default_ttl: Time<0> = Time::secs(300) => "Cache.default_ttl",
        /// How many URLs have stored responses at the most.
        max_size: Number<1, { u32::MAX }> = Number(1000) => "Cache.max_entries",
        /// How much memory they take at the most, at least 64KB.
        max_memory: Size = Size(100 << 20) => "Cache.max_memory_bytes",
        /// How often what can no longer be used is forgotten.
        cleanup_interval: Time<1000> = Time::secs(600) => "Cache.cleanup_interval",
        /// Stored responses are given in gzip to clients that take it, encoded once.
        compression: bool = true => "Cache.compression",
        /// Responses are fetched before anybody asks.
        cache_warming: CacheWarming => "Cache.warming",
        /// Requests make stored responses forgotten.
        invalidation: Invalidation => "Cache.invalidation",
    }
}

block! {
    /// Responses that are fetched before anybody asks.
    CacheWarming {
        /// `true`: `urls` are fetched at the start and every `interval`.
        enabled: bool = false => "Cache.warming",
        /// What to fetch: `http://host/path`, or `/path`.
        urls: Vec<String> = Vec::new() => "Cache.warming.urls",
        /// Time from one round to the next.
        interval: Time<1000> = Time::secs(3600) => "Cache.warming.interval",
        /// How many are fetched at a time.
        concurrency: Number<1, 100> = Number(5) => "Cache.warming.concurrency",
    }
}

block! {
    /// Requests that make stored responses forgotten.
    Invalidation {
        /// `false`: only what RFC 9111 section 4.4 says: a successful unsafe request forgets its own URL.
        enabled: bool = true => "Cache.invalidation",
        /// Paths, with `*` for any part.
        patterns: Vec<String> = vec!["/api/*".to_owned()] => "Cache.invalidation.patterns",
        /// The value of such a request header names what is forgotten: a path, a pattern or `tag:NAME`. Heard
        /// from the proxy's own machine only; from elsewhere it is passed on like any other.
        headers: Vec<String> = vec!["X-Cache-Invalidate".to_owned()] => "Cache.invalidation.headers, trusted_addresses",
        /// A successful request with such a method and a path of `patterns` forgets everything of that pattern.
        methods: Vec<String> = ["POST", "PUT", "DELETE"].map(str::to_owned).to_vec() => "Cache.invalidation.methods",
        /// `true`: whatever of this happens forgets everything.
        invalidate_all: bool = false => "Cache.invalidation.invalidate_all",
    }
}

block! {
    /// How connections to instances are kept.
    ConnectionPool {
        /// `false`: each request has a connection of its own. The other keys hold all the same, where there
        /// is something left to hold.
        enabled: bool = true => "HttpProtocolOptions.max_requests_per_connection",
        /// So many connections to a service at the most; requests beyond wait.
        max_connections: Number<1, { u32::MAX }> = Number(100) => "Cluster.circuit_breakers.thresholds.max_connections",
        /// So many connections with nothing on them are kept; the smaller of this and
        /// `max_idle_conns_per_host` holds for each instance in each worker of the proxy.
        max_idle_connections: Number<0, { u32::MAX }> = Number(10) => "ConnectionPool.max_idle",
        /// A connection with nothing on it is closed after so long. `idle_conn_timeout` is another name for it.
        idle_timeout: Said<Time<1>> = Said::not(Time::secs(90)) => "HttpProtocolOptions.idle_timeout",
        /// A connection that is older is closed, after the request that it has.
        max_lifetime: Time<1> = Time::secs(3600) => "HttpProtocolOptions.max_connection_duration",
        /// TCP asks a silent peer so often whether it is there, in whole seconds; `0s` never.
        keep_alive: Time<0> = Time::secs(30) => "Cluster.upstream_connection_options.tcp_keepalive",
        /// `true`: instances are not asked to compress. `Accept-Encoding` is taken from requests.
        disable_compression: bool = false => "ConnectionPool.disable_compression",
        /// How connections are made, and how long an instance is waited for.
        transport_config: Transport => "Cluster",
    }
}

block! {
    /// How connections to instances are made, and how long an instance is waited for.
    Transport {
        /// A connection that is not made in this time has failed.
        dial_timeout: Time<1> = Time::secs(30) => "Cluster.connect_timeout",
        /// From the end of a request to the head of its response; then 504.
        response_header_timeout: Time<1> = Time::secs(30) => "ConnectionPool.response_header_timeout",
        /// The body of a request with `Expect: 100-continue` waits so long to be asked for; `0s` does not wait.
        expect_continue_timeout: Time<0> = Time::secs(1) => "ConnectionPool.expect_continue_timeout",
        /// Another name for `idle_timeout`: only one of them may be said, or both the same.
        idle_conn_timeout: Said<Time<1>> = Said::not(Time::secs(90)) => "HttpProtocolOptions.idle_timeout",
        /// No effect, and a warning if it is said: connections to instances are plain.
        tls_handshake_timeout: Said<Time<1>> = Said::not(Time::secs(10)) => "",
        /// See `max_idle_connections`.
        max_idle_conns_per_host: Number<0, { u32::MAX }> = Number(10) => "ConnectionPool.max_idle",
        /// So many connections to one instance at the most.
        max_conns_per_host: Number<1, { u32::MAX }> = Number(100) => "Cluster.circuit_breakers.per_host_thresholds.max_connections",
    }
}

block! {
    /// Bodies are compressed.
    Compression {
        /// `false`: bodies pass as they are, except on routes that say otherwise.
        enabled: bool = true => "the filter compression",
        /// Shorter bodies stay as they are.
        min_size: Size = Size(1024) => "Compression.bodies.min_size",
        /// How hard to try: 1 to 9 for gzip and deflate, to 11 for br, to 22 for zstd.
        compression_level: Number<1, 22> = Number(6) => "Compression.encodings.level",
        /// What clients may get, best liked first: `gzip`, `deflate`, `br`, `zstd`.
        supported_encodings: Vec<Coding> = vec![Coding::Gzip, Coding::Deflate] => "Compression.encodings.coding",
        /// Types of bodies that are worth it, such as `text/*`.
        content_types: Vec<String> = content_types() => "Compression.bodies.content_types",
        /// Paths whose bodies stay as they are, with `*` for any part.
        exclude_paths: Vec<String> = ["/health", "/metrics", "/admin/*"].map(str::to_owned).to_vec() => "Compression.excluded_paths",
        /// Compressed requests are decoded before they reach an instance.
        request_compression: bool = true => "Compression.request_decompression",
        /// Responses are compressed for clients that take it.
        response_compression: bool = true => "Compression.disable_response_compression",
    }
}

fn content_types() -> Vec<String> {
    ["application/json", "text/html", "text/plain", "application/xml"].map(str::to_owned).to_vec()
}

impl LoadBalancer {
    /// What holds without the block: health checks are for those who ask for them.
    pub(crate) fn without() -> Option<Self> {
        let block = Self::absent()?;
        let health_check = HealthCheck { enabled: false, ..block.health_check };
        Some(Self { health_check, ..block })
    }

    /// The type of a strategy by its name.
    pub(crate) fn strategy(&self, name: &str) -> Option<Strategy> {
        self.strategies.get(name).map(|of| of.r#type).or_else(|| Strategy::from_word(name))
    }
}
