//! The cases' text, read strictly: a line that is not understood is a failure.

use std::num::ParseIntError;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use http::{HeaderName, HeaderValue};
use httpdate::fmt_http_date;
use serde_json::{Value, json};

/// What one proxy is asked.
pub(super) struct File {
    pub(super) config: Value,
    pub(super) cases: Vec<Case>,
}

#[derive(Clone)]
pub(super) struct Case {
    pub(super) line: usize,
    pub(super) section: String,
    pub(super) story: String,
    pub(super) steps: Vec<Step>,
}

/// One request and all that is said of it.
#[derive(Clone)]
pub(super) struct Step {
    pub(super) line: usize,
    pub(super) method: String,
    pub(super) target: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: String,
    pub(super) answer: Option<Reply>,
    /// What the origin must have received.
    pub(super) received: Vec<Expectation>,
    pub(super) sees: Option<Sight>,
    /// What the client must see.
    pub(super) seen: Vec<Expectation>,
}

/// What the origin answers.
#[derive(Clone)]
pub(super) struct Reply {
    pub(super) when: When,
    /// None if the connection is cut instead.
    pub(super) status: Option<u16>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Option<String>,
    pub(super) dated: bool,
}

/// When the origin is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// While the client waits.
    Now,
    /// Whether or not the client has its answer.
    Behind,
    /// Perhaps not at all.
    Perhaps,
}

#[derive(Clone)]
pub(super) struct Sight {
    /// None if any will do.
    pub(super) status: Option<u16>,
    pub(super) said: String,
}

/// Something said of a header, or of the body.
#[derive(Clone)]
pub(super) struct Expectation {
    pub(super) line: usize,
    pub(super) name: String,
    pub(super) is: Is,
}

#[derive(Clone)]
pub(super) enum Is {
    Exactly(String),
    With(String),
    Absent,
}

/// The file, or what is wrong with which lines.
pub(super) fn parse(text: &str) -> Result<File, Vec<String>> {
    let mut file = File { config: json!({}), cases: Vec::new() };
    let mut faults = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if let Err(what) = read(&mut file, index + 1, line.trim()) {
            faults.push(format!("{}: {what}: {line:?}", index + 1));
        }
    }
    for case in &file.cases {
        if case.steps.is_empty() {
            faults.push(format!("{}: a case without a step", case.line));
        }
        for step in case.steps.iter().filter(|step| step.sees.is_none()) {
            faults.push(format!("{}: a step that does not say what is seen", step.line));
        }
    }
    if faults.is_empty() { Ok(file) } else { Err(faults) }
}

fn read(file: &mut File, line: usize, text: &str) -> Result<(), String> {
    if text.is_empty() || text.starts_with('#') {
        return Ok(());
    }
    let (mark, rest) = text.split_once(' ').unwrap_or((text, ""));
    let rest = rest.trim();
    // What stands for something must be known before any proxy is started.
    if mark != "config" {
        expand(rest, "", SystemTime::now())?;
    }
    match mark {
        "config" if file.cases.is_empty() => {
            file.config = serde_json::from_str(rest).map_err(|e| e.to_string())?;
            return Ok(());
        }
        "case" => {
            let (section, story) = rest.split_once(' ').ok_or("a section and a story")?;
            let (section, story) = (section.to_owned(), story.to_owned());
            file.cases.push(Case { line, section, story, steps: Vec::new() });
            return Ok(());
        }
        _ => {}
    }
    let case = file.cases.last_mut().ok_or("this belongs to a case")?;
    if mark == ">" && !rest.split(' ').next().is_some_and(|first| first.ends_with(':')) {
        let (method, target) = rest.split_once(' ').ok_or("a method and a target")?;
        case.steps.push(Step::new(line, method, target));
        return Ok(());
    }
    let step = case.steps.last_mut().ok_or("this belongs to a step")?;
    match mark {
        ">" if step.answer.is_none() && step.sees.is_none() => match header(rest)? {
            (name, value) if name == "body" => step.body = value,
            header => step.headers.push(header),
        },
        "<" | "<<" | "<?" if step.answer.is_none() => {
            let when = match mark {
                "<" => When::Now,
                "<<" => When::Behind,
                _ => When::Perhaps,
            };
            step.answer = Some(Reply::new(when, rest)?);
        }
        "<" => {
            let reply = step.answer.as_mut().ok_or("a header before its status")?;
            if rest == "!date" {
                reply.dated = false;
                return Ok(());
            }
            match header(rest)? {
                (name, value) if name == "body" => reply.body = Some(value),
                header => reply.headers.push(header),
            }
        }
        "^" if step.answer.is_some() => step.received.push(expectation(line, rest)?),
        "=" if step.sees.is_none() => {
            let (status, said) = rest.split_once(' ').unwrap_or((rest, ""));
            let status = (status != "*").then(|| number(status));
            step.sees = Some(Sight { status: status.transpose()?, said: said.trim().to_owned() });
        }
        "=" => step.seen.push(expectation(line, rest)?),
        _ => return Err("not understood".to_owned()),
    }
    Ok(())
}

impl Step {
    fn new(line: usize, method: &str, target: &str) -> Self {
        Self {
            line,
            method: method.to_owned(),
            target: target.to_owned(),
            headers: Vec::new(),
            body: String::new(),
            answer: None,
            received: Vec::new(),
            sees: None,
            seen: Vec::new(),
        }
    }
}

impl Reply {
    fn new(when: When, status: &str) -> Result<Self, String> {
        let status = match status {
            "cut" => None,
            status => Some(number(status)?),
        };
        Ok(Self { when, status, headers: Vec::new(), body: None, dated: true })
    }
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("a name and a value")?;
    let known = name.parse::<HeaderName>().is_ok() && HeaderValue::from_str(value).is_ok();
    match known {
        true => Ok((name.to_ascii_lowercase(), value.trim().to_owned())),
        false => Err("not a header".to_owned()),
    }
}

fn expectation(line: usize, text: &str) -> Result<Expectation, String> {
    if let Some(name) = text.strip_prefix('!') {
        let name = name.parse::<HeaderName>().map_err(|e| e.to_string())?.to_string();
        return Ok(Expectation { line, name, is: Is::Absent });
    }
    let (text, partly) = text.strip_prefix('~').map_or((text, false), |text| (text, true));
    let (name, value) = header(text)?;
    Ok(Expectation { line, name, is: if partly { Is::With(value) } else { Is::Exactly(value) } })
}

fn number<T: FromStr<Err = ParseIntError>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|e| format!("{text:?}: {e}"))
}

/// The text with what its braces stand for.
pub(super) fn expand(text: &str, base: &str, now: SystemTime) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let (inner, after) = after.split_once('}').ok_or("a brace without its other")?;
        out.push_str(before);
        rest = after;
        if inner == "base" {
            out.push_str(base);
        } else if let Some(offset) = inner.strip_prefix("now") {
            out.push_str(&fmt_http_date(shifted(now, offset)?));
        } else {
            let (what, times) = inner.rsplit_once('*').ok_or("what is in braces is not known")?;
            let times = number(times)?;
            out.push_str(&what.repeat(times));
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn shifted(now: SystemTime, offset: &str) -> Result<SystemTime, String> {
    if offset.is_empty() {
        return Ok(now);
    }
    let (sign, seconds) = offset.split_at(1);
    let by = Duration::from_secs(number(seconds)?);
    match sign {
        "+" => Ok(now + by),
        "-" => Ok(now - by),
        _ => Err("now, and seconds more or less".to_owned()),
    }
}

#[test]
fn what_is_not_understood_is_a_failure() {
    let case = "case 9111-3 a story\n> GET /\n< 200\n= 200 hit\n= age: 0\n";
    assert_eq!(parse(case).ok().unwrap().cases.len(), 1);
    for line in [
        "x",
        "case 9111-3",
        "config {}",
        "> GET",
        "> no header",
        "> late: 1",
        "< 200",
        "< x",
        "<< 304",
        "^ {now+x}",
        "^ x: {what}",
        "= x",
        "= age",
        "= !a b",
        "case 9111-3 no step",
        "> GET /unseen",
    ] {
        let faults = parse(&format!("{case}{line}\n")).err().unwrap_or_default();
        assert!(faults.len() == 1 && faults[0].starts_with("6: "), "{line}: {faults:?}");
    }
}
