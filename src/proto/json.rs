//! Messages in their JSON form, and back.
//!
//! The JSON form is protobuf's own (ProtoJSON): names in `snake_case` or `lowerCamelCase`, an `Any`
//! with `@type`, durations as `"1.5s"`, bytes in base64, enum values by name. A key that we do not
//! declare is left out and reported with its path; a field we refuse is kept, so that
//! [`audit`](super::audit) refuses it in the bytes like one that came over the wire. An `Any` whose
//! type we do not declare becomes an `xds.type.v3.TypedStruct`, so that what reads it can name the
//! type or, where the extension is optional, skip it.
//!
//! The walk over a message is ours, so that every error has a path and all are found at once; single
//! values are judged by `prost-reflect`. Equal JSON makes equal bytes: fields are written by number
//! and map entries by key.

mod decode;
mod encode;
mod structs;
#[cfg(test)]
mod tests;

use std::fmt;

use prost::{Message, Name};
use serde_json::Value;

use super::descriptors;

pub use decode::{RenderError, to_json};
pub use structs::{json_to_struct, struct_to_json};

pub(super) use encode::Encoder;

/// How deep messages, `Any`s and JSON values may nest; the bound of the wire decoder.
pub(super) const MAX_DEPTH: usize = 100;

/// A message read from JSON, and the keys it had that we do not declare.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded<T> {
    /// The message, without the fields that we refuse.
    pub message: T,
    /// Paths of the keys that name no declared field.
    pub ignored: Vec<String>,
}

/// What is wrong with one value of a JSON form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where the value is; empty for the whole.
    pub path: String,
    /// What was expected there and what was found.
    pub problem: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.problem)
    }
}

/// Why a JSON value is not a message of the wanted type: every fault found, one a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonError {
    faults: Vec<Fault>,
}

impl JsonError {
    /// The faults, in the order of the input; at least one.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    fn whole(problem: String) -> Self {
        Self { faults: vec![Fault { path: String::new(), problem }] }
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, fault) in self.faults.iter().enumerate() {
            write!(f, "{}{fault}", if i == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for JsonError {}

/// The message that a JSON value describes.
///
/// Fields that are refused are not in the generated type: whoever must refuse them calls
/// [`encode_json`] and audits the bytes.
///
/// # Errors
/// Every value that does not fit its field, by path.
pub fn from_json<T: Message + Name + Default>(value: Value) -> Result<Decoded<T>, JsonError> {
    let (bytes, ignored) = encode_json(&T::full_name(), value)?;
    let message =
        T::decode(bytes.as_slice()).map_err(|error| JsonError::whole(error.to_string()))?;
    Ok(Decoded { message, ignored })
}

/// The bytes of the message that a JSON value describes, refused fields included, and the paths of
/// the keys that name no declared field.
///
/// # Errors
/// Every value that does not fit its field, by path; or that the type is not declared.
pub fn encode_json(type_name: &str, value: Value) -> Result<(Vec<u8>, Vec<String>), JsonError> {
    let message = descriptors()
        .get_message_by_name(type_name)
        .ok_or_else(|| JsonError::whole(format!("message type {type_name} is not supported")))?;
    let mut encoder = Encoder::default();
    let bytes = encoder.message(&message, &value, &super::path::Path::ROOT, MAX_DEPTH);
    if encoder.faults.is_empty() {
        Ok((bytes, encoder.ignored))
    } else {
        Err(JsonError { faults: encoder.faults })
    }
}
