//! Comparing strings as `type.matcher.v3` says: whole, by a part, or by a regular expression.
//!
//! All work on bytes, since a header's value need not be UTF-8. A match never allocates once each
//! thread has used the expression.

mod header;
mod substitution;

use std::fmt;

use regex::bytes::{Regex, RegexBuilder};

use super::error::{Errors, Fault, OrFault};
use super::fields;
use crate::proto::envoy::r#type::matcher::v3 as proto;

pub use header::{HeaderField, HeaderMatcher, header_name};
pub use substitution::RegexSubstitution;

/// The longest regular expression that is taken, in bytes.
pub const MAX_REGEX_LENGTH: usize = 64 * 1024;
/// The most memory that one compiled regular expression may take, in bytes; its cache in each thread
/// is held to the same.
pub const MAX_REGEX_SIZE: usize = 1024 * 1024;
/// How deeply the parts of a regular expression may nest.
const MAX_REGEX_DEPTH: u32 = 100;

/// `type.matcher.v3.RegexMatcher`: a regular expression that must match the whole input.
///
/// Differs: the syntax is that of the `regex` crate, which lacks `\C` and `\Q..\E` of RE2. As in RE2,
/// `\d`, `\s`, `\w` and `\b` know ASCII only; a `.` is one byte unless the expression can only be
/// understood as Unicode. The size of an expression is bounded by memory, not by RE2's instructions.
#[derive(Clone)]
pub struct RegexMatcher(Regex);

impl RegexMatcher {
    /// Compiles the message.
    ///
    /// # Errors
    /// When the expression is missing, malformed or too large.
    pub fn compile(matcher: &proto::RegexMatcher) -> Result<Self, Errors> {
        let proto::RegexMatcher { regex, engine_type } = matcher;
        match engine_type {
            None | Some(proto::regex_matcher::EngineType::GoogleRe2(_)) => {}
        }
        Self::try_new(regex).at("regex")
    }

    /// Compiles an expression.
    ///
    /// # Errors
    /// When it is empty, malformed or too large.
    pub fn try_new(pattern: &str) -> Result<Self, Fault> {
        // An expression that is whole only between the anchors, such as `a)(b`, is refused alone.
        compile_regex(pattern)?;
        build(&format!(r"\A(?:{pattern})\z")).map(Self).map_err(|error| malformed(pattern, &error))
    }

    /// Whether the whole input matches.
    pub fn matches(&self, input: &[u8]) -> bool {
        self.0.is_match(input)
    }
}

/// An expression that may match a part of the input; a fault if it is empty, malformed or too large.
fn compile_regex(pattern: &str) -> Result<Regex, Fault> {
    if pattern.is_empty() {
        return Err(Fault::Required);
    }
    if pattern.len() > MAX_REGEX_LENGTH {
        let reason = format!("a regular expression has at most {MAX_REGEX_LENGTH} bytes");
        return Err(Fault::invalid(format!("{} bytes", pattern.len()), reason));
    }
    build(pattern).map_err(|error| malformed(pattern, &error))
}

fn malformed(pattern: &str, error: &regex::Error) -> Fault {
    let reason = match error {
        regex::Error::CompiledTooBig(limit) => {
            format!("the compiled regular expression is larger than {limit} bytes")
        }
        // The first lines repeat the expression and point into it.
        other => other.to_string().lines().last().unwrap_or("malformed").to_owned(),
    };
    Fault::invalid(format!("{pattern:?}"), reason)
}

/// As RE2 sees it where that is possible, which is smaller too: ASCII classes, bytes.
fn build(pattern: &str) -> Result<Regex, regex::Error> {
    match builder(pattern).unicode(false).build() {
        Err(regex::Error::Syntax(_)) => builder(pattern).build(),
        result => result,
    }
}

fn builder(pattern: &str) -> RegexBuilder {
    let mut builder = RegexBuilder::new(pattern);
    builder.size_limit(MAX_REGEX_SIZE).dfa_size_limit(MAX_REGEX_SIZE).nest_limit(MAX_REGEX_DEPTH);
    builder
}

impl fmt::Debug for RegexMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RegexMatcher({:?})", self.0.as_str())
    }
}

/// `type.matcher.v3.StringMatcher`.
#[derive(Debug, Clone)]
pub struct StringMatcher {
    pattern: Pattern,
    /// ASCII letters are equal in either case.
    ignore_case: bool,
}

#[derive(Debug, Clone)]
enum Pattern {
    Exact(Box<[u8]>),
    Prefix(Box<[u8]>),
    Suffix(Box<[u8]>),
    /// Knows itself whether case counts; found anywhere in the input.
    Contains(Regex),
    Regex(RegexMatcher),
}

impl StringMatcher {
    /// Compiles the message.
    ///
    /// # Errors
    /// When no pattern is set, one that must not be empty is, or an expression is unfit.
    pub fn compile(matcher: &proto::StringMatcher) -> Result<Self, Errors> {
        use proto::string_matcher::MatchPattern;
        let proto::StringMatcher { ignore_case, match_pattern } = matcher;
        match match_pattern {
            None => Err(Fault::Required.into()),
            Some(MatchPattern::Exact(text)) => Ok(Self::exact(text, *ignore_case)),
            Some(MatchPattern::Prefix(text)) => Self::prefix(text, *ignore_case).at("prefix"),
            Some(MatchPattern::Suffix(text)) => Self::suffix(text, *ignore_case).at("suffix"),
            Some(MatchPattern::Contains(text)) => Self::contains(text, *ignore_case).at("contains"),
            Some(MatchPattern::SafeRegex(regex)) => RegexMatcher::compile(regex)
                .map(|regex| Self { pattern: Pattern::Regex(regex), ignore_case: false })
                .at("safe_regex"),
        }
    }

    /// The input is `text`, which may be empty.
    pub fn exact(text: &str, ignore_case: bool) -> Self {
        Self { pattern: Pattern::Exact(text.as_bytes().into()), ignore_case }
    }

    /// The input begins with `text`, which must not be empty.
    pub fn prefix(text: &str, ignore_case: bool) -> Result<Self, Errors> {
        let text = fields::non_empty(text)?;
        Ok(Self { pattern: Pattern::Prefix(text.as_bytes().into()), ignore_case })
    }

    /// The input ends with `text`, which must not be empty.
    pub fn suffix(text: &str, ignore_case: bool) -> Result<Self, Errors> {
        let text = fields::non_empty(text)?;
        Ok(Self { pattern: Pattern::Suffix(text.as_bytes().into()), ignore_case })
    }

    /// The input has `text` in it, which must not be empty.
    pub fn contains(text: &str, ignore_case: bool) -> Result<Self, Errors> {
        let text = fields::non_empty(text)?;
        // A search whose time grows with the input alone, whatever a client sends.
        let mut search = builder(&regex::escape(&text));
        search.case_insensitive(ignore_case);
        let search = match search.unicode(false).build() {
            Err(regex::Error::Syntax(_)) => search.unicode(true).build(),
            result => result,
        };
        let search = search.map_err(|e| {
            let reason = e.to_string().lines().last().unwrap_or("too large").to_owned();
            Errors::from(Fault::invalid(format!("{text:?}"), reason))
        })?;
        Ok(Self { pattern: Pattern::Contains(search), ignore_case })
    }

    /// A regular expression that must match the whole input.
    pub fn regex(regex: RegexMatcher) -> Self {
        Self { pattern: Pattern::Regex(regex), ignore_case: false }
    }

    /// Whether the input matches.
    pub fn matches(&self, input: &[u8]) -> bool {
        match &self.pattern {
            Pattern::Exact(text) => self.equal(input, text),
            Pattern::Prefix(text) => {
                input.get(..text.len()).is_some_and(|head| self.equal(head, text))
            }
            Pattern::Suffix(text) => input
                .len()
                .checked_sub(text.len())
                .is_some_and(|start| self.equal(&input[start..], text)),
            Pattern::Contains(search) => search.is_match(input),
            Pattern::Regex(regex) => regex.matches(input),
        }
    }

    fn equal(&self, a: &[u8], b: &[u8]) -> bool {
        if self.ignore_case { a.eq_ignore_ascii_case(b) } else { a == b }
    }
}

#[cfg(test)]
mod tests {
    use proto::string_matcher::MatchPattern;

    use super::*;

    fn string(pattern: MatchPattern, ignore_case: bool) -> StringMatcher {
        let message = proto::StringMatcher { ignore_case, match_pattern: Some(pattern) };
        StringMatcher::compile(&message).unwrap()
    }

    #[test]
    fn strings_match_by_their_form() {
        use MatchPattern::{Contains, Exact, Prefix, Suffix};
        let cases = [
            (Exact("ab".into()), false, "ab", true),
            (Exact("ab".into()), false, "AB", false),
            (Exact("ab".into()), true, "AB", true),
            (Exact("ab".into()), true, "abc", false),
            (Exact(String::new()), false, "", true),
            (Exact(String::new()), false, "x", false),
            (Prefix("ab".into()), false, "abc", true),
            (Prefix("ab".into()), false, "a", false),
            (Prefix("ab".into()), true, "aBc", true),
            (Suffix("bc".into()), false, "abc", true),
            (Suffix("bc".into()), false, "c", false),
            (Suffix("bc".into()), true, "aBC", true),
            (Contains("m.d".into()), false, "am.db", true),
            (Contains("m.d".into()), false, "amidb", false),
            (Contains("mid".into()), true, "aMIDb", true),
            (Contains("é".into()), true, "xéx", true),
        ];
        for (pattern, ignore_case, input, expected) in cases {
            let matcher = string(pattern, ignore_case);
            assert_eq!(matcher.matches(input.as_bytes()), expected, "{matcher:?} on {input:?}");
        }
    }

    #[test]
    fn an_expression_matches_the_whole_input() {
        let cases = [
            ("v[0-9]+", "v12", true),
            ("v[0-9]+", "v12b", false),
            ("v[0-9]+", "xv12", false),
            ("a|b", "b", true),
            ("a|b", "ab", false),
            ("a|ab", "ab", true),
            (".*", "", true),
            ("a.c", "a\nc", false),
            (r"\d", "\u{0663}", false),
            ("^x$", "x", true),
            ("[é]", "é", true),
        ];
        for (pattern, input, expected) in cases {
            let regex = RegexMatcher::try_new(pattern).unwrap();
            assert_eq!(regex.matches(input.as_bytes()), expected, "{pattern} on {input:?}");
        }
        assert!(RegexMatcher::try_new("a.*").unwrap().matches(b"a\xff"));
    }

    #[test]
    fn unfit_expressions_are_refused() {
        let deep = "(".repeat(5000) + &")".repeat(5000);
        let long = "a".repeat(MAX_REGEX_LENGTH + 1);
        let nested = "((a{100}){100}){100}";
        for pattern in ["", "(", "a)(b", "a)|(?:b", "(?=x)", r"(a)\1", nested, &deep, &long] {
            let fault = RegexMatcher::try_new(pattern).unwrap_err();
            assert!(fault.to_string().len() < 2 * MAX_REGEX_LENGTH, "{fault}");
        }
        let fault = RegexMatcher::try_new("(a{1000}){1000}").unwrap_err();
        assert!(fault.to_string().contains("larger than 1048576 bytes"), "{fault}");
        assert_eq!(
            RegexMatcher::try_new("(").unwrap_err().to_string(),
            r#""(": error: unclosed group"#
        );
    }

    #[test]
    fn patterns_that_match_everything_are_refused() {
        use MatchPattern::{Contains, Prefix, Suffix};
        for pattern in [Prefix(String::new()), Suffix(String::new()), Contains(String::new())] {
            let message = proto::StringMatcher { ignore_case: false, match_pattern: Some(pattern) };
            assert!(
                StringMatcher::compile(&message).unwrap_err().to_string().ends_with("required")
            );
        }
        assert!(StringMatcher::compile(&proto::StringMatcher::default()).is_err());
    }
}
