//! Clusters: how endpoints are found, shared out and kept connected to.

use serde_json::{Value, json};

use crate::harness::resources::{bootstrap, endpoint, listener, route, static_cluster, to, with};
use crate::harness::{Http1, Origin, Proxy, Script, get};

fn dns_cluster(name: &str, kind: &str, host: &str, port: u16) -> Value {
    json!({
        "name": name, "type": kind, "dns_lookup_family": "V4_ONLY", "connect_timeout": "1s",
        "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": [{
            "endpoint": { "address": { "socket_address": { "address": host, "port_value": port } } },
        }] }] },
    })
}

#[tokio::test]
async fn names_are_resolved() {
    let origin = Origin::http1("one").await;
    let port = origin.address.port();
    let clusters = [
        dns_cluster("strict", "STRICT_DNS", "localhost", port),
        dns_cluster("logical", "LOGICAL_DNS", "localhost", port),
        dns_cluster("literal", "STRICT_DNS", "127.0.0.1", port),
        dns_cluster("nowhere", "STRICT_DNS", "no-such-host.invalid", port),
    ];
    let names = ["strict", "logical", "literal", "nowhere"];
    let routes: Vec<_> =
        names.iter().map(|name| route(&format!("/{name}"), json!({ "cluster": name }))).collect();
    let proxy = Proxy::with(bootstrap(&[listener("in", &routes)], &clusters)).await;
    let mut client = Http1::connect(proxy.listener("in").await).await;
    for name in &names[..3] {
        proxy.until_stat(&format!("cluster.{name}.membership_healthy"), 1).await;
        assert_eq!(client.get(&format!("/{name}")).await.text(), "one", "{name}");
    }
    assert!(proxy.stat("cluster.strict.update_success").await >= 1);
    // A name that leads nowhere holds up nobody else.
    assert_eq!(client.get("/nowhere").await.status, 503);
    proxy.until_stat_at_least("cluster.nowhere.update_failure", 1).await;
    let clusters = proxy.admin_text("/clusters").await;
    assert!(clusters.contains(&format!("strict::127.0.0.1:{port}::")), "{clusters}");
}

#[tokio::test]
async fn hosts_take_turns_by_weight() {
    let (a, b) = (Origin::http1("a").await, Origin::http1("b").await);
    let weighted = |origin: &Origin, weight: u32| {
        with(endpoint(origin.address), json!({ "load_balancing_weight": weight }))
    };
    let cluster = json!({
        "name": "both", "type": "STATIC",
        "load_assignment": { "cluster_name": "both", "endpoints": [
            { "lb_endpoints": [weighted(&a, 3), weighted(&b, 1)] },
        ] },
    });
    let equal = static_cluster("equal", &[a.address, b.address]);
    let routes = [route("/equal", json!({ "cluster": "equal" })), to("both")];
    let proxy = Proxy::with(bootstrap(&[listener("in", &routes)], &[cluster, equal])).await;
    // One connection is one worker's, so its turns are exact.
    let mut client = Http1::connect(proxy.listener("in").await).await;
    for _ in 0..40 {
        client.get("/").await;
    }
    assert_eq!((a.requests(), b.requests()), (30, 10));
    for _ in 0..40 {
        client.get("/equal").await;
    }
    assert_eq!((a.requests(), b.requests()), (50, 30));
    assert_eq!(proxy.stat("cluster.both.membership_total").await, 2);
}

#[tokio::test]
async fn health_of_endpoints_decides_who_is_asked() {
    let (a, b) = (Origin::http1("a").await, Origin::http1("b").await);
    let host = |origin: &Origin, health: &str| {
        with(endpoint(origin.address), json!({ "health_status": health }))
    };
    let cluster = |name: &str, endpoints: Value| {
        json!({ "name": name, "type": "STATIC",
            "common_lb_config": { "healthy_panic_threshold": { "value": 0 } },
            "load_assignment": { "cluster_name": name, "endpoints": endpoints } })
    };
    let clusters = [
        cluster(
            "one-down",
            json!([{ "lb_endpoints": [host(&a, "UNHEALTHY"), host(&b, "HEALTHY")] }]),
        ),
        cluster("all-down", json!([{ "lb_endpoints": [host(&a, "UNHEALTHY")] }])),
        cluster(
            "spare",
            json!([
                { "priority": 0, "lb_endpoints": [host(&a, "UNHEALTHY")] },
                { "priority": 1, "lb_endpoints": [host(&b, "HEALTHY")] },
            ]),
        ),
    ];
    let names = ["one-down", "all-down", "spare"];
    let routes: Vec<_> =
        names.iter().map(|name| route(&format!("/{name}"), json!({ "cluster": name }))).collect();
    let proxy = Proxy::with(bootstrap(&[listener("in", &routes)], &clusters)).await;
    let mut client = Http1::connect(proxy.listener("in").await).await;
    for _ in 0..4 {
        assert_eq!(client.get("/one-down").await.text(), "b");
        assert_eq!(client.get("/all-down").await.status, 503);
        assert_eq!(client.get("/spare").await.text(), "b");
    }
    assert_eq!(a.requests(), 0);
    assert_eq!(proxy.stat("cluster.one-down.membership_healthy").await, 1);
    let text = proxy.admin_text("/clusters").await;
    assert!(text.contains("health_flags::/failed_eds_health"), "{text}");
}

#[tokio::test]
async fn connections_are_used_again_by_each_worker() {
    let origin = Origin::http1("one").await;
    let cluster = static_cluster("one", &[origin.address]);
    let proxy = Proxy::with(bootstrap(&[listener("in", &[to("one")])], &[cluster])).await;
    let address = proxy.listener("in").await;
    for _ in 0..50 {
        assert_eq!(get(address, "/").await.status, 200);
    }
    assert!(origin.connections() <= 2, "{} for 2 workers", origin.connections());
    assert_eq!(proxy.stat("cluster.one.upstream_cx_total").await, origin.connections());
    assert_eq!(proxy.stat("cluster.one.upstream_cx_http1_total").await, origin.connections());
}

#[tokio::test]
async fn idle_connections_are_closed_in_time() {
    let origin = Origin::http1("one").await;
    let cluster = with(
        static_cluster("one", &[origin.address]),
        json!({ "common_http_protocol_options": { "idle_timeout": "0.1s" } }),
    );
    let proxy = Proxy::with(bootstrap(&[listener("in", &[to("one")])], &[cluster])).await;
    assert_eq!(get(proxy.listener("in").await, "/").await.status, 200);
    proxy.until_stat("cluster.one.upstream_cx_idle_timeout", 1).await;
    proxy.until_stat("cluster.one.upstream_cx_active", 0).await;
    assert_eq!(origin.open_connections(), 0);
    assert_eq!(get(proxy.listener("in").await, "/").await.status, 200);
}

#[tokio::test]
async fn a_dead_host_does_not_stop_the_others() {
    let (a, b) = (Origin::http1("a").await, Origin::http1("b").await);
    let dead = a.address;
    drop(a);
    let cluster = static_cluster("both", &[dead, b.address]);
    let proxy = Proxy::with(bootstrap(&[listener("in", &[to("both")])], &[cluster])).await;
    let mut client = Http1::connect(proxy.listener("in").await).await;
    let mut statuses = Vec::new();
    for _ in 0..10 {
        statuses.push(client.get("/").await.status);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [vec![200; 5], vec![503; 5]].concat());
    // It comes back without a word of configuration.
    let again = Origin::at("a", dead).await;
    for _ in 0..10 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert_eq!(again.requests(), 5);
    proxy.until_stat("cluster.both.upstream_cx_connect_fail", 5).await;
}

#[tokio::test]
async fn a_connection_serves_as_many_requests_as_allowed() {
    let origin = Origin::http1("one").await;
    origin.script(Script::default());
    let cluster =
        with(static_cluster("one", &[origin.address]), json!({ "max_requests_per_connection": 2 }));
    let proxy = Proxy::with(bootstrap(&[listener("in", &[to("one")])], &[cluster])).await;
    let mut client = Http1::connect(proxy.listener("in").await).await;
    for _ in 0..6 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert_eq!(origin.connections(), 3);
    proxy.until_stat("cluster.one.upstream_cx_max_requests", 3).await;
}
