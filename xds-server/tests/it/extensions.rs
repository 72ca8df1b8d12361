//! Configurations of filters: served by name, at both services and in both variants.

use nuncio::proto::any::unpack;
use nuncio::proto::envoy::config::core::v3::TypedExtensionConfig;
use nuncio::proto::envoy::extensions::filters::http::buffer::v3::Buffer;
use nuncio::proto::envoy::service::extension::v3::extension_config_discovery_service_client::ExtensionConfigDiscoveryServiceClient;
use prost_types::Any;

use crate::harness::*;

const EXTENSION: &str = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig";
const BUFFER: &str = "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer";

fn extension(most: u32) -> String {
    format!(
        "extensions:\n- name: policy\n  typed_config:\n    '@type': {BUFFER}\n    \
         max_request_bytes: {most}\n"
    )
}

/// The usual, and a filter of the listener's that is discovered.
fn folder() -> Folder {
    let folder = Folder::usual();
    let filter = format!(
        "http_filters:
        - name: policy
          config_discovery:
            config_source: {{ads: {{}}, resource_api_version: V3}}
            type_urls: ['{BUFFER}']"
    );
    let listener = listener("front", "main", "front").replace("http_filters:", &filter);
    folder.write("front.yaml", &format!("listeners:\n{listener}"));
    folder.write("extensions.yaml", &extension(1));
    folder
}

/// The limit in a resource.
fn limit(any: &Any) -> u32 {
    let TypedExtensionConfig { name, typed_config } = unpack(any).unwrap();
    assert_eq!(name, "policy");
    unpack::<Buffer>(&typed_config.unwrap()).unwrap().max_request_bytes.unwrap()
}

#[tokio::test]
async fn an_edit_reaches_the_proxies_of_either_variant_and_a_bad_one_does_not() {
    let folder = folder();
    let server = Server::start(folder.path()).await;
    let mut delta_talk = served(&server, "a").await;
    delta_talk.send(delta(EXTENSION, &["policy", "none"])).await;
    let first = delta_talk.take(EXTENSION).await;
    assert_eq!(
        (names(&first), &first.removed_resources),
        (vec!["policy"], &vec!["none".to_owned()])
    );
    assert_eq!(limit(first.resources[0].resource.as_ref().unwrap()), 1);
    let mut sotw_talk = Sotw::open(&server.xds, "b", sotw(EXTENSION, &["policy"])).await;
    let first = sotw_talk.next().await;
    assert_eq!(limit(&first.resources[0]), 1);
    sotw_talk.ack(&first, &["policy"]).await;

    folder.write("extensions.yaml", &extension(0));
    let status =
        server.status_when(|s| !s["groups"][0]["errors"].as_array().unwrap().is_empty()).await;
    let problem = &status["groups"][0]["errors"][0];
    assert_eq!(problem["resource"], "TypedExtensionConfig \"policy\"");
    assert_eq!(
        (&problem["field"], problem["line"].as_u64()),
        (&"typed_config.max_request_bytes".into(), Some(5))
    );
    folder.write("extensions.yaml", &extension(3));
    let changed = delta_talk.take(EXTENSION).await;
    assert_eq!(limit(changed.resources[0].resource.as_ref().unwrap()), 3);
    assert_eq!(limit(&sotw_talk.next().await.resources[0]), 3);
}

#[tokio::test]
async fn a_removal_is_sent_once_no_listener_names_it() {
    let folder = folder();
    let server = Server::start(folder.path()).await;
    let mut talk = served(&server, "a").await;
    talk.send(delta(EXTENSION, &["policy"])).await;
    talk.take(EXTENSION).await;
    folder.write("extensions.yaml", "extensions: []\n");
    let status =
        server.status_when(|s| !s["groups"][0]["errors"].as_array().unwrap().is_empty()).await;
    let message = status["groups"][0]["errors"][0]["message"].as_str().unwrap();
    assert_eq!(message, "names extension \"policy\", which is not in the set");
    folder.write("front.yaml", &format!("listeners:\n{}", listener("front", "main", "front")));
    assert_eq!(names(&talk.take(LISTENER).await), ["front"]);
    assert_eq!(talk.take(EXTENSION).await.removed_resources, ["policy"]);
}

#[tokio::test]
async fn it_has_a_service_of_its_own() {
    let folder = folder();
    let server = Server::start(folder.path()).await;
    let address = format!("http://{}", server.xds);
    let mut client = ExtensionConfigDiscoveryServiceClient::connect(address).await.unwrap();
    let requests = tokio_stream::iter([delta("", &["policy"])]);
    let requests = tokio_stream::StreamExt::chain(requests, tokio_stream::pending());
    let mut responses = client.delta_extension_configs(requests).await.unwrap().into_inner();
    assert_eq!(names(&responses.message().await.unwrap().unwrap()), ["policy"]);
    let requests = tokio_stream::iter([sotw("", &["policy"])]);
    let requests = tokio_stream::StreamExt::chain(requests, tokio_stream::pending());
    let mut responses = client.stream_extension_configs(requests).await.unwrap().into_inner();
    assert_eq!(limit(&responses.message().await.unwrap().unwrap().resources[0]), 1);
}
