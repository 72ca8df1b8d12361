//! Every configuration that the documents show runs: it is checked by the management server's own code, served by
//! it, and taken by the real proxy without an error and without a field that it ignores.
//!
//! Each block of a document says what it is behind its fence, and anything else fails:
//!
//! ```text
//! yaml gateway      a gateway file, or blocks of one, which get a listener, a service and a route if they have none
//! yaml resources    what xds-server takes by --config
//! yaml cluster, endpoints, route, connection_manager, filter
//!                   fields of a resource, of filter a list of them, amid others that make it whole
//! yaml groups       what xds-server takes by --groups
//! yaml bootstrap    what nuncio takes by -c
//! sh                commands: those that begin with curl are run here, against a proxy and its management
//!                   server; those that begin with xds-server in the tests of that program
//! text, mermaid, promql    not for us
//! ```
//!
//! Of addresses and ports that a document makes up [`complete`] knows others, which are here.

mod blocks;
mod complete;

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::process::Command;

use futures_util::{FutureExt, StreamExt};
use nuncio_xds_server::api::Access;
use nuncio_xds_server::gateway::{Flavour, check};
use nuncio_xds_server::{FilesSource, GatewaySource, ManagementServer, Problem};
use tempfile::TempDir;

use blocks::{Block, all_blocks, blocks, documents};

use crate::harness::control::until_settled;
use crate::harness::resources::dynamic_delta;
use crate::harness::{Origin, Proxy, get, run};

/// Each has a proxy of its own, and the machine few cores.
const AT_ONCE: usize = 4;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[tokio::test]
async fn every_configuration_in_the_documents_runs() {
    let blocks = all_blocks(root());
    let kinds = blocks.iter().filter(|block| block.kind.starts_with("yaml")).count();
    assert!(kinds > 20, "{kinds} configurations in all documents");
    let failed = failures(&blocks).await;
    assert!(failed.is_empty(), "{} blocks failed:\n{}", failed.len(), failed.join("\n"));
}

#[tokio::test]
async fn a_block_that_is_wrong_fails_by_file_and_line() {
    let wrong = [
        ("yaml gateway", "load_balancer: { defualt_strategy: random }", "did you mean"),
        ("yaml cluster", "lb_policy: LEAST_REQEST", "LEAST_REQEST"),
        ("yaml cluster", "lb_policy: RANDOM\nnobody_knows: 1", "nobody_knows"),
        (
            "yaml filter",
            "- name: a\n  typed_config: { '@type': type.googleapis.com/a.b.C }",
            "a.b.C",
        ),
        ("yaml bootstrap", "static_resources: { clusters: [{ name: '' }] }", "name"),
        ("yaml groups", "groups: [{ name: a, path: a, math: {} }]", "math"),
        ("yaml", "a: 1", "does not say what it is"),
        ("toml", "a = 1", "does not say what it is"),
    ];
    for (kind, text, said) in wrong {
        let document = format!("# A\n\n```{kind}\n{text}\n```\n");
        let failed = failures(&blocks("docs/a.md", &document).unwrap()).await;
        assert_eq!(failed.len(), 1, "{kind} {text}: {failed:?}");
        assert!(failed[0].starts_with("docs/a.md:3: "), "{failed:?}");
        assert!(failed[0].contains(said), "{failed:?}");
    }
    for (document, said) in [
        ("a\n\n    - name: a\n", "docs/a.md:3: a block without a fence"),
        ("a\n```sh\nls\n", "docs/a.md:2: the fence is not closed"),
    ] {
        assert_eq!(blocks("docs/a.md", document).unwrap_err(), said);
    }
}

/// What is wrong with each block that does not run.
async fn failures(blocks: &[Block]) -> Vec<String> {
    let runs = blocks.iter().map(|block| async move {
        // What is waited for in vain panics, and the others shall be told all the same.
        let taken = match AssertUnwindSafe(take(block)).catch_unwind().await {
            Ok(taken) => taken,
            Err(panic) => {
                Err(panic.downcast::<String>().map_or_else(|_| "panicked".into(), |m| *m))
            }
        };
        taken.err().map(|why| format!("{}: {why}", block.at))
    });
    futures_util::stream::iter(runs)
        .buffer_unordered(AT_ONCE)
        .filter_map(std::future::ready)
        .collect()
        .await
}

async fn take(block: &Block) -> Result<(), String> {
    let files = TempDir::new().unwrap();
    let write = |name: &str, text: &str| {
        let file = files.path().join(name);
        std::fs::write(&file, text).unwrap();
        file
    };
    let resources = |kind: &str, text: &str| {
        complete::resources(kind, text).map(|text| write("resources.yaml", &text))
    };
    let builder = ManagementServer::builder().strict(true);
    let server = match block.kind.strip_prefix("yaml ").unwrap_or(&block.kind) {
        "sh" | "text" | "mermaid" | "promql" => return Ok(()),
        "bootstrap" => return validated(&write("bootstrap.yaml", &block.text)).await,
        "gateway" => {
            let file = write("gateway.yaml", &complete::gateway(&block.text));
            let checked = check(&file, Flavour::Nuncio).map_err(|problems| lines(&problems))?;
            if !checked.warnings.is_empty() {
                return Err(lines(&checked.warnings));
            }
            check(&file, Flavour::Envoy).map_err(|problems| lines(&problems))?;
            let source = GatewaySource::new(file, Flavour::Nuncio).map_err(|p| p.to_string())?;
            builder.start(source).await
        }
        "groups" => {
            let rules = Some(write("groups.yaml", &block.text));
            let file = resources("cluster", "").expect("there is such a part");
            let other = complete::resources("cluster", "").expect("there is such a part");
            std::fs::create_dir(files.path().join("canary")).unwrap();
            write("canary/resources.yaml", &other);
            let source = FilesSource::new(file, rules).map_err(|p| p.to_string())?;
            builder.start(source).await
        }
        kind => {
            let Some(file) = resources(kind, &block.text) else {
                return Err(format!("```{} does not say what it is", block.kind));
            };
            let source = FilesSource::new(file, None).map_err(|p| p.to_string())?;
            builder.start(source).await
        }
    };
    served(&server.map_err(|error| error.to_string())?).await
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

async fn validated(bootstrap: &Path) -> Result<(), String> {
    let said = run(["--mode", "validate", "-c", &bootstrap.display().to_string()]).await;
    match said.code == Some(0) && !said.all().contains("ignored") {
        true => Ok(()),
        false => Err(said.all()),
    }
}

/// A proxy takes all that the server has, and answers on every listener.
async fn served(server: &ManagementServer) -> Result<(), String> {
    let status = server.status();
    let warnings: Vec<_> = status.groups.iter().flat_map(|group| &group.warnings).collect();
    if !warnings.is_empty() {
        return Err(format!("{warnings:?}"));
    }
    let proxy = Proxy::with(dynamic_delta(server.xds_address())).await;
    until_settled(|| server.status()).await;
    let listeners = proxy.admin_json("/listeners?format=json").await;
    let listeners = listeners["listener_statuses"].as_array().cloned().unwrap_or_default();
    for listener in listeners {
        let address = proxy.new_listener(listener["name"].as_str().unwrap()).await;
        get(address, "/").await;
    }
    match proxy.stat("nuncio.config_fields_ignored").await {
        0 => Ok(()),
        ignored => Err(format!("{ignored} fields are ignored")),
    }
}

/// A gateway with every block, a management server with an API, and a proxy that has answered a request.
struct World {
    proxy: Proxy,
    server: ManagementServer,
    listener: SocketAddr,
    files: TempDir,
    _origin: Origin,
}

impl World {
    async fn start() -> Self {
        let origin = Origin::http1("users-1").await;
        let files = TempDir::new().unwrap();
        let gateway = complete::gateway(&format!(
            "services: [{{ name: users, instances: [{{ id: users-1, url: 'http://{}' }}] }}]
load_balancer: {{ health_check: {{ enabled: false }} }}
cache: {{}}
compression: {{}}
connection_pool: {{}}
",
            origin.address
        ));
        let file = files.path().join("gateway.yaml");
        std::fs::write(&file, gateway).unwrap();
        let token = files.path().join("token");
        std::fs::write(&token, "s3cret").unwrap();
        let source = GatewaySource::new(file, Flavour::Nuncio).unwrap();
        let access = Access::by_token_file(source.live(), &token).unwrap();
        let builder = ManagementServer::builder().status("127.0.0.1:0").api("127.0.0.1:0", access);
        let server = builder.start(source).await.unwrap();
        let proxy = Proxy::with(dynamic_delta(server.xds_address())).await;
        let listener = proxy.new_listener("public").await;
        assert_eq!(get(listener, "/").await.status, 200);
        Self { proxy, server, listener, files, _origin: origin }
    }
}

/// Runs each as a shell does, with the addresses of what runs here.
#[tokio::test]
async fn every_question_to_a_running_proxy_is_answered() {
    let World { proxy, server, listener, files, _origin } = World::start().await;
    let here = [
        ("127.0.0.1:9901", proxy.admin),
        ("127.0.0.1:8080", listener),
        ("127.0.0.1:10000", listener),
        ("127.0.0.1:18001", server.status_address().unwrap()),
        ("127.0.0.1:18002", server.api_address().unwrap()),
    ];
    let blocks = all_blocks(root());
    let commands: Vec<_> = blocks
        .iter()
        .flat_map(|block| block.commands("curl").map(move |command| (&block.at, command)))
        .collect();
    assert!(commands.len() > 5, "{commands:?}");
    for (at, shown) in commands {
        let command = here.iter().fold(shown.to_owned(), |command, (shown, here)| {
            command.replace(shown, &here.to_string())
        });
        let folder = files.path().to_owned();
        let run = move || {
            let fails = command.replacen("curl ", "curl -sSf --max-time 20 ", 1);
            Command::new("sh").args(["-c", &fails]).current_dir(folder).output().unwrap()
        };
        let output = tokio::task::spawn_blocking(run).await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{at}: {shown}: {} {said}", output.status);
    }
}

/// Words that begin so are names on this page. One that ends in `_` is the beginning of some.
const NAMES: [(&str, Page); 8] = [
    ("gateway_", Page::Admin("/metrics")),
    ("http_server_", Page::Admin("/metrics")),
    ("http_client_", Page::Admin("/metrics")),
    ("envoy_cluster_", Page::Admin("/stats/prometheus")),
    ("upstream_cx_", Page::Admin("/stats")),
    ("upstream_rq_", Page::Admin("/stats")),
    ("membership_", Page::Admin("/stats")),
    ("xds_server_", Page::Status),
];

#[derive(Clone, Copy)]
enum Page {
    Admin(&'static str),
    /// Of the management server.
    Status,
}

#[tokio::test]
async fn every_metric_that_the_documents_name_is_there() {
    let world = World::start().await;
    let mut missing = Vec::new();
    let mut found = 0;
    for (prefix, page) in NAMES {
        let shown = match page {
            Page::Admin(path) => world.proxy.admin_text(path).await,
            Page::Status => get(world.server.status_address().unwrap(), "/metrics").await.text(),
        };
        for file in documents(root()) {
            let text = std::fs::read_to_string(&file).unwrap();
            for word in words(&text).filter(|word| word.starts_with(prefix)) {
                found += 1;
                let buckets = format!("{word}_bucket");
                let is_meant = |name: &str| match word.ends_with('_') {
                    true => name.starts_with(word),
                    false => name == word || name == buckets,
                };
                if !words(&shown).any(is_meant) {
                    missing.push(format!("{}: {word}", file.display()));
                }
            }
        }
    }
    assert!(found > 30, "{found} names in all documents");
    assert!(missing.is_empty(), "not there:\n{}", missing.join("\n"));
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
}
