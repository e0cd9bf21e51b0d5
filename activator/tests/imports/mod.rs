//! Import graph of a crate, read from its sources: which file names items of which other file.
//!
//! It reads `use` declarations and paths that begin with `crate`, `self` or `super`, and follows re-exports to the file that
//! defines the name. Code under `#[cfg(test)]` and `#[cfg(any(test, …))]` is left out. A method call names no file, so the
//! `impl` blocks of a type may be in several files. Glob re-exports are not followed.
//!
//! It uses the standard library only, so every crate of the workspace can include it:
//!
//! ```ignore
//! #[path = "../../activator/tests/imports/mod.rs"]
//! mod imports;
//! ```
#![allow(dead_code, reason = "each crate that includes it uses a part of it")]
#![allow(clippy::panic, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// Import graph of the files of one crate.
#[derive(Debug, Default)]
pub(crate) struct Imports {
    /// Edges from each file to the files that it names, with one of the names.
    edges: BTreeMap<String, BTreeMap<String, String>>,
}

/// A module, which is one file.
#[derive(Debug, Default)]
struct Module {
    file: String,
    children: BTreeSet<String>,
    /// Paths that it imports or names.
    paths: Vec<Vec<String>>,
    /// Names that `use` declarations bring into scope.
    names: BTreeMap<String, Vec<String>>,
}

type Modules = BTreeMap<Vec<String>, Module>;

impl Imports {
    /// Reads the crate whose sources are in this folder: its library, or the program of a crate without one.
    pub(crate) fn read(src: &Path) -> Self {
        let mut sources = BTreeMap::new();
        let mut folders = vec![src.to_path_buf()];
        while let Some(folder) = folders.pop() {
            let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
            for path in entries.map(|entry| entry.unwrap_or_else(|error| panic!("{error}")).path()) {
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{error}"));
                    let name = path.strip_prefix(src).unwrap_or(&path).to_string_lossy().replace('\\', "/");
                    sources.insert(name, text);
                }
            }
        }
        if !sources.contains_key("lib.rs")
            && let Some(program) = sources.remove("main.rs")
        {
            sources.insert("lib.rs".to_owned(), program);
        }
        Self::of(&sources)
    }

    /// Reads a library crate from the texts of its files, by their paths below the source folder. The root is `lib.rs`.
    pub(crate) fn of(sources: &BTreeMap<String, String>) -> Self {
        let mut modules = Modules::new();
        add(&mut modules, sources, vec![], "lib.rs");
        let mut edges = BTreeMap::<_, BTreeMap<_, _>>::new();
        for (module, of) in &modules {
            let to = edges.entry(of.file.clone()).or_default();
            for path in &of.paths {
                let Some(target) = resolve(&modules, module, path, 0) else { continue };
                if modules[&target].file != of.file {
                    to.entry(modules[&target].file.clone()).or_insert_with(|| path.join("::"));
                }
            }
        }
        Self { edges }
    }

    /// Returns the number of files.
    pub(crate) fn files(&self) -> usize {
        self.edges.len()
    }

    /// Returns every import that is part of a circle between files, one per line. A module and its own submodules may name
    /// each other.
    pub(crate) fn circles(&self) -> Vec<String> {
        let mut left: BTreeSet<(&str, &str)> =
            (self.edges.iter()).flat_map(|(from, to)| to.keys().map(move |to| (from.as_str(), to.as_str()))).collect();
        left.retain(|(from, to)| !is_below(from, to) && !is_below(to, from));
        loop {
            let before = left.len();
            let (from, to): (BTreeSet<_>, BTreeSet<_>) = left.iter().copied().unzip();
            left.retain(|(one, other)| to.contains(one) && from.contains(other));
            if left.len() == before {
                break;
            }
        }
        left.iter().map(|(from, to)| format!("{from} -> {to}: {}", self.edges[*from][*to])).collect()
    }

    /// Returns the imports between rooms, which are the top-level modules, with one example each.
    pub(crate) fn between_rooms(&self) -> BTreeMap<(String, String), String> {
        let mut found = BTreeMap::new();
        for (from, edges) in self.edges.iter().filter(|(from, _)| *from != "lib.rs") {
            for (to, name) in edges {
                let (one, other) = (room(from), room(to));
                if one != other {
                    found.entry((one, other)).or_insert_with(|| format!("{from} -> {to}: {name}"));
                }
            }
        }
        found
    }

    /// Returns all violations, one per line: circles between files, undeclared imports between rooms, declared ones
    /// that no file uses or that run against the order, and rooms that are missing from the order.
    pub(crate) fn violations(&self, rooms: &[&str], arrows: &[(&str, &str, &str)]) -> Vec<String> {
        let mut wrong: Vec<_> = self.circles().iter().map(|import| format!("circle: {import}")).collect();
        let found = self.between_rooms();
        let declared: BTreeSet<_> = arrows.iter().map(|(from, to, _)| ((*from).to_owned(), (*to).to_owned())).collect();
        for (pair, import) in &found {
            if !declared.contains(pair) {
                wrong.push(format!("undeclared import of {1} by {0}: {import}", pair.0, pair.1));
            }
        }
        let place = |name: &str| rooms.iter().position(|room| *room == name);
        for (from, to, reason) in arrows {
            if !found.contains_key(&((*from).to_owned(), (*to).to_owned())) {
                wrong.push(format!("declared import of {to} by {from} is unused"));
            }
            if place(from).zip(place(to)).is_none_or(|(from, to)| from >= to) {
                wrong.push(format!("declared import of {to} by {from} is against the order"));
            }
            if reason.is_empty() {
                wrong.push(format!("declared import of {to} by {from} has no reason"));
            }
        }
        let all: BTreeSet<_> = self.edges.keys().filter(|file| *file != "lib.rs").map(|file| room(file)).collect();
        wrong.extend(
            all.iter().filter(|room| place(room).is_none()).map(|room| format!("{room} is missing from the order")),
        );
        wrong
    }
}

/// Returns the arrows in the table of a section of ARCHITECTURE.md: rows of two names in backquotes and a reason.
pub(crate) fn documented(architecture: &str, section: &str) -> Vec<(String, String, String)> {
    let lines = architecture.lines().skip_while(|line| *line != section).skip(1);
    let rows =
        lines.take_while(|line| !line.starts_with('#')).map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
    let name = |text: &str| Some(text.strip_prefix('`')?.strip_suffix('`')?.to_owned());
    rows.filter_map(|row| match row[..] {
        ["", from, to, why, ""] => Some((name(from)?, name(to)?, why.to_owned())),
        _ => None,
    })
    .collect()
}

fn room(file: &str) -> String {
    let first = file.split('/').next().unwrap_or(file);
    first.strip_suffix(".rs").unwrap_or(first).to_owned()
}

fn add(modules: &mut Modules, sources: &BTreeMap<String, String>, path: Vec<String>, file: &str) {
    let text = sources.get(file).unwrap_or_else(|| panic!("{file} does not exist"));
    let tokens = without_tests(&tokens(text));
    let mut module = Module { file: file.to_owned(), ..Module::default() };
    let folder = match file.rsplit_once('/') {
        _ if file == "lib.rs" => String::new(),
        Some((folder, "mod.rs")) => format!("{folder}/"),
        _ => format!("{}/", file.strip_suffix(".rs").unwrap_or(file)),
    };
    let token = |at: usize| tokens.get(at).map_or("", String::as_str);
    let mut at = 0;
    while at < tokens.len() {
        match token(at) {
            "mod" if token(at + 2) == ";" => {
                let child = token(at + 1).to_owned();
                let own = [path.clone(), vec![child.clone()]].concat();
                let flat = format!("{folder}{child}.rs");
                let found = if sources.contains_key(&flat) { flat } else { format!("{folder}{child}/mod.rs") };
                add(modules, sources, own, &found);
                module.children.insert(child);
                at += 3;
            }
            // `+ use<>` captures lifetimes.
            "use" if token(at + 1) != "<" => {
                let public = matches!(token(at.wrapping_sub(1)), "pub" | ")");
                let mut leaves = vec![];
                at = tree(&tokens, at + 1, &[], &mut leaves);
                for (leaf, name) in leaves {
                    module.names.insert(name, leaf.clone());
                    // A re-export is no import of its own.
                    if !public {
                        module.paths.push(leaf);
                    }
                }
            }
            "crate" | "self" | "super" if token(at + 1) == "::" => {
                let mut segments = vec![token(at).to_owned()];
                while token(at + 1) == "::" && is_name(token(at + 2)) {
                    segments.push(token(at + 2).to_owned());
                    at += 2;
                }
                module.paths.push(segments);
                at += 1;
            }
            _ => at += 1,
        }
    }
    modules.insert(path, module);
}

/// Returns whether a file belongs to a submodule of the module of the other file.
fn is_below(file: &str, of: &str) -> bool {
    let folder = of.strip_suffix("/mod.rs").or_else(|| of.strip_suffix(".rs")).unwrap_or(of);
    file != of && file.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

/// Parses a `use` tree: each leaf's path with its name in scope. Returns the position after it.
fn tree(tokens: &[String], mut at: usize, before: &[String], leaves: &mut Vec<(Vec<String>, String)>) -> usize {
    let mut path = before.to_vec();
    while let Some(token) = tokens.get(at).map(String::as_str) {
        match token {
            "::" => at += 1,
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|token| token != "}") {
                    at = tree(tokens, at, &path, leaves);
                    at += usize::from(tokens.get(at).is_some_and(|token| token == ","));
                }
                return at + 1;
            }
            "as" => {
                leaves.push((path, tokens.get(at + 1).cloned().unwrap_or_default()));
                return at + 2;
            }
            "*" => at += 1,
            name if is_name(name) => {
                // `path::{self}` is the path.
                if name != "self" || path.is_empty() {
                    path.push(name.to_owned());
                }
                at += 1;
            }
            _ => break,
        }
    }
    let name = path.last().cloned().unwrap_or_default();
    leaves.push((path, name));
    at
}

/// Returns the module that defines what a path names; `None` if it is of another crate.
fn resolve(modules: &Modules, module: &[String], path: &[String], depth: usize) -> Option<Vec<String>> {
    assert!(depth < 32, "circular re-export of {path:?} in {module:?}");
    let mut rest = path;
    let mut at = module.to_vec();
    match path.first()?.as_str() {
        "crate" => (at, rest) = (vec![], &path[1..]),
        "self" => rest = &path[1..],
        "super" => {
            while rest.first().is_some_and(|segment| segment == "super") {
                at.pop()?;
                rest = &rest[1..];
            }
        }
        first if modules[module].children.contains(first) => {}
        _ => return None,
    }
    while let Some((segment, after)) = rest.split_first() {
        let of = &modules[&at];
        if of.children.contains(segment) {
            at.push(segment.clone());
            rest = after;
        } else if let Some(named) = of.names.get(segment).filter(|named| *named != path || at != module) {
            return resolve(modules, &at, named, depth + 1);
        } else {
            break;
        }
    }
    Some(at)
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Splits a text into identifiers and punctuation, without comments, literals and lifetimes.
fn tokens(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let (mut found, mut at) = (vec![], 0);
    let is = |at: usize, c: char| chars.get(at) == Some(&c);
    while let Some(&c) = chars.get(at) {
        if c == '/' && is(at + 1, '/') {
            at = (at..chars.len()).find(|at| chars[*at] == '\n').unwrap_or(chars.len());
        } else if c == '/' && is(at + 1, '*') {
            let mut depth = 0;
            loop {
                match (chars.get(at), chars.get(at + 1)) {
                    (Some('/'), Some('*')) => (depth, at) = (depth + 1, at + 2),
                    (Some('*'), Some('/')) => (depth, at) = (depth - 1, at + 2),
                    (None, _) => break,
                    _ => at += 1,
                }
                if depth == 0 {
                    break;
                }
            }
        } else if c == '"' {
            at = after_string(&chars, at);
        } else if c == '\'' {
            // A character literal, or a lifetime.
            if is(at + 1, '\\') {
                at = (at + 3..chars.len()).find(|at| chars[*at] == '\'').map_or(chars.len(), |at| at + 1);
            } else {
                at += if is(at + 2, '\'') { 3 } else { 1 };
            }
        } else if c.is_alphanumeric() || c == '_' {
            let end = (at..chars.len()).find(|at| !chars[*at].is_alphanumeric() && chars[*at] != '_');
            let end = end.unwrap_or(chars.len());
            let word: String = chars[at..end].iter().collect();
            at = end;
            match word.as_str() {
                "r" | "br" | "cr" if is(at, '"') || (is(at, '#') && matches!(chars.get(at + 1), Some('"' | '#'))) => {
                    at = after_raw_string(&chars, at);
                }
                _ => found.push(word),
            }
        } else if c == ':' && is(at + 1, ':') {
            found.push("::".to_owned());
            at += 2;
        } else {
            if !c.is_whitespace() {
                found.push(c.to_string());
            }
            at += 1;
        }
    }
    found
}

fn after_string(chars: &[char], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(c) = chars.get(at) {
        match c {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    at
}

fn after_raw_string(chars: &[char], start: usize) -> usize {
    let hashes = chars[start..].iter().take_while(|c| **c == '#').count();
    let mut at = start + hashes + 1;
    while at < chars.len() {
        if chars[at] == '"' && chars[at + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes {
            return at + 1 + hashes;
        }
        at += 1;
    }
    at
}

/// Removes items that are compiled for tests only.
fn without_tests(tokens: &[String]) -> Vec<String> {
    let (mut kept, mut at) = (vec![], 0);
    while at < tokens.len() {
        if tokens[at] == "#" && tokens.get(at + 1).is_some_and(|token| token == "[") {
            let end = closing(tokens, at + 1);
            let attribute = &tokens[at..end];
            let negated = attribute.iter().any(|token| token == "not");
            if attribute.iter().any(|t| t == "cfg") && attribute.iter().any(|t| t == "test") && !negated {
                at = after_item(tokens, end);
                continue;
            }
            kept.extend_from_slice(attribute);
            at = end;
        } else {
            kept.push(tokens[at].clone());
            at += 1;
        }
    }
    kept
}

/// Returns the position after the matching closing bracket.
fn closing(tokens: &[String], start: usize) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(start) {
        match token.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    tokens.len()
}

/// Returns the position after the item that begins here, including its further attributes.
fn after_item(tokens: &[String], mut at: usize) -> usize {
    let is_use =
        tokens[at..].iter().take_while(|token| !matches!(token.as_str(), ";" | "{")).any(|token| token == "use");
    while let Some(token) = tokens.get(at) {
        match token.as_str() {
            ";" => return at + 1,
            "{" if !is_use => return closing(tokens, at),
            "(" | "[" | "{" => at = closing(tokens, at),
            _ => at += 1,
        }
    }
    at
}
