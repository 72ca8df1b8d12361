//! A gateway file, the management server that translates it, the proxy it is for, and its origins.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use nuncio_xds_server::api::Access;
use nuncio_xds_server::gateway::Flavour;
use nuncio_xds_server::{GatewaySource, ManagementServer};
use serde_json::json;
use tempfile::TempDir;

use crate::harness::resources::{dynamic_delta, with};
use crate::harness::{Origin, Proxy, ProxyBuilder, request};

const TOKEN: &str = "s3cret";

pub(super) const ORIGINS: [&str; 5] = ["a", "b", "c", "d", "e"];

pub(super) struct World {
    pub(super) origins: Vec<Option<Origin>>,
    addresses: Vec<SocketAddr>,
    /// A port that nobody uses.
    free: u16,
    full: Full,
    running: Option<(ManagementServer, Proxy)>,
    files: TempDir,
}

impl World {
    pub(super) async fn new() -> Self {
        let mut origins = Vec::new();
        for name in ORIGINS {
            origins.push(Origin::http1(name).await);
        }
        Self {
            addresses: origins.iter().map(|origin| origin.address).collect(),
            origins: origins.into_iter().map(Some).collect(),
            free: TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port(),
            full: Full::new(),
            running: None,
            files: TempDir::new().unwrap(),
        }
    }

    pub(super) fn origin(&self, name: &str) -> &Origin {
        self.origins[index(name)].as_ref().unwrap()
    }

    pub(super) fn drop_origin(&mut self, name: &str) {
        self.origins[index(name)] = None;
    }

    pub(super) fn proxy(&self) -> &Proxy {
        &self.running.as_ref().unwrap().1
    }

    pub(super) fn management(&self) -> &ManagementServer {
        &self.running.as_ref().unwrap().0
    }

    /// Asks the API of the management server, which must agree.
    pub(super) async fn api(&self, method: &str, path: &str, body: &str) {
        let address = self.management().api_address().unwrap();
        let token = format!("Bearer {TOKEN}");
        let headers = [("authorization", token.as_str())];
        let body = self.fill(body);
        let answer = request(address, method, path, &headers, body.as_bytes()).await;
        assert!((200..300).contains(&answer.status), "{method} {path}: {}", answer.text());
    }

    /// A text with what stands for addresses replaced.
    pub(super) fn fill(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (count, name) in [(1, "$one"), (2, "$two"), (3, "$three")] {
            let urls: Vec<_> = ORIGINS[..count].iter().map(|o| format!("{{url: ${o}}}")).collect();
            let urls = urls.join(", ");
            let service =
                format!("services: [{{name: s, instances: [{urls}]}}]\nroutes: [{{service: s}}]");
            text = text.replace(name, &service);
        }
        for (name, address) in ORIGINS.iter().zip(&self.addresses) {
            text = text.replace(&format!("${name}.address"), &address.to_string());
            text = text.replace(&format!("${name}.port"), &address.port().to_string());
            text = text.replace(&format!("${name}"), &format!("'http://{address}'"));
        }
        text = text.replace("$full", &format!("'http://{}'", self.full.address));
        text.replace("$free", &self.free.to_string())
    }

    /// Writes a gateway file; the server takes it up if it runs.
    pub(super) fn write(&self, yaml: &str) {
        let mut text = self.fill(yaml);
        if !text.contains("listeners:") {
            text.push_str("listeners: [{name: in, address: 127.0.0.1, port: 0}]\n");
        }
        let aside = self.files.path().join("aside");
        std::fs::write(&aside, text).unwrap();
        std::fs::rename(aside, self.files.path().join("gateway.yaml")).unwrap();
    }

    /// Starts the server and a proxy of one worker, whose turns can be counted, in zone `near`.
    pub(super) async fn start(&mut self) -> Result<(), String> {
        self.start_with_workers("1").await
    }

    pub(super) async fn start_with_workers(&mut self, workers: &str) -> Result<(), String> {
        let file = self.files.path().join("gateway.yaml");
        let token = self.files.path().join("token");
        std::fs::write(&token, TOKEN).unwrap();
        let source = GatewaySource::new(file, Flavour::Nuncio).map_err(|p| p.to_string())?;
        let access = Access::by_token_file(source.live(), &token).map_err(|p| p.to_string())?;
        let builder = ManagementServer::builder().api("127.0.0.1:0", access);
        let server = builder.start(source).await.map_err(|e| e.to_string())?;
        let mut bootstrap = dynamic_delta(server.xds_address());
        let zone = |zone: &str, port: u16| {
            let address =
                json!({ "socket_address": { "address": "127.0.0.1", "port_value": port } });
            let endpoint = json!({ "endpoint": { "address": address } });
            json!({ "locality": { "zone": zone }, "lb_endpoints": [endpoint] })
        };
        let proxies = json!({
            "name": "proxies", "type": "STATIC",
            "load_assignment": { "cluster_name": "proxies", "endpoints": [zone("near", 1), zone("far", 2)] },
        });
        if let Some(clusters) = bootstrap["static_resources"]["clusters"].as_array_mut() {
            clusters.push(proxies);
        }
        let local = json!({ "cluster_manager": { "local_cluster_name": "proxies" } });
        let args = ["--concurrency", workers, "--service-zone", "near"];
        let proxy = ProxyBuilder::new(with(bootstrap, local)).args(args).ready().await;
        self.running = Some((server, proxy));
        Ok(())
    }
}

fn index(name: &str) -> usize {
    let found = ORIGINS.iter().position(|origin| *origin == name);
    found.unwrap_or_else(|| panic!("no origin {name:?}"))
}

/// An address where no connection is ever made: its queue of those to be accepted is full.
struct Full {
    address: SocketAddr,
    _listener: socket2::Socket,
    _fillers: Vec<std::io::Result<TcpStream>>,
}

impl Full {
    fn new() -> Self {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let patience = Duration::from_millis(20);
        let fill = |_| TcpStream::connect_timeout(&address, patience);
        Self { address, _fillers: (0..3).map(fill).collect(), _listener: socket }
    }
}
