//! Real servers on free ports, without a word on disk, and proxies that use them.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nuncio::cache::tier::{self, Config, Event, Found, Lookup, Tier, TierStats};
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Handle;

use crate::wait::eventually;

/// A request's patience: more than a busy machine needs for an answer.
pub(crate) const TIMEOUT: Duration = Duration::from_millis(200);

/// As long as nobody wants to wait for a test.
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// A redis-server. Dropping it kills it.
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
    options: Vec<String>,
    dir: TempDir,
}

impl Server {
    /// Starts one. None if the program is not here, which is no excuse where all checks are run.
    pub(crate) async fn start(options: &[&str]) -> Option<Self> {
        if Command::new("redis-server").arg("--version").output().is_err() {
            assert!(std::env::var_os("CI").is_none(), "redis-server is not in PATH");
            // Not by the macro, whose text a test that passes keeps to itself.
            let text = b"SKIPPED: redis-server is not in PATH, so the shared tier is not tested\n";
            std::io::stderr().write_all(text).unwrap();
            return None;
        }
        let options: Vec<_> = options.iter().map(ToString::to_string).collect();
        // Another may take the port meanwhile.
        Some(
            eventually("a server starts", async || {
                let (port, dir) = (free_port().await, TempDir::new().unwrap());
                let child = spawn(port, &options, dir.path());
                let mut server = Self { child, port, options: options.clone(), dir };
                server.is_up().await.then_some(server)
            })
            .await,
        )
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Sends a signal by name, as `STOP`.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it anew, with nothing in it.
    pub(crate) async fn restart(&mut self) {
        eventually("the port is free again", async || {
            self.child = spawn(self.port, &self.options, self.dir.path());
            self.is_up().await.then_some(())
        })
        .await;
    }

    /// Asks it something, as an operator would.
    pub(crate) async fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query_async(&mut self.connect().await.unwrap()).await.unwrap()
    }

    async fn connect(&self) -> redis::RedisResult<MultiplexedConnection> {
        let client = redis::Client::open(format!("redis://{}", self.address()))?;
        client.get_multiplexed_async_connection().await
    }

    async fn is_up(&mut self) -> bool {
        eventually("the server is up or gone", async || {
            if self.child.try_wait().unwrap().is_some() {
                return Some(false);
            }
            match self.connect().await {
                Ok(_) => Some(true),
                // It is there and wants a password.
                Err(error) => error.to_string().contains("NOAUTH").then_some(true),
            }
        })
        .await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(port: u16, options: &[String], dir: &Path) -> Child {
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
        .args(["--appendonly", "no", "--dir"])
        .arg(dir)
        .args(options)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

pub(crate) async fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().port()
}

/// What of a proxy has to do with the tier.
pub(crate) struct Proxy {
    pub(crate) tier: Arc<dyn Tier>,
    pub(crate) stats: Arc<TierStats>,
    events: Arc<Mutex<Vec<Event>>>,
}

impl Proxy {
    pub(crate) fn new(addresses: &[String], cluster: bool) -> Self {
        let stats = Arc::<TierStats>::default();
        let events = Arc::<Mutex<Vec<Event>>>::default();
        let heard = Arc::clone(&events);
        let prefix = "nuncio:".to_owned();
        let config = Config { addresses: addresses.to_vec(), cluster, timeout: TIMEOUT, prefix };
        let on_event = Box::new(move |event| heard.lock().push(event));
        let tier = tier::start(config, &Handle::current(), Arc::clone(&stats), on_event).unwrap();
        Self { tier, stats, events }
    }

    /// One that has found the server.
    pub(crate) async fn connected(server: &Server) -> Self {
        let proxy = Self::new(&[server.address()], false);
        proxy.until_connected().await;
        proxy
    }

    pub(crate) async fn until_connected(&self) {
        eventually("the tier is there", async || (self.stats.connected.value() == 1).then_some(()))
            .await;
    }

    pub(crate) async fn get(&self, key: &str) -> Lookup {
        self.tier.get(key.as_bytes()).await
    }

    /// What is found; a busy machine may need more than one try.
    pub(crate) async fn found(&self, key: &str) -> Found {
        eventually("it is found", async || self.get(key).await.found).await
    }

    /// Makes sure that there is nothing, and not merely no answer.
    pub(crate) async fn assert_none(&self, key: &str) {
        eventually("it is not found", async || {
            let before = (self.stats.timeout.value(), self.stats.skipped.value());
            assert_eq!(self.get(key).await.found, None, "{key}");
            (before == (self.stats.timeout.value(), self.stats.skipped.value())).then_some(())
        })
        .await;
    }

    /// Fills as after a lookup, and waits until it is written.
    pub(crate) async fn fill(&self, key: &str, value: &str) {
        let lookup = self.get(key).await;
        self.fill_from(key, value, &lookup).await;
    }

    /// Ends the fill that a lookup began, and waits until it is written or refused.
    pub(crate) async fn fill_from(&self, key: &str, value: &str, lookup: &Lookup) {
        let ended = || {
            let TierStats { written, write_refused, write_dropped, .. } = &*self.stats;
            written.value() + write_refused.value() + write_dropped.value()
        };
        let before = ended();
        let (key, value) = (key.to_owned().into(), value.to_owned().into());
        self.tier.fill(key, value, HOUR, &lookup.stamp);
        eventually("the fill ends", async || (ended() > before).then_some(())).await;
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.events.lock().clone()
    }

    pub(crate) async fn heard(&self, message: &'static str) {
        let event = Event::Message(message.into());
        eventually("the message comes", async || self.events().contains(&event).then_some(()))
            .await;
    }

    pub(crate) fn missed(&self) -> usize {
        self.events().iter().filter(|event| **event == Event::Missed).count()
    }
}
