//! The forms that values of a gateway file have: how each is read, shown and described.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::reader::{Reader, join, kind_of};

/// A type that a value of the file can be read as.
pub(crate) trait Form: Sized {
    /// Reads the value at a path; what is wrong with it is told to the reader.
    fn read(reader: &mut Reader<'_>, at: &str, value: &Value) -> Option<Self>;

    /// What stands for a key that is not there; nothing if the key is required.
    fn absent() -> Option<Self> {
        None
    }

    /// As it would be written in a file.
    fn shown(&self) -> Value;

    /// Its JSON Schema.
    fn schema() -> Value;

    /// The keys below it, and how one is reached from here: `[]` or `.NAME`.
    fn inner() -> (&'static str, Vec<Key>) {
        ("", Vec::new())
    }
}

/// One key of a block, for those who read: the schema and the page of keys.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    /// What it does, in one sentence or two.
    pub(crate) effect: String,
    /// The field of a resource that it becomes.
    pub(crate) field: &'static str,
    /// What holds without it, as it would be written; `None` if it is required.
    pub(crate) default: Option<Value>,
    pub(crate) schema: Value,
    pub(crate) inner: (&'static str, Vec<Key>),
}

impl Form for bool {
    fn read(reader: &mut Reader<'_>, at: &str, value: &Value) -> Option<Self> {
        reader.expect(at, value, value.as_bool(), "true or false")
    }

    fn shown(&self) -> Value {
        json!(self)
    }

    fn schema() -> Value {
        json!({ "type": "boolean" })
    }
}

/// Text that is not empty.
impl Form for String {
    fn read(reader: &mut Reader<'_>, at: &str, value: &Value) -> Option<Self> {
        let text = value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        reader.expect(at, value, text, "text that is not empty")
    }

    fn shown(&self) -> Value {
        json!(self)
    }

    fn schema() -> Value {
        json!({ "type": "string", "minLength": 1 })
    }
}

/// A whole number in a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Number<const LEAST: u32, const MOST: u32>(pub(crate) u32);

impl<const LEAST: u32, const MOST: u32> Form for Number<LEAST, MOST> {
    fn read(reader: &mut Reader<'_>, at: &str, value: &Value) -> Option<Self> {
        let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
        let number = number.filter(|number| (LEAST..=MOST).contains(number)).map(Self);
        reader.expect(at, value, number, &format!("a whole number from {LEAST} to {MOST}"))
    }

    fn shown(&self) -> Value {
        json!(self.0)
    }

    fn schema() -> Value {
        json!({ "type": "integer", "minimum": LEAST, "maximum": MOST })
    }
}

/// A duration of at least so many milliseconds: `30s`, `5m`, `1h30m`, `250ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Time<const LEAST_MS: u64>(pub(crate) Duration);

impl<const LEAST_MS: u64> Time<LEAST_MS> {
    pub(crate) const fn secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }
}

/// The longest duration of a file, so that no sum of two overflows anywhere.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

impl<const LEAST_MS: u64> Form for Time<LEAST_MS> {
    fn read(reader: &mut Reader<'_>, at: &str, value: &Value) -> Option<Self> {
        if value.is_number() {
            reader.fault(at, format!("{value} has no unit; write {value}s for seconds"));
            return None;
        }
        let time = value.as_str().and_then(parse_time);
        let time = reader.expect(at, value, time, "a duration such as 30s, 5m or 1h")?;
        let least = Duration::from_millis(LEAST_MS);
        if time < least || time > LONGEST {
            let least = show_time(least);
            let reason = format!("{} is not from {least} to 8784h", show_time(time));
            reader.fault(at, reason);
            return None;
        }
        Some(Self(time))
    }

    fn shown(&self) -> Value {
        json!(show_time(self.0))
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^([0-9]+(ms|s|m|h))+$" })
    }
}

const UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];

fn parse_time(text: &str) -> Option<Duration> {
    let (mut rest, mut sum) = (text, 0_u64);
    while !rest.is_empty() {
        let (number, after) = number(rest)?;
        let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit)?;
        sum = sum.checked_add(number.checked_mul(*scale)?)?;
        rest = after;
    }
    (!text.is_empty()).then(|| Duration::from_millis(sum))
}

/// The number that a text begins with, and what follows it.
fn number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Some((digits.parse().ok()?, rest))
}

/// In the largest unit that needs no fraction.
fn show_time(time: Duration) -> String {
    let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let fits = |(_, scale): &&(&str, u64)| ms != 0 && ms.is_multiple_of(*scale);
    let (unit, scale) = UNITS.iter().rev().find(fits).unwrap_or(&("s", 1_000));
    format!("{}{unit}", ms / scale)
}

/// A number of bytes: `1024`, `64KB`, `100MB`, `1GB`; a KB is 1,024 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

const SIZES: [(&str, u64); 4] = [("B", 1), ("KB", 1 << 10), ("MB", 1 << 20), ("GB", 1 << 30)];

impl Form for Size {
    fn read(reader: &mut Reader<'_>, at: &str, value: &Value) -> Option<Self> {
        let size = value.as_u64().or_else(|| parse_size(value.as_str()?));
        reader.expect(at, value, size.map(Self), "a size such as 1024, 64KB or 100MB")
    }

    fn shown(&self) -> Value {
        let fits = |(_, scale): &&(&str, u64)| self.0 != 0 && self.0.is_multiple_of(*scale);
        match SIZES.iter().skip(2).rev().find(fits) {
            Some((unit, scale)) => json!(format!("{}{unit}", self.0 / scale)),
            None => json!(self.0),
        }
    }

    fn schema() -> Value {
        json!({ "anyOf": [
            { "type": "integer", "minimum": 0 },
            { "type": "string", "pattern": "^[0-9]+(B|KB|MB|GB)$" },
        ] })
    }
}

fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = number(text)?;
    let (_, scale) = SIZES.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*scale)
}

/// A key that may be left out.
impl<T: Form> Form for Option<T> {
    fn read(reader: &mut Reader<'_>, at: &str, value: &Value) -> Option<Self> {
        T::read(reader, at, value).map(Some)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }

    fn shown(&self) -> Value {
        self.as_ref().map_or(Value::Null, T::shown)
    }

    fn schema() -> Value {
        T::schema()
    }

    fn inner() -> (&'static str, Vec<Key>) {
        T::inner()
    }
}

/// A value of which it matters whether the file says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Said<T> {
    pub(crate) value: T,
    pub(crate) is_said: bool,
}

impl<T> Said<T> {
    /// What holds if the file says nothing.
    pub(crate) const fn not(value: T) -> Self {
        Self { value, is_said: false }
    }
}

impl<T: Form> Form for Said<T> {
    fn read(reader: &mut Reader<'_>, at: &str, value: &Value) -> Option<Self> {
        Some(Self { value: T::read(reader, at, value)?, is_said: true })
    }

    fn shown(&self) -> Value {
        self.value.shown()
    }

    fn schema() -> Value {
        T::schema()
    }
}

impl<T: Form> Form for Vec<T> {
    fn read(reader: &mut Reader<'_>, at: &str, value: &Value) -> Option<Self> {
        let list = reader.expect(at, value, value.as_array(), "a list")?;
        let read = |(index, item)| T::read(reader, &format!("{at}[{index}]"), item);
        // Every item is read, so that all faults show at once.
        let read: Vec<Option<T>> = list.iter().enumerate().map(read).collect();
        read.into_iter().collect()
    }

    fn shown(&self) -> Value {
        self.iter().map(T::shown).collect()
    }

    fn schema() -> Value {
        json!({ "type": "array", "items": T::schema() })
    }

    fn inner() -> (&'static str, Vec<Key>) {
        ("[]", T::inner().1)
    }
}

impl<T: Form> Form for BTreeMap<String, T> {
    fn read(reader: &mut Reader<'_>, at: &str, value: &Value) -> Option<Self> {
        let none = Map::new();
        let map = match value {
            Value::Null => &none,
            _ => reader.expect(at, value, value.as_object(), "a mapping")?,
        };
        let read = |(key, value): (&String, &Value)| {
            Some((key.clone(), T::read(reader, &join(at, key), value)?))
        };
        let read: Vec<Option<(String, T)>> = map.iter().map(read).collect();
        read.into_iter().collect()
    }

    fn shown(&self) -> Value {
        Value::Object(self.iter().map(|(key, value)| (key.clone(), value.shown())).collect())
    }

    fn schema() -> Value {
        json!({ "type": "object", "additionalProperties": T::schema() })
    }

    fn inner() -> (&'static str, Vec<Key>) {
        (".NAME", T::inner().1)
    }
}

/// Whatever JSON can say, for metadata.
impl Form for Value {
    fn read(reader: &mut Reader<'_>, at: &str, value: &Value) -> Option<Self> {
        let scalar = matches!(value, Value::Bool(_) | Value::Number(_) | Value::String(_));
        if !scalar {
            reader.fault(
                at,
                format!("expected text, a number, true or false, not {}", kind_of(value)),
            );
        }
        scalar.then(|| value.clone())
    }

    fn shown(&self) -> Value {
        self.clone()
    }

    fn schema() -> Value {
        json!({ "type": ["string", "number", "boolean"] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_sums_of_numbers_with_units() {
        for (text, ms) in [
            ("30s", Some(30_000)),
            ("1h30m", Some(5_400_000)),
            ("250ms", Some(250)),
            ("0s", Some(0)),
            ("1m1s1ms", Some(61_001)),
            ("", None),
            ("30", None),
            ("s", None),
            ("1.5s", None),
            ("30 s", None),
            ("-1s", None),
            ("1d", None),
            ("99999999999999999999s", None),
            ("18446744073709551615h", None),
        ] {
            assert_eq!(parse_time(text), ms.map(Duration::from_millis), "{text:?}");
        }
        for (ms, text) in [(0, "0s"), (90_000, "90s"), (3_600_000, "1h"), (1_500, "1500ms")] {
            assert_eq!(show_time(Duration::from_millis(ms)), text);
        }
    }

    #[test]
    fn sizes_are_numbers_with_or_without_a_unit() {
        for (text, bytes) in [
            ("100MB", Some(100 << 20)),
            ("1KB", Some(1024)),
            ("7B", Some(7)),
            ("7", None),
            ("MB", None),
            ("1mb", None),
            ("99999999999GB", None),
        ] {
            assert_eq!(parse_size(text), bytes, "{text:?}");
        }
        assert_eq!(Size(100 << 20).shown(), json!("100MB"));
        assert_eq!(Size(1024).shown(), json!(1024));
    }
}
