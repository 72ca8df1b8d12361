//! Header fields as HPACK knows them, and the static table (RFC 7541 appendix A).

use http::header::CONTENT_LENGTH;
use http::{HeaderName, HeaderValue};

/// The name of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::hcm::http2) enum Name {
    Pseudo(Pseudo),
    Header(HeaderName),
    /// So many bytes that are no name, or one in upper case, or a pseudo-header nobody knows.
    Malformed(usize),
}

/// A pseudo-header (RFC 9113 section 8.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::hcm::http2) enum Pseudo {
    Authority,
    Method,
    Path,
    /// What a tunnel is for (RFC 8441 section 4).
    Protocol,
    Scheme,
    Status,
}

impl Pseudo {
    fn text(self) -> &'static str {
        match self {
            Self::Authority => ":authority",
            Self::Method => ":method",
            Self::Path => ":path",
            Self::Protocol => ":protocol",
            Self::Scheme => ":scheme",
            Self::Status => ":status",
        }
    }
}

impl Name {
    pub(super) fn parse(text: &[u8]) -> Self {
        if text.first() == Some(&b':') {
            use Pseudo::{Authority, Method, Path, Protocol, Scheme, Status};
            let known = [Path, Method, Authority, Scheme, Status, Protocol];
            let found = known.into_iter().find(|pseudo| pseudo.text().as_bytes() == text);
            return found.map_or(Self::Malformed(text.len()), Self::Pseudo);
        }
        HeaderName::from_lowercase(text)
            .map_or_else(|_invalid| Self::Malformed(text.len()), Self::Header)
    }

    fn len(&self) -> usize {
        match self {
            Self::Pseudo(pseudo) => pseudo.text().len(),
            Self::Header(name) => name.as_str().len(),
            Self::Malformed(length) => *length,
        }
    }
}

/// The value of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::hcm::http2) enum Value {
    Sound(HeaderValue),
    /// So many bytes of which some may not stand in a value, or that begin or end with a space (RFC
    /// 9113 section 8.2.1).
    Malformed(usize),
}

impl Value {
    pub(super) fn parse(text: &[u8]) -> Self {
        let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
        if is_space(text.first()) || is_space(text.last()) {
            return Self::Malformed(text.len());
        }
        HeaderValue::from_bytes(text)
            .map_or_else(|_invalid| Self::Malformed(text.len()), Self::Sound)
    }

    fn len(&self) -> usize {
        match self {
            Self::Sound(value) => value.len(),
            Self::Malformed(length) => *length,
        }
    }
}

/// A field. What is wrong with it is a matter of its message; the table takes it all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::hcm::http2) struct Field {
    pub(in crate::hcm::http2) name: Name,
    pub(in crate::hcm::http2) value: Value,
}

impl Field {
    /// Bytes of its name and its value.
    pub(in crate::hcm::http2) fn len(&self) -> usize {
        self.name.len() + self.value.len()
    }
}

/// Entries of the static table.
pub(super) const STATIC_ENTRIES: usize = 61;

/// The pseudo-headers of the static table, from index 1 on.
const PSEUDO: [(Pseudo, &str); 14] = [
    (Pseudo::Authority, ""),
    (Pseudo::Method, "GET"),
    (Pseudo::Method, "POST"),
    (Pseudo::Path, "/"),
    (Pseudo::Path, "/index.html"),
    (Pseudo::Scheme, "http"),
    (Pseudo::Scheme, "https"),
    (Pseudo::Status, "200"),
    (Pseudo::Status, "204"),
    (Pseudo::Status, "206"),
    (Pseudo::Status, "304"),
    (Pseudo::Status, "400"),
    (Pseudo::Status, "404"),
    (Pseudo::Status, "500"),
];

/// The headers after them. Only `accept-encoding` has a value.
const HEADERS: [&str; STATIC_ENTRIES - PSEUDO.len()] = [
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "accept",
    "access-control-allow-origin",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "link",
    "location",
    "max-forwards",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "refresh",
    "retry-after",
    "server",
    "set-cookie",
    "strict-transport-security",
    "transfer-encoding",
    "user-agent",
    "vary",
    "via",
    "www-authenticate",
];

/// Where among them the one with a value is.
const ACCEPT_ENCODING: usize = 1;

/// The name of entry `index`, which counts from 1.
pub(super) fn static_name(index: usize) -> Option<Name> {
    let at = index.checked_sub(1)?;
    match PSEUDO.get(at) {
        Some((pseudo, _)) => Some(Name::Pseudo(*pseudo)),
        None => {
            let name = HEADERS.get(at - PSEUDO.len())?;
            Some(Name::Header(HeaderName::from_static(name)))
        }
    }
}

/// The entry `index`, which counts from 1.
pub(super) fn static_field(index: usize) -> Option<Field> {
    let name = static_name(index)?;
    let at = index - 1;
    let value = match PSEUDO.get(at) {
        Some((_, value)) => value,
        None if at - PSEUDO.len() == ACCEPT_ENCODING => "gzip, deflate",
        None => "",
    };
    Some(Field { name, value: Value::Sound(HeaderValue::from_static(value)) })
}

/// The index of a header's name, if it has one.
pub(super) fn static_index(name: &HeaderName) -> Option<usize> {
    // The one that is looked for with every response.
    if *name == CONTENT_LENGTH {
        return Some(28);
    }
    let found = HEADERS.iter().position(|known| *known == name.as_str())?;
    Some(PSEUDO.len() + 1 + found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_static_table_is_that_of_the_rfc() {
        let text = |index| {
            let field = static_field(index).unwrap();
            let name = match field.name {
                Name::Pseudo(pseudo) => pseudo.text().to_owned(),
                Name::Header(name) => name.as_str().to_owned(),
                Name::Malformed(_) => unreachable!(),
            };
            let Value::Sound(value) = field.value else { unreachable!() };
            format!("{name}={}", value.to_str().unwrap())
        };
        for (index, expected) in [
            (1, ":authority="),
            (2, ":method=GET"),
            (8, ":status=200"),
            (14, ":status=500"),
            (15, "accept-charset="),
            (16, "accept-encoding=gzip, deflate"),
            (28, "content-length="),
            (33, "date="),
            (54, "server="),
            (61, "www-authenticate="),
        ] {
            assert_eq!(text(index), expected);
        }
        assert!(static_field(0).is_none() && static_field(62).is_none());
        for (index, name) in (15..).zip(HEADERS) {
            assert_eq!(static_index(&HeaderName::from_static(name)), Some(index));
        }
        assert_eq!(static_index(&HeaderName::from_static("x-other")), None);
    }

    #[test]
    fn names_and_values_that_http2_forbids_are_seen() {
        for name in ["X-Upper", "", "a b", ":other", ":", "a\0", "a\u{e4}"] {
            assert_eq!(Name::parse(name.as_bytes()), Name::Malformed(name.len()), "{name:?}");
        }
        assert_eq!(Name::parse(b":path"), Name::Pseudo(Pseudo::Path));
        for value in ["a\r", "a\nb", "\0", " a", "a\t", "\u{7f}"] {
            assert_eq!(Value::parse(value.as_bytes()), Value::Malformed(value.len()), "{value:?}");
        }
        for value in ["", "a b", "a\tb", "\u{e4}"] {
            assert!(matches!(Value::parse(value.as_bytes()), Value::Sound(_)), "{value:?}");
        }
    }
}
