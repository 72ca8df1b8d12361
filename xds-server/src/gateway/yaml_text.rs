//! JSON values as YAML text: blocks, in the order they have.

use nuncio::proto::yaml;
use serde_json::Value;

/// A document.
pub(crate) fn yaml_of(value: &Value) -> String {
    let mut text = String::new();
    write(value, 0, &mut text);
    text
}

/// A value on one line, as it would stand behind a key.
pub(crate) fn inline(value: &Value) -> String {
    match value {
        Value::String(text) if is_plain(text) => text.clone(),
        // JSON is YAML.
        other => other.to_string(),
    }
}

fn write(value: &Value, indent: usize, text: &mut String) {
    let pad = |text: &mut String| text.extend(std::iter::repeat_n(' ', indent));
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (index, (key, value)) in map.iter().enumerate() {
                // The first key stands where the writer is: behind a dash, or at the start.
                if index > 0 {
                    pad(text);
                }
                text.push_str(&inline(&Value::String(key.clone())));
                text.push(':');
                below(value, indent, text);
            }
        }
        Value::Array(list) if !list.is_empty() => {
            for (index, value) in list.iter().enumerate() {
                if index > 0 {
                    pad(text);
                }
                text.push_str("- ");
                write(value, indent + 2, text);
            }
        }
        scalar => {
            text.push_str(&inline(scalar));
            text.push('\n');
        }
    }
}

/// What stands behind a key.
fn below(value: &Value, indent: usize, text: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            text.push('\n');
            text.extend(std::iter::repeat_n(' ', indent + 2));
            write(value, indent + 2, text);
        }
        Value::Array(list) if !list.is_empty() => {
            text.push('\n');
            text.extend(std::iter::repeat_n(' ', indent));
            write(value, indent, text);
        }
        scalar => {
            text.push(' ');
            write(scalar, indent, text);
        }
    }
}

/// Whether a text is itself without quotes.
fn is_plain(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte);
    let begins = |byte: &u8| byte.is_ascii_alphanumeric() || b"/_".contains(byte);
    text.as_bytes().first().is_some_and(begins)
        && text.bytes().all(plain)
        && yaml::parse(text).is_ok_and(|document| document.value == Value::String(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_written_reads_as_it_was() {
        let value = json!({
            "a": { "b": [1, "two", { "c": null, "d": [] }, [true, ["x"]]], "e": {} },
            "@type": "type.googleapis.com/x.Y",
            "null": "null", "f": "1e3", "g": "a: b", "h": "", "i": "*", "j": "0.5s", "k": "- x",
        });
        let text = yaml_of(&value);
        assert_eq!(yaml::parse(&text).unwrap().value, value, "{text}");
        assert!(text.starts_with("a:\n  b:\n  - 1\n  - two\n  - c: null\n    d: []\n"), "{text}");
    }
}
