//! Module order: which top-level module ("room") may import which, and why.
//!
//! The order is that of the request chain. The test fails on an import against it, on one that is not declared here,
//! and on any circle between files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod imports;

use std::{collections::BTreeMap, path::Path};

use imports::Imports;

/// All rooms, from top to bottom: a room imports only rooms below it.
const ROOMS: [&str; 20] = [
    "run",
    "args",
    "serve",
    "proxy",
    "problem",
    "route",
    "admit",
    "wake",
    "demand",
    "endpoints",
    "body",
    "downstream",
    "hop_by_hop",
    "supervise",
    "metrics",
    "backoff",
    "rate_limit",
    "function_id",
    "keepalive",
    "tcp",
];

/// All imports between rooms: from, to, and the reason.
const ARROWS: &[(&str, &str, &str)] = &[
    ("run", "args", "The process is configured by flags"),
    ("run", "serve", "Binds and runs the listeners and the admin endpoints"),
    ("run", "proxy", "Builds the request chain and closes it at shutdown"),
    ("run", "route", "Builds the routing table and runs the watches that fill it"),
    ("run", "admit", "Builds the context that all breakers share"),
    ("run", "wake", "Chooses how revisions are scaled from zero"),
    ("run", "demand", "Builds the ledger"),
    ("run", "endpoints", "Builds the dialer"),
    ("run", "supervise", "Restarts the certificate reload after a panic"),
    ("run", "metrics", "Builds the registry"),
    ("args", "serve", "Flags set the limits of a listener"),
    ("args", "admit", "Flags set the caps on what is queued"),
    ("args", "rate_limit", "Flags set the rates of wakes"),
    ("serve", "proxy", "Hands each request to the chain"),
    ("serve", "route", "A listener is of the public or the cluster side; readiness follows the watches"),
    ("serve", "demand", "The admin endpoints serve the demand stream"),
    ("serve", "downstream", "Fills in what the chain has to know of the connection"),
    ("serve", "metrics", "Counts TLS failures; the admin endpoints serve the metrics"),
    ("serve", "keepalive", "Client connections have TCP keepalive"),
    ("serve", "tcp", "Reads and writes client connections"),
    ("proxy", "problem", "Writes the responses that do not come from a pod"),
    ("proxy", "route", "First step: the function of a host and path"),
    ("proxy", "admit", "Second step: a permit for a pod, or a ticket in the queue"),
    ("proxy", "endpoints", "Last step: sends the request on a connection to the pod"),
    ("proxy", "body", "Streams both bodies"),
    ("proxy", "downstream", "Reads what is known of the client's connection"),
    ("proxy", "hop_by_hop", "Removes headers of one connection"),
    ("proxy", "metrics", "Counts responses, retries and mirrored requests"),
    ("problem", "admit", "A rejection becomes a problem"),
    ("problem", "function_id", "A problem names its Function"),
    ("route", "admit", "A route leads to the breaker of a function; the watches feed it"),
    ("route", "endpoints", "A watched pod becomes the facts that a breaker reads"),
    ("route", "function_id", "The directory is keyed by Function"),
    ("route", "supervise", "An event that panics does not end a watch"),
    ("route", "metrics", "Panics in the watches are counted"),
    ("admit", "wake", "A queue without a pod asks for one"),
    ("admit", "demand", "Counts what is queued and in flight"),
    ("admit", "endpoints", "A permit is for an endpoint; endpoints that do not serve are probed"),
    ("admit", "function_id", "A breaker is for one Function"),
    ("admit", "supervise", "Restarts a wake task after a panic"),
    ("admit", "metrics", "Counts rejections and wakes"),
    ("admit", "backoff", "Wakes and pods that fail are retried with backoff"),
    ("admit", "rate_limit", "Wakes have a rate"),
    ("demand", "endpoints", "Reads the requests in flight of each pod"),
    ("demand", "metrics", "Is the source of the gauges of demand"),
    ("endpoints", "body", "Connections carry request bodies"),
    ("endpoints", "supervise", "Restarts a probe after a panic"),
    ("endpoints", "metrics", "Counts probes"),
    ("endpoints", "rate_limit", "Probes have a rate"),
    ("endpoints", "keepalive", "Connections to pods have TCP keepalive"),
    ("endpoints", "tcp", "Reads and writes connections to pods"),
    ("body", "hop_by_hop", "Cleans trailers"),
    ("metrics", "function_id", "Counters are kept by Function"),
    ("supervise", "metrics", "Counts panics"),
    ("supervise", "backoff", "Restarts with backoff"),
];

#[test]
fn rooms_import_in_the_order_of_the_request_chain() {
    let imports = Imports::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert!(imports.files() > 50, "only {} files were read", imports.files());
    let violations = imports.violations(&ROOMS, ARROWS);
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
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
