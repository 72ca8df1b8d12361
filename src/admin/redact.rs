//! Takes what must stay secret out of what is shown.

use serde_json::Value;

const REDACTED: &str = "[redacted]";

/// Replaces private keys, passwords, ticket keys and generic secrets, wherever they stand. A file
/// name is shown: it is where the secret is, not what it is.
pub(super) fn redact(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match key.as_str() {
                    "private_key" | "password" | "pkcs12" | "secret" => hide(value),
                    "session_ticket_keys" => {
                        if let Some(keys) = value.get_mut("keys").and_then(Value::as_array_mut) {
                            keys.iter_mut().for_each(hide);
                        }
                    }
                    _ => redact(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(redact),
        _ => {}
    }
}

/// Hides the contents of a data source.
fn hide(source: &mut Value) {
    match source {
        Value::Object(fields) => {
            for (key, value) in fields {
                if key != "filename" && key != "environment_variable" {
                    *value = REDACTED.into();
                }
            }
        }
        other => *other = REDACTED.into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn no_secret_is_left_and_the_rest_is() {
        let mut value = json!({"secrets": [
            {"name": "a", "tls_certificate": {
                "certificate_chain": {"inline_string": "public"},
                "private_key": {"inline_string": "SECRET"}, "password": {"filename": "/p"}}},
            {"session_ticket_keys": {"keys": [{"inline_bytes": "SECRET"}]}},
            {"generic_secret": {"secret": {"inline_string": "SECRET"}}},
        ]});
        redact(&mut value);
        let text = value.to_string();
        assert!(!text.contains("SECRET"), "{text}");
        assert!(text.contains("public") && text.contains("/p") && text.contains(REDACTED));
    }
}
