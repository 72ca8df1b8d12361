//! `grpc-timeout`: how long a client of gRPC waits (gRPC over HTTP/2, `Timeout`).

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// What the value can say at most, in any unit.
const MOST: u128 = 99_999_999;

/// How long the client waits. A value that cannot be read is not there.
pub fn read(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(GRPC_TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

/// Tells an upstream how long is waited, in milliseconds if they fit.
pub fn write(headers: &mut HeaderMap, timeout: Duration) {
    let ms = timeout.as_millis();
    let units = [(ms, 'm'), (ms / 1000, 'S'), (ms / 60_000, 'M'), (ms / 3_600_000, 'H')];
    let (value, unit) = units.into_iter().find(|(n, _)| *n <= MOST).unwrap_or((MOST, 'H'));
    if let Ok(value) = HeaderValue::try_from(format!("{value}{unit}")) {
        headers.insert(GRPC_TIMEOUT, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_read_and_nonsense_is_not() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(GRPC_TIMEOUT, HeaderValue::from_str(text).unwrap());
            read(&headers)
        };
        let cases = [
            ("2H", Some(Duration::from_secs(7200))),
            ("3M", Some(Duration::from_secs(180))),
            ("4S", Some(Duration::from_secs(4))),
            ("300m", Some(Duration::from_millis(300))),
            ("5u", Some(Duration::from_micros(5))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("0m", Some(Duration::ZERO)),
            ("", None),
            ("m", None),
            ("5", None),
            ("5x", None),
            ("-5m", None),
            ("123456789m", None),
            ("1.5S", None),
        ];
        for (text, expected) in cases {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for (timeout, expected) in [
            (Duration::from_millis(1500), "1500m"),
            (Duration::from_secs(100_000), "100000S"),
            (Duration::from_secs(99_999_999 * 60), "99999999M"),
            (Duration::MAX, "99999999H"),
        ] {
            let mut headers = HeaderMap::new();
            write(&mut headers, timeout);
            assert_eq!(headers[GRPC_TIMEOUT], expected);
            assert!(read(&headers).unwrap() <= timeout);
        }
    }
}
