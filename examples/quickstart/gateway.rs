//! The files of the story: the proxy's bootstrap, and `examples/gateway.yaml` as it is edited.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use tempfile::TempDir;

/// What differs from run to run, and how patient the proxy is with an instance that is not well.
const PLACES: [&str; 4] = ["port: 10000", "127.0.0.1:8081", "127.0.0.1:8082", "interval: 30s"];

/// The gateway file, in a folder of its own.
pub(crate) struct Gateway {
    folder: TempDir,
    here: [String; 4],
}

impl Gateway {
    pub(crate) fn new(red: SocketAddr, blue: SocketAddr) -> io::Result<Self> {
        let here = ["port: 0".into(), red.to_string(), blue.to_string(), "interval: 100ms".into()];
        Ok(Self { folder: TempDir::new()?, here })
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("gateway.yaml")
    }

    /// Writes a file beside it.
    pub(crate) fn beside(&self, name: &str, text: &str) -> io::Result<PathBuf> {
        let file = self.folder.path().join(name);
        std::fs::write(&file, text)?;
        Ok(file)
    }

    /// Writes the file whole, with the addresses of this run.
    pub(crate) fn write(&self) -> io::Result<()> {
        self.edit("", "")
    }

    /// The same, with the first place of a text taken by another.
    pub(crate) fn edit(&self, old: &str, new: &str) -> io::Result<()> {
        let mut text = include_str!("../gateway.yaml").replacen(old, new, 1);
        for (place, here) in PLACES.iter().zip(&self.here) {
            text = text.replace(place, here);
        }
        std::fs::rename(self.beside("aside", &text)?, self.file())
    }
}

/// The proxy's bootstrap: who it is, and where its configuration comes from.
pub(crate) fn bootstrap(management: SocketAddr) -> String {
    format!(
        r#"
node: {{id: quickstart, cluster: quickstart}}
admin: {{address: {admin}}}
dynamic_resources:
  ads_config:
    api_type: DELTA_GRPC
    transport_api_version: V3
    grpc_services: [{{envoy_grpc: {{cluster_name: management}}}}]
  cds_config: {{ads: {{}}, resource_api_version: V3}}
  lds_config: {{ads: {{}}, resource_api_version: V3}}
static_resources:
  clusters:
  - name: management
    type: STATIC
    connect_timeout: 1s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{http2_protocol_options: {{}}}}
    load_assignment:
      cluster_name: management
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {management}}}}}]}}]
"#,
        admin = address(SocketAddr::from(([127, 0, 0, 1], 0))),
        management = address(management),
    )
}

fn address(address: SocketAddr) -> String {
    format!("{{socket_address: {{address: {}, port_value: {}}}}}", address.ip(), address.port())
}
