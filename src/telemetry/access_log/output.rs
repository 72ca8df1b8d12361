//! The writing end of a target: bytes to the operating system, and what to do when it refuses.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use super::sink::Target;

/// An open target.
pub(super) struct Output {
    target: Target,
    to: To,
    /// The last write failed; said once until one succeeds.
    failing: bool,
    /// The last write broke off within a line.
    mid_line: bool,
}

enum To {
    File(File),
    Stdout,
    Stderr,
    Nowhere,
}

/// How a write went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// All of it is written.
    Written,
    /// Some of it is lost.
    Failed,
}

impl Output {
    pub(super) fn open(target: Target) -> io::Result<Self> {
        let to = match &target {
            Target::File(path) => To::File(append_to(path)?),
            Target::Stdout => To::Stdout,
            Target::Stderr => To::Stderr,
        };
        Ok(Self { target, to, failing: false, mid_line: false })
    }

    /// An output that takes everything and writes nothing.
    pub(super) fn nowhere(target: Target) -> Self {
        Self { target, to: To::Nowhere, failing: false, mid_line: false }
    }

    /// Opens a file again by its name; the old one stays if that fails.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        if let (To::File(_), Target::File(path)) = (&self.to, &self.target) {
            self.to = To::File(append_to(path)?);
            self.mid_line = false;
        }
        Ok(())
    }

    /// Writes whole lines. What cannot be written is lost; the next write begins on a new line.
    pub(super) fn write(&mut self, lines: &[u8]) -> Progress {
        let result = self.try_write(lines);
        match (&result, self.failing) {
            (Err(error), false) => {
                tracing::warn!(log = %self.target, %error, "an access log cannot be written");
            }
            (Ok(()), true) => {
                tracing::info!(log = %self.target, "an access log can be written again");
            }
            _ => {}
        }
        self.failing = result.is_err();
        match result {
            Ok(()) => Progress::Written,
            Err(_) => Progress::Failed,
        }
    }

    fn try_write(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.mid_line {
            self.to.write_once(b"\n")?;
            self.mid_line = false;
        }
        let mut written = 0;
        while written < lines.len() {
            match self.to.write_once(&lines[written..]) {
                Ok(n) => {
                    written += n;
                    self.mid_line = lines[written - 1] != b'\n';
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.to.flush()
    }
}

impl To {
    /// Writes at least one byte.
    fn write_once(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match self {
            Self::File(file) => file.write(bytes)?,
            Self::Stdout => io::stdout().write(bytes)?,
            Self::Stderr => io::stderr().write(bytes)?,
            Self::Nowhere => bytes.len(),
        };
        if written == 0 { Err(ErrorKind::WriteZero.into()) } else { Ok(written) }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout => io::stdout().flush(),
            Self::File(_) | Self::Stderr | Self::Nowhere => Ok(()),
        }
    }
}

/// Opens a file to append to, and makes it if there is none.
fn append_to(path: &Path) -> io::Result<File> {
    // To open a pipe for writing alone waits until somebody reads it, which may be never.
    let is_pipe = path.metadata().is_ok_and(|m| m.file_type().is_fifo());
    OpenOptions::new().append(true).create(true).read(is_pipe).open(path)
}
