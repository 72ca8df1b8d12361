//! Fields that came and that this program does not know: counted, warned of once, listed.

use std::collections::BTreeMap;

use tracing::warn;

use crate::config::ResourceId;

/// How many different fields are remembered. Beyond that they are only counted.
const MOST_REMEMBERED: usize = 1_000;

/// One field of one resource type, wherever it stood in lists and maps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IgnoredField {
    /// The resource type: `Cluster`, `Listener`, ...
    pub kind: &'static str,
    /// Its path with `[]` for every index and key.
    pub path: String,
    /// How many times it came.
    pub count: u64,
    /// The resource it came in first, and the path there.
    pub example: String,
}

/// Every field that was ignored since the start.
#[derive(Debug, Default)]
pub(super) struct Ignored(BTreeMap<(&'static str, String), IgnoredField>);

impl Ignored {
    /// Notes the ignored fields of one resource.
    pub(super) fn add(&mut self, resource: &ResourceId, paths: &[String]) {
        for path in paths {
            let key = (resource.kind, without_indices(path));
            if let Some(field) = self.0.get_mut(&key) {
                field.count += 1;
                continue;
            }
            if self.0.len() >= MOST_REMEMBERED {
                continue;
            }
            warn!(%resource, field = path, "field is not supported and is ignored");
            let (kind, pattern) = key.clone();
            let example = format!("{resource}: {path}");
            self.0.insert(key, IgnoredField { kind, path: pattern, count: 1, example });
        }
    }

    pub(super) fn list(&self) -> Vec<IgnoredField> {
        self.0.values().cloned().collect()
    }
}

/// The path with empty brackets: `endpoints[3].metadata["a.b"]` is `endpoints[].metadata[]`.
fn without_indices(path: &str) -> String {
    let mut pattern = String::with_capacity(path.len());
    let (mut inside, mut quoted, mut escaped) = (false, false, false);
    for c in path.chars() {
        match c {
            _ if quoted => {
                quoted = escaped || c != '"';
                escaped = c == '\\' && !escaped;
            }
            '[' => {
                inside = true;
                pattern.push(c);
            }
            ']' => {
                inside = false;
                pattern.push(c);
            }
            '"' if inside => quoted = true,
            _ if inside => {}
            c => pattern.push(c),
        }
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_and_keys_do_not_tell_fields_apart() {
        let mut ignored = Ignored::default();
        let id = ResourceId { kind: "Cluster", name: "a".into() };
        let paths = [r#"e[3].m["x]\"y"].z"#, r#"e[44].m["b"].z"#, "e", "e[0].m"].map(str::to_owned);
        ignored.add(&id, &paths);
        let listed: Vec<_> = ignored.list().into_iter().map(|f| (f.path, f.count)).collect();
        assert_eq!(listed, [("e".into(), 1), ("e[].m".into(), 1), ("e[].m[].z".to_owned(), 2)]);
    }
}
