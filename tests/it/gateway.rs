//! Gateway files, translated by `xds-server` and carried by the proxy: each key of the file is in a
//! case of `gateway/keys/*.keys`, which says what it does to traffic.
//!
//! ```text
//! case weights are honoured                 one management server and one proxy a case
//! key services[].instances[].weight         the keys that it is about; every key is in one
//! | services: [...]                         the file. $a to $e are origins, as URLs
//! origin a 503 | cache-control: no-store    what an origin answers from now on, also before the start
//! > x4 GET / | x-session-id: me             requests, one after the other, each on its own connection
//! = 200 | cache-status: *hit* | !vary       of the last one: status, headers by pattern, headers without
//! share a=3 b=1                             of all since the last `>`: who answered
//! ```
//!
//! [`story`] has the verbs, `$one`, `$two` and `$three` stand for a service `s` of so many instances and a
//! route to it, and a file without listeners gets one.

mod changes;
mod distribution;
mod format;
mod metrics;
mod story;
mod world;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::panic::AssertUnwindSafe;
use std::path::Path;

use futures_util::{FutureExt, StreamExt};
use nuncio_xds_server::gateway::schema;
use serde_json::Value;

use format::Case;

/// Each has a proxy of its own, and the machine few cores.
const AT_ONCE: usize = 4;

fn cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/gateway/keys");
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = entries.collect();
    paths.sort();
    paths.iter().flat_map(|path| format::parse(path)).collect()
}

#[tokio::test]
async fn every_key_does_what_its_case_says() {
    let runs = cases().into_iter().map(|case| async move {
        let told = format!("{}: {}", case.at, case.story);
        // What is waited for in vain panics, and the others shall be told all the same.
        let faults = match AssertUnwindSafe(story::run(&case)).catch_unwind().await {
            Ok(faults) => faults,
            Err(panic) => {
                vec![panic.downcast::<String>().map_or_else(|_| "panicked".into(), |m| *m)]
            }
        };
        (!faults.is_empty()).then(|| format!("{told}: {}", faults.join("; ")))
    });
    let failed: Vec<_> = futures_util::stream::iter(runs)
        .buffer_unordered(AT_ONCE)
        .filter_map(std::future::ready)
        .collect()
        .await;
    assert!(failed.is_empty(), "{} cases failed:\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn every_key_has_a_case_and_every_case_a_key() {
    let schema: Value = serde_json::from_str(&schema()).unwrap();
    let mut keys = BTreeSet::new();
    leaves("", &schema, &mut keys);
    let cases = cases();
    let said: BTreeSet<String> = cases.iter().flat_map(|case| case.keys.clone()).collect();
    let mut report = String::new();
    for key in keys.difference(&said) {
        writeln!(report, "no case for {key}").unwrap();
    }
    for key in said.difference(&keys) {
        writeln!(report, "no key {key}").unwrap();
    }
    for case in cases.iter().filter(|case| case.keys.is_empty()) {
        writeln!(report, "{}: of no key", case.at).unwrap();
    }
    assert!(report.is_empty(), "{report}");
}

/// The keys without keys below them.
fn leaves(at: &str, schema: &Value, keys: &mut BTreeSet<String>) {
    if let Some(properties) = schema["properties"].as_object() {
        for (name, below) in properties {
            let dot = if at.is_empty() { "" } else { "." };
            leaves(&format!("{at}{dot}{name}"), below, keys);
        }
    } else if schema["items"]["properties"].is_object() {
        leaves(&format!("{at}[]"), &schema["items"], keys);
    } else if schema["additionalProperties"]["properties"].is_object() {
        leaves(&format!("{at}.NAME"), &schema["additionalProperties"], keys);
    } else {
        keys.insert(at.to_owned());
    }
}
