//! The bytes of a message to JSON, for dumps that people read.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use prost_reflect::{DynamicMessage, Kind, MapKey, ReflectMessage as _, SerializeOptions, Value};
use prost_types::Any;
use serde_json::{Map, Value as Json, json};

use super::super::any::type_name;
use super::super::descriptors;
use super::{MAX_DEPTH, encode, struct_to_json, structs};

/// Why bytes cannot be shown as JSON.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RenderError {
    /// We declare no such message.
    #[error("message type {0} is not supported")]
    UnknownType(String),
    /// The bytes are not a message of the type.
    #[error("not a valid {type_name}: {source}")]
    Undecodable {
        /// Full name of the type.
        type_name: String,
        /// What is wrong with the bytes.
        #[source]
        source: prost::DecodeError,
    },
}

/// A message as JSON with the names of the `.proto` files, fields at their default left out.
///
/// Fields that are refused are shown; those that are not declared are not. An `Any` whose type is
/// not declared or whose bytes are damaged is shown as its bytes in base64 under `value`.
///
/// # Errors
/// When the type is not declared or the bytes are not a message of it.
pub fn to_json(type_name: &str, bytes: &[u8]) -> Result<Json, RenderError> {
    let message = descriptors()
        .get_message_by_name(type_name)
        .ok_or_else(|| RenderError::UnknownType(type_name.to_owned()))?;
    let message = DynamicMessage::decode(message, bytes)
        .map_err(|source| RenderError::Undecodable { type_name: type_name.to_owned(), source })?;
    Ok(render(&message, MAX_DEPTH))
}

fn render(message: &DynamicMessage, depth: usize) -> Json {
    let name = message.descriptor().full_name().to_owned();
    if name == "google.protobuf.Any" {
        return message.transcode_to::<Any>().map_or(Json::Null, |any| render_any(&any, depth));
    }
    // prost-reflect would write every number of these as a float: 80.0.
    let free_form = match name.as_str() {
        "google.protobuf.Struct" => message.transcode_to().map(struct_to_json).ok(),
        "google.protobuf.Value" => message.transcode_to().map(structs::from_value).ok(),
        "google.protobuf.ListValue" => message.transcode_to().map(structs::from_list).ok(),
        _ => None,
    };
    if let Some(json) = free_form {
        return json;
    }
    if encode::is_special(&name) {
        let options = SerializeOptions::new().use_proto_field_name(true);
        let json = message.serialize_with_options(serde_json::value::Serializer, &options);
        if let Ok(json) = json {
            return json;
        }
        // Out of the range of its JSON form, such as a duration of a billion years.
    }
    Json::Object(fields(message, depth))
}

fn fields(message: &DynamicMessage, depth: usize) -> Map<String, Json> {
    let mut object = Map::new();
    for (field, value) in message.fields() {
        object.insert(field.name().to_owned(), render_value(value, &field.kind(), depth));
    }
    object
}

fn render_any(any: &Any, depth: usize) -> Json {
    if any.type_url.is_empty() && any.value.is_empty() {
        return json!({});
    }
    let name = type_name(&any.type_url);
    let inner = depth.checked_sub(1).and_then(|depth| {
        let message = descriptors().get_message_by_name(name)?;
        Some((DynamicMessage::decode(message, any.value.as_slice()).ok()?, depth))
    });
    let Some((inner, depth)) = inner else {
        return json!({"@type": any.type_url, "value": BASE64_STANDARD.encode(&any.value)});
    };
    if encode::is_special(name) {
        return json!({"@type": any.type_url, "value": render(&inner, depth)});
    }
    let mut object = Map::new();
    object.insert("@type".to_owned(), Json::String(any.type_url.clone()));
    object.extend(fields(&inner, depth));
    Json::Object(object)
}

fn render_value(value: &Value, kind: &Kind, depth: usize) -> Json {
    match value {
        Value::Bool(b) => Json::Bool(*b),
        Value::I32(n) => Json::from(*n),
        Value::U32(n) => Json::from(*n),
        // ProtoJSON writes 64 bits as text: many readers of JSON have only doubles.
        Value::I64(n) => Json::String(n.to_string()),
        Value::U64(n) => Json::String(n.to_string()),
        // Through text, so that 0.1 of 32 bits does not become 0.10000000149.
        Value::F32(n) => structs::number(n.to_string().parse().unwrap_or(f64::NAN)),
        Value::F64(n) => structs::number(*n),
        Value::String(s) => Json::String(s.clone()),
        Value::Bytes(bytes) => Json::String(BASE64_STANDARD.encode(bytes)),
        Value::EnumNumber(n) => match kind {
            Kind::Enum(values) => values
                .get_value(*n)
                .map_or_else(|| Json::from(*n), |v| Json::String(v.name().to_owned())),
            _ => Json::from(*n),
        },
        Value::Message(message) => render(message, depth),
        Value::List(items) => items.iter().map(|item| render_value(item, kind, depth)).collect(),
        Value::Map(entries) => {
            let kind = match kind {
                Kind::Message(entry) => entry.map_entry_value_field().kind(),
                other => other.clone(),
            };
            let sorted: BTreeMap<_, _> = entries.iter().map(|(k, v)| (key_text(k), v)).collect();
            let shown = sorted.into_iter().map(|(k, v)| (k, render_value(v, &kind, depth)));
            Json::Object(shown.collect())
        }
    }
}

fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::Bool(b) => b.to_string(),
        MapKey::I32(n) => n.to_string(),
        MapKey::I64(n) => n.to_string(),
        MapKey::U32(n) => n.to_string(),
        MapKey::U64(n) => n.to_string(),
        MapKey::String(s) => s.clone(),
    }
}
