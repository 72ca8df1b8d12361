//! Text as a bootstrap: merged, taken apart, every static resource checked.
#![no_main]

use clap::Parser;
use libfuzzer_sys::fuzz_target;
use nuncio::server::bootstrap;
use nuncio::server::options::Options;

fuzz_target!(|text: &str| {
    let Ok(options) = Options::try_parse_from(["nuncio", "--config-yaml", text]) else { return };
    if let Err(errors) = bootstrap::load(&options) {
        for error in errors {
            let _ = error.to_string();
        }
    }
});
