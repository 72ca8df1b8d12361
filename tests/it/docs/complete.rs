//! What a document shows in part, as a whole.

/// Where documents have addresses that are not here, and ports that may be in use.
const PLACES: [(&str, &str); 6] = [
    ("10.0.0.", "127.0.0."),
    ("users.internal", "localhost"),
    ("redis.internal", "localhost"),
    ("port: 8080", "port: 0"),
    ("address: 0.0.0.0, port_value: 8080", "address: 127.0.0.1, port_value: 0"),
    ("address: 127.0.0.1, port_value: 10000", "address: 127.0.0.1, port_value: 0"),
];

/// What keeps the blocks of a gateway file company, unless they have it themselves.
const GATEWAY: [(&str, &str); 3] = [
    ("listeners", "listeners: [{ name: public, port: 0 }]"),
    ("services", "services: [{ name: users, instances: [{ url: 'http://127.0.0.1:9' }] }]"),
    ("routes", "routes: [{ service: users }]"),
];

const EDS: &str = "type: EDS
eds_cluster_config: { eds_config: { ads: {}, resource_api_version: V3 } }
";

const ENDPOINTS: &str = "cluster_name: users
endpoints:
- lb_endpoints:
  - endpoint: { address: { socket_address: { address: 127.0.0.1, port_value: 9 } } }
";

const ROUTER: &str = "- name: router
  typed_config: { '@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }
";

/// The text as it can run here.
pub(super) fn placed(text: &str) -> String {
    PLACES.iter().fold(text.to_owned(), |text, (shown, here)| text.replace(shown, here))
}

fn has_key(text: &str, key: &str) -> bool {
    text.lines().any(|line| line.strip_prefix(key).is_some_and(|rest| rest.starts_with(':')))
}

/// A gateway file. What is missing stands at its end, so that lines stay what they are.
pub(super) fn gateway(text: &str) -> String {
    let missing = GATEWAY.iter().filter(|(key, _)| !has_key(text, key));
    missing.fold(placed(text), |text, (_, whole)| format!("{text}{whole}\n"))
}

/// Resources around a part of them; `None` if there is no such part.
pub(super) fn resources(kind: &str, text: &str) -> Option<String> {
    let text = placed(text);
    let part = |name: &str, usual: &str| if name == kind { text.clone() } else { usual.to_owned() };
    if kind == "resources" {
        return Some(text);
    }
    if !["cluster", "endpoints", "route", "filter", "connection_manager"].contains(&kind) {
        return None;
    }
    let mut cluster = part("cluster", "");
    for (key, whole) in [("name", "name: users\n"), ("type", EDS)] {
        if !has_key(&cluster, key) {
            cluster.push_str(whole);
        }
    }
    let mut route = part("route", "");
    for (key, whole) in
        [("match", "match: { prefix: / }\n"), ("route", "route: { cluster: users }\n")]
    {
        if !has_key(&route, key) {
            route.push_str(whole);
        }
    }
    let with_endpoints = !has_key(&cluster, "load_assignment");
    let endpoints = part("endpoints", ENDPOINTS);
    let manager = part("connection_manager", "");
    let filters = part("filter", "") + ROUTER;
    let types = "type.googleapis.com/envoy.extensions.filters.network";
    Some(format!(
        "clusters:
{}endpoints:
{}routes:
- name: all
  virtual_hosts:
  - name: all
    domains: ['*']
    routes:
{}listeners:
- name: public
  address: {{ socket_address: {{ address: 127.0.0.1, port_value: 0 }} }}
  filter_chains:
  - filters:
    - name: http
      typed_config:
        '@type': {types}.http_connection_manager.v3.HttpConnectionManager
        stat_prefix: public
        rds: {{ route_config_name: all, config_source: {{ ads: {{}}, resource_api_version: V3 }} }}
        http_filters:
{}{}",
        item(&cluster, 0),
        if with_endpoints { item(&endpoints, 0) } else { String::new() },
        item(&route, 4),
        indented(&filters, 8),
        indented(&manager, 8),
    ))
}

fn indented(text: &str, by: usize) -> String {
    text.lines().map(|line| format!("{:by$}{line}\n", "")).collect()
}

/// The fields of a message as an item of a list.
fn item(fields: &str, by: usize) -> String {
    let mut text = indented(fields, by + 2);
    text.replace_range(by..=by, "-");
    text
}
