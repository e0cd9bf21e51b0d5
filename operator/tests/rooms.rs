//! Import rules between the rooms of this crate, which are its top-level modules.
//!
//! Fails on an import against the order, an import that is not declared here, and a circle between files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../../activator/tests/imports/mod.rs"]
mod imports;

use std::path::Path;

use imports::{Imports, documented};

/// From top to bottom: each room imports only rooms below it.
const ROOMS: [&str; 13] = [
    "operator",
    "admin",
    "args",
    "ingress",
    "function",
    "scaler",
    "hosts",
    "leader",
    "workloads",
    "cluster",
    "spec",
    "runtime",
    "telemetry",
];

/// Which room imports which other, and why.
const ARROWS: &[(&str, &str, &str)] = &[
    ("operator", "admin", "Serves the admin endpoints on every replica"),
    ("operator", "args", "The process is configured by flags"),
    ("operator", "ingress", "Runs the loop of the shared Ingresses on the leader"),
    ("operator", "function", "Runs the reconciler on the leader"),
    ("operator", "scaler", "Runs the scaler on the leader"),
    ("operator", "hosts", "Builds the claims that reconciler and ingress loop share"),
    ("operator", "leader", "Takes part in the election"),
    ("operator", "cluster", "Fills the caches and distributes what has changed"),
    ("operator", "runtime", "Runs queues and workers"),
    ("operator", "telemetry", "Builds metrics and the event recorder"),
    ("admin", "scaler", "/debug explains decisions"),
    ("admin", "cluster", "/readyz asks the caches"),
    ("admin", "runtime", "/livez asks the loops"),
    ("admin", "telemetry", "/metrics"),
    ("args", "function", "Flags set the defaults of pods"),
    ("args", "ingress", "Flags choose the ingress mode and its TLS Secrets"),
    ("args", "hosts", "Flags set default hosts and URLs"),
    ("ingress", "hosts", "Only hosts that a Function owns become rules"),
    ("ingress", "cluster", "Reads Functions, Ingresses and HTTPRoutes"),
    ("ingress", "runtime", "Retries with backoff, requeues Functions, reports liveness"),
    ("ingress", "telemetry", "Records whether the ingress accepts the rules"),
    ("function", "hosts", "Reports lost hosts; builds URLs"),
    ("function", "workloads", "Conditions and rollouts follow the state of pods and the results of requests"),
    ("function", "cluster", "Reads the caches, writes through the client"),
    ("function", "spec", "Validates schedules; validation errors and container hashes"),
    ("function", "runtime", "Retries with backoff"),
    ("function", "telemetry", "Counts reconciles, records Events"),
    (
        "scaler",
        "workloads",
        "Decides from Deployments, pods and what a rollout asks for; records the results of requests",
    ),
    ("scaler", "cluster", "Reads the caches, writes through the client"),
    ("scaler", "spec", "Evaluates schedules"),
    ("scaler", "runtime", "Has a queue, retries with backoff"),
    ("scaler", "telemetry", "Counts decisions, records Events"),
    ("hosts", "cluster", "Claims are filed by the key of a Function"),
    ("leader", "runtime", "Reports liveness"),
    ("workloads", "cluster", "Is read from the caches"),
    ("cluster", "telemetry", "The client counts writes"),
];

#[test]
fn rooms_import_in_the_declared_order() {
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
    assert_eq!(documented(&text, "### Operator"), declared);
}
