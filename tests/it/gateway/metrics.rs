//! The documented metrics say what origins and clients counted.

use super::world::World;
use crate::harness::scrape::Scrape;
use crate::harness::{Ending, Http1, Origin, Script, eventually, get, request};

const LISTENER: &str = "in";
/// The connection manager of all listeners of a gateway file.
const PREFIX: &str = "gateway";

/// Waits until the metrics are as somebody else counted.
async fn until(world: &World, what: &str, is_so: impl Fn(&Scrape) -> bool) -> Scrape {
    eventually(what, async || {
        let scrape = Scrape::of(world.proxy()).await;
        is_so(&scrape).then_some(scrape)
    })
    .await
}

async fn started(yaml: &str) -> World {
    let mut world = World::new().await;
    world.write(&format!("{yaml}\n"));
    world.start().await.unwrap();
    world
}

fn instance(address: &str) -> [(&str, &str); 2] {
    [("service", "s"), ("instance", address)]
}

#[tokio::test]
async fn requests_and_their_time_are_what_instances_and_clients_saw() {
    let world = started(
        "services:
- {name: s, strategy: weighted, instances: [{url: $a, weight: 2}, {url: $b}]}
- {name: t, strategy: least_request, instances: [{url: $c}]}
routes: [{prefix: /t, service: t, retries: {attempts: 2, when: [5xx]}}, {service: s}]",
    )
    .await;
    world.origin("b").script(Script::status(503));
    world.origin("c").script(Script::status(500));
    let address = world.proxy().listener(LISTENER).await;
    let (mut ok, mut unavailable) = (0, 0);
    let mut client = Http1::connect(address).await;
    for _ in 0..30 {
        match client.get("/").await.status {
            200 => ok += 1,
            503 => unavailable += 1,
            other => panic!("{other}"),
        }
    }
    assert_eq!(request(address, "PUT", "/t", &[], b"hi").await.status, 500);
    assert_eq!((ok, unavailable), (20, 10));

    let scrape = Scrape::of(world.proxy()).await;
    for (name, service, strategy) in
        [("a", "s", "weighted"), ("b", "s", "weighted"), ("c", "t", "least_request")]
    {
        let origin = world.origin(name);
        let at = origin.address.to_string();
        let labels = [("service", service), ("instance", at.as_str()), ("strategy", strategy)];
        let seen = origin.requests() as u64;
        assert_eq!(scrape.count("gateway_loadbalancer_requests_total", &labels), seen, "{name}");
        let duration = "gateway_loadbalancer_request_duration_seconds";
        assert_eq!(scrape.count(&format!("{duration}_count"), &labels), seen, "{name}");
        let within = |le| {
            let labels = [&labels[..], &[("le", le)]].concat();
            scrape.count(&format!("{duration}_bucket"), &labels)
        };
        assert!(within("0.0005") <= within("0.001") && within("10") <= seen, "{name}");
        assert_eq!(within("+Inf"), seen, "{name}");
        assert!(scrape.value(&format!("{duration}_sum"), &labels) > 0.0, "{name}");
        assert_eq!(scrape.count("gateway_loadbalancer_active_connections", &labels), 0);
        assert_eq!(scrape.count("gateway_loadbalancer_instance_health", &labels), 1);
    }
    // Three tries at one request.
    assert_eq!(world.origin("c").requests(), 3);

    let server = "http_server_request_duration_seconds_count";
    let get = [
        ("http_request_method", "GET"),
        ("network_protocol_version", "1.1"),
        ("url_scheme", "http"),
        ("stat_prefix", PREFIX),
    ];
    let with = |more: &[(&'static str, &'static str)]| [&get[..], more].concat();
    assert_eq!(scrape.count(server, &with(&[("http_response_status_code", "200")])), ok);
    let failed = with(&[("http_response_status_code", "503"), ("error_type", "503")]);
    assert_eq!(scrape.count(server, &failed), unavailable);
    let put = [("http_request_method", "PUT"), ("http_response_status_code", "500")];
    assert_eq!(scrape.count(server, &put), 1);
    let client = "http_client_request_duration_seconds_count";
    let port = world.origin("c").address.port().to_string();
    let to = [("server_address", "127.0.0.1"), ("server_port", port.as_str()), ("service", "t")];
    assert_eq!(scrape.count(client, &[&put[..], &to].concat()), 3);
}

#[tokio::test]
async fn being_watched_takes_little_memory() {
    let world = started("$one").await;
    let address = world.proxy().listener(LISTENER).await;
    assert_eq!(get(address, "/").await.status, 200);
    let before = world.proxy().process.rss();
    for _ in 0..3 {
        let _scrape = Scrape::of(world.proxy()).await;
    }
    let grown = world.proxy().process.rss().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes more for being scraped");
}

#[tokio::test]
async fn connections_are_what_origins_hold() {
    let world = started("$one\nconnection_pool: {}").await;
    let origin = world.origin("a");
    let at = origin.address.to_string();
    let address = world.proxy().listener(LISTENER).await;
    origin.script(Script::held());
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(tokio::spawn(async move { get(address, "/").await.status }));
    }
    origin.until_active(3).await;
    let pool = |scrape: &Scrape| {
        ["total", "active", "idle"].map(|which| {
            scrape.count(&format!("gateway_connection_pool_{which}_connections"), &instance(&at))
        })
    };
    let busy = Scrape::of(world.proxy()).await;
    assert_eq!(pool(&busy), [3, 3, 0]);
    assert_eq!(busy.count("gateway_loadbalancer_active_connections", &instance(&at)), 3);
    assert_eq!(origin.open_connections(), 3);

    origin.release();
    for client in clients {
        assert_eq!(client.await.unwrap(), 200);
    }
    until(&world, "they wait for requests", |scrape| pool(scrape) == [3, 0, 3]).await;
    assert_eq!(origin.open_connections(), 3);

    // An origin that closes its end leaves nothing behind.
    origin.script(Script::default().header("connection", "close"));
    for _ in 0..3 {
        assert_eq!(get(address, "/").await.status, 200);
    }
    until(&world, "all are closed", |scrape| pool(scrape) == [0, 0, 0]).await;
}

#[tokio::test]
async fn streams_of_http2_share_a_connection_that_is_busy_or_idle() {
    use crate::harness::resources::{bootstrap, listener, over_http2, static_cluster, to};
    let origin = Origin::http2("two").await;
    let cluster = over_http2(static_cluster("two", &[origin.address]));
    let proxy =
        crate::harness::Proxy::with(bootstrap(&[listener("in", &[to("two")])], &[cluster])).await;
    let address = proxy.listener("in").await;
    origin.script(Script::held());
    let ask = async || get(address, "/").await.status;
    let asking: Vec<_> =
        (0..3).map(|_| tokio::spawn(async move { get(address, "/").await })).collect();
    origin.until_active(3).await;
    let at = origin.address.to_string();
    let labels = [("service", "two"), ("instance", at.as_str())];
    let counts = async || {
        let scrape = Scrape::of(&proxy).await;
        let streams = scrape.count("gateway_loadbalancer_active_connections", &labels);
        let pool = ["total", "active", "idle"].map(|which| {
            scrape.count(&format!("gateway_connection_pool_{which}_connections"), &labels)
        });
        (streams, pool)
    };
    let open = origin.open_connections();
    assert_eq!(counts().await, (3, [open, open, 0]));
    origin.release();
    for answer in asking {
        assert_eq!(answer.await.unwrap().status, 200);
    }
    eventually("its streams are over", async || {
        (counts().await == (0, [open, 0, open])).then_some(())
    })
    .await;
    origin.script(Script::default());
    assert_eq!(ask().await, 200);
    let scrape = Scrape::of(&proxy).await;
    let http2 = [("network_protocol_version", "2"), ("http_response_status_code", "200")];
    assert_eq!(scrape.count("http_client_request_duration_seconds_count", &http2), 4);
    assert_eq!(
        scrape.count("gateway_loadbalancer_requests_total", &[("strategy", "round_robin")]),
        4
    );
}

#[tokio::test]
async fn connections_that_fail_are_errors_and_those_that_take_long_timeouts() {
    let mut world = started(
        "services:
- {name: s, instances: [{url: $a}]}
- {name: nobody, instances: [{url: 'http://127.0.0.1:$free'}]}
- {name: full, instances: [{url: $full}]}
routes: [{prefix: /nobody, service: nobody}, {prefix: /full, service: full}, {service: s}]
connection_pool: {transport_config: {dial_timeout: 100ms, response_header_timeout: 100ms}}",
    )
    .await;
    let address = world.proxy().listener(LISTENER).await;
    let status = async |path: &str| get(address, path).await.status;
    assert_eq!(status("/nobody").await, 503);
    assert_eq!(status("/full").await, 503);
    world.origin("a").script(Script::held());
    assert_eq!(status("/").await, 504);
    world.origin("a").script(Script::ending(Ending::After(100)));
    let _cut = get_whatever(address).await;
    let scrape = until(&world, "the connection failed under a request", |scrape| {
        let broken = [("service", "s"), ("kind", "broken")];
        scrape.find("gateway_connection_pool_errors_total", &broken) == Some(1.0)
    })
    .await;
    let errors = |service| {
        ["connect", "broken"].map(|kind| {
            let labels = [("service", service), ("kind", kind)];
            scrape.count("gateway_connection_pool_errors_total", &labels)
        })
    };
    let timeouts = |service| {
        ["connect", "response"].map(|kind| {
            let labels = [("service", service), ("kind", kind)];
            scrape.count("gateway_connection_pool_timeouts_total", &labels)
        })
    };
    assert_eq!((errors("nobody"), timeouts("nobody")), ([1, 0], [0, 0]));
    assert_eq!((errors("full"), timeouts("full")), ([0, 0], [1, 0]));
    assert_eq!((errors("s"), timeouts("s")), ([0, 1], [0, 1]));
    // Why there was no response, or not the whole of it.
    let client = "http_client_request_duration_seconds_count";
    assert_eq!(scrape.count(client, &[("service", "s"), ("error_type", "UT")]), 1);
    assert_eq!(scrape.count(client, &[("service", "s"), ("error_type", "UC")]), 1);

    // A client that leaves is no fault of its instance.
    world.origin("a").script(Script::held());
    let mut leaving = Http1::connect(address).await;
    leaving.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    world.origin("a").until_active(1).await;
    drop(leaving);
    let scrape = until(&world, "the client is gone", |scrape| {
        let left = [("error_type", "DC")];
        scrape.find("http_server_request_duration_seconds_count", &left).is_some()
    })
    .await;
    let broken = [("service", "s"), ("kind", "broken")];
    assert_eq!(scrape.count("gateway_connection_pool_errors_total", &broken), 1);
    world.drop_origin("a");
}

/// A request whose answer may break off.
async fn get_whatever(address: std::net::SocketAddr) -> Option<u16> {
    let mut client = Http1::connect(address).await;
    client.try_get("/").await.map(|answer| answer.status)
}

#[tokio::test]
async fn an_instance_that_dies_is_out_and_its_health_0_until_it_is_back() {
    let mut world = started(
        "services: [{name: s, strategy: health_based, instances: [{url: $a}, {url: $b}]}]
routes: [{service: s}]
load_balancer: {health_check: {interval: 100ms, timeout: 50ms, failure_threshold: 2, success_threshold: 1, path: /health}}",
    )
    .await;
    let (a, b) = (world.origin("a").address, world.origin("b").address);
    let (at_a, at_b) = (a.to_string(), b.to_string());
    let health = |scrape: &Scrape| {
        [&at_a, &at_b].map(|at| scrape.find("gateway_loadbalancer_instance_health", &instance(at)))
    };
    until(&world, "both are well", |scrape| health(scrape) == [Some(1.0), Some(1.0)]).await;
    world.drop_origin("a");
    until(&world, "one is not", |scrape| health(scrape) == [Some(0.0), Some(1.0)]).await;
    let address = world.proxy().listener(LISTENER).await;
    for _ in 0..10 {
        assert_eq!(get(address, "/").await.text(), "b");
    }
    world.origins[0] = Some(Origin::at("a", a).await);
    until(&world, "it is back", |scrape| health(scrape) == [Some(1.0), Some(1.0)]).await;
    // What is taken out of the file is taken out of the metrics.
    world.write("services: [{name: s, strategy: health_based, instances: [{url: $b}]}]\nroutes: [{service: s}]\nload_balancer: {}\n");
    until(&world, "it is gone", |scrape| health(scrape)[0].is_none()).await;
}

#[tokio::test]
async fn the_cache_counts_what_origins_were_spared() {
    let world =
        started("$one\ncache: {max_size: 20, invalidation: {patterns: [/3], methods: [POST]}}")
            .await;
    world.origin("a").script(Script::size(1_000).header("cache-control", "max-age=60"));
    let address = world.proxy().listener(LISTENER).await;
    let mut client = Http1::connect(address).await;
    for i in 0..10 {
        for _ in 0..3 {
            assert_eq!(client.get(&format!("/{i}")).await.status, 200);
        }
    }
    let asked = world.origin("a").requests() as u64;
    assert_eq!(asked, 10);
    let scrape = Scrape::of(world.proxy()).await;
    let own = [("stat_prefix", PREFIX)];
    let count = |scrape: &Scrape, what: &str| scrape.count(&format!("gateway_cache_{what}"), &own);
    assert_eq!(count(&scrape, "misses_total"), asked);
    assert_eq!(count(&scrape, "hits_total"), 30 - asked);
    assert_eq!((count(&scrape, "evictions_total"), count(&scrape, "invalidations_total")), (0, 0));
    let size = count(&scrape, "size");
    assert!((10_000..40_000).contains(&size), "{size} bytes of 10 responses of 1,000");

    assert_eq!(request(address, "POST", "/3", &[], b"").await.status, 200);
    for i in 100..200 {
        assert_eq!(client.get(&format!("/{i}")).await.status, 200);
    }
    let scrape = Scrape::of(world.proxy()).await;
    // As RFC 9111 has it, and as the file says.
    for kind in ["request", "pattern"] {
        let labels = [own[0], ("kind", kind)];
        assert_eq!(scrape.count("gateway_cache_invalidations_total", &labels), 1, "{kind}");
    }
    let evicted = count(&scrape, "evictions_total");
    assert!((85..=110).contains(&evicted), "{evicted} of about 110 responses made room");
}
