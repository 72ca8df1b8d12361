//! Which proxies are served which snapshot: rules over node id and cluster.

use std::sync::Arc;

/// The group of nodes that no rule names.
pub const DEFAULT_GROUP: &str = "default";

/// A text to be equal to, in which `*` stands for any characters and `?` for any one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// A pattern; every text is one.
    pub fn new(pattern: impl Into<String>) -> Self {
        Self(pattern.into())
    }

    /// Whether the whole of `text` fits. Time is at most the product of the lengths.
    pub fn matches(&self, text: &str) -> bool {
        let (pattern, text) = (self.0.as_bytes(), text.as_bytes());
        let (mut p, mut t) = (0, 0);
        // After a `*`: where it is, and how much of the text it stands for so far.
        let mut star: Option<(usize, usize)> = None;
        while t < text.len() {
            match pattern.get(p) {
                Some(b'*') => {
                    star = Some((p, t));
                    p += 1;
                }
                Some(b'?') => {
                    p += 1;
                    t += 1;
                    while text.get(t).is_some_and(|b| b & 0xc0 == 0x80) {
                        t += 1;
                    }
                }
                Some(c) if *c == text[t] => (p, t) = (p + 1, t + 1),
                _ => match star {
                    Some((at, taken)) => {
                        star = Some((at, taken + 1));
                        (p, t) = (at + 1, taken + 1);
                    }
                    None => return false,
                },
            }
        }
        pattern[p..].iter().all(|c| *c == b'*')
    }
}

/// One rule: nodes that fit all its patterns are served the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The group.
    pub group: Arc<str>,
    /// What `node.id` must fit.
    pub id: Option<Pattern>,
    /// What `node.cluster` must fit.
    pub cluster: Option<Pattern>,
}

/// Rules in order; the first that fits decides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules(pub Vec<Rule>);

impl Rules {
    /// The group of a node: [`DEFAULT_GROUP`] if no rule fits.
    pub fn group(&self, id: &str, cluster: &str) -> Arc<str> {
        let fits =
            |pattern: &Option<Pattern>, text| pattern.as_ref().is_none_or(|p| p.matches(text));
        match self.0.iter().find(|rule| fits(&rule.id, id) && fits(&rule.cluster, cluster)) {
            Some(rule) => Arc::clone(&rule.group),
            None => DEFAULT_GROUP.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_texts() {
        let cases = [
            ("edge", "edge", true),
            ("edge", "edge-1", false),
            ("edge-*", "edge-", true),
            ("edge-*", "edge-eu-1", true),
            ("*-1", "edge-eu-1", true),
            ("*-1", "edge-eu-12", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b*", "xxbxxaxx", false),
            ("a?c", "abc", true),
            ("a?c", "aéc", true),
            ("a?c", "ac", false),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(Pattern::new(pattern).matches(text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let rule = |group: &str, id: Option<&str>, cluster: Option<&str>| Rule {
            group: group.into(),
            id: id.map(Pattern::new),
            cluster: cluster.map(Pattern::new),
        };
        let rules = Rules(vec![
            rule("canary", Some("edge-0"), Some("edge")),
            rule("edge", None, Some("edge")),
        ]);
        assert_eq!(&*rules.group("edge-0", "edge"), "canary");
        assert_eq!(&*rules.group("edge-1", "edge"), "edge");
        assert_eq!(&*rules.group("edge-0", "core"), "default");
    }
}
