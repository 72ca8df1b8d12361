//! How the names of headers are written. They are lower case in all that we do; some peers that never
//! learned that names have no case want them otherwise (`Http1ProtocolOptions.header_key_format`).

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::{Extensions, HeaderName};

/// The names of a message's headers as they came, an extension of its head: whoever writes the message on
/// writes them so.
#[derive(Debug, Clone)]
pub struct OriginalNames(Arc<Vec<Bytes>>);

impl OriginalNames {
    /// Of the names as they came.
    pub fn new(names: impl Iterator<Item = Bytes>) -> Self {
        Self(Arc::new(names.collect()))
    }

    fn of(&self, name: &HeaderName) -> Option<&[u8]> {
        let same = |as_it_came: &&Bytes| as_it_came.eq_ignore_ascii_case(name.as_str().as_bytes());
        self.0.iter().find(same).map(|name| &name[..])
    }
}

/// The form of names on a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum NameFormat {
    /// `content-type`.
    #[default]
    Lower,
    /// `Content-Type`: `proper_case_words`.
    Proper,
    /// As they came, which is kept of what is received: `preserve_case`.
    Preserve {
        /// Names that did not come are written `Content-Type`: `formatter_type_on_envoy_headers`.
        others_proper: bool,
    },
}

impl NameFormat {
    /// Whether names are kept of what is received.
    pub fn preserves(self) -> bool {
        matches!(self, Self::Preserve { .. })
    }
}

/// The form of the names of one message.
#[derive(Debug, Clone, Default)]
pub struct HeaderCase {
    original: Option<OriginalNames>,
    proper: bool,
}

impl HeaderCase {
    /// For a head with these extensions, on a connection of this format.
    pub fn new(extensions: &Extensions, format: NameFormat) -> Self {
        let proper = match format {
            NameFormat::Lower => false,
            NameFormat::Proper => true,
            NameFormat::Preserve { others_proper } => others_proper,
        };
        Self { original: extensions.get().cloned(), proper }
    }

    /// The name as it is written.
    pub fn written<'n>(&'n self, name: &'n HeaderName) -> Cow<'n, [u8]> {
        if let Some(original) = self.original.as_ref().and_then(|names| names.of(name)) {
            return Cow::Borrowed(original);
        }
        match self.proper {
            true => Cow::Owned(proper(name.as_str())),
            false => Cow::Borrowed(name.as_str().as_bytes()),
        }
    }
}

/// Capitals at the beginning and behind whatever is neither letter nor digit.
fn proper(name: &str) -> Vec<u8> {
    let mut begins = true;
    let letters = name.bytes().map(|byte| {
        let written = if begins { byte.to_ascii_uppercase() } else { byte };
        begins = !byte.is_ascii_alphanumeric();
        written
    });
    letters.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_as_they_came_or_as_the_format_says() {
        let came = [&b"X-MiXed"[..], b"HOST"].map(Bytes::from_static);
        let mut kept = Extensions::new();
        kept.insert(OriginalNames::new(came.into_iter()));
        let none = Extensions::new();
        let preserve = |others_proper| NameFormat::Preserve { others_proper };
        for (extensions, format, name, written) in [
            (&none, NameFormat::Lower, "x-mixed", "x-mixed"),
            (&none, NameFormat::Proper, "x-mixed", "X-Mixed"),
            (&none, NameFormat::Proper, "foo$b#are2x", "Foo$B#Are2x"),
            (&none, preserve(false), "x-mixed", "x-mixed"),
            (&kept, NameFormat::Lower, "x-mixed", "X-MiXed"),
            (&kept, preserve(false), "host", "HOST"),
            (&kept, preserve(false), "x-ours", "x-ours"),
            (&kept, preserve(true), "x-ours", "X-Ours"),
        ] {
            let case = HeaderCase::new(extensions, format);
            let name = HeaderName::from_static(name);
            assert_eq!(case.written(&name), written.as_bytes());
        }
    }
}
