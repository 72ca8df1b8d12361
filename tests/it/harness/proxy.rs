//! The real binary: started with a bootstrap, asked through its admin endpoint.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::client::{Answer, Http1};
use super::process::Process;
use super::wait::{PATIENCE, eventually, pace};

/// How a proxy is started.
pub(crate) struct ProxyBuilder {
    bootstrap: String,
    file: &'static str,
    args: Vec<String>,
    variables: Vec<(String, String)>,
    dir: TempDir,
}

impl ProxyBuilder {
    /// With a bootstrap; an admin address on port 0 is added if it has none.
    pub(crate) fn new(mut bootstrap: Value) -> Self {
        if bootstrap.get("admin").is_none() {
            bootstrap["admin"] = json!({ "address": super::resources::address(0) });
        }
        Self::text("bootstrap.json", bootstrap.to_string())
    }

    /// With a bootstrap file of this name and content.
    pub(crate) fn text(file: &'static str, bootstrap: String) -> Self {
        let (args, variables) = (Vec::new(), Vec::new());
        Self { bootstrap, file, args, variables, dir: TempDir::new().unwrap() }
    }

    pub(crate) fn args<A: Into<String>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable.
    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The folder that belongs to the proxy; it goes with it.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts and waits until the admin endpoint answers.
    pub(crate) async fn start(self) -> Proxy {
        let config = self.dir.path().join(self.file);
        std::fs::write(&config, &self.bootstrap).unwrap();
        let admin_file = self.dir.path().join("admin-address");
        let mut args = vec!["-c".to_owned(), text(&config)];
        args.extend(["--admin-address-path".to_owned(), text(&admin_file)]);
        if !self.args.iter().any(|arg| arg == "--concurrency") {
            args.extend(["--concurrency".to_owned(), "2".to_owned()]);
        }
        args.extend(self.args);
        let variables = self.variables;
        let (process, admin) = launch(&variables, &args, &admin_file).await;
        Proxy { process, admin, args, variables, admin_file, _dir: self.dir }
    }

    /// Starts and waits until it is ready.
    pub(crate) async fn ready(self) -> Proxy {
        let proxy = self.start().await;
        proxy.until_ready().await;
        proxy
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

async fn launch(
    variables: &[(String, String)],
    args: &[String],
    admin_file: &Path,
) -> (Process, SocketAddr) {
    let _ = std::fs::remove_file(admin_file);
    let mut process = Process::start_in(variables, args);
    let admin = eventually("the admin address is written", || {
        if let Some(status) = process.exited() {
            panic!("nuncio ended with {status} while it started:\n{}", process.stderr());
        }
        let address = std::fs::read_to_string(admin_file).ok().and_then(|a| a.trim().parse().ok());
        std::future::ready(address)
    });
    let admin = admin.await;
    (process, admin)
}

/// A running nuncio. Dropping it kills it, and prints what it said if the test failed.
pub(crate) struct Proxy {
    pub(crate) process: Process,
    pub(crate) admin: SocketAddr,
    args: Vec<String>,
    variables: Vec<(String, String)>,
    admin_file: PathBuf,
    /// Its files; they go with it.
    _dir: TempDir,
}

impl Proxy {
    /// Starts with a bootstrap and waits until it is ready.
    pub(crate) async fn with(bootstrap: Value) -> Self {
        ProxyBuilder::new(bootstrap).ready().await
    }

    /// Asks the admin endpoint.
    pub(crate) async fn admin(&self, method: &str, path: &str) -> Answer {
        let mut connection = Http1::connect(self.admin).await;
        connection
            .send(&format!("{method} {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"))
            .await;
        connection.answer_to(method).await
    }

    pub(crate) async fn admin_text(&self, path: &str) -> String {
        let answer = self.admin("GET", path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.text()
    }

    pub(crate) async fn admin_json(&self, path: &str) -> Value {
        let text = self.admin_text(path).await;
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e} in {text}"))
    }

    pub(crate) async fn until_ready(&self) {
        eventually("/ready says 200", || async {
            (self.admin("GET", "/ready").await.status == 200).then_some(())
        })
        .await;
    }

    /// The bound address of a listener, once it has one.
    pub(crate) async fn listener(&self, name: &str) -> SocketAddr {
        eventually("the listener is bound", || self.find_listener(name)).await
    }

    /// The same of a listener that came just now: the workers may not listen yet.
    pub(crate) async fn new_listener(&self, name: &str) -> SocketAddr {
        eventually("the listener takes connections", async || {
            let address = self.find_listener(name).await?;
            TcpStream::connect(address).await.ok().map(|_connection| address)
        })
        .await
    }

    pub(crate) async fn find_listener(&self, name: &str) -> Option<SocketAddr> {
        let statuses = self.admin_json("/listeners?format=json").await;
        let statuses = statuses["listener_statuses"].as_array().cloned().unwrap_or_default();
        let status = statuses.iter().find(|status| status["name"] == name)?;
        let socket = &status["local_address"]["socket_address"];
        let address = socket["address"].as_str().unwrap();
        let port = u16::try_from(socket["port_value"].as_u64().unwrap()).unwrap();
        (port != 0).then(|| SocketAddr::new(address.parse().unwrap(), port))
    }

    /// The value of a counter or gauge; none if there is no such cell.
    pub(crate) async fn find_stat(&self, name: &str) -> Option<u64> {
        let text = self.admin_text("/stats").await;
        let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(": "))?;
        line.trim().parse().ok()
    }

    pub(crate) async fn stat(&self, name: &str) -> u64 {
        self.find_stat(name).await.unwrap_or_else(|| panic!("no stat {name}"))
    }

    /// Waits until a stat has a value.
    pub(crate) async fn until_stat(&self, name: &str, wanted: u64) {
        self.until_stat_is(name, &wanted.to_string(), |value| value == wanted).await;
    }

    /// Waits until a stat is at least a value.
    pub(crate) async fn until_stat_at_least(&self, name: &str, least: u64) -> u64 {
        self.until_stat_is(name, &format!("at least {least}"), |value| value >= least).await
    }

    async fn until_stat_is(&self, name: &str, what: &str, is: impl Fn(u64) -> bool) -> u64 {
        let end = Instant::now() + PATIENCE;
        loop {
            let seen = self.find_stat(name).await;
            if let Some(value) = seen.filter(|value| is(*value)) {
                return value;
            }
            assert!(Instant::now() < end, "{name} never was {what}; last seen: {seen:?}");
            pace(Duration::from_millis(5)).await;
        }
    }

    /// Waits until the log holds a text, and returns its line.
    pub(crate) async fn until_log(&self, text: &str) -> String {
        eventually(&format!("the log says {text:?}"), || {
            let log = self.process.stderr();
            std::future::ready(log.lines().find(|l| l.contains(text)).map(str::to_owned))
        })
        .await
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Asks it to end, and waits.
    pub(crate) async fn terminate(&mut self) -> ExitStatus {
        self.process.signal("TERM");
        self.process.exit().await
    }

    /// Starts it again after its end, with the same folder and options.
    pub(crate) async fn restart(&mut self) {
        self.process.kill();
        let (process, admin) = launch(&self.variables, &self.args, &self.admin_file).await;
        self.process = process;
        self.admin = admin;
    }
}
