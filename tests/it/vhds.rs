//! Virtual hosts that come apart from their table: all that the server chooses to send, and on demand.

mod on_demand;
mod unhappy;

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::harness::resources::{
    ads, dynamic_delta, dynamic_sotw, filter, grpc_services, hcm, listener_of, rds, router,
    static_cluster, table, to, with,
};
use crate::harness::scripted::Delta;
use crate::harness::{
    Answer, Kind, Management, Origin, Proxy, ProxyBuilder, ack_of, delta, eventually, request, sotw,
};

/// A virtual host of `table`, for its own name, that leads to a cluster.
fn host(name: &str, cluster: &str) -> Value {
    json!({ "name": format!("table/{name}"), "domains": [name], "routes": [to(cluster)] })
}

/// A table of its own for `known.test`, which takes more hosts.
fn taking(timeout: &str) -> Value {
    let source = with(ads(), json!({ "initial_fetch_timeout": timeout }));
    let mut table = table("table", &[to("one")]);
    table["virtual_hosts"][0]["domains"] = json!(["known.test"]);
    with(table, json!({ "vhds": { "config_source": source } }))
}

fn on_demand() -> Value {
    let kind = "envoy.extensions.filters.http.on_demand.v3.OnDemand";
    filter("envoy.filters.http.on_demand", kind, json!({}))
}

/// A listener of `table` whose requests wait for their hosts.
fn demanding() -> Value {
    listener_of("in", hcm(rds("table"), json!({ "http_filters": [on_demand(), router()] })))
}

/// A proxy whose table takes virtual hosts, and the server's end of its stream.
struct World {
    one: Origin,
    two: Origin,
    server: Management,
    stream: Delta,
    proxy: Proxy,
    address: SocketAddr,
}

impl World {
    /// Before the server has said anything of virtual hosts.
    async fn unanswered(timeout: &str, args: &[String]) -> (Management, Delta, Proxy, [Origin; 2]) {
        let origins = [Origin::http1("one").await, Origin::http1("two").await];
        let mut server = Management::start().await;
        let builder = ProxyBuilder::new(dynamic_delta(server.address));
        let proxy = builder.args(args.iter().cloned()).start().await;
        let mut stream = server.delta().await;
        let clusters = [
            static_cluster("one", &[origins[0].address]),
            static_cluster("two", &[origins[1].address]),
        ];
        for (kind, resources) in [
            (Kind::Cluster, &clusters[..]),
            (Kind::Listener, &[demanding()]),
            (Kind::Routes, &[taking(timeout)]),
        ] {
            stream.request(kind).await;
            stream.respond(delta(kind, "1", resources, &[])).await;
            ack_of(&mut stream, kind, "1").await;
        }
        let first = stream.request(Kind::VirtualHost).await;
        assert!(first.resource_names_subscribe.is_empty(), "the server chooses: {first:?}");
        (server, stream, proxy, origins)
    }

    /// After the first virtual hosts.
    async fn start(timeout: &str, hosts: &[Value]) -> Self {
        Self::start_with(timeout, hosts, &[]).await
    }

    async fn start_with(timeout: &str, hosts: &[Value], args: &[String]) -> Self {
        let (server, mut stream, proxy, [one, two]) = Self::unanswered(timeout, args).await;
        stream.respond(delta(Kind::VirtualHost, "1", hosts, &[])).await;
        ack_of(&mut stream, Kind::VirtualHost, "1").await;
        proxy.until_ready().await;
        let address = proxy.listener("in").await;
        Self { one, two, server, stream, proxy, address }
    }

    /// Sends virtual hosts and waits for the ACK. Returns what was unsubscribed meanwhile.
    async fn push(&mut self, version: &str, hosts: &[Value], removed: &[&str]) -> Vec<String> {
        self.stream.respond(delta(Kind::VirtualHost, version, hosts, removed)).await;
        let mut unsubscribed = Vec::new();
        loop {
            let request = self.stream.request(Kind::VirtualHost).await;
            unsubscribed.extend(request.resource_names_unsubscribe);
            if request.response_nonce == format!("VirtualHost-{version}") {
                assert_eq!(request.error_detail, None);
                return unsubscribed;
            }
        }
    }

    /// The names of the next subscription.
    async fn subscribed(&mut self) -> Vec<String> {
        loop {
            let request = self.stream.request(Kind::VirtualHost).await;
            if !request.resource_names_subscribe.is_empty() {
                return request.resource_names_subscribe;
            }
        }
    }

    /// The names of the next subscription that is given up.
    async fn unsubscribed(&mut self) -> Vec<String> {
        loop {
            let request = self.stream.request(Kind::VirtualHost).await;
            if !request.resource_names_unsubscribe.is_empty() {
                return request.resource_names_unsubscribe;
            }
        }
    }

    async fn until(&self, host: &str, status: u16, body: &str) {
        eventually(&format!("{host} is answered {status} {body:?}"), async || {
            let answer = ask(self.address, host).await;
            (answer.status == status && answer.text() == body).then_some(())
        })
        .await;
    }
}

async fn ask(address: SocketAddr, host: &str) -> Answer {
    request(address, "GET", "/", &[("host", host)], b"").await
}

#[tokio::test]
async fn what_the_server_chooses_comes_beside_the_table_and_goes() {
    let (server, mut stream, proxy, [one, two]) = World::unanswered("15s", &[]).await;
    assert_ne!(proxy.admin("GET", "/ready").await.status, 200, "its hosts are waited for");
    let hosts = [host("a.test", "one"), host("b.test", "two")];
    stream.respond(delta(Kind::VirtualHost, "1", &hosts, &[])).await;
    ack_of(&mut stream, Kind::VirtualHost, "1").await;
    proxy.until_ready().await;
    let address = proxy.listener("in").await;
    let mut world = World { one, two, server, stream, proxy, address };
    for (host, body) in [("known.test", "one"), ("A.test", "one"), ("b.test", "two")] {
        assert_eq!(ask(address, host).await.text(), body, "{host}");
    }

    world.push("2", &[host("a.test", "two")], &["table/b.test"]).await;
    world.until("a.test", 200, "two").await;
    assert_eq!(ask(address, "known.test").await.text(), "one");
    // It is asked for now, and not there.
    let waiting = tokio::spawn(async move { ask(address, "b.test").await.status });
    assert_eq!(world.subscribed().await, ["table/b.test"]);
    world.push("3", &[], &["table/b.test"]).await;
    assert_eq!(waiting.await.unwrap(), 404);

    // A new table keeps the hosts that came, and what it says about routes holds for them.
    let added = json!([{ "header": { "key": "x-table", "value": "new" } }]);
    let table = with(taking("15s"), json!({ "response_headers_to_add": added }));
    world.stream.respond(delta(Kind::Routes, "2", &[table], &[])).await;
    ack_of(&mut world.stream, Kind::Routes, "2").await;
    eventually("the new table is in service", async || {
        (ask(address, "a.test").await.header("x-table") == "new").then_some(())
    })
    .await;

    let dump = world.proxy.admin_json("/config_dump?resource=dynamic_route_configs").await;
    let hosts = dump["configs"][0]["route_config"]["virtual_hosts"].as_array().unwrap().clone();
    let names: Vec<_> = hosts.iter().map(|host| host["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["all", "table/a.test"]);
    assert_eq!(world.proxy.stat("http.in.vhds.table.config_reload").await, 4);
    assert_eq!(world.proxy.stat("http.in.no_route").await, 1);
    assert_eq!((world.one.connections() > 0, world.two.connections() > 0), (true, true));
    drop(world.server);
}

#[tokio::test]
async fn hosts_of_an_earlier_run_serve_without_the_server() {
    let dir = tempfile::TempDir::new().unwrap();
    let args = ["--snapshot-dir".to_owned(), dir.path().to_str().unwrap().to_owned()];
    let hosts = [host("a.test", "one"), host("b.test", "two")];
    let mut world = World::start_with("15s", &hosts, &args).await;
    eventually("they are on disk", async || {
        let bytes = std::fs::read(dir.path().join("last_good.nuncio")).ok()?;
        bytes.windows(12).any(|w| w == b"table/b.test").then_some(())
    })
    .await;
    assert!(world.proxy.terminate().await.success());
    let place = world.server.address;
    drop(world.server);
    world.proxy.restart().await;
    world.proxy.until_ready().await;
    let address = world.proxy.listener("in").await;
    assert_eq!(ask(address, "a.test").await.text(), "one");
    assert_eq!(ask(address, "b.test").await.text(), "two");

    // The server is asked what has become of each.
    world.server = Management::at(place).await;
    world.stream = world.server.delta().await;
    let first = world.stream.request(Kind::VirtualHost).await;
    assert_eq!(first.resource_names_subscribe, ["table/a.test", "table/b.test"]);
    assert!(first.initial_resource_versions.is_empty(), "what is on disk proves nothing");
    world.push("2", &[host("a.test", "two")], &["table/b.test"]).await;
    world.address = address;
    world.until("a.test", 200, "two").await;
}

#[tokio::test]
async fn hosts_may_come_from_a_server_of_their_own() {
    let one = Origin::http1("one").await;
    let mut server = Management::start().await;
    let proxy = ProxyBuilder::new(dynamic_sotw(server.address)).start().await;
    let mut stream = server.sotw().await;
    let api = json!({
        "api_type": "DELTA_GRPC", "transport_api_version": "V3", "grpc_services": grpc_services(),
    });
    let source = json!({ "api_config_source": api, "resource_api_version": "V3" });
    let table = with(taking("15s"), json!({ "vhds": { "config_source": source } }));
    for (kind, resource) in [
        (Kind::Cluster, static_cluster("one", &[one.address])),
        (Kind::Listener, demanding()),
        (Kind::Routes, table),
    ] {
        stream.request(kind).await;
        stream.respond(sotw(kind, "1", &[resource])).await;
        ack_of(&mut stream, kind, "1").await;
    }
    let mut hosts = server.delta().await;
    assert_eq!(hosts.service, "VHDS");
    hosts.request(Kind::VirtualHost).await;
    hosts.respond(delta(Kind::VirtualHost, "1", &[host("a.test", "one")], &[])).await;
    ack_of(&mut hosts, Kind::VirtualHost, "1").await;
    proxy.until_ready().await;
    assert_eq!(ask(proxy.listener("in").await, "a.test").await.text(), "one");
}
