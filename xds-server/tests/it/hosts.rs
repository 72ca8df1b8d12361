//! Virtual hosts apart from their table: delta only, by their names and domains.

use nuncio::proto::envoy::service::route::v3::virtual_host_discovery_service_client::VirtualHostDiscoveryServiceClient;

use crate::harness::*;

const HOST: &str = "type.googleapis.com/envoy.config.route.v3.VirtualHost";

fn host(name: &str, domains: &str) -> String {
    format!(
        "- name: {name}\n  domains: [{domains}]\n  routes:\n  \
         - {{match: {{prefix: /}}, route: {{cluster: users}}}}\n"
    )
}

/// The usual with a table that takes hosts, and three of them.
fn folder(on_demand: bool) -> Folder {
    let folder = Folder::usual();
    let vhds = "  vhds: {config_source: {ads: {}, resource_api_version: V3}}\n";
    let table = routes("main", "users").replace("'*'", "own.test");
    folder.write("routes.yaml", &format!("routes:\n{table}{vhds}"));
    let hosts =
        [host("main/a.test", "a.test, b.test"), host("main/w", "'*.test'"), host("x/c", "c")];
    folder.write("hosts.yaml", &format!("virtual_hosts:\n{}", hosts.concat()));
    if on_demand {
        let kind = "type.googleapis.com/envoy.extensions.filters.http.on_demand.v3.OnDemand";
        let filter =
            format!("http_filters:\n        - {{name: d, typed_config: {{'@type': {kind}}}}}");
        let listener = listener("front", "main", "front").replace("http_filters:", &filter);
        folder.write("front.yaml", &format!("listeners:\n{listener}"));
    }
    folder
}

#[tokio::test]
async fn hosts_come_at_once_or_when_they_are_asked_for() {
    for on_demand in [false, true] {
        let folder = folder(on_demand);
        let server = Server::start(folder.path()).await;
        let mut talk = served(&server, "a").await;
        talk.send(delta(HOST, &[])).await;
        let first = talk.take(HOST).await;
        let expected: &[&str] =
            if on_demand { &["main/w", "x/c"] } else { &["main/a.test", "main/w", "x/c"] };
        let mut found = names(&first);
        found.sort_unstable();
        assert_eq!(found, expected);
        if !on_demand {
            continue;
        }
        talk.send(delta(HOST, &["main/b.test", "main/none"])).await;
        let asked = talk.take(HOST).await;
        assert_eq!(
            (names(&asked), &asked.removed_resources[..]),
            (vec!["main/a.test"], &["main/none".to_owned()][..])
        );
        assert_eq!(asked.resources[0].aliases, ["main/b.test"]);
        // Again by its other name: a client that forgot it gets it again.
        talk.send(delta(HOST, &["main/a.test"])).await;
        assert_eq!(names(&talk.take(HOST).await), ["main/a.test"]);
        let rest = [host("main/w", "'*.test'"), host("main/none", "none")];
        folder.write("hosts.yaml", &format!("virtual_hosts:\n{}", rest.concat()));
        let changed = talk.take(HOST).await;
        let mut removed = changed.removed_resources.clone();
        removed.sort_unstable();
        assert_eq!(
            (names(&changed), removed),
            (
                vec!["main/none"],
                vec!["main/a.test".to_owned(), "main/b.test".to_owned(), "x/c".to_owned()]
            )
        );
    }
}

#[tokio::test]
async fn hosts_that_a_proxy_would_refuse_are_refused() {
    let folder = folder(false);
    let server = Server::start(folder.path()).await;
    for (hosts, expected) in [
        (host("main/z", "A.test"), "has domain \"a.test\" of virtual host \"main/a.test\""),
        (host("main/z", "own.test"), "has domain \"own.test\" of route table \"main\""),
        (host("nameless", "z"), "must be named ROUTE_CONFIGURATION/HOST"),
    ] {
        let hosts = host("main/a.test", "a.test") + &hosts;
        folder.write("hosts.yaml", &format!("virtual_hosts:\n{hosts}"));
        server
            .status_when(|s| s["groups"][0]["errors"][0]["message"].as_str() == Some(expected))
            .await;
    }
}

#[tokio::test]
async fn there_is_a_service_of_their_own_and_no_state_of_the_world() {
    let folder = folder(false);
    let server = Server::start(folder.path()).await;
    let address = format!("http://{}", server.xds);
    let mut client = VirtualHostDiscoveryServiceClient::connect(address).await.unwrap();
    let requests = tokio_stream::iter([delta("", &[])]);
    let requests = tokio_stream::StreamExt::chain(requests, tokio_stream::pending());
    let mut responses = client.delta_virtual_hosts(requests).await.unwrap().into_inner();
    assert_eq!(names(&responses.message().await.unwrap().unwrap()).len(), 3);
    let mut talk = Sotw::open(&server.xds, "b", sotw(HOST, &["main/a.test"])).await;
    talk.send(sotw(CLUSTER, &[])).await;
    assert_eq!(talk.next().await.type_url, CLUSTER, "nothing is said of hosts");
}
