//! The blocks of a document in Markdown: what stands between fences, and what it says it is.

use std::path::{Path, PathBuf};

/// The documents of the repository: its README and what is in `docs/`.
pub(crate) fn documents(root: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root.join("docs")).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "md"));
    files.push(root.join("README.md"));
    files.sort();
    files
}

/// The blocks of all of them.
pub(crate) fn all_blocks(root: &Path) -> Vec<Block> {
    let of = |file: &PathBuf| {
        let name = file.strip_prefix(root).unwrap().display().to_string();
        blocks(&name, &std::fs::read_to_string(file).unwrap()).unwrap_or_else(|e| panic!("{e}"))
    };
    documents(root).iter().flat_map(of).collect()
}

/// One block.
#[derive(Debug)]
pub(crate) struct Block {
    /// File and line of the fence.
    pub(crate) at: String,
    /// What stands behind the fence: `yaml gateway`, `sh`.
    pub(crate) kind: String,
    pub(crate) text: String,
}

impl Block {
    /// The commands of a shell block that run this program, wherever it is.
    pub(crate) fn commands<'a>(&'a self, program: &'a str) -> impl Iterator<Item = &'a str> {
        let lines = if self.kind == "sh" { self.text.lines() } else { "".lines() };
        lines.filter(move |line| {
            let word = line.split(' ').next().unwrap_or_default();
            word.rsplit('/').next() == Some(program)
        })
    }
}

/// All blocks of a document, or what is wrong with it: code that is set off by spaces cannot say what it is.
pub(crate) fn blocks(file: &str, document: &str) -> Result<Vec<Block>, String> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open = false;
    let mut after_space = true;
    for (index, line) in document.lines().enumerate() {
        let at = format!("{file}:{}", index + 1);
        match (line.strip_prefix("```"), blocks.last_mut()) {
            (Some(kind), _) if !open => {
                blocks.push(Block { at, kind: kind.to_owned(), text: String::new() });
                open = true;
            }
            (Some(""), _) => open = false,
            (_, Some(block)) if open => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            _ if after_space && line.starts_with("    ") => {
                return Err(format!("{at}: a block without a fence"));
            }
            _ => {}
        }
        after_space = line.is_empty();
    }
    match blocks.pop() {
        Some(block) if open => Err(format!("{}: the fence is not closed", block.at)),
        last => Ok(blocks.into_iter().chain(last).collect()),
    }
}
