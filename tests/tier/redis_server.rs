//! Real servers on free ports, without a word on disk.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use redis::aio::MultiplexedConnection;
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::eventually;

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
