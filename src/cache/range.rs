//! Byte ranges of a stored body (RFC 9110 section 14).

use smallvec::SmallVec;

/// More ranges than this in one request are an attack, or a client that had better take all of it
/// (RFC 9110 section 14.2).
const MOST_RANGES: usize = 16;

/// A part of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Its first byte.
    pub start: u64,
    /// How many, at least one.
    pub length: u64,
}

impl Part {
    /// `first-last`, as `Content-Range` has it.
    pub fn bounds(self) -> (u64, u64) {
        (self.start, self.start + self.length - 1)
    }

    fn overlaps(self, other: Self) -> bool {
        self.start < other.start + other.length && other.start < self.start + self.length
    }
}

/// What a `Range` header asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ranges {
    /// Nothing that can be understood, or more than is good: the header does not count.
    Ignored,
    /// Nothing that there is: 416.
    Unsatisfiable,
    /// These parts, in the order in which they were asked for; those that touch are one.
    Parts(SmallVec<[Part; 1]>),
}

impl Ranges {
    /// Reads a `Range` header for a body of so many bytes.
    pub fn parse(value: &[u8], size: u64) -> Self {
        let Ok(text) = std::str::from_utf8(value) else { return Self::Ignored };
        let Some((unit, set)) = text.split_once('=') else { return Self::Ignored };
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return Self::Ignored;
        }
        let mut parts: SmallVec<[Part; 1]> = SmallVec::new();
        let mut number = 0;
        for spec in set.split(',').map(str::trim).filter(|spec| !spec.is_empty()) {
            number += 1;
            match one(spec, size) {
                Err(Malformed) => return Self::Ignored,
                Ok(_) if number > MOST_RANGES => return Self::Ignored,
                Ok(None) => {}
                // Nobody needs the same bytes twice but to make the answer large.
                Ok(Some(part)) if parts.iter().any(|other| other.overlaps(part)) => {
                    return Self::Ignored;
                }
                Ok(Some(part)) => add(&mut parts, part),
            }
        }
        match (number, parts.is_empty()) {
            (0, _) => Self::Ignored,
            (_, true) => Self::Unsatisfiable,
            (_, false) => Self::Parts(parts),
        }
    }
}

struct Malformed;

/// `first-last`, `first-`, or `-length`; `None` if there is nothing there.
fn one(spec: &str, size: u64) -> Result<Option<Part>, Malformed> {
    let (first, last) = spec.split_once('-').ok_or(Malformed)?;
    let (first, last) = (first.trim(), last.trim());
    if first.is_empty() {
        let length = number(last)?.min(size);
        return Ok((length > 0).then_some(Part { start: size - length, length }));
    }
    let first = number(first)?;
    let last = if last.is_empty() { u64::MAX } else { number(last)? };
    if last < first {
        return Err(Malformed);
    }
    let end = last.saturating_add(1).min(size);
    Ok((first < size).then(|| Part { start: first, length: end - first }))
}

/// Digits only; more than fit are very many.
fn number(text: &str) -> Result<u64, Malformed> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Malformed);
    }
    Ok(text.parse().unwrap_or(u64::MAX))
}

/// Joins a part with the one before it if it goes on where that ends.
fn add(parts: &mut SmallVec<[Part; 1]>, part: Part) {
    match parts.last_mut() {
        Some(before) if before.start + before.length == part.start => before.length += part.length,
        _ => parts.push(part),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str, size: u64) -> Option<Vec<(u64, u64)>> {
        match Ranges::parse(text.as_bytes(), size) {
            Ranges::Parts(parts) => Some(parts.into_iter().map(Part::bounds).collect()),
            _ => None,
        }
    }

    #[test]
    fn ranges_are_those_of_section_14() {
        for (text, expected) in [
            ("bytes=0-0", &[(0, 0)][..]),
            ("bytes=5-", &[(5, 99)]),
            ("bytes=-10", &[(90, 99)]),
            ("bytes=-1000", &[(0, 99)]),
            ("bytes=90-1000", &[(90, 99)]),
            ("Bytes = 1-2 , 8-9,", &[(1, 2), (8, 9)]),
            ("bytes=8-9,1-2", &[(8, 9), (1, 2)]),
            ("bytes=1-4,5-9,11-12", &[(1, 9), (11, 12)]),
            ("bytes=0-1,200-300", &[(0, 1)]),
            ("bytes=0-99999999999999999999999", &[(0, 99)]),
        ] {
            assert_eq!(parts(text, 100).as_deref(), Some(expected), "{text}");
        }
        for text in ["bytes=100-", "bytes=100-200,300-", "bytes=-0"] {
            assert_eq!(Ranges::parse(text.as_bytes(), 100), Ranges::Unsatisfiable, "{text}");
        }
        assert_eq!(Ranges::parse(b"bytes=0-", 0), Ranges::Unsatisfiable);
        for text in [
            "bytes",
            "bytes=",
            "bytes=,",
            "pages=1-2",
            "bytes=2-1",
            "bytes=a-b",
            "bytes=1",
            "bytes=-",
            "bytes=1-2-3",
            "bytes=+1-2",
            "bytes=0-,0-,0-",
            "bytes=0-5,20-30,4-6",
        ] {
            assert_eq!(Ranges::parse(text.as_bytes(), 100), Ranges::Ignored, "{text}");
        }
        let many = format!("bytes={}", (0..20).map(|n| format!("{n}-{n},")).collect::<String>());
        assert_eq!(Ranges::parse(many.as_bytes(), 100), Ranges::Ignored);
    }

    proptest::proptest! {
        #[test]
        fn no_header_asks_for_more_than_there_is(text in ".{0,60}", size in 0_u64..1_000) {
            for header in [text.clone(), format!("bytes={text}")] {
                if let Ranges::Parts(parts) = Ranges::parse(header.as_bytes(), size) {
                    for part in parts {
                        assert!(part.length > 0 && part.start + part.length <= size);
                    }
                }
            }
        }
    }
}
