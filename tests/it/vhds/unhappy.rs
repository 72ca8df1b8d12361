//! What goes wrong: bad hosts, a server that is silent or gone, more questions than are asked.

use futures_util::future::join_all;

use super::*;
use crate::harness::{get, nack_of};

#[tokio::test]
async fn a_bad_host_leaves_the_others_as_they_are() {
    let mut world = World::start("15s", &[host("a.test", "one")]).await;
    let address = world.address;
    let waiting = tokio::spawn(async move { ask(address, "bad.test").await.status });
    assert_eq!(world.subscribed().await, ["table/bad.test"]);
    let bad = with(
        host("bad.test", "one"),
        json!({ "routes": [with(to("one"), json!({ "match": { "safe_regex": { "regex": "(" } } }))] }),
    );
    let taken = with(host("taken.test", "two"), json!({ "domains": ["taken.test", "A.test"] }));
    let own = with(host("own.test", "two"), json!({ "domains": ["known.test"] }));
    let hosts = [host("b.test", "two"), bad, taken, own];
    world.stream.respond(delta(Kind::VirtualHost, "2", &hosts, &[])).await;
    let (_, text) = nack_of(&mut world.stream, Kind::VirtualHost, "2").await;
    for expected in [
        "VirtualHost \"table/bad.test\": routes[0].match",
        "VirtualHost \"table/taken.test\": domains[1]: \"a.test\"",
        "VirtualHost \"table/own.test\": domains[0]: \"known.test\"",
    ] {
        assert!(text.contains(expected), "{text}");
    }
    assert!(!text.contains("b.test\": d"), "{text}");
    assert_eq!(waiting.await.unwrap(), 404, "nothing better is on its way");
    for (host, body) in [("a.test", "one"), ("b.test", "two"), ("known.test", "one")] {
        assert_eq!(ask(address, host).await.text(), body, "{host}");
    }
    assert_eq!(world.proxy.stat("http.in.vhds.table.update_rejected").await, 1);
    let dump = world.proxy.admin_json("/config_dump?resource=dynamic_route_configs").await;
    let error = dump["configs"][0]["error_state"]["details"].as_str().unwrap().to_owned();
    assert!(error.contains("table/bad.test"), "{error}");

    // A domain moves from one host to another within one response.
    let a = with(host("a.test", "two"), json!({ "domains": ["other.test"] }));
    let taken = with(host("taken.test", "two"), json!({ "domains": ["taken.test", "a.test"] }));
    world.push("3", &[taken, a], &[]).await;
    world.until("a.test", 200, "two").await;
    assert_eq!(ask(address, "other.test").await.text(), "two");

    // A name that says no table.
    let nameless = json!({ "name": "nameless", "domains": ["n"], "routes": [to("one")] });
    world.stream.respond(delta(Kind::VirtualHost, "4", &[nameless], &[])).await;
    let (_, text) = nack_of(&mut world.stream, Kind::VirtualHost, "4").await;
    assert!(text.contains("must be named ROUTE_CONFIGURATION/HOST"), "{text}");
}

#[tokio::test]
async fn a_server_that_says_nothing_is_not_waited_for_long() {
    let (server, mut stream, proxy, [one, two]) = World::unanswered("0.5s", &[]).await;
    // Not even its first answer is.
    proxy.until_ready().await;
    let address = proxy.listener("in").await;
    assert_eq!(proxy.stat("http.in.vhds.table.init_fetch_timeout").await, 1);
    assert_eq!(ask(address, "known.test").await.status, 200);
    let start = tokio::time::Instant::now();
    assert_eq!(ask(address, "late.test").await.status, 404);
    assert!(start.elapsed() >= std::time::Duration::from_millis(500));
    let asked = stream.request(Kind::VirtualHost).await;
    assert_eq!(asked.resource_names_subscribe, ["table/late.test"]);
    let mut world = World { one, two, server, stream, proxy, address };
    assert_eq!(world.unsubscribed().await, ["table/late.test"]);
    // An answer that comes too late is for the next.
    world.push("1", &[host("late.test", "two")], &[]).await;
    world.until("late.test", 200, "two").await;
}

#[tokio::test]
async fn a_request_outlives_the_server_it_waits_for() {
    let mut world = World::start("15s", &[host("a.test", "one")]).await;
    let address = world.address;
    let waiting = tokio::spawn(async move { ask(address, "late.test").await.text() });
    assert_eq!(world.subscribed().await, ["table/late.test"]);
    let place = world.server.address;
    drop(world.server);
    world.server = Management::at(place).await;
    world.stream = world.server.delta().await;
    let first = world.stream.request(Kind::VirtualHost).await;
    assert_eq!(first.resource_names_subscribe, ["table/late.test"]);
    let held: Vec<_> = first.initial_resource_versions.keys().collect();
    assert_eq!(held, ["table/a.test"]);
    assert_eq!(ask(address, "a.test").await.text(), "one");
    world.push("2", &[host("late.test", "two")], &[]).await;
    assert_eq!(waiting.await.unwrap(), "two");
}

#[tokio::test]
async fn a_client_that_leaves_does_not_spoil_the_wait_of_others() {
    let mut world = World::start("15s", &[]).await;
    let address = world.address;
    let mut leaving = crate::harness::Http1::connect(address).await;
    leaving.send("GET / HTTP/1.1\r\nhost: late.test\r\n\r\n").await;
    assert_eq!(world.subscribed().await, ["table/late.test"]);
    let waiting = tokio::spawn(async move { ask(address, "late.test").await.text() });
    world.proxy.until_stat("http.in.downstream_rq_active", 2).await;
    drop(leaving);
    world.proxy.until_stat("http.in.downstream_rq_active", 1).await;
    world.push("2", &[host("late.test", "two")], &[]).await;
    assert_eq!(waiting.await.unwrap(), "two");
}

#[tokio::test]
async fn a_host_comes_and_goes_while_requests_flow() {
    let mut world = World::start("15s", &[host("a.test", "one")]).await;
    let address = world.address;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let flow = |host: &'static str| {
        let stopped = stopped.clone();
        tokio::spawn(async move {
            let mut statuses = Vec::new();
            while !*stopped.borrow() {
                statuses.push(ask(address, host).await.status);
            }
            statuses
        })
    };
    let flows = [flow("known.test"), flow("a.test"), flow("a.test")];
    for n in 0..20 {
        let (gone, again) = (format!("gone-{n}"), format!("again-{n}"));
        world.push(&gone, &[], &["table/a.test"]).await;
        world.push(&again, &[host("a.test", "one")], &[]).await;
    }
    world.until("a.test", 200, "one").await;
    stop.send(true).unwrap();
    for (n, statuses) in join_all(flows).await.into_iter().enumerate() {
        let statuses = statuses.unwrap();
        let is_right = |status: &u16| *status == 200 || n > 0 && *status == 404;
        assert!(!statuses.is_empty() && statuses.iter().all(is_right), "{statuses:?}");
    }
}

#[tokio::test]
async fn no_more_hosts_are_waited_for_than_a_thousand_or_so() {
    const MOST: usize = 1024;
    let mut world = World::start("0s", &[]).await;
    let address = world.address;
    let ask =
        |n: usize| tokio::spawn(async move { ask(address, &format!("h{n}.test")).await.status });
    let waiting: Vec<_> = (0..MOST).map(ask).collect();
    let mut asked = Vec::new();
    while asked.len() < MOST {
        asked.extend(world.subscribed().await);
    }
    // Nobody answers, and nobody else is asked for.
    for n in MOST..MOST + 50 {
        assert_eq!(ask(n).await.unwrap(), 404);
    }
    assert_eq!(super::ask(address, "known.test").await.status, 200);
    let names: Vec<_> = asked.iter().map(String::as_str).collect();
    world.stream.respond(delta(Kind::VirtualHost, "2", &[], &names)).await;
    for status in join_all(waiting).await {
        assert_eq!(status.unwrap(), 404);
    }
    let next = ask(MOST);
    assert_eq!(world.subscribed().await, [format!("table/h{MOST}.test")]);
    world
        .stream
        .respond(delta(Kind::VirtualHost, "3", &[host(&format!("h{MOST}.test"), "one")], &[]))
        .await;
    assert_eq!(next.await.unwrap(), 200);
}

#[tokio::test]
async fn a_table_may_not_take_hosts_where_there_are_none_to_have() {
    let one = Origin::http1("one").await;
    let mut server = Management::start().await;
    let proxy = ProxyBuilder::new(dynamic_sotw(server.address)).start().await;
    let mut stream = server.sotw().await;
    for (kind, resource) in
        [(Kind::Cluster, static_cluster("one", &[one.address])), (Kind::Listener, demanding())]
    {
        stream.request(kind).await;
        stream.respond(sotw(kind, "1", &[resource])).await;
        ack_of(&mut stream, kind, "1").await;
    }
    stream.request(Kind::Routes).await;
    stream.respond(sotw(Kind::Routes, "1", &[taking("15s")])).await;
    let (_, text) = nack_of(&mut stream, Kind::Routes, "1").await;
    assert!(text.contains("vhds.config_source.ads: virtual hosts come over delta only"), "{text}");
    let file = json!({ "path_config_source": { "path": "/hosts.yaml" } });
    let table = with(taking("15s"), json!({ "vhds": { "config_source": file } }));
    stream.respond(sotw(Kind::Routes, "2", &[table])).await;
    let (_, text) = nack_of(&mut stream, Kind::Routes, "2").await;
    assert!(text.contains("vhds.config_source.path_config_source: "), "{text}");

    // Without it the table serves; the filter has nothing to ask for.
    stream.respond(sotw(Kind::Routes, "3", &[table_of_all()])).await;
    ack_of(&mut stream, Kind::Routes, "3").await;
    proxy.until_ready().await;
    let address = proxy.listener("in").await;
    // The listener serves since the table was refused, without one; workers take it up after the ACK.
    eventually("it serves", async || (get(address, "/").await.text() == "one").then_some(())).await;

    let table = listener_of("own", hcm(json!({ "route_config": taking("15s") }), json!({})));
    stream.respond(sotw(Kind::Listener, "2", &[demanding(), table])).await;
    let (_, text) = nack_of(&mut stream, Kind::Listener, "2").await;
    assert!(text.contains("route_config.vhds: "), "{text}");
}

fn table_of_all() -> Value {
    table("table", &[to("one")])
}
