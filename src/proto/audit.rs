//! What a message says that we do not honour: fields we refuse and fields we do not declare.
//!
//! The generated types drop both without a word, so every resource is audited beside its decoding:
//! one pass over its wire bytes with compact tables made from the descriptors, without building the
//! message. The walk enters an `Any` whose type we declare and the JSON in a `TypedStruct`; an
//! `Any` of another type is left to the compile step, which refuses or skips extensions by name.
//!
//! Cost: a few nanoseconds a field and no allocation while there is nothing to report.

mod table;
#[cfg(test)]
mod tests;
mod wire;

use prost::Message as _;

use super::any::type_name;
use super::json::{Encoder, MAX_DEPTH, struct_to_json};
use super::path::Path;
use super::{descriptors, xds};
use table::{Field, Kind, Role, Shape, Table, Tables};
use wire::{Payload, Reader};

/// How many paths of each sort one audit lists; those beyond are counted in [`Audit::unlisted`].
pub const MAX_LISTED: usize = 1_000;

/// What an audit found. Paths are as found: the same field of many elements comes many times.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Audit {
    /// Paths of the fields that we do not declare, and so lose.
    pub ignored: Vec<String>,
    /// The fields for which the message must be rejected.
    pub refused: Vec<Refused>,
    /// The first place where the bytes are not protobuf; nothing behind it was looked at. Bytes
    /// that have one cannot be trusted and the message must be rejected, even should it decode.
    pub malformed: Option<Malformed>,
    /// Findings beyond [`MAX_LISTED`].
    pub unlisted: usize,
}

/// A field that is set and that we refuse to lose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Where the field is.
    pub path: String,
    /// Why it is refused or what to use instead.
    pub reason: &'static str,
}

/// Bytes that are not protobuf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    /// The message or field that is damaged; empty for the outermost message.
    pub path: String,
    /// What is wrong with its bytes.
    pub reason: &'static str,
}

/// Looks for what we refuse and what we do not declare in the bytes of a message.
///
/// A scalar at its default value counts as not set, as it does on the wire, and so does a wrapper
/// such as `BoolValue` around a default. An empty message, and any member of a `oneof`, is set.
pub fn audit(type_name: &str, bytes: &[u8]) -> Audit {
    let mut walk = Walk { tables: Tables::shared(), found: Audit::default() };
    let outcome = match walk.tables.find(type_name) {
        Some(table) => walk.message(table, bytes, &Path::ROOT, MAX_DEPTH),
        None => Err(malformed(&Path::ROOT, "its type is not declared")),
    };
    walk.found.malformed = outcome.err().map(|malformed| *malformed);
    walk.found
}

struct Walk {
    tables: &'static Tables,
    found: Audit,
}

/// Boxed, so that what every level returns fits in a register.
type Outcome = Result<(), Box<Malformed>>;

fn malformed(path: &Path<'_>, reason: &'static str) -> Box<Malformed> {
    Box::new(Malformed { path: path.to_string(), reason })
}

impl Walk {
    fn message(
        &mut self,
        table: &'static Table,
        bytes: &[u8],
        path: &Path<'_>,
        depth: usize,
    ) -> Outcome {
        let depth =
            depth.checked_sub(1).ok_or_else(|| malformed(path, "nested deeper than 100 levels"))?;
        match table.role {
            Role::Plain => self.fields(table, bytes, path, depth),
            Role::Any => self.any(bytes, path, depth),
            Role::TypedStruct => self.typed_struct(bytes, path, depth),
            Role::Wrapper | Role::Opaque => Ok(()),
        }
    }

    fn fields(
        &mut self,
        table: &'static Table,
        bytes: &[u8],
        path: &Path<'_>,
        depth: usize,
    ) -> Outcome {
        let mut counts = Counts::default();
        for entry in Reader::new(bytes) {
            let (number, payload) = entry.map_err(|reason| malformed(path, reason))?;
            let Some(field) = table.field(number) else {
                self.ignore(&path.undeclared(number));
                continue;
            };
            let path = path.field(&field.name);
            if !field.fits(payload) {
                return Err(malformed(&path, "its bytes are of another type"));
            }
            if let Some(reason) = &field.refused {
                if self.is_set(field, payload).map_err(|reason| malformed(&path, reason))? {
                    self.refuse(&path, reason);
                }
            } else if let (Kind::Message(inner), Payload::Bytes(bytes)) = (field.kind, payload) {
                let inner = self.tables.get(inner);
                match field.shape {
                    Shape::Single => self.message(inner, bytes, &path, depth)?,
                    Shape::Repeated => {
                        let path = path.index(counts.next(number));
                        self.message(inner, bytes, &path, depth)?;
                    }
                    Shape::Map => self.map_entry(inner, bytes, &path, depth)?,
                }
            }
        }
        Ok(())
    }

    fn map_entry(
        &mut self,
        entry: &'static Table,
        bytes: &[u8],
        path: &Path<'_>,
        depth: usize,
    ) -> Outcome {
        let Some(Kind::Message(value_table)) = entry.field(2).map(|value| value.kind) else {
            return Ok(());
        };
        let mut number_text = String::new();
        let (mut key, mut value) = ("", [].as_slice());
        for item in Reader::new(bytes) {
            match item.map_err(|reason| malformed(path, reason))? {
                (1, Payload::Bytes(bytes)) => {
                    key = str::from_utf8(bytes)
                        .ok()
                        .ok_or_else(|| malformed(path, "a key is not in UTF-8"))?;
                }
                (1, Payload::Varint(number)) => number_text = number.to_string(),
                (2, Payload::Bytes(bytes)) => value = bytes,
                (2, _) => return Err(malformed(path, "its bytes are of another type")),
                _ => {}
            }
        }
        let key = if number_text.is_empty() { key } else { &number_text };
        self.message(self.tables.get(value_table), value, &path.key(key), depth)
    }

    fn any(&mut self, bytes: &[u8], path: &Path<'_>, depth: usize) -> Outcome {
        let (mut url, mut value) = ([].as_slice(), [].as_slice());
        for item in Reader::new(bytes) {
            match item.map_err(|reason| malformed(path, reason))? {
                (1, Payload::Bytes(bytes)) => url = bytes,
                (2, Payload::Bytes(bytes)) => value = bytes,
                (1 | 2, _) => return Err(malformed(path, "its bytes are of another type")),
                _ => {}
            }
        }
        let url = str::from_utf8(url)
            .ok()
            .ok_or_else(|| malformed(path, "a type URL is not in UTF-8"))?;
        match self.tables.find(type_name(url)) {
            Some(table) => self.message(table, value, path, depth),
            None => Ok(()),
        }
    }

    fn typed_struct(&mut self, bytes: &[u8], path: &Path<'_>, depth: usize) -> Outcome {
        let typed = xds::r#type::v3::TypedStruct::decode(bytes)
            .ok()
            .ok_or_else(|| malformed(path, "not a valid TypedStruct"))?;
        let name = type_name(&typed.type_url);
        let (Some(table), Some(message)) =
            (self.tables.find(name), descriptors().get_message_by_name(name))
        else {
            return Ok(());
        };
        // Values that do not fit their fields are named when the message is unpacked.
        let mut encoder = Encoder::default();
        let value = struct_to_json(typed.value.unwrap_or_default());
        let bytes = encoder.message(&message, &value, path, depth);
        for path in encoder.ignored {
            self.list_ignored(|| path);
        }
        self.message(table, &bytes, path, depth)
    }

    fn is_set(&self, field: &Field, payload: Payload<'_>) -> Result<bool, &'static str> {
        Ok(match (field.shape, payload, field.kind) {
            (_, payload, _) if field.in_oneof => !matches!(payload, Payload::Group),
            (Shape::Repeated, Payload::Bytes(bytes), kind) if kind.is_packable() => {
                !bytes.is_empty()
            }
            (Shape::Repeated | Shape::Map, ..) => true,
            (_, Payload::Bytes(bytes), Kind::Message(inner)) => {
                self.tables.get(inner).role != Role::Wrapper || wraps_value(bytes)?
            }
            (_, payload, _) => !payload.is_default(),
        })
    }

    fn ignore(&mut self, path: &Path<'_>) {
        self.list_ignored(|| path.to_string());
    }

    fn list_ignored(&mut self, path: impl FnOnce() -> String) {
        if self.found.ignored.len() < MAX_LISTED {
            self.found.ignored.push(path());
        } else {
            self.found.unlisted += 1;
        }
    }

    fn refuse(&mut self, path: &Path<'_>, reason: &'static str) {
        if self.found.refused.len() < MAX_LISTED {
            self.found.refused.push(Refused { path: path.to_string(), reason });
        } else {
            self.found.unlisted += 1;
        }
    }
}

/// Whether a wrapper's bytes hold something other than its type's default.
fn wraps_value(bytes: &[u8]) -> Result<bool, &'static str> {
    let mut set = false;
    for item in Reader::new(bytes) {
        let (_, payload) = item?;
        set |= !payload.is_default();
    }
    Ok(set)
}

/// How many elements of each repeated field have been seen in one message.
#[derive(Default)]
struct Counts(smallvec::SmallVec<[(u32, usize); 6]>);

impl Counts {
    /// The index of the field's next element.
    fn next(&mut self, number: u32) -> usize {
        if let Some((_, count)) = self.0.iter_mut().find(|(seen, _)| *seen == number) {
            *count += 1;
            return *count - 1;
        }
        self.0.push((number, 1));
        0
    }
}
