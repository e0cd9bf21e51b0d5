//! The documentation is checked against the code: links, examples, names and commands.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod commands;
mod current;
mod links;
mod names;
mod sizing;
mod yaml;
