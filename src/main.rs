//! The `nuncio` binary: options, logging, then the server until a signal ends it.

use std::process::ExitCode;

use clap::Parser;
use nuncio::server::options::{LogFormat, Mode, Options};
use nuncio::server::{Server, bootstrap};

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let options = Options::parse();
    start_logging(&options);
    match options.mode {
        Mode::Validate => validate(&options),
        Mode::Serve => serve(options),
    }
}

fn start_logging(options: &Options) {
    let log = tracing_subscriber::fmt()
        .with_max_level(options.log_level.filter())
        .with_writer(std::io::stderr);
    match options.log_format {
        LogFormat::Text => log.with_ansi(false).init(),
        LogFormat::Json => log.json().init(),
    }
}

fn validate(options: &Options) -> ExitCode {
    match bootstrap::validate(options, &mut std::io::stdout()) {
        Ok(true) => ExitCode::SUCCESS,
        // Also if whoever asked does not listen any more.
        Ok(false) | Err(_) => ExitCode::FAILURE,
    }
}

fn serve(options: Options) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(Server::run(options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("cannot start: {error}");
            ExitCode::FAILURE
        }
    }
}
