//! `google.protobuf.Struct` to JSON and back.

use prost_types::value::Kind;
use prost_types::{ListValue, Struct};
use serde_json::{Map, Number, Value};

/// The largest number up to which a double holds every integer.
const EXACT_INTEGERS: f64 = 9_007_199_254_740_992.0;

/// A JSON object as a `Struct`; numbers become doubles.
pub fn json_to_struct(object: &Map<String, Value>) -> Struct {
    Struct { fields: object.iter().map(|(k, v)| (k.clone(), to_value(v))).collect() }
}

/// A `Struct` as a JSON object. Integral numbers become integers; those that JSON cannot write
/// become the strings that ProtoJSON has for them.
pub fn struct_to_json(value: Struct) -> Value {
    Value::Object(value.fields.into_iter().map(|(k, v)| (k, from_value(v))).collect())
}

pub(super) fn to_value(value: &Value) -> prost_types::Value {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(b) => Kind::BoolValue(*b),
        Value::Number(n) => Kind::NumberValue(n.as_f64().unwrap_or(f64::NAN)),
        Value::String(s) => Kind::StringValue(s.clone()),
        Value::Array(items) => Kind::ListValue(to_list(items)),
        Value::Object(object) => Kind::StructValue(json_to_struct(object)),
    };
    prost_types::Value { kind: Some(kind) }
}

pub(super) fn to_list(items: &[Value]) -> ListValue {
    ListValue { values: items.iter().map(to_value).collect() }
}

pub(super) fn from_list(list: ListValue) -> Value {
    list.values.into_iter().map(from_value).collect()
}

pub(super) fn from_value(value: prost_types::Value) -> Value {
    match value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(b)) => Value::Bool(b),
        Some(Kind::NumberValue(n)) => number(n),
        Some(Kind::StringValue(s)) => Value::String(s),
        Some(Kind::ListValue(list)) => from_list(list),
        Some(Kind::StructValue(object)) => struct_to_json(object),
    }
}

/// A double as JSON.
pub(super) fn number(n: f64) -> Value {
    if n.fract() == 0.0 && n.abs() <= EXACT_INTEGERS {
        #[expect(clippy::cast_possible_truncation, reason = "integral and within 2^53")]
        return Value::Number(Number::from(n as i64));
    }
    Number::from_f64(n).map_or_else(|| Value::String(non_finite(n).to_owned()), Value::Number)
}

fn non_finite(n: f64) -> &'static str {
    if n.is_nan() {
        "NaN"
    } else if n > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    }
}
