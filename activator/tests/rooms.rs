//! Module order: which top-level module ("room") may import which, and why.
//!
//! The order is that of the request chain. The test fails on an import against it, on one that is not declared here,
//! and on any circle between files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod imports;

use std::path::Path;

use imports::{Imports, documented};

/// All rooms, from top to bottom: a room imports only rooms below it.
const ROOMS: [&str; 23] = [
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
    "overload",
    "resources",
    "backoff",
    "rate_limit",
    "function_id",
    "keepalive",
    "tcp",
    "http2",
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
    ("run", "supervise", "Restarts background tasks after a panic"),
    ("run", "metrics", "Builds the registry"),
    ("run", "overload", "Builds the overload manager"),
    ("run", "resources", "Derives the limits of the process from its memory and open files"),
    ("args", "serve", "Flags set the limits of a listener"),
    ("args", "resources", "Flags replace derived limits"),
    ("args", "admit", "Flags set the caps on what is queued"),
    ("args", "downstream", "Flags name the trusted proxies"),
    ("args", "rate_limit", "Flags set the rates of wakes"),
    ("serve", "proxy", "Hands each request to the chain"),
    ("serve", "route", "A listener is of the public or the cluster side; readiness follows the watches"),
    ("serve", "demand", "The admin endpoints serve the demand stream"),
    ("serve", "endpoints", "Readiness follows the age of the watch of pods"),
    ("serve", "downstream", "Fills in what the chain has to know of the connection"),
    ("serve", "metrics", "Counts connections and TLS failures; the admin endpoints serve the metrics"),
    ("serve", "problem", "A refused connection gets a problem"),
    ("serve", "overload", "The stage of memory pressure decides which connections are refused or closed"),
    ("serve", "resources", "Reads the memory in use; keeps spare file descriptors"),
    ("serve", "rate_limit", "Reviews of readers' tokens have a rate"),
    ("serve", "keepalive", "Client connections have TCP keepalive"),
    ("serve", "tcp", "Reads and writes client connections"),
    ("serve", "http2", "Announces the windows of uploads"),
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
    ("route", "backoff", "A watch that fails is restarted with backoff"),
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
    ("endpoints", "http2", "Reads what a pod announces"),
    ("body", "downstream", "Renews the window of an upload"),
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

#[test]
fn the_architecture_names_the_same_imports() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = std::fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    let declared: Vec<_> = ARROWS.iter().map(|(from, to, why)| ((*from).into(), (*to).into(), (*why).into())).collect();
    assert_eq!(documented(&text, "### Activator"), declared);
}
