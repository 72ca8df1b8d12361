//! What an audit needs to know of each message type, in a form made to be read fast.

use std::collections::HashMap;
use std::sync::LazyLock;

use foldhash::fast::RandomState;
use prost_reflect::{Cardinality, ExtensionDescriptor, FieldDescriptor, MessageDescriptor, Value};

use super::super::any::is_typed_struct;
use super::super::descriptors;
use super::wire::Payload;

/// Field numbers below this are found by position, those above by search.
const DENSE: u32 = 256;

/// The tables of all declared messages.
pub(super) struct Tables {
    by_name: HashMap<Box<str>, usize, RandomState>,
    tables: Vec<Table>,
}

/// One message type.
pub(super) struct Table {
    pub(super) role: Role,
    /// Position in `fields` plus one, by field number; 0 where there is none.
    dense: Box<[u16]>,
    /// By ascending number.
    fields: Box<[Field]>,
}

/// How a message is walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Field by field.
    Plain,
    /// Into the message of the named type.
    Any,
    /// Into the message that the JSON describes.
    TypedStruct,
    /// Not at all: a scalar whose absence can be told from its default.
    Wrapper,
    /// Not at all: data whose shape is fixed, such as a duration.
    Opaque,
}

/// One declared field.
pub(super) struct Field {
    pub(super) number: u32,
    pub(super) name: Box<str>,
    pub(super) kind: Kind,
    pub(super) shape: Shape,
    /// Whether it is a member of a `oneof`, so that presence alone says something.
    pub(super) in_oneof: bool,
    /// Why the field is refused, if it is.
    pub(super) refused: Option<Box<str>>,
}

/// How a value lies on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Varint,
    Fixed32,
    Fixed64,
    Bytes,
    /// A message, by the position of its table.
    Message(usize),
}

/// How many values a field has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Single,
    Repeated,
    Map,
}

impl Kind {
    /// Whether a repeated field of the kind may come as one run of bytes.
    pub(super) fn is_packable(self) -> bool {
        matches!(self, Kind::Varint | Kind::Fixed32 | Kind::Fixed64)
    }
}

impl Field {
    /// Whether the payload is how a value of this field may be written.
    pub(super) fn fits(&self, payload: Payload<'_>) -> bool {
        match payload {
            Payload::Varint(_) => self.kind == Kind::Varint,
            Payload::Fixed32(_) => self.kind == Kind::Fixed32,
            Payload::Fixed64(_) => self.kind == Kind::Fixed64,
            Payload::Bytes(_) => !self.kind.is_packable() || self.shape == Shape::Repeated,
            Payload::Group => false,
        }
    }
}

impl Table {
    pub(super) fn field(&self, number: u32) -> Option<&Field> {
        if number < DENSE {
            let position = self.dense.get(usize::try_from(number).ok()?)?;
            return self.fields.get(usize::from(position.checked_sub(1)?));
        }
        let position = self.fields.binary_search_by_key(&number, |field| field.number).ok()?;
        self.fields.get(position)
    }

    fn new(
        message: &MessageDescriptor,
        refused: &ExtensionDescriptor,
        positions: &HashMap<String, usize>,
    ) -> Self {
        let mut fields: Vec<_> =
            message.fields().map(|field| Field::new(&field, refused, positions)).collect();
        fields.sort_by_key(|field| field.number);
        let last = fields.iter().map(|field| field.number).filter(|n| *n < DENSE).max();
        let mut dense = vec![0; last.map_or(0, |last| last as usize + 1)];
        for (place, field) in (1..).zip(&fields) {
            if let Some(slot) = dense.get_mut(field.number as usize) {
                *slot = place;
            }
        }
        Self { role: role(message.full_name()), dense: dense.into(), fields: fields.into() }
    }
}

fn role(name: &str) -> Role {
    match name.strip_prefix("google.protobuf.") {
        Some("Any") => Role::Any,
        Some(name) if name.ends_with("Value") && !matches!(name, "Value" | "ListValue") => {
            Role::Wrapper
        }
        Some(_) => Role::Opaque,
        None if is_typed_struct(name) => Role::TypedStruct,
        None => Role::Plain,
    }
}

impl Field {
    fn new(
        field: &FieldDescriptor,
        refused: &ExtensionDescriptor,
        positions: &HashMap<String, usize>,
    ) -> Self {
        use prost_reflect::Kind as Declared;
        let kind = match field.kind() {
            Declared::Message(inner) => Kind::Message(positions[inner.full_name()]),
            Declared::String | Declared::Bytes => Kind::Bytes,
            Declared::Fixed32 | Declared::Sfixed32 | Declared::Float => Kind::Fixed32,
            Declared::Fixed64 | Declared::Sfixed64 | Declared::Double => Kind::Fixed64,
            Declared::Bool
            | Declared::Enum(_)
            | Declared::Int32
            | Declared::Int64
            | Declared::Uint32
            | Declared::Uint64
            | Declared::Sint32
            | Declared::Sint64 => Kind::Varint,
        };
        let shape = if field.is_map() {
            Shape::Map
        } else if field.cardinality() == Cardinality::Repeated {
            Shape::Repeated
        } else {
            Shape::Single
        };
        let options = field.options();
        let reason = options.has_extension(refused).then(|| options.get_extension(refused));
        Self {
            number: field.number(),
            name: field.name().into(),
            kind,
            shape,
            in_oneof: field.containing_oneof().is_some_and(|oneof| !oneof.is_synthetic()),
            refused: reason.as_deref().and_then(Value::as_str).map(Into::into),
        }
    }
}

impl Tables {
    /// The tables, made on first use.
    pub(super) fn shared() -> &'static Self {
        static TABLES: LazyLock<Tables> = LazyLock::new(Tables::new);
        &TABLES
    }

    pub(super) fn find(&self, name: &str) -> Option<&Table> {
        self.tables.get(*self.by_name.get(name)?)
    }

    pub(super) fn get(&self, position: usize) -> &Table {
        &self.tables[position]
    }

    fn new() -> Self {
        let pool = descriptors();
        let refused = pool
            .get_extension_by_name("nuncio.refused")
            .expect("the build script found the option in the same descriptors");
        let positions: HashMap<_, _> =
            pool.all_messages().zip(0..).map(|(m, i)| (m.full_name().to_owned(), i)).collect();
        let tables =
            pool.all_messages().map(|message| Table::new(&message, &refused, &positions)).collect();
        let by_name = positions.into_iter().map(|(name, i)| (name.into(), i)).collect();
        Self { by_name, tables }
    }
}
