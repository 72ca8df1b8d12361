//! YAML to JSON values that know their lines.
//!
//! YAML 1.2 with its core schema, of which JSON is a part: `yes` and `on` are text, `0644` is six
//! hundred and forty-four. One document a file; duplicate keys, merge keys and tags of other
//! schemas are errors, since each could make a file mean other than it says. Nesting and what
//! aliases expand to are bounded, so that a small file cannot become a large value.

mod lines;
mod scalar;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};
use serde_json::{Map, Value};

pub use lines::{LineMap, Mark};

use lines::Node;

/// How deep lists and mappings may nest, aliases expanded.
pub const MAX_DEPTH: usize = 100;

/// How much all aliases of a file together may expand to: values plus bytes of text.
pub const MAX_EXPANSION: usize = 4 << 20;

/// What a file holds.
#[derive(Debug, Clone)]
pub struct Document {
    /// The content; `null` for a file without any.
    pub value: Value,
    /// Where in the file each value is.
    pub lines: LineMap,
}

/// Why a text is not a YAML document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct YamlError {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What was found and what would be right.
    pub message: String,
}

/// Reads one document.
///
/// # Errors
/// The first place where the text is not YAML or means something that we do not accept.
pub fn parse(text: &str) -> Result<Document, YamlError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let text = scalar::join_surrogates(text);
    let mut loader = Loader {
        parser: Parser::new_from_str(&text),
        anchors: HashMap::new(),
        expanded: 0,
        span: Span::default(),
    };
    let mut document = None;
    loop {
        match loader.event()? {
            Event::StreamEnd => break,
            Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
            _ if document.is_some() => {
                return Err(loader.error("a second document; expected one document a file"));
            }
            event => document = Some(loader.value(event, 0)?),
        }
    }
    let item = document.unwrap_or_else(|| Item::scalar(Value::Null, START));
    Ok(Document { value: item.value, lines: LineMap::new(item.node) })
}

const START: Mark = Mark { line: 1, column: 1 };

struct Loader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    anchors: HashMap<usize, Anchored>,
    expanded: usize,
    /// Of the last event.
    span: Span,
}

/// A value as it is being read.
struct Item {
    value: Value,
    node: Node,
    /// Levels of lists and mappings in it.
    depth: usize,
    /// Values in it plus bytes of text.
    weight: usize,
}

struct Anchored {
    value: Value,
    depth: usize,
    weight: usize,
}

impl Item {
    fn scalar(value: Value, at: Mark) -> Self {
        let weight = 1 + value.as_str().map_or(0, str::len);
        Self { value, node: Node::leaf(at), depth: 0, weight }
    }
}

impl<'a> Loader<'a> {
    fn event(&mut self) -> Result<Event<'a>, YamlError> {
        match self.parser.next_event() {
            None => Ok(Event::StreamEnd),
            Some(Ok((event, span))) => {
                self.span = span;
                Ok(event)
            }
            Some(Err(error)) => Err(scan_error(&error)),
        }
    }

    fn value(&mut self, event: Event<'a>, depth: usize) -> Result<Item, YamlError> {
        if depth > MAX_DEPTH {
            return Err(self.error(format!("nested deeper than {MAX_DEPTH} levels")));
        }
        let (anchor, item) = match event {
            Event::Alias(id) => (0, self.alias(id, depth)?),
            Event::Scalar(text, style, anchor, tag) => {
                let value = self.scalar(text, style, tag.as_deref())?;
                (anchor, Item::scalar(value, self.mark()))
            }
            Event::SequenceStart(anchor, tag) => {
                self.check_tag(tag.as_deref(), "seq")?;
                (anchor, self.sequence(depth)?)
            }
            Event::MappingStart(anchor, tag) => {
                self.check_tag(tag.as_deref(), "map")?;
                (anchor, self.mapping(depth)?)
            }
            _ => return Err(self.error("expected a value")),
        };
        if anchor != 0 {
            self.expand(item.weight)?;
            let Item { value, depth, weight, .. } = &item;
            let anchored = Anchored { value: value.clone(), depth: *depth, weight: *weight };
            self.anchors.insert(anchor, anchored);
        }
        Ok(item)
    }

    fn sequence(&mut self, depth: usize) -> Result<Item, YamlError> {
        let at = self.mark();
        let (mut values, mut nodes) = (Vec::new(), Vec::new());
        let (mut inner, mut weight) = (0, 1);
        loop {
            let event = self.event()?;
            if event == Event::SequenceEnd {
                break;
            }
            let item = self.value(event, depth + 1)?;
            inner = inner.max(item.depth);
            weight += item.weight;
            values.push(item.value);
            nodes.push(item.node);
        }
        let node = Node::list(at, nodes);
        Ok(Item { value: Value::Array(values), node, depth: inner + 1, weight })
    }

    fn mapping(&mut self, depth: usize) -> Result<Item, YamlError> {
        let at = self.mark();
        let (mut map, mut nodes) = (Map::new(), Vec::new());
        let (mut inner, mut weight) = (0, 1);
        loop {
            let event = self.event()?;
            if event == Event::MappingEnd {
                break;
            }
            let key = self.key(event)?;
            let name = self.mark();
            if map.contains_key(&key) {
                return Err(self.error(format!("duplicate key {}", Value::String(key))));
            }
            let event = self.event()?;
            let mut item = self.value(event, depth + 1)?;
            inner = inner.max(item.depth);
            weight += item.weight + key.len();
            // A field is where its name is: its value may begin lines below.
            item.node.at = name;
            nodes.push((key.clone().into_boxed_str(), item.node));
            map.insert(key, item.value);
        }
        let node = Node::map(at, nodes);
        Ok(Item { value: Value::Object(map), node, depth: inner + 1, weight })
    }

    fn key(&mut self, event: Event<'a>) -> Result<String, YamlError> {
        let Event::Scalar(text, style, anchor, _) = event else {
            return Err(self.error("a key that is not plain text; expected a field name"));
        };
        if style == ScalarStyle::Plain && text == "<<" {
            return Err(self.error("merge keys are not part of YAML 1.2; write the fields out"));
        }
        if anchor != 0 {
            let item = Item::scalar(Value::String(text.clone().into_owned()), START);
            self.expand(item.weight)?;
            let Item { value, depth, weight, .. } = item;
            self.anchors.insert(anchor, Anchored { value, depth, weight });
        }
        Ok(text.into_owned())
    }

    fn alias(&mut self, id: usize, depth: usize) -> Result<Item, YamlError> {
        let Some(anchored) = self.anchors.get(&id) else {
            return Err(self.error("an alias to a value that is not complete before it"));
        };
        let (inner, weight) = (anchored.depth, anchored.weight);
        if depth + inner > MAX_DEPTH {
            return Err(self.error(format!("nested deeper than {MAX_DEPTH} levels")));
        }
        self.expand(weight)?;
        let Some(anchored) = self.anchors.get(&id) else {
            return Err(self.error("an alias without its anchor"));
        };
        let node = Node::leaf(self.mark());
        Ok(Item { value: anchored.value.clone(), node, depth: inner, weight })
    }

    /// Takes a copy's weight from what the file may expand to.
    fn expand(&mut self, weight: usize) -> Result<(), YamlError> {
        self.expanded = self.expanded.saturating_add(weight);
        if self.expanded > MAX_EXPANSION {
            return Err(self.error("anchors and aliases expand to more than 4 MiB"));
        }
        Ok(())
    }

    fn scalar(
        &self,
        text: Cow<'a, str>,
        style: ScalarStyle,
        tag: Option<&Tag>,
    ) -> Result<Value, YamlError> {
        let resolved = match tag {
            None if style == ScalarStyle::Plain => Some(scalar::resolve(&text)),
            None => None,
            Some(tag) if tag.is_yaml_core_schema() => {
                let value = if tag.suffix == "str" { None } else { Some(scalar::resolve(&text)) };
                let fits = match (tag.suffix.as_str(), &value) {
                    ("str", _) => true,
                    ("null", Some(value)) => value.is_null(),
                    ("bool", Some(value)) => value.is_boolean(),
                    ("int", Some(value)) => value.is_i64() || value.is_u64(),
                    ("float", Some(value)) => value.is_number(),
                    _ => false,
                };
                if !fits {
                    return Err(
                        self.error(format!("{text:?} is not a value of tag !!{}", tag.suffix))
                    );
                }
                value
            }
            Some(tag) if tag.handle.is_empty() && tag.suffix == "!" => None,
            Some(tag) => return Err(self.foreign_tag(tag)),
        };
        Ok(resolved.unwrap_or_else(|| Value::String(text.into_owned())))
    }

    fn check_tag(&self, tag: Option<&Tag>, expected: &str) -> Result<(), YamlError> {
        match tag {
            Some(tag) if !(tag.is_yaml_core_schema() && tag.suffix == expected) => {
                Err(self.foreign_tag(tag))
            }
            _ => Ok(()),
        }
    }

    fn foreign_tag(&self, tag: &Tag) -> YamlError {
        self.error(format!("tag {}{} is not supported; leave it out", tag.handle, tag.suffix))
    }

    /// Where the last event began.
    fn mark(&self) -> Mark {
        let at = self.span.start;
        Mark { line: at.line().max(1), column: at.col() + 1 }
    }

    fn error(&self, message: impl Into<String>) -> YamlError {
        let Mark { line, column } = self.mark();
        YamlError { line, column, message: message.into() }
    }
}

fn scan_error(error: &ScanError) -> YamlError {
    let at = error.marker();
    YamlError { line: at.line().max(1), column: at.col() + 1, message: error.info().to_owned() }
}
