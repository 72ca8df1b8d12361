//! The index of a virtual host's routes by path.
//!
//! It answers as a scan over the routes in their order would, the first one that matches, but looks
//! only at those whose path can match: whole paths are in a map, prefixes in a trie, and only regular
//! expressions are tried one by one. Each of these yields its candidates in order, so the least one
//! that is accepted is found by asking of each only those below the best so far: no merging, no
//! allocation, and a cost that depends on the path, not on the number of routes.

mod trie;

use std::collections::HashMap;

use trie::{End, Trie};

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
}

/// A [`PathMatcher`] and whether case counts in it; it always does in a regular expression.
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
    rest: Box<[(u32, RegexMatcher)]>,
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
        let mut rest = Vec::new();
        for (position, PathPattern { matcher, ignore_case }) in patterns.into_iter().enumerate() {
            let position = count(position);
            let (text, end) = match matcher {
                PathMatcher::Regex(regex) => {
                    rest.push((position, regex));
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
            rest: rest.into(),
        }
    }

    /// The first pattern that matches `path` and that `accept` takes. It may be asked about later
    /// ones before earlier ones, and about none twice.
    pub(super) fn first(&self, path: &str, mut accept: impl FnMut(u32) -> bool) -> Option<u32> {
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
        self.prefixes.visit(path.as_bytes(), u8::clone, &mut best, &mut accept);
        self.folded.visit(path.as_bytes(), u8::to_ascii_lowercase, &mut best, &mut accept);
        for (position, regex) in &self.rest {
            if *position >= best {
                break;
            }
            if regex.matches(path.as_bytes()) && accept(*position) {
                best = *position;
                break;
            }
        }
        (best != u32::MAX).then_some(best)
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
                _ => PathMatcher::Regex(RegexMatcher::try_new(&text).unwrap()),
            };
            PathPattern { matcher, ignore_case }
        };
        PathIndex::new(patterns.iter().map(pattern).collect())
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
            assert_eq!(index.first(path, |_| true), Some(expected), "{path}");
        }
        assert_eq!(index.first("*", |_| true), None);
    }

    #[test]
    fn what_is_not_accepted_gives_way_to_the_next() {
        let index = index(&[("prefix", "/a"), ("exact", "/a"), ("regex", "/a"), ("prefix", "/a")]);
        for refused in 0..4 {
            assert_eq!(index.first("/a", |position| position >= refused), Some(refused));
        }
        assert_eq!(index.first("/a", |_| false), None);
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
        let found = index.first("/x/07777/y", |_| {
            asked += 1;
            true
        });
        assert_eq!((found, asked), (Some(7777), 1));
    }
}
