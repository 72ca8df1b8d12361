//! The project's own management server, which sends what is asked for.

use super::*;
use crate::harness::resources::dynamic_delta;
use crate::harness::{Plane, get};

fn resources(origins: &[&Origin; 2], listener: Value) -> Vec<(Kind, Value)> {
    let wide = with(host("wide", "two"), json!({ "domains": ["*.wide.test"] }));
    let site = with(host("site", "one"), json!({ "domains": ["site.test", "www.site.test"] }));
    vec![
        (Kind::Cluster, static_cluster("one", &[origins[0].address])),
        (Kind::Cluster, static_cluster("two", &[origins[1].address])),
        (Kind::Listener, listener),
        (Kind::Routes, taking("15s")),
        (Kind::VirtualHost, host("a.test", "one")),
        (Kind::VirtualHost, site),
        (Kind::VirtualHost, wide),
    ]
}

/// Names of the virtual hosts that the proxy holds.
async fn held(proxy: &Proxy) -> Vec<String> {
    let dump = proxy.admin_json("/config_dump?resource=dynamic_route_configs").await;
    let hosts = dump["configs"][0]["route_config"]["virtual_hosts"].as_array().unwrap().clone();
    hosts.iter().map(|host| host["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn hosts_are_sent_when_a_request_needs_them() {
    let (one, two) = (Origin::http1("one").await, Origin::http1("two").await);
    let mut plane = Plane::start(&resources(&[&one, &two], demanding())).await;
    let proxy = ProxyBuilder::new(dynamic_delta(plane.address)).ready().await;
    let address = proxy.listener("in").await;
    assert_eq!(held(&proxy).await, ["all", "table/wide"], "nobody would ask for it by name");
    assert_eq!(ask(address, "x.wide.test").await.text(), "two");
    assert_eq!(ask(address, "www.site.test").await.text(), "one", "by one of its domains");
    assert_eq!(ask(address, "site.test").await.text(), "one");
    assert_eq!(ask(address, "no.test").await.status, 404);
    assert_eq!(held(&proxy).await, ["all", "table/site", "table/wide"]);

    // What was asked for is followed, and nothing else.
    let site = with(host("site", "two"), json!({ "domains": ["www.site.test"] }));
    plane.update(Kind::VirtualHost, &site);
    plane.update(Kind::VirtualHost, &host("a.test", "two"));
    plane.update(Kind::VirtualHost, &host("no.test", "two"));
    eventually("the change is here", async || {
        (ask(address, "www.site.test").await.text() == "two").then_some(())
    })
    .await;
    assert_eq!(held(&proxy).await, ["all", "table/site", "table/wide"]);
    assert_eq!(ask(address, "no.test").await.text(), "two", "it is asked for anew");
    plane.remove(Kind::VirtualHost, "table/site");
    eventually("the host is gone", async || {
        (ask(address, "www.site.test").await.status == 404).then_some(())
    })
    .await;

    // A server that comes again finds out what the proxy has, and still has it change.
    plane.kill();
    plane.update(Kind::VirtualHost, &host("no.test", "one"));
    let waiting = tokio::spawn(async move { ask(address, "a.test").await.text() });
    assert_eq!(ask(address, "no.test").await.text(), "two");
    plane.restart().await;
    assert_eq!(waiting.await.unwrap(), "two");
    eventually("the change is here", async || {
        (ask(address, "no.test").await.text() == "one").then_some(())
    })
    .await;
    plane.until_settled().await;
}

#[tokio::test]
async fn hosts_of_a_listener_that_does_not_ask_are_sent_at_once() {
    let (one, two) = (Origin::http1("one").await, Origin::http1("two").await);
    let listener = listener_of("in", hcm(rds("table"), json!({})));
    let plane = Plane::start(&resources(&[&one, &two], listener)).await;
    let proxy = ProxyBuilder::new(dynamic_delta(plane.address)).ready().await;
    let address = proxy.listener("in").await;
    assert_eq!(held(&proxy).await, ["all", "table/a.test", "table/site", "table/wide"]);
    assert_eq!(ask(address, "a.test").await.text(), "one");
    assert_eq!(ask(address, "no.test").await.status, 404);
    plane.remove(Kind::VirtualHost, "table/a.test");
    plane.update(Kind::VirtualHost, &host("new.test", "two"));
    eventually("the changes are here", async || {
        let (old, new) = (ask(address, "a.test").await, ask(address, "new.test").await);
        (old.status == 404 && new.text() == "two").then_some(())
    })
    .await;
    // A set in which two hosts have one domain is not served at all.
    let again = with(host("again", "one"), json!({ "domains": ["NEW.test"] }));
    plane.update(Kind::VirtualHost, &again);
    let problem = eventually("it is refused", async || {
        let status = plane.status();
        status.groups[0].errors.first().map(|error| error.message.clone())
    });
    let expected = "has domain \"new.test\" of virtual host \"table/again\"";
    assert_eq!(problem.await, expected);
    assert_eq!(ask(address, "new.test").await.text(), "two");
    assert_eq!(get(address, "/").await.status, 404);
}
