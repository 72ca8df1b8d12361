//! What plain text means: the core schema of YAML 1.2 (section 10.3.2).

use std::borrow::Cow;

use serde_json::{Number, Value};

/// The value of a scalar without quotes.
pub(super) fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        // JSON has no such numbers; these are the words that ProtoJSON has for them.
        ".nan" | ".NaN" | ".NAN" => return "NaN".into(),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return "Infinity".into(),
        "-.inf" | "-.Inf" | "-.INF" => return "-Infinity".into(),
        _ => {}
    }
    number(text).map_or_else(|| text.into(), Value::Number)
}

fn number(text: &str) -> Option<Number> {
    let radix = |digits: &str, radix| {
        let plain = digits.bytes().all(|b| b.is_ascii_alphanumeric());
        plain.then(|| u64::from_str_radix(digits, radix).ok()).flatten().map(Number::from)
    };
    if let Some(digits) = text.strip_prefix("0x") {
        return radix(digits, 16);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return radix(digits, 8);
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !is_decimal(unsigned) {
        return None;
    }
    // Beyond 64 bits an integer is read as a float and fails where an integer is wanted.
    let text = text.strip_prefix('+').unwrap_or(text);
    let integer = || text.parse::<i64>().map(Number::from).ok();
    let natural = || text.parse::<u64>().map(Number::from).ok();
    let float = || text.parse::<f64>().ok().and_then(Number::from_f64);
    integer().or_else(natural).or_else(float)
}

/// Whether the text is digits with a point, an exponent or neither, as the core schema has it.
fn is_decimal(text: &str) -> bool {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent = exponent.is_none_or(|exponent| {
        let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        !exponent.is_empty() && digits(exponent)
    });
    exponent && digits(whole) && digits(fraction) && !(whole.is_empty() && fraction.is_empty())
}

/// Writes the character for each pair of `\uD83D\uDE00` in a text that looks like JSON: the one
/// escape of JSON (RFC 8259 section 7) that YAML does not have.
pub(super) fn join_surrogates(text: &str) -> Cow<'_, str> {
    if !text.trim_start().starts_with(['{', '[']) {
        return Cow::Borrowed(text);
    }
    let mut joined = String::new();
    let (mut kept, mut at) = (0, 0);
    while let Some(offset) = text[at..].find('\\') {
        at += offset;
        let pair = unit(text, at).zip(unit(text, at + 6));
        let decoded = pair.and_then(|(high, low)| {
            char::decode_utf16([high, low]).next()?.ok().filter(|c| u32::from(*c) > 0xffff)
        });
        if let Some(c) = decoded {
            joined.push_str(&text[kept..at]);
            joined.push(c);
            kept = at + 12;
            at = kept;
        } else {
            // Past the escaped character too, which may be another backslash.
            at += 1 + text[at + 1..].chars().next().map_or(0, char::len_utf8);
        }
    }
    if kept == 0 {
        return Cow::Borrowed(text);
    }
    joined.push_str(&text[kept..]);
    Cow::Owned(joined)
}

/// The UTF-16 unit that an escape at a place in the text writes.
fn unit(text: &str, at: usize) -> Option<u16> {
    let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
    digits.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u16::from_str_radix(digits, 16).ok())?
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn plain_text_means_what_the_core_schema_says() {
        let cases = [
            ("", json!(null)),
            ("~", json!(null)),
            ("True", json!(true)),
            ("yes", json!("yes")),
            ("off", json!("off")),
            ("0", json!(0)),
            ("-12", json!(-12)),
            ("+7", json!(7)),
            ("0644", json!(644)),
            ("0o17", json!(15)),
            ("0xfF", json!(255)),
            ("0x+1", json!("0x+1")),
            ("18446744073709551615", json!(u64::MAX)),
            ("1_000", json!("1_000")),
            ("1.5", json!(1.5)),
            (".5", json!(0.5)),
            ("1.", json!(1.0)),
            ("1e3", json!(1000.0)),
            ("-1.5E-1", json!(-0.15)),
            (".", json!(".")),
            ("-", json!("-")),
            ("e5", json!("e5")),
            ("1e", json!("1e")),
            ("1.2.3.4", json!("1.2.3.4")),
            ("1s", json!("1s")),
            ("inf", json!("inf")),
            (".inf", json!("Infinity")),
            ("-.INF", json!("-Infinity")),
            (".NaN", json!("NaN")),
            ("12:30", json!("12:30")),
        ];
        for (text, value) in cases {
            assert_eq!(resolve(text), value, "{text:?}");
        }
    }
}
