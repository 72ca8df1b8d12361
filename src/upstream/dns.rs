//! `STRICT_DNS` and `LOGICAL_DNS`: endpoints found by resolving names, again and again.
//!
//! The control runtime runs [`Cluster::resolve_task`] for as long as the cluster is in use. Each name
//! is resolved on its own schedule; what was found stays in use while resolving fails. IP
//! literals and names in the hosts file need no name server.
//!
//! Differs: when a name of a LOGICAL_DNS cluster still resolves to the address in use, that
//! address is kept, where Envoy goes to the first of the answer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::{OnceCell, watch};
use tokio::time::Instant;

use super::hosts::{Endpoint, EndpointAddress, Endpoints, LocalityEndpoints};
use super::{Cluster, Discovery};

/// Which addresses of a name are used: `Cluster.dns_lookup_family`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LookupFamily {
    /// IPv6, or IPv4 if there is none.
    #[default]
    Auto,
    /// IPv4.
    V4Only,
    /// IPv6.
    V6Only,
    /// IPv4, or IPv6 if there is none.
    V4Preferred,
    /// Both.
    All,
}

/// How a cluster's names are resolved.
#[derive(Debug)]
pub struct DnsSettings {
    /// The endpoints, names among them.
    pub(super) endpoints: Endpoints,
    /// Only one address is used at a time.
    pub(super) logical: bool,
    pub(super) family: LookupFamily,
    /// `dns_refresh_rate`, 5 s unless set.
    pub(super) refresh_rate: Duration,
    /// The answer's time to live takes the place of `refresh_rate`.
    pub(super) respect_ttl: bool,
    /// `dns_failure_refresh_rate`, `refresh_rate` unless set.
    pub(super) failure: FailureRate,
    pub(super) resolver: DnsResolver,
    /// True once every name was tried.
    pub(super) tried: watch::Sender<bool>,
}

/// When to try again after failures: a random time up to `base`, doubling up to `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailureRate {
    /// The first wait is at most this long.
    pub base: Duration,
    /// No wait is longer.
    pub max: Duration,
}

impl DnsSettings {
    pub(super) fn same_targets(&self, other: &Self) -> bool {
        self.endpoints == other.endpoints
            && self.logical == other.logical
            && self.family == other.family
    }
}

#[derive(Debug, Error)]
enum Error {
    #[error("the system's resolver configuration cannot be used: {0}")]
    NoResolver(String),
    #[error("{0}")]
    Lookup(String),
    #[error("the name has no address of the wanted family")]
    NoAddress,
}

struct Answer {
    addresses: Vec<IpAddr>,
    ttl: Option<Duration>,
}

/// Resolves names by the system's configuration, read on first use. Clones share it.
#[derive(Clone, Default)]
pub struct DnsResolver(Arc<[OnceCell<Result<TokioResolver, String>>; 5]>);

impl DnsResolver {
    async fn resolve(&self, name: &str, family: LookupFamily) -> Result<Answer, Error> {
        if let Ok(ip) = name.parse::<IpAddr>() {
            return Ok(Answer { addresses: vec![ip], ttl: None });
        }
        let known = match tokio::fs::read_to_string("/etc/hosts").await {
            Ok(hosts) => in_hosts_file(&hosts, name),
            Err(_no_file) => Vec::new(),
        };
        let local = name.trim_end_matches('.').eq_ignore_ascii_case("localhost");
        let known = match known.is_empty() && local {
            true => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            false => known,
        };
        if !known.is_empty() {
            let addresses = of_family(known, family);
            return match addresses.is_empty() {
                true => Err(Error::NoAddress),
                false => Ok(Answer { addresses, ttl: None }),
            };
        }
        let resolver = self.0[family as usize].get_or_init(|| async move { build(family) }).await;
        let resolver = resolver.as_ref().map_err(|e| Error::NoResolver(e.clone()))?;
        let found = resolver.lookup_ip(name).await.map_err(|e| Error::Lookup(e.to_string()))?;
        let ttl = found.valid_until().saturating_duration_since(Instant::now().into_std());
        Ok(Answer { addresses: found.iter().collect(), ttl: Some(ttl) })
    }
}

impl std::fmt::Debug for DnsResolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DnsResolver")
    }
}

fn build(family: LookupFamily) -> Result<TokioResolver, String> {
    let mut builder = TokioResolver::builder_tokio().map_err(|e| e.to_string())?;
    let options = builder.options_mut();
    options.ip_strategy = match family {
        LookupFamily::Auto => LookupIpStrategy::Ipv6thenIpv4,
        LookupFamily::V4Only => LookupIpStrategy::Ipv4Only,
        LookupFamily::V6Only => LookupIpStrategy::Ipv6Only,
        LookupFamily::V4Preferred => LookupIpStrategy::Ipv4thenIpv6,
        LookupFamily::All => LookupIpStrategy::Ipv4AndIpv6,
    };
    // The refresh rate says when to ask; an answer kept longer would hide a change.
    options.cache_size = 0;
    builder.build().map_err(|e| e.to_string())
}

/// The addresses of a name in the text of a hosts file.
fn in_hosts_file(hosts: &str, name: &str) -> Vec<IpAddr> {
    let name = name.trim_end_matches('.');
    let mut addresses = Vec::new();
    for line in hosts.lines() {
        let mut words = line.split('#').next().unwrap_or("").split_whitespace();
        if let Some(ip) = words.next().and_then(|ip| ip.parse().ok())
            && words.any(|alias| alias.eq_ignore_ascii_case(name))
            && !addresses.contains(&ip)
        {
            addresses.push(ip);
        }
    }
    addresses
}

fn of_family(addresses: Vec<IpAddr>, family: LookupFamily) -> Vec<IpAddr> {
    let (v4, v6): (Vec<_>, Vec<_>) = addresses.into_iter().partition(IpAddr::is_ipv4);
    match family {
        LookupFamily::V4Only => v4,
        LookupFamily::V6Only => v6,
        LookupFamily::Auto if v6.is_empty() => v4,
        LookupFamily::Auto => v6,
        LookupFamily::V4Preferred if v4.is_empty() => v6,
        LookupFamily::V4Preferred => v4,
        LookupFamily::All => v4.into_iter().chain(v6).collect(),
    }
}

impl Cluster {
    /// Resolves the cluster's names until it is dropped; ends at once if it has none. Run it on the
    /// control runtime and abort it when the cluster goes.
    pub async fn resolve_task(self: Arc<Self>) {
        let Discovery::Dns(dns) = &self.discovery else { return };
        let targets = dns.targets();
        let found = Mutex::new(vec![Vec::new(); targets.len()]);
        let (done, tried) = (&Mutex::new(targets.len()), &dns.tried);
        if targets.is_empty() {
            tried.send_replace(true);
        }
        join_all(targets.iter().enumerate().map(|(index, (host, port))| {
            let (cluster, found) = (&self, &found);
            async move {
                let mut first = true;
                let mut failures = 0;
                loop {
                    let wait =
                        cluster.refresh(dns, (index, host, *port), found, &mut failures).await;
                    if std::mem::take(&mut first) {
                        let mut left = done.lock();
                        *left -= 1;
                        if *left == 0 {
                            tried.send_replace(true);
                        }
                    }
                    tokio::time::sleep(wait).await;
                }
            }
        }))
        .await;
    }

    /// Waits until every name of the cluster was tried once; at once if it has none.
    pub async fn first_resolution(&self) {
        if let Discovery::Dns(dns) = &self.discovery {
            // The sender lives as long as the cluster.
            let _ = dns.tried.subscribe().wait_for(|tried| *tried).await;
        }
    }

    /// Resolves one name and says when to do so again.
    async fn refresh(
        &self,
        dns: &DnsSettings,
        (index, host, port): (usize, &Arc<str>, u16),
        found: &Mutex<Vec<Vec<SocketAddr>>>,
        failures: &mut u32,
    ) -> Duration {
        self.stats.update_attempt.inc();
        match dns.resolver.resolve(host, dns.family).await {
            Ok(Answer { mut addresses, ttl }) => {
                self.stats.update_success.inc();
                *failures = 0;
                addresses.sort_unstable();
                let mut found = found.lock();
                let resolved = addresses.into_iter().map(|ip| SocketAddr::new(ip, port)).collect();
                found[index] = dns.keep(&found[index], resolved);
                self.set_endpoints(&dns.resolved(&found));
                match ttl {
                    Some(ttl) if dns.respect_ttl => ttl.max(Duration::from_secs(1)),
                    _ => dns.refresh_rate,
                }
            }
            Err(error) => {
                self.stats.update_failure.inc();
                tracing::warn!(cluster = %self.name, %host, %error, "could not resolve name");
                *failures = failures.saturating_add(1);
                dns.failure.wait(*failures, rand::random())
            }
        }
    }
}

impl FailureRate {
    /// The wait after this many failures in a row, `random` of it over a minimum.
    fn wait(self, failures: u32, random: f64) -> Duration {
        let factor = 1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        let ceiling = self.base.saturating_mul(factor).min(self.max);
        ceiling.mul_f64(random.clamp(0.0, 1.0)).max(Duration::from_millis(10).min(ceiling))
    }
}

impl DnsSettings {
    /// The names to resolve, in the order of the endpoints.
    fn targets(&self) -> Vec<(Arc<str>, u16)> {
        let endpoints = self.endpoints.localities.iter().flat_map(|l| &l.endpoints);
        let target = |endpoint: &Endpoint| match &endpoint.address {
            EndpointAddress::Name { host, port } => (Arc::clone(host), *port),
            EndpointAddress::Ip(address) => (address.ip().to_string().into(), address.port()),
        };
        endpoints.map(target).collect()
    }

    /// What to use of the addresses found, given those in use.
    fn keep(&self, current: &[SocketAddr], found: Vec<SocketAddr>) -> Vec<SocketAddr> {
        if !self.logical {
            return found;
        }
        match current.first() {
            Some(address) if found.contains(address) => vec![*address],
            _ => found.into_iter().take(1).collect(),
        }
    }

    /// The endpoints with every name replaced by its addresses.
    fn resolved(&self, found: &[Vec<SocketAddr>]) -> Endpoints {
        let mut found = found.iter();
        let mut resolve = |endpoint: &Endpoint| -> Vec<Endpoint> {
            let hostname = match &endpoint.address {
                EndpointAddress::Name { host, .. } if endpoint.hostname.is_empty() => host,
                _ => &endpoint.hostname,
            };
            let at = |address: &SocketAddr| Endpoint {
                address: EndpointAddress::Ip(*address),
                hostname: Arc::clone(hostname),
                ..endpoint.clone()
            };
            found.next().into_iter().flatten().map(at).collect()
        };
        let localities = self
            .endpoints
            .localities
            .iter()
            .map(|locality| LocalityEndpoints {
                endpoints: locality.endpoints.iter().flat_map(&mut resolve).collect(),
                ..locality.clone()
            })
            .collect();
        Endpoints { localities, ..self.endpoints.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_file_is_read_like_the_system_does() {
        let hosts = "127.0.0.1 localhost a # b\n::1 localhost\n#10.0.0.1 c\nbad d\n10.0.0.2\tA\n";
        let cases: &[(&str, &[&str])] = &[
            ("localhost", &["127.0.0.1", "::1"]),
            ("a.", &["127.0.0.1", "10.0.0.2"]),
            ("b", &[]),
            ("c", &[]),
            ("d", &[]),
        ];
        for (name, expected) in cases {
            let found: Vec<_> = in_hosts_file(hosts, name).iter().map(IpAddr::to_string).collect();
            assert_eq!(found, *expected, "{name}");
        }
    }

    #[test]
    fn families_choose_addresses() {
        let both: Vec<IpAddr> = vec!["::1".parse().unwrap(), "1.2.3.4".parse().unwrap()];
        let cases = [
            (LookupFamily::Auto, "::1"),
            (LookupFamily::V4Only, "1.2.3.4"),
            (LookupFamily::V6Only, "::1"),
            (LookupFamily::V4Preferred, "1.2.3.4"),
            (LookupFamily::All, "1.2.3.4 ::1"),
        ];
        for (family, expected) in cases {
            let text: Vec<_> =
                of_family(both.clone(), family).iter().map(IpAddr::to_string).collect();
            assert_eq!(text.join(" "), expected, "{family:?}");
        }
    }

    #[test]
    fn waits_after_failures_double_up_to_a_limit() {
        let rate = FailureRate { base: Duration::from_secs(1), max: Duration::from_secs(5) };
        let waits: Vec<_> = (1..6).map(|n| rate.wait(n, 1.0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 5, 5]);
        assert_eq!(rate.wait(u32::MAX, 0.0), Duration::from_millis(10));
    }
}
