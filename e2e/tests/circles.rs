//! No circle of imports between the files of any crate. The activator and the operator have an order of their modules as well:
//! `tests/rooms.rs` of each.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../../activator/tests/imports/mod.rs"]
mod imports;

use std::{collections::BTreeMap, path::Path};

use imports::{Imports, documented};

/// Every crate of the workspace, by its folder, and a number of files that it has at least: fewer were read if it moved.
const CRATES: [(&str, usize); 9] = [
    ("activator", 50),
    ("crds", 10),
    ("e2e", 40),
    ("e2e/docs", 5),
    ("e2e/load", 5),
    ("e2e/sim", 25),
    ("examples/hello", 1),
    ("operator", 50),
    ("operator/autoscaler", 10),
];

#[test]
fn no_crate_has_a_circle_between_files() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut circles = vec![];
    for (name, files) in CRATES {
        let imports = Imports::read(&root.join(name).join("src"));
        assert!(imports.files() >= files, "{name}: only {} files were read", imports.files());
        circles.extend(imports.circles().into_iter().map(|import| format!("{name}/src/{import}")));
    }
    assert!(circles.is_empty(), "\n{}", circles.join("\n"));
}

#[test]
fn every_crate_of_the_workspace_is_read() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let manifest = std::fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let members = manifest.lines().find_map(|line| line.strip_prefix("members = [")).unwrap();
    let mut members: Vec<_> =
        members.trim_end_matches(']').split(',').map(|name| name.trim().trim_matches('"')).collect();
    members.sort_unstable();
    assert_eq!(members, CRATES.map(|(name, _)| name));
}

fn of(files: &[(&str, &str)]) -> Imports {
    Imports::of(&files.iter().map(|(file, text)| ((*file).to_owned(), (*text).to_owned())).collect::<BTreeMap<_, _>>())
}

#[test]
fn circles_are_found_through_re_exports_and_outside_of_use() {
    let files = of(&[
        ("lib.rs", "pub mod a; mod b;"),
        ("a/mod.rs", "mod one; mod two; pub use self::{one::One, two::Two as Second};"),
        ("a/one.rs", "use std::{fmt, crate_::x}; use super::two; pub struct One(crate::b::B);"),
        ("a/two.rs", "pub struct Two;"),
        ("b.rs", "/* use nothing::of /* this */ */ pub(crate) struct B; fn f() { let _ = crate::a::Second; }"),
    ]);
    assert_eq!(files.circles(), [""; 0]);
    let arrows: Vec<_> = files.between_rooms().into_values().collect();
    assert_eq!(arrows, ["a/one.rs -> b.rs: crate::b::B", "b.rs -> a/two.rs: crate::a::Second"]);

    let files = of(&[
        ("lib.rs", "mod a; mod b; mod c;"),
        ("a/mod.rs", "mod one; pub(crate) use one::One; use self::one::helper;"),
        ("a/one.rs", "use crate::b;"),
        ("b.rs", "fn f<'a>(_: &'a str) -> char { let _: super::a::One; '\"' }"),
        ("c.rs", "use crate::{a::{self, One as Other}, b::*};"),
    ]);
    assert_eq!(files.circles(), ["a/one.rs -> b.rs: crate::b", "b.rs -> a/one.rs: super::a::One"]);
}

#[test]
fn code_of_tests_comments_and_literals_imports_nothing() {
    let files = of(&[
        ("lib.rs", "mod a; mod b; #[cfg(test)] mod tests;"),
        (
            "a.rs",
            "// use crate::b;\n const S: &str = \"crate::b\\\"::c\"; const R: &str = r#\"use \"crate::b\";\"#;\n\
             #[cfg(any(test, fuzzing))] #[doc(hidden)] pub mod fuzzing;\n\
             #[cfg(test)] use crate::{b::B};\n #[cfg(test)] mod tests { use crate::b; fn f() {} }\n fn g() {}",
        ),
        ("b.rs", "use crate::a;"),
    ]);
    assert_eq!(files.circles(), [""; 0]);
    assert_eq!(files.files(), 3);
}

#[test]
fn imports_against_the_order_are_named() {
    let files =
        of(&[("lib.rs", "mod a; mod b; mod c;"), ("a.rs", ""), ("b.rs", "use crate::a;"), ("c.rs", "use crate::a;")]);
    assert_eq!(files.violations(&["c", "b", "a"], &[("b", "a", "why"), ("c", "a", "why")]), [""; 0]);
    let wrong = files.violations(&["a", "b"], &[("b", "a", ""), ("a", "b", "why")]);
    assert_eq!(
        wrong,
        [
            "undeclared import of a by c: c.rs -> a.rs: crate::a",
            "declared import of a by b is against the order",
            "declared import of a by b has no reason",
            "declared import of b by a is unused",
            "c is missing from the order",
        ]
    );
}

#[test]
fn siblings_in_a_circle_are_found_and_a_parent_and_its_child_are_none() {
    let circle = of(&[
        ("lib.rs", "mod a;"),
        ("a.rs", "mod one; mod two; use one::One;"),
        ("a/one.rs", "use super::two::Two; use super::Parent;"),
        ("a/two.rs", "fn f() { crate::a::one::g() }"),
    ]);
    assert_eq!(circle.circles(), ["a/one.rs -> a/two.rs: super::two::Two", "a/two.rs -> a/one.rs: crate::a::one::g"]);
    let family = of(&[("lib.rs", "mod a;"), ("a.rs", "mod one; use one::One;"), ("a/one.rs", "use super::Parent;")]);
    assert_eq!(family.circles(), [""; 0]);
}

#[test]
fn the_table_of_a_section_is_read() {
    let text = "## B\n| `x` | `y` | no |\n## A\n\n| from | to | why |\n|---|---|---|\n| `a` | `b` | Why not |\n### C\n| `c` | `d` | e |\n";
    assert_eq!(documented(text, "## A"), [("a".to_owned(), "b".to_owned(), "Why not".to_owned())]);
    assert_eq!(documented(text, "## D"), []);
}
