//! Where lines go: files, standard output and standard error, off the path of the request.
//!
//! A target has one buffer for each worker, so that workers do not wait for each other. A worker
//! formats its line straight into its buffer; one thread for the whole process takes what the
//! buffers hold every second, or as soon as one holds 64 KiB, and writes it. It holds a buffer's
//! lock only to exchange the buffer for an empty one, never while it writes, so a disk that hangs
//! holds nobody up: buffers grow to 1 MiB, then lines are dropped and counted.
//!
//! Lines stay whole, and in order among those of one worker. A file is opened once however many
//! access logs name it, and closed when the last of them is gone.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::Thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::output::{Output, Progress};
use crate::config::Fault;
use crate::telemetry::{Scope, Telemetry};

/// How often buffers are written that are not full.
pub const FLUSH_INTERVAL: Duration = Duration::from_secs(1);
/// A buffer is written at once when it holds so many bytes.
const FLUSH_BYTES: usize = 64 * 1024;
/// A buffer holds no more bytes than this; lines that do not fit are dropped.
const BUFFER_BYTES: usize = 1024 * 1024;

crate::stats! {
    /// What the writer of access logs counts, under Envoy's names; scope `filesystem`.
    pub struct FilesystemStats {
        /// Buffers written whole.
        counter write_completed,
        /// Buffers of which some lines could not be written, which are lost.
        counter write_failed,
        /// Files that could not be opened again.
        counter reopen_failed,
    }
}

crate::stats! {
    /// What access logs count; scope `access_log`.
    pub struct AccessLogStats {
        /// Lines dropped because the writer did not keep up.
        counter logs_dropped,
    }
}

/// What lines are written to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// Appended to a file.
    File(PathBuf),
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Target {
    /// The target of a path: the names of the standard streams mean those, which need not be files.
    pub fn of_path(path: &str) -> Self {
        match path {
            "/dev/stdout" => Self::Stdout,
            "/dev/stderr" => Self::Stderr,
            path => Self::File(Path::new(path).into()),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "access log {path:?}"),
            Self::Stdout => f.write_str("standard output"),
            Self::Stderr => f.write_str("standard error"),
        }
    }
}

/// The open targets of the process, owned by the server. Cheap to clone; [`Sinks::shutdown`] ends
/// the writer.
#[derive(Clone)]
pub struct Sinks(Arc<Owner>);

struct Owner {
    shared: Arc<Shared>,
    workers: usize,
    opens_files: bool,
}

/// What the writer and the handles have in common.
struct Shared {
    state: Mutex<State>,
    /// The writer has finished a round.
    round_done: Condvar,
    filesystem: Arc<FilesystemStats>,
    access_log: Arc<AccessLogStats>,
}

#[derive(Default)]
struct State {
    sinks: HashMap<Target, Arc<Sink>>,
    writer: Option<Thread>,
    /// Rounds that were asked for, and the last one that is done.
    rounds_wanted: u64,
    rounds_done: u64,
    reopen: bool,
    stop: bool,
}

/// One open target. Lines are added by any thread.
pub struct Sink {
    buffers: Box<[Buffer]>,
    output: Mutex<Output>,
    writer: Option<Thread>,
    stats: Arc<AccessLogStats>,
}

/// Aligned so that no two workers share a cache line.
#[derive(Default)]
#[repr(align(64))]
struct Buffer(Mutex<Vec<u8>>);

impl Sinks {
    /// No targets yet; the writer starts with the first. `workers` is how many threads write lines.
    pub fn new(workers: usize, telemetry: &Telemetry) -> Self {
        Self::build(workers, true, telemetry)
    }

    /// Targets that are only looked at, for checking a configuration: nothing is opened, made or
    /// written.
    pub fn check_only() -> Self {
        Self::build(1, false, &Telemetry::default())
    }

    fn build(workers: usize, opens_files: bool, telemetry: &Telemetry) -> Self {
        let shared = Shared {
            state: Mutex::default(),
            round_done: Condvar::new(),
            filesystem: telemetry.group(Scope::global("filesystem")),
            access_log: telemetry.group(Scope::global("access_log")),
        };
        Self(Arc::new(Owner { shared: Arc::new(shared), workers: workers.max(1), opens_files }))
    }

    /// The sink of `target`, opened now unless it is open already.
    ///
    /// # Errors
    /// [`Fault::System`] when the file cannot be opened or the writer cannot be started.
    pub fn open(&self, target: &Target) -> Result<Arc<Sink>, Fault> {
        let mut state = self.0.shared.state.lock();
        if let Some(sink) = state.sinks.get(target) {
            return Ok(Arc::clone(sink));
        }
        let output = match self.0.opens_files {
            true => Output::open(target.clone()).map_err(|e| Fault::System {
                action: format!("opening {target}"),
                reason: e.to_string(),
            })?,
            false => Output::nowhere(target.clone()),
        };
        let writer = match self.0.opens_files {
            true => Some(self.writer(&mut state)?),
            false => None,
        };
        let sink = Arc::new(Sink {
            buffers: (0..self.0.workers).map(|_| Buffer::default()).collect(),
            output: Mutex::new(output),
            writer,
            stats: Arc::clone(&self.0.shared.access_log),
        });
        state.sinks.insert(target.clone(), Arc::clone(&sink));
        Ok(sink)
    }

    fn writer(&self, state: &mut State) -> Result<Thread, Fault> {
        if let Some(writer) = &state.writer {
            return Ok(writer.clone());
        }
        let shared = Arc::clone(&self.0.shared);
        let handle = std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || run(&shared))
            .map_err(|e| Fault::System {
                action: "starting the writer of access logs".into(),
                reason: e.to_string(),
            })?;
        let writer = handle.thread().clone();
        state.writer = Some(writer.clone());
        Ok(writer)
    }

    /// Writes what the buffers hold and opens every file again by its name, as a log rotation
    /// wants. A file that cannot be opened goes on as it is.
    pub fn reopen(&self) {
        self.0.shared.state.lock().reopen = true;
        self.0.shared.wake();
    }

    /// Writes what the buffers hold now. Blocks; false if that took longer than `longest`.
    pub fn flush(&self, longest: Duration) -> bool {
        self.0.shared.next_round(longest, false)
    }

    /// Writes what the buffers hold and ends the writer. Blocks; false if that took longer than
    /// `longest`, such as on a disk that hangs. Lines that come later are lost.
    pub fn shutdown(&self, longest: Duration) -> bool {
        let done = self.0.shared.next_round(longest, true);
        if !done {
            tracing::warn!("access logs could not be written in time; lines are lost");
        }
        done
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.state.lock().stop = true;
        self.shared.wake();
    }
}

impl fmt::Debug for Sinks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sinks").field("open", &self.0.shared.state.lock().sinks.len()).finish()
    }
}

impl Shared {
    fn wake(&self) {
        if let Some(writer) = &self.state.lock().writer {
            writer.unpark();
        }
    }

    /// Waits until the writer has done a round that began after this call, its last if `stop`.
    fn next_round(&self, longest: Duration, stop: bool) -> bool {
        let mut state = self.state.lock();
        state.stop |= stop;
        let Some(writer) = &state.writer else { return true };
        writer.unpark();
        state.rounds_wanted += 1;
        let wanted = state.rounds_wanted;
        let waits = |s: &mut State| s.rounds_done < wanted && s.writer.is_some();
        !self.round_done.wait_while_for(&mut state, waits, longest).timed_out()
    }
}

/// The writer: a round a second, or when it is woken, until it is stopped.
fn run(shared: &Shared) {
    let mut spare = Vec::new();
    loop {
        std::thread::park_timeout(FLUSH_INTERVAL);
        let mut state = shared.state.lock();
        let (round, stop) = (state.rounds_wanted, state.stop);
        let reopen = std::mem::take(&mut state.reopen);
        // What nobody logs to any more is written a last time and closed.
        let sinks: Vec<_> = state.sinks.values().map(Arc::clone).collect();
        state.sinks.retain(|_, sink| Arc::strong_count(sink) > 2);
        drop(state);

        for sink in sinks {
            sink.write_out(&mut spare, &shared.filesystem);
            if reopen && let Err(error) = sink.output.lock().reopen() {
                shared.filesystem.reopen_failed.inc();
                tracing::warn!(%error, "an access log could not be opened again");
            }
        }

        let mut state = shared.state.lock();
        state.rounds_done = round;
        if stop {
            state.writer = None;
            state.sinks.clear();
        }
        shared.round_done.notify_all();
        if stop {
            return;
        }
    }
}

impl Sink {
    /// Adds what `format` appends, which must be whole lines. Never waits for a disk; costs the
    /// formatting and a lock that is free.
    pub fn add(&self, format: impl FnOnce(&mut Vec<u8>)) {
        let mut lines = self.buffers[worker() % self.buffers.len()].0.lock();
        let before = lines.len();
        format(&mut lines);
        let after = lines.len();
        if after > BUFFER_BYTES {
            lines.truncate(before);
            self.stats.logs_dropped.inc();
            return;
        }
        drop(lines);
        if before < FLUSH_BYTES
            && after >= FLUSH_BYTES
            && let Some(writer) = &self.writer
        {
            writer.unpark();
        }
    }

    /// Writes what the buffers hold. `spare` is an empty buffer that takes the place of a full one.
    fn write_out(&self, spare: &mut Vec<u8>, stats: &FilesystemStats) {
        let mut output = self.output.lock();
        for buffer in &self.buffers {
            std::mem::swap(spare, &mut *buffer.0.lock());
            if !spare.is_empty() {
                match output.write(spare) {
                    Progress::Written => stats.write_completed.inc(),
                    Progress::Failed => stats.write_failed.inc(),
                }
                spare.clear();
            }
            if spare.capacity() > 2 * FLUSH_BYTES {
                *spare = Vec::new();
            }
        }
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink").finish_non_exhaustive()
    }
}

/// The calling thread's number, counted from 0 as threads first log. It chooses a buffer only, so
/// threads that share a number lose nothing but a little time.
fn worker() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: Cell<Option<usize>> = const { Cell::new(None) };
    }
    NUMBER.with(|number| {
        number.get().unwrap_or_else(|| {
            let assigned = NEXT.fetch_add(1, Ordering::Relaxed);
            number.set(Some(assigned));
            assigned
        })
    })
}

#[cfg(test)]
mod tests;
