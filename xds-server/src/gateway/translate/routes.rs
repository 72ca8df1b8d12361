//! The routes as one route table.
//!
//! The file's rule is that the first route that matches decides, whatever its host; Envoy's is that
//! the nearest virtual host is taken first and no other after it. So each virtual host has all the
//! routes that could be for it, in the order of the file.

use serde_json::{Map, Value, json};

use super::filters::Filters;
use super::{Context, Flavour, Made, TABLE, object, seconds};
use crate::gateway::model::{Redirect, Retries, Route, Scheme, Strategy, Test};
use crate::gateway::reader::Reader;
use crate::types::ResourceType;

const PREVIOUS_HOSTS: &str = "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate";

impl Context<'_> {
    pub(super) fn route_table(&self, filters: &Filters, reader: &mut Reader<'_>) -> Made {
        let routes = &self.gateway.routes;
        let made: Vec<Value> = routes
            .iter()
            .enumerate()
            .map(|(i, route)| self.route(&format!("routes[{i}]"), route, filters, reader))
            .collect();
        let mut hosts: Vec<String> = routes.iter().map(host_of).collect();
        hosts.sort_unstable();
        hosts.dedup();
        let mut from = vec![(String::new(), "routes".to_owned())];
        let mut virtual_hosts = Vec::new();
        for host in hosts {
            let mut own = Vec::new();
            for (index, _) in
                routes.iter().enumerate().filter(|(_, route)| covers(&host_of(route), &host))
            {
                let field = format!("virtual_hosts[{}].routes[{}]", virtual_hosts.len(), own.len());
                from.push((field, format!("routes[{index}]")));
                own.push(made[index].clone());
            }
            if let Some(index) = routes.iter().position(|route| host_of(route) == host) {
                let field = format!("virtual_hosts[{}].domains", virtual_hosts.len());
                from.push((field, format!("routes[{index}].host")));
            }
            virtual_hosts.push(json!({ "name": host, "domains": [host], "routes": own }));
        }
        let drops = self.flavour == Flavour::Envoy
            && self.gateway.connection_pool.as_ref().is_some_and(|pool| pool.disable_compression);
        let value = object([
            ("name", Some(json!(TABLE))),
            ("virtual_hosts", Some(virtual_hosts.into())),
            ("ignore_port_in_host_matching", Some(json!(true))),
            ("request_headers_to_remove", drops.then(|| json!(["accept-encoding"]))),
        ]);
        Made { ty: ResourceType::Route, name: TABLE.to_owned(), value, from }
    }

    fn route(&self, at: &str, route: &Route, filters: &Filters, reader: &mut Reader<'_>) -> Value {
        let own = self.overrides(at, route, filters, reader);
        let action = match &route.redirect {
            Some(redirect) => ("redirect", Some(redirected(redirect))),
            None => ("route", Some(self.action(route))),
        };
        object([
            ("match", Some(matched(route))),
            action,
            ("typed_per_filter_config", (!own.is_empty()).then_some(Value::Object(own))),
        ])
    }

    fn action(&self, route: &Route) -> Value {
        let weighted = || {
            let clusters = route.services.iter();
            let clusters: Vec<_> = clusters
                .map(|share| json!({ "name": share.name, "weight": share.weight.0 }))
                .collect();
            json!({ "clusters": clusters })
        };
        let rewrite = route.rewrite.as_ref();
        let path = rewrite.and_then(|rewrite| rewrite.path.as_ref());
        let host = rewrite.and_then(|rewrite| rewrite.host.as_ref());
        let target = match &route.service {
            Some(service) => ("cluster", Some(json!(service))),
            None => ("weighted_clusters", Some(weighted())),
        };
        object([
            target,
            ("prefix_rewrite", path.map(|path| json!(path.0))),
            ("host_rewrite_literal", host.map(|host| json!(host))),
            ("timeout", route.timeout.map(|timeout| seconds(timeout.0))),
            ("retry_policy", route.retries.as_ref().map(retried)),
            ("hash_policy", self.hashes(route).then(|| self.hash_policy())),
        ])
    }

    fn hashes(&self, route: &Route) -> bool {
        let one = route.service.as_deref().into_iter();
        let mut all = one.chain(route.services.iter().map(|share| share.name.as_str()));
        all.any(|name| {
            let strategy = self.service(name).and_then(|service| self.strategy(service));
            matches!(strategy, Some(Strategy::RingHash | Strategy::Maglev))
        })
    }

    /// A session by its header, else by its cookie, else the client's address.
    fn hash_policy(&self) -> Value {
        let sessions = &self.balancer.sticky_sessions;
        let address = json!({ "connection_properties": { "source_ip": true } });
        match sessions.enabled {
            true => json!([
                { "header": { "header_name": sessions.header_name }, "terminal": true },
                { "cookie": { "name": sessions.cookie_name }, "terminal": true },
                address,
            ]),
            false => json!([address]),
        }
    }
}

/// In lower case, as hosts are compared.
fn host_of(route: &Route) -> String {
    route.host.as_deref().unwrap_or("*").to_ascii_lowercase()
}

/// Whether every host that `narrow` names is one that `wide` names.
fn covers(wide: &str, narrow: &str) -> bool {
    match wide.strip_prefix('*') {
        Some("") => true,
        Some(end) => narrow != end && narrow.ends_with(end),
        None => wide == narrow,
    }
}

fn matched(route: &Route) -> Value {
    let path = match (&route.path, &route.prefix) {
        (Some(path), _) => ("path", Some(json!(path.0))),
        (None, Some(prefix)) => ("prefix", Some(json!(prefix.0))),
        (None, None) => ("prefix", Some(json!("/"))),
    };
    let mut headers: Vec<Value> =
        route.headers.iter().map(|(name, test)| test_of(name, test)).collect();
    match route.methods.as_slice() {
        [] => {}
        [one] => headers.push(test_of(":method", &Test::Exact(one.clone()))),
        several => headers.push(test_of(":method", &Test::Regex(several.join("|")))),
    }
    let query: Vec<Value> = route.query.iter().map(|(name, test)| test_of(name, test)).collect();
    object([
        path,
        ("headers", (!headers.is_empty()).then_some(headers.into())),
        ("query_parameters", (!query.is_empty()).then_some(query.into())),
    ])
}

/// A matcher of a header or of a query parameter: both are written alike.
fn test_of(name: &str, test: &Test) -> Value {
    let text = match test {
        Test::Present(is) => return json!({ "name": name, "present_match": is }),
        Test::Exact(text) => json!({ "exact": text }),
        Test::Prefix(text) => json!({ "prefix": text }),
        Test::Suffix(text) => json!({ "suffix": text }),
        Test::Contains(text) => json!({ "contains": text }),
        Test::Regex(text) => json!({ "safe_regex": { "regex": text } }),
    };
    json!({ "name": name, "string_match": text })
}

fn redirected(redirect: &Redirect) -> Value {
    let Redirect { scheme, host, port, path, prefix, status } = redirect;
    let mut action = Map::new();
    let mut set = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            action.insert(key.to_owned(), value);
        }
    };
    set("scheme_redirect", scheme.map(|scheme: Scheme| json!(scheme.word())));
    set("host_redirect", host.as_ref().map(|host| json!(host)));
    set("port_redirect", port.map(|port| json!(port.0)));
    set("path_redirect", path.as_ref().map(|path| json!(path.0)));
    set("prefix_rewrite", prefix.as_ref().map(|prefix| json!(prefix.0)));
    set("response_code", Some(json!(status.envoy())));
    Value::Object(action)
}

fn retried(retries: &Retries) -> Value {
    let when: Vec<&str> = retries.when.iter().map(|when| when.word()).collect();
    let other =
        super::extension("envoy.retry_host_predicates.previous_hosts", PREVIOUS_HOSTS, json!({}));
    object([
        ("retry_on", Some(json!(when.join(",")))),
        ("num_retries", Some(json!(retries.attempts.0))),
        ("per_try_timeout", retries.per_try_timeout.map(|timeout| seconds(timeout.0))),
        ("retry_host_predicate", Some(json!([other]))),
        ("host_selection_retry_max_attempts", Some(json!("3"))),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wide_host_covers_the_narrow_ones() {
        for (wide, narrow, does) in [
            ("*", "example.com", true),
            ("*", "*", true),
            ("*.example.com", "a.example.com", true),
            ("*.example.com", "*.b.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.b.example.com", "*.example.com", false),
            ("example.com", "example.com", true),
            ("example.com", "*", false),
        ] {
            assert_eq!(covers(wide, narrow), does, "{wide} {narrow}");
        }
    }
}
