//! A client that others wrote: `curl --compressed` gets the bytes that the origin has.

use std::process::Command;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use serde_json::{Value, json};

use super::envoy::compressor;
use super::{compression, lines, page, proxied};
use crate::harness::{Origin, Script};

/// What curl says, run while the origin answers here.
async fn curl(args: Vec<String>) -> Vec<u8> {
    let run = move || Command::new("curl").args(args).output();
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    let output = output.expect("curl is installed; these stories are told with it");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "curl ended with {}: {said}", output.status);
    output.stdout
}

fn args(args: &[&str]) -> Vec<String> {
    args.iter().map(|&arg| arg.to_owned()).collect()
}

/// Our filter and Envoy's, each in one coding that curl may know, with curl's name of the feature.
fn filters() -> Vec<(&'static str, &'static str, Value)> {
    let ours = [("gzip", "libz"), ("deflate", "libz"), ("br", "brotli"), ("zstd", "zstd")];
    let ours = ours.map(|(coding, feature)| {
        (coding, feature, compression(json!({ "encodings": [{ "coding": coding }] })))
    });
    let envoys = [
        ("gzip", "libz", "gzip.compressor.v3.Gzip"),
        ("br", "brotli", "brotli.compressor.v3.Brotli"),
        ("zstd", "zstd", "zstd.compressor.v3.Zstd"),
    ];
    let envoys = envoys
        .map(|(coding, feature, library)| (coding, feature, compressor("c", library, json!({}))));
    ours.into_iter().chain(envoys).collect()
}

#[tokio::test]
async fn curl_gets_the_bytes_of_the_origin_in_every_coding_that_it_knows() {
    let version = String::from_utf8(curl(args(&["--version"])).await).unwrap();
    let features = version.lines().find_map(|line| line.strip_prefix("Features: "));
    let features: Vec<_> = features.expect("curl has features").split(' ').collect();
    assert!(features.contains(&"libz"), "a curl without gzip shows nothing: {version}");
    let mut versions = vec!["--http1.1"];
    versions.extend(features.contains(&"HTTP2").then_some("--http2-prior-knowledge"));

    let mut noise = vec![0; 200_000];
    StdRng::seed_from_u64(1).fill_bytes(&mut noise);
    let bodies = [lines(1).into_bytes(), lines(1_000).into(), lines(80_000).into(), noise];
    for (coding, feature, filter) in filters() {
        if !features.contains(&feature) {
            eprintln!("this curl does not know {coding}");
            continue;
        }
        let origin = Origin::http1("one").await;
        let (proxy, address) = proxied(&origin, std::slice::from_ref(&filter)).await;
        for body in &bodies {
            let script = Script { body: Some(Bytes::copy_from_slice(body)), ..page("") };
            for (version, script) in versions.iter().flat_map(|version| {
                [(version, script.clone()), (version, script.clone().chunked())]
            }) {
                origin.script(script);
                let url = format!("http://{address}/");
                let got = curl(args(&["-sS", "--compressed", version, &url])).await;
                assert!(got == *body, "{} of {} bytes, {filter} {version}", got.len(), body.len());
            }
        }
        // The two that are large came encoded in any case.
        let encoded = 2 * 2 * versions.len() as u64;
        let cell = format!("http.in.compression.{coding}.response.bodies");
        proxy.until_stat_at_least(&cell, encoded).await;
    }
}
