//! Generated pages are current, and the README repeats figures of the benchmark page only.

use rouse_docs::{book::Document, checkout, pages};

#[test]
fn generated_pages_are_current() {
    let root = checkout();
    let stale: Vec<_> = pages(&root)
        .unwrap()
        .into_iter()
        .filter(|page| std::fs::read_to_string(root.join(page.path)).ok().as_deref() != Some(&page.content))
        .map(|page| page.path)
        .collect();
    assert!(stale.is_empty(), "not current, run `cargo e2e generate`: {stale:?}");
}

#[test]
fn every_figure_of_the_readme_is_on_the_benchmark_page() {
    let root = checkout();
    let benchmarks = Document::read(&root, "docs/benchmarks.md").unwrap();
    let known: Vec<_> = benchmarks.prose().map(|(_, line)| line).collect();
    let readme = Document::read(&root, "README.md").unwrap();
    let rows: Vec<_> = readme
        .prose()
        .filter(|(_, line)| line.starts_with('|') && line.contains(|c: char| c.is_ascii_digit()))
        .collect();
    assert!(rows.len() > 5, "the README has lost its figures: {rows:?}");
    for (at, row) in rows {
        assert!(known.contains(&row), "README.md:{at} is not a row of docs/benchmarks.md: {row}");
    }
}
