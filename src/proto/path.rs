//! Where a value stands in a message, in the proto text form.
//!
//! A path is a chain of links on the stack of a recursive walk, so that a walk that finds nothing
//! to say allocates nothing. It becomes text only when something is reported:
//! `load_assignment.endpoints[2].lb_endpoints[0].endpoint.address`.

use std::fmt::{self, Write as _};

/// One step from a message to a value in it, and the steps before it.
#[derive(Clone, Copy)]
pub(super) struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    segment: Segment<'a>,
}

#[derive(Clone, Copy)]
enum Segment<'a> {
    Root,
    Field(&'a str),
    Undeclared(u32),
    Index(usize),
    Key(&'a str),
}

impl<'a> Path<'a> {
    /// The message the walk began with.
    pub(super) const ROOT: Path<'static> = Path { parent: None, segment: Segment::Root };

    /// A field by its name, or a JSON key that names no field.
    pub(super) fn field(&'a self, name: &'a str) -> Path<'a> {
        self.then(Segment::Field(name))
    }

    /// A field of which only the number is known.
    pub(super) fn undeclared(&'a self, number: u32) -> Path<'a> {
        self.then(Segment::Undeclared(number))
    }

    /// An element of a repeated field, from 0.
    pub(super) fn index(&'a self, index: usize) -> Path<'a> {
        self.then(Segment::Index(index))
    }

    /// An entry of a map field.
    pub(super) fn key(&'a self, key: &'a str) -> Path<'a> {
        self.then(Segment::Key(key))
    }

    fn then(&'a self, segment: Segment<'a>) -> Path<'a> {
        Path { parent: Some(self), segment }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut links = vec![self];
        let mut link = self;
        while let Some(parent) = link.parent {
            links.push(parent);
            link = parent;
        }
        let mut first = true;
        for link in links.into_iter().rev() {
            match link.segment {
                Segment::Root => continue,
                Segment::Field(name) if is_plain(name) => {
                    f.write_str(if first { "" } else { "." })?;
                    f.write_str(name)?;
                }
                Segment::Undeclared(number) => {
                    f.write_str(if first { "" } else { "." })?;
                    write!(f, "<field {number}>")?;
                }
                Segment::Index(index) => write!(f, "[{index}]")?,
                Segment::Field(key) | Segment::Key(key) => write_key(f, key)?,
            }
            first = false;
        }
        Ok(())
    }
}

/// Whether a name can stand after a dot without being taken for something else.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-@".contains(&b))
}

fn write_key(f: &mut fmt::Formatter<'_>, key: &str) -> fmt::Result {
    f.write_str("[\"")?;
    for c in key.chars() {
        match c {
            '"' | '\\' => {
                f.write_char('\\')?;
                f.write_char(c)?;
            }
            c if c.is_control() => write!(f, "{}", c.escape_default())?,
            c => f.write_char(c)?,
        }
    }
    f.write_str("\"]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_reads_as_in_the_proto_text_form() {
        let list = Path::ROOT.field("endpoints");
        let item = list.index(2);
        let map = item.field("typed_per_filter_config");
        let entry = map.key("envoy.\"x\"");
        assert_eq!(
            entry.undeclared(7).to_string(),
            r#"endpoints[2].typed_per_filter_config["envoy.\"x\""].<field 7>"#
        );
        assert_eq!(Path::ROOT.to_string(), "");
        assert_eq!(Path::ROOT.field("a b").field("c").to_string(), r#"["a b"].c"#);
    }
}
