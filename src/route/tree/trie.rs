//! A trie over prefixes, in four flat lists: small, and built and walked without recursion.

use super::{Span, count};

/// Where the path may go on after a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    /// Anywhere.
    Anywhere,
    /// At a `/`, or nowhere.
    Segment,
    /// Nowhere: the prefix is the path.
    Path,
    /// As the template wants that begins with the prefix.
    Template,
}

impl End {
    fn fits(self, rest: &[u8]) -> bool {
        match self {
            Self::Anywhere | Self::Template => true,
            Self::Segment => matches!(rest, [] | [b'/', ..]),
            Self::Path => rest.is_empty(),
        }
    }
}

/// The prefixes of a path, found byte by byte.
#[derive(Debug)]
pub(super) struct Trie {
    /// The root first; the children of a node lie together.
    nodes: Box<[Node]>,
    /// The first byte of each node's label, so that choosing a child reads one short run.
    first_bytes: Box<[u8]>,
    /// The labels but for their first bytes, one after the other.
    labels: Box<[u8]>,
    /// The patterns that end at a node lie together, ascending.
    patterns: Box<[(u32, End)]>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Node {
    label: Span,
    children: Span,
    patterns: Span,
}

/// A node that is still to be filled: the patterns that pass through it, and how long its path is.
struct Open {
    node: usize,
    patterns: std::ops::Range<usize>,
    depth: usize,
}

impl Trie {
    /// Builds the trie of `patterns`: text, position, end.
    pub(super) fn new(mut patterns: Vec<(String, u32, End)>) -> Self {
        patterns.sort_unstable();
        let (mut nodes, mut first_bytes, mut labels) = (Vec::new(), Vec::new(), Vec::new());
        let mut open = std::collections::VecDeque::new();
        if !patterns.is_empty() {
            nodes.push(Node::default());
            first_bytes.push(0);
            open.push_back(Open { node: 0, patterns: 0..patterns.len(), depth: 0 });
        }
        // Level by level, so that children come to lie together, and no depth can exhaust a stack.
        while let Some(Open { node, patterns: range, depth }) = open.pop_front() {
            let through = &patterns[range.clone()];
            // The text that ends here sorts before all that go on.
            let ended = through.partition_point(|(text, ..)| text.len() == depth);
            nodes[node].patterns =
                Span { start: count(range.start), end: count(range.start + ended) };
            let first_child = nodes.len();
            let mut start = ended;
            while start < through.len() {
                let first = through[start].0.as_bytes();
                let byte = first[depth];
                let group = through[start..].partition_point(|(t, ..)| t.as_bytes()[depth] == byte);
                let last = through[start + group - 1].0.as_bytes();
                let child_depth = depth + common_prefix(&first[depth..], &last[depth..]);
                let label_start = count(labels.len());
                labels.extend_from_slice(&first[depth + 1..child_depth]);
                let label = Span { start: label_start, end: count(labels.len()) };
                let from = range.start + start;
                open.push_back(Open {
                    node: nodes.len(),
                    patterns: from..from + group,
                    depth: child_depth,
                });
                nodes.push(Node { label, ..Node::default() });
                first_bytes.push(byte);
                start += group;
            }
            nodes[node].children = Span { start: count(first_child), end: count(nodes.len()) };
        }
        Self {
            nodes: nodes.into(),
            first_bytes: first_bytes.into(),
            labels: labels.into(),
            patterns: patterns.into_iter().map(|(_, position, end)| (position, end)).collect(),
        }
    }

    /// Lowers `best` to the least position of a pattern that begins `path` and that `accept` takes.
    /// Each byte of the path goes through `fold` first.
    pub(super) fn visit(
        &self,
        path: &[u8],
        fold: impl Fn(&u8) -> u8,
        best: &mut u32,
        mut accept: impl FnMut(u32, End) -> bool,
    ) {
        let Some(mut node) = self.nodes.first() else { return };
        let mut rest = path;
        loop {
            for &(position, end) in node.patterns.of(&self.patterns) {
                if position >= *best {
                    break;
                }
                if end.fits(rest) && accept(position, end) {
                    *best = position;
                    break;
                }
            }
            let Some((byte, after)) = rest.split_first() else { return };
            let byte = fold(byte);
            let siblings = node.children.of(&self.first_bytes);
            let Some(child) = siblings.iter().position(|first| *first == byte) else { return };
            node = &node.children.of(&self.nodes)[child];
            let label = node.label.of(&self.labels);
            let Some((head, after)) = after.split_at_checked(label.len()) else { return };
            if !head.iter().zip(label).all(|(byte, label)| fold(byte) == *label) {
                return;
            }
            rest = after;
        }
    }
}

fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_chains_of_prefixes_are_built_and_walked() {
        let text = "a".repeat(3000);
        let chain = (0..=text.len()).rev().enumerate();
        let patterns =
            chain.map(|(i, n)| (text[..n].to_owned(), count(i), End::Anywhere)).collect();
        let trie = Trie::new(patterns);
        for length in [0, 1, 2999, 3000] {
            let mut best = u32::MAX;
            trie.visit(&text.as_bytes()[..length], u8::clone, &mut best, |_, _| true);
            assert_eq!(best, count(3000 - length));
        }
    }

    #[test]
    fn an_empty_prefix_begins_everything() {
        let trie = Trie::new(vec![(String::new(), 3, End::Anywhere), ("/é".into(), 1, End::Path)]);
        for (path, expected) in [("", 3), ("/", 3), ("/é", 1), ("/éx", 3)] {
            let mut best = u32::MAX;
            trie.visit(path.as_bytes(), u8::clone, &mut best, |_, _| true);
            assert_eq!(best, expected, "{path}");
        }
    }
}
