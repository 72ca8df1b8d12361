//! Rust source as the rules read it: files, their code without comments and strings, their paths.

use std::fs;
use std::path::Path;

/// One file of Rust.
pub(crate) struct File {
    /// From the root of the repository, with `/`.
    pub(crate) path: String,
    /// As it is.
    pub(crate) text: String,
    /// The text with comments and the insides of literals blanked; lines and columns stay.
    pub(crate) code: String,
}

/// A path in the code that starts at the root of a crate.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Use {
    /// Counts from 1.
    pub(crate) line: usize,
    /// Without the name of the crate: `["proto", "any"]`, as far as it is written.
    pub(crate) path: Vec<String>,
    /// Whether it stands in a `mod tests`.
    pub(crate) in_tests: bool,
}

/// Every `.rs` file under the folders, in order of path. Folders called `target` are not ours.
pub(crate) fn rust_files(roots: &[&str]) -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    for name in roots {
        visit(&root.join(name), &mut paths);
    }
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let path = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
            File::new(path, text)
        })
        .collect()
}

fn visit(path: &Path, found: &mut Vec<std::path::PathBuf>) {
    if path.is_file() {
        if path.extension().is_some_and(|e| e == "rs") {
            found.push(path.to_owned());
        }
    } else if path.is_dir() && !path.ends_with("target") {
        for entry in fs::read_dir(path).unwrap() {
            visit(&entry.unwrap().path(), found);
        }
    }
}

impl File {
    pub(crate) fn new(path: String, text: String) -> Self {
        let code = blank(&text);
        Self { path, text, code }
    }

    /// A finding at a line.
    pub(crate) fn at(&self, line: usize, what: &str) -> String {
        let text = self.text.lines().nth(line - 1).unwrap_or_default().trim();
        format!("{}:{line}: {what}\n      {text}", self.path)
    }

    /// The modules from `src/` down to this file: `src/xds/mux/tests.rs` is `xds, mux, tests`.
    pub(crate) fn modules(&self) -> Vec<&str> {
        let Some(path) = self.path.strip_prefix("src/").and_then(|p| p.strip_suffix(".rs")) else {
            return Vec::new();
        };
        let mut modules: Vec<_> = path.split('/').collect();
        if matches!(modules.last(), Some(&("mod" | "lib"))) {
            modules.pop();
        }
        modules
    }

    /// Whether the whole file is tests of its neighbours.
    pub(crate) fn is_tests(&self) -> bool {
        self.modules().iter().any(|m| matches!(*m, "tests" | "simulation"))
    }

    /// Paths that start with `krate::`; of our own crate also those that climb to it by `super::`.
    /// Groups are opened at their first level: `crate::{a::b, c}` is two.
    pub(crate) fn uses(&self, krate: &str) -> Vec<Use> {
        let mut found = Vec::new();
        let mut inline: Vec<(usize, &str)> = Vec::new();
        let mut start = 0;
        for (n, line) in self.code.split_inclusive('\n').enumerate() {
            let indent = line.len() - line.trim_start().len();
            if line.trim_end().ends_with('}') && inline.last().is_some_and(|(i, _)| *i == indent) {
                inline.pop();
            }
            let words: Vec<_> = line.split_whitespace().collect();
            if let Some(at) = words.iter().position(|w| *w == "mod")
                && words.last() == Some(&"{")
            {
                inline.push((indent, words[at + 1]));
            }
            let depth = self.modules().len() + inline.len();
            let in_tests = self.is_tests() || inline.iter().any(|(_, name)| *name == "tests");
            let mut roots = vec![format!("{krate}::")];
            if krate == "crate" && depth > 0 {
                roots.push("super::".repeat(depth));
            }
            for root in roots {
                for at in occurrences(line, &root) {
                    for path in paths(&self.code[start + at + root.len()..]) {
                        if path.first().is_some_and(|first| first != "super") {
                            found.push(Use { line: n + 1, path, in_tests });
                        }
                    }
                }
            }
            start += line.len();
        }
        found
    }
}

/// Whether a word stands in a line on its own.
pub(crate) fn has_word(line: &str, word: &str) -> bool {
    occurrences(line, word).any(|at| {
        line[at + word.len()..].chars().next().is_none_or(|c| !is_ident(c) || word.ends_with('!'))
    })
}

/// Where a text stands that no identifier or path runs into.
fn occurrences<'a>(line: &'a str, text: &'a str) -> impl Iterator<Item = usize> + 'a {
    line.match_indices(text)
        .map(|(at, _)| at)
        .filter(|at| !line[..*at].ends_with(|c| is_ident(c) || c == ':'))
}

fn is_ident(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The paths written at the start of a text: one, or those of a group.
fn paths(text: &str) -> Vec<Vec<String>> {
    let Some(group) = text.trim_start().strip_prefix('{') else {
        return vec![path(text)];
    };
    let mut depth = 0;
    let mut found = vec![path(group)];
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => found.push(path(&group[at + 1..])),
            _ => {}
        }
    }
    found.retain(|path| !path.is_empty());
    found
}

fn path(text: &str) -> Vec<String> {
    let mut path = Vec::new();
    for part in text.trim_start().split("::") {
        let part = part.strip_prefix("r#").unwrap_or(part);
        let end = part.find(|c| !is_ident(c)).unwrap_or(part.len());
        if end > 0 {
            path.push(part[..end].to_owned());
        }
        if end < part.len() || end == 0 {
            break;
        }
    }
    path
}

/// Replaces comments and the insides of string and character literals by spaces.
fn blank(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let hidden = hidden_at_start(rest, out.chars().next_back());
        let (keep, len) = if hidden == 0 { (true, c.len_utf8()) } else { (false, hidden) };
        for c in rest[..len].chars() {
            out.push(if keep || c == '\n' { c } else { ' ' });
        }
        rest = &rest[len..];
    }
    out
}

/// Bytes of the comment or literal that a text starts with; 0 when it starts with code.
fn hidden_at_start(rest: &str, before: Option<char>) -> usize {
    let until = |from: usize, end: &str| {
        rest[from..].find(end).map_or(rest.len(), |at| from + at + end.len())
    };
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return until(2, "*/");
    }
    if rest.starts_with('r') && !before.is_some_and(is_ident) {
        let hashes = rest[1..].len() - rest[1..].trim_start_matches('#').len();
        if rest[1 + hashes..].starts_with('"') {
            return until(2 + hashes, &format!("\"{}", "#".repeat(hashes)));
        }
    }
    if rest.starts_with('"') {
        let mut escaped = false;
        for (at, c) in rest.char_indices().skip(1) {
            match c {
                '"' if !escaped => return at + 1,
                _ => escaped = c == '\\' && !escaped,
            }
        }
        return rest.len();
    }
    // A character, and not a lifetime: `'x'` or `'\..'`.
    let mut chars = rest.char_indices();
    if chars.next().is_some_and(|(_, c)| c == '\'') {
        match (chars.next(), chars.next()) {
            (Some((_, '\\')), Some((at, c))) => return until(at + c.len_utf8(), "'"),
            (Some(_), Some((at, '\''))) => return at + 1,
            _ => {}
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked_and_lines_stay() {
        for (text, code) in [
            ("a // b\nc", "a     \nc"),
            ("a /* b\n */ c", "a     \n    c"),
            (r#"f("x\"y", 1)"#, "f(      , 1)"),
            ("f(r#\"a\"b\"#)", "f(        )"),
            ("r('\"', 'a', '\\'')", "r(   ,    ,     )"),
            ("fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)"),
        ] {
            assert_eq!(blank(text), code, "{text}");
        }
    }

    #[test]
    fn paths_from_the_root_are_found_with_their_lines() {
        let text = "//! [`crate::no`]\nuse crate::a::{b, c};\nuse crate::{\n    d::e, f::{g, h},\n};\n\
                    use super::i::j;\nmod tests {\n    use super::k;\n    use super::super::l;\n}\n\
                    fn x(y: crate::m::Z, z: other::crate::n, w: nuncio::o) {}\n";
        let file = File::new("src/here/mod.rs".to_owned(), text.to_owned());
        let found: Vec<_> =
            file.uses("crate").into_iter().map(|u| (u.line, u.path.join("::"))).collect();
        let expected = [(2, "a"), (3, "d::e"), (3, "f"), (6, "i::j"), (9, "l"), (11, "m::Z")];
        assert_eq!(found, expected.map(|(line, path)| (line, path.to_owned())));
        assert!(file.uses("crate").iter().any(|u| u.in_tests && u.line == 9));
        assert_eq!(file.uses("nuncio").iter().filter(|u| u.path == ["o"]).count(), 1);
    }
}
