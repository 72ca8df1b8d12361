//! What a group of cells belongs to, and how its names are spelt.

use std::borrow::Cow;
use std::sync::Arc;

/// The owner of a group of cells. Envoy writes it in front of a cell's name
/// (`cluster.users.upstream_rq_total`); Prometheus gets it as a label
/// (`envoy_cluster_upstream_rq_total{envoy_cluster_name="users"}`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope {
    /// First part of the name: `cluster`, `http`, `listener`, `listener_manager`.
    pub kind: &'static str,
    /// What the cells belong to, if there may be several: a cluster's name, a stat prefix.
    pub instance: Option<Arc<str>>,
    /// Part of the name between the instance and the cell: `lds` in `listener_manager.lds.version`.
    pub part: Cow<'static, str>,
    /// What the part is one of, if there may be several: a virtual cluster of a virtual host.
    pub inner: Option<Arc<str>>,
}

impl Scope {
    /// `cluster.NAME.`
    pub fn cluster(name: &str) -> Self {
        Self { kind: "cluster", instance: Some(name.into()), part: Cow::Borrowed(""), inner: None }
    }

    /// `http.STAT_PREFIX.`
    pub fn http(stat_prefix: &str) -> Self {
        Self {
            kind: "http",
            instance: Some(stat_prefix.into()),
            part: Cow::Borrowed(""),
            inner: None,
        }
    }

    /// `listener.ADDRESS.`, the address with `_` for `:`.
    pub fn listener(address: &str) -> Self {
        Self {
            kind: "listener",
            instance: Some(address.replace(':', "_").into()),
            part: Cow::Borrowed(""),
            inner: None,
        }
    }

    /// `vhost.VIRTUAL_HOST.vcluster.NAME.`
    pub fn virtual_cluster(host: &str, name: &str) -> Self {
        Self {
            kind: "vhost",
            instance: Some(host.into()),
            part: Cow::Borrowed("vcluster"),
            inner: Some(name.into()),
        }
    }

    /// `vhost.VIRTUAL_HOST.route.STAT_PREFIX.`
    pub fn route(host: &str, stat_prefix: &str) -> Self {
        Self { part: Cow::Borrowed("route"), ..Self::virtual_cluster(host, stat_prefix) }
    }

    /// `extension_config_discovery.http_filter.NAME.`
    pub fn http_extension(name: &str) -> Self {
        let kind = "extension_config_discovery.http_filter";
        Self { kind, instance: Some(name.into()), part: Cow::Borrowed(""), inner: None }
    }

    /// Cells of which there is one set: `cluster_manager.`, `listener_manager.`, `server.`
    pub fn global(kind: &'static str) -> Self {
        Self { kind, instance: None, part: Cow::Borrowed(""), inner: None }
    }

    /// The same owner, with another part before the cell's name.
    #[must_use]
    pub fn part(self, part: impl Into<Cow<'static, str>>) -> Self {
        Self { part: part.into(), ..self }
    }

    /// The Prometheus labels that carry the instance, and what is one of several within it.
    pub fn labels(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let name = match self.kind {
            "cluster" => "envoy_cluster_name",
            "http" => "envoy_http_conn_manager_prefix",
            "listener" => "envoy_listener_address",
            "vhost" => "envoy_virtual_host",
            _ => "envoy_instance",
        };
        let inner = match &*self.part {
            "vcluster" => "envoy_virtual_cluster",
            _ => "envoy_route",
        };
        let instance = self.instance.as_deref().map(|instance| (name, instance));
        instance.into_iter().chain(self.inner.as_deref().map(|part| (inner, part)))
    }

    /// Envoy's name of a cell: `cluster.users.upstream_rq_total`.
    pub fn envoy_name(&self, cell: &str) -> String {
        let mut name = String::from(self.kind);
        let inner = self.inner.as_deref().unwrap_or("");
        for part in [self.instance.as_deref().unwrap_or(""), &self.part, inner, cell] {
            if !part.is_empty() {
                name.push('.');
                name.push_str(part);
            }
        }
        name
    }

    /// Prometheus' name of a cell: `envoy_cluster_upstream_rq_total`.
    pub fn prometheus_name(&self, cell: &str) -> String {
        let part = if self.part.is_empty() { String::new() } else { format!("{}_", self.part) };
        let is_other = |letter: char| !letter.is_ascii_alphanumeric() && letter != '_';
        format!("envoy_{}_{part}{cell}", self.kind).replace(is_other, "_")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_envoys() {
        let cases = [
            (Scope::cluster("a.b"), "cluster.a.b.x", "envoy_cluster_x"),
            (Scope::listener("127.0.0.1:80"), "listener.127.0.0.1_80.x", "envoy_listener_x"),
            (
                Scope::virtual_cluster("api", "get"),
                "vhost.api.vcluster.get.x",
                "envoy_vhost_vcluster_x",
            ),
            (Scope::route("api", "users"), "vhost.api.route.users.x", "envoy_vhost_route_x"),
            (
                Scope::http_extension("policy"),
                "extension_config_discovery.http_filter.policy.x",
                "envoy_extension_config_discovery_http_filter_x",
            ),
            (
                Scope::http("in").part("compressor.text (fast).gzip".to_owned()),
                "http.in.compressor.text (fast).gzip.x",
                "envoy_http_compressor_text__fast__gzip_x",
            ),
            (
                Scope::global("listener_manager").part("lds"),
                "listener_manager.lds.x",
                "envoy_listener_manager_lds_x",
            ),
        ];
        for (scope, envoy, prometheus) in cases {
            assert_eq!(scope.envoy_name("x"), envoy);
            assert_eq!(scope.prometheus_name("x"), prometheus);
        }
    }
}
