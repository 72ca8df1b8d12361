//! The bars that the gateway is held to, measured through the real binary.
//!
//! `cargo bench --bench gateway` measures all, `cargo bench --bench gateway -- cache reuse` some. Each starts
//! origins, a management server with a gateway file, and the proxy as a process, sends requests over real
//! sockets, and prints a row: what, figure, bar, and whether it is met. The exit code is 1 if one is not.
//!
//! ```text
//! clients ──► nuncio ──► origins        threads of this process, but for nuncio
//!               ▲
//! gateway.yaml ─┘ management server
//! ```
//!
//! Clients and origins take their part of the machine beside the proxy, so let nothing else run on it, and
//! read CPU per request rather than requests per second. docs/performance.md says what the figures mean.

mod cache;
mod client;
mod compression;
mod distribution;
mod health;
mod load;
mod memory;
mod mix;
mod origin;
mod pace;
#[path = "../payload.rs"]
mod payload;
mod process;
mod reuse;
mod scrape;
mod wait;
mod world;

use std::error::Error;
use std::process::ExitCode;

type Failure = Box<dyn Error + Send + Sync>;

/// One figure beside what it is held to.
struct Bar {
    what: &'static str,
    figure: String,
    bar: &'static str,
    is_met: bool,
}

type Measure = fn() -> Result<Vec<Bar>, Failure>;

const ALL: [(&str, Measure); 7] = [
    ("distribution", distribution::measure),
    ("cache", cache::measure),
    ("reuse", reuse::measure),
    ("compression", compression::measure),
    ("health", health::measure),
    ("scrape", scrape::measure),
    ("memory", memory::measure),
];

fn main() -> ExitCode {
    let arguments = std::env::args().skip(1);
    // Cargo adds some of its own.
    let names: Vec<String> = arguments.filter(|argument| !argument.starts_with('-')).collect();
    if let Some(unknown) = names.iter().find(|name| !ALL.iter().any(|(known, _)| known == name)) {
        let known = ALL.map(|(name, _)| name).join(", ");
        say(&format!("{unknown:?} is none of {known}"));
        return ExitCode::FAILURE;
    }
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    say(&format!(
        "{processors} processors, shared by nuncio, {} clients and origins",
        world::CLIENTS
    ));
    let mut all_met = true;
    for (name, measure) in ALL {
        if !names.is_empty() && !names.iter().any(|chosen| chosen == name) {
            continue;
        }
        match measure() {
            Ok(bars) => {
                for Bar { what, figure, bar, is_met } in bars {
                    all_met &= is_met;
                    let verdict = if is_met { "met" } else { "MISSED" };
                    say(&format!("{name:<12} | {what:<32} | {figure:<52} | {bar:<24} | {verdict}"));
                }
            }
            Err(error) => {
                all_met = false;
                say(&format!("{name:<12} | FAILED: {error}"));
            }
        }
    }
    if all_met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[expect(clippy::print_stdout, reason = "the table is what this is for")]
fn say(line: &str) {
    println!("{line}");
}

/// The one in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
