//! A service as a cluster: how an instance is chosen, asked for its health, connected to.

use serde_json::{Map, Value, json};

use super::{Context, Flavour, Made, ads, object, seconds, typed};
use crate::gateway::model::{ConnectionPool, HealthCheck, Service, Strategy};
use crate::gateway::reader::Reader;
use crate::types::ResourceType;

const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
const POOL: &str = "nuncio.extensions.upstreams.http.v1.ConnectionPool";

/// `healthy_panic_threshold` where nothing says another.
const PANICS_BELOW: f64 = 50.0;

impl Context<'_> {
    pub(super) fn cluster(&self, index: usize, service: &Service, reader: &mut Reader<'_>) -> Made {
        let at = format!("services[{index}]");
        let mut from = vec![(String::new(), at.clone())];
        let mut cluster = Map::new();
        let mut set = |key: &str, value: Value| cluster.insert(key.to_owned(), value);
        set("name", json!(service.name));
        match service.is_resolved() {
            true => {
                set("type", json!("STRICT_DNS"));
                set("dns_lookup_family", json!("V4_PREFERRED"));
                set("load_assignment", self.endpoints(service));
            }
            false => {
                set("type", json!("EDS"));
                set("eds_cluster_config", json!({ "eds_config": ads() }));
            }
        }
        let strategy = self.strategy(service);
        set("lb_policy", json!(policy(strategy)));
        from.push(("lb_policy".to_owned(), format!("{at}.strategy")));
        if let (Some(strategy), Flavour::Nuncio) = (strategy, self.flavour) {
            // What metrics call it: a policy has several strategies.
            let named = json!({ "nuncio": { "strategy": strategy.word() } });
            set("metadata", json!({ "filter_metadata": named }));
            from.push(("metadata".to_owned(), format!("{at}.strategy")));
        }
        if let Some(common) = common(strategy, self.panics_below(service, strategy)) {
            set("common_lb_config", common);
        }
        let check = &self.balancer.health_check;
        if self.balancer.enabled && check.enabled {
            set("health_checks", json!([health_check(check)]));
            // Envoy would go on with an instance that is removed as long as it is well.
            set("ignore_health_on_host_removal", json!(true));
            from.push(("health_checks".to_owned(), "load_balancer.health_check".to_owned()));
        }
        if let Some(pool) = &self.gateway.connection_pool {
            for (key, value) in self.connections(pool, index, reader) {
                from.push((key.to_owned(), "connection_pool".to_owned()));
                set(key, value);
            }
            from.push((
                "connect_timeout".to_owned(),
                "connection_pool.transport_config".to_owned(),
            ));
        }
        let (ty, value) = (ResourceType::Cluster, Value::Object(cluster));
        Made { ty, name: service.name.clone(), value, from }
    }

    /// Of how many percent of instances that are well a panic begins, if not of 50. Instances that drain count
    /// as those that are not well, but get nothing until those that do not drain are in a panic.
    fn panics_below(&self, service: &Service, strategy: Option<Strategy>) -> Option<f64> {
        if strategy == Some(Strategy::HealthBased) {
            return Some(0.0);
        }
        let drains = |name| self.draining.contains(&(service.name.clone(), name));
        let draining = service.instances.iter().filter(|i| drains(i.name())).count();
        let serving = service.instances.len() - draining;
        let count = |n: usize| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
        (draining > 0).then(|| PANICS_BELOW * count(serving) / count(serving + draining))
    }

    /// The fields that say how connections are made and kept.
    fn connections(
        &self,
        pool: &ConnectionPool,
        index: usize,
        reader: &mut Reader<'_>,
    ) -> Vec<(&'static str, Value)> {
        let transport = &pool.transport_config;
        let idle = match transport.idle_conn_timeout.is_said {
            true => transport.idle_conn_timeout.value,
            false => pool.idle_timeout.value,
        };
        let limits = |most: u32| {
            let of = |priority| json!({ "priority": priority, "max_connections": most });
            json!([of("DEFAULT")])
        };
        let common = object([
            ("idle_timeout", Some(seconds(idle.0))),
            ("max_connection_duration", Some(seconds(pool.max_lifetime.0))),
            ("max_requests_per_connection", (!pool.enabled).then(|| json!(1))),
        ]);
        let options = json!({
            "common_http_protocol_options": common,
            "explicit_http_config": { "http_protocol_options": {} },
        });
        let mut extensions = Map::new();
        extensions.insert(HTTP_OPTIONS.to_owned(), typed(HTTP_OPTIONS, options));
        match self.flavour {
            Flavour::Nuncio => {
                extensions.insert(POOL.to_owned(), typed(POOL, kept(pool)));
            }
            // Once, not for each service.
            Flavour::Envoy if index == 0 => super::envoy::connections(reader),
            Flavour::Envoy => {}
        }
        let mut fields = vec![
            ("connect_timeout", seconds(transport.dial_timeout.0)),
            (
                "circuit_breakers",
                json!({
                    "thresholds": limits(pool.max_connections.0),
                    "per_host_thresholds": limits(transport.max_conns_per_host.0),
                }),
            ),
            ("typed_extension_protocol_options", Value::Object(extensions)),
        ];
        let keep_alive = pool.keep_alive.0.as_secs();
        if keep_alive > 0 {
            let keepalive =
                json!({ "keepalive_time": keep_alive, "keepalive_interval": keep_alive });
            fields.push(("upstream_connection_options", json!({ "tcp_keepalive": keepalive })));
        }
        fields
    }
}

/// What Envoy has no field for.
fn kept(pool: &ConnectionPool) -> Value {
    let transport = &pool.transport_config;
    let idle = pool.max_idle_connections.0.min(transport.max_idle_conns_per_host.0);
    object([
        ("max_idle", Some(json!(idle))),
        ("response_header_timeout", Some(seconds(transport.response_header_timeout.0))),
        ("expect_continue_timeout", Some(seconds(transport.expect_continue_timeout.0))),
        ("disable_compression", pool.disable_compression.then(|| json!(true))),
    ])
}

fn policy(strategy: Option<Strategy>) -> &'static str {
    match strategy {
        None
        | Some(
            Strategy::RoundRobin
            | Strategy::Weighted
            | Strategy::HealthBased
            | Strategy::StickySession,
        ) => "ROUND_ROBIN",
        Some(Strategy::LeastRequest) => "LEAST_REQUEST",
        Some(Strategy::Random) => "RANDOM",
        Some(Strategy::RingHash) => "RING_HASH",
        Some(Strategy::Maglev) => "MAGLEV",
    }
}

fn common(strategy: Option<Strategy>, panics_below: Option<f64>) -> Option<Value> {
    let hashes = matches!(strategy, Some(Strategy::RingHash | Strategy::Maglev));
    let common = object([
        ("healthy_panic_threshold", panics_below.map(|value| json!({ "value": value }))),
        // Small services shall prefer their zone, too; without zones it does nothing.
        ("zone_aware_lb_config", (!hashes).then(|| json!({ "min_cluster_size": 1 }))),
    ]);
    (!hashes || panics_below.is_some()).then_some(common)
}

fn health_check(check: &HealthCheck) -> Value {
    let interval = seconds(check.interval.0);
    json!({
        "interval": interval,
        "no_traffic_interval": interval,
        "timeout": seconds(check.timeout.0),
        "unhealthy_threshold": check.failure_threshold.0,
        "healthy_threshold": check.success_threshold.0,
        // Any other status than 200 is a failure to be counted, not the end at once.
        "http_health_check": {
            "path": check.path,
            "retriable_statuses": [{ "start": 100, "end": 600 }],
        },
    })
}
