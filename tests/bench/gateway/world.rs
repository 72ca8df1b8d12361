//! A gateway file, the management server that translates it, and the proxy it is for.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;

use nuncio_xds_server::gateway::Flavour;
use nuncio_xds_server::{GatewaySource, ManagementServer};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::Failure;
use crate::load::Load;
use crate::process::Process;
use crate::wait::until;

/// Clients that ask at a time, unless a bar says otherwise.
pub(crate) const CLIENTS: usize = 64;

/// A gateway under load.
pub(crate) struct World {
    pub(crate) proxy: Process,
    pub(crate) load: Load,
    management: ManagementServer,
    _runtime: Runtime,
    folder: TempDir,
}

impl World {
    /// Starts a proxy of so many workers with a gateway file, to which a listener is added.
    pub(crate) fn start(workers: usize, gateway: &str) -> Result<Self, Failure> {
        let folder = TempDir::new()?;
        write(&folder, gateway)?;
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let source = GatewaySource::new(file(&folder), Flavour::Nuncio);
        let source = source.map_err(|problem| problem.to_string())?;
        let management = runtime.block_on(ManagementServer::builder().start(source))?;
        let bootstrap = folder.path().join("bootstrap.json");
        std::fs::write(&bootstrap, self::bootstrap(management.xds_address()).to_string())?;
        let proxy = Process::start(folder.path(), &bootstrap, workers)?;
        let address = until("the listener takes connections", || {
            let listeners = admin(proxy.admin, "/listeners")?;
            let address = listeners.lines().find_map(|line| line.strip_prefix("in::"));
            let address = address.and_then(|address| address.parse::<SocketAddr>().ok());
            Ok(address.filter(|a| a.port() != 0 && TcpStream::connect(a).is_ok()))
        })?;
        until("the proxy is ready", || {
            Ok(admin(proxy.admin, "/ready")?.contains("LIVE").then_some(()))
        })?;
        let load = Load { address, clients: CLIENTS };
        Ok(Self { proxy, load, management, _runtime: runtime, folder })
    }

    /// Writes the gateway file anew; the management server takes it up.
    pub(crate) fn rewrite(&self, gateway: &str) -> Result<(), Failure> {
        write(&self.folder, gateway)
    }

    /// The text of a page of the admin endpoint.
    pub(crate) fn admin(&self, path: &str) -> Result<String, Failure> {
        admin(self.proxy.admin, path)
    }

    /// A counter or gauge of `/stats`; 0 while there is none.
    pub(crate) fn stat(&self, name: &str) -> Result<u64, Failure> {
        let stats = self.admin("/stats")?;
        let find = |line: &str| line.strip_prefix(name)?.strip_prefix(": ").map(str::to_owned);
        stats.lines().find_map(find).map_or(Ok(0), |value| Ok(value.parse()?))
    }

    /// The value of `/metrics` that has this name and is of this instance.
    pub(crate) fn metric(&self, name: &str, instance: SocketAddr) -> Result<f64, Failure> {
        let (metrics, label) = (self.admin("/metrics")?, format!("instance=\"{instance}\""));
        let mut of_name =
            metrics.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{'));
        let line = of_name.find(|line| line.contains(&label));
        let value = line.and_then(|line| line.rsplit(' ').next());
        Ok(value.ok_or_else(|| format!("no {name} of {instance}"))?.parse()?)
    }

    /// Fails if the file was refused, by the management server or by the proxy.
    pub(crate) fn nothing_refused(&self) -> Result<(), Failure> {
        let status = self.management.status();
        if let Some(problem) = status.groups.iter().flat_map(|group| &group.errors).next() {
            return Err(problem.to_string().into());
        }
        let types = status.proxies.iter().flat_map(|proxy| &proxy.types);
        match types.filter_map(|kind| kind.last_nack.as_ref()).next() {
            Some(nack) => Err(nack.message.clone().into()),
            None => Ok(()),
        }
    }
}

fn file(folder: &TempDir) -> PathBuf {
    folder.path().join("gateway.yaml")
}

fn write(folder: &TempDir, gateway: &str) -> Result<(), Failure> {
    let aside = folder.path().join("aside");
    let listener = "listeners: [{ name: in, address: 127.0.0.1, port: 0 }]\n";
    std::fs::write(&aside, [listener, gateway].concat())?;
    Ok(std::fs::rename(aside, file(folder))?)
}

/// `instances` of a service, each with a weight.
pub(crate) fn instances(of: impl IntoIterator<Item = (SocketAddr, u32)>) -> String {
    let instance = |(address, weight)| format!("{{ url: \"http://{address}\", weight: {weight} }}");
    let instances: Vec<_> = of.into_iter().map(instance).collect();
    format!("[{}]", instances.join(", "))
}

fn bootstrap(management: SocketAddr) -> Value {
    let address = |address: SocketAddr| {
        let host = address.ip().to_string();
        json!({ "socket_address": { "address": host, "port_value": address.port() } })
    };
    let ads = json!({ "ads": {}, "resource_api_version": "V3" });
    json!({
        "node": { "id": "bench", "cluster": "bench" },
        "admin": { "address": address(([127, 0, 0, 1], 0).into()) },
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{ "envoy_grpc": { "cluster_name": "management" } }],
            },
            "lds_config": ads,
            "cds_config": ads,
        },
        "static_resources": { "clusters": [{
            "name": "management",
            "type": "STATIC",
            "connect_timeout": "1s",
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": { "http2_protocol_options": {} },
                },
            },
            "load_assignment": {
                "cluster_name": "management",
                "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address(management) } }] }],
            },
        }] },
    })
}

fn admin(address: SocketAddr, path: &str) -> Result<String, Failure> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(
        format!("GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").ok_or("an answer without a head")?;
    Ok(body.to_owned())
}
