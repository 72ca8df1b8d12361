//! Faults of a configuration, with the path of the field that holds each.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use thiserror::Error;

/// What is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Fault {
    /// The field must be set.
    #[error("is required")]
    Required,
    /// The value breaks a rule that the API states for the field itself.
    #[error("{value} is not {expected}")]
    OutOfRange {
        /// The value as it came.
        value: String,
        /// What would be right.
        expected: Cow<'static, str>,
    },
    /// The value cannot be used, though the field's own rules allow it.
    #[error("{value}: {reason}")]
    Invalid {
        /// The value as it came.
        value: String,
        /// Why it cannot be used, and what would be right.
        reason: Cow<'static, str>,
    },
    /// Something the API offers and we do not.
    #[error("{0}")]
    Unsupported(Cow<'static, str>),
    /// The bytes are not a message of the type they claim.
    #[error("cannot be decoded: {0}")]
    Undecodable(String),
    /// No extension of this type is known.
    #[error("unknown extension type {0}")]
    UnknownExtension(String),
    /// A name that must be unique is used twice.
    #[error("{0:?} is used more than once")]
    Duplicate(String),
    /// Two fields contradict each other.
    #[error("{0}")]
    Conflict(Cow<'static, str>),
    /// The operating system refused.
    #[error("{action}: {reason}")]
    System {
        /// What was tried.
        action: String,
        /// What the system said.
        reason: String,
    },
}

impl Fault {
    /// A rule that the API states for the field itself was broken. Envoy rejects the whole response
    /// that carries such a resource, and so do we.
    pub fn is_constraint(&self) -> bool {
        matches!(self, Self::Required | Self::OutOfRange { .. })
    }

    /// [`Fault::OutOfRange`] from anything printable.
    pub fn out_of_range(value: impl fmt::Display, expected: impl Into<Cow<'static, str>>) -> Self {
        Self::OutOfRange { value: value.to_string(), expected: expected.into() }
    }

    /// [`Fault::Invalid`] from anything printable.
    pub fn invalid(value: impl fmt::Display, reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Invalid { value: value.to_string(), reason: reason.into() }
    }

    /// [`Fault::Unsupported`]: what is not supported, and what to use instead.
    pub fn unsupported(what: impl Into<Cow<'static, str>>) -> Self {
        Self::Unsupported(what.into())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Field(Cow<'static, str>),
    Index(usize),
    Key(String),
}

/// A fault and where it is. The path grows at the front while the error climbs.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Located {
    /// Innermost first.
    path: Vec<Segment>,
    fault: Fault,
}

impl Located {
    fn path(&self) -> String {
        let mut text = String::new();
        for segment in self.path.iter().rev() {
            match segment {
                Segment::Field(name) => {
                    if !text.is_empty() {
                        text.push('.');
                    }
                    text.push_str(name);
                }
                Segment::Index(index) => text.push_str(&format!("[{index}]")),
                Segment::Key(key) => text.push_str(&format!("[{key:?}]")),
            }
        }
        text
    }
}

/// Every fault found in one resource, or in a part of one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Errors(Vec<Located>);

impl Errors {
    /// No faults yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps the faults of `result` and goes on with its value, if it has one.
    pub fn take<T>(&mut self, result: Result<T, Errors>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(errors) => {
                self.0.extend(errors.0);
                None
            }
        }
    }

    /// What comes of the items of the list `field`, but for those with faults, which are kept.
    pub fn each<T, C>(
        &mut self,
        field: &'static str,
        list: &[T],
        compile: impl Fn(&T) -> Result<C, Errors>,
    ) -> Vec<C> {
        let compiled = list.iter().enumerate().map(|(index, item)| compile(item).index(index));
        compiled.filter_map(|item| self.take(item.at(field))).collect()
    }

    /// Adds a fault at `field`; an empty name means here.
    pub fn push(&mut self, field: impl Into<Cow<'static, str>>, fault: Fault) {
        self.0.extend(Errors::from(fault).at(field).0);
    }

    /// `Ok` if nothing was found.
    pub fn finish(self) -> Result<(), Errors> {
        if self.0.is_empty() { Ok(()) } else { Err(self) }
    }

    /// True if nothing was found.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Puts `field` in front of every path. A name with dots is taken as it is.
    #[must_use]
    pub fn at(self, field: impl Into<Cow<'static, str>>) -> Self {
        let field = field.into();
        if field.is_empty() {
            return self;
        }
        self.climb(|| Segment::Field(field.clone()))
    }

    /// Puts a list index in front of every path.
    #[must_use]
    pub fn index(self, index: usize) -> Self {
        self.climb(|| Segment::Index(index))
    }

    /// Puts a map key in front of every path.
    #[must_use]
    pub fn key(self, key: &str) -> Self {
        self.climb(|| Segment::Key(key.to_owned()))
    }

    /// The faults as errors of `resource`.
    pub fn of(self, resource: &ResourceId) -> Vec<ConfigError> {
        let located =
            |l: Located| ConfigError { resource: resource.clone(), path: l.path(), fault: l.fault };
        self.0.into_iter().map(located).collect()
    }

    fn climb(mut self, segment: impl Fn() -> Segment) -> Self {
        for located in &mut self.0 {
            located.path.push(segment());
        }
        self
    }
}

impl From<Fault> for Errors {
    fn from(fault: Fault) -> Self {
        Self(vec![Located { path: Vec::new(), fault }])
    }
}

/// One line a fault, as `path: fault`.
impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, located) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            match located.path.is_empty() {
                true => write!(f, "{}", located.fault)?,
                false => write!(f, "{}: {}", located.path(), located.fault)?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}

/// Adds path segments to a result while it climbs; success pays nothing.
pub trait OrFault<T> {
    /// See [`Errors::at`].
    fn at(self, field: &'static str) -> Result<T, Errors>;
    /// See [`Errors::index`].
    fn index(self, index: usize) -> Result<T, Errors>;
    /// See [`Errors::key`].
    fn key(self, key: &str) -> Result<T, Errors>;
}

impl<T, E: Into<Errors>> OrFault<T> for Result<T, E> {
    fn at(self, field: &'static str) -> Result<T, Errors> {
        self.map_err(|e| e.into().at(field))
    }

    fn index(self, index: usize) -> Result<T, Errors> {
        self.map_err(|e| e.into().index(index))
    }

    fn key(self, key: &str) -> Result<T, Errors> {
        self.map_err(|e| e.into().key(key))
    }
}

/// Which resource an error is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ResourceId {
    /// `Cluster`, `Listener`, `RouteConfiguration`, `ClusterLoadAssignment`, `Secret`, `Bootstrap`.
    pub kind: &'static str,
    /// The resource's name; empty if it has none.
    pub name: Arc<str>,
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name.is_empty() {
            true => f.write_str(self.kind),
            false => write!(f, "{} {:?}", self.kind, self.name),
        }
    }
}

/// One fault of one resource. Its text is the same in the log, a NACK, `/config_dump` and
/// `--mode validate`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The resource that holds the fault.
    pub resource: ResourceId,
    /// The field's path, empty for the resource as a whole.
    pub path: String,
    /// What is wrong.
    pub fault: Fault,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.is_empty() {
            true => write!(f, "{}: {}", self.resource, self.fault),
            false => write!(f, "{}: {}: {}", self.resource, self.path, self.fault),
        }
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_grows_from_the_inside_out() {
        let inner: Result<(), _> = Err(Fault::out_of_range(70000, "in 0..=65535"));
        let errors = inner.at("address").index(0).at("lb_endpoints").index(2).at("endpoints");
        let id = ResourceId { kind: "Cluster", name: "users".into() };
        let text: Vec<_> = errors.unwrap_err().of(&id).iter().map(ToString::to_string).collect();
        assert_eq!(
            text,
            [r#"Cluster "users": endpoints[2].lb_endpoints[0].address: 70000 is not in 0..=65535"#]
        );
    }

    #[test]
    fn every_fault_is_kept() {
        let mut errors = Errors::new();
        errors.push("a", Fault::Required);
        assert_eq!(errors.take::<()>(Err(Fault::Duplicate("x".into())).key("k")), None);
        assert_eq!(
            errors.finish().unwrap_err().to_string(),
            "a: is required\n[\"k\"]: \"x\" is used more than once"
        );
    }
}
