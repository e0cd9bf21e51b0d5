//! The pages of the book and what is in them: headings, links, blocks of code. Enough of Markdown for our own pages.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// One Markdown file.
#[derive(Clone, Debug)]
pub struct Document {
    /// Its path relative to the checkout.
    pub path: PathBuf,
    lines: Vec<Line>,
}

/// A fenced block of code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// What stands behind the opening fence, such as `yaml`.
    pub info: String,
    /// Line of the opening fence, from 1.
    pub line: usize,
    /// The lines within.
    pub text: String,
}

#[derive(Clone, Debug)]
enum Line {
    Text(String),
    Fence(String),
    Code(String),
}

impl Document {
    /// Reads the file `path` of the checkout `root`.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn read(root: &Path, path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let text = fs::read_to_string(root.join(&path)).with_context(|| path.display().to_string())?;
        Ok(Self::new(path, &text))
    }

    fn new(path: PathBuf, text: &str) -> Self {
        let mut within = false;
        let lines = text.lines().map(|line| match line.trim_start().strip_prefix("```") {
            Some(info) => {
                within = !within;
                Line::Fence(info.trim().to_owned())
            }
            None if within => Line::Code(line.to_owned()),
            None => Line::Text(line.to_owned()),
        });
        Self { path, lines: lines.collect() }
    }

    /// Returns the lines outside of fenced blocks, with their numbers from 1.
    pub fn prose(&self) -> impl Iterator<Item = (usize, &str)> {
        self.lines.iter().enumerate().filter_map(|(at, line)| match line {
            Line::Text(text) => Some((at + 1, text.as_str())),
            Line::Fence(_) | Line::Code(_) => None,
        })
    }

    /// Returns the fenced blocks.
    #[must_use]
    pub fn blocks(&self) -> Vec<Block> {
        let mut blocks: Vec<Block> = vec![];
        let mut within = false;
        for (at, line) in self.lines.iter().enumerate() {
            match line {
                Line::Fence(info) => {
                    within = !within;
                    if within {
                        blocks.push(Block { info: info.clone(), line: at + 1, text: String::new() });
                    }
                }
                Line::Code(code) => {
                    if let Some(block) = blocks.last_mut() {
                        block.text.push_str(code);
                        block.text.push('\n');
                    }
                }
                Line::Text(_) => {}
            }
        }
        blocks
    }

    /// Returns the spans of inline code, with the numbers of their lines.
    #[must_use]
    pub fn spans(&self) -> Vec<(usize, &str)> {
        self.prose().flat_map(|(at, line)| line.split('`').skip(1).step_by(2).map(move |span| (at, span))).collect()
    }

    /// Returns the targets of links and pictures, with the numbers of their lines.
    #[must_use]
    pub fn links(&self) -> Vec<(usize, &str)> {
        let targets = |line| str::split(line, "](").skip(1).filter_map(|rest| rest.split_once(')').map(|(to, _)| to));
        self.prose().flat_map(|(at, line)| targets(line).map(move |to| (at, to))).collect()
    }

    /// Returns the anchors of the headings, as mdBook and GitHub make them.
    #[must_use]
    pub fn anchors(&self) -> Vec<String> {
        let mut anchors: Vec<String> = vec![];
        for (_, line) in self.prose() {
            let title = line.trim_start_matches('#');
            if title.len() == line.len() || !title.starts_with(' ') {
                continue;
            }
            let slug = slug(title.trim());
            let same = anchors.iter().filter(|a| **a == slug || a.strip_prefix(&slug).is_some_and(is_number)).count();
            anchors.push(if same == 0 { slug } else { format!("{slug}-{same}") });
        }
        anchors
    }
}

fn is_number(suffix: &str) -> bool {
    suffix.strip_prefix('-').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

fn slug(title: &str) -> String {
    let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// Returns the files with the extension `extension` below `folders`, sorted, as paths relative to `root`.
///
/// # Errors
///
/// If a folder cannot be read.
pub fn files(root: &Path, folders: &[&str], extension: &str) -> Result<Vec<PathBuf>> {
    let mut found = vec![];
    let mut folders: Vec<PathBuf> = folders.iter().map(PathBuf::from).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder)).with_context(|| folder.display().to_string())? {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Reads the pages of the book: every Markdown file below `docs/`.
///
/// # Errors
///
/// If one cannot be read.
pub fn pages(root: &Path) -> Result<Vec<Document>> {
    files(root, &["docs"], "md")?.into_iter().map(|path| Document::read(root, path)).collect()
}

/// Reads the pages of the book and the READMEs beside them.
///
/// # Errors
///
/// If one cannot be read.
pub fn documents(root: &Path) -> Result<Vec<Document>> {
    let mut found = pages(root)?;
    for path in [
        "README.md",
        "CONTRIBUTING.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "charts/rouse/README.md",
        "examples/README.md",
    ] {
        found.push(Document::read(root, path)?);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_taken_apart() {
        let text = "# A `b.c` title\n[x](y.md#z) and `code` ![p](p.svg)\n```yaml values\nk: \"[no](link)\"\n```\n## Twice\n## Twice\n#hash\n";
        let document = Document::new("p.md".into(), text);
        assert_eq!(document.anchors(), ["a-bc-title", "twice", "twice-1"]);
        assert_eq!(document.links(), [(2, "y.md#z"), (2, "p.svg")]);
        assert_eq!(document.spans(), [(1, "b.c"), (2, "code")]);
        let block = Block { info: "yaml values".into(), line: 3, text: "k: \"[no](link)\"\n".into() };
        assert_eq!(document.blocks(), [block]);
    }
}
