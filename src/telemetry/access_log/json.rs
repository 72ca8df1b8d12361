//! Lines in JSON: a tree whose leaves are formats.
//!
//! As in Envoy a leaf of one operator keeps its type (numbers are numbers, a missing value is
//! `null`), a leaf of anything more is a string, and members come in the order of their names.
//! Source: `config.core.v3.SubstitutionFormatString.json_format`.

use std::io::Write;

use prost_types::{ListValue, Struct, Value as ProtoValue, value::Kind};

use super::format::{Context, Format, MISSING, Piece};
use super::operator::{Operator, Value};
use crate::config::{Errors, Fault, OrFault};

/// A compiled JSON format.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonFormat(Node);

#[derive(Debug, Clone, PartialEq)]
enum Node {
    /// Keys are quoted and escaped, with their colon.
    Object(Box<[(Box<[u8]>, Node)]>),
    List(Box<[Node]>),
    /// Already JSON.
    Literal(Box<[u8]>),
    Null,
    Single(Operator),
    Text(Format),
}

impl JsonFormat {
    /// Reads a format.
    ///
    /// # Errors
    /// The faults of every leaf, with its path.
    pub fn compile(format: &Struct) -> Result<Self, Errors> {
        object(format).map(Self)
    }

    /// Appends one line and its end. With `omit_empty` members without a value are left out, and
    /// objects that have no members then.
    pub fn write(&self, cx: &Context<'_>, omit_empty: bool, out: &mut Vec<u8>) {
        if !self.0.write(cx, omit_empty, out) && omit_empty {
            out.extend_from_slice(b"{}");
        }
        out.push(b'\n');
    }

    /// Whether evaluating it reads the request's head.
    pub fn needs_request(&self) -> bool {
        self.0.any(&|operator| operator.needs_request())
    }

    /// Whether evaluating it reads the response's headers.
    pub fn needs_response_headers(&self) -> bool {
        self.0.any(&|operator| operator.needs_response_headers())
    }
}

fn object(format: &Struct) -> Result<Node, Errors> {
    let Struct { fields } = format;
    let mut errors = Errors::new();
    let mut members = Vec::with_capacity(fields.len());
    for (key, value) in fields {
        let mut quoted = Vec::new();
        push_quoted(&mut quoted, key.as_bytes());
        quoted.push(b':');
        if let Some(node) = errors.take(node(value).key(key)) {
            members.push((quoted.into(), node));
        }
    }
    errors.finish()?;
    Ok(Node::Object(members.into()))
}

fn node(value: &ProtoValue) -> Result<Node, Errors> {
    let ProtoValue { kind } = value;
    match kind {
        None | Some(Kind::NullValue(_)) => Ok(Node::Null),
        Some(Kind::BoolValue(value)) => Ok(Node::Literal(value.to_string().into_bytes().into())),
        Some(Kind::NumberValue(number)) if number.is_finite() => {
            Ok(Node::Literal(number.to_string().into_bytes().into()))
        }
        Some(Kind::NumberValue(number)) => {
            Err(Fault::invalid(number, "JSON has no such number").into())
        }
        Some(Kind::StringValue(text)) => Format::compile(text).map(leaf),
        Some(Kind::StructValue(format)) => object(format),
        Some(Kind::ListValue(ListValue { values })) => {
            let mut errors = Errors::new();
            let nodes: Vec<_> = values
                .iter()
                .enumerate()
                .filter_map(|(i, value)| errors.take(node(value).index(i)))
                .collect();
            errors.finish()?;
            Ok(Node::List(nodes.into()))
        }
    }
}

fn leaf(format: Format) -> Node {
    match &*format.pieces {
        [Piece::Operator(operator)] => Node::Single(operator.clone()),
        [] => Node::Literal(b"\"\"".as_slice().into()),
        [Piece::Text(text)] => {
            let mut quoted = Vec::new();
            push_quoted(&mut quoted, text.as_bytes());
            Node::Literal(quoted.into())
        }
        _ => Node::Text(format),
    }
}

impl Node {
    /// Appends the node. False, and nothing appended, if it has no value and such are omitted.
    fn write(&self, cx: &Context<'_>, omit_empty: bool, out: &mut Vec<u8>) -> bool {
        match self {
            Self::Object(members) => return write_object(members, cx, omit_empty, out),
            Self::List(nodes) => {
                out.push(b'[');
                let first = out.len();
                for node in nodes {
                    let before = out.len();
                    if before != first {
                        out.push(b',');
                    }
                    if !node.write(cx, omit_empty, out) {
                        out.truncate(before);
                    }
                }
                out.push(b']');
            }
            Self::Literal(json) => out.extend_from_slice(json),
            Self::Null if omit_empty => return false,
            Self::Null => out.extend_from_slice(b"null"),
            Self::Single(operator) => match operator.value(cx) {
                Value::Missing if omit_empty => return false,
                Value::Missing => out.extend_from_slice(b"null"),
                value @ Value::Number(_) => value.write(out),
                value => {
                    out.push(b'"');
                    push_value(out, &value);
                    out.push(b'"');
                }
            },
            Self::Text(format) => {
                out.push(b'"');
                for piece in &format.pieces {
                    match piece {
                        Piece::Text(text) => push_escaped(out, text.as_bytes()),
                        Piece::Operator(operator) => match operator.value(cx) {
                            Value::Missing if omit_empty => {}
                            Value::Missing => out.extend_from_slice(MISSING),
                            value => push_value(out, &value),
                        },
                    }
                }
                out.push(b'"');
            }
        }
        true
    }

    fn any(&self, wanted: &dyn Fn(&Operator) -> bool) -> bool {
        match self {
            Self::Object(members) => members.iter().any(|(_, node)| node.any(wanted)),
            Self::List(nodes) => nodes.iter().any(|node| node.any(wanted)),
            Self::Literal(_) | Self::Null => false,
            Self::Single(operator) => wanted(operator),
            Self::Text(format) => format.pieces.iter().any(|piece| match piece {
                Piece::Operator(operator) => wanted(operator),
                Piece::Text(_) => false,
            }),
        }
    }
}

fn write_object(
    members: &[(Box<[u8]>, Node)],
    cx: &Context<'_>,
    omit_empty: bool,
    out: &mut Vec<u8>,
) -> bool {
    let start = out.len();
    out.push(b'{');
    for (key, node) in members {
        let before = out.len();
        if before != start + 1 {
            out.push(b',');
        }
        out.extend_from_slice(key);
        if !node.write(cx, omit_empty, out) {
            out.truncate(before);
        }
    }
    if omit_empty && out.len() == start + 1 {
        out.truncate(start);
        return false;
    }
    out.push(b'}');
    true
}

/// Appends the text of a value, escaped where it may need it.
fn push_value(out: &mut Vec<u8>, value: &Value<'_>) {
    match value {
        Value::Bytes(bytes) => push_escaped(out, bytes),
        Value::Time(format, time) => {
            let mut text = Vec::new();
            format.write(*time, &mut text);
            push_escaped(out, &text);
        }
        value => value.write(out),
    }
}

fn push_quoted(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    push_escaped(out, text);
    out.push(b'"');
}

/// Bytes that are not UTF-8 become the replacement character.
fn push_escaped(out: &mut Vec<u8>, text: &[u8]) {
    for chunk in text.utf8_chunks() {
        let mut plain = 0;
        let valid = chunk.valid().as_bytes();
        for (i, byte) in valid.iter().enumerate() {
            let escape: &[u8] = match byte {
                b'"' => b"\\\"",
                b'\\' => b"\\\\",
                b'\n' => b"\\n",
                b'\r' => b"\\r",
                b'\t' => b"\\t",
                0..0x20 | 0x7f => b"",
                _ => continue,
            };
            out.extend_from_slice(&valid[plain..i]);
            plain = i + 1;
            if escape.is_empty() {
                // Writing to memory cannot fail.
                let _ = write!(out, "\\u{byte:04x}");
            } else {
                out.extend_from_slice(escape);
            }
        }
        out.extend_from_slice(&valid[plain..]);
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}
