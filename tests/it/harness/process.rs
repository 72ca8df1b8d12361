//! Child processes whose output is kept while they run.

use std::ffi::OsStr;
use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;

use parking_lot::Mutex;

use super::wait::eventually;

/// The program under test.
pub(crate) const NUNCIO: &str = env!("CARGO_BIN_EXE_nuncio");

/// A running child. Dropping it kills it.
pub(crate) struct Process {
    child: Child,
    stdout: Arc<Mutex<Vec<u8>>>,
    stderr: Arc<Mutex<Vec<u8>>>,
}

impl Process {
    /// With more environment variables than the tests have.
    pub(crate) fn start_in<A: AsRef<OsStr>>(
        variables: &[(String, String)],
        args: impl IntoIterator<Item = A>,
    ) -> Self {
        let mut child = Command::new(NUNCIO)
            .args(args)
            .envs(variables.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary was built with the tests");
        let stdout = follow(child.stdout.take().expect("it is piped"));
        let stderr = follow(child.stderr.take().expect("it is piped"));
        Self { child, stdout, stderr }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout.lock()).into_owned()
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr.lock()).into_owned()
    }

    /// Sends a signal by name, as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let status =
            Command::new("kill").args([format!("-{name}"), self.pid().to_string()]).status();
        assert!(status.unwrap().success(), "kill -{name}");
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub(crate) fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it is our child")
    }

    pub(crate) async fn exit(&mut self) -> ExitStatus {
        let child = &mut self.child;
        eventually("the process ends", || std::future::ready(child.try_wait().unwrap())).await
    }

    /// Resident memory in bytes.
    pub(crate) fn rss(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The most resident memory there was so far.
    pub(crate) fn peak_rss(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|l| l.starts_with(field)).expect("Linux reports it");
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.stderr();
            let from = log.len().saturating_sub(12_000);
            let from = (from..).find(|at| log.is_char_boundary(*at)).unwrap_or(0);
            eprintln!("---- stderr of nuncio ends ----\n{}----", &log[from..]);
        }
    }
}

fn follow(mut pipe: impl Read + Send + 'static) -> Arc<Mutex<Vec<u8>>> {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let writer = Arc::clone(&kept);
    std::thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(n @ 1..) = pipe.read(&mut piece) {
            writer.lock().extend_from_slice(&piece[..n]);
        }
    });
    kept
}

/// What a program that ends by itself said.
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Said {
    /// Both streams.
    pub(crate) fn all(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// Runs nuncio to its end.
pub(crate) async fn run<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Said {
    run_in(&[], args).await
}

/// The same with more environment variables than the tests have.
pub(crate) async fn run_in<A: AsRef<OsStr>>(
    variables: &[(String, String)],
    args: impl IntoIterator<Item = A>,
) -> Said {
    let mut process = Process::start_in(variables, args);
    let code = process.exit().await.code();
    // The threads that read the pipes may lag behind the end of the process.
    let mut last = None;
    let read = eventually("the output ends", || {
        let now = (process.stdout(), process.stderr());
        let settled = last.as_ref() == Some(&now) && (!now.0.is_empty() || !now.1.is_empty());
        last = Some(now.clone());
        std::future::ready(settled.then_some(now))
    });
    let (stdout, stderr) = read.await;
    Said { code, stdout, stderr }
}
