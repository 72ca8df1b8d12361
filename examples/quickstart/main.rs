//! Everything in one process: a management server, origins and the proxy before them, all of it made
//! from `examples/gateway.yaml`.
//!
//! ```text
//!  gateway.yaml ──► management ──────────────► proxy ──► red
//!           HTTP ──►  server    xDS over gRPC    ▲  ├──► blue
//!                                        you ────┘  └──► green, later
//! ```
//!
//! It sends requests, changes what the gateway is while they run, shows the effect, and goes on until
//! Ctrl-C. With `--once` it ends after the story: with 0 if every step had its effect.

mod client;
mod gateway;
mod origin;
mod story;

use std::error::Error;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use nuncio::config::ConfigError;
use nuncio::server::options::Options;
use nuncio::server::{Server, bootstrap};
use nuncio_xds_server::api::Access;
use nuncio_xds_server::gateway::Flavour;
use nuncio_xds_server::{GatewaySource, ManagementServer};
use tokio::time::{Instant, sleep};

use client::{Client, Traffic};
use gateway::Gateway;
use origin::Origin;
use story::Story;

type Failure = Box<dyn Error + Send + Sync>;

/// Each step has its effect within this time, or the story fails.
const PATIENCE: Duration = Duration::from_secs(10);
/// What users of the API must show.
const TOKEN: &str = "quickstart";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let once = std::env::args().any(|argument| argument == "--once");
    match run(once).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "quickstart: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(once: bool) -> Result<(), Failure> {
    let begun = Instant::now();
    let [red, blue, green] =
        [Origin::start("red").await?, Origin::start("blue").await?, Origin::start("green").await?];
    say(&format!("origins            red at {}, blue at {}", red.address, blue.address))?;

    let gateway = Gateway::new(red.address, blue.address)?;
    gateway.write()?;
    let source = GatewaySource::new(gateway.file(), Flavour::Nuncio).map_err(|p| p.to_string())?;
    let token = gateway.beside("token", TOKEN)?;
    let access = Access::by_token_file(source.live(), &token).map_err(|p| p.to_string())?;
    let builder = ManagementServer::builder().status("127.0.0.1:0").api("127.0.0.1:0", access);
    let management = builder.start(source).await?;
    let status = management.status_address().ok_or("the status API was asked for")?;
    let api = management.api_address().ok_or("the API was asked for")?;
    say(&format!("management server  xDS at {}, status at {status}", management.xds_address()))?;
    say(&format!("                   API at {api}"))?;

    let text = gateway::bootstrap(management.xds_address());
    let options = Options::try_parse_from(["quickstart", "--config-yaml", &text])?;
    let server =
        Server::builder(bootstrap::load(&options).map_err(told)?).workers(2).start().await?;
    let admin = server.admin_address().ok_or("the bootstrap has an admin address")?;
    let public = listening(admin).await?;
    say(&format!("proxy              HTTP at {public}, admin at {admin}"))?;
    say(
        "\nThe proxy got what examples/gateway.yaml becomes, over gRPC. That file is now sent requests,",
    )?;
    say("edited and changed, while another client asks without a pause.")?;

    let traffic = Traffic::start(public);
    let origins = [red, blue, green];
    let mut story = Story {
        gateway,
        origins,
        management,
        client: Client::new(public),
        api: Client::new(api),
        admin: Client::new(admin),
    };
    story.tell().await?;
    let tally = traffic.stop().await?;
    say(&format!(
        "\nMeanwhile the other client sent {} requests; {} failed. All of it took {:.1} s.",
        tally.requests,
        tally.failures.len(),
        begun.elapsed().as_secs_f64(),
    ))?;
    if let Some(first) = tally.failures.first() {
        return Err(format!("a request failed: {first}").into());
    }

    if !once {
        say(&format!(
            "\nTry it:\n\
             \x20 curl -i http://{public}/\n\
             \x20 curl -i --compressed http://{public}/static/list\n\
             \x20 curl http://{admin}/clusters\n\
             \x20 curl http://{admin}/config_dump\n\
             \x20 curl http://{admin}/metrics\n\
             \x20 curl http://{status}/status\n\
             \x20 curl -H 'authorization: Bearer {TOKEN}' http://{api}/v1/services\n\
             The gateway file is {}; edit it. Ctrl-C ends it.",
            story.gateway.file().display(),
        ))?;
        tokio::signal::ctrl_c().await?;
    }
    server.stop(Duration::from_secs(5)).await;
    story.management.stop().await;
    Ok(())
}

fn told(errors: Vec<ConfigError>) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn say(line: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{line}")
}

fn patient(since: Instant) -> Result<(), Failure> {
    if since.elapsed() > PATIENCE {
        return Err("the change had no effect".into());
    }
    Ok(())
}

/// Waits for the proxy's listener and tells its address.
async fn listening(admin: SocketAddr) -> Result<SocketAddr, Failure> {
    let mut client = Client::new(admin);
    let start = Instant::now();
    loop {
        let body = client.get("/listeners?format=json").await?.body;
        let listeners: serde_json::Value = serde_json::from_slice(&body)?;
        let socket = &listeners["listener_statuses"][0]["local_address"]["socket_address"];
        if let (Some(host), Some(port)) =
            (socket["address"].as_str(), socket["port_value"].as_u64())
        {
            return Ok(format!("{host}:{port}").parse()?);
        }
        patient(start).map_err(|e| format!("{e}: the listener is not there: {listeners}"))?;
        sleep(Duration::from_millis(5)).await;
    }
}
