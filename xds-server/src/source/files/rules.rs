//! The rule file: which nodes are served which folder.
//!
//! ```yaml
//! groups:
//! - name: canary
//!   match: {id: edge-0, cluster: "edge*"}   # both must fit; * and ? as in a shell
//!   path: canary                            # a file or folder, relative to this file
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;

use nuncio::proto::yaml::Document;
use serde_json::{Map, Value};

use crate::groups::{DEFAULT_GROUP, Pattern, Rule};
use crate::problem::{Problem, key_path};

/// The rules of a file, with the path of each group.
pub(super) fn compile(
    file: &Path,
    document: &Document,
) -> Result<Vec<(Rule, PathBuf)>, Vec<Problem>> {
    let mut reader = Reader { file, document, problems: Vec::new() };
    let mut found: Vec<(Rule, PathBuf)> = Vec::new();
    let top = reader.object("", &document.value, &["groups"]);
    let list = match top.and_then(|top| top.get("groups")) {
        Some(Value::Array(list)) => list.as_slice(),
        Some(Value::Null) | None => &[],
        Some(_) => {
            reader.fault("groups", "expected a list");
            &[]
        }
    };
    for (index, value) in list.iter().enumerate() {
        let at = format!("groups[{index}]");
        if let Some((rule, path)) = reader.rule(&at, value) {
            if found.iter().any(|(earlier, _)| earlier.group == rule.group) {
                reader.fault(&format!("{at}.name"), "is used by an earlier group");
            }
            found.push((rule, path));
        }
    }
    if reader.problems.is_empty() { Ok(found) } else { Err(reader.problems) }
}

struct Reader<'a> {
    file: &'a Path,
    document: &'a Document,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    fn fault(&mut self, path: &str, message: &str) {
        let message =
            if path.is_empty() { message.to_owned() } else { format!("{path}: {message}") };
        let problem = Problem::new(message).in_file(self.file);
        self.problems.push(match self.document.lines.mark_of(path) {
            Some(mark) => problem.on(mark),
            None => problem,
        });
    }

    fn object(
        &mut self,
        path: &str,
        value: &'a Value,
        known: &[&str],
    ) -> Option<&'a Map<String, Value>> {
        let object = match value {
            Value::Null if path.is_empty() => return None,
            Value::Object(object) => object,
            _ => {
                self.fault(path, "expected a mapping");
                return None;
            }
        };
        for key in object.keys().filter(|key| !known.contains(&key.as_str())) {
            let at = match path.is_empty() {
                true => key_path(key),
                false => format!("{path}.{}", key_path(key)).replace(".[", "["),
            };
            self.fault(&at, &format!("unknown key; expected {}", known.join(", ")));
        }
        Some(object)
    }

    fn text(&mut self, path: &str, value: Option<&'a Value>) -> Option<&'a str> {
        match value {
            Some(Value::String(text)) if !text.is_empty() => Some(text),
            Some(_) => {
                self.fault(path, "expected a text that is not empty");
                None
            }
            None => None,
        }
    }

    fn rule(&mut self, path: &str, value: &'a Value) -> Option<(Rule, PathBuf)> {
        let object = self.object(path, value, &["name", "match", "path"])?;
        for key in ["name", "match", "path"].into_iter().filter(|key| !object.contains_key(*key)) {
            self.fault(path, &format!("{key} is required"));
        }
        let name = self.text(&format!("{path}.name"), object.get("name"));
        if name == Some(DEFAULT_GROUP) {
            self.fault(&format!("{path}.name"), "is the group of nodes that no rule fits");
        }
        let folder = self.text(&format!("{path}.path"), object.get("path"));
        let at = format!("{path}.match");
        let patterns = self.object(&at, object.get("match")?, &["id", "cluster"])?;
        let id = self.text(&format!("{at}.id"), patterns.get("id")).map(Pattern::new);
        let cluster =
            self.text(&format!("{at}.cluster"), patterns.get("cluster")).map(Pattern::new);
        if patterns.is_empty() {
            self.fault(&at, "id or cluster is required");
        }
        let group = Arc::from(name?);
        Some((Rule { group, id, cluster }, PathBuf::from(folder?)))
    }
}
