//! JSON to the bytes of a message, guided by its descriptor.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor};
use prost_types::Any;
use serde::de::value::MapDeserializer;
use serde_json::{Map, Value};

use super::super::any::type_name;
use super::super::path::Path;
use super::super::{descriptors, xds};
use super::{Fault, structs};
use crate::proto::any;

/// The longest piece of a faulty value that an error quotes.
const QUOTED_CHARS: usize = 60;

/// How bytes are written in JSON.
const BASE64: &str = "base64";

/// The `Any` that means something with nothing in it: options that only switch a filter on.
const MAY_BE_BARE: &str = "envoy.config.route.v3.FilterConfig.config";

/// What a walk over JSON has found so far.
#[derive(Default)]
pub(in super::super) struct Encoder {
    /// Paths of keys that name no declared field.
    pub(in super::super) ignored: Vec<String>,
    /// Values that do not fit their fields. While there are none, the bytes are whole.
    pub(in super::super) faults: Vec<Fault>,
}

impl Encoder {
    /// The bytes of a message given as JSON. `depth` is how many more levels are allowed.
    pub(in super::super) fn message(
        &mut self,
        message: &MessageDescriptor,
        value: &Value,
        path: &Path<'_>,
        depth: usize,
    ) -> Vec<u8> {
        let Some(depth) = depth.checked_sub(1) else {
            self.fault(path, format!("nested deeper than {} levels", super::MAX_DEPTH));
            return Vec::new();
        };
        match (message.full_name(), value) {
            ("google.protobuf.Any", Value::Object(map)) => self.any(map, path, depth),
            ("google.protobuf.Struct", Value::Object(map)) => {
                structs::json_to_struct(map).encode_to_vec()
            }
            ("google.protobuf.ListValue", Value::Array(items)) => {
                structs::to_list(items).encode_to_vec()
            }
            ("google.protobuf.Value", value) => structs::to_value(value).encode_to_vec(),
            (name, value) if is_special(name) => {
                match DynamicMessage::deserialize(message.clone(), value) {
                    Ok(message) => message.encode_to_vec(),
                    Err(_) => {
                        self.unexpected(path, special_form(name), value);
                        Vec::new()
                    }
                }
            }
            (_, Value::Object(map)) => self.fields(message, map, path, depth),
            (_, value) => {
                self.unexpected(path, "an object", value);
                Vec::new()
            }
        }
    }

    fn fields(
        &mut self,
        message: &MessageDescriptor,
        map: &Map<String, Value>,
        path: &Path<'_>,
        depth: usize,
    ) -> Vec<u8> {
        let mut encoded = BTreeMap::new();
        let mut chosen: HashMap<String, String> = HashMap::new();
        for (key, value) in map {
            let Some(field) =
                message.get_field_by_name(key).or_else(|| message.get_field_by_json_name(key))
            else {
                self.ignored.push(path.field(key).to_string());
                continue;
            };
            if value.is_null() && !takes_null(&field) {
                continue;
            }
            let path = path.field(field.name());
            if let Some(oneof) = field.containing_oneof()
                && let Some(other) = chosen.insert(oneof.name().to_owned(), key.clone())
                && other != *key
            {
                self.fault(&path, format!("excludes {other}; expected only one of the two"));
            }
            let bytes = self.field(&field, value, &path, depth);
            if encoded.insert(field.number(), bytes).is_some() {
                self.fault(&path, "given twice, in snake_case and in lowerCamelCase".to_owned());
            }
        }
        encoded.into_values().flatten().collect()
    }

    fn field(
        &mut self,
        field: &FieldDescriptor,
        value: &Value,
        path: &Path<'_>,
        depth: usize,
    ) -> Vec<u8> {
        if field.is_map() {
            self.map(field, value, path, depth)
        } else if field.is_list() {
            self.list(field, value, path, depth)
        } else {
            self.single(field, value, path, depth)
        }
    }

    fn map(
        &mut self,
        field: &FieldDescriptor,
        value: &Value,
        path: &Path<'_>,
        depth: usize,
    ) -> Vec<u8> {
        let (Kind::Message(entry), Value::Object(map)) = (field.kind(), value) else {
            self.unexpected(path, "an object", value);
            return Vec::new();
        };
        let key_field = entry.map_entry_key_field();
        let value_field = entry.map_entry_value_field();
        let mut out = Vec::new();
        for (key, value) in map.iter().collect::<BTreeMap<_, _>>() {
            let path = path.key(key);
            let key = match key_field.kind() {
                Kind::Bool => key.parse().map_or_else(|_| key.as_str().into(), Value::Bool),
                _ => Value::String(key.clone()),
            };
            let mut bytes = self.single(&key_field, &key, &path, depth);
            bytes.extend(self.single(&value_field, value, &path, depth));
            length_delimited(field, &bytes, &mut out);
        }
        out
    }

    fn list(
        &mut self,
        field: &FieldDescriptor,
        value: &Value,
        path: &Path<'_>,
        depth: usize,
    ) -> Vec<u8> {
        let Value::Array(items) = value else {
            self.unexpected(path, "a list", value);
            return Vec::new();
        };
        if let Kind::Message(message) = field.kind() {
            let mut out = Vec::new();
            for (i, item) in items.iter().enumerate() {
                let bytes = self.message(&message, item, &path.index(i), depth);
                length_delimited(field, &bytes, &mut out);
            }
            return out;
        }
        if let Some(bytes) = scalar(field, value) {
            return bytes;
        }
        for (i, item) in items.iter().enumerate() {
            if scalar(field, &Value::Array(vec![item.clone()])).is_none() {
                self.unexpected(&path.index(i), Expected(&field.kind()), item);
            }
        }
        Vec::new()
    }

    fn single(
        &mut self,
        field: &FieldDescriptor,
        value: &Value,
        path: &Path<'_>,
        depth: usize,
    ) -> Vec<u8> {
        let kind = field.kind();
        if let Kind::Message(message) = &kind {
            let is_bare = value.as_object().is_some_and(Map::is_empty);
            let bytes = match is_bare && field.full_name() == MAY_BE_BARE {
                true => Vec::new(),
                false => self.message(message, value, path, depth),
            };
            let mut out = Vec::with_capacity(bytes.len() + 4);
            length_delimited(field, &bytes, &mut out);
            return out;
        }
        match scalar(field, value) {
            Some(bytes) => bytes,
            None => {
                self.unexpected(path, Expected(&kind), value);
                Vec::new()
            }
        }
    }

    fn any(&mut self, map: &Map<String, Value>, path: &Path<'_>, depth: usize) -> Vec<u8> {
        let Some(Value::String(url)) = map.get("@type") else {
            self.fault(path, "expected an object with its type URL in \"@type\"".to_owned());
            return Vec::new();
        };
        let mut rest = map.clone();
        rest.shift_remove("@type");
        let name = type_name(url);
        let Some(message) = descriptors().get_message_by_name(name) else {
            let value = Some(structs::json_to_struct(&rest));
            let typed = xds::r#type::v3::TypedStruct { type_url: url.clone(), value };
            return any::pack(&typed).encode_to_vec();
        };
        let value = if is_special(name) {
            let value = rest.shift_remove("value").unwrap_or_default();
            self.ignored.extend(rest.keys().map(|key| path.field(key).to_string()));
            self.message(&message, &value, path, depth)
        } else {
            self.fields(&message, &rest, path, depth)
        };
        Any { type_url: url.clone(), value }.encode_to_vec()
    }

    fn unexpected(&mut self, path: &Path<'_>, expected: impl fmt::Display, found: &Value) {
        let expected = expected.to_string();
        if expected == BASE64 {
            // What was found may be a secret that only lost a character: it is not repeated.
            self.fault(path, format!("expected {expected}"));
        } else {
            self.fault(path, format!("expected {expected}, found {}", quote(found)));
        }
    }

    fn fault(&mut self, path: &Path<'_>, problem: String) {
        self.faults.push(Fault { path: path.to_string(), problem });
    }
}

/// A scalar, an enum value or a list of them, key included, as `prost-reflect` reads it.
fn scalar(field: &FieldDescriptor, value: &Value) -> Option<Vec<u8>> {
    let entry = std::iter::once((field.json_name(), value));
    let message = field.parent_message().clone();
    let message =
        DynamicMessage::deserialize(message, MapDeserializer::<_, serde_json::Error>::new(entry));
    message.ok().map(|message| message.encode_to_vec())
}

fn length_delimited(field: &FieldDescriptor, bytes: &[u8], out: &mut Vec<u8>) {
    encode_key(field.number(), WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Whether JSON `null` is a value of the field rather than its absence.
fn takes_null(field: &FieldDescriptor) -> bool {
    match field.kind() {
        Kind::Message(message) => message.full_name() == "google.protobuf.Value",
        Kind::Enum(values) => values.full_name() == "google.protobuf.NullValue",
        _ => false,
    }
}

/// Whether the type has a JSON form of its own, other than an object of its fields.
pub(super) fn is_special(name: &str) -> bool {
    name == "google.protobuf.Any"
        || name == "google.protobuf.Empty"
        || !special_form(name).is_empty()
}

fn special_form(name: &str) -> &'static str {
    match name.strip_prefix("google.protobuf.").unwrap_or_default() {
        "Any" => "an object with its type URL in \"@type\"",
        "Empty" | "Struct" => "an object",
        "ListValue" => "a list",
        "Value" => "a value",
        "Duration" => "a duration such as \"1.5s\"",
        "Timestamp" => "a time such as \"2026-01-31T12:00:00Z\"",
        "FieldMask" => "field names with commas between them",
        "BoolValue" => "true or false",
        "StringValue" => "a string",
        "BytesValue" => BASE64,
        "Int32Value" => "an integer of 32 bits",
        "Int64Value" => "an integer of 64 bits",
        "UInt32Value" => "an integer in 0..=4294967295",
        "UInt64Value" => "an integer in 0..=18446744073709551615",
        "FloatValue" | "DoubleValue" => "a number",
        _ => "",
    }
}

/// What values of a kind look like.
struct Expected<'a>(&'a Kind);

impl fmt::Display for Expected<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Bool => "true or false",
            Kind::String => "a string",
            Kind::Bytes => BASE64,
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => "an integer of 32 bits",
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => "an integer of 64 bits",
            Kind::Uint32 | Kind::Fixed32 => "an integer in 0..=4294967295",
            Kind::Uint64 | Kind::Fixed64 => "an integer in 0..=18446744073709551615",
            Kind::Float | Kind::Double => "a number",
            Kind::Message(_) => "an object",
            Kind::Enum(values) => {
                let names: Vec<_> = values.values().map(|v| v.name().to_owned()).collect();
                return write!(f, "one of {}", names.join(", "));
            }
        })
    }
}

fn quote(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            let text = value.to_string();
            match text.char_indices().nth(QUOTED_CHARS) {
                Some((end, _)) => format!("{}...", &text[..end]),
                None => text,
            }
        }
    }
}
