//! The files of the story: the proxy's bootstrap, and `examples/gateway.yaml` as it is edited.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use tempfile::TempDir;

/// Where the file says that the gateway listens, and its instances.
const PLACES: [&str; 3] = ["port: 10000", "127.0.0.1:8081", "127.0.0.1:8082"];
/// The line of the only instance of `web`.
const RED: &str = "  - { id: red, url: \"http://127.0.0.1:8081\" }\n";
/// Where routes begin.
const ROUTES: &str = "\nroutes:\n";

/// The gateway file, in a folder of its own.
pub(crate) struct Gateway {
    folder: TempDir,
    red: SocketAddr,
    blue: SocketAddr,
}

/// What differs from `examples/gateway.yaml`.
#[derive(Default)]
pub(crate) struct Edit<'a> {
    /// A route before the others.
    pub(crate) route: &'a str,
    /// The instances of `web` instead of red alone.
    pub(crate) instances: &'a str,
}

impl Gateway {
    pub(crate) fn new(red: SocketAddr, blue: SocketAddr) -> io::Result<Self> {
        Ok(Self { folder: TempDir::new()?, red, blue })
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("gateway.yaml")
    }

    /// Writes the file whole, with the addresses of this run.
    pub(crate) fn write(&self, edit: &Edit<'_>) -> io::Result<()> {
        let instances = if edit.instances.is_empty() { RED } else { edit.instances };
        let mut text = include_str!("../gateway.yaml")
            .replace(ROUTES, &format!("{ROUTES}{}", edit.route))
            .replace(RED, instances);
        let here = ["port: 0".to_owned(), self.red.to_string(), self.blue.to_string()];
        for (place, here) in PLACES.iter().zip(here) {
            text = text.replace(place, &here);
        }
        let aside = self.folder.path().join("aside");
        std::fs::write(&aside, text)?;
        std::fs::rename(aside, self.file())
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
