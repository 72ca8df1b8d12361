//! The protocol over real sockets: order, services, clients that do not behave.

use nuncio::proto::envoy::service::endpoint::v3::endpoint_discovery_service_client::EndpointDiscoveryServiceClient;

use crate::harness::*;

/// Replaces cluster `users` by `people`, with everything that refers to it.
fn replace(folder: &Folder) {
    let all = format!(
        "clusters:\n{}endpoints:\n{}listeners:\n{}routes:\n{}",
        cluster("people"),
        endpoints("people", 2),
        listener("front", "main", "changed"),
        routes("main", "people")
    );
    folder.write("all.yaml", &all);
}

#[tokio::test]
async fn delta_clusters_are_made_before_routes_and_broken_after() {
    let one = Folder::usual();
    let folder = Folder::new(&[]);
    let text = |name: &str| std::fs::read_to_string(one.path().join(name)).unwrap();
    let all = ["clusters.yaml", "endpoints.yaml", "front.yaml", "routes.yaml"].map(text);
    folder.write("all.yaml", &all.concat());
    let server = Server::start(folder.path()).await;
    let mut talk = served(&server, "a").await;
    replace(&folder);
    let made = talk.take(CLUSTER).await;
    assert_eq!((names(&made), made.removed_resources.len()), (vec!["people"], 0));
    talk.send(delta(ENDPOINT, &["people"])).await;
    assert_eq!(names(&talk.take(ENDPOINT).await), ["people"]);
    assert_eq!(names(&talk.take(LISTENER).await), ["front"]);
    assert_eq!(names(&talk.take(ROUTE).await), ["main"]);
    let broken = talk.take(CLUSTER).await;
    assert_eq!((names(&broken).len(), broken.removed_resources), (0, vec!["users".to_owned()]));
    assert_eq!(talk.take(ENDPOINT).await.removed_resources, ["users"]);
}

#[tokio::test]
async fn sotw_clusters_are_made_before_routes_and_broken_after() {
    let one = Folder::usual();
    let folder = Folder::new(&[]);
    let text = |name: &str| std::fs::read_to_string(one.path().join(name)).unwrap();
    let all = ["clusters.yaml", "endpoints.yaml", "front.yaml", "routes.yaml"].map(text);
    folder.write("all.yaml", &all.concat());
    let server = Server::start(folder.path()).await;
    let mut talk = Sotw::open(&server.xds, "a", sotw(CLUSTER, &[])).await;
    for (ty, names) in
        [(CLUSTER, vec![]), (ENDPOINT, vec!["users"]), (LISTENER, vec![]), (ROUTE, vec!["main"])]
    {
        if ty != CLUSTER {
            talk.send(sotw(ty, &names)).await;
        }
        let response = talk.next().await;
        assert_eq!(response.type_url, ty);
        talk.ack(&response, &names).await;
    }
    replace(&folder);
    let made = talk.next().await;
    assert_eq!((made.type_url.as_str(), made.resources.len()), (CLUSTER, 2));
    talk.ack(&made, &[]).await;
    talk.send(sotw(ENDPOINT, &["users", "people"])).await;
    let endpoints = talk.next().await;
    assert_eq!((endpoints.type_url.as_str(), endpoints.resources.len()), (ENDPOINT, 1));
    talk.ack(&endpoints, &["users", "people"]).await;
    for (ty, names) in [(LISTENER, vec![]), (ROUTE, vec!["main"])] {
        let response = talk.next().await;
        assert_eq!((response.type_url.as_str(), response.resources.len()), (ty, 1));
        talk.ack(&response, &names).await;
    }
    let broken = talk.next().await;
    assert_eq!((broken.type_url.as_str(), broken.resources.len()), (CLUSTER, 1));
    assert_ne!(made.version_info, broken.version_info);
}

#[tokio::test]
async fn a_reconnected_delta_client_is_sent_the_difference() {
    let folder = Folder::usual();
    let mut server = Server::start(folder.path()).await;
    let mut talk = Delta::open(&server.xds, "a", delta(CLUSTER, &[])).await;
    let version = talk.take(CLUSTER).await.resources[0].version.clone();
    assert!(server.terminate().success(), "ends well with a stream open");

    let server = Server::start(folder.path()).await;
    let mut first = delta(CLUSTER, &[]);
    first.initial_resource_versions =
        [("users".to_owned(), version), ("gone".to_owned(), "1".to_owned())].into();
    let mut talk = Delta::open(&server.xds, "a", first).await;
    let response = talk.take(CLUSTER).await;
    assert_eq!((names(&response).len(), response.removed_resources), (0, vec!["gone".to_owned()]));
}

#[tokio::test]
async fn a_client_that_never_answers_holds_up_nobody() {
    let folder = Folder::usual();
    let server = Server::start(folder.path()).await;
    let mut stuck = Delta::open(&server.xds, "stuck", delta(ENDPOINT, &["users"])).await;
    stuck.next().await;
    let mut talk = served(&server, "a").await;
    for port in 2..6 {
        folder.write("endpoints.yaml", &format!("endpoints:\n{}", endpoints("users", port)));
        talk.take(ENDPOINT).await;
    }
}

#[tokio::test]
async fn each_type_has_a_service_of_its_own() {
    let folder = Folder::usual();
    let server = Server::start(folder.path()).await;
    let mut client =
        EndpointDiscoveryServiceClient::connect(format!("http://{}", server.xds)).await.unwrap();
    // A service that has one type needs no type URL.
    let requests = tokio_stream::iter([delta("", &["users", "none"])]);
    let requests = tokio_stream::StreamExt::chain(requests, tokio_stream::pending());
    let mut responses = client.delta_endpoints(requests).await.unwrap().into_inner();
    let response = responses.message().await.unwrap().unwrap();
    assert_eq!(names(&response), ["users"]);
    assert_eq!(response.removed_resources, ["none"]);

    let requests = tokio_stream::iter([sotw(CLUSTER, &["users"])]);
    let mut responses = client.stream_endpoints(requests).await.unwrap().into_inner();
    let status = responses.message().await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
}

#[tokio::test]
async fn an_aggregated_request_must_name_its_type() {
    let folder = Folder::usual();
    let server = Server::start(folder.path()).await;
    let mut talk = Sotw::open(&server.xds, "a", sotw("", &[])).await;
    let status = talk.result().await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    // A type that is not served is not answered and disturbs nothing.
    let mut talk = Sotw::open(&server.xds, "a", sotw("type.googleapis.com/x.Y", &[])).await;
    talk.send(sotw(CLUSTER, &[])).await;
    assert_eq!(talk.next().await.type_url, CLUSTER);
}
