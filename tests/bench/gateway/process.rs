//! The proxy as a process: what it has cost and what it holds.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::Failure;
use crate::wait::until;

/// A running nuncio. Dropping it kills it.
pub(crate) struct Process {
    child: Child,
    pub(crate) admin: SocketAddr,
}

impl Process {
    /// Starts the program that was built with this bench, with a bootstrap file in a folder that its log
    /// goes to as well.
    pub(crate) fn start(folder: &Path, bootstrap: &Path, workers: usize) -> Result<Self, Failure> {
        let admin_file = folder.join("admin");
        let mut child = Command::new(env!("CARGO_BIN_EXE_nuncio"))
            .arg("-c")
            .arg(bootstrap)
            .arg("--admin-address-path")
            .arg(&admin_file)
            .args(["--concurrency", &workers.to_string(), "--log-level", "warning"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.join("log"))?)
            .spawn()?;
        let admin = until("the admin address is written", || {
            if let Some(status) = child.try_wait()? {
                let log = fs::read_to_string(folder.join("log"))?;
                return Err(format!("nuncio ended with {status}: {log}").into());
            }
            let text = fs::read_to_string(&admin_file).unwrap_or_default();
            Ok(text.trim().parse().ok())
        })?;
        Ok(Self { child, admin })
    }

    fn proc(&self, what: &str) -> String {
        format!("/proc/{}/{what}", self.child.id())
    }

    /// Time on a processor so far, of all threads.
    pub(crate) fn cpu(&self) -> Result<Duration, Failure> {
        let mut nanos = 0;
        for task in fs::read_dir(self.proc("task"))? {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            let first = text.split_whitespace().next().ok_or("an empty schedstat")?;
            nanos += first.parse::<u64>()?;
        }
        Ok(Duration::from_nanos(nanos))
    }

    /// Resident memory in bytes.
    pub(crate) fn rss(&self) -> Result<u64, Failure> {
        let status = fs::read_to_string(self.proc("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().next());
        Ok(kilobytes.ok_or("a status without VmRSS")?.parse::<u64>()? << 10)
    }

    /// Open descriptors.
    pub(crate) fn descriptors(&self) -> Result<usize, Failure> {
        Ok(fs::read_dir(self.proc("fd"))?.count())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
