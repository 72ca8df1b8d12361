//! Cases as text, read strictly: a line that is not understood is a failure.

use std::path::Path;

/// One file and what is observed of it.
pub(super) struct Case {
    /// File and line.
    pub(super) at: String,
    pub(super) story: String,
    pub(super) keys: Vec<String>,
    pub(super) yaml: String,
    /// What is done before the proxy starts.
    pub(super) before: Vec<Step>,
    pub(super) steps: Vec<Step>,
}

/// One line that does something.
pub(super) struct Step {
    pub(super) line: usize,
    pub(super) verb: String,
    /// The rest of the line, up to the first bar.
    pub(super) rest: String,
    /// What stands between bars.
    pub(super) more: Vec<String>,
}

pub(super) fn parse(path: &Path) -> Vec<Case> {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let text = std::fs::read_to_string(path).unwrap();
    let mut cases: Vec<Case> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line_number = index + 1;
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        if verb == "case" {
            cases.push(Case {
                at: format!("{name}:{line_number}"),
                story: rest.to_owned(),
                keys: Vec::new(),
                yaml: String::new(),
                before: Vec::new(),
                steps: Vec::new(),
            });
            continue;
        }
        let case = cases.last_mut().unwrap_or_else(|| panic!("{name}:{line_number}: no case"));
        match verb {
            "key" => case.keys.extend(rest.split(' ').map(str::to_owned)),
            "|" => {
                assert!(case.steps.is_empty(), "{name}:{line_number}: the file comes first");
                case.yaml.push_str(rest);
                case.yaml.push('\n');
            }
            _ => {
                let mut parts = rest.split(" | ").map(|part| part.trim().to_owned());
                let rest = parts.next().unwrap_or_default();
                let verb = verb.to_owned();
                let step = Step { line: line_number, verb, rest, more: parts.collect() };
                match step.verb == "origin" && case.steps.is_empty() {
                    true => case.before.push(step),
                    false => case.steps.push(step),
                }
            }
        }
    }
    cases
}
