//! Where a gateway listens, and what it forwards to.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde_json::{Value, json};

use crate::gateway::block::block;
use crate::gateway::form::{Form, Number};
use crate::gateway::reader::Reader;

block! {
    /// Where clients are served.
    ListenAt {
        /// A name, for the log and the statistics.
        name: String => "Listener.name",
        /// The IP address to listen on.
        address: Ip = Ip(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)) => "Listener.address.socket_address.address",
        /// The port; 0 takes a free one.
        port: Number<0, 65535> => "Listener.address.socket_address.port_value",
    }
}

block! {
    /// A service: instances that answer alike.
    Service {
        /// A name, by which routes call it.
        name: String => "Cluster.name",
        /// How an instance is chosen; `default_strategy` unless it is said.
        strategy: Option<String> => "Cluster.lb_policy",
        /// The instances, one by one.
        instances: Vec<Instance> = Vec::new() => "ClusterLoadAssignment.endpoints.lb_endpoints",
        /// Or all addresses that a name has: `users.internal:8080`. It is asked again every 5 s.
        dns: Option<HostPort> => "Cluster.type STRICT_DNS; load_assignment",
    }
}

block! {
    /// One instance of a service.
    Instance {
        /// A name that no other instance of the service has, shown at `/clusters` and in access logs; `HOST:PORT`
        /// unless it is said.
        id: Option<String> => "LbEndpoint.endpoint.hostname",
        /// `http://HOST:PORT`. If a service has one with a name for a host, names are resolved by the proxy.
        url: Url => "LbEndpoint.endpoint.address",
        /// How many requests it gets beside the others, for strategies that honour it.
        weight: Number<1, 128> = Number(1) => "LbEndpoint.load_balancing_weight",
        /// The zone that it is in. Proxies that know their own zone and how many they are prefer theirs.
        zone: Option<String> => "LocalityLbEndpoints.locality.zone",
        /// What else is known of it, by key.
        metadata: BTreeMap<String, Value> = BTreeMap::new() => "LbEndpoint.metadata envoy.lb",
    }
}

impl Instance {
    /// Its name, said or not.
    pub(crate) fn name(&self) -> String {
        self.id.clone().unwrap_or_else(|| self.url.0.to_string())
    }
}

impl Service {
    /// Whether proxies resolve names to find its instances.
    pub(crate) fn is_resolved(&self) -> bool {
        self.dns.is_some() || self.instances.iter().any(|instance| instance.url.0.ip().is_none())
    }
}

/// An IP address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ip(pub(crate) IpAddr);

impl Form for Ip {
    fn read(reader: &mut Reader<'_>, at: &str, value: &Value) -> Option<Self> {
        let ip = value.as_str().and_then(|text| text.parse().ok()).map(Self);
        reader.expect(at, value, ip, "an IP address such as 0.0.0.0 or ::1")
    }

    fn shown(&self) -> Value {
        json!(self.0.to_string())
    }

    fn schema() -> Value {
        json!({ "type": "string" })
    }
}

/// A host, by name or address, and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostPort {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl HostPort {
    /// `host:port` or `[ipv6]:port`.
    fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let port = port.parse().ok().filter(|port| *port != 0 && !text.ends_with("+"))?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = match bracketed {
            Some(host) => host.parse::<std::net::Ipv6Addr>().ok()?.to_string(),
            None => host.to_owned(),
        };
        let in_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        let good = !host.is_empty() && (bracketed.is_some() || host.bytes().all(in_name));
        good.then_some(Self { host, port })
    }

    /// The address, if it is one and not a name.
    pub(crate) fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl Form for HostPort {
    fn read(reader: &mut Reader<'_>, at: &str, value: &Value) -> Option<Self> {
        let found = value.as_str().and_then(Self::parse);
        reader.expect(at, value, found, "HOST:PORT")
    }

    fn shown(&self) -> Value {
        json!(self.to_string())
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^.+:[0-9]+$" })
    }
}

/// Where an instance is: `http://HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url(pub(crate) HostPort);

impl Form for Url {
    fn read(reader: &mut Reader<'_>, at: &str, value: &Value) -> Option<Self> {
        let text = value.as_str().unwrap_or_default();
        if text.starts_with("https:") {
            reader.fault(at, "connections to instances can only be plain; use http://HOST:PORT");
            return None;
        }
        let rest = text.strip_prefix("http://").map(|rest| rest.strip_suffix('/').unwrap_or(rest));
        let parse = |rest: &str| match rest.contains(':') {
            true => HostPort::parse(rest),
            false => HostPort::parse(&format!("{rest}:80")),
        };
        let found = rest.and_then(parse).map(Self);
        reader.expect(at, value, found, "http://HOST:PORT without a path")
    }

    fn shown(&self) -> Value {
        json!(format!("http://{}", self.0))
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^http://[^/]+/?$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_and_its_port_are_told_apart() {
        for (text, shown) in [
            ("users.internal:8080", Some("users.internal:8080")),
            ("10.0.0.1:1", Some("10.0.0.1:1")),
            ("[0:0::1]:80", Some("[::1]:80")),
            ("::1:80", None),
            ("users", None),
            (":80", None),
            ("users:0", None),
            ("users:70000", None),
            ("us/ers:80", None),
            ("[users]:80", None),
        ] {
            let found = HostPort::parse(text).map(|found| found.to_string());
            assert_eq!(found.as_deref(), shown, "{text}");
        }
    }
}
