//! The cases, run: each step is asked of the proxy, and what came is held against what is said.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::FutureExt;
use http::HeaderMap;
use http::request::Parts;
use tokio::time::{Instant, timeout};

use super::format::{Case, Expectation, File, Is, Reply, Step, When, expand};
use super::{cached, verdict};
use crate::harness::{Answer, Ending, Origin, Proxy, Script, pace, request};

/// By how much an age may be off on a machine that is busy. Numbers in cases are further apart.
const SLACK: i64 = 15;
/// An answer that takes longer waits for something.
const AT_ONCE: Duration = Duration::from_secs(10);

/// All that is needed to ask.
struct Bench {
    origin: Origin,
    proxy: Proxy,
    address: SocketAddr,
}

/// What is the same for all steps of a case.
struct Place {
    base: String,
    now: SystemTime,
}

/// The failures of a file's cases, each with its line.
pub(super) async fn file(file: File) -> Vec<String> {
    let File { config, cases } = file;
    let begun = survived(async {
        let origin = Origin::http1("one").await;
        let (proxy, address) = cached(&origin, config).await;
        Bench { origin, proxy, address }
    });
    let bench = match begun.await {
        Ok(bench) => bench,
        Err(why) => return vec![format!("1: no proxy for {} cases: {why}", cases.len())],
    };
    let mut failures = Vec::new();
    for (number, each) in cases.iter().enumerate() {
        // A case that panics is one failure, and the others go on.
        if let Err(why) = survived(case(&bench, each, number)).await.flatten() {
            let Case { line, section, story, .. } = each;
            failures.push(format!("{line}: RFC {section}, {story}: {why}"));
        }
    }
    failures
}

/// What comes of it, or what it said when it panicked.
async fn survived<F: Future>(future: F) -> Result<F::Output, String> {
    AssertUnwindSafe(future).catch_unwind().await.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_default()
    })
}

/// Asks step by step; what comes after a step that failed means nothing.
async fn case(bench: &Bench, case: &Case, number: usize) -> Result<(), String> {
    let place = Place { base: format!("/{number}"), now: SystemTime::now() };
    let mut bodies = Vec::new();
    for (index, step) in case.steps.iter().enumerate() {
        let faults = ask(bench, &place, step, (index + 1, &mut bodies)).await;
        if !faults.is_empty() {
            let faults = faults.join("; ");
            return Err(format!("step {} (line {}): {faults}", index + 1, step.line));
        }
    }
    Ok(())
}

async fn ask(
    bench: &Bench,
    place: &Place,
    step: &Step,
    (number, bodies): (usize, &mut Vec<(u16, Bytes)>),
) -> Vec<String> {
    let Bench { origin, address, .. } = bench;
    let script = place.script(step.answer.as_ref(), number);
    let mut given = (step.answer.is_some() && script.ending == Ending::Whole)
        .then(|| (script.status, script.body.clone().unwrap_or_default()));
    origin.script(script);
    let before = origin.requests();
    let headers: Vec<_> = step.headers.iter().map(|(n, v)| (n, place.expand(v))).collect();
    let headers: Vec<_> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let (target, body) = (place.target(&step.target), place.expand(&step.body));
    let answering = request(*address, &step.method, &target, &headers, body.as_bytes());
    let mut faults = Vec::new();
    let when = step.answer.as_ref().map(|reply| reply.when);
    let answer = match when {
        Some(When::Behind) => {
            let stores = matches!(given, Some((200 | 304, _)));
            let (answer, fault) = behind(bench, answering, stores).await;
            faults.extend(fault.map(str::to_owned));
            answer
        }
        _ => answering.await,
    };
    let asked = origin.requests() - before;
    let good = match step.answer.as_ref() {
        None => asked == 0,
        Some(Reply { when: When::Perhaps, .. }) => asked <= 1,
        // Whoever lost a connection may try another.
        Some(Reply { status: None, .. }) => asked >= 1,
        Some(_) => asked == 1,
    };
    if !good {
        faults.push(format!("the origin was asked {asked} times"));
    }
    if asked == 0 {
        given = None;
    } else {
        let Parts { method, uri, mut headers, .. } = origin.last();
        headers.insert("method", method.as_str().parse().unwrap());
        headers.insert("path", uri.path_and_query().map_or("", |p| p.as_str()).parse().unwrap());
        let receives = |e: &Expectation| fault(place, e, &headers, None);
        faults.extend(step.received.iter().filter_map(receives).map(|f| format!("origin: {f}")));
    }
    faults.extend(look(place, step, &answer));
    faults.extend(check_body(step, &answer, given.as_ref(), bodies));
    bodies.extend(given);
    faults
}

/// An answer that comes while the origin is still asked in the background, and the end of that.
async fn behind(
    Bench { origin, proxy, .. }: &Bench,
    answering: impl Future<Output = Answer>,
    stores: bool,
) -> (Answer, Option<&'static str>) {
    const ACTIVE: &str = "cluster.one.upstream_rq_active";
    const STORED: &str = "http.in.cache.stored";
    let before = origin.requests();
    let stored = proxy.stat(STORED).await;
    tokio::pin!(answering);
    let Ok(answer) = timeout(AT_ONCE, &mut answering).await else {
        origin.release();
        return (answering.await, Some("the answer waited for the origin"));
    };
    if !until(async || origin.requests() > before).await {
        return (answer, Some("the origin was not asked in the background"));
    }
    origin.release();
    let over =
        async || proxy.stat(ACTIVE).await == 0 && (!stores || proxy.stat(STORED).await > stored);
    let fault = (!until(over).await).then_some("what came in the background was not stored");
    (answer, fault)
}

/// Whether something came true in time.
async fn until(mut is: impl AsyncFnMut() -> bool) -> bool {
    let end = Instant::now() + AT_ONCE;
    while Instant::now() < end {
        if is().await {
            return true;
        }
        pace(Duration::from_millis(5)).await;
    }
    false
}

impl Place {
    fn expand(&self, text: &str) -> String {
        expand(text, &self.base, self.now).expect("it was tried when it was read")
    }

    /// A path is below the case's own; what is no path stands as it is.
    fn target(&self, target: &str) -> String {
        let target = self.expand(target);
        if target.starts_with('/') { format!("{}{target}", self.base) } else { target }
    }

    fn script(&self, reply: Option<&Reply>, number: usize) -> Script {
        let Some(reply) = reply else { return Script::default() };
        let body = reply.body.as_ref().map_or(format!("step {number}"), |body| self.expand(body));
        let mut script = Script {
            body: Some(body.into()),
            dated: reply.dated,
            held: reply.when == When::Behind,
            ..Script::status(reply.status.unwrap_or(200))
        };
        if reply.status.is_none() {
            script.ending = Ending::BeforeHead;
        }
        for (name, value) in &reply.headers {
            let name: http::HeaderName = name.parse().unwrap();
            script.headers.append(name, self.expand(value).parse().unwrap());
        }
        script
    }
}

/// What is not as the step says in an answer.
fn look(place: &Place, step: &Step, answer: &Answer) -> Vec<String> {
    let mut faults = Vec::new();
    let sight = step.sees.as_ref().expect("every step says it");
    if let Some(status) = sight.status.filter(|status| *status != answer.status) {
        faults.push(format!("status {}, not {status}", answer.status));
    }
    let said = verdict(answer);
    if !begins(&said, &sight.said) {
        faults.push(format!("cache-status {said:?}, not {:?}", sight.said));
    }
    if said.starts_with("hit") && !answer.headers.contains_key("age") {
        faults.push("a hit without an age".to_owned());
    }
    faults.extend(step.seen.iter().filter_map(|e| fault(place, e, &answer.headers, Some(answer))));
    faults
}

/// Whether the parameters begin with these.
fn begins(said: &str, wanted: &str) -> bool {
    let mut said = said.split("; ");
    wanted.split("; ").filter(|wanted| !wanted.is_empty()).all(|wanted| {
        let Some(said) = said.next() else { return false };
        if wanted.ends_with(['=', '-']) {
            return said.starts_with(wanted);
        }
        let ttl = |text: &str| text.strip_prefix("ttl=")?.parse::<i64>().ok();
        match (ttl(said), ttl(wanted)) {
            (Some(said), Some(wanted)) => (wanted - SLACK..=wanted).contains(&said),
            _ => said == wanted,
        }
    })
}

fn fault(
    place: &Place,
    expectation: &Expectation,
    headers: &HeaderMap,
    answer: Option<&Answer>,
) -> Option<String> {
    let Expectation { line, name, is } = expectation;
    let found = match answer.filter(|_| name == "body") {
        Some(answer) => Some(answer.text()),
        None => joined(headers, name),
    };
    let good = match (is, &found) {
        (Is::Absent, found) => found.is_none(),
        (_, None) => false,
        (Is::With(part), Some(found)) => {
            found.to_ascii_lowercase().contains(&place.expand(part).to_ascii_lowercase())
        }
        (Is::Exactly(wanted), Some(found)) if name == "age" => {
            let (found, wanted) = (found.parse(), wanted.parse::<i64>().unwrap());
            found.is_ok_and(|found| (wanted..=wanted + SLACK).contains(&found))
        }
        (Is::Exactly(wanted), Some(_)) if name == "body" && is_gzip(headers) => {
            let body = answer.map(|answer| &answer.body[..]).unwrap_or_default();
            zips(body, place.expand(wanted).as_bytes())
        }
        (Is::Exactly(wanted), Some(found)) => *found == place.expand(wanted),
    };
    let (wanted, how) = match is {
        Is::Absent => {
            return (!good).then(|| format!("line {line}: {name} is {found:?}, not absent"));
        }
        Is::Exactly(wanted) => (wanted, "not"),
        Is::With(part) => (part, "without"),
    };
    let wanted = place.expand(wanted);
    (!good).then(|| format!("line {line}: {name} is {found:?}, {how} {wanted:?}"))
}

/// A header's values as one.
fn joined(headers: &HeaderMap, name: &str) -> Option<String> {
    let values = headers.get_all(name).iter();
    let values: Vec<_> = values.map(|v| String::from_utf8_lossy(v.as_bytes())).collect();
    (!values.is_empty()).then(|| values.join(", "))
}

/// A whole body is the one that the origin just gave, or one that it gave before: nothing else, and
/// not a part.
fn check_body(
    step: &Step,
    answer: &Answer,
    given: Option<&(u16, Bytes)>,
    before: &[(u16, Bytes)],
) -> Option<String> {
    let stated = step.seen.iter().any(|expectation| expectation.name == "body");
    let other = matches!(answer.status, 204 | 206 | 304 | 416) || is_gzip(&answer.headers);
    if stated || other || step.method != "GET" {
        return None;
    }
    let good = match given.filter(|(status, _)| *status == answer.status) {
        Some((_, body)) => answer.body == body,
        None => {
            let same: Vec<_> = before.iter().filter(|(s, _)| *s == answer.status).collect();
            same.is_empty() || same.iter().any(|(_, body)| answer.body == body)
        }
    };
    (!good).then(|| format!("a body that the origin did not give: {:?}", answer.text()))
}

fn is_gzip(headers: &HeaderMap) -> bool {
    headers.get("content-encoding").is_some_and(|coding| coding == "gzip")
}

/// Whether this is gzip of the text, by what its trailer says of what went in (RFC 1952 section 2.3.1).
fn zips(body: &[u8], text: &[u8]) -> bool {
    let Some((rest, size)) = body.split_last_chunk::<4>() else { return false };
    let Some((rest, sum)) = rest.split_last_chunk::<4>() else { return false };
    rest.starts_with(&[0x1f, 0x8b, 8])
        && u32::from_le_bytes(*size) as usize == text.len()
        && u32::from_le_bytes(*sum) == crc32(text)
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 }
        })
    })
}

#[test]
fn a_parameter_is_compared_whole_and_gzip_by_what_went_in() {
    for wanted in ["", "hit", "hit; ttl=60", "hit; ttl=70", "hit; ttl=", "hit; ttl=60; detail="] {
        assert!(begins("hit; ttl=60; detail=x", wanted), "{wanted}");
    }
    for wanted in
        ["h", "hit; ttl=6", "hit; ttl=80", "hit; ttl=-", "ttl=60", "hit; ttl=60; detail=x; y"]
    {
        assert!(!begins("hit; ttl=60; detail=x", wanted), "{wanted}");
    }
    let zipped = [
        31, 139, 8, 0, 0, 0, 0, 0, 2, 3, 43, 46, 73, 45, 80, 48, 4, 0, 58, 211, 117, 172, 6, 0, 0,
        0,
    ];
    assert!(zips(&zipped, b"step 1") && !zips(&zipped, b"step 2") && !zips(b"step 1", b"step 1"));
}
