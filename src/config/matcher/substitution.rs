//! `type.matcher.v3.RegexMatchAndSubstitute`: every match of an expression is replaced.

use std::borrow::Cow;

use regex::bytes::{Captures, Regex};

use super::compile_regex;
use crate::config::{Errors, Fault, OrFault, fields};
use crate::proto::envoy::r#type::matcher::v3 as proto;

/// An expression and what stands in place of its matches.
#[derive(Debug, Clone)]
pub struct RegexSubstitution {
    pattern: Regex,
    parts: Box<[Part]>,
}

#[derive(Debug, Clone)]
enum Part {
    Text(Box<[u8]>),
    /// What a group matched; 0 is all of it.
    Group(usize),
}

impl RegexSubstitution {
    /// Compiles the message. The syntax is that of [`super::RegexMatcher`]; the expression may match a
    /// part of the input.
    ///
    /// # Errors
    /// When the expression is missing, malformed or too large, or the substitution names a group that
    /// it does not have, or ends in a backslash.
    pub fn compile(message: &proto::RegexMatchAndSubstitute) -> Result<Self, Errors> {
        let proto::RegexMatchAndSubstitute { pattern, substitution } = message;
        let proto::RegexMatcher { regex, engine_type } =
            fields::required(pattern.as_ref()).at("pattern")?;
        match engine_type {
            None | Some(proto::regex_matcher::EngineType::GoogleRe2(_)) => {}
        }
        let pattern = compile_regex(regex).at("regex").at("pattern")?;
        let parts = parts(substitution, pattern.captures_len()).at("substitution")?;
        Ok(Self { pattern, parts: parts.into() })
    }

    /// The input with every match replaced.
    pub fn apply<'a>(&self, input: &'a [u8]) -> Cow<'a, [u8]> {
        self.pattern.replace_all(input, |captures: &Captures<'_>| {
            let mut text = Vec::new();
            for part in &self.parts {
                match part {
                    Part::Text(bytes) => text.extend_from_slice(bytes),
                    Part::Group(number) => {
                        text.extend_from_slice(captures.get(*number).map_or(b"", |m| m.as_bytes()));
                    }
                }
            }
            text
        })
    }
}

/// `\1` is a group, `\\` a backslash.
fn parts(substitution: &str, groups: usize) -> Result<Vec<Part>, Errors> {
    let mut parts = Vec::new();
    let mut text = Vec::new();
    let mut bytes = substitution.bytes();
    let fault = |reason: &str| Fault::invalid(format!("{substitution:?}"), reason.to_owned());
    while let Some(byte) = bytes.next() {
        match (byte, byte == b'\\') {
            (byte, false) => text.push(byte),
            (_, true) => match bytes.next() {
                Some(b'\\') => text.push(b'\\'),
                Some(digit) if digit.is_ascii_digit() => {
                    let number = usize::from(digit - b'0');
                    if number >= groups {
                        let reason = format!("the expression has no group {number}");
                        return Err(fault(&reason).into());
                    }
                    parts.push(Part::Text(std::mem::take(&mut text).into()));
                    parts.push(Part::Group(number));
                }
                _ => {
                    return Err(fault("after a backslash stands a digit or a backslash").into());
                }
            },
        }
    }
    parts.push(Part::Text(text.into()));
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compile(regex: &str, substitution: &str) -> Result<RegexSubstitution, Errors> {
        let pattern = proto::RegexMatcher { regex: regex.into(), engine_type: None };
        let substitution = substitution.into();
        RegexSubstitution::compile(&proto::RegexMatchAndSubstitute {
            pattern: Some(pattern),
            substitution,
        })
    }

    #[test]
    fn every_match_is_replaced_by_text_and_groups() {
        let of = |regex: &str, substitution: &str, input: &str| {
            let compiled = compile(regex, substitution).unwrap();
            String::from_utf8(compiled.apply(input.as_bytes()).into_owned()).unwrap()
        };
        assert_eq!(of("^/a/([^/]+)(/.*)$", r"\2/x/\1", "/a/b/c"), "/c/x/b");
        assert_eq!(of("o", "0", "foo"), "f00");
        assert_eq!(of("(o)|f", r"<\1\0>", "fo"), "<f><oo>");
        assert_eq!(of("x", r"\\", "axb"), r"a\b");
        assert_eq!(of("x", "y", "abc"), "abc");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (regex, substitution) in [("", ""), ("(", ""), ("a", r"\1"), ("a", r"\"), ("a", r"\x")]
        {
            assert!(compile(regex, substitution).is_err(), "{regex:?} {substitution:?}");
        }
    }
}
