//! The commands that do something else than serve, and end.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use nuncio_xds_server::Problem;
use nuncio_xds_server::api::document;
use nuncio_xds_server::gateway::{Checked, Flavour, check, schema};

use crate::ctl::Ctl;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Checks a gateway file: every error with line and column, and 1 as the exit code.
    Check {
        /// The file.
        file: PathBuf,
        #[command(flatten)]
        which: Which,
    },
    /// Shows the resources that a gateway file becomes, as YAML that `--config` takes.
    Explain {
        /// The file.
        file: PathBuf,
        #[command(flatten)]
        which: Which,
    },
    /// Shows the JSON Schema of gateway files, for editors.
    Schema,
    /// Shows the OpenAPI document of the API that changes instances.
    Openapi,
    /// Changes and lists instances through the API of a server that runs.
    Ctl(Ctl),
    /// Shows what proxies receive when one gateway file takes the place of another.
    Diff {
        /// The file that they have.
        old: PathBuf,
        /// The file that they get.
        new: PathBuf,
        #[command(flatten)]
        which: Which,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Which {
    /// Who is to understand the resources.
    #[arg(long, value_enum, default_value_t)]
    flavour: Flavour,
}

impl Command {
    pub(crate) async fn run(self) -> Result<(), String> {
        match self {
            Self::Check { file, which } => {
                let checked = checked(&file, &which)?;
                say(&format!("{}: good: {}\n", file.display(), checked.summary()))
            }
            Self::Explain { file, which } => say(&checked(&file, &which)?.explain()),
            Self::Schema => say(&schema()),
            Self::Openapi => say(&document()),
            Self::Ctl(ctl) => say(&ctl.run().await?),
            Self::Diff { old, new, which } => {
                let old = checked(&old, &which)?;
                say(&checked(&new, &which)?.diff(&old))
            }
        }
    }
}

/// A good file, its warnings told.
fn checked(file: &Path, which: &Which) -> Result<Checked, String> {
    let checked = check(file, which.flavour).map_err(|problems| lines(&problems))?;
    for warning in &checked.warnings {
        let _ = writeln!(std::io::stderr(), "warning: {warning}");
    }
    Ok(checked)
}

/// Each on a line of its own.
pub(crate) fn lines(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn say(text: &str) -> Result<(), String> {
    let mut out = std::io::stdout();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| format!("cannot write: {error}"))
}
