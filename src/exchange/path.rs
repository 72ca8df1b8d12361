//! A request's path in one form, so that routes and whoever is behind us understand the same
//! (RFC 3986 section 6.2.2, and `normalize_path`, `merge_slashes`, `path_with_escaped_slashes_action`).
//!
//! The query is never touched. A path that is in its form already costs one look at its bytes.

use http::uri::PathAndQuery;

/// What is done about `%2F` and `%5C` in a path: `PathWithEscapedSlashesAction`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EscapedSlashes {
    /// They stay.
    #[default]
    Keep,
    /// The request is refused.
    Reject,
    /// The client is sent to the path with them unescaped.
    UnescapeAndRedirect,
    /// They are unescaped.
    UnescapeAndForward,
}

/// What is done with paths.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PathPolicy {
    /// Dot segments are resolved, `\` is `/`, and what need not be escaped is not.
    pub normalize: bool,
    /// Several slashes in a row are one.
    pub merge_slashes: bool,
    /// Escaped slashes, before all else.
    pub escaped_slashes: EscapedSlashes,
}

/// What comes of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Normal {
    /// It was in its form.
    Same,
    /// It is this.
    Path(PathAndQuery),
    /// The client is to ask for this.
    Redirect(PathAndQuery),
    /// It has no form.
    Rejected,
}

impl PathPolicy {
    /// Brings a path into its form.
    pub fn apply(&self, target: &PathAndQuery) -> Normal {
        let path = target.path().as_bytes();
        if *self == Self::default() || !path.starts_with(b"/") || !self.may_change(path) {
            return Normal::Same;
        }
        let mut now = path.to_vec();
        let unescaped = match self.escaped_slashes {
            EscapedSlashes::Keep => false,
            _ => unescape_slashes(&mut now),
        };
        if unescaped && self.escaped_slashes == EscapedSlashes::Reject {
            return Normal::Rejected;
        }
        if self.normalize {
            let Some(normal) = normalize(&now) else { return Normal::Rejected };
            now = normal;
        }
        if self.merge_slashes {
            now.dedup_by(|next, before| *next == b'/' && *before == b'/');
        }
        if now == path {
            return Normal::Same;
        }
        if let Some(query) = target.query() {
            now.push(b'?');
            now.extend_from_slice(query.as_bytes());
        }
        match PathAndQuery::try_from(now) {
            Ok(path)
                if unescaped && self.escaped_slashes == EscapedSlashes::UnescapeAndRedirect =>
            {
                Normal::Redirect(path)
            }
            Ok(path) => Normal::Path(path),
            Err(_) => Normal::Rejected,
        }
    }

    fn may_change(&self, path: &[u8]) -> bool {
        let mut before = 0;
        path.iter().any(|&byte| {
            let changes = match byte {
                b'%' => true,
                b'.' | b'/' if before == b'/' => true,
                byte => self.normalize && (byte == b'\\' || is_escaped(byte)),
            };
            before = byte;
            changes
        })
    }
}

/// Whether there were any. Takes one walk over the path, however many there are.
fn unescape_slashes(path: &mut Vec<u8>) -> bool {
    let mut plain = Vec::with_capacity(path.len());
    let mut rest = &path[..];
    loop {
        let (byte, after) = match rest {
            [] => break,
            [b'%', b'2', b'F' | b'f', after @ ..] => (b'/', after),
            [b'%', b'5', b'C' | b'c', after @ ..] => (b'\\', after),
            [byte, after @ ..] => (*byte, after),
        };
        plain.push(byte);
        rest = after;
    }
    let found = plain.len() < path.len();
    *path = plain;
    found
}

/// RFC 3986 sections 6.2.2.2 and 5.2.4; `None` for an escaped NUL.
fn normalize(path: &[u8]) -> Option<Vec<u8>> {
    let mut normal = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'%' => match after.first_chunk::<2>().and_then(hex) {
                Some(0) => return None,
                Some(plain) if is_unreserved(plain) => {
                    normal.push(plain);
                    rest = &after[2..];
                }
                // As it was written, even if it escapes nothing.
                _ => normal.push(b'%'),
            },
            b'\\' => normal.push(b'/'),
            byte if is_escaped(byte) => escape(&mut normal, byte),
            byte => normal.push(byte),
        }
    }
    Some(without_dot_segments(&normal))
}

fn without_dot_segments(path: &[u8]) -> Vec<u8> {
    let mut plain: Vec<u8> = Vec::with_capacity(path.len());
    let mut segments = path.split(|byte| *byte == b'/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            b"." => {}
            b".." => {
                let parent = plain.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
                plain.truncate(parent);
            }
            segment => {
                plain.push(b'/');
                plain.extend_from_slice(segment);
                continue;
            }
        }
        if is_last {
            plain.push(b'/');
        }
    }
    plain
}

fn hex(digits: &[u8; 2]) -> Option<u8> {
    let value = |digit: u8| char::from(digit).to_digit(16);
    u8::try_from(value(digits[0])? * 16 + value(digits[1])?).ok()
}

fn escape(out: &mut Vec<u8>, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// What may not stand in a path as it is.
fn is_escaped(byte: u8) -> bool {
    byte <= b' ' || byte >= 0x7f || b"\"<>^`{|}".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: PathPolicy = PathPolicy {
        normalize: true,
        merge_slashes: true,
        escaped_slashes: EscapedSlashes::UnescapeAndForward,
    };
    const NORMALIZE: PathPolicy =
        PathPolicy { normalize: true, merge_slashes: false, escaped_slashes: EscapedSlashes::Keep };

    fn is(policy: PathPolicy, path: &'static str) -> String {
        match policy.apply(&PathAndQuery::from_static(path)) {
            Normal::Same => path.into(),
            Normal::Path(path) => path.to_string(),
            Normal::Redirect(path) => format!("-> {path}"),
            Normal::Rejected => "rejected".into(),
        }
    }

    #[test]
    fn paths_are_brought_into_one_form() {
        for (path, normal) in [
            ("/", "/"),
            ("/x/../admin", "/admin"),
            ("/x/./y?q=../z", "/x/y?q=../z"),
            ("/%2e%2e/admin", "/admin"),
            ("/x/%2E%2E/admin", "/admin"),
            ("/x/.%2e/admin", "/admin"),
            ("/a%2Fb", "/a%2Fb"),
            ("/a%41b%7e", "/aAb~"),
            ("/../..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/b/.", "/a/b/"),
            ("/a/.../b", "/a/.../b"),
            ("/.a/..b", "/.a/..b"),
            ("/a//../b", "/a/b"),
            ("/a//b", "/a//b"),
            ("/a\\b\\..\\c", "/a/c"),
            ("/%zz%4", "/%zz%4"),
            ("/%252e%252e/a", "/%252e%252e/a"),
            ("/a%00b", "rejected"),
            ("/{a}|\"", "/%7Ba%7D%7C%22"),
            ("/?a=/../%2e", "/?a=/../%2e"),
            ("*", "*"),
        ] {
            assert_eq!(is(NORMALIZE, path), normal, "{path}");
        }
    }

    #[test]
    fn slashes_are_merged_and_unescaped_as_configured() {
        let merge = PathPolicy { merge_slashes: true, ..PathPolicy::default() };
        assert_eq!(is(merge, "//a///b//?x=//y"), "/a/b/?x=//y");
        assert_eq!(is(merge, "/a/../b"), "/a/../b");
        for (action, of) in [
            (EscapedSlashes::Keep, "/a%2F..%5cb"),
            (EscapedSlashes::Reject, "rejected"),
            (EscapedSlashes::UnescapeAndForward, "/a/..\\b"),
            (EscapedSlashes::UnescapeAndRedirect, "-> /a/..\\b"),
        ] {
            let policy = PathPolicy { escaped_slashes: action, ..PathPolicy::default() };
            assert_eq!(is(policy, "/a%2F..%5cb"), of, "{action:?}");
            assert_eq!(is(policy, "/a?b=%2F"), "/a?b=%2F");
        }
        assert_eq!(is(ALL, "/a%2F..%5cb//c"), "/b/c");
    }

    proptest! {
        #[test]
        fn a_form_is_a_form_and_leads_nowhere_up(path in "/[a./%25\\\\e{}]{0,24}") {
            let Ok(path) = PathAndQuery::try_from(path) else { return Ok(()) };
            let normal = match ALL.apply(&path) {
                Normal::Same => path,
                Normal::Path(normal) => normal,
                other => return Err(TestCaseError::fail(format!("{other:?}"))),
            };
            prop_assert!(normal.path().starts_with('/'));
            prop_assert!(!normal.path().contains("//"), "{normal}");
            let dots = |segment: &str| segment == "." || segment == "..";
            prop_assert!(!normal.path().split('/').any(dots), "{normal}");
        }
    }
}
