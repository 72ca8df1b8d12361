//! Where in a file a field is.

use std::borrow::Cow;

/// The place of each value of a document, found by field path.
#[derive(Debug, Clone)]
pub struct LineMap {
    root: Node,
}

/// A line and, in characters, a column; both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

/// A value's place and those of the values in it.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) at: Mark,
    children: Children,
}

#[derive(Debug, Clone)]
enum Children {
    None,
    List(Box<[Node]>),
    Map(Box<[(Box<str>, Node)]>),
}

impl Node {
    pub(super) fn leaf(at: Mark) -> Self {
        Self { at, children: Children::None }
    }

    pub(super) fn list(at: Mark, items: Vec<Node>) -> Self {
        Self { at, children: Children::List(items.into()) }
    }

    pub(super) fn map(at: Mark, entries: Vec<(Box<str>, Node)>) -> Self {
        Self { at, children: Children::Map(entries.into()) }
    }

    fn field(&self, name: &str) -> Option<&Node> {
        let Children::Map(entries) = &self.children else { return None };
        let exact = |name: &str| Some(&entries.iter().find(|(key, _)| **key == *name)?.1);
        exact(name).or_else(|| exact(&lower_camel_case(name)))
    }

    fn child(&self, step: &Step<'_>) -> Option<&Node> {
        match (step, &self.children) {
            (Step::Index(index), Children::List(items)) => items.get(*index),
            // The fields of what a TypedStruct describes lie one level deeper in the file.
            (Step::Name(name), _) => self
                .field(name)
                .or_else(|| self.field("type_url").and(self.field("value"))?.field(name)),
            (Step::Index(_), _) => None,
        }
    }
}

impl LineMap {
    pub(super) fn new(root: Node) -> Self {
        Self { root }
    }

    /// The line, from 1, of a field such as `static_resources.clusters[0].name`, by its name in
    /// `snake_case` whatever the file uses; or else of its nearest ancestor in the file. `None`
    /// when the text is no path.
    pub fn line_of(&self, path: &str) -> Option<usize> {
        Some(self.mark_of(path)?.line)
    }

    /// The line and column of the same: of a field's name, of an item's value.
    pub fn mark_of(&self, path: &str) -> Option<Mark> {
        let mut node = &self.root;
        for step in steps(path)? {
            match node.child(&step) {
                Some(child) => node = child,
                None => break,
            }
        }
        Some(node.at)
    }
}

enum Step<'a> {
    Name(Cow<'a, str>),
    Index(usize),
}

/// Takes a path apart: `a.b[2].c["d.e"]`.
fn steps(path: &str) -> Option<Vec<Step<'_>>> {
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(key) = rest.strip_prefix("[\"") {
            let (key, after) = quoted(key)?;
            steps.push(Step::Name(Cow::Owned(key)));
            rest = after.strip_prefix(']')?;
        } else if let Some(index) = rest.strip_prefix('[') {
            let (index, after) = index.split_once(']')?;
            steps.push(Step::Index(index.parse().ok()?));
            rest = after;
        } else {
            let name = rest.strip_prefix('.').unwrap_or(rest);
            let end = name.find(['.', '[']).unwrap_or(name.len());
            let (name, after) = name.split_at_checked(end)?;
            if name.is_empty() {
                return None;
            }
            steps.push(Step::Name(Cow::Borrowed(name)));
            rest = after;
        }
    }
    Some(steps)
}

/// The text up to the closing quote, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut key = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((key, text.get(at + 1..)?)),
            '\\' => key.push(chars.next()?.1),
            c => key.push(c),
        }
    }
    None
}

fn lower_camel_case(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut upper = false;
    for c in name.chars() {
        if c == '_' {
            upper = true;
        } else {
            out.push(if upper { c.to_ascii_uppercase() } else { c });
            upper = false;
        }
    }
    out
}
