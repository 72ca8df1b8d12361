//! Cases as data: what a client asks, what the origin answers, and what comes of it. They are text, in
//! `cases/*.cases`, one proxy a file:
//!
//! ```text
//! config {"entity_tags": "KEEP"}    the filter's, before the first case, if it has one
//!
//! case the client's best wins
//! > GET /path                       the request, `GET /` if it is not said
//! > accept-encoding: gzip           a header of it
//! < 200                             the origin's answer: 200, HTML, if it is not said
//! < size: 4000                      bytes of its body, which are text; 4,000 unless said; `chunked`
//! < etag: "1"                       a header of it; `!content-type` takes the usual one away
//! ^ range: bytes=0-                 a header that the origin received; `^ !name` is absent
//! = 200                             the status, as the origin's if it is not said
//! = content-encoding: gzip          a header that the client sees; `= !name` is absent
//! ```
//!
//! The body, decoded, is always the origin's, and one with a length has that length.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;

use http::{HeaderMap, HeaderName};
use serde_json::{Value, json};

use super::codings::decode;
use super::{compression, lines, proxied};
use crate::harness::{Origin, Script, request};

/// Fewer are not all of them.
const AT_LEAST: usize = 75;

#[derive(Default)]
struct Case {
    line: usize,
    story: String,
    request: Option<(String, String)>,
    headers: Vec<(String, String)>,
    status: Option<u16>,
    size: Option<usize>,
    chunked: bool,
    answers: Vec<(String, Option<String>)>,
    receives: Vec<(String, Option<String>)>,
    seen_status: Option<u16>,
    sees: Vec<(String, Option<String>)>,
}

#[tokio::test]
async fn every_case_comes_out_as_it_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/compression/cases");
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = entries.collect();
    paths.sort();
    let (mut total, mut failed, mut report) = (0, 0, String::new());
    for path in paths {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let (config, cases) = parse(&std::fs::read_to_string(&path).unwrap());
        let origin = Origin::http1("one").await;
        let (_proxy, address) = proxied(&origin, &[compression(config)]).await;
        for case in &cases {
            let faults = run(&origin, address, case).await;
            if !faults.is_empty() {
                let (line, story) = (case.line, &case.story);
                writeln!(report, "{name}:{line}: {story}: {}", faults.join("; ")).unwrap();
                failed += 1;
            }
        }
        total += cases.len();
    }
    assert_eq!(failed, 0, "of {total} cases these failed:\n{report}");
    assert!(total >= AT_LEAST, "{total} cases, not {AT_LEAST}");
}

fn parse(text: &str) -> (Value, Vec<Case>) {
    let (mut config, mut cases) = (json!({}), Vec::<Case>::new());
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        let Some((sign, rest)) = line.split_once(' ') else {
            assert!(line.is_empty(), "line {number} is not understood: {line:?}");
            continue;
        };
        match (sign, cases.last_mut()) {
            ("config", None) => config = serde_json::from_str(rest).unwrap(),
            ("case", _) => {
                cases.push(Case { line: number, story: rest.to_owned(), ..Case::default() });
            }
            (">", Some(case)) => match said(rest) {
                Said::Field(name, Some(value)) => case.headers.push((name, value)),
                Said::Word(word) => {
                    let (method, path) = word.split_once(' ').unwrap_or((&word, "/"));
                    case.request = Some((method.to_owned(), path.to_owned()));
                }
                Said::Field(_, None) => panic!("line {number} is not understood: {line:?}"),
            },
            ("<", Some(case)) => match said(rest) {
                Said::Field(name, Some(value)) if name == "size" => {
                    case.size = Some(value.parse().unwrap());
                }
                Said::Field(name, value) => case.answers.push((name, value)),
                Said::Word(word) if word == "chunked" => case.chunked = true,
                Said::Word(word) => case.status = Some(word.parse().unwrap()),
            },
            ("^", Some(case)) => match said(rest) {
                Said::Field(name, value) => case.receives.push((name, value)),
                Said::Word(_) => panic!("line {number} is not understood: {line:?}"),
            },
            ("=", Some(case)) => match said(rest) {
                Said::Field(name, value) => case.sees.push((name, value)),
                Said::Word(word) => case.seen_status = Some(word.parse().unwrap()),
            },
            _ => panic!("line {number} is not understood: {line:?}"),
        }
    }
    (config, cases)
}

enum Said {
    /// A header, or that there is none of the name.
    Field(String, Option<String>),
    Word(String),
}

fn said(text: &str) -> Said {
    match (text.strip_prefix('!'), text.split_once(": ")) {
        (Some(name), _) => Said::Field(name.to_owned(), None),
        (None, Some((name, value))) => Said::Field(name.to_owned(), Some(value.to_owned())),
        (None, None) => match text.strip_suffix(':') {
            Some(name) => Said::Field(name.to_owned(), Some(String::new())),
            None => Said::Word(text.to_owned()),
        },
    }
}

/// What is not as the case says.
async fn run(origin: &Origin, address: SocketAddr, case: &Case) -> Vec<String> {
    let body = lines(1_000)[..case.size.unwrap_or(4_000)].to_owned();
    let mut script = Script {
        body: Some(body.clone().into()),
        sized: !case.chunked,
        ..Script::status(case.status.unwrap_or(200))
    };
    if !case.answers.iter().any(|(name, _)| name == "content-type") {
        script = script.header("content-type", "text/html");
    }
    for (name, value) in &case.answers {
        if let Some(value) = value {
            let name: HeaderName = name.parse().unwrap();
            script.headers.append(name, value.parse().unwrap());
        }
    }
    let status = case.seen_status.unwrap_or(script.status);
    origin.script(script);
    let (method, path) = match &case.request {
        Some((method, path)) => (method.as_str(), path.as_str()),
        None => ("GET", "/"),
    };
    let headers: Vec<_> = case.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let answer = request(address, method, path, &headers, b"").await;
    let mut faults = Vec::new();
    if answer.status != status {
        faults.push(format!("status {}, not {status}", answer.status));
    }
    faults.extend(look("the origin received", &origin.last().headers, &case.receives));
    faults.extend(look("the client sees", &answer.headers, &case.sees));
    let has_body = method != "HEAD" && !matches!(answer.status, 204 | 304);
    let encoding = answer.header("content-encoding");
    let is_origins = case.answers.iter().any(|(name, _)| name == "content-encoding");
    if has_body {
        let seen = match is_origins || encoding.is_empty() {
            true => Some(answer.body.to_vec()),
            false => decode(encoding, &answer.body),
        };
        if seen.as_deref() != Some(body.as_bytes()) {
            faults.push("the body is another".to_owned());
        }
    }
    faults
}

fn look(who: &str, headers: &HeaderMap, wanted: &[(String, Option<String>)]) -> Vec<String> {
    let fault = |(name, wanted): &(String, Option<String>)| {
        let found: Vec<_> =
            headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect();
        let found = (!found.is_empty()).then(|| found.join(", "));
        (found != *wanted).then(|| format!("{who} {name} {found:?}, not {wanted:?}"))
    };
    wanted.iter().filter_map(fault).collect()
}
