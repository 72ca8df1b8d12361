//! Requests that wait for their host.

use futures_util::future::join_all;
use nuncio::proto::envoy::service::discovery::v3 as discovery;
use tokio::task::JoinHandle;

use super::*;
use crate::harness::Script;

/// A response of one resource that says more than [`delta`] does.
fn named(name: &str, aliases: &[&str], host: Option<&Value>) -> discovery::DeltaDiscoveryResponse {
    let mut response = delta(Kind::VirtualHost, name, &[], &[]);
    response.resources.push(discovery::Resource {
        name: name.to_owned(),
        version: "1".to_owned(),
        aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
        resource: host.map(|host| crate::harness::resources::any(Kind::VirtualHost, host)),
        ..Default::default()
    });
    response
}

/// Asks until the answer is this: a worker may still serve what is gone.
fn asking(address: SocketAddr, host: &'static str, body: &'static str) -> JoinHandle<()> {
    tokio::spawn(async move { while ask(address, host).await.text() != body {} })
}

#[tokio::test]
async fn many_requests_for_one_host_make_one_subscription() {
    let mut world = World::start("15s", &[]).await;
    world.one.script(Script::echo());
    let address = world.address;
    let requests = (0..20).map(|n| {
        let (method, body) = if n % 2 == 0 { ("GET", "") } else { ("POST", "body") };
        let asked = [("host", "Late.test")];
        tokio::spawn(async move { request(address, method, "/", &asked, body.as_bytes()).await })
    });
    let requests: Vec<_> = requests.collect();
    assert_eq!(world.subscribed().await, ["table/late.test"]);
    world.proxy.until_stat("http.in.downstream_rq_active", 20).await;
    world.push("2", &[host("late.test", "one")], &[]).await;
    for (n, answer) in join_all(requests).await.into_iter().enumerate() {
        let answer = answer.unwrap();
        assert_eq!((answer.status, answer.text().is_empty()), (200, n % 2 == 0));
    }
    assert_eq!(ask(address, "late.test").await.status, 200);
    assert_eq!(world.proxy.stat("http.in.no_route").await, 0);
    assert_eq!(world.proxy.stat("http.in.downstream_rq_total").await, 21);
    assert_eq!(world.push("3", &[], &["table/late.test"]).await, ["table/late.test"]);
    let waiting = asking(address, "late.test", "two");
    assert_eq!(world.subscribed().await, ["table/late.test"]);
    world.push("4", &[host("late.test", "two")], &[]).await;
    waiting.await.unwrap();
}

#[tokio::test]
async fn a_host_may_come_by_another_name() {
    let mut world = World::start("15s", &[]).await;
    let address = world.address;
    let waiting = tokio::spawn(async move { ask(address, "www.test").await.text() });
    assert_eq!(world.subscribed().await, ["table/www.test"]);
    let site = with(host("site", "two"), json!({ "domains": ["www.test", "*.site.test"] }));
    world.stream.respond(named("table/site", &["table/www.test"], Some(&site))).await;
    assert_eq!(waiting.await.unwrap(), "two");
    assert_eq!(ask(address, "x.site.test").await.text(), "two", "nobody had to ask for it");

    // It goes by its own name, and is asked for by the other again.
    world.stream.respond(delta(Kind::VirtualHost, "2", &[], &["table/site"])).await;
    ack_of(&mut world.stream, Kind::VirtualHost, "2").await;
    let waiting = asking(address, "www.test", "one");
    assert_eq!(world.subscribed().await, ["table/www.test"]);
    world.push("3", &[host("www.test", "one")], &[]).await;
    waiting.await.unwrap();
}

#[tokio::test]
async fn a_host_that_is_not_there_is_answered_404_and_let_go() {
    let mut world = World::start("15s", &[]).await;
    let address = world.address;
    let nothing = |version: &str| delta(Kind::VirtualHost, version, &[], &["table/no.test"]);
    let empty = named("table/no.test", &["table/no.test"], None);
    let elsewhere = named("table/x", &["table/no.test"], Some(&host("x.test", "one")));
    for response in [nothing("2"), empty, elsewhere, nothing("3")] {
        let waiting = tokio::spawn(async move { ask(address, "no.test").await.status });
        assert_eq!(world.subscribed().await, ["table/no.test"]);
        world.stream.respond(response).await;
        assert_eq!(waiting.await.unwrap(), 404);
        assert_eq!(world.unsubscribed().await, ["table/no.test"]);
    }
    assert_eq!(ask(address, "known.test").await.status, 200);
    assert_eq!(world.proxy.stat("http.in.no_route").await, 4);
    assert_eq!(world.proxy.stat("http.in.vhds.table.update_rejected").await, 0);
}

#[tokio::test]
async fn a_thousand_hosts_are_asked_for_and_each_is_answered() {
    let mut world = World::start("15s", &[]).await;
    let address = world.address;
    let requests = (0..1000)
        .map(|n| tokio::spawn(async move { ask(address, &format!("h{n}.test")).await.status }));
    let requests: Vec<_> = requests.collect();
    // Every other one is there.
    let (mut asked, mut version) = (0, 1);
    while asked < 1000 {
        let names = world.subscribed().await;
        asked += names.len();
        let number = |name: &str| name["table/h".len()..name.len() - ".test".len()].parse::<u32>();
        let (there, not): (Vec<_>, Vec<_>) =
            names.iter().map(String::as_str).partition(|name| number(name).unwrap() % 2 == 0);
        let hosts: Vec<_> = there.iter().map(|name| host(&name["table/".len()..], "one")).collect();
        version += 1;
        let response = delta(Kind::VirtualHost, &version.to_string(), &hosts, &not);
        world.stream.respond(response).await;
    }
    for (n, status) in join_all(requests).await.into_iter().enumerate() {
        assert_eq!(status.unwrap(), if n % 2 == 0 { 200 } else { 404 }, "h{n}.test");
    }
    world.proxy.until_stat("http.in.vhds.table.config_reload", 500).await;
}
