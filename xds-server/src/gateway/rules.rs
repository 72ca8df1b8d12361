//! What must hold between the values of a file: names that exist, things that are said once.

use std::collections::{BTreeMap, HashMap};

use super::block::no_such;
use super::model::{
    Coding, ConnectionPool, Gateway, HealthCheck, LoadBalancer, Route, Service, StickySessions,
    Strategy,
};
use super::nearest::nearest;
use super::reader::{Reader, join};

/// The most that TCP takes for its keepalive.
const LONGEST_KEEPALIVE: u64 = 32_767;
/// The least that a cache must have.
const LEAST_MEMORY: u64 = 64 << 10;

/// Tells the reader everything that is wrong with a file whose values are right one by one.
pub(super) fn check(gateway: &Gateway, balancer: &LoadBalancer, reader: &mut Reader<'_>) {
    listeners(gateway, reader);
    balancing(gateway, balancer, reader);
    if let Some(pool) = &gateway.connection_pool {
        connections(pool, reader);
    }
    if let Some(cache) = &gateway.cache {
        if cache.max_memory.0 < LEAST_MEMORY {
            reader.fault("cache.max_memory", "must be at least 64KB");
        }
        if cache.cache_warming.enabled && cache.cache_warming.urls.is_empty() {
            reader.fault("cache.cache_warming.urls", "is empty, so that there is nothing to fetch");
        }
    }
    if let Some(compression) = &gateway.compression {
        let (codings, level) = (&compression.supported_encodings, compression.compression_level.0);
        encodings("compression", codings, level, reader);
    }
    for (index, service) in gateway.services.iter().enumerate() {
        instances(&format!("services[{index}]"), service, reader);
    }
    let services: BTreeMap<&str, bool> = gateway
        .services
        .iter()
        .map(|service| (service.name.as_str(), balancer.keeps_sessions(service)))
        .collect();
    for (index, route) in gateway.routes.iter().enumerate() {
        super::route_rules::check(&format!("routes[{index}]"), route, &services, reader);
        if let Some(own) = &route.compression {
            let at = format!("routes[{index}].compression");
            let whole = gateway.compression.clone().or_else(super::form::Form::absent);
            if let Some(merged) = whole.map(|whole| own.over(&whole)) {
                encodings(&at, &merged.supported_encodings, merged.compression_level.0, reader);
            }
        }
    }
}

/// Faults each value that an earlier one has already.
fn once<T: Eq + std::hash::Hash>(
    values: impl Iterator<Item = (String, T)>,
    reader: &mut Reader<'_>,
) {
    let mut seen: HashMap<T, String> = HashMap::new();
    for (at, value) in values {
        match seen.get(&value) {
            Some(earlier) => reader.fault(&at, format!("is the same as {earlier}")),
            None => {
                seen.insert(value, at);
            }
        }
    }
}

fn listeners(gateway: &Gateway, reader: &mut Reader<'_>) {
    let listeners = || gateway.listeners.iter().enumerate();
    if gateway.listeners.is_empty() {
        reader.fault("listeners", "must not be empty");
    }
    once(listeners().map(|(i, l)| (format!("listeners[{i}].name"), &l.name)), reader);
    let fixed = listeners().filter(|(_, l)| l.port.0 != 0);
    once(fixed.map(|(i, l)| (format!("listeners[{i}].port"), (l.address.0, l.port.0))), reader);
}

fn balancing(gateway: &Gateway, balancer: &LoadBalancer, reader: &mut Reader<'_>) {
    let services = || gateway.services.iter().enumerate();
    once(services().map(|(i, s)| (format!("services[{i}].name"), &s.name)), reader);
    for (name, of) in &balancer.strategies {
        if Strategy::from_word(name).is_some_and(|named| named != of.r#type) {
            let at = join(&join("load_balancer.strategies", name), "type");
            let type_of = of.r#type.word();
            reader.fault(&at, format!("{type_of:?} is not what the name says; use another name"));
        }
    }
    let own = services().filter_map(|(i, service)| {
        Some((format!("services[{i}].strategy"), service.strategy.as_deref()?))
    });
    let whole = ("load_balancer.default_strategy".to_owned(), balancer.default_strategy.as_str());
    for (at, name) in std::iter::once(whole).chain(own) {
        match balancer.strategy(name) {
            None => {
                let named = balancer.strategies.keys().map(String::as_str);
                let mut words: Vec<_> = Strategy::WORDS.iter().copied().chain(named).collect();
                words.sort_unstable();
                words.dedup();
                reader.fault(&at, no_such(&name.into(), &words));
            }
            Some(Strategy::HealthBased) if balancer.enabled && !balancer.health_check.enabled => {
                reader.fault(&at, "needs load_balancer.health_check, which is off");
            }
            Some(_) => {}
        }
    }
    let HealthCheck { path, .. } = &balancer.health_check;
    if !path.starts_with('/') {
        reader.fault("load_balancer.health_check.path", "must begin with /");
    }
    let StickySessions { cookie_name, header_name, .. } = &balancer.sticky_sessions;
    for (key, name) in [("cookie_name", cookie_name), ("header_name", header_name)] {
        let in_name = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if !name.bytes().all(in_name) {
            let at = format!("load_balancer.sticky_sessions.{key}");
            reader.fault(&at, format!("{name:?} has characters that no such name can have"));
        }
    }
}

fn instances(at: &str, service: &Service, reader: &mut Reader<'_>) {
    if service.dns.is_some() && !service.instances.is_empty() {
        reader.fault(&format!("{at}.dns"), "stands beside instances; say one of them");
    }
    let each = || service.instances.iter().enumerate();
    once(each().map(|(i, instance)| (format!("{at}.instances[{i}].id"), instance.name())), reader);
    let urls = each().map(|(i, instance)| (format!("{at}.instances[{i}].url"), &instance.url.0));
    once(urls.map(|(at, url)| (at, url.to_string())), reader);
}

fn connections(pool: &ConnectionPool, reader: &mut Reader<'_>) {
    let transport = &pool.transport_config;
    let (one, other) = (pool.idle_timeout, transport.idle_conn_timeout);
    if one.is_said && other.is_said && one.value != other.value {
        reader.fault(
            "connection_pool.transport_config.idle_conn_timeout",
            "says another time than connection_pool.idle_timeout; say one of them",
        );
    }
    let keep_alive = pool.keep_alive.0;
    if keep_alive.subsec_millis() != 0 || keep_alive.as_secs() > LONGEST_KEEPALIVE {
        let reason = format!("must be whole seconds, at most {LONGEST_KEEPALIVE}s");
        reader.fault("connection_pool.keep_alive", reason);
    }
    if transport.tls_handshake_timeout.is_said {
        reader.warn(
            "connection_pool.transport_config.tls_handshake_timeout",
            "has no effect: connections to instances are plain",
        );
    }
}

fn encodings(at: &str, codings: &[Coding], level: u32, reader: &mut Reader<'_>) {
    let list = format!("{at}.supported_encodings");
    if codings.is_empty() {
        reader.fault(&list, "must not be empty; to compress nothing say enabled: false");
    }
    once(codings.iter().enumerate().map(|(i, c)| (format!("{list}[{i}]"), c.word())), reader);
    for coding in codings.iter().filter(|coding| level > coding.best()) {
        let reason = format!(
            "{level} is too much for {}, which takes 1 to {}",
            coding.word(),
            coding.best()
        );
        reader.fault(&format!("{at}.compression_level"), reason);
    }
}

impl Coding {
    /// The highest level there is.
    pub(super) fn best(self) -> u32 {
        match self {
            Self::Gzip | Self::Deflate => 9,
            Self::Brotli => 11,
            Self::Zstd => 22,
        }
    }
}

impl LoadBalancer {
    /// How a service chooses, if its strategy is one.
    pub(super) fn strategy_of(&self, service: &Service) -> Option<Strategy> {
        let name = service.strategy.as_deref().unwrap_or(&self.default_strategy);
        self.strategy(name).filter(|_| self.enabled)
    }

    /// Whether sessions stay on their instances.
    pub(super) fn keeps_sessions(&self, service: &Service) -> bool {
        let sticky = self.strategy_of(service) == Some(Strategy::StickySession);
        sticky && self.sticky_sessions.enabled
    }
}

/// The fault of a name that nothing has.
pub(super) fn unknown_service(name: &str, services: &BTreeMap<&str, bool>) -> String {
    match nearest(name, services.keys().copied()) {
        Some(near) => format!("there is no service {name:?}; did you mean {near:?}?"),
        None => format!("there is no service {name:?}"),
    }
}

/// Whether a route is one of those that keep sessions.
pub(super) fn route_keeps_sessions(route: &Route, keeps: impl Fn(&str) -> bool) -> bool {
    let one = route.service.as_deref().into_iter();
    one.chain(route.services.iter().map(|share| share.name.as_str())).any(keeps)
}
