//! The rules of the house that no compiler checks: each test fails with the lines at fault.
//!
//! The floors of `src/`, and who may see wire types, are the tables in [`floors`]. A rule is
//! changed there, in the open, with its reason; a file is never exempted in passing.

#![cfg(test)]

mod fields;
mod floors;
mod patterns;
mod source;

use std::fmt::Write;
use std::sync::LazyLock;

use source::{File, rust_files};

/// More lines than this are two ideas.
const MOST_LINES: usize = 500;

/// Folders that hold our Rust, from the root of the repository.
const ROOTS: &[&str] = &["build.rs", "src", "xds-server", "tests", "examples"];

/// Fails with one line for each finding.
#[track_caller]
fn none(mut found: Vec<String>) {
    found.sort();
    let mut text = String::new();
    for line in &found {
        writeln!(text, "  {line}").expect("a String can always be written");
    }
    assert!(found.is_empty(), "{} findings:\n{text}", found.len());
}

#[track_caller]
fn each(check: impl Fn(&File) -> Vec<String>) {
    static FILES: LazyLock<Vec<File>> = LazyLock::new(|| rust_files(ROOTS));
    assert!(FILES.len() > 20, "the tests run at the root of the repository");
    none(FILES.iter().flat_map(check).collect());
}

#[test]
fn no_file_is_longer_than_one_idea() {
    each(length);
}

#[test]
fn every_file_says_what_it_is() {
    each(opening);
}

#[test]
fn no_work_is_left_for_later() {
    each(leftovers);
}

#[test]
fn no_test_sleeps() {
    each(sleeps);
}

#[test]
fn modules_know_only_lower_floors() {
    each(floors::upward_uses);
}

#[test]
fn wire_types_stop_at_the_door() {
    each(floors::wire_types_beyond_the_door);
}

#[test]
fn the_management_server_uses_its_share_of_the_library() {
    each(floors::management_server_uses);
}

fn length(file: &File) -> Vec<String> {
    let lines = file.text.lines().count();
    if lines <= MOST_LINES {
        return Vec::new();
    }
    vec![format!("{}:{}: {lines} lines, at most {MOST_LINES}", file.path, MOST_LINES + 1)]
}

fn opening(file: &File) -> Vec<String> {
    if file.text.starts_with("//! ") {
        return Vec::new();
    }
    vec![format!("{}:1: a file opens with `//!` and says what it is", file.path)]
}

/// Words that promise work, in code or comment. Put together here so that this file has none.
fn leftovers(file: &File) -> Vec<String> {
    let words = [["TO", "DO"], ["FIX", "ME"], ["X", "XX"]].map(|parts| parts.concat());
    let ignored = ["#[ign", "ore]"].concat();
    let dbg = ["db", "g!"].concat();
    file.text
        .lines()
        .enumerate()
        .filter_map(|(n, line)| {
            let what = if let Some(word) = words.iter().find(|w| source::has_word(line, w)) {
                format!("{word}: do it now or leave it out")
            } else if source::has_word(line, &dbg) {
                format!("{dbg} is for the desk")
            } else if line.trim_start().starts_with(&ignored) {
                format!("{ignored} wants a reason: #[ignore = \"..\"]")
            } else {
                return None;
            };
            Some(file.at(n + 1, &what))
        })
        .collect()
}

/// A test waits for what it needs to see. The waiting primitive itself must pause between looks.
fn sleeps(file: &File) -> Vec<String> {
    const WAITING: &str = "tests/it/harness/wait.rs";
    let tests = file.path.starts_with("tests/") || file.path.starts_with("xds-server/tests/");
    if !tests || file.path == WAITING || file.path.starts_with("tests/tidy/") {
        return Vec::new();
    }
    file.code
        .lines()
        .enumerate()
        .filter(|(_, line)| line.contains("sleep("))
        .map(|(n, _)| file.at(n + 1, &format!("wait for a condition; only {WAITING} sleeps")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_finds_what_it_forbids() {
        let bad = |path: &str, text: &str| File::new(path.to_owned(), text.to_owned());
        let long = "//! a\n".repeat(MOST_LINES + 1);
        assert_eq!(length(&bad("src/a.rs", &long)), ["src/a.rs:501: 501 lines, at most 500"]);
        assert_eq!(opening(&bad("src/a.rs", "use std::fmt;\n")).len(), 1);
        for text in ["// TO_DO: x", "a(); // FIX_ME", "db_g!(x)", "  #[ign_ore]"] {
            assert_eq!(leftovers(&bad("src/a.rs", &text.replace('_', ""))).len(), 1, "{text}");
        }
        assert!(leftovers(&bad("src/a.rs", "let AUTODOC = 1; #[ignore = \"slow\"]")).is_empty());
        let nap = "fn f() {\n    tokio::time::sleep(d).await;\n}\n";
        assert!(sleeps(&bad("tests/it/a.rs", nap))[0].starts_with("tests/it/a.rs:2:"));
        assert!(sleeps(&bad("tests/it/harness/wait.rs", nap)).is_empty());
        assert!(sleeps(&bad("tests/it/a.rs", "// sleep(\n")).is_empty());
    }
}
