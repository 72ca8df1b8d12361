//! What is wrong with what a source gave, and where.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use nuncio::proto::yaml::Mark;
use serde::Serialize;

/// Where a resource was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) file: Arc<PathBuf>,
    pub(crate) mark: Mark,
}

/// One fault or one doubt. Its text is the same in the log, at `/status` and on standard error.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file; `null` if the resource came from none.
    pub file: Option<PathBuf>,
    /// The line in the file, from 1.
    pub line: Option<u32>,
    /// The column in the line, in characters from 1.
    pub column: Option<u32>,
    /// The resource, as `Cluster "users"`; `null` if it is about none.
    pub resource: Option<String>,
    /// Path of the field in the resource; empty for the whole.
    pub field: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl Problem {
    /// A problem of nothing in particular.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), ..Self::default() }
    }

    /// Says where.
    #[must_use]
    pub(crate) fn at(self, place: Option<Place>) -> Self {
        match place {
            Some(Place { file, mark }) => self.in_file(&file).on(mark),
            None => self,
        }
    }

    /// Says in which file.
    #[must_use]
    pub(crate) fn in_file(mut self, file: &std::path::Path) -> Self {
        self.file = Some(file.to_owned());
        self
    }

    /// Says on which line and column.
    #[must_use]
    pub(crate) fn on(mut self, mark: Mark) -> Self {
        self.line = u32::try_from(mark.line).ok();
        self.column = u32::try_from(mark.column).ok();
        self
    }

    /// Says of which resource and field.
    #[must_use]
    pub(crate) fn of(mut self, kind: &str, name: &str, field: &str) -> Self {
        self.resource = Some(format!("{kind} {name:?}"));
        self.field = field.to_owned();
        self
    }
}

/// `FILE:LINE:COLUMN: RESOURCE: FIELD: MESSAGE`, without the parts that are unknown.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}:", file.display())?;
            if let Some(line) = self.line {
                write!(f, "{line}:")?;
            }
            if let Some(column) = self.column {
                write!(f, "{column}:")?;
            }
            f.write_str(" ")?;
        }
        if let Some(resource) = &self.resource {
            write!(f, "{resource}: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

/// A key as a path that the map of places understands, whatever is in it.
pub(crate) fn key_path(key: &str) -> String {
    match !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        true => key.to_owned(),
        false => format!("[{key:?}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_reads_from_the_file_to_the_field() {
        let problem = Problem::new("must not be empty")
            .of("Cluster", "users", "load_assignment")
            .in_file(std::path::Path::new("a.yaml"))
            .on(Mark { line: 3, column: 5 });
        assert_eq!(
            problem.to_string(),
            r#"a.yaml:3:5: Cluster "users": load_assignment: must not be empty"#
        );
        assert_eq!(Problem::new("no file").to_string(), "no file");
    }
}
