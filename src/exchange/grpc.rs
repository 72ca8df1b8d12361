//! What gRPC says of its own, for answers that are not made by a service of gRPC.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// The gRPC status that says the same (gRPC's `http-grpc-status-mapping`).
pub fn status_of(status: StatusCode) -> u16 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

/// Says how a call ended, and in `text` why.
pub fn say_status(headers: &mut HeaderMap, status: u16, text: &[u8]) {
    headers.insert(GRPC_STATUS, HeaderValue::from(status));
    if !text.is_empty()
        && let Ok(message) = HeaderValue::from_str(&percent_encoded(text))
    {
        headers.insert(GRPC_MESSAGE, message);
    }
}

fn percent_encoded(text: &[u8]) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text {
        match byte {
            b'%' => encoded.push_str("%25"),
            b' '..=b'~' => encoded.push(char::from(*byte)),
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    encoded
}
