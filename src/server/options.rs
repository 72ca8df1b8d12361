//! The command line, in Envoy's own names.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

/// An Envoy-compatible, xDS-configured gateway proxy.
#[derive(Debug, Clone, Parser)]
#[command(name = "nuncio", version, about)]
pub struct Options {
    /// The bootstrap: an Envoy v3 bootstrap in YAML or JSON.
    #[arg(short = 'c', long, value_name = "FILE")]
    pub config_path: Option<PathBuf>,

    /// Bootstrap text that is merged over that of the file.
    #[arg(long, value_name = "TEXT", required_unless_present = "config_path")]
    pub config_yaml: Option<String>,

    /// Worker threads; by default one for each core.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub concurrency: Option<u16>,

    /// Serve, or only say whether the configuration is good.
    #[arg(long, value_enum, default_value_t = Mode::Serve)]
    pub mode: Mode,

    /// Replaces node.id.
    #[arg(long, value_name = "ID")]
    pub service_node: Option<String>,

    /// Replaces node.cluster.
    #[arg(long, value_name = "NAME")]
    pub service_cluster: Option<String>,

    /// Replaces node.locality.zone.
    #[arg(long, value_name = "ZONE")]
    pub service_zone: Option<String>,

    /// What is logged: trace, debug, info, warning, error, critical or off.
    #[arg(short = 'l', long, value_enum, default_value_t = LogLevel::Info)]
    pub log_level: LogLevel,

    /// How it is logged.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// Where to write the address that the admin endpoint is bound to.
    #[arg(long, value_name = "FILE")]
    pub admin_address_path: Option<PathBuf>,

    /// Seconds that connections of a listener that is gone or changed may go on.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub drain_time_s: u32,

    /// A directory in which the last good configuration is kept, to start from while the management
    /// server is down.
    #[arg(long, value_name = "DIR")]
    pub snapshot_dir: Option<PathBuf>,
}

/// What the process is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Carry traffic.
    Serve,
    /// Check the configuration and end.
    Validate,
}

/// The least severe of what is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Every request.
    Trace,
    /// Every connection.
    Debug,
    /// What changes with configuration.
    Info,
    /// What was refused or degraded.
    #[value(alias = "warn")]
    Warning,
    /// What somebody must act upon.
    Error,
    /// As error; Envoy knows a level above it.
    Critical,
    /// Nothing.
    Off,
}

/// The form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Options {
    /// How many workers to start.
    pub fn workers(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.concurrency.map_or_else(cores, usize::from)
    }

    /// How long connections of a listener that is gone or changed may go on.
    pub fn drain_time(&self) -> Duration {
        Duration::from_secs(self.drain_time_s.into())
    }
}

impl LogLevel {
    /// The filter that `tracing` has for it.
    pub fn filter(self) -> tracing::level_filters::LevelFilter {
        use tracing::level_filters::LevelFilter;
        match self {
            Self::Trace => LevelFilter::TRACE,
            Self::Debug => LevelFilter::DEBUG,
            Self::Info => LevelFilter::INFO,
            Self::Warning => LevelFilter::WARN,
            Self::Error | Self::Critical => LevelFilter::ERROR,
            Self::Off => LevelFilter::OFF,
        }
    }
}

/// An environment variable. Only those that OpenTelemetry defines are asked for: deployments set them for
/// every process alike.
#[expect(clippy::disallowed_methods, reason = "here is where options come from")]
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Options, String> {
        let args = ["nuncio"].iter().chain(args);
        Options::try_parse_from(args).map_err(|error| error.to_string())
    }

    #[test]
    fn names_and_defaults_are_envoys() {
        let options = parse(&["-c", "b.yaml", "-l", "warning", "--mode", "validate"]).unwrap();
        assert_eq!(options.config_path.as_deref(), Some("b.yaml".as_ref()));
        assert_eq!((options.log_level, options.mode), (LogLevel::Warning, Mode::Validate));
        assert_eq!(options.drain_time(), Duration::from_secs(600));
        assert!(options.workers() >= 1);
        assert!(parse(&["--config-yaml", "{}", "--concurrency", "2"]).unwrap().workers() == 2);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert!(parse(&[]).unwrap_err().contains("--config-yaml"));
        assert!(parse(&["-c", "b", "--concurrency", "0"]).unwrap_err().contains("1..=1024"));
        assert!(parse(&["-c", "b", "--mode", "dance"]).unwrap_err().contains("validate"));
    }
}
