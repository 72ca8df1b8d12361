//! The query of an admin request.

use regex::Regex;

/// Names and values, decoded, in the order they came.
#[derive(Debug, Clone, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(query: &str) -> Self {
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(name, value)| (decode(name), decode(value)))
                .collect(),
        )
    }

    /// The first value of a name; empty if it has none.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    pub(super) fn wants_json(&self) -> bool {
        self.value("format") == Some("json")
    }

    /// A value that is a regular expression.
    pub(super) fn regex(&self, name: &str) -> Result<Option<Regex>, String> {
        let Some(text) = self.value(name).filter(|text| !text.is_empty()) else { return Ok(None) };
        Regex::new(text).map(Some).map_err(|error| format!("{name}: {error}\n"))
    }
}

/// Percent-decoding; what is not an escape stays as it is.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escape = bytes.get(at + 1..at + 3).filter(|_| byte == b'%');
        let value = escape
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        decoded.push(value.unwrap_or(byte));
        at += if value.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_are_decoded() {
        let query = Query::parse("filter=%5Ea%5C.b$&usedonly&format=json&x=%zz%");
        assert_eq!(query.value("filter"), Some("^a\\.b$"));
        assert!(query.has("usedonly") && query.wants_json() && !query.has("y"));
        assert_eq!(query.value("x"), Some("%zz%"));
        assert!(query.regex("filter").unwrap().is_some());
        assert!(Query::parse("filter=(").regex("filter").is_err());
    }
}
