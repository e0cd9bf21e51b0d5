//! Runs the simulator of the autoscaler, a separate program, since it must be compiled with optimization.

use std::{ffi::OsString, process::Stdio};

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;

use crate::Places;

/// Compiles and runs the simulator.
///
/// # Errors
///
/// If it cannot be compiled, or fails.
pub async fn sim(places: &Places, arguments: Vec<OsString>) -> Result<()> {
    let mut cargo = cargo_run(places, "rouse-sim");
    cargo.arg("--").args(arguments);
    let status = cargo.status().await.context("Cannot run cargo")?;
    ensure!(status.success(), "The simulation failed ({status})");
    Ok(())
}

/// Returns a command that compiles a program of the simulator's package with optimization and runs it in the current folder.
pub(crate) fn cargo_run(places: &Places, program: &str) -> Command {
    let mut cargo = Command::new("cargo");
    cargo.args(["run", "--release", "--quiet", "--package", "rouse-sim", "--bin", program, "--manifest-path"]);
    cargo.arg(places.repo.join("Cargo.toml")).stdin(Stdio::null()).kill_on_drop(true);
    // Removes the variables that the outer cargo sets for `cargo e2e`.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST") {
            cargo.env_remove(name.as_ref());
        }
    }
    cargo
}
