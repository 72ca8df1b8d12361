//! The `xds-server` binary.

mod commands;
mod ctl;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, ValueEnum};
use nuncio_xds_server::api::Access;
use nuncio_xds_server::gateway::Flavour;
use nuncio_xds_server::{Builder, FilesSource, GatewaySource, ManagementServer, StartError};
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;
use tracing_subscriber::EnvFilter;

use commands::{Command, lines};

/// Serves xDS from resources in Envoy's YAML or JSON form, or from a gateway file.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Options {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Debug, Args)]
struct Serve {
    /// File or folder of resources: lists under `clusters`, `endpoints`, `listeners`, `routes` and
    /// `secrets`. Watched: a good edit is served, a bad one is refused and the last good set stays.
    #[arg(long, value_name = "PATH", required_unless_present = "gateway")]
    config: Option<PathBuf>,
    /// Instead of resources a gateway file, which is translated to them. Watched the same way.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["config", "groups"])]
    gateway: Option<PathBuf>,
    /// Who is to understand what a gateway file becomes.
    #[arg(long, value_enum, default_value_t, requires = "gateway")]
    flavour: Flavour,
    /// Address to serve the API on that changes the instances of a gateway file; see `xds-server ctl`.
    #[arg(long, value_name = "ADDRESS", requires_all = ["gateway", "api_token_file"])]
    api: Option<String>,
    /// File with the token that users of the API must show.
    #[arg(long, value_name = "FILE", requires = "api")]
    api_token_file: Option<PathBuf>,
    /// File where changes to instances are kept; default: the gateway file's name with `.overlay.json`
    /// behind it.
    #[arg(long, value_name = "FILE", requires = "api")]
    overlay: Option<PathBuf>,
    /// Rules that serve some nodes another folder; default `groups.yaml` in the folder, if it is
    /// there.
    #[arg(long, value_name = "FILE")]
    groups: Option<PathBuf>,
    /// Address to serve xDS on; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:18000")]
    listen: String,
    /// Address to serve the status API on: `/status`, `/snapshot`, `/ready`, `/metrics`.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:18001")]
    status: String,
    /// Writes the bound addresses to this file, as `xds ADDRESS`, `status ADDRESS` and `api ADDRESS`.
    #[arg(long, value_name = "FILE")]
    address_file: Option<PathBuf>,
    /// Refuses fields that are not known here; without it they are reported and left out.
    #[arg(long)]
    strict: bool,
    /// Least level that is logged: `error`, `warn`, `info`, `debug` or `trace`.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: tracing::Level,
    /// Form of the log, on standard error.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Options { command, serve } = Options::parse();
    let done = match command {
        Some(command) => command.run().await,
        None => {
            start_logging(&serve);
            run(serve).await
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            let _ = writeln!(std::io::stderr(), "{message}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Serve) -> Result<(), String> {
    let watch = |kind| signal(kind).map_err(|error| format!("cannot watch for signals: {error}"));
    let mut interrupt = watch(SignalKind::interrupt())?;
    let mut terminate = watch(SignalKind::terminate())?;
    let server = start(&options).await?;
    if let Some(file) = options.address_file {
        write_addresses(&file, &server)
            .map_err(|error| format!("cannot write {}: {error}", file.display()))?;
    }
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    info!("stopping");
    server.stop().await;
    Ok(())
}

async fn start(options: &Serve) -> Result<ManagementServer, String> {
    let builder = ManagementServer::builder()
        .listen(&options.listen)
        .status(&options.status)
        .strict(options.strict);
    let told = |error: StartError| error.to_string();
    if let Some(file) = &options.gateway {
        return serve_gateway(builder, file, options).await;
    }
    let Some(config) = &options.config else { return Err("--config is required".to_owned()) };
    let source = FilesSource::new(config, options.groups.clone()).map_err(|p| p.to_string())?;
    builder.start(source).await.map_err(told)
}

async fn serve_gateway(
    mut builder: Builder,
    file: &Path,
    options: &Serve,
) -> Result<ManagementServer, String> {
    let mut source = GatewaySource::new(file, options.flavour).map_err(|p| p.to_string())?;
    if let (Some(address), Some(token)) = (&options.api, &options.api_token_file) {
        let overlay = options.overlay.clone().unwrap_or_else(|| {
            let mut name = file.as_os_str().to_owned();
            name.push(".overlay.json");
            name.into()
        });
        source = source.keeping(overlay).map_err(|problems| lines(&problems))?;
        let access = Access::by_token_file(source.live(), token).map_err(|p| p.to_string())?;
        builder = builder.api(address, access);
    }
    builder.start(source).await.map_err(|error| error.to_string())
}

/// Whoever waits for the file finds it whole.
fn write_addresses(file: &Path, server: &ManagementServer) -> std::io::Result<()> {
    let mut text = format!("xds {}\n", server.xds_address());
    if let Some(address) = server.status_address() {
        text.push_str(&format!("status {address}\n"));
    }
    if let Some(address) = server.api_address() {
        text.push_str(&format!("api {address}\n"));
    }
    let mut partial = file.as_os_str().to_owned();
    partial.push(".partial");
    std::fs::write(&partial, text)?;
    std::fs::rename(partial, file)
}

fn start_logging(options: &Serve) {
    // The libraries below have much to say at debug, and little that helps here.
    let level = options.log_level;
    let filter =
        EnvFilter::new(format!("warn,nuncio={level},nuncio_xds_server={level},xds_server={level}"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match options.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}
