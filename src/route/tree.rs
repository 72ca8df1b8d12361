//! The index of a virtual host's routes by path.
//!
//! It answers as a scan over the routes in their order would, the first one that matches, but looks
//! only at those whose path can match: whole paths are in a map, prefixes in a trie, templates in the
//! same by the text they begin with, and only regular expressions are tried one by one. Each of these
//! yields its candidates in order, so the least one that is accepted is found by asking of each only
//! those below the best so far: no merging, no allocation, and a cost that depends on the path, not on
//! the number of routes.

mod trie;

use std::collections::HashMap;
use std::sync::Arc;

use trie::{End, Trie};

use super::template::Template;
use crate::config::matcher::RegexMatcher;

/// How a route's path is matched. The query is never part of it.
#[derive(Debug, Clone)]
pub(super) enum PathMatcher {
    /// The whole path.
    Exact(String),
    /// Its beginning.
    Prefix(String),
    /// Its beginning up to a `/` or the end.
    SeparatedPrefix(String),
    /// The whole path.
    Regex(RegexMatcher),
    /// The whole path.
    Template(Arc<Template>),
    /// Whatever `CONNECT` asks for, and nothing else.
    Connect,
}

/// A [`PathMatcher`] and whether case counts in it; it always does in a regular expression and in a
/// template.
#[derive(Debug, Clone)]
pub(super) struct PathPattern {
    pub(super) matcher: PathMatcher,
    pub(super) ignore_case: bool,
}

/// The index over patterns, known by their position.
#[derive(Debug)]
pub(super) struct PathIndex {
    exact: HashMap<Box<str>, Span, foldhash::fast::RandomState>,
    /// What the spans of `exact` are spans of: positions, ascending in each span.
    exact_positions: Box<[u32]>,
    prefixes: Trie,
    /// Everything that ignores case.
    folded: Trie,
    /// What stands in `prefixes` with its beginning only, ascending.
    templates: Box<[(u32, Arc<Template>)]>,
    rest: Box<[(u32, RegexMatcher)]>,
    /// Patterns for `CONNECT`, ascending.
    connect: Box<[u32]>,
}

/// What is looked for: the path of a request without its query, which may be empty.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) path: &'a str,
    /// It is a `CONNECT` request.
    pub(super) connect: bool,
}

/// A part of a list: `start..end`.
#[derive(Debug, Clone, Copy, Default)]
struct Span {
    start: u32,
    end: u32,
}

impl Span {
    fn of<T>(self, list: &[T]) -> &[T] {
        &list[self.start as usize..self.end as usize]
    }
}

impl PathIndex {
    /// Indexes the patterns.
    pub(super) fn new(patterns: Vec<PathPattern>) -> Self {
        let (mut exact, mut prefixes, mut folded) = (Vec::new(), Vec::new(), Vec::new());
        let (mut templates, mut rest, mut connect) = (Vec::new(), Vec::new(), Vec::new());
        for (position, PathPattern { matcher, ignore_case }) in patterns.into_iter().enumerate() {
            let position = count(position);
            let (text, end) = match matcher {
                PathMatcher::Regex(regex) => {
                    rest.push((position, regex));
                    continue;
                }
                PathMatcher::Connect => {
                    connect.push(position);
                    continue;
                }
                PathMatcher::Template(template) => {
                    prefixes.push((template.beginning().to_owned(), position, End::Template));
                    templates.push((position, template));
                    continue;
                }
                PathMatcher::Exact(text) if !ignore_case => {
                    exact.push((text, position));
                    continue;
                }
                PathMatcher::Exact(text) => (text, End::Path),
                PathMatcher::Prefix(text) => (text, End::Anywhere),
                PathMatcher::SeparatedPrefix(text) => (text, End::Segment),
            };
            match ignore_case {
                true => folded.push((text.to_ascii_lowercase(), position, end)),
                false => prefixes.push((text, position, end)),
            }
        }
        let (exact, exact_positions) = exact_map(exact);
        Self {
            exact,
            exact_positions,
            prefixes: Trie::new(prefixes),
            folded: Trie::new(folded),
            templates: templates.into(),
            rest: rest.into(),
            connect: connect.into(),
        }
    }

    /// The first pattern that matches what is asked and that `accept` takes. It may be asked about
    /// later ones before earlier ones, and about none twice.
    pub(super) fn first(
        &self,
        asked: Asked<'_>,
        mut accept: impl FnMut(u32) -> bool,
    ) -> Option<u32> {
        let Asked { path, connect } = asked;
        let mut best = u32::MAX;
        if !self.exact.is_empty()
            && let Some(span) = self.exact.get(path)
        {
            for &position in span.of(&self.exact_positions) {
                if accept(position) {
                    best = position;
                    break;
                }
            }
        }
        let fits = |position, end| end != End::Template || self.template_matches(position, path);
        self.prefixes.visit(path.as_bytes(), u8::clone, &mut best, |position, end| {
            fits(position, end) && accept(position)
        });
        self.folded.visit(path.as_bytes(), u8::to_ascii_lowercase, &mut best, |position, _| {
            accept(position)
        });
        for (position, regex) in &self.rest {
            if *position >= best {
                break;
            }
            if regex.matches(path.as_bytes()) && accept(*position) {
                best = *position;
                break;
            }
        }
        if connect {
            let earlier = self.connect.iter().take_while(|position| **position < best);
            best = earlier.copied().find(|position| accept(*position)).unwrap_or(best);
        }
        (best != u32::MAX).then_some(best)
    }

    /// Costs by the logarithm of the number of templates.
    fn template_matches(&self, position: u32, path: &str) -> bool {
        let found = self.templates.binary_search_by_key(&position, |(position, _)| *position);
        found.is_ok_and(|index| self.templates[index].1.matches(path))
    }
}

type ExactMap = HashMap<Box<str>, Span, foldhash::fast::RandomState>;

fn exact_map(mut paths: Vec<(String, u32)>) -> (ExactMap, Box<[u32]>) {
    paths.sort_unstable();
    let positions = paths.iter().map(|(_, position)| *position).collect();
    let mut map = ExactMap::default();
    let mut start = 0;
    for (index, (path, _)) in paths.iter().enumerate() {
        let last = paths.get(index + 1).is_none_or(|(next, _)| next != path);
        if last {
            let end = count(index + 1);
            map.insert(path.as_str().into(), Span { start, end });
            start = end;
        }
    }
    map.shrink_to_fit();
    (map, positions)
}

/// A number of routes or of their bytes.
fn count(n: usize) -> u32 {
    u32::try_from(n).expect("the messages of a configuration are shorter than 4 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(patterns: &[(&str, &str)]) -> PathIndex {
        let pattern = |(kind, text): &(&str, &str)| {
            let text = (*text).to_owned();
            let (kind, ignore_case) = match kind.strip_suffix(" i") {
                Some(kind) => (kind, true),
                None => (*kind, false),
            };
            let matcher = match kind {
                "exact" => PathMatcher::Exact(text),
                "prefix" => PathMatcher::Prefix(text),
                "segment" => PathMatcher::SeparatedPrefix(text),
                "template" => PathMatcher::Template(Arc::new(Template::try_new(&text).unwrap())),
                "connect" => PathMatcher::Connect,
                _ => PathMatcher::Regex(RegexMatcher::try_new(&text).unwrap()),
            };
            PathPattern { matcher, ignore_case }
        };
        PathIndex::new(patterns.iter().map(pattern).collect())
    }

    fn path(path: &str) -> Asked<'_> {
        Asked { path, connect: false }
    }

    #[test]
    fn the_first_pattern_in_order_wins_whatever_its_kind() {
        let index = index(&[
            ("exact", "/a/b"),
            ("segment", "/seg"),
            ("prefix", "/a/"),
            ("regex", "/r/[0-9]+"),
            ("prefix i", "/CI/"),
            ("exact i", "/Whole"),
            ("prefix", "/a/long/er"),
            ("prefix", "/r"),
            ("exact", "/a/b"),
            ("prefix", "/"),
        ]);
        let cases = [
            ("/a/b", 0),
            ("/a/bc", 2),
            ("/a/long/er", 2),
            ("/r/12", 3),
            ("/r/12x", 7),
            ("/ci/y", 4),
            ("/WHOLE", 5),
            ("/whole/x", 9),
            ("/seg", 1),
            ("/seg/x", 1),
            ("/segment", 9),
            ("/a", 9),
            ("/", 9),
        ];
        for (path, expected) in cases {
            assert_eq!(index.first(self::path(path), |_| true), Some(expected), "{path}");
        }
        assert_eq!(index.first(path("*"), |_| true), None);
    }

    #[test]
    fn templates_and_connect_have_their_place_in_the_order() {
        let index = index(&[
            ("template", "/a/{x}/c"),
            ("prefix", "/a/b"),
            ("connect", ""),
            ("template", "/{any=**}"),
            ("prefix", ""),
        ]);
        for (path, expected) in [("/a/b/c", 0), ("/a/b/d", 1), ("/a/x", 3), ("", 4), ("*", 4)] {
            assert_eq!(index.first(self::path(path), |_| true), Some(expected), "{path}");
        }
        let connect = Asked { path: "", connect: true };
        assert_eq!(index.first(connect, |_| true), Some(2));
        assert_eq!(index.first(connect, |position| position != 2), Some(4));
        assert_eq!(index.first(Asked { path: "/a/b/c", connect: true }, |_| true), Some(0));
    }

    #[test]
    fn what_is_not_accepted_gives_way_to_the_next() {
        let index = index(&[("prefix", "/a"), ("exact", "/a"), ("regex", "/a"), ("prefix", "/a")]);
        for refused in 0..4 {
            assert_eq!(index.first(path("/a"), |position| position >= refused), Some(refused));
        }
        assert_eq!(index.first(path("/a"), |_| false), None);
    }

    #[test]
    fn only_candidates_are_looked_at() {
        let patterns: Vec<_> = (0..10_000)
            .map(|n| PathPattern {
                matcher: PathMatcher::Prefix(format!("/x/{n:05}/")),
                ignore_case: false,
            })
            .collect();
        let index = PathIndex::new(patterns);
        let mut asked = 0;
        let found = index.first(path("/x/07777/y"), |_| {
            asked += 1;
            true
        });
        assert_eq!((found, asked), (Some(7777), 1));
    }
}
