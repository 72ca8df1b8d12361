//! Everything in one process: a management server, two origins and the proxy between them.
//!
//! ```text
//!              xDS over gRPC
//! management ─────────────────► proxy ──► red
//!   server                        ▲  └──► blue
//!                         you ────┘
//! ```
//!
//! It sends requests, changes routes and endpoints while they run, shows the effect, and goes on
//! until Ctrl-C. With `--once` it ends after the story: with 0 if every step had its effect.

mod client;
mod gateway;
mod origin;

use std::error::Error;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clap::Parser;
use http::StatusCode;
use nuncio::config::ConfigError;
use nuncio::server::options::Options;
use nuncio::server::{Server, bootstrap};
use nuncio_xds_server::gateway::Flavour;
use nuncio_xds_server::{GatewaySource, ManagementServer};
use tokio::time::{Instant, sleep};

use client::{Client, Traffic};
use gateway::{Edit, Gateway};

type Failure = Box<dyn Error + Send + Sync>;

/// Each step has its effect within this time, or the story fails.
const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let once = std::env::args().any(|argument| argument == "--once");
    match story(once).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "quickstart: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn story(once: bool) -> Result<(), Failure> {
    let answered = [Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0))];
    let red = origin::start("red", &answered[0]).await?;
    let blue = origin::start("blue", &answered[1]).await?;
    say(&format!("origins           red at {red}, blue at {blue}"))?;

    let gateway = Gateway::new(red, blue)?;
    gateway.write(&Edit::default())?;
    let source = GatewaySource::new(gateway.file(), Flavour::Nuncio).map_err(|p| p.to_string())?;
    let builder = ManagementServer::builder().status("127.0.0.1:0");
    let management = builder.start(source).await?;
    let status = management.status_address().ok_or("the status API was asked for")?;
    say(&format!("management server xDS at {}, status at {status}", management.xds_address()))?;

    let text = gateway::bootstrap(management.xds_address());
    let options = Options::try_parse_from(["quickstart", "--config-yaml", &text])?;
    let server =
        Server::builder(bootstrap::load(&options).map_err(told)?).workers(2).start().await?;
    let admin = server.admin_address().ok_or("the bootstrap has an admin address")?;
    let public = listening(admin).await?;
    say(&format!("proxy             HTTP at {public}, admin at {admin}\n"))?;

    let mut client = Client::new(public);
    say("The proxy got what examples/gateway.yaml becomes, over gRPC:")?;
    until(&mut client, "/", "red").await?;
    let traffic = Traffic::start(public);

    say("\nA route is added: /blue/ goes to blue, without the prefix.")?;
    let route = "- { prefix: /blue/, service: blue, rewrite: { path: / } }\n";
    gateway.write(&Edit { route, ..Edit::default() })?;
    until(&mut client, "/blue/sky", "blue").await?;
    until(&mut client, "/", "red").await?;

    say("\nThe service `web` gets a second instance, red with three times the weight of blue.")?;
    let red_of =
        |weight: u32| format!("  - {{ id: red, url: \"http://{red}\", weight: {weight} }}\n");
    let blue_too = format!("  - {{ id: blue, url: \"http://{blue}\" }}\n");
    gateway.write(&Edit { route, instances: &format!("{}{blue_too}", red_of(3)) })?;
    until(&mut client, "/", "blue").await?;
    // The other client takes turns too, so the origins count, not this client alone.
    let before = answered.each_ref().map(|n| n.load(Ordering::Relaxed));
    shares(&mut client, 100).await?;
    let after = answered.each_ref().map(|n| n.load(Ordering::Relaxed));
    let [to_red, to_blue] = [after[0] - before[0], after[1] - before[1]];
    say(&format!("  {} requests: {to_red} to red, {to_blue} to blue", to_red + to_blue))?;
    if !(to_blue * 2..=to_blue * 4).contains(&to_red) {
        return Err("expected about three to red for each to blue".into());
    }

    say("\nRed is taken out.")?;
    gateway.write(&Edit { route, instances: &blue_too })?;
    // Red may come up by its weight as long as it is there.
    let emptied = Instant::now();
    while shares_of_red(&mut client).await? > 0 {
        patient(emptied)?;
    }
    until(&mut client, "/", "blue").await?;

    say("\nA mistake: a key that there is not.")?;
    let mistake = "- { prefx: /green/, service: blue }\n";
    gateway.write(&Edit { route: mistake, instances: &blue_too })?;
    say(&format!("  refused: {}", refusal(&management).await?))?;
    until(&mut client, "/blue/sky", "blue").await?;
    gateway.write(&Edit { route, instances: &blue_too })?;

    let tally = traffic.stop().await?;
    say(&format!(
        "\nMeanwhile a client sent {} requests, {} failed.",
        tally.requests,
        tally.failures.len()
    ))?;
    if let Some(first) = tally.failures.first() {
        return Err(format!("a request failed: {first}").into());
    }

    if !once {
        say(&format!(
            "\nTry it:\n\
             \x20 curl http://{public}/\n\
             \x20 curl http://{public}/blue/sky\n\
             \x20 curl http://{admin}/clusters\n\
             \x20 curl http://{admin}/config_dump\n\
             \x20 curl http://{admin}/stats\n\
             \x20 curl http://{status}/status\n\
             Ctrl-C ends it."
        ))?;
        tokio::signal::ctrl_c().await?;
    }
    server.stop(Duration::from_secs(5)).await;
    management.stop().await;
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

/// Asks until the origin of this name answers.
async fn until(client: &mut Client, path: &str, name: &str) -> Result<(), Failure> {
    let start = Instant::now();
    loop {
        let (status, body) = client.get(path).await?;
        if status == StatusCode::OK && body.starts_with(name) {
            let after = start.elapsed().as_micros();
            return Ok(say(&format!("  GET {path} -> {} (after {after} us)", body.trim_end()))?);
        }
        patient(start).map_err(|e| format!("GET {path}: {e}: {status} {body}"))?;
        sleep(Duration::from_millis(1)).await;
    }
}

/// How many of so many requests red and blue answered.
async fn shares(client: &mut Client, requests: usize) -> Result<(usize, usize), Failure> {
    let mut counts = (0, 0);
    for _ in 0..requests {
        match client.get("/").await? {
            (StatusCode::OK, body) if body.starts_with("red") => counts.0 += 1,
            (StatusCode::OK, _) => counts.1 += 1,
            (status, body) => return Err(format!("GET /: {status} {body}").into()),
        }
    }
    Ok(counts)
}

async fn shares_of_red(client: &mut Client) -> Result<usize, Failure> {
    Ok(shares(client, 8).await?.0)
}

/// Waits for the proxy's listener and tells its address.
async fn listening(admin: SocketAddr) -> Result<SocketAddr, Failure> {
    let mut client = Client::new(admin);
    let start = Instant::now();
    loop {
        let (_, body) = client.get("/listeners?format=json").await?;
        let listeners: serde_json::Value = serde_json::from_str(&body)?;
        let socket = &listeners["listener_statuses"][0]["local_address"]["socket_address"];
        if let (Some(host), Some(port)) =
            (socket["address"].as_str(), socket["port_value"].as_u64())
        {
            return Ok(format!("{host}:{port}").parse()?);
        }
        patient(start).map_err(|e| format!("{e}: the listener is not there: {body}"))?;
        sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until the management server says what is wrong with its resources.
async fn refusal(management: &ManagementServer) -> Result<String, Failure> {
    let start = Instant::now();
    loop {
        let status = management.status();
        let refused = status.groups.iter().flat_map(|group| &group.errors).next();
        if let Some(problem) = refused {
            return Ok(problem.to_string());
        }
        patient(start)?;
        sleep(Duration::from_millis(1)).await;
    }
}
