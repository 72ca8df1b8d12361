//! The binary in a folder of its own, a client that speaks only what a test says, and waiting.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nuncio::proto::envoy::config::core::v3::Node;
use nuncio::proto::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use nuncio::proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use nuncio::proto::google::rpc::Status;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// Nothing that is waited for takes nearly as long, and nothing waits as long once it has happened.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
pub(crate) const ENDPOINT: &str =
    "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
pub(crate) const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
pub(crate) const ROUTE: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";

pub(crate) fn cluster(name: &str) -> String {
    format!(
        "- name: {name}\n  type: EDS\n  connect_timeout: 1s\n  eds_cluster_config:\n    \
         eds_config: {{ads: {{}}, resource_api_version: V3}}\n"
    )
}

pub(crate) fn endpoints(name: &str, port: u16) -> String {
    format!(
        "- cluster_name: {name}\n  endpoints:\n  - lb_endpoints:\n    - endpoint:\n        address:\n          \
         socket_address: {{address: 127.0.0.1, port_value: {port}}}\n"
    )
}

pub(crate) fn listener(name: &str, routes: &str, prefix: &str) -> String {
    let network = "type.googleapis.com/envoy.extensions.filters.network";
    let http = "type.googleapis.com/envoy.extensions.filters.http";
    format!(
        "- name: {name}
  address: {{socket_address: {{address: 127.0.0.1, port_value: 10000}}}}
  filter_chains:
  - filters:
    - name: hcm
      typed_config:
        '@type': {network}.http_connection_manager.v3.HttpConnectionManager
        stat_prefix: {prefix}
        rds: {{route_config_name: {routes}, config_source: {{ads: {{}}, resource_api_version: V3}}}}
        http_filters:
        - {{name: router, typed_config: {{'@type': {http}.router.v3.Router}}}}
"
    )
}

pub(crate) fn routes(name: &str, cluster: &str) -> String {
    format!(
        "- name: {name}\n  virtual_hosts:\n  - name: all\n    domains: ['*']\n    routes:\n    \
         - {{match: {{prefix: /}}, route: {{cluster: {cluster}}}}}\n"
    )
}

/// A folder of resource files.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        files.iter().for_each(|(name, text)| folder.write(name, text));
        folder
    }

    /// One cluster with its endpoint, one listener with its routes.
    pub(crate) fn usual() -> Self {
        let folder = Self::new(&[]);
        folder.write("clusters.yaml", &format!("clusters:\n{}", cluster("users")));
        folder.write("endpoints.yaml", &format!("endpoints:\n{}", endpoints("users", 1)));
        let listener = listener("front", "main", "front");
        folder.write("front.yaml", &format!("listeners:\n{listener}"));
        folder.write("routes.yaml", &format!("routes:\n{}", routes("main", "users")));
        folder
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Replaces a file as editors and deployment tools do: written aside, then renamed.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let file = self.path().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        let aside = file.with_extension("aside");
        fs::write(&aside, text).unwrap();
        fs::rename(aside, file).unwrap();
    }
}

/// The running binary; killed when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) xds: String,
    pub(crate) status: String,
    /// Of the API, if it has one.
    pub(crate) api: Option<String>,
    _scratch: TempDir,
}

pub(crate) fn binary() -> Command {
    Command::new(env!("CARGO_BIN_EXE_xds-server"))
}

impl Server {
    pub(crate) async fn start(config: &Path) -> Self {
        Self::start_with(config, &[]).await
    }

    pub(crate) async fn start_with(config: &Path, more: &[&str]) -> Self {
        Self::start_from("--config", config, more).await
    }

    /// With a file or folder under one of the options that take one.
    pub(crate) async fn start_from(option: &str, path: &Path, more: &[&str]) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("addresses");
        let child = binary()
            .arg(option)
            .arg(path)
            .args(["--listen", "127.0.0.1:0", "--status", "127.0.0.1:0", "--address-file"])
            .arg(&file)
            .args(more)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let text = eventually(async || fs::read_to_string(&file).ok()).await;
        let find = |key: &str| {
            Some(text.lines().find_map(|line| line.strip_prefix(key))?.trim().to_owned())
        };
        let address = |key: &str| find(key).unwrap();
        let (xds, status, api) = (address("xds"), address("status"), find("api"));
        Self { child, xds, status, api, _scratch: scratch }
    }

    /// A document of the status API.
    pub(crate) async fn get(&self, path: &str) -> serde_json::Value {
        let (status, body) = self.fetch("GET", path).await;
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    pub(crate) async fn fetch(&self, method: &str, path: &str) -> (u16, String) {
        fetch(&self.status, &format!("{method} {path}"), "", "").await
    }

    /// The status document once `check` accepts it.
    pub(crate) async fn status_when(
        &self,
        check: impl Fn(&serde_json::Value) -> bool,
    ) -> serde_json::Value {
        eventually(async || Some(self.get("/status").await).filter(&check)).await
    }

    pub(crate) fn terminate(&mut self) -> std::process::ExitStatus {
        Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        self.child.wait().unwrap()
    }
}

/// One request on a connection of its own: method and path, further header lines, a body.
pub(crate) async fn fetch(address: &str, line: &str, headers: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}");
    let request = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the binary where it is expected to end by itself.
pub(crate) fn run_to_end(config: PathBuf) -> Output {
    let addresses = ["--listen", "127.0.0.1:0", "--status", "127.0.0.1:0"];
    binary().arg("--config").arg(config).args(addresses).output().unwrap()
}

/// Tries until there is an answer.
pub(crate) async fn eventually<T>(mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    loop {
        ticks.tick().await;
        if let Some(found) = probe().await {
            return found;
        }
        assert!(Instant::now() < deadline, "it never happened");
    }
}

/// One stream of either variant.
pub(crate) struct Talk<Q, R> {
    requests: mpsc::Sender<Q>,
    responses: Streaming<R>,
}

pub(crate) type Sotw = Talk<DiscoveryRequest, DiscoveryResponse>;
pub(crate) type Delta = Talk<DeltaDiscoveryRequest, DeltaDiscoveryResponse>;

fn node(id: &str) -> Option<Node> {
    Some(Node {
        id: id.to_owned(),
        cluster: "edge".to_owned(),
        user_agent_name: "bare".to_owned(),
        ..Node::default()
    })
}

pub(crate) async fn client(
    address: &str,
) -> AggregatedDiscoveryServiceClient<tonic::transport::Channel> {
    AggregatedDiscoveryServiceClient::connect(format!("http://{address}")).await.unwrap()
}

impl<Q, R> Talk<Q, R> {
    pub(crate) async fn send(&self, request: Q) {
        self.requests.send(request).await.unwrap();
    }

    pub(crate) async fn next(&mut self) -> R {
        self.result().await.unwrap().unwrap()
    }

    pub(crate) async fn result(&mut self) -> Result<Option<R>, tonic::Status> {
        timeout(PATIENCE, self.responses.message()).await.unwrap()
    }
}

impl Sotw {
    /// Opens an aggregated stream; the first request names the node.
    pub(crate) async fn open(address: &str, id: &str, mut first: DiscoveryRequest) -> Self {
        first.node = node(id);
        let (requests, receiver) = mpsc::channel(16);
        requests.send(first).await.unwrap();
        let stream = ReceiverStream::new(receiver);
        let responses =
            client(address).await.stream_aggregated_resources(stream).await.unwrap().into_inner();
        Self { requests, responses }
    }

    pub(crate) async fn ack(&self, response: &DiscoveryResponse, names: &[&str]) {
        let mut request = sotw(&response.type_url, names);
        request.version_info.clone_from(&response.version_info);
        request.response_nonce.clone_from(&response.nonce);
        self.send(request).await;
    }
}

impl Delta {
    pub(crate) async fn open(address: &str, id: &str, mut first: DeltaDiscoveryRequest) -> Self {
        first.node = node(id);
        let (requests, receiver) = mpsc::channel(16);
        requests.send(first).await.unwrap();
        let stream = ReceiverStream::new(receiver);
        let responses =
            client(address).await.delta_aggregated_resources(stream).await.unwrap().into_inner();
        Self { requests, responses }
    }

    pub(crate) async fn ack(&self, response: &DeltaDiscoveryResponse) {
        self.answer(response, None).await;
    }

    pub(crate) async fn nack(&self, response: &DeltaDiscoveryResponse, message: &str) {
        let message = message.to_owned();
        self.answer(response, Some(Status { code: 3, message, ..Status::default() })).await;
    }

    async fn answer(&self, response: &DeltaDiscoveryResponse, error_detail: Option<Status>) {
        self.send(DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            error_detail,
            ..Default::default()
        })
        .await;
    }

    /// The next response, which must be of this type, accepted.
    pub(crate) async fn take(&mut self, type_url: &str) -> DeltaDiscoveryResponse {
        let response = self.next().await;
        assert_eq!(response.type_url, type_url, "{:?}", names(&response));
        self.ack(&response).await;
        response
    }
}

pub(crate) fn sotw(type_url: &str, names: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest {
        type_url: type_url.to_owned(),
        resource_names: names.iter().map(|n| (*n).to_owned()).collect(),
        ..Default::default()
    }
}

pub(crate) fn delta(type_url: &str, subscribe: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: type_url.to_owned(),
        resource_names_subscribe: subscribe.iter().map(|n| (*n).to_owned()).collect(),
        ..Default::default()
    }
}

pub(crate) fn names(response: &DeltaDiscoveryResponse) -> Vec<&str> {
    response.resources.iter().map(|r| r.name.as_str()).collect()
}

/// A delta client that has taken all of [`Folder::usual`].
pub(crate) async fn served(server: &Server, id: &str) -> Delta {
    let mut talk = Delta::open(&server.xds, id, delta(CLUSTER, &[])).await;
    assert_eq!(names(&talk.take(CLUSTER).await), ["users"]);
    talk.send(delta(ENDPOINT, &["users"])).await;
    assert_eq!(names(&talk.take(ENDPOINT).await), ["users"]);
    talk.send(delta(LISTENER, &[])).await;
    assert_eq!(names(&talk.take(LISTENER).await), ["front"]);
    talk.send(delta(ROUTE, &["main"])).await;
    assert_eq!(names(&talk.take(ROUTE).await), ["main"]);
    talk
}
