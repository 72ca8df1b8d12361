//! `Cache-Control` (RFC 9111 section 5.2), read as leniently as section 4.2.1 wants it: what cannot be
//! understood makes a response less fresh, never more. And the fields that are meant for some caches only
//! (RFC 9213), which are structured fields: one that is malformed is as good as not there.

use std::borrow::Cow;
use std::time::Duration;

use http::header::{CACHE_CONTROL, HeaderName, PRAGMA};
use http::{HeaderMap, HeaderValue};
use sfv::{BareItem, Dictionary, ListEntry, Parser};

/// Delta-seconds greater than this are this (RFC 9111 section 1.2.2).
const MAX_SECONDS: u64 = 1 << 31;

/// The directives of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestDirectives {
    /// Nothing that is not validated.
    pub no_cache: bool,
    /// The response is not to be stored.
    pub no_store: bool,
    /// Nothing but what is stored.
    pub only_if_cached: bool,
    /// Nothing older.
    pub max_age: Option<Duration>,
    /// Fresh for at least so much longer.
    pub min_fresh: Option<Duration>,
    /// Stale for so long is good enough; however long if there is no number.
    pub max_stale: Option<Option<Duration>>,
    /// Stale for so long is better than an error (RFC 5861 section 4).
    pub stale_if_error: Option<Duration>,
}

/// The directives of a response.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResponseDirectives {
    /// Not to be used without validation.
    pub no_cache: bool,
    /// Not to be used without validation unless these fields are left out: `no-cache="field"`.
    pub no_cache_fields: Vec<HeaderName>,
    /// Not to be stored.
    pub no_store: bool,
    /// Not for a shared cache.
    pub private: bool,
    /// Not for a shared cache unless these fields are left out: `private="field"`.
    pub private_fields: Vec<HeaderName>,
    /// May be stored although it would not be otherwise.
    pub public: bool,
    /// Never to be used stale.
    pub must_revalidate: bool,
    /// The same, for shared caches.
    pub proxy_revalidate: bool,
    /// To be stored only if the status is understood, whatever `no-store` says.
    pub must_understand: bool,
    /// Fresh for so long.
    pub max_age: Option<Duration>,
    /// The same, for shared caches.
    pub s_maxage: Option<Duration>,
    /// Stale for so long is good enough while it is validated (RFC 5861 section 3).
    pub stale_while_revalidate: Option<Duration>,
    /// Stale for so long is better than an error (RFC 5861 section 4).
    pub stale_if_error: Option<Duration>,
    /// The body is to stay as it is.
    pub no_transform: bool,
    /// These came in a targeted field: `Cache-Control` and `Expires` do not count.
    pub targeted: bool,
}

impl RequestDirectives {
    /// Those of a request; `Pragma: no-cache` counts if there is no `Cache-Control`.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        let mut any = false;
        each(headers, |name, argument| {
            any = true;
            match name {
                "no-cache" => found.no_cache = true,
                "no-store" => found.no_store = true,
                "only-if-cached" => found.only_if_cached = true,
                // A request that cannot be understood wants something new.
                "max-age" => found.max_age = Some(argument.and_then(seconds).unwrap_or_default()),
                "min-fresh" => found.min_fresh = argument.and_then(seconds),
                "max-stale" => found.max_stale = Some(argument.and_then(seconds)),
                "stale-if-error" => found.stale_if_error = argument.and_then(seconds),
                _ => {}
            }
        });
        let pragma = headers.get(PRAGMA).map(HeaderValue::as_bytes);
        if !any && pragma.is_some_and(|value| value.eq_ignore_ascii_case(b"no-cache")) {
            found.no_cache = true;
        }
        found
    }
}

impl ResponseDirectives {
    /// Those of a response: of the first of the `targeted` fields that is there and can be read, or else of
    /// `Cache-Control`. Of a directive that comes twice with different lifetimes the shorter counts.
    pub fn of(headers: &HeaderMap, targeted: &[HeaderName]) -> Self {
        let mut found = Self::default();
        if targeted.iter().any(|name| found.take_targeted(headers, name)) {
            return found;
        }
        each(headers, |name, argument| {
            let lifetime = || argument.and_then(seconds).unwrap_or_default();
            found.take(name, argument, lifetime);
        });
        found
    }

    fn take(&mut self, name: &str, argument: Option<&str>, lifetime: impl Fn() -> Duration) {
        let shorter = |before: Option<Duration>| {
            let now = lifetime();
            Some(before.map_or(now, |before| before.min(now)))
        };
        match name {
            "no-cache" => match argument.map(fields) {
                Some(fields) if !fields.is_empty() => self.no_cache_fields.extend(fields),
                _ => self.no_cache = true,
            },
            "private" => match argument.map(fields) {
                Some(fields) if !fields.is_empty() => self.private_fields.extend(fields),
                _ => self.private = true,
            },
            "no-store" => self.no_store = true,
            "public" => self.public = true,
            "must-revalidate" => self.must_revalidate = true,
            "proxy-revalidate" => self.proxy_revalidate = true,
            "must-understand" => self.must_understand = true,
            "no-transform" => self.no_transform = true,
            "max-age" => self.max_age = shorter(self.max_age),
            "s-maxage" => self.s_maxage = shorter(self.s_maxage),
            "stale-while-revalidate" => {
                self.stale_while_revalidate = shorter(self.stale_while_revalidate);
            }
            "stale-if-error" => self.stale_if_error = shorter(self.stale_if_error),
            _ => {}
        }
    }

    /// RFC 9213 section 2.1: a dictionary; members of the wrong type do not count, an empty one is none.
    fn take_targeted(&mut self, headers: &HeaderMap, name: &HeaderName) -> bool {
        if !headers.contains_key(name) {
            return false;
        }
        let lines: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
        let Ok(members) = Parser::new(&lines.join(&b", "[..])).parse::<Dictionary>() else {
            return false;
        };
        for (name, member) in &members {
            let ListEntry::Item(item) = member else { continue };
            let whole = |seconds: i64| u64::try_from(seconds).ok().map(|s| s.min(MAX_SECONDS));
            match &item.bare_item {
                BareItem::Boolean(true) if !is_lifetime(name.as_str()) => {
                    self.take(name.as_str(), None, Duration::default);
                }
                BareItem::Integer(seconds) if is_lifetime(name.as_str()) => {
                    if let Some(seconds) = whole(i64::from(*seconds)) {
                        self.take(name.as_str(), None, || Duration::from_secs(seconds));
                    }
                }
                BareItem::String(list) if matches!(name.as_str(), "no-cache" | "private") => {
                    self.take(name.as_str(), Some(list.as_str()), Duration::default);
                }
                _ => {}
            }
        }
        self.targeted = !members.is_empty();
        self.targeted
    }
}

fn is_lifetime(name: &str) -> bool {
    matches!(name, "max-age" | "s-maxage" | "stale-while-revalidate" | "stale-if-error")
}

/// Calls `see` with each directive, its name in lower case, and its argument without quotes.
fn each(headers: &HeaderMap, mut see: impl FnMut(&str, Option<&str>)) {
    for value in headers.get_all(CACHE_CONTROL) {
        // What is not text does not take the directives beside it away.
        for directive in split(&String::from_utf8_lossy(value.as_bytes())) {
            let (name, argument) = match directive.split_once('=') {
                None => (directive, None),
                Some((name, argument)) => (name, Some(argument.trim())),
            };
            let unquoted = argument.map(|argument| {
                match argument.strip_prefix('"').and_then(|a| a.strip_suffix('"')) {
                    Some(inner) => unescaped(inner),
                    None => Cow::Borrowed(argument),
                }
            });
            see(&name.trim().to_ascii_lowercase(), unquoted.as_deref());
        }
    }
}

/// A quoted string's text (RFC 9110 section 5.6.4).
fn unescaped(inner: &str) -> Cow<'_, str> {
    if !inner.contains('\\') {
        return Cow::Borrowed(inner);
    }
    let mut text = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        text.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    text.into()
}

/// Whether a place in a text is within quotes.
#[derive(Default)]
struct Quotes {
    quoted: bool,
    escaped: bool,
}

impl Quotes {
    fn pass(&mut self, c: char) {
        let is_literal = std::mem::take(&mut self.escaped);
        self.escaped = self.quoted && c == '\\' && !is_literal;
        self.quoted ^= c == '"' && !is_literal;
    }
}

/// The parts of a list, whose commas may stand within quotes.
fn split(list: &str) -> impl Iterator<Item = &str> {
    let mut quotes = Quotes::default();
    // A quote that is never closed must not hide what stands behind it.
    let mut whole = Quotes::default();
    list.chars().for_each(|c| whole.pass(c));
    let is_broken = whole.quoted;
    list.split(move |c| {
        quotes.pass(c);
        c == ',' && (is_broken || !quotes.quoted)
    })
    .map(str::trim)
    .filter(|part| !part.is_empty())
}

/// Delta-seconds (RFC 9111 section 1.2.2).
pub(super) fn seconds(text: &str) -> Option<Duration> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // More digits than fit are a very long time.
    Some(Duration::from_secs(text.parse().unwrap_or(MAX_SECONDS).min(MAX_SECONDS)))
}

fn fields(list: &str) -> Vec<HeaderName> {
    list.split(',').filter_map(|name| name.trim().parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(values: &[&'static str]) -> ResponseDirectives {
        let headers = values.iter().map(|v| (CACHE_CONTROL, HeaderValue::from_static(v)));
        ResponseDirectives::of(&headers.collect(), &[])
    }

    fn request(value: &'static str) -> RequestDirectives {
        let headers = [(CACHE_CONTROL, HeaderValue::from_static(value))];
        RequestDirectives::of(&headers.into_iter().collect())
    }

    #[test]
    fn lists_are_split_outside_of_quotes_only() {
        let found = response(&[r#"private="set-cookie, x-a" , MAX-AGE=60,,"#, "public"]);
        assert_eq!(found.private_fields, ["set-cookie", "x-a"]);
        assert!(!found.private && found.public);
        assert_eq!(found.max_age, Some(Duration::from_secs(60)));
        assert!(response(&["no-cache=\"\""]).no_cache);
        assert!(response(&["max-age=60, x=\"a, no-store"]).no_store);
        assert_eq!(
            response(&[r#"max-age="\6\0", x="\"," , public"#]).max_age.unwrap().as_secs(),
            60
        );
    }

    #[test]
    fn what_cannot_be_understood_is_not_fresh() {
        for value in
            ["max-age=x", "max-age", "max-age=-1", "max-age=1.5", "max-age=", "max-age=9,max-age=0"]
        {
            assert_eq!(response(&[value]).max_age, Some(Duration::ZERO), "{value}");
        }
        assert_eq!(response(&[r#"max-age="7""#]).max_age, Some(Duration::from_secs(7)));
        let ages = "max-age=99999999999999999999999";
        assert_eq!(response(&[ages]).max_age, Some(Duration::from_secs(MAX_SECONDS)));
        assert_eq!(request("max-age=x").max_age, Some(Duration::ZERO));
    }

    #[test]
    fn what_is_no_text_hides_nothing() {
        let value = HeaderValue::from_bytes(b"x=\"\xe4\", private, no-store").unwrap();
        let found = ResponseDirectives::of(&[(CACHE_CONTROL, value)].into_iter().collect(), &[]);
        assert!(found.private && found.no_store);
    }

    #[test]
    fn a_targeted_field_goes_first_if_it_can_be_read() {
        let of = |value: &str| {
            let named = [("cdn-cache-control", value), ("cache-control", "no-store, max-age=1")];
            let headers =
                named.map(|(n, v)| (n.parse::<HeaderName>().unwrap(), v.parse().unwrap()));
            let targets =
                ["nuncio-cache-control", "cdn-cache-control"].map(HeaderName::from_static);
            ResponseDirectives::of(&headers.into_iter().collect(), &targets)
        };
        let found = of("max-age=60, private=?0, must-revalidate, unknown=(a b)");
        assert!(found.targeted && found.must_revalidate && !found.private && !found.no_store);
        assert_eq!(found.max_age, Some(Duration::from_secs(60)));
        for malformed in ["max-age=60,", "MAX-AGE=60", "max-age==", "", "max-age=\"60"] {
            let found = of(malformed);
            assert!(!found.targeted && found.no_store, "{malformed}");
        }
        let wrong_types = of("max-age=\"60\", s-maxage=-1, no-store=1, stale-if-error=1.5");
        assert_eq!(wrong_types, ResponseDirectives { targeted: true, ..Default::default() });
        assert_eq!(of("private=\"a, b\"").private_fields, ["a", "b"]);
    }

    #[test]
    fn a_request_says_how_old_or_stale_is_good_enough() {
        let found = request("max-stale, min-fresh=5, only-if-cached, unknown=3");
        assert_eq!(found.max_stale, Some(None));
        assert_eq!(found.min_fresh, Some(Duration::from_secs(5)));
        assert!(found.only_if_cached && !found.no_cache);
        assert_eq!(request("max-stale=9").max_stale, Some(Some(Duration::from_secs(9))));
        let pragma = [(PRAGMA, HeaderValue::from_static("No-Cache"))];
        assert!(RequestDirectives::of(&pragma.into_iter().collect()).no_cache);
    }
}
