//! Reading a file's values with their places, so that every fault is found at once and points at the
//! word that is wrong.

use std::path::Path;

use nuncio::proto::yaml::LineMap;
use serde_json::{Map, Value};

use super::form::Form;
use super::nearest::nearest;
use crate::problem::{Problem, key_path};

/// Collects what is wrong with a file, and what is doubtful.
pub(crate) struct Reader<'a> {
    place: Option<(&'a Path, &'a LineMap)>,
    pub(crate) faults: Vec<Problem>,
    pub(crate) warnings: Vec<Problem>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(file: &'a Path, marks: &'a LineMap) -> Self {
        Self { place: Some((file, marks)), faults: Vec::new(), warnings: Vec::new() }
    }

    /// Of what is in no file.
    pub(crate) fn unplaced() -> Self {
        Self { place: None, faults: Vec::new(), warnings: Vec::new() }
    }

    /// Something is wrong at a path.
    pub(crate) fn fault(&mut self, at: &str, message: impl Into<String>) {
        let problem = self.problem(at, message.into());
        self.faults.push(problem);
    }

    /// Something at a path has no effect, or another than one might think.
    pub(crate) fn warn(&mut self, at: &str, message: impl Into<String>) {
        let problem = self.problem(at, message.into());
        self.warnings.push(problem);
    }

    fn problem(&self, at: &str, message: String) -> Problem {
        let problem = Problem { field: at.to_owned(), ..Problem::new(message) };
        let Some((file, marks)) = self.place else { return problem };
        match marks.mark_of(at) {
            Some(mark) => problem.in_file(file).on(mark),
            None => problem.in_file(file),
        }
    }

    /// What a value was read as, or the fault that it is something else.
    pub(crate) fn expect<T>(
        &mut self,
        at: &str,
        value: &Value,
        read: Option<T>,
        what: &str,
    ) -> Option<T> {
        if read.is_none() {
            self.fault(at, format!("expected {what}, not {}", kind_of(value)));
        }
        read
    }

    /// A mapping with these keys alone. One that is written and empty has none of them.
    pub(crate) fn mapping<'v>(
        &mut self,
        at: &str,
        value: &'v Value,
        known: &[&str],
    ) -> Option<Mapping<'v>> {
        let map = match value {
            Value::Null => return Some(Mapping(None)),
            Value::Object(map) => map,
            _ => return self.expect(at, value, None, "a mapping"),
        };
        for key in map.keys().filter(|key| !known.contains(&key.as_str())) {
            let hint = match nearest(key, known.iter().copied()) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("expected one of {}", known.join(", ")),
            };
            self.fault(&join(at, key), format!("unknown key; {hint}"));
        }
        Some(Mapping(Some(map)))
    }

    /// The value of a key, or what stands for it.
    pub(crate) fn field<T: Form>(
        &mut self,
        map: &Mapping<'_>,
        at: &str,
        key: &'static str,
        absent: Option<T>,
    ) -> Option<T> {
        match map.0.and_then(|map| map.get(key)) {
            Some(value) => T::read(self, &join(at, key), value),
            None if absent.is_some() => absent,
            None => {
                self.fault(at, format!("{key} is required"));
                None
            }
        }
    }
}

/// A mapping whose keys are known to be right.
pub(crate) struct Mapping<'v>(Option<&'v Map<String, Value>>);

/// The path of a key below another.
pub(crate) fn join(at: &str, key: &str) -> String {
    let key = key_path(key);
    match at.is_empty() || key.starts_with('[') {
        true => format!("{at}{key}"),
        false => format!("{at}.{key}"),
    }
}

/// A value as a message names it.
pub(crate) fn kind_of(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a mapping".to_owned(),
        scalar => scalar.to_string(),
    }
}
