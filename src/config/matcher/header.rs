//! `config.route.v3.HeaderMatcher`: one condition on one header of a request.

use http::header::HOST;
use http::{HeaderMap, HeaderName, request};

use super::{RegexMatcher, StringMatcher};
use crate::config::error::{Errors, Fault, OrFault};
use crate::config::fields;
use crate::proto::envoy::config::route::v3 as proto;

/// A header as a matcher names it: HTTP/2's pseudo-headers count as headers in either protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderField {
    /// `:method`
    Method,
    /// `:path`: path and query.
    Path,
    /// `:authority`, and `host`, which is the same.
    Authority,
    /// `:scheme`
    Scheme,
    /// Any other.
    Named(HeaderName),
}

impl HeaderField {
    /// Compiles a header's name.
    ///
    /// # Errors
    /// When it is empty or no header can have it.
    pub fn compile(name: &str) -> Result<Self, Errors> {
        Ok(match name.to_ascii_lowercase().as_str() {
            ":method" => Self::Method,
            ":path" => Self::Path,
            ":authority" | "host" => Self::Authority,
            ":scheme" => Self::Scheme,
            _ => Self::Named(header_name(name)?),
        })
    }

    /// The first value of the header.
    pub fn first<'h>(&self, head: &'h request::Parts) -> Option<&'h [u8]> {
        match self {
            Self::Method => Some(head.method.as_str().as_bytes()),
            Self::Path => head.uri.path_and_query().map(|path| path.as_str().as_bytes()),
            Self::Authority => match head.uri.authority() {
                Some(authority) => Some(authority.as_str().as_bytes()),
                None => head.headers.get(HOST).map(|host| host.as_bytes()),
            },
            Self::Scheme => match head.uri.scheme_str() {
                Some(scheme) => Some(scheme.as_bytes()),
                // HTTP/1.1 does not send it; this is where the edge wrote it down.
                None => head.headers.get("x-forwarded-proto").map(|value| value.as_bytes()),
            },
            Self::Named(name) => head.headers.get(name).map(|value| value.as_bytes()),
        }
    }

    /// Whether any value of the header passes `test`; `None` if there is no value.
    pub fn any(&self, head: &request::Parts, mut test: impl FnMut(&[u8]) -> bool) -> Option<bool> {
        let Self::Named(name) = self else {
            return self.first(head).map(test);
        };
        let mut values = head.headers.get_all(name).iter().peekable();
        values.peek()?;
        Some(values.any(|value| test(value.as_bytes())))
    }
}

/// A name that a header can have.
///
/// # Errors
/// When it is empty or has a character that no header's name has.
pub fn header_name(name: &str) -> Result<HeaderName, Errors> {
    fields::non_empty(name)?;
    HeaderName::from_bytes(name.as_bytes())
        .map_err(|_invalid| Fault::out_of_range(format!("{name:?}"), "a header name").into())
}

/// A compiled `HeaderMatcher`. A repeated header is matched value by value: one that matches is
/// enough.
#[derive(Debug, Clone)]
pub struct HeaderMatcher {
    field: HeaderField,
    value: ValueMatcher,
    invert: bool,
    missing_is_empty: bool,
}

#[derive(Debug, Clone)]
enum ValueMatcher {
    Present(bool),
    String(StringMatcher),
    /// A whole decimal number from the first up to, but without, the second.
    Range(i64, i64),
}

impl HeaderMatcher {
    /// Compiles the message.
    ///
    /// # Errors
    /// When the name is no header's, or the value matcher is unfit.
    pub fn compile(matcher: &proto::HeaderMatcher) -> Result<Self, Errors> {
        let proto::HeaderMatcher {
            name,
            invert_match,
            treat_missing_header_as_empty,
            header_match_specifier,
        } = matcher;
        let mut errors = Errors::new();
        let field = errors.take(HeaderField::compile(name).at("name"));
        let value = errors.take(value_matcher(header_match_specifier.as_ref()));
        match (field, value) {
            (Some(field), Some(value)) if errors.is_empty() => Ok(Self {
                field,
                value,
                invert: *invert_match,
                missing_is_empty: *treat_missing_header_as_empty,
            }),
            _ => Err(errors),
        }
    }

    /// Whether the request's header matches.
    pub fn matches(&self, head: &request::Parts) -> bool {
        self.decide(self.field.any(head, |value| self.value.matches(value)))
    }

    /// Whether a header of a response matches. It has none of a request's pseudo-headers.
    pub fn matches_response(&self, headers: &HeaderMap) -> bool {
        let HeaderField::Named(name) = &self.field else { return self.decide(None) };
        let mut values = headers.get_all(name).iter().peekable();
        let any = values.peek().is_some().then(|| values.any(|v| self.value.matches(v.as_bytes())));
        self.decide(any)
    }

    fn decide(&self, found: Option<bool>) -> bool {
        match found.or_else(|| self.missing_is_empty.then(|| self.value.matches(b""))) {
            Some(matched) => matched != self.invert,
            // Without a value to look at there is none that differs either: inverting a value
            // matcher does not make it match a header that is missing.
            None => match self.value {
                ValueMatcher::Present(present) => present == self.invert,
                ValueMatcher::String(_) | ValueMatcher::Range(..) => false,
            },
        }
    }
}

impl ValueMatcher {
    fn matches(&self, value: &[u8]) -> bool {
        match self {
            Self::Present(present) => *present,
            Self::String(string) => string.matches(value),
            Self::Range(start, end) => std::str::from_utf8(value)
                .ok()
                .and_then(|text| text.parse::<i64>().ok())
                .is_some_and(|number| (*start..*end).contains(&number)),
        }
    }
}

fn value_matcher(
    specifier: Option<&proto::header_matcher::HeaderMatchSpecifier>,
) -> Result<ValueMatcher, Errors> {
    use proto::header_matcher::HeaderMatchSpecifier as Specifier;
    let string = match specifier {
        None => return Ok(ValueMatcher::Present(true)),
        Some(Specifier::PresentMatch(present)) => return Ok(ValueMatcher::Present(*present)),
        Some(Specifier::RangeMatch(range)) => {
            let crate::proto::envoy::r#type::v3::Int64Range { start, end } = range;
            return Ok(ValueMatcher::Range(*start, *end));
        }
        // An empty text in this older form always meant any value.
        Some(Specifier::ExactMatch(text)) if text.is_empty() => {
            return Ok(ValueMatcher::Present(true));
        }
        Some(Specifier::ExactMatch(text)) => Ok(StringMatcher::exact(text, false)),
        Some(Specifier::PrefixMatch(text)) => StringMatcher::prefix(text, false).at("prefix_match"),
        Some(Specifier::SuffixMatch(text)) => StringMatcher::suffix(text, false).at("suffix_match"),
        Some(Specifier::ContainsMatch(text)) => {
            StringMatcher::contains(text, false).at("contains_match")
        }
        Some(Specifier::SafeRegexMatch(regex)) => {
            RegexMatcher::compile(regex).map(StringMatcher::regex).at("safe_regex_match")
        }
        Some(Specifier::StringMatch(string)) => StringMatcher::compile(string).at("string_match"),
    };
    string.map(ValueMatcher::String)
}

#[cfg(test)]
mod tests {
    use proto::header_matcher::HeaderMatchSpecifier as Specifier;

    use super::*;
    use crate::proto::envoy::r#type::{matcher::v3 as matcher, v3::Int64Range};

    fn head(headers: &[(&str, &str)]) -> request::Parts {
        let mut builder = http::Request::get("http://a.test/p?q=1");
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap().into_parts().0
    }

    fn header(name: &str, specifier: Option<Specifier>) -> proto::HeaderMatcher {
        proto::HeaderMatcher {
            name: name.into(),
            header_match_specifier: specifier,
            ..Default::default()
        }
    }

    fn exact(text: &str) -> Option<Specifier> {
        Some(Specifier::StringMatch(matcher::StringMatcher {
            ignore_case: false,
            match_pattern: Some(matcher::string_matcher::MatchPattern::Exact(text.into())),
        }))
    }

    #[test]
    fn values_are_matched_one_by_one() {
        let repeated = head(&[("x-v", "one"), ("x-v", "two")]);
        let range = |text: &str| {
            let range = Int64Range { start: -5, end: 10 };
            let message = header("x-n", Some(Specifier::RangeMatch(range)));
            HeaderMatcher::compile(&message).unwrap().matches(&head(&[("x-n", text)]))
        };
        let matches = |message: &proto::HeaderMatcher, head: &request::Parts| {
            HeaderMatcher::compile(message).unwrap().matches(head)
        };
        assert!(matches(&header("x-v", exact("two")), &repeated));
        assert!(!matches(&header("x-v", exact("one,two")), &repeated));
        for (text, expected) in [
            ("-5", true),
            ("9", true),
            ("10", false),
            ("-6", false),
            ("1.5", false),
            ("3x", false),
            ("", false),
        ] {
            assert_eq!(range(text), expected, "{text}");
        }
        for (name, value) in
            [(":method", "GET"), (":path", "/p?q=1"), (":authority", "a.test"), ("Host", "a.test")]
        {
            assert!(matches(&header(name, exact(value)), &repeated), "{name}");
        }
    }

    #[test]
    fn missing_headers_match_as_envoy_has_it() {
        // specifier, invert, missing is empty -> matches without the header, with the value "x"
        let cases = [
            (None, false, false, false, true),
            (Some(Specifier::PresentMatch(true)), true, false, true, false),
            (Some(Specifier::PresentMatch(false)), false, false, true, false),
            (Some(Specifier::PresentMatch(false)), true, false, false, true),
            (Some(Specifier::PresentMatch(true)), false, true, true, true),
            (exact("x"), false, false, false, true),
            (exact("x"), true, false, false, false),
            (exact("y"), true, false, false, true),
            (exact(""), false, true, true, false),
            (exact("y"), true, true, true, true),
            (Some(Specifier::ExactMatch(String::new())), false, false, false, true),
            (Some(Specifier::PrefixMatch("x".into())), false, false, false, true),
            (Some(Specifier::SuffixMatch("y".into())), false, false, false, false),
            (Some(Specifier::ContainsMatch("x".into())), false, false, false, true),
        ];
        for (specifier, invert, empty, missing, with) in cases {
            let mut message = header("x-v", specifier);
            message.invert_match = invert;
            message.treat_missing_header_as_empty = empty;
            let compiled = HeaderMatcher::compile(&message).unwrap();
            assert_eq!(compiled.matches(&head(&[])), missing, "{message:?}");
            assert_eq!(compiled.matches(&head(&[("x-v", "x")])), with, "{message:?}");
        }
    }

    #[test]
    fn names_that_no_header_has_are_refused() {
        for name in ["", "a b", ":nope", "é"] {
            let error = HeaderMatcher::compile(&header(name, None)).unwrap_err().to_string();
            assert!(error.starts_with("name: "), "{error}");
        }
    }
}
