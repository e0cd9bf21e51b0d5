//! Every relative link and anchor resolves, within the book or the checkout.

use std::path::{Component, Path, PathBuf};

use rouse_docs::{
    book::{Document, documents, pages},
    checkout,
};

/// `a/b/../c` as `a/c`; `None` if it leaves the checkout.
fn normal(path: &Path) -> Option<PathBuf> {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir if !out.pop() => return None,
            _ => {}
        }
    }
    Some(out)
}

/// What is wrong with a link of `document`, if anything is.
fn broken(root: &Path, document: &Document, link: &str) -> Option<String> {
    if ["https://", "http://", "mailto:"].iter().any(|scheme| link.starts_with(scheme)) {
        return None;
    }
    let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
    let folder = document.path.parent().unwrap_or_else(|| Path::new(""));
    let target = if file.is_empty() { Some(document.path.clone()) } else { normal(&folder.join(file)) };
    let Some(target) = target.filter(|target| root.join(target).exists()) else {
        return Some("no such file".to_owned());
    };
    if document.path.starts_with("docs") && !target.starts_with("docs") {
        return Some("leads out of the book".to_owned());
    }
    if anchor.is_empty() {
        return None;
    }
    let there = Document::read(root, target).ok()?;
    (!there.anchors().iter().any(|a| a == anchor)).then(|| format!("no heading `{anchor}` there"))
}

#[test]
fn every_link_resolves() {
    let root = checkout();
    let mut count = 0;
    let mut wrong = vec![];
    for document in documents(&root).unwrap() {
        for (line, link) in document.links() {
            count += 1;
            if let Some(why) = broken(&root, &document, link) {
                wrong.push(format!("{}:{line}: {link}: {why}", document.path.display()));
            }
        }
    }
    assert!(count > 50, "only {count} links were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_summary_lists_every_page() {
    let root = checkout();
    let summary = Document::read(&root, "docs/SUMMARY.md").unwrap();
    let listed: Vec<_> = summary.links().into_iter().map(|(_, link)| Path::new("docs").join(link)).collect();
    for page in pages(&root).unwrap() {
        let times = listed.iter().filter(|path| **path == page.path).count();
        let expected = usize::from(page.path != summary.path);
        assert_eq!(times, expected, "{} is listed {times} times in docs/SUMMARY.md", page.path.display());
    }
    assert_eq!(listed.len(), pages(&root).unwrap().len() - 1);
}
